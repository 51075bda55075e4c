//! The corruption layer. See `tophash_rig::corruption`.
//!
//! `TOPHASH_TEST_CASE` names the only case to run, with `TOPHASH_TEST_SEED` and the same scale.

#[allow(dead_code, reason = "another test is refused memory")]
#[path = "../../common/allocator.rs"]
mod allocator;

use std::time::Instant;

use allocator::Counting;
use tophash_rig::corruption::exercise::{Effort, exercise};
use tophash_rig::corruption::run::{Meter, Settings, run};
use tophash_rig::corruption::{Licence, anatomy, base};
use tophash_rig::disk::SimDisk;
use tophash_rig::random::Random;
use tophash_rig::{scale, seed};

/// More than this at once ends the test: an allocation that a file's number was believed for.
const ABSURD: usize = 2 << 30;

#[global_allocator]
static ALLOCATOR: Counting = Counting::up_to(ABSURD);

impl Meter for Counting {
    fn begin(&self) {
        self.begin();
    }

    fn peak(&self) -> usize {
        self.peak()
    }
}

#[test]
fn damaged_files_do_no_harm() {
    let (scale, seed, started) = (scale() as u64, seed(), Instant::now());
    // A debug build is for a look; the figures of docs/TESTING.md are those of the heavy scale.
    let unit = if scale >= 10 { 1000 } else { 40 } * scale;
    let settings =
        Settings { flips: 10 * unit, cuts: 2 * unit, mutants: 14 * unit, seed, threads: 2, memory_bytes: 48 << 20 };
    let only = std::env::var("TOPHASH_TEST_CASE").ok().and_then(|case| case.parse().ok());
    let (tally, violations) = run(&base::all(), &settings, &ALLOCATOR, only);
    println!("corruption: {tally}, seed {seed}, scale {scale} ({:.1?})", started.elapsed());
    let told = violations.join("\n");
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: {} violations\n{told}", violations.len());
    assert!(only.is_some() || tally.opened > 0 && tally.refused > 0 && tally.harmless > 0, "nothing was tested");
}

/// A header says another sequence than its file's name. The recovery went on in the file of that sequence where the
/// header was that of the cut's segment: it forgot the segment of the cut, gave its slot to a new one, and the index led to
/// records of other keys. A random case found it; here is every segment of every store with every sequence near it.
#[test]
fn a_header_that_names_another_segment_leads_nowhere() {
    let bases = base::all();
    let (mut opened, mut refused) = (0, 0);
    for base in &bases {
        for segment in &base.anatomy.segments {
            let whole = base.image.read(&segment.name, 0, 128);
            let own = u64::from_le_bytes(whole[32..40].try_into().expect("eight bytes"));
            for other in (0..own + 4).filter(|&other| other != own) {
                let mut header = whole.clone();
                header[32..40].copy_from_slice(&other.to_le_bytes());
                anatomy::seal_at(&mut header, 12);
                let mut image = base.image.clone();
                image.write(&segment.name, 0, &header);
                let effort = Effort { change: true, repair: true, reopen: true };
                let outcome = exercise(base, &image, &Licence::default(), effort);
                let outcome =
                    outcome.unwrap_or_else(|e| panic!("{}, {}: {own} -> {other}: {e}", base.name, segment.name));
                assert!(
                    !outcome.harmless,
                    "{}: verify says nothing of a header that names segment {other}",
                    segment.name
                );
                *(if outcome.opened { &mut opened } else { &mut refused }) += 1;
            }
        }
    }
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused: some segments must lie before the cut");
}

/// The last segment was synced, its records say so, and no checkpoint knows it: whatever happens to its header, it
/// must not be taken for the header of a write that a crash has interrupted, and the segment be thrown away.
#[test]
fn a_damaged_header_of_the_last_segment_is_no_torn_write() {
    let bases = base::all();
    let base = bases.iter().find(|base| base.name == "killed").expect("a store that was killed");
    let last = base.anatomy.segments.iter().map(|segment| segment.name.clone()).max().expect("segments");
    let mut random = Random::new(seed());
    let whole = base.image.read(&last, 0, 128);
    for case in 0..if scale() >= 10 { 2000 } else { 300 } {
        let mut header = whole.clone();
        match case % 4 {
            // Words that were lost, as if they had not been written; or all of them.
            0 => (0..16).for_each(|word| {
                if case == 0 || random.one_in(2) {
                    header[word * 8..][..8].fill(0);
                }
            }),
            1 => header[random.below(128) as usize..].fill(0),
            2 => (0..1 + random.below(20)).for_each(|_| header[random.below(128) as usize] = random.word() as u8),
            _ => header.fill(random.word() as u8),
        }
        if header == whole {
            continue;
        }
        let mut image = base.image.clone();
        image.write(&last, 0, &header);
        let disk = SimDisk::untracked(image, 1);
        for read_only in [true, false] {
            let error = base::options(&disk).read_only(read_only).open(anatomy::STORE).expect_err("a damaged header");
            assert!(error.is_corruption(), "{error}");
        }
    }
}
