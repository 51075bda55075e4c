//! What the errors say, and what follows from them.

use super::*;

#[test]
fn the_nature_of_an_error_is_what_may_follow_from_it() {
    use rustix::io::Errno;
    let path = Path::new("s/index");
    let io = |action, errno: Errno| Error::io(action, path, errno.into());
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOSPC, Errno::DQUOT] {
        for action in ["open", "map", "allocate blocks of", "unlink", "reserve memory for pages of"] {
            assert_eq!(io(action, errno).nature(), Nature::Moment, "{action}: {errno}");
        }
        for action in ["sync", "write", "write pages of"] {
            assert_eq!(io(action, errno).nature(), Nature::Unknown, "{action}: {errno}");
        }
    }
    assert_eq!(io("open", Errno::IO).nature(), Nature::Unknown);
    assert_eq!(io("read", Errno::IO).nature(), Nature::Unknown);
    assert_eq!(Error::corrupt("record", Location::file(path), 1, 2).nature(), Nature::Damage);
    let full = Error::LimitReached { path: path.into(), what: "log segments", limit: 1, remedy: "" };
    assert!(full.nature() == Nature::Moment && full.can_wait());
    assert!(!Error::ReadOnly { path: path.into() }.can_wait());
}

fn path() -> PathBuf {
    PathBuf::from("/data/store")
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

#[test]
fn every_error_says_where_and_what_to_do() {
    let errors: [(Error, &[&str]); 17] = [
        (Error::Io { action: "open", path: path(), source: full() }, &["open /data/store"]),
        (
            Error::DiskFull { action: "allocate blocks of", path: path(), source: full() },
            &["no space left to allocate blocks of /data/store: ", "free"],
        ),
        (
            Error::Locked { path: path(), pid: Some(17), reading: false },
            &["/data/store", "in use by process 17", "one process at a time"],
        ),
        (Error::Locked { path: path(), pid: Some(17), reading: true }, &["/data/store", "a reader, process 17"]),
        (Error::Removed { action: "create", path: path() }, &["create /data/store", "removed", "close this handle"]),
        (Error::NotFound { path: path() }, &["/data/store", "create"]),
        (Error::AlreadyExists { path: path() }, &["/data/store", "without create_new"]),
        (Error::NotAStore { path: path(), reason: "the reason".into() }, &["/data/store", "the reason"]),
        (
            Error::NewerFormat { path: path(), found: 7, supported: 1, access: "write" },
            &["/data/store", "7", "write", "newer tophash"],
        ),
        (Error::KeyTooLong { len: 70_000, limit: 65_535 }, &["70000", "65535", "hash"]),
        (Error::ValueTooLong { len: 5_000_000_000, limit: 4_294_967_295 }, &["5000000000", "4294967295", "split it"]),
        (Error::BatchTooLarge { bytes: 2_000_000_000, limit: 1_000 }, &["2000000000", "1000", "in parts"]),
        (
            Error::LimitReached { path: path(), what: "segments", limit: 4096, remedy: "compact" },
            &["/data/store", "segments", "4096", "compact"],
        ),
        (Error::ReadOnly { path: path() }, &["/data/store", "without Options::read_only"]),
        (
            Error::Poisoned { path: path(), cause: "the first error".into() },
            &["/data/store", "the first error", "open it again"],
        ),
        (Error::Closed { path: path() }, &["/data/store", "another of its handles", "open the store again"]),
        (Error::Forked { path: path(), owner: 18 }, &["/data/store", "18", "its own store"]),
    ];
    for (error, words) in &errors {
        let text = error.to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "no `{word}` in: {text}"));
        assert!(!error.is_corruption());
    }
}

#[test]
fn errors_become_those_of_the_system() {
    use io::ErrorKind as Kind;
    let kind = |error: Error| io::Error::from(error).kind();
    let denied = io::Error::from(Kind::PermissionDenied);
    assert_eq!(kind(Error::io("open", &path(), denied)), Kind::PermissionDenied);
    assert_eq!(kind(Error::io("write", &path(), full())), full().kind());
    assert_eq!(kind(Error::Locked { path: path(), pid: None, reading: false }), Kind::ResourceBusy);
    assert_eq!(kind(Error::NotFound { path: path() }), Kind::NotFound);
    assert_eq!(kind(Error::corrupt("record", Location::file(&path()), 1, 2)), Kind::InvalidData);
    assert_eq!(kind(Error::KeyTooLong { len: 70_000, limit: 65_535 }), Kind::InvalidInput);
    assert_eq!(kind(Error::ReadOnly { path: path() }), Kind::PermissionDenied);
    assert_eq!(kind(Error::Closed { path: path() }), Kind::NotConnected);
    // Loops of the standard library try again after `Interrupted`.
    assert_eq!(kind(Error::Aborted { operation: "verify" }), Kind::Other);
    // The whole chain is kept.
    let error = io::Error::from(Error::io("open", &path(), full()));
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::DiskFull { .. })) && error.to_string().contains("/data/store"));
    let source = inner.and_then(std::error::Error::source).and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(full().kind()));
}
