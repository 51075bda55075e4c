//! Tests of the tests: each mutant breaks one rule of the shipped code, and some layer must notice.
//!
//! The layers are run first with no rule broken, and must find nothing. Then, for each mutant, those that its rule
//! concerns, until one of them finds something. A mutant that nobody notices fails the test.
//!
//! The switches are in builds of their own alone:
//!
//! ```text
//! RUSTFLAGS="--cfg tophash_mutants" CARGO_TARGET_DIR=target/mutants \
//!     cargo test --profile heavy -p tophash-rig --test mutants -- --nocapture
//! ```
#![cfg(tophash_mutants)]

mod layers;

use std::time::Instant;

use layers::Layer;
use tophash::mutant::{Mutant, activate};
use tophash_rig::seed;

/// A mutant, the rule that it breaks, and the layers that should notice.
struct Trial {
    mutant: Mutant,
    rule: &'static str,
    layers: &'static [Layer],
}

const fn trial(mutant: Mutant, rule: &'static str, layers: &'static [Layer]) -> Trial {
    Trial { mutant, rule, layers }
}

const TRIALS: [Trial; Mutant::ALL.len()] = {
    use Layer::{
        Awaited, Churn, Closed, Crash, Delays, Fault, Freed, Full, Held, Killed, Large, Moved, Nested, Parts, Repair,
        Resources, Space, Story, Stress,
    };
    use Mutant::*;
    [
        trial(JournalNotSynced, "journal synced before pages", &[Crash(&["growth", "always"])]),
        trial(PagesNotSynced, "pages synced before header", &[Crash(&["growth", "always"])]),
        trial(HeaderNotSynced, "header synced before what it frees", &[Crash(&["growth", "compaction", "blobs"])]),
        trial(HeaderBeforePages, "pages before header", &[Crash(&["growth", "always"])]),
        trial(PageOutsideJournal, "every page through the journal", &[Crash(&["growth", "always"])]),
        trial(PageLeftOut, "every dirty page in the checkpoint", &[Churn, Crash(&["growth"])]),
        trial(JournalNotRewritten, "recovery writes the journal again", &[Fault(&["growth", "always"])]),
        trial(TailNotRewritten, "recovery writes the tail again", &[Fault(&["always", "segments"])]),
        trial(NoFreshSegment, "a fresh segment after a crash", &[Nested(&["recoveries", "segments", "overflow"])]),
        trial(SegmentNameNotSynced, "a segment's name synced first", &[Crash(&["segments", "always"])]),
        trial(OnlyLastSegmentSynced, "segments synced in order", &[Crash(&["segments", "batches"])]),
        trial(NoSalt, "salt in every record's crc", &[Story]),
        trial(FrameInParts, "a batch whole or not at all", &[Crash(&["batches", "always"])]),
        trial(MarkTooFar, "the LSN of a mark is durable", &[Crash(&["growth", "always"])]),
        trial(BlobNotSynced, "a blob synced before its link", &[Crash(&["blobs"])]),
        trial(NotPoisoned, "an I/O error poisons", &[Fault(&["always", "growth"])]),
        trial(NoReserve, "a reserve for removals", &[Full]),
        trial(NoPathRepair, "removal repairs paths", &[Churn]),
        trial(EmptyRestTooEarly, "emptyRest only where paths end", &[Churn]),
        trial(MovedEntryForgotten, "bulk removals follow moved entries", &[Churn]),
        trial(NoVersions, "versions odd while entries move", &[Stress]),
        trial(CursorMovedLate, "destination, cursor, then source", &[Stress]),
        trial(MissWithoutGrowth, "a miss checks the growth word", &[Stress]),
        trial(PinnedUnseen, "pin, then look again", &[Stress]),
        trial(MovedBlindly, "compaction checks the slot", &[Churn]),
        trial(PartitionedByTheMoment, "parts by fixed hash bits", &[Parts]),
        trial(RemovalsDropped, "removals outlive their puts", &[Repair]),
        trial(ExpiredUnrecorded, "what expires is removed in the log as long as a put can be", &[Repair]),
        trial(FreedTooEarly, "freed after the checkpoint", &[Crash(&["compaction", "churn"])]),
        trial(ClearsDropped, "a clear outlives what it removes", &[Story]),
        trial(JournalNotReset, "a torn journal is reset", &[Nested(&["growth", "always", "recoveries"])]),
        trial(EntriesNotSynced, "names synced before an open removes any", &[Killed(&["offline compaction"])]),
        trial(SwitchedBeforeSync, "new log synced before the switch", &[Crash(&["offline compaction"])]),
        trial(AppendedUnmarked, "marked as in use before an append", &[Nested(&["reopened"])]),
        trial(
            OtherSlotFirst,
            "the header slot that was read is written first",
            &[Fault(&["shrink", "compaction", "churn"])],
        ),
        trial(SegmentBeyondAddresses, "segments end where addresses end", &[Large]),
        trial(NamesResolvedLate, "names resolved in the directory that was opened", &[Moved]),
        trial(MomentMarksDamage, "only damage marks as damaged", &[Resources(&["compaction", "churn"])]),
        trial(SegmentCutShort, "a segment is cut behind its records", &[Crash(&["ends"])]),
        trial(ActiveSegmentCut, "a segment is cut after it is sealed", &[Crash(&["ends"])]),
        trial(FreeingPoisons, "freeing never poisons", &[Resources(&["compaction", "churn", "blobs"])]),
        trial(BlobUnpinned, "a large value pins its link", &[Held]),
        trial(FreedBlobsUncounted, "bytes of freed blobs count", &[Space]),
        trial(CompactionGivesUp, "compaction goes on far beyond the bound", &[Space]),
        trial(FreedNewestFirst, "freed from the oldest on", &[Freed]),
        trial(FreedNotSynced, "each unlink durable before the next", &[Freed]),
        trial(KilledTrusted, "the last process's unlinks durable before the next", &[Freed]),
        trial(ClosedBesideCalls, "closing waits for calls under way", &[Closed]),
        trial(WakerLeftLate, "a waker is left under the lock of the look", &[Awaited]),
        trial(AwaitedTooShort, "a wait ends after its sync", &[Awaited]),
        trial(AwaitedUnsynced, "without threads, the call syncs", &[Crash(&["awaited"])]),
        trial(GapsNotSynced, "gaps are holes for good before they are used", &[Crash(&["tables"])]),
        trial(HolesTrusted, "the last process's holes durable before an extent lies there", &[Story]),
        trial(PagesGoneTooEarly, "a dropped table's pages go after the checkpoint", &[Crash(&["tables"])]),
        trial(ExpiredBlindly, "expired records are removed by address", &[Delays]),
        trial(DeadlinesBlindly, "deadlines count if a slot names their record", &[Delays]),
        trial(ExpiredUnfreed, "an expired large value is freed", &[Crash(&["expiring large"])]),
        trial(LeftoversKept, "an open unlinks what no list had room for", &[Crash(&["leftovers"])]),
        trial(LeftoversBlindly, "it does so if every record can be read", &[Story]),
        trial(UpkeepFails, "upkeep fails no change", &[Fault(&["churn", "growth"])]),
    ]
};

#[test]
fn every_broken_rule_is_noticed() {
    let (seed, started) = (seed(), Instant::now());
    // A panic is one of the ways in which a broken rule is noticed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut wrong = Vec::new();
    let only = std::env::var("TOPHASH_TEST_MUTANT").ok();
    for layer in layers::controls().into_iter().filter(|_| only.is_none()) {
        let (found, effort) = layer.run(seed, false);
        println!("control | {} | {effort}", layer.name());
        wrong.extend(found.map(|what| format!("no rule is broken, and {} finds: {what}", layer.name())));
    }
    println!("mutant | rule | caught by | after");
    let mut caught = 0;
    for Trial { mutant, rule, layers } in &TRIALS {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        activate(Some(*mutant));
        let began = Instant::now();
        let result = layers.iter().find_map(|layer| {
            let (found, effort) = layer.run(seed, true);
            found.map(|what| (layer.name(), effort, what))
        });
        activate(None);
        match result {
            Some((layer, effort, what)) => {
                caught += 1;
                let what: String = what.lines().next().unwrap_or_default().chars().take(110).collect();
                println!("{mutant:?} | {rule} | {layer} | {effort}, {:.1?}: {what}", began.elapsed());
            }
            None => {
                println!("{mutant:?} | {rule} | nobody | {:.1?}", began.elapsed());
                wrong.push(format!("nobody notices {mutant:?}"));
            }
        }
    }
    std::panic::set_hook(hook);
    println!("mutants: {caught} of {} caught, seed: {seed} ({:.1?})", TRIALS.len(), started.elapsed());
    assert!(wrong.is_empty(), "TOPHASH_TEST_SEED={seed}:\n{}", wrong.join("\n"));
}
