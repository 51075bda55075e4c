//! What the figures depend on beside the engines: the machine, the kernel, the compiler, the file system.

use std::fs;
use std::path::Path;

use serde::Serialize;

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
        let memory = field(&read("/proc/meminfo"), "MemTotal").and_then(|value| kibibytes(&value));
        Machine {
            command: std::env::args().enumerate().map(word).collect::<Vec<_>>().join(" "),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            memory_bytes: memory.unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
            compiler: env!("COMPILER_VERSION"),
            is_optimized: !cfg!(debug_assertions),
            file_system: file_system(&read("/proc/self/mountinfo"), dir).unwrap_or_else(unknown),
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
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "RssAnon").and_then(|value| kibibytes(&value)).unwrap_or_default()
}

/// The first `name : value` of a file of /proc.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_string())
    })
}

fn kibibytes(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The type of the mount that a folder lies on: the longest mount point above it, the last one mounted there.
fn file_system(mountinfo: &str, dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = mountinfo.lines().filter_map(|line| {
        // id parent major:minor root mount-point options [optional fields] - type source options
        let (mount, rest) = line.split_once(" - ")?;
        let (point, kind) = (mount.split(' ').nth(4)?, rest.split(' ').next()?);
        dir.starts_with(point).then(|| (point.len(), kind.to_string()))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_above_the_folder_counts() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap();
        let mounts = format!(
            "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n22 21 0:5 / {0} rw - tmpfs tmpfs rw\n\
             nonsense\n24 21 0:7 / {0}x rw - zfs x rw\n",
            point.display()
        );
        assert_eq!(file_system(&mounts, dir.path()).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(&mounts, Path::new("/")).as_deref(), Some("ext4"));
        assert_eq!(file_system("", dir.path()), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(anonymous_bytes() > 0);
    }
}
