//! A session cache that survives restarts. Sessions expire by themselves, and so does their space: no timer, no sweep.
//!
//!     cargo run --example sessions

use std::time::{Duration, SystemTime};

use tophash::{Options, Result, Store, SyncPolicy};

/// Sessions by their token.
struct Sessions {
    /// A handle whose writes expire.
    store: Store,
}

impl Sessions {
    fn open(path: &std::path::Path, lifetime: Duration) -> Result<Self> {
        // A power loss may cost the logins of the last second; a killed process costs nothing.
        let store = Options::new().sync(SyncPolicy::Every(Duration::from_secs(1))).open(path)?;
        Ok(Sessions { store: store.expiring(lifetime) })
    }

    fn login(&self, token: &str, user: &str) -> Result<()> {
        self.store.set(token, user)
    }

    /// Whose session it is, if it has not expired. Each look at it makes it last longer.
    fn user(&self, token: &str) -> Result<Option<String>> {
        let Some(user) = self.store.get(token)? else { return Ok(None) };
        self.store.expire(token, self.store.expiry())?;
        Ok(Some(String::from_utf8_lossy(&user).into_owned()))
    }
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tophash-example-sessions-{}", std::process::id()));
    let sessions = Sessions::open(&path, Duration::from_secs(3600))?;
    sessions.login("token-1", "ada")?;
    sessions.login("token-2", "grace")?;
    sessions.store.close()?;

    // A restart later. The deadlines are in the store, whatever the lifetime is now.
    let sessions = Sessions::open(&path, Duration::ZERO)?;
    let end = sessions.store.expires_at("token-1")?.expect("it has a deadline");
    assert!(end > SystemTime::now() + Duration::from_secs(3000));
    sessions.login("token-3", "ends at once")?;
    assert_eq!(sessions.user("token-3")?, None);
    println!("{} sessions left of 3", sessions.store.iter().count());
    assert_eq!(sessions.store.iter().count(), 2);
    sessions.store.close()?;
    // Nobody has it open any more.
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
