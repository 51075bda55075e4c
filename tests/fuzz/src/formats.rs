//! Texts to import: records or an error, and what was read is written and read again.

use crate::format::{Format, ReadError, ReadOptions, Record, Select, WriteOptions, reader, writer};

/// A text in one of the formats.
///
/// # Panics
/// If something is wrong with a reader or writer.
pub fn formats(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let format = [Format::Jsonl, Format::Tsv, Format::Dump][choice as usize % 3];
    let last_wins = choice & 64 != 0;
    let options = ReadOptions { line_bytes_max: 4096, select: Select::All, one_table: choice & 32 != 0, last_wins };
    // A bad line can be skipped: all of them are looked at.
    let (mut input, mut record, mut records) = (reader(format, text, &options), Record::default(), Vec::new());
    for _ in 0..=text.len() {
        match input.next(&mut record) {
            // A table without records is none of what is compared.
            Ok(true) => records.extend(Some(record.clone()).filter(|record| !record.only_table)),
            Ok(false) => break,
            Err(ReadError::Bad { reason, .. }) if reason.is_skippable() => {}
            Err(_) => break,
        }
    }
    assert!(input.line() <= text.len() as u64 + 1);
    let mut again = Vec::new();
    let print = choice & 128 != 0;
    let mut output = writer(format, &mut again, &WriteOptions { print, ..WriteOptions::default() });
    // A dump has each table once.
    records.sort_by(|one, other| one.table.cmp(&other.table));
    if records.is_empty() {
        output.begin_table(None).expect("memory");
    }
    for of_table in records.chunk_by(|one, other| one.table == other.table) {
        output.begin_table(of_table[0].table.as_deref()).expect("memory");
        of_table.iter().for_each(|record| output.write(&record.key, &record.value, record.expires_ms).expect("memory"));
    }
    output.finish().expect("memory");
    drop(output);
    let options = ReadOptions { line_bytes_max: 1 << 20, last_wins: true, ..options };
    let mut input = reader(format, &again[..], &options);
    let mut next = || loop {
        match input.next(&mut record) {
            Ok(true) if record.only_table => {}
            Ok(is_there) => return is_there.then(|| record.clone()),
            Err(error) => panic!("what was written cannot be read: {error:?}"),
        }
    };
    for expected in &records {
        assert_eq!(next().as_ref(), Some(expected));
    }
    assert_eq!(next(), None);
}
