//! What a figure depends on beside the store: the machine, the kernel, the file system.

use std::fs;
use std::path::Path;

use serde::Serialize;
use tophash_bench_support::proc;

/// The machine and the build.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// This tool's version.
    pub version: &'static str,
    /// False for a debug build, whose figures mean nothing.
    pub optimized: bool,
    /// Processors that this process may use.
    pub cores: u64,
    /// The processor's name.
    pub cpu: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// File system of the store.
    pub file_system: Option<String>,
    /// Processes that wanted to run in the minute before: what else was going on.
    pub load_before: Option<f64>,
}

impl Environment {
    /// Looks around. What cannot be found out is left out.
    pub fn look(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        Environment {
            version: env!("CARGO_PKG_VERSION"),
            optimized: !cfg!(debug_assertions),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            cpu: read("/proc/cpuinfo").and_then(|text| proc::field(&text, "model name")),
            memory_bytes: read("/proc/meminfo").and_then(|text| proc::kibibytes(&proc::field(&text, "MemTotal")?)),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_string()),
            file_system: proc::file_system(dir),
            load_before: read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        }
    }

    /// True if the store lies in memory, where a durable write costs nothing and means nothing.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.file_system.as_deref(), Some("tmpfs" | "ramfs"))
    }
}
