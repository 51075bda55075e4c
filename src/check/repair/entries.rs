//! What the index says about what is lost: how many of its entries point there.

use crate::sync::AtomicU64;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use crate::check::chain::PageMemory;
use crate::check::keys::KeyReader;
use crate::check::segments::by_slot;
use crate::check::sink::Sink;
use crate::check::state::State;
use crate::check::tables::CheckedTable;
use crate::check::walk::Walk;
use crate::checksum::KeyHasher;
use crate::error::Result;
use crate::sys::Disk;

/// Counts the entries whose records lie in lost ranges (sequence, from, to). `None` if a part of the index cannot
/// be read: then nobody knows.
pub(super) fn count_lost(
    disk: &dyn Disk,
    dir: &Path,
    state: &State,
    mut ranges: Vec<(u32, u64, u64)>,
    sink: &mut Sink<'_>,
) -> Result<Option<u64>> {
    if ranges.is_empty() {
        return Ok(Some(0));
    }
    ranges.sort_unstable();
    sink.muted = true;
    let hasher = KeyHasher::new(state.header.hash_key);
    let ends = by_slot(state, |entry| entry.end);
    let sequences: HashMap<u32, u32> = state.meta.segments.iter().map(|entry| (entry.slot, entry.sequence)).collect();
    let tables = CheckedTable::find_all(state, sink)?;
    let memory: PageMemory = Rc::new([const { AtomicU64::new(0) }; 512]);
    let keys = KeyReader::new(disk, dir, &hasher, &sequences);
    let mut walk = Walk { state, tables: &tables, ends: &ends, keys, memory };
    let mut lost = 0;
    let walked = walk.run(sink, &mut |slot| {
        let address = slot.address();
        let Some(&sequence) = sequences.get(&address.segment()) else { return };
        let before = ranges.partition_point(|&(s, from, _)| (s, from) <= (sequence, address.offset()));
        let range = before.checked_sub(1).and_then(|i| ranges.get(i));
        lost += u64::from(range.is_some_and(|&(s, _, to)| s == sequence && address.offset() < to));
    })?;
    sink.muted = false;
    let counted = tables.iter().map(|table| table.state.records).eq(walked.live.iter().copied());
    let whole = tables.iter().all(CheckedTable::is_whole) && walked.broken.is_empty() && counted;
    Ok(whole.then_some(lost))
}
