//! Tests of one learner alone: each test hand-writes the messages and looks at the learner's actions.

mod divergence;
mod learning;
mod pins;
mod reads;
mod retention;
mod snapshots;

use crate::paxos::{
    Ballot, Command, CommandId, Entry, Incarnation, Learner, LearnerNotification, LearnerRequest, LearnerTimer,
    Message, Quorums, Retention, Slot, StateMachine, Value,
};
use crate::role::{Action, Input, NoStableStore, ServerId, ServerSet, turn};

/// The state machine of these tests: the numbers of the commands applied. The command of slot 7 is number 7.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Numbers {
    all: Vec<u64>,
    /// Numbers in no checkpoint.
    changed: Vec<u64>,
    /// Numbers in the checkpoint that is being written.
    taken: Vec<u64>,
    /// The size that the machine reports, in bytes.
    size: u64,
}

impl Numbers {
    fn up_to(last: u64) -> Numbers {
        Numbers { all: (1..=last).collect(), ..Numbers::default() }
    }
}

impl StateMachine for Numbers {
    type Outcome = u64;
    type Query = ();
    type Answer = usize;
    type Changes = Vec<u64>;

    fn apply(&mut self, _: Slot, value: &Value) -> u64 {
        let number = value.id().map_or(0, |id| id.sequence);
        self.all.push(number);
        self.changed.push(number);
        number
    }

    fn query(&self, (): &()) -> usize {
        self.all.len()
    }

    fn digest(&self) -> u64 {
        self.all.iter().fold(17, |digest: u64, number| digest.wrapping_mul(31).wrapping_add(*number))
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn empty(&self) -> Numbers {
        Numbers::default()
    }

    /// A chunk is some numbers, separated by spaces.
    fn load_chunk(&mut self, part: &[u8]) -> Result<(), String> {
        for word in String::from_utf8_lossy(part).split(' ') {
            let number = word.parse().map_err(|_| format!("'{word}' is no number"))?;
            self.all.push(number);
            self.changed.push(number);
        }
        Ok(())
    }

    fn take_delta(&mut self) -> Vec<u64> {
        self.taken = std::mem::take(&mut self.changed);
        self.taken.clone()
    }

    fn delta_saved(&mut self) {
        self.taken.clear();
    }

    fn delta_failed(&mut self) {
        self.changed.splice(0..0, self.taken.drain(..));
    }

    fn result_of(&self, id: CommandId) -> Option<u64> {
        self.all.contains(&id.sequence).then_some(id.sequence)
    }
}

/// The empty list of tokens or numbers.
const NONE: [u64; 0] = [];

/// The learner's actions after an input.
type LearnerActions = Vec<Action<Learner<Numbers>>>;

#[derive(Clone)]
struct TestLearner(Learner<Numbers>);

/// The learner of one of `servers` servers: it has started, and its start-up read has found that nothing is chosen.
fn alone(me: u8, servers: u8) -> TestLearner {
    begun(learner(me, servers))
}

/// The same with limits on what it keeps.
fn keeping(me: u8, servers: u8, retention: Retention) -> TestLearner {
    begun(learner(me, servers).with_retention(retention))
}

fn learner(me: u8, servers: u8) -> Learner<Numbers> {
    learner_of(me, servers, 0)
}

/// The same, not started, with a state machine that reports this size in bytes.
fn learner_of(me: u8, servers: u8, size: u64) -> Learner<Numbers> {
    let quorums = Quorums::majority(ServerSet::first(servers));
    Learner::new(ServerId(me), quorums, Incarnation(1), Slot(0), Numbers { size, ..Numbers::default() })
}

fn begun(learner: Learner<Numbers>) -> TestLearner {
    let mut alone = TestLearner(learner);
    alone.step(Input::Start);
    alone.answer_round(0);
    alone
}

impl TestLearner {
    /// One turn for all these inputs.
    fn turn(&mut self, inputs: impl IntoIterator<Item = Input<Learner<Numbers>>>) -> LearnerActions {
        let inputs = inputs.into_iter().map(|input| ((), input));
        let Ok(actions) = turn(&mut self.0, inputs, &mut NoStableStore, true);
        actions.into_iter().flat_map(|(_, actions)| actions).collect()
    }

    fn step(&mut self, input: Input<Learner<Numbers>>) -> LearnerActions {
        self.turn([input])
    }

    fn receive(&mut self, from: u8, message: Message) -> LearnerActions {
        self.step(Input::Message { from: ServerId(from), message })
    }

    fn ask(&mut self, request: LearnerRequest<()>) -> LearnerActions {
        self.step(Input::Request(request))
    }

    fn fire(&mut self, timer: LearnerTimer) -> LearnerActions {
        self.step(Input::Timeout(timer))
    }

    /// Lets `times` ticks of its own pass.
    fn fire_ticks(&mut self, times: usize) -> LearnerActions {
        (0..times).flat_map(|_| self.fire(LearnerTimer::Progress)).collect()
    }

    /// A peer's PROGRESS.
    fn receive_progress(&mut self, from: u8, applied: u64, digest: u64) -> LearnerActions {
        self.receive(from, Message::Progress { applied: Slot(applied), digest })
    }

    /// The learner receives the entries up to this slot.
    fn learn(&mut self, last: u64) -> LearnerActions {
        let entries = (self.applied() + 1..=last).map(entry).collect();
        self.receive(2, Message::Entries { entries, applied: Slot(last) })
    }

    /// A quorum of acceptors answers the current round of reads.
    fn answer_round(&mut self, slot: u64) -> LearnerActions {
        let round = self.0.round();
        let mut actions = LearnerActions::new();
        for acceptor in 1..=ServerId::MAX {
            let Some(id) = self.0.round().filter(|id| Some(*id) == round) else { break };
            actions.extend(self.receive(acceptor, Message::ReadReply { id, slot: Slot(slot) }));
        }
        actions
    }

    fn applied(&self) -> u64 {
        self.0.applied().0
    }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, server: ServerId(1) }
}

fn value(number: u64) -> Value {
    Value::Command(Command { id: CommandId::new(1, 0, number), payload: [].into() })
}

fn entry(slot: u64) -> Entry {
    Entry { slot: Slot(slot), ballot: ballot(1), value: value(slot) }
}

fn servers<const N: usize>(numbers: [u8; N]) -> ServerSet {
    numbers.into_iter().map(ServerId).collect()
}

/// The right digest after this slot.
fn right(slot: u64) -> u64 {
    Numbers::up_to(slot).digest()
}

/// A wrong digest.
fn wrong(slot: u64) -> u64 {
    !right(slot)
}

/// The notifications that `pick` selects.
fn told<T>(actions: &LearnerActions, pick: impl Fn(&LearnerNotification<Numbers>) -> Option<T>) -> Vec<T> {
    let outcomes =
        actions.iter().filter_map(|action| if let Action::Notify(outcome) = action { Some(outcome) } else { None });
    outcomes.filter_map(pick).collect()
}

/// The tokens of the failed reads.
fn failed(actions: &LearnerActions) -> Vec<u64> {
    told(
        actions,
        |outcome| if let LearnerNotification::ReadFailed { token, .. } = outcome { Some(*token) } else { None },
    )
}

/// The checkpoints begun: their slots and their changes.
fn checkpoints(actions: &LearnerActions) -> Vec<(u64, Vec<u64>)> {
    told(actions, |outcome| match outcome {
        LearnerNotification::Checkpoint { slot, changes, .. } => Some((slot.0, changes.clone())),
        _ => None,
    })
}

/// The messages sent, without PROGRESS.
fn sent(actions: &LearnerActions) -> Vec<(ServerSet, Message)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send { message: Message::Progress { .. }, .. } => None,
        Action::Send { to, message } => Some((*to, message.clone())),
        _ => None,
    });
    sent.collect()
}

/// The timers armed, without that of the tick.
fn armed(actions: &LearnerActions) -> Vec<LearnerTimer> {
    let armed = actions.iter().filter_map(|action| if let Action::Arm(timer) = action { Some(*timer) } else { None });
    armed.filter(|timer| *timer != LearnerTimer::Progress).collect()
}

/// A CATCHUP from this slot on, sent to this server.
fn catch_up(to: u8, from: u64) -> (ServerSet, Message) {
    (servers([to]), Message::CatchUp { from: Slot(from) })
}

fn checkpoint_ended(slot: u64, is_durable: bool) -> LearnerRequest<()> {
    LearnerRequest::CheckpointDone { slot: Slot(slot), is_durable }
}

fn read(token: u64) -> Input<Learner<Numbers>> {
    Input::Request(LearnerRequest::Read { token, query: () })
}
