//! What the project aims at, and whether this run has reached it: ratios of medians, computed from the run's own figures.

use serde::Serialize;

use crate::arguments::Workload;
use crate::engine::EngineName;
use crate::section::{Measured, Row, Section, Unit, row};

/// A target and what was reached.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// What is aimed at.
    pub target: String,
    /// How much.
    pub bound: String,
    /// What was reached; none if it was not measured.
    pub reached: Option<f64>,
    /// The same for people.
    pub reached_text: Option<String>,
    /// None if it was not measured.
    pub is_met: Option<bool>,
}

/// What a target is about.
enum Of {
    /// tophash's figure divided by the best persistent peer's.
    Best,
    /// tophash's figure divided by that of another column.
    Column(&'static str),
    /// tophash's figure divided by its own of another row.
    Row(&'static str),
    /// tophash's figure itself, the worst of the rounds.
    Figure,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Of::{Best, Column, Figure};

const HEED: Of = Column("heed");
const LIMIT: Of = Column(Section::LIMIT);
const US: f64 = 1e3;
const MS: f64 = 1e6;
const MIB: f64 = 1_048_576.0;

/// Workload, row, column, what, how much.
type Target = (Workload, &'static str, EngineName, Of, Bound);

fn targets() -> Vec<Target> {
    use EngineName::{Tophash, TophashEvery};
    use Workload::{Churn, Growth, Open, Redb, Small, Threads, Ycsb};
    vec![
        (Redb, row::HITS, Tophash, Column("hashbrown"), AtLeast(1.0)),
        (Redb, row::HITS, Tophash, Best, AtLeast(1.4)),
        (Redb, row::HITS, Tophash, HEED, AtLeast(3.0)),
        (Small, row::HITS, Tophash, Best, AtLeast(2.0)),
        (Redb, row::MANY, Tophash, Of::Row(row::HITS), AtLeast(2.0)),
        (Redb, row::ABSENT, Tophash, Best, AtLeast(1.0)),
        (Redb, row::ABSENT, Tophash, HEED, AtLeast(8.0)),
        (Redb, row::NOSYNC, Tophash, Best, AtLeast(2.0)),
        (Redb, row::NOSYNC, Tophash, HEED, AtLeast(10.0)),
        (Small, row::INSERTS, Tophash, Best, AtLeast(2.0)),
        (Growth, row::INSERTS, Tophash, Best, AtLeast(2.0)),
        (Growth, row::INSERTS, Tophash, HEED, AtLeast(10.0)),
        (Redb, row::REMOVE, Tophash, Best, AtLeast(2.0)),
        (Redb, row::DURABLE, Tophash, LIMIT, AtLeast(0.9)),
        (Redb, row::DURABLE, Tophash, Best, AtLeast(1.0)),
        (Redb, row::DURABLE_BATCHES, Tophash, Best, AtLeast(4.0)),
        (Threads, row::THREADS_8, Tophash, Of::Row(row::THREADS_1), AtLeast(3.0)),
        (Redb, row::BULK, Tophash, Best, AtLeast(1.7)),
        (Ycsb, "A operations", Tophash, Best, AtLeast(1.3)),
        (Ycsb, "B operations", Tophash, Best, AtLeast(1.3)),
        (Ycsb, "C operations", Tophash, Best, AtLeast(1.3)),
        (Ycsb, "F operations", Tophash, Best, AtLeast(1.3)),
        (Growth, "insert p99.9", TophashEvery, Figure, AtMost(8.0 * US)),
        (Growth, "insert p99.99", TophashEvery, Figure, AtMost(40.0 * US)),
        (Growth, "insert max", TophashEvery, Figure, AtMost(3.0 * MS)),
        (Growth, "insert max", TophashEvery, Best, AtMost(1.0)),
        (Churn, row::CHURN, Tophash, Best, AtLeast(1.2)),
        (Churn, row::CHURN_SIZE, Tophash, Figure, AtMost(1.5)),
        (Redb, row::COMPACTED, Tophash, Best, AtMost(1.0)),
        (Open, row::OPEN_WARM, Tophash, Figure, AtMost(MS)),
        (Open, row::OPEN_KILLED, Tophash, Figure, AtMost(1_000.0 * MS)),
        (Open, row::OPEN_KILLED_LATE, Tophash, Figure, AtMost(1_000.0 * MS)),
        (Open, row::LOST, Tophash, Figure, AtMost(0.0)),
        (Redb, row::BEYOND_INDEX, Tophash, Figure, AtMost(64.0 * MIB)),
        (Small, row::BEYOND_INDEX, Tophash, Figure, AtMost(64.0 * MIB)),
        (Growth, row::BEYOND_INDEX, Tophash, Figure, AtMost(64.0 * MIB)),
    ]
}

/// Holds the run against the targets. Those of workloads that were not asked for are not mentioned.
pub fn evaluate(sections: &[Section]) -> Vec<Verdict> {
    let verdict = |target: Target| {
        let section = sections.iter().find(|section| section.workload == target.0)?;
        Some(judge(section, &target))
    };
    targets().into_iter().filter_map(verdict).collect()
}

fn judge(section: &Section, (workload, name, engine, of, bound): &Target) -> Verdict {
    let row = section.row(name);
    let reached = row.and_then(|row| reached(section, row, *engine, of));
    let unit = match of {
        Figure => row.map_or(Unit::Ratio, |row| row.unit),
        _ => Unit::Ratio,
    };
    let with = match of {
        Best => row.and_then(|row| section.best_peer(row)).map(|(peer, _)| format!(" ({peer})")),
        _ => None,
    };
    let text = |value: f64| unit.text(value);
    let of_what = match of {
        Best => " x the best persistent peer".to_string(),
        Column(column) => format!(" x {column}"),
        Of::Row(row) => format!(" x {row}"),
        Figure => String::new(),
    };
    let (bound_text, is_met) = match *bound {
        AtLeast(least) => (format!("at least {}{of_what}", text(least)), reached.map(|reached| reached >= least)),
        AtMost(most) => (format!("at most {}{of_what}", text(most)), reached.map(|reached| reached <= most)),
    };
    let column = if *engine == EngineName::Tophash { String::new() } else { format!(" ({engine})") };
    Verdict {
        target: format!("{}: {name}{column}", workload.name()),
        bound: bound_text,
        reached,
        reached_text: reached.map(|reached| format!("{}{}", text(reached), with.unwrap_or_default())),
        is_met,
    }
}

fn reached(section: &Section, row: &Row, engine: EngineName, of: &Of) -> Option<f64> {
    match of {
        Best => section.over_best(row, engine.name()).map(|comparison| comparison.ratio),
        Column(column) => section.over(row, engine.name(), column).map(|comparison| comparison.ratio),
        Of::Row(other) => {
            let other = section.cell(section.row(other)?, engine.name())?;
            Measured::ratio(section.cell(row, engine.name())?, other)
        }
        Figure => section.cell(row, engine.name()).map(|cell| cell.max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_comes_from_the_figures() {
        let mut section = Section::new(Workload::Redb, EngineName::all());
        assert!(evaluate(&[]).is_empty());
        assert!(evaluate(std::slice::from_ref(&section)).iter().all(|verdict| verdict.is_met.is_none()));
        for (column, rate) in [("tophash", 2.0), ("heed", 0.5), ("fjall", 1.0), ("hashbrown", 3.0)] {
            section.push(row::HITS, Unit::PerSecond, column, rate);
        }
        let verdicts = evaluate(&[section]);
        let met: Vec<_> =
            verdicts.iter().take(3).map(|verdict| (verdict.reached_text.clone(), verdict.is_met)).collect();
        let text = |text: &str| Some(text.to_string());
        assert_eq!(met, [(text("0.67"), Some(false)), (text("2.00 (fjall)"), Some(true)), (text("4.00"), Some(true))]);
    }

    #[test]
    fn figures_are_judged_by_their_worst_round() {
        let mut section = Section::new(Workload::Growth, EngineName::all());
        for nanos in [1e3, 9e3, 1e3] {
            section.push("insert p99.9", Unit::Nanos, "tophash-100ms", nanos);
        }
        let verdicts = evaluate(&[section]);
        let verdict = verdicts.iter().find(|verdict| verdict.target.contains("p99.9")).unwrap();
        assert_eq!((verdict.bound.as_str(), verdict.is_met), ("at most 8.00 us", Some(false)));
    }
}
