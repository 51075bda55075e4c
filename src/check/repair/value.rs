//! Values that are not held in the window of a segment's reader: blobs, and records longer than the window.
//!
//! Memory for a value is taken only after the file was seen to be as long as the value says.

use std::path::Path;

use crate::check::sink::{Input, Sink, of_the_moment};
use crate::checksum::{Uuid, crc32};
use crate::error::{Error, Result};
use crate::layout::blob_path;
use crate::log::blob_header::{BLOB_HEADER_BYTES, is_foreign};
use crate::log::record::{BlobLink, Header, Record};
use crate::sys::Disk;
use crate::sys::read_up_to;
use crate::words::some;

/// Bytes read between two looks at the progress.
const PIECE_BYTES: usize = 4 << 20;

/// A value that was looked for.
pub(super) enum Fetched {
    Whole(Vec<u8>),
    /// Why it is not there.
    Lost(String),
}

/// The value that a record links.
pub(super) fn blob(
    disk: &dyn Disk,
    dir: &Path,
    uuid: Uuid,
    link: Option<BlobLink>,
    sink: &mut Sink<'_>,
) -> Result<Fetched> {
    let lost = |why: String| Ok(Fetched::Lost(why));
    let Some(link) = link else { return lost("its link to a blob makes no sense".into()) };
    let path = blob_path(dir, link.id);
    let name = path.display().to_string();
    let input = match Input::open(disk, &path)? {
        Ok(input) => input,
        Err(error) => return lost(format!("{name}, which holds its value: {error}")),
    };
    let expected = BLOB_HEADER_BYTES as u64 + link.len;
    if input.len != expected {
        return lost(format!("{name}, which holds its value, has {} instead of {expected}", some(input.len, "byte")));
    }
    let Some(mut value) = memory(link.len as usize) else {
        return Err(out_of_memory(&path));
    };
    // The header of the blob says nothing that the link does not say: length and checksum decide. But a blob of
    // another store is none of ours, even if it holds the same.
    let mut header = [0; BLOB_HEADER_BYTES];
    if read_up_to(&*input.file, &mut header, 0).is_ok() && is_foreign(&header, uuid) {
        return lost(format!("{name}, which holds its value, belongs to another store"));
    }
    for (i, piece) in value.chunks_mut(PIECE_BYTES).enumerate() {
        let at = (BLOB_HEADER_BYTES + i * PIECE_BYTES) as u64;
        match read_up_to(&*input.file, piece, at) {
            Ok(read) => sink.advance(read as u64)?,
            Err(error) => {
                of_the_moment("read", &path, &error)?;
                return lost(format!("{name}, which holds its value, cannot be read at byte {at}: {error}"));
            }
        }
    }
    let found = crc32(&value);
    if found != link.crc {
        return lost(format!("{name}, which holds its value: expected crc {:#010x}, found {found:#010x}", link.crc));
    }
    Ok(Fetched::Whole(value))
}

/// The value of a record that is longer than what a reader holds; else why it is not there.
pub(super) fn long(input: &Input, header: Header, at: u64, salt: u64) -> Result<std::result::Result<Vec<u8>, String>> {
    let Some(mut bytes) = memory(header.len()) else { return Err(out_of_memory(&input.path)) };
    let checked = match read_up_to(&*input.file, &mut bytes, at) {
        Ok(_) => Record::decode(&bytes, at).and_then(|record| record.check(salt, at)).map_err(|why| why.texts().1),
        Err(error) => {
            of_the_moment("read", &input.path, &error)?;
            Err(error.to_string())
        }
    };
    Ok(checked.map(|()| bytes.split_off(header.value_start())))
}

fn memory(bytes: usize) -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).ok()?;
    memory.resize(bytes, 0);
    Some(memory)
}

fn out_of_memory(path: &Path) -> Error {
    Error::io("hold a value of", path, std::io::ErrorKind::OutOfMemory.into())
}
