//! An engine that lies, to see that the worker notices: a map in memory with one fault.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{change, churn, mixed, read, survive, ycsb};
use crate::engine::{Changes, Engine, Reader, WasThere};
use crate::population::Population;
use crate::protocol::{
    Churn, Find, Insert, Mode, Opening, Read, ReadKind, ReadersAndWriter, Remove, Request, Timed, Ycsb,
};

const RECORDS: u64 = 1_000;

/// What the engine does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// One bit of one value in 50.
    FlipsBits,
    /// One insert in 50 does nothing.
    LosesInserts,
    /// Removals do nothing, and say that they did.
    KeepsRemoved,
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

struct Liar {
    map: Mutex<Map>,
    fault: Fault,
}

impl Liar {
    fn new(fault: Fault) -> Self {
        Liar { map: Mutex::default(), fault }
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for one key in 50.
    fn is_hit(&self, key: &[u8], fault: Fault) -> bool {
        self.fault == fault && key[0].is_multiple_of(50)
    }
}

impl Engine for Liar {
    type Reader<'e> = &'e Liar;

    fn open(_opening: &Opening) -> anyhow::Result<Self> {
        Ok(Liar::new(Fault::None))
    }

    fn set_mode(self, _opening: &Opening) -> anyhow::Result<Self> {
        Ok(self)
    }

    fn reader(&self) -> anyhow::Result<&Liar> {
        Ok(self)
    }

    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        if !self.is_hit(key, Fault::LosesInserts) {
            self.map().insert(key.to_vec(), value.to_vec());
        }
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        Ok(Some(self.fault == Fault::KeepsRemoved || self.map().remove(key).is_some()))
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        fill(&mut &*self)
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn compact(self, _opening: &Opening) -> anyhow::Result<(Self, bool)> {
        Ok((self, false))
    }

    fn close(self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Reader for &Liar {
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        let mut value = self.map().get(key).cloned();
        if let Some(value) = &mut value
            && self.is_hit(key, Fault::FlipsBits)
        {
            let last = value.len() - 1;
            value[last] ^= 4;
        }
        Ok(check(value.as_deref()))
    }
}

impl Changes for &Liar {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Engine::insert(*self, key, value)
    }

    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        Engine::remove(*self, key)
    }
}

fn population() -> Population {
    Population::new(16, 100, 1)
}

fn fill(liar: &Liar) -> Timed {
    let insert = Insert { records: RECORDS, batch: 100, ..Insert::default() };
    change::insert(liar, population(), insert).unwrap()
}

fn read_all(liar: &Liar, kind: ReadKind) -> anyhow::Result<Timed> {
    let request = Read { kind, records: RECORDS, threads: 2, reads: 4 * RECORDS, seconds_max: 60.0, seed: 1 };
    read::read(liar, population(), request)
}

fn mix(liar: &Liar) -> anyhow::Result<()> {
    let ycsb = Ycsb {
        records: RECORDS,
        update_percent: 50,
        is_read_modify_write: true,
        threads: 2,
        operations: 2 * RECORDS,
        seconds_max: 60.0,
        seed: 1,
    };
    let mixed = ycsb::run(liar, population(), ycsb)?;
    assert_eq!(mixed.reads.operations + mixed.writes.operations, 4 * RECORDS);
    Ok(())
}

fn read_beside_writer(liar: &Liar) -> anyhow::Result<()> {
    let request =
        ReadersAndWriter { records: RECORDS, first: 1 << 40, readers: 2, is_written: true, seconds: 0.2, seed: 1 };
    mixed::run(liar, population(), request).map(drop)
}

fn replace(liar: &Liar) -> anyhow::Result<()> {
    let request = Churn { records: RECORDS, done: 0, steps: RECORDS * 3 / 2, seconds_max: 60.0, seed: 1 };
    let timed = churn::churn(liar, population(), request)?;
    churn::check(liar, population(), Churn { done: timed.operations, ..request })
}

#[test]
fn an_honest_engine_passes() {
    let liar = Liar::new(Fault::None);
    assert_eq!(fill(&liar).operations, RECORDS);
    for kind in [ReadKind::Hits, ReadKind::Absent, ReadKind::Many] {
        assert!(read_all(&liar, kind).unwrap().operations >= 4 * RECORDS);
    }
    mix(&liar).unwrap();
    read_beside_writer(&liar).unwrap();
    let removed = change::remove(&liar, population(), Remove { end: RECORDS }).unwrap();
    assert_eq!(removed.operations, RECORDS / 2);
    read_all(&liar, ReadKind::Halved).unwrap();
    let liar = Liar::new(Fault::None);
    fill(&liar);
    replace(&liar).unwrap();
}

#[test]
fn wrong_values_are_noticed() {
    let liar = Liar::new(Fault::FlipsBits);
    fill(&liar);
    assert!(read_all(&liar, ReadKind::Hits).is_err());
    assert!(read_all(&liar, ReadKind::Many).is_err());
    assert!(mix(&liar).is_err());
    assert!(read_beside_writer(&liar).is_err());
    let found = survive::find(&liar, population(), Find { first: 0, records: RECORDS }).unwrap().found;
    assert!((1..RECORDS).contains(&found), "{found}");
    assert!(replace(&liar).is_err());
}

#[test]
fn lost_inserts_are_noticed() {
    let liar = Liar::new(Fault::LosesInserts);
    fill(&liar);
    assert!(read_all(&liar, ReadKind::Hits).is_err());
    let found = survive::find(&liar, population(), Find { first: 0, records: RECORDS }).unwrap().found;
    assert!((1..RECORDS).contains(&found), "{found}");
    assert!(replace(&liar).is_err());
}

#[test]
fn removals_that_did_nothing_are_noticed() {
    let liar = Liar::new(Fault::KeepsRemoved);
    fill(&liar);
    change::remove(&liar, population(), Remove { end: RECORDS }).unwrap();
    assert!(read_all(&liar, ReadKind::Halved).is_err());
    let liar = Liar::new(Fault::KeepsRemoved);
    fill(&liar);
    assert!(replace(&liar).is_err());
}

/// Requests of a session in the order that a coordinator never sends.
#[test]
fn requests_in_the_wrong_order_are_refused() {
    let mut session = None;
    let mut ask = |request| super::carry_out::<Liar>(&mut session, request).map_err(|error| error.to_string());
    assert_eq!(ask(Request::Sync), Err("it is not open".to_string()));
    let opening = Opening {
        path: PathBuf::new(),
        population: population(),
        mode: Mode::Buffered,
        checkpoint_bytes: None,
        map_bytes: 0,
        is_write_map: false,
        cache_bytes: 0,
        first_answer: None,
    };
    let refused = ask(Request::Open(Opening { first_answer: Some(7), ..opening.clone() }));
    assert_eq!(refused, Err("the first answer, record 7, is wrong".to_string()));
    ask(Request::Open(opening.clone())).unwrap();
    assert_eq!(ask(Request::Open(opening)), Err("it is open".to_string()));
    ask(Request::SetMode(Mode::Durable)).unwrap();
    assert_eq!(ask(Request::Compact), Ok(serde_json::Value::Null));
    ask(Request::Close).unwrap();
}
