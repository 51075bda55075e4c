//! What the system allows this process.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The memory that this process may use: the smallest of the machine's and its control groups' limits.
pub(crate) fn memory_limit() -> u64 {
    let machine = rustix::system::sysinfo();
    let machine = (machine.totalram as u64).saturating_mul(machine.mem_unit.into());
    smallest_limit(Path::new("/"), machine)
}

/// The smallest of the machine's memory and the limits that control groups have, in the files below `root`.
fn smallest_limit(root: &Path, machine: u64) -> u64 {
    let below_root = |path: &Path| small_file(&root.join(path.strip_prefix("/").unwrap_or(path)));
    let read = |path: &str| below_root(Path::new(path)).unwrap_or_default();
    let files = limit_files(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    // A group without a limit says "max", or a number beyond any memory.
    let limits = files.iter().filter_map(|path| below_root(path)?.trim().parse::<u64>().ok());
    limits.fold(machine, u64::min)
}

/// The files that hold the memory limits of this process's control group and of all groups above it, in both versions
/// of control groups; some need not exist.
fn limit_files(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        // `0::/path` is version 2, `9:memory:/path` version 1; a path can hold colons.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (file, is_its): (_, &dyn Fn(&Mount<'_>) -> bool) = match controllers {
            "" => ("memory.max", &|mount| mount.kind == "cgroup2"),
            _ if controllers.split(',').any(|name| name == "memory") => ("memory.limit_in_bytes", &|mount| {
                mount.kind == "cgroup" && mount.options.split(',').any(|option| option == "memory")
            }),
            _ => continue,
        };
        let Some(mount) = mounts.lines().filter_map(Mount::parse).find(is_its) else { continue };
        // A container sees a part of the tree: what is above it cannot be looked at. Where the path is not in that
        // part, the mount point is the nearest group there is.
        let below = Path::new(path).strip_prefix(&mount.root).unwrap_or(Path::new(""));
        let below = if below.iter().any(|name| name == "..") { Path::new("") } else { below };
        files.extend(below.ancestors().map(|group| mount.point.join(group).join(file)));
    }
    files
}

/// A line of `mountinfo`.
struct Mount<'m> {
    /// The directory of the file system that is seen at the mount point.
    root: PathBuf,
    point: PathBuf,
    kind: &'m str,
    /// The file system's own options.
    options: &'m str,
}

impl<'m> Mount<'m> {
    /// `36 35 0:31 /root /point rw,nosuid shared:9 - cgroup cgroup rw,memory`
    fn parse(line: &'m str) -> Option<Self> {
        let (of_mount, of_system) = line.split_once(" - ")?;
        let mut words = of_mount.split(' ').skip(3);
        let (root, point) = (unescaped(words.next()?), unescaped(words.next()?));
        let mut words = of_system.split(' ');
        let (kind, options) = (words.next()?, words.nth(1)?);
        Some(Mount { root, point, kind, options })
    }
}

/// Spaces and the like are written as three octal digits behind a backslash.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// A file of the kernel's, which has no length: without room from the start it would be read in tiny pieces.
pub(super) fn small_file(path: &Path) -> Option<String> {
    let mut text = String::with_capacity(4096);
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(groups: &str, mounts: &str) -> Vec<String> {
        limit_files(groups, mounts).iter().map(|path| path.display().to_string()).collect()
    }

    const V2: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
";
    const V1: &str = "35 24 0:30 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
36 35 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
37 35 0:32 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory
38 35 0:33 / /sys/fs/cgroup/unified rw shared:11 - cgroup2 cgroup2 rw
";

    /// Version 1 was asked for the limit of its root alone, which has none: a store in a group of 128 MiB took the
    /// machine's memory for its own, and was killed.
    #[test]
    fn every_group_of_the_process_counts() {
        let found = files("0::/system.slice/a.service\n", V2);
        let group = "/sys/fs/cgroup/system.slice";
        assert_eq!(
            found,
            [
                format!("{group}/a.service/memory.max"),
                format!("{group}/memory.max"),
                "/sys/fs/cgroup/memory.max".into()
            ]
        );
        let found = files("12:cpu,cpuacct:/x\n9:memory:/user/1\n0::/y\n", V1);
        let root = "/sys/fs/cgroup/memory";
        let of_v1 = ["/user/1", "/user", ""].map(|group| format!("{root}{group}/memory.limit_in_bytes"));
        assert_eq!(found[..3], of_v1);
        assert_eq!(found[3..], ["y/", ""].map(|group| format!("/sys/fs/cgroup/unified/{group}memory.max")));
    }

    #[test]
    fn a_container_sees_a_part_of_the_groups() {
        // Version 1: the tree's own paths, and a mount of the part that is the container's.
        let mounts = "9 8 0:32 /docker/f0 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let root = "/sys/fs/cgroup/memory";
        assert_eq!(files("9:memory:/docker/f0\n", mounts), [format!("{root}/memory.limit_in_bytes")]);
        let inner = ["/in", ""].map(|group| format!("{root}{group}/memory.limit_in_bytes"));
        assert_eq!(files("9:memory:/docker/f0/in\n", mounts), inner);
        assert_eq!(files("9:memory:/other\n", mounts), [format!("{root}/memory.limit_in_bytes")]);
        // Version 2 with a name space of its own, from outside of it.
        assert_eq!(files("0::/../x\n", V2), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(files("0::/\n", V2), ["/sys/fs/cgroup/memory.max"]);
    }

    #[test]
    fn odd_lines_are_passed_over() {
        assert_eq!(files("", V2), [""; 0]);
        assert_eq!(files("nonsense\n1:memory\n", V1), [""; 0]);
        assert_eq!(files("0::/a\n", "1 2 3\n\n - cgroup2\n"), [""; 0]);
        let spaced = "35 24 0:30 / /a\\040b\\x\\9 rw - cgroup2 none rw\n";
        assert_eq!(files("0::/c:d\n", spaced), ["/a b\\x\\9/c:d/memory.max", "/a b\\x\\9/memory.max"]);
    }

    /// A made-up root directory: the files of the kernel that tell the groups, and limits of groups.
    fn limit(groups: &str, mounts: &str, limits: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        let process = [("proc/self/cgroup", groups), ("proc/self/mountinfo", mounts)];
        for (path, text) in process.iter().chain(limits) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        smallest_limit(root.path(), 32 << 30)
    }

    /// A store in a group of 128 MiB, and the groups above it with other limits or none.
    #[test]
    fn the_smallest_limit_counts_in_both_versions() {
        let memory = "sys/fs/cgroup/memory";
        let (own, above, top) = (
            format!("{memory}/user/1/memory.limit_in_bytes"),
            format!("{memory}/user/memory.limit_in_bytes"),
            format!("{memory}/memory.limit_in_bytes"),
        );
        let none = "9223372036854771712\n";
        let v1 = |limits: &[(&str, &str)]| limit("9:memory:/user/1\n0::/\n", V1, limits);
        assert_eq!(v1(&[(&own, "134217728\n"), (&above, none), (&top, none)]), 128 << 20);
        assert_eq!(v1(&[(&own, none), (&above, "134217728\n"), (&top, none)]), 128 << 20);
        assert_eq!(v1(&[(&own, none), (&above, none), (&top, none)]), 32 << 30);
        let (own, above) = ("sys/fs/cgroup/system.slice/a.service/memory.max", "sys/fs/cgroup/system.slice/memory.max");
        let v2 = |limits: &[(&str, &str)]| limit("0::/system.slice/a.service\n", V2, limits);
        assert_eq!(v2(&[(own, "134217728\n"), (above, "max\n")]), 128 << 20);
        assert_eq!(v2(&[(own, "268435456\n"), (above, "134217728\n")]), 128 << 20);
        assert_eq!(v2(&[(own, "max\n"), (above, "max\n")]), 32 << 30);
        // Neither groups nor a readable number.
        assert_eq!(limit("", "", &[]), 32 << 30);
        assert_eq!(v2(&[(own, "\n")]), 32 << 30);
    }

    #[test]
    fn there_is_a_limit() {
        assert!(memory_limit() > 0);
    }
}
