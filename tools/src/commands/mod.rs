//! The subcommands, one file each: its arguments, its help, and what it does.

pub mod bench;
pub mod compact;
pub mod del;
pub mod demo;
pub mod doctor;
pub mod export;
pub mod get;
pub mod import;
pub mod repair;
pub mod scan;
pub mod set;
pub mod stats;
pub mod tables;
pub mod verify;
