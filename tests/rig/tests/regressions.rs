//! Bugs that the crash layer found, each with its story. None may come back.

use std::path::Path;

use tophash::{Options, Store, SyncPolicy, Tuning};
use tophash_rig::disk::SimDisk;
use tophash_rig::image::{Change, ChangeKind, Image, NodeId};
use tophash_rig::recorder::Boundary;
use tophash_rig::run::{STORE, blank, kill};
use tophash_rig::world::Call;

fn open(disk: &SimDisk) -> Store {
    let tuning = Tuning { background: false, level_min: 0, ..Tuning::default() };
    let options = Options::new().sync(SyncPolicy::Manual).segment_bytes(4096).tuning(tuning);
    options.disk(std::sync::Arc::new(disk.clone())).open(STORE).unwrap()
}

/// What a crash can leave just before the checkpoint that `store` runs syncs its journal, and the journal's number.
fn before_the_journal_is_synced(disk: &SimDisk, store: &Store) -> (Boundary, NodeId) {
    disk.record();
    store.checkpoint().unwrap();
    let journal = disk.cached().find(&Path::new(STORE).join("journal")).unwrap();
    let (boundaries, _) = disk.recorded();
    let of_journal = |boundary: &Boundary| boundary.pending.iter().any(|change| change.node == journal);
    let found = boundaries.into_iter().find(|boundary| boundary.call == Call::SyncAll && of_journal(boundary));
    (found.unwrap(), journal)
}

fn crash(boundary: &Boundary, kept: impl Fn(&Change) -> bool) -> SimDisk {
    let changes = boundary.pending.iter().filter(|change| kept(change)).map(|change| (change, None));
    SimDisk::new(Image::after_crash(&boundary.durable, changes), 9)
}

fn is_head(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::Sector(0, _))
}

/// A power failure during a checkpoint left its images and its trailer in the journal, but not its head. The
/// recovery went back to the checkpoint before, and the next one had the same generation. When the power failed
/// again, that one's head was on the disk and nothing else of it: head, images and trailer were valid and agreed,
/// though they were of two checkpoints. The old images were put under the new cut, and all that had been written
/// and synced between the two was gone, or the store could not be opened any more.
#[test]
fn a_journal_is_not_completed_by_the_checkpoint_before() {
    let disk = SimDisk::new(blank(), 7);
    let store = open(&disk);
    store.insert("a", "1").unwrap();
    store.checkpoint().unwrap();
    store.insert("b", "2").unwrap();
    let (first, journal) = before_the_journal_is_synced(&disk, &store);
    assert!(first.pending.iter().any(|change| change.node == journal && is_head(change)));
    kill(&disk, store);

    let disk = crash(&first, |change| !(change.node == journal && is_head(change)));
    let store = open(&disk);
    store.insert("c", "3").unwrap();
    store.sync().unwrap();
    let (second, journal) = before_the_journal_is_synced(&disk, &store);
    kill(&disk, store);

    let store = open(&crash(&second, |change| change.node == journal && is_head(change)));
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert_eq!(store.get(key).unwrap().as_deref(), Some(value.as_bytes()), "{key}");
    }
}
