//! Bytes that a number determines: keys and values are computed instead of remembered.

/// A constant from splitmix64.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Counters with this bit are never stored: keys for misses.
pub const NEVER: u64 = 1 << 63;

/// Values from this length on begin with a version, so that an update writes something new. Shorter ones are all taken
/// up by words that tell whose value it is.
pub const VERSIONED_BYTES_MIN: usize = 16;

/// splitmix64's finalizer: a bijection, so different counters give different keys, in no useful order.
#[inline]
#[must_use]
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Endless words that a number determines. One multiplication each: bytes that do not compress, and cheap to check.
#[derive(Debug, Clone)]
pub struct Words(pub u64);

impl Words {
    /// The next eight bytes.
    #[inline]
    pub fn draw(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(GOLDEN);
        let x = self.0.wrapping_mul(0xd128_2a9e_3f5c_a6e5);
        (x ^ (x >> 32)).to_le_bytes()
    }

    /// Overwrites all bytes.
    #[inline]
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw()[..chunk.len()]);
        }
    }
}

/// The version at the front of a value of that length, if it has one, and the rest.
#[inline]
#[must_use]
pub fn split_version(value: &[u8]) -> (u64, &[u8]) {
    match value.split_first_chunk::<8>() {
        Some((version, rest)) if value.len() >= VERSIONED_BYTES_MIN => (u64::from_le_bytes(*version), rest),
        _ => (0, value),
    }
}
