//! The recovery of a role at the start of an incarnation: what it reads from its disk, and the log line about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::checkpoints::LoadedState;
use super::core::{Fatal, ServerCore};
use super::env::{Env, Observation};
use super::limits::ClientConnection;
use super::role_disk::{RoleJournal, left_free};
use super::{rules, trace_lines};
use crate::kv::Kv;
use crate::paxos::{Acceptor, AcceptorRecord, Incarnation, Learner, Proposer, StateMachine};
use crate::role::{Role, RoleKind};
use crate::storage::data_dir::DirStorage;
use crate::storage::{BallotStore, DataDir, DataDirError};
use crate::trace::{Event, TraceContext};
use crate::two_phase_commit::{Coordinator, CoordinatorRecord, Participant, ParticipantRecord};

/// Why an incarnation, or a process, does not begin.
#[derive(Debug)]
pub enum RecoveryError {
    /// The disk lacks the room that the start needs; there may be room later.
    NoSpace(String),
    /// The disk has failed.
    Failed(String),
    /// The content of the disk must not be used.
    Broken(String),
}

impl From<DataDirError> for RecoveryError {
    fn from(error: DataDirError) -> RecoveryError {
        let why = error.to_string();
        match error {
            _ if error.is_full() => RecoveryError::NoSpace(why),
            _ if error.is_io() => RecoveryError::Failed(why),
            _ => RecoveryError::Broken(why),
        }
    }
}

impl RecoveryError {
    /// The operating system refused a thread for the role.
    pub fn no_thread(whose: &str, error: &std::io::Error) -> RecoveryError {
        RecoveryError::Failed(format!("cannot start the thread of the {whose}: {error}"))
    }
}

impl From<Fatal> for RecoveryError {
    fn from(fatal: Fatal) -> RecoveryError {
        RecoveryError::Failed(fatal.0)
    }
}

/// A proposer that uses no round of an earlier incarnation. Here and below, `down` is None at the start of the process.
pub fn proposer<C: ClientConnection, P: DirStorage>(
    core: &ServerCore<C>,
    data_dir: &DataDir<P>,
    down: Option<Duration>,
) -> Result<(Proposer, BallotStore<P::Files>), RecoveryError> {
    let rounds = data_dir.open_rounds()?;
    let config = &core.config;
    let mut proposer = Proposer::new(config.me, config.quorums, config.protocol.policy())
        .with_window(config.sizes.in_flight_max_slots, config.sizes.in_flight_max_bytes);
    proposer.replay(rounds.record());
    if let Some(down) = down {
        trace_restart(core, RoleKind::Proposer, trace_lines::restarted_proposer(down, proposer.next_round()), None);
    }
    Ok((proposer, rounds))
}

/// An acceptor with the state on its disk; in the unsafe mode, after a crash, with no state.
pub fn acceptor<E: Env, P: DirStorage>(
    core: &ServerCore<E::Connection>,
    env: &E,
    data_dir: &DataDir<P>,
    down: Option<Duration>,
) -> Result<(Acceptor, RoleJournal<P::Files, AcceptorRecord>), RecoveryError> {
    if rules::forgets(core.config.forgets, down.is_some()) {
        data_dir.discard_journal()?;
    }
    let (sizes, growth) = (&core.config.sizes, core.checkpoints.growth());
    let left_free = left_free(sizes, growth.load(Ordering::Relaxed));
    let forgotten = core.shared_status.read().checkpoint.next();
    let (journal, recovered) = data_dir.open_journal_beside(sizes.segment_bytes, Some(forgotten), left_free)?;
    let (is_cut, is_corrupt) = (recovered.torn_tail_cut, !recovered.corruption.is_empty());
    let mut acceptor = Acceptor::new().with_page_bytes(core.config.sizes.page_bytes);
    for record in recovered.records {
        acceptor.replay(record);
    }
    let acceptor = finish_recovery(core, acceptor)?;
    env.observe(Observation::AcceptorRecovered { acceptor: &acceptor, is_cut, is_corrupt });
    for corruption in recovered.corruption {
        let why =
            format!("{corruption}; this server repairs it with chosen entries from its peers, and all else continues");
        core.trace_fault("journal", "corrupt", &why);
    }
    if let Some(down) = down {
        let lost = core.config.forgets;
        let event = trace_lines::restarted_acceptor(down, lost, acceptor.promised(), acceptor.accepted().len() as u64);
        let why = lost
            .then(|| "UNSAFE: its promises and accepted values are lost, so a chosen value can be lost".to_string());
        trace_restart(core, RoleKind::Acceptor, event, why);
    }
    core.shared_status.update(|shown| {
        shown.promised = acceptor.promised();
        shown.accepted = acceptor.accepted().len() as u64;
        shown.truncated_below = acceptor.truncated_below();
    });
    Ok((acceptor, RoleJournal::new(journal, sizes, growth)))
}

/// The checkpoint must hold the truncated slots. If the checkpoint was lost, the peers have the slots, if there are
/// peers.
fn finish_recovery<C: ClientConnection>(core: &ServerCore<C>, acceptor: Acceptor) -> Result<Acceptor, RecoveryError> {
    let (checkpoint, forgotten) = (core.shared_status.read().checkpoint, acceptor.truncated_below());
    if core.config.cluster.len() == 1 && checkpoint.next() < forgotten {
        return Err(RecoveryError::Broken(format!(
            "the checkpoint ends with slot {checkpoint}, and the journal begins with slot {forgotten}: no other server \
             has the slots between. Restore the data directory or a backup"
        )));
    }
    Ok(acceptor.finish_recovery(checkpoint))
}

/// A learner with the state of the last checkpoint; it gets the later slots from its peers and the acceptors.
pub fn learner<E: Env, P: DirStorage>(
    core: &ServerCore<E::Connection>,
    env: &E,
    data_dir: &DataDir<P>,
    (slot, state): LoadedState,
    down: Option<Duration>,
) -> Result<Learner<Kv>, RecoveryError> {
    let config = &core.config;
    let learner = Learner::new(config.me, config.quorums, next_incarnation(data_dir)?, slot, state)
        .with_retention(config.retention)
        .with_part_bytes(config.sizes.page_bytes)
        .with_policy(config.protocol.policy());
    // The first line of the process shows this, and may be written before the learner has taken a step.
    core.shared_status.update(|shown| shown.set_learner(&learner));
    env.observe(Observation::LearnerRecovered { slot });
    if let Some(down) = down {
        let event = trace_lines::restarted_learner(down, learner.applied(), learner.machine().digest());
        trace_restart(core, RoleKind::Learner, event, None);
    }
    Ok(learner)
}

/// A coordinator with the transactions that it has committed.
pub fn coordinator<E: Env, P: DirStorage>(
    core: &ServerCore<E::Connection>,
    env: &E,
    data_dir: &DataDir<P>,
    down: Option<Duration>,
) -> Result<(Coordinator, RoleJournal<P::Files, CoordinatorRecord>), RecoveryError> {
    let (journal, recovered) = data_dir.open_coordinator(core.config.sizes.segment_bytes)?;
    env.observe(Observation::CoordinatorRecovered { records: &recovered.records });
    let mut coordinator = Coordinator::new(core.config.me, core.config.cluster);
    recovered.records.into_iter().for_each(|record| coordinator.replay(record));
    if let Some(down) = down {
        let event = trace_lines::restarted_coordinator(down, &coordinator);
        trace_restart(core, RoleKind::Coordinator, event, None);
    }
    Ok((coordinator, RoleJournal::new(journal, &core.config.sizes, Arc::default())))
}

/// A participant with its votes and its store: all of it is in its journal.
pub fn participant<E: Env, P: DirStorage>(
    core: &ServerCore<E::Connection>,
    env: &E,
    data_dir: &DataDir<P>,
    down: Option<Duration>,
) -> Result<(Participant, RoleJournal<P::Files, ParticipantRecord>), RecoveryError> {
    let (journal, recovered) = data_dir.open_journal(core.config.sizes.segment_bytes)?;
    let (records, is_cut) = (recovered.records, recovered.torn_tail_cut);
    env.observe(Observation::ParticipantRecovered { records: &records, is_cut });
    let store = Kv::with_sessions_at_most(core.config.sizes.sessions);
    let mut participant = Participant::new(core.config.me, core.config.cluster, store);
    records.into_iter().for_each(|record| participant.replay(record));
    if let Some(down) = down {
        trace_restart(core, RoleKind::Participant, trace_lines::restarted_participant(down, &participant), None);
    }
    core.shared_status.update(|shown| shown.set_participant(&participant));
    Ok((participant, RoleJournal::new(journal, &core.config.sizes, Arc::default())))
}

fn next_incarnation<P: DirStorage>(data_dir: &DataDir<P>) -> Result<Incarnation, DataDirError> {
    data_dir.next_role_incarnation().map(Incarnation)
}

fn trace_restart<C: ClientConnection>(core: &ServerCore<C>, role: RoleKind, event: Event, why: Option<String>) {
    core.trace_with_reason(role.into(), &TraceContext::default(), event, why);
}
