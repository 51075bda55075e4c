//! Is a history of calls linearizable? Key by key: each key of a store is a register of its own.
//!
//! Every call is an interval of time, from a stamp taken before it began to one taken after it returned, and
//! must seem to happen at one instant in between. The checker goes through the stamps in order and keeps all
//! states that the key can be in: its value, and which of the calls under way have happened. When a call
//! returns, states in which it cannot have happened by then are dropped; if none is left, there is no order
//! that explains the history. (Lowe, "Testing for linearizability", 2017, calls this just-in-time
//! linearization.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// What a call did to its key, as its caller sees it. `None` is an absent key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It found this.
    Read(Option<u64>),
    /// It found the key to be there, or not.
    Present(bool),
    /// It set the key, whatever was there.
    Write(Option<u64>),
    /// It set the key to `new`, and `old` was there.
    Replace { old: Option<u64>, new: Option<u64> },
    /// It removed the key; true if there was one.
    Removed(bool),
}

impl Call {
    /// The value of the key after the call, if it can happen at a moment when `value` is there.
    fn happen(self, value: Option<u64>) -> Option<Option<u64>> {
        let (possible, after) = match self {
            Call::Read(found) => (found == value, value),
            Call::Present(there) => (there == value.is_some(), value),
            Call::Write(new) => (true, new),
            Call::Replace { old, new } => (old == value, new),
            Call::Removed(there) => (there == value.is_some(), None),
        };
        possible.then_some(after)
    }
}

/// One call and its interval. No two stamps are equal.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// Who called, for the message.
    pub thread: usize,
    pub key: u64,
    pub begin: u64,
    pub end: u64,
    pub call: Call,
}

/// Checks all keys of a history in which every key is absent at first. At most 64 calls of a key may be under
/// way at once.
///
/// # Errors
/// The key, the call that cannot be explained, and the calls of the key around it.
pub fn check(events: &[Event]) -> Result<(), String> {
    let mut by_key: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    for event in events {
        by_key.entry(event.key).or_default().push(*event);
    }
    by_key.into_values().try_for_each(|events| check_key(&events))
}

/// Which of the calls under way have happened, and the value since then.
type State = (u64, Option<u64>);

fn check_key(events: &[Event]) -> Result<(), String> {
    let mut stamps: Vec<(u64, usize)> =
        events.iter().enumerate().flat_map(|(i, event)| [(event.begin, i), (event.end, i)]).collect();
    stamps.sort_unstable();
    // The calls under way, each in a place of its own, which is its bit in the states.
    let mut under_way: Vec<Option<usize>> = Vec::new();
    let mut states: BTreeSet<State> = BTreeSet::from([(0, None)]);
    for (stamp, i) in stamps {
        if stamp == events[i].begin {
            match under_way.iter().position(Option::is_none) {
                Some(free) => under_way[free] = Some(i),
                None => under_way.push(Some(i)),
            }
            assert!(under_way.len() <= 64, "more than 64 calls at once");
            continue;
        }
        let place = under_way.iter().position(|&call| call == Some(i)).expect("it has begun");
        let calls: Vec<(u64, Call)> = under_way
            .iter()
            .enumerate()
            .filter_map(|(place, call)| call.map(|call| (1 << place, events[call].call)))
            .collect();
        let before = states.clone();
        states = returned(states, 1 << place, &calls);
        if states.is_empty() {
            return Err(describe(events, i, &before));
        }
        under_way[place] = None;
    }
    Ok(())
}

/// The states that are left when the call of a bit returns, without that bit.
fn returned(states: BTreeSet<State>, bit: u64, calls: &[(u64, Call)]) -> BTreeSet<State> {
    let mut left = BTreeSet::new();
    let mut seen = states.clone();
    let mut work: Vec<State> = states.into_iter().collect();
    while let Some((happened, value)) = work.pop() {
        if happened & bit != 0 {
            left.insert((happened & !bit, value));
            continue;
        }
        for &(other, call) in calls {
            if happened & other == 0
                && let Some(after) = call.happen(value)
                && seen.insert((happened | other, after))
            {
                work.push((happened | other, after));
            }
        }
    }
    left
}

fn describe(events: &[Event], culprit: usize, possible: &impl Debug) -> String {
    use std::fmt::Write;
    /// Calls that returned before the one in question.
    const SHOWN: usize = 12;
    let culprit = &events[culprit];
    let mut around: Vec<&Event> = events.iter().filter(|event| event.begin < culprit.end).collect();
    around.sort_by_key(|event| event.end);
    let (past, overlapping): (Vec<&Event>, Vec<&Event>) =
        around.into_iter().partition(|event| event.end < culprit.begin);
    let mut text = format!("key {}: no order of the calls explains {culprit:?}\n", culprit.key);
    for event in past.iter().skip(past.len().saturating_sub(SHOWN)).chain(&overlapping) {
        let Event { thread, begin, end, call, .. } = event;
        _ = writeln!(text, "  {begin:>6} ..{end:>6} thread {thread}: {call:?}");
    }
    _ = write!(text, "  possible before it returned (calls that have happened, value): {possible:?}");
    text
}
