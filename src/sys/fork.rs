//! Tells a forked child from the process that opened the store.
//!
//! A child inherits mappings and the lock, but not the threads: if it wrote, it would corrupt its parent's
//! log. Asking the kernel for the process id costs a system call per write; a page that the kernel wipes at
//! `fork` costs a load. All stores of a process share one such page; a child that opens stores of its own makes
//! a new one.

// Not of `crate::sync`: the page's word is between processes, no thread ever stores to it; and where the page is has
// nothing to do with any store.
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use memmap2::MmapMut;

/// Knows the process that made it.
#[derive(Debug)]
pub(crate) struct ForkGuard {
    owner: u32,
    /// Not zero, but in a child. `None` where the kernel cannot do that: then the pid is compared.
    word: Option<&'static AtomicU64>,
}

impl ForkGuard {
    pub(crate) fn new() -> Self {
        ForkGuard { owner: std::process::id(), word: shared_word() }
    }

    /// The process that made this guard.
    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    /// True in a child forked after `new`.
    #[inline]
    pub(crate) fn is_child(&self) -> bool {
        match self.word {
            Some(word) => word.load(Ordering::Relaxed) == 0,
            None => std::process::id() != self.owner,
        }
    }
}

/// The page of this process. Without a lock: a child could inherit one that nobody is left to release.
fn shared_word() -> Option<&'static AtomicU64> {
    static SHARED: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
    // SAFETY: null, or the start of a page that `wiped_on_fork` made and that is never unmapped (below). It was
    // initialised before it got here, and from then on it is only read, as an atomic, and wiped by the kernel.
    let shared = |word: *mut AtomicU64| unsafe { word.as_ref::<'static>() };
    let known = SHARED.load(Ordering::Acquire);
    if let Some(word) = shared(known).filter(|word| word.load(Ordering::Relaxed) != 0) {
        return Some(word);
    }
    // None yet, or this is a child, and the page its parent's.
    let mut page = wiped_on_fork()?;
    let new = page.as_mut_ptr().cast::<AtomicU64>();
    match SHARED.compare_exchange(known, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // There for ever: guards go on using it in this process and, wiped, in its children.
            std::mem::forget(page);
            shared(new)
        }
        Err(winner) => shared(winner),
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
