//! Invariants, by number. A number never changes its meaning.

use std::fmt;

/// The check of a history gave up: no violation was found, but none is ruled out.
pub const UNDECIDED: u8 = 32;

/// A violation of an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The number of the invariant.
    pub invariant: u8,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}, {}: {}", self.invariant, name_of(self.invariant), self.what)
    }
}

/// The invariant in a few words.
pub fn name_of(invariant: u8) -> &'static str {
    match invariant {
        1 => "a slot has one chosen value",
        2 => "every chosen value was requested by a client",
        3 => "a ballot carries at most one value per slot",
        4 => "a promise is never lowered",
        5 => "nothing is sent before it is durable",
        6 => "an acceptor accepts nothing below its promise",
        7 => "a proposal needs a quorum of complete promises for its slot",
        8 => "a proposal carries the value of the highest ballot accepted",
        9 => "a quorum consists of distinct acceptors at one ballot",
        11 => "no ballot is used twice",
        12 => "only chosen slots are applied, in order without gaps",
        13 => "equal logs give equal states",
        14 => "an acknowledged write is never lost",
        15 => "a command takes effect at most once",
        16 => "client results are linearizable",
        17 => "a read sees everything chosen before it began",
        19 => "results agree with the slot order and with real time",
        20 => "a checkpoint or snapshot equals the log up to its slot, and no server goes back",
        21 => "truncated slots are in a durable checkpoint",
        22 => "recovery finds what was durable, every time",
        23 => "a corrupt record is not treated as absent",
        24 => "the memory, log and frames of a server are bounded",
        25 => "a command reported \"not applied\" never takes effect",
        27 => "a healthy majority makes progress and agrees",
        29 => "no role violates its own assertions",
        30 => "the proposals of a ballot have no hole",
        31 => "no server refuses an intact disk",
        33 => "a ballot has a command in flight in at most one slot",
        34 => "a leader that is refused steps down",
        35 => "a leader without heartbeat replies from a majority steps down",
        36 => "a server that lost its disk is not admitted with another one",
        37 => "no transaction is both committed and aborted",
        38 => "a prepared participant decides nothing alone",
        39 => "a commit has a yes vote of every participant",
        40 => "no server records what an impostor claims",
        41 => "a storage id is replaced only by that of an admitted server",
        42 => "no client writes in another client's session",
        43 => "no server ends its own process while its disk works",
        44 => "no role sleeps with mail in its mailbox and no timer",
        45 => "the entries after a snapshot are kept while a peer fetches it",
        46 => "a full disk holds no unneeded journal file",
        UNDECIDED => "every history is checked to the end",
        _ => "unknown invariant",
    }
}

/// Whether a violation is user visible: replicas differ, an acknowledged write is lost, a client gets a wrong result,
/// or there is no progress. The other invariants prevent such harm, and are violated earlier.
pub fn is_user_visible(invariant: u8) -> bool {
    matches!(invariant, 1 | 13 | 14 | 15 | 16 | 19 | 27 | 37 | 40 | UNDECIDED)
}
