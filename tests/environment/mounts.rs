//! Small file systems of the tests' own.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system, unmounted when dropped.
pub struct Mount {
    point: PathBuf,
    /// The mount point and, for ext4, the image lie in here.
    _dir: TempDir,
}

/// Runs a program; the error says what it said.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

impl Mount {
    fn mounted(dir: TempDir, arguments: &[&str]) -> Result<Mount, String> {
        let point = dir.path().join("mount");
        fs::create_dir(&point).map_err(|error| error.to_string())?;
        run("mount", &[arguments, &[text(&point)]].concat())?;
        Ok(Mount { point, _dir: dir })
    }

    /// A tmpfs of so many KiB.
    pub fn tmpfs(kib: u64) -> Result<Mount, String> {
        Mount::mounted(crate::common::disk_scratch(), &["-t", "tmpfs", "-o", &format!("size={kib}k"), "tophash-test"])
    }

    /// An ext4 on a loop device, in an image of so many MiB.
    pub fn ext4(mib: u64) -> Result<Mount, String> {
        let dir = crate::common::disk_scratch();
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).map_err(|error| error.to_string())?;
        // No blocks for root alone, or the tests (which run as root) would not meet a full disk where others do.
        run("mkfs.ext4", &["-q", "-m", "0", "-F", text(&image)])?;
        Mount::mounted(dir, &["-o", "loop", text(&image)])
    }

    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Mounts it again, for reading only or not.
    pub fn set_read_only(&self, read_only: bool) {
        let option = if read_only { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", option, text(&self.point)]).expect("mount again");
    }

    /// A file that takes every block that is left.
    pub fn fill(&self) -> PathBuf {
        let path = self.point.join("filler");
        let mut file = File::options().create(true).append(true).open(&path).expect("create the filler");
        for piece in [1 << 20, 4096, 512] {
            let bytes = vec![1; piece];
            while file.write(&bytes).and_then(|n| file.sync_data().map(|()| n)).is_ok_and(|n| n > 0) {}
        }
        path
    }

    /// Removes the file that [`fill`](Self::fill) has made, and waits until its blocks are free: a process that another test is
    /// just starting has a copy of this one's descriptors, and keeps the file until it runs its program.
    pub fn empty(&self, filler: PathBuf) {
        let blocks = std::fs::metadata(&filler).expect("look at the filler").blocks();
        std::fs::remove_file(filler).expect("remove the filler");
        crate::common::eventually("the filler's blocks are free", || {
            let room = rustix::fs::statvfs(&self.point).expect("look at the file system");
            room.f_bavail * room.f_frsize >= blocks * 512 / 2
        });
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[text(&self.point)]) {
            // Mappings of a failed test may still be there.
            println!("{error}; it goes when its files are closed");
            let _ = run("umount", &["-l", text(&self.point)]);
        }
    }
}

/// A mount for a test, or a line that says why there is none.
pub fn for_test(test: &str, mount: Result<Mount, String>) -> Option<Mount> {
    mount.inspect_err(|why| println!("{test}: skipped: {why}")).ok()
}

/// A directory that is seen at a second place.
pub struct Bind {
    point: PathBuf,
}

impl Bind {
    pub fn new(directory: &Path, point: &Path) -> Result<Bind, String> {
        run("mount", &["--bind", text(directory), text(point)])?;
        Ok(Bind { point: point.to_path_buf() })
    }

    /// The second place is an ordinary one again, whatever of it is open.
    pub fn detach(self) {}
}

impl Drop for Bind {
    fn drop(&mut self) {
        run("umount", &["-l", text(&self.point)]).expect("unmount");
    }
}
