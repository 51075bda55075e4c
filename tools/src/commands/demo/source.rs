//! What the demonstration stores: which folder, and which files of it.

use std::path::{Path, PathBuf};

use anyhow::bail;
use walkdir::WalkDir;

use crate::output;

/// The lock file of the build names the crates whose sources cargo has unpacked.
const CARGO_LOCK: &str = include_str!("../../../../Cargo.lock");

/// Folders whose files are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What they are, for the report.
    pub description: String,
    /// Each folder, and what the keys of its files begin with.
    pub roots: Vec<(PathBuf, String)>,
}

/// A file to be stored.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its key: the path inside the folder.
    pub key: Vec<u8>,
    /// Where it is.
    pub path: PathBuf,
}

/// The files of a source, and what was left out.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files, in order of their paths.
    pub files: Vec<SourceFile>,
    /// Bytes in them, by their directories.
    pub bytes: u64,
    /// Files left out because of the limit.
    pub cut_files: u64,
    /// Bytes in those.
    pub cut_bytes: u64,
    /// Symbolic links, devices and the like: not followed, not read.
    pub not_regular: u64,
    /// Folders that could not be read.
    pub unreadable: u64,
}

/// Chooses the folder: the one that was asked for, else the sources of the crates that this tool was built from,
/// else the current folder.
pub fn choose(dir: Option<&Path>, cargo_home: Option<&Path>, current: &Path) -> anyhow::Result<Source> {
    if let Some(dir) = dir {
        if !dir.is_dir() {
            bail!("{} is not a folder that can be read", dir.display());
        }
        return Ok(folder(dir, format!("{}", dir.display())));
    }
    let roots = cargo_home.map(|home| crate_sources(&home.join("registry/src"), CARGO_LOCK)).unwrap_or_default();
    if roots.is_empty() {
        return Ok(folder(current, format!("the current folder, {}", current.display())));
    }
    let description = format!("the sources of this tool: {}", output::some(roots.len() as u64, "crate"));
    Ok(Source { description, roots })
}

/// Where cargo keeps what it downloads.
pub fn cargo_home() -> Option<PathBuf> {
    let from_env = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    from_env.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
}

fn folder(dir: &Path, description: String) -> Source {
    Source { description, roots: vec![(dir.to_path_buf(), String::new())] }
}

/// The unpacked sources of the lock file's crates, under any of the registries.
fn crate_sources(registries: &Path, lock: &str) -> Vec<(PathBuf, String)> {
    let mut registries: Vec<_> =
        std::fs::read_dir(registries).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    registries.sort();
    let mut roots = Vec::new();
    for name in locked_crates(lock) {
        if let Some(path) = registries.iter().map(|registry| registry.join(&name)).find(|path| path.is_dir()) {
            roots.push((path, format!("{name}/")));
        }
    }
    roots
}

/// `name-version` of each package of a lock file.
fn locked_crates(lock: &str) -> Vec<String> {
    let mut crates = Vec::new();
    let mut name = "";
    for line in lock.lines() {
        let quoted = |prefix| line.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix('"'));
        if let Some(found) = quoted("name = \"") {
            name = found;
        } else if let Some(version) = quoted("version = \"") {
            crates.push(format!("{name}-{version}"));
        }
    }
    crates
}

impl Source {
    /// Lists the files, up to `bytes_max` bytes of them, without what lies under `except`.
    pub fn list(&self, bytes_max: u64, except: Option<&Path>) -> Listing {
        let except = except.and_then(|path| path.canonicalize().ok());
        let mut listing = Listing::default();
        for (root, prefix) in &self.roots {
            let is_wanted = |entry: &walkdir::DirEntry| match &except {
                Some(except) if entry.file_type().is_dir() => {
                    entry.path().canonicalize().map_or(true, |path| path != *except)
                }
                _ => true,
            };
            let walk = WalkDir::new(root).follow_links(false).sort_by_file_name().into_iter();
            for entry in walk.filter_entry(is_wanted) {
                match entry {
                    Ok(entry) => listing.add(&entry, root, prefix, bytes_max),
                    Err(_) => listing.unreadable += 1,
                }
            }
        }
        listing
    }
}

impl Listing {
    fn add(&mut self, entry: &walkdir::DirEntry, root: &Path, prefix: &str, bytes_max: u64) {
        if entry.file_type().is_dir() {
            return;
        }
        if !entry.file_type().is_file() {
            self.not_regular += 1;
            return;
        }
        let Ok(metadata) = entry.metadata() else {
            self.unreadable += 1;
            return;
        };
        if self.bytes.saturating_add(metadata.len()) > bytes_max {
            self.cut_files += 1;
            self.cut_bytes += metadata.len();
            return;
        }
        self.bytes += metadata.len();
        let inside = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let mut key = prefix.as_bytes().to_vec();
        key.extend_from_slice(inside.as_os_str().as_encoded_bytes());
        self.files.push(SourceFile { key, path: entry.path().to_path_buf() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_lock_file_of_this_build_names_crates() {
        let crates = locked_crates(CARGO_LOCK);
        assert!(crates.iter().any(|name| name.starts_with("clap-4.")), "{crates:?}");
        let lock = "version = 4\n\n[[package]]\nname = \"a-b\"\nversion = \"1.0.0\"\n";
        assert_eq!(locked_crates(lock), ["a-b-1.0.0"]);
    }

    #[test]
    fn a_folder_that_was_asked_for_comes_first_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let source = choose(Some(dir.path()), None, Path::new("/")).unwrap();
        assert_eq!(source.roots, [(dir.path().to_path_buf(), String::new())]);
        assert!(choose(Some(&dir.path().join("missing")), None, Path::new("/")).is_err());
    }

    #[test]
    fn without_cargo_the_current_folder_serves() {
        let dir = tempfile::tempdir().unwrap();
        for cargo_home in [None, Some(dir.path())] {
            let source = choose(None, cargo_home, dir.path()).unwrap();
            assert_eq!(source.roots, [(dir.path().to_path_buf(), String::new())]);
        }
    }

    #[test]
    fn crates_are_found_under_any_registry() {
        let home = tempfile::tempdir().unwrap();
        let registries = home.path().join("registry/src");
        fs::create_dir_all(registries.join("one-123/a-1.0.0/src")).unwrap();
        fs::create_dir_all(registries.join("two-456/b-2.0.0")).unwrap();
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n\
                    [[package]]\nname = \"c\"\nversion = \"3.0.0\"\n";
        let roots = crate_sources(&registries, lock);
        assert_eq!(
            roots,
            [
                (registries.join("one-123/a-1.0.0"), "a-1.0.0/".to_string()),
                (registries.join("two-456/b-2.0.0"), "b-2.0.0/".to_string()),
            ]
        );
    }

    #[test]
    fn the_listing_is_sorted_bounded_and_leaves_links_and_the_store_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("sub")).unwrap();
        fs::create_dir_all(at("out.tophash")).unwrap();
        fs::write(at("out.tophash/index"), "not this").unwrap();
        fs::write(at("b"), "bb").unwrap();
        fs::write(at("large"), [0; 100]).unwrap();
        fs::write(at("sub/a"), "").unwrap();
        std::os::unix::fs::symlink(at("b"), at("link")).unwrap();
        let source = choose(Some(dir.path()), None, Path::new("/")).unwrap();
        let listing = source.list(50, Some(&at("out.tophash")));
        let keys: Vec<_> = listing.files.iter().map(|file| String::from_utf8_lossy(&file.key).into_owned()).collect();
        assert_eq!(keys, ["b", "sub/a"]);
        assert_eq!((listing.bytes, listing.cut_files, listing.cut_bytes, listing.not_regular), (2, 1, 100, 1));
    }
}
