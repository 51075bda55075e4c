//! Schedules: the shipped code, with every atomic operation and every lock a point at which another task may go
//! on, under thousands of schedules that are chosen, printed and can be repeated.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle CARGO_PROFILE_RELEASE_LTO=off cargo test --release --test shuttle
//! ```
//!
//! * `explore` chooses the schedules; `disk` makes system calls points too, and knows what was synced.
//! * `scenario` runs a few tasks on a tiny store, writes down every call, and judges: each key is linearizable
//!   (`common/linear.rs`), a held value does not change, what was synced is durable, `verify` finds nothing,
//!   and the store has the same contents after a crash and after closing.
//! * `index`, `resize`, `log`, `space`, `expiry`, `handles` and `awaited` hold the scenarios. One is a few lines: keys, a filling, a closure per task,
//!   and what must have happened in all schedules together for the test to have tested anything.
//!
//! What cannot be found here: faults that need a weaker order of memory than sequential consistency. The tests
//! in threads.rs have real threads.
#![cfg(shuttle)]

#[path = "../common/mod.rs"]
mod common;

mod awaited;
mod disk;
mod expiry;
mod explore;
mod handles;
mod index;
mod log;
mod resize;
mod scenario;
mod space;
