//! The keeper of a simulated server's checkpoint: the real one's rules, with events in place of its thread.
//!
//! The checkpoint itself is the real one, on a disk in memory: it is written in one moment of virtual time, some time after
//! it was asked for, and any of its operations may be the one in which the machine stops.

use std::collections::VecDeque;

use super::folder::Refusal;
use super::marks::Mark;
use super::nature::{Event, Nature};
use super::server::SimServer;
use crate::host::queue::Mail;
use crate::kv::{Changes, Kv};
use crate::paxos::{Learner, LearnerRequest, Message, PartName, Slot};
use crate::role::{Input, Server, Servers};
use crate::storage::checkpoint::{self, Checkpoint, CheckpointError};
use crate::storage::disk::MemoryFiles;
use crate::storage::identity::Identity;
use crate::trace::{Context, Digest, Event as LineEvent, RoleTag};

/// So many parts wait to be sent, as in the real one.
pub const PARTS_MAX: usize = 64;

/// What the keeper has to do.
pub enum Job {
    /// Write a checkpoint.
    Write(checkpoint::Mark, Changes),
    /// Send a part of one.
    Part(Server, Option<PartName>),
}

/// The keeper.
pub struct Keeper {
    checkpoint: Checkpoint<MemoryFiles>,
    jobs: VecDeque<Job>,
    is_busy: bool,
}

impl Keeper {
    /// How much it has to do.
    pub fn waiting(&self) -> usize {
        self.jobs.len()
    }

    /// The durable checkpoint holds every slot up to this one.
    pub fn slot(&self) -> Slot {
        self.checkpoint.mark().slot
    }
}

impl SimServer {
    /// Opens the checkpoint. One that cannot be believed is put aside, if there is another server to get the state from.
    pub fn open_checkpoint(&mut self, nature: &mut Nature) -> Result<(), Refusal> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let (files, storage) = (self.folder.checkpoint.clone(), process.identity.storage_id());
        let open = || {
            Checkpoint::open(
                files.clone(),
                storage,
                self.snapshot_bytes,
                Kv::with_sessions_at_most(self.limits.sessions),
            )
        };
        let opened = match open() {
            Err(error @ CheckpointError::Damaged { .. }) if self.cluster.len() > 1 => {
                let (me, harmed) = (self.me, self.is_checkpoint_harmed);
                nature
                    .ghost
                    .require(20, harmed, || format!("{me} puts a checkpoint aside that nobody has harmed: {error}"));
                nature.mark(Mark::CheckpointRebuilt);
                nature.ghost.checkpoint_lost(self.me);
                checkpoint::put_aside(&files)?;
                open()?
            }
            opened => opened?,
        };
        let (checkpoint, _) = opened;
        process.keeper = Some(Keeper { checkpoint, jobs: VecDeque::new(), is_busy: false });
        Ok(())
    }

    /// How far the checkpoint is that a new process would find.
    pub fn checkpoint_slot(&self, identity: &Identity<MemoryFiles>) -> Slot {
        let state = Kv::with_sessions_at_most(self.limits.sessions);
        let files = self.folder.checkpoint.fork();
        let opened = Checkpoint::open(files, identity.storage_id(), self.snapshot_bytes, state);
        opened.map_or(Slot(0), |(checkpoint, _)| checkpoint.mark().slot)
    }

    /// The state as it was last written, after all that is to be written now.
    pub fn load_checkpoint(&mut self, nature: &mut Nature) -> Result<(Slot, Kv), Refusal> {
        loop {
            let keeper = self.process.as_mut().and_then(|process| process.keeper.as_mut());
            let is_write = |job: &Job| matches!(job, Job::Write(..));
            match keeper.and_then(|keeper| keeper.jobs.iter().position(is_write).and_then(|at| keeper.jobs.remove(at)))
            {
                Some(job) => self.do_job(nature, job),
                None => break,
            }
        }
        let empty = Kv::with_sessions_at_most(self.limits.sessions);
        let me = self.me;
        let Some(keeper) = self.process.as_mut().and_then(|process| process.keeper.as_mut()) else {
            return Ok((Slot(0), empty));
        };
        let state = keeper.checkpoint.load(empty)?;
        let checkpoint::Mark { slot, digest } = keeper.checkpoint.mark();
        nature.ghost.checkpoint_loaded(me, slot, digest);
        if slot > Slot(0) {
            nature.mark(Mark::CheckpointLoaded);
        }
        Ok((slot, state))
    }

    /// Gives the keeper something to do.
    pub fn ask_keeper(&mut self, nature: &mut Nature, job: Job) {
        let (me, sync) = (self.me, self.sync.clone());
        let Some(process) = &mut self.process else { return };
        let number = process.number;
        let Some(keeper) = &mut process.keeper else { return };
        if matches!(job, Job::Part(..)) && keeper.jobs.len() >= PARTS_MAX {
            return;
        }
        keeper.jobs.push_back(job);
        if !std::mem::replace(&mut keeper.is_busy, true) {
            let delay = 3 * nature.time(&sync);
            nature.after(delay, Event::Keeper { server: me, process: number });
        }
    }

    /// The keeper has had the time that its next job takes.
    pub fn keeper_works(&mut self, nature: &mut Nature, number: u64) {
        let (me, sync) = (self.me, self.sync.clone());
        let Some(process) = self.process.as_mut().filter(|process| process.number == number) else { return };
        let Some(keeper) = &mut process.keeper else { return };
        let job = keeper.jobs.pop_front();
        keeper.is_busy = !keeper.jobs.is_empty();
        if keeper.is_busy {
            let delay = 3 * nature.time(&sync);
            nature.after(delay, Event::Keeper { server: me, process: number });
        }
        job.into_iter().for_each(|job| self.do_job(nature, job));
    }

    fn do_job(&mut self, nature: &mut Nature, job: Job) {
        match job {
            Job::Write(mark, changes) => self.write_checkpoint(nature, mark, &changes),
            Job::Part(to, name) => self.send_part(nature, to, name.as_ref()),
        }
    }

    fn write_checkpoint(&mut self, nature: &mut Nature, mark: checkpoint::Mark, changes: &Changes) {
        let me = self.me;
        let Some(process) = &mut self.process else { return };
        let Some(keeper) = &mut process.keeper else { return };
        let is_durable = match keeper.checkpoint.write(mark, changes) {
            Ok(()) => true,
            Err(CheckpointError::Full { .. }) => {
                nature.mark(Mark::CheckpointShed);
                false
            }
            Err(error) => {
                nature.ghost.checkpoint_in_doubt(me, mark.slot);
                process.fatal = Some(format!("stable storage failed: {error}"));
                return;
            }
        };
        if is_durable {
            nature.mark(Mark::CheckpointWritten);
            nature.ghost.checkpoint_durable(me, mark.slot, mark.digest);
            let event = LineEvent::Snapshot { slot: mark.slot, digest: Digest(mark.digest), from: None };
            self.line(RoleTag::Server, event);
        }
        let request = LearnerRequest::CheckpointEnded { slot: mark.slot, is_durable };
        let mail = Mail { context: Context::default(), input: Input::Request(request), size: 0 };
        self.post_reserved::<Learner<Kv>>(nature, mail);
    }

    fn send_part(&mut self, nature: &mut Nature, to: Server, name: Option<&PartName>) {
        let applied = self.applied().map_or(Slot(0), |(slot, _)| slot);
        let Some(process) = &mut self.process else { return };
        let Some(keeper) = &mut process.keeper else { return };
        let message = match keeper.checkpoint.part(name) {
            Ok(Some(part)) => {
                nature.mark(if name.is_some() { Mark::SnapshotInParts } else { Mark::SnapshotOffered });
                Message::Snapshot(part)
            }
            Ok(None) => Message::Entries { entries: Vec::new(), applied },
            Err(error) => {
                process.fatal = Some(format!("stable storage failed: {error}"));
                return;
            }
        };
        self.send(nature, Servers::only(to), &message.into(), &Context::default());
    }

    /// The process dies: a checkpoint under way stops after some of its operations.
    pub fn interrupt_keeper(&mut self, nature: &mut Nature) {
        let me = self.me;
        let Some(keeper) = self.process.as_mut().and_then(|process| process.keeper.as_mut()) else { return };
        let Some(Job::Write(mark, changes)) = keeper.jobs.pop_front() else { return };
        let operation = nature.random.within(0..=12);
        self.folder.checkpoint.fail(operation, crate::storage::disk::Failure::Stop);
        nature.mark(Mark::KilledInCheckpoint);
        match keeper.checkpoint.write(mark, &changes) {
            Ok(()) => nature.ghost.checkpoint_durable(me, mark.slot, mark.digest),
            Err(_) => nature.ghost.checkpoint_in_doubt(me, mark.slot),
        }
    }
}

impl From<CheckpointError> for Refusal {
    fn from(error: CheckpointError) -> Refusal {
        match error {
            CheckpointError::Io { .. } => Refusal::Disk(error.to_string()),
            CheckpointError::Full { .. } => Refusal::NoRoom(error.to_string()),
            _ => Refusal::Damaged(error.to_string()),
        }
    }
}
