//! A session cache that survives restarts. A session is a struct of the program. Sessions expire by themselves, and so does
//! their space: no timer, no sweep.
//!
//!     cargo run --features postcard --example sessions

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tophash::codec::{Postcard, Schema};
use tophash::{Expiry, Options, Result, Store, SyncPolicy, TypedTable};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Session {
    user: String,
    roles: Vec<String>,
}

impl Schema for Session {
    // Another one with each change of the fields: a program that has other fields is refused, and reads no nonsense.
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        "session".into()
    }
}

/// Sessions by their token.
struct Sessions {
    store: Store,
    /// A handle whose writes expire.
    table: TypedTable<str, Postcard<Session>>,
    lifetime: Duration,
}

impl Sessions {
    fn open(path: &std::path::Path, lifetime: Duration) -> Result<Self> {
        // A power loss may cost the logins of the last second; a killed process costs nothing.
        let store = Options::new().sync(SyncPolicy::Every(Duration::from_secs(1))).open(path)?;
        let table = store.table_of("sessions")?.expiring(lifetime);
        Ok(Sessions { store, table, lifetime })
    }

    fn login(&self, token: &str, user: &str, roles: &[&str]) -> Result<()> {
        let roles = roles.iter().map(ToString::to_string).collect();
        self.table.set(token, &Session { user: user.to_string(), roles })
    }

    /// The session, if it has not expired. Each look at it makes it last longer.
    fn session(&self, token: &str) -> Result<Option<Session>> {
        let Some(session) = self.table.get(token)? else { return Ok(None) };
        self.table.expire(token, Expiry::from(self.lifetime))?;
        Ok(Some(session))
    }
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tophash-example-sessions-{}", std::process::id()));
    let sessions = Sessions::open(&path, Duration::from_secs(3600))?;
    sessions.login("token-1", "ada", &["admin"])?;
    sessions.login("token-2", "grace", &[])?;
    sessions.store.close()?;

    // A restart later. The deadlines are in the store, whatever the lifetime is now.
    let sessions = Sessions::open(&path, Duration::ZERO)?;
    let end = sessions.table.expires_at("token-1")?.expect("it has a deadline");
    assert!(end > SystemTime::now() + Duration::from_secs(3000));
    sessions.login("token-3", "ends at once", &[])?;
    assert_eq!(sessions.session("token-3")?, None);
    println!("{} sessions left of 3", sessions.table.iter().count());
    assert_eq!(sessions.table.iter().count(), 2);
    assert_eq!(sessions.session("token-1")?.expect("it has not expired").roles, ["admin"]);
    sessions.store.close()?;
    // Nobody has it open any more.
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
