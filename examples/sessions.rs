//! A session cache that survives restarts. The store knows no expiry, so each value begins with the second at
//! which it ends: reads pass over what is too old, and a sweep removes it in bounded steps.
//!
//!     cargo run --example sessions

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tophash::{Cursor, Options, Result, Store, SyncPolicy};

/// Sessions by their token.
struct Sessions {
    store: Store,
    lifetime: Duration,
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The second at which a value ends, and what it holds.
fn split(value: &[u8]) -> Option<(u64, &[u8])> {
    let (end, user) = value.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*end), user))
}

impl Sessions {
    fn open(path: &std::path::Path, lifetime: Duration) -> Result<Self> {
        // A power loss may cost the logins of the last second; a killed process costs nothing.
        let store = Options::new().sync(SyncPolicy::Every(Duration::from_secs(1))).open(path)?;
        Ok(Sessions { store, lifetime })
    }

    fn login(&self, token: &str, user: &str) -> Result<()> {
        let mut value = (seconds_now() + self.lifetime.as_secs()).to_le_bytes().to_vec();
        value.extend_from_slice(user.as_bytes());
        self.store.insert(token, value)?;
        Ok(())
    }

    /// Whose session it is, if it has not ended.
    fn user(&self, token: &str) -> Result<Option<String>> {
        let Some(value) = self.store.get(token)? else { return Ok(None) };
        let user = split(&value).filter(|(end, _)| *end > seconds_now());
        Ok(user.map(|(_, user)| String::from_utf8_lossy(user).into_owned()))
    }

    /// Looks at some sessions and removes those that have ended. Returns where to go on: call it from a timer.
    fn sweep(&self, cursor: Cursor) -> Result<Option<Cursor>> {
        let (entries, next) = self.store.scan(cursor, 1000)?;
        for entry in entries {
            let ended = |value: &[u8]| split(value).is_none_or(|(end, _)| end <= seconds_now());
            if ended(entry.value()) {
                // Only if nobody has renewed it meanwhile; otherwise the new value stays.
                let _ = self.store.compare_exchange(entry.key(), Some(entry.value()), None)?;
            }
        }
        Ok(next)
    }
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tophash-example-sessions-{}", std::process::id()));
    let sessions = Sessions::open(&path, Duration::from_secs(3600))?;
    sessions.login("token-1", "ada")?;
    sessions.login("token-2", "grace")?;
    sessions.store.close()?;

    // A restart later.
    let sessions = Sessions::open(&path, Duration::ZERO)?;
    assert_eq!(sessions.user("token-1")?.as_deref(), Some("ada"));
    sessions.login("token-3", "ends at once")?;
    assert_eq!(sessions.user("token-3")?, None);
    let mut cursor = Some(Cursor::START);
    while let Some(at) = cursor {
        cursor = sessions.sweep(at)?;
    }
    println!("{} sessions left of 3", sessions.store.len());
    assert_eq!(sessions.store.len(), 2);
    sessions.store.close()?;
    // Nobody has it open any more.
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
