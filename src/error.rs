//! What can go wrong, with everything a person needs at 3 a.m.: where, what was expected, what was
//! found, and what to do next.

mod location;
mod nature;

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

pub use location::Location;
pub(crate) use nature::{Nature, is_of_the_moment};

use crate::sys::{LockHolder, Removed};

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a codec could not write an item as bytes, or read bytes: any error that threads may share.
pub type CodecError = Box<dyn std::error::Error + Send + Sync>;

/// An error on the way through the hot paths: one word, so that results stay small enough to be returned in
/// registers or built in place. Becomes an [`Error`] where it leaves the crate.
#[derive(Debug)]
pub(crate) struct Fault(Box<Error>);

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault(Box::new(error))
    }
}

impl Deref for Fault {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        *fault.0
    }
}

/// Everything that a store can report.
///
/// No variant is ever the result of a panic caught, and no damaged file makes a call panic: damage is
/// [`Error::Corrupt`] or one of its more exact relatives.
///
/// Variants and their fields may be added: a `match` ends with `_`, and a pattern with `..`.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// use tophash::{Error, Options};
/// match Options::new().create(false).open(&path) {
///     Ok(store) => println!("{} sessions", store.len()),
///     Err(Error::NotFound { path, .. }) => println!("no sessions yet in {}", path.display()),
///     // The text says what is wrong where, and what to do next.
///     Err(error) if error.is_corruption() => eprintln!("{error}"),
///     Err(error) => eprintln!("try again later: {error}"),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operating-system call failed.
    #[error("{action} {}: {source}", path.display())]
    #[non_exhaustive]
    Io {
        /// What was being done, as in "open" or "allocate blocks of".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The file system has no room for what the call needs. Nothing was lost: the store can be read, and
    /// removals go on from a reserve for a while.
    #[error(
        "no space left to {action} {}: {source}; free some disk space and repeat the call (reads go on, removals go on from a reserve)",
        path.display()
    )]
    #[non_exhaustive]
    DiskFull {
        /// What was being done, as in "extend" or "allocate blocks of".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The store is open in another process, or a second time in this one.
    #[error(
        "{} is in use by {}; a store is opened by one process at a time (read-only openers may share it among themselves)",
        path.display(), holder(*pid, *reading)
    )]
    #[non_exhaustive]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds it, where the system or the LOCK file tells.
        pid: Option<u32>,
        /// True if it is open for reading, by one or more; only writing is refused then.
        reading: bool,
    },

    /// The store's directory was removed while the store was open. Changes and syncs succeed until one needs
    /// a new file, and none of them survives; [`Store::close`](crate::Store::close) returns this error in any case. The handle
    /// touches nothing else at the same path; values that are in memory can be read.
    #[error(
        "{action} {}: the store's directory was removed while the store was open; close this handle, and open or restore the store",
        path.display()
    )]
    #[non_exhaustive]
    Removed {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
    },

    /// The table was dropped, by this process, since the handle to it was made. A table that is made anew under the same name is
    /// another one.
    #[error("{}: the table {name:?} was dropped", path.display())]
    #[non_exhaustive]
    TableDropped {
        /// The store.
        path: PathBuf,
        /// The table's name.
        name: String,
    },

    /// A batch names a table of another store, or of an earlier open of this one.
    #[error("{}: the batch has changes of the table {name:?}, which is one of another store, or of an earlier open", path.display())]
    #[non_exhaustive]
    ForeignTable {
        /// The store that the batch was to be applied to.
        path: PathBuf,
        /// The table's name.
        name: String,
    },

    /// There is no table of that name in the store.
    #[error("{}: there is no table {name:?}; `tophash tables` lists those that are there", path.display())]
    #[non_exhaustive]
    NoSuchTable {
        /// The store.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
    },

    /// No table can have that name.
    #[error("a table cannot have the name {name:?}: {reason}")]
    #[non_exhaustive]
    InvalidTableName {
        /// The name, or its beginning.
        name: String,
        /// Why not.
        reason: &'static str,
    },

    /// A table holds other types than the program asks for. Nothing was changed.
    #[error(
        "{}: the {what} are {stored}, and the program asks for {wanted}; ask for those that it has, or give it new ones with Store::retype_table",
        path.display()
    )]
    #[non_exhaustive]
    WrongCodec {
        /// The store.
        path: PathBuf,
        /// What differs, as in `values of table "users"`.
        what: String,
        /// Name and version of the table's codec, or that it has none.
        stored: String,
        /// Name and version of the program's codec.
        wanted: String,
    },

    /// The codec of a typed table could not write a key or a value as bytes. Nothing was changed.
    #[error("{}: a {what} cannot be written as {codec}: {source}", path.display())]
    #[non_exhaustive]
    Encode {
        /// The store.
        path: PathBuf,
        /// What could not be written, as in `value of table "users"`.
        what: String,
        /// Name and version of the codec.
        codec: String,
        /// What the codec said.
        source: CodecError,
    },

    /// The codec of a typed table could not read the bytes of a key or a value, which are whole. They were written by other means
    /// than a typed table, or with another layout under the same name and version.
    #[error(
        "{}: the {what} is no {codec}: {source}; its bytes are whole, and a handle without types (Store::existing_table) reads and removes them",
        path.display()
    )]
    #[non_exhaustive]
    Decode {
        /// The store.
        path: PathBuf,
        /// What could not be read, as in `value of key "7" of table "users"`. The key's bytes are shown as text, or their beginning.
        what: String,
        /// Name and version of the codec.
        codec: String,
        /// What the codec said.
        source: CodecError,
    },

    /// There is nothing at the path, and the options do not allow to create a store.
    #[error("there is no store at {}; Options::create(true) would create one", path.display())]
    #[non_exhaustive]
    NotFound {
        /// The path that was to be opened.
        path: PathBuf,
    },

    /// There is a store already, and `create_new` was asked for.
    #[error("{} is a store already; open it without create_new, or choose another path", path.display())]
    #[non_exhaustive]
    AlreadyExists {
        /// The path that was to be created.
        path: PathBuf,
    },

    /// The path is a file, or a directory that belongs to something else. Nothing was written.
    #[error("{} is not a tophash store: {reason}", path.display())]
    #[non_exhaustive]
    NotAStore {
        /// The path.
        path: PathBuf,
        /// What was found there.
        reason: String,
    },

    /// The store was written by a newer version whose format this one does not understand.
    #[error(
        "{}: format version {found} is newer than {supported}, the newest that this build can {access}; use a newer tophash",
        path.display()
    )]
    #[non_exhaustive]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version that this build supports for the access.
        supported: u32,
        /// `"read"` or `"write"`.
        access: &'static str,
    },

    /// A file of another store lies in this store's directory.
    #[error(
        "{location}: belongs to store {found}, this is store {expected}; restore the file that belongs here from a copy, or save the rest with `tophash repair STORE NEW`"
    )]
    #[non_exhaustive]
    WrongStore {
        /// Where.
        location: Location,
        /// This store's uuid.
        expected: String,
        /// The uuid that was found.
        found: String,
    },

    /// Bytes on disk are not what was written.
    #[error(
        "damaged {what} in {location}: expected {expected}, found {found}; run `tophash verify` to see the extent; restore the store from a copy, or save what is whole with `tophash repair STORE NEW`"
    )]
    #[non_exhaustive]
    Corrupt {
        /// The structure that is damaged, as in "record" or "bucket page".
        what: &'static str,
        /// Where.
        location: Box<Location>,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },

    /// Writes that had been made durable are missing or damaged: the log breaks off before a position that
    /// a later mark declares durable. Opening is refused, because going on would make the loss final.
    #[error(
        "{location}: acknowledged data is lost: the log is valid up to position {valid_to:#x}, but was durable up to {durable_to:#x}; keep the files as they are and restore from a copy, or save what is whole with `tophash repair STORE NEW`; `tophash verify` shows the extent"
    )]
    #[non_exhaustive]
    LostData {
        /// Where the first record that does not validate begins.
        location: Box<Location>,
        /// Log position of the first record that does not validate.
        valid_to: u64,
        /// Log position up to which a later mark declares durability.
        durable_to: u64,
    },

    /// The key is longer than a record can hold.
    #[error("the key has {len} bytes, the limit is {limit}; use a hash of it as the key and keep it in the value")]
    #[non_exhaustive]
    KeyTooLong {
        /// The key's length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// The value is longer than a record can hold.
    #[error("the value has {len} bytes, the limit is {limit}; split it over several keys")]
    #[non_exhaustive]
    ValueTooLong {
        /// The value's length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// The batch is larger than one log frame can be.
    #[error("the batch needs {bytes} bytes of log, the limit is {limit}; apply it in parts")]
    #[non_exhaustive]
    BatchTooLarge {
        /// Bytes that the batch needs in the log.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// A structural limit of the format is reached.
    #[error("{}: {what}: the limit of {limit} is reached; {remedy}", path.display())]
    #[non_exhaustive]
    LimitReached {
        /// The store.
        path: PathBuf,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What helps.
        remedy: &'static str,
    },

    /// The store was opened read-only.
    #[error("{} is open read-only; open it without Options::read_only to change it", path.display())]
    #[non_exhaustive]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },

    /// An earlier I/O error left unclear what is on disk. The handle refuses every further change; reads go
    /// on. Close it and open the store again: recovery trusts nothing that was not proven durable.
    #[error(
        "{} refuses changes since an earlier error ({cause}); reads go on; close the store and open it again to recover",
        path.display()
    )]
    #[non_exhaustive]
    Poisoned {
        /// The store.
        path: PathBuf,
        /// The first error, in words.
        cause: String,
    },

    /// The store was closed, by [`Store::close`](crate::Store::close) of another handle. Values that are held stay readable.
    #[error("{} was closed by another of its handles; open the store again", path.display())]
    #[non_exhaustive]
    Closed {
        /// The store.
        path: PathBuf,
    },

    /// The handle was inherited through `fork`. Only the process that opened the store may use it.
    #[error("{} was opened by process {owner}; a forked child must open its own store", path.display())]
    #[non_exhaustive]
    Forked {
        /// The store.
        path: PathBuf,
        /// The process that opened it.
        owner: u32,
    },

    /// An operation started again and again, or met a state that its own rules exclude. Nothing was changed by it. This is a
    /// fault of tophash.
    #[error(
        "{}: given up after {tries} tries: {reason}; this is a fault of tophash: please report it, with the output of `tophash verify`",
        path.display()
    )]
    #[non_exhaustive]
    Stuck {
        /// The store, or the file.
        path: PathBuf,
        /// How often it was tried.
        tries: u64,
        /// What was in the way.
        reason: String,
    },

    /// The caller of a long operation asked it to stop. Nothing was changed.
    #[error("{operation} was stopped before its end")]
    #[non_exhaustive]
    Aborted {
        /// The operation, as its module is named: "verify", "repair", "compact" or "doctor".
        operation: &'static str,
    },

    /// An option has a value that cannot work.
    #[error("option {option}: {value} is not possible: {reason}")]
    #[non_exhaustive]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value that was given, as its option is written: a ratio with its fraction, a mode in octal.
        value: String,
        /// Why not.
        reason: &'static str,
    },
}

/// Keeps the error of the system's kind; what the store says gets the kind that comes nearest. The [`Error`] is in
/// [`get_ref`](io::Error::get_ref), as a whole.
///
/// ```
/// fn count(path: &std::path::Path) -> std::io::Result<u64> {
///     Ok(tophash::Options::new().create(false).open(path)?.len())
/// }
/// let error = count("/nowhere/at/all".as_ref()).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// let inner: &tophash::Error = error.get_ref().unwrap().downcast_ref().unwrap();
/// assert!(matches!(inner, tophash::Error::NotFound { .. }));
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => source.kind(),
            Error::Locked { .. } => Kind::ResourceBusy,
            Error::NotFound { .. } | Error::Removed { .. } | Error::TableDropped { .. } | Error::NoSuchTable { .. } => {
                Kind::NotFound
            }
            Error::AlreadyExists { .. } => Kind::AlreadyExists,
            Error::NotAStore { .. }
            | Error::WrongStore { .. }
            | Error::Corrupt { .. }
            | Error::LostData { .. }
            | Error::Decode { .. } => Kind::InvalidData,
            Error::NewerFormat { .. } => Kind::Unsupported,
            Error::KeyTooLong { .. }
            | Error::ValueTooLong { .. }
            | Error::BatchTooLarge { .. }
            | Error::InvalidTableName { .. }
            | Error::ForeignTable { .. }
            | Error::WrongCodec { .. }
            | Error::Encode { .. }
            | Error::InvalidOption { .. } => Kind::InvalidInput,
            Error::LimitReached { .. } => Kind::QuotaExceeded,
            Error::ReadOnly { .. } | Error::Forked { .. } => Kind::PermissionDenied,
            Error::Closed { .. } => Kind::NotConnected,
            // Not `Interrupted`, after which callers try again by themselves.
            Error::Poisoned { .. } | Error::Stuck { .. } | Error::Aborted { .. } => Kind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// The way out where files of a store are there, but no index that tells of them.
pub(crate) const REPAIR_HINT: &str =
    "; if it was a store, `tophash repair STORE NEW` makes a new one from its log, which holds every record";

fn holder(pid: Option<u32>, reading: bool) -> String {
    match (pid, reading) {
        (Some(pid), false) if pid == std::process::id() => format!("this process already (pid {pid})"),
        (Some(pid), true) if pid == std::process::id() => format!("a reader in this process (pid {pid})"),
        (Some(pid), false) => format!("process {pid}"),
        (Some(pid), true) => format!("a reader, process {pid}"),
        (None, false) => "another process".to_string(),
        (None, true) => "one or more readers".to_string(),
    }
}

impl Error {
    /// The lock could not be had.
    pub(crate) fn locked(path: &Path, holder: LockHolder) -> Self {
        Error::Locked { path: path.to_path_buf(), pid: holder.pid, reading: holder.reading }
    }

    /// Wraps an I/O error, telling a full disk and a directory that is no more from the rest.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<Removed>()) {
            Error::Removed { action, path: path.to_path_buf() }
        } else if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Error::DiskFull { action, path: path.to_path_buf(), source }
        } else {
            Error::Io { action, path: path.to_path_buf(), source }
        }
    }

    /// A state that the rules of the code exclude.
    #[cold]
    pub(crate) fn impossible(path: &Path, what: &str) -> Self {
        Error::Stuck { path: path.to_path_buf(), tries: 1, reason: what.to_string() }
    }

    /// A damaged structure.
    pub(crate) fn corrupt(
        what: &'static str,
        location: Location,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Error::Corrupt { what, location: Box::new(location), expected: expected.to_string(), found: found.to_string() }
    }

    /// True where the bytes on disk are damaged or lost, as against a call that could not be carried out.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// use tophash::Store;
    /// match Store::open(&path) {
    ///     Ok(store) => store.close()?,
    ///     // The files are damaged: keep them, and save what is whole.
    ///     Err(error) if error.is_corruption() => eprintln!("{error}"),
    ///     // The call can be made again once its cause is mended.
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(self, Error::Corrupt { .. } | Error::LostData { .. } | Error::WrongStore { .. })
    }
}

/// `map_err` helper: names the action and the file of an I/O error.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(action, path, source))
    }
}

#[cfg(test)]
mod tests;
