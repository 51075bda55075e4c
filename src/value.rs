//! What reads return: bytes in the log, without a copy.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::log::blob::BlobMap;
use crate::sys::pins::PinnedBytes;
use crate::words::some;

/// The bytes of a value (or of a key, from [`Store::keys`](crate::Store::keys)), in place in the log.
///
/// Dereferences to `[u8]`. Costs no copy, never changes, and may be kept for long, sent to other threads or
/// held across an `await`: it pins only the log segment that it lies in, which cannot be freed meanwhile. A value in a
/// file of its own keeps that file and the segment of the record that links it. Nobody ever waits for a `Value` to be
/// dropped; what held ones cost is in [`LogStats`](crate::stats::LogStats) and in `Store::disk_bytes`.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = tophash::Store::open(dir.path().join("s")).unwrap();
/// store.insert("greeting", "hello")?;
/// let value = store.get("greeting")?.expect("just inserted");
/// store.remove("greeting")?;
/// assert_eq!(&*value, b"hello");
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

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value<'_> {}

impl PartialEq<[u8]> for Value<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Value<'_> {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Value<'_> {
    /// Prints the bytes as a string with escapes, the first 64 of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self[..self.len().min(64)];
        let (bytes, cut) = (some(self.len() as u64, "byte"), if self.len() > 64 { "…" } else { "" });
        write!(f, "Value({bytes}, \"{}{cut}\")", shown.escape_ascii())
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry(\"{}\", {})", self.key().escape_ascii(), some(self.value().len() as u64, "byte"))
    }
}
