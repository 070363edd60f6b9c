//! Views: the state as of one slot, for peers and clients that fetch it in chunks.
//!
//! A view holds the runs of its slot open. A run that a merge replaces loses its name, and its bytes stay readable
//! until the last view of it closes. The last [`SNAPSHOT_VIEWS_MAX`] views stay open for peers that request more
//! chunks. A view that a pinned peer reads from also stays open, until the learner reports that the pin has ended
//! ([`Checkpoint::pin`]). A checkpoint that finds the disk full closes all other views: those fetches start again.

use std::fmt::{self, Debug, Formatter};

use super::entry::{Place, token_of};
use super::error::CheckpointError;
use super::merge::Merge;
use super::{Checkpoint, CheckpointMeta, Runs};
use crate::kv::encode_chunk;
use crate::paxos::{ChunkRequest, PartToken, Slot, SnapshotChunk};
use crate::role::{ServerId, ServerSet};
use crate::storage::disk::Files;

/// Maximum number of open views of past slots. Views of pinned peers are extra: one per peer.
pub const SNAPSHOT_VIEWS_MAX: usize = 2;
/// A view is closed after this number of checkpoints without a request for it.
pub(super) const KEPT_WRITES: u64 = 8;

/// The open views.
#[derive(Debug)]
pub(super) struct Views<F: Files> {
    part_bytes: usize,
    pub(super) open: Vec<SnapshotView<F>>,
    /// Peers whose views stay open.
    pinned: ServerSet,
    /// Number of checkpoints written.
    writes: u64,
}

/// The state as of one slot.
pub(super) struct SnapshotView<F: Files> {
    pub(super) mark: CheckpointMeta,
    runs: Runs<F>,
    /// Number of checkpoints written before the last request for this view.
    used: u64,
    /// Peers whose last chunk came from this view.
    readers: ServerSet,
}

impl<F: Files> SnapshotView<F> {
    /// Whether one of these peers reads from it.
    fn is_of(&self, peers: ServerSet) -> bool {
        !self.readers.and(peers).is_empty()
    }
}

impl<F: Files> Debug for SnapshotView<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "view of {:?}", self.mark.slot)
    }
}

impl<F: Files> Views<F> {
    pub(super) fn new(part_bytes: usize) -> Views<F> {
        Views { part_bytes, open: Vec::new(), pinned: ServerSet::NONE, writes: 0 }
    }

    /// A checkpoint was written: closes the views that were not used for long.
    pub(super) fn checkpoint_written(&mut self) {
        self.writes += 1;
        let (writes, pinned) = (self.writes, self.pinned);
        self.open.retain(|view| view.is_of(pinned) || writes - view.used <= KEPT_WRITES);
    }

    /// Closes the views that no pinned peer reads.
    pub(super) fn close_unpinned(&mut self) {
        let pinned = self.pinned;
        self.open.retain(|view| view.is_of(pinned));
    }

    fn position(&self, slot: Slot) -> Option<usize> {
        self.open.iter().position(|view| view.mark.slot == slot)
    }

    /// Opens a view of these runs. If there are too many views, it replaces the one whose last request is oldest.
    fn open(&mut self, mark: CheckpointMeta, runs: Runs<F>) -> usize {
        let pinned = self.pinned;
        let unpinned = || self.open.iter().enumerate().filter(|(_, view)| !view.is_of(pinned));
        if unpinned().count() >= SNAPSHOT_VIEWS_MAX
            && let Some((oldest, _)) = unpinned().min_by_key(|(_, view)| view.used)
        {
            self.open.remove(oldest);
        }
        self.open.push(SnapshotView { mark, runs, used: self.writes, readers: ServerSet::NONE });
        self.open.len() - 1
    }
}

impl<F: Files> Checkpoint<F> {
    /// Sets the pinned peers: the views that they read from stay open; other views close as usual.
    pub fn pin(&mut self, peers: ServerSet) {
        self.views.pinned = peers;
    }

    /// Like [`part`](Checkpoint::part), for a peer that will request more chunks.
    pub fn part_for(
        &mut self,
        reader: ServerId,
        name: Option<&ChunkRequest>,
    ) -> Result<Option<SnapshotChunk>, CheckpointError> {
        let part = self.part(name)?;
        if let Some(part) = &part {
            let reader = ServerSet::only(reader);
            for view in &mut self.views.open {
                view.readers = view.readers.without(reader);
                if view.mark.slot == part.slot {
                    view.readers = view.readers.or(reader);
                }
            }
        }
        Ok(part)
    }

    /// The requested chunk of the state. If no chunk is requested, or that state is no longer here, the first chunk of
    /// the last checkpoint. None if there is no state yet.
    pub fn part(&mut self, name: Option<&ChunkRequest>) -> Result<Option<SnapshotChunk>, CheckpointError> {
        let mark = self.mark();
        if mark.slot == Slot(0) {
            return Ok(None);
        }
        // A request may name the last checkpoint although its view was closed, or this server has restarted.
        let is_here = |slot: Slot| slot == mark.slot || self.views.position(slot).is_some();
        let (slot, index, begin) = match name.filter(|name| is_here(name.slot)) {
            Some(name) => (name.slot, name.index, name.token.clone()),
            None => (mark.slot, 0, PartToken::first()),
        };
        let at = self.views.position(slot).unwrap_or_else(|| self.views.open(mark, self.runs.clone()));
        let (writes, part_bytes) = (self.views.writes, self.views.part_bytes);
        let view = &mut self.views.open[at];
        view.used = writes;
        view.chunk(index, &begin, part_bytes).map(Some)
    }
}

impl<F: Files> SnapshotView<F> {
    /// The chunk that begins here.
    fn chunk(&self, index: u32, begin: &PartToken, part_bytes: usize) -> Result<SnapshotChunk, CheckpointError> {
        let (mut pieces, mut next, mut room) = (Vec::new(), None, part_bytes);
        let mut merge = Merge::new(&self.runs, Place::from(begin))?;
        while let Some(piece) = merge.next_piece()? {
            if piece.size() > room && !pieces.is_empty() {
                next = Some(token_of(Place::of(&piece)));
                break;
            }
            room = room.saturating_sub(piece.size());
            pieces.push(piece);
        }
        let CheckpointMeta { slot, digest } = self.mark;
        Ok(SnapshotChunk { slot, digest, index, bytes: encode_chunk(&pieces).into(), next })
    }
}
