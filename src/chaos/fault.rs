//! What can be done to a cluster of processes, each for a while.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::proxy::{Effect, Place, Way};
use crate::role::{Server, Servers};

/// Something that is done to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`; started again at the end.
    Kill(Servers),
    /// The same, to whoever leads.
    KillLeader,
    /// Killed so soon after each start, again and again.
    Stumble(Server, Vec<Duration>),
    /// SIGTERM; started again at the end.
    Stop(Server),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(Server),
    /// The same, to whoever leads.
    PauseLeader,
    /// SIGSTOP and SIGCONT many times a second: so much of a hundred is left.
    Starve(Server, u64),
    /// So many more files and connections than it has now, and none beyond.
    FewFiles(Server, u64),
    /// The power fails: what was not synced is lost. Started again at the end.
    PowerCut(Servers),
    /// Its disk fails under it, and it must end by itself; mounted again and started at the end.
    DeadDisk(Server),
    /// A sync after so many others says EIO, and it must end by itself.
    FailSync(Server, u64),
    /// Each sync takes so much longer.
    SlowSync(Server, Duration),
    /// The disk takes no write, and says nothing.
    Freeze(Server),
    /// No byte of room is left; perhaps it is killed then, and has to start like that.
    FullDisk(Server, bool),
    /// Started on a disk that is read-only: it must say so and end.
    ReadOnly(Server),
    /// Bytes of its files are wrong when it starts.
    Damage(Server, Part),
    /// Started on an empty folder: it must not take part. It gets its own folder back at the end.
    Wipe(Server),
    /// Started on an old copy of its folder: nobody may believe it. It gets its own folder back at the end.
    RollBack(Server),
    /// Strangers call: some say nothing, some the wrong thing, some half of the right one.
    Strangers(Server),
    /// Something befalls what is said on these ways.
    Net(Ways, Effect),
}

/// A part of a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the acceptor remembers; or participant and coordinator.
    Journal,
    /// The learner's state.
    Checkpoint,
}

/// Between whom the network is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// What the first say to the second, and perhaps the other way round.
    Servers {
        /// Who says it.
        from: Servers,
        /// To whom.
        to: Servers,
        /// And the other way round.
        both: bool,
    },
    /// Between clients and these servers, both ways.
    Clients(Servers),
}

impl Ways {
    /// Each way.
    pub fn all(self) -> Vec<Way> {
        let mut ways = Vec::new();
        match self {
            Ways::Servers { from, to, both } => {
                for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
                    ways.push((Place::Server(a), Place::Server(b)));
                    if both {
                        ways.push((Place::Server(b), Place::Server(a)));
                    }
                }
            }
            Ways::Clients(servers) => {
                for server in servers.iter() {
                    ways.push((Place::Clients, Place::Server(server)));
                    ways.push((Place::Server(server), Place::Clients));
                }
            }
        }
        ways.sort();
        ways.dedup();
        ways
    }
}

impl Fault {
    /// Its kind, for counts.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Kill(servers) if servers.len() > 2 => "kill of all",
            Fault::Kill(_) => "kill",
            Fault::KillLeader => "kill of the leader",
            Fault::Stumble(..) => "kill during a start",
            Fault::Stop(_) => "stop and start",
            Fault::Pause(_) => "pause",
            Fault::PauseLeader => "pause of the leader",
            Fault::Starve(..) => "little time on the processor",
            Fault::FewFiles(..) => "no more open files",
            Fault::PowerCut(servers) if servers.len() > 2 => "power cut of all",
            Fault::PowerCut(_) => "power cut",
            Fault::DeadDisk(_) => "disk that fails",
            Fault::FailSync(..) => "sync that fails",
            Fault::SlowSync(..) => "slow syncs",
            Fault::Freeze(_) => "disk that hangs",
            Fault::FullDisk(_, false) => "full disk",
            Fault::FullDisk(_, true) => "start on a full disk",
            Fault::ReadOnly(_) => "read-only disk",
            Fault::Damage(..) => "damaged files",
            Fault::Wipe(_) => "empty folder",
            Fault::RollBack(_) => "old copy of the folder",
            Fault::Strangers(_) => "strangers at the door",
            Fault::Net(ways, effect) => match (effect, ways) {
                (Effect::Hold | Effect::Swallow, Ways::Servers { both: true, .. }) => "partition",
                (Effect::Hold | Effect::Swallow, Ways::Servers { both: false, .. }) => "partition, one way",
                (Effect::Hold | Effect::Swallow, Ways::Clients(_)) => "clients cut off",
                (Effect::Slow { .. }, _) => "slow network",
                (Effect::Narrow { .. }, _) => "narrow network",
                (Effect::Break { .. }, _) => "broken connections",
                (Effect::Corrupt { .. }, _) => "wrong bits on the network",
                (Effect::Repeat { .. }, _) => "repeated messages",
            },
        }
    }

    /// The servers whose process or disk it is about; none if that is decided later, or by nobody.
    pub fn servers(&self) -> Servers {
        match self {
            Fault::Kill(servers) | Fault::PowerCut(servers) => *servers,
            Fault::KillLeader | Fault::PauseLeader | Fault::Strangers(_) | Fault::Net(..) => Servers::NONE,
            Fault::Stumble(server, _)
            | Fault::Stop(server)
            | Fault::Pause(server)
            | Fault::Starve(server, _)
            | Fault::FewFiles(server, _)
            | Fault::DeadDisk(server)
            | Fault::FailSync(server, _)
            | Fault::SlowSync(server, _)
            | Fault::Freeze(server)
            | Fault::FullDisk(server, _)
            | Fault::ReadOnly(server)
            | Fault::Damage(server, _)
            | Fault::Wipe(server)
            | Fault::RollBack(server) => [*server].into_iter().collect(),
        }
    }

    /// What this machine must be able to do for it.
    pub fn needs(&self) -> Option<Need> {
        match self {
            Fault::PowerCut(_) | Fault::DeadDisk(_) => Some(Need::PowerCuts),
            Fault::Freeze(_) => Some(Need::Freezing),
            Fault::FullDisk(..) | Fault::ReadOnly(_) => Some(Need::Mounts),
            Fault::FailSync(..) | Fault::SlowSync(..) => Some(Need::Tracing),
            _ => None,
        }
    }
}

/// What not every machine, and not every user, can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A disk of its own for each server: an ext4 file system in a file, mounted.
    Mounts,
    /// To shut such a file system down without writing anything more.
    PowerCuts,
    /// To freeze it.
    Freezing,
    /// To come between a process and its system calls.
    Tracing,
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(servers) => write!(f, "kill {servers}"),
            Fault::KillLeader => f.write_str("kill the leader"),
            Fault::Stumble(server, after) => {
                let after: Vec<String> = after.iter().map(|after| format!("{} ms", after.as_millis())).collect();
                write!(f, "kill {server}, and again {} after each start", after.join(", "))
            }
            Fault::Stop(server) => write!(f, "stop {server}"),
            Fault::Pause(server) => write!(f, "pause {server}"),
            Fault::PauseLeader => f.write_str("pause the leader"),
            Fault::Starve(server, percent) => write!(f, "leave {server} {percent} % of its time"),
            Fault::FewFiles(server, more) => write!(f, "let {server} open {more} more files"),
            Fault::PowerCut(servers) => write!(f, "cut the power of {servers}"),
            Fault::DeadDisk(server) => write!(f, "let the disk of {server} fail"),
            Fault::FailSync(server, nth) => write!(f, "let sync {nth} of {server} fail"),
            Fault::SlowSync(server, by) => write!(f, "syncs of {server} take {} ms longer", by.as_millis()),
            Fault::Freeze(server) => write!(f, "freeze the disk of {server}"),
            Fault::FullDisk(server, false) => write!(f, "fill the disk of {server}"),
            Fault::FullDisk(server, true) => write!(f, "fill the disk of {server}, kill it and start it again"),
            Fault::ReadOnly(server) => write!(f, "start {server} on a read-only disk"),
            Fault::Damage(server, Part::Journal) => write!(f, "damage the journal of {server}"),
            Fault::Damage(server, Part::Checkpoint) => write!(f, "damage the checkpoint of {server}"),
            Fault::Wipe(server) => write!(f, "start {server} on an empty folder"),
            Fault::RollBack(server) => write!(f, "start {server} on an old copy of its folder"),
            Fault::Strangers(server) => write!(f, "strangers call {server}"),
            Fault::Net(Ways::Servers { from, to, both }, effect) => {
                write!(f, "network from {from} to {to}{}: {effect}", if *both { " and back" } else { "" })
            }
            Fault::Net(Ways::Clients(servers), effect) => write!(f, "network between clients and {servers}: {effect}"),
        }
    }
}
