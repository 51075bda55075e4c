//! The chain against a naive oracle: a set of tags. After every step every live entry must be reachable, and
//! every `emptyRest` must be true.

use std::collections::HashMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::address::Address;
use crate::sys::{Disk, RealDisk};
use crate::table::region::{Extent, Region, RegionKind};

const GEOMETRY: Geometry = Geometry { homes: 4, stash: 2 };

fn region(kind: RegionKind) -> Region {
    let region = Region::new(crate::table_id::TableId::MAIN, kind, 3);
    let shape = region.shape(0);
    let map = RealDisk.map_anonymous(shape.total() as usize * 4096).unwrap();
    let states = RealDisk.map_anonymous(shape.state_bytes()).unwrap();
    region.install(0, Extent::new(shape, 2, map, states, true));
    region
}

fn chain<'t>(primary: &'t Region, overflow: &'t Region, pages: usize) -> Chain<'t> {
    Chain {
        geometry: GEOMETRY,
        primary: primary.page(0).unwrap(),
        overflow: (0..pages as u64).map(|n| (n, overflow.page(n).unwrap())).collect(),
    }
}

/// Tag and record address of the n-th test entry: few fingerprints, so that buckets overflow.
fn entry(n: u16) -> (Tag, Address) {
    (Tag::of(u64::from(n % 40) << 58 | u64::from(n) << 48, 0), Address::new(1, 128 + u64::from(n) * 8))
}

fn find(chain: &Chain<'_>, n: u16) -> Found {
    let (tag, address) = entry(n);
    let found = chain.find::<Infallible>(tag, false, |slot| Ok(slot.address() == address));
    match found {
        Ok(found) => found,
        Err(never) => match never {},
    }
}

/// The naive oracle of the invariants.
fn check(chain: &Chain<'_>, live: &HashMap<u16, ()>) {
    for &n in live.keys() {
        assert!(matches!(find(chain, n), Found::Hit(..)), "entry {n} is unreachable");
    }
    let mut counted = 0;
    for (number, page) in chain.pages().enumerate() {
        let mut live_here = 0;
        let mut tombstones = 0;
        for bucket in 0..GEOMETRY.homes + GEOMETRY.stash {
            for (_, slot) in page.page.bucket(bucket).slots() {
                live_here += u16::from(slot.is_live());
                tombstones += u16::from(slot.is_empty_one());
                if slot.is_live() {
                    // Every bucket of the entry's path before this one must not end the path.
                    let home = slot.tag().home(GEOMETRY.homes);
                    let before = path(GEOMETRY, home, chain.overflow.len())
                        .take_while(|&at| at != (number, bucket))
                        .filter(|&(p, b)| chain.page(p).bucket(b).has_empty_rest())
                        .count();
                    assert_eq!(before, 0, "an emptyRest hides an entry");
                }
            }
        }
        assert_eq!((page.page.live(), page.page.tombstones()), (live_here, tombstones));
        counted += live_here;
    }
    assert_eq!(counted as usize, live.len());
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u16),
    Remove(u16),
    RemoveUnrepaired(u16),
    Rewrite,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0u16..200).prop_map(Op::Insert),
        3 => (0u16..200).prop_map(Op::Remove),
        1 => (0u16..200).prop_map(Op::RemoveUnrepaired),
        1 => Just(Op::Rewrite),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 2000 }))]
    #[test]
    fn a_chain_behaves_like_a_set(ops in proptest::collection::vec(op(), 1..200)) {
        let (primary, overflow) = (region(RegionKind::Primary), region(RegionKind::Overflow));
        let chain = chain(&primary, &overflow, 8);
        let mut live = HashMap::new();
        for op in ops {
            match op {
                Op::Insert(n) => match find(&chain, n) {
                    Found::Hit(..) => prop_assert!(live.contains_key(&n)),
                    Found::Miss(free) => {
                        prop_assert!(!live.contains_key(&n));
                        let (tag, address) = entry(n);
                        chain.fill(free.unwrap(), Slot::new(tag, address));
                        live.insert(n, ());
                    }
                },
                Op::Remove(n) | Op::RemoveUnrepaired(n) => {
                    let found = find(&chain, n);
                    prop_assert_eq!(matches!(found, Found::Hit(..)), live.remove(&n).is_some());
                    if let Found::Hit(spot, _) = found {
                        if matches!(op, Op::Remove(_)) {
                            let must = chain.must_move(spot);
                            let moves = chain.remove(spot);
                            prop_assert!(must || moves == 0);
                        } else {
                            chain.remove_unrepaired(spot);
                        }
                    }
                }
                Op::Rewrite => {
                    let mut layout = Layout::new(GEOMETRY);
                    for slot in chain.live_slots() {
                        layout.add(slot);
                    }
                    let needed = layout.overflow_pages();
                    for (n, page) in chain.pages().enumerate() {
                        if n <= needed {
                            layout.write(n, page.page);
                        } else {
                            page.page.clear_slots();
                        }
                    }
                    prop_assert!(chain.pages().all(|page| page.page.tombstones() == 0));
                }
            }
            check(&chain, &live);
        }
    }
}

#[test]
fn without_bulk_removals_there_are_no_tombstones() {
    let (primary, overflow) = (region(RegionKind::Primary), region(RegionKind::Overflow));
    let chain = chain(&primary, &overflow, 8);
    for n in 0..150 {
        let Found::Miss(Some(free)) = find(&chain, n) else { panic!("no room for {n}") };
        let (tag, address) = entry(n);
        chain.fill(free, Slot::new(tag, address));
    }
    for n in (0..150).rev().step_by(2).chain(0..150) {
        if let Found::Hit(spot, _) = find(&chain, n) {
            chain.remove(spot);
        }
        assert!(chain.pages().all(|page| page.page.tombstones() == 0));
    }
    assert!(chain.pages().all(|page| page.page.live() == 0));
}
