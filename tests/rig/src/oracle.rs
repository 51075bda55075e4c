//! What may be in a store after a crash: a replay of a script's steps in a map.
//!
//! A state is told by the sum of its entries' hashes, which does not depend on their order.

use std::collections::{BTreeMap, HashMap};

use tophash::Store;

use crate::random::mix;
use crate::recorder::Bounds;
use crate::script::{Op, Script, key};

/// A state's content, as a number.
pub type StateHash = u128;

/// The hash of one entry. The sum over all entries is the hash of a state.
#[must_use]
pub fn entry_hash(key: &[u8], value: &[u8]) -> StateHash {
    let mut lanes = [0x1234_5678_9abc_def0u64 ^ key.len() as u64, 0x0fed_cba9_8765_4321 ^ value.len() as u64];
    for part in [key, value] {
        let (words, rest) = part.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        for word in words.iter().chain([&last]) {
            let word = u64::from_le_bytes(*word);
            lanes[0] = (lanes[0] ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
            lanes[1] = (lanes[1].rotate_left(17) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        }
    }
    u128::from(mix(lanes[0])) << 64 | u128::from(mix(lanes[1]))
}

/// What is in a store.
pub type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn content_hash(content: &Content) -> StateHash {
    content.iter().map(|(key, value)| entry_hash(key, value)).fold(0, u128::wrapping_add)
}

/// A step that a crash may leave half done: what was there before, and what it removes.
#[derive(Debug, Clone)]
struct Divisible {
    /// The position after the step.
    position: u32,
    before: Content,
    removed: Vec<Vec<u8>>,
}

/// All states of a history, in order. Position n is the state after n steps.
#[derive(Debug, Clone, Default)]
pub struct History {
    states: Vec<StateHash>,
    /// Where a state occurs.
    positions: HashMap<StateHash, Vec<u32>>,
    /// The content of the states, where a step can be half done: half of it can look like an earlier state.
    contents: HashMap<StateHash, Content>,
    divisible: Vec<Divisible>,
    /// Every key that occurs.
    pub keys: Vec<Vec<u8>>,
}

/// What a store holds after a crash.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The content, as a number.
    pub hash: StateHash,
    /// How many entries there are.
    pub count: u64,
    /// The content itself, if it is no state of the history: perhaps one between two.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl History {
    /// A history that begins with a state.
    #[must_use]
    pub fn new(state: StateHash, keys: Vec<Vec<u8>>) -> Self {
        let mut history = History { keys, ..History::default() };
        history.push(state);
        history
    }

    /// Adds the state after the next step.
    pub fn push(&mut self, state: StateHash) {
        self.positions.entry(state).or_default().push(self.states.len() as u32);
        self.states.push(state);
    }

    /// The state at a position.
    #[must_use]
    pub fn state(&self, position: u32) -> StateHash {
        self.states[position as usize]
    }

    /// True if a key had a value after one of these steps; `None`: if it was absent.
    #[must_use]
    pub fn had(&self, key: &[u8], value: Option<&[u8]>, low: u32, high: u32) -> bool {
        let states = self.states.iter().take(high as usize + 1).skip(low as usize);
        states.filter_map(|state| self.contents.get(state)).any(|content| content.get(key).map(Vec::as_slice) == value)
    }

    /// The history of a script.
    #[must_use]
    pub fn of(script: &Script) -> Self {
        let mut model = Model::new(Content::new(), Vec::new());
        let mut keys = std::collections::BTreeSet::new();
        for op in &script.ops {
            model.step(op);
            keys.extend(model.content.keys().cloned());
        }
        History { keys: keys.into_iter().collect(), ..model.history }
    }

    /// Whether a state may be what a crash leaves. `low` steps must be there, and no more than `high`.
    fn allows(&self, recovered: &Recovered, low: u32, high: u32) -> bool {
        let known = self.positions.get(&recovered.hash);
        if known.is_some_and(|positions| positions.iter().any(|position| (low..=high).contains(position))) {
            return true;
        }
        // A removal of many keys is not atomic; a crash can leave any part of it, if nothing later is there.
        let mut half_done = self.divisible.iter().filter(|step| step.position > low && step.position <= high);
        half_done.any(|step| {
            let missing = |key: &[u8]| step.removed.iter().any(|removed| removed == key);
            let found: BTreeMap<&[u8], &[u8]> = match self.contents.get(&recovered.hash) {
                Some(content) => content.iter().map(|(k, v)| (&k[..], &v[..])).collect(),
                None => recovered.entries.iter().map(|(k, v)| (&k[..], &v[..])).collect(),
            };
            let kept = step.before.iter().all(|(key, value)| match found.get(&key[..]) {
                Some(found) => found == value,
                None => missing(key),
            });
            kept && found.keys().all(|key| step.before.contains_key(*key))
        })
    }

    /// Adds the content itself to what was recovered, if it is no state of this history.
    ///
    /// # Errors
    /// In words.
    pub fn look_closer(&self, recovered: &mut Recovered, store: &Store) -> Result<(), String> {
        if !self.positions.contains_key(&recovered.hash) {
            recovered.entries = content_of(store)?.into_iter().collect();
        }
        Ok(())
    }

    /// Checks what a power failure left. `whole` says that nothing was lost, as when only the process died.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self, recovered: &Recovered, bounds: Bounds, whole: bool) -> Result<(), String> {
        let low = if whole { bounds.returned } else { bounds.durable };
        if self.allows(recovered, low, bounds.started) {
            return Ok(());
        }
        let positions = self.positions.get(&recovered.hash).map_or(&[][..], |positions| &positions[..]);
        Err(format!(
            "recovered {} entries, which is the state after {positions:?} steps, but it must be one of {low}..={}",
            recovered.count, bounds.started
        ))
    }

    /// Reads a store: by iteration, and every key of the history by itself.
    ///
    /// # Errors
    /// In words: a read failed, or the two ways disagree.
    pub fn read(&self, store: &Store) -> Result<Recovered, String> {
        let (mut hash, mut count): (StateHash, u64) = (0, 0);
        for entry in store.iter() {
            let entry = entry.map_err(|error| format!("iteration: {error}"))?;
            hash = hash.wrapping_add(entry_hash(entry.key(), entry.value()));
            count += 1;
        }
        if !counts(store, count) {
            return Err(format!("{count} entries by iteration, {} by len", store.len()));
        }
        let mut by_key: StateHash = 0;
        for key in &self.keys {
            if let Some(value) = store.get(key).map_err(|error| format!("get: {error}"))? {
                by_key = by_key.wrapping_add(entry_hash(key, &value));
            }
        }
        if by_key != hash {
            return Err(format!("{count} entries by iteration, others one by one"));
        }
        Ok(Recovered { hash, count, entries: Vec::new() })
    }
}

/// True if `len` says that there are so many entries. What is expired counts until it is removed from the index.
#[must_use]
pub fn counts(store: &Store, entries: u64) -> bool {
    store.len() == entries || (store.len() > entries && store.stats().log.expiring_bytes > 0)
}

/// What a step makes of a content.
pub fn carry_out(op: &Op, content: &mut Content) {
    match op {
        Op::Insert(k, value) | Op::Update(k, value) => _ = content.insert(key(*k), value.bytes()),
        Op::Lasting(k, value) => _ = content.insert(key(*k), value.bytes()),
        Op::Remove(k) | Op::Expired(k, _) => _ = content.remove(&key(*k)),
        Op::Apply(changes) => {
            for (k, value) in changes {
                match value {
                    Some(value) => content.insert(key(*k), value.bytes()),
                    None => content.remove(&key(*k)),
                };
            }
        }
        Op::RemoveMany(numbers) => numbers.iter().for_each(|&k| _ = content.remove(&key(k))),
        Op::Clear => content.clear(),
        Op::Awaited(op) => carry_out(op, content),
        _ => {}
    }
}

/// A history as it is made, and what it has come to.
#[derive(Debug, Clone)]
pub struct Model {
    /// What is in the store now.
    pub content: Content,
    /// What was in it.
    pub history: History,
}

impl Model {
    /// A history that begins with a content.
    #[must_use]
    pub fn new(content: Content, keys: Vec<Vec<u8>>) -> Self {
        let hash = content_hash(&content);
        let mut history = History::new(hash, keys);
        history.contents.insert(hash, content.clone());
        Model { content, history }
    }

    /// How many steps there were.
    #[must_use]
    pub fn position(&self) -> u32 {
        self.history.states.len() as u32 - 1
    }

    /// A step that was carried out.
    pub fn step(&mut self, op: &Op) {
        let mut after = self.content.clone();
        carry_out(op, &mut after);
        self.step_to(op, after);
    }

    /// A step that was carried out as far as the content says.
    pub fn step_to(&mut self, op: &Op, after: Content) {
        let before = std::mem::replace(&mut self.content, after);
        if let Op::RemoveMany(numbers) = op {
            let (position, removed) = (self.position() + 1, numbers.iter().map(|&k| key(k)).collect());
            self.history.divisible.push(Divisible { position, before, removed });
        }
        let hash = content_hash(&self.content);
        self.history.push(hash);
        self.history.contents.insert(hash, self.content.clone());
    }

    /// A step that nobody has seen happen, and that may come to light when the store is opened again.
    pub fn perhaps(&mut self, op: &Op) {
        let now = self.content.clone();
        self.step(op);
        self.content = now;
    }
}

/// All that is in a store.
///
/// # Errors
/// In words.
pub fn content_of(store: &Store) -> Result<Content, String> {
    let all = store.iter().map(|entry| entry.map(|entry| (entry.key().to_vec(), entry.value().to_vec())));
    all.collect::<tophash::Result<_>>().map_err(|error| format!("iteration: {error}"))
}
