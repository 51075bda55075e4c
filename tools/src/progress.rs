//! Progress bars. indicatif draws them on stderr and only where that is a terminal.

use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tophash::Progress;

use crate::interrupt;

/// A bar that counts records.
pub fn records(total: u64, what: &'static str) -> ProgressBar {
    bar(Some(total), what, "{msg} [{bar:32}] {human_pos}/{human_len} ({per_sec}, {eta} left)")
}

/// A bar that counts bytes; a spinner where nobody knows how many there will be.
pub fn bytes(total: Option<u64>, what: &'static str) -> ProgressBar {
    let template = if total.is_some() {
        "{msg} [{bar:32}] {binary_bytes}/{binary_total_bytes} ({binary_bytes_per_sec}, {eta} left)"
    } else {
        "{msg} {spinner} {binary_bytes} ({binary_bytes_per_sec})"
    };
    bar(total, what, template)
}

/// Moves a bar as far as the work has come; ends the work once the user asked to stop.
pub fn follow(bar: &ProgressBar) -> impl FnMut(Progress) -> ControlFlow<()> {
    |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A line that says what is going on and does not move.
pub fn waiting(what: String) -> ProgressBar {
    bar(None, "", "{msg} ...").with_message(what)
}

fn bar(total: Option<u64>, what: &'static str, template: &str) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_message(what);
    // Also where an error or a closed pipe ends the work: messages begin on a line of their own.
    let bar = bar.with_finish(ProgressFinish::AndClear);
    // A template that does not parse would be a mistake here; the default bar is better than an error there.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        for template in ["{human_pos}", "{binary_bytes} {binary_total_bytes} {binary_bytes_per_sec} {eta} {bar:32}"] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        records(3, "a").finish_and_clear();
        bytes(None, "b").finish_and_clear();
    }
}
