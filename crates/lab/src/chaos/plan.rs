//! Round plan: what one seed decides about servers, client load and faults.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::fault::{ChaosFault, CorruptionTarget, LinkScope};
use super::proxy::LinkEffect;
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::seeded_bugs::Bug;

/// Number of servers in every cluster.
pub const SERVERS: u8 = 5;

/// The plan of a round: one new cluster and all its faults. A pure function of the seed and of the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundPlan {
    /// The seed that generated the plan.
    pub seed: u64,
    /// The protocol that the servers run.
    pub protocol: Protocol,
    /// Whether the servers record protocol steps, so that the lines prove the run.
    pub steps: bool,
    /// Further options of the servers.
    pub server_options: Vec<String>,
    /// Options that make roles crash inside the servers; removed at the end of the round.
    pub role_crash_options: Vec<String>,
    /// Whether messages between servers may be repeated; the proxy then splits the streams into messages.
    pub repeats: bool,
    /// Duration of the fault phase.
    pub duration: Duration,
    /// The faults, in order of time.
    pub faults: Vec<PlannedFault>,
    /// The load that clients generate.
    pub load: LoadPlan,
}

/// A fault with a start and a duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// Start, counted from the moment when the cluster was ready.
    pub at: Duration,
    /// Duration of the fault.
    pub lasts: Duration,
    /// The fault.
    pub fault: ChaosFault,
}

/// The client load of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// Number of concurrent clients, each with its own session.
    pub clients: u64,
    /// Maximum number of requests in flight of each client.
    pub pipeline: usize,
    /// Maximum number of requests a second, over all clients.
    pub rate: u64,
    /// Number of keys; at least half of the requests use one of the first two.
    pub keys: u64,
    /// Percentage of reads.
    pub reads: u64,
    /// Time-outs of one try and of a whole request.
    pub time_limits: (Duration, Duration),
}

/// Options of a plan, in addition to its seed.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// The protocol; each seed decides if None.
    pub protocol: Option<Protocol>,
    /// Duration of the fault phase; each seed decides if None.
    pub duration: Option<Duration>,
    /// Requests a second; if None, 2,500 under Multi-Paxos and 1,000 otherwise.
    pub rate: Option<u64>,
    /// A seeded bug to enable in every server.
    pub bug: Option<Bug>,
}

impl RoundPlan {
    /// The plan of this seed.
    pub fn new(seed: u64, plan_options: PlanOptions) -> RoundPlan {
        let mut random = Random::new(seed, 0);
        let drawn = match random.within(0..=9) {
            0..=5 => Protocol::MultiPaxos,
            6..=7 => Protocol::BasicPaxos,
            _ => Protocol::TwoPhaseCommit,
        };
        let protocol = plan_options.protocol.unwrap_or(drawn);
        let steps = random.within(0..=1) == 0 || protocol != Protocol::MultiPaxos;
        let drawn = Duration::from_millis(random.within(15_000..=30_000));
        let lasts = plan_options.duration.unwrap_or(drawn);
        let mut of = |choices: &[u64]| choices[random.within(0..=choices.len() as u64 - 1) as usize];
        let mut options = vec![
            "--segment-kib".to_string(),
            of(&[256, 512, 1024]).to_string(),
            "--checkpoint-slots".to_string(),
            of(&[200, 1_000, 5_000]).to_string(),
            "--retain-slots".to_string(),
            of(&[50, 500, 2_000]).to_string(),
        ];
        if let Some(bug) = plan_options.bug {
            options.extend(["--bug".to_string(), bug.name().to_string()]);
        }
        let failing: &[&str] = match of(&[0, 0, 0, 1]) {
            1 => &["--fail", "all", "--mean-up", "4s", "--mean-down", "600ms"],
            _ => &[],
        };
        let load = LoadPlan {
            clients: of(&[4, 6, 8, 10]),
            pipeline: of(&[1, 1, 2, 8]) as usize,
            rate: plan_options.rate.unwrap_or(if protocol == Protocol::MultiPaxos { 2_500 } else { 1_000 }),
            keys: of(&[6, 12, 24]),
            reads: of(&[25, 40, 60]),
            time_limits: {
                let one = of(&[300, 500, 1_000]);
                (Duration::from_millis(one), Duration::from_millis(one * of(&[1, 2, 4, 8])))
            },
        };
        let mut generator = PlanGenerator::new(random, protocol);
        let faults = generator.faults(lasts);
        RoundPlan {
            seed,
            protocol,
            steps,
            server_options: options,
            role_crash_options: failing.iter().map(|word| word.to_string()).collect(),
            repeats: generator.has(ChaosFaultClass::Repeat),
            duration: lasts,
            faults,
            load,
        }
    }
}

/// Classes of faults that a seed enables or not, so that different seeds test different combinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChaosFaultClass {
    Pause,
    RepeatedKill,
    Stop,
    Leader,
    Starve,
    Files,
    Power,
    Sync,
    Freeze,
    Full,
    DeadDisk,
    CorruptFiles,
    DataDir,
    Partition,
    Slow,
    Break,
    CorruptBytes,
    Repeat,
    UnknownCallers,
}

impl ChaosFaultClass {
    const ALL: [ChaosFaultClass; 19] = [
        ChaosFaultClass::Pause,
        ChaosFaultClass::RepeatedKill,
        ChaosFaultClass::Stop,
        ChaosFaultClass::Leader,
        ChaosFaultClass::Starve,
        ChaosFaultClass::Files,
        ChaosFaultClass::Power,
        ChaosFaultClass::Sync,
        ChaosFaultClass::Freeze,
        ChaosFaultClass::Full,
        ChaosFaultClass::DeadDisk,
        ChaosFaultClass::CorruptFiles,
        ChaosFaultClass::DataDir,
        ChaosFaultClass::Partition,
        ChaosFaultClass::Slow,
        ChaosFaultClass::Break,
        ChaosFaultClass::CorruptBytes,
        ChaosFaultClass::Repeat,
        ChaosFaultClass::UnknownCallers,
    ];
}

/// Generator of the faults of a round.
struct PlanGenerator {
    random: Random,
    protocol: Protocol,
    allowed: Vec<ChaosFaultClass>,
}

impl PlanGenerator {
    fn new(mut random: Random, protocol: Protocol) -> PlanGenerator {
        let allowed = ChaosFaultClass::ALL.into_iter().filter(|_| random.within(0..=99) < 60).collect();
        PlanGenerator { random, protocol, allowed }
    }

    fn has(&self, class: ChaosFaultClass) -> bool {
        self.allowed.contains(&class)
    }

    /// At most two server faults overlap, one under two-phase commit; a fault may hit all servers. Link faults come in
    /// addition.
    fn faults(&mut self, lasts: Duration) -> Vec<PlannedFault> {
        let mut faults = Vec::new();
        // Any server fault stops two-phase commit, which waits for all votes. It needs gaps between faults to make
        // progress.
        let (tracks, gap) = if self.protocol.is_paxos() { (2, 900) } else { (1, 1_500) };
        for _ in 0..tracks {
            let mut at = self.random_millis(200, 2_000);
            while at < lasts {
                let fault = self.server_fault();
                let length = self.fault_duration(&fault);
                faults.push(PlannedFault { at, lasts: length, fault });
                at += length + self.random_millis(100, 2 * gap);
            }
        }
        let mut at = self.random_millis(1_000, 4_000);
        while at < lasts {
            if let Some(fault) = self.network_fault() {
                let length = self.random_millis(100, 3_500);
                faults.push(PlannedFault { at, lasts: length, fault });
            }
            at += self.random_millis(300, 2_500);
        }
        faults.sort_by_key(|strike| strike.at);
        faults
    }

    fn random_millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.random.within(low..=high))
    }

    fn random_server(&mut self) -> ServerId {
        ServerId(self.random.within(1..=u64::from(SERVERS)) as u8)
    }

    fn random_servers(&mut self, count: usize) -> ServerSet {
        let mut servers = ServerSet::NONE;
        while servers.len() < count {
            servers.insert(self.random_server());
        }
        servers
    }

    fn server_fault(&mut self) -> ChaosFault {
        loop {
            let server = self.random_server();
            let one: ServerSet = [server].into_iter().collect();
            let (class, fault) = match self.random.within(0..=33) {
                0..=5 => (None, ChaosFault::Kill(one)),
                6..=8 => (None, ChaosFault::Kill(self.random_servers(2))),
                9 => (None, ChaosFault::Kill(ServerSet::first(SERVERS))),
                10..=11 => (Some(ChaosFaultClass::Leader), ChaosFault::KillLeader),
                12..=13 => {
                    let after = (0..self.random.within(1..=3)).map(|_| self.random_millis(10, 500)).collect();
                    (Some(ChaosFaultClass::RepeatedKill), ChaosFault::RepeatedKill(server, after))
                }
                14 => (Some(ChaosFaultClass::Stop), ChaosFault::Stop(server)),
                15..=16 => (Some(ChaosFaultClass::Pause), ChaosFault::Pause(server)),
                17 => (Some(ChaosFaultClass::Leader), ChaosFault::PauseLeader),
                18 => (Some(ChaosFaultClass::Starve), ChaosFault::Starve(server, self.random.within(3..=25))),
                19 => (Some(ChaosFaultClass::Files), ChaosFault::FewFiles(server, self.random.within(0..=3))),
                20..=22 => (Some(ChaosFaultClass::Power), ChaosFault::PowerCut(one)),
                23..=24 => (Some(ChaosFaultClass::Power), ChaosFault::PowerCut(ServerSet::first(SERVERS))),
                25 => (Some(ChaosFaultClass::Sync), ChaosFault::FailSync(server, self.random.within(1..=40))),
                26 => (Some(ChaosFaultClass::Sync), ChaosFault::SlowSync(server, self.random_millis(5, 200))),
                27 => (Some(ChaosFaultClass::Freeze), ChaosFault::Freeze(server)),
                28 => (Some(ChaosFaultClass::Full), ChaosFault::FullDisk(server, self.random.within(0..=1) == 0)),
                29 => (Some(ChaosFaultClass::DeadDisk), ChaosFault::DeadDisk(server)),
                30 => (Some(ChaosFaultClass::DeadDisk), ChaosFault::ReadOnly(server)),
                31..=32 => {
                    let part = if self.random.within(0..=2) < 2 {
                        CorruptionTarget::Journal
                    } else {
                        CorruptionTarget::Checkpoint
                    };
                    (Some(ChaosFaultClass::CorruptFiles), ChaosFault::CorruptFiles(server, part))
                }
                _ if self.random.within(0..=1) == 0 => (Some(ChaosFaultClass::DataDir), ChaosFault::Wipe(server)),
                _ => (Some(ChaosFaultClass::DataDir), ChaosFault::RollBack(server)),
            };
            if class.is_none_or(|class| self.has(class)) {
                return fault;
            }
        }
    }

    /// Duration of a server fault.
    fn fault_duration(&mut self, fault: &ChaosFault) -> Duration {
        let whole = fault.servers().len() > 2;
        let (low, high) = match fault {
            _ if whole => (0, 1_000),
            ChaosFault::Pause(_) | ChaosFault::PauseLeader => (50, 4_000),
            ChaosFault::Freeze(_) => (200, 3_000),
            ChaosFault::FailSync(..) | ChaosFault::DeadDisk(_) => (500, 2_000),
            ChaosFault::Wipe(_) | ChaosFault::RollBack(_) => (1_000, 2_500),
            // A tenth of the kills last long enough that the server needs a snapshot afterwards.
            ChaosFault::Kill(_) if self.random.within(0..=9) == 0 => (5_000, 10_000),
            _ => (0, 2_500),
        };
        // Under two-phase commit no write completes while a server is down, so its faults are short.
        let high = if self.protocol.is_paxos() { high } else { high.min(1_500).max(low) };
        self.random_millis(low, high)
    }

    fn network_fault(&mut self) -> Option<ChaosFault> {
        let (class, effect) = match self.random.within(0..=10) {
            10 => {
                let strangers = ChaosFault::UnknownCallers(self.random_server());
                return self.has(ChaosFaultClass::UnknownCallers).then_some(strangers);
            }
            0..=1 => (ChaosFaultClass::Partition, LinkEffect::Drop),
            2..=3 => (ChaosFaultClass::Partition, LinkEffect::Hold),
            4 => (
                ChaosFaultClass::Slow,
                LinkEffect::Slow { delay: self.random_millis(0, 40), jitter: self.random_millis(1, 60) },
            ),
            5 => {
                (ChaosFaultClass::Slow, LinkEffect::LimitRate { bytes_per_second: self.random.within(20..=400) << 10 })
            }
            6 => {
                let abruptly = self.random.within(0..=1) == 0;
                (
                    ChaosFaultClass::Break,
                    LinkEffect::Break { after: self.random.within(50..=40_000), with_reset: abruptly },
                )
            }
            7 => (ChaosFaultClass::CorruptBytes, LinkEffect::Corrupt { per_mille: self.random.within(10..=100) }),
            _ => (ChaosFaultClass::Repeat, LinkEffect::Repeat { per_mille: self.random.within(20..=500) }),
        };
        self.has(class).then(|| ChaosFault::Link(self.link_scope(effect), effect))
    }

    fn link_scope(&mut self, effect: LinkEffect) -> LinkScope {
        let all = ServerSet::first(SERVERS);
        let both = self.random.within(0..=2) < 2;
        let repeats = matches!(effect, LinkEffect::Repeat { .. });
        let cuts = matches!(effect, LinkEffect::Hold | LinkEffect::Drop);
        match self.random.within(0..=5) {
            0 if !repeats => {
                let count = self.random.within(1..=3) as usize;
                LinkScope::Clients(self.random_servers(count))
            }
            0..=1 => {
                let one: ServerSet = [self.random_server()].into_iter().collect();
                LinkScope::Servers { from: one, to: all.without(one), both }
            }
            // The two servers cannot reach each other, but both reach the rest.
            2 => LinkScope::Servers { from: self.random_servers(1), to: self.random_servers(1), both },
            3 => {
                let two = self.random_servers(2);
                LinkScope::Servers { from: two, to: all.without(two), both }
            }
            _ if cuts => {
                let one: ServerSet = [self.random_server()].into_iter().collect();
                LinkScope::Servers { from: all.without(one), to: one, both: false }
            }
            _ => LinkScope::Servers { from: all, to: all, both },
        }
    }
}

impl Display for RoundPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let LoadPlan { clients, pipeline, rate, keys, reads, time_limits: patience } = &self.load;
        writeln!(
            f,
            "seed {}: {SERVERS} servers, {}, for {:.1} s",
            self.seed,
            self.protocol.name(),
            seconds(self.duration)
        )?;
        let steps = if self.steps { "on" } else { "off" };
        writeln!(
            f,
            "  servers: --steps {steps} {} {}",
            self.server_options.join(" "),
            self.role_crash_options.join(" ")
        )?;
        writeln!(
            f,
            "  clients: {clients} with at most {pipeline} requests in flight each, at most {rate} requests/s, {keys} keys, {reads} % reads, \
             time limits {:.1} s per try and {:.1} s per request",
            seconds(patience.0),
            seconds(patience.1)
        )?;
        for PlannedFault { at, lasts, fault } in &self.faults {
            writeln!(f, "  {:6.2} s  for {:5.2} s  {fault}", seconds(*at), seconds(*lasts))?;
        }
        Ok(())
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NONE: PlanOptions = PlanOptions { protocol: None, duration: None, rate: None, bug: None };

    #[test]
    fn same_seed_gives_same_plan_and_other_seed_another() {
        for seed in 1..=50 {
            assert_eq!(RoundPlan::new(seed, NONE), RoundPlan::new(seed, NONE));
            assert_eq!(RoundPlan::new(seed, NONE).to_string(), RoundPlan::new(seed, NONE).to_string());
            assert_ne!(RoundPlan::new(seed, NONE).faults, RoundPlan::new(seed + 1, NONE).faults);
        }
    }

    #[test]
    fn three_hundred_seeds_contain_every_kind_of_fault_under_every_protocol() {
        for protocol in Protocol::ALL {
            let plan_options = PlanOptions { protocol: Some(protocol), ..NONE };
            let plans: Vec<RoundPlan> = (1..=300).map(|seed| RoundPlan::new(seed, plan_options)).collect();
            let kinds: BTreeSet<&str> =
                plans.iter().flat_map(|plan| &plan.faults).map(|one| one.fault.kind()).collect();
            assert_eq!(kinds.len(), 30, "{kinds:?}");
        }
    }

    #[test]
    fn faults_are_in_order_of_time_and_within_the_round() {
        for seed in 1..=100 {
            let plan = RoundPlan::new(seed, NONE);
            assert!(plan.faults.is_sorted_by_key(|strike| strike.at));
            assert!(plan.faults.iter().all(|strike| strike.at <= plan.duration), "{plan}");
            assert!(plan.faults.len() >= 5, "{plan}");
        }
    }
}
