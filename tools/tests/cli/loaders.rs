//! Dumps, against the real tools of LMDB and Berkeley DB. Where they are not installed (Debian: lmdb-utils, db-util)
//! the tests say so and pass.

use std::process::{Command, Stdio};

use crate::support::{Desk, Record, contents, contents_of, dump, nasty_records};

fn is_there(test: &str, programs: &[&str]) -> bool {
    let missing = programs
        .iter()
        .find(|program| Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err());
    if let Some(program) = missing {
        eprintln!("{test} is skipped: {program} is not installed");
    }
    missing.is_none()
}

/// What LMDB can hold: keys of 1 to 511 bytes.
fn records_for_lmdb() -> Vec<Record> {
    nasty_records().into_iter().filter(|(key, _)| (1..=511).contains(&key.len())).collect()
}

fn store(desk: &Desk, records: &[Record]) {
    desk.run_with(&["import", "s", "--format", "dump"], &dump(records)).ok();
}

#[test]
fn lmdb_reads_what_we_write_and_we_read_what_lmdb_writes() {
    if !is_there("lmdb", &["mdb_load", "mdb_dump"]) {
        return;
    }
    let desk = Desk::new();
    let records = records_for_lmdb();
    store(&desk, &records);
    for (name, options) in [("hex", &[][..]), ("print", &["--print"])] {
        let text = desk.ok(&[&["export", "s", "--format", "dump"], options].concat());
        let file = format!("{name}.mdb");
        desk.program("mdb_load", &["-n", &file], &text).ok();
        let back = desk.program("mdb_dump", &["-n", &file], b"").ok();
        let copy = format!("{name}.tophash");
        desk.run_with(&["import", &copy, "--format", "dump"], &back).ok();
        assert_eq!(contents(&desk.path(&copy)), records, "{name}");
    }
}

#[test]
fn printable_dumps_of_lmdb_are_read_where_it_escapes_backslashes_or_has_none() {
    if !is_there("lmdb, printable", &["mdb_load", "mdb_dump"]) {
        return;
    }
    let desk = Desk::new();
    // mdb_dump -p before LMDB 0.9.25 does not escape backslashes, and nobody can read that back.
    let has_none = |(key, value): &Record| !key.contains(&b'\\') && !value.contains(&b'\\');
    let records: Vec<_> = records_for_lmdb().into_iter().filter(has_none).collect();
    store(&desk, &records);
    let text = desk.ok(&["export", "s", "--format", "dump"]);
    desk.program("mdb_load", &["-n", "a.mdb"], &text).ok();
    let back = desk.program("mdb_dump", &["-n", "-p", "a.mdb"], b"").ok();
    desk.run_with(&["import", "copy", "--format", "dump"], &back).ok();
    assert_eq!(contents(&desk.path("copy")), records);
}

#[test]
fn lmdb_gets_a_mapsize_that_suffices() {
    if !is_there("lmdb, mapsize", &["mdb_load", "mdb_dump"]) {
        return;
    }
    let desk = Desk::new();
    // Values of every size around half a page, where LMDB wastes most, and more than its default of 1 MiB in all.
    let records: Vec<Record> =
        (0..6000_u32).map(|i| (i.to_be_bytes().to_vec(), vec![b'v'; (i as usize * 7) % 5000])).collect();
    store(&desk, &records);
    let text = desk.ok(&["export", "s", "--format", "dump", "--lmdb", "--database", "users"]);
    std::fs::create_dir(desk.path("env")).expect("a folder for LMDB");
    desk.program("mdb_load", &["env"], &text).ok();
    let back = desk.program("mdb_dump", &["-s", "users", "env"], b"").ok();
    desk.run_with(&["import", "copy", "--format", "dump", "--database", "users"], &back).ok();
    assert!(contents(&desk.path("copy")) == records, "the records differ");
}

#[test]
fn berkeley_db_reads_what_we_write_and_we_read_what_it_writes() {
    if !is_there("berkeley db", &["db_load", "db_dump"]) {
        return;
    }
    let desk = Desk::new();
    let records = nasty_records();
    store(&desk, &records);
    for (name, export, load, dump) in [
        ("hex", &[][..], &[][..], &[][..]),
        ("print", &["--print"], &[], &["-p"]),
        ("hash", &[], &["-t", "hash"], &[]),
        ("named", &["--print", "--database", "users"], &[], &["-p", "-s", "users"]),
    ] {
        let text = desk.ok(&[&["export", "s", "--format", "dump"], export].concat());
        let file = format!("{name}.db");
        desk.program("db_load", &[load, &[&file]].concat(), &text).ok();
        let back = desk.program("db_dump", &[dump, &[&file]].concat(), b"").ok();
        let copy = format!("{name}.tophash");
        desk.run_with(&["import", &copy, "--format", "dump"], &back).ok();
        // db_dump -s writes no name.
        assert_eq!(contents(&desk.path(&copy)), records, "{name}");
    }
}

#[test]
fn a_file_with_several_databases_is_imported_one_by_one() {
    if !is_there("berkeley db, several databases", &["db_load", "db_dump"]) {
        return;
    }
    let desk = Desk::new();
    let one = vec![(b"a".to_vec(), b"1".to_vec())];
    let two = vec![(b"b".to_vec(), b"2".to_vec())];
    for (name, records) in [("one", &one), ("two", &two)] {
        let database = format!("database={name}");
        desk.program("db_load", &["-c", &database, "both.db"], &dump(records)).ok();
    }
    let both = desk.program("db_dump", &["both.db"], b"").ok();
    desk.write("both.dump", both);
    desk.run(&["import", "s", "both.dump", "--format", "dump", "--table", "t"]).fails(1, &["one, two"]);
    desk.ok(&["import", "s", "both.dump", "--format", "dump"]);
    for (name, records) in [("one", one), ("two", two)] {
        assert_eq!(contents_of(&desk.path("s"), Some(name)), records);
        desk.ok(&["import", name, "both.dump", "--format", "dump", "--database", name]);
        assert_eq!(contents(&desk.path(name)), records);
    }
}

/// Two named databases and the one without a name: what `mdb_dump -a` writes are tables, and what `export` writes of tables loads
/// into one environment.
#[test]
fn named_databases_of_lmdb_are_tables() {
    if !is_there("lmdb, named databases", &["mdb_load", "mdb_dump"]) {
        return;
    }
    let desk = Desk::new();
    let records = records_for_lmdb();
    let few = vec![(b"a".to_vec(), b"1".to_vec())];
    std::fs::create_dir(desk.path("env")).expect("a folder for LMDB");
    for (name, records) in [("users", &records), ("by age", &few)] {
        desk.program("mdb_load", &["-s", name, "env"], &dump(records)).ok();
    }
    let all = desk.program("mdb_dump", &["-a", "env"], b"").ok();
    let ran = desk.run_with(&["import", "s", "--format", "dump"], &all);
    assert!(ran.text().contains("for 2 tables"), "{}", ran.text());
    assert_eq!(contents_of(&desk.path("s"), Some("users")), records);
    assert_eq!(contents_of(&desk.path("s"), Some("by age")), few);
    assert!(contents(&desk.path("s")).is_empty());

    // The main table goes into the database without a name, which `mdb_dump -a` passes over.
    desk.ok(&["set", "s", "of the main table", "1"]);
    for (name, options) in [("hex", &[][..]), ("print", &["--print"])] {
        let text = desk.ok(&[&["export", "s", "--format", "dump", "--lmdb"], options].concat());
        std::fs::create_dir(desk.path(name)).expect("a folder for LMDB");
        desk.program("mdb_load", &[name], &text).ok();
        let back = desk.program("mdb_dump", &["-a", name], b"").ok();
        let copy = format!("{name}.tophash");
        desk.run_with(&["import", &copy, "--format", "dump"], &back).ok();
        assert_eq!(contents_of(&desk.path(&copy), Some("users")), records, "{name}");
        assert_eq!(contents_of(&desk.path(&copy), Some("by age")), few, "{name}");
        let main = desk.program("mdb_dump", &["-p", name], b"").ok();
        assert!(String::from_utf8_lossy(&main).contains(" of the main table\n 1\n"), "{name}");
    }
    // One table by itself, under a name that the loader chooses.
    let text = desk.ok(&["export", "s", "--format", "dump", "--lmdb", "--table", "by age"]);
    desk.program("mdb_load", &["-s", "other", "env"], &text).ok();
    let back = desk.program("mdb_dump", &["-s", "other", "env"], b"").ok();
    desk.run_with(&["import", "other", "--format", "dump"], &back).ok();
    assert_eq!(contents_of(&desk.path("other"), Some("other")), few);
}

#[test]
fn tables_are_databases_of_one_file_of_berkeley_db() {
    if !is_there("berkeley db, tables", &["db_load", "db_dump"]) {
        return;
    }
    let desk = Desk::new();
    let records = nasty_records();
    let text = dump(&records);
    for table in ["users", "by age"] {
        desk.run_with(&["import", "s", "--format", "dump", "--table", table], &text).ok();
    }
    desk.ok(&["set", "s", "lost", "1", "--table", "empty"]);
    desk.ok(&["del", "s", "lost", "--table", "empty"]);
    let text = desk.ok(&["export", "s", "--format", "dump"]);
    desk.program("db_load", &["all.db"], &text).ok();
    let back = desk.program("db_dump", &["all.db"], b"").ok();
    desk.run_with(&["import", "copy", "--format", "dump"], &back).ok();
    for table in ["users", "by age"] {
        assert_eq!(contents_of(&desk.path("copy"), Some(table)), records);
    }
    assert!(contents_of(&desk.path("copy"), Some("empty")).is_empty());
}

/// Numbered records, several databases, duplicates, and dumps of older versions, from the real tools.
#[test]
fn every_kind_of_database_is_stored_or_refused_with_a_way_out() {
    if !is_there("berkeley db, all kinds", &["db_load", "db_dump"]) {
        return;
    }
    let desk = Desk::new();
    let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    for (kind, configured, last) in [("recno", &[][..], "two"), ("queue", &["-c", "re_len=3"], "two")] {
        let file = format!("{kind}.db");
        desk.program("db_load", &[&["-T", "-t", kind], configured, &[&file]].concat(), b"one\ntwo\n").ok();
        let keyless = desk.program("db_dump", &[&file], b"").ok();
        desk.run_with(&["import", kind, "--format", "dump"], &keyless).fails(1, &["db_dump -k"]);
        for print in [&[][..], &["-p"]] {
            let keyed = desk.program("db_dump", &[print, &["-k", &file]].concat(), b"").ok();
            desk.run_with(&["import", kind, "--format", "dump"], &keyed).ok();
            assert_eq!(contents(&desk.path(kind)), [pair("1", "one"), pair("2", last)], "{kind}");
        }
    }
    desk.program("db_load", &["-T", "-t", "btree", "-c", "duplicates=1", "dup.db"], b"a\n1\na\n2\n").ok();
    let duplicates = desk.program("db_dump", &["dup.db"], b"").ok();
    desk.run_with(&["import", "dup", "--format", "dump"], &duplicates).fails(1, &["--last-wins"]);
    desk.run_with(&["import", "dup", "--format", "dump", "--last-wins"], &duplicates).ok();
    assert_eq!(contents(&desk.path("dup")), [pair("a", "2")]);
    // What db_dump -r saves of a damaged file has no page size; two dumps after one another have no names.
    desk.program("db_load", &["-T", "-t", "hash", "a.db"], b"x\n1\n").ok();
    let saved = desk.program("db_dump", &["-r", "a.db"], b"").ok();
    desk.run_with(&["import", "saved", "--format", "dump"], &saved).ok();
    assert_eq!(contents(&desk.path("saved")), [pair("x", "1")]);
    desk.write("two", [&saved[..], &dump(&[pair("y", "2")])].concat());
    desk.run(&["import", "two-s", "two", "--format", "dump"]).fails(1, &["number 1", "number 2", "--database"]);
    desk.ok(&["import", "two-s", "two", "--format", "dump", "--database", "2"]);
    assert_eq!(contents(&desk.path("two-s")), [pair("y", "2")]);
}
