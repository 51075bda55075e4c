//! `tophash del`: removes keys.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgGroup;
use serde_json::json;
use tophash::Table;

use crate::argument;
use crate::exit::{BadInput, Outcome};
use crate::format::ReadError;
use crate::format::lines::Lines;
use crate::{open, output};

/// Remove keys
///
/// Prints how many were there. Exit code 1 if at least one was not. When the command has ended, the removals
/// are durable. `tophash tables` clears and drops whole tables.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["keys", "from"]))]
#[command(after_help = EXAMPLE, override_usage = "tophash del [OPTIONS] <STORE> <KEYS>... [--from <FILE>]\n       tophash del [OPTIONS] <STORE> --from <FILE>")]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// The keys
    keys: Vec<OsString>,
    #[command(flatten)]
    which: open::Which,
    /// Read keys from a file, or `-` for stdin: one a line, as it is (with --hex: in hex, so that a key may hold
    /// any byte)
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Keys are written in hex
    #[arg(long)]
    hex: bool,
    /// Print {"keys": ..., "removed": ...}
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash del sessions.tophash user:17 user:18
  tophash del sessions.tophash --from expired.txt
  tophash del shop.tophash 17 --table users";

/// Keys that one call removes: enough to share its cost, few enough to stop in between.
const KEYS_PER_CALL: usize = 1000;

/// Longer than any key in hex; a longer line is no key.
const LINE_BYTES_MAX: usize = 256 << 10;

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut keys = Vec::new();
    for key in &args.keys {
        keys.push(argument::bytes(key, args.hex, "key")?);
    }
    let input = args.from.as_deref().map(argument::open_input).transpose()?;
    let store = open::writable(&args.store, None)?;
    let table = args.which.existing(&store)?;
    let mut removal = Removal { table: &table, pending: Vec::new(), keys: 0, removed: 0, returns: 0 };
    let mut read = keys.into_iter().try_for_each(|key| removal.add(key));
    if let (Ok(()), Some(input)) = (&read, input) {
        read = add_lines(&mut removal, Lines::new(input, LINE_BYTES_MAX), args.hex);
    }
    // What was read before a bad line is removed and reported all the same.
    let flushed = removal.flush();
    let (keys, removed) = (removal.keys, removal.removed);
    if removed < keys && removal.returns > 0 {
        let lines = output::some(removal.returns, "line");
        output::note(format_args!(
            "tophash: {lines} ended with a carriage return, which was taken for a part of the key; `tr -d '\\r'` removes it"
        ));
    }
    store.close()?;
    if args.json {
        output::emit_json(&json!({"keys": keys, "removed": removed}))?;
    } else {
        output::emit(&format!("removed {} of {}\n", output::count(removed), output::some(keys, "key")))?;
    }
    read.and(flushed)?;
    Ok(if removed == keys { Outcome::Yes } else { Outcome::No })
}

fn add_lines(removal: &mut Removal<'_>, mut lines: Lines<impl std::io::BufRead>, hex: bool) -> anyhow::Result<()> {
    loop {
        let key = match lines.next() {
            Ok(Some(line)) if hex => argument::from_hex(line, "key")
                .map_err(|error| BadInput(format!("line {}: {error}", lines.number())))?,
            Ok(Some(line)) => {
                removal.returns += u64::from(line.ends_with(b"\r"));
                line.to_vec()
            }
            Ok(None) => return Ok(()),
            Err(error @ ReadError::Bad { .. }) => return Err(BadInput(error.to_string()).into()),
            Err(error) => return Err(error.into()),
        };
        removal.add(key)?;
    }
}

struct Removal<'a> {
    table: &'a Table,
    pending: Vec<Vec<u8>>,
    keys: u64,
    removed: u64,
    /// Keys of a file that end with a carriage return.
    returns: u64,
}

impl Removal<'_> {
    fn add(&mut self, key: Vec<u8>) -> anyhow::Result<()> {
        self.pending.push(key);
        if self.pending.len() >= KEYS_PER_CALL { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.pending.is_empty() {
            self.removed += self.table.remove_many(&self.pending)?;
            self.keys += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }
}
