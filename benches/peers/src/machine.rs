//! What the figures depend on beside the engines: the machine, the kernel, the compiler, the file system.

use std::fs;
use std::path::Path;

use serde::Serialize;
use tophash_bench_support::proc;

/// The machine and the build.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The command as it was given.
    pub command: String,
    /// Processors that this process may use.
    pub cores: u64,
    /// The processor's name.
    pub processor: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The compiler.
    pub compiler: &'static str,
    /// False for a debug build, whose figures mean nothing.
    pub is_optimized: bool,
    /// File system of the stores.
    pub file_system: String,
    /// Processes that wanted to run in the minute before: what else was going on.
    pub load_before: f64,
}

impl Machine {
    /// Looks around.
    pub fn look(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_string();
        let memory = proc::field(&read("/proc/meminfo"), "MemTotal").and_then(|value| proc::kibibytes(&value));
        Machine {
            command: std::env::args().enumerate().map(word).collect::<Vec<_>>().join(" "),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            processor: proc::field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            memory_bytes: memory.unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
            compiler: env!("COMPILER_VERSION"),
            is_optimized: !cfg!(debug_assertions),
            file_system: proc::file_system(dir).unwrap_or_else(unknown),
            load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }

    /// One line.
    pub fn line(&self) -> String {
        format!(
            "`{}`: {} cores ({}), {:.0} GiB memory, Linux {}, {}{}, {}, load before {:.2}",
            self.command,
            self.cores,
            self.processor,
            self.memory_bytes as f64 / (1u64 << 30) as f64,
            self.kernel,
            self.compiler,
            if self.is_optimized { "" } else { " (DEBUG BUILD: the figures mean nothing)" },
            self.file_system,
            self.load_before,
        )
    }
}

/// An argument, the command itself without its folder.
fn word((i, argument): (usize, String)) -> String {
    let name = Path::new(&argument).file_name().filter(|_| i == 0);
    name.map_or(argument.clone(), |name| name.to_string_lossy().into_owned())
}

/// Anonymous memory of this process in bytes: heap, stacks, and private copies of mapped pages.
pub fn anonymous_bytes() -> u64 {
    proc::anonymous_bytes().unwrap_or_default()
}
