//! What a repair refuses, and what it leaves behind then: nothing.

use std::fs;
use std::path::Path;

use crate::stores::*;
use crate::support::*;
use tophash::Error;

/// Names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn nothing_is_overwritten() {
    let (dir, files) = copy(closed());
    let taken = dir.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    let inside = files.path.join("new");
    for new in [&taken, &file, &files.path, &inside, &dir.path().join("no/such/folder")] {
        let error = tophash::repair(&files.path, new).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{}: {error}", new.display());
    }
    assert_eq!(names(dir.path()), ["file", "s", "taken"]);
    assert_eq!((names(&taken), fs::read_to_string(&file).unwrap()), (vec![], "text".to_string()));
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = scratch();
    let new = dir.path().join("new");
    let missing = tophash::repair(dir.path().join("missing"), &new).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    fs::write(dir.path().join("file"), "text").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for name in ["file", "folder"] {
        let error = tophash::repair(dir.path().join(name), &new).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    }
    assert_eq!(names(dir.path()), ["file", "folder"]);
}

#[test]
fn a_store_in_use_is_refused() {
    let (dir, files) = copy(closed());
    let store = options().open(&files.path).unwrap();
    let error = tophash::repair(&files.path, dir.path().join("new")).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(store);
    assert_eq!(names(dir.path()), ["s"]);
}

#[test]
fn a_newer_format_is_refused() {
    let (dir, files) = copy(closed());
    files.edit_header(0, |page| page[8] = 2);
    let error = tophash::repair(&files.path, dir.path().join("new")).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { .. }), "{error}");
    fs::remove_file(files.index()).unwrap();
    let mut header = files.read(&files.segment(2), 0, 128);
    header[8] = 9;
    crate::damage::mend(&mut header);
    files.write(&files.segment(2), 0, &header);
    let error = tophash::repair(&files.path, dir.path().join("new")).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 9, .. }), "{error}");
    assert_eq!(names(dir.path()), ["s"]);
}

#[test]
fn an_abort_leaves_nothing() {
    let (dir, files) = copy(closed());
    let new = dir.path().join("new");
    let mut calls = 0;
    let mut told = Vec::new();
    let report = tophash::repair_with(&files.path, &new, &mut |done, all| {
        told.push((done, all));
        true
    });
    report.unwrap();
    assert!(told.is_sorted() && told.iter().all(|(done, all)| done <= all), "{told:?}");
    fs::remove_dir_all(&new).unwrap();
    for stop in 0..told.len() {
        calls = 0;
        let stopped = tophash::repair_with(&files.path, &new, &mut |_, _| {
            calls += 1;
            calls <= stop
        });
        assert!(matches!(stopped, Err(Error::Aborted { what: "repair" })), "{stopped:?}");
        assert_eq!(names(dir.path()), ["s"], "stopped at call {stop}");
    }
    assert!(calls > 5);
}
