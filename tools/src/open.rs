//! How the commands open a store: reading ones change nothing on disk, and only writing ones create.

use std::path::Path;

use anyhow::anyhow;
use tophash::{Error, Options, Store, SyncPolicy};

use crate::argument;

/// Opens for reading. Several readers may share a store, none beside a writer.
pub fn read_only(path: &Path) -> anyhow::Result<Store> {
    Options::new().read_only(true).create(false).open(path).map_err(explain)
}

/// Opens for writing. The commands close the store themselves, which syncs, so no timer needs to.
pub fn writable(path: &Path, create: Option<&Creating>) -> anyhow::Result<Store> {
    let mut options = Options::new().create(create.is_some_and(|creating| !creating.no_create));
    if let Some(mode) = create.and_then(|creating| creating.mode) {
        options = options.mode(mode);
    }
    options.sync(SyncPolicy::Manual).open(path).map_err(explain)
}

/// What commands are told that make a store where there is none.
#[derive(Debug, clap::Args)]
pub struct Creating {
    /// Do not create a store
    #[arg(long)]
    no_create: bool,
    /// Permissions of a new store's files, in octal, less the umask; 640 lets the group read [default: 600]
    ///
    /// A store that exists keeps its permissions.
    #[arg(long, value_name = "MODE", value_parser = argument::file_mode)]
    mode: Option<u32>,
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
