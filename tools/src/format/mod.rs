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

use dump_read::{DumpReader, Select};
use dump_write::DumpWriter;
use jsonl::{JsonlReader, JsonlWriter};
use tsv::{TsvReader, TsvWriter};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line: {"key": "...", "value": "..."}; "key_b64" / "value_b64" hold what is not UTF-8,
    /// "expires_ms" is a record's deadline
    Jsonl,
    /// key TAB value, with the escapes \t \n \r \\ and \xHH
    Tsv,
    /// The text format of Berkeley DB's db_dump and LMDB's mdb_dump, for db_load and mdb_load
    Dump,
}

impl Format {
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
    /// Of a dump with several databases, the one to read.
    pub database: Option<String>,
    /// Whether a dump may hold duplicates of a key, of which the last one stays.
    pub last_wins: bool,
}

/// A reader for `format`.
pub fn reader<'a>(format: Format, input: impl BufRead + 'a, options: &ReadOptions) -> Box<dyn RecordReader + 'a> {
    let limit = options.line_bytes_max;
    match format {
        Format::Jsonl => Box::new(JsonlReader::new(input, limit)),
        Format::Tsv => Box::new(TsvReader::new(input, limit)),
        Format::Dump => {
            let select = options.database.clone().map_or(Select::TheOnlyOne, Select::Named);
            Box::new(DumpReader::new(input, limit, select, options.last_wins))
        }
    }
}

/// What a writer needs to know beside the format.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Dump: printable characters as they are, instead of hex only.
    pub print: bool,
    /// Dump: the database's name for the header.
    pub database: Option<String>,
    /// Dump: LMDB's `mapsize` for the header.
    pub mapsize_bytes: Option<u64>,
}

/// The length of a record's longest line, if it is above `limit`. Reading has a limit, so writing has one too.
pub fn line_above(limit: u64, format: Format, print: bool, key: &[u8], value: &[u8]) -> Option<u64> {
    let item = |bytes: &[u8]| {
        let hex = bytes.iter().filter(|byte| !matches!(byte, b' '..=b'~') || **byte == b'\\').count() as u64;
        1 + if print { bytes.len() as u64 + 2 * hex } else { 2 * bytes.len() as u64 }
    };
    // Nothing takes more than six times its bytes; the exact length is only looked for where it can matter.
    if (key.len() + value.len()) as u64 * 6 + 128 <= limit {
        return None;
    }
    let length = match format {
        Format::Jsonl => jsonl::line_len(key, value),
        Format::Tsv => escape::escaped_len(key) + 1 + escape::escaped_len(value),
        Format::Dump => item(key).max(item(value)),
    };
    Some(length).filter(|&length| length > limit)
}

/// A writer for `format`. Writes the header, if the format has one.
pub fn writer<'a>(
    format: Format,
    output: impl Write + 'a,
    options: &WriteOptions,
) -> io::Result<Box<dyn RecordWriter + 'a>> {
    Ok(match format {
        Format::Jsonl => Box::new(JsonlWriter::new(output)),
        Format::Tsv => Box::new(TsvWriter::new(output)),
        Format::Dump => Box::new(DumpWriter::new(output, options)?),
    })
}

#[cfg(test)]
pub mod samples {
    //! Records that text formats stumble over, for the tests of every format.

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
            records.push(Record { key: key.to_vec(), value, expires_ms: None });
        }
        records
    }

    /// The options that tests read with.
    pub fn read_options() -> ReadOptions {
        ReadOptions { line_bytes_max: 1 << 16, database: None, last_wins: false }
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

    /// The text of some records.
    pub fn write_all(format: Format, records: &[Record], options: &WriteOptions) -> Vec<u8> {
        let mut text = Vec::new();
        let mut writer = writer(format, &mut text, options).unwrap();
        for record in records {
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
