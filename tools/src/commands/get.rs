//! `tophash get`: one value.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use serde_json::json;

use crate::argument;
use crate::exit::Outcome;
use crate::format::escape;
use crate::format::jsonl::JsonRecord;
use crate::{open, output};

/// Print the value of a key
///
/// The value goes to stdout as it is, without a line end; on a terminal, bytes that are not printable text are
/// escaped. Exit code 1 if the key is not there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// The key
    key: OsString,
    #[command(flatten)]
    which: open::Which,
    /// Write the value as it is, on a terminal too
    #[arg(long, conflicts_with_all = ["hex", "json"])]
    raw: bool,
    /// KEY is written in hex, and the value is printed in hex
    #[arg(long)]
    hex: bool,
    /// Print {"found": ..., "key": ..., "value": ...}; "_b64" fields hold what is not UTF-8, "_hex" with --hex.
    /// "expires_ms" is there if the record expires: milliseconds since 1970
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash get sessions.tophash user:17 > user-17.bin
  tophash get sessions.tophash user:17 --json
  tophash get shop.tophash 17 --table users";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let key = argument::bytes(&args.key, args.hex, "key")?;
    let store = open::read_only(&args.store)?;
    let table = args.which.existing(&store)?;
    let value = table.get(&key)?;
    if args.json {
        print_json(&key, value.as_deref(), output::millis(table.expires_at(&key)?), args.hex)?;
    }
    let Some(value) = value else {
        if !args.json {
            output::note(format_args!("tophash: key not found: {}", escape::excerpt(&key)));
        }
        return Ok(Outcome::No);
    };
    if !args.json {
        print(&value, args)?;
    }
    Ok(Outcome::Yes)
}

fn print(value: &[u8], args: &Args) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let terminal = stdout.is_terminal();
    if args.hex {
        stdout.write_all(HEXLOWER.encode(value).as_bytes())?;
    } else if terminal && !args.raw && !is_printable(value) {
        stdout.write_all(escape::escaped(value).as_bytes())?;
    } else {
        stdout.write_all(value)?;
    }
    // The shell's prompt belongs on a line of its own; a pipe or a file gets the value and nothing else.
    if terminal && !args.raw || args.hex {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

/// Text that a terminal shows as it is: nothing in it acts on the terminal but line ends and TABs.
fn is_printable(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| text.chars().all(|c| matches!(c, '\n' | '\t') || !escape::is_acting(c)))
}

fn print_json(key: &[u8], value: Option<&[u8]>, expires_ms: Option<u64>, hex: bool) -> anyhow::Result<()> {
    let mut report = match (hex, value) {
        (true, Some(value)) => json!({"key_hex": HEXLOWER.encode(key), "value_hex": HEXLOWER.encode(value)}),
        (true, None) => json!({"key_hex": HEXLOWER.encode(key)}),
        (false, Some(value)) => serde_json::to_value(JsonRecord::new(key, value))?,
        (false, None) => serde_json::to_value(JsonRecord::key(key))?,
    };
    report["found"] = json!(value.is_some());
    if let Some(expires_ms) = expires_ms {
        report["expires_ms"] = json!(expires_ms);
    }
    output::emit_json(&report)
}

#[cfg(test)]
mod tests {
    use super::is_printable;

    #[test]
    fn what_a_terminal_may_see_as_it_is() {
        assert!(is_printable(b""));
        assert!(is_printable("two\n\tlines \u{df}".as_bytes()));
        for binary in [&b"\0"[..], b"\x1b[31m", b"\xff", b"a\rb", "\u{9b}".as_bytes(), "\u{202e}".as_bytes()] {
            assert!(!is_printable(binary), "{binary:?}");
        }
    }
}
