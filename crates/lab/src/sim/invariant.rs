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
        2 => "what is chosen was asked for",
        3 => "a ballot carries one value a slot",
        4 => "promises never fall",
        5 => "nothing is said before it is durable",
        6 => "nothing is accepted below a promise",
        7 => "a proposal follows what a quorum has promised of its slot",
        8 => "a proposal carries the value of the highest ballot accepted",
        9 => "distinct acceptors of one ballot are counted",
        11 => "a ballot is used once",
        12 => "slots are applied one after the other, and only chosen ones",
        13 => "equal logs make equal states",
        14 => "what was acknowledged stays",
        15 => "a command takes effect once",
        16 => "clients see one store",
        17 => "a read sees all that was chosen before it",
        19 => "results agree with the order of slots and with time",
        20 => "a checkpoint or snapshot is the log up to its slot, and nobody goes back",
        21 => "what is forgotten is in a durable checkpoint",
        22 => "recovery finds what was durable, each time",
        23 => "damaged is not absent",
        24 => "what a server holds is bounded",
        25 => "what failed for certain never happens",
        27 => "a healthy majority makes progress and agrees",
        29 => "no role breaks its own assertions",
        30 => "a ballot leaves no hole among its proposals",
        31 => "a disk that nobody has damaged is not refused",
        33 => "a ballot has a command in one open slot",
        34 => "a leader that was refused leads no longer",
        35 => "a leader that nobody answers steps down",
        36 => "who has lost its disk takes no part",
        37 => "a transaction is committed or aborted, and never both",
        38 => "whoever is prepared decides nothing alone",
        39 => "a commit has the votes of all",
        40 => "nothing that a stranger says is remembered",
        41 => "a folder gives way only to one that takes part",
        42 => "nobody writes in another client's session",
        43 => "no process ends itself while its disk works",
        44 => "no role sleeps over its mail without a timer",
        45 => "what a peer needs next is kept while it fetches the state",
        46 => "a full disk holds no journal file that is not needed",
        UNDECIDED => "every history is decided",
        _ => "no name",
    }
}

/// Whether a violation is user visible: replicas differ, an acknowledged write is lost, a client gets a wrong result,
/// or there is no progress. The other invariants prevent such harm, and are violated earlier.
pub fn is_user_visible(invariant: u8) -> bool {
    matches!(invariant, 1 | 13 | 14 | 15 | 16 | 19 | 27 | 37 | 40 | UNDECIDED)
}
