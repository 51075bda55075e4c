//! Runs the built `tophash` the way its users do: arguments, pipes, files, exit codes.

mod bench;
mod compact;
mod damaged;
mod demo;
mod doctor;
mod expiry;
mod formats;
mod imports;
mod loaders;
mod records;
mod repair;
mod reports;
mod support;
mod tables;
mod traces;
mod words;
