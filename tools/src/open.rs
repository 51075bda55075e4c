//! How the commands open a store: reading ones change nothing on disk, and only writing ones create.

use std::path::Path;

use tophash::{Error, Options, Store, SyncPolicy, Table};

use crate::argument;
use crate::format::escape;

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

/// Which table a command is about.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The table; without it, or with '', the main one, which has no name. `tophash tables` lists the others
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
}

impl Which {
    /// For commands that give --table a help of their own.
    pub fn of(table: Option<&String>) -> Self {
        Which { table: table.cloned() }
    }

    /// The name that was asked for. None: the main table.
    pub fn name(&self) -> Option<&str> {
        self.table.as_deref().filter(|name| !name.is_empty())
    }

    /// The table, which must be there.
    pub fn existing(&self, store: &Store) -> Result<Table, Error> {
        self.name().map_or_else(|| Ok(Table::clone(store)), |name| store.existing_table(name))
    }

    /// The table, which is made if there is none.
    pub fn made(&self, store: &Store, creating: &Creating) -> Result<Table, Error> {
        if creating.no_create { self.existing(store) } else { made(store, self.name()) }
    }
}

/// A table, which is made if there is none. Without a name the main one.
pub fn made(store: &Store, name: Option<&str>) -> Result<Table, Error> {
    name.map_or_else(|| Ok(Table::clone(store)), |name| store.table(name))
}

/// How a table is called in texts.
pub fn called(name: Option<&str>) -> String {
    name.map_or_else(|| "the main table".to_string(), |name| format!("table {}", escape::excerpt(name.as_bytes())))
}

/// What commands are told that make a store where there is none.
#[derive(Debug, clap::Args)]
pub struct Creating {
    /// Create neither a store nor a table
    #[arg(long)]
    pub no_create: bool,
    /// Permissions of a new store's files, in octal, less the umask; 640 lets the group read [default: 600]
    ///
    /// A store that exists keeps its permissions.
    #[arg(long, value_name = "MODE", value_parser = argument::file_mode)]
    mode: Option<u32>,
}
