//! Reads the text format of `db_dump` and `mdb_dump`, versions 1 to 3.
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
//! Several databases follow one another, each with a header of its own. One that has a name (`database=NAME`) is the table of
//! that name, the one without is the main table. Keywords that set up the database that
//! was dumped (page sizes, fill factors, LMDB's map size) mean nothing here and are passed over.
//!
//! Version 2 looks the same. Version 1, of Berkeley DB 1.85, has no line that says so: the header begins with `format` or
//! `type`, no line of data begins with a space, and the text ends where the database does.

use std::io::BufRead;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::error::{ReadError, Reason};
use super::escape::{excerpt, from_hex_digits};
use super::lines::Lines;
use super::{Record, RecordReader};

/// Which databases of a dump are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All: each is the table of its name. A second one for the same table is an error.
    All,
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
    /// The database that was asked for has come.
    found: bool,
}

/// A database of the dump, as its header describes it.
#[derive(Debug, Clone, Default)]
struct Section {
    name: Option<String>,
    print: bool,
    wanted: bool,
    duplicates: bool,
    /// Lines of data begin with a space and end with `DATA=END`: not in version 1.
    spaced: bool,
    /// The keys of the database are numbers of records, which a dump may leave out.
    numbered: bool,
    /// The dump says that it has keys.
    keys: bool,
    /// Its records name a table: its own.
    is_table: bool,
    /// That there is such a table was not handed out yet.
    unsaid: bool,
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
        DumpReader {
            lines: Lines::new(input, limit),
            select,
            last_wins,
            section: None,
            names: Vec::new(),
            found: false,
        }
    }

    /// The databases met so far, in order; none stands for one without a name.
    pub fn names(&self) -> &[Option<String>] {
        &self.names
    }

    /// A database before this one that goes to the same table.
    fn rival_of(&self, name: &Option<String>) -> Option<&Option<String>> {
        match self.select {
            Select::All => self.names.iter().find(|known| *known == name),
            _ => self.names.first(),
        }
    }

    /// Reads the next header and decides about its database; none at the end of the text.
    fn next_section(&mut self) -> Result<Option<Section>, ReadError> {
        let Some(mut section) = self.header()? else { return Ok(None) };
        section.wanted = match &self.select {
            Select::NamesOnly => false,
            // One without a name is chosen by its number.
            Select::Named(wanted) => match &section.name {
                Some(name) => name == wanted,
                None => *wanted == (self.names.len() + 1).to_string(),
            },
            Select::TheOnlyOne | Select::All => match self.rival_of(&section.name) {
                None => true,
                Some(first) => {
                    let reason = Reason::SecondDatabase { first: quoted(first), second: quoted(&section.name) };
                    return Err(self.lines.bad(reason));
                }
            },
        };
        section.is_table = self.select == Select::All && section.name.is_some();
        section.unsaid = section.is_table;
        self.names.push(section.name.clone());
        self.found |= section.wanted;
        if section.wanted && section.duplicates && !self.last_wins {
            return Err(self.lines.bad(Reason::Duplicates));
        }
        Ok(Some(section))
    }

    /// Reads the lines of a header; none if the text ends before one begins.
    fn header(&mut self) -> Result<Option<Section>, ReadError> {
        let mut section = Section::default();
        let mut begun = false;
        loop {
            let Some(line) = self.lines.next()? else {
                return if begun { Err(self.lines.bad(Reason::CutShort { missing: "HEADER=END" })) } else { Ok(None) };
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() && !begun {
                continue;
            }
            let read = match line.iter().position(|&byte| byte == b'=') {
                Some(_) if line == b"HEADER=END" && begun => {
                    section.check().map_err(|reason| self.lines.bad(reason))?;
                    return Ok(Some(section));
                }
                Some(equals) if begun || matches!(&line[..equals], b"VERSION" | b"format" | b"type") => {
                    keyword(&line[..equals], &line[equals + 1..], &mut section)
                }
                Some(_) => Err(structure("VERSION=3", line)),
                None => Err(structure("a header line keyword=value, as `db_dump` and `mdb_dump` write them", line)),
            };
            read.map_err(|reason| self.lines.bad(reason))?;
            begun = true;
        }
    }

    /// Reads one line of records and decodes it into `out`, if its database is wanted.
    fn item(&mut self, section: &Section, out: &mut Vec<u8>) -> Result<Item, ReadError> {
        let Some(line) = self.lines.next()? else {
            return if section.spaced {
                Err(self.lines.bad(Reason::CutShort { missing: "DATA=END" }))
            } else {
                Ok(Item::DataEnd)
            };
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let decoded = match line {
            _ if !section.spaced && !section.wanted => Ok(()),
            data if !section.spaced && section.print => from_print(data, out),
            data if !section.spaced => from_hex(data, out),
            [b' ', ..] if !section.wanted => Ok(()),
            [b' ', data @ ..] if section.print => from_print(data, out),
            [b' ', data @ ..] => from_hex(data, out),
            DATA_END => return Ok(Item::DataEnd),
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
                let reason = Reason::Structure {
                    expected: "the value of the key before",
                    found: "the end of the database".into(),
                };
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
            Select::Named(name) if !self.found => {
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
            let Some(mut section) = self.section.take() else {
                match self.next_section()? {
                    Some(section) => self.section = Some(section),
                    None => return self.ended().map(|()| false),
                }
                continue;
            };
            record.clear();
            record.table.clone_from(if section.is_table { &section.name } else { &None });
            if std::mem::take(&mut section.unsaid) {
                record.only_table = true;
                self.section = Some(section);
                return Ok(true);
            }
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

impl Section {
    /// What only shows when all of a header is known.
    fn check(&self) -> Result<(), Reason> {
        if self.numbered && !self.keys {
            return Err(Reason::Header {
                keyword: "type",
                value: "recno or queue".into(),
                remedy: "its records have no keys here: `db_dump -k` writes their numbers as keys",
            });
        }
        Ok(())
    }
}

fn keyword(name: &[u8], value: &[u8], section: &mut Section) -> Result<(), Reason> {
    let refused = |keyword, remedy| Err(Reason::Header { keyword, value: excerpt(value), remedy });
    match (name, value) {
        (b"VERSION", b"2" | b"3") => section.spaced = true,
        (b"VERSION", b"1") => section.spaced = false,
        (b"VERSION", _) => return refused("VERSION", "versions 1 to 3 can: dump with a tool that writes version 3"),
        (b"format", b"bytevalue") => section.print = false,
        (b"format", b"print") => section.print = true,
        (b"format", _) => return refused("format", "there are bytevalue and print"),
        (b"type", b"btree" | b"hash") => section.numbered = false,
        (b"type", b"recno" | b"queue") => section.numbered = true,
        (b"type", _) => return refused("type", "there are btree, hash, recno and queue"),
        (b"keys", b"0") => {
            return refused("keys", "records without keys cannot be stored: dump them with `db_dump -k`");
        }
        (b"keys", _) => section.keys = true,
        // An empty one is none.
        (b"database" | b"subdatabase", b"") => {}
        // Both names are in use for the same thing.
        (b"database" | b"subdatabase", name) => section.name = Some(String::from_utf8_lossy(name).into_owned()),
        (b"duplicates" | b"dupsort", value) if value != b"0" => section.duplicates = true,
        _ => {}
    }
    Ok(())
}

fn quoted(name: &Option<String>) -> String {
    name.as_ref().map_or_else(|| "one without a name".to_string(), |name| format!("\"{}\"", excerpt(name.as_bytes())))
}

fn structure(expected: &'static str, found: &[u8]) -> Reason {
    let found = if found.is_empty() { "an empty line".to_string() } else { format!("`{}`", excerpt(found)) };
    Reason::Structure { expected, found }
}

fn from_hex(digits: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
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
