//! When and where a diagnosis was made.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::output;

/// The circumstances of a diagnosis: a page that is attached to an incident tells them.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The store's whole path.
    pub path: PathBuf,
    /// The machine's name.
    pub host: String,
    /// The time, in UTC.
    pub date: String,
}

impl Circumstances {
    /// Those of now.
    pub fn now(store: &Path) -> Self {
        let path = store.canonicalize().or_else(|_| std::path::absolute(store)).unwrap_or_else(|_| store.into());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Circumstances {
            path,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            date: output::date(since.as_secs()),
        }
    }
}
