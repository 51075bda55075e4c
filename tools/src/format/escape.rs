//! Backslash escapes: the ones of the tsv format, which `scan` and `get` use on terminals too.

use std::borrow::Cow;

use super::error::Reason;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// True for a character that acts on a terminal, or on what stands around it, instead of being shown: control
/// characters (of the upper range too: U+009B starts a terminal's command), the marks that turn the direction of text,
/// the separators of lines and paragraphs, and the mark of byte order.
pub fn is_acting(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Appends `bytes` so that they are one line of printable UTF-8 without a TAB: `\t \n \r \\`, and `\xHH` for
/// every byte of other [acting](is_acting) characters and of what is not UTF-8.
pub fn escape_into(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => out.extend_from_slice(b"\\t"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if is_acting(c) => hex_into(c.encode_utf8(&mut [0; 4]).as_bytes(), out),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        hex_into(chunk.invalid(), out);
    }
}

/// How many bytes [`escape_into`] appends.
pub fn escaped_len(bytes: &[u8]) -> u64 {
    let of = |c: char| match c {
        '\t' | '\n' | '\r' | '\\' => 2,
        c if is_acting(c) => 4 * c.len_utf8() as u64,
        c => c.len_utf8() as u64,
    };
    let chunk =
        |chunk: std::str::Utf8Chunk<'_>| chunk.valid().chars().map(of).sum::<u64>() + 4 * chunk.invalid().len() as u64;
    bytes.utf8_chunks().map(chunk).sum()
}

/// A report or message for people, without anything in it that acts on a terminal but line ends and TABs. Names of
/// files and keys can hold such things.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    let acts = |c: char| is_acting(c) && !matches!(c, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\r' => out.extend_from_slice(b"\\r"),
            c if acts(c) => hex_into(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut out),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn hex_into(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.extend_from_slice(b"\\x");
        push_hex(byte, out);
    }
}

/// Appends the two hex digits of a byte.
pub fn push_hex(byte: u8, out: &mut Vec<u8>) {
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

/// The value of two hex digits in either case.
pub fn from_hex_digits(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// The escaped form as text, for messages and terminals.
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    escape_into(bytes, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The escaped form of the first bytes, for messages about data of any length.
pub fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let mut text = escaped(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN {
        text.push_str("...");
    }
    text
}

/// Takes the escapes of [`escape_into`] back. `column` is that of the first byte, for errors. Every other
/// byte stands for itself.
pub fn unescape_into(text: &[u8], column: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
    let mut rest = text;
    loop {
        let plain = rest.iter().position(|&byte| byte == b'\\').unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        let (byte, length) = match &rest[plain..] {
            [] => return Ok(()),
            [b'\\', b't', ..] => (b'\t', 2),
            [b'\\', b'n', ..] => (b'\n', 2),
            [b'\\', b'r', ..] => (b'\r', 2),
            [b'\\', b'\\', ..] => (b'\\', 2),
            [b'\\', b'x', high, low, ..] if from_hex_digits(*high, *low).is_some() => {
                (from_hex_digits(*high, *low).unwrap_or_default(), 4)
            }
            escape => {
                let column = column + text.len() - escape.len();
                return Err(Reason::Escape {
                    column,
                    hint: "there are \\t \\n \\r \\\\ and \\xHH with two hex digits",
                });
            }
        };
        out.push(byte);
        rest = &rest[plain + length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut out = Vec::new();
        unescape_into(text, 1, &mut out).map(|()| out)
    }

    #[test]
    fn text_stays_readable_and_the_rest_is_escaped() {
        assert_eq!(escaped("Stra\u{df}e \u{1f600}".as_bytes()), "Stra\u{df}e \u{1f600}");
        assert_eq!(escaped(b"a\tb\nc\rd\\e"), "a\\tb\\nc\\rd\\\\e");
        assert_eq!(escaped(b"\0\x1b[31m\x7f"), "\\x00\\x1b[31m\\x7f");
        assert_eq!(escaped(b"ok\xffok\xe2\x82"), "ok\\xffok\\xe2\\x82");
        assert_eq!(escaped("\u{9b}".as_bytes()), "\\xc2\\x9b");
    }

    #[test]
    fn what_turns_text_around_is_escaped_too() {
        let turned = "a\u{202e}b\u{2066}c\u{200f}\u{feff}\u{2028}";
        assert_eq!(escaped(turned.as_bytes()).chars().filter(|&c| is_acting(c)).count(), 0);
        assert_eq!(unescaped(escaped(turned.as_bytes()).as_bytes()).unwrap(), turned.as_bytes());
        for text in [turned.as_bytes(), b"\0\x1b\t\\ab\xff\xc3", "\u{df}\u{1f600}".as_bytes()] {
            assert_eq!(escaped_len(text), escaped(text).len() as u64, "{text:?}");
        }
        assert_eq!(for_terminal("a\x1b[31m\tb\u{202e}\n\r"), "a\\x1b[31m\tb\\xe2\\x80\\xae\n\\r");
        assert!(matches!(for_terminal("Stra\u{df}e\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn every_byte_comes_back() {
        let every: Vec<u8> = (0..=255).collect();
        let text = escaped(&every);
        assert!(text.chars().all(|c| !c.is_control()));
        assert_eq!(unescaped(text.as_bytes()).unwrap(), every);
        assert_eq!(unescaped(b"\\x4A\\x4a").unwrap(), b"JJ");
    }

    #[test]
    fn a_bad_escape_is_named_with_its_column() {
        for (text, column) in
            [(&b"\\"[..], 1), (b"ab\\", 3), (b"\\q", 1), (b"\\n\\x1", 3), (b"\\xg0", 1), (b"\\X41", 1)]
        {
            match unescaped(text) {
                Err(Reason::Escape { column: found, .. }) => assert_eq!(found, column, "{}", escaped(text)),
                other => panic!("{}: {other:?}", escaped(text)),
            }
        }
    }

    #[test]
    fn excerpts_are_bounded() {
        assert_eq!(excerpt(b"a\n"), "a\\n");
        assert_eq!(excerpt(&[b'x'; 100]).len(), 43);
    }
}
