//! A log line: time, process, role, event, reason, and the line that caused it.

use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

use jiff::Timestamp;
use log::Level;
use serde::{Deserialize, Deserializer, Serialize};

use super::event::{Event, EventError};
use super::field::{FieldValue, Fields};
use super::quoted::{self, QuotedText, floor_char_boundary, is_invisible};
use crate::role::{RoleKind, ServerId};

/// Maximum length in bytes of the name of a process that is not a server.
pub const NAME_MAX_BYTES: usize = 32;
/// Maximum length in bytes of a label. A longer one is cut, so that a client cannot make lines grow.
pub const LABEL_MAX_BYTES: usize = 64;

/// A process that writes lines: a server `s2`, in its third incarnation on one data directory `s2@3`; or a client,
/// `c1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    name: ProcessName,
    #[serde(deserialize_with = "decode_incarnation")]
    incarnation: u32,
}

/// Incarnations count from 1: a line with incarnation 0 could not be read back.
fn decode_incarnation<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let life = u32::deserialize(from)?;
    if life > 0 { Ok(life) } else { Err(serde::de::Error::custom("incarnations are counted from 1")) }
}

/// The name of a process, the same in all its incarnations.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum ProcessName {
    Server(ServerId),
    Other(Name),
}

/// A name that is safe in a line. Names arrive in messages, so decoding validates them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Name(String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Name, String> {
        let fits = !name.is_empty() && name.len() <= NAME_MAX_BYTES;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        let number = name.strip_prefix('s').filter(|rest| !rest.is_empty());
        let like_a_server = number.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        if fits && plain && !like_a_server {
            Ok(Name(name))
        } else {
            let short: String = name.chars().take(NAME_MAX_BYTES).collect();
            Err(format!(
                "{short:?} is not a valid name: use 1 to {NAME_MAX_BYTES} letters, digits, - and _, but not a server name such as s1"
            ))
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl ProcessId {
    /// A server in one of its incarnations, counted from 1.
    pub fn server(server: ServerId, life: u32) -> ProcessId {
        ProcessId { name: ProcessName::Server(server), incarnation: life.max(1) }
    }

    /// A process that is not a server; the error says what a name may be.
    pub fn named(name: &str) -> Result<ProcessId, String> {
        Ok(ProcessId { name: ProcessName::Other(name.to_owned().try_into()?), incarnation: 1 })
    }

    /// The server's number, if the process is a server.
    pub fn as_server(&self) -> Option<ServerId> {
        match self.name {
            ProcessName::Server(server) => Some(server),
            ProcessName::Other(_) => None,
        }
    }

    /// The incarnation, counted from 1.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }
}

impl Display for ProcessId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.name {
            ProcessName::Server(server) => Display::fmt(server, f)?,
            ProcessName::Other(Name(name)) => f.write_str(name)?,
        }
        if self.incarnation == 1 { Ok(()) } else { write!(f, "@{}", self.incarnation) }
    }
}

impl Debug for ProcessId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl FromStr for ProcessId {
    type Err = String;

    fn from_str(text: &str) -> Result<ProcessId, String> {
        let (name, life) = text.split_once('@').map_or((text, Some(1)), |(name, life)| (name, life.parse().ok()));
        let life = life.filter(|life| *life > 0).ok_or_else(|| format!("'{text}' has no incarnation after the @"))?;
        let who = match ServerId::parse(name) {
            Some(server) => ProcessName::Server(server),
            None => ProcessName::Other(name.to_owned().try_into()?),
        };
        Ok(ProcessId { name: who, incarnation: life })
    }
}

/// A permanent name of a line: `s2@3.1` is the first line of the third incarnation of server 2.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LineId {
    /// The process that wrote the line.
    pub process: ProcessId,
    /// The line's number among that process's lines, from 1 and without gaps.
    pub n: u64,
}

impl Display for LineId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process, self.n)
    }
}

impl Debug for LineId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl FromStr for LineId {
    type Err = String;

    fn from_str(text: &str) -> Result<LineId, String> {
        let (process, n) = text.rsplit_once('.').ok_or_else(|| format!("'{text}' is not a line id such as s1.204"))?;
        let n = n.parse().map_err(|_| format!("'{text}' does not end with a line number"))?;
        Ok(LineId { process: process.parse()?, n })
    }
}

impl FieldValue for LineId {
    fn print(&self, to: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, to)
    }

    fn parse(text: &str) -> Option<LineId> {
        text.parse().ok()
    }
}

/// Trace information that the envelope of a message carries in addition to the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The line that reported the sending.
    pub parent: Option<LineId>,
    /// Label of the client request that the message belongs to, as in `c1-5`. Nothing relies on it.
    pub req: Option<String>,
}

/// The part of a process that writes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaker {
    /// A client.
    Client,
    /// A server as a whole: its client listener, its links, its process.
    Server,
    /// A server's proposer.
    Proposer,
    /// A server's acceptor.
    Acceptor,
    /// A server's learner.
    Learner,
    /// The coordinator of a two-phase commit.
    Coordinator,
    /// A participant of a two-phase commit.
    Participant,
    /// The fault injector, which crashes roles.
    Chaos,
    /// The audit, which checks the lines of the other parts.
    Audit,
}

impl Speaker {
    /// All values.
    pub const ALL: [Speaker; 9] = [
        Speaker::Client,
        Speaker::Server,
        Speaker::Proposer,
        Speaker::Acceptor,
        Speaker::Learner,
        Speaker::Coordinator,
        Speaker::Participant,
        Speaker::Chaos,
        Speaker::Audit,
    ];

    /// The printed word.
    pub fn as_str(self) -> &'static str {
        match self {
            Speaker::Client => "client",
            Speaker::Server => "server",
            Speaker::Proposer => "proposer",
            Speaker::Acceptor => "acceptor",
            Speaker::Learner => "learner",
            Speaker::Coordinator => "coordinator",
            Speaker::Participant => "participant",
            Speaker::Chaos => "chaos",
            Speaker::Audit => "audit",
        }
    }
}

impl From<RoleKind> for Speaker {
    fn from(role: RoleKind) -> Speaker {
        match role {
            RoleKind::Proposer => Speaker::Proposer,
            RoleKind::Acceptor => Speaker::Acceptor,
            RoleKind::Learner => Speaker::Learner,
            RoleKind::Coordinator => Speaker::Coordinator,
            RoleKind::Participant => Speaker::Participant,
        }
    }
}

/// One line. `Display` writes the line without its line break, and `FromStr` reads exactly that back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Time in UTC, to the microsecond.
    pub time: Timestamp,
    /// Process and number of the line.
    pub id: LineId,
    /// The part of the process that reports.
    pub role: Speaker,
    /// Label of the client request concerned.
    pub req: Option<String>,
    /// What happened.
    pub event: Event,
    /// The line whose message is being handled (`re=`).
    pub parent: Option<LineId>,
    /// Why this happened, in plain English.
    pub reason: Option<String>,
}

impl Line {
    /// The severity of the line's event.
    pub fn level(&self) -> Level {
        self.event.level()
    }
}

/// A label as a line holds it: not empty, and cut at [`LABEL_MAX_BYTES`].
pub fn clean_label(mut label: String) -> Option<String> {
    label.truncate(floor_char_boundary(label.as_bytes(), LABEL_MAX_BYTES));
    Some(label).filter(|label| !label.is_empty())
}

/// A reason as a line holds it: not empty, and without characters that would break the line.
pub fn clean_reason(why: String) -> Option<String> {
    let why = if why.contains(is_invisible) { why.replace(is_invisible, " ") } else { why };
    Some(why).filter(|why| !why.is_empty())
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let role = self.role.as_str();
        // Padded fields are written as strings: `pad` works on strings only.
        write!(f, "{:.6} {:<5} ", self.time, self.level().as_str())?;
        write_padded(f, &self.id, 7)?;
        write!(f, " {role:<8} {:<8}", self.event.name())?;
        if let Some(req) = &self.req {
            f.write_str(" req=")?;
            quoted::write_bytes(req.as_bytes(), f)?;
        }
        self.event.write_fields(f)?;
        if let Some(re) = &self.parent {
            write!(f, " re={re}")?;
        }
        match &self.reason {
            Some(why) => write!(f, " -- {why}"),
            None => Ok(()),
        }
    }
}

fn write_padded(f: &mut Formatter<'_>, id: &LineId, width: usize) -> fmt::Result {
    write!(f, "{:<width$}", id.to_string())
}

/// Why a text is not a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Time, level, id, role and event are not all at the start.
    #[error("a line begins with time, level, id, role and event; {0} is missing or wrong")]
    Head(&'static str),
    /// The event is unknown, or one of its fields is missing or invalid.
    #[error(transparent)]
    Event(#[from] EventError),
    /// Text follows the last field of the event.
    #[error("unexpected text '{0}' after the last field")]
    Rest(String),
    /// The text can be read, but the writer would have written the same line differently.
    #[error("the line does not have the form that this program writes: '{0}'")]
    Form(String),
}

impl FromStr for Line {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Line, LineError> {
        let mut rest = line;
        let mut word = || {
            let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = behind.trim_start_matches(' ');
            word
        };
        let (time, _level, id, role, name) = (word(), word(), word(), word(), word());
        let time = time.parse().map_err(|_| LineError::Head("the time"))?;
        let id = id.parse().map_err(|_| LineError::Head("the id"))?;
        let role = Speaker::ALL.into_iter().find(|tag| tag.as_str() == role).ok_or(LineError::Head("the role"))?;
        let mut fields = Fields::new(rest);
        let req = fields.take("req").map(parse_label).transpose()?;
        let event = Event::read(name, &mut fields)?;
        let re = fields.take("re").map(|re| LineId::parse(re).ok_or_else(|| LineError::Rest(format!("re={re}"))));
        let re = re.transpose()?;
        let why = match fields.rest() {
            "" => None,
            rest => clean_reason(rest.strip_prefix("-- ").ok_or_else(|| LineError::Rest(rest.into()))?.to_owned()),
        };
        let read = Line { time, id, role, req, event, parent: re, reason: why };
        // One strict rule instead of many: a text is a line if writing the parsed line again yields the same text.
        let written = read.to_string();
        if written == line { Ok(read) } else { Err(LineError::Form(written)) }
    }
}

fn parse_label(text: &str) -> Result<String, LineError> {
    let label = QuotedText::parse(text).and_then(|text| text.as_str().map(str::to_owned));
    label.and_then(clean_label).ok_or_else(|| LineError::Rest(format!("req={text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of every form that the documentation shows.
    const SHAPES: &str = include_str!("testdata/shapes.log");

    #[test]
    fn documented_lines_are_read_and_written_alike() {
        for shape in SHAPES.lines() {
            match shape.parse::<Line>() {
                Ok(line) => assert_eq!(line.to_string(), shape),
                Err(error) => panic!("{shape}\n{error}"),
            }
        }
    }

    #[test]
    fn line_id_of_a_message_can_be_read_from_a_line() {
        for life in [0, 1, 2, u32::MAX] {
            let process = ProcessId { name: ProcessName::Other(Name("c1".to_string())), incarnation: life };
            let sent = crate::codec::encode(&LineId { process, n: 5 });
            match crate::codec::decode::<LineId>(&sent) {
                Ok(id) => assert_eq!(id.to_string().parse(), Ok(id)),
                Err(_) => assert_eq!(life, 0),
            }
        }
    }

    #[test]
    fn noncanonical_lines_are_refused() {
        let nack = "2026-08-21T14:03:07.105013Z INFO  s4.77   acceptor NACK     req=c1-5 slot=7+ ballot=3.1 promised=4.2 to=s1";
        assert!(nack.parse::<Line>().is_ok());
        for why in ["a\rb", "a\u{2028}b", "a\u{202e}b", "a\0b", ""] {
            assert!(matches!(format!("{nack} -- {why}").parse::<Line>(), Err(LineError::Form(_))), "{why:?}");
        }
        let long = nack.replace("c1-5", &"c".repeat(LABEL_MAX_BYTES + 1));
        assert!(matches!(long.parse::<Line>(), Err(LineError::Form(_))));
    }
}
