//! The report for people.

use super::Report;
use crate::section::{Measured, Row, Section, Unit};
use crate::targets::Verdict;

/// The whole report; its first line says where it comes from.
pub fn markdown(report: &Report) -> String {
    let mut lines = vec![report.machine.line(), String::new(), report.settings.clone()];
    if !report.targets.is_empty() {
        lines.extend([String::new(), "## Targets".to_string(), String::new()]);
        lines.extend(padded(&targets(&report.targets), 2));
    }
    for section in &report.sections {
        let (key_bytes, value_bytes) = section.workload.shape();
        let shape =
            if section.columns == [Section::MACHINE] { String::new() } else { format!(" ({key_bytes}/{value_bytes})") };
        lines.extend([String::new(), format!("## {}{shape}", section.workload.name()), String::new()]);
        lines.extend(table(section));
        lines.push(String::new());
        lines.extend(section.notes.iter().map(|note| format!("- {note}")));
    }
    lines.extend([String::new(), "## Engines".to_string(), String::new()]);
    lines.extend(report.engines.iter().map(|(engine, version, settings)| format!("- {engine} {version}: {settings}")));
    lines.push(String::new());
    lines.join("\n")
}

fn targets(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let head = ["target", "", "reached", ""].map(str::to_string).to_vec();
    let rows = verdicts.iter().map(|verdict| {
        let is_met = match verdict.is_met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "not measured",
        };
        let reached = verdict.reached_text.clone().unwrap_or_else(|| "-".to_string());
        vec![verdict.target.to_string(), verdict.bound.clone(), reached, is_met.to_string()]
    });
    std::iter::once(head).chain(rows).collect()
}

fn table(section: &Section) -> Vec<String> {
    let mut head = vec![String::new()];
    head.extend(section.columns.iter().map(ToString::to_string));
    // Which ratios there are does not depend on the row.
    let names = section.rows.first().map(|row| section.comparisons(row)).unwrap_or_default();
    head.extend(names.iter().map(|(name, _)| format!("/ {name}")));
    let mut rows = vec![head];
    rows.extend(section.rows.iter().map(|row| cells(section, row)));
    padded(&rows, 1)
}

/// A table that can be read as it is; so many columns are flush left, the others flush right.
fn padded(rows: &[Vec<String>], left: usize) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<_> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < left { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") }
        });
        format!("|{}|", cells.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.iter().enumerate().map(|(column, width)| {
        if column < left { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) }
    });
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.insert(1.min(lines.len()), format!("|{}|", rule.collect::<Vec<_>>().join("|")));
    lines
}

fn cells(section: &Section, row: &Row) -> Vec<String> {
    let mut cells = vec![row.name.clone()];
    let text = |cell: &Measured| if cell.is_empty() { "-".to_string() } else { cell.text(row.unit) };
    cells.extend(row.cells.iter().map(text));
    cells.extend(section.comparisons(row).iter().map(|(name, comparison)| match comparison {
        Some(comparison) if *name == "best" => format!("{} {}", Unit::Ratio.text(comparison.ratio), comparison.with),
        Some(comparison) => Unit::Ratio.text(comparison.ratio),
        None => String::new(),
    }));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Workload;
    use crate::engine::EngineName;

    #[test]
    fn a_table() {
        let mut section =
            Section::new(Workload::Small, &[EngineName::Tophash, EngineName::Hashbrown, EngineName::Heed]);
        section.push("hits", Unit::PerSecond, "tophash", 1e6);
        section.push("hits", Unit::PerSecond, "hashbrown", 2e6);
        section.remark("hits", "hashbrown", "half".to_string());
        let lines = table(&section);
        assert_eq!(lines[0], "|      |  tophash |       hashbrown | heed | / best | / heed | / hashbrown |");
        assert_eq!(lines[1], "|------|---------:|----------------:|-----:|-------:|-------:|------------:|");
        assert_eq!(lines[2], "| hits | 1.00 M/s | 2.00 M/s (half) |    - |        |        |        0.50 |");
        section.push("hits", Unit::PerSecond, "heed", 5e5);
        assert!(table(&section)[2].contains("| 2.00 heed |   2.00 |        0.50 |"), "{}", table(&section)[2]);
    }
}
