//! From items to bytes and back.

use super::TypedTable;
use crate::codec::{Codec, CodecError, id_of};
use crate::error::{Error, Result};
use crate::words::quoted;

/// Bytes of a key that an error shows.
const SHOWN_BYTES: usize = 40;

impl<K: Codec + ?Sized, V: Codec + ?Sized> TypedTable<K, V> {
    pub(super) fn key<'k>(&self, key: &'k K::Item) -> Result<impl AsRef<[u8]> + use<'k, K, V>> {
        K::encode(key).map_err(|source| self.encode_error::<K>("key", source))
    }

    pub(super) fn value<'v>(&self, value: &'v V::Item) -> Result<impl AsRef<[u8]> + use<'v, K, V>> {
        V::encode(value).map_err(|source| self.encode_error::<V>("value", source))
    }

    pub(super) fn decode_key<'b>(&self, key: &'b [u8]) -> Result<K::Read<'b>> {
        K::decode(key).map_err(|source| self.decode_error::<K>("key", key, source))
    }

    pub(super) fn decode_value<'b>(&self, key: &[u8], value: &'b [u8]) -> Result<V::Read<'b>> {
        V::decode(value).map_err(|source| self.decode_error::<V>("value", key, source))
    }

    pub(super) fn owned_value(&self, key: &[u8], value: Option<&[u8]>) -> Result<Option<V::Owned>> {
        value.map(|value| self.decode_value(key, value).map(|value| V::into_owned(value))).transpose()
    }

    /// Reads each record.
    pub(super) fn check_all(&self) -> Result<()> {
        for entry in self.table.iter() {
            let entry = entry?;
            self.decode_key(entry.key())?;
            self.decode_value(entry.key(), entry.value())?;
        }
        Ok(())
    }

    #[cold]
    fn encode_error<C: Codec + ?Sized>(&self, part: &str, source: CodecError) -> Error {
        let what = format!("{part} of {}", self.shown());
        Error::Encode { path: self.table.path().to_path_buf(), what, codec: id_of::<C>().to_string(), source }
    }

    #[cold]
    fn decode_error<C: Codec + ?Sized>(&self, part: &str, key: &[u8], source: CodecError) -> Error {
        let what = format!("{part} of key {} of {}", quoted(key, SHOWN_BYTES), self.shown());
        Error::Decode { path: self.table.path().to_path_buf(), what, codec: id_of::<C>().to_string(), source }
    }

    /// What errors call the table.
    fn shown(&self) -> String {
        self.table.name().map_or("the main table".to_string(), |name| format!("table {name:?}"))
    }
}
