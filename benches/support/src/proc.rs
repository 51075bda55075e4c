//! What the kernel says about the machine and this process.

use std::fs;
use std::path::Path;

/// The first `name : value` of a file of /proc.
#[must_use]
pub fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_string())
    })
}

/// Bytes of a value like `16 kB`.
#[must_use]
pub fn kibibytes(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Anonymous memory of this process in bytes: heap, stacks, and private copies of mapped pages.
#[must_use]
pub fn anonymous_bytes() -> Option<u64> {
    kibibytes(&field(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon")?)
}

/// The type of the file system that a folder lies on.
#[must_use]
pub fn file_system(dir: &Path) -> Option<String> {
    file_system_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, dir)
}

/// The type of the mount that a folder lies on: the longest mount point above it, the last one mounted there. Blanks in
/// mount points are written \040; such a mount is not found, which costs a line in a report.
fn file_system_of(mountinfo: &str, dir: &Path) -> Option<String> {
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
        let point = point.display();
        let mounts = format!(
            "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n22 21 0:5 / {point} rw - tmpfs tmpfs rw\nnonsense\n\
             23 21 0:6 / {point}/deeper rw - xfs /dev/sdb rw\n24 21 0:7 / {point}x rw - zfs x rw\n"
        );
        assert_eq!(file_system_of(&mounts, dir.path()).as_deref(), Some("tmpfs"));
        assert_eq!(file_system_of(&mounts, Path::new("/")).as_deref(), Some("ext4"));
        assert_eq!(file_system_of("", dir.path()), None);
    }

    #[test]
    fn fields_of_proc() {
        assert_eq!(field("a : 1\nmodel name\t: X 3000\n", "model name").as_deref(), Some("X 3000"));
        assert_eq!(field("MemTotal:  16 kB\n", "MemTotal").and_then(|value| kibibytes(&value)), Some(16384));
        assert_eq!(kibibytes("16 MB"), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(anonymous_bytes().is_some_and(|bytes| bytes > 0));
    }
}
