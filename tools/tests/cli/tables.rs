//! Tables: --table, `tophash tables`, and texts that hold several.

use serde_json::json;

use crate::support::{Desk, Record, contents, contents_of, dump, nasty_records};

fn pair(key: &str, value: &str) -> Record {
    (key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

/// A store with three tables, one of them empty, and the main one.
fn shop() -> Desk {
    let desk = Desk::new();
    desk.ok(&["set", "s", "k", "main"]);
    desk.ok(&["set", "s", "7", "Ada", "--table", "users"]);
    desk.ok(&["set", "s", "8", "Grace", "--table", "users", "--expires-at", "2999-01-01T00:00:00Z"]);
    desk.ok(&["set", "s", "7", "3 apples", "--table", "carts"]);
    desk.run_with(&["import", "s", "--format", "jsonl"], b"{\"table\":\"empty\"}\n").ok();
    desk
}

#[test]
fn each_table_has_keys_of_its_own() {
    let desk = shop();
    assert_eq!(desk.ok(&["get", "s", "7", "--table", "users"]), b"Ada");
    assert_eq!(desk.ok(&["get", "s", "7", "--table", "carts"]), b"3 apples");
    desk.run(&["get", "s", "7"]).fails(1, &["key not found"]);
    assert_eq!(desk.ok(&["get", "s", "k", "--table", ""]), b"main");
    let ran = desk.run(&["get", "s", "8", "--table", "users", "--json"]);
    assert_eq!(ran.json()["expires_ms"], json!(32_472_144_000_000_u64));
    assert_eq!(desk.ok(&["scan", "s", "--table", "carts"]), b"7\t3 apples\n");
    assert_eq!(desk.ok(&["scan", "s"]), b"k\tmain\n");
    desk.run(&["del", "s", "7", "--table", "empty"]).fails(1, &[]);
    assert_eq!(desk.ok(&["del", "s", "7", "--table", "users"]), b"removed 1 of 1 key\n");
    assert_eq!(contents_of(&desk.path("s"), Some("users")), [pair("8", "Grace")]);
    assert_eq!(contents_of(&desk.path("s"), Some("carts")), [pair("7", "3 apples")]);
}

#[test]
fn a_table_that_is_not_there_is_told_with_the_way_to_it() {
    let desk = shop();
    for args in [
        &["get", "s", "7", "--table", "user"][..],
        &["del", "s", "7", "--table", "user"],
        &["scan", "s", "--table", "user"],
        &["export", "s", "--format", "tsv", "--table", "user"],
        &["set", "s", "7", "Ada", "--table", "user", "--no-create"],
    ] {
        desk.run(args).fails(2, &["there is no table user in ", "`tophash tables STORE`"]);
    }
    let line = b"{\"table\":\"user\",\"key\":\"a\",\"value\":\"1\"}\n";
    desk.run_with(&["import", "s", "--format", "jsonl", "--no-create"], line).fails(2, &["there is no table user"]);
    desk.run(&["tables", "s", "--drop", "user"]).fails(1, &["there is no table user", "`tophash tables STORE`"]);
    desk.run(&["tables", "s", "--clear", "user"]).fails(1, &["there is no table user"]);
    desk.run(&["tables", "s", "--drop", ""]).fails(1, &["the main table cannot be dropped", "--clear ''"]);
    desk.run(&["tables", "s", "--drop", "users", "--clear", "users"]).fails(2, &["cannot be used with"]);
    let long = "x".repeat(256);
    desk.run(&["set", "s", "7", "Ada", "--table", &long]).fails(2, &["255 bytes"]);
    let line = format!("{{\"table\":\"{long}\",\"key\":\"a\",\"value\":\"1\"}}\n");
    desk.run_with(&["import", "s", "--format", "jsonl"], line.as_bytes()).fails(1, &["line 1", "255 bytes"]);
    let listed = desk.run(&["tables", "s", "--json"]).json();
    assert_eq!(listed["tables"].as_array().map(Vec::len), Some(4), "{listed}");
}

#[test]
fn tables_are_listed_cleared_and_dropped() {
    let desk = shop();
    let listed = desk.run(&["tables", "s", "--json"]).json();
    let said: Vec<_> = listed["tables"].as_array().unwrap().iter().map(|t| (&t["name"], &t["records"])).collect();
    let [main, carts, empty, users] = [json!(null), json!("carts"), json!("empty"), json!("users")];
    assert_eq!(said, [(&main, &json!(1)), (&carts, &json!(1)), (&empty, &json!(0)), (&users, &json!(2))]);
    let text = desk.run(&["tables", "s"]).text();
    assert!(text.contains("| (main) |") && text.contains("| users  |       2 |"), "{text}");
    let stats = desk.run(&["stats", "s", "--json"]).json();
    assert_eq!((&stats["records"], &stats["tables"], &stats["by_table"]), (&json!(4), &json!(3), &listed["tables"]));
    let stats = desk.run(&["stats", "s"]).text();
    assert!(stats.contains("| tables ") && stats.ends_with(&text), "{stats}");

    assert_eq!(desk.ok(&["tables", "s", "--clear", "users"]), b"cleared table users, with 2 records\n");
    let ran = desk.run(&["tables", "s", "--drop", "carts", "--json"]);
    assert_eq!((ran.json(), ran.code), (json!({"found": true, "records": 1}), Some(0)));
    let ran = desk.run(&["tables", "s", "--drop", "carts", "--json"]);
    assert_eq!((ran.json(), ran.code), (json!({"found": false, "records": 0}), Some(1)));
    assert_eq!(desk.ok(&["tables", "s", "--clear", ""]), b"cleared the main table, with 1 record\n");
    let listed = desk.run(&["tables", "s", "--json"]).json();
    let said: Vec<_> = listed["tables"].as_array().unwrap().iter().map(|t| (&t["name"], &t["records"])).collect();
    assert_eq!(said, [(&main, &json!(0)), (&empty, &json!(0)), (&users, &json!(0))]);
    // A store without tables: nothing is said of them.
    desk.ok(&["set", "plain", "a", "1"]);
    assert!(!desk.run(&["stats", "plain"]).text().contains("(main)"));
}

#[test]
fn every_table_is_exported_and_imported() {
    let desk = shop();
    let records = nasty_records();
    desk.run_with(&["import", "s", "--format", "dump", "--table", "two words \\ \u{1f600}"], &dump(&records)).ok();
    let listed = |store: &str| {
        let mut tables = desk.run(&["tables", store, "--json"]).json()["tables"].take();
        for table in tables.as_array_mut().unwrap() {
            *table = json!([table["name"], table["records"]]);
        }
        tables
    };
    for (name, options) in [("jsonl", &["jsonl"][..]), ("dump", &["dump"]), ("print", &["dump", "--print"])] {
        let text = desk.ok(&[&["export", "s", "--format"], options].concat());
        let ran = desk.run_with(&["import", name, "--format", options[0], "--json", "--batch", "3"], &text);
        let summary = ran.json();
        assert_eq!(summary["tables"], json!(["carts", "empty", "two words \\ \u{1f600}", "users"]), "{name}");
        assert_eq!(summary["records_in_store"], json!(4 + records.len()), "{name}");
        assert_eq!(listed(name), listed("s"), "{name}");
        assert_eq!(contents(&desk.path(name)), contents(&desk.path("s")), "{name}");
        for table in ["carts", "users", "two words \\ \u{1f600}"] {
            let of = |store: &str| contents_of(&desk.path(store), Some(table));
            assert_eq!(of(name), of("s"), "{name}, {table}");
        }
        let dry = desk.run_with(&["import", "dry", "--format", options[0], "--dry-run"], &text);
        assert!(dry.text().contains("for 4 tables"), "{}", dry.text());
    }
    let ran = desk.run(&["get", "jsonl", "8", "--table", "users", "--json"]);
    assert_eq!(ran.json()["expires_ms"], json!(32_472_144_000_000_u64));
    let ran = desk.run(&["export", "s", "file", "--format", "jsonl", "--json"]);
    assert_eq!(ran.json()["tables"], json!(5));
}

#[test]
fn a_compaction_keeps_every_table() {
    let desk = shop();
    let lines: String = (0..5000).map(|i| format!("key{i}\t{}\n", "v".repeat(100))).collect();
    for table in ["carts", "gone"] {
        desk.run_with(&["import", "s", "--format", "tsv", "--table", table], lines.as_bytes()).ok();
    }
    desk.ok(&["tables", "s", "--drop", "gone"]);
    let before = desk.ok(&["export", "s", "--format", "dump"]);
    let ran = desk.run(&["compact", "s"]);
    assert!(ran.text().contains("| tables           | 3 ") && ran.text().contains("came back"), "{}", ran.text());
    ran.ok();
    desk.run(&["verify", "s"]).ok();
    // In the same order, because the hashes are the same.
    assert_eq!(desk.ok(&["export", "s", "--format", "dump"]), before);
}

#[test]
fn one_table_is_exported_as_if_it_were_all() {
    let desk = shop();
    desk.run(&["export", "s", "--format", "tsv"]).fails(2, &["3 tables beside the main one", "--table NAME", "jsonl"]);
    assert_eq!(desk.ok(&["export", "s", "--format", "tsv", "--table", ""]), b"k\tmain\n");
    assert_eq!(desk.ok(&["export", "s", "--format", "tsv", "--table", "carts"]), b"7\t3 apples\n");
    let text = desk.ok(&["export", "s", "--format", "jsonl", "--table", "carts"]);
    assert_eq!(text, b"{\"key\":\"7\",\"value\":\"3 apples\"}\n");
    desk.run_with(&["import", "s", "--format", "jsonl", "--table", "old carts"], &text).ok();
    assert_eq!(contents_of(&desk.path("s"), Some("old carts")), [pair("7", "3 apples")]);
    // A record that names another table is not put elsewhere without a word.
    let all = desk.ok(&["export", "s", "--format", "jsonl"]);
    let ran = desk.run_with(&["import", "t", "--format", "jsonl", "--table", "x"], &all);
    ran.fails(1, &["line 2", "names the table carts", "1 record stored before"]);
    desk.run(&["export", "s", "--format", "dump", "--database", "d"]).fails(2, &["--table NAME"]);
    let text = desk.ok(&["export", "s", "--format", "dump", "--database", "d", "--table", "carts"]);
    desk.run_with(&["import", "u", "--format", "dump"], &text).ok();
    assert_eq!(contents_of(&desk.path("u"), Some("d")), [pair("7", "3 apples")]);
    desk.run_with(&["import", "u", "--format", "dump", "--database", "d"], &text).ok();
    assert_eq!(contents(&desk.path("u")), [pair("7", "3 apples")]);
    desk.ok(&["set", "s", "a", "1", "--table", "two\nlines"]);
    desk.run(&["export", "s", "--format", "dump"]).fails(2, &["two\\nlines", "--format jsonl"]);
}

/// Two databases without a name are one table too many; so are two of one name.
#[test]
fn databases_for_one_table_are_refused_before_anything_is_stored() {
    let desk = Desk::new();
    let one = String::from_utf8(dump(&[pair("a", "1")])).unwrap();
    let named = one.replace("type=btree", "database=d\ntype=btree");
    for (name, text) in [("unnamed", format!("{one}{one}")), ("named", format!("{named}{one}{named}"))] {
        desk.write(name, &text);
        desk.run(&["import", "s", name, "--format", "dump"]).fails(1, &["for one table", "nothing was imported"]);
        assert!(!desk.names().contains(&"s".to_string()));
        let piped = desk.run_with(&["import", "piped", "--format", "dump"], text.as_bytes());
        piped.fails(1, &["both go to one table", "--database"]);
    }
}
