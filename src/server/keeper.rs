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
use super::throttle::Throttle;
use crate::host::queue::Mail;
use crate::kv::{Changes, Kv, without_sessions};
use crate::net::StatePart;
use crate::paxos::{LearnerRequest, Message, PartName, Slot, SnapshotPart};
use crate::role::{Input, Server, Servers};
use crate::storage::checkpoint::{self, Checkpoint, CheckpointError, Mark, PART_BYTES};
use crate::storage::disk::{Files, RealFiles};
use crate::storage::{DataFolder, checkpoint::put_aside};
use crate::trace::{Context, Digest, Event, RoleTag};

/// What the learner asks waits here: at most one checkpoint is under way, and one life begins.
const JOBS_MAX: usize = 16;
/// Parts that peers ask for wait here; more are dropped, and asked for again.
const PARTS_MAX: usize = 64;
/// The same for clients. Peers go first: who is behind can be of no use to anybody.
const CLIENT_PARTS_MAX: usize = 16;
/// At most this many checkpoints a second are made because clients want newer ones. Each is work for the whole server.
const WISHES: u32 = 1;

/// The state as it was last written.
pub type Loaded = (Slot, Kv);

/// Where the keeper takes orders.
pub struct Keeper {
    jobs: Sender<Job>,
    of_peers: Sender<OfPeer>,
    of_clients: Sender<OfClient>,
    wishes: Throttle,
}

enum Job {
    Load(Sender<Loaded>),
    Write(Mark, Changes),
    Fence(Slot),
    #[cfg(any(test, fuzzing))]
    End,
}

/// A part that a peer wants.
struct OfPeer {
    to: Server,
    name: Option<PartName>,
}

/// A part that a client waits for.
struct OfClient {
    name: Option<PartName>,
    at_least: Slot,
    reply: Sender<Option<StatePart>>,
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
        Keeper::run(house, checkpoint, state)
            .map_err(|error| Unborn::Broken(format!("cannot start the thread of the checkpoint: {error}")))
    }

    /// Starts the thread that keeps this checkpoint.
    pub(super) fn run<F: Files>(house: &Arc<House>, checkpoint: Checkpoint<F>, state: Kv) -> std::io::Result<()> {
        let ((jobs, job), (of_peers, of_peer)) = (bounded(JOBS_MAX), bounded(PARTS_MAX));
        let (of_clients, of_client) = bounded(CLIENT_PARTS_MAX);
        house.board.update(|shown| shown.checkpoint = checkpoint.mark().slot);
        let at_work = AtWork { house: house.clone(), checkpoint, first: Some(state), said_full: false };
        let work = move || at_work.run(&job, &of_peer, &of_client);
        std::thread::Builder::new().name("keeper".to_string()).spawn(work)?;
        // Set once: a server has one keeper.
        let _ = house.keeper.set(Keeper { jobs, of_peers, of_clients, wishes: Throttle::new(WISHES) });
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

    /// Its thread ends: a process of the fuzzer has many servers, one after the other.
    #[cfg(any(test, fuzzing))]
    pub fn end(&self) {
        let _ = self.jobs.send(Job::End);
    }

    /// Sends a part of the state to a peer; dropped if too many are wanted.
    pub fn send_part(&self, to: Server, name: Option<PartName>) {
        let _ = self.of_peers.try_send(OfPeer { to, name });
    }

    /// A part of a state that holds every slot up to `at_least`: None if there is none yet, or nothing came until then.
    pub fn part(&self, name: Option<PartName>, at_least: Slot, until: Instant) -> Option<StatePart> {
        let (reply, part) = bounded(1);
        self.of_clients.try_send(OfClient { name, at_least, reply }).ok()?;
        part.recv_deadline(until).ok().flatten()
    }

    /// Whether a checkpoint is made now because a client wants one.
    pub fn grants_wish(&self) -> bool {
        self.wishes.lets_through()
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
struct AtWork<F: Files> {
    house: Arc<House>,
    checkpoint: Checkpoint<F>,
    /// What was read when it was opened: the first life of the learner need not wait for it again.
    first: Option<Kv>,
    said_full: bool,
}

impl<F: Files> AtWork<F> {
    fn run(mut self, jobs: &Receiver<Job>, of_peers: &Receiver<OfPeer>, of_clients: &Receiver<OfClient>) {
        loop {
            // The own learner goes before others, and servers before clients.
            select_biased! {
                recv(jobs) -> job => match job {
                    Ok(Job::Load(reply)) => self.load(&reply),
                    Ok(Job::Write(mark, changes)) => self.write(mark, &changes),
                    Ok(Job::Fence(slot)) => self.fence(slot),
                    #[cfg(any(test, fuzzing))]
                    Ok(Job::End) => return,
                    Err(_) => return,
                },
                recv(of_peers) -> wanted => match wanted {
                    Ok(wanted) => self.send_part(wanted),
                    Err(_) => return,
                },
                recv(of_clients) -> wanted => match wanted {
                    Ok(wanted) => self.give_part(wanted),
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

    fn send_part(&mut self, OfPeer { to, name }: OfPeer) {
        let message = match self.read(name.as_ref()) {
            Some(part) => Message::Snapshot(part),
            None => Message::Entries { entries: Vec::new(), applied: self.house.board.read().applied },
        };
        self.house.send(Servers::only(to), message.into(), Context::default());
        self.house.flush();
    }

    fn give_part(&mut self, OfClient { name, at_least, reply }: OfClient) {
        let is_there = name.is_some() || self.checkpoint.mark().slot >= at_least;
        let part = if is_there { self.read(name.as_ref()) } else { None };
        let part = part.map(|part| for_client(part).unwrap_or_else(|error| self.house.fatal(&error)));
        // Whoever asked may have gone.
        let _ = reply.send(part);
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
