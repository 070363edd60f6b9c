//! The two numbers of the protocol: the ballot of a proposal, and the slot in the log.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::role::ServerId;

/// The number of a proposal (Paxos Made Simple, section 2.2). It is unique, because a server never uses a round twice
/// and the server's number is part of it. It is ordered by round first. Printed `round.server`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with each attempt; orders ballots first. At most [`Ballot::LAST_ROUND`].
    #[serde(deserialize_with = "decode_round")]
    pub round: u64,
    /// The proposer that owns the ballot; orders ballots of equal rounds.
    pub server: ServerId,
}

impl Ballot {
    /// Lower than every ballot that a proposer owns: no ballot was promised yet.
    pub const ZERO: Ballot = Ballot { round: 0, server: ServerId(0) };
    /// The last round: a proposer that has used it proposes nothing more. No run lasts long enough to reach it, but a
    /// peer may claim it. A round that wrapped around to 0 would be used twice.
    pub const LAST_ROUND: u64 = (1 << 62) - 1;
}

/// Decodes a round from untrusted bytes.
fn decode_round<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let round = u64::deserialize(from)?;
    if round <= Ballot::LAST_ROUND {
        Ok(round)
    } else {
        Err(serde::de::Error::custom("the round is above the last one"))
    }
}

impl Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.server.0)
    }
}

impl Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl FromStr for Ballot {
    type Err = String;

    fn from_str(text: &str) -> Result<Ballot, String> {
        let parts = text.split_once('.').and_then(|(round, server)| Some((number(round)?, number(server)?)));
        match parts {
            Some((round, server)) if server <= u64::from(ServerId::MAX) => {
                Ok(Ballot { round, server: ServerId(server as u8) })
            }
            _ => Err(format!("'{text}' is not a ballot (round.server, as in 3.1)")),
        }
    }
}

/// Reads a number only if it is written exactly as it is printed.
fn number(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|n: &u64| n.to_string() == digits)
}

/// A position in the log: 1, 2, 3 ... Slot 0 is "before the first".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Slot(pub u64);

impl TryFrom<u64> for Slot {
    type Error = &'static str;

    /// Checks a number from untrusted bytes.
    fn try_from(number: u64) -> Result<Slot, &'static str> {
        if number <= Slot::LAST.0 { Ok(Slot(number)) } else { Err("the slot is above the last one") }
    }
}

impl Slot {
    /// The last slot of a log. It is far below the largest `u64`, so that arithmetic around a slot named by a peer does
    /// not overflow.
    pub const LAST: Slot = Slot((1 << 62) - 1);

    /// The slot after this one.
    pub fn next(self) -> Slot {
        self.plus(1)
    }

    /// The slot `count` slots later.
    pub fn plus(self, count: u64) -> Slot {
        Slot(self.0.saturating_add(count))
    }

    /// The slot before this one; 0 stays 0.
    pub fn previous(self) -> Slot {
        Slot(self.0.saturating_sub(1))
    }

    /// Number of slots that this one is ahead of `other`; 0 if it is not ahead.
    pub fn ahead_of(self, other: Slot) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// The slots from this one to `last`, both included.
    pub fn to(self, last: Slot) -> impl Iterator<Item = Slot> {
        (self.0..=last.0).map(Slot)
    }
}

impl Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

impl Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn ballots_order_by_round_then_server_and_never_as_fractions() {
        let ballot = |text: &str| text.parse::<Ballot>().unwrap();
        assert!(ballot("2.1") > ballot("1.5"));
        assert!(ballot("3.2") > ballot("3.1"));
        // As fractions 1.10 and 1.1 would be one number: two proposers would own one ballot.
        assert_ne!(ballot("1.10"), ballot("1.1"));
        assert!(ballot("1.10") > ballot("1.9"));
        assert!(ballot("1.1") > Ballot::ZERO);
    }

    #[test]
    fn number_above_the_last_is_refused_by_its_decoder() {
        let is_slot = |number: u64| decode::<Slot>(&encode(&Slot(number))).is_ok();
        let is_ballot = |round| decode::<Ballot>(&encode(&Ballot { round, server: ServerId(1) })).is_ok();
        for (number, last) in
            [(0, false), (1 << 61, false), (Slot::LAST.0, false), (Slot::LAST.0 + 1, true), (u64::MAX, true)]
        {
            assert_eq!((is_slot(number), is_ballot(number)), (!last, !last), "{number}");
        }
    }

    #[test]
    fn only_the_printed_form_is_read() {
        for text in ["", "1", "1.", ".1", "01.1", "1.01", "1.64", "-1.1", "1.1.1", "+1.1"] {
            assert!(text.parse::<Ballot>().is_err(), "{text}");
        }
        let ballot = Ballot { round: 17, server: ServerId(3) };
        assert_eq!(ballot.to_string().parse(), Ok(ballot));
    }
}
