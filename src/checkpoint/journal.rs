//! The growth journal: images of the pages that a checkpoint is about to overwrite in place, and the growth
//! state that goes with them.
//!
//! ```text
//! block 0        head:    magic "tophJNL1" | version 32, crc32 | uuid | generation | cut | images | growth word
//! block 1..=n    images, in the order of their page numbers, sealed with the generation
//! block n + 1    trailer: magic "tophJEND" | zero 32, crc32 | uuid | generation | images | crc32 over the images' checksums
//!                and the head block
//! ```
//!
//! The growth word of the head is for people; recovery takes the one of the meta pages.
//!
//! The journal is **complete** for a generation if head and trailer validate and agree and every image
//! validates with that very generation. The images of earlier checkpoints that stand behind or between never
//! do, because their generation is another one. A checkpoint that a crash has interrupted is followed by one of
//! the same generation, so images and trailer of the two can stand beside each other: the trailer belongs to one
//! set of images and to one head.
//!
//! The file's blocks are allocated before a page may become dirty, so writing it cannot run out of space.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::header::FIRST_META_PAGE;
use crate::address::Lsn;
use crate::checksum::{Uuid, crc32};
use crate::error::{Error, IoContext, Location, Result};
use crate::mutant::{Mutant, broken};
use crate::sys::memory::reserved;
use crate::sys::{DiskFile, PAGE_BYTES, Paced, read_up_to, write_all_at};
use crate::table::page::image;

pub(crate) const HEAD_MAGIC: [u8; 8] = *b"tophJNL1";
const TRAILER_MAGIC: [u8; 8] = *b"tophJEND";
const VERSION: u32 = 1;
const BLOCK: u64 = PAGE_BYTES as u64;
/// No page number of an index file is this large.
const PAGES_MAX: u64 = 1 << 48;
/// Blocks besides the images.
const EXTRA_BLOCKS: u64 = 2;
/// Bytes written or read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Memory for what is written or read at a time. A checkpoint finds it before its cut, because a lack of memory must not be
/// met later.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// # Errors
    /// `OutOfMemory`.
    pub(crate) fn new() -> io::Result<Self> {
        reserved(BUFFER_BYTES + PAGE_BYTES).map(Buffer)
    }
}

/// What the head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JournalHead {
    pub(crate) generation: u64,
    pub(crate) cut: Lsn,
    pub(crate) images: u64,
    pub(crate) growth: u64,
}

/// The journal file.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) uuid: Uuid,
}

/// Writes the images of one checkpoint.
#[derive(Debug)]
pub(crate) struct JournalWriter<'j> {
    journal: &'j Journal,
    generation: u64,
    buffer: &'j mut Vec<u8>,
    /// Block at which the buffer will be written.
    at: u64,
    images: u64,
    /// Number of the image added last.
    previous: Option<u64>,
    checksum: crc32fast::Hasher,
    paced: Paced<'j>,
}

fn encode_head(uuid: Uuid, head: JournalHead) -> [u8; PAGE_BYTES] {
    let mut block = [0; PAGE_BYTES];
    block[..8].copy_from_slice(&HEAD_MAGIC);
    block[8..12].copy_from_slice(&VERSION.to_le_bytes());
    block[16..32].copy_from_slice(&uuid.0);
    let words = [head.generation, head.cut.raw(), head.images, head.growth];
    for (bytes, word) in block[32..].chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block
}

fn encode_trailer(uuid: Uuid, generation: u64, images: u64, checksum: u32) -> [u8; PAGE_BYTES] {
    let mut block = [0; PAGE_BYTES];
    block[..8].copy_from_slice(&TRAILER_MAGIC);
    block[16..32].copy_from_slice(&uuid.0);
    let words = [generation, images, u64::from(checksum)];
    for (bytes, word) in block[32..].chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block
}

fn decode_head(uuid: Uuid, block: &[u8; PAGE_BYTES]) -> Option<JournalHead> {
    let [generation, cut, images, growth]: [u64; 4] = bytemuck::pod_read_unaligned(&block[32..64]);
    let head = JournalHead { generation, cut: Lsn::from_raw(cut), images, growth };
    (encode_head(uuid, head) == *block).then_some(head)
}

impl Journal {
    /// How many images the file's length has room for. Not all of its blocks need be allocated.
    pub(crate) fn capacity(&self) -> Result<u64> {
        let blocks = self.file.len().context("look at", &self.path)? / BLOCK;
        Ok(blocks.saturating_sub(EXTRA_BLOCKS))
    }

    /// Allocates blocks for so many images (meta pages included). The new size becomes durable with what is
    /// written there; after a crash the next open allocates again.
    pub(crate) fn allocate(&self, images: u64) -> Result<()> {
        self.file.allocate(0, (images + EXTRA_BLOCKS) * BLOCK).context("allocate blocks of", &self.path)
    }

    /// Gives back what is behind so many images. The journal's generation must be that of a durable header.
    pub(crate) fn shorten(&self, images: u64) -> Result<()> {
        self.file.set_len((images + EXTRA_BLOCKS) * BLOCK).context("shorten", &self.path)
    }

    /// The store that a journal belongs to, if its head validates.
    pub(crate) fn uuid_of(file: &dyn DiskFile) -> Option<Uuid> {
        let mut block = [0; PAGE_BYTES];
        read_up_to(file, &mut block, 0).ok()?;
        let mut uuid = Uuid([0; 16]);
        uuid.0.copy_from_slice(&block[16..32]);
        decode_head(uuid, &block).map(|_| uuid)
    }

    /// The head, if it validates.
    ///
    /// # Errors
    /// `WrongStore` if it is a valid one of another store: that journal must not be overwritten.
    pub(crate) fn head(&self) -> Result<Option<JournalHead>> {
        let mut block = [0; PAGE_BYTES];
        read_up_to(&*self.file, &mut block, 0).context("read", &self.path)?;
        let mut uuid = Uuid([0; 16]);
        uuid.0.copy_from_slice(&block[16..32]);
        if uuid != self.uuid && decode_head(uuid, &block).is_some() {
            let location = Location::at(&self.path, 16);
            return Err(Error::WrongStore { location, expected: self.uuid.to_string(), found: uuid.to_string() });
        }
        Ok(decode_head(self.uuid, &block))
    }

    /// True if a head that does not validate can be a mixture of two heads of this store, which an interrupted
    /// write leaves: all bytes that are the same in every head are right.
    pub(crate) fn is_torn_head(&self) -> Result<bool> {
        let mut block = [0; PAGE_BYTES];
        read_up_to(&*self.file, &mut block, 0).context("read", &self.path)?;
        let none = JournalHead { generation: 0, cut: Lsn::default(), images: 0, growth: 0 };
        let mut expected = encode_head(self.uuid, none);
        for block in [&mut block, &mut expected] {
            // The crc, and the four words.
            block[12..16].fill(0);
            block[32..64].fill(0);
        }
        Ok(block == expected)
    }

    /// Makes it an empty, complete journal of a generation: nothing to redo.
    pub(crate) fn reset(&self, generation: u64, cut: Lsn, growth: u64) -> Result<()> {
        // A trailer and nothing else: the memory of one page.
        self.begin(generation, &mut Buffer(Vec::new())).finish(cut, growth)
    }

    /// Leaves no image in it. It stays complete for its generation, whose header is durable: an open rests on that when it
    /// writes the header again.
    pub(crate) fn empty(&self) -> Result<()> {
        self.head()?.map_or(Ok(()), |head| self.reset(head.generation, head.cut, head.growth))
    }

    /// Begins to write a generation's images. From here on the journal is not complete until
    /// [`JournalWriter::finish`] has returned.
    pub(crate) fn begin<'j>(&'j self, generation: u64, buffer: &'j mut Buffer) -> JournalWriter<'j> {
        let Buffer(buffer) = buffer;
        buffer.clear();
        JournalWriter {
            journal: self,
            generation,
            buffer,
            at: 1,
            images: 0,
            previous: None,
            checksum: crc32fast::Hasher::new(),
            paced: Paced::new(&*self.file),
        }
    }

    /// False if a head names more images than the file can hold: then their number is not one to count with.
    fn has_room_for(&self, head: JournalHead) -> Result<bool> {
        Ok(head.images <= self.capacity()?)
    }

    /// True if the journal holds the generation of `head` complete.
    pub(crate) fn is_complete(&self, head: JournalHead) -> Result<bool> {
        if !self.has_room_for(head)? {
            return Ok(false);
        }
        let mut checksum = crc32fast::Hasher::new();
        let mut valid = true;
        // No image is for a header slot.
        let mut previous = FIRST_META_PAGE - 1;
        self.for_each_run(head, |images| {
            for page in images {
                let number = image::number(page);
                let (found, expected) = image::checksums(page, self.uuid, number);
                valid &= found == expected
                    && image::generation(page) == head.generation
                    && number > previous
                    && number < PAGES_MAX;
                previous = number;
                checksum.update(&found.to_le_bytes());
            }
            Ok(valid)
        })?;
        let mut trailer = [0; PAGE_BYTES];
        read_up_to(&*self.file, &mut trailer, (head.images + 1) * BLOCK).context("read", &self.path)?;
        checksum.update(&encode_head(self.uuid, head));
        let expected = encode_trailer(self.uuid, head.generation, head.images, checksum.finalize());
        Ok(valid && trailer == expected)
    }

    /// True if the first image is whole. Enough after a clean end: what can have gone wrong since is that emptying the
    /// journal failed, which begins there.
    pub(crate) fn is_whole_at_front(&self, head: JournalHead) -> Result<bool> {
        if head.images == 0 {
            return self.is_complete(head);
        }
        if !self.has_room_for(head)? {
            return Ok(false);
        }
        let mut whole = false;
        self.for_each_run(head, |images| {
            whole = images.first().is_some_and(|page| {
                let (found, expected) = image::checksums(page, self.uuid, image::number(page));
                found == expected && image::generation(page) == head.generation
            });
            Ok(false)
        })?;
        Ok(whole)
    }

    /// Calls `each` with the images, many at a time, in order, until it says false.
    ///
    /// # Errors
    /// Those of `each`; `Io` for reading, and if there is no memory.
    pub(crate) fn for_each_run(
        &self,
        head: JournalHead,
        each: impl FnMut(&[[u8; PAGE_BYTES]]) -> Result<bool>,
    ) -> Result<()> {
        let mut buffer = Buffer::new().context("reserve memory for a part of", &self.path)?;
        self.for_each_run_in(&mut buffer, head, each)
    }

    /// The same, in memory that is there.
    pub(crate) fn for_each_run_in(
        &self,
        buffer: &mut Buffer,
        head: JournalHead,
        mut each: impl FnMut(&[[u8; PAGE_BYTES]]) -> Result<bool>,
    ) -> Result<()> {
        let most = BUFFER_BYTES / PAGE_BYTES;
        let Buffer(memory) = buffer;
        memory.resize(head.images.min(most as u64) as usize * PAGE_BYTES, 0);
        let mut block = 1;
        while block <= head.images {
            let blocks = (head.images + 1 - block).min(most as u64);
            let (buffer, _) = memory.split_at_mut(blocks as usize * PAGE_BYTES);
            let filled = read_up_to(&*self.file, buffer, block * BLOCK).context("read", &self.path)?;
            // A file that is too short leaves zeroes, which are no valid image.
            buffer.iter_mut().skip(filled).for_each(|byte| *byte = 0);
            if !each(buffer.as_chunks::<PAGE_BYTES>().0)? {
                return Ok(());
            }
            block += blocks;
        }
        Ok(())
    }

    /// Writes every block of a complete journal again and makes it durable: after a failed fsync it may have
    /// existed in the page cache only.
    pub(crate) fn rewrite(&self, head: JournalHead) -> Result<()> {
        let mut at = BLOCK;
        self.for_each_run(head, |images| {
            let bytes = images.as_flattened();
            write_all_at(&*self.file, bytes, at).context("write", &self.path)?;
            at += bytes.len() as u64;
            Ok(true)
        })?;
        let mut block = [0; PAGE_BYTES];
        for offset in [0, at] {
            read_up_to(&*self.file, &mut block, offset).context("read", &self.path)?;
            write_all_at(&*self.file, &block, offset).context("write", &self.path)?;
        }
        self.file.sync_all().context("sync", &self.path)
    }
}

impl JournalWriter<'_> {
    /// Adds an image: seals it with the generation. Images come in ascending order of their numbers.
    pub(crate) fn push(&mut self, page: &mut [u8; PAGE_BYTES]) -> Result<()> {
        image::seal(page, self.journal.uuid, self.generation);
        let number = image::number(page);
        debug_assert!(
            (FIRST_META_PAGE..PAGES_MAX).contains(&number) && self.previous.is_none_or(|previous| number > previous),
            "page {number} after {:?}: a journal that no recovery accepts",
            self.previous
        );
        self.previous = Some(number);
        self.checksum.update(&page[..4]);
        self.buffer.extend_from_slice(page);
        self.images += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Images added so far.
    pub(crate) fn images(&self) -> u64 {
        self.images
    }

    fn flush(&mut self) -> Result<()> {
        let journal = self.journal;
        write_all_at(&*journal.file, self.buffer, self.at * BLOCK).context("write", &journal.path)?;
        self.at += (self.buffer.len() / PAGE_BYTES) as u64;
        self.paced.wrote(self.buffer.len() as u64).context("sync", &journal.path)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes trailer and head and makes all durable. The journal is complete when this returns.
    pub(crate) fn finish(mut self, cut: Lsn, growth: u64) -> Result<()> {
        let (uuid, generation, images) = (self.journal.uuid, self.generation, self.images);
        let named = JournalHead { generation, cut, images, growth };
        let head = encode_head(uuid, named);
        debug_assert_eq!(decode_head(uuid, &head), Some(named), "a head that no recovery accepts");
        self.checksum.update(&head);
        let checksum = self.checksum.clone().finalize();
        self.buffer.extend_from_slice(&encode_trailer(uuid, generation, images, checksum));
        self.flush()?;
        let Journal { file, path, .. } = self.journal;
        write_all_at(&**file, &head, 0).context("write", path)?;
        if images > 0 && broken(Mutant::JournalNotSynced) {
            return Ok(());
        }
        file.sync_all().context("sync", path)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::layout::journal_path;
    use crate::sys::{Disk, OpenMode, RealDisk};
    use crate::table::page::PageKind;

    fn journal(dir: &Path) -> Journal {
        let path = journal_path(dir);
        let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        let journal = Journal { file, path, uuid: Uuid([4; 16]) };
        journal.allocate(8).unwrap();
        journal
    }

    fn write(journal: &Journal, generation: u64, numbers: &[u64]) {
        let mut buffer = Buffer::new().unwrap();
        let mut writer = journal.begin(generation, &mut buffer);
        for &number in numbers {
            writer.push(&mut image::empty(PageKind::Bucket, number)).unwrap();
        }
        writer.finish(Lsn::new(1, 128), 0).unwrap();
    }

    /// The head of a clean store's journal was believed to name a possible number of images: with the largest number of
    /// all, and a checksum that is right, an open ended in a panic. The corruption layer draws that number in one run of
    /// several.
    #[test]
    fn a_head_that_names_impossibly_many_images_is_neither_complete_nor_whole() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        write(&journal, 2, &[10, 11]);
        let head = journal.head().unwrap().unwrap();
        assert!(journal.is_whole_at_front(head).unwrap());
        for images in [journal.capacity().unwrap() + 1, u64::MAX / 4096, u64::MAX - 1, u64::MAX] {
            let head = JournalHead { images, ..head };
            assert!(!journal.is_complete(head).unwrap() && !journal.is_whole_at_front(head).unwrap(), "{images}");
        }
    }

    #[test]
    fn complete_means_every_block() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        assert_eq!(journal.head().unwrap(), None);
        write(&journal, 2, &[10, 11, 20]);
        let head = journal.head().unwrap().unwrap();
        assert_eq!((head.generation, head.images), (2, 3));
        assert!(journal.is_complete(head).unwrap());
        journal.rewrite(head).unwrap();
        assert!(journal.is_complete(head).unwrap());
        for block in 0..5u64 {
            let mut byte = [0];
            let at = block * BLOCK + 33;
            journal.file.read_at(&mut byte, at).unwrap();
            journal.file.write_at(&[byte[0] ^ 1], at).unwrap();
            let complete = journal.head().unwrap().is_some_and(|head| journal.is_complete(head).unwrap());
            assert!(!complete, "damage in block {block} went unnoticed");
            journal.file.write_at(&byte, at).unwrap();
        }
    }

    #[test]
    fn a_trailer_belongs_to_one_head() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        write(&journal, 2, &[10, 11]);
        // The next attempt at generation 2, of which only the head reached the disk.
        let head = JournalHead { cut: Lsn::new(1, 256), ..journal.head().unwrap().unwrap() };
        write_all_at(&*journal.file, &encode_head(journal.uuid, head), 0).unwrap();
        assert_eq!(journal.head().unwrap(), Some(head));
        assert!(!journal.is_complete(head).unwrap());
    }

    #[test]
    fn images_of_an_earlier_generation_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        write(&journal, 2, &[10, 11, 20]);
        let old = journal.head().unwrap().unwrap();
        // A crash while generation 3 was written: its first image is there, the head too, the rest is old.
        let mut image_10 = image::empty(PageKind::Bucket, 10);
        image::seal(&mut image_10, journal.uuid, 3);
        write_all_at(&*journal.file, &image_10[..], BLOCK).unwrap();
        let head = JournalHead { generation: 3, ..old };
        write_all_at(&*journal.file, &encode_head(journal.uuid, head), 0).unwrap();
        assert!(!journal.is_complete(head).unwrap());
        journal.reset(3, Lsn::default(), 0).unwrap();
        let head = journal.head().unwrap().unwrap();
        assert!(journal.is_complete(head).unwrap() && head.images == 0);
    }
}
