//! Checksums, hashes and the store's identity.

use siphasher::sip::SipHasher13;
use std::fmt;

use crate::mutant::{Mutant, broken};

/// CRC-32 (ISO-HDLC, as in zip and ethernet).
#[inline]
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// What ties a record's checksum to the one salt and offset where it is valid: XORed into the CRC. A stale record of an
/// earlier use of the file (another salt) or one that was moved (another offset) does not validate.
#[inline]
pub(crate) fn record_mask(salt: u64, offset: u64) -> u32 {
    let salt = if broken(Mutant::NoSalt) { 0 } else { salt };
    let mixed = (salt ^ offset.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 32) as u32
}

/// What SplitMix64 adds to its state for the next number.
pub(crate) const SPLIT_MIX_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number of a state of SplitMix64. For choices that nobody must be able to guess, it is no good.
pub(crate) fn split_mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The id of SipHash-1-3 in the index header.
pub(crate) const HASH_SIPHASH13: u32 = 1;

/// The keyed hash of a store: SipHash-1-3 with a key from the operating system, so that nobody who does not
/// know the key can make keys collide.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    hasher: SipHasher13,
}

impl KeyHasher {
    pub(crate) fn new(key: (u64, u64)) -> Self {
        KeyHasher { hasher: SipHasher13::new_with_keys(key.0, key.1) }
    }

    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash(bytes)
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher(SipHash-1-3)")
    }
}

/// A store's identity: every page and segment carries or covers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The checksum of a 4096-byte page or block whose first four bytes hold it. Covers the page's number and the
/// store's uuid, so that a misplaced page, one of another store, or a page of zeroes is never valid.
pub(crate) fn page_crc(uuid: Uuid, number: u64, page: &[u8; 4096]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&uuid.0);
    hasher.update(&number.to_le_bytes());
    hasher.update(&page[4..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_the_published_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn the_hash_is_siphash_1_3() {
        /// From a separate implementation, which gives the published vector for SipHash-2-4 of this message.
        const KNOWN: u64 = 0xd320_d86d_2a51_9956;
        // Key 00 01 .. 0f, message 00 01 .. 0e.
        let (k0, k1) = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let message: Vec<u8> = (0..15).collect();
        let hasher = KeyHasher::new((k0, k1));
        assert_eq!(hasher.hash(&message), KNOWN);
        assert_ne!(hasher.hash(&message[..14]), KNOWN);
    }

    #[test]
    fn a_zero_page_is_never_valid() {
        let page = [0u8; 4096];
        for number in 0..1000 {
            assert_ne!(page_crc(Uuid([7; 16]), number, &page), 0);
        }
    }

    #[test]
    fn masks_differ_between_offsets() {
        let mut seen: Vec<u32> = (0..4096u64).map(|i| record_mask(42, i * 8)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4096);
        assert_ne!(record_mask(1, 128), record_mask(2, 128));
    }
}
