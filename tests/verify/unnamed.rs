//! Records that the index should name and does not, and names that it should not have.
//!
//! A recovery by several threads left a quarter of the tail's records out of the index, and kept keys whose removal
//! it left out. The next checkpoint made that permanent, and the check found nothing: it went from slots to records,
//! and never from records to slots, and the counters of the index agreed with its slots.

use crate::support::*;

/// Takes the slot of a record away, and puts every counter right: nothing but the log knows better.
fn forget(files: &Files, record: &Record) {
    let (number, slot) = files.slot_of(record.address).expect("a slot");
    files.edit_page(number, |page| {
        put(page, 64 + 8 * slot as usize, 1);
        page[32] -= 1;
        page[34] += 1;
    });
    let slot = (record.address >> 27) as u32;
    let at = files.meta().segments.iter().find(|entry| entry.slot == slot).unwrap().at;
    let count = files.meta().at + RECORDS;
    files.edit_page(2, |page| {
        let records = word(page, count);
        put(page, count, records - 1);
        let dead = word(page, at + 32);
        put(page, at + 32, dead + (record.len as u64).next_multiple_of(8));
    });
}

/// A store without growth under way: its counters stand in one meta page.
fn store(path: &std::path::Path) {
    let store = options().open(path).unwrap();
    for i in 0..300u32 {
        store.insert(i.to_le_bytes(), vec![7; (i % 50) as usize]).unwrap();
        store.insert((i / 2).to_le_bytes(), b"again").unwrap();
    }
    (0..300u32).step_by(5).for_each(|i| _ = store.remove(i.to_le_bytes()).unwrap());
    store.close().unwrap();
}

fn is_live(files: &Files, record: &Record) -> bool {
    record.kind == 1 && files.slot_of(record.address).is_some()
}

#[test]
fn a_live_record_that_no_slot_names_is_found() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    store(&path);
    verify_clean(&path);
    let files = Files::new(&path);
    // Of a key that was written once, and of one that was written twice.
    let live: Vec<_> = files.all_records().into_iter().filter(|record| is_live(&files, record)).collect();
    let chosen = [&live[3], &live[live.len() / 2], &live[live.len() - 1]];
    for record in chosen {
        forget(&files, record);
    }
    let report = verify(&path);
    assert!(!report.is_clean());
    let found: Vec<_> = report.findings.iter().filter(|finding| finding.kind == "record-unnamed").collect();
    assert_eq!((found.len(), report.findings_total), (3, 3), "{:#?}", report.findings);
    for record in chosen {
        let finding = found.iter().find(|f| f.offset == Some(record.at) && *f.path == *record.file.to_string_lossy());
        let finding = finding.unwrap_or_else(|| panic!("{record:?} is not in {found:#?}"));
        assert!(finding.expected.contains(&*record.key.escape_ascii().to_string()), "{finding:?}");
        assert!(finding.found.contains("repair"), "{finding:?}");
    }
    // And repair has them all.
    let repaired = tophash::repair::repair(&path, dir.path().join("new")).unwrap();
    assert_eq!((repaired.keys, repaired.losses_total), (live.len() as u64, 0));
}

#[test]
fn a_slot_that_names_a_removed_record_is_found() {
    let dir = crate::common::scratch();
    for clear in [false, true] {
        let path = dir.path().join(clear.to_string());
        let store = options().open(&path).unwrap();
        (0..20u32).for_each(|i| _ = store.insert(i.to_le_bytes(), b"v").unwrap());
        store.close().unwrap();
        let index = std::fs::read(path.join("index")).unwrap();
        let store = options().open(&path).unwrap();
        if clear {
            store.clear().unwrap();
        } else {
            store.remove(3u32.to_le_bytes()).unwrap();
        }
        store.close().unwrap();
        verify_clean(&path);
        // The pages of before the change, and the counters that go with them.
        let files = Files::new(&path);
        let meta = files.meta();
        for number in (0..meta.pages()).map(|page| meta.primary_page(page)) {
            let mut old = index[number as usize * PAGE..(number as usize + 1) * PAGE].to_vec();
            if old[4..8] == *b"BKT1" {
                files.write_page(number, &mut old);
            }
        }
        let bitmap = meta.primary[0];
        let mut old = index[bitmap as usize * PAGE..(bitmap as usize + 1) * PAGE].to_vec();
        files.write_page(bitmap, &mut old);
        files.edit_page(2, |page| {
            put(page, meta.at + RECORDS, 20);
            for entry in &meta.segments {
                let dead = word(page, entry.at + 32);
                put(page, entry.at + 32, dead.saturating_sub(if clear { 20 * 16 } else { 16 }));
            }
        });
        let report = verify(&path);
        let found = report.findings.iter().filter(|finding| finding.kind == "record-removed").count();
        assert_eq!(found, if clear { 20 } else { 1 }, "clear: {clear}, {:#?}", report.findings);
    }
}

#[test]
fn damage_that_can_hide_a_later_record_is_no_reason_to_call_one_unnamed() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    store(&path);
    let files = Files::new(&path);
    let records = files.all_records();
    let remove = records.iter().rfind(|record| record.kind == 2).unwrap();
    files.damage(&remove.file, remove.at + 8, &[0x77]);
    let report = verify(&path);
    assert!(report.findings.iter().all(|finding| finding.kind != "record-unnamed"), "{:#?}", report.findings);
}
