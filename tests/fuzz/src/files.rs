//! A store's files are changed, checksums mended or not, and everything is done with what is left.

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use tophash_rig::corruption::Licence;
use tophash_rig::corruption::base::{self, Base};
use tophash_rig::corruption::exercise::{Effort, exercise};
use tophash_rig::image::{Image, Node};

fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(base::all)
}

/// Bytes of files, or changes of a store's files.
///
/// # Panics
/// If something is wrong with the engine.
pub fn files(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let _ = changed(&mut input);
}

fn changed(input: &mut Unstructured<'_>) -> Result<()> {
    let base = input.choose(bases())?;
    let mut image = base.image.clone();
    let regions = base.anatomy.regions(&base.image);
    let mut sealed = false;
    if input.ratio(1, 8)? {
        // A file that is nothing but the input.
        let name = input.choose(&regions)?.0.clone();
        image.add(&name, Node::file());
        let len = input.len();
        image.write(&name, 0, input.bytes(len)?);
    }
    for _ in 0..input.int_in_range(0..=12)? {
        if input.is_empty() {
            break;
        }
        let (file, from, to) = input.choose(&regions)?;
        let at = input.int_in_range(*from..=*to - 1)?;
        match input.int_in_range(0..=5)? {
            0 => image.write(file, at, &[input.arbitrary()?]),
            1 => image.write(file, at & !7, &input.arbitrary::<u64>()?.to_le_bytes()),
            2 => {
                let word = u64::from_le_bytes(image.read(file, at & !7, 8).try_into().unwrap_or_default());
                let word = word.wrapping_add_signed(i64::from(input.arbitrary::<i8>()?));
                image.write(file, at & !7, &word.to_le_bytes());
            }
            3 => {
                // Bytes of another place.
                let (other, from, to) = input.choose(&regions)?;
                let source = input.int_in_range(*from..=*to - 1)?;
                let bytes = image.read(other, source & !7, input.int_in_range(1..=64)?);
                image.write(file, at & !7, &bytes);
            }
            4 => image.set_len(file, at),
            _ => {
                let bytes: Vec<u8> = input.arbitrary()?;
                image.write(file, at, &bytes);
            }
        }
        if input.ratio(3, 4)? {
            sealed = true;
            base.anatomy.reseal(&mut image, file, at);
        }
    }
    judge(base, &image, sealed);
    Ok(())
}

/// The records of a segment: the input stands where a segment's last records do, with checksums mended as far as its
/// lengths make sense.
///
/// # Panics
/// If something is wrong with the engine.
pub fn log(data: &[u8]) {
    let Some((&choice, records)) = data.split_first() else { return };
    let base = &bases()[choice as usize % bases().len()];
    let segments = &base.anatomy.segments;
    let number = choice as usize / bases().len() % segments.len();
    let of_segment: Vec<_> = base.anatomy.records.iter().filter(|record| record.segment == number).collect();
    let at = match of_segment.len() {
        0 => 128,
        n => of_segment[choice as usize * 7 % n].at,
    };
    let name = &segments[number].name;
    let mut image = base.image.clone();
    let room = image.len(name).saturating_sub(at) as usize;
    image.write(name, at, &records[..records.len().min(room)]);
    base.anatomy.reseal(&mut image, name, at.max(128));
    judge(base, &image, true);
}

fn judge(base: &Base, image: &Image, sealed: bool) {
    // Damage in several places can cut the log's end off before a durable LSN: that is not what is judged here.
    let licence = Licence { absent: sealed, stale: true, shorter: true, anything: sealed, ..Licence::default() };
    let effort = Effort { change: true, repair: true, reopen: true };
    if let Err(violation) = exercise(base, image, &licence, effort) {
        panic!("{}: {violation}", base.name);
    }
}
