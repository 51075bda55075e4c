//! The report: sections of rows of measured cells, as markdown or JSON.

mod figure;
mod markdown;

use serde_json::{Map, Value, json};

pub use figure::{Measured, Unit};

use crate::machine::Machine;

/// Everything that was measured.
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What was asked for, for people.
    pub settings: String,
    /// What holds for all sections.
    pub notes: Vec<String>,
    /// In the order in which they were measured.
    pub sections: Vec<Section>,
}

/// A table.
pub struct Section {
    /// What it is about.
    pub title: &'static str,
    /// Names of the columns of figures.
    pub columns: Vec<&'static str>,
    /// Columns to be divided by one another, by index.
    pub ratios: Vec<(usize, usize)>,
    /// The figures.
    pub rows: Vec<Row>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

/// Figures of the same thing.
pub struct Row {
    /// What.
    pub name: String,
    /// In what.
    pub unit: Unit,
    /// One for each column of the section.
    pub cells: Vec<Option<Measured>>,
}

impl Section {
    /// A table of the three engines, tophash compared with the other two.
    pub fn engines(title: &'static str) -> Self {
        Section {
            title,
            columns: vec!["tophash", "hashbrown", "heed"],
            ratios: vec![(0, 1), (0, 2)],
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row; columns that have no cell stay empty.
    pub fn row(&mut self, name: impl Into<String>, unit: Unit, cells: impl IntoIterator<Item = Option<Measured>>) {
        let mut cells: Vec<_> = cells.into_iter().collect();
        cells.resize_with(self.columns.len(), || None);
        self.rows.push(Row { name: name.into(), unit, cells });
    }

    /// Adds a note.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The ratio columns' names.
    fn ratio_names(&self) -> impl Iterator<Item = String> {
        self.ratios.iter().map(|(a, b)| format!("{} / {}", self.columns[*a], self.columns[*b]))
    }

    /// A row's ratios.
    fn ratios_of(&self, row: &Row) -> Vec<Option<f64>> {
        let ratio = |(a, b): &(usize, usize)| Measured::ratio(row.cells[*a].as_ref()?, row.cells[*b].as_ref()?);
        // A ratio of ratios, or of how much there was to do, says nothing.
        let is_compared = !matches!(row.unit, Unit::Ratio | Unit::Count);
        self.ratios.iter().map(|pair| is_compared.then(|| ratio(pair)).flatten()).collect()
    }
}

impl Report {
    /// For people.
    pub fn markdown(&self) -> String {
        markdown::markdown(self)
    }

    /// For programs, with the figures of single rounds.
    pub fn json(&self) -> Value {
        let sections = self.sections.iter().map(|section| {
            let rows = section.rows.iter().map(|row| row_json(section, row));
            json!({ "title": section.title, "rows": rows.collect::<Vec<_>>(), "notes": section.notes })
        });
        json!({
            "machine": self.machine,
            "settings": self.settings,
            "notes": self.notes,
            "sections": sections.collect::<Vec<_>>(),
        })
    }
}

fn row_json(section: &Section, row: &Row) -> Value {
    let cells: Map<_, _> = section
        .columns
        .iter()
        .zip(&row.cells)
        .filter_map(|(column, cell)| Some((column.to_string(), cell.as_ref()?.json())))
        .collect();
    let ratios: Map<_, _> = section
        .ratio_names()
        .zip(section.ratios_of(row))
        .filter_map(|(name, ratio)| Some((name, json!(ratio?))))
        .collect();
    json!({ "name": row.name, "unit": row.unit.name(), "figures": cells, "ratios": ratios })
}
