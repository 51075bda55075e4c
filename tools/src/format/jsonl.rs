//! jsonl: one JSON object a line. Strings where the bytes are UTF-8, base64 under another name where not.

use std::borrow::Cow;
use std::io::{self, BufRead, Write};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::error::{ReadError, Reason};
use super::escape::excerpt;
use super::json;
use super::lines::Lines;
use super::{Record, RecordReader, RecordWriter};

/// Reads jsonl.
#[derive(Debug)]
pub struct JsonlReader<R> {
    lines: Lines<R>,
    one_table: bool,
}

impl<R: BufRead> JsonlReader<R> {
    /// Reads lines of at most `limit` bytes. `one_table`: no record may name a table.
    pub fn new(input: R, limit: usize, one_table: bool) -> Self {
        JsonlReader { lines: Lines::new(input, limit), one_table }
    }
}

impl<R: BufRead> RecordReader for JsonlReader<R> {
    fn next(&mut self, record: &mut Record) -> Result<bool, ReadError> {
        loop {
            let Some(line) = self.lines.next()? else { return Ok(false) };
            // Editors and `cat` leave empty lines; they cannot be a record cut in half.
            if line.trim_ascii().is_empty() {
                continue;
            }
            return match parse(line, record) {
                Ok(()) if self.one_table && record.table.is_some() => {
                    let table = record.table.take().unwrap_or_default();
                    Err(self.lines.bad(Reason::NamesTable { table: excerpt(table.as_bytes()) }))
                }
                Ok(()) => Ok(true),
                Err(reason) => Err(self.lines.bad(reason)),
            };
        }
    }

    fn line(&self) -> u64 {
        self.lines.number()
    }
}

// Unknown fields are refused: a file that carries more than a store can keep should not be taken in halves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    table: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_b64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value_b64: Option<Cow<'a, str>>,
    expires_ms: Option<u64>,
}

/// The latest deadline that a store keeps; a later one would never come.
const DEADLINE_MAX: u64 = 1 << 62;

fn parse(line: &[u8], record: &mut Record) -> Result<(), Reason> {
    // serde takes an array for an object whose fields are in order.
    if let Some(first) = line.trim_ascii_start().first().filter(|&&first| first != b'{') {
        let found = excerpt(&[*first]);
        let hint = if *first == b'[' { "; `jq -c '.[]'` makes lines of an array" } else { "" };
        return Err(Reason::Json(format!(
            "expected an object {{\"key\": ...}} on a line of its own, found `{found}`{hint}"
        )));
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| Reason::Json(describe(&error)))?;
    record.clear();
    record.table = line.table.map(Cow::into_owned);
    if let Line { key: None, key_b64: None, value: None, value_b64: None, expires_ms: None, .. } = line
        && record.table.is_some()
    {
        record.only_table = true;
        return Ok(());
    }
    field("key", line.key, line.key_b64, &mut record.key)?;
    field("value", line.value, line.value_b64, &mut record.value)?;
    record.expires_ms = line.expires_ms;
    match line.expires_ms {
        Some(millis) if millis > DEADLINE_MAX => Err(Reason::Deadline { millis, limit: DEADLINE_MAX }),
        _ => Ok(()),
    }
}

fn field(
    name: &'static str,
    plain: Option<Cow<'_, str>>,
    base64: Option<Cow<'_, str>>,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    out.clear();
    match (plain, base64) {
        (Some(plain), None) => out.extend_from_slice(plain.as_bytes()),
        (None, Some(base64)) => {
            *out = BASE64.decode(base64.as_bytes()).map_err(|error| Reason::Base64 { field: name, error })?;
        }
        (Some(_), Some(_)) => return Err(Reason::FieldTwice(name)),
        (None, None) => return Err(Reason::FieldMissing(name)),
    }
    Ok(())
}

/// serde_json counts lines inside the one line that it was given; only its column says anything here.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what}, column {}", error.column()),
        None => text,
    }
}

/// A record in JSON, as the commands print it: of each pair exactly one is there, and the deadline if it has one.
#[derive(Debug, Default, Serialize)]
pub struct JsonRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

impl<'a> JsonRecord<'a> {
    /// A key and its value.
    pub fn new(key: &'a [u8], value: &'a [u8]) -> Self {
        let (value, value_b64) = text_or_base64(value);
        JsonRecord { value, value_b64, ..JsonRecord::key(key) }
    }

    /// A key alone.
    pub fn key(key: &'a [u8]) -> Self {
        let (key, key_b64) = text_or_base64(key);
        JsonRecord { key, key_b64, ..JsonRecord::default() }
    }

    /// The same with the name of its table, if it is not the main one.
    pub fn of_table(self, table: Option<&'a str>) -> Self {
        JsonRecord { table, ..self }
    }

    /// The same with a deadline, if there is one.
    pub fn expiring(self, expires_ms: Option<u64>) -> Self {
        JsonRecord { expires_ms, ..self }
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match as_text(bytes) {
        Some(text) => (Some(text), None),
        None => (None, Some(BASE64.encode(bytes))),
    }
}

/// Bytes as a string, unless they are not UTF-8, or so full of escapes that base64 is shorter: zeroes would be six times
/// as long.
fn as_text(bytes: &[u8]) -> Option<&str> {
    let base64 = BASE64.encode_len(bytes.len()) as u64;
    std::str::from_utf8(bytes).ok().filter(|text| text.len() < 64 || json::string_len(text) <= base64)
}

/// How many bytes a record's line has, at most.
pub fn line_len(key: &[u8], value: &[u8]) -> u64 {
    let of = |bytes: &[u8]| match as_text(bytes) {
        Some(text) => json::string_len(text),
        None => BASE64.encode_len(bytes.len()) as u64,
    };
    of(key) + of(value) + 80
}

/// Writes jsonl.
#[derive(Debug)]
pub struct JsonlWriter<W> {
    output: W,
    table: Option<String>,
    /// A table was begun, and no record says so yet.
    unsaid: bool,
}

impl<W: Write> JsonlWriter<W> {
    /// Writes to `output`, which should be buffered.
    pub fn new(output: W) -> Self {
        JsonlWriter { output, table: None, unsaid: false }
    }

    /// A table without records has a line of its own, so that it comes back too.
    fn end_table(&mut self) -> io::Result<()> {
        if self.unsaid {
            self.unsaid = false;
            json::to_line(&mut self.output, &JsonRecord::default().of_table(self.table.as_deref()))?;
            self.output.write_all(b"\n")?;
        }
        Ok(())
    }
}

impl<W: Write> RecordWriter for JsonlWriter<W> {
    fn begin_table(&mut self, name: Option<&str>) -> io::Result<()> {
        self.end_table()?;
        self.table = name.map(ToString::to_string);
        self.unsaid = name.is_some();
        Ok(())
    }

    fn write(&mut self, key: &[u8], value: &[u8], expires_ms: Option<u64>) -> io::Result<()> {
        self.unsaid = false;
        let record = JsonRecord::new(key, value).expiring(expires_ms).of_table(self.table.as_deref());
        json::to_line(&mut self.output, &record)?;
        self.output.write_all(b"\n")
    }

    fn finish(&mut self) -> io::Result<()> {
        self.end_table()?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Format, ReadOptions, WriteOptions, samples};

    fn parsed(line: &str) -> Result<(Vec<u8>, Vec<u8>), Reason> {
        let mut record = Record::default();
        parse(line.as_bytes(), &mut record).map(|()| (record.key, record.value))
    }

    #[test]
    fn each_field_is_text_or_base64_by_itself() {
        let records = [Record { key: b"a".to_vec(), value: b"\xff".to_vec(), ..Record::default() }];
        let text = samples::write_all(Format::Jsonl, &records, &WriteOptions::default());
        assert_eq!(text, b"{\"key\":\"a\",\"value_b64\":\"/w==\"}\n");
    }

    #[test]
    fn what_would_be_mostly_escapes_is_base64() {
        let records =
            [Record { key: b"a".to_vec(), value: vec![0; 3000], expires_ms: Some(DEADLINE_MAX), ..Record::default() }];
        let text = samples::write_all(Format::Jsonl, &records, &WriteOptions::default());
        assert!(text.starts_with(b"{\"key\":\"a\",\"value_b64\":\"AAAA"));
        assert!((text.len() as u64) <= line_len(b"a", &records[0].value) && text.len() < 4100, "{}", text.len());
        let (back, error) = samples::read_all(Format::Jsonl, &text, &samples::read_options());
        assert!(error.is_none() && back == records);
    }

    #[test]
    fn a_deadline_stands_at_the_end_and_comes_back_exactly() {
        for millis in [0, 1, 1_790_000_000_123, (1 << 53) + 1, DEADLINE_MAX] {
            let first = Record { key: b"a".to_vec(), expires_ms: Some(millis), ..Record::default() };
            let records = [first, Record::default()];
            let text = samples::write_all(Format::Jsonl, &records, &WriteOptions::default());
            let lines =
                format!("{{\"key\":\"a\",\"value\":\"\",\"expires_ms\":{millis}}}\n{{\"key\":\"\",\"value\":\"\"}}\n");
            assert_eq!(text, lines.as_bytes());
            let (back, error) = samples::read_all(Format::Jsonl, &text, &samples::read_options());
            assert!(error.is_none() && back == records);
        }
        let with = |deadline: &str| parsed(&format!("{{\"key\":\"a\",\"value\":\"\",\"expires_ms\":{deadline}}}"));
        assert!(with("null").is_ok());
        assert_eq!(with("4611686018427387905"), Err(Reason::Deadline { millis: (1 << 62) + 1, limit: 1 << 62 }));
        for bad in ["-1", "1.5", "1e3", "\"soon\"", "18446744073709551616"] {
            assert!(matches!(with(bad), Err(Reason::Json(_))), "{bad}");
        }
    }

    #[test]
    fn a_table_without_records_has_a_line() {
        let mut text = Vec::new();
        let mut writer = JsonlWriter::new(&mut text);
        writer.begin_table(None).unwrap();
        writer.begin_table(Some("empty")).unwrap();
        writer.begin_table(Some("one")).unwrap();
        writer.write(b"a", b"1", None).unwrap();
        writer.begin_table(Some("last")).unwrap();
        writer.finish().unwrap();
        let lines = "{\"table\":\"empty\"}\n{\"table\":\"one\",\"key\":\"a\",\"value\":\"1\"}\n{\"table\":\"last\"}\n";
        assert_eq!(String::from_utf8(text).unwrap(), lines);
        let (back, error) = samples::read_all(Format::Jsonl, lines.as_bytes(), &samples::read_options());
        assert!(error.is_none(), "{error:?}");
        let said: Vec<_> = back.iter().map(|record| (record.table.as_deref().unwrap(), record.only_table)).collect();
        assert_eq!(said, [("empty", true), ("one", false), ("last", true)]);
        // Half a record is none.
        assert_eq!(parsed("{\"table\":\"t\",\"value\":\"\"}"), Err(Reason::FieldMissing("key")));
        assert_eq!(parsed("{\"table\":\"t\",\"expires_ms\":1}"), Err(Reason::FieldMissing("key")));
        let one = ReadOptions { one_table: true, ..samples::read_options() };
        let (back, error) = samples::read_all(Format::Jsonl, lines.as_bytes(), &one);
        assert!(back.is_empty() && error.unwrap().to_string().contains("names the table empty"));
    }

    #[test]
    fn escapes_spaces_and_order_do_not_matter() {
        let line = " {\"value\" : \"\\u0000\\n\", \"key_b64\": \"AP8=\"} \r";
        assert_eq!(parsed(line).unwrap(), (vec![0, 255], b"\0\n".to_vec()));
        let (records, error) =
            samples::read_all(Format::Jsonl, b"\n{\"key\":\"\",\"value\":\"\"}\n \n", &samples::read_options());
        assert!(error.is_none());
        assert_eq!(records, [Record::default()]);
    }

    #[test]
    fn malformed_lines_say_what_is_wrong() {
        assert_eq!(parsed("{\"key\":\"a\"}"), Err(Reason::FieldMissing("value")));
        assert_eq!(parsed("{\"key\":null,\"value\":\"\"}"), Err(Reason::FieldMissing("key")));
        assert_eq!(parsed("{\"key\":\"a\",\"value\":\"\",\"value_b64\":\"\"}"), Err(Reason::FieldTwice("value")));
        assert!(matches!(parsed("{\"key_b64\":\"A\",\"value\":\"\"}"), Err(Reason::Base64 { field: "key", .. })));
        for (line, what) in [
            ("{\"key\":\"a\"", "EOF while parsing"),
            ("[1]", "found `[`"),
            ("[\"a\",null,\"b\",null]", "expected an object"),
            ("3", "found `3`"),
            ("{\"key\":1,\"value\":\"\"}", "expected a string"),
            ("{\"key\":\"a\",\"value\":\"\",\"ttl\":1}", "unknown field `ttl`"),
            ("{\"key\":\"a\",\"key\":\"b\",\"value\":\"\"}", "duplicate field"),
            ("{\"key\":\"a\",\"value\":\"\"} x", "trailing characters"),
        ] {
            match parsed(line) {
                Err(Reason::Json(found)) => {
                    assert!(found.contains(what), "{line}: {found}");
                    assert!(!found.contains("line 1"), "{line}: {found}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
