//! What the fuzz targets do with their bytes. No dependence on a fuzzer: `cargo test` replays the corpus through the
//! same functions.

mod files;
#[allow(dead_code, unused_imports, reason = "the tool uses all of it")]
#[path = "../../../tools/src/format/mod.rs"]
mod format;
mod formats;
mod operations;

pub use files::{files, log};
pub use formats::formats;
pub use operations::operations;
