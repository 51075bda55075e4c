//! Disks of tests differ from the real one in a few calls. All others are passed on, and are written here once.

/// Inside an `impl Disk`: `passed_on!(RealDisk: create_dir read_dir)` passes these calls on to that disk. Inside an
/// `impl DiskFile`: `passed_on!(self.file: len set_len)`, to the file in that field.
macro_rules! passed_on {
    (self.$file:tt: $($call:ident)*) => { $(passed_on!(@$call $file);)* };
    ($disk:ident: $($call:ident)*) => { $(passed_on!(@$call $disk);)* };

    (@create_dir $disk:ident) => {
        fn create_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
            $disk.create_dir(path)
        }
    };
    (@read_dir $disk:ident) => {
        fn read_dir(&self, path: &std::path::Path) -> std::io::Result<Vec<String>> {
            $disk.read_dir(path)
        }
    };
    (@kind $disk:ident) => {
        fn kind(&self, path: &std::path::Path) -> std::io::Result<tophash::sys::PathKind> {
            $disk.kind(path)
        }
    };
    (@rename $disk:ident) => {
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            $disk.rename(from, to)
        }
    };
    (@unlink $disk:ident) => {
        fn unlink(&self, path: &std::path::Path) -> std::io::Result<()> {
            $disk.unlink(path)
        }
    };
    (@sync_dir $disk:ident) => {
        fn sync_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
            $disk.sync_dir(path)
        }
    };
    (@lock $disk:ident) => {
        fn lock(
            &self,
            path: &std::path::Path,
            mode: tophash::sys::LockMode,
        ) -> std::io::Result<tophash::sys::LockOutcome> {
            $disk.lock(path, mode)
        }
    };
    (@map_anonymous $disk:ident) => {
        fn map_anonymous(&self, bytes: usize) -> std::io::Result<tophash::sys::IndexMap> {
            $disk.map_anonymous(bytes)
        }
    };
    (@random $disk:ident) => {
        fn random(&self, buffer: &mut [u8]) -> std::io::Result<()> {
            $disk.random(buffer)
        }
    };

    (@read_at $file:tt) => {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
            self.$file.read_at(buffer, offset)
        }
    };
    (@write_at $file:tt) => {
        fn write_at(&self, buffer: &[u8], offset: u64) -> std::io::Result<usize> {
            self.$file.write_at(buffer, offset)
        }
    };
    (@write_mapped_at $file:tt) => {
        fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> std::io::Result<usize> {
            self.$file.write_mapped_at(buffer, offset)
        }
    };
    (@len $file:tt) => {
        fn len(&self) -> std::io::Result<u64> {
            self.$file.len()
        }
    };
    (@allocated $file:tt) => {
        fn allocated(&self) -> std::io::Result<u64> {
            self.$file.allocated()
        }
    };
    (@next_data $file:tt) => {
        fn next_data(&self, offset: u64) -> std::io::Result<Option<u64>> {
            self.$file.next_data(offset)
        }
    };
    (@set_len $file:tt) => {
        fn set_len(&self, bytes: u64) -> std::io::Result<()> {
            self.$file.set_len(bytes)
        }
    };
    (@allocate $file:tt) => {
        fn allocate(&self, offset: u64, bytes: u64) -> std::io::Result<()> {
            self.$file.allocate(offset, bytes)
        }
    };
    (@sync_data $file:tt) => {
        fn sync_data(&self) -> std::io::Result<()> {
            self.$file.sync_data()
        }
    };
    (@sync_all $file:tt) => {
        fn sync_all(&self) -> std::io::Result<()> {
            self.$file.sync_all()
        }
    };
    (@map_private $file:tt) => {
        fn map_private(&self, offset: u64, bytes: usize) -> std::io::Result<tophash::sys::IndexMap> {
            self.$file.map_private(offset, bytes)
        }
    };
    (@map_fresh $file:tt) => {
        fn map_fresh(&self, offset: u64, bytes: usize) -> std::io::Result<tophash::sys::IndexMap> {
            self.$file.map_fresh(offset, bytes)
        }
    };
    (@map_log $file:tt) => {
        fn map_log(&self, bytes: usize, written: u64, writable: bool) -> std::io::Result<tophash::sys::LogMap> {
            self.$file.map_log(bytes, written, writable)
        }
    };
}

#[allow(unused_imports, reason = "each test binary uses its own part of this module")]
pub(crate) use passed_on;
