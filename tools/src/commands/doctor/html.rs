//! The diagnosis as one page that loads nothing. It answers in the order in which an operator asks: which store, is it
//! well, where did the disk go, how full and how fast. The rest is folded. A fact stands once: a figure that a finding
//! states has no tile.

use std::fmt::Write as _;

use tophash::Tuning;
use tophash::doctor::{Advice, Diagnosis, Severity};

use super::circumstances::Circumstances;
use super::markup::{capital, code, escape};
use super::{action, charts, details, percent, space};
use crate::output::{count, records, size, some};

const STYLE: &str = include_str!("style.css");
/// Log files that a store may have.
const SEGMENTS_MAX: u64 = 4096;

/// The page.
pub fn page(at: &Circumstances, d: &Diagnosis) -> String {
    let name = at.path.file_name().map_or_else(|| at.path.to_string_lossy(), |name| name.to_string_lossy());
    let name = escape(&name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{name}: tophash doctor</title>\n<style>\n{STYLE}</style></head>\n<body>\n<header><h1>{name}</h1>\n"
    );
    which(&mut page, at, d);
    page.push_str("</header>\n<main>\n");
    verdict(&mut page, at, d);
    disk(&mut page, d);
    tiles(&mut page, d);
    details::all(&mut page, d);
    page.push_str("</main>\n</body></html>\n");
    page
}

/// Which store it is, and of when the figures are.
fn which(page: &mut String, at: &Circumstances, d: &Diagnosis) {
    let facts = [
        ("Path", at.path.to_string_lossy().into_owned()),
        ("Store", d.uuid.clone()),
        ("Host", at.host.clone()),
        ("Date", format!("{}, by tophash {}", at.date, env!("CARGO_PKG_VERSION"))),
        ("State", state(d)),
    ];
    page.push_str("<dl>");
    for (name, fact) in facts {
        let _ = write!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&fact));
    }
    page.push_str("</dl>\n");
}

/// Closed or not, and which figures are current.
fn state(d: &Diagnosis) -> String {
    if d.closed_cleanly {
        return "closed; all figures are current".into();
    }
    let checkpoint = format!("checkpoint {}", count(d.generation));
    if !d.log_is_current() {
        return format!("not closed; all figures are those of {checkpoint}, later changes are not counted");
    }
    if d.index_is_current() {
        return format!("not closed; nothing was changed after {checkpoint}, all figures are current");
    }
    format!(
        "not closed; records and log are current with {} ({}) after {checkpoint}, the index is as of {checkpoint}",
        some(d.tail_records, "change"),
        size(d.tail_bytes),
    )
}

/// Is the store well? The worst finding first, with the command that mends it.
fn verdict(page: &mut String, at: &Circumstances, d: &Diagnosis) {
    let findings = d.advice.split_first().filter(|(worst, _)| worst.severity > Severity::Info);
    let Some((worst, others)) = findings else {
        let _ = writeln!(
            page,
            "<section class=\"verdict good\"><h2><span class=\"level\">Healthy</span> No rule finds anything that needs \
             doing.</h2></section>"
        );
        section(page, at, "Good to know", d.advice.iter());
        return;
    };
    // The advice of an error that a finding quotes does not belong into the one sentence.
    let (finding, more) = worst.finding.split_once("; ").unwrap_or((&worst.finding, ""));
    let _ = write!(
        page,
        "<section class=\"verdict {0}\"><h2><span class=\"level\">{0}</span> {1}.</h2>",
        worst.severity,
        code(&capital(finding)),
    );
    if !more.is_empty() {
        let _ = write!(page, "<p class=\"dim\">{}.</p>", code(&capital(more)));
    }
    let todo = action(&at.path, worst);
    let mend = command(&todo);
    let _ = match mend {
        Some(command) if command.starts_with("tophash verify") => {
            write!(page, "<p>First see how far it goes:</p><pre><code>{}</code></pre>", escape(command))
        }
        Some(command) => write!(page, "<p>To mend it:</p><pre><code>{}</code></pre>", escape(command)),
        None => write!(page, "<p>To do: {}.</p>", code(&todo)),
    };
    let _ = write!(
        page,
        "<details><summary>Why it matters, and all ways to mend it</summary><p>{}.</p><p>{}.</p></details>",
        code(&capital(&worst.reason)),
        code(&capital(&todo)),
    );
    let same = |advice: &&Advice| mend.is_some() && command(&action(&at.path, advice)) == mend;
    let number = others.iter().filter(same).count() as u64;
    if number > 0 {
        let title = format!("The same command mends {}", some(number, "more finding"));
        let _ = write!(page, "<details><summary>{title}</summary>");
        list(page, at, others.iter().filter(same));
        page.push_str("</details>");
    }
    page.push_str("</section>\n");
    section(page, at, "Other findings", others.iter().filter(|advice| !same(advice)));
}

/// The first command of this tool in an action.
fn command(action: &str) -> Option<&str> {
    action.split('`').skip(1).step_by(2).find(|code| code.starts_with("tophash "))
}

/// Findings below a title, if there are any.
fn section<'a>(page: &mut String, at: &Circumstances, title: &str, findings: impl Iterator<Item = &'a Advice>) {
    let mut findings = findings.peekable();
    if findings.peek().is_some() {
        let _ = writeln!(page, "<section><h3>{title}</h3>");
        list(page, at, findings);
        page.push_str("</section>\n");
    }
}

/// Findings, a line each, unfolded one by one.
fn list<'a>(page: &mut String, at: &Circumstances, findings: impl Iterator<Item = &'a Advice>) {
    for advice in findings {
        let _ = writeln!(
            page,
            "<details class=\"finding {0}\"><summary><span class=\"level\">{0}</span> {1}.</summary><p>Why it matters: \
             {2}.</p><p>To do: {3}.</p></details>",
            advice.severity,
            code(&capital(&advice.finding)),
            code(&advice.reason),
            code(&action(&at.path, advice)),
        );
    }
}

/// Where the disk went: one bar, and a line for each of its colours.
fn disk(page: &mut String, d: &Diagnosis) {
    let all = d.disk.all();
    let parts: Vec<_> = space::parts(d).into_iter().filter(|part| part.bytes > 0).collect();
    let _ = writeln!(page, "<section><h2>Disk: {}</h2>", size(all));
    page.push_str(&charts::stacked(&parts, "Parts of the disk space; the table below has their figures"));
    page.push_str("<table class=\"parts\"><tr><th scope=\"col\">Part</th><th scope=\"col\">Size</th><th scope=\"col\">Share</th></tr>");
    for part in &parts {
        let _ = write!(
            page,
            "<tr><td><i class=\"{}\"></i>{}</td><td>{}</td><td>{}</td></tr>",
            part.class,
            escape(part.name),
            size(part.bytes),
            percent(part.bytes, all)
        );
    }
    page.push_str("</table>");
    if d.log_is_current() && !told(d, "compaction-pays") {
        let _ = write!(
            page,
            "<p class=\"dim\">Offline compaction would give back about {}.</p>",
            size(d.reclaimable.bytes())
        );
    }
    page.push_str("</section>\n");
}

/// How full, and how fast.
fn tiles(page: &mut String, d: &Diagnosis) {
    let (table, slots) = (&d.table, &d.slots);
    let mut tiles = vec![("Records", count(d.records), String::new())];
    // The records are those of now, the slots those of the checkpoint.
    if !told(d, "load") && (d.index_is_current() || !d.log_is_current()) {
        let full = percent(d.records, table.slots);
        let begin = u128::from(table.slots) * u128::from(Tuning::default().grow_permille) / 1000;
        let room = u64::try_from(begin).unwrap_or(u64::MAX).saturating_sub(d.records);
        tiles.push(("Index filled to", full, format!("room for {} before it grows", records(room))));
    }
    if table.growing || table.shrinking {
        let what = if table.growing { "growing" } else { "shrinking" };
        let done = percent(table.evacuated_pages, 1 << table.level.min(63));
        tiles.push(("The index is", what.into(), format!("{done} of its pages are divided")));
    }
    if slots.live > 0 && !told(d, "absent-key-lookups") {
        let reads = format!("{:.2} cache lines", d.absent_mean);
        tiles.push((
            "A lookup of an absent key reads",
            reads,
            format!("{:.2} is the best at this load", d.absent_expected),
        ));
    }
    if slots.live > 0 && !told(d, "chains") && !told(d, "long-chain") {
        let pages: u64 = d.chains.iter().skip(1).sum();
        let share = format!("{} of the pages have one or more", percent(pages, table.pages_in_use));
        let share = if pages > 0 { share } else { String::new() };
        tiles.push(("Longest chain", some(d.chain_longest, "overflow page"), share));
    }
    if slots.empty_one > 0 && !told(d, "tombstones") {
        tiles.push((
            "Tombstones of removed keys",
            count(slots.empty_one),
            format!("{} of the slots", percent(slots.empty_one, slots.all())),
        ));
    }
    if slots.marked > 0 && !told(d, "unreadable-entries") {
        tiles.push(("Unreadable entries", count(slots.marked), String::new()));
    }
    if !told(d, "segments") {
        tiles.push(("Log files", count(d.log.segments), format!("of {} at most", count(SEGMENTS_MAX))));
    }
    if d.blobs.count > 0 {
        tiles.push(("Large values", count(d.blobs.count), size(d.blobs.bytes)));
    }
    page.push_str("<section><h2>How full and how fast</h2><dl class=\"tiles\">");
    for (name, value, more) in tiles {
        let _ = write!(page, "<div><dt>{name}</dt><dd><b>{value}</b> <span class=\"dim\">{more}</span></dd></div>");
    }
    page.push_str("</dl></section>\n");
}

/// True if a finding of this rule stands on the page.
fn told(d: &Diagnosis, rule: &str) -> bool {
    d.advice.iter().any(|advice| advice.rule == rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tophash::stats::Stats;

    fn at(path: &str) -> Circumstances {
        Circumstances { path: path.into(), host: "host-7".into(), date: "2026-01-02 03:04 UTC".into() }
    }

    #[test]
    fn names_cannot_become_markup() {
        let page = page(&at("<script>alert(1)<&\"\u{1b}\u{202e}"), &Diagnosis::default());
        assert!(!page.contains("<script") && !page.contains(['\u{1b}', '\u{202e}']), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;&amp;&quot;"));
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let mut d = Diagnosis::default();
        d.include_stats(Stats::default());
        let page = page(&at("s"), &d);
        for word in ["http", "src=", "href=", "url(", "@import", "NaN", "<script"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn the_state_says_what_is_current() {
        let mut d = Diagnosis::default();
        (d.closed_cleanly, d.generation) = (true, 7);
        assert_eq!(state(&d), "closed; all figures are current");
        d.closed_cleanly = false;
        assert_eq!(state(&d), "not closed; nothing was changed after checkpoint 7, all figures are current");
        (d.tail_records, d.tail_bytes) = (1, 100);
        assert!(state(&d).contains("with 1 change (") && state(&d).contains("the index is as of checkpoint 7"));
        d.tail_problem = Some("EIO".into());
        assert!(state(&d).contains("all figures are those of checkpoint 7"));
    }
}
