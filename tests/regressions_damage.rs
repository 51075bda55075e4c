//! Bugs that were found in what compaction does beside damage, each with its story. None may come back.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{bytes, scratch, tiny_options};
use tophash::{Options, Store};

fn key(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

/// What a repair makes of a store that has lost its index.
fn repaired(from: &Path) -> Store {
    let number = std::fs::read_dir(from.parent().unwrap()).unwrap().count();
    let (copy, to) = (from.with_file_name(format!("copy {number}")), from.with_file_name(format!("repaired {number}")));
    common::copy_store(from, &copy);
    std::fs::remove_file(copy.join("index")).unwrap();
    tophash::repair::repair(&copy, &to).unwrap();
    Options::new().open(&to).unwrap()
}

/// A record in the oldest segment was rotten, so that it stayed. Behind it each `clear` kept its own segment for good: a cache
/// that was cleared again and again filled the disk, and each write waited for space that nothing gave back. Only the last
/// clear-record counts, so only its segment stays.
#[test]
fn clears_behind_damage_keep_one_segment() {
    let dir = scratch();
    let path = dir.path().join("s");
    let fill = |s: &Store| {
        (0..100).for_each(|n| s.set(key(n), bytes(100, n)).unwrap());
        common::rot(&path, &bytes(100, 3));
    };
    let clear = |s: &Store, rounds: std::ops::Range<u64>| {
        for round in rounds {
            s.clear().unwrap();
            (0..60).for_each(|n| s.set(key(1000 * round + n), bytes(100, n + round)).unwrap());
            (0..20).for_each(|n| assert!(s.delete(key(1000 * round + n)).unwrap()));
        }
    };
    let check = |s: &Store, last: u64| {
        assert_eq!(s.len(), 40);
        (20..60).for_each(|n| assert_eq!(s.get(key(1000 * last + n)).unwrap().unwrap(), bytes(100, n + last)));
        let r = repaired(&path);
        assert!(common::contents(&r) == common::contents(s), "{} keys of {}", r.len(), s.len());
    };
    let s = tiny_options().open(&path).unwrap();
    fill(&s);
    clear(&s, 1..200);
    let stats = s.stats();
    assert_eq!(stats.compaction.damaged_segments, 1);
    assert!(stats.log.bytes < 10 * 4096 && stats.compaction.throttles == 0, "{stats:#?}");
    check(&s, 199);
    // The clear-record lies before the checkpoint, so nothing tells an open of it.
    s.close().unwrap();
    let s = tiny_options().open(&path).unwrap();
    check(&s, 199);
    s.compact().unwrap_err();
    s.compact().unwrap();
    check(&s, 199);
    clear(&s, 200..400);
    let stats = s.stats();
    assert!(stats.log.bytes < 10 * 4096 && stats.compaction.throttles == 0, "{stats:#?}");
    check(&s, 399);
    drop(s);

    // Many of them that nothing was known of when the store was opened.
    std::fs::remove_dir_all(&path).unwrap();
    let s = tiny_options().log_ratio(f64::INFINITY).open(&path).unwrap();
    fill(&s);
    clear(&s, 500..600);
    s.close().unwrap();
    let s = tiny_options().open(&path).unwrap();
    assert!(s.stats().log.segments > 100);
    let write = || (0..1000).for_each(|n| s.set(key(n % 10), bytes(100, n)).unwrap());
    write();
    let before = s.stats();
    write();
    let stats = s.stats();
    assert!(stats.log.bytes < 10 * 4096 && stats.log.segments < 12, "{stats:#?}");
    assert_eq!(stats.compaction.throttles, before.compaction.throttles, "{stats:#?}");
    (0..10).for_each(|n| assert!(s.delete(key(n)).unwrap()));
    check(&s, 599);
}

/// An earlier clear-record may go for the sake of a later one that can be read, and for no other.
#[test]
fn a_rotten_clear_stands_in_for_none() {
    let dir = scratch();
    let path = dir.path().join("s");
    let s = tiny_options().log_ratio(f64::INFINITY).open(&path).unwrap();
    (0..100).for_each(|n| s.set(key(n), bytes(100, n)).unwrap());
    common::rot(&path, &bytes(100, 3));
    s.clear().unwrap();
    (1000..1100).for_each(|n| s.set(key(n), bytes(100, n)).unwrap());
    (1000..1100).for_each(|n| assert!(s.delete(key(n)).unwrap()));
    // A sync mark must not ride in front of the record.
    s.set(key(2000), "").unwrap();
    let end = s.stats().log.end_lsn;
    s.clear().unwrap();
    assert_eq!(s.stats().log.end_lsn, end + 8);
    common::flip_bit(&path.join("log-1").join(format!("{:08}.log", end >> 32)), end & 0xffff_ffff, 0);
    (3000..3100).for_each(|n| s.set(key(n), bytes(100, n)).unwrap());
    (0..4).for_each(|_| _ = s.compact());
    s.compact().unwrap();
    assert_eq!((s.len(), s.stats().compaction.damaged_segments), (100, 2));
    let r = repaired(&path);
    (0..100).for_each(|n| assert!(!r.contains_key(key(n)).unwrap(), "key {n} is back"));
    (3000..3100).for_each(|n| assert!(r.contains_key(key(n)).unwrap()));
}

/// Random histories behind a rotten record: whatever dies with a later clear-record, nothing that was removed comes back, not
/// even without the index.
#[test]
fn nothing_comes_back_from_behind_damage() {
    let mut random = common::Random(common::seed("nothing_comes_back_from_behind_damage"));
    for history in 0..common::share(30).max(6) {
        let dir = scratch();
        let mut path = dir.path().join("s");
        let mut s = tiny_options().open(&path).unwrap();
        let mut model = BTreeMap::new();
        (0..40u64).for_each(|n| s.set(key(n), bytes(60, n)).unwrap());
        s.set("rotten", bytes(60, 77)).unwrap();
        (0..40u64).for_each(|n| _ = model.insert(key(n).to_vec(), bytes(60, n)));
        // Else a crash ends the log at the rotten record.
        s.checkpoint().unwrap();
        common::rot(&path, &bytes(60, 77));
        for step in 0..2500 {
            let n = random.below(60);
            match random.below(40) {
                0..16 => {
                    let value = bytes(20 + random.below(80) as usize, random.next());
                    s.set(key(n), &value).unwrap();
                    model.insert(key(n).to_vec(), value);
                }
                16..36 => assert_eq!(s.delete(key(n)).unwrap(), model.remove(&key(n)[..]).is_some()),
                36 if random.chance(1, 4) => {
                    s.clear().unwrap();
                    model.clear();
                }
                37 if random.chance(1, 4) => _ = s.compact(),
                38 if random.chance(1, 4) => s.checkpoint().unwrap(),
                39 if random.chance(1, 8) => {
                    let next = dir.path().join(format!("{step}"));
                    if random.chance(1, 2) {
                        s.close().unwrap();
                    } else {
                        common::copy_store(&path, &next);
                        drop(s);
                        path = next;
                    }
                    s = tiny_options().open(&path).unwrap();
                }
                _ => {}
            }
            if step % 250 == 249 {
                let r = repaired(&path);
                assert!(
                    common::contents(&r) == model,
                    "history {history}, step {step}: {} of {}",
                    r.len(),
                    model.len()
                );
            }
        }
    }
}

/// One record was rotten, and a removal of its key stood in each of many segments. Compaction could not tell whether the key was
/// there, and took each of those segments for damaged, though each byte of them could be read: they stayed until the store was
/// opened again, however often the key was written anew.
#[test]
fn a_rotten_record_damages_its_own_segment_only() {
    let dir = scratch();
    let path = dir.path().join("s");
    let s = tiny_options().open(&path).unwrap();
    // The oldest segments stay as long as anything else is to be gained.
    (0..60).for_each(|n| s.set(key(1000 + n), bytes(60, n)).unwrap());
    for round in 0..40 {
        s.set("toggled", bytes(99, round)).unwrap();
        s.delete("toggled").unwrap();
        (0..30).for_each(|n| s.set(key(2000 + round * 30 + n), bytes(60, n)).unwrap());
    }
    s.set("toggled", bytes(99, 777)).unwrap();
    common::rot(&path, &bytes(99, 777));
    s.get("toggled").unwrap_err();
    let replace = |rounds| {
        for round in rounds {
            (0..1200).for_each(|n| s.set(key(2000 + n), bytes(60, n + round)).unwrap());
            let r = repaired(&path);
            // Each removal is still there that an older put of the key needs, and each other one was dropped.
            assert!(r.len() == 1260 && !r.contains_key("toggled").unwrap(), "round {round}");
        }
    };
    let within_bound = || {
        let (log, compaction) = (s.stats().log, s.stats().compaction);
        assert!(compaction.damaged_segments <= 1, "{compaction:?}");
        assert!(log.bytes < 1260 * 80 * 3 / 2 + 4 * 4096, "{log:?}");
    };
    replace(0..4);
    within_bound();
    s.get("toggled").unwrap_err();
    _ = s.compact();
    s.compact().unwrap();
    within_bound();
    assert!(repaired(&path).len() == 1260);
    s.delete("toggled").unwrap();
    assert!(s.get("toggled").unwrap().is_none());
    replace(4..8);
    within_bound();
}

/// The same with a page of the index, which says nothing against the segments that its records lie in. Others go on being emptied.
#[test]
fn a_rotten_page_damages_no_segment() {
    let dir = scratch();
    let path = dir.path().join("s");
    let s = tiny_options().open(&path).unwrap();
    (0..2000).for_each(|n| s.set(key(n), bytes(60, n)).unwrap());
    s.close().unwrap();
    let index = path.join("index");
    let pages = std::fs::read(&index).unwrap();
    let page = pages.chunks(4096).rposition(|page| page[4..8] == *b"BKT1").unwrap();
    common::flip_bit(&index, page as u64 * 4096 + 100, 0);
    let s = tiny_options().open(&path).unwrap();
    let mut refused = 0;
    for round in 0..4 {
        (0..2000).for_each(|n| refused += u64::from(s.set(key(n), bytes(60, n + round)).is_err()));
    }
    _ = s.compact();
    let stats = s.stats();
    assert!(refused > 0 && stats.compaction.damaged_segments == 0, "{refused} refused: {stats:#?}");
    assert!(stats.compaction.freed_segments > 20, "{stats:#?}");
}
