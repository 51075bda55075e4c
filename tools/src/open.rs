//! How the commands open a store: reading ones change nothing on disk, and only writing ones create.

use std::path::Path;

use anyhow::anyhow;
use tophash::{Error, Options, Store, SyncPolicy};

/// Opens for reading. Several readers may share a store, none beside a writer.
pub fn read_only(path: &Path) -> anyhow::Result<Store> {
    Options::new().read_only(true).create(false).open(path).map_err(explain)
}

/// Opens for writing. The commands close the store themselves, which syncs, so no timer needs to.
pub fn writable(path: &Path, create: bool) -> anyhow::Result<Store> {
    Options::new().create(create).sync(SyncPolicy::Manual).open(path).map_err(explain)
}

/// The library's advice is about its own options; a user of the command needs the command's.
fn explain(error: Error) -> anyhow::Error {
    match error {
        Error::NotFound { path } => anyhow!(
            "there is no store at {}; `tophash set` and `tophash import` create one (without --no-create)",
            path.display()
        ),
        error => error.into(),
    }
}
