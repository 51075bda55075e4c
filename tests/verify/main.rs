//! The offline check: stores that are whole verify clean, however they came to be; damage is found and named.

mod bad_sector;
mod clean;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod damage_log;
mod engine;
mod flips;
mod reading;
mod support;
mod tables;
mod unnamed;
