//! Faults of a cluster of processes, each with a duration.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::proxy::{Direction, LinkEffect, ProxyEnd};
use paxos_kv::role::{ServerId, ServerSet};

/// A fault of servers, disks or the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChaosFault {
    /// `kill -9`; the servers are restarted at the end.
    Kill(ServerSet),
    /// `kill -9` of the current leader; it is restarted at the end.
    KillLeader,
    /// Killed and started repeatedly; each duration is the time from a start to the next kill.
    RepeatedKill(ServerId, Vec<Duration>),
    /// SIGTERM; the server is restarted at the end.
    Stop(ServerId),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(ServerId),
    /// SIGSTOP of the current leader, and SIGCONT at the end.
    PauseLeader,
    /// SIGSTOP and SIGCONT many times a second; the number is the percentage of time that the process still runs.
    Starve(ServerId, u64),
    /// A limit on open files and connections: this many more than the server has open now.
    FewFiles(ServerId, u64),
    /// A power cut: data that was not synced is lost. The servers are restarted at the end.
    PowerCut(ServerSet),
    /// The disk fails, and the server must exit by itself. The disk is mounted again and the server restarted at the
    /// end.
    DeadDisk(ServerId),
    /// The N-th sync fails with EIO, and the server must exit by itself.
    FailSync(ServerId, u64),
    /// Each sync takes this much longer.
    SlowSync(ServerId, Duration),
    /// Writes to the disk block, without an error.
    Freeze(ServerId),
    /// The disk has no free byte. If the flag is set, the server is also killed and must start on the full disk.
    FullDisk(ServerId, bool),
    /// The server is started on a read-only disk: it must report this and exit.
    ReadOnly(ServerId),
    /// Some bytes of the server's files are wrong when it starts.
    CorruptFiles(ServerId, CorruptionTarget),
    /// The server is started on an empty directory: it must not become active. Its own directory is restored at the
    /// end.
    Wipe(ServerId),
    /// The server is started on an old copy of its data directory: peers must refuse it. Its own directory is restored
    /// at the end.
    RollBack(ServerId),
    /// Unknown callers connect: some send nothing, some noise, some half of a valid message, some a false identity.
    UnknownCallers(ServerId),
    /// A link fault in these directions.
    Link(LinkScope, LinkEffect),
}

/// A part of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorruptionTarget {
    /// The journal of the acceptor, or of participant and coordinator.
    Journal,
    /// The learner's checkpoint.
    Checkpoint,
}

/// The links that a link fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkScope {
    /// Links from the first servers to the second, and optionally back.
    Servers {
        /// The sending servers.
        from: ServerSet,
        /// The receiving servers.
        to: ServerSet,
        /// Whether the opposite direction is affected too.
        both: bool,
    },
    /// Between clients and these servers, in both directions.
    Clients(ServerSet),
}

impl LinkScope {
    /// Every single direction.
    pub fn directions(self) -> Vec<Direction> {
        let mut ways = Vec::new();
        match self {
            LinkScope::Servers { from, to, both } => {
                for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
                    ways.push((ProxyEnd::Server(a), ProxyEnd::Server(b)));
                    if both {
                        ways.push((ProxyEnd::Server(b), ProxyEnd::Server(a)));
                    }
                }
            }
            LinkScope::Clients(servers) => {
                for server in servers.iter() {
                    ways.push((ProxyEnd::Clients, ProxyEnd::Server(server)));
                    ways.push((ProxyEnd::Server(server), ProxyEnd::Clients));
                }
            }
        }
        ways.sort();
        ways.dedup();
        ways
    }
}

impl ChaosFault {
    /// Name of the fault's kind, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            ChaosFault::Kill(servers) if servers.len() > 2 => "kill of all",
            ChaosFault::Kill(_) => "kill",
            ChaosFault::KillLeader => "kill of the leader",
            ChaosFault::RepeatedKill(..) => "kill during a start",
            ChaosFault::Stop(_) => "stop and start",
            ChaosFault::Pause(_) => "pause",
            ChaosFault::PauseLeader => "pause of the leader",
            ChaosFault::Starve(..) => "little processor time",
            ChaosFault::FewFiles(..) => "no more open files",
            ChaosFault::PowerCut(servers) if servers.len() > 2 => "power cut of all",
            ChaosFault::PowerCut(_) => "power cut",
            ChaosFault::DeadDisk(_) => "disk that fails",
            ChaosFault::FailSync(..) => "sync that fails",
            ChaosFault::SlowSync(..) => "slow syncs",
            ChaosFault::Freeze(_) => "disk that hangs",
            ChaosFault::FullDisk(_, false) => "full disk",
            ChaosFault::FullDisk(_, true) => "start on a full disk",
            ChaosFault::ReadOnly(_) => "read-only disk",
            ChaosFault::CorruptFiles(..) => "corrupt files",
            ChaosFault::Wipe(_) => "empty directory",
            ChaosFault::RollBack(_) => "old copy of the directory",
            ChaosFault::UnknownCallers(_) => "unknown callers",
            ChaosFault::Link(ways, effect) => match (effect, ways) {
                (LinkEffect::Hold | LinkEffect::Drop, LinkScope::Servers { both: true, .. }) => "partition",
                (LinkEffect::Hold | LinkEffect::Drop, LinkScope::Servers { both: false, .. }) => "partition, one way",
                (LinkEffect::Hold | LinkEffect::Drop, LinkScope::Clients(_)) => "clients cut off",
                (LinkEffect::Slow { .. }, _) => "slow network",
                (LinkEffect::LimitRate { .. }, _) => "narrow network",
                (LinkEffect::Break { .. }, _) => "broken connections",
                (LinkEffect::Corrupt { .. }, _) => "wrong bits on the network",
                (LinkEffect::Repeat { .. }, _) => "repeated messages",
            },
        }
    }

    /// The servers whose process or disk the fault affects; none if they are chosen later, or if it affects links only.
    pub fn servers(&self) -> ServerSet {
        match self {
            ChaosFault::Kill(servers) | ChaosFault::PowerCut(servers) => *servers,
            ChaosFault::KillLeader | ChaosFault::PauseLeader | ChaosFault::UnknownCallers(_) | ChaosFault::Link(..) => {
                ServerSet::NONE
            }
            ChaosFault::RepeatedKill(server, _)
            | ChaosFault::Stop(server)
            | ChaosFault::Pause(server)
            | ChaosFault::Starve(server, _)
            | ChaosFault::FewFiles(server, _)
            | ChaosFault::DeadDisk(server)
            | ChaosFault::FailSync(server, _)
            | ChaosFault::SlowSync(server, _)
            | ChaosFault::Freeze(server)
            | ChaosFault::FullDisk(server, _)
            | ChaosFault::ReadOnly(server)
            | ChaosFault::CorruptFiles(server, _)
            | ChaosFault::Wipe(server)
            | ChaosFault::RollBack(server) => [*server].into_iter().collect(),
        }
    }

    /// The capability that this fault requires of the machine.
    pub fn required_capability(&self) -> Option<Capability> {
        match self {
            ChaosFault::PowerCut(_) | ChaosFault::DeadDisk(_) => Some(Capability::PowerCuts),
            ChaosFault::Freeze(_) => Some(Capability::Freezing),
            ChaosFault::FullDisk(..) | ChaosFault::ReadOnly(_) => Some(Capability::Mounts),
            ChaosFault::FailSync(..) | ChaosFault::SlowSync(..) => Some(Capability::Tracing),
            _ => None,
        }
    }
}

/// A capability that not every machine, and not every user, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Each server has its own disk: a mounted ext4 file system in a file.
    Mounts,
    /// Shut down such a file system without writing anything more.
    PowerCuts,
    /// Freeze such a file system.
    Freezing,
    /// Intercept the system calls of a process.
    Tracing,
}

impl Display for ChaosFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ChaosFault::Kill(servers) => write!(f, "kill {servers}"),
            ChaosFault::KillLeader => f.write_str("kill the leader"),
            ChaosFault::RepeatedKill(server, after) => {
                let after: Vec<String> = after.iter().map(|after| format!("{} ms", after.as_millis())).collect();
                write!(f, "kill {server}, and again {} after each start", after.join(", "))
            }
            ChaosFault::Stop(server) => write!(f, "stop {server}"),
            ChaosFault::Pause(server) => write!(f, "pause {server}"),
            ChaosFault::PauseLeader => f.write_str("pause the leader"),
            ChaosFault::Starve(server, percent) => write!(f, "let {server} run only {percent} % of the time"),
            ChaosFault::FewFiles(server, more) => write!(f, "let {server} open at most {more} more files"),
            ChaosFault::PowerCut(servers) => write!(f, "cut the power of {servers}"),
            ChaosFault::DeadDisk(server) => write!(f, "make the disk of {server} fail"),
            ChaosFault::FailSync(server, nth) => write!(f, "make sync {nth} of {server} fail"),
            ChaosFault::SlowSync(server, by) => write!(f, "delay syncs of {server} by {} ms", by.as_millis()),
            ChaosFault::Freeze(server) => write!(f, "freeze the disk of {server}"),
            ChaosFault::FullDisk(server, false) => write!(f, "fill the disk of {server}"),
            ChaosFault::FullDisk(server, true) => write!(f, "fill the disk of {server}, kill it and start it again"),
            ChaosFault::ReadOnly(server) => write!(f, "start {server} on a read-only disk"),
            ChaosFault::CorruptFiles(server, CorruptionTarget::Journal) => write!(f, "corrupt the journal of {server}"),
            ChaosFault::CorruptFiles(server, CorruptionTarget::Checkpoint) => {
                write!(f, "corrupt the checkpoint of {server}")
            }
            ChaosFault::Wipe(server) => write!(f, "start {server} on an empty directory"),
            ChaosFault::RollBack(server) => write!(f, "start {server} on an old copy of its directory"),
            ChaosFault::UnknownCallers(server) => write!(f, "unknown callers connect to {server}"),
            ChaosFault::Link(LinkScope::Servers { from, to, both }, effect) => {
                write!(f, "network from {from} to {to}{}: {effect}", if *both { " and back" } else { "" })
            }
            ChaosFault::Link(LinkScope::Clients(servers), effect) => {
                write!(f, "network between clients and {servers}: {effect}")
            }
        }
    }
}
