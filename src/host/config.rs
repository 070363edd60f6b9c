//! The configuration of a server: how it was started, as far as its decisions depend on it.

use super::mail_queue::MAILBOX_MAX;
use crate::kv::SESSIONS_MAX;
use crate::paxos::{OPEN_BYTES_MAX, OPEN_SLOTS_MAX, PAGE_BYTES, Quorums, Retention};
use crate::protocol::Protocol;
use crate::role::{ServerId, ServerSet};
use crate::storage::checkpoint::CHUNK_BYTES;

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the cluster.
    pub name: String,
    /// The number of this server.
    pub me: ServerId,
    /// All servers of the cluster.
    pub cluster: ServerSet,
    /// The quorums of the cluster.
    pub quorums: Quorums,
    /// The protocol of the cluster.
    pub protocol: Protocol,
    /// The incarnation of the process on its data directory.
    pub incarnation: u32,
    /// A random number of this process: no other process on the same data directory has it.
    pub boot: u64,
    /// The process id on its machine.
    pub pid: u32,
    /// A restarted acceptor has forgotten everything. **Unsafe**, to show why.
    pub forgets: bool,
    /// Clients may crash and restart roles, and cut links.
    pub lab: bool,
    /// Roles are not woken for inputs that they cannot use yet. Without it they do the same work, in more and smaller
    /// batches.
    pub wake_hints: bool,
    /// How much of the log is kept.
    pub retention: Retention,
    /// Size limits.
    pub sizes: Sizes,
}

#[cfg(test)]
impl Config {
    /// The configuration of server 1 of this cluster, for tests.
    pub fn of_tests(protocol: Protocol, cluster: ServerSet) -> Config {
        Config {
            name: "tests".to_string(),
            me: ServerId(1),
            cluster,
            quorums: Quorums::majority(cluster),
            protocol,
            incarnation: 1,
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

/// Size limits. The simulator makes them small, so that a run of a few commands reaches every limit.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Maximum number of inputs in a mailbox, per lane.
    pub mailbox: usize,
    /// Size of a journal file, in bytes.
    pub segment_bytes: u64,
    /// Disk space, in bytes, that stays free when the next journal file is created: for the small files of the data
    /// directory and the log lines.
    pub left_free_bytes: u64,
    /// Approximate size of a PROMISE page, or of a part of a list of entries, in bytes.
    pub page_bytes: usize,
    /// Approximate size of a snapshot chunk, in bytes.
    pub snapshot_bytes: usize,
    /// Maximum number of sessions that are kept.
    pub sessions: usize,
    /// Maximum number of slots that a proposer has in flight.
    pub in_flight_max_slots: u64,
    /// Approximate maximum bytes of the values in these slots.
    pub in_flight_max_bytes: usize,
}

impl Sizes {
    /// The limits of a real server, with journal files of `segment_bytes` bytes.
    pub fn usual(segment_bytes: u64) -> Sizes {
        Sizes {
            mailbox: MAILBOX_MAX,
            segment_bytes,
            left_free_bytes: 1 << 20,
            page_bytes: PAGE_BYTES,
            snapshot_bytes: CHUNK_BYTES,
            sessions: SESSIONS_MAX,
            in_flight_max_slots: OPEN_SLOTS_MAX,
            in_flight_max_bytes: OPEN_BYTES_MAX,
        }
    }
}
