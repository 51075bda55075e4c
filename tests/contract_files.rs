//! The contract of opening: what it does to whatever lies at the path, and to damaged and foreign files.
//!
//! A refusal has the right type, names what a person needs, and leaves the disk as it was (directories are compared
//! byte for byte, modification times included).

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::{contents, copy_store, open, quiet, refused, says, snapshot, tiny_options};
use tophash::{Error, Options, SyncPolicy};

// ---- what lies at the path ----

#[test]
fn other_peoples_files_are_left_alone() {
    let dir = common::scratch();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "a file").unwrap();
    fs::create_dir(at("documents")).unwrap();
    fs::write(at("documents/letter.txt"), "Dear Sir or Madam").unwrap();
    for (name, bytes) in [("text", &b"an index of something else"[..]), ("empty", b""), ("long", &[7; 20_000])] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("index"), bytes).unwrap();
    }
    // Looks like what an interrupted creation leaves, but holds a segment.
    fs::create_dir_all(at("log/log-1")).unwrap();
    fs::write(at("log/log-1/00000001.log"), "records?").unwrap();
    for name in ["file", "documents", "text", "empty", "long", "log"] {
        for options in [Options::new(), Options::new().create_new(true), Options::new().create(false)] {
            let error = refused(&options, &at(name), dir.path());
            let there_is_one = matches!(error, Error::AlreadyExists { .. }) && name != "documents" && name != "file";
            assert!(matches!(error, Error::NotAStore { .. }) || there_is_one, "{name}: {error}");
            says(&error, &[name]);
        }
        let error = refused(&Options::new().read_only(true), &at(name), dir.path());
        assert!(matches!(error, Error::NotAStore { .. }), "{name}: {error}");
    }
    says(&refused(&Options::new(), &at("documents"), dir.path()), &["letter.txt"]);

    let error = refused(&Options::new(), &at("missing/store"), dir.path());
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // A link in place of the index is not followed.
    fs::create_dir(at("linked")).unwrap();
    std::os::unix::fs::symlink(at("long").join("index"), at("linked/index")).unwrap();
    let error = refused(&Options::new(), &at("linked"), dir.path());
    assert!(matches!(error, Error::Io { .. } | Error::NotAStore { .. }), "{error}");
}

#[test]
fn creation_is_asked_for_or_refused() {
    let dir = common::scratch();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    for name in ["missing", "empty"] {
        for options in [Options::new().create(false), Options::new().read_only(true)] {
            let error = refused(&options, &at(name), dir.path());
            assert!(matches!(error, Error::NotFound { .. }), "{name}: {error}");
            says(&error, &[name]);
        }
        assert!(!at("missing").exists());
    }
    for name in ["missing", "empty"] {
        open(&Options::new().create_new(true), &at(name)).insert("key", "value").unwrap();
        let error = refused(&Options::new().create_new(true), &at(name), dir.path());
        assert!(matches!(error, Error::AlreadyExists { .. }), "{name}: {error}");
        let store = open(&Options::new().create(false), &at(name));
        assert_eq!(store.get("key").unwrap().unwrap(), &b"value"[..]);
    }
    // Only its owner may read a store.
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o077;
    assert_eq!((mode("missing"), mode("missing/index"), mode("missing/log-1")), (0, 0, 0));
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may write everywhere");
        return;
    }
    let dir = common::scratch();
    let path = dir.path().join("locked");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
    let error = refused(&Options::new(), &path, dir.path());
    assert!(matches!(error, Error::Io { .. }), "{error}");
    says(&error, &["locked"]);
}

// ---- damaged and foreign files ----

/// A clean store with a few segments of known content.
fn sample(dir: &Path, name: &str) -> (PathBuf, std::collections::BTreeMap<Vec<u8>, Vec<u8>>) {
    let path = dir.join(name);
    let store = open(&tiny_options(), &path);
    for i in 0..300u32 {
        store.insert(i.to_le_bytes(), common::bytes(60, u64::from(i) ^ name.len() as u64)).unwrap();
    }
    store.insert("blob", common::bytes(2500, 1)).unwrap();
    let found = contents(&store);
    store.close().unwrap();
    assert!(common::segments(&path).len() > 3);
    (path, found)
}

/// Opening a store must fail, and change no byte of it.
fn store_refused(options: &Options, path: &Path) -> Error {
    let before = snapshot(path).but_for_opening();
    let error = options.open(path).expect_err("the open should be refused");
    assert_eq!(snapshot(path).but_for_opening(), before, "a refused open changed something: {error}");
    error
}

/// Both ways of opening must fail; returns both errors.
fn both_refused(path: &Path) -> [Error; 2] {
    [store_refused(&tiny_options(), path), refused(&tiny_options().read_only(true), path, path)]
}

/// Changes a header slot of the index file and mends its checksum.
fn edit_header(path: &Path, slot: u64, edit: impl FnOnce(&mut [u8])) {
    let index = File::options().read(true).write(true).open(path.join("index")).unwrap();
    let mut page = vec![0; 4096];
    index.read_exact_at(&mut page, slot * 4096).unwrap();
    edit(&mut page);
    page[16..20].fill(0);
    let crc = crc32fast::hash(&page);
    page[16..20].copy_from_slice(&crc.to_le_bytes());
    index.write_all_at(&page, slot * 4096).unwrap();
}

#[test]
fn one_damaged_header_slot_is_survived_two_are_not() {
    let dir = common::scratch();
    let (path, expected) = sample(dir.path(), "store");
    for slots in [&[0][..], &[1], &[0, 1]] {
        for at in [0, 17, 60, 100, 4000] {
            let damaged = dir.path().join("damaged");
            copy_store(&path, &damaged);
            slots.iter().for_each(|slot| common::flip_bit(&damaged.join("index"), slot * 4096 + at, 3));
            if slots.len() == 2 {
                for error in both_refused(&damaged) {
                    let kind =
                        matches!(error, Error::Corrupt { .. }) || at == 0 && matches!(error, Error::NotAStore { .. });
                    assert!(kind, "byte {at}: {error}");
                    says(&error, &["index"]);
                }
            } else {
                assert!(contents(&open(&tiny_options().read_only(true), &damaged)) == expected);
                let store = open(&tiny_options(), &damaged);
                assert!(contents(&store) == expected, "slot {slots:?} byte {at}");
                store.insert("goes", "on").unwrap();
                store.close().unwrap();
                assert_eq!(open(&tiny_options(), &damaged).len(), expected.len() as u64 + 1);
            }
            fs::remove_dir_all(damaged).unwrap();
        }
    }
}

#[test]
fn newer_formats_are_named() {
    let dir = common::scratch();
    let (path, expected) = sample(dir.path(), "store");
    for slots in [&[0][..], &[1], &[0, 1]] {
        let newer = dir.path().join("newer");
        copy_store(&path, &newer);
        slots
            .iter()
            .for_each(|&slot| edit_header(&newer, slot, |page| page[8..12].copy_from_slice(&2u32.to_le_bytes())));
        for error in both_refused(&newer) {
            assert!(matches!(error, Error::NewerFormat { found: 2, supported: 1, access: "read", .. }), "{error}");
        }
        slots.iter().for_each(|&slot| {
            edit_header(&newer, slot, |page| {
                page[8..12].copy_from_slice(&1u32.to_le_bytes());
                page[12..16].copy_from_slice(&5u32.to_le_bytes());
            });
        });
        // Whoever only reads may go on.
        assert!(contents(&open(&tiny_options().read_only(true), &newer)) == expected);
        let error = store_refused(&tiny_options(), &newer);
        assert!(matches!(error, Error::NewerFormat { found: 5, supported: 1, access: "write", .. }), "{error}");
        fs::remove_dir_all(newer).unwrap();
    }
    // A segment can be of a newer version, too.
    let last = common::segments(&path).pop().unwrap();
    let file = File::options().read(true).write(true).open(&last).unwrap();
    file.write_all_at(&9u32.to_le_bytes(), 8).unwrap();
    // A version is believed only of a whole header: a rotten one was told as a newer format once, with the advice to use a
    // newer build.
    for error in both_refused(&path) {
        assert!(matches!(error, Error::Corrupt { what: "segment header", .. }), "{error}");
    }
    let mut header = [0; 128];
    file.read_exact_at(&mut header, 0).unwrap();
    header[12..16].fill(0);
    let crc = crc32fast::hash(&header);
    file.write_all_at(&crc.to_le_bytes(), 12).unwrap();
    for error in both_refused(&path) {
        assert!(matches!(error, Error::NewerFormat { found: 9, .. }), "{error}");
        says(&error, &[".log"]);
    }
}

#[test]
fn files_of_another_store_are_noticed() {
    let dir = common::scratch();
    let (path, expected) = sample(dir.path(), "store");
    let (other, _) = sample(dir.path(), "another");
    let mixed = dir.path().join("mixed");
    let with = |damage: &dyn Fn(&Path)| {
        let _ = fs::remove_dir_all(&mixed);
        copy_store(&path, &mixed);
        damage(&mixed);
    };
    let last = |store: &Path| common::segments(store).pop().unwrap();
    // In the place of the segment that is written to, and as one that follows it.
    let in_place = |mixed: &Path| _ = fs::copy(last(&other), last(mixed)).unwrap();
    let behind = |mixed: &Path| _ = fs::copy(last(&other), mixed.join("log-1/00000999.log")).unwrap();
    let header = |mixed: &Path| {
        let mut page = [0; 4096];
        File::open(other.join("index")).unwrap().read_exact_at(&mut page, 4096).unwrap();
        File::options().write(true).open(mixed.join("index")).unwrap().write_all_at(&page, 4096).unwrap();
    };
    let index = |mixed: &Path| common::copy_file(&other.join("index"), &mixed.join("index")).unwrap();
    for damage in [&in_place as &dyn Fn(&Path), &behind, &header, &index] {
        with(damage);
        for error in both_refused(&mixed) {
            assert!(matches!(error, Error::WrongStore { .. }) && error.is_corruption(), "{error}");
            says(&error, &["mixed", "restore"]);
        }
    }
    // An older segment is found out by its records: they validate in their own store only.
    with(&|mixed| _ = fs::copy(&common::segments(&other)[1], &common::segments(mixed)[1]).unwrap());
    match tiny_options().open(&mixed) {
        Err(error) => assert!(error.is_corruption(), "{error}"),
        Ok(store) => {
            let mut damaged = 0;
            for (key, value) in &expected {
                match store.get(key) {
                    Ok(found) => assert_eq!(found.as_deref(), Some(&value[..])),
                    Err(error) => {
                        assert!(error.is_corruption(), "{error}");
                        damaged += 1;
                    }
                }
            }
            assert!(damaged > 0);
        }
    }
}

#[test]
fn missing_and_shortened_files_are_noticed() {
    let dir = common::scratch();
    let (path, _) = sample(dir.path(), "store");
    let damaged = dir.path().join("damaged");
    let segments = common::segments(&path).len();
    for number in 0..segments {
        for shortened in [false, true] {
            copy_store(&path, &damaged);
            let segment = &common::segments(&damaged)[number];
            if shortened {
                File::options().write(true).open(segment).unwrap().set_len(1000).unwrap();
            } else {
                fs::remove_file(segment).unwrap();
            }
            for error in both_refused(&damaged) {
                let missing = matches!(error, Error::Io { .. }) && !shortened;
                assert!(missing || error.is_corruption(), "segment {number}, shortened {shortened}: {error}");
                says(&error, &[segment.file_name().unwrap().to_str().unwrap()]);
            }
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    copy_store(&path, &damaged);
    fs::remove_file(damaged.join("journal")).unwrap();
    for error in both_refused(&damaged) {
        assert!(matches!(error, Error::Io { .. }), "{error}");
        says(&error, &["journal"]);
    }
    fs::remove_dir_all(&damaged).unwrap();
    copy_store(&path, &damaged);
    File::options().write(true).open(damaged.join("index")).unwrap().set_len(140 * 4096).unwrap();
    for error in both_refused(&damaged) {
        assert!(error.is_corruption(), "{error}");
        says(&error, &["index"]);
    }
}

#[test]
fn lost_records_that_were_durable_are_not_passed_over() {
    let dir = common::scratch();
    let (original, path) = (dir.path().join("original"), dir.path().join("store"));
    // Every record is synced, none is in the index file: a tail of several segments full of marks.
    let options = tiny_options().checkpoint_bytes(1 << 30).sync(SyncPolicy::Always);
    let store = open(&options, &original);
    (0..200u32).for_each(|i| drop(store.insert(i.to_le_bytes(), [7; 60]).unwrap()));
    let count = common::segments(&original).len();
    assert!(count > 4);
    for number in 0..count - 1 {
        for damage in 0..3 {
            copy_store(&original, &path);
            let segment = &common::segments(&path)[number];
            match damage {
                0 => common::flip_bit(segment, 1000, 0),
                1 => File::options().write(true).open(segment).unwrap().set_len(2000).unwrap(),
                _ => fs::remove_file(segment).unwrap(),
            }
            for error in [store_refused(&options, &path), refused(&options.clone().read_only(true), &path, &path)] {
                // No write of ours leaves a file that ends within a page: that is told before anything is read.
                let is_told = match damage {
                    1 => matches!(error, Error::Corrupt { .. }),
                    _ => matches!(error, Error::LostData { .. }),
                };
                assert!(is_told, "segment {number}, damage {damage}: {error}");
                says(&error, &["log-1", "verify"]);
            }
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

#[test]
fn a_rotten_record_is_an_error_and_never_a_wrong_value() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = open(&quiet(), &path);
    let records: Vec<(Vec<u8>, Vec<u8>)> = (0..12u8)
        .map(|i| (format!("key number {i}").into_bytes(), common::bytes(usize::from(i) * 5, i.into())))
        .collect();
    records.iter().for_each(|(key, value)| drop(store.insert(key, value).unwrap()));
    let end = store.stats().log.end_lsn & 0xffff_ffff;
    store.close().unwrap();
    let segment = common::segments(&path)[0].clone();

    let mut noticed = 0;
    for offset in 128..end {
        let bit = (offset % 8) as u8;
        common::flip_bit(&segment, offset, bit);
        let store = open(&quiet(), &path);
        let mut damaged = 0;
        for (key, value) in &records {
            match store.get(key) {
                Ok(found) => assert_eq!(found.as_deref(), Some(&value[..]), "byte {offset}"),
                Err(error) => {
                    let Error::Corrupt { location, .. } = &error else { panic!("byte {offset}: {error}") };
                    let at = location.offset.expect("an offset");
                    assert!(location.path.ends_with("00000001.log") && at <= offset && offset < at + 128, "{error}");
                    says(&error, &["00000001.log", &at.to_string(), "expected", "found", "verify"]);
                    assert!(store.insert(key, "new").is_err(), "a damaged record is not overwritten");
                    assert!(store.remove(key).is_err() && store.contains_key(key).is_err());
                    damaged += 1;
                }
            }
        }
        // Iteration reports it and goes on with the next.
        let (good, bad) = store.iter().fold((0, 0), |(good, bad), entry| match entry {
            Ok(_) => (good + 1, bad),
            Err(_) => (good, bad + 1),
        });
        assert_eq!((good, bad), (records.len() - damaged, damaged), "byte {offset}");
        noticed += damaged;
        drop(store);
        common::flip_bit(&segment, offset, bit);
    }
    // All but the padding between records and the sync mark is covered.
    assert!(noticed as u64 > (end - 128) / 2, "{noticed} of {} bytes", end - 128);
    assert_eq!(contents(&open(&quiet(), &path)), records.into_iter().collect());
}

#[test]
fn unverified_reads_return_what_is_there() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = open(&quiet(), &path);
    store.insert("the key", "the precious value").unwrap();
    store.close().unwrap();
    let segment = common::segments(&path)[0].clone();
    let key_at = common::find_bytes(&segment, b"the key").unwrap();
    common::flip_bit(&segment, key_at + 7 + 4, 0);
    let trusting = quiet().verify_reads(false);
    assert_eq!(open(&trusting, &path).get("the key").unwrap().unwrap(), &b"the qrecious value"[..]);
    assert!(matches!(open(&quiet(), &path).get("the key"), Err(Error::Corrupt { .. })));
    // A rotten key is an error or absent, not another key.
    common::flip_bit(&segment, key_at, 0);
    let store = open(&trusting, &path);
    assert!(!matches!(store.get("the key"), Ok(Some(_))));
    assert!(!matches!(store.get("uhe key"), Ok(Some(_))));
}

#[test]
fn a_rotten_blob_is_an_error() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let value = common::bytes(3000, 5);
    let store = open(&tiny_options(), &path);
    store.insert("blob", &value).unwrap();
    store.insert("other", "small").unwrap();
    store.close().unwrap();
    let blob = common::files(&path).into_iter().find(|name| name.extension().is_some_and(|e| e == "blob")).unwrap();
    let blob = path.join(blob);
    let is_damaged = |what: &str| {
        for options in [tiny_options(), tiny_options().read_only(true)] {
            let store = open(&options, &path);
            let error = store.get("blob").expect_err(what);
            assert!(matches!(error, Error::Corrupt { what: "blob", .. }), "{what}: {error}");
            says(&error, &["log-1"]);
            assert_eq!(store.get("other").unwrap().unwrap(), &b"small"[..]);
        }
    };
    for offset in [0, 8, 13, 20, 35, 45, 50, 64, 1000, 3063] {
        common::flip_bit(&blob, offset, 6);
        is_damaged(&format!("byte {offset}"));
        common::flip_bit(&blob, offset, 6);
    }
    let bytes = fs::read(&blob).unwrap();
    fs::write(&blob, &bytes[..2000]).unwrap();
    is_damaged("shortened");
    fs::write(&blob, [&bytes[..], b"more"].concat()).unwrap();
    is_damaged("lengthened");
    fs::remove_file(&blob).unwrap();
    is_damaged("deleted");
    fs::write(&blob, &bytes).unwrap();
    assert_eq!(open(&tiny_options(), &path).get("blob").unwrap().unwrap(), &value[..]);
}
