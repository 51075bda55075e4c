//! Types whose bytes in memory are the bytes in the store.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Codec, CodecError, Schema, wrong_length};

/// The codec of a `Copy` type whose bytes in memory are the bytes in the store, by
/// [`zerocopy`](https://docs.rs/zerocopy). Values are read in place: see [`InPlace`].
///
/// Where the bytes are to mean the same on other machines, use zerocopy's `byteorder` types for the fields.
///
/// ```
/// use std::borrow::Cow;
/// use tophash::codec::{Fixed, Schema};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// struct Visits {
///     first: u64,
///     last: u64,
///     count: u64,
/// }
///
/// impl Schema for Visits {
///     const VERSION: u16 = 1;
///
///     fn name() -> Cow<'static, str> {
///         "visits".into()
///     }
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// let store = tophash::Store::open(dir.path().join("s"))?;
/// let visits = store.table_of::<str, Fixed<Visits>>("visits")?;
/// visits.set("ada", &Visits { first: 100, last: 300, count: 2 })?;
/// // No copy is made of the other fields.
/// assert_eq!(visits.read("ada", |visits| visits.count)?, Some(2));
/// # Ok::<(), tophash::Error>(())
/// ```
pub struct Fixed<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Fixed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixed")
    }
}

/// A value that is read in place. Dereferences to `T`.
///
/// Values of a table of [`Fixed`] begin at multiples of 16 bytes, so a type that asks for no more is never copied, unless the value is
/// older than the table's codec. Keys and types that ask for more may be.
#[derive(Debug)]
pub enum InPlace<'a, T> {
    /// The bytes of the store are the value.
    Borrowed(&'a T),
    /// The bytes did not lie at a multiple of the type's alignment.
    Copied(T),
}

impl<T> Deref for InPlace<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            InPlace::Borrowed(value) => value,
            InPlace::Copied(value) => value,
        }
    }
}

impl<T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout + Schema + 'static> Codec for Fixed<T> {
    type Item = T;
    type Read<'a> = InPlace<'a, T>;
    type Owned = T;
    const VERSION: u16 = T::VERSION;
    const ALIGNED: bool = true;

    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("fixed {}", T::name()))
    }

    fn encode(item: &T) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(item.as_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<InPlace<'_, T>, CodecError> {
        let wrong = || wrong_length(size_of::<T>(), bytes.len());
        match T::ref_from_bytes(bytes) {
            Ok(value) => Ok(InPlace::Borrowed(value)),
            Err(_) => Ok(InPlace::Copied(T::read_from_bytes(bytes).map_err(|_| wrong())?)),
        }
    }

    fn into_owned(read: InPlace<'_, T>) -> T {
        match read {
            InPlace::Borrowed(value) => *value,
            InPlace::Copied(value) => value,
        }
    }
}
