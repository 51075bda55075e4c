//! What a figure depends on beside the store: the machine, the kernel, the file system.

use std::fs;
use std::path::Path;

use serde::Serialize;

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
            cpu: read("/proc/cpuinfo").and_then(|text| field(&text, "model name")),
            memory_bytes: read("/proc/meminfo").and_then(|text| kibibytes(&field(&text, "MemTotal")?)),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_string()),
            file_system: file_system(&read("/proc/self/mountinfo").unwrap_or_default(), dir),
            load_before: read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        }
    }

    /// True if the store lies in memory, where a durable write costs nothing and means nothing.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.file_system.as_deref(), Some("tmpfs" | "ramfs"))
    }
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
    let mut best: Option<(usize, &str)> = None;
    for line in mountinfo.lines() {
        // id parent major:minor root mount-point options [optional fields] - type source options
        let Some((mount, rest)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (mount.split(' ').nth(4), rest.split(' ').next()) else { continue };
        // Blanks in mount points are written \040; such a mount is not found, which costs a line in the report.
        let length = point.len();
        if dir.starts_with(point) && best.is_none_or(|(longest, _)| length >= longest) {
            best = Some((length, kind));
        }
    }
    best.map(|(_, kind)| kind.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_above_the_folder_counts() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap();
        let point = point.display();
        let mounts = format!(
            "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n22 21 0:5 / {point} rw - tmpfs tmpfs rw\nnonsense\n\
             23 21 0:6 / {point}/deeper rw - xfs /dev/sdb rw\n24 21 0:7 / {point}x rw - zfs x rw\n"
        );
        assert_eq!(file_system(&mounts, dir.path()).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(&mounts, Path::new("/")).as_deref(), Some("ext4"));
        assert_eq!(file_system("", dir.path()), None);
    }

    #[test]
    fn fields_of_proc() {
        assert_eq!(field("a : 1\nmodel name\t: X 3000\n", "model name").as_deref(), Some("X 3000"));
        assert_eq!(field("MemTotal:  16 kB\n", "MemTotal").and_then(|value| kibibytes(&value)), Some(16384));
        assert_eq!(kibibytes("16 MB"), None);
    }
}
