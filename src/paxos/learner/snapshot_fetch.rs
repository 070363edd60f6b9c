//! Snapshot transfer to a learner that is behind every peer's log.
//!
//! A learner that is asked for slots that its log no longer has answers with the first chunk of its durable checkpoint.
//! The receiver requests one chunk after the other and assembles them beside its current state. When the snapshot is
//! complete and its digest is right, it replaces the current state in one step, and never with an older one. The sender
//! continues to apply and serve; its checkpoint is read as of one slot.
//!
//! A missing chunk is requested again. If the sender has restarted meanwhile, or has dropped that snapshot, it starts
//! again with its current one. If the sender stays silent, the next peer is asked. (Van Renesse and Altinbuken, *Paxos
//! Made Moderately Complex*, section 4.2; *Paxos Made Live*, section 5.5, tells how much can go wrong in it.)
//!
//! [`SnapshotFetch`] assembles the chunks; the learner sends the requests and installs the complete snapshot.

use crate::paxos::{ChunkRequest, PartToken, Slot, SnapshotChunk, StateMachine, rules};
use crate::role::ServerId;

/// Number of requests for one chunk before another peer is asked.
const CHUNK_TRIES: u32 = 5;

/// A snapshot that is arriving.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct IncomingSnapshot<M> {
    from: ServerId,
    slot: Slot,
    digest: u64,
    /// The number of the next chunk.
    index: u32,
    token: PartToken,
    /// Number of requests for the next chunk.
    tries: u32,
    /// The chunks so far, loaded into a new state.
    state: M,
}

/// The snapshot that is arriving, if there is one. See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SnapshotFetch<M> {
    incoming: Option<IncomingSnapshot<M>>,
}

/// The result of taking a chunk.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum ChunkResult<M> {
    /// Nothing: the chunk arrived twice, or belongs to an abandoned snapshot. The caller must not start a timer for it.
    Nothing,
    /// The chunk was loaded; request the next one from the same peer.
    Fetch(ChunkRequest),
    /// The last chunk: the snapshot is complete and its digest is right.
    Whole(M),
    /// The snapshot is unusable, and was dropped.
    Useless,
}

impl<M: StateMachine> SnapshotFetch<M> {
    pub(super) fn new() -> SnapshotFetch<M> {
        SnapshotFetch { incoming: None }
    }

    /// Whether a snapshot is arriving.
    pub(super) fn is_coming(&self) -> bool {
        self.incoming.is_some()
    }

    /// SNAPSHOT: takes a chunk. `applied` is the last slot of the own state, and `empty` makes a state that has applied
    /// nothing.
    pub(super) fn take(
        &mut self,
        peer: ServerId,
        part: &SnapshotChunk,
        applied: Slot,
        empty: impl FnOnce() -> M,
    ) -> ChunkResult<M> {
        if !rules::may_install(part.slot, applied) {
            // The log has brought this learner further than the snapshot would.
            self.incoming = None;
            return ChunkResult::Useless;
        }
        let is_next = |incoming: &IncomingSnapshot<M>| {
            (incoming.from, incoming.slot, incoming.digest, incoming.index)
                == (peer, part.slot, part.digest, part.index)
        };
        let mut incoming = match self.incoming.take() {
            Some(incoming) if is_next(&incoming) => incoming,
            _ if part.index == 0 => IncomingSnapshot {
                from: peer,
                slot: part.slot,
                digest: part.digest,
                index: 0,
                token: PartToken::first(),
                tries: 0,
                state: empty(),
            },
            before => {
                self.incoming = before;
                return ChunkResult::Nothing;
            }
        };
        if incoming.state.load_chunk(&part.bytes).is_err() {
            return ChunkResult::Useless;
        }
        match &part.next {
            Some(token) => {
                let Some(index) = part.index.checked_add(1) else { return ChunkResult::Useless };
                (incoming.index, incoming.token, incoming.tries) = (index, token.clone(), 1);
                let name = incoming.part();
                self.incoming = Some(incoming);
                ChunkResult::Fetch(name)
            }
            None if incoming.state.digest() == part.digest => ChunkResult::Whole(incoming.state),
            None => ChunkResult::Useless,
        }
    }

    /// The next chunk has not arrived in time: returns the request to repeat and its receiver. `None` if no snapshot is
    /// arriving, or the tries are used up.
    pub(super) fn fetch_again(&mut self) -> Option<(ServerId, ChunkRequest)> {
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.tries < CHUNK_TRIES) else {
            self.incoming = None;
            return None;
        };
        incoming.tries += 1;
        Some((incoming.from, incoming.part()))
    }
}

impl<M> IncomingSnapshot<M> {
    /// The request for the next chunk.
    fn part(&self) -> ChunkRequest {
        ChunkRequest { slot: self.slot, index: self.index, token: self.token.clone() }
    }
}
