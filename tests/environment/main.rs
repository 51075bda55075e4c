//! The store and what surrounds it: file systems that are full or read-only, other processes, other people's
//! permissions, links, lock files, and directories that are moved or removed.
//!
//! Real file systems are mounted where the tests run as root and the kernel allows it; where not, a line says what was
//! skipped and why. A test that ends by SIGBUS has touched a page of a mapped file for which there was no block.

#[path = "../common/mod.rs"]
mod common;
mod full;
mod limits;
mod links;
mod mounts;
mod moved;
mod permissions;
mod read_only;
