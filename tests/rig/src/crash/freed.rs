//! The power fails while segments are being freed, and then the index is lost.
//!
//! Everything has reached the disk but for names: of the segments that were unlinked since the last fsync of their
//! directory, any may be there again. A repair that has only the log must find in it what an open finds, with no excuse: a
//! removal that went before what it removes would bring a key back, and a gap where it was says nothing. The same while
//! the next open unlinks what is left; and while a process opens the store, compacts it, and closes it after the one before
//! was killed, so that what that one unlinked is still pending.

use std::path::Path;

use super::repaired::differing;
use super::{Fate, Layer, Origin, Outcome, Settings, Tally, after, caught, each_boundary};
use crate::disk::SimDisk;
use crate::image::{Change, ChangeKind, Image};
use crate::oracle::{Content, content_of};
use crate::recorder::Boundary;
use crate::run::{STORE, kill};
use crate::script::Script;

/// Unlinked segments of which every subset is tried. Of more, the newest ones.
const UNLINKED_MAX: usize = 6;

/// Runs one script through this layer.
#[must_use]
pub fn run(script: &Script, settings: &Settings) -> Outcome {
    each_boundary(script, settings, |layer, boundary, _| {
        layer.freeing(boundary, None);
        layer.freeing_after_kill(boundary);
    })
}

fn is_unlinked_segment(change: &Change) -> bool {
    matches!(&change.kind, ChangeKind::Unlink(name) if name.ends_with(".log"))
}

impl Layer<'_> {
    /// All that a crash at this boundary can leave of the names of segments that were unlinked. `first` is the crash
    /// before, if this is a boundary of the open that followed.
    fn freeing(&self, boundary: &Boundary, first: Option<&Origin<'_>>) {
        let unlinked: Vec<usize> =
            (0..boundary.pending.len()).rev().filter(|&i| is_unlinked_segment(&boundary.pending[i])).collect();
        if unlinked.is_empty() {
            return;
        }
        let unlinked = &unlinked[..unlinked.len().min(UNLINKED_MAX)];
        let mut tally = Tally { examined: 1, exhaustive: 1, ..Tally::default() };
        for subset in 0u32..1 << unlinked.len() {
            if self.stop.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            let mut fates = vec![Fate::Kept; boundary.pending.len()];
            let lost = unlinked.iter().enumerate().filter(|&(bit, _)| subset >> bit & 1 == 1);
            lost.for_each(|(_, &i)| fates[i] = Fate::Lost);
            let origin = Origin { boundary, fates: &fates, history: &self.history, first, killed: false };
            let image = after(boundary, &fates);
            tally.images += 1;
            if self.repaired_before.lock().insert(image.hash()) {
                tally.distinct += 1;
                if let Err(what) = caught(|| self.without_index(&image, &origin, &mut tally)) {
                    self.violation(&what, &origin);
                }
            }
        }
        self.outcome.lock().tally.add(&tally);
    }

    /// The process is killed at this boundary, and the power fails while the next one works.
    fn freeing_after_kill(&self, boundary: &Boundary) {
        if !boundary.pending.iter().any(is_unlinked_segment) || self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let fates = vec![Fate::Kept; boundary.pending.len()];
        let origin = Origin { boundary, fates: &fates, history: &self.history, first: None, killed: true };
        match caught(|| self.next_process(boundary)) {
            Ok(boundaries) => boundaries.iter().for_each(|boundary| self.freeing(boundary, Some(&origin))),
            Err(what) => self.violation(&what, &origin),
        }
        self.outcome.lock().tally.add(&Tally { killed: 1, ..Tally::default() });
    }

    /// What the power can leave while the process after a killed one opens the store, compacts it, and closes it.
    fn next_process(&self, boundary: &Boundary) -> Result<Vec<Boundary>, String> {
        let disk = SimDisk::of_killed(boundary, self.settings.seed);
        disk.record();
        let text = |error: tophash::Error| format!("after a kill: {error}");
        let store = self.script.options(&disk).open(STORE).map_err(text)?;
        store.compact().map_err(text)?;
        store.close().map_err(text)?;
        Ok(disk.recorded().0)
    }

    fn without_index(&self, image: &Image, origin: &Origin<'_>, tally: &mut Tally) -> Result<(), String> {
        let Some(without) = image.without(&Path::new(STORE).join("index")) else { return Ok(()) };
        let seed = self.settings.seed ^ image.hash();
        let is_first = origin.first.is_none();
        let disk = if is_first { SimDisk::new } else { SimDisk::untracked }(image.clone(), seed);
        if is_first {
            disk.record();
        }
        tally.recoveries += 1;
        tally.nested += u64::from(!is_first);
        let store = self.script.options(&disk).open(STORE).map_err(|error| format!("open: {error}"))?;
        let opening = if is_first { disk.recorded().0 } else { Vec::new() };
        let content = content_of(&store)?;
        kill(&disk, store);
        tally.repaired += 1;
        compare(self.script, without, seed, &content)?;
        opening.iter().for_each(|boundary| self.freeing(boundary, Some(origin)));
        Ok(())
    }
}

/// A repair of the image must yield the content.
fn compare(script: &Script, image: Image, seed: u64, content: &Content) -> Result<(), String> {
    let what = "the index is lost while segments are freed";
    let Some((report, found)) = differing(script, image, seed, content, what)? else { return Ok(()) };
    let text = |key: &Vec<u8>| String::from_utf8_lossy(key).into_owned();
    let back: Vec<String> = found.keys().filter(|key| !content.contains_key(*key)).map(text).take(5).collect();
    let lost: Vec<String> = content.keys().filter(|key| !found.contains_key(*key)).map(text).take(5).collect();
    let other = content.iter().filter(|&(key, value)| found.get(key).is_some_and(|found| found != value)).count();
    Err(format!(
        "{what}: removed keys are back: {back:?}, lost: {lost:?}, {other} others; \
         losses: {:?}",
        report.losses
    ))
}
