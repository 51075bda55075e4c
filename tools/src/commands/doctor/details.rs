//! The folded part of the page: the pictures of index and log, and the figures of a running store.

use std::fmt::Write as _;

use tophash::doctor::{Diagnosis, HeatCell, SegmentFigures};
use tophash::stats::Stats;

use super::markup::{capital, figure, table};
use super::{charts, step_name};
use crate::output::{count, size, some};

/// Columns of the picture of the segments; with more segments, one stands for several.
const COLUMNS: usize = 160;

/// All sections that have something to show.
pub fn all(page: &mut String, d: &Diagnosis) {
    page.push_str("<section><h2>Details</h2>\n");
    if !d.damage.is_empty() {
        folded(page, &format!("Damage: {}", some(d.damage.len() as u64, "place")), |page| damage(page, d));
    }
    folded(page, "Index", |page| index(page, d));
    if d.tables.len() > 1 {
        folded(page, &format!("Tables: {}", count(d.tables.len() as u64)), |page| tables(page, d));
    }
    if !d.segments.is_empty() {
        folded(page, "Log, file by file", |page| log(page, d));
    }
    if let Some(stats) = &d.stats {
        folded(page, "The running store, since it was opened", |page| running(page, stats));
    }
    page.push_str("</section>\n");
}

fn folded(page: &mut String, title: &str, content: impl FnOnce(&mut String)) {
    let _ = writeln!(page, "<details class=\"more\"><summary>{title}</summary>");
    content(page);
    page.push_str("</details>\n");
}

fn damage(page: &mut String, d: &Diagnosis) {
    let place = |finding: &tophash::verify::Finding| {
        let page = finding.page.map_or(String::new(), |page| format!(", page {page}"));
        let offset = finding.offset.map_or(String::new(), |offset| format!(", offset {offset}"));
        format!("{}{page}{offset}", finding.path)
    };
    let rows: Vec<_> =
        d.damage.iter().map(|finding| vec![place(finding), finding.expected.clone(), finding.found.clone()]).collect();
    table(page, &["place", "expected", "found"], &rows);
}

fn tables(page: &mut String, d: &Diagnosis) {
    let row = |figures: &tophash::doctor::TableFigures| {
        let name = figures.name.as_ref().map_or("(main)".to_string(), |name| name.escape_debug().to_string());
        let numbers = [figures.records, figures.pages, figures.overflow_pages].map(count);
        [name].into_iter().chain(numbers).collect::<Vec<_>>()
    };
    table(page, &["table", "records", "pages", "overflow pages"], &d.tables.iter().map(row).collect::<Vec<_>>());
}

fn index(page: &mut String, d: &Diagnosis) {
    let (t, slots) = (&d.table, &d.slots);
    let row = |name: &str, number: u64| vec![name.to_string(), count(number)];
    let mut rows = vec![
        row("pages", t.pages),
        row("pages that were never written to", t.pages.saturating_sub(t.pages_in_use)),
        row("slots of a page", t.page_slots),
        row("size that the records need, in pages", 1 << t.level_needed.min(63)),
        row("overflow pages in use", d.overflow.used),
        row("overflow pages free", d.overflow.free),
        row("overflow pages that packing would save", d.overflow.needless),
        row("empty slots in overflow pages", slots.stranded),
    ];
    if t.floor > 0 {
        rows.push(row("records that room is reserved for", t.floor));
    }
    if slots.marked > 0 {
        rows.push(row("slots whose record could not be read", slots.marked));
    }
    table(page, &["", "number"], &rows);
    if slots.live == 0 {
        return;
    }
    page.push_str("<div class=\"grid\">");
    let width = 100 / d.load.len().max(1);
    let load: Vec<_> = d.load.iter().enumerate().map(|(i, &pages)| (format!("{} %", i * width), pages)).collect();
    let bars = |numbers: &[u64], name: &dyn Fn(usize) -> String| -> Vec<_> {
        numbers.iter().enumerate().map(|(i, &number)| (name(i), number)).collect()
    };
    picture(page, "How full the pages are", &load, "pages, by live slots");
    let (last, longest) = (d.chains.len().saturating_sub(1), d.chain_longest as usize);
    let chains = bars(&d.chains, &|i| step_name(i, 0, last, longest));
    picture(page, "Chains", &chains, "pages, by the overflow pages that continue them");
    let last = d.absent.len().saturating_sub(1);
    let absent = bars(&d.absent, &|i| step_name(i, 1, last, if last >= 15 { usize::MAX } else { 0 }));
    picture(page, "Lookups of absent keys", &absent, "buckets, by the cache lines that a lookup reads");
    page.push_str("</div>\n");
    maps(page, d);
    worst_pages(page, d);
}

fn picture(page: &mut String, title: &str, bars: &[(String, u64)], axis: &str) {
    figure(page, title, &charts::histogram(bars, &format!("{title}: {axis}")), axis);
}

fn maps(page: &mut String, d: &Diagnosis) {
    // One cell is the same as the figures above.
    if d.heat.cells.len() < 2 {
        return;
    }
    let each = d.heat.pages_per_cell;
    let cells = |part: &dyn Fn(&HeatCell) -> (f64, String)| -> Vec<(Option<f64>, String)> {
        let cell = |(i, cell): (usize, &HeatCell)| {
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
    let unit = format!("A cell is {}", some(each, "page"));
    let live = cells(&|cell| {
        let overflow =
            if cell.overflow > 0 { format!(", {}", some(cell.overflow, "overflow page")) } else { String::new() };
        (
            // More than all is possible: the entries of overflow pages would not fit.
            cell.live as f64 / (cell.slots - cell.overflow * d.table.page_slots).max(1) as f64,
            format!("{} of {} live{overflow}", count(cell.live), some(cell.slots, "slot")),
        )
    });
    let title = "Live slots, page by page";
    figure(
        page,
        title,
        &charts::heat(&live, "load", title),
        &format!("{unit}; at full colour all of its slots are live."),
    );
    if d.slots.empty_one == 0 {
        return;
    }
    let tombs = cells(&|cell| {
        (
            2.0 * cell.tombstones as f64 / cell.slots as f64,
            format!(
                "{}, {} since the last rewrite",
                some(cell.tombstones, "tombstone"),
                some(cell.removals, "removal")
            ),
        )
    });
    let title = "Tombstones, page by page";
    let caption = format!("{unit}; at full colour half of its slots or more are tombstones.");
    figure(page, title, &charts::heat(&tombs, "tombs", title), &caption);
}

fn worst_pages(page: &mut String, d: &Diagnosis) {
    if d.pseudo_full.is_empty() {
        return;
    }
    let rows: Vec<_> = d
        .pseudo_full
        .iter()
        .map(|note| {
            let chain = format!("{}, position {}", note.owner, note.chain_position);
            vec![note.page.to_string(), chain, count(note.live), count(note.tombstones), count(note.removals)]
        })
        .collect();
    let _ = writeln!(page, "<h3>Pages with few live keys and many tombstones: the worst</h3>");
    table(page, &["page of the index", "chain", "live", "tombstones", "removals since the last rewrite"], &rows);
}

fn log(page: &mut String, d: &Diagnosis) {
    let group = d.segments.len().div_ceil(COLUMNS).max(1);
    let name = |segments: &[SegmentFigures]| match segments {
        [only] => format!("file {}", only.sequence),
        [first, .., last] => format!("files {} to {}", first.sequence, last.sequence),
        [] => String::new(),
    };
    let columns: Vec<_> = d
        .segments
        .chunks(group)
        .map(|segments| {
            let sum = |get: fn(&SegmentFigures) -> u64| segments.iter().map(get).sum::<u64>();
            let dead = sum(|segment| segment.dead_bytes);
            (name(segments), sum(|segment| segment.capacity), sum(|segment| segment.bytes).saturating_sub(dead), dead)
        })
        .collect();
    let title = "Live and dead records of each log file";
    let caption = format!(
        "{}, in the order of writing. In a column live records are below, dead ones above, and the unwritten end is \
         pale. Removals take {} of the dead records.",
        capital(&name(&d.segments)),
        count(d.log.removals),
    );
    figure(page, title, &charts::segments(&columns, title), &caption);
    expiring(page, d);
    let mut worst: Vec<_> = d.segments.iter().filter(|segment| segment.dead_bytes > 0).collect();
    worst.sort_by_key(|segment| std::cmp::Reverse((segment.dead_bytes, segment.sequence)));
    worst.truncate(12);
    if worst.is_empty() {
        return;
    }
    let row = |segment: &&SegmentFigures| {
        vec![
            segment.sequence.to_string(),
            size(segment.bytes),
            size(segment.dead_bytes),
            super::percent(segment.dead_bytes, segment.bytes),
        ]
    };
    let rows: Vec<_> = worst.iter().map(row).collect();
    table(page, &["log files with the most dead bytes", "records", "dead", "share"], &rows);
}

/// The log files with records that have a deadline.
fn expiring(page: &mut String, d: &Diagnosis) {
    let mut files: Vec<_> = d.segments.iter().filter(|segment| segment.expiring_bytes > 0).collect();
    if files.is_empty() {
        return;
    }
    files.sort_by_key(|segment| std::cmp::Reverse((segment.expired_bytes, segment.sequence)));
    files.truncate(12);
    let row = |name: String, bytes: u64, expiring: u64, expired: u64| {
        vec![name, size(bytes), size(expiring), size(expired), super::percent(expired, bytes)]
    };
    let log = &d.log;
    let mut rows = vec![row("all".into(), log.bytes, log.expiring_bytes, log.expired_bytes)];
    rows.extend(files.iter().map(|segment| {
        row(segment.sequence.to_string(), segment.bytes, segment.expiring_bytes, segment.expired_bytes)
    }));
    table(page, &["log files with the most expired bytes", "records", "with a deadline", "expired", "share"], &rows);
}

fn running(page: &mut String, stats: &Stats) {
    let index = &stats.index;
    let row = |name: &str, number: u64| vec![name.to_string(), count(number)];
    let rows = vec![
        row("inserts into a free slot", index.inserts_into_empty_rest),
        row("inserts into a tombstone", index.inserts_into_empty_one),
        row("inserts that took a new overflow page", index.inserts_into_new_overflow),
        row("pages rewritten", index.rewrites),
        row("entries moved back by removals", index.repairs),
        row("pages split", index.splits),
        row("pages merged", index.merges),
        row("records moved by compaction", stats.compaction.moved_records),
        row("expired records removed by compaction", stats.compaction.expired_records),
        row("log files freed", stats.compaction.freed_segments),
        row("writers that helped compaction", stats.compaction.helps),
        row("writers that waited for compaction", stats.compaction.throttles),
        row("writers that waited for memory", stats.waits.memory),
    ];
    table(page, &["", "number"], &rows);
}
