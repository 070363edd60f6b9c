//! What can be done to a cluster of processes, each for a while.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::proxy::{Direction, LinkEffect, ProxyEnd};
use crate::role::{ServerId, ServerSet};

/// Something that is done to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChaosFault {
    /// `kill -9`; started again at the end.
    Kill(ServerSet),
    /// The same, to whoever leads.
    KillLeader,
    /// Killed so soon after each start, again and again.
    Stumble(ServerId, Vec<Duration>),
    /// SIGTERM; started again at the end.
    Stop(ServerId),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(ServerId),
    /// The same, to whoever leads.
    PauseLeader,
    /// SIGSTOP and SIGCONT many times a second: so much of a hundred is left.
    Starve(ServerId, u64),
    /// So many more files and connections than it has now, and none beyond.
    FewFiles(ServerId, u64),
    /// The power fails: what was not synced is lost. Started again at the end.
    PowerCut(ServerSet),
    /// Its disk fails under it, and it must end by itself; mounted again and started at the end.
    DeadDisk(ServerId),
    /// A sync after so many others says EIO, and it must end by itself.
    FailSync(ServerId, u64),
    /// Each sync takes so much longer.
    SlowSync(ServerId, Duration),
    /// The disk takes no write, and says nothing.
    Freeze(ServerId),
    /// No byte of room is left; perhaps it is killed then, and has to start like that.
    FullDisk(ServerId, bool),
    /// Started on a disk that is read-only: it must say so and end.
    ReadOnly(ServerId),
    /// Bytes of its files are wrong when it starts.
    Damage(ServerId, DamageTarget),
    /// Started on an empty folder: it must not take part. It gets its own folder back at the end.
    Wipe(ServerId),
    /// Started on an old copy of its folder: nobody may believe it. It gets its own folder back at the end.
    RollBack(ServerId),
    /// Strangers call: some say nothing, some the wrong thing, some half of the right one.
    Strangers(ServerId),
    /// Something befalls what is said on these ways.
    Net(LinkScope, LinkEffect),
}

/// A part of a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageTarget {
    /// What the acceptor remembers; or participant and coordinator.
    Journal,
    /// The learner's state.
    Checkpoint,
}

/// Between whom the network is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkScope {
    /// What the first say to the second, and perhaps the other way round.
    Servers {
        /// Who says it.
        from: ServerSet,
        /// To whom.
        to: ServerSet,
        /// And the other way round.
        both: bool,
    },
    /// Between clients and these servers, both ways.
    Clients(ServerSet),
}

impl LinkScope {
    /// Each way.
    pub fn all(self) -> Vec<Direction> {
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
    /// Its kind, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            ChaosFault::Kill(servers) if servers.len() > 2 => "kill of all",
            ChaosFault::Kill(_) => "kill",
            ChaosFault::KillLeader => "kill of the leader",
            ChaosFault::Stumble(..) => "kill during a start",
            ChaosFault::Stop(_) => "stop and start",
            ChaosFault::Pause(_) => "pause",
            ChaosFault::PauseLeader => "pause of the leader",
            ChaosFault::Starve(..) => "little time on the processor",
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
            ChaosFault::Damage(..) => "damaged files",
            ChaosFault::Wipe(_) => "empty folder",
            ChaosFault::RollBack(_) => "old copy of the folder",
            ChaosFault::Strangers(_) => "strangers at the door",
            ChaosFault::Net(ways, effect) => match (effect, ways) {
                (LinkEffect::Hold | LinkEffect::Swallow, LinkScope::Servers { both: true, .. }) => "partition",
                (LinkEffect::Hold | LinkEffect::Swallow, LinkScope::Servers { both: false, .. }) => {
                    "partition, one way"
                }
                (LinkEffect::Hold | LinkEffect::Swallow, LinkScope::Clients(_)) => "clients cut off",
                (LinkEffect::Slow { .. }, _) => "slow network",
                (LinkEffect::Narrow { .. }, _) => "narrow network",
                (LinkEffect::Break { .. }, _) => "broken connections",
                (LinkEffect::Corrupt { .. }, _) => "wrong bits on the network",
                (LinkEffect::Repeat { .. }, _) => "repeated messages",
            },
        }
    }

    /// The servers whose process or disk it is about; none if that is decided later, or by nobody.
    pub fn servers(&self) -> ServerSet {
        match self {
            ChaosFault::Kill(servers) | ChaosFault::PowerCut(servers) => *servers,
            ChaosFault::KillLeader | ChaosFault::PauseLeader | ChaosFault::Strangers(_) | ChaosFault::Net(..) => {
                ServerSet::NONE
            }
            ChaosFault::Stumble(server, _)
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
            | ChaosFault::Damage(server, _)
            | ChaosFault::Wipe(server)
            | ChaosFault::RollBack(server) => [*server].into_iter().collect(),
        }
    }

    /// What this machine must be able to do for it.
    pub fn needs(&self) -> Option<Capability> {
        match self {
            ChaosFault::PowerCut(_) | ChaosFault::DeadDisk(_) => Some(Capability::PowerCuts),
            ChaosFault::Freeze(_) => Some(Capability::Freezing),
            ChaosFault::FullDisk(..) | ChaosFault::ReadOnly(_) => Some(Capability::Mounts),
            ChaosFault::FailSync(..) | ChaosFault::SlowSync(..) => Some(Capability::Tracing),
            _ => None,
        }
    }
}

/// What not every machine, and not every user, can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// A disk of its own for each server: an ext4 file system in a file, mounted.
    Mounts,
    /// To shut such a file system down without writing anything more.
    PowerCuts,
    /// To freeze it.
    Freezing,
    /// To come between a process and its system calls.
    Tracing,
}

impl Display for ChaosFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ChaosFault::Kill(servers) => write!(f, "kill {servers}"),
            ChaosFault::KillLeader => f.write_str("kill the leader"),
            ChaosFault::Stumble(server, after) => {
                let after: Vec<String> = after.iter().map(|after| format!("{} ms", after.as_millis())).collect();
                write!(f, "kill {server}, and again {} after each start", after.join(", "))
            }
            ChaosFault::Stop(server) => write!(f, "stop {server}"),
            ChaosFault::Pause(server) => write!(f, "pause {server}"),
            ChaosFault::PauseLeader => f.write_str("pause the leader"),
            ChaosFault::Starve(server, percent) => write!(f, "leave {server} {percent} % of its time"),
            ChaosFault::FewFiles(server, more) => write!(f, "let {server} open {more} more files"),
            ChaosFault::PowerCut(servers) => write!(f, "cut the power of {servers}"),
            ChaosFault::DeadDisk(server) => write!(f, "let the disk of {server} fail"),
            ChaosFault::FailSync(server, nth) => write!(f, "let sync {nth} of {server} fail"),
            ChaosFault::SlowSync(server, by) => write!(f, "syncs of {server} take {} ms longer", by.as_millis()),
            ChaosFault::Freeze(server) => write!(f, "freeze the disk of {server}"),
            ChaosFault::FullDisk(server, false) => write!(f, "fill the disk of {server}"),
            ChaosFault::FullDisk(server, true) => write!(f, "fill the disk of {server}, kill it and start it again"),
            ChaosFault::ReadOnly(server) => write!(f, "start {server} on a read-only disk"),
            ChaosFault::Damage(server, DamageTarget::Journal) => write!(f, "damage the journal of {server}"),
            ChaosFault::Damage(server, DamageTarget::Checkpoint) => write!(f, "damage the checkpoint of {server}"),
            ChaosFault::Wipe(server) => write!(f, "start {server} on an empty folder"),
            ChaosFault::RollBack(server) => write!(f, "start {server} on an old copy of its folder"),
            ChaosFault::Strangers(server) => write!(f, "strangers call {server}"),
            ChaosFault::Net(LinkScope::Servers { from, to, both }, effect) => {
                write!(f, "network from {from} to {to}{}: {effect}", if *both { " and back" } else { "" })
            }
            ChaosFault::Net(LinkScope::Clients(servers), effect) => {
                write!(f, "network between clients and {servers}: {effect}")
            }
        }
    }
}
