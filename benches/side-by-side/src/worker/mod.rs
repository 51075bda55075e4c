//! A process that has one engine open and carries out one request after another.

mod durable;
mod fill;
mod interval;
mod read;
mod threads;

use std::io::{BufRead, Write};
use std::time::Instant;

pub use self::read::MANY;
use anyhow::{Context, ensure};
use serde_json::{Value, to_value};

use crate::engine::{Engine, EngineName, HashMapEngine, LmdbEngine, Reader, TophashEngine};
use crate::machine;
use crate::population::Population;
use crate::protocol::{Answer, Opened, Opening, Request};

/// Serves requests from stdin until it is closed.
pub fn serve(engine: EngineName, population: Population) -> anyhow::Result<()> {
    match engine {
        EngineName::Tophash => serve_engine::<TophashEngine>(population),
        EngineName::Hashbrown => serve_engine::<HashMapEngine>(population),
        EngineName::Heed => serve_engine::<LmdbEngine>(population),
    }
}

fn serve_engine<E: Engine>(population: Population) -> anyhow::Result<()> {
    let mut engine: Option<E> = None;
    for line in std::io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let answer: Answer = carry_out(&mut engine, population, request).map_err(|error| format!("{error:#}"));
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        std::io::stdout().write_all(text.as_bytes())?;
    }
    Ok(())
}

fn carry_out<E: Engine>(engine: &mut Option<E>, population: Population, request: Request) -> anyhow::Result<Value> {
    if let Request::Open(opening) = request {
        ensure!(engine.is_none(), "it is open");
        let (opened, answer) = open::<E>(population, &opening)?;
        *engine = Some(opened);
        return Ok(to_value(answer)?);
    }
    if matches!(request, Request::Close) {
        engine.take().map_or(Ok(()), E::close)?;
        return Ok(Value::Null);
    }
    let engine = engine.as_mut().context("it is not open")?;
    Ok(match request {
        Request::Open(_) | Request::Close => Value::Null,
        Request::Fill(fill) => to_value(fill::fill(engine, population, fill)?)?,
        Request::Settle => {
            engine.settle()?;
            let mut figures = engine.figures()?;
            figures.anonymous_bytes = machine::anonymous_bytes();
            to_value(figures)?
        }
        Request::Read(read) => to_value(read::read(engine, population, read)?)?,
        Request::Durable(durable) => to_value(durable::write(engine, population, durable)?)?,
        Request::FillInterval(interval) => to_value(interval::fill(engine, population, interval)?)?,
    })
}

/// Opens and reads the first answer. The time from one to the other is what a user waits for.
fn open<E: Engine>(population: Population, opening: &Opening) -> anyhow::Result<(E, Opened)> {
    let mut key = population.key_buffer();
    if let Some(counter) = opening.first_answer {
        population.key(counter, &mut key);
    }
    let started = Instant::now();
    let engine = E::open(opening)?;
    if let Some(counter) = opening.first_answer {
        let is_right = |value: Option<&[u8]>| value.is_some_and(|value| population.is_value(counter, value));
        ensure!(engine.reader()?.get(&key, is_right)?, "the first answer, record {counter}, is wrong");
    }
    let nanos = u64::try_from(started.elapsed().as_nanos())?;
    let replayed = engine.replayed();
    Ok((engine, Opened { nanos, replayed }))
}
