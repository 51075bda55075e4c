//! What an error says about the store: something of the moment, damage, or the unknown.

use std::io;

use super::Error;

/// What an error says about the store. Decides, in one place, what may follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Of the moment: descriptors, memory, threads, space, or a call that is not allowed. It is returned; nothing is
    /// marked, nothing is poisoned, and the same call can succeed later.
    Moment,
    /// Bytes are not what was written. It is reported with its place; everything else goes on.
    Damage,
    /// A write or a sync failed, or the device did: what is on the disk is unknown. If something durable depends on it,
    /// the store is poisoned.
    Unknown,
}

impl Error {
    /// What the error says about the store.
    pub(crate) fn nature(&self) -> Nature {
        match self {
            // Even a lack of space is no matter of the moment there: what the kernel had taken may be gone.
            Error::Io { action, .. } | Error::DiskFull { action, .. } if is_writing(action) => Nature::Unknown,
            Error::Io { source, .. } if !is_of_the_moment(source) => Nature::Unknown,
            Error::NotAStore { .. } | Error::NewerFormat { .. } => Nature::Damage,
            error if error.is_corruption() => Nature::Damage,
            _ => Nature::Moment,
        }
    }

    /// True if help with growth or compaction that failed so keeps no change from being made: it is tried again.
    pub(crate) fn can_wait(&self) -> bool {
        let refused = matches!(
            self,
            Error::ReadOnly { .. } | Error::Poisoned { .. } | Error::Closed { .. } | Error::Forked { .. }
        );
        !refused && self.nature() != Nature::Unknown
    }
}

/// True for the actions after whose failure the bytes on the disk are unknown.
fn is_writing(action: &str) -> bool {
    action == "sync" || action.split(' ').next() == Some("write")
}

/// True if the system ran short of something that it may have again.
pub(crate) fn is_of_the_moment(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const SHORT: [Errno; 9] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::AGAIN,
        Errno::NOBUFS,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::INTR,
        Errno::BUSY,
    ];
    match error.raw_os_error() {
        Some(code) => SHORT.iter().any(|short| short.raw_os_error() == code),
        None => matches!(
            error.kind(),
            io::ErrorKind::OutOfMemory
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ResourceBusy
        ),
    }
}
