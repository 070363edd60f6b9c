//! Tests of one proposer alone, for cases that need a limit, a clock or a fault to be visible.

mod attempt;
mod forwarding;
mod leading;
mod work;

use super::*;
use crate::paxos::{Entry, NackedRequest, Page, SlotRange, Value};
use crate::role::{Action, step_batch};

/// Proposer 1 of three servers, whose learner has applied nothing.
struct TestProposer(Proposer);

/// The actions of one turn.
#[derive(Debug, Default)]
struct ProposerOutput {
    sent: Vec<(ServerSet, Message)>,
    armed: Vec<ProposerTimer>,
    outcomes: Vec<ProposerNotification>,
    facts: Vec<ProposerTraceEvent>,
}

impl ProposerOutput {
    /// The slots proposed in, with the number of each command; 0 is a no-op.
    fn proposed(&self) -> Vec<(u64, u64)> {
        let accepts = self.sent.iter().filter_map(|(_, message)| match message {
            Message::Accept { first, values, .. } => Some((first, values)),
            _ => None,
        });
        let number = |value: &Value| value.id().map_or(0, |id| id.sequence);
        accepts.flat_map(|(first, values)| (first.0..).zip(values.iter().map(number))).collect()
    }

    /// The numbers of the commands in each FORWARD, and its receiver.
    fn forwarded(&self) -> Vec<(ServerSet, Vec<u64>)> {
        let numbers = |commands: &[Command]| commands.iter().map(|command| command.id.sequence).collect();
        let forward = |(to, message): &(ServerSet, Message)| match message {
            Message::Forward { commands } => Some((*to, numbers(commands))),
            _ => None,
        };
        self.sent.iter().filter_map(forward).collect()
    }

    /// The ballot and first slot of a PREPARE.
    fn prepared(&self) -> Option<(Ballot, Slot)> {
        self.sent.iter().find_map(|(_, message)| match message {
            Message::Prepare { ballot, from } => Some((*ballot, *from)),
            _ => None,
        })
    }

    /// The reason why it stepped down.
    fn stepped_down(&self) -> Option<StepDownReason> {
        self.facts.iter().find_map(|trace_event| match trace_event {
            ProposerTraceEvent::SteppedDown { why, .. } => Some(*why),
            _ => None,
        })
    }

    fn names(&self) -> Vec<&'static str> {
        self.sent.iter().map(|(_, message)| message.name()).collect()
    }

    fn is_nothing(&self) -> bool {
        self.sent.is_empty() && self.outcomes.is_empty() && self.facts.is_empty()
    }
}

const S1: ServerId = ServerId(1);
const S2: ServerId = ServerId(2);
const S3: ServerId = ServerId(3);

fn id(number: u64) -> CommandId {
    CommandId::new(7, 0, number)
}

/// A command with a payload of `bytes` bytes.
fn sized(number: u64, bytes: usize) -> Command {
    Command { id: id(number), payload: vec![0; bytes].into() }
}

fn command(number: u64) -> Command {
    sized(number, 1)
}

fn ballot(round: u64, server: ServerId) -> Ballot {
    Ballot { round, server }
}

fn propose(number: u64) -> Input<Proposer> {
    Input::Request(ProposerRequest::Propose { command: command(number), promised_round: 0 })
}

/// An answer to a PREPARE from slot 1 on, in one page.
fn promise(ballot: Ballot, accepted: Vec<Entry>) -> Message {
    Message::Promise { ballot, page: page(1, None, accepted) }
}

/// An acceptor's page from one slot on; it ends before another slot, or covers all later slots.
fn page(from: u64, to: Option<u64>, accepted: Vec<Entry>) -> Page {
    Page { from: Slot(from), end: to.map(Slot), truncated_below: Slot(1), accepted, corrupt: Vec::new() }
}

fn nack(ballot: Ballot, promised: Ballot) -> Message {
    Message::Nack { ballot, refused: NackedRequest::Prepare(Slot(1)), promised }
}

fn accepted(slot: u64, ballot: Ballot, number: u64) -> Entry {
    Entry { slot: Slot(slot), ballot, value: Value::Command(command(number)) }
}

impl TestProposer {
    fn new(policy: Policy) -> TestProposer {
        TestProposer::of(Proposer::new(S1, Quorums::majority(ServerSet::first(3)), policy))
    }

    fn of(proposer: Proposer) -> TestProposer {
        let mut lone = TestProposer(proposer);
        lone.step(Input::Start);
        lone.applied(0, &[]);
        lone
    }

    /// A leader that was just elected, and its ballot.
    fn leader() -> (TestProposer, Ballot) {
        TestProposer::new(Policy::MultiPaxos).led()
    }

    fn led(mut self) -> (TestProposer, Ballot) {
        let ballot = self.campaign();
        let from = self.0.attempt().expect("it has sent PREPARE").from();
        for server in [S1, S2] {
            self.receive(server, Message::Promise { ballot, page: page(from.0, None, Vec::new()) });
        }
        assert_eq!(self.0.leads(), Some(ballot));
        (self, ballot)
    }

    /// Campaigns until it has asked for promises.
    fn campaign(&mut self) -> Ballot {
        let asked = self.fire(ProposerTimer::Election { soon: false });
        let id = asked.sent.iter().find_map(|(_, message)| match message {
            Message::PreVote { id } => Some(*id),
            _ => None,
        });
        let id = id.expect("it has sent PREVOTE");
        let (ballot, _) = self.receive(S2, Message::PreVoteReply { id, hears: false }).prepared().expect("it prepares");
        ballot
    }

    fn turn(&mut self, inputs: impl IntoIterator<Item = Input<Proposer>>) -> ProposerOutput {
        let stepped = step_batch(&mut self.0, inputs.into_iter().map(|input| ((), input)), true);
        let Ok(released) = stepped.commit(&mut Spending);
        let mut output = ProposerOutput::default();
        for action in released.into_actions().into_iter().flat_map(|(_, actions)| actions) {
            match action {
                Action::Send { to, message } => output.sent.push((to, message)),
                Action::Arm(timer) => output.armed.push(timer),
                Action::Notify(outcome) => output.outcomes.push(outcome),
                Action::Trace(trace_event) => output.facts.push(trace_event),
            }
        }
        output
    }

    fn step(&mut self, input: Input<Proposer>) -> ProposerOutput {
        self.turn([input])
    }

    fn receive(&mut self, from: ServerId, message: Message) -> ProposerOutput {
        self.step(Input::Message { from, message })
    }

    fn fire(&mut self, timer: ProposerTimer) -> ProposerOutput {
        self.step(Input::Timeout(timer))
    }

    /// Ticks of 100 ms pass.
    fn ticks(&mut self, count: u64) -> ProposerOutput {
        self.turn((0..count).map(|_| Input::Timeout(ProposerTimer::Tick)))
    }

    fn tick(&mut self) -> ProposerOutput {
        self.fire(ProposerTimer::HeartbeatTick)
    }

    /// Heartbeat ticks of a leader that gets a reply each time; ends early when it steps down.
    fn answered_pulses(&mut self, count: u64) -> Option<StepDownReason> {
        for _ in 0..count {
            let ballot = self.0.leads().expect("it leads");
            if let Some(why) = self.tick().stepped_down() {
                return Some(why);
            }
            self.receive(S2, Message::HeartbeatReply { ballot });
        }
        None
    }

    fn applied(&mut self, slot: u64, numbers: &[u64]) -> ProposerOutput {
        let ids = numbers.iter().map(|number| id(*number)).collect();
        self.step(Input::Request(ProposerRequest::Applied { slot: Slot(slot), ids }))
    }

    /// PROGRESS of a server's learner.
    fn receive_progress(&mut self, from: ServerId, applied: u64) -> ProposerOutput {
        self.receive(from, Message::Progress { applied: Slot(applied), digest: 0 })
    }
}

/// Stable storage on which every commit succeeds.
struct Spending;

impl crate::role::StableStore<ProposerRecord> for Spending {
    type Error = std::convert::Infallible;

    fn commit(&mut self, _: &[ProposerRecord]) -> Result<(), Self::Error> {
        Ok(())
    }
}
