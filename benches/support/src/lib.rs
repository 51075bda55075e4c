//! What the benchmarks of the tool and the comparison with other stores have in common.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod order;
pub mod proc;
pub mod words;
