//! Choices: what a reader can do next. A choice names what it means, and not a place in a list, so the same choices can
//! be played in another mode: `deliver s1>s3 ACCEPT`, as a code `d13A`.

use std::fmt;
use std::str::FromStr;

use paxos_kv::role::{RoleKind, ServerId};
use paxos_kv::trace::CrashPoint;

use crate::sim::network::Endpoint;

/// Maximum number of choices in a list.
pub const CHOICES_MAX: usize = 600;
/// Maximum length of a list of codes, in bytes: the longest code has seven characters and a joint.
const CODES_MAX_BYTES: usize = CHOICES_MAX * 8;
/// Maximum number of servers and of clients that a code can name.
pub const SERVERS_MAX: u8 = 5;
/// See [`SERVERS_MAX`].
pub const CLIENTS_MAX: usize = 4;
/// Maximum ordinal among equal messages.
const ORDINAL_MAX: u16 = 999;

/// The messages, each with its letter in a code.
const MESSAGES: &[(char, &str)] = &[
    ('P', "PREPARE"),
    ('R', "PROMISE"),
    ('N', "NACK"),
    ('T', "TRUNCATED"),
    ('A', "ACCEPT"),
    ('V', "ACCEPTED"),
    ('C', "CHOSEN"),
    ('G', "PROGRESS"),
    ('U', "CATCHUP"),
    ('E', "ENTRIES"),
    ('D', "READ"),
    ('L', "READREPLY"),
    ('F', "FILL"),
    ('W', "FORWARD"),
    ('X', "FORWARDREFUSED"),
    ('H', "HEARTBEAT"),
    ('B', "HEARTBEATREPLY"),
    ('I', "LEADERHINT"),
    ('O', "PREVOTE"),
    ('Y', "PREVOTEREPLY"),
    ('S', "SNAPSHOT"),
    ('Z', "FETCHSNAPSHOT"),
    ('K', "HERE"),
    ('Q', "REQUEST"),
    ('M', "REPLY"),
    ('1', "VOTEREQ"),
    ('2', "VOTE"),
    ('3', "DECIDE"),
    ('4', "ACK"),
    ('5', "INQUIRE"),
    ('6', "ANSWER"),
];

/// The timers of all roles, each with its letter in a code.
const TIMERS: &[(char, &str)] = &[
    ('k', "Tick"),
    ('a', "Attempt"),
    ('n', "Nacked"),
    ('b', "Backoff"),
    ('c', "CatchUp"),
    ('h', "HeartbeatTick"),
    ('e', "Election"),
    ('r', "Resend"),
    ('t', "Retry"),
    ('l', "Look"),
    ('g', "Progress"),
    ('p', "Gap"),
    ('d', "Read"),
    ('f', "Fill"),
];

const ROLES: &[(char, RoleKind)] = &[
    ('p', RoleKind::Proposer),
    ('a', RoleKind::Acceptor),
    ('l', RoleKind::Learner),
    ('o', RoleKind::Coordinator),
    ('q', RoleKind::Participant),
];

/// A message under way: the `ordinal`-th, from 1, of those with the same ends and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageName {
    /// The sender.
    pub from: Endpoint,
    /// The receiver.
    pub to: Endpoint,
    /// The name in capitals.
    pub name: &'static str,
    /// Which of several, from 1.
    pub ordinal: u16,
}

/// A choice of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The message arrives.
    Deliver(MessageName),
    /// The message is lost.
    Drop(MessageName),
    /// The message is there twice.
    Double(MessageName),
    /// A timer of a role runs out.
    Timer(ServerId, RoleKind, &'static str),
    /// A client waits no longer.
    Timeout(usize),
    /// A client that makes its requests later makes the next one.
    Ask(usize),
    /// A role crashes: at once, or in its next turn at a point of it.
    Crash(ServerId, RoleKind, CrashPoint),
    /// A role that is down starts again.
    Restart(ServerId, RoleKind),
    /// The process of a server ends.
    Kill(ServerId),
    /// The machine of a server loses power.
    PowerCut(ServerId),
    /// The process of a server starts again.
    Start(ServerId),
    /// The link between two servers is cut, in both directions.
    Cut(ServerId, ServerId),
    /// The link between two servers works again.
    Join(ServerId, ServerId),
}

/// The known spelling of a message's name.
pub fn message_name(name: &str) -> Option<&'static str> {
    MESSAGES.iter().find(|(_, known)| *known == name).map(|(_, known)| *known)
}

/// The known spelling of a timer's name.
pub fn timer_name(name: &str) -> Option<&'static str> {
    TIMERS.iter().find(|(_, known)| *known == name).map(|(_, known)| *known)
}

fn letter_of<T: PartialEq>(table: &[(char, T)], wanted: &T) -> char {
    table.iter().find(|(_, one)| one == wanted).map_or('?', |(letter, _)| *letter)
}

fn of_letter<T: Copy>(table: &[(char, T)], letter: char) -> Option<T> {
    table.iter().find(|(one, _)| *one == letter).map(|(_, what)| *what)
}

fn end_code(end: Endpoint) -> char {
    match end {
        Endpoint::Server(server) => (b'0' + server.0) as char,
        Endpoint::Client(client) => (b'a' + client as u8) as char,
    }
}

fn end_of_code(letter: char) -> Option<Endpoint> {
    match letter {
        '1'..='5' => Some(Endpoint::Server(ServerId(letter as u8 - b'0'))),
        'a'..='d' => Some(Endpoint::Client(usize::from(letter as u8 - b'a'))),
        _ => None,
    }
}

fn server_of_code(letter: char) -> Option<ServerId> {
    if let Some(Endpoint::Server(server)) = end_of_code(letter) { Some(server) } else { None }
}

fn client_of_code(letter: char) -> Option<usize> {
    if let Some(Endpoint::Client(client)) = end_of_code(letter) { Some(client) } else { None }
}

impl MessageName {
    fn code(&self) -> String {
        let MessageName { from, to, name, ordinal } = *self;
        let kind = letter_of(MESSAGES, &name);
        let ordinal = if ordinal == 1 { String::new() } else { format!(".{ordinal}") };
        format!("{}{}{kind}{ordinal}", end_code(from), end_code(to))
    }

    fn of_code(code: &str) -> Option<MessageName> {
        let (ends, ordinal) = match code.split_once('.') {
            Some((ends, ordinal)) => (ends, ordinal_of(ordinal)?),
            None => (code, 1),
        };
        let [from, to, kind] = letters(ends)?;
        Some(MessageName { from: end_of_code(from)?, to: end_of_code(to)?, name: of_letter(MESSAGES, kind)?, ordinal })
    }

    fn of_text(words: &[&str]) -> Option<MessageName> {
        let (link, name, ordinal) = match words {
            [link, name] => (link, name, 1),
            [link, name, ordinal] => (link, name, ordinal_of(ordinal)?),
            _ => return None,
        };
        let (from, to) = link.split_once('>')?;
        Some(MessageName { from: end_of_text(from)?, to: end_of_text(to)?, name: message_name(name)?, ordinal })
    }
}

/// An ordinal from 2 on: the first one is not written.
fn ordinal_of(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|ordinal| is_plain && (2..=ORDINAL_MAX).contains(ordinal))
}

fn letters<const N: usize>(text: &str) -> Option<[char; N]> {
    text.chars().collect::<Vec<_>>().try_into().ok()
}

/// Reads `s3` or `c1`.
pub fn end_of_text(text: &str) -> Option<Endpoint> {
    let mut letters = text.chars();
    let (kind, number) = (letters.next()?, letters.as_str());
    match kind {
        's' => {
            let [digit] = self::letters(number)?;
            server_of_code(digit).map(Endpoint::Server)
        }
        'c' => {
            let number: usize = number.parse().ok()?;
            (1..=CLIENTS_MAX).contains(&number).then(|| Endpoint::Client(number - 1))
        }
        _ => None,
    }
}

/// Reads `s3`.
pub fn server_of_text(text: &str) -> Option<ServerId> {
    if let Some(Endpoint::Server(server)) = end_of_text(text) { Some(server) } else { None }
}

fn client_of_text(text: &str) -> Option<usize> {
    if let Some(Endpoint::Client(client)) = end_of_text(text) { Some(client) } else { None }
}

/// Reads `s3.acceptor`.
pub fn role_of_text(text: &str) -> Option<(ServerId, RoleKind)> {
    let (server, role) = text.split_once('.')?;
    Some((server_of_text(server)?, RoleKind::named(role)?))
}

fn pair(one: ServerId, other: ServerId) -> Option<(ServerId, ServerId)> {
    (one != other).then(|| (one.min(other), one.max(other)))
}

/// The points of a crash that a reader can choose, with the digit of a code and the words of a text.
const POINTS: &[(char, CrashPoint, &str)] =
    &[('2', CrashPoint::BeforeSync, "before-sync"), ('3', CrashPoint::BeforeSend, "before-send")];

impl Choice {
    /// The code, in letters, digits and points.
    pub fn code(&self) -> String {
        let role = |role| letter_of(ROLES, &role);
        match self {
            Choice::Deliver(message) => format!("d{}", message.code()),
            Choice::Drop(message) => format!("x{}", message.code()),
            Choice::Double(message) => format!("b{}", message.code()),
            Choice::Timer(server, of, name) => format!("t{}{}{}", server.0, role(*of), letter_of(TIMERS, name)),
            Choice::Timeout(client) => format!("w{}", end_code(Endpoint::Client(*client))),
            Choice::Ask(client) => format!("a{}", end_code(Endpoint::Client(*client))),
            Choice::Crash(server, of, point) => {
                let point = POINTS.iter().find(|(_, one, _)| one == point).map(|(digit, ..)| *digit);
                format!("c{}{}{}", server.0, role(*of), point.map_or(String::new(), String::from))
            }
            Choice::Restart(server, of) => format!("r{}{}", server.0, role(*of)),
            Choice::Kill(server) => format!("k{}", server.0),
            Choice::PowerCut(server) => format!("p{}", server.0),
            Choice::Start(server) => format!("s{}", server.0),
            Choice::Cut(one, other) => format!("l{}{}", one.0, other.0),
            Choice::Join(one, other) => format!("j{}{}", one.0, other.0),
        }
    }

    /// The choice with this code.
    pub fn of_code(code: &str) -> Option<Choice> {
        let mut chars = code.chars();
        let (kind, rest) = (chars.next()?, chars.as_str());
        let of_server = |choice: fn(ServerId) -> Choice| {
            let [server] = letters(rest)?;
            server_of_code(server).map(choice)
        };
        let of_link = |choice: fn(ServerId, ServerId) -> Choice| {
            let [one, other] = letters(rest)?;
            let (one, other) = pair(server_of_code(one)?, server_of_code(other)?)?;
            Some(choice(one, other)).filter(|_| end_code(Endpoint::Server(one)) == rest.chars().next().unwrap_or('?'))
        };
        match kind {
            'd' => MessageName::of_code(rest).map(Choice::Deliver),
            'x' => MessageName::of_code(rest).map(Choice::Drop),
            'b' => MessageName::of_code(rest).map(Choice::Double),
            't' => {
                let [server, role, timer] = letters(rest)?;
                Some(Choice::Timer(server_of_code(server)?, of_letter(ROLES, role)?, of_letter(TIMERS, timer)?))
            }
            'w' | 'a' => {
                let [client] = letters(rest)?;
                client_of_code(client).map(if kind == 'w' { Choice::Timeout } else { Choice::Ask })
            }
            'c' => match rest.len() {
                2 => {
                    let [server, role] = letters(rest)?;
                    Some(Choice::Crash(server_of_code(server)?, of_letter(ROLES, role)?, CrashPoint::BeforeStep))
                }
                _ => {
                    let [server, role, digit] = letters(rest)?;
                    let (_, point, _) = POINTS.iter().find(|(one, ..)| *one == digit)?;
                    Some(Choice::Crash(server_of_code(server)?, of_letter(ROLES, role)?, *point))
                }
            },
            'r' => {
                let [server, role] = letters(rest)?;
                Some(Choice::Restart(server_of_code(server)?, of_letter(ROLES, role)?))
            }
            'k' => of_server(Choice::Kill),
            'p' => of_server(Choice::PowerCut),
            's' => of_server(Choice::Start),
            'l' => of_link(Choice::Cut),
            'j' => of_link(Choice::Join),
            _ => None,
        }
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MessageName { from, to, name, ordinal } = self;
        write!(f, "{from}>{to} {name}")?;
        if *ordinal > 1 { write!(f, " {ordinal}") } else { Ok(()) }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Deliver(message) => write!(f, "deliver {message}"),
            Choice::Drop(message) => write!(f, "drop {message}"),
            Choice::Double(message) => write!(f, "double {message}"),
            Choice::Timer(server, role, name) => write!(f, "timer {server}.{} {name}", role.as_str()),
            Choice::Timeout(client) => write!(f, "timeout c{}", client + 1),
            Choice::Ask(client) => write!(f, "ask c{}", client + 1),
            Choice::Crash(server, role, point) => {
                write!(f, "crash {server}.{}", role.as_str())?;
                match POINTS.iter().find(|(_, one, _)| one == point) {
                    Some((_, _, words)) => write!(f, " {words}"),
                    None => Ok(()),
                }
            }
            Choice::Restart(server, role) => write!(f, "restart {server}.{}", role.as_str()),
            Choice::Kill(server) => write!(f, "kill {server}"),
            Choice::PowerCut(server) => write!(f, "power-cut {server}"),
            Choice::Start(server) => write!(f, "start {server}"),
            Choice::Cut(one, other) => write!(f, "cut {one}-{other}"),
            Choice::Join(one, other) => write!(f, "join {one}-{other}"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let link = |text: &str| {
            let (one, other) = text.split_once('-')?;
            pair(server_of_text(one)?, server_of_text(other)?)
        };
        let read = match words.as_slice() {
            ["deliver", message @ ..] => MessageName::of_text(message).map(Choice::Deliver),
            ["drop", message @ ..] => MessageName::of_text(message).map(Choice::Drop),
            ["double", message @ ..] => MessageName::of_text(message).map(Choice::Double),
            ["timer", role, name] => {
                role_of_text(role).zip(timer_name(name)).map(|((server, role), name)| Choice::Timer(server, role, name))
            }
            ["timeout", client] => client_of_text(client).map(Choice::Timeout),
            ["ask", client] => client_of_text(client).map(Choice::Ask),
            ["crash", role] => {
                role_of_text(role).map(|(server, role)| Choice::Crash(server, role, CrashPoint::BeforeStep))
            }
            ["crash", role, point] => {
                let point = POINTS.iter().find(|(_, _, words)| words == point);
                role_of_text(role).zip(point).map(|((server, role), (_, point, _))| Choice::Crash(server, role, *point))
            }
            ["restart", role] => role_of_text(role).map(|(server, role)| Choice::Restart(server, role)),
            ["kill", server] => server_of_text(server).map(Choice::Kill),
            ["power-cut", server] => server_of_text(server).map(Choice::PowerCut),
            ["start", server] => server_of_text(server).map(Choice::Start),
            ["cut", ends] => link(ends).map(|(one, other)| Choice::Cut(one, other)),
            ["join", ends] => link(ends).map(|(one, other)| Choice::Join(one, other)),
            _ => None,
        };
        let shown: String = text.chars().take(60).collect();
        read.ok_or_else(|| format!("'{shown}' is not a choice. An example of a choice: deliver s1>s3 ACCEPT"))
    }
}

/// Reads a list of codes, joined by `-`.
pub fn read_codes(codes: &str) -> Result<Vec<Choice>, String> {
    if codes.len() > CODES_MAX_BYTES {
        return Err(too_many());
    }
    let codes = codes.split('-').filter(|code| !code.is_empty());
    let read = |code: &str| {
        let shown: String = code.chars().take(20).collect();
        Choice::of_code(code).ok_or_else(|| format!("'{shown}' is not the code of a choice. An example of one: d13A"))
    };
    at_most(codes.map(read).collect::<Result<_, _>>()?)
}

/// Reads a line of choices. Ends may be lists: `deliver s1>s2,s3 PREPARE` is two choices.
pub fn read_line(line: &str) -> Result<Vec<Choice>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((from, to)) = words.get(1).and_then(|link| link.split_once('>')) else { return Ok(vec![line.parse()?]) };
    let mut choices = Vec::new();
    for from in from.split(',') {
        for to in to.split(',') {
            let link = format!("{from}>{to}");
            let one: Vec<&str> =
                words.iter().enumerate().map(|(at, word)| if at == 1 { &link } else { *word }).collect();
            choices.push(one.join(" ").parse()?);
        }
        if choices.len() > CHOICES_MAX {
            return Err(too_many());
        }
    }
    Ok(choices)
}

/// Reads choices as text, one a line; empty lines and comments after `#` are left out. An error names the line.
pub fn read_lines(text: &str) -> Result<Vec<Choice>, String> {
    let mut choices = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            choices.extend(read_line(line).map_err(|error| format!("line {}: {error}", number + 1))?);
        }
        if choices.len() > CHOICES_MAX {
            return Err(too_many());
        }
    }
    Ok(choices)
}

fn at_most(choices: Vec<Choice>) -> Result<Vec<Choice>, String> {
    if choices.len() <= CHOICES_MAX { Ok(choices) } else { Err(too_many()) }
}

/// The sentence about too long a list.
pub fn too_many() -> String {
    format!("there are more than {CHOICES_MAX} choices. Undo some, or start again")
}

/// The codes of a list, joined by `-`.
pub fn codes(choices: &[Choice]) -> String {
    choices.iter().map(Choice::code).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u8) -> ServerId {
        ServerId(number)
    }

    /// One choice of each kind, with its code and its text.
    fn samples() -> Vec<(Choice, &'static str, &'static str)> {
        let accept = |ordinal| MessageName {
            from: Endpoint::Server(server(1)),
            to: Endpoint::Server(server(3)),
            name: "ACCEPT",
            ordinal,
        };
        let reply =
            MessageName { from: Endpoint::Server(server(2)), to: Endpoint::Client(3), name: "REPLY", ordinal: 1 };
        vec![
            (Choice::Deliver(accept(1)), "d13A", "deliver s1>s3 ACCEPT"),
            (Choice::Drop(accept(12)), "x13A.12", "drop s1>s3 ACCEPT 12"),
            (Choice::Double(reply), "b2dM", "double s2>c4 REPLY"),
            (Choice::Timer(server(3), RoleKind::Proposer, "Backoff"), "t3pb", "timer s3.proposer Backoff"),
            (Choice::Timeout(0), "wa", "timeout c1"),
            (Choice::Ask(3), "ad", "ask c4"),
            (Choice::Crash(server(3), RoleKind::Acceptor, CrashPoint::BeforeStep), "c3a", "crash s3.acceptor"),
            (
                Choice::Crash(server(3), RoleKind::Acceptor, CrashPoint::BeforeSend),
                "c3a3",
                "crash s3.acceptor before-send",
            ),
            (Choice::Restart(server(2), RoleKind::Learner), "r2l", "restart s2.learner"),
            (Choice::Kill(server(1)), "k1", "kill s1"),
            (Choice::PowerCut(server(1)), "p1", "power-cut s1"),
            (Choice::Start(server(5)), "s5", "start s5"),
            (Choice::Cut(server(1), server(5)), "l15", "cut s1-s5"),
            (Choice::Join(server(1), server(5)), "j15", "join s1-s5"),
        ]
    }

    #[test]
    fn every_choice_is_read_from_its_code_and_from_its_text() {
        for (choice, code, text) in samples() {
            assert_eq!((choice.code().as_str(), choice.to_string().as_str()), (code, text));
            assert_eq!(Choice::of_code(code), Some(choice));
            assert_eq!(text.parse(), Ok(choice));
        }
        assert_eq!("join s5-s1".parse(), Ok(Choice::Join(server(1), server(5))));
    }

    #[test]
    fn no_two_names_share_a_letter() {
        let distinct =
            |letters: Vec<char>| letters.iter().collect::<std::collections::BTreeSet<_>>().len() == letters.len();
        assert!(distinct(MESSAGES.iter().map(|(letter, _)| *letter).collect()));
        assert!(distinct(TIMERS.iter().map(|(letter, _)| *letter).collect()));
    }

    #[test]
    fn malformed_codes_and_texts_are_refused_with_a_sentence() {
        for code in [
            "d",
            "d13",
            "d13?",
            "d16A",
            "d1eA",
            "d13A.1",
            "d13A.02",
            "d13A.1000",
            "c3a9",
            "l11",
            "l51",
            "j9",
            "é",
            "d13A-x",
        ] {
            assert_eq!(Choice::of_code(code), None, "{code}");
        }
        assert!(read_codes("d13A-zz").unwrap_err().contains("'zz'"));
        assert_eq!(read_codes("").unwrap(), []);
        for text in
            ["", "deliver", "deliver s1>s9 ACCEPT", "deliver s1>s3 NOTHING", "crash s1.king", "cut s1-s1", "timeout c5"]
        {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
        assert!(read_lines("kill s1\n\n# nothing\nfly s2").unwrap_err().starts_with("line 4: 'fly s2'"));
    }

    #[test]
    fn line_with_several_ends_is_several_choices() {
        let texts = |line: &str| read_line(line).unwrap().iter().map(Choice::to_string).collect::<Vec<_>>();
        assert_eq!(texts("deliver s1>s2,s3 PREPARE"), ["deliver s1>s2 PREPARE", "deliver s1>s3 PREPARE"]);
        assert_eq!(texts("drop s2,s3>s1 NACK 2"), ["drop s2>s1 NACK 2", "drop s3>s1 NACK 2"]);
        assert_eq!(texts("kill s4"), ["kill s4"]);
        assert!(read_line("deliver s1>s2,s9 PREPARE").is_err());
    }

    #[test]
    fn list_that_is_too_long_is_refused() {
        let most = vec!["k1"; CHOICES_MAX].join("-");
        assert_eq!(read_codes(&most).unwrap().len(), CHOICES_MAX);
        assert!(read_codes(&format!("{most}-k1")).unwrap_err().contains("600"));
        assert!(read_lines(&"kill s1\n".repeat(CHOICES_MAX + 1)).unwrap_err().contains("600"));
    }
}
