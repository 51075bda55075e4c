//! What a crash may do to the changes that are pending.

use std::collections::HashMap;

use crate::image::{Change, ChangeKind, Image, PAGE, SECTOR, Tear};
use crate::random::{Random, mix};
use crate::recorder::Boundary;

/// What becomes of a pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It did not reach the disk.
    Lost,
    /// It did.
    Kept,
    /// Some words of the sector did.
    Torn(Tear),
}

/// The disk after a crash that did this to the pending changes of a boundary.
#[must_use]
pub fn after(boundary: &Boundary, fates: &[Fate]) -> Image {
    let kept = boundary.pending.iter().zip(fates).filter_map(|(change, fate)| match fate {
        Fate::Lost => None,
        Fate::Kept => Some((change, None)),
        Fate::Torn(tear) => Some((change, Some(*tear))),
    });
    Image::after_crash(&boundary.durable, kept)
}

/// How many images are made of a boundary.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Up to so many pending changes, every subset.
    pub exhaustive: usize,
    /// Beyond that, so many random subsets,
    pub random: usize,
    /// so many prefixes, so many with one lost, so many with one kept, so many with an earlier version of a sector.
    pub each: usize,
    /// Sectors that are torn, besides those that begin a file.
    pub torn: usize,
    /// Places at which such a sector is torn, in a sector that begins a file twice as many.
    pub tears: usize,
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
        for round in 0..depth.random {
            let often = 1 + random.below(7);
            fates.fill_with(|| if random.below(8) < often { Fate::Kept } else { Fate::Lost });
            each(&fates);
            // Each file as it was at some moment, of its own: what a file system leaves that writes files anew.
            if round % 2 == 0 {
                let moments = random.word();
                for (i, fate) in fates.iter_mut().enumerate() {
                    let moment = mix(moments ^ u64::from(boundary.pending[i].node)) % (n as u64 + 1);
                    *fate = if (i as u64) < moment { Fate::Kept } else { Fate::Lost };
                }
                each(&fates);
            }
        }
        earlier_versions(boundary, depth.each, random, each);
    }
    tears(boundary, depth, random, each);
}

/// All is kept, but of one sector an earlier version than the last.
fn earlier_versions(boundary: &Boundary, most: usize, random: &mut Random, each: &mut dyn FnMut(&[Fate])) {
    let pending = &boundary.pending;
    let sector_of = |change: &Change| match change.kind {
        ChangeKind::Sector(sector, _) => Some((change.node, sector)),
        _ => None,
    };
    let mut last = HashMap::new();
    for (i, change) in pending.iter().enumerate() {
        last.extend(sector_of(change).map(|sector| (sector, i)));
    }
    let is_superseded = |i: &usize| sector_of(&pending[*i]).is_some_and(|sector| last[&sector] != *i);
    let superseded: Vec<usize> = (0..pending.len()).filter(is_superseded).collect();
    for at in some(superseded.len(), most, random) {
        let kept = superseded[at];
        let later = |i: usize| i > kept && sector_of(&pending[i]) == sector_of(&pending[kept]);
        each(&(0..pending.len()).map(|i| if later(i) { Fate::Lost } else { Fate::Kept }).collect::<Vec<_>>());
    }
}

/// A torn sector: with all before it, with all others, alone, with others at random.
fn tears(boundary: &Boundary, depth: Depth, random: &mut Random, each: &mut dyn FnMut(&[Fate])) {
    let n = boundary.pending.len();
    let mut fates = vec![Fate::Lost; n];
    let sectors: Vec<usize> = (0..n).filter(|&i| boundary.pending[i].is_sector()).collect();
    // Headers begin at the first or the second page of their files.
    let begins = |i: usize| match boundary.pending[i].kind {
        ChangeKind::Sector(sector, _) => {
            (sector as usize).is_multiple_of(PAGE / SECTOR) && (sector as usize) < 2 * PAGE / SECTOR
        }
        _ => false,
    };
    let mut chosen: Vec<usize> = some(sectors.len(), depth.torn, random).into_iter().map(|at| sectors[at]).collect();
    if depth.torn > 0 {
        chosen.extend(sectors.iter().copied().filter(|&i| begins(i)));
    }
    chosen.sort_unstable();
    chosen.dedup();
    for sector in chosen {
        match random.below(4) {
            0 => {
                fates.fill(Fate::Lost);
                fates[..sector].fill(Fate::Kept);
            }
            1 => fates.fill(Fate::Kept),
            2 => fates.fill(Fate::Lost),
            _ => fates.fill_with(|| if random.one_in(2) { Fate::Kept } else { Fate::Lost }),
        }
        let most = if begins(sector) { 2 * depth.tears } else { depth.tears };
        for tear in places(changed(boundary, sector), most, random) {
            fates[sector] = Fate::Torn(tear);
            each(&fates);
        }
    }
}

/// The words of a sector that a pending change makes others.
fn changed(boundary: &Boundary, at: usize) -> Tear {
    let change = &boundary.pending[at];
    let ChangeKind::Sector(number, new) = &change.kind else { return Tear(0) };
    let before = boundary.pending[..at].iter().rev().find_map(|earlier| match &earlier.kind {
        ChangeKind::Sector(sector, bytes) if earlier.node == change.node && sector == number => Some(**bytes),
        _ => None,
    });
    let durable = || boundary.durable[change.node as usize].as_file().map(|file| file.sector(*number));
    Tear::between(&before.or_else(durable).unwrap_or([0; SECTOR]), new)
}

/// Places at which a sector can be torn so that it is neither the old one nor the new one: its first words are new, or
/// its last ones, or any.
fn places(changed: Tear, most: usize, random: &mut Random) -> Vec<Tear> {
    let Tear(all) = changed;
    let cuts: Vec<u32> = (1..64).filter(|&at| Tear::first(at).0 & all != 0 && Tear::behind(at).0 & all != 0).collect();
    let mut places = Vec::new();
    // A cut at every word between two that changed, if there are no more than that many; never two that are the same.
    let mut add = |tear: Tear| {
        let tear = Tear(tear.0 & all);
        if tear.0 != 0 && tear.0 != all && !places.contains(&tear) {
            places.push(tear);
        }
    };
    if cuts.len() <= most {
        cuts.iter().for_each(|&at| add(Tear::first(at)));
    }
    for round in 0..most {
        let Some(&at) = cuts.get(random.below(cuts.len().max(1) as u64) as usize) else { break };
        add(match round % 4 {
            0 | 2 => Tear::first(at),
            1 => Tear::behind(at),
            _ => Tear(random.word()),
        });
    }
    places
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
