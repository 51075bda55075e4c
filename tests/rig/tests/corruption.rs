//! The corruption layer. See `tophash_rig::corruption`.
//!
//! `TOPHASH_TEST_CASE` names the only case to run, with `TOPHASH_TEST_SEED` and the same scale.

#[allow(dead_code, reason = "another test is refused memory")]
#[path = "../../common/allocator.rs"]
mod allocator;

use std::time::Instant;

use allocator::Counting;
use tophash_rig::corruption::anatomy::Parts;
use tophash_rig::corruption::exercise::{Effort, exercise};
use tophash_rig::corruption::run::{Meter, Settings, run};
use tophash_rig::corruption::{Licence, anatomy, base, mutants};
use tophash_rig::disk::SimDisk;
use tophash_rig::random::{Random, mix};
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
        Settings { flips: 6 * unit, cuts: 2 * unit, mutants: 10 * unit, seed, threads: 2, memory_bytes: 48 << 20 };
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

/// An open refuses what the catalog's records in the tail cannot say: another id for a table whose records follow, a drop of
/// what is no name. `verify` passed both, because it followed the tail by rules of its own. Random bytes met it in 7 of
/// 280,000 cases; here is each byte of each record of the catalog and of each other record's header, under a checksum that is right.
/// (A debug build is for a look: it tries one in a few.)
#[test]
fn verify_tells_of_each_record_that_an_open_refuses() {
    let bases = base::all();
    let base = bases.iter().find(|base| base.name == "tables").expect("a store with tables");
    let (mut opened, mut refused, mut told) = (0, 0, Vec::new());
    let (mut case, steps) = (0, if scale() >= 10 { (1, 1) } else { (4, 31) });
    // A record that says something else does so with the right of its checksum.
    let licence = Licence { absent: true, stale: true, anything: true, ..Licence::default() };
    for record in &base.anatomy.records {
        let segment = &base.anatomy.segments[record.segment];
        let whole = base.image.read(&segment.name, record.at, record.len);
        let Parts { key, value, .. } = anatomy::parts(&whole, record.at);
        // The bytes of a user's key and value are his own.
        let is_of_the_catalog = whole[4] & 0x10 != 0 && whole[8..12] == [1, 0, 0, 0];
        let (end, step) = if is_of_the_catalog { (value.end, steps.0) } else { (key.start, steps.1) };
        for (at, &right) in whole.iter().enumerate().take(end).skip(4) {
            for wrong in [right ^ 1, right ^ 2, right ^ 0x10, right ^ 0x80, 0, 3, 0xff] {
                case += 1;
                if wrong == right || case % step != 0 {
                    continue;
                }
                let mut image = base.image.clone();
                image.write(&segment.name, record.at + at as u64, &[wrong]);
                base.anatomy.reseal(&mut image, &segment.name, record.at);
                let effort = Effort { change: false, repair: case % 3 == 0, reopen: false };
                match exercise(base, &image, &licence, effort) {
                    Ok(outcome) => *(if outcome.opened { &mut opened } else { &mut refused }) += 1,
                    Err(error) => told.push(format!(
                        "{} at {}: byte {at}: {right:#x} -> {wrong:#x}: {error}",
                        segment.name, record.at
                    )),
                }
            }
        }
    }
    assert!(told.is_empty(), "{} violations\n{}", told.len(), told.join("\n"));
    println!("{opened} opened, {refused} refused");
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}

/// A bitmap said that a page is not in use, and the page had no entry, but a link to an overflow page. A read-only open that
/// replayed a change of it followed the link and refused the store, and `verify` looked at the entries alone. Random damage met it
/// in 1 of 260,000 cases. (An open for writing does not look at what stands where nothing is in use.)
#[test]
fn a_link_of_a_page_that_is_not_in_use_is_told() {
    let bases = base::all();
    let licence = Licence { absent: true, stale: true, anything: true, ..Licence::default() };
    let effort = Effort { change: true, repair: true, reopen: false };
    let mut looked_at = 0;
    for base in &bases {
        let is_empty = |&&number: &&u64| base.image.page(number)[anatomy::PAGE_HEADER..].iter().all(|&byte| byte == 0);
        for &number in base.anatomy.primary.iter().filter(is_empty) {
            let mut image = base.image.clone();
            // The bitmap page of its extent.
            let bitmap =
                base.anatomy.bitmaps.iter().copied().filter(|&bitmap| bitmap < number).max().expect("a bitmap");
            let mut page = image.page(bitmap);
            page[anatomy::PAGE_HEADER..].fill(0);
            image.put_page(base.anatomy.uuid, bitmap, page);
            let mut page = image.page(number);
            anatomy::put(&mut page, 40, 1);
            image.put_page(base.anatomy.uuid, number, page);
            let outcome = exercise(base, &image, &licence, effort);
            let outcome = outcome.unwrap_or_else(|e| panic!("{}, page {number}: {e}", base.name));
            assert!(!outcome.harmless, "{}, page {number}: verify says nothing", base.name);
            looked_at += 1;
        }
    }
    assert!(looked_at > 0, "some page must have no entry");
}

/// The layer above does a great deal with each damaged store. What `verify` passes and an open refuses is rarer than that: two kinds
/// in 260,000 cases. Here each store is only looked at, twice, so that there are many more of them.
#[test]
fn verify_passes_nothing_that_an_open_refuses() {
    let (seed, bases) = (seed(), base::all());
    let cases = if scale() >= 10 { 400_000 } else { 1_000 };
    let (mut clean, mut told) = (0, Vec::new());
    for case in 0..cases {
        let base = &bases[case as usize % bases.len()];
        let mut image = base.image.clone();
        let (what, _) = mutants::mutate(&base.anatomy, &mut image, &mut Random::new(seed ^ mix(case)));
        let disk = SimDisk::untracked(image, 1);
        let report = tophash::verify::verify_disk(&disk, anatomy::STORE, tophash::Progress::ignore);
        if !report.is_ok_and(|report| report.is_clean()) {
            continue;
        }
        clean += 1;
        if let Err(error) = base::options(&disk).read_only(true).open(anatomy::STORE) {
            told.push(format!("case {case}, {}: {what}: {error}", base.name));
        }
    }
    println!("looks: {cases} stores, {clean} clean, seed {seed}");
    assert!(told.is_empty(), "TOPHASH_TEST_SEED={seed}: {} violations\n{}", told.len(), told.join("\n"));
    assert!(clean > 0, "nothing was tested");
}
