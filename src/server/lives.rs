//! How a life of a role begins and how it ends: what it gets back from its disk, its line, and who must hear of its death.

use std::sync::Arc;
use std::time::Duration;

use super::disks::{AcceptorJournal, CoordinatorLog, ParticipantLog, open_rounds};
use super::house::{self, House};
use super::lines;
use super::mailbox::Inbox;
use super::options::Restart;
use super::runner::{Shell, tell_lost};
use crate::host::queue::{CrashOrder, Item, Mail};
use crate::kv::Kv;
use crate::net::{Said, Unknown, WhyNotApplied};
use crate::paxos::{Acceptor, Learner, Life, Proposer, ProposerRequest, Quorums, Slot, StateMachine};
use crate::role::{Input, NoDisk, Role, RoleName};
use crate::storage::disk::RealFiles;
use crate::storage::{DataFolder, FolderError, Rounds};
use crate::trace::{Context, Event};
use crate::two_phase_commit::{Coordinator, Participant};

/// Why a life does not begin.
#[derive(Debug)]
pub enum Unborn {
    /// The disk has no room for what a life needs at its beginning: later it may have.
    NoRoom(String),
    /// It cannot begin.
    Broken(String),
}

impl From<FolderError> for Unborn {
    fn from(error: FolderError) -> Unborn {
        if error.is_full() { Unborn::NoRoom(error.to_string()) } else { Unborn::Broken(error.to_string()) }
    }
}

/// What a new life of any role begins with. Used in the thread of that life: a slow disk holds up nobody else.
#[derive(Clone)]
pub struct Cradle {
    /// The server.
    pub house: Arc<House>,
    /// What it must never forget.
    pub folder: Arc<DataFolder>,
    /// Who counts as a majority.
    pub quorums: Quorums,
}

impl Cradle {
    /// A proposer that uses no round of its earlier lives. `down` is None at the start of the process, here and below.
    pub fn proposer(&self, down: Option<Duration>) -> Result<(Proposer, Rounds<RealFiles>), Unborn> {
        let (rounds, record) = open_rounds(&self.folder)?;
        let mut proposer = Proposer::new(self.house.me, self.quorums, self.house.options.protocol.policy());
        proposer.replay(record);
        if let Some(down) = down {
            self.tell_restart(RoleName::Proposer, lines::restarted_proposer(down, proposer.next_round()), None);
        }
        Ok((proposer, rounds))
    }

    /// An acceptor that knows what its disk knows; in the lost mode, if it crashed, nothing.
    pub fn acceptor(&self, down: Option<Duration>) -> Result<(Acceptor, AcceptorJournal), Unborn> {
        let lost = self.house.options.restart == Restart::Lost && down.is_some();
        if lost {
            self.folder.discard_journal()?;
        }
        let opened = AcceptorJournal::open(&self.folder, self.house.options.segment_bytes());
        let (journal, recovered) = opened?;
        let journal = journal.slowed_by(self.house.options.slow_disk);
        let mut acceptor = Acceptor::new(self.next_life()?);
        for record in recovered.records {
            acceptor.replay(record);
        }
        let acceptor = self.with_checkpoint(acceptor)?;
        for damage in recovered.damage {
            let why = format!("{damage}; the others are asked for what was chosen there, and all else goes on");
            self.house.tell_fault("journal", "damaged", &why);
        }
        if let Some(down) = down {
            let event = lines::restarted_acceptor(down, lost, acceptor.promised(), acceptor.accepted().len() as u64);
            let why = lost.then(|| {
                "UNSAFE: it has forgotten what it promised and accepted, so a chosen value can be un-chosen".to_string()
            });
            self.tell_restart(RoleName::Acceptor, event, why);
        }
        self.house.board.update(|shown| {
            shown.promised = acceptor.promised();
            shown.accepted = acceptor.accepted().len() as u64;
            shown.truncated_below = acceptor.truncated_below();
        });
        Ok((acceptor, journal))
    }

    /// What it has forgotten must be in the checkpoint. If that was lost, the other servers have it, if there are any.
    fn with_checkpoint(&self, acceptor: Acceptor) -> Result<Acceptor, Unborn> {
        let (checkpoint, forgotten) = (self.house.board.read().checkpoint, acceptor.truncated_below());
        if self.house.cluster.len() == 1 && checkpoint.next() < forgotten {
            return Err(Unborn::Broken(format!(
                "the checkpoint holds {checkpoint} slots, and the journal begins with slot {forgotten}: what is between \
                 is nowhere else. Put the folder back as it was, or restore a backup"
            )));
        }
        Ok(acceptor.with_checkpoint(checkpoint))
    }

    /// A learner with the state that was last written down; what came after, it gets from its peers and the acceptors.
    pub fn learner(&self, down: Option<Duration>) -> Result<(Learner<Kv>, NoDisk), Unborn> {
        let loaded = match self.house.keeper.get() {
            Some(keeper) => keeper.load(),
            None => Some((Slot(0), Kv::default())),
        };
        let (slot, state) =
            loaded.ok_or_else(|| Unborn::Broken("the thread of the checkpoint has ended".to_string()))?;
        let learner = Learner::new(self.house.me, self.quorums, self.next_life()?, slot, state);
        let learner =
            learner.with_retention(self.house.options.retention()).under(self.house.options.protocol.policy());
        if let Some(down) = down {
            let event = lines::restarted_learner(down, learner.applied(), learner.machine().digest());
            self.tell_restart(RoleName::Learner, event, None);
        }
        Ok((learner, NoDisk))
    }

    /// A coordinator that knows which transactions it has committed.
    pub fn coordinator(&self, down: Option<Duration>) -> Result<(Coordinator, CoordinatorLog), Unborn> {
        let (log, records) = CoordinatorLog::open_coordinators(&self.folder, self.house.options.segment_bytes())?;
        let mut coordinator = Coordinator::new(self.house.me, self.house.cluster);
        records.into_iter().for_each(|record| coordinator.replay(record));
        if let Some(down) = down {
            let event = lines::restarted_coordinator(down, &coordinator);
            self.tell_restart(RoleName::Coordinator, event, None);
        }
        Ok((coordinator, log))
    }

    /// A participant with its votes and its store: all of it is in its journal.
    pub fn participant(&self, down: Option<Duration>) -> Result<(Participant, ParticipantLog), Unborn> {
        let (log, records) = ParticipantLog::open_participants(&self.folder, self.house.options.segment_bytes())?;
        let mut participant = Participant::new(self.house.me, self.house.cluster, Kv::default());
        records.into_iter().for_each(|record| participant.replay(record));
        if let Some(down) = down {
            self.tell_restart(RoleName::Participant, lines::restarted_participant(down, &participant), None);
        }
        self.house.board.update(|shown| shown.set_participant(&participant));
        Ok((participant, log))
    }

    fn next_life(&self) -> Result<Life, FolderError> {
        self.folder.begin_role_life().map(Life)
    }

    fn tell_restart(&self, role: RoleName, event: Event, why: Option<String>) {
        self.house.line_because(role.into(), &Context::default(), event, why);
    }
}

/// The last act of a role's thread: the mailbox is gone, and everybody who waits for the role is told.
pub fn die<R: Role<Message: Into<Said>>, S: Shell<R>>(order: CrashOrder, up: Duration, inbox: &Inbox<R>, shell: &S) {
    shell.mailbox().close();
    let (name, house) = (shell.name(), shell.house());
    house.board.update(|shown| shown.add_crash(name));
    let why = match name {
        RoleName::Acceptor if house.options.restart == Restart::Lost => {
            "UNSAFE: its promises and accepted values will be forgotten; messages to it are dropped until it is back"
        }
        RoleName::Acceptor => {
            "its promises and accepted values are on disk; messages to it are dropped until it is back"
        }
        RoleName::Proposer => "its commands are forgotten; whoever waits for one is told that the outcome is unknown",
        RoleName::Learner => "what it applied since its last checkpoint is gone with its memory; its peers have it",
        RoleName::Coordinator => {
            "its commits are on disk; what it had not decided counts as aborted, and who is prepared for it has to wait"
        }
        RoleName::Participant => {
            "its votes and all that it has done are on disk; until it is back no write can have all votes"
        }
    };
    house.line_because(name.into(), &Context::default(), lines::crash(order, up), Some(why.to_string()));
    while let Some(item) = inbox.take_one() {
        if let Item::Mail(mail) = item {
            tell_lost(&mail.input, house::Cause::Crashed, &mail.context, shell);
        }
    }
    match name {
        RoleName::Acceptor => {}
        RoleName::Proposer | RoleName::Coordinator => house.pending.role_died(Unknown::RoleDied(name), None),
        // The coordinator still knows what its commands come to.
        RoleName::Participant => house.pending.reads_died(WhyNotApplied::RoleDown(name)),
        RoleName::Learner => {
            house.pending.role_died(Unknown::RoleDied(name), Some(WhyNotApplied::RoleDown(name)));
            let input = Input::Request(ProposerRequest::LearnerDown);
            // If the proposer is down too it begins its next life without a learner anyway.
            let _ = house.proposer.post_reserved(Mail { context: Context::default(), input, size: 0 });
        }
    }
    house.send_replies();
}
