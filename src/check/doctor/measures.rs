//! Figures that several rules measure or tell.

use super::amounts::share;
use super::diagnosis::{Diagnosis, SegmentFigures, TableFigures};

/// Log segments that a store may have beyond its bound, whatever is dead in them.
const SEGMENTS_TOLERATED: u64 = 4;

/// Bytes of a few segments: what a log may have over its bound at any time.
pub(super) fn tolerated(d: &Diagnosis) -> u64 {
    SEGMENTS_TOLERATED * d.segments.iter().map(|segment| segment.capacity).max().unwrap_or(0)
}

/// Bytes of records that are dead or expired: compaction takes both for dead.
pub(super) fn gone(d: &Diagnosis) -> u64 {
    d.log.dead_bytes.saturating_add(d.log.expired_bytes).min(d.log.bytes.max(d.log.dead_bytes))
}

/// Sealed segments of which next to nothing is live.
pub(super) fn mostly_dead(d: &Diagnosis) -> impl Iterator<Item = &SegmentFigures> {
    let sealed = d.segments.iter().take(d.segments.len().saturating_sub(1));
    sealed.filter(|segment| {
        let gone = segment.dead_bytes.saturating_add(segment.expired_bytes);
        gone.saturating_mul(10) >= segment.bytes.saturating_mul(9)
    })
}

/// Pages with overflow pages.
pub(super) fn chained(d: &Diagnosis) -> u64 {
    d.chains.iter().skip(1).sum()
}

/// Inserts into `emptyRest`, into `emptyOne`, into new overflow pages.
pub(super) fn inserts(d: &Diagnosis) -> Option<[u64; 3]> {
    let index = &d.stats.as_ref()?.index;
    Some([index.inserts_into_empty_rest, index.inserts_into_empty_one, index.inserts_into_new_overflow])
}

/// The part of a table's pages that are pseudo-full.
pub(super) fn pseudo_full(table: &TableFigures) -> Option<f64> {
    Some(share(table.pseudo_full_pages, table.pages_in_use))
}

/// The part of a table's slots that its records take.
pub(super) fn load(table: &TableFigures) -> Option<f64> {
    Some(share(table.records, table.slots))
}

/// By how many levels a table is too large, if it does not shrink.
pub(super) fn too_large(table: &TableFigures) -> Option<f64> {
    let wanted = table.level_needed.max(table.level_floor);
    (!table.shrinking).then(|| f64::from(table.level.saturating_sub(wanted)))
}

/// How many levels a table keeps because room was reserved.
pub(super) fn reserved(table: &TableFigures) -> Option<f64> {
    let kept = table.level.min(table.level_floor);
    Some(f64::from(kept.saturating_sub(table.level_needed)))
}

/// 1 if a table is being resized.
pub(super) fn resizing(table: &TableFigures) -> Option<f64> {
    Some(f64::from(u8::from(table.growing || table.shrinking)))
}
