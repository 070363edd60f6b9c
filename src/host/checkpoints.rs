//! The checkpointer: it writes checkpoints concurrently with all other work, reads them back, and sends chunks of them.
//!
//! Only a learner that begins an incarnation waits for it. Jobs of the own learner go before those of peers, and peers
//! before clients: a server that is behind is useless to its clients.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::core::{Fatal, ServerCore};
use super::env::{Env, Observation};
use super::limits::ClientConnection;
use super::mail_queue::Delivery;
use super::pending::RequestId;
use super::rate_limit::RateLimit;
use super::recovery::RecoveryError;
use super::roles::request_of_learner;
use crate::kv::{DeltaScope, Kv, StateDelta, without_sessions};
use crate::net::{Reply, StatePart};
use crate::paxos::{ChunkRequest, Learner, LearnerRequest, Message, Slot, SnapshotChunk};
use crate::role::{Input, ServerId, ServerSet};
use crate::storage::checkpoint::{
    Checkpoint, CheckpointError, CheckpointMeta, CheckpointOptions, QUARANTINED, quarantine,
};
use crate::storage::disk::Files;
use crate::trace::{Digest, Event, Speaker, TraceContext};

/// A write is refused while this many jobs of the own learner are queued, and a chunk of a snapshot is dropped.
/// Checkpoints are far apart: more than one or two queued writes mean a slow disk.
pub const WRITES_MAX: usize = 16;
/// Maximum number of queued chunks for peers; further requests are dropped, and peers ask again.
pub const PARTS_MAX: usize = 64;
/// Maximum number of queued chunks for clients.
pub const CLIENT_PARTS_MAX: usize = 16;
/// At most this many checkpoints per second are made because clients want newer ones. Each is work for the whole
/// server.
pub const CLIENT_CHECKPOINTS_PER_SECOND: u32 = 1;

/// The state in the last checkpoint, and its slot.
pub type LoadedState = (Slot, Kv);

/// The queue of the checkpointer's jobs. Any thread may add to it.
#[derive(Debug)]
pub struct CheckpointQueue {
    jobs: Mutex<JobQueues>,
    client_checkpoints: RateLimit,
    /// The disk space that the next checkpoint may need, in bytes.
    growth: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct JobQueues {
    own: VecDeque<CheckpointJob>,
    of_peers: VecDeque<(ServerId, Option<ChunkRequest>)>,
    of_clients: VecDeque<ChunkJob>,
    /// Peers that fetch a snapshot: the checkpoint that they read stays readable.
    pinned: ServerSet,
}

/// A job of the own learner.
#[derive(Debug)]
enum CheckpointJob {
    Load,
    Chunk(SnapshotChunk),
    Write(CheckpointMeta, StateDelta),
    Fence(Slot),
}

/// A chunk that a client waits for.
#[derive(Debug)]
struct ChunkJob {
    request_id: RequestId,
    name: Option<ChunkRequest>,
    at_least: Slot,
}

/// The next job, by its origin.
enum NextJob {
    Own(CheckpointJob),
    OfPeer(ServerId, Option<ChunkRequest>),
    OfClient(ChunkJob),
}

impl Default for CheckpointQueue {
    fn default() -> CheckpointQueue {
        CheckpointQueue {
            jobs: Mutex::default(),
            client_checkpoints: RateLimit::new(CLIENT_CHECKPOINTS_PER_SECOND),
            growth: Arc::default(),
        }
    }
}

impl CheckpointQueue {
    /// A learner begins an incarnation, and waits for the state in the last checkpoint.
    pub fn load(&self) {
        self.lock().own.push_back(CheckpointJob::Load);
    }

    /// Queues a write of changes. False if too many jobs are queued: then the changes are not written.
    pub fn write(&self, mark: CheckpointMeta, changes: StateDelta) -> bool {
        let mut jobs = self.lock();
        let has_space = jobs.own.len() < WRITES_MAX;
        if has_space {
            jobs.own.push_back(CheckpointJob::Write(mark, changes));
        }
        has_space
    }

    /// Queues a chunk of a snapshot to be written as it comes. If too many jobs are queued it is dropped; then the
    /// whole state is written later.
    pub fn keep_chunk(&self, chunk: SnapshotChunk) {
        let mut jobs = self.lock();
        if jobs.own.len() < WRITES_MAX {
            jobs.own.push_back(CheckpointJob::Chunk(chunk));
        }
    }

    /// Marks the checkpoint as divergent after `slot`: no later incarnation may begin with it.
    pub fn fence(&self, slot: Slot) {
        self.lock().own.push_back(CheckpointJob::Fence(slot));
    }

    /// From now on, the snapshots that these peers read are kept readable, and no others.
    pub fn pin(&self, peers: ServerSet) {
        self.lock().pinned = peers;
    }

    /// The disk space that the next checkpoint may need, in bytes: the journal on the same disk leaves it free.
    pub fn growth(&self) -> Arc<AtomicU64> {
        self.growth.clone()
    }

    /// Queues a chunk for a peer; dropped if too many are queued.
    pub fn send_chunk(&self, to: ServerId, name: Option<ChunkRequest>) {
        let mut jobs = self.lock();
        if jobs.of_peers.len() < PARTS_MAX {
            jobs.of_peers.push_back((to, name));
        }
    }

    /// Queues a chunk for a client, of a checkpoint that holds every slot up to `at_least`; false if too many are
    /// queued.
    pub fn queue_client_chunk(&self, request_id: RequestId, name: Option<ChunkRequest>, at_least: Slot) -> bool {
        let mut jobs = self.lock();
        let has_space = jobs.of_clients.len() < CLIENT_PARTS_MAX;
        if has_space {
            jobs.of_clients.push_back(ChunkJob { request_id, name, at_least });
        }
        has_space
    }

    /// Whether no job is queued.
    pub fn is_empty(&self) -> bool {
        let jobs = self.lock();
        jobs.own.is_empty() && jobs.of_peers.is_empty() && jobs.of_clients.is_empty()
    }

    /// Whether the next job is to write something.
    pub fn awaits_write(&self) -> bool {
        matches!(self.lock().own.front(), Some(CheckpointJob::Write(..) | CheckpointJob::Chunk(_)))
    }

    /// Number of queued jobs.
    pub fn len(&self) -> usize {
        let jobs = self.lock();
        jobs.own.len() + jobs.of_peers.len() + jobs.of_clients.len()
    }

    fn next(&self) -> Option<NextJob> {
        let mut jobs = self.lock();
        let own = jobs.own.pop_front().map(NextJob::Own);
        let of_peer = own.or_else(|| jobs.of_peers.pop_front().map(|(to, name)| NextJob::OfPeer(to, name)));
        of_peer.or_else(|| jobs.of_clients.pop_front().map(NextJob::OfClient))
    }

    fn lock(&self) -> MutexGuard<'_, JobQueues> {
        // Every change is one step.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the jobs of the queue. There is one checkpointer per server.
#[derive(Debug)]
pub struct Checkpointer<F: Files> {
    checkpoint: Checkpoint<F>,
    empty: Kv,
    /// The state read when the checkpoint was opened: the learner's first incarnation need not read it again.
    first: Option<Kv>,
    has_said_full: bool,
    has_said_unmerged: bool,
}

impl<F: Files> Checkpointer<F> {
    /// Opens the checkpoint of a data directory. A corrupt checkpoint is quarantined if another server can provide the
    /// state; returns true if that happened.
    pub fn open<C: ClientConnection>(
        core: &ServerCore<C>,
        files: F,
        storage: u64,
    ) -> Result<(Checkpointer<F>, bool), CheckpointError> {
        let sizes = &core.config.sizes;
        let empty = Kv::with_sessions_at_most(sizes.sessions);
        let (part_bytes, merge_bytes) = (sizes.snapshot_bytes, sizes.merge_bytes);
        let options = CheckpointOptions { owner: storage, part_bytes, merge_bytes };
        let open = || Checkpoint::open(files.clone(), options, empty.clone());
        let (opened, is_rebuilt) = match open() {
            Err(error @ CheckpointError::Corrupt { .. }) if core.config.cluster.len() > 1 => {
                let why = format!(
                    "{error}. The checkpoint is quarantined (*{QUARANTINED}), and the replica is restored from the \
                     other servers"
                );
                core.trace_fault("checkpoint", "corrupt", &why);
                quarantine(&files)?;
                (open()?, true)
            }
            opened => (opened?, false),
        };
        let (checkpoint, state) = opened;
        core.shared_status.update(|shown| shown.checkpoint = checkpoint.mark().slot);
        let (first, has_said_full, has_said_unmerged) = (Some(state), false, false);
        let checkpointer = Checkpointer { checkpoint, empty, first, has_said_full, has_said_unmerged };
        checkpointer.publish_growth(core);
        Ok((checkpointer, is_rebuilt))
    }

    fn publish_growth<C: ClientConnection>(&self, core: &ServerCore<C>) {
        core.checkpoints.growth.store(self.checkpoint.growth_bytes(), Ordering::Relaxed);
    }

    /// The slot and the digest of the checkpoint.
    pub fn mark(&self) -> CheckpointMeta {
        self.checkpoint.mark()
    }

    /// Whether there is something to do besides the queued jobs.
    pub fn has_work(&self) -> bool {
        self.checkpoint.has_work()
    }

    /// Runs the next job. If there is none, merges some files of the checkpoint. Returns the state if the job was to
    /// load it.
    pub fn run_one<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) -> Result<Option<LoadedState>, Fatal> {
        self.checkpoint.pin(core.checkpoints.lock().pinned);
        match core.checkpoints.next() {
            Some(NextJob::Own(CheckpointJob::Load)) => return self.load(env).map(Some),
            Some(NextJob::Own(CheckpointJob::Chunk(chunk))) => self.checkpoint.take_chunk(&chunk).map_err(fatal)?,
            Some(NextJob::Own(CheckpointJob::Write(mark, changes))) => self.write(core, env, mark, &changes)?,
            Some(NextJob::Own(CheckpointJob::Fence(slot))) => self.fence(core, slot),
            Some(NextJob::OfPeer(to, name)) => self.send_chunk(core, env, to, name.as_ref())?,
            Some(NextJob::OfClient(wanted)) => self.queue_client_chunk(core, env, wanted)?,
            None => self.merge_some(core, env)?,
        }
        Ok(None)
    }

    fn merge_some<E: Env>(&mut self, core: &ServerCore<E::Connection>, env: &E) -> Result<(), Fatal> {
        let (files, _) = self.checkpoint.size();
        match self.checkpoint.merge_some() {
            Err(CheckpointError::Full { cause }) => {
                if !std::mem::replace(&mut self.has_said_unmerged, true) {
                    let why = format!("no disk space to merge the checkpoint ({cause}). Free some disk space");
                    core.trace_fault("disk", "full", &why);
                }
            }
            merged => merged.map_err(fatal)?,
        }
        if self.checkpoint.size().0 < files {
            env.observe(Observation::CheckpointMerged);
            self.has_said_unmerged = false;
        }
        self.publish_growth(core);
        Ok(())
    }

    fn load<E: Env>(&mut self, env: &E) -> Result<LoadedState, Fatal> {
        // The learner of that snapshot has crashed.
        self.checkpoint.drop_arriving();
        let state = match self.first.take() {
            Some(state) => state,
            None => self.checkpoint.load(self.empty.clone()).map_err(fatal)?,
        };
        let mark = self.checkpoint.mark();
        env.observe(Observation::CheckpointLoaded(mark));
        Ok((mark.slot, state))
    }

    fn write<E: Env>(
        &mut self,
        core: &ServerCore<E::Connection>,
        env: &E,
        mark: CheckpointMeta,
        changes: &StateDelta,
    ) -> Result<(), Fatal> {
        // After this write, the state read at the start is out of date.
        self.first = None;
        let is_durable = self.write_all(core, env, mark, changes)?;
        self.publish_growth(core);
        if is_durable {
            core.shared_status.update(|shown| shown.checkpoint = mark.slot);
            let event = Event::Snapshot { slot: mark.slot, digest: Digest(mark.digest), from: None };
            core.trace_line(Speaker::Server, &TraceContext::default(), event);
        }
        // Dropping is safe if the learner has crashed meanwhile: its next incarnation finds the checkpoint on the disk.
        request_of_learner(core, env, LearnerRequest::CheckpointDone { slot: mark.slot, is_durable });
        Ok(())
    }

    /// Writes the changes. If they lead on from a snapshot, the snapshot becomes the checkpoint first. Returns false if
    /// nothing was written, or only the snapshot.
    fn write_all<E: Env>(
        &mut self,
        core: &ServerCore<E::Connection>,
        env: &E,
        mark: CheckpointMeta,
        changes: &StateDelta,
    ) -> Result<bool, Fatal> {
        if let DeltaScope::SinceSnapshot { digest } = changes.scope {
            let Some(snapshot) = self.checkpoint.arrived(digest) else { return Ok(false) };
            let is_durable = self.written(core, env, snapshot, Checkpoint::install)?;
            if !is_durable || snapshot == mark {
                return Ok(is_durable);
            }
        }
        self.written(core, env, mark, |checkpoint| checkpoint.write(mark, changes))
    }

    /// Writes this checkpoint. Returns false if the disk is full.
    fn written<E: Env>(
        &mut self,
        core: &ServerCore<E::Connection>,
        env: &E,
        mark: CheckpointMeta,
        write: impl FnOnce(&mut Checkpoint<F>) -> Result<(), CheckpointError>,
    ) -> Result<bool, Fatal> {
        let is_durable = match write(&mut self.checkpoint) {
            Ok(()) => true,
            Err(CheckpointError::Full { cause }) => {
                if !self.has_said_full {
                    let why = format!(
                        "no disk space for the checkpoint ({cause}): the server keeps trying. Free some disk space"
                    );
                    core.trace_fault("disk", "full", &why);
                }
                false
            }
            Err(error) => {
                env.observe(Observation::CheckpointInDoubt(mark));
                return Err(fatal(error));
            }
        };
        self.has_said_full = !is_durable;
        env.observe(if is_durable { Observation::CheckpointDurable(mark) } else { Observation::CheckpointShed });
        Ok(is_durable)
    }

    fn fence<C: ClientConnection>(&self, core: &ServerCore<C>, slot: Slot) {
        if let Err(error) = self.checkpoint.fence(slot) {
            let why = format!("{error}. Move the directory checkpoint away before you restart this server");
            core.trace_fault("checkpoint", "fenced", &why);
        }
    }

    fn send_chunk<E: Env>(
        &mut self,
        core: &ServerCore<E::Connection>,
        env: &E,
        to: ServerId,
        name: Option<&ChunkRequest>,
    ) -> Result<(), Fatal> {
        let message = match self.checkpoint.part_for(to, name).map_err(fatal)? {
            Some(part) => {
                env.observe(Observation::PartSent { is_first: name.is_none() });
                Message::Snapshot(part)
            }
            // A learner that is down has applied nothing that it could send.
            None => {
                let applied = if core.learner.is_open() { core.shared_status.read().applied } else { Slot(0) };
                Message::Entries { entries: Vec::new(), applied }
            }
        };
        core.send(env, ServerSet::only(to), message.into(), TraceContext::default());
        env.flush_peers();
        Ok(())
    }

    /// If no checkpoint has the chunk yet, one is requested, and the client asks again.
    fn queue_client_chunk<E: Env>(
        &mut self,
        core: &ServerCore<E::Connection>,
        env: &E,
        ChunkJob { request_id, name, at_least }: ChunkJob,
    ) -> Result<(), Fatal> {
        let is_there = name.is_some() || self.checkpoint.mark().slot >= at_least;
        let part = if is_there { self.checkpoint.part(name.as_ref()).map_err(fatal)? } else { None };
        let part = part.map(for_client).transpose()?;
        if part.is_none() && core.checkpoints.client_checkpoints.allow(env.now()) {
            let input = Input::Request(LearnerRequest::RequestCheckpoint);
            let mail = Delivery::from_within(TraceContext::default(), input, 0);
            // Dropping is safe if the learner is down or busy: the client asks again.
            let _ = core.enqueue::<Learner<Kv>, E>(env, mail);
        }
        core.pending.reply_to_chunk_request(request_id, Reply::Chunk(part));
        core.flush_replies(env);
        Ok(())
    }
}

impl RecoveryError {
    /// The meaning of a checkpoint error for a process that starts.
    pub fn of(error: &CheckpointError, why: String) -> RecoveryError {
        match error {
            CheckpointError::Full { .. } => RecoveryError::NoSpace(why),
            CheckpointError::Io { .. } => RecoveryError::Failed(why),
            // Only a server that is alone does not quarantine it.
            CheckpointError::Corrupt { .. } => RecoveryError::Broken(format!(
                "{why}. No other server has the state: restore a backup into another directory (paxos-server restore)"
            )),
            _ => RecoveryError::Broken(why),
        }
    }
}

impl From<CheckpointError> for RecoveryError {
    fn from(error: CheckpointError) -> RecoveryError {
        RecoveryError::of(&error, error.to_string())
    }
}

fn fatal(error: CheckpointError) -> Fatal {
    Fatal(format!("stable storage failed: {error}"))
}

/// The form of a chunk for clients, without sessions.
fn for_client(part: SnapshotChunk) -> Result<StatePart, Fatal> {
    let (bytes, left_out) = without_sessions(&part.bytes)
        .map_err(|error| Fatal(format!("a chunk of this server's checkpoint cannot be decoded: {error}")))?;
    Ok(StatePart { part: SnapshotChunk { bytes: bytes.into(), ..part }, left_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_jobs_take_no_places_of_peers_and_run_after_them() {
        let queue = CheckpointQueue::default();
        let given = (0..1_000).filter(|request_id| queue.queue_client_chunk(*request_id, None, Slot(0))).count();
        assert_eq!(given, CLIENT_PARTS_MAX, "a flood of clients has a bound");
        (0..PARTS_MAX + 5).for_each(|_| queue.send_chunk(ServerId(2), None));
        assert_eq!(queue.len(), CLIENT_PARTS_MAX + PARTS_MAX);
        queue.load();
        let next = || queue.next().unwrap();
        assert!(matches!(next(), NextJob::Own(CheckpointJob::Load)), "the own learner goes first");
        assert!((0..PARTS_MAX).all(|_| matches!(next(), NextJob::OfPeer(ServerId(2), None))));
        // A peer that asks meanwhile does not wait for the clients that asked before it.
        assert!(matches!(next(), NextJob::OfClient(ChunkJob { request_id: 0, .. })));
        queue.send_chunk(ServerId(3), None);
        assert!(matches!(next(), NextJob::OfPeer(ServerId(3), None)));
        assert!(matches!(next(), NextJob::OfClient(ChunkJob { request_id: 1, .. })));
        assert!(queue.queue_client_chunk(5_000, None, Slot(0)), "there is room again");
    }
}
