//! The rules of stable storage that a seeded bug breaks, one line each. Where a line calls
//! `seeded_bugs::is_enabled(...)`, read `false` (see [`seeded_bugs`]).

use std::io;

use super::admission::Claim;
use super::checkpoint::CheckpointMeta;
use super::disk::{Files, StableFile};
use crate::kv::StateEntry;
use crate::paxos::Slot;
use crate::seeded_bugs::{self, Bug};

/// A group is synced before its actions are released; if the sync fails, the group fails.
pub fn sync(file: &impl StableFile) -> io::Result<()> {
    let synced = if seeded_bugs::is_enabled(Bug::SaidBeforeSynced) { Ok(()) } else { file.sync_data() };
    if seeded_bugs::is_enabled(Bug::SyncErrorIgnored) { Ok(()) } else { synced }
}

/// A new file name survives a crash only after the directory was synced.
pub fn sync_name(files: &impl Files) -> io::Result<()> {
    if seeded_bugs::is_enabled(Bug::SegmentNameNotSynced) { Ok(()) } else { files.sync_dir() }
}

/// A segment that is no longer needed is removed and never used again: its old records would be read as new ones.
pub fn end_segment<F: Files>(files: &F, name: &str, spare: &mut Option<F::File>, spare_name: &str) {
    if seeded_bugs::is_enabled(Bug::SegmentReused) && spare.is_none() && files.rename(name, spare_name).is_ok() {
        *spare = files.open(spare_name).ok();
        return;
    }
    // If the removal fails, the next incarnation removes the file.
    drop(files.remove(name));
}

/// Bytes after the last whole group were never acknowledged only if they look like the remains of a torn write.
pub fn was_never_said(is_torn: bool) -> bool {
    is_torn || seeded_bugs::is_enabled(Bug::DamagedEndIsUnwritten)
}

/// Bytes that a new process has read may not be durable, a seal included: the segment before the last is sealed again.
pub fn must_seal_again(is_sealed: bool) -> bool {
    !(is_sealed && seeded_bugs::is_enabled(Bug::RereadIsDurable))
}

/// Sessions belong to the state as the keys do.
pub fn is_of_the_state(piece: &StateEntry) -> bool {
    !matches!(piece, StateEntry::Session { .. }) || !seeded_bugs::is_enabled(Bug::SnapshotWithoutSessions)
}

/// A checkpoint names the slot of its data.
pub fn slot_of(mark: CheckpointMeta) -> Slot {
    if seeded_bugs::is_enabled(Bug::CheckpointSlotWrong) { mark.slot.previous() } else { mark.slot }
}

/// A caller's claim about its disk is proved if the caller knows this server's storage id, which it receives only when
/// this server dials it.
pub fn is_proved(claim: &Claim, own_storage: u64) -> bool {
    claim.knows == Some(own_storage) || seeded_bugs::is_enabled(Bug::RememberBeforeProof)
}

/// A candidate directory gives way to a directory whose server is active, and to no other candidate.
pub fn gives_way_to(is_active: bool) -> bool {
    is_active || seeded_bugs::is_enabled(Bug::CandidateOverCandidate)
}
