//! How the keys and values of a [`TypedTable`](crate::TypedTable) are written as bytes.
//!
//! | a key or value of | is read as | bytes |
//! |---|---|---|
//! | `[u8]`, `Vec<u8>` | `&[u8]` | themselves |
//! | `str`, `String` | `&str` | UTF-8 |
//! | `u8` to `u128`, `i8` to `i128`, `f32`, `f64` | the number | little-endian |
//! | `bool` | `bool` | one byte, 0 or 1 |
//! | `[u8; N]` | `[u8; N]` | themselves |
//! | `()` | `()` | none: a table of `()` values is a set |
//! | `Fixed<T>`, feature `zerocopy` | `&T`, in place | those of `T` in memory |
//! | `Postcard<T>`, feature `postcard` | `T` | what serde and [postcard](https://docs.rs/postcard) make of it |
//!
//! A program adds its own by implementing [`Codec`], for a type of its own or for a marker.

mod builtin;
#[cfg(feature = "zerocopy")]
mod fixed;
#[cfg(feature = "postcard")]
mod postcard;
mod schema;

use std::borrow::{Borrow, Cow};

#[cfg(feature = "zerocopy")]
pub use self::fixed::{Fixed, InPlace};
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
pub use self::schema::Schema;
use crate::catalog::is_codec_name;
pub use crate::catalog::{CodecId, Codecs};
pub use crate::error::CodecError;
use crate::error::{Error, Result};

/// How keys or values of one kind are written as bytes, and read.
///
/// Name and version of a table's codecs are stored with the table, and [`Store::table_of`](crate::Store::table_of) refuses another
/// codec. So a change of the bytes goes with a change of [`VERSION`](Codec::VERSION).
///
/// For **keys**, equal items must have equal bytes, because the store compares bytes. Bytes need not be in any order.
///
/// ```
/// use std::borrow::Cow;
/// use tophash::codec::{Codec, CodecError};
///
/// /// Values of JSON.
/// struct Json;
///
/// impl Codec for Json {
///     type Item = serde_json::Value;
///     type Read<'a> = serde_json::Value;
///     type Owned = serde_json::Value;
///     const VERSION: u16 = 1;
///
///     fn name() -> Cow<'static, str> {
///         "json".into()
///     }
///
///     fn encode(item: &serde_json::Value) -> Result<impl AsRef<[u8]>, CodecError> {
///         Ok(serde_json::to_vec(item)?)
///     }
///
///     fn decode(bytes: &[u8]) -> Result<serde_json::Value, CodecError> {
///         Ok(serde_json::from_slice(bytes)?)
///     }
///
///     fn into_owned(read: serde_json::Value) -> serde_json::Value {
///         read
///     }
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// let store = tophash::Store::open(dir.path().join("s"))?;
/// let pages = store.table_of::<str, Json>("pages")?;
/// pages.set("/", &serde_json::json!({ "title": "Home" }))?;
/// assert_eq!(pages.get("/")?.unwrap()["title"], "Home");
/// # Ok::<(), tophash::Error>(())
/// ```
pub trait Codec {
    /// The items that are written.
    type Item: ?Sized;

    /// An item as it is read. It can borrow from the bytes of the store.
    type Read<'a>;

    /// An item that borrows nothing.
    type Owned: Borrow<Self::Item>;

    /// The version of the bytes. Another one says that older bytes are not read by this codec.
    const VERSION: u16;

    /// Values are read in place as a type that asks for more than bytes do: they are to begin at multiples of 16 bytes of memory. It
    /// costs 8 to 16 bytes a record. For keys it says nothing.
    ///
    /// A value that was written when the table had another codec can lie anywhere.
    const ALIGNED: bool = false;

    /// The name: 1 to 128 bytes.
    fn name() -> Cow<'static, str>;

    /// Writes an item as bytes.
    ///
    /// # Errors
    /// If the item cannot be written. The call that needs the bytes returns [`Error::Encode`] then, and changes nothing.
    fn encode(item: &Self::Item) -> std::result::Result<impl AsRef<[u8]>, CodecError>;

    /// Reads bytes that [`encode`](Codec::encode) has made. All of them belong to the item.
    ///
    /// # Errors
    /// If the bytes are no item. The call that reads them returns [`Error::Decode`] then. It must not panic, because a table can be
    /// written to by other means as well.
    fn decode(bytes: &[u8]) -> std::result::Result<Self::Read<'_>, CodecError>;

    /// Makes an item that was read independent of the store.
    fn into_owned(read: Self::Read<'_>) -> Self::Owned;
}

/// Name and version of a codec.
pub(crate) fn id_of<C: Codec + ?Sized>() -> CodecId {
    CodecId { name: C::name().into_owned(), version: C::VERSION }
}

/// The codecs of a table of these types.
///
/// # Errors
/// `InvalidOption` for a name that cannot be stored.
pub(crate) fn codecs_of<K: Codec + ?Sized, V: Codec + ?Sized>() -> Result<Codecs> {
    let codecs = Codecs { keys: id_of::<K>(), values: id_of::<V>(), aligned: V::ALIGNED };
    for codec in [&codecs.keys, &codecs.values] {
        if !is_codec_name(&codec.name) {
            return Err(Error::InvalidOption {
                option: "the name of a codec",
                value: codec.name.chars().take(80).collect(),
                reason: "it must have 1 to 128 bytes",
            });
        }
    }
    Ok(codecs)
}

/// The error for a number of bytes that an item cannot have.
fn wrong_length(expected: usize, found: usize) -> CodecError {
    format!("expected {expected} bytes, found {found}").into()
}
