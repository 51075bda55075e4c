//! `tophash set`: one record.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use serde_json::json;
use tophash::Expiry;

use crate::argument;
use crate::exit::Outcome;
use crate::{open, output};

/// Set a key to a value
///
/// The store is created if there is none, and so is the table. When the command has ended with exit code 0, the record is durable. Without
/// --expires-in and --expires-at it does not expire, even if the key's older value would have.
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
    #[command(flatten)]
    which: open::Which,
    /// KEY and VALUE are written in hex
    #[arg(long)]
    hex: bool,
    /// The record expires after this time, as in 90s, 30m, 12h or 7days
    #[arg(long, value_name = "DURATION", value_parser = argument::lifetime, conflicts_with = "expires_at")]
    expires_in: Option<Duration>,
    /// The record expires at this time in UTC, as in 2030-12-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = argument::deadline)]
    expires_at: Option<SystemTime>,
    #[command(flatten)]
    creating: open::Creating,
    /// Print {"replaced": ..., "value_bytes": ...}, and "expires_ms" (milliseconds since 1970) if the record expires
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash set sessions.tophash user:17 Ada
  tophash set shop.tophash 17 Ada --table users
  tophash set sessions.tophash login:17 token --expires-in 30m
  tophash set sessions.tophash photo:17 - < photo.jpg";

/// More than any store takes, and a bound for what an endless pipe can make this command hold in memory.
const STDIN_BYTES_MAX: u64 = 4 << 30;

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let key = argument::bytes(&args.key, args.hex, "key")?;
    let value =
        if args.value == "-" { from_stdin(args.hex)? } else { argument::bytes(&args.value, args.hex, "value")? };
    let store = open::writable(&args.store, Some(&args.creating))?;
    let expiry = match (args.expires_in, args.expires_at) {
        (Some(after), _) => Expiry::After(after),
        (None, at) => Expiry::from(at),
    };
    let table = args.which.made(&store, &args.creating)?;
    let writer = table.expiring(expiry);
    let replaced = writer.insert(&key, &value)?.is_some();
    let expires_ms = if args.json { output::millis(table.expires_at(&key)?) } else { None };
    store.close()?;
    if args.json {
        let mut report = json!({"replaced": replaced, "value_bytes": value.len()});
        if let Some(expires_ms) = expires_ms {
            report["expires_ms"] = json!(expires_ms);
        }
        output::emit_json(&report)?;
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
