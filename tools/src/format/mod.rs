//! The text formats that stores are exported to and imported from.
//!
//! A reader hands out one record at a time and never holds more than one; a writer takes one at a time. Both
//! stream, so the size of a file does not matter.

pub mod dump_read;
pub mod dump_write;
pub mod error;
pub mod escape;
pub mod json;
pub mod jsonl;
pub mod lines;
pub mod tsv;

use std::io::{self, BufRead, Write};

use clap::ValueEnum;
use serde::Serialize;

pub use error::{ReadError, Reason};

use dump_read::DumpReader;
pub use dump_read::Select;
use dump_write::DumpWriter;
use jsonl::{JsonlReader, JsonlWriter};
use tsv::{TsvReader, TsvWriter};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line: {"key": "...", "value": "..."}; "key_b64" / "value_b64" hold what is not UTF-8,
    /// "expires_ms" is a record's deadline, "table" names its table
    Jsonl,
    /// key TAB value, with the escapes \t \n \r \\ and \xHH; one table
    Tsv,
    /// The text format of Berkeley DB's db_dump and LMDB's mdb_dump, for db_load and mdb_load
    Dump,
}

impl Format {
    /// True if the format has a place for the names of tables.
    pub fn keeps_tables(self) -> bool {
        self != Format::Tsv
    }

    /// True if the format has a place for a record's deadline.
    pub fn keeps_deadlines(self) -> bool {
        self == Format::Jsonl
    }
}

/// A record on its way in. Reused from one to the next, so that reading does not allocate for each.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The value's bytes.
    pub value: Vec<u8>,
    /// When the record expires, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// The table that the text names for it. None: it is not said.
    pub table: Option<String>,
    /// There is no record, only a table that may have none.
    pub only_table: bool,
}

impl Record {
    /// Empties it; the buffers stay.
    fn clear(&mut self) {
        self.key.clear();
        self.value.clear();
        (self.expires_ms, self.only_table) = (None, false);
    }
}

/// Reads records out of a text.
pub trait RecordReader {
    /// Reads the next record into `record`; false at the end. After an error whose [`Reason`] is skippable
    /// the reader stands behind the bad record and can go on.
    fn next(&mut self, record: &mut Record) -> Result<bool, ReadError>;

    /// The number of the line read last, from 1.
    fn line(&self) -> u64;
}

/// Writes records into a text.
pub trait RecordWriter {
    /// The records that come now are those of this table. None: the main one. Called before the first record.
    fn begin_table(&mut self, name: Option<&str>) -> io::Result<()>;

    /// Writes one record. A format without a place for the deadline leaves it out ([`Format::keeps_deadlines`]).
    fn write(&mut self, key: &[u8], value: &[u8], expires_ms: Option<u64>) -> io::Result<()>;

    /// Writes what the format wants at its end, and flushes.
    fn finish(&mut self) -> io::Result<()>;
}

/// What a reader needs to know beside the format.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Lines longer than this are an error instead of a growing buffer.
    pub line_bytes_max: usize,
    /// Which databases of a dump are read.
    pub select: Select,
    /// All records go to one table that was chosen, so none may name another one.
    pub one_table: bool,
    /// Whether a dump may hold duplicates of a key, of which the last one stays.
    pub last_wins: bool,
}

/// A reader for `format`.
pub fn reader<'a>(format: Format, input: impl BufRead + 'a, options: &ReadOptions) -> Box<dyn RecordReader + 'a> {
    let limit = options.line_bytes_max;
    match format {
        Format::Jsonl => Box::new(JsonlReader::new(input, limit, options.one_table)),
        Format::Tsv => Box::new(TsvReader::new(input, limit)),
        Format::Dump => Box::new(DumpReader::new(input, limit, options.select.clone(), options.last_wins)),
    }
}

/// What a writer needs to know beside the format.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Dump: printable characters as they are, instead of hex only.
    pub print: bool,
    /// Dump: the name of the main table's database for the header.
    pub database: Option<String>,
    /// Dump: LMDB's `mapsize` for the header.
    pub mapsize_bytes: Option<u64>,
}

/// What the length of a line depends on, beside the record.
#[derive(Debug, Clone, Copy)]
pub struct LineKind<'a> {
    /// The format.
    pub format: Format,
    /// Dump: printable characters as they are.
    pub print: bool,
    /// The table that a record names.
    pub table: Option<&'a str>,
}

/// The length of a record's longest line, if it is above `limit`. Reading has a limit, so writing has one too.
pub fn line_above(limit: u64, kind: LineKind<'_>, key: &[u8], value: &[u8]) -> Option<u64> {
    let LineKind { format, print, table } = kind;
    let table_bytes = table.map_or(0, json::string_len);
    let item = |bytes: &[u8]| {
        let hex = bytes.iter().filter(|byte| !matches!(byte, b' '..=b'~') || **byte == b'\\').count() as u64;
        1 + if print { bytes.len() as u64 + 2 * hex } else { 2 * bytes.len() as u64 }
    };
    // Nothing takes more than six times its bytes; the exact length is only looked for where it can matter.
    if (key.len() + value.len()) as u64 * 6 + table_bytes + 128 <= limit {
        return None;
    }
    let length = match format {
        Format::Jsonl => jsonl::line_len(key, value) + table_bytes,
        Format::Tsv => escape::escaped_len(key) + 1 + escape::escaped_len(value),
        Format::Dump => item(key).max(item(value)),
    };
    Some(length).filter(|&length| length > limit)
}

/// A writer for `format`.
pub fn writer<'a>(format: Format, output: impl Write + 'a, options: &WriteOptions) -> Box<dyn RecordWriter + 'a> {
    match format {
        Format::Jsonl => Box::new(JsonlWriter::new(output)),
        Format::Tsv => Box::new(TsvWriter::new(output)),
        Format::Dump => Box::new(DumpWriter::new(output, options.clone())),
    }
}

#[cfg(test)]
pub mod samples {
    //! Records that text formats stumble over, for the tests of every format.

    use super::dump_read::Select;
    use super::{Format, ReadError, ReadOptions, Record, WriteOptions, reader, writer};

    /// Keys and values with everything that has a meaning in one of the formats.
    pub fn nasty() -> Vec<Record> {
        let every_byte: Vec<u8> = (0..=255).collect();
        let parts: [&[u8]; 14] = [
            b"",
            b"plain",
            b"\0",
            b"\n",
            b"\r\n",
            b"\t",
            b"\\",
            b"\\x41\\",
            b"\xff\xfe",
            b"half \xc3",
            "Stra\u{df}e \u{1f600}".as_bytes(),
            b"\"quoted\" {\"key\":1}",
            b" DATA=END",
            &every_byte,
        ];
        let mut records = Vec::new();
        for (i, key) in parts.iter().enumerate() {
            let value = parts[(i + 5) % parts.len()].to_vec();
            records.push(Record { key: key.to_vec(), value, ..Record::default() });
        }
        records
    }

    /// The options that tests read with.
    pub fn read_options() -> ReadOptions {
        ReadOptions { line_bytes_max: 1 << 16, select: Select::All, one_table: false, last_wins: false }
    }

    /// Everything a reader has to say about a text: records, then perhaps an error.
    pub fn read_all(format: Format, text: &[u8], options: &ReadOptions) -> (Vec<Record>, Option<ReadError>) {
        let mut reader = reader(format, text, options);
        let (mut records, mut record) = (Vec::new(), Record::default());
        loop {
            match reader.next(&mut record) {
                Ok(true) => records.push(record.clone()),
                Ok(false) => return (records, None),
                Err(error) => return (records, Some(error)),
            }
        }
    }

    /// The text of some records, which follow one another table by table.
    pub fn write_all(format: Format, records: &[Record], options: &WriteOptions) -> Vec<u8> {
        let mut text = Vec::new();
        let mut writer = writer(format, &mut text, options);
        let mut table = None;
        writer.begin_table(None).unwrap();
        for record in records {
            if record.table != table {
                table.clone_from(&record.table);
                writer.begin_table(table.as_deref()).unwrap();
            }
            writer.write(&record.key, &record.value, record.expires_ms).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_brings_nasty_bytes_back() {
        let records = samples::nasty();
        for format in [Format::Jsonl, Format::Tsv, Format::Dump] {
            for print in [false, true] {
                let text = samples::write_all(format, &records, &WriteOptions { print, ..WriteOptions::default() });
                let (back, error) = samples::read_all(format, &text, &samples::read_options());
                assert!(error.is_none(), "{format:?}: {error:?}");
                assert_eq!(back, records, "{format:?}, print {print}");
            }
        }
    }

    #[test]
    fn tables_come_back_with_their_names() {
        let mut records = samples::nasty();
        for table in ["users", "two words", "\u{202e}\u{1f600}\"\\"] {
            let of = |record| Record { table: Some(table.to_string()), ..record };
            records.extend(samples::nasty().into_iter().map(of));
        }
        for format in [Format::Jsonl, Format::Dump] {
            let text = samples::write_all(format, &records, &WriteOptions::default());
            let (mut back, error) = samples::read_all(format, &text, &samples::read_options());
            assert!(error.is_none(), "{format:?}: {error:?}");
            back.retain(|record| !record.only_table);
            assert_eq!(back, records, "{format:?}");
        }
    }

    #[test]
    fn random_bytes_read_as_records_or_errors_but_never_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces: [&[u8]; 16] = [
            b"\n",
            b"\t",
            b" ",
            b"\\",
            b"\\x",
            b"{\"key\":",
            b"\"a\"",
            b"}",
            b"VERSION=3\n",
            b"format=print\n",
            b"format=bytevalue\n",
            b"HEADER=END\n",
            b"DATA=END\n",
            b"6",
            b"\xff",
            b"type=btree\n",
        ];
        for _ in 0..5_000 {
            let mut text = Vec::new();
            for _ in 0..random.usize(0..24) {
                text.extend_from_slice(pieces[random.usize(0..pieces.len())]);
            }
            for format in [Format::Jsonl, Format::Tsv, Format::Dump] {
                let _ = samples::read_all(format, &text, &samples::read_options());
            }
        }
    }
}
