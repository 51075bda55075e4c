//! Media that cannot be written.

use std::io;

use tophash::{Error, Options};

use crate::common::{self, contents, open, snapshot};
use crate::mounts::{Mount, for_test};

fn is_read_only(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

fn read_only_media(name: &str, mount: Result<Mount, String>) {
    let Some(mount) = for_test(name, mount) else { return };
    let (clean, crashed) = (mount.path().join("clean"), mount.path().join("crashed"));
    let store = open(&common::tiny_options(), &clean);
    for n in 0..300u32 {
        store.insert(n.to_le_bytes(), [3; 50]).unwrap();
    }
    store.insert("blob", vec![5; 50_000]).unwrap();
    let expected = contents(&store);
    // As if the process had died: there is a tail to replay.
    common::copy_store(&clean, &crashed);
    store.close().unwrap();

    mount.set_read_only(true);
    for path in [&clean, &crashed] {
        let before = snapshot(path);
        let store = open(&common::tiny_options().read_only(true), path);
        assert_eq!(contents(&store), expected);
        assert!(matches!(store.insert("key", "value"), Err(Error::ReadOnly { .. })));
        drop(store);
        assert!(tophash::verify::verify(path).unwrap().findings.is_empty());
        for error in [common::tiny_options().open(path).unwrap_err(), tophash::compact::compact(path).unwrap_err()] {
            assert!(is_read_only(&error), "{error}");
        }
        let outside = common::scratch();
        tophash::repair::repair(path, outside.path().join("new")).unwrap();
        assert_eq!(contents(&open(&Options::new(), &outside.path().join("new"))), expected);
        assert_eq!(snapshot(path), before);
    }
    for path in [mount.path().join("new"), mount.path().to_path_buf()] {
        let error = Options::new().open(path).unwrap_err();
        assert!(is_read_only(&error) || matches!(error, Error::NotAStore { .. }), "{error}");
    }

    mount.set_read_only(false);
    for path in [&clean, &crashed] {
        let store = open(&common::tiny_options(), path);
        assert_eq!(contents(&store), expected);
        store.close().unwrap();
    }
}

#[test]
fn a_read_only_tmpfs() {
    read_only_media("a_read_only_tmpfs", Mount::tmpfs(8 << 10));
}

#[test]
fn a_read_only_ext4() {
    read_only_media("a_read_only_ext4", Mount::ext4(12));
}
