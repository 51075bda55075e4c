//! Values that serde can write and read, as postcard.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, Schema};

/// The codec of a type that [`serde`](https://docs.rs/serde) can write and read, in the compact form of
/// [`postcard`](https://docs.rs/postcard). Postcard keeps no names of fields: a field more or less is another
/// [version](Schema::VERSION).
///
/// A key must be written in one way only. A `HashMap` in it is not, because its order is another one each time.
///
/// ```
/// use std::borrow::Cow;
/// use serde::{Deserialize, Serialize};
/// use tophash::codec::{Postcard, Schema};
///
/// #[derive(Serialize, Deserialize)]
/// struct Session {
///     user: u64,
///     roles: Vec<String>,
/// }
///
/// impl Schema for Session {
///     const VERSION: u16 = 1;
///
///     fn name() -> Cow<'static, str> {
///         "session".into()
///     }
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// let store = tophash::Store::open(dir.path().join("s"))?;
/// let sessions = store.table_of::<str, Postcard<Session>>("sessions")?;
/// sessions.set("token", &Session { user: 7, roles: vec!["admin".into()] })?;
/// assert_eq!(sessions.get("token")?.unwrap().roles, ["admin"]);
/// # Ok::<(), tophash::Error>(())
/// ```
pub struct Postcard<T>(PhantomData<fn() -> T>);

impl<T> fmt::Debug for Postcard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postcard")
    }
}

impl<T: Serialize + DeserializeOwned + Schema> Codec for Postcard<T> {
    type Item = T;
    type Read<'a> = T;
    type Owned = T;
    const VERSION: u16 = T::VERSION;

    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("postcard {}", T::name()))
    }

    fn encode(item: &T) -> Result<impl AsRef<[u8]>, CodecError> {
        Ok(postcard::to_stdvec(item)?)
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        match rest.len() {
            0 => Ok(value),
            more => Err(format!("{more} bytes follow the value").into()),
        }
    }

    fn into_owned(read: T) -> T {
        read
    }
}
