//! Full stores, one per engine, that several sections look at.

use super::Run;
use crate::engine::EngineName;
use crate::files;
use crate::process::Worker;
use crate::progress::progress;
use crate::protocol::{Figures, Fill, Filled, Peak, Request};

/// The stores' purpose, which is part of their name.
pub const PURPOSE: &str = "base";

/// Open engines with all records in them.
pub struct Base {
    /// One process for each of [`EngineName::ALL`].
    pub workers: Vec<Worker>,
    sizes: Vec<Sizes>,
}

/// What an engine took while it was filled, and after.
#[derive(Clone)]
pub struct Sizes {
    /// Anonymous memory of the process with an empty store.
    pub anonymous_bytes_empty: u64,
    /// During the fill.
    pub peak: Peak,
    /// After it, when all work in the background was done.
    pub settled: Figures,
    /// Blocks of its files, closed; none if it has no files.
    pub disk_bytes: Option<u64>,
}

impl Base {
    /// Fills them: one by one, LMDB in batches.
    pub fn fill(run: &Run) -> anyhow::Result<Self> {
        let (mut workers, mut sizes) = (Vec::new(), Vec::new());
        for engine in EngineName::ALL {
            progress!("{}: filling the store for reads, sizes and opens", engine.name());
            let (mut worker, _) = run.start(engine, run.opening(engine, PURPOSE))?;
            let empty: Figures = worker.ask(&Request::Settle)?;
            let filled: Filled = worker.ask(&Request::Fill(Fill {
                records: run.arguments.records,
                batch: if engine == EngineName::Heed { run.arguments.batch } else { 1 },
                is_timed: false,
                is_watched: true,
                seconds_max: None,
            }))?;
            let settled: Figures = worker.ask(&Request::Settle)?;
            anyhow::ensure!(
                settled.records == run.arguments.records,
                "{}: {} records were inserted, it says that it has {}",
                engine.name(),
                run.arguments.records,
                settled.records
            );
            let peak = filled.peak.unwrap_or_default();
            sizes.push(Sizes { anonymous_bytes_empty: empty.anonymous_bytes, peak, settled, disk_bytes: None });
            workers.push(worker);
        }
        Ok(Base { workers, sizes })
    }

    /// Closes the stores; their files stay.
    pub fn close(self, run: &Run) -> anyhow::Result<Vec<Sizes>> {
        let mut sizes = self.sizes;
        for ((engine, worker), sizes) in EngineName::ALL.into_iter().zip(self.workers).zip(&mut sizes) {
            worker.close()?;
            if engine.is_persistent() {
                sizes.disk_bytes = Some(files::allocated_bytes(&run.path(engine, PURPOSE))?);
            }
        }
        Ok(sizes)
    }
}
