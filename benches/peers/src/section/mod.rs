//! What was measured: sections of rows of cells, and how an engine's figure compares with others.

mod figure;
pub mod row;

pub use figure::{Measured, Unit};

use crate::arguments::Workload;
use crate::engine::EngineName;

/// A table.
pub struct Section {
    /// What was measured.
    pub workload: Workload,
    /// Names of the columns of figures.
    pub columns: Vec<&'static str>,
    /// The figures.
    pub rows: Vec<Row>,
    /// Curves for the picture: the column's name and its points, those of the last round.
    pub curves: Vec<(&'static str, Vec<(f64, f64)>)>,
    /// What a reader has to know.
    pub notes: Vec<String>,
    /// Engines that failed, and how.
    pub failures: Vec<(EngineName, String)>,
}

/// Figures of the same thing.
pub struct Row {
    /// What.
    pub name: String,
    /// In what.
    pub unit: Unit,
    /// One for each column of the section; empty if it was not measured.
    pub cells: Vec<Measured>,
}

/// tophash compared with something.
pub struct Comparison {
    /// With what.
    pub with: &'static str,
    /// tophash's figure divided by the other one.
    pub ratio: f64,
}

/// Columns that tophash is divided by, beside the best peer.
const COMPARED: [&str; 3] = ["heed", "hashbrown", Section::LIMIT];

impl Section {
    /// The column of what the machine itself can do, right now.
    pub const LIMIT: &'static str = "limit";
    /// The only column of a section without engines.
    pub const MACHINE: &'static str = "machine";

    /// A table with a column for each engine.
    pub fn new(workload: Workload, engines: &[EngineName]) -> Self {
        let mut columns: Vec<_> = engines.iter().map(|engine| engine.name()).collect();
        if matches!(workload, Workload::Redb | Workload::Threads) {
            columns.push(Self::LIMIT);
        }
        let (rows, curves, notes, failures) = Default::default();
        Section { workload, columns, rows, curves, notes, failures }
    }

    /// A table of the machine alone.
    pub fn of_machine(workload: Workload) -> Self {
        Section { columns: vec![Self::MACHINE], ..Section::new(workload, &[]) }
    }

    /// Adds a round's figure; makes the row if there is none. A column that the section does not have is none to fill.
    pub fn push(&mut self, name: &str, unit: Unit, column: &str, value: f64) {
        if let Some(cell) = self.cell_mut(name, unit, column) {
            cell.push(value);
        }
    }

    /// Adds a few words beside a figure.
    pub fn remark(&mut self, name: &str, column: &str, remark: String) {
        if let Some(cell) = self.cell_mut(name, Unit::Count, column) {
            cell.remark(remark);
        }
    }

    /// Adds a curve in place of the column's last one.
    pub fn curve(&mut self, column: &'static str, points: Vec<(f64, f64)>) {
        self.curves.retain(|curve| curve.0 != column);
        self.curves.push((column, points));
    }

    /// Adds a note, once.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Adds a note in front.
    pub fn note_first(&mut self, note: String) {
        self.notes.insert(0, note);
    }

    /// An engine could not do its part.
    pub fn fail(&mut self, engine: EngineName, error: &str) {
        self.failures.push((engine, error.to_string()));
        self.note(format!("**{engine} failed**: {error}"));
    }

    fn cell_mut(&mut self, name: &str, unit: Unit, column: &str) -> Option<&mut Measured> {
        let column = self.columns.iter().position(|known| *known == column)?;
        let row = match self.rows.iter().position(|row| row.name == name) {
            Some(row) => row,
            None => {
                let cells = vec![Measured::default(); self.columns.len()];
                self.rows.push(Row { name: name.to_string(), unit, cells });
                self.rows.len() - 1
            }
        };
        Some(&mut self.rows[row].cells[column])
    }

    /// A row.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// A figure that was measured.
    pub fn cell<'r>(&self, row: &'r Row, column: &str) -> Option<&'r Measured> {
        let column = self.columns.iter().position(|known| *known == column)?;
        Some(&row.cells[column]).filter(|cell| !cell.is_empty())
    }

    /// The best persistent peer of a row; in a row of durable writes, the best of those whose writes are.
    pub fn best_peer<'r>(&self, row: &'r Row) -> Option<(&'static str, &'r Measured)> {
        let peers = EngineName::all()
            .iter()
            .filter(|engine| engine.is_peer() && (engine.is_durable() || !row.name.contains("durable")));
        let figures = peers.filter_map(|engine| Some((engine.name(), self.cell(row, engine.name())?)));
        figures.max_by(|(_, one), (_, other)| {
            let order = one.median().total_cmp(&other.median());
            if row.unit.is_rate() { order } else { order.reverse() }
        })
    }

    /// An engine's figure of a row divided by the best peer's.
    pub fn over_best(&self, row: &Row, engine: &str) -> Option<Comparison> {
        let (with, best) = self.best_peer(row)?;
        Some(Comparison { with, ratio: Measured::ratio(self.cell(row, engine)?, best)? })
    }

    /// An engine's figure of a row divided by another column's.
    pub fn over(&self, row: &Row, engine: &str, with: &'static str) -> Option<Comparison> {
        Some(Comparison { with, ratio: Measured::ratio(self.cell(row, engine)?, self.cell(row, with)?)? })
    }

    /// Headings of the ratios, and for each row what stands below them.
    pub fn comparisons(&self, row: &Row) -> Vec<(&'static str, Option<Comparison>)> {
        let tophash = EngineName::Tophash.name();
        if !self.columns.contains(&tophash) {
            return Vec::new();
        }
        let is_compared = row.unit.is_compared();
        let mut all = vec![("best", is_compared.then(|| self.over_best(row, tophash)).flatten())];
        for with in COMPARED.into_iter().filter(|with| self.columns.contains(with)) {
            all.push((with, is_compared.then(|| self.over(row, tophash, with)).flatten()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let engines = [EngineName::Tophash, EngineName::Heed, EngineName::Redb, EngineName::Hashbrown];
        let mut section = Section::new(Workload::Small, &engines);
        for (engine, rate, nanos) in [("tophash", 3.0, 10.0), ("heed", 1.0, 5.0), ("redb", 2.0, 20.0)] {
            section.push("rate", Unit::PerSecond, engine, rate);
            section.push("time", Unit::Nanos, engine, nanos);
        }
        section.push("rate", Unit::PerSecond, "hashbrown", 6.0);
        section.push("rate", Unit::PerSecond, "nobody", 6.0);
        section
    }

    #[test]
    fn the_best_peer_is_the_fastest_or_the_smallest() {
        let section = section();
        for (row, with, ratio) in [("rate", "redb", 1.5), ("time", "heed", 2.0)] {
            let comparison = section.over_best(section.row(row).unwrap(), "tophash").unwrap();
            assert_eq!((comparison.with, comparison.ratio), (with, ratio));
        }
        assert_eq!(section.over(section.row("rate").unwrap(), "tophash", "hashbrown").unwrap().ratio, 0.5);
    }

    #[test]
    fn a_write_that_is_not_durable_is_not_the_best_durable_write() {
        let mut section = Section::new(Workload::Redb, EngineName::all());
        for row in ["writes", "durable writes"] {
            section.push(row, Unit::PerSecond, "sled", 9.0);
            section.push(row, Unit::PerSecond, "fjall", 8.0);
        }
        let best = |row: &str| section.best_peer(section.row(row).unwrap()).unwrap().0;
        assert_eq!((best("writes"), best("durable writes")), ("sled", "fjall"));
    }

    #[test]
    fn what_was_not_measured_is_not_compared() {
        let mut section = section();
        assert!(section.over(section.row("time").unwrap(), "tophash", "hashbrown").is_none());
        section.push("alone", Unit::Nanos, "tophash", 1.0);
        assert!(section.over_best(section.row("alone").unwrap(), "tophash").is_none());
        section.note("once");
        section.note("once");
        assert_eq!(section.notes.len(), 1);
    }
}
