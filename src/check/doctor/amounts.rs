//! Amounts as the findings of rules write them.

use crate::words::noun;

/// A share, as a number from 0 to 1. Of nothing it is 0.
pub(super) fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// A share in percent.
pub(super) fn percent(part: u64, all: u64) -> String {
    format!("{:.1} %", 100.0 * share(part, all))
}

/// A number with separators.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things.
pub(super) fn things(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{} {}", count(number), noun(number, what))
}

/// `1 change follows`, `2 changes follow`.
pub(super) fn follow(changes: u64) -> String {
    format!("{} follow{}", things(changes, "change"), if changes == 1 { "s" } else { "" })
}

/// A number of remove-records.
pub(super) fn removals(number: u64) -> String {
    format!("{} of removals", things(number, "record"))
}

/// A number of slots.
pub(super) fn slots(number: u64) -> String {
    things(number, "slot")
}

/// A size in binary units.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return things(bytes, "byte");
    }
    let mut value = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
