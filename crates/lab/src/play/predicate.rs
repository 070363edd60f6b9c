//! Predicates: what a goal of an exercise says about the servers. They are evaluated from the disks and from what was
//! sent, and not from what any learner has found out, unless they say so.

use std::cell::Cell;

use paxos_kv::paxos::Ballot;
use paxos_kv::role::{RoleKind, ServerId};

use super::choice::{role_of_text, server_of_text};

/// Maximum depth of a predicate; a longer text is refused before it can use up the stack.
const DEPTH_MAX: usize = 32;

/// A slot: the first one after the set-up, or one at this distance behind it, or by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotName {
    /// `first`, `first+2`.
    First(u64),
    /// `7`.
    Number(u64),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

impl Comparison {
    /// Whether it holds.
    pub fn holds<T: PartialOrd>(self, one: T, other: T) -> bool {
        match self {
            Comparison::Equal => one == other,
            Comparison::Less => one < other,
            Comparison::AtMost => one <= other,
            Comparison::More => one > other,
            Comparison::AtLeast => one >= other,
        }
    }
}

/// A statement without parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A quorum has accepted the value, or any value, in the slot at one ballot.
    Chosen(SlotName, Option<String>),
    /// The number of acceptors that have accepted the value at one ballot, the largest of all ballots.
    Accepted(SlotName, String, Comparison, usize),
    /// The server has proposed the value in the slot.
    Proposed(SlotName, String, ServerId),
    /// The value is chosen in the slot, or can yet be at a ballot that has proposed it.
    MayBeChosen(SlotName, String),
    /// The promises that the proposer has received require the value.
    Bound(ServerId, SlotName, String),
    /// Number of different values that promises for the proposer's ballots have reported in the slot.
    Reported(ServerId, SlotName, Comparison, usize),
    /// A living learner has applied the slot.
    Known(SlotName),
    /// The client has got a result: `ok`, `value`, `notapplied` or `unknown`.
    Told(usize, Told),
    /// A read of the client has returned the value.
    Read(usize, String),
    /// The acceptor's promise, compared with a ballot.
    Promised(ServerId, Comparison, Ballot),
    /// The role is up, or down.
    RoleIs(ServerId, RoleKind, bool),
    /// The process is up, or down.
    ServerIs(ServerId, bool),
    /// Number of servers on which the role is down.
    DownCount(RoleKind, Comparison, usize),
    /// The server leads.
    Leader(ServerId),
    /// Number of participants that hold a lock on the key.
    Locked(String, Comparison, usize),
    /// The last slot that the learner has applied.
    Applied(ServerId, Comparison, SlotName),
    /// The learner has installed a snapshot.
    Snapshot(ServerId),
    /// The role crashed at this point of a turn.
    Crashed(ServerId, RoleKind, String),
    /// The version of the key at the learner that has the highest one.
    Version(String, Comparison, usize),
    /// A participant of the server may neither commit nor abort, and knows it.
    Blocked(ServerId),
    /// The last stretch of the reader's steps has been played twice in a row; played ten times more, every choice fits
    /// and nothing is chosen.
    Endless,
    /// All living learners have applied the same state.
    Equal,
    /// Number of ballots that the server has prepared since the set-up.
    Rounds(ServerId, Comparison, usize),
    /// Number of times that a NACK has arrived at the proposer.
    Refused(ServerId, Comparison, usize),
    /// Agreement, or what clients may rely on, is broken.
    Broken,
    /// Number of steps.
    Steps(Comparison, usize),
}

/// The result that a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Applied.
    Ok,
    /// Certainly not applied.
    NotApplied,
    /// The outcome is unknown.
    Unknown,
}

/// A statement about the servers.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// A statement without parts.
    Fact(Fact),
    /// It does not hold.
    Not(Box<Predicate>),
    /// Both hold.
    And(Box<Predicate>, Box<Predicate>),
    /// One of them holds.
    Or(Box<Predicate>, Box<Predicate>),
    /// It holds, or held after an earlier step.
    Once(Box<Predicate>, Seen),
}

/// Whether the inner part of a `once` has held. Each play begins with its own copy of the exercise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen(Cell<bool>);

impl Predicate {
    /// Whether it holds, if `holds` says so of its facts. To be called after each step.
    pub fn holds(&self, facts: &impl Fn(&Fact) -> bool) -> bool {
        match self {
            Predicate::Fact(fact) => facts(fact),
            Predicate::Not(inner) => !inner.holds(facts),
            // Both sides are evaluated, so that each `once` sees every step.
            Predicate::And(one, other) => one.holds(facts) & other.holds(facts),
            Predicate::Or(one, other) => one.holds(facts) | other.holds(facts),
            Predicate::Once(inner, seen) => {
                if inner.holds(facts) {
                    seen.0.set(true);
                }
                seen.0.get()
            }
        }
    }
}

/// An error: its column from 0, and a sentence.
type ReadError = (usize, String);

/// Reads a predicate.
pub fn read_predicate(text: &str) -> Result<Predicate, ReadError> {
    let mut reader = PredicateReader { tokens: tokens(text)?, at: 0, end: text.len(), depth: 0 };
    let read = reader.either()?;
    match reader.peek() {
        None => Ok(read),
        Some((column, token)) => Err((column, format!("'{token}' is not expected here; join statements with and, or"))),
    }
}

/// Words, and the signs `( ) , = < <= > >=`, each with its column.
fn tokens(text: &str) -> Result<Vec<(usize, &str)>, ReadError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
        let length = match next {
            ' ' => {
                at += 1;
                continue;
            }
            '<' | '>' if rest[1..].starts_with('=') => 2,
            '(' | ')' | ',' | '=' | '<' | '>' => 1,
            _ if is_word(next) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => return Err((at, format!("the sign '{next}' has no meaning here"))),
        };
        found.push((at, &rest[..length]));
        at += length;
    }
    Ok(found)
}

struct PredicateReader<'a> {
    tokens: Vec<(usize, &'a str)>,
    at: usize,
    end: usize,
    depth: usize,
}

impl<'a> PredicateReader<'a> {
    fn peek(&self) -> Option<(usize, &'a str)> {
        self.tokens.get(self.at).copied()
    }

    fn column(&self) -> usize {
        self.peek().map_or(self.end, |(column, _)| column)
    }

    fn takes(&mut self, token: &str) -> bool {
        let is_next = self.peek().is_some_and(|(_, next)| next == token);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), ReadError> {
        if self.takes(token) { Ok(()) } else { Err((self.column(), format!("'{token}' is expected here"))) }
    }

    fn word(&mut self, what: &str) -> Result<(usize, &'a str), ReadError> {
        let is_word = |token: &str| token.chars().next().is_some_and(|first| !"(),=<>".contains(first));
        match self.peek().filter(|(_, token)| is_word(token)) {
            Some(found) => {
                self.at += 1;
                Ok(found)
            }
            None => Err((self.column(), format!("{what} is expected here"))),
        }
    }

    fn either(&mut self) -> Result<Predicate, ReadError> {
        let mut one = self.both()?;
        while self.takes("or") {
            one = Predicate::Or(Box::new(one), Box::new(self.both()?));
        }
        Ok(one)
    }

    fn both(&mut self) -> Result<Predicate, ReadError> {
        let mut one = self.single()?;
        while self.takes("and") {
            one = Predicate::And(Box::new(one), Box::new(self.single()?));
        }
        Ok(one)
    }

    fn single(&mut self) -> Result<Predicate, ReadError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err((self.column(), format!("the predicate is nested more than {DEPTH_MAX} deep")));
        }
        let read = if self.takes("not") {
            Predicate::Not(Box::new(self.single()?))
        } else if self.takes("once") {
            Predicate::Once(Box::new(self.single()?), Seen::default())
        } else if self.takes("(") {
            let inner = self.either()?;
            self.expect(")")?;
            inner
        } else {
            Predicate::Fact(self.fact()?)
        };
        self.depth -= 1;
        Ok(read)
    }

    fn fact(&mut self) -> Result<Fact, ReadError> {
        let (column, name) = self.word("a statement such as chosen(first, Lyon)")?;
        if name == "steps" {
            let (comparison, count) = self.count()?;
            return Ok(Fact::Steps(comparison, count));
        }
        if name == "broken" {
            return Ok(Fact::Broken);
        }
        if name == "endless" {
            return Ok(Fact::Endless);
        }
        self.expect("(")?;
        if let Some(fact) = self.slot_fact(name)? {
            return Ok(fact);
        }
        if let Some(fact) = self.server_fact(name)? {
            return Ok(fact);
        }
        self.client_fact(name)?.ok_or_else(|| (column, format!("'{name}' is no statement: see docs/teaching.md")))
    }

    /// A statement about a slot; None for other names.
    fn slot_fact(&mut self, name: &str) -> Result<Option<Fact>, ReadError> {
        Ok(Some(match name {
            "chosen" => {
                let slot = self.slot()?;
                let value = if self.takes(",") { Some(self.value()?) } else { None };
                self.close()?;
                Fact::Chosen(slot, value)
            }
            "accepted" => {
                let (slot, value) = self.slot_and_value()?;
                self.close()?;
                let (comparison, count) = self.count()?;
                Fact::Accepted(slot, value, comparison, count)
            }
            "proposed" => {
                let (slot, value) = self.slot_and_value()?;
                self.expect(",")?;
                let server = self.server()?;
                self.close()?;
                Fact::Proposed(slot, value, server)
            }
            "may_be_chosen" => {
                let (slot, value) = self.slot_and_value()?;
                self.close()?;
                Fact::MayBeChosen(slot, value)
            }
            "bound" => {
                let server = self.server()?;
                self.expect(",")?;
                let (slot, value) = self.slot_and_value()?;
                self.close()?;
                Fact::Bound(server, slot, value)
            }
            "reported" => {
                let server = self.server()?;
                self.expect(",")?;
                let slot = self.slot()?;
                self.close()?;
                let (comparison, count) = self.count()?;
                Fact::Reported(server, slot, comparison, count)
            }
            "known" => {
                let slot = self.slot()?;
                self.close()?;
                Fact::Known(slot)
            }
            _ => return Ok(None),
        }))
    }

    /// A statement about a server or a role; None for other names.
    fn server_fact(&mut self, name: &str) -> Result<Option<Fact>, ReadError> {
        Ok(Some(match name {
            "promised" => {
                let server = self.server()?;
                self.close()?;
                let comparison = self.comparison()?;
                let (column, word) = self.word("a ballot such as 2.3")?;
                let ballot = word.parse().map_err(|error| (column, error))?;
                Fact::Promised(server, comparison, ballot)
            }
            "up" | "down" => self.up_or_down(name == "up")?,
            "leader" => {
                let server = self.server()?;
                self.close()?;
                Fact::Leader(server)
            }
            "applied" => {
                let server = self.server()?;
                self.close()?;
                Fact::Applied(server, self.comparison()?, self.slot()?)
            }
            "snapshot" => {
                let server = self.server()?;
                self.close()?;
                Fact::Snapshot(server)
            }
            "crashed" => {
                let (column, word) = self.word("a role such as s1.acceptor")?;
                let (server, role) = role_of_text(word).ok_or((column, "name a role: s1.acceptor".to_string()))?;
                self.expect(",")?;
                let (column, point) = self.word("before-sync or before-send")?;
                if !["before-sync", "before-send"].contains(&point) {
                    return Err((column, "a role crashes before-sync or before-send".to_string()));
                }
                self.close()?;
                Fact::Crashed(server, role, point.to_string())
            }
            "blocked" => {
                let server = self.server()?;
                self.close()?;
                Fact::Blocked(server)
            }
            "rounds" | "refused" => {
                let server = self.server()?;
                self.close()?;
                let (comparison, count) = self.count()?;
                if name == "rounds" {
                    Fact::Rounds(server, comparison, count)
                } else {
                    Fact::Refused(server, comparison, count)
                }
            }
            _ => return Ok(None),
        }))
    }

    /// A statement about what clients were told, about keys or about all servers; None for other names.
    fn client_fact(&mut self, name: &str) -> Result<Option<Fact>, ReadError> {
        Ok(Some(match name {
            "told" => {
                let client = self.client()?;
                self.expect(",")?;
                let (column, word) = self.word("ok, notapplied or unknown")?;
                let told = match word {
                    "ok" => Told::Ok,
                    "notapplied" => Told::NotApplied,
                    "unknown" => Told::Unknown,
                    _ => return Err((column, "a client is told ok, notapplied or unknown".to_string())),
                };
                self.close()?;
                Fact::Told(client, told)
            }
            "read" => {
                let client = self.client()?;
                self.expect(",")?;
                let value = self.value()?;
                self.close()?;
                Fact::Read(client, value)
            }
            "version" => {
                let key = self.value()?;
                self.close()?;
                let (comparison, count) = self.count()?;
                Fact::Version(key, comparison, count)
            }
            "locked" => {
                let key = self.value()?;
                self.close()?;
                let (comparison, count) = self.count()?;
                Fact::Locked(key, comparison, count)
            }
            "equal" => {
                self.expect("all")?;
                self.close()?;
                Fact::Equal
            }
            _ => return Ok(None),
        }))
    }

    /// `up(s1)`, `down(s1.acceptor)`, `down(acceptors) >= 3`.
    fn up_or_down(&mut self, is_up: bool) -> Result<Fact, ReadError> {
        let (column, word) = self.word("a server, a role, or a kind of role")?;
        let many = word.strip_suffix('s').and_then(RoleKind::named);
        self.close()?;
        if let (Some(role), false) = (many, is_up) {
            let (comparison, count) = self.count()?;
            return Ok(Fact::DownCount(role, comparison, count));
        }
        if let Some((server, role)) = role_of_text(word) {
            return Ok(Fact::RoleIs(server, role, is_up));
        }
        let server = server_of_text(word).ok_or((column, "name a server or role: s1, s1.acceptor".to_string()))?;
        Ok(Fact::ServerIs(server, is_up))
    }

    fn close(&mut self) -> Result<(), ReadError> {
        self.expect(")")
    }

    fn slot_and_value(&mut self) -> Result<(SlotName, String), ReadError> {
        let slot = self.slot()?;
        self.expect(",")?;
        Ok((slot, self.value()?))
    }

    fn slot(&mut self) -> Result<SlotName, ReadError> {
        let (column, word) = self.word("a slot such as first")?;
        let read = match word.strip_prefix("first") {
            Some("") => Some(SlotName::First(0)),
            Some(rest) => rest.strip_prefix('+').and_then(|more| more.parse().ok()).map(SlotName::First),
            None => word.parse().ok().map(SlotName::Number),
        };
        let is_small = |slot: &SlotName| matches!(slot, SlotName::First(n) | SlotName::Number(n) if *n <= 1 << 20);
        read.filter(is_small).ok_or((column, "a slot is first, first+1 or a number".to_string()))
    }

    fn value(&mut self) -> Result<String, ReadError> {
        self.word("a value such as Lyon").map(|(_, word)| word.to_string())
    }

    fn server(&mut self) -> Result<ServerId, ReadError> {
        let (column, word) = self.word("a server such as s1")?;
        server_of_text(word).ok_or((column, "name a server from s1 to s5".to_string()))
    }

    fn client(&mut self) -> Result<usize, ReadError> {
        let (column, word) = self.word("a client such as c1")?;
        let number = word.strip_prefix('c').and_then(|number| number.parse::<usize>().ok());
        let number = number.filter(|number| (1..=super::choice::CLIENTS_MAX).contains(number));
        number.map(|number| number - 1).ok_or((column, "name a client from c1 to c4".to_string()))
    }

    fn comparison(&mut self) -> Result<Comparison, ReadError> {
        let all = [
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            ("<=", Comparison::AtMost),
            (">", Comparison::More),
            (">=", Comparison::AtLeast),
        ];
        let found = self.peek().and_then(|(_, token)| all.into_iter().find(|(sign, _)| *sign == token));
        let (_, comparison) = found.ok_or((self.column(), "=, <, <=, > or >= is expected here".to_string()))?;
        self.at += 1;
        Ok(comparison)
    }

    fn count(&mut self) -> Result<(Comparison, usize), ReadError> {
        let comparison = self.comparison()?;
        let (column, word) = self.word("a number")?;
        Ok((comparison, word.parse().map_err(|_| (column, format!("'{word}' is no number")))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a predicate holds where exactly these clients have been told OK.
    fn holds(predicate: &Predicate, told: &[usize]) -> bool {
        predicate.holds(&|fact: &Fact| matches!(fact, Fact::Told(client, Told::Ok) if told.contains(client)))
    }

    #[test]
    fn and_binds_closer_than_or_and_not_closest() {
        let read = read_predicate("told(c1, ok) or told(c2, ok) and not told(c3, ok)").unwrap();
        assert!(holds(&read, &[0]) && holds(&read, &[1]) && !holds(&read, &[1, 2]) && !holds(&read, &[]));
        let read = read_predicate("(told(c1, ok) or told(c2, ok)) and not told(c3, ok)").unwrap();
        assert!(holds(&read, &[0]) && !holds(&read, &[0, 2]));
    }

    #[test]
    fn once_remembers_also_where_the_other_side_decides() {
        let read = read_predicate("told(c2, ok) or once told(c1, ok)").unwrap();
        assert!(holds(&read, &[0, 1]) && holds(&read, &[]), "it was seen behind a statement that held");
        assert!(!holds(&read_predicate("once told(c1, ok)").unwrap(), &[]));
    }

    #[test]
    fn every_statement_is_read() {
        for text in [
            "chosen(first)",
            "chosen(first+1, Lyon)",
            "accepted(7, Lyon) <= 2",
            "proposed(first, Lyon, s3)",
            "may_be_chosen(first, Saint-Malo)",
            "bound(s3, first, Lyon)",
            "reported(s3, first) = 2",
            "known(first)",
            "told(c1, notapplied)",
            "read(c2, Oslo)",
            "promised(s2) > 2.1",
            "up(s1) and down(s2.acceptor) and down(acceptors) >= 3",
            "leader(s1)",
            "locked(city) >= 1",
            "applied(s5) >= first",
            "snapshot(s5)",
            "equal(all)",
            "rounds(s1) >= 3 and refused(s1) >= 1",
            "broken and endless",
            "crashed(s3.acceptor, before-sync)",
            "version(city) = 1",
            "blocked(s2)",
            "steps >= 10",
            "chosen(first, Zürich)",
        ] {
            assert!(read_predicate(text).is_ok(), "{text}: {:?}", read_predicate(text));
        }
    }

    #[test]
    fn errors_name_the_column() {
        let column = |text: &str| read_predicate(text).unwrap_err().0;
        assert_eq!(column("chosen(first, Lyon) und known(first)"), 20);
        assert_eq!(column("chosen(second)"), 7);
        assert_eq!(column("accepted(first, Lyon)"), 21);
        assert_eq!(column("told(c9, ok)"), 5);
        assert_eq!(column("known first"), 6);
        assert_eq!(column("known(first) & broken"), 13);
        assert_eq!(column(""), 0);
        assert_eq!(column(&format!("{}broken", "not ".repeat(DEPTH_MAX))), 4 * DEPTH_MAX);
    }
}
