//! Which keys are in the store, and what their keys and values are, computed instead of remembered.
//!
//! A record is a **slot** (0..n) and a **generation**: churn replaces slot s of generation g by slot s of generation
//! g + 1. Slots are visited in a pseudo-random order, round by round, so that what is removed next is neither the
//! oldest nor the newest record. Where the order stands is one number, so every thread can name a live record at
//! random without any table of keys.

use tophash_bench_support::order::Order;
use tophash_bench_support::words::{GOLDEN, NEVER, VERSIONED_BYTES_MIN, Words, mix, split_version};

/// The records of a benchmark.
#[derive(Debug, Clone)]
pub struct Population {
    records: u64,
    seed: u64,
    key_bytes: usize,
    value_bytes: usize,
    /// Rounds of replacements that are complete.
    round: u64,
    /// Slots visited in the round under way.
    visited: u64,
    order: Order,
}

impl Population {
    /// `records` of generation 0. Keys have at least 8 bytes, so that the counter decides about all of them.
    pub fn new(records: u64, key_bytes: usize, value_bytes: usize, seed: u64) -> Self {
        let (records, seed) = (records.max(1), mix(seed ^ GOLDEN));
        let order = Order::new(records, seed, 0);
        Population { records, seed, key_bytes: key_bytes.max(8), value_bytes, round: 0, visited: 0, order }
    }

    /// Live records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Counter of the i-th record of the first filling.
    pub fn initial(&self, i: u64) -> u64 {
        i
    }

    /// Counter of a live record, any one for a random number.
    pub fn live(&self, random: u64) -> u64 {
        let visit = random % self.records;
        let generation = if visit < self.visited { self.round + 1 } else { self.round };
        generation * self.records + self.order.slot(visit)
    }

    /// Counter of a record that is never there.
    pub fn absent(&self, random: u64) -> u64 {
        random | NEVER
    }

    /// How many replacements are left of this round. Within a round no slot is visited twice, so the replacements may
    /// be carried out by several threads in any order.
    pub fn left_in_round(&self) -> u64 {
        self.records - self.visited
    }

    /// Counters of the record that goes and the one that comes with the i-th replacement from now on; i is below
    /// [`Self::left_in_round`].
    pub fn replacement(&self, i: u64) -> (u64, u64) {
        let slot = self.order.slot(self.visited + i);
        (self.round * self.records + slot, (self.round + 1) * self.records + slot)
    }

    /// Notes that so many replacements were carried out, at most those that were left in the round.
    pub fn replace(&mut self, count: u64) {
        self.visited += count.min(self.left_in_round());
        if self.visited == self.records {
            self.visited = 0;
            self.round += 1;
            self.order = Order::new(self.records, self.seed, self.round);
        }
    }

    /// Writes the key of a counter into `key`.
    pub fn key(&self, counter: u64, key: &mut Vec<u8>) {
        key.clear();
        let mixed = mix(counter ^ self.seed);
        key.extend_from_slice(&mixed.to_le_bytes());
        fill(&mut Words(mixed), self.key_bytes, key);
    }

    /// Writes a value for a counter into `value`: the version, as far as there is room for it, and words that
    /// counter and version determine.
    pub fn value(&self, counter: u64, version: u64, value: &mut Vec<u8>) {
        value.clear();
        let is_versioned = self.value_bytes >= VERSIONED_BYTES_MIN;
        let version = if is_versioned { version } else { 0 };
        if is_versioned {
            value.extend_from_slice(&version.to_le_bytes());
        }
        fill(&mut self.words(counter, version), self.value_bytes, value);
    }

    /// True if these bytes are a value of this counter. Reads every byte.
    pub fn is_value(&self, counter: u64, value: &[u8]) -> bool {
        if value.len() != self.value_bytes {
            return false;
        }
        let (version, rest) = split_version(value);
        let mut words = self.words(counter, version);
        let (chunks, tail) = rest.as_chunks::<8>();
        chunks.iter().all(|chunk| *chunk == words.draw()) && words.draw().starts_with(tail)
    }

    fn words(&self, counter: u64, version: u64) -> Words {
        Words(mix(counter ^ self.seed).rotate_left(17) ^ version.wrapping_mul(GOLDEN))
    }
}

/// Appends words until `out` has this length.
fn fill(words: &mut Words, length: usize, out: &mut Vec<u8>) {
    while out.len() < length {
        let room = length - out.len();
        out.extend_from_slice(&words.draw()[..room.min(8)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn population(records: u64) -> Population {
        Population::new(records, 16, 100, 1)
    }

    fn key(population: &Population, counter: u64) -> Vec<u8> {
        let mut key = Vec::new();
        population.key(counter, &mut key);
        key
    }

    #[test]
    fn keys_differ_and_have_the_length() {
        for length in [8, 9, 16, 33] {
            let population = Population::new(10, length, 0, 1);
            let keys: HashSet<_> = (0..1000).map(|counter| key(&population, counter)).collect();
            assert_eq!(keys.len(), 1000);
            assert!(keys.iter().all(|key| key.len() == length));
        }
        assert_ne!(key(&population(10), 1), key(&Population::new(10, 16, 100, 2), 1));
    }

    #[test]
    fn values_of_every_length_are_recognised_and_nothing_else_is() {
        for length in [0, 1, 7, 8, 9, 16, 100] {
            let population = Population::new(10, 16, length, 1);
            let mut value = Vec::new();
            population.value(3, 5, &mut value);
            assert_eq!(value.len(), length);
            assert!(population.is_value(3, &value), "{length}");
            assert!(length == 0 || !population.is_value(4, &value), "{length}");
            assert!(!population.is_value(3, &[&value[..], b"x"].concat()));
            for i in 0..length {
                let mut rotten = value.clone();
                rotten[i] ^= 1;
                assert!(!population.is_value(3, &rotten), "{length}: byte {i}");
            }
        }
    }

    /// The oracle: a set of counters, replaced one by one.
    #[test]
    fn live_records_are_exactly_those_that_churn_has_left() {
        for records in [1, 2, 3, 7, 64, 100] {
            let mut population = population(records);
            let mut live: HashSet<u64> = (0..records).map(|i| population.initial(i)).collect();
            for step in 0..3 * records {
                let said: HashSet<u64> = (0..records).map(|random| population.live(random)).collect();
                assert_eq!(said, live, "{records} records, step {step}");
                let (gone, fresh) = population.replacement(0);
                assert!(live.remove(&gone), "{records} records, step {step}");
                assert!(live.insert(fresh), "{records} records, step {step}");
                population.replace(1);
            }
        }
    }

    #[test]
    fn replacements_of_a_round_do_not_touch_each_other() {
        let mut population = population(30);
        population.replace(17);
        assert_eq!(population.left_in_round(), 13);
        let pairs: Vec<_> = (0..13).map(|i| population.replacement(i)).collect();
        let all: HashSet<u64> = pairs.iter().flat_map(|&(gone, fresh)| [gone, fresh]).collect();
        assert_eq!(all.len(), 26);
    }

    #[test]
    fn absent_keys_are_absent() {
        let population = population(100);
        assert!((0..100).all(|random| population.absent(random) >= NEVER));
    }
}
