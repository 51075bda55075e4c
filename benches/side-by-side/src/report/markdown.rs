//! The report for people.

use super::{Report, Row, Section, Unit};

/// The whole report; its first line says where it comes from.
pub fn markdown(report: &Report) -> String {
    let mut lines = vec![report.machine.line(), String::new(), report.settings.clone()];
    for note in &report.notes {
        lines.push(String::new());
        lines.push(note.clone());
    }
    for section in &report.sections {
        lines.extend([String::new(), format!("## {}", section.title), String::new()]);
        lines.extend(table(section));
        if !section.notes.is_empty() {
            lines.push(String::new());
            lines.extend(section.notes.iter().map(|note| format!("- {note}")));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Padded, so that it can be read as it is.
fn table(section: &Section) -> Vec<String> {
    let mut head = vec![String::new()];
    head.extend(section.columns.iter().map(ToString::to_string));
    head.extend(section.ratio_names());
    let mut rows = vec![head];
    rows.extend(section.rows.iter().map(|row| cells(section, row)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") }
        });
        format!("|{}|", cells.collect::<Vec<_>>().join("|"))
    };
    let rule = widths
        .iter()
        .enumerate()
        .map(|(column, width)| if column == 0 { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) });
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.insert(1, format!("|{}|", rule.collect::<Vec<_>>().join("|")));
    lines
}

fn cells(section: &Section, row: &Row) -> Vec<String> {
    let mut cells = vec![row.name.clone()];
    cells
        .extend(row.cells.iter().map(|cell| cell.as_ref().map_or_else(|| "-".to_string(), |cell| cell.text(row.unit))));
    cells.extend(
        section.ratios_of(row).iter().map(|ratio| ratio.map_or_else(String::new, |ratio| Unit::Ratio.text(ratio))),
    );
    cells
}

#[cfg(test)]
mod tests {
    use super::super::Measured;
    use super::*;

    #[test]
    fn a_table() {
        let mut section = Section::engines("x");
        section.row("hits", Unit::PerSecond, [Some(Measured::once(1e6)), Some(Measured::once(2e6))]);
        let lines = table(&section);
        assert_eq!(lines[0], "|      |  tophash | hashbrown | heed | tophash / hashbrown | tophash / heed |");
        assert_eq!(lines[1], "|------|---------:|----------:|-----:|--------------------:|---------------:|");
        assert_eq!(lines[2], "| hits | 1.00 M/s |  2.00 M/s |    - |                0.50 |                |");
    }
}
