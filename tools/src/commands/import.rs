//! `tophash import`: records from a text into a store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use indicatif::ProgressBar;
use serde::Serialize;
use tophash::{Batch, Error, Store, Table};

use crate::exit::{BadInput, Interrupted, Outcome};
use crate::format::dump_read::{DumpReader, Select};
use crate::format::{self, Format, ReadError, ReadOptions, Reason, Record, RecordReader, escape};
use crate::{argument, interrupt, open, output, progress};

/// Read records from a text file into a store
///
/// The store is created if there is none, and so is each table that the text names. Records that name none go to the main one.
/// With --table all go to that one. A key that is there already, or that occurs twice, gets the last value.
/// A malformed line ends the import: the records before it are in the store, and the message says how many they
/// are. The import is durable when the command has ended, whatever its exit code.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The store's directory
    store: PathBuf,
    /// The file to read; `-` is stdin
    #[arg(default_value = "-")]
    file: PathBuf,
    /// The file's format
    #[arg(long, short, value_enum)]
    format: Format,
    /// Put all records into this table; '' is the main one, which has no name
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// dump: read this database alone, into the main table or that of --table; one without a name by its number, from 1
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// dump: of several values for one key, take the last one
    #[arg(long)]
    last_wins: bool,
    /// Go on after malformed records; count them and list the first few
    #[arg(long)]
    skip_bad: bool,
    /// Read and check the file, and leave the store alone
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    creating: open::Creating,
    /// Records that are applied as one
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// A longer line is an error
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = argument::byte_size)]
    max_line_bytes: u64,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Formats (CR LF ends a line as LF does):
  jsonl  {\"key\": \"user:17\", \"value\": \"Ada\"}, one object a line. Bytes that are
         not UTF-8 stand in base64 in \"key_b64\" or \"value_b64\" instead.
         \"expires_ms\" is the record's deadline in milliseconds since 1970; with
         none the record does not expire. \"table\" names its table; with none
         it is the main one. A line with that field alone makes the table.
         Other fields are refused. Empty lines are passed over.
  tsv    key TAB value, one record a line. Escapes in both: \\t TAB, \\n line
         end, \\r carriage return, \\\\ backslash, \\xHH any byte. Every other byte
         stands for itself.
  dump   what Berkeley DB's db_dump and LMDB's mdb_dump write: versions 1 to
         3, format=bytevalue or print, type=btree or hash; recno and queue
         where their keys were dumped (db_dump -k). Keywords that set up the
         dumped database are passed over. A database with a name goes to the
         table of that name, one without to the main table. Of an LMDB
         environment with named databases, `mdb_dump -a` dumps them, and
         `mdb_dump -s NAME` one: without either only a list of their names
         comes, with LMDB's own records as values.
tsv and dump have no deadlines: their records do not expire.

All are UTF-8 or bytes; a mark of byte order at the beginning is passed over.

Example:
  tophash import sessions.tophash sessions.jsonl --format jsonl
  mdb_dump -n old.mdb | tophash import sessions.tophash - --format dump
  mdb_dump -a environment | tophash import shop.tophash - --format dump
  tophash import shop.tophash users.tsv --format tsv --table users";

/// Bytes after which a batch is applied, however few records it has.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The longest key that a store takes.
const KEY_BYTES_MAX: usize = 65_535;

/// Malformed records that are listed with `--skip-bad`; the rest is counted.
const LISTED_MAX: usize = 10;

/// What an import did.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Records read, without skipped ones.
    records: u64,
    /// Bytes of their keys and values.
    record_bytes: u64,
    /// Records that are in the store: all that were read, unless something went wrong or this was a dry run.
    imported: u64,
    /// Of those that were read: their deadline has passed, so they are absent.
    expired: u64,
    /// Malformed records passed over.
    skipped: u64,
    /// The first of them.
    skipped_first: Vec<String>,
    dry_run: bool,
    seconds: f64,
    /// The tables that the text named.
    tables: BTreeSet<String>,
    /// Records in all tables of the store after the import.
    records_in_store: Option<u64>,
    /// What ended the import early.
    error: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    let options = ReadOptions {
        line_bytes_max: usize::try_from(args.max_line_bytes).unwrap_or(usize::MAX),
        select: match &args.database {
            Some(name) => Select::Named(name.clone()),
            None if args.table.is_some() => Select::TheOnlyOne,
            None => Select::All,
        },
        one_table: args.table.is_some(),
        last_wins: args.last_wins,
    };
    refuse_several_databases(args, &options)?;
    let (input, bar) = open_input(&args.file)?;
    let mut reader = format::reader(args.format, BufReader::with_capacity(1 << 18, input), &options);
    let store = if args.dry_run { None } else { Some(open::writable(&args.store, Some(&args.creating))?) };

    let started = Instant::now();
    let target = store.as_ref().map(|store| {
        Ok::<_, Error>(Target::new(store, open::Which::of(args.table.as_ref()).made(store, &args.creating)?))
    });
    let target = target.transpose()?;
    let mut import = Import { target, args, batch: Batch::new(), batch_bytes: 0, summary: Summary::default() };
    let mut result = import.read_all(reader.as_mut());
    // Whatever ended the reading: the records before it go in, so that the message can say which ones are there.
    let flushed = import.flush().context("store the last records");
    if result.is_ok() {
        result = flushed;
    }
    bar.finish_and_clear();
    let Import { mut summary, .. } = import;
    if let Some(store) = store {
        summary.records_in_store = Some(store.stats().records);
        result = result.and(store.close().context("make the import durable"));
    }
    let result = result.with_context(|| {
        let file = if argument::is_dash(&args.file) { "stdin".into() } else { args.file.to_string_lossy() };
        format!("the import of {file} ended early ({} stored before that)", output::records(summary.imported))
    });
    summary.seconds = started.elapsed().as_secs_f64();
    summary.dry_run = args.dry_run;
    summary.error = result.as_ref().err().map(|error| format!("{error:#}"));
    report(args, &summary)?;
    result.map(|()| Outcome::Yes)
}

/// A file is looked through for a second database that goes to the same table before anything is stored; in a pipe it ends the
/// import where it comes.
fn refuse_several_databases(args: &Args, options: &ReadOptions) -> anyhow::Result<()> {
    if args.format != Format::Dump || args.database.is_some() || argument::is_dash(&args.file) || !args.file.is_file() {
        return Ok(());
    }
    let input = BufReader::with_capacity(1 << 18, open_file(&args.file)?);
    let mut reader = DumpReader::new(input, options.line_bytes_max, Select::NamesOnly, true);
    // Whatever else is wrong with the file is for the import to say, with the line and how far it got.
    let _ = reader.next(&mut Record::default());
    let names = reader.names();
    let repeats = names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
    if names.len() > 1 && (repeats || args.table.is_some()) {
        let name = |(i, name): (usize, &Option<String>)| match name {
            Some(name) => escape::excerpt(name.as_bytes()),
            None => format!("number {} without a name", i + 1),
        };
        let names: Vec<_> = names.iter().enumerate().map(name).collect();
        let (file, names) = (args.file.display(), names.join(", "));
        return Err(BadInput(format!(
            "{file} holds several databases for one table ({names}); choose one with --database NAME (or its number, from 1); nothing was imported"
        ))
        .into());
    }
    Ok(())
}

fn open_file(path: &Path) -> anyhow::Result<File> {
    interrupt::open_file(path).map_err(stopped).with_context(|| format!("open {}", path.display()))
}

fn open_input(path: &Path) -> anyhow::Result<(Box<dyn Read>, ProgressBar)> {
    if argument::is_dash(path) {
        let bar = progress::bytes(None, "import");
        // Without the buffer of `Stdin`: what lies in one is not seen by a wait for input.
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().context("read stdin")?);
        return Ok((Box::new(bar.wrap_read(interrupt::Input(stdin))), bar));
    }
    let file = open_file(path)?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    let bar = progress::bytes(length, "import");
    Ok((Box::new(bar.wrap_read(interrupt::Input(file))), bar))
}

/// An input that the user does not wait for any longer is no broken one.
fn stopped(error: io::Error) -> anyhow::Error {
    if interrupt::requested() { Interrupted(String::new()).into() } else { error.into() }
}

/// Where the records go.
struct Target<'a> {
    store: &'a Store,
    /// The table of records that name none.
    usual: Table,
    /// The tables that the text named.
    named: BTreeMap<String, Table>,
}

impl<'a> Target<'a> {
    fn new(store: &'a Store, usual: Table) -> Self {
        Target { store, usual, named: BTreeMap::new() }
    }

    /// The table that a record names, which is made if need be. None: it names none.
    fn table(&mut self, record: &Record, no_create: bool, line: u64) -> anyhow::Result<Option<Table>> {
        let Some(name) = &record.table else { return Ok(None) };
        if let Some(table) = self.named.get(name) {
            return Ok(Some(table.clone()));
        }
        let table = if no_create { self.store.existing_table(name) } else { self.store.table(name) };
        let table = table.map_err(|error| match error {
            Error::InvalidTableName { .. } => BadInput(format!("line {line}: {error}")).into(),
            error => anyhow::Error::new(error),
        })?;
        self.named.insert(name.clone(), table.clone());
        Ok(Some(table))
    }
}

struct Import<'a> {
    target: Option<Target<'a>>,
    args: &'a Args,
    batch: Batch,
    batch_bytes: usize,
    summary: Summary,
}

impl Import<'_> {
    fn read_all(&mut self, reader: &mut dyn RecordReader) -> anyhow::Result<()> {
        let mut record = Record::default();
        loop {
            let read = match reader.next(&mut record) {
                Ok(true) => check(&record, reader.line()).map(|()| true),
                other => other,
            };
            match read {
                Ok(true) => self.add(&record, reader.line())?,
                Ok(false) => return Ok(()),
                Err(ReadError::Bad { line, reason }) if self.args.skip_bad && reason.is_skippable() => {
                    self.skip(line, &reason);
                }
                Err(error @ ReadError::Bad { .. }) => return Err(BadInput(error.to_string()).into()),
                Err(ReadError::Io(_)) if interrupt::requested() => {}
                Err(error) => return Err(error.into()),
            }
            if interrupt::requested() {
                return Err(Interrupted(format!("the import stopped after line {}", reader.line())).into());
            }
        }
    }

    fn add(&mut self, record: &Record, line: u64) -> anyhow::Result<()> {
        if let Some(name) = record.table.as_ref().filter(|name| !self.summary.tables.contains(*name)) {
            self.summary.tables.insert(name.clone());
        }
        let no_create = self.args.creating.no_create;
        let table = match &mut self.target {
            Some(target) => target.table(record, no_create, line)?,
            None => None,
        };
        if record.only_table {
            return Ok(());
        }
        let bytes = record.key.len() + record.value.len();
        self.summary.records += 1;
        self.summary.record_bytes += bytes as u64;
        let expires_at = record.expires_ms.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        self.summary.expired += u64::from(expires_at.is_some_and(|time| time <= SystemTime::now()));
        let Some(target) = &self.target else { return Ok(()) };
        if bytes > BATCH_BYTES_MAX {
            // Large values go in by themselves, in their place among the others: a batch has a limit.
            let into = table.unwrap_or_else(|| target.usual.clone()).expiring(expires_at);
            self.flush()?;
            into.set(&record.key, &record.value)?;
            self.summary.imported += 1;
            return Ok(());
        }
        match &table {
            Some(table) => _ = self.batch.table(table).insert_expiring(&record.key, &record.value, expires_at),
            None => _ = self.batch.insert_expiring(&record.key, &record.value, expires_at),
        }
        self.batch_bytes += bytes;
        if self.batch.len() >= self.args.batch as usize || self.batch_bytes >= BATCH_BYTES_MAX {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let Some(target) = self.target.as_ref().filter(|_| !self.batch.is_empty()) else { return Ok(()) };
        let applied = target.usual.apply(&self.batch);
        if applied.is_ok() {
            self.summary.imported += self.batch.len() as u64;
        }
        // Also after an error: a batch that failed must not be tried a second time at the end.
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(applied?)
    }

    fn skip(&mut self, line: u64, reason: &Reason) {
        self.summary.skipped += 1;
        if self.summary.skipped_first.len() < LISTED_MAX {
            self.summary.skipped_first.push(format!("line {line}: {reason}"));
        }
    }
}

/// The store would refuse the whole batch; here the line is still known.
fn check(record: &Record, line: u64) -> Result<(), ReadError> {
    let len = record.key.len();
    if len > KEY_BYTES_MAX {
        return Err(ReadError::Bad { line, reason: Reason::KeyTooLong { len, limit: KEY_BYTES_MAX } });
    }
    Ok(())
}

fn report(args: &Args, summary: &Summary) -> anyhow::Result<()> {
    if args.json {
        return output::emit_json(summary);
    }
    for line in &summary.skipped_first {
        output::note(format_args!("skipped {line}"));
    }
    if summary.skipped > 0 {
        output::note(format_args!("malformed and skipped: {}", output::records(summary.skipped)));
    }
    if summary.expired > 0 {
        let (expired, are) = (output::records(summary.expired), if summary.expired == 1 { "is" } else { "are" });
        output::note(format_args!("{expired} of those read {are} expired already: get does not find them"));
    }
    let records = output::records(summary.records);
    let of = match summary.tables.len() {
        0 => String::new(),
        named => format!(" for {}", output::some(named as u64, "table")),
    };
    let size = output::size(summary.record_bytes);
    let text = if summary.dry_run {
        format!("{records}{of} ({size}) can be imported; nothing was stored\n")
    } else {
        format!(
            "imported {} of {records} read{of} ({size}) in {:.1} s; the store has {}\n",
            output::count(summary.imported),
            summary.seconds,
            output::records(summary.records_in_store.unwrap_or_default()),
        )
    };
    Ok(output::emit(&text)?)
}
