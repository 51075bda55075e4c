//! A folder to work in, and the tool run inside it.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A fresh folder; every command runs in it, so that tests name files without their folder.
pub struct Desk {
    folder: TempDir,
}

/// What a run of the tool gave.
pub struct Ran {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Desk {
    pub fn new() -> Self {
        Desk { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("create the folder");
        std::fs::write(path, contents).expect("write a test file");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("read a test file")
    }

    /// Names of everything in the folder.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("list the folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The tool, ready to run. Temporary files go to the folder too, where leftovers are seen.
    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tophash"));
        command.args(args).current_dir(self.folder.path()).env("TMPDIR", self.folder.path());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Ran {
        self.run_with(args, b"")
    }

    pub fn run_with<A: AsRef<OsStr>>(&self, args: &[A], stdin: &[u8]) -> Ran {
        run(self.command(args), stdin)
    }

    /// Runs and wants exit code 0.
    pub fn ok<A: AsRef<OsStr>>(&self, args: &[A]) -> Vec<u8> {
        self.run(args).ok()
    }

    /// Another program, in the folder.
    pub fn program(&self, name: &str, args: &[&str], stdin: &[u8]) -> Ran {
        let mut command = Command::new(name);
        command.args(args).current_dir(self.folder.path());
        run(command, stdin)
    }
}

impl Ran {
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self.stdout
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text on stdout")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// Wants this exit code, and a message that contains each of these parts and no panic.
    #[track_caller]
    pub fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is missing in: {}", self.stderr);
        }
    }
}

fn run(mut command: Command, stdin: &[u8]) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the program");
    let mut pipe = child.stdin.take().expect("a pipe to its stdin");
    let stdin = stdin.to_vec();
    // In a thread of its own: a program that writes before it has read everything would wait for ever.
    let feeder = std::thread::spawn(move || {
        // The program may end without having read everything.
        let _ = pipe.write_all(&stdin);
    });
    let Output { status, stdout, stderr } = child.wait_with_output().expect("wait for the program");
    feeder.join().expect("feed the program");
    Ran { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// After this time, what a test waits for is taken for something that never comes. It judges no speed.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Any bytes but NUL as an argument.
pub fn raw(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_os_string()
}

pub type Record = (Vec<u8>, Vec<u8>);

/// Keys and values with everything that means something in one of the formats.
pub fn nasty_records() -> Vec<Record> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let keys: [&[u8]; 13] = [
        b"",
        b"plain",
        b"\0",
        b"\n",
        b"\r\n",
        b"\t",
        b"\\",
        b"\\5c\\x41\\",
        b"\xff",
        b"half \xc3",
        "Stra\u{df}e \u{1f600}".as_bytes(),
        b"\"quoted\" {\"key\":1}",
        b" DATA=END",
    ];
    let mut records: Vec<Record> =
        keys.iter().enumerate().map(|(i, key)| (key.to_vec(), keys[(i + 3) % keys.len()].to_vec())).collect();
    records.push((b"every byte".to_vec(), every_byte.clone()));
    records.push((every_byte, b"as a key".to_vec()));
    records.sort();
    records
}

/// The text of a dump, made here and not by the tool.
pub fn dump(records: &[Record]) -> Vec<u8> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut text = String::from("VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n");
    for (key, value) in records {
        text.push_str(&format!(" {}\n {}\n", hex(key), hex(value)));
    }
    text.push_str("DATA=END\n");
    text.into_bytes()
}

/// What a store holds, sorted, read through the library and not through the tool.
pub fn contents(store: &std::path::Path) -> Vec<Record> {
    contents_of(store, None)
}

/// The same of one table.
pub fn contents_of(store: &std::path::Path, table: Option<&str>) -> Vec<Record> {
    let store = tophash::Options::new().read_only(true).create(false).open(store).expect("open the store");
    let table = table.map_or_else(|| tophash::Table::clone(&store), |name| store.table(name).expect("the table"));
    let mut records: Vec<Record> = table
        .iter()
        .map(|entry| entry.map(|entry| (entry.key().to_vec(), entry.value().to_vec())).expect("a whole record"))
        .collect();
    records.sort();
    records
}
