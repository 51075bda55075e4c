//! Which checkpoint counts: header slots, journal, meta data. The counterpart of the first steps of an open
//! (recovery/open.rs), which changes nothing and reports what an open puts up with.
//!
//! A journal that is complete for the generation after the header's counts as if it had been applied. A block
//! that an interrupted write can have left (a header slot or a journal head, all of whose constant bytes are
//! right) is no finding as long as the rest explains it.

use std::collections::BTreeMap;
use std::path::Path;

use super::kind;
use super::sink::{Input, Sink};
use crate::checkpoint::header::{FIRST_META_PAGE, Headers, IndexHeader, read_headers};
use crate::checkpoint::journal::{Journal, JournalHead};
use crate::checkpoint::meta::{META_PAGES, Meta};
use crate::error::{Location, Result};
use crate::layout::{COMPACTING, index_path, journal_path};
use crate::sys::{Disk, PAGE_BYTES};
use crate::table::page::{PageImage, image};

/// The page size as files count.
pub(super) const PAGE: u64 = PAGE_BYTES as u64;

/// The pages that count, by number.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) index: Input,
    /// The journal, and where in it the images of a checkpoint stand that was not applied yet.
    journal: Option<Input>,
    images: BTreeMap<u64, u64>,
}

impl Pages {
    /// Reads one page. What does not exist is zeroes.
    pub(super) fn read(&self, number: u64, sink: &mut Sink<'_>) -> Result<PageImage> {
        let mut page = Box::new([0; PAGE_BYTES]);
        match (self.images.get(&number), &self.journal) {
            (Some(&offset), Some(journal)) => journal.read(&mut page[..], offset, sink)?,
            _ => self.index.read(&mut page[..], number.saturating_mul(PAGE), sink)?,
        }
        Ok(page)
    }

    /// Reads pages that follow one another.
    pub(super) fn read_run(&self, first: u64, pages: &mut [[u8; PAGE_BYTES]], sink: &mut Sink<'_>) -> Result<()> {
        self.index.read(pages.as_flattened_mut(), first.saturating_mul(PAGE), sink)?;
        let Some(journal) = &self.journal else { return Ok(()) };
        if self.images.is_empty() {
            return Ok(());
        }
        for (number, page) in (first..).zip(pages) {
            if let Some(&offset) = self.images.get(&number) {
                journal.read(page, offset, sink)?;
            }
        }
        Ok(())
    }

    /// The first page at or after `number` that can be anything but zeroes.
    pub(super) fn next_data(&self, number: u64) -> Option<u64> {
        let in_file = match self.index.file.next_data(number.saturating_mul(PAGE)) {
            Ok(data) => data.map(|offset| (offset / PAGE).max(number)),
            Err(_) => Some(number),
        };
        let in_journal = self.images.range(number..).next().map(|(&number, _)| number);
        in_file.filter(|&page| page < self.end()).into_iter().chain(in_journal).min()
    }

    /// The first page that is neither in the file nor in the journal, and after which there is none.
    pub(super) fn end(&self) -> u64 {
        let in_journal = self.images.last_key_value().map_or(0, |(&number, _)| number.saturating_add(1));
        self.index.len.div_ceil(PAGE).max(in_journal)
    }

    /// True if a checkpoint in the journal is still to be applied.
    pub(super) fn is_pending(&self) -> bool {
        self.journal.is_some()
    }
}

/// The checkpoint that counts.
#[derive(Debug)]
pub(super) struct State {
    pub(super) header: IndexHeader,
    pub(super) meta: Meta,
    pub(super) pages: Pages,
}

impl State {
    /// Finds the checkpoint; `None` if it is too damaged to go on, which is then a finding.
    pub(super) fn find(
        disk: &dyn Disk,
        store: &Path,
        index: Input,
        headers: &Headers,
        sink: &mut Sink<'_>,
    ) -> Result<Option<State>> {
        let mut header = headers.newest;
        let journal = open_journal(disk, store, header, sink)?;
        let head = match &journal {
            Some(journal) => {
                sink.advance(PAGE)?;
                journal.head().unwrap_or_else(|error| {
                    sink.error(kind::JOURNAL, error);
                    None
                })
            }
            None => None,
        };
        if let (Some(journal), None) = (&journal, head) {
            check_torn_head(journal, sink);
        }
        let mut pages = Pages { index, journal: None, images: BTreeMap::new() };
        if let (Some(journal), Some(head)) = (&journal, head) {
            check_head(journal, header, head, switching_to(disk, store, header)?, sink);
            let next = head.generation == header.generation.saturating_add(1);
            if next && load_images(journal, head, &mut pages, sink)? {
                header = IndexHeader { generation: head.generation, cut: head.cut, clean: false, ..header };
            }
        }
        if headers.other_invalid {
            let explained = pages.is_pending() || head.is_some_and(|head| head.generation == header.generation);
            check_invalid_slot(&pages.index, headers.newest, explained, sink)?;
            header.clean = false;
        }
        sink.report.generation = header.generation;
        sink.report.journal_pending = pages.is_pending();

        let path = pages.index.path.clone();
        let meta = Meta::decode(&path, header.uuid, header.generation, |number| pages.read(number, sink));
        match meta {
            Ok(meta) => {
                if let (true, Some(head), Some(journal)) = (pages.is_pending(), head, &journal) {
                    check_content(journal, head, &pages, &meta, sink);
                }
                Ok(Some(State { header, meta, pages }))
            }
            Err(error @ crate::Error::Aborted { .. }) => Err(error),
            Err(error) => {
                sink.error(kind::META, error);
                Ok(None)
            }
        }
    }
}

fn open_journal(disk: &dyn Disk, store: &Path, header: IndexHeader, sink: &mut Sink<'_>) -> Result<Option<Journal>> {
    let path = journal_path(store);
    match Input::open(disk, &path)? {
        Ok(input) => Ok(Some(Journal { file: input.file, path, uuid: header.uuid })),
        Err(error) => {
            sink.damage(kind::JOURNAL_MISSING, Location::file(&path), "the growth journal", error);
            Ok(None)
        }
    }
}

/// The generation of an index that an offline compaction was about to switch in: its journal comes first.
fn switching_to(disk: &dyn Disk, store: &Path, header: IndexHeader) -> Result<Option<u64>> {
    let path = index_path(&store.join(COMPACTING));
    let Ok(input) = Input::open(disk, &path)? else { return Ok(None) };
    let Ok(headers) = read_headers(&*input.file, &path, false) else { return Ok(None) };
    Ok((headers.newest.uuid == header.uuid).then_some(headers.newest.generation))
}

/// The journal must be of the header's generation or the next one, or of the one that is being switched to.
fn check_head(
    journal: &Journal,
    header: IndexHeader,
    head: JournalHead,
    switching_to: Option<u64>,
    sink: &mut Sink<'_>,
) {
    let location = || Location::at(&journal.path, 32);
    let possible = header.generation..=header.generation.saturating_add(1);
    if !possible.contains(&head.generation) {
        if switching_to == Some(head.generation) {
            sink.report.torn_blocks += 1;
            return;
        }
        let expected = format!("generation {} or {}", possible.start(), possible.end());
        sink.damage(kind::JOURNAL, location(), expected, format!("generation {}", head.generation));
    } else if head.generation == header.generation && head.cut != header.cut {
        let (expected, found) = (format!("cut at {:?}", header.cut), format!("cut at {:?}", head.cut));
        sink.damage(kind::JOURNAL, location(), expected, found);
    }
}

/// A head that does not validate: what an interrupted write can have left, or damage?
fn check_torn_head(journal: &Journal, sink: &mut Sink<'_>) {
    match journal.is_torn_head() {
        Ok(true) => sink.report.torn_blocks += 1,
        Ok(false) => sink.damage(kind::JOURNAL, Location::at(&journal.path, 0), "the head of a journal", "other bytes"),
        Err(error) => sink.error(kind::JOURNAL, error),
    }
}

/// Notes where the images of a complete journal stand. False if it is not complete: then it was being written
/// when the process died, and the header's generation stands.
fn load_images(journal: &Journal, head: JournalHead, pages: &mut Pages, sink: &mut Sink<'_>) -> Result<bool> {
    let complete = journal.is_complete(head).and_then(|complete| {
        let mut offset = PAGE;
        if complete {
            journal.for_each_run(head, |images| {
                for page in images {
                    pages.images.insert(image::number(page), offset);
                    offset += PAGE;
                }
                Ok(true)
            })?;
        }
        Ok(complete)
    });
    match complete {
        Ok(true) => {
            let len = journal.file.len().unwrap_or(0);
            pages.journal = Some(Input { file: journal.file.clone(), path: journal.path.clone(), len });
            sink.advance(2 * head.images * PAGE)?;
        }
        Ok(false) => sink.report.torn_blocks += 1,
        Err(error) => {
            pages.images.clear();
            sink.error(kind::JOURNAL, error);
        }
    }
    Ok(pages.is_pending())
}

/// A pending journal's pages must be pages of the index, and its growth word that of the meta data.
fn check_content(journal: &Journal, head: JournalHead, pages: &Pages, meta: &Meta, sink: &mut Sink<'_>) {
    let possible = FIRST_META_PAGE..meta.end_page.max(FIRST_META_PAGE + META_PAGES);
    let outside = pages.images.iter().find(|(number, _)| !possible.contains(number));
    if let Some((number, &offset)) = outside {
        let expected = format!("pages from {} up to {}", possible.start, possible.end);
        sink.damage(kind::JOURNAL_CONTENT, Location::at(&journal.path, offset), expected, format!("page {number}"));
    }
    if head.growth != meta.main().growth.word() {
        let (expected, found) = (format!("{:#x}", meta.main().growth.word()), format!("{:#x}", head.growth));
        sink.damage(kind::JOURNAL_CONTENT, Location::at(&journal.path, 56), format!("growth word {expected}"), found);
    }
}

/// The header slot that is not valid: torn by the write that came last, or damaged.
fn check_invalid_slot(index: &Input, newest: IndexHeader, explained: bool, sink: &mut Sink<'_>) -> Result<()> {
    let slot = (newest.serial + 1) % 2;
    let mut page = [0; PAGE_BYTES];
    index.read(&mut page, slot * PAGE, sink)?;
    if explained && newest.can_be_torn(&page) {
        sink.report.torn_blocks += 1;
        return Ok(());
    }
    let (expected, found) = match IndexHeader::decode(&index.path, slot, &page, false) {
        Err(crate::Error::Corrupt { expected, found, .. }) => (expected, found),
        Err(error) => ("a header".to_string(), error.to_string()),
        Ok(_) => ("an invalid slot".to_string(), "a valid one".to_string()),
    };
    sink.damage(kind::HEADER, Location::page(&index.path, slot), expected, found);
    Ok(())
}
