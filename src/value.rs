//! What reads return: bytes in the log, without a copy.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::log::blob::BlobMap;
use crate::sys::pins::PinnedBytes;
use crate::words::some;

/// Bytes of a key or a value that `Debug` prints.
const SHOWN_BYTES: usize = 64;

/// The bytes of a value (or of a key, from [`Store::keys`](crate::Store::keys)), in place in the log.
///
/// Dereferences to `[u8]`. Costs no copy, never changes, and may be kept for long, sent to other threads or
/// held across an `await`: it pins only the log segment that it lies in, which cannot be freed meanwhile. A value in a
/// file of its own keeps that file and the segment of the record that links it. Nobody ever waits for a `Value` to be
/// dropped; what held ones cost is in [`LogStats`](crate::stats::LogStats) and in
/// [`Store::disk_bytes`](crate::Store::disk_bytes).
///
/// Compares, sorts and hashes as its bytes do; `==` takes byte slices, arrays, vectors and strings on either side.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = tophash::Store::open(dir.path().join("s")).unwrap();
/// store.insert("greeting", "hello")?;
/// let value = store.get("greeting")?.expect("just inserted");
/// store.remove("greeting")?;
/// assert_eq!(value, "hello");
/// assert_eq!(value.len(), 5);
/// // A copy, which keeps nothing in the store.
/// let owned: Vec<u8> = value.to_vec();
/// # assert_eq!(owned, value);
/// # Ok::<(), tophash::Error>(())
/// ```
#[derive(Clone)]
pub struct Value<'s>(pub(crate) Bytes<'s>);

/// Where the bytes of a value are.
#[derive(Clone)]
pub(crate) enum Bytes<'s> {
    /// In a segment.
    Log(PinnedBytes<'s>),
    /// In a blob file of its own.
    Blob {
        /// Keeps the record that links the blob, so that its place is not given to another one while somebody compares
        /// by it. `None` if a test breaks this rule.
        _link: Option<PinnedBytes<'s>>,
        map: Arc<BlobMap>,
    },
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Log(bytes) => bytes,
            Bytes::Blob { map, .. } => map.value(),
        }
    }
}

impl Deref for Value<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

// Equality, order and hash are those of the bytes, as `Borrow` demands.

impl Borrow<[u8]> for Value<'_> {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value<'_> {}

impl PartialOrd for Value<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Value<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Compares a value with what a caller has, in both directions.
macro_rules! compares_with {
    ($([$($generics:tt)*] $other:ty;)*) => {$(
        impl<$($generics)*> PartialEq<$other> for Value<'_> {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                **self == *other
            }
        }

        impl<$($generics)*> PartialEq<Value<'_>> for $other {
            fn eq(&self, other: &Value<'_>) -> bool {
                other == self
            }
        }
    )*};
}

compares_with! {
    [] [u8];
    [] &[u8];
    [const N: usize] [u8; N];
    [const N: usize] &[u8; N];
    [] Vec<u8>;
    [] str;
    [] &str;
    [] String;
}

/// The first bytes, as a string with escapes, in quotes: a value can have 4 GiB.
struct Shown<'b>(&'b [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(bytes) = self;
        match bytes.split_at_checked(SHOWN_BYTES) {
            Some((shown, rest)) if !rest.is_empty() => write!(f, "\"{}…\"", shown.escape_ascii()),
            _ => write!(f, "\"{}\"", bytes.escape_ascii()),
        }
    }
}

impl fmt::Debug for Value<'_> {
    /// Prints the length and the bytes as a string with escapes, the first 64 of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({}, {})", some(self.len() as u64, "byte"), Shown(self))
    }
}

/// A key and its value, from [`Store::iter`](crate::Store::iter) or [`Store::scan`](crate::Store::scan).
/// Pins its log segment, as a [`Value`] does.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = tophash::Store::open(dir.path().join("s"))?;
/// store.insert("a", "1")?;
/// for entry in &store {
///     let entry = entry?;
///     assert_eq!((entry.key(), entry.value()), (&b"a"[..], &b"1"[..]));
/// }
/// # Ok::<(), tophash::Error>(())
/// ```
#[derive(Clone)]
pub struct Entry<'s> {
    pub(crate) key: PinnedBytes<'s>,
    pub(crate) value: Bytes<'s>,
}

impl<'s> Entry<'s> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The value alone.
    #[must_use]
    pub fn into_value(self) -> Value<'s> {
        Value(self.value)
    }
}

impl fmt::Debug for Entry<'_> {
    /// Prints the key as a string with escapes, the first 64 bytes of it, and the length of the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}, {})", Shown(self.key()), some(self.value().len() as u64, "byte"))
    }
}
