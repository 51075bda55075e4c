//! What can be wrong with a text that is imported.

use std::io;

/// Why the next record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file or pipe could not be read.
    #[error("read the input: {0}")]
    Io(#[from] io::Error),
    /// The text is not what the format wants.
    #[error("line {line}: {reason}")]
    Bad {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: Reason,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The line is longer than the limit.
    #[error("longer than {limit} bytes; if that is meant, raise --max-line-bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// The text is not UTF-8.
    #[error(
        "the text is UTF-16; `iconv -f UTF-16 -t UTF-8` makes UTF-8 of it (if it is not, write its first two bytes \
         escaped)"
    )]
    Utf16,
    /// jsonl: no JSON, or not an object of the known fields.
    #[error("not a record in JSON: {0}")]
    Json(String),
    /// jsonl: neither the plain nor the base64 field is there.
    #[error("neither \"{0}\" nor \"{0}_b64\" is there")]
    FieldMissing(&'static str),
    /// jsonl: the plain and the base64 field are both there.
    #[error("both \"{0}\" and \"{0}_b64\" are there")]
    FieldTwice(&'static str),
    /// jsonl: a base64 field that is not base64.
    #[error("\"{field}_b64\" is not base64: {error}")]
    Base64 {
        /// `key` or `value`.
        field: &'static str,
        /// What the decoder says.
        error: data_encoding::DecodeError,
    },
    /// jsonl: a deadline that no store keeps.
    #[error("\"expires_ms\" is {millis}, the limit is {limit} (milliseconds since 1970)")]
    Deadline {
        /// What is there.
        millis: u64,
        /// The limit.
        limit: u64,
    },
    /// jsonl: the record names a table, and all records go to one that was chosen.
    #[error("the record names the table {table}, and --table chose one for all; without --table each goes to its own")]
    NamesTable {
        /// The name, shortened and escaped.
        table: String,
    },
    /// tsv: no TAB between key and value.
    #[error("no TAB between key and value")]
    NoTab,
    /// tsv: more than one TAB.
    #[error("a second TAB in column {column}; inside a key or value it is written \\t")]
    SecondTab {
        /// The second TAB's column, from 1.
        column: usize,
    },
    /// A backslash that starts no known escape.
    #[error("bad escape in column {column}: {hint}")]
    Escape {
        /// The backslash's column, from 1.
        column: usize,
        /// Which escapes there are.
        hint: &'static str,
    },
    /// dump: not an even number of hex digits.
    #[error("not pairs of hex digits: {0}")]
    Hex(data_encoding::DecodeError),
    /// The key is longer than a store takes.
    #[error("the key has {len} bytes, the limit is {limit}")]
    KeyTooLong {
        /// The key's length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// dump: a line that does not belong where it stands.
    #[error("expected {expected}, found {found}")]
    Structure {
        /// What belongs here.
        expected: &'static str,
        /// What is here, shortened and escaped.
        found: String,
    },
    /// dump: the text ends too early.
    #[error("the text ends here, but {missing} is missing: the dump is cut short")]
    CutShort {
        /// What should still come.
        missing: &'static str,
    },
    /// dump: a header field with a value that this tool cannot read.
    #[error("{keyword}={value} cannot be read; {remedy}")]
    Header {
        /// The header's keyword.
        keyword: &'static str,
        /// Its value, shortened and escaped.
        value: String,
        /// What can be read.
        remedy: &'static str,
    },
    /// dump: the database has several values for one key.
    #[error(
        "the dumped database may hold several values for a key, a store holds one; --last-wins imports the last one of each"
    )]
    Duplicates,
    /// dump: a second database for the same table, and no choice was made.
    #[error(
        "a second database ({second}) follows {first}, and both go to one table; choose one with --database NAME (or its number, from 1), or import each by itself"
    )]
    SecondDatabase {
        /// The database before it.
        first: String,
        /// The one that begins here.
        second: String,
    },
    /// dump: the database that was asked for is not there.
    #[error("there is no database {wanted} in the dump, only {seen}")]
    NoSuchDatabase {
        /// The name that was asked for.
        wanted: String,
        /// The names that are there.
        seen: String,
    },
}

impl Reason {
    /// True where the reader knows where the next record begins, so that `--skip-bad` can go on there.
    pub fn is_skippable(&self) -> bool {
        match self {
            Reason::LineTooLong { .. }
            | Reason::Json(_)
            | Reason::FieldMissing(_)
            | Reason::FieldTwice(_)
            | Reason::Base64 { .. }
            | Reason::Deadline { .. }
            | Reason::NamesTable { .. }
            | Reason::NoTab
            | Reason::SecondTab { .. }
            | Reason::Escape { .. }
            | Reason::Hex(_)
            | Reason::KeyTooLong { .. } => true,
            Reason::Utf16
            | Reason::Structure { .. }
            | Reason::CutShort { .. }
            | Reason::Header { .. }
            | Reason::Duplicates
            | Reason::SecondDatabase { .. }
            | Reason::NoSuchDatabase { .. } => false,
        }
    }
}
