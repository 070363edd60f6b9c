//! Faults: what can go wrong in a run, and when. Each class of faults is on or off for a whole run.

use std::fmt;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::coverage::CoveragePoint;
use super::data_dir::SimDirPart;
use super::env::{MS, Micros, SECOND, SimEvent};
use super::network::Endpoint;
use super::simulation::{CrashKind, Simulation};
use paxos_kv::client::NoReply;
use paxos_kv::host::mail_queue::CrashRequest;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::storage::disk::InjectedFailure;
use paxos_kv::trace::{CrashCause, CrashPoint};

macro_rules! faults {
    ($($fault:ident = $name:literal, $description:literal;)+) => {
        /// A class of faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is described by its text")]
        pub enum Fault { $($fault),+ }

        impl Fault {
            /// All classes.
            pub const ALL: &[Fault] = &[$(Fault::$fault),+];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name),+ }
            }

            /// One line that describes the fault.
            pub fn description(self) -> &'static str {
                match self { $(Fault::$fault => $description),+ }
            }
        }
    };
}

faults! {
    Loss = "loss", "frames are lost";
    Delay = "delay", "frames are delayed and overtake each other";
    Duplicate = "duplicate", "frames arrive twice";
    Replay = "replay", "old frames arrive again, also those of earlier incarnations";
    Corrupt = "corrupt", "bits of frames flip in transit";
    Partition = "partition", "servers and clients are cut off from the others";
    OneWay = "one-way", "a server can send but not receive, or receive but not send";
    NonTransitive = "non-transitive", "two servers cannot reach each other, but all other servers reach both";
    Flapping = "flapping", "a server is cut off and connected again many times a second";
    Reset = "reset", "connections break, and frames in flight are lost";
    SlowLink = "slow-link", "links are slow and buffer only a few frames";
    RoleCrash = "role-crash", "one role crashes at any point of a turn and restarts";
    Kill = "kill", "a process is killed at any moment and restarted";
    KillAll = "kill-all", "all processes are killed at once";
    KillAtDisk = "kill-at-disk", "a process is killed in one of its next disk operations, also while it starts";
    PowerLoss = "power-loss", "a server loses power and any part of its unsynced data";
    PowerLossAll = "power-loss-all", "all servers lose power at once";
    Pause = "pause", "a process is paused while its clock continues";
    SlowServer = "slow-server", "a server's processor is up to 50 times slower";
    Drift = "drift", "clocks run at half to twice their speed";
    WallClock = "wall-clock", "a server's wall clock jumps by up to 1 hour, also backwards";
    BitRot = "bit-rot", "a bit of synced data flips while a server is down";
    Misdirected = "misdirected", "an old sector is written in another place, and may be missing in its own";
    OddFiles = "odd-files", "a server's files are missing, truncated, copied, or another server's";
    LostFiles = "lost-folder", "a server loses some or all of its files";
    ReadError = "read-error", "a file cannot be read when a server starts";
    DiskError = "disk-error", "a write or sync fails once";
    DiskFull = "disk-full", "a disk is full for a while";
    SlowSync = "slow-sync", "syncs take up to 0.5 s, or hang for seconds; on all servers at once they take up to 0.9 s";
    NewHistory = "begun-anew", "all servers begin a new history on empty directories while the clients keep running";
    RogueClient = "stranger", "a rogue client opens sessions without end, and writes in those of other clients";
    Impostor = "liar", "an impostor sends HELLO to servers in the name of others";
    WrongDataDir = "wrong-folder", "a server is started on an empty directory, and later on its own again";
    Timers = "timers", "the timers of a role or a whole server fire much too early or much too late";
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Fault, String> {
        let known = || Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
        let found = Fault::ALL.iter().copied().find(|fault| fault.name() == name);
        found.ok_or_else(|| format!("'{name}' is not a fault class; use all, none or some of {}", known()))
    }
}

/// Maximum error of a wall clock.
const HOUR: Micros = 3_600 * SECOND;

/// A set of fault classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSet(u64);

impl FaultSet {
    /// No classes.
    pub const NONE: FaultSet = FaultSet(0);

    /// If at most this number of classes is allowed, a seed turns all of them on.
    pub const FEW: usize = 3;

    /// All classes.
    pub fn all() -> FaultSet {
        Fault::ALL.iter().fold(FaultSet::NONE, |set, fault| set.with(*fault))
    }

    /// One class alone.
    pub fn only(fault: Fault) -> FaultSet {
        FaultSet::NONE.with(fault)
    }

    /// This set with one more class.
    pub fn with(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 | 1 << fault as u64)
    }

    /// This set without one class.
    pub fn without(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 & !(1 << fault as u64))
    }

    /// Whether a class is in the set.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u64 != 0
    }

    /// Number of classes in the set.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The allowed classes that a seed turns on: a random share of them, or all if only few are allowed.
    pub fn swarm(allowed: FaultSet, pick: &mut impl FnMut(RangeInclusive<u64>) -> u64) -> FaultSet {
        let share = pick(0..=60);
        let mut on = FaultSet::NONE;
        for fault in Fault::ALL.iter().filter(|fault| !fault.is_drawn_apart()) {
            // Drawn in any case: the allowed classes must not change what else a seed decides.
            let drawn = pick(0..=99) < share;
            if allowed.has(*fault) && (drawn || allowed.count() <= FaultSet::FEW) {
                on = on.with(*fault);
            }
        }
        on
    }

    /// As [`swarm`](FaultSet::swarm), for the classes that were added later: older decisions of a seed stay as they
    /// were.
    pub fn swarm_apart(self, allowed: FaultSet, pick: &mut impl FnMut(RangeInclusive<u64>) -> u64) -> FaultSet {
        let apart = Fault::ALL.iter().copied().filter(|fault| fault.is_drawn_apart());
        apart.fold(self, |on, fault| {
            let drawn = pick(0..=3) == 0;
            if allowed.has(fault) && (drawn || allowed.count() <= FaultSet::FEW) { on.with(fault) } else { on }
        })
    }
}

impl FromStr for FaultSet {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultSet, String> {
        match text {
            "all" => Ok(FaultSet::all()),
            "none" => Ok(FaultSet::NONE),
            list => list.split(',').try_fold(FaultSet::NONE, |set, name| Ok(set.with(name.trim().parse()?))),
        }
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == FaultSet::all() {
            return f.write_str("all");
        }
        let words: Vec<_> = Fault::ALL.iter().filter(|fault| self.has(**fault)).map(|fault| fault.name()).collect();
        f.write_str(if words.is_empty() { "none".to_string() } else { words.join(",") }.as_str())
    }
}

impl Fault {
    fn is_drawn_apart(self) -> bool {
        self >= Fault::Impostor
    }

    /// Whether the fault affects frames or clocks all the time, rather than striking at a moment.
    pub fn is_permanent(self) -> bool {
        use Fault::{Corrupt, Delay, Drift, Duplicate, Loss, Replay};
        matches!(self, Loss | Delay | Duplicate | Replay | Corrupt | Drift)
    }
}

/// A fault that is active, and how to end it.
#[derive(Clone, Debug)]
pub enum ActiveFault {
    /// These directions are cut.
    Cut(Vec<(Endpoint, Endpoint)>),
    /// These directions are cut or joined next, as the flag says; the number of changes that are left.
    Flap(Vec<(Endpoint, Endpoint)>, bool, u32),
    /// These directions are slow.
    Slow(Vec<(Endpoint, Endpoint)>),
    /// The process is paused until this time.
    Paused(ServerId, Micros),
    /// The processor of the server is slow.
    SlowServer(ServerId),
    /// The disk is full.
    Full(ServerId),
    /// Syncs are slow.
    SlowSync(ServerId),
    /// The server runs on another data directory than its own.
    WrongDataDir(ServerId),
    /// Timers run out early or late.
    Timers(ServerId),
}

impl Simulation {
    /// Injects a random fault of a class that is on, and schedules the next one.
    pub fn inject_random_fault(&mut self) {
        let every = self.plan.fault_interval;
        let next = self.sim_env.random_time(&(every / 4..=every * 2));
        self.sim_env.schedule(next, SimEvent::Chaos);
        let is_injectable = |fault: &Fault| self.plan.faults.has(*fault) && !fault.is_permanent();
        let on: Vec<Fault> = Fault::ALL.iter().copied().filter(is_injectable).collect();
        let servers: Vec<ServerId> = self.plan.cluster().iter().collect();
        if let (Some(fault), Some(server)) = (self.sim_env.random_choice(&on), self.sim_env.random_choice(&servers)) {
            self.sim_env.hash_event(&(fault as u32, server));
            self.inject(fault, server);
        }
    }

    /// A random duration of a fault.
    fn random_fault_duration(&mut self) -> Micros {
        let longest = self.plan.fault_duration_max;
        self.sim_env.random_time(&(longest / 10..=longest))
    }

    fn inject(&mut self, fault: Fault, server: ServerId) {
        match fault {
            // These affect frames and clocks all the time, and never strike at a moment.
            Fault::Loss | Fault::Delay | Fault::Duplicate | Fault::Replay | Fault::Corrupt | Fault::Drift => {}
            Fault::Partition | Fault::OneWay | Fault::NonTransitive | Fault::Flapping => self.cut_off(fault, server),
            Fault::Reset => self.reset(server),
            Fault::SlowLink => self.slow_links(server),
            Fault::RoleCrash => self.crash_role(server),
            Fault::Kill => self.kill(server, CrashKind::Process),
            Fault::PowerLoss => self.kill(server, CrashKind::Power),
            Fault::KillAll => self.kill_all(CrashKind::Process),
            Fault::PowerLossAll => self.kill_all(CrashKind::Power),
            Fault::KillAtDisk => self.plan_disk_failure(server, InjectedFailure::Stop),
            Fault::DiskError => self.plan_disk_failure(server, InjectedFailure::Once(ErrorKind::Other)),
            Fault::Pause => self.pause(server),
            Fault::SlowServer => self.slow_server(server),
            Fault::WallClock => self.jump_wall_clock(server),
            Fault::BitRot => self.flip_a_bit(server),
            Fault::Misdirected => self.misdirect_sector(server),
            Fault::OddFiles => self.disarrange_files(server),
            Fault::ReadError => self.plan_read_error(server),
            Fault::LostFiles => self.lose_files(server),
            Fault::DiskFull => self.fill_disk(server),
            Fault::SlowSync => self.slow_sync(server),
            Fault::NewHistory => self.begin_new_history(),
            Fault::RogueClient => self.send_rogue_requests(server),
            Fault::Impostor => self.send_false_hello(server),
            Fault::WrongDataDir => {
                self.start_on_wrong_dir(server);
                self.schedule_heal(ActiveFault::WrongDataDir(server));
            }
            Fault::Timers => self.disturb_timers(server),
        }
    }

    fn schedule_heal(&mut self, ended: ActiveFault) {
        let lasts = self.random_fault_duration();
        self.sim_env.schedule(lasts, SimEvent::Heal(ended));
    }

    /// Ends a fault.
    pub fn heal(&mut self, ended: ActiveFault) {
        match ended {
            ActiveFault::Cut(cut) => self.cut(&cut, false),
            ActiveFault::Flap(cut, on, left) => {
                self.cut(&cut, on);
                if on || left > 0 {
                    let next = self.sim_env.random_time(&(10 * MS..=400 * MS));
                    self.sim_env.schedule(next, SimEvent::Heal(ActiveFault::Flap(cut, !on, left.saturating_sub(1))));
                }
            }
            ActiveFault::Slow(links) => {
                for (from, to) in links {
                    self.sim_env.network.slow_down(from, to, None);
                }
            }
            // Another pause may have begun meanwhile.
            ActiveFault::Paused(server, until) if self.server(server).paused_until == until => self.resume(server),
            ActiveFault::Paused(..) => {}
            ActiveFault::SlowServer(server) => {
                let usual = self.plan.processor.clone();
                self.server(server).processor = usual;
            }
            ActiveFault::Full(server) => {
                self.server(server).dir.all().for_each(|files| files.set_capacity(None));
            }
            ActiveFault::SlowSync(server) => {
                let usual = self.plan.sync.clone();
                self.server(server).sync = usual;
            }
            ActiveFault::WrongDataDir(server) => self.restore_own_dir(server),
            ActiveFault::Timers(server) => self.restore_timers(server),
        }
    }

    fn cut(&mut self, links: &[(Endpoint, Endpoint)], on: bool) {
        for (from, to) in links {
            self.sim_env.network.cut(*from, *to, on);
        }
    }

    /// These servers with some random clients, and all other servers with the other clients.
    fn split_by(&mut self, inside: ServerSet) -> (Vec<Endpoint>, Vec<Endpoint>) {
        let (mut ins, mut outs) = (Vec::new(), Vec::new());
        for server in self.plan.cluster().iter() {
            if inside.contains(server) { &mut ins } else { &mut outs }.push(Endpoint::Server(server));
        }
        for client in 0..self.plan.clients {
            if self.sim_env.chance(300) { &mut ins } else { &mut outs }.push(Endpoint::Client(client));
        }
        (ins, outs)
    }

    fn cut_off(&mut self, fault: Fault, server: ServerId) {
        let mut inside = ServerSet::only(server);
        if fault == Fault::Partition && self.sim_env.chance(500) {
            let picked: Vec<ServerId> = self.plan.cluster().iter().filter(|_| self.sim_env.chance(400)).collect();
            inside = picked.into_iter().chain([server]).collect();
        }
        let (ins, outs) = self.split_by(inside);
        let pairs = |from: &[Endpoint], to: &[Endpoint]| -> Vec<(Endpoint, Endpoint)> {
            from.iter().flat_map(|from| to.iter().map(|to| (*from, *to))).collect()
        };
        let mut links = match fault {
            Fault::OneWay if self.sim_env.chance(500) => pairs(&ins, &outs),
            Fault::OneWay => pairs(&outs, &ins),
            Fault::NonTransitive => {
                let other = self.sim_env.random_choice(&outs).unwrap_or(Endpoint::Server(server));
                vec![(Endpoint::Server(server), other), (other, Endpoint::Server(server))]
            }
            _ => pairs(&ins, &outs).into_iter().chain(pairs(&outs, &ins)).collect(),
        };
        links.retain(|(from, to)| from != to);
        self.sim_env.reach(match fault {
            Fault::OneWay => CoveragePoint::CutOneWay,
            Fault::NonTransitive => CoveragePoint::CutSome,
            Fault::Flapping => CoveragePoint::Flapped,
            _ => CoveragePoint::Cut,
        });
        if fault == Fault::Flapping {
            let times = self.sim_env.random.within(2..=20) as u32;
            return self.heal(ActiveFault::Flap(links, true, times));
        }
        self.cut(&links, true);
        self.schedule_heal(ActiveFault::Cut(links));
    }

    /// Resets a connection while both ends keep running. Frames in flight are lost, or arrive all the same.
    fn reset(&mut self, server: ServerId) {
        let servers = self.plan.cluster().without(ServerSet::only(server));
        let clients = (0..self.clients.len()).map(Endpoint::Client);
        let others: Vec<Endpoint> = servers.iter().map(Endpoint::Server).chain(clients).collect();
        let (ours, Some(other)) = (Endpoint::Server(server), self.sim_env.random_choice(&others)) else { return };
        let is_lost = self.sim_env.chance(500) || matches!(other, Endpoint::Client(_));
        self.sim_env.reach(if is_lost { CoveragePoint::Reset } else { CoveragePoint::ResetAndLate });
        match other {
            Endpoint::Server(other) => self.break_calls(server, other, is_lost),
            Endpoint::Client(client) => {
                self.sim_env.network.reset(ours, other, is_lost);
                self.sim_env.network.reset(other, ours, is_lost);
                self.sim_env.reach(CoveragePoint::ClientReset);
                let why = NoReply::Broken { why: "connection reset".to_string() };
                self.clients[client].lose_any_connection(&mut self.sim_env, server, why);
            }
        }
    }

    fn slow_links(&mut self, server: ServerId) {
        self.sim_env.reach(CoveragePoint::Slow);
        let room = self.sim_env.random.within(2..=20) as usize;
        let each = self.sim_env.random_time(&(MS..=50 * MS));
        let others: Vec<ServerId> = self.plan.cluster().without(ServerSet::only(server)).iter().collect();
        let links: Vec<_> = others.iter().map(|other| (Endpoint::Server(server), Endpoint::Server(*other))).collect();
        for (from, to) in &links {
            self.sim_env.network.slow_down(*from, *to, Some((room, each)));
        }
        self.schedule_heal(ActiveFault::Slow(links));
    }

    fn crash_role(&mut self, server: ServerId) {
        let points = [CrashPoint::BeforeStep, CrashPoint::BeforeSync, CrashPoint::BeforeSend];
        let (Some(role), Some(point)) =
            (self.sim_env.random_choice(self.plan.protocol.roles_as_named()), self.sim_env.random_choice(&points))
        else {
            return;
        };
        let down = Some(Duration::from_micros(self.random_fault_duration()));
        let at = usize::from(server.0) - 1;
        self.servers[at].crash(&mut self.sim_env, role, CrashRequest { point, cause: CrashCause::Timer, down });
    }

    fn plan_disk_failure(&mut self, server: ServerId, failure: InjectedFailure) {
        // Mostly the journal: the other files are written only a few times in an incarnation.
        let part = match self.sim_env.random.within(0..=9) {
            0..=5 => SimDirPart::Journal,
            6..=7 if self.plan.protocol.is_paxos() => SimDirPart::Checkpoint,
            6..=8 if !self.plan.protocol.is_paxos() => SimDirPart::Coordinator,
            _ => SimDirPart::Top,
        };
        let operation = self.sim_env.random.within(0..=12);
        self.server(server).dir.fail(part, operation, failure);
    }

    fn jump_wall_clock(&mut self, server: ServerId) {
        self.sim_env.reach(CoveragePoint::WallClockJumped);
        let back = self.sim_env.chance(500);
        let by = self.sim_env.random_time(&(0..=HOUR)) as i64;
        self.server(server).wall_clock.store(if back { -by } else { by }, Ordering::Relaxed);
    }

    fn pause(&mut self, server: ServerId) {
        let now = self.sim_env.now();
        if !self.server(server).is_awake(now) {
            return;
        }
        self.sim_env.reach(CoveragePoint::Paused);
        let longer = if self.sim_env.chance(100) { 10 } else { 1 };
        let until = now + longer * self.random_fault_duration();
        self.server(server).paused_until = until;
        self.sim_env.schedule(until - now, SimEvent::Heal(ActiveFault::Paused(server, until)));
    }

    fn slow_server(&mut self, server: ServerId) {
        self.sim_env.reach(CoveragePoint::SlowServer);
        let factor = self.sim_env.random.within(2..=50);
        let usual = self.plan.processor.clone();
        self.server(server).processor = usual.start() * factor..=usual.end() * factor;
        self.schedule_heal(ActiveFault::SlowServer(server));
    }

    /// Makes timers up to 30 times too fast or 50 times too slow: no invariant may depend on timing.
    fn disturb_timers(&mut self, server: ServerId) {
        self.sim_env.reach(CoveragePoint::TimersUpset);
        let roles = self.plan.protocol.roles_as_named();
        let only = if self.sim_env.chance(300) { None } else { self.sim_env.random_choice(roles) };
        let is_late = self.sim_env.chance(500);
        let speed = self.sim_env.random.within(if is_late { 2..=20 } else { 300..=3_000 });
        let at = usize::from(server.0) - 1;
        for role in roles.iter().filter(|role| only.is_none_or(|only| only == **role)) {
            self.servers[at].run_timers(&mut self.sim_env, *role, Some(speed));
        }
        self.schedule_heal(ActiveFault::Timers(server));
    }

    /// The timers run at the server's speed again.
    pub(super) fn restore_timers(&mut self, server: ServerId) {
        let at = usize::from(server.0) - 1;
        for role in self.plan.protocol.roles_as_named() {
            self.servers[at].run_timers(&mut self.sim_env, *role, None);
        }
    }

    fn slow_sync(&mut self, server: ServerId) {
        if self.sim_env.chance(250) {
            self.sim_env.reach(CoveragePoint::AllSyncsSlow);
            let servers: Vec<ServerId> = self.plan.cluster().iter().collect();
            for server in servers {
                self.server(server).sync = 400 * MS..=900 * MS;
                self.schedule_heal(ActiveFault::SlowSync(server));
            }
            return;
        }
        let hangs = self.sim_env.chance(200);
        self.sim_env.reach(if hangs { CoveragePoint::HungSync } else { CoveragePoint::SlowSync });
        let slowest = if hangs { 5 * SECOND } else { 500 * MS };
        self.server(server).sync = slowest / 10..=slowest;
        self.schedule_heal(ActiveFault::SlowSync(server));
    }

    fn fill_disk(&mut self, server: ServerId) {
        if self.plan.protocol.is_paxos() && self.sim_env.chance(400) {
            return self.limit_disk(server);
        }
        // In about half of the cases no room is left.
        let room = self.sim_env.random.within(0..=16 << 10).saturating_sub(8 << 10);
        for files in self.server(server).dir.all() {
            let used: usize = files.image().values().map(Vec::len).sum();
            files.set_capacity(Some(used as u64 + room));
        }
        self.schedule_heal(ActiveFault::Full(server));
    }

    /// Limits the disk until the faults end: room for 1 to 4 more journal files, and for what the checkpoint may
    /// need. The journal itself fills the disk, and must free files.
    fn limit_disk(&mut self, server: ServerId) {
        let files = self.sim_env.random.within(1..=4);
        let one = self.server(server);
        let growth =
            one.process.as_ref().map_or(0, |process| process.core.checkpoints.growth().load(Ordering::Relaxed));
        one.dir.limit_space(Some(growth + files * one.segment_bytes()));
        self.sim_env.reach(CoveragePoint::DiskLimited);
    }
}
