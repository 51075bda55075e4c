//! `tophash scan`: records in the store's order, resumable.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::anyhow;
use data_encoding::HEXLOWER;
use serde_json::json as object;
use tophash::{Cursor, Entry, Table};

use crate::argument;
use crate::exit::Outcome;
use crate::format::escape::escape_into;
use crate::format::json;
use crate::format::jsonl::JsonRecord;
use crate::{open, output};

/// Print records, a line each
///
/// Prints those of one table: key TAB value with the escapes \t \n \r \\ \xHH. The order is that of the hashes: it says nothing about
/// the keys, and it is the same at every run. With --limit, the cursor to go on from is printed on stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    #[command(flatten)]
    which: open::Which,
    /// Stop after N records (of those that match --prefix); without it, print all
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on where an earlier scan stopped
    #[arg(long, value_name = "CURSOR", default_value_t = Cursor::START)]
    cursor: Cursor,
    /// Only keys that begin with P. A filter: the whole table is read, a hash map knows no order
    #[arg(long, value_name = "P")]
    prefix: Option<OsString>,
    /// Print keys without values
    #[arg(long)]
    keys_only: bool,
    /// Pass over what is damaged, and name it on stderr; exit code 1 then. Without it, the scan stops there
    #[arg(long)]
    skip_damaged: bool,
    /// Keys, values and P in hex
    #[arg(long)]
    hex: bool,
    /// Print {"entries": [...], "next_cursor": "...", "skipped": 0}; the cursor is a string, because many JSON readers keep 53 bits.
    /// An entry that expires has "expires_ms", milliseconds since 1970
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash scan sessions.tophash --limit 100 --prefix user:
  tophash scan sessions.tophash --limit 100 --cursor 123456789
  tophash scan shop.tophash --table users";

/// Entries that one step of the scan collects.
const STEP: usize = 1024;

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let prefix = match &args.prefix {
        Some(prefix) => argument::bytes(prefix, args.hex, "prefix")?,
        None => Vec::new(),
    };
    let store = open::read_only(&args.store)?;
    let mut printer = Printer::new(BufWriter::new(io::stdout().lock()), args);
    let (next, skipped) = scan(&args.which.existing(&store)?, args, &prefix, &mut printer)?;
    printer.finish(next, skipped)?;
    if !args.json && args.limit.is_some() {
        match next {
            Some(cursor) => output::note(format_args!("next: --cursor {cursor}")),
            None => output::note(format_args!("no more records")),
        }
    }
    if skipped == 0 {
        return Ok(Outcome::Yes);
    }
    let places = if skipped == 1 { "place" } else { "places" };
    output::note(format_args!("{} damaged {places} skipped", output::count(skipped)));
    Ok(Outcome::No)
}

/// Prints matching entries from the cursor on until as many were printed as are asked for; returns where to go on, and how
/// many damaged places were passed over.
fn scan(
    table: &Table,
    args: &Args,
    prefix: &[u8],
    printer: &mut Printer<'_, impl Write>,
) -> anyhow::Result<(Option<Cursor>, u64)> {
    let (mut cursor, mut skipped) = (args.cursor, 0);
    let mut remaining = args.limit.unwrap_or(u64::MAX);
    while remaining > 0 {
        let wanted = usize::try_from(remaining).unwrap_or(usize::MAX);
        let step = if prefix.is_empty() { wanted.min(STEP) } else { STEP };
        let (mut entries, mut next) = table.scan(cursor, step)?;
        let is_match = |entry: &Entry<'_>| entry.key().starts_with(prefix);
        // The step holds more than was asked for: repeat it up to the last entry that is wanted, for its cursor.
        let last_wanted = entries.iter().enumerate().filter(|(_, entry)| is_match(entry)).nth(wanted - 1);
        if let Some((last, _)) = last_wanted
            && last + 1 < entries.len()
        {
            (entries, next) = table.scan(cursor, last + 1)?;
        }
        for entry in entries.iter().filter(|entry| is_match(entry)) {
            printer.print(entry)?;
            remaining = remaining.saturating_sub(1);
        }
        for error in entries.damaged {
            if !args.skip_damaged {
                printer.out.flush()?;
                let hint = next.map_or_else(String::new, |next| format!("; --cursor {next} goes on behind it"));
                return Err(anyhow!(error).context(format!("--skip-damaged passes over what is damaged{hint}")));
            }
            skipped += 1;
            output::note(format_args!("skipped: {error}"));
        }
        match next {
            Some(next) => cursor = next,
            None => return Ok((None, skipped)),
        }
    }
    Ok((Some(cursor), skipped))
}

struct Printer<'a, W: Write> {
    out: W,
    args: &'a Args,
    printed: u64,
    line: Vec<u8>,
}

impl<'a, W: Write> Printer<'a, W> {
    fn new(out: W, args: &'a Args) -> Self {
        Printer { out, args, printed: 0, line: Vec::new() }
    }

    fn print(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let value = (!self.args.keys_only).then(|| entry.value());
        self.line.clear();
        if self.args.json {
            self.line.extend_from_slice(if self.printed == 0 { b"{\"entries\":[\n" } else { b",\n" });
            json_entry(entry.key(), value, output::millis(entry.expires_at()), self.args.hex, &mut self.line)?;
        } else {
            self.text(entry.key());
            if let Some(value) = value {
                self.line.push(b'\t');
                self.text(value);
            }
            self.line.push(b'\n');
        }
        self.printed += 1;
        self.out.write_all(&self.line)
    }

    fn text(&mut self, bytes: &[u8]) {
        if self.args.hex {
            self.line.extend_from_slice(HEXLOWER.encode(bytes).as_bytes());
        } else {
            escape_into(bytes, &mut self.line);
        }
    }

    fn finish(&mut self, next: Option<Cursor>, skipped: u64) -> io::Result<()> {
        if self.args.json {
            let begin = if self.printed == 0 { "{\"entries\":[" } else { "" };
            let cursor = object!(next.map(|cursor| cursor.to_string()));
            writeln!(self.out, "{begin}\n],\"next_cursor\":{cursor},\"skipped\":{skipped}}}")?;
        }
        self.out.flush()
    }
}

fn json_entry(
    key: &[u8],
    value: Option<&[u8]>,
    expires_ms: Option<u64>,
    hex: bool,
    line: &mut Vec<u8>,
) -> io::Result<()> {
    if !hex {
        let record = value.map_or_else(|| JsonRecord::key(key), |value| JsonRecord::new(key, value));
        return Ok(json::to_line(line, &record.expiring(expires_ms))?);
    }
    let mut entry = object!({"key_hex": HEXLOWER.encode(key)});
    if let Some(value) = value {
        entry["value_hex"] = object!(HEXLOWER.encode(value));
    }
    if let Some(expires_ms) = expires_ms {
        entry["expires_ms"] = object!(expires_ms);
    }
    Ok(json::to_line(line, &entry)?)
}
