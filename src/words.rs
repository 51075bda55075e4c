//! Numbers of things in messages: one of a thing is no plural.

/// The noun for a number of things: `record` for one, `records` for none and for several.
pub(crate) fn noun(number: u64, one: &str) -> String {
    let many = if one.ends_with("ch") { "es" } else { "s" };
    if number == 1 { one.into() } else { format!("{one}{many}") }
}

/// A number of things: `1 record`, `2 records`.
pub(crate) fn some(number: u64, one: &str) -> String {
    format!("{number} {}", noun(number, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_is_no_plural() {
        assert_eq!([some(0, "key"), some(1, "key"), some(2, "batch")], ["0 keys", "1 key", "2 batches"]);
    }
}
