//! Opening a store that was closed, until the first answer.

use super::Run;
use super::base::PURPOSE;
use crate::engine::EngineName;
use crate::files;
use crate::progress::progress;
use crate::protocol::Opening;
use crate::report::{Measured, Section, Unit};

/// Times each store is opened, warm and cold.
const TIMES: u64 = 5;

/// Opens the base stores.
pub fn measure(run: &Run) -> anyhow::Result<Section> {
    let (mut warm, mut cold): ([Measured; 3], [Measured; 3]) = Default::default();
    for time in 0..TIMES {
        progress!("open: {} of {TIMES}", time + 1);
        for (i, engine) in EngineName::ALL.into_iter().enumerate().filter(|(_, engine)| engine.is_persistent()) {
            let opening = || Opening {
                // Another record each time: its page is not always the same.
                first_answer: Some(time * run.arguments.records / TIMES),
                ..run.opening(engine, PURPOSE)
            };
            warm[i].push(open(run, engine, opening())?);
            files::drop_from_cache(&run.path(engine, PURPOSE))?;
            cold[i].push(open(run, engine, opening())?);
        }
    }
    let mut section = Section::engines("Open after a clean close, until the first answer");
    section.row("warm", Unit::Nanos, warm.map(Measured::some));
    section.row("cold", Unit::Nanos, cold.map(Measured::some));
    section.note(format!(
        "{} records, {TIMES} times, each in a new process; from the call to a value read and compared",
        run.arguments.records
    ));
    section.note("cold: the files' pages were dropped from the page cache; the disk's own cache is as it is");
    Ok(section)
}

fn open(run: &Run, engine: EngineName, opening: Opening) -> anyhow::Result<f64> {
    let (worker, opened) = run.start(engine, opening)?;
    worker.close()?;
    Ok(opened.nanos as f64)
}
