//! What the catalog says of a table. The catalog is a table of its own ([`TableId::CATALOG`]): the keys of its records are the
//! names of the tables, and the values are these entries.
//!
//! ```text
//!  0  id 32
//!  4  zero 32
//!  8  cleared 64: an LSN. Records of the table below it were removed when the table was cleared
//! 16  options: tag 16, length 16, bytes. A reader passes over tags that it does not know
//!      1  the codec of the keys: version 16, name
//!      2  the codec of the values: version 16, name
//!      3  new records have aligned values. No bytes
//! ```
//!
//! So a table is created, cleared and dropped by a change of one key of the catalog. Each of them is durable when that record is,
//! and recovery, compaction and repair treat the record like any other.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fmt;

use crate::address::Lsn;
use crate::error::{Error, Result};
use crate::log::record::{Kind, Record};
use crate::table_id::TableId;

/// The longest name of a table in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of an entry without options.
const ENTRY_BYTES: usize = 16;

/// The longest name of a codec in bytes.
pub(crate) const CODEC_BYTES_MAX: usize = 128;
/// Tags of the options.
const KEY_CODEC: u16 = 1;
const VALUE_CODEC: u16 = 2;
const ALIGNED: u16 = 3;

/// By which codec a table's keys or values are written. Shown as `"str" version 1`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CodecId {
    /// The codec's name, 1 to 128 bytes.
    pub name: String,
    /// The version of its bytes.
    pub version: u16,
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} version {}", self.name, self.version)
    }
}

/// The codecs of a typed table. Returned by [`Table::codecs`](crate::Table::codecs).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Codecs {
    /// That of its keys.
    pub keys: CodecId,
    /// That of its values.
    pub values: CodecId,
    /// The values begin at multiples of 16 bytes of a file.
    pub aligned: bool,
}

/// What the catalog says of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CatalogEntry {
    pub(crate) id: TableId,
    /// Records of the table below it do not count. Zero if the table was never cleared.
    pub(crate) cleared: Lsn,
    /// `None`: the table is one of bytes.
    pub(crate) codecs: Option<Codecs>,
    /// Options of tags that are not known. Kept as they are.
    others: Vec<u8>,
}

impl CatalogEntry {
    /// That of a new table.
    pub(crate) fn new(id: TableId, codecs: Option<Codecs>) -> Self {
        CatalogEntry { id, cleared: Lsn::default(), codecs, others: Vec::new() }
    }

    /// That of a new table with the options of this one.
    pub(crate) fn copied_to(&self, id: TableId) -> Self {
        CatalogEntry { id, cleared: Lsn::default(), ..self.clone() }
    }

    /// The same when the table has been cleared: what lies below does not count.
    pub(crate) fn cleared_at(&self, cleared: Lsn) -> Self {
        CatalogEntry { cleared, ..self.clone() }
    }

    /// True if the values of new records begin at multiples of 16 bytes.
    pub(crate) fn is_aligned(&self) -> bool {
        self.codecs.as_ref().is_some_and(|codecs| codecs.aligned)
    }

    /// The same for a table that holds other types from now on.
    pub(crate) fn with_codecs(&self, codecs: Codecs) -> Self {
        CatalogEntry { codecs: Some(codecs), ..self.clone() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY_BYTES);
        bytes.extend_from_slice(&self.id.raw().to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.cleared.raw().to_le_bytes());
        if let Some(codecs) = &self.codecs {
            for (tag, codec) in [(KEY_CODEC, &codecs.keys), (VALUE_CODEC, &codecs.values)] {
                push_option(&mut bytes, tag, &[&codec.version.to_le_bytes(), codec.name.as_bytes()]);
            }
            if codecs.aligned {
                push_option(&mut bytes, ALIGNED, &[]);
            }
        }
        bytes.extend_from_slice(&self.others);
        bytes
    }

    /// The name and the entry that a record of the catalog holds. `None` if the key is no name, or the value no entry.
    pub(crate) fn read<'k>(key: &'k [u8], value: &[u8]) -> Option<(&'k str, Self)> {
        Some((name_in(key)?, CatalogEntry::decode(value)?))
    }

    /// `None` if the bytes are no entry, or one of a table that no catalog names.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, options) = bytes.split_first_chunk::<ENTRY_BYTES>()?;
        let &[front, cleared] = head.as_chunks::<8>().0 else { return None };
        let front = u64::from_le_bytes(front);
        let id = TableId::from_raw(front as u32);
        let cleared = Lsn::from_raw(u64::from_le_bytes(cleared));
        if front >> 32 != 0 || id < TableId::FIRST {
            return None;
        }
        let (mut keys, mut values, mut aligned, mut others) = (None, None, false, Vec::new());
        let mut rest = options;
        while !rest.is_empty() {
            let (tag, option, behind) = split_option(rest)?;
            rest = behind;
            let is_wrong = match tag {
                KEY_CODEC => keys.replace(decode_codec(option)?).is_some(),
                VALUE_CODEC => values.replace(decode_codec(option)?).is_some(),
                ALIGNED => std::mem::replace(&mut aligned, true) || !option.is_empty(),
                _ => {
                    push_option(&mut others, tag, &[option]);
                    false
                }
            };
            if is_wrong {
                return None;
            }
        }
        let codecs = match (keys, values) {
            (Some(keys), Some(values)) => Some(Codecs { keys, values, aligned }),
            (None, None) if !aligned => None,
            _ => return None,
        };
        Some(CatalogEntry { id, cleared, codecs, others })
    }
}

fn push_option(bytes: &mut Vec<u8>, tag: u16, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    bytes.extend_from_slice(&tag.to_le_bytes());
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
}

/// The tag and the bytes of the first option, and what follows it.
fn split_option(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (option, behind) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((u16::from_le_bytes(*tag), option, behind))
}

fn decode_codec(option: &[u8]) -> Option<CodecId> {
    let (version, name) = option.split_first_chunk()?;
    let name = std::str::from_utf8(name).ok().filter(|name| is_codec_name(name))?;
    Some(CodecId { name: name.to_string(), version: u16::from_le_bytes(*version) })
}

/// True if a codec can have that name.
pub(crate) fn is_codec_name(name: &str) -> bool {
    (1..=CODEC_BYTES_MAX).contains(&name.len())
}

/// A record of the catalog. An open follows these through the log's tail, and so does a check.
pub(crate) struct CatalogRecord<'r> {
    pub(crate) name: &'r str,
    /// What is said of the name. `None`: its table was dropped.
    pub(crate) entry: Option<CatalogEntry>,
}

impl<'r> CatalogRecord<'r> {
    /// `None` if the record can be none of the catalog: its key is no name or its value no entry, or it can expire.
    pub(crate) fn read(record: &Record<'r>) -> Option<Self> {
        let name = name_in(record.key())?;
        let entry = match record.header.kind {
            Kind::Remove => None,
            Kind::Put if !record.header.expires() => Some(CatalogEntry::decode(record.value())?),
            Kind::Put | Kind::PutBlob | Kind::Clear | Kind::Frame | Kind::Mark => return None,
        };
        Some(CatalogRecord { name, entry })
    }

    /// The table that is gone by this record. `before` had the name.
    pub(crate) fn drops(&self, before: Option<TableId>) -> Option<TableId> {
        before.filter(|&before| self.entry.as_ref().is_none_or(|entry| entry.id != before))
    }
}

/// The name that a key of the catalog is, if it is one.
fn name_in(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok().filter(|name| check_name(name).is_ok())
}

/// Checks the name of a table that is to be made.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let invalid = |reason| Error::InvalidTableName { name: name.chars().take(80).collect(), reason };
    match name.len() {
        0 => Err(invalid("it is empty")),
        1..=NAME_BYTES_MAX => Ok(()),
        _ => Err(invalid("it is longer than 255 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive() {
        let mut entry = CatalogEntry::new(TableId::from_raw(7), None);
        assert_eq!(CatalogEntry::decode(&entry.encode()), Some(entry.clone()));
        (entry.cleared, entry.others) = (Lsn::new(3, 4096), vec![99, 0, 2, 0, 8, 9, 98, 0, 0, 0]);
        assert_eq!(CatalogEntry::decode(&entry.encode()), Some(entry.clone()));
        let entry = entry.with_codecs(codecs());
        assert_eq!(CatalogEntry::decode(&entry.encode()), Some(entry.clone()));
        let copy = entry.copied_to(TableId::FIRST);
        assert_eq!((copy.id, copy.cleared), (TableId::FIRST, Lsn::default()));
        assert_eq!((copy.codecs, copy.others), (entry.codecs, entry.others));
    }

    fn codecs() -> Codecs {
        let codec = |name: &str, version| CodecId { name: name.to_string(), version };
        Codecs { keys: codec("str", 1), values: codec("postcard session", 0x203), aligned: true }
    }

    #[test]
    fn a_record_has_a_name_of_1_to_255_bytes_of_utf_8() {
        let entry = CatalogEntry::new(TableId::FIRST, None);
        let read = |key: &[u8]| CatalogEntry::read(key, &entry.encode()).map(|(name, entry)| (name.len(), entry));
        assert_eq!(read(&[b'n'; 1]), Some((1, entry.clone())));
        assert_eq!(read(&[b'n'; NAME_BYTES_MAX]), Some((NAME_BYTES_MAX, entry.clone())));
        assert_eq!((read(b""), read(&[b'n'; NAME_BYTES_MAX + 1]), read(&[0xff])), (None, None, None));
        assert_eq!(CatalogEntry::read(b"n", b"other bytes"), None);
    }

    #[test]
    fn other_bytes_are_no_entry() {
        let bytes = CatalogEntry::new(TableId::FIRST, None).encode();
        assert!((0..bytes.len()).all(|len| CatalogEntry::decode(&bytes[..len]).is_none()));
        for id in [TableId::MAIN, TableId::CATALOG] {
            assert_eq!(CatalogEntry::decode(&CatalogEntry::new(id, None).encode()), None);
        }
        // Options that end in their middle, one codec of two, one codec twice, a name that none has.
        let typed = CatalogEntry::new(TableId::FIRST, Some(codecs())).encode();
        let not_aligned = typed.len() - 4;
        assert!(
            CatalogEntry::decode(&typed[..not_aligned])
                .is_some_and(|entry| entry.codecs.is_some_and(|codecs| !codecs.aligned))
        );
        let ends = (bytes.len() + 1..typed.len()).filter(|&len| len != not_aligned);
        assert!({ ends }.all(|len| CatalogEntry::decode(&typed[..len]).is_none()));
        assert_eq!(CatalogEntry::decode(&[&bytes[..], &typed[not_aligned..]].concat()), None);
        assert_eq!(CatalogEntry::decode(&[&typed[..], &typed[bytes.len()..]].concat()), None);
        for name in [&b""[..], &[0xff], &[b'n'; CODEC_BYTES_MAX + 1]] {
            let mut bytes = bytes.clone();
            push_option(&mut bytes, KEY_CODEC, &[&[1, 0], name]);
            push_option(&mut bytes, VALUE_CODEC, &[&[1, 0], b"str"]);
            assert_eq!(CatalogEntry::decode(&bytes), None);
        }
        let mut reserved = bytes;
        reserved[5] = 1;
        assert_eq!(CatalogEntry::decode(&reserved), None);
    }
}
