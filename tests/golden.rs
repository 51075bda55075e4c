//! Format version 1 stays what it is.
//!
//! `tests/golden/v1.txt` is a store that was written once and has been kept since: its index with an overflow
//! page and a growth that is not finished, tables beside the main one, of which some were cleared and some dropped, its
//! log with batches, removals, values in blob files, records with a deadline in the far future and in the past, and a tail
//! after the last checkpoint that ends in a torn record. Every later version must read it, go on writing to it,
//! and find the same contents.
//!
//! The second half is a reader of the format that uses no code of the store (`tests/golden/reader.rs`). It must
//! find in the golden store, and in what today's build writes, exactly what was put there: so the description of
//! the format is complete, and a change of the format that forgot its version number is noticed.
//!
//! `cargo test --test golden -- --ignored write_the_golden_store` writes a new file, for a new format version.

mod common;
#[path = "golden/reader.rs"]
mod reader;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::aligned::Aligned;
use common::{bytes, contents, hash, open};
use tophash::{Batch, Options, Store};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// Contents of tables by their names.
type Tables = BTreeMap<String, Content>;

/// Keys in order; every other one belongs to the same page until the third doubling, so that it overflows.
fn key(number: usize) -> Vec<u8> {
    let crowded = number.is_multiple_of(2);
    let fits = |key: &u32| (hash(&key.to_le_bytes()) % 8 == 2) == crowded;
    (0u32..).filter(fits).nth(number / 2).unwrap().to_le_bytes().to_vec()
}

/// Puts a value, here and there.
fn put(store: &Store, model: &mut Content, key: &[u8], value: Vec<u8>) {
    store.insert(key, &value).unwrap();
    model.insert(key.to_vec(), value);
}

/// A time in milliseconds since 1970.
fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

/// A deadline that has passed, and one in the year 3000.
const PAST: u64 = 981_173_106_789;
const FAR: u64 = 32_503_680_000_123;

/// Puts a value that is there until a time.
fn put_until(store: &Store, model: &mut Content, key: &[u8], value: Vec<u8>, deadline: u64) {
    store.expiring(at(deadline)).insert(key, &value).unwrap();
    if deadline == PAST {
        model.remove(key);
    } else {
        model.insert(key.to_vec(), value);
    }
}

/// The deadlines of a store's records, as the store tells them.
fn deadlines(store: &Store) -> BTreeMap<Vec<u8>, u64> {
    let of = |entry: tophash::Entry<'_>| {
        let since = entry.expires_at()?.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Some((entry.key().to_vec(), since.as_millis() as u64))
    };
    store.iter().filter_map(|entry| of(entry.unwrap())).collect()
}

/// Records in the golden store's tail, and bytes of its torn last record.
const TAIL_RECORDS: u64 = 35;
const TORN_BYTES: u64 = 20;

/// Expired records that slots name, or would if the tail was applied.
const EXPIRED: u64 = 6;

/// What the golden store was made by, up to its checkpoint.
fn before_the_checkpoint(store: &Store, model: &mut Content) {
    for number in 0..64 {
        put(store, model, &key(number), bytes(number % 13, number as u64));
    }
    put(store, model, b"", b"the empty key".to_vec());
    put(store, model, b"the empty value", Vec::new());
    put(store, model, b"blob in the index", bytes(700, 1));
    put(store, model, &[b'k'; 300], b"the key of a large header".to_vec());
    for number in [3, 8, 21] {
        store.remove(key(number)).unwrap();
        model.remove(&key(number));
    }
    put_until(store, model, b"far in the index", b"a value".to_vec(), FAR);
    put_until(store, model, &[b'f'; 300], b"the key of a large header".to_vec(), FAR + 1);
    put_until(store, model, b"a far blob", bytes(680, 3), FAR + 2);
    put_until(store, model, b"past in the index", b"not there".to_vec(), PAST);
    put_until(store, model, &[b'p'; 300], b"not there".to_vec(), PAST);
    put_until(store, model, &key(4), b"not there, nor its older value".to_vec(), PAST);
    put_until(store, model, b"kept after all", b"without a deadline".to_vec(), PAST);
    put(store, model, b"kept after all", b"without a deadline".to_vec());
    // Back and forth until a growth is half done.
    while !(store.stats().index.growing && store.stats().index.evacuated_pages == 2) {
        put(store, model, &key(model.len() + 40), b"grow".to_vec());
        assert!(model.len() < 400);
    }
}

/// Puts a value into a table, here and there.
fn put_in(store: &Store, tables: &mut Tables, name: &str, key: &[u8], value: Vec<u8>) {
    store.table(name).unwrap().insert(key, &value).unwrap();
    tables.entry(name.into()).or_default().insert(key.to_vec(), value);
}

/// What a store's tables hold.
fn tables_of(store: &Store) -> Tables {
    let of = |name: String| {
        let table = store.existing_table(&name).unwrap();
        let entries = table.iter().map(Result::unwrap).map(|entry| (entry.key().to_vec(), entry.value().to_vec()));
        (name, entries.collect())
    };
    store.tables().unwrap().into_iter().map(of).collect()
}

/// The tables of the golden store up to its checkpoint.
fn tables_before_the_checkpoint(store: &Store, tables: &mut Tables) {
    // It has types, and aligned values.
    store.table_of::<[u8], Aligned>("users").unwrap();
    for number in 0..70 {
        put_in(store, tables, "users", &key(number), bytes(number % 11, 500 + number as u64));
        put_in(store, tables, "cleared", &key(number), bytes(9, 600 + number as u64));
        put_in(store, tables, "dropped", &key(number), bytes(9, 700 + number as u64));
    }
    put_in(store, tables, "users", b"a blob", bytes(700, 5));
    put_in(store, tables, "users", &[b'u'; 300], b"the key of a large header".to_vec());
    store.existing_table("users").unwrap().expiring(at(FAR)).insert("far", "of users").unwrap();
    tables.get_mut("users").unwrap().insert(b"far".to_vec(), b"of users".to_vec());
    store.existing_table("users").unwrap().expiring(at(PAST)).insert("past", "not there").unwrap();
    store.existing_table("users").unwrap().remove(key(5)).unwrap();
    tables.get_mut("users").unwrap().remove(&key(5));
    store.existing_table("cleared").unwrap().clear().unwrap();
    tables.get_mut("cleared").unwrap().clear();
    put_in(store, tables, "cleared", b"since then", b"a value".to_vec());
    store.drop_table("dropped").unwrap();
    tables.remove("dropped");
    put_in(store, tables, "cleared in the tail", b"before", b"not there".to_vec());
    put_in(store, tables, "dropped in the tail", b"before", b"not there".to_vec());
}

/// What became of them.
fn tables_after_the_checkpoint(store: &Store, model: &mut Content, tables: &mut Tables) {
    store.table_of::<[u8], Aligned>("made in the tail").unwrap();
    put_in(store, tables, "users", &key(6), b"a new value".to_vec());
    store.existing_table("users").unwrap().remove(key(7)).unwrap();
    tables.get_mut("users").unwrap().remove(&key(7));
    put_in(store, tables, "dropped", b"a new one", b"of the name".to_vec());
    let mut batch = Batch::new();
    batch.insert("across", "main").table(&store.existing_table("users").unwrap()).insert("across", "users");
    batch.table(&store.existing_table("cleared").unwrap()).insert("across", "cleared").remove("since then");
    store.apply(&batch).unwrap();
    model.insert(b"across".to_vec(), b"main".to_vec());
    tables.get_mut("users").unwrap().insert(b"across".to_vec(), b"users".to_vec());
    tables.insert("cleared".into(), [(b"across".to_vec(), b"cleared".to_vec())].into());
    store.existing_table("cleared in the tail").unwrap().clear().unwrap();
    tables.insert("cleared in the tail".into(), Content::new());
    put_in(store, tables, "cleared in the tail", b"after", b"a value".to_vec());
    store.drop_table("dropped in the tail").unwrap();
    tables.remove("dropped in the tail");
    put_in(store, tables, "made in the tail", b"", b"of the empty key".to_vec());
}

/// What followed the checkpoint.
fn after_the_checkpoint(store: &Store, model: &mut Content) {
    put(store, model, &key(1), b"a new value".to_vec());
    store.remove(key(2)).unwrap();
    model.remove(&key(2));
    let mut batch = Batch::new();
    for number in 30..40 {
        batch.insert(key(number), format!("of the batch, {number}"));
        model.insert(key(number), format!("of the batch, {number}").into_bytes());
    }
    batch.insert_expiring("far in the batch", "of the batch", at(FAR + 5));
    model.insert(b"far in the batch".to_vec(), b"of the batch".to_vec());
    batch.insert_expiring("past in the batch", "of the batch", at(PAST));
    batch.remove(key(41));
    model.remove(&key(41));
    store.apply(&batch).unwrap();
    store.sync().unwrap();
    put(store, model, b"blob in the tail", bytes(650, 2));
    put_until(store, model, b"far in the tail", Vec::new(), FAR + 3);
    put_until(store, model, b"", b"the empty key has a deadline".to_vec(), FAR + 4);
    put_until(store, model, b"past in the tail", bytes(690, 4), PAST);
    put_until(store, model, &key(6), b"not there, nor its older value".to_vec(), PAST);
    assert!(store.persist(b"far in the index").unwrap());
    put(store, model, b"last", b"the last whole record".to_vec());
}

/// The golden store's deadlines that have not passed.
fn expected_deadlines() -> BTreeMap<Vec<u8>, u64> {
    let keys: [&[u8]; 5] = [&[b'f'; 300], b"a far blob", b"far in the tail", b"", b"far in the batch"];
    keys.into_iter().zip(FAR + 1..).map(|(key, deadline)| (key.to_vec(), deadline)).collect()
}

/// The golden store's contents: the main table's, and those of the others.
fn expected() -> (Content, Tables) {
    let dir = common::scratch();
    let store = open(&common::tiny_options(), &dir.path().join("store"));
    let (mut model, mut tables) = (Content::new(), Tables::new());
    tables_before_the_checkpoint(&store, &mut tables);
    before_the_checkpoint(&store, &mut model);
    tables_after_the_checkpoint(&store, &mut model, &mut tables);
    after_the_checkpoint(&store, &mut model);
    (model, tables)
}

fn torn_record() -> [u8; TORN_BYTES as usize] {
    // Looks like a record, but its checksum is wrong.
    let mut bytes = [0xa5; TORN_BYTES as usize];
    bytes[4..8].copy_from_slice(&[1, 4, 8, 0]);
    bytes
}

#[test]
#[ignore = "writes the golden file: for a new version of the format only"]
fn write_the_golden_store() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = open(&common::tiny_options().checkpoint_bytes(1 << 30), &path);
    let (mut model, mut tables) = (Content::new(), Tables::new());
    tables_before_the_checkpoint(&store, &mut tables);
    before_the_checkpoint(&store, &mut model);
    store.checkpoint().unwrap();
    tables_after_the_checkpoint(&store, &mut model, &mut tables);
    after_the_checkpoint(&store, &mut model);
    let end = store.stats().log.end_lsn & 0xffff_ffff;
    let copy = dir.path().join("copy");
    common::copy_store(&path, &copy);
    let last = common::segments(&copy).into_iter().rfind(|path| fs::read(path).unwrap()[..8] == *b"tophLOG1").unwrap();
    File::options().write(true).open(last).unwrap().write_all_at(&torn_record(), end).unwrap();
    fs::write("tests/golden/v1.txt", pack(&copy)).unwrap();
}

/// A store as text: per file its path and length, then the offset and the bytes of each run without long holes.
fn pack(store: &Path) -> String {
    let mut text = String::new();
    for name in common::files(store).iter().filter(|name| !name.ends_with("LOCK")) {
        let bytes = fs::read(store.join(name)).unwrap();
        writeln!(text, "file {} {}", name.display(), bytes.len()).unwrap();
        for (number, piece) in bytes.chunks(32).enumerate().filter(|(_, piece)| piece.iter().any(|&byte| byte != 0)) {
            let end = piece.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            write!(text, "{:x} ", number * 32).unwrap();
            piece[..end].iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
    }
    text
}

/// Makes the store that the text describes.
fn unpack(text: &str, store: &Path) {
    fs::create_dir_all(store.join("log-1")).unwrap();
    fs::write(store.join("LOCK"), "").unwrap();
    let mut file = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["file", name, len] = words[..] {
            let new = File::create(store.join(name)).unwrap();
            new.set_len(len.parse().unwrap()).unwrap();
            file = Some(new);
        } else if let [offset, hex] = words[..] {
            let digits = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            let bytes: Vec<u8> = digits.collect();
            file.as_ref().unwrap().write_all_at(&bytes, u64::from_str_radix(offset, 16).unwrap()).unwrap();
        }
    }
}

fn golden(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("golden");
    unpack(include_str!("golden/v1.txt"), &path);
    path
}

#[test]
fn the_golden_store_is_read_and_written() {
    let dir = common::scratch();
    let path = golden(dir.path());
    let (mut expected, tables) = expected();
    let before = common::snapshot(&path);
    // Whatever options a later user has.
    for options in [Options::new().read_only(true), common::tiny_options().read_only(true)] {
        let store = open(&options, &path);
        assert_eq!((contents(&store), tables_of(&store)), (expected.clone(), tables.clone()));
        expected.iter().for_each(|(key, value)| assert_eq!(store.get(key).unwrap().unwrap(), &value[..]));
        assert_eq!(deadlines(&store), expected_deadlines());
        assert_eq!(store.len(), expected.len() as u64 + EXPIRED);
        for key in [&b"past in the index"[..], b"past in the tail", b"past in the batch", &key(4), &key(6)] {
            assert!(store.get(key).unwrap().is_none() && !store.contains_key(key).unwrap());
        }
        let log = store.stats().log;
        assert!(log.expired_bytes > 0 && log.expired_bytes < log.expiring_bytes, "{log:?}");
        let recovery = store.stats().recovery;
        assert!(recovery.was_unclean && !recovery.journal_redone);
        assert_eq!((recovery.replayed_records, recovery.discarded_bytes), (TAIL_RECORDS, TORN_BYTES));
    }
    assert_eq!(common::snapshot(&path), before);

    let store = open(&common::tiny_options(), &path);
    assert_eq!(contents(&store), expected);
    assert_eq!(store.stats().recovery.replayed_records, TAIL_RECORDS);
    for typed in ["users", "made in the tail"] {
        let table = store.table_of::<[u8], Aligned>(typed).unwrap();
        assert!(table.table().iter().all(|entry| (entry.unwrap().value().as_ptr() as usize).is_multiple_of(16)));
    }
    assert_eq!(store.existing_table("cleared").unwrap().codecs().unwrap(), None);
    for number in 100..400 {
        put(&store, &mut expected, &key(number), bytes(30, number as u64));
    }
    assert_eq!(contents(&store), expected);
    store.close().unwrap();
    let report = tophash::verify::verify(&path).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    let store = open(&Options::new(), &path);
    assert!(!store.stats().recovery.was_unclean);
    assert_eq!((contents(&store), tables_of(&store)), (expected, tables));
    assert_eq!(deadlines(&store), expected_deadlines());
}

#[test]
fn the_golden_store_is_what_its_description_says() {
    let dir = common::scratch();
    let (found, seen) = reader::read(&golden(dir.path()));
    assert_eq!((found, seen.tables.clone()), expected());
    assert!(seen.overflow_pages > 0 && seen.evacuated_pages == 2 && seen.blobs == 5, "{seen:?}");
    assert!(seen.frames == 2 && seen.removals == 5 && seen.marks > 0, "{seen:?}");
    assert_eq!((seen.tail_records, seen.torn_bytes), (TAIL_RECORDS, TORN_BYTES), "{seen:?}");
    assert_eq!((seen.expired, &seen.deadlines), (EXPIRED, &expected_deadlines()), "{seen:?}");
    assert!(seen.expiring_segments > 0 && seen.swept == 0 && seen.dead == 2, "{seen:?}");
}

#[test]
fn what_is_written_today_is_what_the_description_says() {
    let seed = common::seed("what is written today");
    // One with checkpoints all the time; one with none but those asked for, so without compaction, which needs them to free
    // segments; one as users have it.
    let tiny = common::tiny_options();
    let none = tiny.clone().checkpoint_bytes(1 << 30).log_ratio(f64::INFINITY);
    for (round, options) in [tiny, none, Options::new()].into_iter().enumerate() {
        let dir = common::scratch();
        let path = dir.path().join("store");
        let mut random = common::Random(seed + round as u64);
        let (mut model, mut tables) = (Content::new(), Tables::new());
        let store = open(&options, &path);
        let mut total = reader::Seen::default();
        for step in 0..6 {
            for _ in 0..300 {
                let key = random.below(600).to_le_bytes();
                match random.below(10) {
                    0..=1 => {
                        store.remove(key).unwrap();
                        model.remove(&key[..]);
                    }
                    2 => {
                        let mut batch = Batch::new();
                        for number in 0..random.below(8) {
                            if number == 3 {
                                batch.insert_expiring(number.to_le_bytes(), key, at(FAR));
                            } else {
                                batch.insert(number.to_le_bytes(), key);
                            }
                            model.insert(number.to_le_bytes().to_vec(), key.to_vec());
                        }
                        store.apply(&batch).unwrap();
                    }
                    6 => {
                        let name = format!("table {}", random.below(4));
                        put_in(&store, &mut tables, &name, &key, bytes(30, random.next()));
                    }
                    4 => put_until(&store, &mut model, &key, bytes(20, random.next()), PAST),
                    5 => put_until(&store, &mut model, &key, bytes(50, random.next()), FAR + u64::from(key[0])),
                    3 => put(&store, &mut model, &bytes(260, key[0].into()), bytes(700, random.next())),
                    _ => {
                        let len = random.below(90) as usize;
                        put(&store, &mut model, &key, bytes(len, random.next()));
                    }
                }
            }
            match step {
                2 => {
                    store.clear().unwrap();
                    model.clear();
                    put(&store, &mut model, b"after", b"the clearing".to_vec());
                }
                3 => store.checkpoint().unwrap(),
                1 | 4 => {
                    store.existing_table("table 1").unwrap().clear().unwrap();
                    tables.get_mut("table 1").unwrap().clear();
                    assert!(store.drop_table("table 2").unwrap());
                    tables.remove("table 2");
                }
                _ => store.sync().unwrap(),
            }
            // With background threads something may go on in an open store.
            if round < 2 {
                let copy = dir.path().join("copy");
                common::copy_store(&path, &copy);
                let (found, seen) = reader::read(&copy);
                assert!(found == model && seen.tables == tables, "step {step}");
                assert!(seen.deadlines == deadlines(&store), "step {step}");
                assert_eq!(seen.expired + model.len() as u64, store.len(), "step {step}");
                assert_eq!(seen.torn_bytes, 0);
                total.tail_records += seen.tail_records;
                total.clears += seen.clears;
                total.records_in_index += seen.records_in_index;
                total.expired += seen.expired;
                total.expiring_segments += seen.expiring_segments;
                total.swept = total.swept.max(seen.swept);
                fs::remove_dir_all(copy).unwrap();
            }
        }
        store.close().unwrap();
        let (found, seen) = reader::read(&path);
        assert!(found == model && seen.tables == tables);
        let records = model.len() as u64 + seen.expired;
        assert_eq!((seen.tail_records, seen.records_in_index), (0, records), "a clean store has no tail");
        assert!(round == 2 || seen.deadlines.len() > 10, "{seen:?}");
        assert!(round != 0 || total.records_in_index > 1000, "{total:?}");
        assert!(round != 0 || total.swept > PAST && total.expiring_segments > 0, "{total:?}");
        assert!(round != 1 || total.expired > 100 && total.swept == 0, "{total:?}");
        assert!(round != 1 || total.tail_records > 1000 && total.clears > 0, "{total:?}");
    }
}
