//! A place in the order of a scan.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// Where a scan goes on: a place in the order in which [`Store::scan`](crate::Table::scan) goes through a store.
///
/// A cursor is one number, the hash of a key with its bits reversed, and means the same as long as the store exists:
/// while the table grows and shrinks, after a close, an offline compaction and a crash. (A repair makes a new store with
/// an order of its own.) It holds no resources. A service may hand it to a client, as a number, as text or as 8 bytes,
/// and go on from what the client sends back. Every number is a cursor, so a forged one does no harm: the scan begins
/// somewhere else. A scan begins at [`Cursor::START`]; behind the last entry there is no cursor, so that a step returns
/// `None` there.
///
/// With the feature `serde` it serializes as its number. Readers that keep 53 bits of a number, as many of JSON do, get
/// the text instead.
///
/// A larger cursor lies nearer to the end. Threads can therefore share a scan: each takes a range of cursors and ends
/// where its step returns one beyond the range.
///
/// ```
/// use tophash::Cursor;
/// let cursor = Cursor::from(5_764_607_523_034_234_880);
/// assert_eq!("5764607523034234880".parse(), Ok(cursor));
/// assert_eq!(Cursor::from_bytes(cursor.to_bytes()), cursor);
/// assert!(Cursor::START < cursor && cursor < Cursor::from(u64::MAX));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Cursor(u64);

impl Cursor {
    /// Before the first entry.
    pub const START: Cursor = Cursor(0);

    /// Eight bytes, the most significant one first, so that they sort as the cursors do.
    ///
    /// ```
    /// use tophash::Cursor;
    /// assert_eq!(Cursor::from(258).to_bytes(), [0, 0, 0, 0, 0, 0, 1, 2]);
    /// ```
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The cursor of [`to_bytes`](Cursor::to_bytes).
    ///
    /// ```
    /// use tophash::Cursor;
    /// assert_eq!(Cursor::from_bytes([0, 0, 0, 0, 0, 0, 1, 2]), Cursor::from(258));
    /// ```
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Cursor(u64::from_be_bytes(bytes))
    }

    /// The cursor as a number.
    ///
    /// ```
    /// use tophash::Cursor;
    /// assert_eq!(Cursor::from(258).get(), 258);
    /// ```
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Cursor {
    fn from(number: u64) -> Self {
        Cursor(number)
    }
}

impl From<Cursor> for u64 {
    fn from(cursor: Cursor) -> Self {
        cursor.0
    }
}

impl fmt::Display for Cursor {
    /// The number, in decimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = ParseIntError;

    /// Reads decimal digits.
    fn from_str(digits: &str) -> Result<Self, ParseIntError> {
        digits.parse().map(Cursor)
    }
}
