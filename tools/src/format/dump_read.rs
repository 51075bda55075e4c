//! Reads the text format of `db_dump` and `mdb_dump`, version 3.
//!
//! ```text
//! VERSION=3                  header: keyword=value, until HEADER=END
//! format=bytevalue           hex digits only; or format=print: printable characters as they are, the rest \HH
//! type=btree
//! HEADER=END
//!  6b6579                    a space, then the key
//!  76616c7565                a space, then its value
//! DATA=END
//! ```
//!
//! Several databases follow one another, each with a header of its own. Keywords that set up the database that
//! was dumped (page sizes, fill factors, LMDB's map size) mean nothing here and are passed over.

use std::io::BufRead;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::error::{ReadError, Reason};
use super::escape::{excerpt, from_hex_digits};
use super::lines::Lines;
use super::{Record, RecordReader};

/// Which databases of a dump are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The only one; a second one is an error.
    TheOnlyOne,
    /// The one with this name.
    Named(String),
    /// None: the dump is walked through for the names of its databases.
    NamesOnly,
}

/// Reads a dump.
#[derive(Debug)]
pub struct DumpReader<R> {
    lines: Lines<R>,
    select: Select,
    last_wins: bool,
    /// The database whose records are being read; none between two of them.
    section: Option<Section>,
    names: Vec<Option<String>>,
}

/// A database of the dump, as its header describes it.
#[derive(Debug, Clone, Default)]
struct Section {
    name: Option<String>,
    print: bool,
    wanted: bool,
    duplicates: bool,
}

/// A line of a database's records.
#[derive(Debug, PartialEq, Eq)]
enum Item {
    Data,
    DataEnd,
}

const DATA_END: &[u8] = b"DATA=END";

impl<R: BufRead> DumpReader<R> {
    /// Reads lines of at most `limit` bytes.
    pub fn new(input: R, limit: usize, select: Select, last_wins: bool) -> Self {
        DumpReader { lines: Lines::new(input, limit), select, last_wins, section: None, names: Vec::new() }
    }

    /// The databases met so far, in order; none stands for one without a name.
    pub fn names(&self) -> &[Option<String>] {
        &self.names
    }

    /// Reads the next header and decides about its database; none at the end of the text.
    fn next_section(&mut self) -> Result<Option<Section>, ReadError> {
        let Some(mut section) = self.header()? else { return Ok(None) };
        section.wanted = match &self.select {
            Select::NamesOnly => false,
            Select::Named(name) => section.name.as_ref() == Some(name),
            Select::TheOnlyOne => match self.names.first() {
                None => true,
                Some(first) => {
                    let reason = Reason::SecondDatabase { first: quoted(first), second: quoted(&section.name) };
                    return Err(self.lines.bad(reason));
                }
            },
        };
        self.names.push(section.name.clone());
        if section.wanted && section.duplicates && !self.last_wins {
            return Err(self.lines.bad(Reason::Duplicates));
        }
        Ok(Some(section))
    }

    /// Reads the lines of a header; none if the text ends before one begins.
    fn header(&mut self) -> Result<Option<Section>, ReadError> {
        let mut section = Section::default();
        let (mut version, mut format) = (false, false);
        loop {
            let Some(line) = self.lines.next()? else {
                return if version {
                    Err(self.lines.bad(Reason::CutShort { missing: "HEADER=END" }))
                } else {
                    Ok(None)
                };
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() && !version {
                continue;
            }
            if line == b"HEADER=END" && version && format {
                return Ok(Some(section));
            }
            let checked = match line.iter().position(|&byte| byte == b'=') {
                Some(equals) => keyword(&line[..equals], &line[equals + 1..], &mut section),
                None => Err(structure("a header line keyword=value, as `db_dump` and `mdb_dump` write them", line)),
            };
            match checked {
                Ok(Keyword::Version) => version = true,
                Ok(Keyword::Format) if version => format = true,
                Ok(_) if version && line != b"HEADER=END" => {}
                Ok(_) => {
                    let expected = if version { "format=bytevalue or format=print" } else { "VERSION=3" };
                    let reason = structure(expected, line);
                    return Err(self.lines.bad(reason));
                }
                Err(reason) => return Err(self.lines.bad(reason)),
            }
        }
    }

    /// Reads one line of records and decodes it into `out`, if its database is wanted.
    fn item(&mut self, section: &Section, out: &mut Vec<u8>) -> Result<Item, ReadError> {
        let Some(line) = self.lines.next()? else {
            return Err(self.lines.bad(Reason::CutShort { missing: "DATA=END" }));
        };
        let decoded = match line {
            [b' ', ..] if !section.wanted => Ok(()),
            [b' ', data @ ..] if section.print => from_print(data, out),
            [b' ', data @ ..] => from_hex(data, out),
            line if line.strip_suffix(b"\r").unwrap_or(line) == DATA_END => return Ok(Item::DataEnd),
            line => Err(structure("a space and data, or DATA=END", line)),
        };
        decoded.map(|()| Item::Data).map_err(|reason| self.lines.bad(reason))
    }

    /// Reads a key and its value; false at the end of the database. Both lines are read even if the first is
    /// bad, so that the next call stands before a key again.
    fn pair(&mut self, section: &Section, record: &mut Record) -> Result<bool, ReadError> {
        let key = self.item(section, &mut record.key);
        match &key {
            Ok(Item::DataEnd) => return Ok(false),
            Err(ReadError::Bad { reason, .. }) if !reason.is_skippable() => return key.map(|_| false),
            Err(ReadError::Io(_)) => return key.map(|_| false),
            _ => {}
        }
        match self.item(section, &mut record.value) {
            Ok(Item::Data) => key.map(|_| true),
            Ok(Item::DataEnd) => {
                let reason = Reason::Structure { expected: "the value of the key before", found: "DATA=END".into() };
                Err(self.lines.bad(reason))
            }
            Err(error) => match (key, &error) {
                // The first of two bad lines is the one to report, unless the second ends the reading.
                (Err(first), ReadError::Bad { reason, .. }) if reason.is_skippable() => Err(first),
                _ => Err(error),
            },
        }
    }

    /// What is wrong with a dump that has ended, if anything.
    fn ended(&self) -> Result<(), ReadError> {
        if self.names.is_empty() {
            return Err(self.lines.bad(Reason::CutShort { missing: "the header (VERSION=3)" }));
        }
        match &self.select {
            Select::Named(name) if !self.names.iter().flatten().any(|found| found == name) => {
                let seen = self.names.iter().map(quoted).collect::<Vec<_>>().join(", ");
                Err(self.lines.bad(Reason::NoSuchDatabase { wanted: name.clone(), seen }))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> RecordReader for DumpReader<R> {
    fn next(&mut self, record: &mut Record) -> Result<bool, ReadError> {
        loop {
            let Some(section) = self.section.take() else {
                match self.next_section()? {
                    Some(section) => self.section = Some(section),
                    None => return self.ended().map(|()| false),
                }
                continue;
            };
            record.key.clear();
            record.value.clear();
            let pair = self.pair(&section, record);
            if !matches!(pair, Ok(false)) {
                let wanted = section.wanted;
                self.section = Some(section);
                if wanted || pair.is_err() {
                    return pair;
                }
            }
        }
    }

    fn line(&self) -> u64 {
        self.lines.number()
    }
}

/// What a header line was about.
enum Keyword {
    Version,
    Format,
    Other,
}

fn keyword(name: &[u8], value: &[u8], section: &mut Section) -> Result<Keyword, Reason> {
    let refused = |keyword, remedy| Err(Reason::Header { keyword, value: excerpt(value), remedy });
    match (name, value) {
        (b"VERSION", b"3") => return Ok(Keyword::Version),
        (b"VERSION", _) => return refused("VERSION", "only version 3 can: load and dump with a current tool"),
        (b"format", b"bytevalue") => section.print = false,
        (b"format", b"print") => section.print = true,
        (b"format", _) => return refused("format", "there are bytevalue and print"),
        (b"type", b"btree" | b"hash") => {}
        (b"type", _) => return refused("type", "only databases with keys of bytes can: btree and hash"),
        (b"keys", b"0") => return refused("keys", "records without keys cannot be stored: dump them with db_dump -k"),
        // Both names are in use for the same thing.
        (b"database" | b"subdatabase", name) => section.name = Some(String::from_utf8_lossy(name).into_owned()),
        (b"duplicates" | b"dupsort", value) if value != b"0" => section.duplicates = true,
        _ => {}
    }
    Ok(if name == b"format" { Keyword::Format } else { Keyword::Other })
}

fn quoted(name: &Option<String>) -> String {
    name.as_ref().map_or_else(|| "one without a name".to_string(), |name| format!("{name:?}"))
}

fn structure(expected: &'static str, found: &[u8]) -> Reason {
    let found = if found.is_empty() { "an empty line".to_string() } else { format!("`{}`", excerpt(found)) };
    Reason::Structure { expected, found }
}

fn from_hex(digits: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
    *out = HEXLOWER_PERMISSIVE.decode(digits).map_err(Reason::Hex)?;
    Ok(())
}

fn from_print(text: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let mut rest = text;
    loop {
        let plain = rest.iter().position(|&byte| byte == b'\\').unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        let (byte, length) = match &rest[plain..] {
            [] => return Ok(()),
            [b'\\', b'\\', ..] => (Some(b'\\'), 2),
            [b'\\', high, low, ..] => (from_hex_digits(*high, *low), 3),
            _ => (None, 0),
        };
        let Some(byte) = byte else {
            return Err(Reason::Escape {
                // The line begins with a space that is not part of the text.
                column: 1 + text.len() - rest.len() + plain + 1,
                hint: "there are \\\\ and \\HH with two hex digits (mdb_dump -p before LMDB 0.9.25 leaves backslashes \
                       bare: dump without -p)",
            });
        };
        out.push(byte);
        rest = &rest[plain + length..];
    }
}

#[cfg(test)]
#[path = "dump_read_tests.rs"]
mod tests;
