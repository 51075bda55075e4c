//! Typed tables: what they keep, what they refuse, and what is left of their types by crashes and tools.

mod common;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use common::aligned::Aligned;
use common::{open, says, scratch, tiny_options};
use tophash::codec::{Codec, CodecError};
use tophash::{Batch, Error, Options, Store, TypedTable};

type Ages = TypedTable<str, u8>;

fn ages(store: &Store) -> tophash::Result<Ages> {
    store.table_of("ages")
}

fn refused<T: std::fmt::Debug>(result: tophash::Result<T>, words: &[&str]) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::WrongCodec { .. }), "{error}");
    assert!(!error.is_corruption());
    says(&error, words);
}

/// Even numbers only, under a name and a version of a test's choice.
struct Even<const VERSION: u16>;

impl<const VERSION: u16> Codec for Even<VERSION> {
    type Item = u32;
    type Read<'a> = u32;
    type Owned = u32;
    const VERSION: u16 = VERSION;

    fn name() -> Cow<'static, str> {
        "even".into()
    }

    fn encode(item: &u32) -> Result<impl AsRef<[u8]>, CodecError> {
        if item.is_multiple_of(2) { Ok(item.to_be_bytes()) } else { Err(format!("{item} is odd").into()) }
    }

    fn decode(bytes: &[u8]) -> Result<u32, CodecError> {
        let number = u32::from_be_bytes(bytes.try_into()?);
        if number.is_multiple_of(2) { Ok(number) } else { Err(format!("{number} is odd").into()) }
    }

    fn into_owned(read: u32) -> u32 {
        read
    }
}

/// A codec with a name that a test chooses by its length.
struct Named<const LENGTH: usize>;

impl<const LENGTH: usize> Codec for Named<LENGTH> {
    type Item = [u8];
    type Read<'a> = &'a [u8];
    type Owned = Vec<u8>;
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        "n".repeat(LENGTH).into()
    }

    fn encode(item: &[u8]) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(item)
    }

    fn decode(bytes: &[u8]) -> Result<&[u8], CodecError> {
        Ok(bytes)
    }

    fn into_owned(read: &[u8]) -> Vec<u8> {
        read.to_vec()
    }
}

#[test]
fn all_calls_speak_of_the_same_map() {
    let dir = scratch();
    let store = open(&tiny_options(), &dir.path().join("s"));
    let ages = ages(&store).unwrap();
    assert!(ages.is_empty());
    assert_eq!(ages.insert("Ada", &36).unwrap(), None);
    ages.set("Grace", &45).unwrap();
    assert_eq!(ages.insert("Grace", &46).unwrap(), Some(45));
    assert_eq!((ages.get("Ada").unwrap(), ages.get("Alan").unwrap()), (Some(36), None));
    assert_eq!(ages.read("Ada", |age| age + 1).unwrap(), Some(37));
    assert!(ages.contains_key("Ada").unwrap() && !ages.contains_key("Alan").unwrap());
    assert_eq!(ages.get_many(["Alan", "Ada"]).unwrap(), [None, Some(36)]);
    assert_eq!(ages.update("Ada", |age| age.map(|age| age + 1)).unwrap(), Some(37));
    assert_eq!(ages.update("Alan", |age| age.or(Some(41))).unwrap(), Some(41));
    assert_eq!(ages.update("Alan", |_| None).unwrap(), None);
    let refused: Result<_, Box<dyn std::error::Error>> = ages.try_update("Ada", |_| Err("no".into()));
    assert_eq!((refused.unwrap_err().to_string(), ages.get("Ada").unwrap()), ("no".into(), Some(37)));
    assert_eq!(ages.get_or_insert_with("Alan", || 41).unwrap(), 41);
    assert_eq!(ages.get_or_insert_with("Alan", || 42).unwrap(), 41);
    assert_eq!(ages.compare_exchange("Alan", Some(&41), Some(&42)).unwrap(), Ok(()));
    assert_eq!(ages.compare_exchange("Alan", Some(&41), None).unwrap(), Err(Some(42)));
    assert_eq!(ages.compare_exchange("Kurt", Some(&41), None).unwrap(), Err(None));
    let mut all: Vec<_> = ages.iter().map(Result::unwrap).collect();
    all.sort();
    assert_eq!(all, [("Ada".to_string(), 37), ("Alan".to_string(), 42), ("Grace".to_string(), 46)]);
    assert_eq!((&ages).into_iter().count(), 3);
    let mut keys: Vec<_> = ages.keys().map(Result::unwrap).collect();
    keys.sort();
    assert_eq!(keys, ["Ada", "Alan", "Grace"]);
    assert_eq!(ages.values().map(|age| u32::from(age.unwrap())).sum::<u32>(), 37 + 42 + 46);
    assert_eq!(ages.remove("Grace").unwrap(), Some(46));
    assert!(!ages.delete("Grace").unwrap());
    let soon = ages.expiring(Duration::from_secs(60));
    soon.set("Grace", &1).unwrap();
    assert!(ages.expires_at("Grace").unwrap().is_some() && ages.expires_at("Ada").unwrap().is_none());
    assert!(ages.expire("Ada", Duration::ZERO).unwrap() && !ages.expire("Kurt", Duration::ZERO).unwrap());
    assert_eq!(ages.get("Ada").unwrap(), None);
    let mut batch = Batch::new();
    batch.typed(&ages).insert("Ada", &38).unwrap().remove("Alan").unwrap();
    store.apply(&batch).unwrap();
    assert_eq!(ages.get_many(["Ada", "Alan"]).unwrap(), [Some(38), None]);
    // It is a table like any other.
    assert_eq!(store.existing_table("ages").unwrap().get("Ada").unwrap().unwrap(), [38]);
    assert_eq!(
        format!("{:?}", ages.iter().next().is_some().then_some(&ages)),
        format!(
            "Some(TypedTable {{ path: {:?}, name: Some(\"ages\"), keys: \"str\", values: \"u8\", records: {}, .. }})",
            store.path(),
            ages.len()
        )
    );
    ages.clear().unwrap();
    assert_eq!((ages.len(), ages.iter().count()), (0, 0));
    common::goes_anywhere::<Ages>();
    store.close().unwrap();
}

#[test]
fn other_types_are_refused_and_told_by_name() {
    let dir = scratch();
    let store = open(&tiny_options(), &dir.path().join("s"));
    ages(&store).unwrap().set("Ada", &36).unwrap();
    refused(store.table_of::<str, u16>("ages"), &["the values of table \"ages\" are \"u8\" version 1", "for \"u16\""]);
    refused(store.table_of::<[u8], u8>("ages"), &["the keys of table \"ages\" are \"str\" version 1", "for \"bytes\""]);
    store.table_of::<(), Even<7>>("even").unwrap();
    refused(store.table_of::<(), Even<8>>("even"), &["\"even\" version 7", "\"even\" version 8", "retype_table"]);
    // A table of bytes has no types, whatever its bytes look like.
    store.table("bytes").unwrap();
    refused(store.table_of::<[u8], [u8]>("bytes"), &["bytes without a codec"]);
    assert_eq!(ages(&store).unwrap().get("Ada").unwrap(), Some(36));
    // A table of the same name is another one.
    let before = ages(&store).unwrap();
    store.drop_table("ages").unwrap();
    store.table_of::<str, u16>("ages").unwrap().set("Ada", &300).unwrap();
    assert!(matches!(before.get("Ada"), Err(Error::TableDropped { .. })));
    assert!(matches!(before.iter().next(), Some(Err(Error::TableDropped { .. }))));
    refused(ages(&store), &["\"u16\""]);
    store.close().unwrap();
}

#[test]
fn codecs_without_a_name_make_no_table() {
    let dir = scratch();
    let store = open(&tiny_options(), &dir.path().join("s"));
    for error in [
        store.table_of::<Named<0>, ()>("t").unwrap_err(),
        store.table_of::<(), Named<129>>("t").unwrap_err(),
        store.retype_table::<(), Named<129>>("t").unwrap_err(),
    ] {
        assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
        says(&error, &["the name of a codec", "1 to 128 bytes"]);
    }
    assert!(store.tables().unwrap().is_empty());
    store.table_of::<Named<128>, Named<1>>("t").unwrap().set(b"a", b"b").unwrap();
    store.close().unwrap();
}

#[test]
fn what_a_codec_refuses_changes_nothing() {
    let dir = scratch();
    let store = open(&tiny_options(), &dir.path().join("s"));
    let even = store.table_of::<str, Even<1>>("even").unwrap();
    even.set("a", &2).unwrap();
    let refused = |error: Error| {
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        says(&error, &["a value of table \"even\" cannot be written as \"even\" version 1: 3 is odd"]);
        assert_eq!((even.len(), even.get("a").unwrap()), (1, Some(2)));
    };
    refused(even.set("a", &3).unwrap_err());
    refused(even.insert("b", &3).unwrap_err());
    refused(even.update("a", |old| old.map(|old| old + 1)).unwrap_err());
    refused(even.get_or_insert_with("b", || 3).unwrap_err());
    refused(even.compare_exchange("a", Some(&2), Some(&3)).unwrap_err());
    let mut batch = Batch::new();
    refused(batch.typed(&even).insert("b", &3).unwrap_err());
    assert!(batch.is_empty());
    let error: std::io::Error = even.set("a", &3).unwrap_err().into();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    store.close().unwrap();
}

#[test]
fn bytes_of_other_hands_are_told_with_their_key() {
    let dir = scratch();
    let store = open(&tiny_options(), &dir.path().join("s"));
    let even = store.table_of::<str, Even<1>>("even").unwrap();
    even.set("good", &2).unwrap();
    let raw = store.existing_table("even").unwrap();
    let spoil = || raw.insert("bad", [0, 0, 0, 3]).map(drop).unwrap();
    spoil();
    raw.insert([0xff], 4u32.to_be_bytes()).unwrap();
    let told = |error: Error| {
        assert!(matches!(error, Error::Decode { .. }) && !error.is_corruption(), "{error}");
        says(&error, &["the value of key \"bad\" of table \"even\" is no \"even\" version 1: 3 is odd"]);
    };
    told(even.get("bad").unwrap_err());
    told(even.get_many(["good", "bad"]).unwrap_err());
    told(even.update("bad", |_| panic!("it is not asked")).unwrap_err());
    // Each error stands in its place, and the rest is read.
    let (good, bad): (Vec<_>, Vec<_>) = even.iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 2));
    let key = even.keys().find_map(Result::err).unwrap();
    says(&key, &["the key of key \"\\xff\" of table \"even\" is no \"str\" version 1"]);
    // The call says what it could not read, and has done what it was asked to.
    told(even.insert("bad", &6).unwrap_err());
    assert_eq!(even.get("bad").unwrap(), Some(6));
    spoil();
    told(even.remove("bad").unwrap_err());
    assert!(!even.contains_key("bad").unwrap());
    spoil();
    even.set("bad", &8).unwrap();
    assert_eq!(even.get("bad").unwrap(), Some(8));
    store.close().unwrap();
}

/// Opens the table by its types, and by others.
fn has_its_types(store: &Store) {
    assert_eq!(ages(store).unwrap().get("Ada").unwrap(), Some(36));
    refused(store.table_of::<str, i8>("ages"), &["\"u8\" version 1"]);
}

fn copy(store: &Store, to: &Path) {
    common::copy_store(store.path(), to);
}

#[test]
fn types_survive_kills_clears_and_tools() {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let store = open(&tiny_options(), &at("s"));
    ages(&store).unwrap().set("Alan", &41).unwrap();
    // The entry is written anew, with all that it says.
    ages(&store).unwrap().clear().unwrap();
    ages(&store).unwrap().set("Ada", &36).unwrap();
    copy(&store, &at("killed"));
    has_its_types(&open(&tiny_options(), &at("killed")));
    store.checkpoint().unwrap();
    copy(&store, &at("killed later"));
    has_its_types(&open(&tiny_options(), &at("killed later")));
    store.close().unwrap();
    has_its_types(&open(&tiny_options().read_only(true), &at("s")));

    tophash::repair::repair(at("s"), at("repaired")).unwrap();
    has_its_types(&open(&Options::new(), &at("repaired")));
    std::fs::remove_file(at("killed").join("index")).unwrap();
    tophash::repair::repair(at("killed"), at("repaired without an index")).unwrap();
    has_its_types(&open(&Options::new(), &at("repaired without an index")));
    tophash::compact::compact(at("s")).unwrap();
    has_its_types(&open(&Options::new(), &at("s")));
    assert!(tophash::verify::verify(at("s")).unwrap().is_clean());
}

#[test]
fn a_read_only_store_makes_no_typed_table() {
    let dir = scratch();
    let path = dir.path().join("s");
    open(&tiny_options(), &path).close().unwrap();
    let store = open(&Options::new().read_only(true), &path);
    assert!(matches!(ages(&store), Err(Error::NoSuchTable { .. })));
    assert!(matches!(store.retype_table::<str, u8>("ages"), Err(Error::NoSuchTable { .. })));
}

#[test]
fn a_table_gets_new_types_when_each_record_is_one_of_them() {
    let dir = scratch();
    let path = dir.path().join("s");
    let store = open(&tiny_options(), &path);
    let raw = store.table("even").unwrap();
    for n in 0..300u32 {
        raw.insert(n.to_string(), (2 * n).to_be_bytes()).unwrap();
    }
    raw.insert("odd", 3u32.to_be_bytes()).unwrap();
    let error = store.retype_table::<str, Even<1>>("even").unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
    refused(store.table_of::<str, Even<1>>("even"), &["bytes without a codec"]);
    raw.remove("odd").unwrap();
    let even = store.retype_table::<str, Even<1>>("even").unwrap();
    assert_eq!((even.len(), even.get("299").unwrap()), (300, Some(598)));
    // From version to version as well. What was there and what is written now survive alike.
    store.retype_table::<str, Even<2>>("even").unwrap().set("new", &2).unwrap();
    refused(store.table_of::<str, Even<1>>("even"), &["\"even\" version 2"]);
    let killed = dir.path().join("killed");
    copy(&store, &killed);
    for store in [store, open(&tiny_options(), &killed)] {
        assert_eq!(store.table_of::<str, Even<2>>("even").unwrap().len(), 301);
        store.close().unwrap();
    }
    let report = tophash::verify::verify(&path).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn one_of_two_makers_gives_a_table_its_types() {
    let dir = scratch();
    let store = open(&tiny_options(), &dir.path().join("s"));
    for round in 0..50 {
        let (name, both) = (format!("t{round}"), Barrier::new(2));
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                both.wait();
                store.table_of::<str, u8>(&name).map(drop)
            });
            both.wait();
            let second = store.table_of::<str, u16>(&name).map(drop);
            (first.join().unwrap(), second)
        });
        assert!(first.is_ok() != second.is_ok(), "{first:?}, {second:?}");
        refused(if first.is_ok() { second } else { first }, &["version 1"]);
    }
    assert_eq!(store.tables().unwrap().len(), 50);
    store.close().unwrap();
}

/// Values of an aligned table, each of which begins at a multiple of 16 bytes and is what it should be.
fn lie_well(store: &Store, name: &str, expected: impl Fn(&[u8]) -> Vec<u8>) -> u64 {
    let mut found = 0;
    for entry in store.existing_table(name).unwrap().iter() {
        let entry = entry.unwrap();
        let at = entry.value().as_ptr() as usize;
        assert!(at.is_multiple_of(16), "the value of {:?} at {at:#x}", entry.key().escape_ascii().to_string());
        assert_eq!(entry.value(), expected(entry.key()), "{:?}", entry.key().escape_ascii().to_string());
        found += 1;
    }
    found
}

/// Keys and values of all lengths that matter for where a value lies: large headers, deadlines, batches, large values.
#[test]
fn aligned_values_lie_well_wherever_they_are_moved() {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let store = open(&tiny_options(), &at("s"));
    let table = store.table_of::<[u8], Aligned>("t").unwrap();
    let value =
        |key: &[u8]| common::bytes(key.len() * 7 % 90 + if key.len() == 39 { 700 } else { 0 }, key.len() as u64);
    let keys: Vec<Vec<u8>> = (0..600usize).map(|n| format!("{n:0width$}", width = 3 + n % 300).into_bytes()).collect();
    for (n, key) in keys.iter().enumerate() {
        // So that records begin at odd places, too.
        store.set(format!("between {}", n % 7), vec![0; n % 40]).unwrap();
        match n % 4 {
            0 => table.expiring(Duration::from_secs(100_000)).set(key, &value(key)).unwrap(),
            1 => {
                let mut batch = Batch::new();
                batch.insert("between", "them");
                batch.typed(&table).insert(key, &value(key)).unwrap().insert(b"again", &value(b"again")).unwrap();
                store.apply(&batch).unwrap();
            }
            2 => table.update(key, |_| Some(value(key))).map(drop).unwrap(),
            _ => table.set(key, &value(key)).unwrap(),
        }
        if n % 5 == 0 {
            assert!(table.expire(key, Duration::from_secs(90_000)).unwrap());
        }
    }
    let all = keys.len() as u64 + 1;
    assert_eq!(lie_well(&store, "t", value), all);
    copy(&store, &at("killed"));
    assert_eq!(lie_well(&open(&tiny_options(), &at("killed")), "t", value), all);
    // Evacuation moves each record, and some by eight bytes.
    for n in 0..3_000u32 {
        store.set("churn", vec![0; n as usize % 90]).unwrap();
    }
    store.compact().unwrap();
    assert_eq!(lie_well(&store, "t", value), all);
    copy(&store, &at("compacted"));
    store.close().unwrap();
    for path in [at("s"), at("compacted")] {
        let report = tophash::verify::verify(&path).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
    tophash::repair::repair(at("compacted"), at("repaired")).unwrap();
    std::fs::remove_file(at("compacted").join("index")).unwrap();
    tophash::repair::repair(at("compacted"), at("repaired without an index")).unwrap();
    tophash::compact::compact(at("s")).unwrap();
    for name in ["s", "repaired", "repaired without an index"] {
        assert_eq!(lie_well(&open(&Options::new(), &at(name)), "t", value), all, "{name}");
        assert!(tophash::verify::verify(at(name)).unwrap().is_clean(), "{name}");
    }
}

/// Records from before are read wherever they lie, and those that are written now lie well.
#[test]
fn a_table_of_bytes_gets_aligned_values() {
    let dir = scratch();
    let store = open(&tiny_options(), &dir.path().join("s"));
    let raw = store.table("t").unwrap();
    let keys: Vec<String> = (0..40).map(|n| "k".repeat(n)).collect();
    keys.iter().for_each(|key| raw.insert(key, key).map(drop).unwrap());
    let table = store.retype_table::<[u8], Aligned>("t").unwrap();
    assert!(keys.iter().all(|key| table.get(key.as_bytes()).unwrap().as_deref() == Some(key.as_bytes())));
    // Handles from before write them, too.
    keys.iter().for_each(|key| raw.insert(key, key).map(drop).unwrap());
    assert_eq!(lie_well(&store, "t", <[u8]>::to_vec), 40);
    // And back: what is aligned stays readable.
    store.retype_table::<[u8], [u8]>("t").unwrap();
    raw.insert("new", "new").unwrap();
    assert_eq!(raw.iter().map(Result::unwrap).filter(|entry| entry.key() == entry.value()).count(), 41);
    store.close().unwrap();
}
