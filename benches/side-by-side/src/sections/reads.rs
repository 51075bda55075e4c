//! Random reads, every answer checked byte by byte.

use super::Run;
use super::base::Base;
use crate::engine::EngineName;
use crate::progress::progress;
use crate::protocol::{Read, ReadKind, Request, Timed};
use crate::report::{Measured, Section, Unit};
use crate::worker::MANY;

/// One row's rates, by engine.
#[derive(Default)]
struct Rates([Measured; 3]);

impl Rates {
    fn cells(&self) -> Vec<Option<Measured>> {
        self.0.iter().map(|rates| rates.clone().some()).collect()
    }
}

const PLAN: [(&str, ReadKind, u64); 4] = [
    ("hits, 1 thread", ReadKind::Hits, 1),
    ("hits, 2 threads", ReadKind::Hits, 2),
    ("absent keys, 1 thread", ReadKind::Absent, 1),
    ("hits, 32 in a call", ReadKind::Many, 1),
];

/// Reads from full stores.
pub fn measure(run: &Run, base: &mut Base) -> anyhow::Result<Section> {
    let arguments = &run.arguments;
    let mut rates: [Rates; PLAN.len()] = Default::default();
    let mut nothing = Measured::default();
    // The first round warms caches and TLBs and does not count.
    for round in 0..=arguments.rounds {
        progress!("reads: round {round} of {}", arguments.rounds);
        for ((_, kind, threads), rates) in PLAN.into_iter().zip(&mut rates) {
            for (i, worker) in base.workers.iter_mut().enumerate() {
                let timed: Timed = worker.ask(&read(run, kind, threads, round))?;
                if round > 0 {
                    rates.0[i].push(timed.rate());
                }
            }
        }
        let timed: Timed = base.workers[0].ask(&read(run, ReadKind::Nothing, 1, round))?;
        if round > 0 {
            nothing.push(1e9 / timed.rate());
        }
    }

    let mut section = Section::engines("Random reads");
    let [one, two, ..] = &rates;
    let speedup = one.0.iter().zip(&two.0).map(|(one, two)| Measured::ratios(two, one)).collect::<Vec<_>>();
    for ((name, _, threads), rates) in PLAN.into_iter().zip(&rates) {
        section.row(name, Unit::PerSecond, rates.cells());
        if threads == 2 {
            section.row("... 2 threads / 1 thread", Unit::Ratio, speedup.clone());
        }
    }
    section.note(format!(
        "{} reads a round and thread, from {} records; every byte of every value is compared. Deriving the key and \
         comparing take {} of each read, in every column",
        arguments.reads,
        arguments.records,
        Unit::Nanos.text(nothing.median())
    ));
    section.note("tophash also verifies each record's checksum; heed reads in one long transaction per thread");
    section.note(format!(
        "{MANY} in a call: tophash's get_many; {} have no such call and get single ones in a loop",
        [EngineName::Hashbrown.name(), EngineName::Heed.name()].join(" and ")
    ));
    Ok(section)
}

fn read(run: &Run, kind: ReadKind, threads: u64, round: u64) -> Request {
    // The same keys for every engine, others in every round.
    Request::Read(Read { kind, records: run.arguments.records, threads, reads: run.arguments.reads, seed: round })
}
