//! tophash beside its peers: the same keys, values and checks for all, in one run.
//!
//! The **coordinator** starts a **worker** process for an engine and asks it one thing after another; engines take turns
//! within each round, one process at a time, so that no engine's memory, allocator or background threads are another's.
//!
//! ```text
//! main         which of the two this process is
//! ├── arguments     the command line              ├── engine/     what is compared, behind one trait
//! ├── population    keys, values, the check       ├── worker/     carries out one request after another
//! ├── zipf          which of them are popular     ├── workloads/  the coordinator's plan, a file each
//! ├── protocol      requests and answers          ├── raw         the machine's own limits
//! ├── process       a worker seen from outside    ├── files       disk usage, dropping the page cache
//! ├── latency       histogram, clock cost         ├── report/     markdown, JSON, pictures
//! ├── machine       what the figures depend on    ├── section/    medians and ratios of what was measured
//! └── targets       what is aimed at, and whether it was reached
//! ```

mod arguments;
mod engine;
mod files;
mod interrupt;
mod latency;
mod machine;
mod pauses;
mod population;
mod process;
mod progress;
mod protocol;
mod raw;
mod report;
mod section;
mod targets;
mod worker;
mod workloads;
mod zipf;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use arguments::Arguments;
use progress::progress;
use workloads::Run;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.worker {
        Some(engine) => worker::serve(engine),
        None => {
            if let Err(reason) = arguments.check() {
                Arguments::command().error(ErrorKind::ValueValidation, reason).exit();
            }
            coordinate(arguments)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress!("tophash-peers: {error:#}");
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
    let pictures = arguments.svg.clone();
    if let Some(dir) = &pictures {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    }
    let report = Run::new(arguments)?.all()?;
    std::io::stdout().write_all(report.markdown().as_bytes())?;
    if let Some(file) = json {
        let mut file = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut file, &report.json())?;
        writeln!(file)?;
        file.flush()?;
    }
    if let Some(dir) = &pictures {
        report.sections.iter().try_for_each(|section| report::draw(section, dir))?;
    }
    match report.failures() {
        None => Ok(()),
        Some(failures) => anyhow::bail!("not everything could be measured:{failures}"),
    }
}
