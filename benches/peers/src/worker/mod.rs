//! A process that has one engine open and carries out one request after another.

mod change;
mod churn;
#[cfg(test)]
mod liar;
mod mixed;
mod read;
mod survive;
mod threads;
mod ycsb;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

pub use self::survive::read_progress;
use anyhow::{Context, ensure};
use serde_json::{Value, to_value};

#[cfg(feature = "rocksdb")]
use crate::engine::RocksdbEngine;
use crate::engine::{
    CandyEngine, Engine, EngineName, FjallEngine, HashMapEngine, LmdbEngine, Reader, RedbEngine, SledEngine,
    TophashEngine,
};
use crate::population::Population;
use crate::protocol::{Answer, Figures, Opened, Opening, Request};
use crate::{files, machine};

/// Serves requests from stdin until it is closed.
pub fn serve(engine: EngineName) -> anyhow::Result<()> {
    // A writer that waits to be killed would go on for ever if the coordinator was killed before.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    match engine {
        EngineName::Tophash => serve_engine::<TophashEngine<false>>(),
        EngineName::TophashEvery => serve_engine::<TophashEngine<true>>(),
        EngineName::Heed => serve_engine::<LmdbEngine>(),
        EngineName::Redb => serve_engine::<RedbEngine>(),
        EngineName::Fjall => serve_engine::<FjallEngine>(),
        EngineName::Candystore => serve_engine::<CandyEngine<true>>(),
        EngineName::CandystoreNc => serve_engine::<CandyEngine<false>>(),
        EngineName::Sled => serve_engine::<SledEngine>(),
        #[cfg(feature = "rocksdb")]
        EngineName::Rocksdb => serve_engine::<RocksdbEngine>(),
        EngineName::Hashbrown => serve_engine::<HashMapEngine>(),
    }
}

/// An open engine and how it was opened.
struct Session<E> {
    engine: E,
    opening: Opening,
}

fn serve_engine<E: Engine>() -> anyhow::Result<()> {
    let mut session: Option<Session<E>> = None;
    for line in std::io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let answer: Answer = carry_out(&mut session, request).map_err(|error| format!("{error:#}"));
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        std::io::stdout().write_all(text.as_bytes())?;
    }
    Ok(())
}

fn carry_out<E: Engine>(session: &mut Option<Session<E>>, request: Request) -> anyhow::Result<Value> {
    // These change which engine is open, if one is.
    match request {
        Request::Open(opening) => {
            ensure!(session.is_none(), "it is open");
            let (opened, answer) = open::<E>(opening)?;
            *session = Some(opened);
            return Ok(to_value(answer)?);
        }
        Request::SetMode(mode) => {
            let Session { engine, opening } = session.take().context("it is not open")?;
            let opening = Opening { mode, ..opening };
            *session = Some(Session { engine: engine.set_mode(&opening)?, opening });
            return Ok(Value::Null);
        }
        Request::Compact => {
            let Session { engine, opening } = session.take().context("it is not open")?;
            let started = Instant::now();
            let (engine, is_done) = engine.compact(&opening)?;
            let seconds = started.elapsed().as_secs_f64();
            *session = Some(Session { engine, opening });
            return Ok(to_value(is_done.then_some(seconds))?);
        }
        Request::Close => {
            let started = Instant::now();
            session.take().map_or(Ok(()), |session| session.engine.close())?;
            return Ok(to_value(started.elapsed().as_secs_f64())?);
        }
        _ => {}
    }
    let Session { engine, opening } = session.as_ref().context("it is not open")?;
    let population = opening.population;
    Ok(match request {
        Request::Insert(insert) => to_value(change::insert(engine, population, insert)?)?,
        Request::Remove(remove) => to_value(change::remove(engine, population, remove)?)?,
        Request::Sync => {
            let started = Instant::now();
            engine.sync()?;
            to_value(started.elapsed().as_secs_f64())?
        }
        Request::Settle => {
            engine.settle()?;
            to_value(figures(engine, opening.path.clone())?)?
        }
        Request::Read(read) => to_value(read::read(engine, population, read)?)?,
        Request::Ycsb(ycsb) => to_value(ycsb::run(engine, population, ycsb)?)?,
        Request::Churn(churn) => to_value(churn::churn(engine, population, churn)?)?,
        Request::CheckChurn(churn) => to_value(churn::check(engine, population, churn)?)?,
        Request::Mixed(mixed) => to_value(mixed::run(engine, population, mixed)?)?,
        Request::WriteUntilKilled(write) => survive::write(engine, population, &write)?,
        Request::Find(find) => to_value(survive::find(engine, population, find)?)?,
        Request::Open(_) | Request::SetMode(_) | Request::Compact | Request::Close => Value::Null,
    })
}

fn figures<E: Engine>(engine: &E, path: PathBuf) -> anyhow::Result<Figures> {
    let mut figures = engine.figures()?;
    figures.anonymous_bytes = machine::anonymous_bytes();
    if path.exists() {
        figures.disk_bytes = files::allocated_bytes(&path)?;
    }
    Ok(figures)
}

/// Opens and reads the first answer. The time from one to the other is what a user waits for.
fn open<E: Engine>(opening: Opening) -> anyhow::Result<(Session<E>, Opened)> {
    let population: Population = opening.population;
    let mut key = population.key_buffer();
    if let Some(counter) = opening.first_answer {
        population.key(counter, &mut key);
    }
    let started = Instant::now();
    let engine = E::open(&opening)?;
    if let Some(counter) = opening.first_answer {
        let is_right = |value: Option<&[u8]>| value.is_some_and(|value| population.is_value(counter, value));
        ensure!(engine.reader()?.get(&key, is_right)?, "the first answer, record {counter}, is wrong");
    }
    let nanos = u64::try_from(started.elapsed().as_nanos())?;
    let replayed = engine.replayed();
    Ok((Session { engine, opening }, Opened { nanos, replayed }))
}
