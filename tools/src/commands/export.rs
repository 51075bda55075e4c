//! `tophash export`: a store's records as text.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde_json::json;
use tophash::{Store, Table};

use crate::exit::{Interrupted, Outcome};
use crate::format::{self, Format, LineKind, RecordWriter, WriteOptions, escape};
use crate::{argument, interrupt, open, output, progress};

/// Write a store's records to a text file
///
/// All tables are written, in jsonl and dump: the main one first, then the others by name. tsv has no place for their names, so
/// it takes one, which --table chooses. With --table the text names no table, and `import --table` can put it into any. FILE appears under its name only when it is complete; an existing one is replaced then. The order is that of
/// the hashes. What `export` writes, `import` reads. Expired records are left out. jsonl keeps deadlines ("expires_ms",
/// milliseconds since 1970); tsv and dump have no place for them, and a note on stderr counts the deadlines that they lose.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// The file to write; `-` is stdout
    #[arg(default_value = "-")]
    file: PathBuf,
    /// The file's format
    #[arg(long, short, value_enum)]
    format: Format,
    /// dump: printable characters as they are (format=print), instead of hex only
    #[arg(long)]
    print: bool,
    /// Write this table alone, and not its name; '' is the main one, which has no name
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// dump: name the database in the header, where one table is written
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// dump: add LMDB's mapsize, estimated generously from the store's size. mdb_load takes 1 MiB without it;
    /// db_load refuses it
    #[arg(long)]
    lmdb: bool,
    /// Leave out records that are damaged, and name them on stderr; exit code 1 then. (`tophash repair` can save more: it
    /// does not need the index)
    #[arg(long)]
    skip_damaged: bool,
    /// A record that needs a longer line is an error: `import` has the same limit
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = argument::byte_size)]
    max_line_bytes: u64,
    /// Print a summary as JSON (where the records go to a file)
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Formats: see `tophash import --help`.

In a dump each table is a database of its name, as `mdb_dump -a` writes them. The
main table is one without a name. If it is empty, it is left out beside others.

Berkeley DB takes every record. Beside databases with names its files hold none
without: choose the main table with --table '', and load it into a file of its
own. LMDB takes no empty keys, and none over 511 bytes. It keeps the names of
databases among the keys of the main table, so no such key may be one of them.

Example:
  tophash export sessions.tophash sessions.jsonl --format jsonl
  tophash export sessions.tophash --format dump --lmdb | mdb_load -n new.mdb
  tophash export sessions.tophash --format dump | db_load new.db
  tophash export shop.tophash users.tsv --format tsv --table users";

/// What the names of unfinished exports begin with, beside their targets.
const UNFINISHED: &str = ".tophash-export-";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    if args.format != Format::Dump && (args.print || args.database.is_some() || args.lmdb) {
        bail!("--print, --database and --lmdb belong to --format dump");
    }
    if args.database.as_deref().is_some_and(|name| name.contains(['\n', '\r'])) {
        bail!("a database's name in a dump is one line; --database has several");
    }
    if args.json && argument::is_dash(&args.file) {
        bail!("--json needs a FILE: stdout is taken by the records");
    }
    let store = open::read_only(&args.store)?;
    let sources = sources(&store, args)?;
    let mapsize_bytes = args.lmdb.then(|| mapsize_bytes(&store));
    let options = WriteOptions { print: args.print, database: args.database.clone(), mapsize_bytes };
    if argument::is_dash(&args.file) {
        let written = write_records(&sources, args, &options, io::stdout().lock())?;
        return Ok(written.outcome());
    }
    let written = write_file(&sources, args, &options)?;
    let Written { records, bytes, skipped, deadlines_lost } = written;
    let tables = sources.len() as u64;
    if args.json {
        let file = args.file.to_string_lossy();
        output::emit_json(&json!({
            "file": file, "tables": tables, "records": records, "record_bytes": bytes, "skipped": skipped,
            "deadlines_lost": deadlines_lost
        }))?;
    } else {
        let of = if tables == 1 { String::new() } else { format!(" of {}", output::some(tables, "table")) };
        let (records, size) = (output::records(records), output::size(bytes));
        output::emit(&format!("{records}{of} ({size}) in {}\n", args.file.display()))?;
    }
    Ok(written.outcome())
}

/// A table that is written, and the name that the text gives it.
struct Source {
    table: Table,
    name: Option<String>,
}

/// The tables that are written: the one that was chosen, without its name, or all of them.
fn sources(store: &Store, args: &Args) -> anyhow::Result<Vec<Source>> {
    if args.table.is_some() {
        return Ok(vec![Source { table: open::Which::of(args.table.as_ref()).existing(store)?, name: None }]);
    }
    let names = store.tables()?;
    if !names.is_empty() && !args.format.keeps_tables() {
        let tables = output::some(names.len() as u64, "table");
        bail!(
            "tsv takes one table, and the store has {tables} beside the main one: choose one with --table NAME \
             (--table '' is the main one), or --format jsonl, which takes all"
        );
    }
    if !names.is_empty() && args.database.is_some() {
        bail!("--database names one database, and each table of the store is one: choose one with --table NAME");
    }
    if let Some(name) = names.iter().find(|name| args.format == Format::Dump && name.contains(['\n', '\r'])) {
        let name = escape::excerpt(name.as_bytes());
        bail!("a dump has no place for the line end in the name of table {name}: choose --format jsonl, or --table");
    }
    // LMDB has a database without a name anyway, and Berkeley DB none beside others.
    let has_main = names.is_empty() || !store.is_empty();
    let main = has_main.then(|| Source { table: Table::clone(store), name: None });
    let other = |name: String| Ok(Source { table: store.existing_table(&name)?, name: Some(name) });
    main.into_iter().map(Ok).chain(names.into_iter().map(other)).collect()
}

/// What was written, and what was left out.
#[derive(Clone, Copy)]
struct Written {
    records: u64,
    /// Of their keys and values.
    bytes: u64,
    /// Damaged places.
    skipped: u64,
    /// Records whose deadline the format does not keep.
    deadlines_lost: u64,
}

impl Written {
    /// What is lost is said, even if nobody asked for it.
    fn note_deadlines(self, format: Format) {
        if self.deadlines_lost == 0 {
            return;
        }
        let have = if self.deadlines_lost == 1 { "has" } else { "have" };
        let format = format.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string());
        output::note(format_args!(
            "warning: {} {have} a deadline, which {format} does not keep: imported again, nothing of that expires; \
             --format jsonl keeps deadlines",
            output::records(self.deadlines_lost)
        ));
    }

    fn outcome(self) -> Outcome {
        if self.skipped == 0 {
            return Outcome::Yes;
        }
        let (records, places) = (output::records(self.records), if self.skipped == 1 { "place" } else { "places" });
        output::note(format_args!(
            "{} damaged {places} skipped, {records} written; `tophash repair STORE NEW` can save more",
            output::count(self.skipped)
        ));
        Outcome::No
    }
}

/// Address space for LMDB, not disk. Its pages may be half full, large values take whole pages, and loading leaves
/// free pages behind: eight times the records is more than enough of all that.
fn mapsize_bytes(store: &Store) -> u64 {
    let log = store.stats().log;
    let live = log.bytes.saturating_sub(log.dead_bytes).saturating_add(log.blob_bytes);
    const PAGES: u64 = 1 << 20;
    (live.saturating_mul(8).saturating_add(16 << 20) / PAGES).saturating_mul(PAGES)
}

/// Writes to a temporary file beside the target and renames it, so that nobody takes half an export for a whole one.
fn write_file(sources: &[Source], args: &Args, options: &WriteOptions) -> anyhow::Result<Written> {
    let path = &args.file;
    // A device or a named pipe cannot be replaced, only written to.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let file = std::fs::OpenOptions::new().write(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        return write_records(sources, args, options, file);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for left in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if left.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            let left = left.path();
            output::note(format_args!(
                "{}: left by an export that was killed, to be removed if none is running",
                left.display()
            ));
        }
    }
    let file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        // As any new file: the umask takes from it what it takes.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .with_context(|| format!("create a file in {}", directory.display()))?;
    let written = write_records(sources, args, options, file.as_file())?;
    file.as_file().sync_all().with_context(|| format!("sync {}", path.display()))?;
    file.persist(path).map_err(|error| error.error).with_context(|| format!("create {}", path.display()))?;
    Ok(written)
}

/// What `import` would not take back is not written.
fn refuse_long_line(args: &Args, table: Option<&str>, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
    let limit = args.max_line_bytes;
    let kind = LineKind { format: args.format, print: args.print, table };
    let Some(length) = format::line_above(limit, kind, key, value) else { return Ok(()) };
    let (key, value) = (escape::excerpt(key), output::size(value.len() as u64));
    // In MiB, rounded up, as the option takes it.
    let needed = length.div_ceil(1 << 20);
    bail!(
        "the record with key {key} ({value}) needs a line of {}, above the limit of {}, which `tophash import` has too; \
         export and import with --max-line-bytes {needed}M (both hold such a line in memory), or copy the store's directory",
        output::size(length),
        output::size(limit),
    )
}

/// Writes all records.
fn write_records(
    sources: &[Source],
    args: &Args,
    options: &WriteOptions,
    output: impl Write,
) -> anyhow::Result<Written> {
    let bar = progress::records(sources.iter().map(|source| source.table.len()).sum(), "export");
    let mut writer = format::writer(args.format, BufWriter::with_capacity(1 << 18, output), options);
    let mut written = Written { records: 0, bytes: 0, skipped: 0, deadlines_lost: 0 };
    for source in sources {
        writer.begin_table(source.name.as_deref())?;
        write_table(source, args, writer.as_mut(), &mut written, &bar)?;
    }
    writer.finish()?;
    bar.finish_and_clear();
    written.note_deadlines(args.format);
    Ok(written)
}

/// Writes the records of one table.
fn write_table(
    source: &Source,
    args: &Args,
    writer: &mut dyn RecordWriter,
    written: &mut Written,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let before = *written;
    let mut entries = source.table.iter();
    for entry in entries.by_ref() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if args.skip_damaged => {
                written.skipped += 1;
                bar.suspend(|| output::note(format_args!("skipped: {error}")));
                continue;
            }
            Err(error) => return Err(anyhow!(error).context("--skip-damaged leaves out what is damaged")),
        };
        refuse_long_line(args, source.name.as_deref(), entry.key(), entry.value())?;
        let expires_ms = output::millis(entry.expires_at());
        writer.write(entry.key(), entry.value(), expires_ms)?;
        written.records += 1;
        written.bytes += (entry.key().len() + entry.value().len()) as u64;
        written.deadlines_lost += u64::from(expires_ms.is_some() && !args.format.keeps_deadlines());
        if written.records.is_multiple_of(1024) {
            bar.set_position(written.records);
            if interrupt::requested() {
                let records = output::records(written.records);
                return Err(Interrupted(format!("the export stopped after {records}")).into());
            }
        }
    }
    // Nobody writes while the store is open read-only. Before the format's last line: a short file stays incomplete.
    let (found, expired, expected) = (written.records - before.records, entries.expired(), source.table.len());
    if written.skipped == before.skipped && found + expired != expected {
        let (found, expired, table) =
            (output::records(found), output::count(expired), open::called(source.name.as_deref()));
        return Err(anyhow!(
            "{table}: {found} were found, and {expired} expired, the store counts {expected}; run `tophash verify`"
        ));
    }
    Ok(())
}
