//! A comparison of the protocols: the same work and the same faults under each, what each completes, and what it leaves
//! undecided.
//!
//! A *cell* is one scenario under one protocol. It has five servers and five clients, one at each server, which write
//! and read a few keys with short pauses. The fault strikes after two virtual seconds, and the cell is measured for
//! eight. The seed decides the keys, the values and all durations; a cell is always the same for one seed. At the end
//! the fault is undone, and the simulator's oracle, which observes the whole cell, says whether an invariant was
//! violated.

pub mod compare_command;
mod page;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::client::{ClientStep, SimClient};
use super::client_history::RequestedOperation;
use super::env::{MS, Micros, SECOND, SimEvent, TrafficCounts};
use super::faults::{ActiveFault, FaultSet};
use super::network::LinkFaults;
use super::plan::RunPlan;
use super::simulation::{CrashKind, RunVerdict, Simulation};
use paxos_kv::host::mail_queue::CrashRequest;
use paxos_kv::kv::Op;
use paxos_kv::paxos::LeaderEvidence;
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::trace::{CrashCause, CrashPoint};
use paxos_kv::two_phase_commit::TransactionId;

/// Number of servers.
const SERVERS: u8 = 5;
/// When the fault strikes.
const FAULT_START: Micros = 2 * SECOND;
/// When a fault that ends does so.
const FAULT_END: Micros = 5 * SECOND;
/// When the measurement ends.
const END: Micros = 8 * SECOND;
/// Time limit of a client for one request: long enough to try one server and then another.
const REQUEST_TIMEOUT: Micros = 2 * SECOND;
/// The time that one bar of the small pictures covers.
const BAR: Micros = 100 * MS;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// No fault
    NoFault,
    /// One server crashes and stays down
    OneDown,
    /// The coordinator, proposer or leader crashes between the phases and stays down
    LeaderDies,
    /// It crashes between the phases and restarts after 3 s
    LeaderReturns,
    /// Two servers crash and stay down
    TwoDown,
    /// Three servers crash and stay down
    ThreeDown,
    /// One server is 40 times as slow as the others
    OneSlow,
    /// Two servers are cut off from the other three for 3 s
    Partition,
}

impl Scenario {
    /// All scenarios, in the order of the table.
    pub const ALL: [Scenario; 8] = [
        Scenario::NoFault,
        Scenario::OneDown,
        Scenario::LeaderDies,
        Scenario::LeaderReturns,
        Scenario::TwoDown,
        Scenario::ThreeDown,
        Scenario::OneSlow,
        Scenario::Partition,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::NoFault => "no-fault",
            Scenario::OneDown => "one-down",
            Scenario::LeaderDies => "leader-dies",
            Scenario::LeaderReturns => "leader-returns",
            Scenario::TwoDown => "two-down",
            Scenario::ThreeDown => "three-down",
            Scenario::OneSlow => "one-slow",
            Scenario::Partition => "partition",
        }
    }

    /// One line that describes the scenario.
    pub fn description(self) -> &'static str {
        match self {
            Scenario::NoFault => "no fault",
            Scenario::OneDown => "one server crashes",
            Scenario::LeaderDies => "coordinator or leader crashes between phases",
            Scenario::LeaderReturns => "coordinator or leader crashes, then restarts",
            Scenario::TwoDown => "two servers crash",
            Scenario::ThreeDown => "three servers crash",
            Scenario::OneSlow => "one server is slow",
            Scenario::Partition => "two servers are cut off from three",
        }
    }

    /// When the fault ends, if it does.
    fn ends(self) -> Option<Micros> {
        matches!(self, Scenario::LeaderReturns | Scenario::Partition).then_some(FAULT_END)
    }
}

/// The result of a cell.
#[derive(Clone, Debug)]
pub struct ComparisonCell {
    /// The scenario.
    pub scenario: Scenario,
    /// The protocol.
    pub protocol: Protocol,
    /// Number of writes with a result.
    pub writes: usize,
    /// Number of reads with a result.
    pub reads: usize,
    /// Number of operations with a result that ended after the fault had struck.
    pub after: usize,
    /// Number of requests that were certainly not applied.
    pub refused: usize,
    /// Number of requests with an unknown outcome, including those that still wait.
    pub unknown: usize,
    /// The longest time, after the first result, in which no operation ended with a result.
    pub longest_gap: Micros,
    /// Number of transactions for which a participant that is up has been prepared for at least 500 ms at the end,
    /// without a decision.
    pub in_doubt: usize,
    /// How long the oldest of these transactions has been in doubt.
    pub in_doubt_for: Micros,
    /// The cost of writes up to the moment of the fault.
    pub cost: WriteCost,
    /// Number of operations with a result in each tenth of a second.
    pub bars: Vec<u32>,
    /// When the fault struck, if one did.
    pub fault_time: Option<Micros>,
    /// How long it took after the end of the fault until everything was decided and equal.
    pub settled_in: Micros,
    /// The verdict of the oracle.
    pub verdict: RunVerdict,
}

/// The cost of writes before the fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteCost {
    /// Number of writes with a result.
    pub writes: usize,
    /// Messages and syncs.
    pub counts: TrafficCounts,
}

impl WriteCost {
    /// Messages to other servers for each write.
    pub fn messages(&self) -> f64 {
        self.a_write(self.counts.messages)
    }

    /// Messages for each write, including those within a server.
    pub fn all_messages(&self) -> f64 {
        self.a_write(self.counts.messages + self.counts.own_messages)
    }

    /// Syncs for each write, on all servers together.
    pub fn syncs(&self) -> f64 {
        self.a_write(self.counts.syncs)
    }

    fn a_write(&self, count: u64) -> f64 {
        count as f64 / self.writes.max(1) as f64
    }
}

/// Plays one cell; with `lines`, also returns the log text of all servers and clients, by file name.
pub fn run_scenario(
    seed: u64,
    scenario: Scenario,
    protocol: Protocol,
    lines: bool,
) -> (ComparisonCell, Vec<(String, String)>) {
    let mut stage = ScenarioRun::new(seed, scenario, protocol, lines);
    stage.run_until(FAULT_START);
    stage.cost = stage.cost_so_far();
    stage.inject();
    if scenario.ends().is_some() {
        stage.run_until(FAULT_END);
        stage.end_fault();
    }
    stage.run_until(END);
    let cell = stage.measure();
    let lines = stage.sim.take_lines();
    (cell, lines)
}

/// A cell while it is played.
struct ScenarioRun {
    scenario: Scenario,
    protocol: Protocol,
    sim: Simulation,
    cost: WriteCost,
    fault_time: Option<Micros>,
    victims: Vec<ServerId>,
    crashed: Option<(ServerId, RoleKind)>,
}

impl ScenarioRun {
    fn new(seed: u64, scenario: Scenario, protocol: Protocol, lines: bool) -> ScenarioRun {
        let mut sim = Simulation::new(plan(seed, protocol), lines);
        if lines {
            sim.sim_env.network.record_losses();
        }
        let mut random = Random::new(seed, 77);
        for number in 0..usize::from(SERVERS) {
            // The requests depend on the seed alone, so that each protocol gets the same ones.
            let client_steps = (0..3_000).map(|n| client_step(&mut random, number, n)).collect();
            let cluster = sim.plan.cluster();
            let server = ServerId(number as u8 + 1);
            let pace = (2 * MS..=10 * MS, REQUEST_TIMEOUT);
            let client = SimClient::new(&mut sim.sim_env, number, cluster, client_steps, server, pace, lines);
            sim.clients.push(client);
        }
        ScenarioRun {
            scenario,
            protocol,
            sim,
            cost: WriteCost::default(),
            fault_time: None,
            victims: Vec::new(),
            crashed: None,
        }
    }

    /// Advances the virtual time to this moment.
    fn run_until(&mut self, moment: Micros) {
        let wait = moment.saturating_sub(self.sim.sim_env.now());
        // Time advances from event to event; an event that does nothing brings it there.
        self.sim.sim_env.schedule(wait, SimEvent::Heal(ActiveFault::Cut(Vec::new())));
        self.sim.run_unchecked_until(moment, |_| false);
    }

    fn inject(&mut self) {
        match self.scenario {
            Scenario::NoFault => return,
            Scenario::OneDown => self.kill(1),
            Scenario::TwoDown => self.kill(2),
            Scenario::ThreeDown => self.kill(3),
            Scenario::LeaderDies | Scenario::LeaderReturns => self.kill_between_the_phases(),
            Scenario::OneSlow => {
                let server = self.others_than_the_leader()[0];
                let slow = self.sim.server(server);
                slow.processor = 40 * slow.processor.start()..=40 * slow.processor.end();
                slow.sync = 40 * slow.sync.start()..=40 * slow.sync.end();
            }
            Scenario::Partition => self.cut(true),
        }
        self.fault_time = Some(self.sim.sim_env.now());
    }

    fn end_fault(&mut self) {
        if let Some((server, role)) = self.crashed.take() {
            self.sim.at_server(server, |one, sim_env| one.restart_role(sim_env, role));
        }
        if self.scenario == Scenario::Partition {
            self.cut(false);
        }
    }

    /// The server whose proposer leads. Without a leader server 1, which stands for the coordinator.
    fn leader(&self) -> ServerId {
        let leads = |one: &&super::server::SimServer| {
            let proposer = one.process.as_ref().and_then(|process| process.proposer.as_ref());
            let leader = proposer.and_then(|sim_role| sim_role.role().leader());
            matches!(leader, Some((_, LeaderEvidence::Leads { .. })))
        };
        self.sim.servers.iter().find(leads).map_or(ServerId(1), |one| one.me)
    }

    /// All servers but the leader, highest number first: a fault of the leader is a scenario of its own.
    fn others_than_the_leader(&self) -> Vec<ServerId> {
        let others = self.sim.plan.cluster().without(ServerSet::only(self.leader()));
        let mut others: Vec<ServerId> = others.iter().collect();
        others.reverse();
        others
    }

    fn kill(&mut self, count: usize) {
        self.victims = self.others_than_the_leader().into_iter().take(count).collect();
        for server in self.victims.clone() {
            self.sim.stop(server, CrashKind::Process);
        }
    }

    /// Crashes the role that has sent its requests but not decided, when some of the replies are already on their way.
    fn kill_between_the_phases(&mut self) {
        let server = self.leader();
        self.sim.run_unchecked_until(FAULT_END, |sim| is_between_the_phases(sim, server));
        let role = self.protocol.leader();
        let order = CrashRequest { point: CrashPoint::BeforeStep, cause: CrashCause::Admin, down: None };
        self.sim.at_server(server, |one, sim_env| one.crash(sim_env, role, order));
        self.crashed = Some((server, role));
    }

    fn cut(&mut self, on: bool) {
        let few = ServerSet::first(2);
        let rest = self.sim.plan.cluster().without(few);
        self.sim.partition(few, rest, on);
    }

    fn cost_so_far(&self) -> WriteCost {
        let operations = self.sim.sim_env.history.operations().iter();
        let done =
            operations.filter(|one| one.has_result() && matches!(one.what, RequestedOperation::Write(_))).count();
        WriteCost { writes: done, counts: self.sim.sim_env.counts }
    }

    fn measure(&mut self) -> ComparisonCell {
        let struck = self.fault_time;
        let operations = self.sim.sim_env.history.operations().to_vec();
        let mut times: Vec<Micros> =
            operations.iter().filter(|one| one.has_result()).filter_map(|one| one.at).collect();
        times.sort_unstable();
        let mut bars = vec![0; (END / BAR) as usize];
        for time in &times {
            if let Some(bar) = bars.get_mut((time / BAR) as usize) {
                *bar += 1;
            }
        }
        let edges: Vec<Micros> = times.iter().copied().chain([END]).collect();
        // The time before the first result does not count, because the cluster still elects and admits.
        let mut before = times.first().copied().unwrap_or(0);
        let mut longest_gap = 0;
        for edge in edges {
            longest_gap = longest_gap.max(edge.saturating_sub(before));
            before = edge;
        }
        let is_write = |one: &&super::client_history::ClientRecord| matches!(one.what, RequestedOperation::Write(_));
        let done = || operations.iter().filter(|one| one.has_result());
        let (in_doubt, in_doubt_for) = self.transactions_in_doubt();
        let refused =
            operations.iter().filter(|one| one.result == super::client_history::ObservedResult::Refused).count();
        let unknown =
            operations.iter().filter(|one| one.result == super::client_history::ObservedResult::Unknown).count();
        let (writes, reads) = (done().filter(is_write).count(), done().count() - done().filter(is_write).count());
        let (settled_in, verdict) = self.settle();
        ComparisonCell {
            scenario: self.scenario,
            protocol: self.protocol,
            writes,
            reads,
            after: struck.map_or(0, |struck| times.iter().filter(|time| **time > struck).count()),
            refused,
            unknown,
            longest_gap,
            in_doubt,
            in_doubt_for,
            cost: self.cost,
            bars,
            fault_time: struck,
            settled_in,
            verdict,
        }
    }

    /// Number of transactions in doubt on servers that are up, and how long the oldest has been in doubt.
    fn transactions_in_doubt(&self) -> (usize, Micros) {
        let participants = self.sim.servers.iter().filter_map(|one| one.process.as_ref()?.participant.as_ref());
        let mut doubts: BTreeSet<TransactionId> = BTreeSet::new();
        let mut longest = 0;
        for doubt in participants.flat_map(|sim_role| sim_role.role().in_doubt().collect::<Vec<_>>()) {
            // Younger transactions are in flight, not in doubt.
            if doubt.waited_ms >= 500 {
                doubts.insert(doubt.transaction);
                longest = longest.max(doubt.waited_ms * MS);
            }
        }
        (doubts.len(), longest)
    }

    /// Undoes the fault, and runs until all servers agree.
    fn settle(&mut self) -> (Micros, RunVerdict) {
        let begun = self.sim.sim_env.now();
        for server in self.victims.clone() {
            self.sim.sim_env.schedule(MS, SimEvent::Start { server });
        }
        self.end_fault();
        let verdict = self.sim.finish();
        (self.sim.sim_env.now() - begun, verdict)
    }
}

/// Whether this server's coordinator or proposer has sent requests that others have answered, but does not know the
/// result yet.
fn is_between_the_phases(sim: &Simulation, server: ServerId) -> bool {
    let me = &sim.servers[usize::from(server.0) - 1];
    let Some(mine) = me.process.as_ref() else { return true };
    let others = sim.servers.iter().filter(|one| one.me != server).filter_map(|one| one.process.as_ref());
    if mine.coordinator.is_some() {
        let is_mine = |doubt: &paxos_kv::two_phase_commit::InDoubtTransaction| doubt.transaction.coordinator == server;
        let counts =
            |transaction| mine.coordinator.as_ref().is_some_and(|sim_role| sim_role.role().counts(transaction));
        let prepared = others.filter_map(|process| {
            let participant = process.participant.as_ref()?.role();
            participant.in_doubt().filter(is_mine).map(|doubt| doubt.transaction).find(|one| counts(*one))
        });
        // Their votes are on their way, or wait in the mailbox.
        return prepared.count() == usize::from(SERVERS) - 1;
    }
    let Some(learner) = mine.learner.as_ref() else { return true };
    let applied = learner.role().applied();
    let accepted = others.filter_map(|process| process.acceptor.as_ref());
    accepted.into_iter().any(|sim_role| {
        let last = sim_role.role().accepted().range(applied.next()..).next_back();
        last.is_some_and(|(_, (ballot, _))| ballot.server == server)
    })
}

/// The n-th request of a client: seven of ten are writes.
fn client_step(random: &mut Random, client: usize, n: usize) -> ClientStep {
    let key = format!("k{}", random.within(1..=10)).into_bytes();
    if random.within(0..=9) < 3 {
        return ClientStep::Read(key);
    }
    ClientStep::Write(Op::Put { key, value: format!("v{}-{n}", client + 1).into_bytes().into(), if_version: None })
}

/// A plan without faults: the scenario adds its own.
fn plan(seed: u64, protocol: Protocol) -> RunPlan {
    let link_faults = LinkFaults::delays(300, 200);
    RunPlan {
        servers: SERVERS,
        clients: 0,
        link_faults,
        processor: 20..=60,
        sync: 400..=800,
        segment_bytes: 256 << 10,
        mailbox: paxos_kv::host::mail_queue::MAILBOX_MAX,
        part_bytes: paxos_kv::paxos::PAGE_BYTES,
        retention: paxos_kv::paxos::Retention::DEFAULT,
        sessions: paxos_kv::kv::SESSIONS_MAX,
        clocks: vec![100; usize::from(SERVERS)],
        fault_phase_end: 60 * SECOND,
        healthy: ServerSet::first(SERVERS),
        fault_duration_max: 3_600 * SECOND,
        ..RunPlan::new(seed, FaultSet::NONE, Some(protocol))
    }
}
