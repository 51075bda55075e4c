//! JSON whose strings hold nothing that acts on a terminal: such characters are written as `\\uXXXX`, which means the same.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::escape::is_acting;

/// One line.
pub fn to_line(output: impl Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(output, Quiet(CompactFormatter)))
}

/// Indented.
pub fn to_text(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Quiet(PrettyFormatter::new())))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// How many bytes a string takes between its quotes.
pub fn string_len(text: &str) -> u64 {
    let of = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if is_acting(c) => 6,
        c => c.len_utf8() as u64,
    };
    text.chars().map(of).sum()
}

struct Quiet<F>(F);

/// Hands everything on but the text of strings.
impl<F: Formatter> Formatter for Quiet<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_acting(c)) {
            // All acting characters lie in the first plane: one unit of UTF-16 each.
            write!(writer, "{}\\u{:04x}", &rest[..at], u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
    fn begin_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_array(w)
    }
    fn end_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array(w)
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(w, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array_value(w)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object(w)
    }
    fn end_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object(w)
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(w, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object_value(w)
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object_value(w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_acts_and_it_means_the_same() {
        let text = "a\u{9b}31m\u{202e}\u{7f}\"\\\n\0\u{feff}\u{df}\u{1f600}";
        let mut line = Vec::new();
        to_line(&mut line, &text).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains(is_acting), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        assert_eq!(line.len() as u64, string_len(text) + 2);
        let value = serde_json::json!({"a": [1, {"b": text}], "c": {}});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&to_text(&value).unwrap()).unwrap(), value);
    }
}
