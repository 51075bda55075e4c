//! A session service: create, read, renew and delete sessions over HTTP, each change durable before it is answered.
//!
//! * [`awaited`] is the service as docs/ASYNC.md recommends it.
//! * [`blocking`] does the same with blocking calls in a thread pool.
//! * [`session`] has what both share.

pub mod awaited;
pub mod blocking;
pub mod session;
