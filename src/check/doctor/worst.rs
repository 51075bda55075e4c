//! Rules that judge each table: the worst one counts, and is named.

use super::diagnosis::{Diagnosis, TableFigures};

/// All tables of a diagnosis. One that was put together without a list has the main table alone.
fn tables(d: &Diagnosis) -> Vec<TableFigures> {
    match d.tables.is_empty() {
        true => vec![TableFigures { records: d.records, pseudo_full_pages: d.pseudo_full_pages, ..d.table.clone() }],
        false => d.tables.clone(),
    }
}

/// The table of which a figure is the highest, and that figure. `None` if no table has the figure.
pub(super) fn worst(d: &Diagnosis, figure: fn(&TableFigures) -> Option<f64>) -> Option<(TableFigures, f64)> {
    let measured = tables(d).into_iter().filter_map(|table| figure(&table).map(|figure| (table, figure)));
    // The first of several that are the same.
    measured.reduce(|worst, next| if next.1 > worst.1 { next } else { worst })
}

/// The highest figure of all tables.
pub(super) fn highest(d: &Diagnosis, figure: fn(&TableFigures) -> Option<f64>) -> Option<f64> {
    worst(d, figure).map(|(_, figure)| figure)
}

/// What is said of the worst table, with its name where there are several.
pub(super) fn told(
    d: &Diagnosis,
    figure: fn(&TableFigures) -> Option<f64>,
    tell: impl FnOnce(&TableFigures) -> String,
) -> String {
    let Some((table, _)) = worst(d, figure) else { return String::new() };
    let text = tell(&table);
    match &table.name {
        _ if d.tables.len() < 2 => text,
        None => format!("main table: {text}"),
        Some(name) => format!("table \"{}\": {text}", name.escape_debug()),
    }
}
