//! Ctrl-C: the first one lets long work stop at a good place, the second one ends the process.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Interrupted;
use crate::output;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALL: Once = Once::new();

/// From here on SIGINT, SIGTERM and SIGHUP set a flag that [`check`] looks at. Commands that clean up after
/// themselves call this; the others just die, which no store minds.
pub fn install() {
    INSTALL.call_once(|| {
        let installed = ctrlc::set_handler(|| {
            if REQUESTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        if let Err(error) = installed {
            output::note(format_args!("tophash: cannot catch Ctrl-C ({error}); it will end the command at once"));
        }
    });
}

/// True once the user asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error once the user asked to stop, for loops that have nothing to say about how far they got.
pub fn check() -> Result<(), Interrupted> {
    if requested() { Err(Interrupted(String::new())) } else { Ok(()) }
}
