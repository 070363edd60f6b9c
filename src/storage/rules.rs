//! The rules of stable storage that a seeded bug breaks, one line each. Where a line says `seeded_bugs::is_enabled(...)`, read
//! `false` (see [`seeded_bugs`]).

use std::io;

use super::admission::Claim;
use super::checkpoint::CheckpointMeta;
use super::disk::{Files, StableFile};
use crate::kv::StateEntry;
use crate::paxos::Slot;
use crate::seeded_bugs::{self, Bug};

/// A group is synced before it is said, and if the sync fails so does the group.
pub fn sync(file: &impl StableFile) -> io::Result<()> {
    let synced = if seeded_bugs::is_enabled(Bug::SaidBeforeSynced) { Ok(()) } else { file.sync_data() };
    if seeded_bugs::is_enabled(Bug::SyncErrorIgnored) { Ok(()) } else { synced }
}

/// A file that has a new name is there after a crash only if the folder was synced.
pub fn sync_name(files: &impl Files) -> io::Result<()> {
    if seeded_bugs::is_enabled(Bug::SegmentNameNotSynced) { Ok(()) } else { files.sync_folder() }
}

/// A segment that nobody needs any more is removed, and never used again: its old records would be taken for new ones.
pub fn end_segment<F: Files>(files: &F, name: &str, spare: &mut Option<F::File>, spare_name: &str) {
    if seeded_bugs::is_enabled(Bug::SegmentReused) && spare.is_none() && files.rename(name, spare_name).is_ok() {
        *spare = files.open(spare_name).ok();
        return;
    }
    // If it stays, the next life removes it.
    drop(files.remove(name));
}

/// What stands behind the last whole group was never said only if a crash in the middle of a write leaves it so.
pub fn was_never_said(is_torn: bool) -> bool {
    is_torn || seeded_bugs::is_enabled(Bug::DamagedEndIsUnwritten)
}

/// What a new process has read may not be durable, a seal included: the segment before the last is sealed again.
pub fn must_seal_again(is_sealed: bool) -> bool {
    !(is_sealed && seeded_bugs::is_enabled(Bug::RereadIsDurable))
}

/// The sessions are part of the state as the keys are.
pub fn is_of_the_state(piece: &StateEntry) -> bool {
    !matches!(piece, StateEntry::Session { .. }) || !seeded_bugs::is_enabled(Bug::SnapshotWithoutSessions)
}

/// A checkpoint says the slot that its data are of.
pub fn slot_of(mark: CheckpointMeta) -> Slot {
    if seeded_bugs::is_enabled(Bug::CheckpointSlotWrong) { mark.slot.previous() } else { mark.slot }
}

/// What a caller says of its disk is proved if the caller knows the storage id that it was told when it was called
/// back.
pub fn is_proved(claim: &Claim, own_storage: u64) -> bool {
    claim.knows == Some(own_storage) || seeded_bugs::is_enabled(Bug::RememberBeforeProof)
}

/// A new folder gives way to one that takes part, and to no other new one.
pub fn gives_way_to(takes_part: bool) -> bool {
    takes_part || seeded_bugs::is_enabled(Bug::CandidateOverCandidate)
}
