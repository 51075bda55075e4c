//! Who holds a lock: for error messages. The kernel's list tells; without it the answer is "not known".

use std::os::fd::AsFd;
use std::path::Path;

use super::LockHolder;
use super::limits::small_file;

/// The holder of the flock on a file that is open.
pub(super) fn holder(file: &impl AsFd) -> Option<LockHolder> {
    let stat = rustix::fs::fstat(file).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let locks = small_file(Path::new("/proc/locks"))?;
    find(&locks, &format!("{major:02x}:{minor:02x}:{}", stat.st_ino), std::process::id())
}

/// Lines look like `1: FLOCK  ADVISORY  WRITE 709 fd:01:131 0 EOF`. Those who wait for a lock have an arrow behind the
/// number, and are of no interest.
fn find(locks: &str, file: &str, me: u32) -> Option<LockHolder> {
    let mut found = None;
    for line in locks.lines() {
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            continue;
        }
        let (Some(mode), Some(pid)) = (words.nth(1), words.next()) else { continue };
        let (Ok(pid), Some(true)) = (pid.parse::<u32>(), words.next().map(|of| of == file)) else { continue };
        if found.is_none() || pid == me {
            found = Some(LockHolder { pid: Some(pid), reading: mode == "READ" });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: FLOCK  ADVISORY  WRITE 709 fd:01:131 0 EOF
2: POSIX  ADVISORY  READ 811 fd:01:132 0 EOF
2: FLOCK  ADVISORY  READ 812 fd:01:132 0 EOF
2: -> FLOCK  ADVISORY  WRITE 900 fd:01:132 0 EOF
3: FLOCK  ADVISORY  READ 813 fd:01:132 0 EOF
4: FLOCK  ADVISORY  WRITE 814 fd:02:132 0 EOF
";

    #[test]
    fn holders_are_found_in_the_list() {
        let holder = |pid, reading| Some(LockHolder { pid: Some(pid), reading });
        assert_eq!(find(LOCKS, "fd:01:131", 1), holder(709, false));
        assert_eq!(find(LOCKS, "fd:01:132", 1), holder(812, true));
        assert_eq!(find(LOCKS, "fd:01:132", 813), holder(813, true));
        assert_eq!(find(LOCKS, "fd:01:13", 1), None);
        assert_eq!(find("1: FLOCK\n\nno list at all", "fd:01:131", 1), None);
    }
}
