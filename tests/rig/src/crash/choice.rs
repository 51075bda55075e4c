//! What a crash may do to the changes that are pending.

use crate::image::Half;
use crate::random::Random;
use crate::recorder::Boundary;

/// What becomes of a pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It did not reach the disk.
    Lost,
    /// It did.
    Kept,
    /// Half of the sector did.
    Torn(Half),
}

/// How many images are made of a boundary.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Up to so many pending changes, every subset.
    pub exhaustive: usize,
    /// Beyond that, so many random subsets,
    pub random: usize,
    /// so many prefixes, so many with one lost, so many with one kept.
    pub each: usize,
    /// Images with a torn sector.
    pub torn: usize,
}

/// Calls `each` with what may become of a boundary's pending changes.
pub fn choices(boundary: &Boundary, depth: Depth, random: &mut Random, each: &mut dyn FnMut(&[Fate])) {
    let n = boundary.pending.len();
    let mut fates = vec![Fate::Lost; n];
    if n <= depth.exhaustive {
        for subset in 0u32..1 << n {
            for (i, fate) in fates.iter_mut().enumerate() {
                *fate = if subset >> i & 1 == 1 { Fate::Kept } else { Fate::Lost };
            }
            each(&fates);
        }
    } else {
        each(&fates);
        for from in some(n, depth.each, random) {
            fates.fill(Fate::Lost);
            fates[..from].fill(Fate::Kept);
            each(&fates);
            fates.fill(Fate::Lost);
            fates[from] = Fate::Kept;
            each(&fates);
            fates.fill(Fate::Kept);
            fates[from] = Fate::Lost;
            each(&fates);
        }
        fates.fill(Fate::Kept);
        each(&fates);
        for _ in 0..depth.random {
            let often = 1 + random.below(7);
            fates.fill_with(|| if random.below(8) < often { Fate::Kept } else { Fate::Lost });
            each(&fates);
        }
    }
    // A torn sector: with all before it, with all others, alone, with others at random.
    let sectors: Vec<usize> = (0..n).filter(|&i| boundary.pending[i].is_sector()).collect();
    for at in some(sectors.len(), depth.torn, random) {
        let sector = sectors[at];
        match random.below(4) {
            0 => {
                fates.fill(Fate::Lost);
                fates[..sector].fill(Fate::Kept);
            }
            1 => fates.fill(Fate::Kept),
            2 => fates.fill(Fate::Lost),
            _ => fates.fill_with(|| if random.one_in(2) { Fate::Kept } else { Fate::Lost }),
        }
        for half in [Half::First, Half::Second] {
            fates[sector] = Fate::Torn(half);
            each(&fates);
        }
    }
}

/// Up to `most` numbers below `n`: the last ones, because they are the newest, and random ones.
fn some(n: usize, most: usize, random: &mut Random) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    let newest = most.div_ceil(2);
    let mut chosen: Vec<usize> = (n - newest..n).collect();
    chosen.extend((newest..most).map(|_| random.below((n - newest) as u64) as usize));
    chosen
}
