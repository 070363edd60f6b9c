//! How a server was started, as far as it decides anything.

use super::mail_queue::MAILBOX_MAX;
use crate::kv::SESSIONS_MAX;
use crate::paxos::{OPEN_BYTES_MAX, OPEN_SLOTS_MAX, PAGE_BYTES, Quorums, Retention};
use crate::protocol::Protocol;
use crate::role::{ServerId, ServerSet};
use crate::storage::checkpoint::CHUNK_BYTES;

/// How a server was started.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the cluster.
    pub name: String,
    /// Which server it is.
    pub me: ServerId,
    /// All servers.
    pub cluster: ServerSet,
    /// Which of them are enough.
    pub quorums: Quorums,
    /// How they agree.
    pub protocol: Protocol,
    /// The number of the process on its data folder.
    pub life: u32,
    /// Drawn by this process: no other one on the same folder has it.
    pub boot: u64,
    /// The number of the process on its machine.
    pub pid: u32,
    /// A restarted acceptor has forgotten everything. **Unsafe**, to show why.
    pub forgets: bool,
    /// Clients may crash and restart roles.
    pub lab: bool,
    /// A role is not woken for what it has no use for yet. Without this it does the same, in more and smaller groups.
    pub wake_hints: bool,
    /// How much of the past is kept.
    pub retention: Retention,
    /// How large things may become.
    pub sizes: Sizes,
}

#[cfg(test)]
impl Config {
    /// How a test starts server 1 of this cluster.
    pub fn of_tests(protocol: Protocol, cluster: ServerSet) -> Config {
        Config {
            name: "tests".to_string(),
            me: ServerId(1),
            cluster,
            quorums: Quorums::majority(cluster),
            protocol,
            life: 1,
            boot: 1,
            pid: 1,
            forgets: false,
            lab: false,
            wake_hints: true,
            retention: Retention::KEEP_ALL,
            sizes: Sizes::usual(1 << 20),
        }
    }
}

/// How large things may become. The simulator makes them small, so that a run of a few commands meets every limit.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A mailbox holds so many inputs.
    pub mailbox: usize,
    /// A file of the journal has so many bytes.
    pub segment_bytes: u64,
    /// So much of the disk is left free for others when the next file of the journal is made: the small files of the
    /// data folder, and the lines.
    pub left_free_bytes: u64,
    /// A page of a promise, or a part of a list of entries, has about so many bytes.
    pub part_bytes: usize,
    /// A part of a state has about so many bytes.
    pub snapshot_bytes: usize,
    /// So many sessions are remembered.
    pub sessions: usize,
    /// A proposer has at most so many slots open.
    pub open_slots: u64,
    /// With values of about so many bytes.
    pub open_bytes: usize,
}

impl Sizes {
    /// Those of a real server, with journal files of so many bytes.
    pub fn usual(segment_bytes: u64) -> Sizes {
        Sizes {
            mailbox: MAILBOX_MAX,
            segment_bytes,
            left_free_bytes: 1 << 20,
            part_bytes: PAGE_BYTES,
            snapshot_bytes: CHUNK_BYTES,
            sessions: SESSIONS_MAX,
            open_slots: OPEN_SLOTS_MAX,
            open_bytes: OPEN_BYTES_MAX,
        }
    }
}
