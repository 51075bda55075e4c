//! Keys and values, computed from a counter instead of remembered; the same for every engine.

use serde::{Deserialize, Serialize};
pub use tophash_bench_support::words::mix;
use tophash_bench_support::words::{GOLDEN, NEVER, VERSIONED_BYTES_MIN, Words, split_version};

/// What the records look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Population {
    key_bytes: usize,
    value_bytes: usize,
    seed: u64,
}

impl Population {
    /// Keys have at least 8 bytes, so that the counter decides about all of them.
    pub fn new(key_bytes: usize, value_bytes: usize, seed: u64) -> Self {
        Population { key_bytes: key_bytes.max(8), value_bytes, seed: mix(seed ^ GOLDEN) }
    }

    /// Bytes of a key and a value.
    pub fn record_bytes(&self) -> u64 {
        (self.key_bytes + self.value_bytes) as u64
    }

    /// The counter of a record that is never there.
    pub fn absent(random: u64) -> u64 {
        random | NEVER
    }

    /// A buffer that [`Population::key`] can write into.
    pub fn key_buffer(&self) -> Vec<u8> {
        vec![0; self.key_bytes]
    }

    /// A buffer that [`Population::value`] can write into.
    pub fn value_buffer(&self) -> Vec<u8> {
        vec![0; self.value_bytes]
    }

    /// Writes the key of a counter.
    pub fn key(&self, counter: u64, key: &mut [u8]) {
        let mixed = mix(counter ^ self.seed);
        let (head, tail) = key.split_at_mut(8);
        head.copy_from_slice(&mixed.to_le_bytes());
        Words(mixed).fill(tail);
    }

    /// Writes a value of a counter: the version, as far as there is room for it, and words that both determine.
    pub fn value(&self, counter: u64, version: u64, value: &mut [u8]) {
        if self.value_bytes < VERSIONED_BYTES_MIN {
            self.words(counter, 0).fill(value);
            return;
        }
        let (head, tail) = value.split_at_mut(8);
        head.copy_from_slice(&version.to_le_bytes());
        self.words(counter, version).fill(tail);
    }

    /// True if these bytes are a value of the counter, all of them.
    pub fn is_value(&self, counter: u64, value: &[u8]) -> bool {
        if value.len() != self.value_bytes {
            return false;
        }
        let (version, rest) = split_version(value);
        let mut words = self.words(counter, version);
        let (chunks, rest) = rest.as_chunks::<8>();
        // No way out before the end: a value is hardly ever wrong, and this way the words do not wait for each other.
        let difference = chunks
            .iter()
            .fold(0, |difference, chunk| difference | (u64::from_le_bytes(*chunk) ^ u64::from_le_bytes(words.draw())));
        difference == 0 && *rest == words.draw()[..rest.len()]
    }

    fn words(&self, counter: u64, version: u64) -> Words {
        Words(!mix(counter ^ self.seed) ^ version.wrapping_mul(GOLDEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_differ_and_are_the_same_every_time() {
        let population = Population::new(16, 100, 1);
        let mut key = population.key_buffer();
        let mut keys = HashSet::new();
        for counter in (0..1_000).flat_map(|i| [i, Population::absent(i)]) {
            population.key(counter, &mut key);
            assert_eq!(key.len(), 16);
            assert!(keys.insert(key.clone()));
        }
        assert_eq!(keys.len(), 2_000);
        Population::new(16, 100, 2).key(0, &mut key);
        assert!(keys.insert(key));
    }

    #[test]
    fn every_byte_of_a_value_is_checked() {
        for bytes in [0, 1, 8, 15, 16, 100] {
            let population = Population::new(8, bytes, 1);
            let mut value = population.value_buffer();
            population.value(7, 3, &mut value);
            assert!(population.is_value(7, &value));
            assert!(bytes == 0 || !population.is_value(8, &value));
            for at in 0..value.len() {
                value[at] ^= 1;
                assert!(!population.is_value(7, &value), "{bytes}: byte {at}");
                value[at] ^= 1;
            }
            value.push(0);
            assert!(!population.is_value(7, &value));
        }
    }
}
