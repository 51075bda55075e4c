//! `tophash set`: one record.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::json;

use crate::argument;
use crate::exit::Outcome;
use crate::{open, output};

/// Set a key to a value
///
/// The store is created if there is none. When the command has ended with exit code 0, the record is durable.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// The key
    key: OsString,
    /// The value; `-` reads it from stdin, to the end and with every line end
    #[arg(default_value = "-")]
    value: OsString,
    /// KEY and VALUE are written in hex
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    creating: open::Creating,
    /// Print {"replaced": ..., "value_bytes": ...}
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash set sessions.tophash user:17 Ada
  tophash set sessions.tophash photo:17 - < photo.jpg";

/// More than any store takes, and a bound for what an endless pipe can make this command hold in memory.
const STDIN_BYTES_MAX: u64 = 4 << 30;

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let key = argument::bytes(&args.key, args.hex, "key")?;
    let value =
        if args.value == "-" { from_stdin(args.hex)? } else { argument::bytes(&args.value, args.hex, "value")? };
    let store = open::writable(&args.store, Some(&args.creating))?;
    let replaced = store.insert(&key, &value)?.is_some();
    store.close()?;
    if args.json {
        output::emit_json(&json!({"replaced": replaced, "value_bytes": value.len()}))?;
    }
    Ok(Outcome::Yes)
}

fn from_stdin(hex: bool) -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        output::note(format_args!("reading the value from the terminal; end it with Ctrl-D"));
    }
    let mut value = Vec::new();
    let read = stdin.take(STDIN_BYTES_MAX + 1).read_to_end(&mut value).context("read the value from stdin")?;
    if read as u64 > STDIN_BYTES_MAX {
        bail!("the value on stdin is longer than {}; split it over several keys", output::size(STDIN_BYTES_MAX));
    }
    if hex { argument::from_hex(&value, "value") } else { Ok(value) }
}
