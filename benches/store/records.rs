//! The records of the benchmarks here, computed from a number.

/// A number that looks random, once; twice for a choice among few.
pub fn mixed(n: u64) -> u64 {
    let mixed = n.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 29
}

/// The n-th key: 16 bytes.
pub fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mixed(n).to_le_bytes());
    key[8..].copy_from_slice(&n.to_le_bytes());
    key
}

/// The n-th value: 100 bytes.
pub fn value(n: u64) -> [u8; 100] {
    let mut value = [n as u8; 100];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value
}
