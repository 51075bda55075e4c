//! How the commands open a store: reading ones change nothing on disk, and only writing ones create.

use std::path::Path;

use tophash::{Options, Store, SyncPolicy};

use crate::argument;

/// Opens for reading. Several readers may share a store, none beside a writer.
pub fn read_only(path: &Path) -> anyhow::Result<Store> {
    Ok(Options::new().read_only(true).create(false).open(path)?)
}

/// Opens for writing. The commands close the store themselves, which syncs, so no timer needs to.
pub fn writable(path: &Path, create: Option<&Creating>) -> anyhow::Result<Store> {
    let mut options = Options::new().create(create.is_some_and(|creating| !creating.no_create));
    if let Some(mode) = create.and_then(|creating| creating.mode) {
        options = options.mode(mode);
    }
    Ok(options.sync(SyncPolicy::Manual).open(path)?)
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
