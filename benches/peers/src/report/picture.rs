//! Pictures: bars of a workload's rates or times, and curves where it has any. SVG; text stays text, so that no font is
//! needed here.

use std::path::Path;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::arguments::Workload;
use crate::engine::EngineName;
use crate::section::{Row, Section, Unit};

const WIDTH: u32 = 1200;
const PANELS_PER_LINE: usize = 3;
const BAR_HEIGHT: i32 = 18;
const TITLE_HEIGHT: i32 = 34;
const CURVE_HEIGHT: u32 = 420;
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a section's picture into a folder.
pub fn draw(section: &Section, dir: &Path) -> anyhow::Result<()> {
    let rows: Vec<_> = section.rows.iter().filter(|row| is_pictured(section, row)).collect();
    let path = dir.join(format!("{}.svg", section.workload.name()));
    let panel_height = TITLE_HEIGHT + BAR_HEIGHT * section.columns.len() as i32 + 12;
    let lines = rows.len().div_ceil(PANELS_PER_LINE);
    let curve_height = if section.curves.is_empty() { 0 } else { CURVE_HEIGHT };
    let height = panel_height as u32 * lines as u32 + curve_height;
    if height == 0 {
        return Ok(());
    }
    paint(section, &rows, &path, lines, (height, curve_height))
        .map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn paint(
    section: &Section,
    rows: &[&Row],
    path: &Path,
    lines: usize,
    (height, curve_height): (u32, u32),
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (curves, bars) = root.split_vertically(curve_height);
    if curve_height > 0 {
        draw_curves(section, &curves)?;
    }
    if lines > 0 {
        for (row, area) in rows.iter().zip(bars.split_evenly((lines, PANELS_PER_LINE))) {
            draw_bars(section, row, &area)?;
        }
    }
    root.present()?;
    Ok(())
}

/// Rates are; of the others what is worth a look.
fn is_pictured(section: &Section, row: &Row) -> bool {
    let is_named = match section.workload {
        Workload::Open => row.name.contains("open") && row.unit == Unit::Nanos,
        Workload::Growth | Workload::Mixed | Workload::Threads => {
            row.name.ends_with("p99.9") || row.name.ends_with("max")
        }
        Workload::Small => row.unit == Unit::BytesPerRecord,
        Workload::Redb | Workload::Churn => row.unit == Unit::TimesLive,
        Workload::Limits => true,
        Workload::Ycsb => false,
    };
    let is_window = row.name.contains("window ");
    (row.unit == Unit::PerSecond || is_named) && !is_window
}

fn color(column: &str) -> RGBColor {
    match column {
        "tophash" => RGBColor(200, 60, 40),
        "tophash-100ms" => RGBColor(235, 150, 110),
        "heed" => RGBColor(50, 100, 170),
        "redb" => RGBColor(70, 150, 160),
        "fjall" => RGBColor(100, 140, 60),
        "candystore" => RGBColor(150, 100, 170),
        "candystore-nc" => RGBColor(190, 150, 205),
        "sled" => RGBColor(140, 120, 80),
        "rocksdb" => RGBColor(210, 170, 50),
        _ => RGBColor(130, 130, 130),
    }
}

/// One row: a bar for each column, from zero, with its figure beside.
fn draw_bars(section: &Section, row: &Row, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    const NAMES: i32 = 110;
    const FIGURES: i32 = 80;
    let room = area.dim_in_pixel().0 as i32 - NAMES - FIGURES;
    area.draw(&Text::new(row.name.clone(), (10, 10), (FONT, 15).into_font().style(FontStyle::Bold)))?;
    let columns = section.columns.iter().zip(&row.cells).filter(|(_, cell)| !cell.is_empty());
    let largest = columns.clone().map(|(_, cell)| cell.median()).fold(0.0, f64::max);
    for (i, (column, cell)) in columns.enumerate() {
        let y = TITLE_HEIGHT + i as i32 * BAR_HEIGHT;
        let length = if largest > 0.0 { (cell.median() / largest * f64::from(room)) as i32 } else { 0 };
        let bar = [(NAMES, y), (NAMES + length.max(1), y + BAR_HEIGHT - 4)];
        area.draw(&Text::new(column.to_string(), (10, y), (FONT, 13)))?;
        area.draw(&Rectangle::new(bar, color(column).filled()))?;
        area.draw(&Text::new(row.unit.text(cell.median()), (NAMES + length + 6, y), (FONT, 13)))?;
    }
    Ok(())
}

/// Latencies by percentile, or rates by window.
fn draw_curves(section: &Section, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let is_latency = section.workload == Workload::Growth;
    let points = || section.curves.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        points().map(of).fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)))
    };
    let ((x_least, x_most), (y_least, y_most)) = (range(|point| point.0), range(|point| point.1));
    let (title, unit) = if is_latency {
        ("insert latency by percentile", Unit::Nanos)
    } else {
        ("steps a second, window by window", Unit::PerSecond)
    };
    let x_text = |x: &f64| if is_latency { percentile(*x) } else { format!("{x:.0}") };
    // Latencies begin at no nines, so that labels are at whole numbers of them.
    let x_least = if is_latency { 0.0 } else { x_least };
    let (x_most, y_range) = (x_most.max(x_least + 0.1), (y_least.max(1.0) / 1.5..y_most.max(2.0) * 1.5).log_scale());
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(x_least..x_most, y_range)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(if is_latency { 7 } else { 10 })
        .x_label_formatter(&x_text)
        .y_label_formatter(&|y| unit.text(*y))
        .label_style((FONT, 13))
        .draw()?;
    for engine in EngineName::all() {
        for (column, points) in section.curves.iter().filter(|curve| curve.0 == engine.name()) {
            let style = color(column).stroke_width(if engine.is_tophash() { 3 } else { 2 });
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(*column)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}

/// 0.3 nines are p50, 3 nines are p99.9.
fn percentile(nines: f64) -> String {
    let decimals = (nines - 2.0).ceil().max(0.0) as usize;
    format!("p{:.decimals$}", 100.0 - 100.0 * 10_f64.powf(-nines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_percentiles() {
        for (nines, name) in [(0.301, "p50"), (1.0, "p90"), (2.0, "p99"), (3.0, "p99.9"), (4.0, "p99.99")] {
            assert_eq!(percentile(nines), name);
        }
    }

    #[test]
    fn pictures_are_drawn_with_one_column_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut section = Section::new(Workload::Growth, &[EngineName::Tophash]);
        draw(&section, dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        section.push("inserts <1>", Unit::PerSecond, "tophash", 1e6);
        section.curve("tophash", vec![(0.3, 100.0), (3.0, 5_000.0)]);
        draw(&section, dir.path()).unwrap();
        let svg = std::fs::read_to_string(dir.path().join("growth.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("inserts &lt;1&gt;") && svg.contains("1.00 M/s"), "{svg}");
    }
}
