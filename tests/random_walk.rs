//! Random walks over the roles: messages are late, lost, doubled and out of order, timers fire when they like, roles crash
//! at any point of a turn and come back from their records. After each turn an all-knowing observer checks that nothing
//! wrong has happened (`world::ghost`). Then the faults stop, time passes, and the cluster must get on with its work.
//!
//! A failing seed is printed; `PAXOS_WALK_SEED=17 cargo test --test random_walk` walks it alone.

mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use paxos_kv::kv::{Command, Get, Kv, Op, Outcome};
use paxos_kv::paxos::{self, CommandId, LearnerOutcome, Message, Policy, ProposerOutcome, Slot};
use paxos_kv::role::{Action, RoleName, Server};
use rand_core::Rng;
use rand_pcg::Pcg32;

use world::ghost::Ghost;
use world::{Cluster, Crash, Packet, Turn, What};

/// Walks a test run takes.
const SEEDS: u64 = 2_000;
/// Steps of the part with faults.
const STEPS: usize = 2_500;
/// So many messages are on their way at most; more are lost, as in a full queue.
const PACKETS_MAX: usize = 200;
/// After the faults stop, everything has happened within so many milliseconds.
const LIVENESS_MS: u64 = 10_000;

/// What goes wrong in one walk, each in thousandths of the steps.
#[derive(Debug)]
struct Odds {
    lose: u64,
    /// ACCEPTs are lost more often in some walks: what only a minority has accepted is where Paxos is hard.
    lose_accepts: u64,
    double: u64,
    replay: u64,
    fire: u64,
    propose: u64,
    read: u64,
    crash: u64,
    restart: u64,
}

/// How one way of asking for a command has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    NotYet,
    NotApplied,
    Unknown,
    Known,
}

/// A client's wish, and at which servers it was tried.
struct Wish {
    command: Command,
    tries: Vec<(Server, Ended)>,
}

/// A client with one session and a few writes open at a time.
struct Client {
    nonce: u128,
    session: Option<u64>,
    next: u64,
    open: BTreeMap<CommandId, Wish>,
}

struct Walk {
    rng: Pcg32,
    odds: Odds,
    cluster: Cluster<Kv>,
    ghost: Ghost,
    clients: Vec<Client>,
    /// Reads that wait, by token, with the slot that their answer must have seen.
    reads: BTreeMap<u64, Slot>,
    tokens: u64,
    /// Messages of long ago, to be heard again.
    old: Vec<Packet>,
    answers: usize,
    refusals: usize,
}

impl Walk {
    fn new(seed: u64) -> Walk {
        let mut rng = Pcg32::new(seed, 1);
        let mut odds = |choices: &[u64]| choices[(rng.next_u32() as usize) % choices.len()];
        let odds = Odds {
            lose: odds(&[0, 20, 100, 300]),
            lose_accepts: odds(&[0, 0, 300, 700]),
            double: odds(&[0, 20, 100]),
            replay: odds(&[0, 5, 20]),
            fire: odds(&[20, 60, 200]),
            propose: odds(&[10, 30, 80]),
            read: odds(&[0, 10, 30]),
            crash: odds(&[0, 2, 5, 15]),
            restart: odds(&[10, 40]),
        };
        let servers = 3 + 2 * (rng.next_u32() % 2) as u8;
        let mut delays = Pcg32::new(seed, 2);
        let draw = move |range: std::ops::RangeInclusive<u64>| {
            range.start() + u64::from(delays.next_u32()) % (range.end() - range.start() + 1)
        };
        let policy = if seed.is_multiple_of(2) { Policy::MultiPaxos } else { Policy::BasicPaxos };
        let cluster = Cluster::new(servers, Kv::default(), draw).under(policy);
        let ghost = Ghost::new(cluster.quorums);
        let client = |nonce| Client { nonce, session: None, next: 1, open: BTreeMap::new() };
        let clients = (1..=3).map(client).collect();
        let reads = BTreeMap::new();
        Walk { rng, odds, cluster, ghost, clients, reads, tokens: 0, old: Vec::new(), answers: 0, refusals: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        u64::from(self.rng.next_u32() % 1_000) < thousandths
    }

    fn any_server(&mut self) -> Server {
        let n = self.cluster.servers().count();
        Server(1 + self.below(n) as u8)
    }

    /// Where in the coming turn the role crashes.
    fn any_crash(&mut self) -> Crash {
        if !self.chance(self.odds.crash) {
            return Crash::No;
        }
        if self.chance(500) { Crash::AfterSync } else { Crash::InSync(self.below(3)) }
    }

    fn start_all(&mut self) {
        for server in self.cluster.servers() {
            for role in RoleName::ALL {
                self.start(server, role);
            }
        }
    }

    fn start(&mut self, server: Server, role: RoleName) {
        if !self.cluster.is_up(server, role) {
            if role == RoleName::Learner {
                self.ghost.learner_started(server);
            }
            let turn = self.cluster.start(server, role);
            self.observe(server, role, turn);
        }
    }

    /// One step of the part with faults.
    fn step(&mut self) {
        while self.cluster.packets.len() > PACKETS_MAX {
            let n = self.below(self.cluster.packets.len());
            self.cluster.packets.swap_remove(n);
        }
        let (server, role) = (self.any_server(), RoleName::ALL[self.below(3)]);
        if self.chance(self.odds.propose) {
            self.wish(server);
        } else if self.chance(self.odds.read) {
            self.read(server);
        } else if self.chance(self.odds.fire) {
            self.fire(server, role);
        } else if !self.cluster.is_up(server, role) && self.chance(self.odds.restart) {
            self.start(server, role);
        } else if self.chance(self.odds.crash / 2) {
            self.lost_life(server, role);
            self.cluster.crash(server, role);
        } else {
            self.deliver();
        }
    }

    /// Something on its way arrives, alone or with others to the same role, or is lost, or arrives twice.
    fn deliver(&mut self) {
        if self.chance(self.odds.replay) && !self.old.is_empty() {
            let n = self.below(self.old.len());
            let packet = self.old[n].clone();
            self.cluster.packets.push(packet);
        }
        if self.cluster.packets.is_empty() {
            return;
        }
        let n = self.below(self.cluster.packets.len());
        let packet = self.cluster.packets[n].clone();
        if !self.chance(self.odds.double) {
            self.cluster.packets.swap_remove(n);
        }
        let is_accept = matches!(packet.what, What::Message(Message::Accept { .. }));
        if self.chance(self.odds.lose) || (is_accept && self.chance(self.odds.lose_accepts)) {
            return;
        }
        if self.old.len() < 300 {
            self.old.push(packet.clone());
        } else {
            let n = self.below(300);
            self.old[n] = packet.clone();
        }
        let (to, role) = (packet.to, packet.role);
        let mut group = vec![packet];
        let more = self.below(4);
        let mut left = if self.chance(300) { more } else { 0 };
        group.extend(self.cluster.take_packets(|packet| {
            let fits = packet.to == to && packet.role == role && left > 0;
            left -= usize::from(fits);
            fits
        }));
        let crash = self.any_crash();
        let turn = self.cluster.deliver(group, crash);
        self.observe(to, role, turn);
    }

    fn fire(&mut self, server: Server, role: RoleName) {
        let node = self.cluster.node(server);
        let (proposer, learner) = (node.proposer.timers.len(), node.learner.timers.len());
        let crash = self.any_crash();
        match role {
            RoleName::Proposer if proposer > 0 => {
                let n = self.below(proposer);
                let turn = self.cluster.fire_proposer(server, n, crash);
                self.observe(server, role, turn);
            }
            RoleName::Learner if learner > 0 => {
                let n = self.below(learner);
                let turn = self.cluster.fire_learner(server, n, crash);
                self.observe(server, role, turn);
            }
            _ => {}
        }
    }

    /// A client asks this server for something new, or again for something old.
    fn wish(&mut self, server: Server) {
        let n = self.below(self.clients.len());
        let (again, key) = (self.chance(400), vec![b'a' + self.below(3) as u8]);
        let op = match self.below(4) {
            0 => Op::Delete { key },
            1 => Op::Put { key, value: b"v".to_vec(), if_version: Some(1) },
            _ => Op::Put { key, value: self.tokens.to_le_bytes().to_vec(), if_version: None },
        };
        let pick = self.below(8);
        let client = &mut self.clients[n];
        let label = String::new();
        let id = match client.session {
            None => Some(Command::Open { nonce: client.nonce, label }),
            Some(session) if client.open.is_empty() || (!again && client.open.len() < 8) => {
                let sequence = client.next;
                client.next += 1;
                let first_open = client.open.keys().map(|id| id.sequence).min().unwrap_or(sequence);
                Some(Command::Write { session, nonce: client.nonce, sequence, first_open, label, op })
            }
            Some(_) => None,
        };
        let id = match id {
            Some(command) => {
                let id = command.id();
                client.open.entry(id).or_insert(Wish { command, tries: Vec::new() });
                id
            }
            None => *client.open.keys().nth(pick % client.open.len()).expect("something is open"),
        };
        let up = RoleName::ALL.iter().all(|role| *role == RoleName::Acceptor || self.cluster.is_up(server, *role));
        // The front desk of a server without proposer or learner takes nothing.
        if let Some(wish) = client.open.get_mut(&id).filter(|_| up) {
            wish.tries.push((server, Ended::NotYet));
            let command = wish.command.to_paxos();
            let turn = self.cluster.propose(server, command);
            self.observe(server, RoleName::Proposer, turn);
        }
    }

    fn read(&mut self, server: Server) {
        self.tokens += 1;
        let token = self.tokens;
        let key = vec![b'a' + self.below(3) as u8];
        // Everything chosen by now may be known to somebody: the answer must have seen it.
        self.reads.insert(token, self.ghost.highest_chosen());
        let turn = self.cluster.read(server, token, Get { key });
        self.observe(server, RoleName::Learner, turn);
    }

    /// Takes note of what a turn did, for the observer and for the clients.
    fn observe(&mut self, server: Server, role: RoleName, turn: Turn<Kv>) {
        self.ghost.observe(&self.cluster, server, &turn);
        match &turn {
            Turn::Proposer(ran) => {
                for action in &ran.actions {
                    if let Action::Outcome(ProposerOutcome::NotApplied { id, .. }) = action {
                        self.end_tries(server, |of| of == *id, Ended::NotApplied);
                        self.refuse(*id);
                    }
                }
                if ran.crashed {
                    self.lost_life(server, role);
                }
            }
            Turn::Learner(ran) => {
                for action in &ran.actions {
                    if let Action::Outcome(outcome) = action {
                        self.take_outcome(server, outcome);
                    }
                }
                if ran.crashed {
                    self.lost_life(server, role);
                }
            }
            Turn::Acceptor(_) | Turn::Down => {}
        }
    }

    fn take_outcome(&mut self, server: Server, outcome: &LearnerOutcome<Kv>) {
        match outcome {
            LearnerOutcome::Applied { id: Some(id), outcome, .. } => {
                self.end_tries(server, |of| of == *id, Ended::Known);
                for client in &mut self.clients {
                    let known = client.open.get(id).is_some_and(|wish| wish.tries.contains(&(server, Ended::Known)));
                    if known {
                        client.open.remove(id);
                        if let Outcome::Opened { session, .. } = outcome {
                            client.session = Some(*session);
                        }
                    }
                }
            }
            LearnerOutcome::Answer { token, slot, .. } => {
                let must = self.reads.remove(token).expect("a read is answered once");
                assert!(
                    *slot >= must,
                    "read {token} was answered from slot {slot}, slot {must} was chosen before it began"
                );
                self.answers += 1;
            }
            LearnerOutcome::ReadFailed { token, .. } => {
                self.reads.remove(token).expect("a read fails once");
            }
            // Nothing is written down here, so nothing is forgotten.
            LearnerOutcome::Applied { id: None, .. }
            | LearnerOutcome::Advanced { .. }
            | LearnerOutcome::Durable { .. }
            | LearnerOutcome::Checkpoint { .. }
            | LearnerOutcome::SnapshotAsked { .. }
            | LearnerOutcome::Installed { .. }
            | LearnerOutcome::Recalled { .. }
            | LearnerOutcome::Mended { .. } => {}
            LearnerOutcome::Fenced { slot, .. } => panic!("{server} finds its state to be wrong after {slot:?}"),
        }
    }

    /// A proposer's or learner's life is over: whoever waits at that server hears so, and knows nothing.
    fn lost_life(&mut self, server: Server, role: RoleName) {
        if role != RoleName::Acceptor {
            self.end_tries(server, |_| true, Ended::Unknown);
        }
        if role == RoleName::Learner {
            self.ghost.learner_started(server);
        }
    }

    fn end_tries(&mut self, server: Server, which: impl Fn(CommandId) -> bool, how: Ended) {
        for (id, wish) in self.clients.iter_mut().flat_map(|client| &mut client.open).filter(|(id, _)| which(**id)) {
            let _ = id;
            for (_, ended) in wish.tries.iter_mut().filter(|(at, ended)| *at == server && *ended == Ended::NotYet) {
                *ended = how;
            }
        }
    }

    /// A client whose every try has ended as not applied may say so, and then it must be true for ever.
    fn refuse(&mut self, id: CommandId) {
        let say_so = self.chance(500);
        for client in &mut self.clients {
            let never = client.open.get(&id).is_some_and(|wish| {
                !wish.tries.is_empty() && wish.tries.iter().all(|(_, ended)| *ended == Ended::NotApplied)
            });
            // The name of a session that was not opened is the client's to try again.
            if never && say_so && matches!(client.open[&id].command, Command::Write { .. }) {
                client.open.remove(&id);
                self.ghost.refuse(id);
                self.refusals += 1;
            }
        }
    }

    /// Whatever comes next in time happens.
    fn pass_time(&mut self) {
        let packet = self.cluster.packets.iter().enumerate().map(|(n, packet)| (packet.due, n)).min();
        let mut timers = Vec::new();
        for server in self.cluster.servers() {
            let node = self.cluster.node(server);
            let proposer = node.proposer.timers.iter().enumerate();
            timers.extend(proposer.map(|(n, (due, _))| (*due, server, RoleName::Proposer, n)));
            let learner = node.learner.timers.iter().enumerate();
            timers.extend(learner.map(|(n, (due, _))| (*due, server, RoleName::Learner, n)));
        }
        let timer = timers.into_iter().min().expect("a beat is always armed");
        match packet {
            Some((due, n)) if due <= timer.0 => {
                self.cluster.now = self.cluster.now.max(due);
                let packet = self.cluster.packets.remove(n);
                let (to, role) = (packet.to, packet.role);
                let turn = self.cluster.deliver(vec![packet], Crash::No);
                self.observe(to, role, turn);
            }
            _ => {
                let (due, server, role, n) = timer;
                self.cluster.now = self.cluster.now.max(due);
                let turn = match role {
                    RoleName::Proposer => self.cluster.fire_proposer(server, n, Crash::No),
                    _ => self.cluster.fire_learner(server, n, Crash::No),
                };
                self.observe(server, role, turn);
            }
        }
    }

    /// The faults stop. A new command must be applied by everybody, and everybody must hold the same.
    fn heal(&mut self) {
        self.start_all();
        let last = Command::Open { nonce: 1_000_000, label: String::new() };
        let command: paxos::Command = last.to_paxos();
        let begun = self.cluster.now;
        let mut next_try = begun;
        loop {
            let passed = self.cluster.now - begun;
            assert!(passed < LIVENESS_MS, "after {passed} ms without faults: {}", self.describe());
            if self.cluster.now >= next_try {
                next_try += 1_000;
                let server = self.any_server();
                let turn = self.cluster.propose(server, command.clone());
                self.observe(server, RoleName::Proposer, turn);
            }
            if self.has_converged(command.id) {
                return;
            }
            self.pass_time();
        }
    }

    fn has_converged(&self, last: CommandId) -> bool {
        let learners: Vec<_> =
            self.cluster.servers().filter_map(|s| self.cluster.node(s).learner.role.as_ref()).collect();
        let opened = |learner: &&paxos::Learner<Kv>| {
            learner.applied() == self.ghost.highest_chosen()
                && learner.machine().sessions().opened_by(last.nonce).is_some()
        };
        learners.iter().all(opened)
    }

    fn describe(&self) -> String {
        let node = |server| {
            let node = self.cluster.node(server);
            format!("{server}: {:#?}\n{:?}\n", node.proposer.role, node.learner.role.as_ref().map(|l| l.applied()))
        };
        self.cluster.servers().map(node).collect()
    }
}

/// What a batch of walks reached: a batch that goes nowhere tests nothing.
#[derive(Default, Debug)]
struct Reached {
    applied: usize,
    noops: usize,
    duplicates: usize,
    answers: usize,
    refusals: usize,
}

fn walk(seed: u64) -> Reached {
    let mut walk = Walk::new(seed);
    walk.start_all();
    for _ in 0..STEPS {
        walk.step();
    }
    walk.heal();
    Reached {
        applied: walk.ghost.applied(),
        noops: walk.ghost.outcomes(|outcome| *outcome == Outcome::Noop),
        duplicates: walk.ghost.outcomes(|outcome| matches!(outcome, Outcome::Duplicate(_))),
        answers: walk.answers,
        refusals: walk.refusals,
    }
}

#[test]
fn nothing_wrong_happens_and_then_everything_gets_done() {
    let only = std::env::var("PAXOS_WALK_SEED").ok().map(|seed| seed.parse().expect("PAXOS_WALK_SEED is a number"));
    let seeds = only.map_or(1..=SEEDS, |seed: u64| seed..=seed);
    let mut all = Reached::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| walk(seed))) {
            Ok(reached) => {
                all.applied += reached.applied;
                all.noops += reached.noops;
                all.duplicates += reached.duplicates;
                all.answers += reached.answers;
                all.refusals += reached.refusals;
            }
            Err(panic) => {
                eprintln!("seed {seed} failed: PAXOS_WALK_SEED={seed} cargo test --test random_walk");
                resume_unwind(panic);
            }
        }
    }
    println!("{all:?}");
    let Reached { applied, noops, duplicates, answers, refusals } = all;
    let enough = applied > 20_000 && noops > 20 && duplicates > 200 && answers > 10_000 && refusals > 100;
    assert!(enough || only.is_some(), "these walks go nowhere: {all:?}");
}
