//! The findings about a recorded trace.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use tophash::doctor::{Advice, Severity};

use super::text;
use crate::output;
use crate::trace::profile::{Profile, Profiler};
use crate::trace::{read, rules};

/// A trace, diagnosed.
#[derive(Debug, Serialize)]
pub struct Workload {
    trace: String,
    advice: Vec<Advice>,
    #[serde(flatten)]
    profile: Profile,
}

impl Workload {
    /// Reads a trace to its end.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut profiler = Profiler::default();
        read::each(path, &mut |entry| profiler.add(entry))?;
        let profile = profiler.finish();
        Ok(Workload { trace: path.to_string_lossy().into_owned(), advice: rules::advice(&profile), profile })
    }

    /// The severity of the worst finding.
    pub fn worst(&self) -> Option<Severity> {
        self.advice.iter().map(|advice| advice.severity).max()
    }

    /// For a terminal: findings first, then the figures.
    pub fn text(&self) -> String {
        let p = &self.profile;
        let mut text = String::new();
        let (calls, time) = (output::some(p.calls, "call"), output::duration(p.micros.saturating_mul(1000)));
        let _ = writeln!(text, "{}: {calls} in {time}", self.trace);
        if self.advice.is_empty() {
            text.push_str("\nno findings about the workload\n");
        }
        for advice in &self.advice {
            text::finding(&mut text, advice, &advice.action);
        }
        let mut table = output::table(["calls", "number", "of them"]);
        let of = |number: u64, what: &str| {
            if number > 0 { format!("{} {what}", output::count(number)) } else { String::new() }
        };
        for (name, number, of_them) in [
            ("reads of one key", p.gets, of(p.lone_gets, "in long runs")),
            ("reads of several", p.get_many, String::new()),
            ("puts", p.puts, of(p.same_values, "of the value that was there")),
            ("removals of one key", p.removals, of(p.mass_removals, "in long runs")),
            ("removals of several", p.remove_many, String::new()),
            ("batches", p.batches, of(p.tiny_batches, "of one or two changes")),
            ("syncs", p.syncs, String::new()),
        ] {
            table.add_row([name.to_string(), output::count(number), of_them]);
        }
        output::align_right(&mut table, [1]);
        let _ = writeln!(text, "\n{table}");
        if p.keys_untold {
            text.push_str("(too many keys to tell all of them from each other)\n");
        }
        text
    }
}
