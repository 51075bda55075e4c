//! Lines with a number and a bound: a file without line ends must not become one huge buffer.

use std::io::{BufRead, Read};

use super::error::{ReadError, Reason};

/// Splits an input into lines at `\n`.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
    limit: usize,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `limit` bytes, without the line end.
    pub fn new(input: R, limit: usize) -> Self {
        Lines { input, buffer: Vec::new(), number: 0, limit }
    }

    /// The number of the line returned last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its line end; none at the end. A last line need not end in `\n`. A line that is
    /// too long is skipped to its end, so that the next call returns the one after it.
    pub fn next(&mut self) -> Result<Option<&[u8]>, ReadError> {
        self.buffer.clear();
        // One byte more than the limit tells a line that is too long, one more is its line end.
        let bound = (self.limit as u64).saturating_add(1);
        let read = self.input.by_ref().take(bound).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.number == 1 {
            self.skip_byte_order_mark()?;
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if self.buffer.len() > self.limit {
            self.input.skip_until(b'\n')?;
            // Not kept: the next line may be short again for the rest of the file.
            self.buffer = Vec::new();
            return Err(self.bad(Reason::LineTooLong { limit: self.limit }));
        }
        Ok(Some(&self.buffer))
    }

    /// Editors of other systems begin a text with a mark of its byte order. In UTF-8 it says nothing; UTF-16 is refused.
    fn skip_byte_order_mark(&mut self) -> Result<(), ReadError> {
        match self.buffer[..] {
            [0xef, 0xbb, 0xbf, ..] => drop(self.buffer.drain(..3)),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(self.bad(Reason::Utf16)),
            _ => {}
        }
        Ok(())
    }

    /// An error about the line returned last.
    pub fn bad(&self, reason: Reason) -> ReadError {
        ReadError::Bad { line: self.number.max(1), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], limit: usize) -> Vec<Result<Vec<u8>, String>> {
        let mut lines = Lines::new(text, limit);
        let mut all = Vec::new();
        loop {
            match lines.next() {
                Ok(Some(line)) => all.push(Ok(line.to_vec())),
                Ok(None) => return all,
                Err(error) => all.push(Err(error.to_string())),
            }
        }
    }

    fn ok(line: &str) -> Result<Vec<u8>, String> {
        Ok(line.as_bytes().to_vec())
    }

    #[test]
    fn lines_with_and_without_a_last_line_end() {
        assert_eq!(lines(b"", 3), []);
        assert_eq!(lines(b"\n", 3), [ok("")]);
        assert_eq!(lines(b"ab\n\ncd", 3), [ok("ab"), ok(""), ok("cd")]);
    }

    #[test]
    fn a_mark_of_byte_order_is_no_part_of_the_text() {
        assert_eq!(lines(b"\xef\xbb\xbfab\n\xef\xbb\xbfcd", 9), [ok("ab"), ok("\u{feff}cd")]);
        assert_eq!(lines(b"\xef\xbb\xbf", 9), [ok("")]);
        let mut lines = Lines::new(&b"\xff\xfea\0\n\0"[..], 9);
        assert!(lines.next().unwrap_err().to_string().contains("iconv -f UTF-16"));
    }

    #[test]
    fn the_limit_is_exact_and_the_reader_goes_on_behind_it() {
        let too_long =
            |line| Err(format!("line {line}: longer than 3 bytes; if that is meant, raise --max-line-bytes"));
        assert_eq!(lines(b"abc\nabcd\nx\n", 3), [ok("abc"), too_long(2), ok("x")]);
        assert_eq!(lines(b"abc", 3), [ok("abc")]);
        assert_eq!(lines(b"abcdef", 3), [too_long(1)]);
    }
}
