//! An allocator that counts what each thread has in use, and refuses absurd amounts. A test binary that wants it makes it its
//! global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Goes to the system's allocator.
pub struct Counting {
    /// More than this at once is refused.
    most: AtomicUsize,
    /// Whether somebody who is refused is named: it is a fault to want so much.
    names: AtomicBool,
}

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static BEFORE: Cell<isize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // The thread's cells may be gone already when it ends; what happens then is not counted.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + more as isize - less as isize);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

/// Sets back what was there before, also when the work panics, because the binary goes on.
struct Restore<'a> {
    allocator: &'a Counting,
    most: usize,
    names: bool,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        self.allocator.most.store(self.most, Ordering::SeqCst);
        self.allocator.names.store(self.names, Ordering::SeqCst);
    }
}

impl Counting {
    /// Whoever wants more than this at once is named, and the process ends: a number from a file was believed.
    pub const fn up_to(most: usize) -> Self {
        Counting { most: AtomicUsize::new(most), names: AtomicBool::new(true) }
    }

    /// While `work` runs, no more than this is there at once, for no thread.
    pub fn with<T>(&self, most: usize, work: impl FnOnce() -> T) -> T {
        let _restore = Restore {
            allocator: self,
            most: self.most.swap(most, Ordering::SeqCst),
            names: self.names.swap(false, Ordering::SeqCst),
        };
        work()
    }

    fn refuses(&self, bytes: usize) -> bool {
        // The message of a panic needs memory, and a thread that finds none while it writes one waits for itself.
        let refused = bytes > self.most.load(Ordering::Relaxed) && !std::thread::panicking();
        if refused && self.names.load(Ordering::Relaxed) {
            eprintln!("{bytes} bytes at once are wanted here:\n{}", std::backtrace::Backtrace::force_capture());
        }
        refused
    }

    /// Begins to measure on this thread.
    pub fn begin(&self) {
        BEFORE.set(NOW.get());
        PEAK.set(NOW.get());
    }

    /// The most that this thread had in use since, beyond what was in use then.
    pub fn peak(&self) -> usize {
        usize::try_from(PEAK.get() - BEFORE.get()).unwrap_or_default()
    }
}

// SAFETY: every call goes to the system's allocator with the same arguments, or returns null; counting allocates
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.refuses(size) {
            return std::ptr::null_mut();
        }
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}
