//! The diagnosis in a terminal: findings first, then the pictures that text can draw.

use std::fmt::Write as _;
use std::path::Path;

use tophash::doctor::{Advice, Diagnosis, HeatCell, SegmentFigures};

use super::{action, percent, space, step_name};
use crate::output;

/// The length of the longest bar, where there is room for it.
const BAR: u64 = 40;
/// Cells in a line of the map, where there is room for them.
const MAP_COLUMNS: usize = 64;
/// Columns before the bar of a histogram.
const BEFORE_BAR: u64 = 26;
/// Segments that are listed.
const SEGMENTS: usize = 12;
/// Tables that are listed.
const TABLES: usize = 40;

/// The whole report.
pub fn report(store: &Path, d: &Diagnosis) -> String {
    let mut text = String::new();
    head(&mut text, store, d);
    advice(&mut text, store, d);
    tables(&mut text, d);
    let _ = writeln!(text, "\n{}", slots(d));
    if let Some(stats) = &d.stats {
        let index = &stats.index;
        let all = index.inserts_into_empty_rest + index.inserts_into_empty_one + index.inserts_into_new_overflow;
        let mut table = output::table(["inserts of the running store", "number", "share"]);
        for (name, number) in [
            ("into a free slot", index.inserts_into_empty_rest),
            ("into a tombstone", index.inserts_into_empty_one),
            ("into a new overflow page", index.inserts_into_new_overflow),
        ] {
            table.add_row([name.to_string(), output::count(number), percent(number, all)]);
        }
        output::align_right(&mut table, [1, 2]);
        let _ = writeln!(text, "\n{table}");
    }
    histogram(&mut text, "load of the pages", &d.load, |step| {
        let width = 100 / d.load.len().max(1);
        format!("{:>3}-{:<3} %", step * width, (step + 1) * width)
    });
    let (last, longest) = (d.chains.len().saturating_sub(1), d.chain_longest as usize);
    histogram(&mut text, "overflow pages of a page", &d.chains, |step| step_name(step, 0, last, longest));
    let last = d.absent.len().saturating_sub(1);
    histogram(&mut text, "buckets read for an absent key, by home bucket", &d.absent, |step| {
        step_name(step, 1, last, if last >= 15 { usize::MAX } else { 0 })
    });
    map(&mut text, d, "live slots", "all", |cell| (cell.live, cell.slots));
    if d.slots.empty_one > 0 {
        map(&mut text, d, "tombstones", "half or more", |cell| (cell.tombstones * 2, cell.slots));
    }
    pseudo_full(&mut text, d);
    let _ = writeln!(text, "\n{}", segments(d));
    let _ = writeln!(text, "\n{}", disk(d));
    text
}

fn head(text: &mut String, store: &Path, d: &Diagnosis) {
    let table = &d.table;
    let _ = writeln!(
        text,
        "{}: {} in {} of {} ({} full), {}; {} on the disk",
        store.display(),
        output::records(d.records),
        output::some(table.pages, "page"),
        output::some(table.page_slots, "slot"),
        percent(d.records, table.slots),
        output::some(d.overflow.used, "overflow page"),
        output::size(d.disk.all()),
    );
    let pages = output::some(1 << table.level.min(63), "page");
    let state = match (table.growing, table.shrinking) {
        (true, _) => format!("growing, {} of {pages} divided", table.evacuated_pages),
        (_, true) => format!("shrinking, {} of {pages} still divided", table.evacuated_pages),
        _ => "at rest".to_string(),
    };
    let floor = if table.floor > 0 {
        format!(", room for {} reserved (level {})", output::records(table.floor), table.level_floor)
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "store {}; level {}, {state}; the records need level {}{floor}; checkpoint {}",
        d.uuid, table.level, table.level_needed, d.generation
    );
    if !d.index_is_current() {
        let figures = if d.log_is_current() { "the figures of pages and slots are" } else { "all figures are" };
        let _ = writeln!(text, "not closed: {figures} of the last checkpoint");
    }
}

fn advice(text: &mut String, store: &Path, d: &Diagnosis) {
    if d.advice.is_empty() {
        text.push_str("\nno findings\n");
    }
    for advice in &d.advice {
        finding(text, advice, &action(store, advice));
    }
}

/// A finding in three lines.
pub fn finding(text: &mut String, advice: &Advice, action: &str) {
    let severity = advice.severity.to_string().to_uppercase();
    let _ = writeln!(text, "\n{severity}  {}: {}", advice.rule, advice.finding);
    let _ = writeln!(text, "  why: {}", advice.reason);
    let _ = writeln!(text, "  do:  {action}");
}

/// The tables, if there are several: the largest ones.
fn tables(text: &mut String, d: &Diagnosis) {
    if d.tables.len() < 2 {
        return;
    }
    let mut shown: Vec<_> = d.tables.iter().collect();
    shown.sort_by_key(|figures| std::cmp::Reverse((figures.pages, figures.records)));
    shown.truncate(TABLES);
    let mut table = output::table(["table", "records", "pages", "overflow pages", "full"]);
    for figures in &shown {
        table.add_row([
            figures.name.as_ref().map_or("(main)".to_string(), |name| name.escape_debug().to_string()),
            output::count(figures.records),
            output::count(figures.pages),
            output::count(figures.overflow_pages),
            percent(figures.records, figures.slots),
        ]);
    }
    output::align_right(&mut table, 1..5);
    let _ = writeln!(text, "\n{table}");
    if shown.len() < d.tables.len() {
        let _ = writeln!(text, "(the {} largest of {} tables)", shown.len(), output::count(d.tables.len() as u64));
    }
}

fn slots(d: &Diagnosis) -> comfy_table::Table {
    let mut table = output::table(["slots", "number", "share"]);
    let all = d.slots.all();
    let rows = [
        ("live", d.slots.live),
        ("tombstones", d.slots.empty_one),
        ("empty", d.slots.empty_rest),
        ("unreadable", d.slots.marked),
    ];
    for (name, number) in rows.into_iter().filter(|&(name, number)| number > 0 || name != "unreadable") {
        table.add_row([name.to_string(), output::count(number), percent(number, all)]);
    }
    table.add_row(["of the empty ones, in overflow pages".into(), output::count(d.slots.stranded), String::new()]);
    output::align_right(&mut table, [1, 2]);
    table
}

/// The length of the longest bar that fits behind so many columns.
fn bar_length(before: u64) -> u64 {
    output::width().map_or(BAR, |width| u64::from(width).saturating_sub(before).clamp(4, BAR))
}

/// Bars of eighths of a character.
fn bar(number: u64, most: u64, length: u64) -> String {
    let eighths = (number * length * 8).div_ceil(most.max(1)) as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    format!("{}{rest}", "█".repeat(eighths / 8))
}

fn histogram(text: &mut String, title: &str, numbers: &[u64], name: impl Fn(usize) -> String) {
    let most = numbers.iter().copied().max().unwrap_or(0);
    let first = numbers.iter().position(|&number| number > 0);
    let last = numbers.iter().rposition(|&number| number > 0);
    let (Some(first), Some(last)) = (first, last) else { return };
    let _ = writeln!(text, "\n{title}");
    let length = bar_length(BEFORE_BAR);
    for (step, &number) in numbers.iter().enumerate().take(last + 1).skip(first) {
        let _ = writeln!(text, "{:>10}  {:>12}  {}", name(step), output::count(number), bar(number, most, length));
    }
}

/// A map of the pages: one character for a cell, darker for more.
fn map(text: &mut String, d: &Diagnosis, title: &str, dark: &str, part: impl Fn(&HeatCell) -> (u64, u64)) {
    // Merged so that a large table takes no more than a few lines.
    let columns = output::width().map_or(MAP_COLUMNS, |width| usize::from(width).saturating_sub(2).min(MAP_COLUMNS));
    let merged = d.heat.cells.len().div_ceil(columns * 8).max(1);
    let pages = d.heat.pages_per_cell * merged as u64;
    let each = if pages == 1 { "a page".to_string() } else { format!("{} pages", output::count(pages)) };
    let _ = writeln!(text, "\n{title}, page by page\n(a character is {each}; \u{2588} = {dark})");
    let shades: Vec<char> = d
        .heat
        .cells
        .chunks(merged)
        .map(|cells| {
            let (part, all) = cells.iter().map(&part).fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
            shade(part, all)
        })
        .collect();
    for line in shades.chunks(columns) {
        let _ = writeln!(text, "  {}", line.iter().collect::<String>());
    }
}

fn shade(part: u64, all: u64) -> char {
    match (part * 8).checked_div(all) {
        None => ' ',
        Some(0) => '·',
        Some(1 | 2) => '░',
        Some(3 | 4) => '▒',
        Some(5 | 6) => '▓',
        Some(_) => '█',
    }
}

fn pseudo_full(text: &mut String, d: &Diagnosis) {
    if d.pseudo_full.is_empty() {
        return;
    }
    let mut table = output::table(["pseudo-full page", "of primary page", "live", "tombstones", "removals since"]);
    for note in &d.pseudo_full {
        table.add_row([note.page, note.owner, note.live, note.tombstones, note.removals].map(output::count));
    }
    output::align_right(&mut table, 0..5);
    let _ = writeln!(text, "\n{table}");
    let more = d.pseudo_full_pages - (d.pseudo_full.len() as u64).min(d.pseudo_full_pages);
    if more > 0 {
        let _ = writeln!(text, "and {} more", output::count(more));
    }
}

fn segments(d: &Diagnosis) -> String {
    let mut table = output::table(["segment", "records", "dead", "share", "removals", ""]);
    let mut shown: Vec<&SegmentFigures> = d.segments.iter().collect();
    shown.sort_by_key(|segment| std::cmp::Reverse((segment.dead_bytes, segment.sequence)));
    shown.truncate(SEGMENTS);
    shown.sort_by_key(|segment| segment.sequence);
    for segment in &shown {
        table.add_row([
            segment.sequence.to_string(),
            output::size(segment.bytes),
            output::size(segment.dead_bytes),
            percent(segment.dead_bytes, segment.bytes),
            output::count(segment.removals),
            bar(segment.dead_bytes, segment.bytes, bar_length(72).min(BAR / 2)),
        ]);
    }
    let log = &d.log;
    let share = |bytes: u64| percent(bytes, log.bytes);
    table.add_row([
        format!("all {}", log.segments),
        output::size(log.bytes),
        output::size(log.dead_bytes),
        share(log.dead_bytes),
        output::count(log.removals),
        String::new(),
    ]);
    output::align_right(&mut table, 0..5);
    let mut text = table.to_string();
    if log.expiring_bytes > 0 {
        let (expiring, expired) = (output::size(log.expiring_bytes), output::size(log.expired_bytes));
        let (of_all, over) = (share(log.expiring_bytes), share(log.expired_bytes));
        let _ =
            write!(text, "\nrecords with a deadline: {expiring} ({of_all}), of which {expired} ({over}) have expired");
        for segment in shown.iter().filter(|segment| segment.expiring_bytes > 0) {
            let (expiring, expired) = (output::size(segment.expiring_bytes), output::size(segment.expired_bytes));
            let _ = write!(text, "\n  segment {}: {expiring}, expired {expired}", segment.sequence);
        }
    }
    if shown.len() < d.segments.len() {
        let _ = write!(text, "\n(the {} with the most dead bytes)", shown.len());
    }
    text
}

fn disk(d: &Diagnosis) -> comfy_table::Table {
    let mut table = output::table(["on the disk", "bytes", "share"]);
    let all = d.disk.all();
    for part in space::parts(d).into_iter().filter(|part| part.bytes > 0) {
        table.add_row([part.name.to_string(), output::size(part.bytes), percent(part.bytes, all)]);
    }
    table.add_row(["all".into(), output::size(all), String::new()]);
    if d.log_is_current() {
        let back = output::size(d.reclaimable.bytes());
        table.add_row(["`tophash compact` would give back".into(), back, percent(d.reclaimable.bytes(), all)]);
    }
    output::align_right(&mut table, [1, 2]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!((bar(0, 10, 40), bar(0, 0, 40)), (String::new(), String::new()));
        assert_eq!(bar(10, 10, 40).chars().count(), 40);
        assert_eq!(bar(1, 1000, 40).chars().count(), 1, "what is there is seen");
    }

    #[test]
    fn shades_go_from_nothing_to_full() {
        let shades: String = [0, 1, 3, 5, 7, 8].into_iter().map(|part| shade(part, 8)).collect();
        assert_eq!((shades.as_str(), shade(0, 0)), ("·░▒▓██", ' '));
    }
}
