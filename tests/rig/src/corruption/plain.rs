//! Damage without mended checksums: single bits, and files that end too early.

use super::Licence;
use super::base::Base;
use crate::image::Image;
use crate::random::Random;

/// All bits of a base that mean something, and the places of those that do not.
#[derive(Debug)]
pub struct Bits {
    /// (file, first byte, end), and how many bytes lie in the regions before it.
    regions: Vec<(String, u64, u64, u64)>,
    /// Bytes of all regions.
    pub bytes: u64,
    files: Vec<(String, u64)>,
}

impl Bits {
    /// Looks at a base.
    #[must_use]
    pub fn of(base: &Base) -> Self {
        let mut bytes = 0;
        let regions = base.anatomy.regions(&base.image).into_iter().map(|(file, from, to)| {
            bytes += to - from;
            (file, from, to, bytes - (to - from))
        });
        let regions = regions.collect();
        let mut names = vec!["index".to_string(), "journal".to_string()];
        names.extend(base.image.names("log-1/"));
        let files = names.into_iter().map(|name| (name.clone(), base.image.len(&name))).collect();
        Bits { regions, bytes, files }
    }

    /// Flips the n-th bit of those that mean something.
    pub fn flip(&self, n: u64, image: &mut Image) -> String {
        let byte = n / 8;
        let at = self.regions.partition_point(|region| region.3 <= byte) - 1;
        let (file, from, _, before) = &self.regions[at];
        flip(image, file, from + byte - before, n % 8)
    }

    /// Flips any bit of any file.
    pub fn flip_any(&self, random: &mut Random, image: &mut Image) -> String {
        let (file, len) = &self.files[random.below(self.files.len() as u64) as usize];
        let at = random.below((*len).max(1));
        flip(image, file, at, random.below(8))
    }

    /// Lengths to cut files to: every one at which something could be made of what is left.
    #[must_use]
    pub fn cuts(&self) -> Vec<(String, u64)> {
        let mut cuts = Vec::new();
        for (file, len) in &self.files {
            let fine = file.starts_with("log-1/");
            let inside = |at: u64| {
                let in_region =
                    |(name, from, to, _): &(String, u64, u64, u64)| name == file && (*from..*to).contains(&at);
                at.is_multiple_of(512) || (fine || at.is_multiple_of(8)) && self.regions.iter().any(in_region)
            };
            cuts.extend((0..*len).filter(|&at| inside(at)).map(|at| (file.clone(), at)));
        }
        cuts
    }
}

fn flip(image: &mut Image, file: &str, at: u64, bit: u64) -> String {
    let byte = image.read(file, at, 1)[0];
    image.write(file, at, &[byte ^ 1 << bit]);
    format!("bit {bit} of byte {at} of {file} flipped")
}

/// Cuts a file. What the log loses at its end leaves no trace.
pub fn cut(image: &mut Image, file: &str, len: u64) -> (String, Licence) {
    image.set_len(file, len);
    let licence = Licence { shorter: file.ends_with(".log"), ..Licence::default() };
    (format!("{file} cut to {len} bytes"), licence)
}
