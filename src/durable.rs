//! A change that becomes durable, as a future.

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::awaited::Wait;
use crate::error::Result;

/// A change that was made, and a future that is ready once the change survives a power failure.
///
/// Returned by the calls whose names end with `_async`. The call itself makes the change: readers see it, and it survives the
/// death of the process, before the future is polled for the first time. The call also asks for a sync. The future only waits
/// for that sync, and holds up no thread meanwhile: the store's syncing thread makes one fdatasync for all who wait, and then
/// wakes them. It works with every executor, because it uses nothing but [`std::task`].
///
/// * **Ready** means: a sync has covered the change. The output is what the call returns: the value that was there before, or
///   nothing.
/// * **Dropped** early, it cancels nothing. The change stays, and becomes durable as it would have.
/// * **An error of the call** is the future's output: nothing has changed then, and the first poll says so.
/// * **An error of the sync** is the output of every future that the sync should have covered, and the store refuses changes
///   from then on, as after any failed sync.
/// * **Closing** the store does not wait for futures, and completes all of them: with `Ok` where the change is durable by then, and
///   a close makes everything durable unless it fails; else with [`Error::Closed`](crate::Error::Closed) or
///   [`Error::Poisoned`](crate::Error::Poisoned), which leave open whether the change is durable. A future is no handle: if
///   it alone is left, the store closes.
///
/// Wakers are called by the syncing thread, one after the other, and by the thread that closes the store. One that blocks
/// holds up the others, and later syncs.
///
/// ```
/// # use std::pin::pin;
/// # use std::sync::Arc;
/// # use std::task::{Context, Poll, Wake, Waker};
/// # struct Unpark(std::thread::Thread);
/// # impl Wake for Unpark {
/// #     fn wake(self: Arc<Self>) {
/// #         self.0.unpark();
/// #     }
/// # }
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
/// #     let mut future = pin!(future);
/// #     loop {
/// #         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #             Poll::Ready(output) => return output,
/// #             Poll::Pending => std::thread::park(),
/// #         }
/// #     }
/// # }
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = tophash::Store::open(dir.path().join("s"))?;
/// async fn log_in(store: &tophash::Store, user: &str) -> tophash::Result<()> {
///     // Both are there for readers at once, and one sync covers both.
///     let session = store.set_async(format!("session:{user}"), "active");
///     let counted = store.set_async(format!("last login:{user}"), "today");
///     session.await?;
///     counted.await
/// }
/// block_on(log_in(&store, "ada"))?;
/// # Ok::<(), tophash::Error>(())
/// ```
///
/// # Panics
/// A poll after the one that was ready.
#[must_use = "the change is made, but it may not be durable before this future is ready"]
pub struct Durable<T = ()> {
    wait: Option<Wait>,
    /// What the call has returned. `None` once it was given away.
    outcome: Option<Result<T>>,
}

impl<T> Durable<T> {
    /// Ready when the wait ends, if there is one.
    pub(crate) fn new(outcome: Result<(T, Option<Wait>)>) -> Self {
        match outcome {
            Ok((value, wait)) => Durable { wait, outcome: Some(Ok(value)) },
            Err(error) => Durable { wait: None, outcome: Some(Err(error)) },
        }
    }
}

impl<T> Future for Durable<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if let Some(wait) = &mut self.wait {
            match wait.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.outcome = Some(Err(error)),
            }
            self.wait = None;
        }
        Poll::Ready(self.outcome.take().unwrap_or_else(|| panic!("polled after it was ready")))
    }
}

// Nothing in it is ever pinned.
impl<T> Unpin for Durable<T> {}

// What it shares with others is behind a lock, and no code of the caller runs while that is held.
impl<T: UnwindSafe> UnwindSafe for Durable<T> {}
impl<T: RefUnwindSafe> RefUnwindSafe for Durable<T> {}

impl<T> fmt::Debug for Durable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").field("waits", &self.wait.is_some()).finish_non_exhaustive()
    }
}
