//! What a trace adds up to.

use std::collections::HashMap;

use serde::Serialize;

use super::{Call, Entry, Print, Syncs};

/// Removals one after another that are counted as a mass removal.
const REMOVALS_RUN: u64 = 100;
/// Durable writes one after another that could have been a batch.
const DURABLE_RUN: u64 = 8;
/// Writes that are further apart than this do not wait for each other.
const DURABLE_GAP_MICROS: u64 = 10_000;
/// Reads one after another that could have been one call, and how close they must be.
const READS_RUN: u64 = 32;
const READS_GAP_MICROS: u64 = 20;
/// Changes of a batch that is hardly one.
const TINY_CHANGES: u64 = 2;
/// Longer values have a file of their own.
pub const BLOB_BYTES: u64 = 256 << 10;
/// Limits of a store.
pub const KEY_BYTES_MAX: u64 = 65_535;
pub const VALUE_BYTES_MAX: u64 = u32::MAX as u64;
/// Keys that are told from each other; beyond, every key is taken for a new one.
const KEYS_MAX: usize = 1 << 25;

/// Figures of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Profile {
    /// Calls.
    pub calls: u64,
    /// From the first to the last, in microseconds.
    pub micros: u64,
    /// Reads of one key, and of several.
    pub gets: u64,
    pub get_many: u64,
    /// Single puts.
    pub puts: u64,
    /// Single puts of a key that the trace has put before.
    pub overwrites: u64,
    /// Those of them whose value was the one that was there.
    pub same_values: u64,
    /// Keys with such a put; the one with most of them, and how many those are.
    pub same_value_keys: u64,
    pub same_value_hottest: Option<String>,
    pub same_value_hottest_puts: u64,
    /// Single removals, and calls that remove several keys.
    pub removals: u64,
    pub remove_many: u64,
    /// Batches.
    pub batches: u64,
    /// Batches of one or two changes.
    pub tiny_batches: u64,
    /// Calls for a sync.
    pub syncs: u64,
    /// Single removals in unbroken runs of a hundred or more of a thread; the longest run.
    pub mass_removals: u64,
    pub mass_removal_longest: u64,
    /// The largest load of new keys that at least doubled the store, past what was reserved; the records before it.
    pub load_longest: u64,
    pub load_from: u64,
    /// Single durable writes in runs of eight or more of a thread, each begun within 10 ms of the one before.
    pub lone_durable_writes: u64,
    /// Single reads in runs of 32 or more of a thread, each begun within 20 us of the one before.
    pub lone_gets: u64,
    /// Values that are up to a tenth shorter than what has a file of its own, and up to twice as long as that.
    pub values_below_blob: u64,
    pub values_above_blob: u64,
    /// Keys and values that are within a tenth of a store's limits.
    pub keys_near_limit: u64,
    pub values_near_limit: u64,
    /// True if there were too many keys to tell all from each other.
    pub keys_untold: bool,
}

/// Adds up a trace, call by call.
#[derive(Debug, Default)]
pub struct Profiler {
    profile: Profile,
    first_micros: Option<u64>,
    always: bool,
    /// Records in the store, as far as the trace tells.
    live: u64,
    /// Room that was reserved.
    room: u64,
    keys: HashMap<Print, Key>,
    /// New keys since something else was done, and the records before them.
    load: u64,
    load_from: u64,
    threads: HashMap<u64, Thread>,
}

#[derive(Debug, Default)]
struct Key {
    /// `None` when it was removed.
    value: Option<Print>,
    same: u64,
}

/// The runs that a thread is in.
#[derive(Debug, Default)]
struct Thread {
    removals: u64,
    durable: u64,
    durable_micros: u64,
    gets: u64,
    gets_micros: u64,
    /// A single write that the next call may make durable.
    unsynced: Option<u64>,
}

impl Profiler {
    /// Adds a call.
    pub fn add(&mut self, entry: Entry) {
        let Entry { micros, thread, call } = entry;
        self.profile.calls += 1;
        let first = *self.first_micros.get_or_insert(micros);
        self.profile.micros = micros.saturating_sub(first);
        let runs = self.threads.entry(thread).or_default();
        runs.step(&mut self.profile, call, micros, self.always);
        match call {
            Call::Open { syncs, records } => {
                self.end_load();
                self.always = syncs == Syncs::Always;
                (self.live, self.room) = (records, 0);
                self.forget_keys();
            }
            Call::Get { .. } | Call::GetMany { .. } => self.end_load(),
            Call::Put { key, key_bytes, value_bytes, value } => {
                let profile = &mut self.profile;
                profile.values_below_blob += u64::from(value_bytes > BLOB_BYTES / 10 * 9 && value_bytes <= BLOB_BYTES);
                profile.values_above_blob += u64::from(value_bytes > BLOB_BYTES && value_bytes <= 2 * BLOB_BYTES);
                profile.keys_near_limit += u64::from(key_bytes > KEY_BYTES_MAX / 10 * 9);
                profile.values_near_limit += u64::from(value_bytes > VALUE_BYTES_MAX / 10 * 9);
                self.put(key, value);
            }
            Call::Remove { key } => {
                self.end_load();
                // A key that the trace never put may have been there before it began.
                let known = self.keys.get_mut(&key);
                if known.is_none_or(|key| key.value.take().is_some()) {
                    self.live = self.live.saturating_sub(1);
                }
            }
            Call::RemoveMany { keys } => {
                self.end_load();
                self.live = self.live.saturating_sub(keys);
            }
            Call::Batch { puts, removes, .. } => {
                if removes == 0 {
                    self.new_keys(puts);
                } else {
                    self.end_load();
                    self.live = (self.live + puts).saturating_sub(removes);
                }
            }
            Call::Reserve { records } => {
                self.end_load();
                self.room = self.live.saturating_add(records);
            }
            Call::Clear => {
                self.end_load();
                self.live = 0;
                self.forget_keys();
            }
            Call::Sync => {}
        }
    }

    fn put(&mut self, print: Print, value: Print) {
        let is_full = self.keys.len() >= KEYS_MAX;
        let is_new = match self.keys.get_mut(&print) {
            Some(key) => {
                let before = key.value.replace(value);
                self.profile.overwrites += u64::from(before.is_some());
                if before == Some(value) {
                    key.same += 1;
                    self.profile.same_values += 1;
                }
                before.is_none()
            }
            None if is_full => {
                self.profile.keys_untold = true;
                true
            }
            None => {
                self.keys.insert(print, Key { value: Some(value), same: 0 });
                true
            }
        };
        if is_new {
            self.new_keys(1);
        } else {
            self.end_load();
        }
    }

    fn new_keys(&mut self, keys: u64) {
        if self.load == 0 {
            self.load_from = self.live;
        }
        // What finds room that was reserved is no load without it.
        let beyond = (self.live + keys).saturating_sub(self.room.max(self.live));
        self.load += beyond;
        self.live += keys;
    }

    fn end_load(&mut self) {
        let load = std::mem::take(&mut self.load);
        if load >= self.load_from && load > self.profile.load_longest {
            (self.profile.load_longest, self.profile.load_from) = (load, self.load_from);
        }
    }

    fn forget_keys(&mut self) {
        for (print, key) in self.keys.drain() {
            if key.same > 0 {
                self.profile.same_value_keys += 1;
                if key.same > self.profile.same_value_hottest_puts {
                    self.profile.same_value_hottest_puts = key.same;
                    self.profile.same_value_hottest = Some(print.to_string());
                }
            }
        }
    }

    /// The figures.
    pub fn finish(mut self) -> Profile {
        self.end_load();
        self.forget_keys();
        for runs in self.threads.values_mut() {
            runs.end_removals(&mut self.profile);
            runs.end_durable(&mut self.profile);
            runs.end_gets(&mut self.profile);
        }
        self.profile
    }
}

impl Thread {
    /// Counts a call, and ends the runs that it breaks.
    fn step(&mut self, profile: &mut Profile, call: Call, micros: u64, always: bool) {
        if !matches!(call, Call::Remove { .. } | Call::Sync) {
            self.end_removals(profile);
        }
        if !matches!(call, Call::Get { .. }) || micros.saturating_sub(self.gets_micros) > READS_GAP_MICROS {
            self.end_gets(profile);
        }
        // Every write that is not followed by a sync at once is durable later, with others.
        let durable = match call {
            Call::Put { .. } | Call::Remove { .. } => {
                let before = self.unsynced.replace(micros);
                if before.is_some() && !always {
                    self.end_durable(profile);
                }
                always.then_some(micros)
            }
            Call::Sync => self.unsynced.take(),
            _ => {
                self.unsynced = None;
                self.end_durable(profile);
                None
            }
        };
        if let Some(begun) = durable {
            if begun.saturating_sub(self.durable_micros) > DURABLE_GAP_MICROS {
                self.end_durable(profile);
            }
            self.durable += 1;
            self.durable_micros = begun;
        }
        match call {
            Call::Get { .. } => {
                profile.gets += 1;
                self.gets += 1;
                self.gets_micros = micros;
            }
            Call::GetMany { .. } => profile.get_many += 1,
            Call::Put { .. } => profile.puts += 1,
            Call::Remove { .. } => {
                profile.removals += 1;
                self.removals += 1;
            }
            Call::RemoveMany { .. } => profile.remove_many += 1,
            Call::Batch { puts, removes, .. } => {
                profile.batches += 1;
                profile.tiny_batches += u64::from(puts + removes <= TINY_CHANGES);
            }
            Call::Sync => profile.syncs += 1,
            Call::Open { .. } | Call::Reserve { .. } | Call::Clear => {}
        }
    }

    fn end_removals(&mut self, profile: &mut Profile) {
        let run = std::mem::take(&mut self.removals);
        if run >= REMOVALS_RUN {
            profile.mass_removals += run;
            profile.mass_removal_longest = profile.mass_removal_longest.max(run);
        }
    }

    fn end_durable(&mut self, profile: &mut Profile) {
        let run = std::mem::take(&mut self.durable);
        profile.lone_durable_writes += if run >= DURABLE_RUN { run } else { 0 };
    }

    fn end_gets(&mut self, profile: &mut Profile) {
        let run = std::mem::take(&mut self.gets);
        profile.lone_gets += if run >= READS_RUN { run } else { 0 };
    }
}
