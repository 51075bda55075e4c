//! Writing a trace while a workload runs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;

use super::{Call, Entry, HEAD};

/// Writes what several threads ask for into one file, in the order in which they come here.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    started: Instant,
    active: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    /// The first error: nothing is written after it, and [`Recorder::finish`] returns it.
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins a trace in a new file, or in the place of an old one.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let begin = || {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
            writeln!(file, "{HEAD}")?;
            Ok::<_, io::Error>(file)
        };
        let file = begin().with_context(|| format!("create {}", path.display()))?;
        Ok(Recorder {
            path: path.to_path_buf(),
            started: Instant::now(),
            active: AtomicBool::new(false),
            state: Mutex::new(State { file, failed: None }),
        })
    }

    /// Whether calls should be noted at this time.
    pub fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    /// True if calls should be noted.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Adds a call.
    pub fn add(&self, thread: u64, call: Call) {
        self.write(|file, micros| writeln!(file, "{}", Entry { micros, thread, call }));
    }

    /// Adds a remark for those who read the file.
    pub fn remark(&self, text: &str) {
        self.write(|file, _| writeln!(file, "# {text}"));
    }

    fn write(&self, line: impl FnOnce(&mut BufWriter<File>, u64) -> io::Result<()>) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.failed.is_none() {
            // Under the lock, so that the times in the file never go back.
            let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            state.failed = line(&mut state.file, micros).err();
        }
    }

    /// Ends the trace, telling of what went wrong on the way.
    pub fn finish(self) -> anyhow::Result<()> {
        let mut state = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = state.failed.map_or_else(|| state.file.flush(), Err);
        result.with_context(|| format!("write {}", self.path.display()))
    }
}
