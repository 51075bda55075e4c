//! Notes the compiler's version and those of the engines, which the report names.

use std::path::Path;
use std::process::Command;

const ENGINES: [&str; 10] =
    ["tophash", "heed", "redb", "fjall", "candystore", "sled", "rocksdb", "librocksdb-sys", "hashbrown", "foldhash"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    let version = Command::new(compiler)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_else(|| "rustc of an unknown version".to_string());
    println!("cargo::rustc-env=COMPILER_VERSION={}", version.trim());

    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let lock = std::fs::read_to_string(lock).unwrap_or_default();
    for engine in ENGINES {
        let variable = engine.to_uppercase().replace('-', "_");
        println!("cargo::rustc-env=VERSION_{variable}={}", version_of(&lock, engine));
    }
}

/// The newest version of a package in Cargo.lock: dependencies of others may want older ones beside it.
fn version_of(lock: &str, package: &str) -> String {
    let head = format!("name = \"{package}\"\nversion = \"");
    let versions =
        lock.match_indices(&head).map(|(at, _)| lock[at + head.len()..].split('"').next().unwrap_or_default());
    let number =
        |version: &str| -> Vec<u64> { version.split(['.', '+', '-']).map_while(|part| part.parse().ok()).collect() };
    versions.max_by_key(|version| number(version)).unwrap_or("of an unknown version").to_string()
}
