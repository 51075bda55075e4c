//! What a repair refuses, and what it leaves behind then: nothing.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use crate::stores::*;
use crate::support::*;
use crate::watch::{Short, Watched};
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
        let error = tophash::repair::repair(&files.path, new).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{}: {error}", new.display());
    }
    assert_eq!(names(dir.path()), ["file", "s", "taken"]);
    assert_eq!((names(&taken), fs::read_to_string(&file).unwrap()), (vec![], "text".to_string()));
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = scratch();
    let new = dir.path().join("new");
    let missing = tophash::repair::repair(dir.path().join("missing"), &new).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
    fs::write(dir.path().join("file"), "text").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for name in ["file", "folder"] {
        let error = tophash::repair::repair(dir.path().join(name), &new).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{error}");
    }
    assert_eq!(names(dir.path()), ["file", "folder"]);
}

#[test]
fn a_store_in_use_is_refused() {
    let (dir, files) = copy(closed());
    let store = options().open(&files.path).unwrap();
    let error = tophash::repair::repair(&files.path, dir.path().join("new")).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(store);
    assert_eq!(names(dir.path()), ["s"]);
}

#[test]
fn a_newer_format_is_refused() {
    let (dir, files) = copy(closed());
    files.edit_header(0, |page| page[8] = 2);
    let error = tophash::repair::repair(&files.path, dir.path().join("new")).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { .. }), "{error}");
    fs::remove_file(files.index()).unwrap();
    let mut header = files.read(&files.segment(2), 0, 128);
    header[8] = 9;
    crate::damage::mend(&mut header);
    files.write(&files.segment(2), 0, &header);
    let error = tophash::repair::repair(&files.path, dir.path().join("new")).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 9, .. }), "{error}");
    assert_eq!(names(dir.path()), ["s"]);
}

#[test]
fn an_abort_leaves_nothing() {
    let (dir, files) = copy(closed());
    let new = dir.path().join("new");
    let mut calls = 0;
    let mut told = Vec::new();
    let report = tophash::repair::repair_with(&files.path, &new, |progress| {
        told.push((progress.done, progress.total));
        ControlFlow::Continue(())
    });
    report.unwrap();
    assert!(told.is_sorted() && told.iter().all(|(done, all)| done <= all), "{told:?}");
    fs::remove_dir_all(&new).unwrap();
    for stop in 0..told.len() {
        calls = 0;
        let stopped = tophash::repair::repair_with(&files.path, &new, |_| {
            calls += 1;
            if calls <= stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(stopped, Err(Error::Aborted { operation: "repair", .. })), "{stopped:?}");
        assert_eq!(names(dir.path()), ["s"], "stopped at call {stop}");
    }
    assert!(calls > 5);
}

/// Numbers of calls to fail: about ten by scale, at most all.
fn some_of(calls: u64) -> impl Iterator<Item = u64> {
    let step = (calls / (10 * crate::common::scale() as u64)).max(1);
    let first = crate::common::seed("calls that fail") % step;
    (first..calls).step_by(step as usize)
}

/// A repair that was short of descriptors at the open of a segment took the segment for lost: the new store lacked its
/// records, and the report said "nothing tells the salt of its records". No layer saw it, because none let a repair run
/// short of anything. An error of the moment ends the repair, and nothing of it is left.
#[test]
fn a_moment_without_descriptors_or_memory_is_never_a_loss() {
    for (history, without_index) in [(closed(), false), (killed(), false), (closed(), true), (killed(), true)] {
        let (dir, files) = copy(history);
        if without_index {
            fs::remove_file(files.index()).unwrap();
        }
        let new = dir.path().join("new");
        let attempt = |fails| {
            let disk = Watched { short: Short::new(fails).into(), ..Watched::default() };
            let report = tophash::repair::repair_disk(&disk, &files.path, &new, &options(), tophash::Progress::ignore);
            (report, disk.short.calls())
        };
        let (report, calls) = attempt(0..0);
        let whole = report.unwrap();
        fs::remove_dir_all(&new).unwrap();
        let mut refused = 0;
        for call in some_of(calls) {
            // Once, for some calls, until the end.
            for last in [call, call + 5, u64::MAX] {
                match attempt(call..last.saturating_add(1)).0 {
                    Ok(report) => {
                        let same = (report.keys, report.losses_total, report.lost_keys_total, report.torn_bytes);
                        let expected = (whole.keys, whole.losses_total, whole.lost_keys_total, whole.torn_bytes);
                        assert_eq!(same, expected, "calls {call} to {last}: {report:#?}");
                        fs::remove_dir_all(&new).unwrap();
                    }
                    Err(Error::Io { source, .. }) if matches!(source.raw_os_error(), Some(12 | 24)) => refused += 1,
                    Err(error) => panic!("calls {call} to {last}: {error}"),
                }
                assert_eq!(names(dir.path()), ["s"], "calls {call} to {last}");
            }
        }
        assert!(refused > 0);
    }
}

/// Verify reads a sector that it needs again as damaged when it was short of memory at the first try: so a check ends with
/// the error, and never reports a finding for it.
#[test]
fn a_moment_without_descriptors_or_memory_is_never_a_finding() {
    for history in [closed(), killed()] {
        let (_dir, files) = copy(history);
        let attempt = |fails| {
            let disk = Watched { short: Short::new(fails).into(), ..Watched::default() };
            (tophash::verify::verify_disk(&disk, &files.path, tophash::Progress::ignore), disk.short.calls())
        };
        let (report, calls) = attempt(0..0);
        assert_eq!(report.unwrap().findings_total, 0);
        let mut refused = 0;
        for call in some_of(calls) {
            for last in [call, call + 5, u64::MAX] {
                match attempt(call..last.saturating_add(1)).0 {
                    Ok(report) => assert_eq!(report.findings_total, 0, "calls {call} to {last}: {report:#?}"),
                    Err(Error::Io { source, .. }) if matches!(source.raw_os_error(), Some(12 | 24)) => refused += 1,
                    Err(error) => panic!("calls {call} to {last}: {error}"),
                }
            }
        }
        assert!(refused > 0);
    }
}

/// Verify reads the log a second time, for records that no slot names. A device that failed in between hid the later
/// records of keys, and their dead ones were reported as lost to every reader. The fault layer saw it, at the heavy scale.
#[test]
fn a_device_that_fails_in_between_makes_no_record_a_lost_one() {
    for history in [closed(), killed()] {
        let (_dir, files) = copy(history);
        let attempt = |fails| {
            let disk = Watched { short: Short::of_device(fails).into(), ..Watched::default() };
            (tophash::verify::verify_disk(&disk, &files.path, tophash::Progress::ignore), disk.short.calls())
        };
        let calls = attempt(0..0).1;
        let mut told = 0;
        for call in 0..calls {
            // An error is as good an answer.
            let Ok(report) = attempt(call..u64::MAX).0 else { continue };
            let wrong = report.findings.iter().find(|finding| finding.kind.starts_with("record-"));
            assert!(wrong.is_none(), "from call {call} on: {wrong:#?}");
            told += report.findings_total;
        }
        assert!(told > 0);
    }
}
