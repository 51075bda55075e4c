//! A repair of what a crash has left yields what opening it yields, or says what is lost.
//!
//! With everything that is there; without the index, as if its blocks could not be read; without the journal. Where index
//! and journal say where the log ends, the contents are the same. Without them, records behind a gap may be
//! saved that an open leaves out, and what a crash has torn is a loss; both are in the report.

use std::path::Path;

use tophash::Error;
use tophash::repair::Report;

use super::{Layer, Origin, Tally};
use crate::disk::SimDisk;
use crate::image::Image;
use crate::oracle::{Content, content_of};
use crate::run::STORE;
use crate::script::Script;

/// Whether the report says that the new store may be another than the old one. That a segment is not there does not say
/// so by itself: a compaction frees some in the middle, and then no change of theirs may count any more.
fn tells(report: &Report) -> bool {
    report.lost_keys_total > 0
        || report.unconfirmed_records > 0
        || report.losses.iter().any(|loss| loss.kind != "segment-gap")
}

/// Whether the report names a segment that is not there, and all that differs are values behind it that no step
/// had acknowledged as durable: an open leaves them out, because the log ends before the gap.
fn is_behind_gap(report: &Report, found: &Content, content: &Content, origin: &Origin<'_>) -> bool {
    report.losses.iter().any(|loss| loss.kind == "segment-gap")
        && content.keys().all(|key| found.contains_key(key) || origin.perhaps(key, None))
        && found.iter().all(|(key, value)| content.get(key) == Some(value) || origin.perhaps(key, Some(value)))
}

/// What a repair of an image reports and yields, if that is not the content.
pub(super) fn differing(
    script: &Script,
    image: Image,
    seed: u64,
    content: &Content,
    what: &str,
) -> Result<Option<(Report, Content)>, String> {
    let disk = SimDisk::untracked(image, seed);
    let (options, mended) = (script.options(&disk), Path::new(STORE).with_file_name("mended"));
    let report = match tophash::repair::repair_disk(&disk, STORE, &mended, &options, tophash::Progress::ignore) {
        // A store of which nothing is left but what was not there yet.
        Err(Error::NotAStore { .. }) if content.is_empty() => return Ok(None),
        result => result.map_err(|error| format!("{what}: {error}"))?,
    };
    let repaired = options.open(&mended).map_err(|error| format!("{what}: open: {error}"))?;
    let found = content_of(&repaired)?;
    Ok((found != *content).then_some((report, found)))
}

impl Layer<'_> {
    /// Repairs an image in each way. `content` is what opening it yields.
    pub(super) fn repair(
        &self,
        image: &Image,
        seed: u64,
        content: &Content,
        origin: &Origin<'_>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let store = Path::new(STORE);
        let Some(without_index) = image.without(&store.join("index")) else { return Ok(()) };
        self.one_repair(image.clone(), seed, content, origin, "repair", tally)?;
        self.one_repair(without_index, seed, content, origin, "repair without index", tally)?;
        if let Some(image) = image.without(&store.join("journal")) {
            self.one_repair(image, seed, content, origin, "repair without journal", tally)?;
        }
        Ok(())
    }

    fn one_repair(
        &self,
        image: Image,
        seed: u64,
        content: &Content,
        origin: &Origin<'_>,
        what: &str,
        tally: &mut Tally,
    ) -> Result<(), String> {
        tally.repaired += 1;
        let Some((report, found)) = differing(self.script, image, seed, content, what)? else { return Ok(()) };
        let told = tells(&report) || is_behind_gap(&report, &found, content, origin);
        if told && !report.index_problem.is_empty() {
            tally.reported += 1;
            return Ok(());
        }
        let only = |a: &Content, b: &Content| {
            let other = a.iter().filter(|(key, value)| b.get(*key) != Some(value));
            other.map(|(key, _)| String::from_utf8_lossy(key).into_owned()).take(5).collect::<Vec<_>>()
        };
        Err(format!(
            "{what}: {} entries, an open yields {}; other than there: {:?}, only there: {:?}; report: {report:?}",
            found.len(),
            content.len(),
            only(&found, content),
            only(content, &found)
        ))
    }
}
