//! Ctrl-C: the coordinator stays long enough to end its workers and remove its files.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT, SIGTERM and SIGHUP set a flag that [`check`] looks at; the second one ends the process.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// An error once the user asked to stop.
pub fn check() -> anyhow::Result<()> {
    anyhow::ensure!(!REQUESTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
