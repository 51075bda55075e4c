//! tophash beside `hashbrown::HashMap` and LMDB: the same keys, values and checks in one run.
//!
//! The **coordinator** starts one **worker** process per engine and asks them in turn, one question at a time, so that
//! rounds of different engines alternate while no engine's memory, allocator or background threads are another's.
//!
//! ```text
//! main         which of the two this process is
//! ├── arguments     the command line              ├── engine/     what is compared, behind one trait
//! ├── population    keys, values, the check       ├── worker/     carries out one request after another
//! ├── protocol      requests and answers          ├── sections/   the coordinator's plan, a file per topic
//! ├── process       a worker seen from outside    ├── raw         the disk's own limit for durable writes
//! ├── latency       histogram, clock cost         ├── files       disk usage, dropping the page cache
//! └── machine       what the figures depend on    └── report      medians, ratios, markdown, JSON
//! ```

mod arguments;
mod engine;
mod files;
mod interrupt;
mod latency;
mod machine;
mod population;
mod process;
mod progress;
mod protocol;
mod raw;
mod report;
mod sections;
mod worker;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use arguments::Arguments;
use progress::progress;
use sections::Run;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.worker {
        Some(engine) => worker::serve(engine, arguments.population()),
        None => coordinate(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress!("tophash-side-by-side: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn coordinate(arguments: Arguments) -> anyhow::Result<()> {
    interrupt::install()?;
    // Opened first: that the file cannot be written should not turn out after an hour.
    let json = match &arguments.json {
        Some(path) => Some(File::create(path).with_context(|| format!("cannot create {}", path.display()))?),
        None => None,
    };
    let report = Run::new(arguments)?.all()?;
    std::io::stdout().write_all(report.markdown().as_bytes())?;
    if let Some(file) = json {
        let mut file = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut file, &report.json())?;
        writeln!(file)?;
        file.flush()?;
    }
    Ok(())
}
