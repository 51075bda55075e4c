//! A session as bytes: a version, then MessagePack of the expiry date and the data. The id is in the key.
//!
//! MessagePack, as in the stores for Redis, SQL and MongoDB, because it is shorter than JSON and keeps every bit of a float.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};

/// The first byte. Another encoding takes another one.
const VERSION: u8 = 1;

/// How deep a value may be nested. The writer checks it, because the reader would run out of stack in a small thread.
/// JSON, from which most values come, is read up to the same depth.
const LEVELS: usize = 128;

/// Seconds since 1970, nanoseconds above them, and the data.
type Parts<D> = (i64, u32, D);

pub(crate) fn encode(record: &Record) -> Result<Vec<u8>> {
    if !record.data.values().all(|value| fits(value, LEVELS)) {
        return Err(Error::Encode(format!("a value of the session is nested deeper than {LEVELS} levels")));
    }
    let date = record.expiry_date;
    let parts: Parts<_> = (date.unix_timestamp(), date.nanosecond(), &record.data);
    let mut bytes = vec![VERSION];
    // A number of serde_json is a struct where an application has its feature `arbitrary_precision`, and is read from a map.
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    parts.serialize(&mut serializer).map_err(|error| Error::Encode(error.to_string()))?;
    Ok(bytes)
}

pub(crate) fn decode(id: Id, bytes: &[u8]) -> Result<Record> {
    let mut rest = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        Some((version, _)) => {
            return Err(Error::Decode(format!(
                "the session is encoded in version {version}, and this tower-sessions-tophash reads version {VERSION}"
            )));
        }
        None => return Err(Error::Decode("the session is encoded in no byte at all".into())),
    };
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    // The parts and their map are levels too, and the one that remains at the end is never used.
    deserializer.set_max_depth(LEVELS + 3);
    let (seconds, nanoseconds, data) = Parts::<HashMap<String, Value>>::deserialize(&mut deserializer)
        .map_err(|error| Error::Decode(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Error::Decode(format!("{} bytes follow the session", rest.len())));
    }
    let expiry_date = OffsetDateTime::from_unix_timestamp(seconds)
        .and_then(|date| date.replace_nanosecond(nanoseconds))
        .map_err(|error| Error::Decode(format!("the expiry date is none: {error}")))?;
    Ok(Record { id, data, expiry_date })
}

/// Arrays and objects within each other, up to `levels`. Goes no deeper than that itself.
fn fits(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return !value.is_array() && !value.is_object() };
    match value {
        Value::Array(values) => values.iter().all(|value| fits(value, below)),
        Value::Object(values) => values.values().all(|value| fits(value, below)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use time::{Date, Duration, Time};

    fn record(data: Value, expiry_date: OffsetDateTime) -> Record {
        let Value::Object(data) = data else { panic!("no object: {data}") };
        Record { id: Id(7), data: data.into_iter().collect(), expiry_date }
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn a_session_comes_back_as_it_was() {
        let numbers = json!({
            "least": i64::MIN, "most": u64::MAX, "one": 1, "float": 1.0,
            "floats": [f64::MAX, f64::MIN_POSITIVE, 5e-324, -0.0, 0.1 + 0.2, 1.0 - f64::EPSILON]
        });
        let texts =
            json!({"": "", "ключ": "значение", "nul": "\u{0}", "none": null, "yes": true, "deep": nested(LEVELS)});
        let first = OffsetDateTime::new_utc(Date::MIN, Time::MIDNIGHT);
        let last = OffsetDateTime::new_utc(Date::MAX, Time::MAX);
        let before_1970 = OffsetDateTime::UNIX_EPOCH - Duration::nanoseconds(1);
        for data in [json!({}), numbers, texts] {
            for date in [first, before_1970, OffsetDateTime::UNIX_EPOCH, OffsetDateTime::now_utc(), last] {
                let record = record(data.clone(), date);
                let decoded = decode(record.id, &encode(&record).unwrap()).unwrap();
                assert_eq!(decoded, record);
                assert_eq!(decoded.expiry_date.unix_timestamp_nanos(), date.unix_timestamp_nanos());
            }
        }
    }

    #[test]
    fn the_encoding_of_version_1_stays() {
        let date = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(1500);
        let record = record(json!({"n": 3}), date);
        let bytes = b"\x01\x93\x01\xce\x1d\xcd\x65\x00\x81\xa1n\x03";
        assert_eq!(encode(&record).unwrap(), bytes);
        assert_eq!(decode(record.id, bytes).unwrap(), record);
    }

    /// What is written can be read: the writer refuses what is too deep, and never the reader.
    #[test]
    fn what_is_nested_too_deep_is_not_written() {
        let in_objects = |depth| (0..depth).fold(json!(1), |inner, _| json!({"in": inner}));
        for nest in [&nested as &dyn Fn(usize) -> Value, &in_objects] {
            let record = |depth| record(json!({"deep": nest(depth), "flat": 1}), OffsetDateTime::UNIX_EPOCH);
            for depth in [0, 1, LEVELS - 1, LEVELS] {
                let bytes = encode(&record(depth)).unwrap();
                assert_eq!(decode(Id(7), &bytes).unwrap(), record(depth), "{depth}");
            }
            for depth in [LEVELS + 1, 2 * LEVELS] {
                assert!(matches!(encode(&record(depth)), Err(Error::Encode(text)) if text.contains("128 levels")));
            }
        }
        // Bytes that another writer has put there.
        let deeper = [b"\x01\x93\x01\x00\x81\xa1n".as_slice(), &[0x91; 100_000], b"\x01"].concat();
        assert!(matches!(decode(Id(7), &deeper), Err(Error::Decode(_))));
    }

    #[test]
    fn each_prefix_and_each_changed_byte_is_an_error_or_a_session() {
        let record = record(json!({"user": "ada", "roles": ["admin", 1, 2.5]}), OffsetDateTime::now_utc());
        let bytes = encode(&record).unwrap();
        for length in 0..bytes.len() {
            assert!(matches!(decode(record.id, &bytes[..length]), Err(Error::Decode(_))), "{length}");
        }
        for at in 0..bytes.len() {
            for byte in 0..=255 {
                let mut changed = bytes.clone();
                changed[at] = byte;
                if let Err(error) = decode(record.id, &changed) {
                    assert!(matches!(error, Error::Decode(_)) && byte != bytes[at], "{at}: {error:?}");
                }
            }
        }
        let longer = [bytes.as_slice(), b"\0"].concat();
        assert!(matches!(decode(record.id, &longer), Err(Error::Decode(text)) if text == "1 bytes follow the session"));
    }

    #[test]
    fn other_versions_and_impossible_dates_are_told() {
        let text = |bytes: &[u8]| decode(Id(7), bytes).unwrap_err().to_string();
        assert!(text(b"").contains("no byte"));
        assert!(text(b"\x02anything").contains("version 2, and this tower-sessions-tophash reads version 1"));
        // A second that no date has, then a nanosecond that no second has.
        assert!(text(b"\x01\x93\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x80").contains("expiry date"));
        assert!(text(b"\x01\x93\x00\xce\x3b\x9a\xca\x00\x80").contains("expiry date"));
    }
}
