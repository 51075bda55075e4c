//! Files of a store seen from outside: what they take, and how to get them out of the page cache.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{Advice, fadvise};

/// All files below a folder.
fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry?;
            let list = if entry.file_type()?.is_dir() { &mut dirs } else { &mut files };
            list.push(entry.path());
        }
    }
    Ok(files)
}

/// Bytes that the files occupy on the disk: blocks, not lengths. A file that the store removes meanwhile occupies nothing.
pub fn allocated_bytes(dir: &Path) -> anyhow::Result<u64> {
    let bytes = |path: PathBuf| match fs::metadata(&path) {
        Ok(metadata) => Ok(metadata.blocks() * 512),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    };
    files(dir)?.into_iter().map(bytes).sum()
}

/// Writes the files to the disk and drops them from the page cache. Nobody may have them mapped.
pub fn drop_from_cache(dir: &Path) -> anyhow::Result<()> {
    for path in files(dir)? {
        let drop = || -> std::io::Result<()> {
            let file = File::open(&path)?;
            // Dirty pages stay, whatever the advice.
            file.sync_all()?;
            Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
        };
        drop().with_context(|| format!("cannot drop {} from the page cache", path.display()))?;
    }
    Ok(())
}

/// Removes a store that is not needed any more.
pub fn remove(dir: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_folders_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["a", "sub/b"] {
            fs::write(dir.path().join(name), vec![1; 10_000]).unwrap();
        }
        drop_from_cache(dir.path()).unwrap();
        assert!(allocated_bytes(dir.path()).unwrap() >= 20_000);
        remove(dir.path()).unwrap();
    }
}
