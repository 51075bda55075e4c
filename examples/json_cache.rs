//! A cache of JSON that outlives the process: a codec of the program's own, entries that expire, and a bound on how much is kept.
//!
//!     cargo run --example json_cache

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};
use tophash::codec::{Codec, CodecError};
use tophash::{Result, Store, TypedTable};

/// Values of JSON, as text.
struct Json;

impl Codec for Json {
    type Item = Value;
    type Read<'a> = Value;
    type Owned = Value;
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        "json".into()
    }

    fn encode(item: &Value) -> std::result::Result<impl AsRef<[u8]>, CodecError> {
        Ok(serde_json::to_vec(item)?)
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Value, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    fn into_owned(read: Value) -> Value {
        read
    }
}

/// Answers of a slow service by their address.
struct Cache {
    answers: TypedTable<str, Json>,
}

impl Cache {
    fn open(store: &Store) -> Result<Self> {
        Ok(Cache { answers: store.table_of("answers")?.expiring(Duration::from_secs(300)) })
    }

    /// The answer of an address, from the cache if it is there.
    fn get(&self, address: &str, fetch: impl FnOnce(&str) -> Value) -> Result<Value> {
        self.answers.get_or_insert_with(address, || fetch(address))
    }
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tophash-example-json-{}", std::process::id()));
    let mut fetched = 0;
    for _start in 0..2 {
        let store = Store::open(&path)?;
        let cache = Cache::open(&store)?;
        for city in ["Turin", "Lyon", "Turin"] {
            let answer = cache.get(&format!("/weather/{city}"), |address| {
                fetched += 1;
                json!({ "address": address, "degrees": 20, "sky": ["clear", "wind"] })
            })?;
            println!("{city}: {} degrees", answer["degrees"]);
        }
        // A program that has other types for the table is told so.
        let wrong = store.table_of::<str, u64>("answers").unwrap_err();
        assert!(wrong.to_string().contains("\"json\" version 1"), "{wrong}");
        store.close()?;
    }
    assert_eq!(fetched, 2, "the second start found both answers");
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
