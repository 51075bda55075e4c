//! Where the parts of a check put what they find, and what they tell about their progress.

use std::fmt::Display;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::kind;
use super::report::{Finding, Report};
use crate::error::{Error, Location, Result, is_of_the_moment};
use crate::progress::{OnProgress, tell};
use crate::sys::{Disk, DiskFile, OpenMode, read_around};

/// Findings that are kept; the rest is counted.
const FINDINGS_MAX: usize = 1000;

/// Collects findings and progress.
pub(super) struct Sink<'p> {
    pub(super) report: Report,
    /// What is being done, for the error that ends it.
    operation: &'static str,
    progress: &'p mut OnProgress<'p>,
    /// Bytes that are to be read in all, as far as is known.
    all: u64,
    /// Nothing is added: the same was looked at before.
    pub(super) muted: bool,
    /// The number of the table that findings are about. 0 for the main one, and for what belongs to none.
    pub(super) table: u16,
    /// What findings call the tables, by their numbers.
    pub(super) labels: Vec<Option<Rc<str>>>,
    /// The system ran short of something: nothing can be said of the store.
    moment: Option<Error>,
}

impl<'p> Sink<'p> {
    pub(super) fn new(operation: &'static str, progress: &'p mut OnProgress<'p>) -> Self {
        Sink {
            report: Report::default(),
            operation,
            progress,
            all: 0,
            muted: false,
            table: 0,
            labels: Vec::new(),
            moment: None,
        }
    }

    /// Adds something that is not as it must be.
    pub(super) fn damage(
        &mut self,
        kind: &'static str,
        location: Location,
        expected: impl Display,
        found: impl Display,
    ) {
        self.add(kind, location, expected.to_string(), found.to_string(), false);
    }

    /// Adds something wrong that affects nothing that is stored.
    pub(super) fn harmless(
        &mut self,
        kind: &'static str,
        location: Location,
        expected: impl Display,
        found: impl Display,
    ) {
        self.add(kind, location, expected.to_string(), found.to_string(), true);
    }

    fn add(&mut self, kind: &'static str, location: Location, expected: String, found: String, harmless: bool) {
        if self.muted {
            return;
        }
        let Location { path, offset, page, slot } = location;
        let path = path.display().to_string();
        // Two parts of the check can come across the same thing.
        let same =
            |f: &Finding| f.kind == kind && f.offset == offset && f.slot == slot && f.path == path && f.found == found;
        if self.report.findings.iter().rev().take(16).any(same) {
            return;
        }
        self.report.findings_total += 1;
        self.report.harmless_total += u64::from(harmless);
        if self.report.findings.len() < FINDINGS_MAX {
            let kind = kind.to_string();
            let table = self.labels.get(usize::from(self.table)).and_then(Option::as_deref).map(str::to_string);
            self.report.findings.push(Finding { kind, path, offset, page, slot, table, expected, found, harmless });
        }
    }

    /// Notes an error of the moment: a check that was short of descriptors or memory finds nothing out, so it ends with
    /// that error and not with a finding.
    pub(super) fn note(&mut self, action: &'static str, path: &Path, error: &io::Error) {
        if self.moment.is_none() {
            self.moment = of_the_moment(action, path, error).err();
        }
    }

    /// What was found.
    ///
    /// # Errors
    /// The error of the moment that was noted.
    pub(super) fn finish(self) -> Result<Report> {
        self.moment.map_or(Ok(self.report), Err)
    }

    /// Adds an error that a reader of the store's structures met. `kind` is what damage means here.
    pub(super) fn error(&mut self, kind: &'static str, error: Error) {
        match error {
            Error::Corrupt { location, expected, found, .. } => self.damage(kind, *location, expected, found),
            Error::WrongStore { location, expected, found } => {
                self.damage(kind::WRONG_STORE, location, format!("store {expected}"), format!("store {found}"));
            }
            Error::LostData { location, valid_to, durable_to } => {
                let expected = format!("valid records up to position {durable_to:#x}");
                self.damage(kind::LOST_DATA, *location, expected, format!("the last one ends at {valid_to:#x}"));
            }
            Error::NewerFormat { path, found, supported, .. } => {
                let location = Location::file(&path);
                self.damage(kind::NEWER_FORMAT, location, format!("format version {supported} or older"), found);
            }
            Error::Io { action, path, source } => {
                self.note(action, &path, &source);
                self.damage(kind::UNREADABLE, Location::file(&path), "a readable file", source);
            }
            other => self.damage(kind, Location::default(), "no error", other),
        }
    }

    /// Adds a block that the device refused.
    pub(super) fn unreadable(&mut self, path: &Path, offset: u64, error: &io::Error) {
        self.note("read", path, error);
        self.damage(kind::UNREADABLE, Location::at(path, offset), "a readable block", error);
    }

    /// More is to be read than was known so far.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.all = self.all.saturating_add(bytes);
    }

    /// Notes bytes read and tells the caller.
    ///
    /// # Errors
    /// `Aborted` if the caller says so; an error of the moment that was noted.
    pub(super) fn advance(&mut self, bytes: u64) -> Result<()> {
        if let Some(error) = self.moment.take() {
            return Err(error);
        }
        self.report.bytes_read += bytes;
        // Some pages and record fronts are read twice: the end is where we are, at the latest.
        self.all = self.all.max(self.report.bytes_read);
        match tell(self.progress, self.report.bytes_read, self.all) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Aborted { operation: self.operation }),
        }
    }
}

/// A file that is read by pread.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) len: u64,
}

/// An error of the moment ends a check, because it says nothing about the file.
///
/// # Errors
/// The error, if it is one of the moment.
pub(super) fn of_the_moment(action: &'static str, path: &Path, error: &io::Error) -> Result<()> {
    if !is_of_the_moment(error) {
        return Ok(());
    }
    let copy = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
    Err(Error::io(action, path, copy))
}

impl Input {
    /// Opens a file. The inner error is what the file answers: it is missing, or not readable.
    ///
    /// # Errors
    /// An error of the moment.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<io::Result<Input>> {
        let open = || {
            let file = disk.open(path, OpenMode::Read)?;
            let len = file.len()?;
            Ok(Input { file, path: path.to_path_buf(), len })
        };
        let opened: io::Result<Input> = open();
        if let Err(error) = &opened {
            of_the_moment("open", path, error)?;
        }
        Ok(opened)
    }

    /// Fills the buffer. What lies beyond the file's end, and blocks that the device refuses, are zeroes; the
    /// latter are findings.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64, sink: &mut Sink<'_>) -> Result<()> {
        let mut bad = Vec::new();
        let read = read_around(&*self.file, buffer, offset, &mut |at, error| bad.push((at, error)));
        let (_, beyond) = buffer.split_at_mut(read);
        beyond.fill(0);
        for (at, error) in bad {
            of_the_moment("read", &self.path, &error)?;
            sink.unreadable(&self.path, at, &error);
        }
        sink.advance(read as u64)
    }
}
