//! The header of a blob, which is the file of one large value.
//!
//! ```text
//!  0  magic "tophBLB1"
//!  8  format version 32 | crc32 of the header with this field zero
//! 16  store uuid
//! 32  blob id 64
//! 40  length 64
//! 48  crc32 of the value 32
//! 52  zero
//! 64  the value
//! ```

use super::record::BlobLink;
use crate::checksum::{Uuid, crc32};

/// Bytes before the value.
pub(crate) const BLOB_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"tophBLB1";
const VERSION: u32 = 1;

pub(super) fn encode_header(uuid: Uuid, link: BlobLink) -> [u8; BLOB_HEADER_BYTES] {
    let mut bytes = [0; BLOB_HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&uuid.0);
    bytes[32..40].copy_from_slice(&link.id.to_le_bytes());
    bytes[40..48].copy_from_slice(&link.len.to_le_bytes());
    bytes[48..52].copy_from_slice(&link.crc.to_le_bytes());
    let crc = crc32(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// True if `header` is the header of the blob that the link names.
pub(crate) fn header_matches(header: &[u8], uuid: Uuid, link: BlobLink) -> bool {
    header == encode_header(uuid, link)
}

fn is_valid(header: &[u8; BLOB_HEADER_BYTES]) -> bool {
    let mut without_crc = *header;
    without_crc[12..16].fill(0);
    header[..8] == MAGIC && header[12..16] == crc32(&without_crc).to_le_bytes()
}

/// True if `header` is the valid header of a blob of another store.
pub(crate) fn is_foreign(header: &[u8; BLOB_HEADER_BYTES], uuid: Uuid) -> bool {
    is_valid(header) && header[16..32] != uuid.0
}

/// True if `header` is the valid header of the blob of that id in that store.
pub(super) fn is_own(header: &[u8; BLOB_HEADER_BYTES], uuid: Uuid, id: u64) -> bool {
    is_valid(header) && header[16..32] == uuid.0 && header[32..40] == id.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_belongs_to_one_link() {
        let link = BlobLink { id: 3, len: 10, crc: 4 };
        let header = encode_header(Uuid([1; 16]), link);
        assert!(header_matches(&header, Uuid([1; 16]), link));
        assert!(!header_matches(&header, Uuid([2; 16]), link));
        assert!(!header_matches(&header, Uuid([1; 16]), BlobLink { id: 4, ..link }));
        assert!(is_own(&header, Uuid([1; 16]), 3) && !is_own(&header, Uuid([1; 16]), 4));
        assert!(!is_own(&header, Uuid([2; 16]), 3) && is_foreign(&header, Uuid([2; 16])));
        let mut torn = header;
        torn[60] = 1;
        assert!(!is_own(&torn, Uuid([1; 16]), 3));
    }
}
