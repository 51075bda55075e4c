//! Operation traces: what a workload asked of a store, call by call. docs/TRACE.md is the format's specification.
//!
//! [`record`] writes one, [`read`] reads one, [`profile`] adds up what matters about one, and [`rules`] says what the
//! workload could do better.

pub mod profile;
pub mod read;
pub mod record;
pub mod rules;
#[cfg(test)]
mod rules_tests;

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::str::FromStr;

/// The first line.
pub const HEAD: &str = "tophash-trace 1";

/// Stands for a key or a value: equal ones have equal numbers within a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Print(pub u64);

impl Print {
    /// The number of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Print(hasher.finish())
    }
}

/// When a store syncs, as far as a trace cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    /// Every write is durable when it returns.
    Always,
    /// At intervals, or when asked.
    Later,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A store is opened that has so many records; what follows is about it.
    Open { syncs: Syncs, records: u64 },
    /// One key is read.
    Get { key: Print },
    /// Several keys are read in one call.
    GetMany { keys: u64 },
    /// One key is set.
    Put { key: Print, key_bytes: u64, value_bytes: u64, value: Print },
    /// One key is removed.
    Remove { key: Print },
    /// Several keys are removed in one call.
    RemoveMany { keys: u64 },
    /// A batch is applied.
    Batch { puts: u64, removes: u64, bytes: u64 },
    /// Room is made for so many records more.
    Reserve { records: u64 },
    /// What was written is made durable.
    Sync,
    /// Everything is removed.
    Clear,
}

/// A line of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since the trace began.
    pub micros: u64,
    /// The thread, by any number.
    pub thread: u64,
    /// What it asked for.
    pub call: Call,
}

impl fmt::Display for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.micros, self.thread)?;
        match self.call {
            Call::Open { syncs: Syncs::Always, records } => write!(f, "open always {records}"),
            Call::Open { syncs: Syncs::Later, records } => write!(f, "open later {records}"),
            Call::Get { key } => write!(f, "get {key}"),
            Call::GetMany { keys } => write!(f, "get-many {keys}"),
            Call::Put { key, key_bytes, value_bytes, value } => {
                write!(f, "put {key} {key_bytes} {value_bytes} {value}")
            }
            Call::Remove { key } => write!(f, "remove {key}"),
            Call::RemoveMany { keys } => write!(f, "remove-many {keys}"),
            Call::Batch { puts, removes, bytes } => write!(f, "batch {puts} {removes} {bytes}"),
            Call::Reserve { records } => write!(f, "reserve {records}"),
            Call::Sync => f.write_str("sync"),
            Call::Clear => f.write_str("clear"),
        }
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = Words(line.split_ascii_whitespace());
        let (micros, thread) = (words.number("the time in microseconds")?, words.number("the number of the thread")?);
        let call = match words.word("a call")? {
            "open" => {
                let syncs = match words.word("`always` or `later`")? {
                    "always" => Syncs::Always,
                    "later" => Syncs::Later,
                    other => return Err(format!("expected `always` or `later`, found `{other}`")),
                };
                Call::Open { syncs, records: words.number("the number of records")? }
            }
            "get" => Call::Get { key: words.print("the key")? },
            "get-many" => Call::GetMany { keys: words.number("the number of keys")? },
            "put" => Call::Put {
                key: words.print("the key")?,
                key_bytes: words.number("the key's length")?,
                value_bytes: words.number("the value's length")?,
                value: words.print("the value")?,
            },
            "remove" => Call::Remove { key: words.print("the key")? },
            "remove-many" => Call::RemoveMany { keys: words.number("the number of keys")? },
            "batch" => Call::Batch {
                puts: words.number("the number of puts")?,
                removes: words.number("the number of removals")?,
                bytes: words.number("the length of all keys and values")?,
            },
            "reserve" => Call::Reserve { records: words.number("the number of records")? },
            "sync" => Call::Sync,
            "clear" => Call::Clear,
            other => return Err(format!("`{other}` is no call")),
        };
        words.end()?;
        Ok(Entry { micros, thread, call })
    }
}

/// The rest of a line.
struct Words<'a>(std::str::SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("expected {what}, found the end of the line"))
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.word(what)?;
        word.parse().map_err(|_| format!("expected {what}, found `{word}`"))
    }

    fn print(&mut self, what: &str) -> Result<Print, String> {
        let word = self.word(what)?;
        let number = u64::from_str_radix(word, 16);
        number.map(Print).map_err(|_| format!("expected {what} as up to 16 hexadecimal digits, found `{word}`"))
    }

    fn end(&mut self) -> Result<(), String> {
        self.0.next().map_or(Ok(()), |word| Err(format!("expected the end of the line, found `{word}`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip() {
        let key = Print::of(b"key");
        let calls = [
            Call::Open { syncs: Syncs::Always, records: 3 },
            Call::Open { syncs: Syncs::Later, records: 0 },
            Call::Get { key },
            Call::GetMany { keys: 32 },
            Call::Put { key, key_bytes: 3, value_bytes: 100, value: Print(u64::MAX) },
            Call::Remove { key: Print(0) },
            Call::RemoveMany { keys: 1000 },
            Call::Batch { puts: 2, removes: 1, bytes: 300 },
            Call::Reserve { records: 1 << 40 },
            Call::Sync,
            Call::Clear,
        ];
        for (i, call) in calls.into_iter().enumerate() {
            let entry = Entry { micros: i as u64, thread: 7, call };
            assert_eq!(entry.to_string().parse(), Ok(entry));
        }
        assert_ne!(Print::of(b"a"), Print::of(b"b"));
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        for (line, expected) in [
            ("", "the time"),
            ("x 0 sync", "the time in microseconds, found `x`"),
            ("1 0", "a call"),
            ("1 0 jump", "`jump` is no call"),
            ("1 0 get zz", "hexadecimal"),
            ("1 0 put 1 2 3", "the value"),
            ("1 0 open sometimes 0", "`always` or `later`"),
            ("1 0 sync now", "end of the line, found `now`"),
            ("1 0 reserve -1", "number of records, found `-1`"),
        ] {
            let error = line.parse::<Entry>().unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
