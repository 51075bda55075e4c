//! Repair: a new store from what is left of a damaged one. Everything valid is saved, what is lost is told, what
//! was dead stays dead, and the old store is not touched.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod ends;
mod random;
mod refusals;
mod stores;
#[path = "../verify/support.rs"]
#[allow(dead_code, reason = "made for the tests of verify, which use all of it")]
mod support;
mod tables;
mod watch;
