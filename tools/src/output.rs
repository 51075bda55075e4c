//! Results to stdout, notes to stderr. Nothing here panics: `println!` would, on a closed pipe.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::format::escape::for_terminal;
use crate::format::json;

/// Writes a line to stderr. Where stderr is closed there is nobody to tell.
pub fn note(text: fmt::Arguments<'_>) {
    let mut line = for_terminal(&text.to_string()).into_owned();
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes a finished report to stdout. A reader that has gone does not change what the command found, so a
/// closed pipe is no error here; commands that stream let it end their work instead.
pub fn emit(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(for_terminal(text).as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a report to stdout as one indented JSON document.
pub fn emit_json(report: &impl Serialize) -> anyhow::Result<()> {
    let mut text = json::to_text(report)?;
    text.push('\n');
    Ok(emit(&text)?)
}

/// An empty table with this head. Markdown, so that it can be pasted into an issue as it is. On a terminal it is no wider
/// than that: long cells go on below.
pub fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(head);
    if let Some(width) = width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}

/// Less than this no table is squeezed into.
const WIDTH_MIN: u16 = 40;

/// Columns of the terminal: what COLUMNS says, else what the terminal says. None where the text goes elsewhere.
pub fn width() -> Option<u16> {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.trim().parse::<u16>().ok());
    let asked = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
    said.or_else(asked).filter(|&columns| columns > 0).map(|columns| columns.max(WIDTH_MIN))
}

/// Right-aligns the columns of figures.
pub fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A count with thousands separators.
pub fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A number of things: `1 finding`, `2 findings`.
pub fn some(number: u64, what: &str) -> String {
    let many = match what.strip_suffix("ch") {
        Some(_) => "es",
        None => "s",
    };
    format!("{} {what}{}", count(number), if number == 1 { "" } else { many })
}

/// A number of records.
pub fn records(number: u64) -> String {
    some(number, "record")
}

/// A size in binary units.
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A duration with three significant digits, in the unit that fits.
pub fn duration(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {unit}")
}

/// A time in seconds since 1970, as a date and a time of day in UTC.
pub fn date(seconds: u64) -> String {
    let (mut days, minutes) = (seconds / 86_400, seconds / 60 % 1440);
    let leap = |year: u64| u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)));
    let mut year = 1970;
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let lengths = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02} {:02}:{:02} UTC", month + 1, days + 1, minutes / 60, minutes % 60)
}

/// A deadline in milliseconds since 1970.
pub fn millis(time: Option<SystemTime>) -> Option<u64> {
    let since = time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// How many per second, as a whole number; 0 where no time passed.
pub fn per_second(amount: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (amount as f64 / seconds).round() as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_three_digits() {
        let shown: Vec<_> = [0, 999, 1_000, 12_345, 123_456, 9_996_000, 1_500_000_000].map(duration).into();
        assert_eq!(shown, ["0 ns", "999 ns", "1.00 us", "12.3 us", "123 us", "10.0 ms", "1.50 s"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let shown: Vec<_> = [0, 951_782_399, 951_782_400, 1_735_689_599, 4_102_444_800].map(date).into();
        let days = ["1970-01-01 00:00", "2000-02-28 23:59", "2000-02-29 00:00", "2024-12-31 23:59", "2100-01-01 00:00"];
        assert_eq!(shown, days.map(|day| format!("{day} UTC")));
    }

    #[test]
    fn rates_survive_no_time() {
        assert_eq!(per_second(10, Duration::ZERO), 0);
        assert_eq!(per_second(10, Duration::from_millis(500)), 20);
    }

    #[test]
    fn one_of_a_thing_is_no_plural() {
        assert_eq!(
            [some(1, "batch"), some(2, "batch"), some(0, "key"), records(1)],
            ["1 batch", "2 batches", "0 keys", "1 record"]
        );
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = table(["a", "n"]);
        table.add_row(["x", "10"]);
        align_right(&mut table, [1, 7]);
        assert_eq!(table.to_string(), "| a |  n |\n|---|----|\n| x | 10 |");
    }
}
