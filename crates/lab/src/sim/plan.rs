//! The plan of a run: what one seed decides beforehand, such as its size, load, speed, and classes of faults.
//!
//! A seed does not mix all faults into every run: each class of faults is on or off for the whole run. So some runs
//! meet many faults of one kind alone (Groce et al., "Swarm Testing", ISSTA 2012).

use std::fmt;
use std::ops::RangeInclusive;

use super::env::{MS, Micros, SECOND};
use super::faults::{Fault, FaultSet};
use super::network::{LANE_BYTES, LinkFaults};
use paxos_kv::client::IN_FLIGHT_MAX;
use paxos_kv::host::mail_queue::MAILBOX_MAX;
use paxos_kv::kv::SESSIONS_MAX;
use paxos_kv::paxos::{PAGE_BYTES, Quorums, Retention};
use paxos_kv::protocol::Protocol;
use paxos_kv::random::Random;
use paxos_kv::role::{ServerId, ServerSet};

/// Everything that a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The seed of the run.
    pub seed: u64,
    /// The protocol of the servers.
    pub protocol: Protocol,
    /// Number of servers.
    pub servers: u8,
    /// Number of clients.
    pub clients: usize,
    /// Number of requests of all clients together.
    pub requests: usize,
    /// Number of requests that a client has in flight at once.
    pub in_flight: usize,
    /// Number of keys.
    pub keys: u64,
    /// Percentage of requests that read.
    pub reads: u64,
    /// Percentage of writes that delete.
    pub deletes: u64,
    /// Percentage of puts with a version condition.
    pub conditional: u64,
    /// Maximum length of a value, in bytes.
    pub value_bytes: u64,
    /// How long a client pauses between two requests.
    pub think: RangeInclusive<Micros>,
    /// How long a client waits for a whole request.
    pub timeout: Micros,
    /// How long a role waits for the processor.
    pub processor: RangeInclusive<Micros>,
    /// How long a sync takes.
    pub sync: RangeInclusive<Micros>,
    /// Length of a journal file, in bytes.
    pub segment_bytes: u64,
    /// Capacity of a role's mailbox, in inputs.
    pub mailbox: usize,
    /// Size of the values in one page of a PROMISE or one ENTRIES, in bytes.
    pub part_bytes: usize,
    /// When a learner makes checkpoints, and how much log it keeps: little, so that short runs make snapshots.
    pub retention: Retention,
    /// Size of a snapshot chunk, in bytes.
    pub snapshot_bytes: usize,
    /// Capacity of the session table.
    pub sessions: usize,
    /// Speed of each server's clock, in percent; it scales the server's timers.
    pub clocks: Vec<u64>,
    /// The faults of the links.
    pub link_faults: LinkFaults,
    /// The classes of faults that are on.
    pub faults: FaultSet,
    /// The time between two faults, on average.
    pub fault_interval: Micros,
    /// The maximum duration of a fault, and of a server's downtime.
    pub fault_duration_max: Micros,
    /// The end of the phase with faults, unless the clients finish before.
    pub fault_phase_end: Micros,
    /// The servers have recorded each other's disks from the start, as in an old cluster.
    pub starts_admitted: bool,
    /// Roles use wake hints, as those of a real server do.
    pub wake_hints: bool,
    /// Two servers that cannot hear each other at first, and for how long.
    pub initial_cut: Option<(ServerId, ServerId, Micros)>,
    /// A person makes every choice: frames and timers wait until they are taken one by one.
    pub by_hand: bool,
    /// The sizes of the quorums of phase 1 and of phase 2, which may miss each other; None for majorities. Unsafe.
    pub quorum_sizes: Option<(usize, usize)>,
    /// In the phase without faults only these servers are up: at least a majority.
    pub healthy: ServerSet,
}

impl RunPlan {
    /// The plan of a seed, with at most these classes of faults.
    pub fn new(seed: u64, allowed: FaultSet, protocol: Option<Protocol>) -> RunPlan {
        // These choices have random streams of their own, so that they change nothing else that a seed decides.
        let mut apart = Random::new(seed, 2);
        let drawn = if apart.within(0..=1) == 0 { Protocol::BasicPaxos } else { Protocol::MultiPaxos };
        let protocol = protocol.unwrap_or(drawn);
        let is_crowded = protocol == Protocol::MultiPaxos && apart.within(0..=19) == 0;
        let under_way = [1, 1, 1, 2, 8, 64][Random::new(seed, 4).within(0..=5) as usize];
        let under_way = if is_crowded { 1 } else { under_way };
        // With few requests and keys a client would never reach this limit.
        let is_busy = under_way == IN_FLIGHT_MAX;
        let mut random = Random::new(seed, 0);
        let mut pick = |range: RangeInclusive<u64>| random.within(range);
        let servers = match pick(0..=9) {
            0 => 1,
            1 => 2,
            2 | 3 => 3,
            4 => 4,
            _ => 5,
        };
        let mut later = Random::new(seed, 3);
        let faults = FaultSet::swarm(allowed, &mut pick).swarm_apart(allowed, &mut |range| later.within(range));
        // With three servers, each needs both others as witnesses.
        let is_apart = faults.has(Fault::LostFiles) && servers > 3 && apart.within(0..=1) == 0;
        let apart = is_apart.then(|| two_of(servers, &mut apart));
        let rate = |on: bool, per_mille: u64| if on { per_mille } else { 0 };
        // Runs with large values, and links whose rate is limited.
        let mut sizes = Random::new(seed, 6);
        let is_large = !is_crowded && sizes.within(0..=49) == 0;
        let has_rate = is_large || sizes.within(0..=5) == 0;
        let link_rate = sizes.within(if is_large { 1_000..=50_000 } else { 200..=2_000 }) as usize;
        let slowest_sync = if pick(0..=4) == 0 { 8 * MS } else { 2 * MS };
        let far = faults.has(Fault::Delay);
        let link_faults = LinkFaults {
            latency: pick(20..=if far { 30 * MS } else { MS }),
            jitter: pick(0..=if far { 40 * MS } else { MS }),
            late: rate(far, pick(0..=5)),
            reorders: far && pick(0..=1) == 0,
            loss: rate(faults.has(Fault::Loss), pick(1..=300)),
            accept_loss: rate(faults.has(Fault::Loss) && pick(0..=3) == 0, pick(300..=800)),
            duplicate: rate(faults.has(Fault::Duplicate), pick(1..=500)),
            replay: rate(faults.has(Fault::Replay), pick(1..=300)),
            corrupt: rate(faults.has(Fault::Corrupt), pick(1..=100)),
            rate: has_rate.then_some(link_rate),
            lane_bytes: match sizes.within(0..=5) {
                0 if faults.has(Fault::Loss) && !is_large && !is_crowded => {
                    [sizes.within(1_000..=5_000) as usize, sizes.within(2_000..=40_000) as usize]
                }
                _ => LANE_BYTES,
            },
        };
        let small = pick(0..=3);
        let drift = faults.has(Fault::Drift);
        let clocks = (0..servers).map(|_| if drift { pick(50..=200) } else { 100 }).collect();
        let plan = RunPlan {
            seed,
            protocol,
            servers,
            clients: pick(1..=6) as usize * if is_crowded { 80 } else { 1 },
            requests: pick(20..=200) as usize * if is_crowded { 6 } else { 1 } * if is_busy { 3 } else { 1 },
            in_flight: under_way,
            keys: pick(1..=5) * if is_crowded { 50 } else { 1 } * if is_busy { 8 } else { 1 },
            reads: pick(0..=60),
            deletes: pick(0..=30),
            conditional: pick(0..=50),
            value_bytes: [24, 24, 600, 3_000][pick(0..=3) as usize],
            think: 0..=pick(0..=50) * MS,
            timeout: pick(2..=10) * SECOND,
            processor: 2..=[pick(5..=100), pick(100..=MS), pick(MS..=50 * MS)]
                [[0, 0, 0, 0, 0, 0, 1, 1, 1, 2][pick(0..=9) as usize]],
            sync: 100..=pick(200..=slowest_sync),
            segment_bytes: 4_096 << pick(1..=3),
            // Not both small: a reply in more parts than a mailbox holds would never arrive completely.
            mailbox: match small {
                // A crowd of clients would keep the mailbox full, and a learner that lags could never catch up.
                0 if !is_crowded => pick(8..=64) as usize,
                0 | 1 => MAILBOX_MAX,
                _ => 16 * MAILBOX_MAX,
            },
            part_bytes: if small > 1 { pick(64..=2_000) as usize } else { PAGE_BYTES },
            retention: Retention {
                checkpoint_slots: pick(3..=60),
                checkpoint_bytes: pick(500..=20_000),
                keep_slots: pick(0..=20),
                keep_bytes: pick(100..=10_000),
            },
            // With one entry a chunk, a crowd's state would take longer to fetch than any log reaches back.
            snapshot_bytes: pick(50..=2_000).max(if is_crowded { 1_000 } else { 0 }) as usize,
            sessions: if pick(0..=4) == 0 { pick(2..=8) as usize } else { SESSIONS_MAX },
            clocks,
            link_faults,
            faults,
            fault_interval: pick(30..=600) * MS,
            fault_duration_max: pick(10..=3_000) * MS,
            starts_admitted: !protocol.is_paxos(),
            wake_hints: Random::new(seed, 5).within(0..=1) == 0,
            initial_cut: apart,
            fault_phase_end: pick(5..=25) * SECOND,
            by_hand: false,
            quorum_sizes: None,
            healthy: match protocol.is_paxos() {
                true => healthy(servers, &mut pick),
                // Two-phase commit needs the votes of all servers.
                false => ServerSet::first(servers),
            },
        };
        if is_large { plan.with_large_values() } else { plan }
    }

    /// Few values of up to one MiB, with limits that suit them.
    fn with_large_values(mut self) -> RunPlan {
        (self.value_bytes, self.requests, self.in_flight) = (1 << 20, self.requests.min(12), self.in_flight.min(8));
        (self.part_bytes, self.snapshot_bytes, self.segment_bytes) = (PAGE_BYTES, 1 << 20, 2 << 20);
        let Retention { checkpoint_bytes, keep_bytes, .. } = &mut self.retention;
        (*checkpoint_bytes, *keep_bytes) = (*checkpoint_bytes << 7, *keep_bytes << 7);
        self
    }

    /// All servers.
    pub fn cluster(&self) -> ServerSet {
        ServerSet::first(self.servers)
    }

    /// The quorums of this cluster: majorities, unless the plan states other sizes.
    pub fn quorums(&self) -> Quorums {
        match self.quorum_sizes {
            None => Quorums::majority(self.cluster()),
            Some((prepare, accept)) => Quorums::that_may_miss(self.cluster(), prepare, accept),
        }
    }

    /// How many servers may fail for good while the cluster must still make progress.
    pub fn spare_servers(&self) -> usize {
        // Under two-phase commit no other server knows what a participant voted, so none may fail.
        if self.protocol.is_paxos() { usize::from(self.servers).div_ceil(2) - 1 } else { 0 }
    }
}

/// Two different servers, and a time of 100 ms to 10 s.
fn two_of(servers: u8, random: &mut Random) -> (ServerId, ServerId, Micros) {
    let one = random.within(1..=u64::from(servers)) as u8;
    let further = random.within(1..=u64::from(servers) - 1) as u8;
    let other = (one - 1 + further) % servers + 1;
    (ServerId(one), ServerId(other), random.within(100 * MS..=10 * SECOND))
}

/// The servers that stay up: in two of three plans all, else a majority or more.
fn healthy(servers: u8, pick: &mut impl FnMut(RangeInclusive<u64>) -> u64) -> ServerSet {
    let all = ServerSet::first(servers);
    let mut left = all;
    let spare = usize::from(servers).div_ceil(2) - 1;
    if spare > 0 && pick(0..=2) == 0 {
        for _ in 0..pick(1..=spare as u64) {
            left = left.without(ServerSet::only(ServerId(pick(1..=u64::from(servers)) as u8)));
        }
    }
    left
}

impl fmt::Display for RunPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunPlan {
            seed, servers, clients, requests, in_flight: under_way, keys, reads, deletes, conditional, ..
        } = self;
        let ms =
            |range: &RangeInclusive<Micros>| format!("{}-{}ms", *range.start() as f64 / 1e3, *range.end() as f64 / 1e3);
        let protocol = self.protocol.name();
        writeln!(
            f,
            "seed {seed}: {protocol}, {servers} servers, {clients} clients, {requests} requests on {keys} keys, \
             at most {under_way} in flight"
        )?;
        writeln!(
            f,
            "  reads {reads}%, deletes {deletes}%, conditional puts {conditional}%, values up to {} bytes",
            self.value_bytes
        )?;
        writeln!(
            f,
            "  sync {}, processor {}, think {}, request time-out {}s, journal files {} KiB, clocks {:?}%,\n  mailboxes {}, \
             parts {} bytes, sessions {}",
            ms(&self.sync),
            ms(&self.processor),
            ms(&self.think),
            self.timeout / SECOND,
            self.segment_bytes >> 10,
            self.clocks,
            self.mailbox,
            self.part_bytes,
            self.sessions,
        )?;
        let Retention { checkpoint_slots, keep_slots, .. } = self.retention;
        writeln!(
            f,
            "  checkpoints after {checkpoint_slots} slots, {keep_slots} kept, sent in chunks of {} bytes",
            self.snapshot_bytes
        )?;
        if let Some((one, other, lasts)) = self.initial_cut {
            writeln!(f, "  {one} and {other} cannot reach each other for the first {}ms", lasts / MS)?;
        }
        let w = &self.link_faults;
        writeln!(
            f,
            "  links {}ms + {}ms{}, of 1000 late {}, lost {} (of ACCEPTs {} more), duplicated {}, replayed {}, corrupt {}",
            w.latency as f64 / 1e3,
            w.jitter as f64 / 1e3,
            if w.reorders { " in any order" } else { "" },
            w.late,
            w.loss,
            w.accept_loss,
            w.duplicate,
            w.replay,
            w.corrupt
        )?;
        if let Some(rate) = w.rate {
            writeln!(f, "  with at most {rate} kB/s each")?;
        }
        writeln!(
            f,
            "  faults {}, one every {}ms, up to {}ms long, for {}s; then only {} are up",
            self.faults,
            self.fault_interval / MS,
            self.fault_duration_max / MS,
            self.fault_phase_end / SECOND,
            self.healthy
        )
    }
}
