//! tsv: key TAB value, one record a line, with backslash escapes (see [`super::escape`]).

use std::io::{self, BufRead, Write};

use super::error::{ReadError, Reason};
use super::escape::{escape_into, unescape_into};
use super::lines::Lines;
use super::{Record, RecordReader, RecordWriter};

/// Reads tsv.
#[derive(Debug)]
pub struct TsvReader<R> {
    lines: Lines<R>,
}

impl<R: BufRead> TsvReader<R> {
    /// Reads lines of at most `limit` bytes.
    pub fn new(input: R, limit: usize) -> Self {
        TsvReader { lines: Lines::new(input, limit) }
    }
}

impl<R: BufRead> RecordReader for TsvReader<R> {
    fn next(&mut self, record: &mut Record) -> Result<bool, ReadError> {
        let Some(line) = self.lines.next()? else { return Ok(false) };
        match parse(line, record) {
            Ok(()) => Ok(true),
            Err(reason) => Err(self.lines.bad(reason)),
        }
    }

    fn line(&self) -> u64 {
        self.lines.number()
    }
}

fn parse(line: &[u8], record: &mut Record) -> Result<(), Reason> {
    // A carriage return that belongs to the data is written \r; a bare one at the end is a DOS line end.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let tab = line.iter().position(|&byte| byte == b'\t').ok_or(Reason::NoTab)?;
    let (key, value) = (&line[..tab], &line[tab + 1..]);
    if let Some(second) = value.iter().position(|&byte| byte == b'\t') {
        return Err(Reason::SecondTab { column: tab + 1 + second + 1 });
    }
    record.clear();
    record.table = None;
    unescape_into(key, 1, &mut record.key)?;
    unescape_into(value, tab + 2, &mut record.value)
}

/// Writes tsv.
#[derive(Debug)]
pub struct TsvWriter<W> {
    output: W,
    line: Vec<u8>,
}

impl<W: Write> TsvWriter<W> {
    /// Writes to `output`, which should be buffered.
    pub fn new(output: W) -> Self {
        TsvWriter { output, line: Vec::new() }
    }
}

impl<W: Write> RecordWriter for TsvWriter<W> {
    fn begin_table(&mut self, _: Option<&str>) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, key: &[u8], value: &[u8], _: Option<u64>) -> io::Result<()> {
        self.line.clear();
        escape_into(key, &mut self.line);
        self.line.push(b'\t');
        escape_into(value, &mut self.line);
        self.line.push(b'\n');
        self.output.write_all(&self.line)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Reason> {
        let mut record = Record { key: b"left over".to_vec(), value: b"left over".to_vec(), ..Record::default() };
        parse(line, &mut record).map(|()| (record.key, record.value))
    }

    #[test]
    fn lines_and_their_meaning() {
        assert_eq!(parsed(b"\t").unwrap(), (vec![], vec![]));
        assert_eq!(parsed(b"a\tb\r").unwrap(), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(parsed(b"a\tb\\r").unwrap(), (b"a".to_vec(), b"b\r".to_vec()));
        assert_eq!(parsed(b"a\\tb\t\xff").unwrap(), (b"a\tb".to_vec(), b"\xff".to_vec()));
    }

    #[test]
    fn malformed_lines() {
        assert_eq!(parsed(b""), Err(Reason::NoTab));
        assert_eq!(parsed(b"key only"), Err(Reason::NoTab));
        assert_eq!(parsed(b"a\tb\tc"), Err(Reason::SecondTab { column: 4 }));
        assert!(matches!(parsed(b"ab\tc\\q"), Err(Reason::Escape { column: 5, .. })));
    }
}
