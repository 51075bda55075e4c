//! The diagnosis as one page that loads nothing: to be looked at, and attached to an incident.

use std::fmt::Write as _;
use std::path::Path;

use tophash::{Advice, Diagnosis, Stats};

use super::{action, charts, percent, step_name};
use crate::output::{count, size};

const STYLE: &str = include_str!("style.css");
/// Columns of the picture of the segments; with more segments, one stands for several.
const COLUMNS: usize = 160;

/// The page.
pub fn page(store: &Path, d: &Diagnosis) -> String {
    let name = escape(&store.display().to_string());
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{name}: tophash doctor</title>\n<style>\n{STYLE}</style></head>\n<body>\n<h1>{name}</h1>\n"
    );
    let _ = writeln!(
        page,
        "<p class=\"dim\">tophash doctor {}, checkpoint {}{}</p>",
        env!("CARGO_PKG_VERSION"),
        count(d.generation),
        if d.clean { "" } else { ", not closed cleanly" }
    );
    tiles(&mut page, d);
    page.push_str("<h2>Findings</h2>\n");
    if d.advice.is_empty() {
        page.push_str("<div class=\"advice good\">No rule has anything to say about this store.</div>\n");
    }
    d.advice.iter().for_each(|advice| finding(&mut page, store, advice));
    table_section(&mut page, d);
    log_section(&mut page, d);
    if let Some(stats) = &d.stats {
        stats_section(&mut page, stats);
    }
    page.push_str("</body></html>\n");
    page
}

fn tiles(page: &mut String, d: &Diagnosis) {
    let state = match (d.table.growing, d.table.shrinking) {
        (true, _) => "growing",
        (_, true) => "shrinking",
        _ => "at rest",
    };
    let tiles = [
        ("records", count(d.records)),
        ("of the slots live", percent(d.records, d.table.slots)),
        ("tombstones", percent(d.slots.empty_one, d.slots.all())),
        ("buckets for an absent key", format!("{:.2}", d.absent_mean)),
        ("of the log dead", percent(d.log.dead_bytes, d.log.bytes)),
        ("on the disk", size(d.disk.all())),
        ("compaction returns", size(d.reclaimable.bytes())),
        ("the table is", state.to_string()),
    ];
    page.push_str("<div class=\"tiles\">");
    for (name, value) in tiles {
        let _ = write!(page, "<div class=\"tile\"><b>{value}</b><span class=\"dim\">{name}</span></div>");
    }
    page.push_str("</div>\n");
}

fn finding(page: &mut String, store: &Path, advice: &Advice) {
    let _ = writeln!(
        page,
        "<div class=\"advice {0}\"><p><span class=\"level\">{0}</span><span class=\"name\">{1}</span></p>\
         <p>{2}.</p><p class=\"dim\">Why it matters: {3}.</p><p>What to do: {4}.</p></div>",
        advice.level,
        escape(&advice.rule),
        code(&capital(&advice.finding)),
        code(&advice.reason),
        code(&action(store, advice)),
    );
}

fn table_section(page: &mut String, d: &Diagnosis) {
    let table = &d.table;
    page.push_str("<h2>The table</h2>\n");
    let mut facts = format!(
        "Level {}: {} primary pages of {} slots, {} of them written to; the records need level {}. {} overflow pages in \
         use, {} free, {} that packing would save.",
        table.level,
        count(table.pages),
        count(table.page_slots),
        count(table.pages_in_use),
        table.level_needed,
        count(d.overflow.used),
        count(d.overflow.free),
        count(d.overflow.needless),
    );
    if table.floor > 0 {
        let _ = write!(facts, " Room for {} records is reserved (level {}).", count(table.floor), table.level_floor);
    }
    if table.growing || table.shrinking {
        let all = count(1 << table.level.min(63));
        let _ = write!(facts, " A resize is under way: {} of {all} pages are divided.", count(table.cursor));
    }
    let _ = writeln!(page, "<p>{facts}</p>");

    let slots = &d.slots;
    let parts = [
        ("live", "live", slots.live),
        ("dead", "unreadable", slots.marked),
        ("tomb", "tombstones (emptyOne)", slots.empty_one),
        ("empty", "empty (emptyRest)", slots.empty_rest),
    ];
    let mut caption = legend(&[
        ("--live", format!("live: {}", count(slots.live))),
        ("--tomb", format!("tombstones (emptyOne): {}", count(slots.empty_one))),
        ("--empty", format!("empty (emptyRest): {}", count(slots.empty_rest))),
    ]);
    let _ = write!(
        caption,
        "<figcaption>{} empty slots lie in overflow pages, where only the keys of one page can use them. {} slots hold \
         entries whose record could not be read.</figcaption>",
        count(slots.stranded),
        count(slots.marked)
    );
    figure(page, "wide", "Slots by state", &charts::stacked(&parts), &caption);

    page.push_str("<div class=\"grid\">");
    let width = 100 / d.load.len().max(1);
    let load: Vec<_> = d.load.iter().enumerate().map(|(i, &pages)| (format!("{} %", i * width), pages)).collect();
    figure(page, "", "Load of the pages", &charts::histogram(&load, "live slots of a primary page"), "");
    let (last, longest) = (d.chains.len().saturating_sub(1), d.chain_longest as usize);
    let bars = |numbers: &[u64], name: &dyn Fn(usize) -> String| -> Vec<_> {
        numbers.iter().enumerate().map(|(i, &number)| (name(i), number)).collect()
    };
    let chains = bars(&d.chains, &|i| step_name(i, 0, last, longest));
    figure(page, "", "Chains", &charts::histogram(&chains, "overflow pages of a primary page"), "");
    let last = d.absent.len().saturating_sub(1);
    let absent = bars(&d.absent, &|i| step_name(i, 1, last, if last >= 15 { usize::MAX } else { 0 }));
    let caption = format!(
        "<figcaption>{:.2} on average; {:.2} in pages of this load that were only filled.</figcaption>",
        d.absent_mean, d.absent_expected
    );
    let picture = charts::histogram(&absent, "buckets read for an absent key, by home bucket");
    figure(page, "", "The way of a miss", &picture, &caption);
    page.push_str("</div>\n");
    maps(page, d);
    pseudo_full(page, d);
}

fn maps(page: &mut String, d: &Diagnosis) {
    let each = d.heat.pages_per_cell;
    let cells = |part: &dyn Fn(&tophash::HeatCell) -> (f64, String)| -> Vec<(Option<f64>, String)> {
        let cell = |(i, cell): (usize, &tophash::HeatCell)| {
            let first = i as u64 * each;
            let pages =
                if each == 1 { format!("page {first}") } else { format!("pages {first} to {}", first + each - 1) };
            if cell.slots == 0 {
                return (None, format!("{pages}: never written to"));
            }
            let (strength, what) = part(cell);
            (Some(strength), format!("{pages}: {what}"))
        };
        d.heat.cells.iter().enumerate().map(cell).collect()
    };
    let unit = if each == 1 { "A cell is one page".to_string() } else { format!("A cell is {} pages", count(each)) };
    let live = cells(&|cell| {
        let overflow = if cell.overflow > 0 { format!(", {} overflow pages", cell.overflow) } else { String::new() };
        (
            // More than all is possible: what lies in overflow pages would not fit.
            cell.live as f64 / (cell.slots - cell.overflow * d.table.page_slots).max(1) as f64,
            format!("{} of {} slots live{overflow}", count(cell.live), count(cell.slots)),
        )
    });
    page.push_str("<h2>Page by page</h2>\n");
    let caption = format!(
        "<figcaption>{unit}; full colour: every slot is taken, or its overflow pages hold the rest.</figcaption>"
    );
    figure(page, "wide", "Live slots", &charts::heat(&live, "load"), &caption);
    let tombs = cells(&|cell| {
        (
            2.0 * cell.tombstones as f64 / cell.slots as f64,
            format!("{} tombstones, {} removals since the last rewrite", count(cell.tombstones), count(cell.removals)),
        )
    });
    let caption = format!(
        "<figcaption>{unit}; full colour: half or more of the slots are tombstones. remove_many rewrites a page past \
         an eighth of them.</figcaption>"
    );
    figure(page, "wide", "Tombstones", &charts::heat(&tombs, "tombs"), &caption);
}

fn pseudo_full(page: &mut String, d: &Diagnosis) {
    if d.pseudo_full.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = d
        .pseudo_full
        .iter()
        .map(|note| {
            vec![
                note.page.to_string(),
                format!("{}, position {}", note.owner, note.chain_position),
                count(note.live),
                count(note.tombstones),
                count(note.removals),
            ]
        })
        .collect();
    let _ = writeln!(page, "<h3>Pseudo-full pages: {} in all, the worst are</h3>", count(d.pseudo_full_pages));
    rows_table(page, &["page of the index", "chain", "live", "tombstones", "removals since the last rewrite"], &rows);
}

fn log_section(page: &mut String, d: &Diagnosis) {
    let log = &d.log;
    page.push_str("<h2>Log and disk</h2>\n");
    let _ = writeln!(
        page,
        "<p>{} segments with {} of records, {} of them dead; {} remove-records. {} blobs with {}, {} to be unlinked.</p>",
        count(log.segments),
        size(log.bytes),
        size(log.dead_bytes),
        count(log.removals),
        count(d.blobs.count),
        size(d.blobs.bytes),
        count(d.blobs.dying),
    );
    let group = d.segments.len().div_ceil(COLUMNS).max(1);
    let columns: Vec<_> = d
        .segments
        .chunks(group)
        .map(|segments| {
            let sum = |get: fn(&tophash::SegmentFigures) -> u64| segments.iter().map(get).sum::<u64>();
            let dead = sum(|segment| segment.dead_bytes);
            let (first, last) = (segments[0].sequence, segments[segments.len() - 1].sequence);
            let name = if first == last { format!("segment {first}") } else { format!("segments {first} to {last}") };
            (name, sum(|segment| segment.capacity), sum(|segment| segment.bytes) - dead, dead)
        })
        .collect();
    let caption = legend(&[
        ("--live", format!("live: {}", size(log.bytes - log.dead_bytes.min(log.bytes)))),
        ("--tomb", format!("dead: {}", size(log.dead_bytes))),
        ("--empty", "not written".to_string()),
    ]);
    figure(page, "wide", "Segments, in the order of writing", &charts::segments(&columns), &caption);

    let disk = &d.disk;
    let used_log = disk.log - log.spare_bytes.min(disk.log);
    let parts = [
        ("index", "index", disk.index),
        ("journal", "journal", disk.journal),
        ("live", "log", used_log),
        ("spare", "spare segments", log.spare_bytes),
        ("blobs", "blobs", disk.blobs),
    ];
    let caption = legend(&[
        ("--bar", format!("index: {}", size(disk.index))),
        ("--warning", format!("journal: {}", size(disk.journal))),
        ("--live", format!("log: {}", size(used_log))),
        ("--empty", format!("spare segments: {}", size(log.spare_bytes))),
        ("--dim", format!("blobs: {}", size(disk.blobs))),
    ]);
    figure(page, "wide", "Bytes on the disk", &charts::stacked(&parts), &caption);
    let rows = vec![
        vec!["log: dead records, spare files, unwritten ends".to_string(), size(d.reclaimable.log_bytes)],
        vec!["index".to_string(), size(d.reclaimable.index_bytes)],
        vec!["journal".to_string(), size(d.reclaimable.journal_bytes)],
        vec!["overflow pages".to_string(), count(d.reclaimable.overflow_pages)],
        vec!["tombstones".to_string(), count(d.reclaimable.tombstones)],
    ];
    rows_table(page, &["tophash compact would return", ""], &rows);
}

fn stats_section(page: &mut String, stats: &Stats) {
    let index = &stats.index;
    page.push_str("<h2>The running store</h2>\n");
    let inserts = [
        ("empty", "--empty", "into the end of a path (emptyRest)", index.inserts_into_empty_rest),
        ("live", "--live", "into a tombstone (emptyOne)", index.inserts_into_empty_one),
        ("tomb", "--tomb", "into a new overflow page", index.inserts_into_new_overflow),
    ];
    let parts = inserts.map(|(class, _, name, number)| (class, name, number));
    let caption = legend(&inserts.map(|(_, colour, name, number)| (colour, format!("{name}: {}", count(number)))));
    figure(page, "wide", "Where inserts went", &charts::stacked(&parts), &caption);
    let row = |name: &str, number: u64| vec![name.to_string(), count(number)];
    let rows = vec![
        row("pages rewritten", index.rewrites),
        row("entries moved back by removals", index.repairs),
        row("pages split", index.splits),
        row("pages merged", index.merges),
        row("records moved by compaction", stats.compaction.moved_records),
        row("segments freed", stats.compaction.freed_segments),
        row("writers that helped compaction", stats.compaction.helps),
        row("writers that waited for it", stats.compaction.throttles),
        row("writers that waited for memory", stats.waits.memory),
    ];
    rows_table(page, &["since it was opened", ""], &rows);
}

fn figure(page: &mut String, class: &str, title: &str, picture: &str, caption: &str) {
    let _ = writeln!(page, "<figure class=\"{class}\"><h3>{title}</h3>{picture}{caption}</figure>");
}

/// Colours (as variables of the style sheet) and what they stand for.
fn legend(entries: &[(&str, String)]) -> String {
    let mut text = String::from("<div class=\"legend\">");
    for (colour, name) in entries {
        let _ = write!(text, "<span style=\"--c:var({colour})\">{}</span>", escape(name));
    }
    text.push_str("</div>");
    text
}

fn rows_table(page: &mut String, head: &[&str], rows: &[Vec<String>]) {
    page.push_str("<div class=\"scroll\"><table><tr>");
    head.iter().for_each(|name| {
        let _ = write!(page, "<th>{}</th>", escape(name));
    });
    page.push_str("</tr>");
    for row in rows {
        page.push_str("<tr>");
        row.iter().for_each(|cell| {
            let _ = write!(page, "<td>{}</td>", escape(cell));
        });
        page.push_str("</tr>");
    }
    page.push_str("</table></div>\n");
}

/// The sentence with its first letter large.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Text that means itself in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The same, with what stands between backquotes as code.
fn code(text: &str) -> String {
    let pieces = text.split('`').map(escape).enumerate();
    pieces.map(|(i, piece)| if i % 2 == 1 { format!("<code>{piece}</code>") } else { piece }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        let page = page(Path::new("<script>alert(1)</script>&\""), &Diagnosis::default());
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;"));
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let mut d = Diagnosis::default();
        d.include_stats(Stats::default());
        let page = page(Path::new("s"), &d);
        for word in ["http", "src=", "href=", "url(", "@import", "NaN"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn backquotes_make_code() {
        assert_eq!(code("run `a < b` now"), "run <code>a &lt; b</code> now");
    }
}
