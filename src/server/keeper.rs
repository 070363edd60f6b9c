//! The keeper of the checkpoint: a thread that writes the state down and reads it back, so that nobody else waits for it.
//!
//! The learner hands over what has changed and goes on; when it is durable it hears so. A new life of the learner gets the
//! state as it was last written, after what its predecessor had handed over. Peers that are far behind, and clients that
//! make a backup, get it in parts, when nothing else is to be done.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::house::House;
use super::lives::Unborn;
use super::mailbox::Mail;
use crate::kv::{Changes, Kv, without_sessions};
use crate::net::StatePart;
use crate::paxos::{LearnerRequest, Message, PartName, Slot, SnapshotPart};
use crate::role::{Input, Server, Servers};
use crate::storage::checkpoint::{self, Checkpoint, CheckpointError, Mark, PART_BYTES};
use crate::storage::disk::RealFiles;
use crate::storage::{DataFolder, checkpoint::put_aside};
use crate::trace::{Context, Digest, Event, RoleTag};

/// What the learner asks waits here: at most one checkpoint is under way, and one life begins.
const JOBS_MAX: usize = 16;
/// Parts that others ask for wait here; more are dropped, and asked for again.
const PARTS_MAX: usize = 64;

/// The state as it was last written.
pub type Loaded = (Slot, Kv);

/// Where the keeper takes orders.
pub struct Keeper {
    jobs: Sender<Job>,
    parts: Sender<Part>,
}

enum Job {
    Load(Sender<Loaded>),
    Write(Mark, Changes),
    Fence(Slot),
}

/// A part that somebody wants.
enum Part {
    OfPeer { to: Server, name: Option<PartName> },
    OfClient { name: Option<PartName>, at_least: Slot, reply: Sender<Option<StatePart>> },
}

impl Keeper {
    /// Opens the checkpoint of a data folder and starts the keeper's thread. A checkpoint that cannot be believed is put
    /// aside, if there is another server to get the state from.
    pub fn start(house: &Arc<House>, folder: &DataFolder) -> Result<(), Unborn> {
        let files = folder.checkpoint_files()?;
        let storage = folder.storage_id();
        let (checkpoint, state) = open(house, files, storage).map_err(|error| {
            let why = format!("data folder {}: {error}", folder.path().display());
            if matches!(error, CheckpointError::Full { .. }) { Unborn::NoRoom(why) } else { Unborn::Broken(why) }
        })?;
        let (jobs, job) = bounded(JOBS_MAX);
        let (parts, part) = bounded(PARTS_MAX);
        house.board.update(|shown| shown.checkpoint = checkpoint.mark().slot);
        let at_work = AtWork { house: house.clone(), checkpoint, first: Some(state), said_full: false };
        let spawned = std::thread::Builder::new().name("keeper".to_string()).spawn(move || at_work.run(&job, &part));
        spawned.map_err(|error| Unborn::Broken(format!("cannot start the thread of the checkpoint: {error}")))?;
        // Set once: a server has one keeper.
        let _ = house.keeper.set(Keeper { jobs, parts });
        Ok(())
    }

    /// The state as it was last written; waits until it is read. None if the server is about to end.
    pub fn load(&self) -> Option<Loaded> {
        let (reply, loaded) = bounded(1);
        self.jobs.send(Job::Load(reply)).ok()?;
        loaded.recv().ok()
    }

    /// Has changes written. False if too much is under way: they are not.
    pub fn write(&self, mark: Mark, changes: Changes) -> bool {
        self.jobs.try_send(Job::Write(mark, changes)).is_ok()
    }

    /// The state is wrong: a later life of this server must not begin with it either.
    pub fn fence(&self, slot: Slot) {
        // Nobody else asks for anything by now.
        let _ = self.jobs.try_send(Job::Fence(slot));
    }

    /// Sends a part of the state to a peer; dropped if too many are wanted.
    pub fn send_part(&self, to: Server, name: Option<PartName>) {
        let _ = self.parts.try_send(Part::OfPeer { to, name });
    }

    /// A part of a state that holds every slot up to `at_least`: None if there is none yet, or nothing came until then.
    pub fn part(&self, name: Option<PartName>, at_least: Slot, until: Instant) -> Option<StatePart> {
        let (reply, part) = bounded(1);
        self.parts.try_send(Part::OfClient { name, at_least, reply }).ok()?;
        part.recv_deadline(until).ok().flatten()
    }
}

/// Opens and reads a checkpoint.
fn open(house: &House, files: RealFiles, storage: u64) -> Result<(Checkpoint<RealFiles>, Kv), CheckpointError> {
    match Checkpoint::open(files.clone(), storage, PART_BYTES, Kv::default()) {
        Err(error @ CheckpointError::Damaged { .. }) if house.cluster.len() > 1 => {
            let why = format!(
                "{error}. It is put aside as {}, and the state comes from the other servers",
                checkpoint::ASIDE_FILE
            );
            house.tell_fault("checkpoint", "damaged", &why);
            put_aside(&files)?;
            Checkpoint::open(files, storage, PART_BYTES, Kv::default())
        }
        opened => opened,
    }
}

/// The keeper's thread.
struct AtWork {
    house: Arc<House>,
    checkpoint: Checkpoint<RealFiles>,
    /// What was read when it was opened: the first life of the learner need not wait for it again.
    first: Option<Kv>,
    said_full: bool,
}

impl AtWork {
    fn run(mut self, jobs: &Receiver<Job>, parts: &Receiver<Part>) {
        loop {
            // The own learner goes before others.
            select_biased! {
                recv(jobs) -> job => match job {
                    Ok(Job::Load(reply)) => self.load(&reply),
                    Ok(Job::Write(mark, changes)) => self.write(mark, &changes),
                    Ok(Job::Fence(slot)) => self.fence(slot),
                    Err(_) => return,
                },
                recv(parts) -> part => match part {
                    Ok(part) => self.part(part),
                    Err(_) => return,
                },
            }
        }
    }

    fn load(&mut self, reply: &Sender<Loaded>) {
        let state = match self.first.take() {
            Some(state) => state,
            None => match self.checkpoint.load(Kv::default()) {
                Ok(state) => state,
                Err(error) => self.house.fatal(&format!("stable storage failed: {error}")),
            },
        };
        // Whoever asked may have gone.
        let _ = reply.send((self.checkpoint.mark().slot, state));
    }

    fn write(&mut self, mark: Mark, changes: &Changes) {
        // Others may have written since: what was read then is old.
        self.first = None;
        let is_durable = match self.checkpoint.write(mark, changes) {
            Ok(()) => true,
            Err(CheckpointError::Full { cause }) => {
                if !self.said_full {
                    let why = format!(
                        "there is no room for the checkpoint ({cause}): tried again until there is. Free some space"
                    );
                    self.house.tell_fault("disk", "full", &why);
                }
                false
            }
            Err(error) => self.house.fatal(&format!("stable storage failed: {error}")),
        };
        self.said_full = !is_durable;
        if is_durable {
            self.house.board.update(|shown| shown.checkpoint = mark.slot);
            let event = Event::Snapshot { slot: mark.slot, digest: Digest(mark.digest), from: None };
            self.house.line(RoleTag::Server, &Context::default(), event);
        }
        let input = Input::Request(LearnerRequest::CheckpointEnded { slot: mark.slot, is_durable });
        // If the learner has died meanwhile, its next life finds it on the disk.
        let _ = self.house.learner.post_reserved(Mail { context: Context::default(), input, size: 0 });
    }

    fn fence(&self, slot: Slot) {
        if let Err(error) = self.checkpoint.fence(slot) {
            let why = format!("{error}. Move the folder checkpoint away before this server is started again");
            self.house.tell_fault("checkpoint", "fenced", &why);
        }
    }

    fn part(&mut self, wanted: Part) {
        match wanted {
            Part::OfPeer { to, name } => {
                let message = match self.read(name.as_ref()) {
                    Some(part) => Message::Snapshot(part),
                    None => Message::Entries { entries: Vec::new(), applied: self.house.board.read().applied },
                };
                self.house.send(Servers::only(to), message.into(), Context::default());
                self.house.flush();
            }
            Part::OfClient { name, at_least, reply } => {
                let is_there = name.is_some() || self.checkpoint.mark().slot >= at_least;
                let part = if is_there { self.read(name.as_ref()) } else { None };
                let part = part.map(|part| for_client(part).unwrap_or_else(|error| self.house.fatal(&error)));
                // Whoever asked may have gone.
                let _ = reply.send(part);
            }
        }
    }

    fn read(&mut self, name: Option<&PartName>) -> Option<SnapshotPart> {
        match self.checkpoint.part(name) {
            Ok(part) => part,
            Err(error) => self.house.fatal(&format!("stable storage failed: {error}")),
        }
    }
}

/// What a client gets of a part.
fn for_client(part: SnapshotPart) -> Result<StatePart, String> {
    let (bytes, left_out) = without_sessions(&part.bytes)
        .map_err(|error| format!("a part of the own checkpoint cannot be read: {error}"))?;
    Ok(StatePart { part: SnapshotPart { bytes: bytes.into(), ..part }, left_out })
}
