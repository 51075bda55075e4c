//! What the tool says, and how: nothing in it acts on a terminal, it fits into 40 columns, its advice is the command's.

use std::process::Stdio;

use crate::support::{Desk, contents, eventually};

/// True for what a terminal obeys instead of showing it.
fn acts(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn filled(desk: &Desk, records: usize) {
    let lines: String = (0..records).map(|i| format!("key{i}\tvalue {i}\n")).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
}

/// Waits until a process has a handler for SIGINT.
fn has_handler(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).is_ok_and(|mask| mask & 2 != 0)
}

/// A read goes on after a signal, so an import that waited for a pipe or a terminal had to be told twice.
#[test]
fn ctrl_c_ends_an_import_that_waits_for_input() {
    let desk = Desk::new();
    desk.program("mkfifo", &["pipe"], b"").ok();
    for args in [&["import", "s", "-", "--format", "tsv"][..], &["import", "t", "pipe", "--format", "tsv"]] {
        let mut command = desk.command(args);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the import");
        // Kept open: no end of the input.
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, b"a\t1\nb\t").expect("feed it");
        let pid = child.id();
        eventually("a handler", || has_handler(pid));
        desk.program("kill", &["-INT", &pid.to_string()], b"").ok();
        let output = child.wait_with_output().expect("wait for the import");
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        drop(stdin);
    }
}

#[test]
fn usage_names_arguments_in_their_order() {
    let desk = Desk::new();
    desk.run(&["del"]).fails(2, &["tophash del [OPTIONS] <STORE> <KEYS>... [--from <FILE>]"]);
    for command in ["get", "set", "del", "scan", "stats", "tables", "verify", "repair", "compact", "import", "export"] {
        let help = desk.run(&[command, "--help"]).text();
        let usage = help.lines().find(|line| line.starts_with("Usage:")).expect("a usage line").to_string();
        let (store, other) = (usage.find("<STORE>").expect("a store"), usage.find("<KEY"));
        assert!(other.is_none_or(|other| store < other), "{usage}");
    }
}

#[test]
fn advice_is_the_commands_and_not_the_librarys() {
    let desk = Desk::new();
    filled(&desk, 3);
    std::fs::create_dir(desk.path("copy")).unwrap();
    desk.program("cp", &["-r", "s/log-1", "copy/"], b"").ok();
    let words = ["Options::", "create(true)", "create_new", "Store::"];
    for args in [
        &["get", "none", "k"][..],
        &["scan", "none"],
        &["stats", "none"],
        &["tables", "none"],
        &["tables", "none", "--drop", "t"],
        &["verify", "none"],
        &["repair", "none", "new"],
        &["compact", "none"],
        &["doctor", "none"],
        &["export", "none", "--format", "tsv"],
        &["del", "none", "k"],
        &["set", "none", "k", "v", "--no-create"],
    ] {
        let ran = desk.run(args);
        ran.fails(2, &["none", "tophash set"]);
        assert!(!words.iter().any(|word| ran.stderr.contains(word)), "{}", ran.stderr);
    }
    // Without its index a store was called none at all; its log holds every record.
    desk.run(&["get", "copy", "key1"]).fails(2, &[]);
    desk.run(&["set", "copy", "k", "v"]).fails(2, &["`tophash repair STORE NEW`"]);
    desk.run(&["repair", "copy", "new"]);
    assert_eq!(contents(&desk.path("new")), contents(&desk.path("s")));
}

#[test]
fn nothing_that_is_printed_acts_on_a_terminal() {
    let desk = Desk::new();
    let name = "s\u{1b}[31m\u{202e}\u{9b}x";
    desk.run(&["set", name, "k\u{1b}[2J\u{202e}", "v\u{9b}\u{feff}\u{7}"]).ok();
    let table = "t\u{1b}[31m\u{202e}\u{9b}\n";
    desk.run(&["set", name, "k", "v", "--table", table]).ok();
    desk.write("bad", b"a\t1\n\x1b]0;title\x07\n");
    for args in [
        &["stats", name][..],
        &["stats", name, "--json"],
        &["verify", name],
        &["doctor", name],
        &["doctor", name, "--json"],
        &["tables", name],
        &["tables", name, "--json"],
        &["tables", name, "--clear", table],
        &["tables", name, "--drop", "none\u{1b}\u{202e}"],
        &["get", name, "k", "--table", "none\u{1b}\u{202e}"],
        &["scan", name],
        &["scan", name, "--table", table],
        &["scan", name, "--json"],
        &["export", name, "--format", "tsv"],
        &["export", name, "--format", "tsv", "--table", ""],
        &["export", name, "--format", "jsonl"],
        &["export", name, "--format", "dump", "--print"],
        &["get", name, "absent\u{1b}[31m"],
        &["get", name, "k\u{1b}[2J\u{202e}", "--json"],
        &["get", "none\u{1b}[31m\u{202e}", "k"],
        &["compact", name, "--dry-run"],
        &["import", name, "bad", "--format", "tsv"],
        &["import", name, "bad", "--format", "x\u{1b}[31m\u{202e}"],
        &["export", name, "--format", "tsv", "file\u{1b}"],
    ] {
        let ran = desk.run(args);
        let said = format!("{}{}", ran.text(), ran.stderr);
        assert!(!said.contains(acts), "{args:?}: {said:?}");
    }
    // Into a pipe, a value is data.
    assert_eq!(desk.ok(&["get", name, "k\u{1b}[2J\u{202e}"]), "v\u{9b}\u{feff}\u{7}".as_bytes());
    assert_eq!(desk.ok(&["get", name, "k\u{1b}[2J\u{202e}", "--raw"]), "v\u{9b}\u{feff}\u{7}".as_bytes());
}

#[test]
fn tables_and_maps_fit_into_forty_columns() {
    let desk = Desk::new();
    filled(&desk, 3000);
    desk.run(&["set", "t", "k", "v", "--table", "a name that is longer than forty columns of a terminal"]).ok();
    for args in
        [&["stats", "s"][..], &["stats", "t"], &["tables", "t"], &["doctor", "s"], &["compact", "s", "--dry-run"]]
    {
        let mut command = desk.command(args);
        let output = command.env("COLUMNS", "40").output().expect("run it");
        let text = String::from_utf8(output.stdout).expect("text");
        let drawn = |line: &&str| line.starts_with('|') || line.contains(['█', '░', '▒', '▓', '▏']);
        let lines: Vec<_> = text.lines().filter(drawn).collect();
        assert!(lines.len() > 3, "{text}");
        for line in lines {
            assert!(line.chars().count() <= 40, "{args:?}: {line}");
        }
    }
}

#[test]
fn one_is_no_plural() {
    let desk = Desk::new();
    filled(&desk, 1);
    assert!(desk.run(&["verify", "s"]).text().contains("1 record in 1 segment and 0 blobs"));
    assert!(desk.run(&["repair", "s", "new"]).text().contains("saved 1 key into new"));
    assert_eq!(desk.run(&["del", "s", "key0"]).text(), "removed 1 of 1 key\n");
}
