//! What may be in a store after a crash: a replay of a script's steps in a map.
//!
//! A state is told by the sum of its entries' hashes, which does not depend on their order.

use std::collections::{BTreeMap, HashMap};

use tophash::{Store, Table};

use crate::counts::{counts, counts_of};
use crate::random::mix;
use crate::recorder::Bounds;
use crate::script::{Op, Script, key, table_name};

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

/// What is in a store. A table's keys stand behind [`table_key`]; its own existence is the entry of its empty key's prefix.
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
        let mut tables = HashMap::new();
        for (name, table) in tables_of(store)? {
            hash = hash.wrapping_add(entry_hash(&table_key(&name, None), &[]));
            let mut found = 0;
            for entry in &table {
                let entry = entry.map_err(|error| format!("iteration of {name}: {error}"))?;
                hash = hash.wrapping_add(entry_hash(&table_key(&name, Some(entry.key())), entry.value()));
                found += 1;
            }
            if !counts_of(store, &table, found) {
                return Err(format!("{found} entries of {name} by iteration, {} by len", table.len()));
            }
            count += found + 1;
            tables.insert(table_key(&name, None), table);
        }
        let mut by_key: StateHash = 0;
        for key in &self.keys {
            let value = match split_key(key) {
                None => store.get(key),
                Some((table, None)) => {
                    let there = tables.contains_key(table);
                    by_key = by_key.wrapping_add(if there { entry_hash(key, &[]) } else { 0 });
                    continue;
                }
                Some((table, Some(of_table))) => match tables.get(table) {
                    Some(table) => table.get(of_table),
                    None => continue,
                },
            };
            if let Some(value) = value.map_err(|error| format!("get: {error}"))? {
                by_key = by_key.wrapping_add(entry_hash(key, &value));
            }
        }
        if by_key != hash {
            return Err(format!("{count} entries by iteration, others one by one"));
        }
        Ok(Recovered { hash, count, entries: Vec::new() })
    }
}

/// Where the keys of tables begin in a [`Content`].
const TABLE: &[u8] = b"\xfftable:";

/// A table's key among those of the store; without one, the table itself.
#[must_use]
pub fn table_key(name: &str, key: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = [TABLE, name.as_bytes()].concat();
    if let Some(key) = key {
        bytes.push(0);
        bytes.extend_from_slice(key);
    }
    bytes
}

/// The table of a key, and the key there. `None` for one of the main table.
fn split_key(key: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let name = key.strip_prefix(TABLE)?;
    match name.iter().position(|&byte| byte == 0) {
        Some(end) => Some((&key[..TABLE.len() + end], Some(&name[end + 1..]))),
        None => Some((key, None)),
    }
}

/// The value of a key, which can be one of a table.
///
/// # Errors
/// Whatever the store says.
pub fn value_of(store: &Store, key: &[u8]) -> tophash::Result<Option<Vec<u8>>> {
    let owned = |value: Option<tophash::Value<'_>>| value.map(|value| value.to_vec());
    let Some((table, of_table)) = split_key(key) else { return Ok(owned(store.get(key)?)) };
    let name = String::from_utf8_lossy(&table[TABLE.len()..]).into_owned();
    let table = match store.existing_table(&name) {
        Err(tophash::Error::NoSuchTable { .. }) => return Ok(None),
        table => table?,
    };
    match of_table {
        None => Ok(Some(Vec::new())),
        Some(key) => Ok(owned(table.get(key)?)),
    }
}

/// The tables of a store.
fn tables_of(store: &Store) -> Result<Vec<(String, Table)>, String> {
    let names = store.tables().map_err(|error| format!("tables: {error}"))?;
    let table = |name: String| {
        let table = store.existing_table(&name).map_err(|error| format!("a table that is listed: {error}"))?;
        Ok((name, table))
    };
    names.into_iter().map(table).collect()
}

/// What a step makes of a content.
pub fn carry_out(op: &Op, content: &mut Content) {
    match op {
        Op::Insert(k, value) | Op::Update(k, value) => _ = content.insert(key(*k), value.bytes()),
        Op::Lasting(k, value) => _ = content.insert(key(*k), value.bytes()),
        Op::Remove(k) | Op::Expired(k, _) | Op::Brief(k, ..) => _ = content.remove(&key(*k)),
        Op::Apply(changes) => {
            for (k, value) in changes {
                match value {
                    Some(value) => content.insert(key(*k), value.bytes()),
                    None => content.remove(&key(*k)),
                };
            }
        }
        Op::RemoveMany(numbers) => numbers.iter().for_each(|&k| _ = content.remove(&key(k))),
        Op::Clear => content.retain(|key, _| split_key(key).is_some()),
        Op::MakeTable(table) => _ = content.insert(table_key(&table_name(*table), None), Vec::new()),
        Op::DropTable(table) => {
            let dropped = table_key(&table_name(*table), None);
            content.retain(|key, _| split_key(key).is_none_or(|(table, _)| table != dropped));
        }
        Op::InTable(table, op) => carry_out_in(&table_name(*table), op, content),
        Op::ApplyAcross(changes) => {
            for (table, k, value) in changes {
                let key = match table {
                    0 => key(*k),
                    number => table_key(&table_name(*number), Some(&key(*k))),
                };
                match value {
                    Some(value) => content.insert(key, value.bytes()),
                    None => content.remove(&key),
                };
            }
        }
        Op::Awaited(op) => carry_out(op, content),
        _ => {}
    }
}

/// How many entries of a content are the main table's.
#[must_use]
pub fn in_main(content: &Content) -> u64 {
    content.keys().filter(|key| split_key(key).is_none()).count() as u64
}

/// True if the tables are there that a step needs.
#[must_use]
pub fn has_tables(content: &Content, op: &Op) -> bool {
    let is_there = |table: u32| table == 0 || content.contains_key(&table_key(&table_name(table), None));
    match op {
        Op::InTable(table, _) => is_there(*table),
        Op::ApplyAcross(changes) => changes.iter().all(|&(table, ..)| is_there(table)),
        _ => true,
    }
}

/// What a step in a table makes of a content.
fn carry_out_in(name: &str, op: &Op, content: &mut Content) {
    let own = |key: &[u8]| split_key(key).is_some_and(|(table, of)| table == table_key(name, None) && of.is_some());
    let mut inside: Content = content.extract_if(.., |key, _| own(key)).collect();
    inside = inside
        .into_iter()
        .map(|(key, value)| (split_key(&key).and_then(|(_, of)| of).unwrap_or(&[]).to_vec(), value))
        .collect();
    carry_out(op, &mut inside);
    content.extend(inside.into_iter().map(|(key, value)| (table_key(name, Some(&key)), value)));
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
        let removed = match op {
            Op::RemoveMany(numbers) => numbers.iter().map(|&k| key(k)).collect(),
            Op::InTable(table, op) => match &**op {
                Op::RemoveMany(numbers) => {
                    numbers.iter().map(|&k| table_key(&table_name(*table), Some(&key(k)))).collect()
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        if !removed.is_empty() {
            self.history.divisible.push(Divisible { position: self.position() + 1, before, removed });
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
    let mut content: Content = all.collect::<tophash::Result<_>>().map_err(|error| format!("iteration: {error}"))?;
    for (name, table) in tables_of(store)? {
        content.insert(table_key(&name, None), Vec::new());
        for entry in &table {
            let entry = entry.map_err(|error| format!("iteration of {name}: {error}"))?;
            content.insert(table_key(&name, Some(entry.key())), entry.value().to_vec());
        }
    }
    Ok(content)
}
