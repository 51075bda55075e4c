//! Words of messages: numbers of things, where one of a thing is no plural, and keys.

/// The noun for a number of things: `record` for one, `records` for none and for several.
pub(crate) fn noun(number: u64, one: &str) -> String {
    let many = if one.ends_with("ch") { "es" } else { "s" };
    if number == 1 { one.into() } else { format!("{one}{many}") }
}

/// A number of things: `1 record`, `2 records`.
pub(crate) fn some(number: u64, one: &str) -> String {
    format!("{number} {}", noun(number, one))
}

/// The front of a key, up to `most` bytes, between quotes: `"user:7"`, `"a long k..."`.
pub(crate) fn quoted(key: &[u8], most: usize) -> String {
    let front = key.get(..most).unwrap_or(key);
    let more = if front.len() < key.len() { "..." } else { "" };
    format!("\"{}{more}\"", front.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_of_a_key_is_shown() {
        assert_eq!([quoted(b"a\xff", 2), quoted(b"abc", 2), quoted(b"", 0)], ["\"a\\xff\"", "\"ab...\"", "\"\""]);
    }

    #[test]
    fn one_of_a_thing_is_no_plural() {
        assert_eq!([some(0, "key"), some(1, "key"), some(2, "batch")], ["0 keys", "1 key", "2 batches"]);
    }
}
