//! SVG pictures. Colours come from the page's style sheet, so that they fit a light and a dark screen. Words stand beside
//! a picture and not inside it, because a narrow screen makes pictures small.

use std::fmt::Write as _;

use super::markup::escape;
use super::space::Part;

/// A bar of parts that make up a whole.
pub fn stacked(parts: &[Part], label: &str) -> String {
    let all: u64 = parts.iter().map(|part| part.bytes).sum();
    let mut svg = format!(
        "<svg class=\"stacked\" viewBox=\"0 0 1000 36\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        escape(label)
    );
    let mut x = 0.0;
    for part in parts.iter().filter(|part| part.bytes > 0) {
        let width = 1000.0 * part.bytes as f64 / all.max(1) as f64;
        let _ = write!(
            svg,
            "<rect class=\"{}\" x=\"{x:.2}\" y=\"0\" width=\"{width:.2}\" height=\"36\"><title>{}</title></rect>",
            part.class,
            escape(&format!("{}: {}", part.name, super::percent(part.bytes, all)))
        );
        x += width;
    }
    svg.push_str("</svg>");
    svg
}

/// A histogram; each bar is (name, number).
pub fn histogram(bars: &[(String, u64)], label: &str) -> String {
    const WIDTH: f64 = 360.0;
    const HEIGHT: f64 = 100.0;
    let most = bars.iter().map(|bar| bar.1).max().unwrap_or(0).max(1);
    let step = WIDTH / bars.len().max(5) as f64;
    let bar_width = (step * 0.86).min(48.0);
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">", HEIGHT + 34.0, escape(label));
    for (i, (name, number)) in bars.iter().enumerate() {
        // A bar is seen however little it stands for.
        let height = if *number == 0 { 0.0 } else { (HEIGHT * *number as f64 / most as f64).max(1.5) };
        let x = step * i as f64;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{bar_width:.1}\" height=\"{height:.1}\" rx=\"1\">\
             <title>{}: {}</title></rect>",
            x + (step - bar_width) / 2.0,
            14.0 + HEIGHT - height,
            escape(name),
            crate::output::count(*number),
        );
        let middle = x + step / 2.0;
        if bars.len() <= 9 && *number > 0 {
            let y = 10.0 + HEIGHT - height;
            let _ = write!(svg, "<text class=\"value\" x=\"{middle:.1}\" y=\"{y:.1}\">{}</text>", short(*number));
        }
        // Not more names than there is room for.
        if bars.len() <= 9 || i % (bars.len() / 5) == 0 {
            let _ = write!(svg, "<text x=\"{middle:.1}\" y=\"{:.1}\">{}</text>", HEIGHT + 31.0, escape(name));
        }
    }
    let base = 14.0 + HEIGHT;
    let _ = write!(svg, "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{base}\" y2=\"{base}\"/></svg>");
    svg
}

/// A map of cells, each (strength from 0 to 1, or none for no page, and what it is).
pub fn heat(cells: &[(Option<f64>, String)], class: &str, label: &str) -> String {
    // A few cells make a line, many make a square.
    let columns = if cells.len() <= 64 { 32 } else { 64 }.min(cells.len().max(1));
    let rows = cells.len().div_ceil(columns);
    let size = 1000.0 / columns.max(32) as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 1000 {:.1}\" role=\"img\" aria-label=\"{}\" class=\"heat {class}\">",
        rows as f64 * size,
        escape(label)
    );
    for (i, (strength, title)) in cells.iter().enumerate() {
        let (x, y) = ((i % columns) as f64 * size, (i / columns) as f64 * size);
        let class = if strength.is_some() { "cell" } else { "hole" };
        let opacity = strength.map_or(1.0, |strength| 0.06 + 0.94 * strength.clamp(0.0, 1.0));
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{0:.1}\" height=\"{0:.1}\" \
             fill-opacity=\"{opacity:.2}\"><title>{1}</title></rect>",
            size - 1.2,
            escape(title),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Columns of segments: (name, capacity, live, dead).
pub fn segments(columns: &[(String, u64, u64, u64)], label: &str) -> String {
    const HEIGHT: f64 = 130.0;
    let most = columns.iter().map(|column| column.1.max(column.2 + column.3)).max().unwrap_or(0).max(1);
    let step = 1000.0 / columns.len().max(12) as f64;
    let gap = if step > 6.0 { 1.5 } else { 0.3 };
    let mut svg = format!("<svg viewBox=\"0 0 1000 {HEIGHT:.0}\" role=\"img\" aria-label=\"{}\">", escape(label));
    for (i, (name, capacity, live, dead)) in columns.iter().enumerate() {
        let height = |bytes: u64| HEIGHT * bytes as f64 / most as f64;
        let (x, width) = (step * i as f64, step - gap);
        let title = format!(
            "{name}: {} live, {} dead ({})",
            crate::output::size(*live),
            crate::output::size(*dead),
            super::percent(*dead, live + dead)
        );
        let _ = write!(svg, "<g><title>{}</title>", escape(&title));
        let bars = [("unwritten", 0, *capacity), ("live", 0, *live), ("dead", *live, *dead)];
        for (class, below, bytes) in bars {
            let y = HEIGHT - height(below + bytes);
            let h = height(bytes);
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{h:.2}\"/>"
            );
        }
        svg.push_str("</g>");
    }
    svg.push_str("</svg>");
    svg
}

/// A number in few characters.
fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{}k", number / 1000),
        _ => format!("{}M", number / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_nothing_are_pictures() {
        let balanced = |svg: &str| svg.matches("<svg").count() == 1 && svg.ends_with("</svg>") && !svg.contains("NaN");
        let nothing = Part { class: "live", name: "live", bytes: 0 };
        assert!(balanced(&stacked(&[], "x")) && balanced(&stacked(&[nothing], "x")));
        assert!(balanced(&histogram(&[], "x")) && balanced(&histogram(&[("0".into(), 0)], "x")));
        assert!(balanced(&heat(&[], "load", "x")) && balanced(&segments(&[], "x")));
        assert!(balanced(&segments(&[("1".into(), 0, 0, 0)], "x")));
    }

    #[test]
    fn every_bar_and_cell_is_there() {
        let bars: Vec<_> = (0..20).map(|i| (format!("{i} %"), i)).collect();
        assert_eq!(histogram(&bars, "load").matches("class=\"bar\"").count(), 20);
        let cells: Vec<_> = (0..1000).map(|i| ((i > 0).then_some(0.5), "a & b".to_string())).collect();
        let svg = heat(&cells, "load", "\"x\"");
        assert_eq!((svg.matches("\"cell\"").count(), svg.matches("\"hole\"").count()), (999, 1));
        assert!(svg.contains("a &amp; b") && svg.contains("&quot;x&quot;"));
    }
}
