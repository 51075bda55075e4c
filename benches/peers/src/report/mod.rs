//! The report: what was measured and what was aimed at, as markdown, JSON and pictures.

mod markdown;
mod picture;

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

pub use picture::draw;

use crate::engine::EngineName;
use crate::machine::Machine;
use crate::section::{Row, Section};
use crate::targets::Verdict;

/// Everything that was measured.
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What was asked for, for people.
    pub settings: String,
    /// Where random numbers began.
    pub seed: u64,
    /// Engines with their versions and settings.
    pub engines: Vec<(EngineName, String, String)>,
    /// In the order in which they were measured.
    pub sections: Vec<Section>,
    /// What was aimed at, and what was reached.
    pub targets: Vec<Verdict>,
}

impl Report {
    /// For people.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// Which engines failed, if any did.
    pub fn failures(&self) -> Option<String> {
        let mut text = String::new();
        for section in &self.sections {
            for (engine, error) in &section.failures {
                let _ = write!(text, "\n{}: {engine}: {error}", section.workload.name());
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// For programs, with the figures of single rounds.
    pub fn json(&self) -> Value {
        let sections = self.sections.iter().map(|section| {
            let rows = section.rows.iter().map(|row| row_json(section, row));
            json!({
                "workload": section.workload.name(),
                "rows": rows.collect::<Vec<_>>(),
                "notes": section.notes,
                "failures": section.failures,
            })
        });
        let engines = self.engines.iter().map(
            |(engine, version, settings)| json!({ "name": engine.name(), "version": version, "settings": settings }),
        );
        json!({
            "machine": self.machine,
            "settings": self.settings,
            "seed": self.seed,
            "engines": engines.collect::<Vec<_>>(),
            "sections": sections.collect::<Vec<_>>(),
            "targets": self.targets,
        })
    }
}

fn row_json(section: &Section, row: &Row) -> Value {
    let cells: Map<_, _> = section
        .columns
        .iter()
        .zip(&row.cells)
        .filter(|(_, cell)| !cell.is_empty())
        .map(|(column, cell)| (column.to_string(), cell.json()))
        .collect();
    let ratios: Map<_, _> = section
        .comparisons(row)
        .into_iter()
        .filter_map(|(name, comparison)| {
            let comparison = comparison?;
            Some((name.to_string(), json!({ "ratio": comparison.ratio, "with": comparison.with })))
        })
        .collect();
    json!({ "name": row.name, "unit": row.unit.name(), "figures": cells, "ratios": ratios })
}
