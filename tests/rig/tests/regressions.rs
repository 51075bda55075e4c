//! Bugs that the crash layer found, each with its story. None may come back.

use tophash_rig::story;

/// A power failure during a checkpoint left its images and its trailer in the journal, but not its head. The
/// recovery went back to the checkpoint before, and the next one had the same generation. When the power failed
/// again, that one's head was on the disk and nothing else of it: head, images and trailer were valid and agreed,
/// though they were of two checkpoints. The old images were put under the new cut, and all that had been written
/// and synced between the two was gone, or the store could not be opened any more.
#[test]
fn a_journal_is_not_completed_by_the_checkpoint_before() {
    story::journal_of_two_checkpoints().unwrap();
}
