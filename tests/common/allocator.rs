//! An allocator that counts what each thread has in use, and refuses absurd amounts. A test binary that wants it makes it its
//! global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Goes to the system's allocator.
pub struct Counting {
    /// More than this at once ends the process: a number from a file was believed.
    pub most: usize,
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

/// Says who wants so much: the process ends with the null pointer.
#[cold]
fn refuse(bytes: usize) -> *mut u8 {
    eprintln!("{bytes} bytes at once are wanted here:\n{}", std::backtrace::Backtrace::force_capture());
    std::ptr::null_mut()
}

impl Counting {
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
        if layout.size() > self.most {
            return refuse(layout.size());
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
        if layout.size() > self.most {
            return refuse(layout.size());
        }
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > self.most {
            return refuse(size);
        }
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}
