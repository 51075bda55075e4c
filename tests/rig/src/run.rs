//! Carrying a script out on a simulated disk.

use std::path::Path;

use tophash::Store;

use crate::disk::SimDisk;
use crate::image::{Image, Node};
use crate::recorder::Boundary;
use crate::script::{Op, Script, end_of};

/// Where the store of every script lives. Its parent exists and is durable from the start.
pub const STORE: &str = "/disk/store";

/// Milliseconds after a deadline at which the store counts what has expired: spans of deadlines end at multiples of 1024.
const SOON: u64 = 2_000;

/// The disk on which every script begins.
#[must_use]
pub fn blank() -> Image {
    let mut image = Image::empty();
    image.nodes.push(Node::dir());
    let link = crate::image::Change { node: 0, kind: crate::image::ChangeKind::Link("disk".into(), 1) };
    link.apply(&mut image.nodes, None);
    image
}

/// Lets go of a store as the death of its process would: nothing is closed.
pub fn kill(disk: &SimDisk, store: Store) {
    disk.set_power(false);
    drop(store);
    disk.set_power(true);
}

/// Carries a script out with nothing going wrong, and writes down every I/O boundary. Returns the boundaries at
/// which something differed from the one before, and how many there were in all.
///
/// # Panics
/// If a step fails: that is no crash.
#[must_use]
pub fn record(script: &Script, seed: u64) -> (Vec<Boundary>, u64) {
    let disk = SimDisk::new(blank(), seed);
    disk.set_clock(script.begins_at());
    disk.record();
    let path = Path::new(STORE);
    let options = script.options(&disk);
    let open = || options.open(path).unwrap_or_else(|error| panic!("{}: open: {error}", script.name));
    let mut store = open();
    disk.progress(|bounds| bounds.exists = true);
    for (i, op) in script.ops.iter().enumerate() {
        let (before, after) = (i as u32, i as u32 + 1);
        disk.progress(|bounds| bounds.started = after);
        let failed = |error: tophash::Error| panic!("{}: step {before}, {op:?}: {error}", script.name);
        match op {
            Op::Reopen => {
                store.close().unwrap_or_else(failed);
                disk.progress(|bounds| bounds.durable = after);
                store = open();
            }
            Op::Die => {
                kill(&disk, store);
                store = open();
            }
            Op::Offline(_, work) => {
                store.close().unwrap_or_else(failed);
                disk.progress(|bounds| bounds.durable = after);
                work(path, &options).unwrap_or_else(failed);
                store = open();
            }
            Op::Pass(round) => disk.set_clock(end_of(*round) + SOON),
            _ => op.carry_out(&store).unwrap_or_else(failed),
        }
        disk.progress(|bounds| {
            bounds.returned = after;
            if op.acknowledges(script.sync) {
                bounds.durable = after;
            }
        });
        disk.boundary();
    }
    store.close().unwrap_or_else(|error| panic!("{}: close: {error}", script.name));
    disk.progress(|bounds| bounds.durable = bounds.returned);
    disk.boundary();
    disk.recorded()
}
