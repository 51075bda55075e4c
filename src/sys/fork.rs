//! Tells a forked child from the process that opened the store.
//!
//! A child inherits mappings and the lock, but not the threads: if it wrote, it would corrupt its parent's
//! log. Asking the kernel for the process id costs a system call per write; a page that the kernel wipes at
//! `fork` costs a load.

// Not of `crate::sync`: this word is between processes, no thread ever stores to it.
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;

/// Knows the process that made it.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    owner: u32,
    /// One page, zeroed in a child. `None` where the kernel cannot do that: then the pid is compared.
    page: Option<MmapMut>,
}

impl ForkGuard {
    pub(crate) fn new() -> Self {
        ForkGuard { owner: std::process::id(), page: wiped_on_fork() }
    }

    /// The process that made this guard.
    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    /// True in a child forked after `new`.
    #[inline]
    pub(crate) fn is_child(&self) -> bool {
        match &self.page {
            // SAFETY: the page is mapped, aligned, lives as long as `self`, and is only accessed here and
            // (before it was shared) in `wiped_on_fork`.
            Some(page) => unsafe { (*page.as_ptr().cast::<AtomicU64>()).load(Ordering::Relaxed) == 0 },
            None => std::process::id() != self.owner,
        }
    }
}

fn wiped_on_fork() -> Option<MmapMut> {
    let mut page = MmapMut::map_anon(super::PAGE_BYTES).ok()?;
    // SAFETY: the range is the whole of a mapping that this function owns.
    unsafe {
        rustix::mm::madvise(page.as_mut_ptr().cast(), page.len(), rustix::mm::Advice::LinuxWipeOnFork).ok()?;
    }
    page[0] = 1;
    Some(page)
}
