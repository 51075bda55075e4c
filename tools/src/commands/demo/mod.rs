//! `tophash demo`: the main job in one command, on real files.

mod report;
mod source;
mod steps;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use tophash::{Options, Store};

use crate::commands::verify;
use crate::exit::Outcome;
use crate::{argument, interrupt, output};

use report::Report;
use steps::Demo;

/// Store real files, read them back, change some, reopen, and check every byte
///
/// Stores every file of DIR (path -> contents), reads all back and compares byte by byte with the files, updates a
/// quarter and removes a fifth of the rest, closes, opens again, compares everything once more, and verifies the
/// store. Exit code 1 if anything differs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The folder; without it, the sources of the crates that this tool was built from, as cargo keeps them, or else
    /// the current folder
    dir: Option<PathBuf>,
    /// Keep the store at PATH, where nothing may be yet; without it, a temporary folder is used and removed
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
    /// Stop taking in files at this size, as in 512M
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = argument::byte_size)]
    max_bytes: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash demo
  tophash demo ~/src/linux --store linux.tophash";

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    let current = std::env::current_dir().context("find the current folder")?;
    let source = source::choose(args.dir.as_deref(), source::cargo_home().as_deref(), &current)?;
    let listing = source.list(args.max_bytes, args.store.as_deref());
    if listing.files.is_empty() {
        bail!("there are no files to store in {}", source.description);
    }
    // Held until the end of this function, which removes it, on every way out.
    let temporary = match args.store {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("tophash-demo-").tempdir().context("create a temporary folder")?),
    };
    let path = match (&args.store, &temporary) {
        (Some(path), _) => path.clone(),
        (None, Some(folder)) => folder.path().join("demo.tophash"),
        (None, None) => bail!("no place for the store"),
    };
    let mut report = Report::new(&source, &listing, &path, args.store.is_some());
    let mut demo = Demo::new(listing.files);
    carry_out(&mut demo, &mut report, &path)?;
    report.unreadable_files += demo.unreadable;
    report.changed_meanwhile = demo.changed_meanwhile;
    report.differences = demo.differences;
    report.differences_first = demo.differences_first;
    if args.json {
        output::emit_json(&report)?;
    } else {
        output::emit(&report.text())?;
    }
    Ok(if report.is_good() { Outcome::Yes } else { Outcome::No })
}

/// The steps in order. The store is opened twice; in between and at the end nothing has it open.
fn carry_out(demo: &mut Demo, report: &mut Report, path: &Path) -> anyhow::Result<()> {
    let store = Options::new().create_new(true).open(path)?;
    report.steps.push(demo.fill(&store)?);
    report.steps.push(demo.read_back("read back", &store)?);
    report.steps.push(demo.update(&store)?);
    report.steps.push(demo.remove(&store)?);
    let store = reopen(store, path, report)?;
    report.steps.push(demo.read_back("read after reopening", &store)?);
    report.steps.push(demo.walk(&store)?);
    report.records = store.len();
    store.close()?;

    let started = Instant::now();
    let verified = verify::check(path);
    interrupt::check()?;
    match verified {
        Ok(verified) => {
            report.findings = verified.findings_total;
            report.steps.push(steps::verified(&verified, started.elapsed()));
        }
        Err(error) if error.is_corruption() => {
            report.findings = 1;
            output::note(format_args!("tophash: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn reopen(store: Store, path: &Path, report: &mut Report) -> anyhow::Result<Store> {
    let started = Instant::now();
    store.close()?;
    report.close_seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let store = Options::new().create(false).open(path)?;
    report.open_seconds = started.elapsed().as_secs_f64();
    report.disk_bytes = store.disk_bytes()?;
    Ok(store)
}
