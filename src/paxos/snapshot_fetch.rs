//! A learner that is further behind than anybody's log reaches gets the state instead of the log.
//!
//! Whoever is asked for slots that it no longer has answers with the first part of its durable checkpoint. The receiver
//! asks for one part after the other, puts them together beside the state that it has, and takes the new one in its
//! place when it is whole and has the digest that it should have: in one step, and never for one that is older. The
//! sender applies and serves as before; its checkpoint is read as of one slot.
//!
//! A part that does not come is asked for again. If the sender has been started again meanwhile, or has let that state
//! go, it begins anew with the state that it has. If it stays silent, the next peer is asked. (Van Renesse and
//! Altinbuken, *Paxos Made Moderately Complex*, section 4.2; *Paxos Made Live*, section 5.5, tells how much can go
//! wrong in it.)
//!
//! [`SnapshotFetch`] puts the parts together; the learner sends the questions, and takes the state that is whole.

use super::{ChunkRequest, PartToken, Slot, SnapshotChunk, StateMachine, rules};
use crate::role::ServerId;

/// A part is asked for so many times before another peer is.
const CHUNK_TRIES: u32 = 5;

/// A state that is coming in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct IncomingSnapshot<M> {
    from: ServerId,
    slot: Slot,
    digest: u64,
    /// The part to come.
    index: u32,
    token: PartToken,
    /// How often it was asked for.
    tries: u32,
    /// What has come, put together.
    state: M,
}

/// The state that is coming in, if one is. See the head of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SnapshotFetch<M> {
    incoming: Option<IncomingSnapshot<M>>,
}

/// What a part has brought.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum ChunkResult<M> {
    /// Nothing: it came twice, or is of a state that was begun anew. Nobody is waited for because of it: no timer runs.
    Nothing,
    /// It has brought its share, and the sender is to be asked for the next part.
    Fetch(ChunkRequest),
    /// The last of a state, which has the digest that it should have.
    Whole(M),
    /// The state is of no use. Nothing is coming in any more.
    Useless,
}

impl<M: StateMachine> SnapshotFetch<M> {
    pub(super) fn new() -> SnapshotFetch<M> {
        SnapshotFetch { incoming: None }
    }

    /// Whether a state is coming in.
    pub(super) fn is_coming(&self) -> bool {
        self.incoming.is_some()
    }

    /// SNAPSHOT: a part of a state. `applied` is the last slot applied to the own state, and `empty` makes one that has
    /// applied nothing.
    pub(super) fn take(
        &mut self,
        peer: ServerId,
        part: SnapshotChunk,
        applied: Slot,
        empty: impl FnOnce() -> M,
    ) -> ChunkResult<M> {
        if !rules::may_install(part.slot, applied) {
            // The log was faster.
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
        match part.next {
            Some(token) => {
                let Some(index) = part.index.checked_add(1) else { return ChunkResult::Useless };
                (incoming.index, incoming.token, incoming.tries) = (index, token, 1);
                let name = incoming.part();
                self.incoming = Some(incoming);
                ChunkResult::Fetch(name)
            }
            None if incoming.state.digest() == part.digest => ChunkResult::Whole(incoming.state),
            None => ChunkResult::Useless,
        }
    }

    /// The part to come has not come in time: it is asked for again, from whom it was. None if there is no state under
    /// way, or no hope for it any more.
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
    /// The part to come.
    fn part(&self) -> ChunkRequest {
        ChunkRequest { slot: self.slot, index: self.index, token: self.token.clone() }
    }
}
