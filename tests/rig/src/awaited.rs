//! Futures of `insert_async` and the like are waited for beside real threads: each one is woken, and ready means durable.
//!
//! Whether a wake-up was lost is told without a clock. When every background thread rests, what was asked for is done, so
//! that a future that was polled before must have been woken.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tophash::{Durable, Options, Store, SyncPolicy, Tuning};

use crate::random::Random;
use crate::scripts::tiny;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future in this thread.
///
/// # Errors
/// Those of the future.
pub fn wait<T>(mut future: Durable<T>) -> tophash::Result<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Awaits changes, one after the other. Returns how many had to be woken.
///
/// # Errors
/// In words: a wake-up was lost, or a change was not durable.
pub fn check(directory: &Path, seed: u64) -> Result<u64, String> {
    let text = |error: tophash::Error| error.to_string();
    let mut random = Random::new(seed);
    let policy = [SyncPolicy::Manual, SyncPolicy::Always][random.below(2) as usize];
    // Nothing but the changes is appended.
    let options = Options::new().sync(policy).log_ratio(f64::INFINITY).tuning(Tuning { background: true, ..tiny() });
    let store = options.open(directory).map_err(text)?;
    let mut woken = 0;
    for n in 0..400u64 {
        // The change ends behind this. (The log's end afterwards may be that of a segment that followed.)
        let begin = store.stats().log.end_lsn;
        let mut future = store.set_async((n % 50).to_le_bytes(), n.to_le_bytes());
        if random.one_in(2) {
            std::thread::sleep(Duration::from_micros(random.below(200)));
        }
        woken += u64::from(is_woken(&store, &mut future, n).map_err(|what| format!("change {n}: {what}"))?);
        let durable = store.stats().log.durable_lsn;
        if durable <= begin {
            return Err(format!(
                "change {n} is ready: it ends behind LSN {begin}, and the log is durable up to {durable}"
            ));
        }
    }
    store.close().map_err(text)?;
    Ok(woken)
}

fn is_woken(store: &Store, future: &mut Durable, n: u64) -> Result<bool, String> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut poll = || Pin::new(&mut *future).poll(&mut Context::from_waker(&waker));
    let mut waited = false;
    loop {
        match poll() {
            Poll::Ready(result) => return result.map(|()| waited).map_err(|error| error.to_string()),
            Poll::Pending => waited = true,
        }
        loop {
            // In this order: nobody is about to wake it once all rest.
            let rest = store.rest().1;
            if woken.0.swap(false, Ordering::SeqCst) {
                break;
            }
            if rest {
                return Err(format!("future {n} was polled, all threads rest, and nobody has woken it"));
            }
            std::thread::yield_now();
        }
    }
}
