//! Tests of the dump reader, with texts as `db_dump` and `mdb_dump` write them.

use super::*;
use crate::format::{Format, ReadOptions, samples};

fn read(text: &str) -> (Vec<(String, String)>, Option<ReadError>) {
    read_with(text, &samples::read_options())
}

fn read_with(text: &str, options: &ReadOptions) -> (Vec<(String, String)>, Option<ReadError>) {
    let (records, error) = samples::read_all(Format::Dump, text.as_bytes(), options);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (records.iter().map(|record| (text(&record.key), text(&record.value))).collect(), error)
}

fn refused(text: &str) -> (u64, Reason) {
    match read(text).1 {
        Some(ReadError::Bad { line, reason }) => (line, reason),
        other => panic!("{text:?}: {other:?}"),
    }
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_string(), value.to_string())
}

const TWO: &str = "VERSION=3\nformat=bytevalue\ndatabase=one\ntype=btree\ndb_pagesize=4096\nHEADER=END\n \
                   61\n 62\nDATA=END\n\
                   VERSION=3\nformat=print\ndatabase=two\ntype=hash\nh_nelem=2\nHEADER=END\n \
                   c\n \\5cd\\\\\nDATA=END\n";

#[test]
fn what_lmdb_writes() {
    let text = "VERSION=3\nformat=bytevalue\ntype=btree\nmapsize=1048576\nmaxreaders=126\ndb_pagesize=4096\n\
                HEADER=END\n 6b32\n \n 6B\n 76\nDATA=END\n";
    let (records, error) = read(text);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(records, [pair("k2", ""), pair("k", "v")]);
}

#[test]
fn an_empty_database_is_no_error() {
    assert_eq!(read("VERSION=3\nformat=print\ntype=btree\nHEADER=END\nDATA=END\n").0, []);
}

#[test]
fn dos_line_ends_are_taken_in_hex_dumps() {
    let (records, error) = read("VERSION=3\r\nformat=bytevalue\r\nHEADER=END\r\n 61\r\n 62\r\nDATA=END\r\n");
    assert!(error.is_none(), "{error:?}");
    assert_eq!(records, [pair("a", "b")]);
}

#[test]
fn databases_with_names_are_tables() {
    let (records, error) = samples::read_all(Format::Dump, TWO.as_bytes(), &samples::read_options());
    assert!(error.is_none(), "{error:?}");
    let said: Vec<_> =
        records.iter().map(|record| (record.table.as_deref(), &record.key[..], record.only_table)).collect();
    let (one, two) = (Some("one"), Some("two"));
    assert_eq!(said, [(one, &b""[..], true), (one, b"a", false), (two, b"", true), (two, b"c", false)]);
    // Without a name, or with an empty one: the main table.
    let text = TWO.replace("database=one\n", "").replace("database=two", "database=");
    let (records, error) = samples::read_all(Format::Dump, text.as_bytes(), &samples::read_options());
    assert!(records.len() == 1 && records[0].table.is_none(), "{records:?}");
    let error = error.expect("two databases for the main table").to_string();
    assert!(error.contains("one without a name") && error.contains("--database"), "{error}");
    let error = read(&TWO.replace("=two", "=one")).1.expect("two databases of a name").to_string();
    assert!(error.contains("(\"one\") follows \"one\""), "{error}");
}

#[test]
fn a_second_database_is_an_error_for_one_table_unless_it_is_chosen() {
    let mut options = ReadOptions { select: Select::TheOnlyOne, ..samples::read_options() };
    let (records, error) = read_with(TWO, &options);
    assert_eq!(records, [pair("a", "b")]);
    let error = error.expect("two databases").to_string();
    assert!(error.contains("\"two\"") && error.contains("\"one\"") && error.contains("--database"), "{error}");

    options.select = Select::Named("two".into());
    let (records, error) = read_with(TWO, &options);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(records, [pair("c", "\\d\\")]);

    options.select = Select::Named("three".into());
    let error = read_with(TWO, &options).1.expect("no such database").to_string();
    assert!(error.contains("three") && error.contains("\"one\", \"two\""), "{error}");
}

#[test]
fn names_can_be_listed_without_decoding() {
    let mut reader = DumpReader::new(TWO.as_bytes(), 100, Select::NamesOnly, false);
    assert!(!reader.next(&mut Record::default()).unwrap());
    assert_eq!(reader.names(), [Some("one".to_string()), Some("two".to_string())]);
}

#[test]
fn duplicates_need_a_decision() {
    let text = "VERSION=3\nformat=print\nduplicates=1\ndupsort=1\nHEADER=END\n a\n 1\n a\n 2\nDATA=END\n";
    assert_eq!(refused(text), (5, Reason::Duplicates));
    let mut options = samples::read_options();
    options.last_wins = true;
    assert_eq!(read_with(text, &options).0, [pair("a", "1"), pair("a", "2")]);
}

#[test]
fn headers_that_cannot_be_read() {
    for (text, keyword, line) in [
        ("VERSION=4\n", "VERSION", 1),
        ("VERSION=3\nformat=octal\n", "format", 2),
        ("VERSION=3\nformat=print\ntype=heap\n", "type", 3),
        ("VERSION=3\nformat=print\ntype=recno\nHEADER=END\n one\nDATA=END\n", "type", 4),
        ("VERSION=3\nformat=print\ntype=btree\nkeys=0\n", "keys", 4),
    ] {
        match refused(text) {
            (found, Reason::Header { keyword: name, .. }) => assert_eq!((name, found), (keyword, line), "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

/// What older tools wrote, and other systems made of it, was refused without a way out or stored with its line ends.
#[test]
fn older_versions_and_other_line_ends() {
    let expected = [pair("a", "1"), pair("b", "")];
    for text in [
        "VERSION=2\nformat=print\ntype=hash\nHEADER=END\n a\n 1\n b\n \nDATA=END\n",
        // mdb_load and db_load take bytevalue where nothing is said.
        "VERSION=3\ntype=btree\nHEADER=END\n 61\n 31\n 62\n \nDATA=END\n",
        "VERSION=3\r\nformat=print\r\nHEADER=END\r\n a\r\n 1\r\n b\r\n \r\nDATA=END\r\n",
        "\u{feff}VERSION=3\nformat=print\nHEADER=END\n a\n 1\n b\n \nDATA=END\n",
        "format=print\ntype=btree\nHEADER=END\na\n1\nb\n\n",
        "type=hash\nformat=bytevalue\nHEADER=END\n61\n31\n62\n\n",
        "VERSION=3\nformat=print\ntype=recno\nkeys=1\nHEADER=END\n a\n 1\n b\n \nDATA=END\n",
    ] {
        let (records, error) = read(text);
        assert!(error.is_none(), "{text:?}: {error:?}");
        assert_eq!(records, expected, "{text:?}");
    }
    assert!(matches!(refused("type=hash\nHEADER=END\n61\n"), (3, Reason::Structure { .. })));
    let (_, keyless) = refused("VERSION=3\nformat=print\ntype=queue\nHEADER=END\n a\nDATA=END\n");
    assert!(keyless.to_string().contains("db_dump -k"), "{keyless}");
}

#[test]
fn a_database_without_a_name_is_chosen_by_its_number() {
    let one = "VERSION=3\nformat=print\nHEADER=END\n a\n 1\nDATA=END\n";
    let text = format!("{one}{}", one.replace(" a", " b"));
    let mut options = samples::read_options();
    options.select = Select::Named("2".into());
    let (records, error) = read_with(&text, &options);
    assert!(error.is_none() && records == [pair("b", "1")], "{records:?}, {error:?}");
}

#[test]
fn a_text_that_is_no_dump() {
    assert_eq!(refused("").1, Reason::CutShort { missing: "the header (VERSION=3)" });
    for (text, at) in [("key\tvalue\n", 1), ("mapsize=1\n", 1), ("HEADER=END\n", 1), ("VERSION=3\nkey\n", 2)] {
        let (line, reason) = refused(text);
        assert!(matches!(reason, Reason::Structure { .. }), "{text:?}: {reason:?}");
        assert_eq!(line, at, "{text:?}");
    }
}

#[test]
fn a_dump_that_is_cut_short() {
    let whole = "VERSION=3\nformat=print\nHEADER=END\n a\n 1\n";
    assert_eq!(refused("VERSION=3\n").1, Reason::CutShort { missing: "HEADER=END" });
    assert_eq!(refused(whole).1, Reason::CutShort { missing: "DATA=END" });
    assert_eq!(refused(&format!("{whole} b\n")).1, Reason::CutShort { missing: "DATA=END" });
    let (line, reason) = refused(&format!("{whole} b\nDATA=END\n"));
    assert_eq!(line, 7);
    assert!(matches!(reason, Reason::Structure { .. }), "{reason:?}");
}

#[test]
fn a_bad_line_leaves_the_reader_before_the_next_key() {
    let text = b"VERSION=3\nformat=bytevalue\nHEADER=END\n 6\n 61\n 61\n zz\n xx\n yy\n 62\n 63\nDATA=END\n";
    let mut reader = DumpReader::new(&text[..], 100, Select::TheOnlyOne, false);
    let mut record = Record::default();
    for line in [4, 7, 8] {
        match reader.next(&mut record) {
            Err(ReadError::Bad { line: found, reason: Reason::Hex(_) }) => assert_eq!(found, line),
            other => panic!("{other:?}"),
        }
    }
    assert!(reader.next(&mut record).unwrap());
    assert_eq!((&record.key[..], &record.value[..]), (&b"b"[..], &b"c"[..]));
    assert!(!reader.next(&mut record).unwrap());
    assert!(!reader.next(&mut record).unwrap());
}

#[test]
fn bad_print_escapes_name_their_column() {
    for (text, at) in [(" \\", 2), (" ab\\0", 4), (" \\\\\\zz", 4)] {
        match refused(&format!("VERSION=3\nformat=print\nHEADER=END\n{text}\n v\nDATA=END\n")) {
            (4, Reason::Escape { column, .. }) => assert_eq!(column, at, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn a_line_without_its_space_ends_the_reading() {
    let (line, reason) = refused("VERSION=3\nformat=print\nHEADER=END\nkey\n v\nDATA=END\n");
    assert_eq!(line, 4);
    assert!(!reason.is_skippable(), "{reason:?}");
}
