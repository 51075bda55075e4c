//! What the corruption layer has found: a number in a file, with a right checksum, that was believed.

use tophash_rig::corruption::anatomy::{self, PAGE_HEADER, STORE, put, seal_at, word};
use tophash_rig::corruption::base::{self, Base};
use tophash_rig::disk::SimDisk;
use tophash_rig::image::{Image, PAGE};

fn base(name: &str) -> Base {
    base::all().into_iter().find(|base| base.name == name).expect("a base of that name")
}

/// Both opens are refused for damage, verify tells of it or says why it cannot, and nothing of it is a panic.
#[track_caller]
fn refused(image: &Image) {
    let disk = SimDisk::untracked(image.clone(), 1);
    for read_only in [true, false] {
        let error = base::options(&disk).read_only(read_only).open(STORE).expect_err("a hostile store");
        assert!(error.is_corruption(), "{error}");
    }
    assert_eq!(disk.cached().hash(), image.hash(), "a refused open changed something");
    let report = tophash::verify::verify_disk(&disk, STORE, tophash::Progress::ignore);
    assert!(!report.is_ok_and(|report| report.is_clean()));
}

/// A journal of zeroes, as a write leaves it of which nothing has arrived.
fn without_journal(image: &mut Image) {
    let bytes = image.len("journal") as usize;
    image.write("journal", 0, &vec![0; bytes]);
}

/// Where in the stream of the meta data the main table begins, and where its extents are listed.
const MAIN: usize = 104;
const EXTENTS: usize = MAIN + 40;

/// Where in the stream the segments are listed: behind all tables.
fn segments_at(page: &[u8]) -> usize {
    (0..word(page, PAGE_HEADER + 64)).fold(MAIN, |at, _| {
        let counts = word(page, PAGE_HEADER + at + 32);
        at + 40 + 8 * ((counts & 0xffff_ffff) + (counts >> 32)) as usize
    })
}

fn edit_meta(base: &Base, image: &mut Image, at: usize, value: u64) {
    let mut page = image.page(2);
    put(&mut page, PAGE_HEADER + at, value);
    image.put_page(base.anatomy.uuid, 2, page);
}

/// The next serial or generation was computed with a plain addition.
#[test]
fn a_header_whose_numbers_cannot_be_counted_on() {
    for (at, value) in [(56, u64::MAX), (64, u64::MAX), (64, (1 << 62) + 1)] {
        let base = base("closed");
        let mut image = base.image.clone();
        for slot in 0..2 {
            let mut page = image.page(slot);
            // A serial has its slot.
            let value = if at == 56 { value - (1 - slot) } else { value };
            put(&mut page, at, value);
            seal_at(&mut page, 16);
            image.write("index", slot * PAGE as u64, &page);
        }
        refused(&image);
    }
}

/// The header's cut says where the log goes on, and the meta data where its last segment ends, and nobody compared the
/// two. With an earlier cut the log went on in the middle of its segments, and the next checkpoint named a cut that was
/// the end of none. Now such a checkpoint is not believed.
#[test]
fn a_cut_that_is_not_the_end_of_the_last_segment() {
    for base in base::all() {
        let mut image = base.image.clone();
        let page = image.page(2);
        let entry = PAGE_HEADER + segments_at(&page);
        let first = word(&page, entry) << 32 | word(&page, entry + 24);
        for slot in 0..2 {
            let mut page = image.page(slot);
            put(&mut page, 72, first & (u64::from(u32::MAX) << 32 | 0xffff_fff8));
            seal_at(&mut page, 16);
            image.write("index", slot * PAGE as u64, &page);
        }
        // A complete journal says it once more.
        without_journal(&mut image);
        refused(&image);
    }
}

/// A journal whose head is torn is reset before the header is written again. That came before the meta data was
/// read: an open that was refused for what it says had written into the store by then, and had thrown away what
/// might have told what happened to it.
#[test]
fn a_refused_open_leaves_the_journal_alone() {
    let base = base("closed");
    for what in ["a number that cannot be", "a flipped bit"] {
        let mut image = base.image.clone();
        without_journal(&mut image);
        let whole = SimDisk::untracked(image.clone(), 1);
        drop(base::options(&whole).open(STORE).expect("a torn journal is no damage"));
        assert!(whole.cached().contents("journal") != image.contents("journal"), "this open resets it");

        if what == "a flipped bit" {
            let mut page = image.page(2);
            page[PAGE_HEADER + 16] ^= 1;
            image.write("index", 2 * PAGE as u64, &page);
        } else {
            edit_meta(&base, &mut image, 8, 1 << 47);
        }
        let disk = SimDisk::untracked(image.clone(), 1);
        let error = base::options(&disk).open(STORE).expect_err(what);
        assert!(error.is_corruption(), "{what}: {error}");
        assert!(disk.cached().contents("journal") == image.contents("journal"), "{what}: the journal was written");
        assert_eq!(disk.cached().hash(), image.hash(), "{what}: a refused open changed something");
    }
}

/// A table that was said to hold 2^47 records was grown for them by the next batch: 2 GiB at once, and more to
/// come. An end page far behind the extents made the next extent begin there.
#[test]
fn numbers_of_the_meta_data_that_memory_and_disk_would_pay_for() {
    let base = base("closed");
    let end = word(&base.image.page(2), PAGE_HEADER + 8);
    let blobs = [(32, u64::MAX), (40, 1 << 48), (48, u64::MAX)];
    let records = MAIN + 16;
    for (at, value) in [(records, 1 << 47), (records, 100_000), (8, end + 1), (8, 1 << 47)].into_iter().chain(blobs) {
        let mut image = base.image.clone();
        edit_meta(&base, &mut image, at, value);
        refused(&image);
    }
}

/// Two extents over the same pages: a checkpoint would have written a page twice.
#[test]
fn extents_that_overlap() {
    let base = base("closed");
    let page = base.image.page(2);
    let extents = word(&page, PAGE_HEADER + MAIN + 32) as u32;
    assert!(extents > 2);
    let second = word(&page, PAGE_HEADER + EXTENTS + 8);
    let mut image = base.image.clone();
    edit_meta(&base, &mut image, EXTENTS, second);
    refused(&image);
}

/// Dead bytes beyond the size of the segment overflowed the sums of the statistics.
#[test]
fn more_dead_bytes_than_there_are() {
    let base = base("killed");
    let page = base.image.page(2);
    let mut image = base.image.clone();
    for field in [32, 40] {
        edit_meta(&base, &mut image, segments_at(&page) + field, u64::MAX);
    }
    let disk = SimDisk::untracked(image, 1);
    let store = base::options(&disk).open(STORE).expect("only housekeeping is wrong");
    let log = store.stats().log;
    assert!(log.dead_bytes <= log.bytes && log.removal_bytes <= log.bytes, "{log:?}");
    for (key, value) in base.present() {
        assert_eq!(store.get(key).expect("a whole record").as_deref(), Some(&value[..]));
    }
}

/// A segment was cut to its end, whatever stood behind that. With an end that damaged meta data told too early, these were
/// records, which a repair would have saved.
#[test]
fn bytes_behind_the_end_of_a_segment() {
    let base = base("killed");
    let name = "log-1/00000001.log";
    let mut image = base.image.clone();
    image.write(name, PAGE as u64, b"records, perhaps");
    let disk = SimDisk::untracked(image.clone(), 1);
    let store = base::options(&disk).open(STORE).expect("nothing names these bytes");
    for key in 0..40u32 {
        store.insert(key.to_le_bytes(), [7; 300]).expect("room");
        let now = disk.cached();
        // Until compaction frees it.
        assert!(now.len(name) == 0 || now.contents(name) == image.contents(name), "{} bytes", now.len(name));
    }
}

/// verify shifted a hash by the split base of a page that it had just found wrong.
#[test]
fn a_split_base_that_no_hash_has() {
    let base = base("closed");
    for split_base in [64, 255] {
        let mut image = base.image.clone();
        for &number in &base.anatomy.primary {
            let mut page = image.page(number);
            page[25] = split_base;
            image.put_page(base.anatomy.uuid, number, page);
        }
        let disk = SimDisk::untracked(image, 1);
        let report = tophash::verify::verify_disk(&disk, STORE, tophash::Progress::ignore).expect("a report");
        assert!(report.findings.iter().any(|finding| finding.kind == "page-split-base"), "{:#?}", report.findings);
    }
}

/// A complete journal was carried out before anybody looked at where its images belong: the index became a file of
/// many gigabytes.
#[test]
fn a_journal_with_an_image_behind_the_end() {
    let base = base("interrupted");
    let mut image = base.image.clone();
    let last = base.anatomy.images;
    let mut page = image.read("journal", last * PAGE as u64, PAGE);
    put(&mut page, 8, 1 << 40);
    anatomy::seal_page(base.anatomy.uuid, 1 << 40, &mut page);
    image.write("journal", last * PAGE as u64, &page);
    let mut checksum = crc32fast::Hasher::new();
    (1..=last).for_each(|n| checksum.update(&image.read("journal", n * PAGE as u64, 4)));
    checksum.update(&image.read("journal", 0, PAGE));
    let mut trailer = image.read("journal", (last + 1) * PAGE as u64, PAGE);
    put(&mut trailer, 48, checksum.finalize().into());
    seal_at(&mut trailer, 12);
    image.write("journal", (last + 1) * PAGE as u64, &trailer);
    refused(&image);
}
