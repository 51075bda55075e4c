//! Calls in any order against a map.

use std::collections::HashMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use tophash::{Batch, Store};
use tophash_rig::corruption::anatomy::STORE;
use tophash_rig::corruption::base::options;
use tophash_rig::disk::SimDisk;
use tophash_rig::image::Image;

#[derive(Debug, Arbitrary)]
enum Op {
    Insert(u8, u16),
    InsertRange(u8, u8),
    Get(u8),
    Remove(u8),
    RemoveRange(u8, u8),
    Update(u8),
    CompareExchange(u8, bool, u16),
    Apply(Vec<(u8, Option<u16>)>),
    Clear,
    Iterate,
    Reserve(u8),
    Checkpoint,
    Sync,
    Compact,
    ShrinkToFit,
    Close,
    Kill,
    ReadOnly,
    Verify,
}

type Model = HashMap<Vec<u8>, Vec<u8>>;

fn key(i: u8) -> Vec<u8> {
    // A few of them long, one empty.
    match i {
        0 => Vec::new(),
        1..=3 => vec![i; 300],
        _ => vec![b'k', i],
    }
}

fn value(i: u16) -> Vec<u8> {
    // Up to the size of a blob and beyond.
    vec![i as u8; usize::from(i) % 600]
}

/// Calls in any order.
///
/// # Panics
/// If something is wrong with the engine.
pub fn operations(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn open(disk: &SimDisk) -> Store {
    options(disk).open(STORE).expect("a store that is whole")
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let disk = SimDisk::untracked(Image::empty(), 1);
    let (mut disk, mut store, mut model) = (disk.clone(), open(&disk), Model::new());
    let mut steps = 0;
    while !input.is_empty() && steps < 400 {
        steps += 1;
        let op = Op::arbitrary(input)?;
        match &op {
            Op::Close => {
                store.close().expect("close");
                store = open(&disk);
            }
            Op::Kill => {
                let image = disk.cached();
                drop(store);
                disk = SimDisk::untracked(image, steps);
                store = open(&disk);
            }
            Op::ReadOnly => {
                let copy = SimDisk::untracked(disk.cached(), steps);
                compare(&options(&copy).read_only(true).open(STORE).expect("a reader"), &model);
            }
            Op::Verify => {
                let copy = SimDisk::untracked(disk.cached(), steps);
                let report = tophash::verify::verify_disk(&copy, STORE, tophash::Progress::ignore).expect("a report");
                assert!(report.is_clean(), "{:#?}", report.findings);
            }
            op => step(&store, &mut model, op),
        }
        assert_eq!(store.len(), model.len() as u64, "{op:?}");
    }
    compare(&store, &model);
    Ok(())
}

fn step(store: &Store, model: &mut Model, op: &Op) {
    let insert = |model: &mut Model, i: u8, v: u16| {
        let old = store.insert(key(i), value(v)).expect("insert").map(|value| value.to_vec());
        assert_eq!(old, model.insert(key(i), value(v)));
    };
    let remove = |model: &mut Model, i: u8| {
        let old = store.remove(key(i)).expect("remove").map(|value| value.to_vec());
        assert_eq!(old, model.remove(&key(i)));
    };
    match op {
        Op::Insert(i, v) => insert(model, *i, *v),
        Op::InsertRange(i, n) => (0..=*n).for_each(|j| insert(model, i.wrapping_add(j), u16::from(j))),
        Op::Get(i) => {
            let found = store.get(key(*i)).expect("get").map(|value| value.to_vec());
            assert_eq!(found.as_ref(), model.get(&key(*i)));
        }
        Op::Remove(i) => remove(model, *i),
        Op::RemoveRange(i, n) => {
            let keys: Vec<_> = (0..=*n).map(|j| key(i.wrapping_add(j))).collect();
            let there = keys.iter().filter(|key| model.remove(*key).is_some()).count();
            assert_eq!(store.remove_many(&keys).expect("remove_many"), there as u64);
        }
        Op::Update(i) => {
            let add = |old: Option<&[u8]>| {
                let mut new = old.map_or_else(Vec::new, <[u8]>::to_vec);
                new.push(7);
                (new.len() < 700).then_some(new)
            };
            let new = add(model.get(&key(*i)).map(Vec::as_slice));
            store.update(key(*i), add).expect("update");
            match new {
                Some(new) => _ = model.insert(key(*i), new),
                None => _ = model.remove(&key(*i)),
            }
        }
        Op::CompareExchange(i, right, v) => {
            let present = model.get(&key(*i)).cloned();
            let expected = if *right { present.clone() } else { Some(b"not this".to_vec()) };
            let new = (v % 5 != 0).then(|| value(*v));
            let done = store.compare_exchange(key(*i), expected.as_deref(), new.as_deref()).expect("compare_exchange");
            assert_eq!(done.is_ok(), expected == present);
            if expected == present {
                match new {
                    Some(new) => _ = model.insert(key(*i), new),
                    None => _ = model.remove(&key(*i)),
                }
            }
        }
        Op::Apply(changes) => {
            let mut batch = Batch::new();
            for (i, v) in changes {
                match v {
                    Some(v) => {
                        batch.insert(key(*i), value(*v));
                        model.insert(key(*i), value(*v));
                    }
                    None => {
                        batch.remove(key(*i));
                        model.remove(&key(*i));
                    }
                }
            }
            store.apply(&batch).expect("apply");
        }
        Op::Clear => {
            store.clear().expect("clear");
            model.clear();
        }
        Op::Iterate => compare(store, model),
        Op::Reserve(n) => store.reserve(u64::from(*n)).expect("reserve"),
        Op::Checkpoint => store.checkpoint().expect("checkpoint"),
        Op::Sync => store.sync().expect("sync"),
        Op::Compact => _ = store.compact().expect("compact"),
        Op::ShrinkToFit => store.shrink_to_fit().expect("shrink_to_fit"),
        Op::Close | Op::Kill | Op::ReadOnly | Op::Verify => {}
    }
}

fn compare(store: &Store, model: &Model) {
    let entries = store.iter().map(|entry| {
        let entry = entry.expect("a whole entry");
        (entry.key().to_vec(), entry.value().to_vec())
    });
    let (mut found, mut count) = (Model::new(), 0);
    for (key, value) in entries {
        found.insert(key, value);
        count += 1;
    }
    assert_eq!(count, found.len(), "a key twice");
    assert!(found == *model, "other contents");
}
