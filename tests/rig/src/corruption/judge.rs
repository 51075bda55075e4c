//! What a damaged store may answer.
//!
//! Every case reads all keys several times, so that what a base knows of its keys is looked up by number, and no
//! value is copied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tophash::{Error, Store, Table, Value};

use super::Licence;
use super::base::{Base, Contents, table_of};

/// No value: the key is absent.
const ABSENT: u32 = u32::MAX;

/// What a base knows of a key.
#[derive(Debug, Clone)]
struct Fact {
    key: Vec<u8>,
    /// Every value that it ever had.
    values: Vec<Vec<u8>>,
    /// Which of them it has in each state of the base, or [`ABSENT`].
    states: Vec<u32>,
    /// It is the same in all states that a torn end can leave, and in all states.
    settled: [bool; 2],
}

impl Fact {
    fn number_of(&self, value: &[u8]) -> Option<u32> {
        self.values.iter().position(|known| known == value).map(|number| number as u32)
    }

    fn value(&self, number: u32) -> Option<&[u8]> {
        self.values.get(number as usize).map(Vec::as_slice)
    }
}

/// All keys that were ever in a base.
#[derive(Debug, Clone)]
pub struct Facts {
    facts: Vec<Fact>,
    numbers: HashMap<Vec<u8>, usize>,
}

impl Facts {
    /// Sums up every value that keys ever had, and the states that there may be. Of these, `sure` lie before the last
    /// durable LSN.
    #[must_use]
    pub fn new(ever: &BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>, states: &[Contents], sure: usize) -> Self {
        let fact = |(key, values): (&Vec<u8>, &BTreeSet<Vec<u8>>)| {
            let values: Vec<_> = values.iter().cloned().collect();
            let number = |value: Option<&Vec<u8>>| {
                let number = value.map(|value| values.iter().position(|known| known == value).expect("a known value"));
                number.map_or(ABSENT, |number| number as u32)
            };
            let states: Vec<u32> = states.iter().map(|state| number(state.get(key))).collect();
            let settled = [sure, 0].map(|from| states[from..].windows(2).all(|pair| pair[0] == pair[1]));
            Fact { key: key.clone(), values, states, settled }
        };
        let facts: Vec<_> = ever.iter().map(fact).collect();
        let numbers = facts.iter().enumerate().map(|(number, fact)| (fact.key.clone(), number)).collect();
        Facts { facts, numbers }
    }

    fn get(&self, key: &[u8]) -> Option<&Fact> {
        self.numbers.get(key).map(|&number| &self.facts[number])
    }
}

/// The tables of a store, as far as they can be had.
struct Tables<'s> {
    main: &'s Table,
    /// By name. An error of the store's is no answer of a key.
    others: BTreeMap<String, Result<Option<Table>, Error>>,
}

impl<'s> Tables<'s> {
    /// Those that a base's keys name, and those that the store itself names.
    fn of(store: &'s Store, facts: &Facts) -> Self {
        let mut names: BTreeSet<String> =
            facts.numbers.keys().filter_map(|key| table_of(key)).map(Into::into).collect();
        names.extend(store.tables().unwrap_or_default());
        let table = |name: String| {
            let found = match store.existing_table(&name) {
                Ok(table) => Ok(Some(table)),
                Err(Error::NoSuchTable { .. }) => Ok(None),
                Err(error) => Err(error),
            };
            (name, found)
        };
        Tables { main: store, others: names.into_iter().map(table).collect() }
    }

    fn all(&self) -> impl Iterator<Item = &Table> {
        let others = self.others.values().filter_map(|table| table.as_ref().ok()?.as_ref());
        std::iter::once(self.main).chain(others)
    }

    fn get(&self, key: &[u8]) -> Answer<'_> {
        match table_of(key).map(|name| self.others.get(name)) {
            None => self.main.get(key).ok(),
            Some(Some(Ok(Some(table)))) => table.get(key).ok(),
            Some(None | Some(Ok(None))) => Some(None),
            Some(Some(Err(_))) => None,
        }
    }
}

/// What was read of a key: its value or its absence. An error is no answer.
type Answer<'s> = Option<Option<Value<'s>>>;

/// What reading everything has shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// There was no error, and everything that should be there is.
    pub whole: bool,
}

/// Judges what one damaged store answers.
pub(super) struct Judge<'c> {
    pub base: &'c Base,
    pub licence: &'c Licence,
    /// What was written after the damage; such keys have these values or are an error.
    pub written: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
}

impl<'c> Judge<'c> {
    pub fn new(base: &'c Base, licence: &'c Licence) -> Self {
        Judge { base, licence, written: BTreeMap::new() }
    }

    /// Reads all that ever was in the store, in every way.
    pub fn read(&self, store: &Store) -> Result<Reading, String> {
        let Facts { facts, numbers } = &self.base.facts;
        // Keys that the base never had: the damage made them, or they were written after it.
        let mut others: Vec<&[u8]> = self.licence.made.keys().chain(self.written.keys()).map(Vec::as_slice).collect();
        others.retain(|key| !numbers.contains_key(*key));
        others.sort_unstable();
        others.dedup();
        let keys = facts.iter().map(|fact| fact.key.as_slice()).chain(others.iter().copied());
        let tables = Tables::of(store, &self.base.facts);
        let answers: Vec<Answer<'_>> = keys.map(|key| tables.get(key)).collect();
        let mut complete = answers.iter().all(Option::is_some);
        if let Ok(Some(value)) = store.get("never there") {
            return Err(format!("a key that was never there has the value {:?}", &value[..]));
        }
        let lenient = self.licence.absent || self.licence.stale;
        let (mut seen, mut whole) = (vec![false; answers.len()], true);
        // A damaged chain can end a page's turn with an error; the next page goes on.
        whole &= tables.others.values().all(Result::is_ok);
        for (n, entry) in tables.all().flat_map(Table::iter).enumerate() {
            if n > 100_000 {
                return Err("an iteration without end".into());
            }
            let Ok(entry) = entry else {
                (whole, complete) = (false, false);
                continue;
            };
            let (key, value) = (entry.key(), entry.value());
            let number = numbers.get(key).copied();
            let number = number.or_else(|| others.binary_search(&key).ok().map(|other| facts.len() + other));
            let Some(number) = number else {
                self.known(key, value)?;
                continue;
            };
            match &answers[number] {
                Some(Some(known)) if known[..] == *value => {}
                // Which of two it finds can differ where a key is there twice.
                Some(_) if lenient => self.known(key, value)?,
                Some(other) => {
                    let other = other.as_deref();
                    return Err(format!("{key:?} is {value:?} in an iteration, {other:?} in a read"));
                }
                None => self.known(key, value)?,
            }
            seen[number] = true;
        }
        let answered = |number: usize| answers[number].as_ref().and_then(Option::as_deref);
        let key = |number: usize| facts.get(number).map_or_else(|| others[number - facts.len()], |fact| &fact.key);
        let missing = (0..answers.len()).find(|&number| answered(number).is_some() && !seen[number]);
        if let Some(missing) = missing.filter(|_| whole && !lenient) {
            return Err(format!("{:?} is not in an iteration", key(missing)));
        }
        let given = (0..answers.len()).filter(|&number| answers[number].is_some());
        self.judge(given.map(|number| (key(number), facts.get(number), answered(number))))?;
        let all_there = facts.iter().enumerate().all(|(number, fact)| {
            let present = fact.states.last().and_then(|&present| fact.value(present));
            present.is_none() || answered(number) == present
        });
        Ok(Reading { whole: complete && all_there })
    }

    /// The value is one that the key ever had.
    fn known(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let ever = || self.base.facts.get(key).is_some_and(|fact| fact.number_of(value).is_some());
        let made = || self.licence.made.get(key).is_some_and(|values| values.iter().any(|made| made == value));
        let mut written = self.written.get(key).into_iter().flatten().flatten();
        if ever() || made() || written.any(|known| known == value) || self.licence.anything {
            return Ok(());
        }
        Err(format!("{key:?} has a value that it never had: {value:?}"))
    }

    /// Judges answers: keys, what the base knows of them, and their values.
    fn judge<'a>(
        &self,
        answers: impl Iterator<Item = (&'a [u8], Option<&'a Fact>, Option<&'a [u8]>)>,
    ) -> Result<(), String> {
        let from = if self.licence.shorter { 0 } else { self.base.sure };
        // What a torn end of the log can leave: one of the states behind the last durable LSN.
        let mut states: Vec<usize> = (from..self.base.states.len()).collect();
        let has_made = !self.licence.made.is_empty();
        for (key, fact, answer) in answers {
            if let Some(written) = self.written.get(key) {
                let lenient = self.licence.absent || self.licence.stale;
                if !written.iter().any(|written| written.as_deref() == answer) && !lenient {
                    return Err(format!("{key:?} is {answer:?} after it was set to {written:?}"));
                }
                continue;
            }
            let made = has_made && self.licence.made.contains_key(key);
            match answer {
                Some(value) if made => self.known(key, value)?,
                Some(value) if self.licence.stale => self.known(key, value)?,
                None if made || self.licence.absent || self.licence.stale => {}
                _ if self.licence.absent => {
                    let value = answer.unwrap_or_default();
                    self.known(key, value)?;
                    if !(from..self.base.states.len()).any(|state| holds(fact, state, answer)) {
                        return Err(format!("{key:?} has an earlier value: {value:?}"));
                    }
                }
                _ => {
                    let settled = fact.is_none_or(|fact| fact.settled[usize::from(self.licence.shorter)]);
                    match states.first() {
                        Some(&first) if settled && holds(fact, first, answer) => {}
                        _ => states.retain(|&state| holds(fact, state, answer)),
                    }
                    if states.is_empty() {
                        let present = self.base.present().get(key);
                        return Err(format!("{key:?} is {answer:?}, expected {present:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes what a change should have left. After an error it may have been carried out or not.
    pub fn wrote(&mut self, key: &[u8], value: Option<Vec<u8>>, done: bool) {
        let known = self.written.entry(key.to_vec());
        if done {
            let values = known.or_default();
            values.clear();
            values.push(value);
        } else {
            let before: Vec<_> =
                self.base.states[self.base.sure..].iter().map(|state| state.get(key).cloned()).collect();
            let values = known.or_insert(before);
            values.push(value);
        }
    }

    /// A repaired store has nothing that never was; if the report says that nothing is lost, it has everything.
    pub fn repaired(&self, contents: &Contents, is_complete: bool) -> Result<(), String> {
        contents.iter().try_for_each(|(key, value)| self.known(key, value))?;
        let Licence { absent, stale, shorter, .. } = *self.licence;
        if is_complete && !(absent || stale || shorter) {
            let from = self.base.sure;
            if !self.base.states[from..].contains(contents) {
                let wrong = self.base.present().iter().find(|(key, value)| contents.get(*key) != Some(value));
                return Err(format!("said to be complete, and {wrong:?} is missing"));
            }
        }
        Ok(())
    }
}

/// Whether a key has this value in a state of the base.
fn holds(fact: Option<&Fact>, state: usize, answer: Option<&[u8]>) -> bool {
    fact.and_then(|fact| fact.value(fact.states[state])) == answer
}
