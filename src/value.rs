//! What reads return: bytes in the log, without a copy.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use crate::expiry::Deadline;
use crate::log::blob::BlobMap;
use crate::sys::pins::{OwnedBytes, PinnedBytes};
use crate::words::some;

/// Bytes of a key or a value that `Debug` prints.
const SHOWN_BYTES: usize = 64;

/// The bytes of a value (or of a key, from [`Store::keys`](crate::Table::keys)), in place in the log.
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
/// let copy: Vec<u8> = value.into();
/// # assert_eq!(copy, b"hello");
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// A `Value` borrows the handle that it was read through. [`into_owned`](Value::into_owned) cuts that tie.
#[derive(Clone)]
pub struct Value<'s>(pub(crate) Bytes<'s>);

impl Value<'_> {
    /// The same bytes without a lifetime, still in place: see [`OwnedValue`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("page", "<html>...</html>")?;
    /// let page = store.get("page")?.expect("it was just inserted").into_owned();
    /// let length = std::thread::spawn(move || page.len()).join().unwrap();
    /// assert_eq!(length, 16);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn into_owned(self) -> OwnedValue {
        OwnedValue(self.0.to_owned())
    }
}

/// The bytes of a value, in place in the log, without a lifetime: for structs, tasks, response bodies.
///
/// Made from a [`Value`], without a copy. Keeps the mapping of the segment or of the file that the value lies in, and nothing
/// else of the store: it can be read after the store was closed, opened again, compacted or removed, and never keeps its lock.
/// The disk's space of a segment that was freed comes back when the last value into it is dropped, as for a [`Value`];
/// [`LogStats`](crate::stats::LogStats) and [`Store::disk_bytes`](crate::Store::disk_bytes) count it until then.
///
/// Copy what you keep for long if it is small beside its segment: a value of 10 bytes can keep a segment of many megabytes. Copy
/// what you keep of a store that an I/O error has poisoned before you open that store again, because the disk may never have
/// had those bytes.
///
/// Compares, sorts and hashes as its bytes do, and so is a key of a map that is looked up by `&[u8]`.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("s");
/// struct Session {
///     user: tophash::OwnedValue,
/// }
///
/// let store = tophash::Store::open(&path)?;
/// store.insert("session:1", "ada")?;
/// let session = Session { user: store.get("session:1")?.unwrap().into_owned() };
/// store.clear()?;
/// store.close()?;
/// std::fs::remove_dir_all(&path).unwrap();
/// assert_eq!(session.user, "ada");
/// # Ok::<(), tophash::Error>(())
/// ```
#[derive(Clone)]
pub struct OwnedValue(OwnedBytesOf);

// The bytes never change, whoever panics.
impl UnwindSafe for OwnedValue {}
impl RefUnwindSafe for OwnedValue {}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        value.into_owned()
    }
}

/// Without a copy: the [`Bytes`](bytes::Bytes) keep what the value keeps.
#[cfg(feature = "bytes")]
#[cfg_attr(docsrs, doc(cfg(feature = "bytes")))]
impl From<OwnedValue> for bytes::Bytes {
    fn from(value: OwnedValue) -> Self {
        bytes::Bytes::from_owner(value)
    }
}

/// Where the bytes of an owned value are.
#[derive(Clone)]
enum OwnedBytesOf {
    /// In a segment.
    Log(OwnedBytes),
    /// In a blob file of its own.
    Blob(Arc<dyn Whole>),
}

/// A mapping whose bytes are a value. Without a name, as a part of the log is in [`OwnedBytes`].
trait Whole: Send + Sync {
    fn value(&self) -> &[u8];
}

impl Whole for BlobMap {
    fn value(&self) -> &[u8] {
        BlobMap::value(self)
    }
}

impl Deref for OwnedBytesOf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            OwnedBytesOf::Log(bytes) => bytes,
            OwnedBytesOf::Blob(map) => map.value(),
        }
    }
}

/// Where the bytes of a value are.
#[derive(Clone)]
pub(crate) enum Bytes<'s> {
    /// In a segment.
    Log(PinnedBytes<'s>),
    /// In a blob file of its own.
    Blob {
        /// Keeps the record that links the blob, so that its address is not given to another one while somebody compares
        /// by it. `None` if a test breaks this rule.
        _link: Option<PinnedBytes<'s>>,
        map: Arc<BlobMap>,
    },
}

impl Bytes<'_> {
    fn to_owned(&self) -> OwnedBytesOf {
        match self {
            Bytes::Log(bytes) => OwnedBytesOf::Log(bytes.to_owned()),
            Bytes::Blob { map, .. } => OwnedBytesOf::Blob(Arc::<BlobMap>::clone(map)),
        }
    }
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

/// What all values have in common: they dereference to their bytes, are compared, sorted and hashed as those, and become
/// vectors and boxes.
macro_rules! bytes_like {
    ($value:ty) => {
        impl Deref for $value {
            type Target = [u8];

            #[inline]
            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $value {
            fn as_ref(&self) -> &[u8] {
                self
            }
        }

        // Equality, order and hash are those of the bytes, as `Borrow` demands.

        impl Borrow<[u8]> for $value {
            fn borrow(&self) -> &[u8] {
                self
            }
        }

        impl PartialEq for $value {
            fn eq(&self, other: &Self) -> bool {
                **self == **other
            }
        }

        impl Eq for $value {}

        impl PartialOrd for $value {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $value {
            fn cmp(&self, other: &Self) -> Ordering {
                (**self).cmp(&**other)
            }
        }

        impl Hash for $value {
            fn hash<H: Hasher>(&self, state: &mut H) {
                (**self).hash(state);
            }
        }

        /// Copies the bytes. The copy keeps nothing in the store.
        impl From<$value> for Vec<u8> {
            fn from(value: $value) -> Self {
                value.to_vec()
            }
        }

        /// Copies the bytes. The copy keeps nothing in the store.
        impl From<$value> for Box<[u8]> {
            fn from(value: $value) -> Self {
                Box::from(&*value)
            }
        }

        compares_with! {
            $value:
            [] [u8];
            [] &[u8];
            [const N: usize] [u8; N];
            [const N: usize] &[u8; N];
            [] Vec<u8>;
            [] Box<[u8]>;
            [] str;
            [] &str;
            [] String;
        }
    };
}

/// Compares a value with what a caller has, in both directions.
macro_rules! compares_with {
    ($value:ty: $([$($generics:tt)*] $other:ty;)*) => {$(
        impl<$($generics)*> PartialEq<$other> for $value {
            fn eq(&self, other: &$other) -> bool {
                let other: &[u8] = other.as_ref();
                **self == *other
            }
        }

        impl<$($generics)*> PartialEq<$value> for $other {
            fn eq(&self, other: &$value) -> bool {
                other == self
            }
        }
    )*};
}

bytes_like!(Value<'_>);
bytes_like!(OwnedValue);
compares_with!(Value<'_>: [] OwnedValue;);

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

impl fmt::Debug for OwnedValue {
    /// Prints the length and the bytes as a string with escapes, the first 64 of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedValue({}, {})", some(self.len() as u64, "byte"), Shown(self))
    }
}

/// A key and its value, from [`Store::iter`](crate::Table::iter) or [`Store::scan`](crate::Table::scan).
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
    pub(crate) deadline: Deadline,
}

impl<'s> Entry<'s> {
    /// The key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("user:1", "Ada")?;
    /// let entry = store.iter().next().unwrap()?;
    /// assert!(entry.key().starts_with(b"user:"));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("user:1", "Ada")?;
    /// let entry = store.iter().next().unwrap()?;
    /// assert_eq!(entry.value(), b"Ada");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// When the entry expires, if it does ([`Store::expiring`](crate::Table::expiring)).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.expiring(std::time::Duration::from_secs(60)).insert("session:7", "Ada")?;
    /// let entry = store.iter().next().unwrap()?;
    /// assert!(entry.expires_at().unwrap() > std::time::SystemTime::now());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn expires_at(&self) -> Option<std::time::SystemTime> {
        self.deadline.time()
    }

    /// The value alone.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("user:1", "Ada")?;
    /// let value: tophash::Value<'_> = store.iter().next().unwrap()?.into_value();
    /// assert_eq!(value, "Ada");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn into_value(self) -> Value<'s> {
        Value(self.value)
    }

    /// Key and value without a lifetime, still in place: see [`OwnedValue`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// # use tophash::OwnedValue;
    /// store.insert("a", "1")?;
    /// let mut entries: Vec<(OwnedValue, OwnedValue)> = Vec::new();
    /// for entry in &store {
    ///     entries.push(entry?.into_owned());
    /// }
    /// store.close()?;
    /// assert_eq!(entries[0].0, "a");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn into_owned(self) -> (OwnedValue, OwnedValue) {
        (OwnedValue(OwnedBytesOf::Log(self.key.to_owned())), OwnedValue(self.value.to_owned()))
    }
}

impl fmt::Debug for Entry<'_> {
    /// Prints the key as a string with escapes, the first 64 bytes of it, and the length of the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}, {})", Shown(self.key()), some(self.value().len() as u64, "byte"))
    }
}
