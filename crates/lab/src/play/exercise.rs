//! Exercises: text files that say what the reader gets, what must be reached, and how it can be. `docs/teaching.md` explains
//! the format.

use paxos_kv::protocol::Protocol;
use paxos_kv::role::ServerId;

use super::choice::{CHOICES_MAX, CLIENTS_MAX, Choice, SERVERS_MAX, read_line, server_of_text};
use super::predicate::{Predicate, read_predicate};

/// Maximum length of an exercise, in bytes.
pub const TEXT_MAX_BYTES: usize = 16 << 10;
/// Maximum length of a key or value of a client, in bytes.
const WORD_MAX_BYTES: usize = 32;
/// Maximum number of requests of all clients together.
const REQUESTS_MAX: usize = 16;

/// How the servers behave. All modes but the first and the one with quorums that meet are unsafe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As servers that ship.
    Safe,
    /// An acceptor that crashed restarts with an empty disk.
    Lost,
    /// Quorums of these sizes in phase 1 and in phase 2.
    Quorums(usize, usize),
    /// A server answers a read from its own store, without asking any other.
    LocalRead,
}

/// A client of an exercise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLine {
    /// The server that it contacts first.
    pub server: ServerId,
    /// Its requests.
    pub requests: Vec<ClientRequestLine>,
    /// It makes each request when the reader chooses so, and not at once.
    pub is_later: bool,
}

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRequestLine {
    /// Write this value.
    Put(String, String),
    /// Read this key.
    Get(String),
}

/// A goal, or what must never happen: a sentence and its predicate.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// For the reader.
    pub text: String,
    /// What is evaluated.
    pub predicate: Predicate,
}

/// Where the idea of an exercise stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The number of the rule in `docs/rules.md`.
    pub rule: u8,
    /// The file that carries it out.
    pub file: String,
    /// The idea in a sentence.
    pub sentence: String,
}

/// An exercise.
#[derive(Clone, Debug, PartialEq)]
pub struct Exercise {
    /// Its name on the command line and in links.
    pub name: String,
    /// The title.
    pub title: String,
    /// The idea in a word or two.
    pub concept: String,
    /// The protocol of the servers.
    pub protocol: Protocol,
    /// Number of servers.
    pub servers: u8,
    /// How they behave.
    pub mode: Mode,
    /// The server that leads when the reader begins (multi-paxos).
    pub leader: Option<ServerId>,
    /// Learners make checkpoints soon and keep little of the log.
    pub has_short_log: bool,
    /// The clients.
    pub clients: Vec<ClientLine>,
    /// What the reader is told.
    pub text: String,
    /// What must be reached, in this order.
    pub goals: Vec<Goal>,
    /// What must not happen.
    pub nevers: Vec<Goal>,
    /// The first two hints. The third one is the next step of the solution.
    pub hints: Vec<String>,
    /// Where the idea stands.
    pub why: Why,
    /// Number of steps of the solution.
    pub par: usize,
    /// The goals cannot be reached in the safe mode.
    pub is_impossible_when_safe: bool,
    /// Choices that are made before the reader begins; they do not count.
    pub setup: Vec<Choice>,
    /// Choices that reach the goals.
    pub solution: Vec<Choice>,
    /// The text that it was read from.
    pub source: String,
}

/// Why a text is no exercise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct ExerciseError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong, and what to write.
    pub what: String,
}

impl Mode {
    /// The mode with this name.
    pub fn named(name: &str) -> Option<Mode> {
        match name {
            "safe" => Some(Mode::Safe),
            "lost" => Some(Mode::Lost),
            "local-read" => Some(Mode::LocalRead),
            _ => {
                let (prepare, accept) = name.strip_prefix("quorums ")?.split_once('+')?;
                let size = |text: &str| text.parse().ok().filter(|size| (1..=usize::from(SERVERS_MAX)).contains(size));
                Some(Mode::Quorums(size(prepare)?, size(accept)?))
            }
        }
    }

    /// The name in files and links.
    pub fn name(self) -> String {
        match self {
            Mode::Safe => "safe".to_string(),
            Mode::Lost => "lost".to_string(),
            Mode::Quorums(prepare, accept) => format!("quorums {prepare}+{accept}"),
            Mode::LocalRead => "local-read".to_string(),
        }
    }

    /// Whether the guarantees of Paxos hold among this number of servers.
    pub fn is_safe(self, servers: u8) -> bool {
        match self {
            Mode::Safe => true,
            Mode::Quorums(prepare, accept) => prepare + accept > usize::from(servers),
            Mode::Lost | Mode::LocalRead => false,
        }
    }
}

impl Exercise {
    /// The modes in which the exercise can be played.
    pub fn modes(&self) -> Vec<Mode> {
        if !self.protocol.is_paxos() {
            return vec![Mode::Safe];
        }
        let majority = usize::from(self.servers) / 2 + 1;
        let broken = Mode::Quorums(majority - 1, majority - 1);
        let skewed = Mode::Quorums(majority + 1, majority - 1);
        let mut modes = vec![Mode::Safe, Mode::Lost, broken, skewed, Mode::LocalRead];
        if !modes.contains(&self.mode) {
            modes.push(self.mode);
        }
        modes
    }

    /// Reads the text of an exercise.
    pub fn read(text: &str) -> Result<Exercise, ExerciseError> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(ExerciseError {
                line: 1,
                column: 1,
                what: format!("the text has {} bytes; an exercise has at most {TEXT_MAX_BYTES}", text.len()),
            });
        }
        let mut reader = Reader::default();
        for (at, line) in text.lines().enumerate() {
            let content = line.trim_end();
            if content.trim_start().starts_with('#') || content.trim().is_empty() {
                continue;
            }
            reader.line(content).map_err(|(column, what)| ExerciseError { line: at + 1, column: column + 1, what })?;
        }
        let last = text.lines().count().max(1);
        let mut exercise = reader.finish().map_err(|what| ExerciseError { line: last, column: 1, what })?;
        exercise.source = text.to_string();
        Ok(exercise)
    }
}

/// An error in a line: its column from 0, and a sentence.
type LineError = (usize, String);

/// An exercise that is being read.
#[derive(Default)]
struct Reader {
    name: Option<String>,
    title: Option<String>,
    concept: String,
    protocol: Option<Protocol>,
    servers: Option<u8>,
    mode: Option<Mode>,
    leader: Option<ServerId>,
    has_short_log: bool,
    clients: Vec<ClientLine>,
    text: Vec<String>,
    goals: Vec<Goal>,
    nevers: Vec<Goal>,
    hints: Vec<String>,
    why: Option<Why>,
    par: Option<usize>,
    is_impossible_when_safe: bool,
    setup: Vec<Choice>,
    solution: Vec<Choice>,
    in_solution: bool,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), LineError> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let column = line.len() - rest.trim_start().len();
        let rest = rest.trim();
        let wrong = |what: String| (column, what);
        if self.in_solution {
            return add_choices(&mut self.solution, line.trim()).map_err(|what| (0, what));
        }
        match word {
            "name" => {
                let is_name = !rest.is_empty()
                    && rest.len() <= WORD_MAX_BYTES
                    && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
                let what = "a name consists of small letters, digits and '-', at most 32 of them";
                once(&mut self.name, is_name.then(|| rest.to_string()), what).map_err(wrong)
            }
            "title" => once(&mut self.title, Some(rest.to_string()), "").map_err(wrong),
            "concept" => {
                self.concept = rest.to_string();
                Ok(())
            }
            "protocol" => {
                let named = Protocol::ALL.into_iter().find(|one| one.name() == rest);
                let what = "the protocols are basic-paxos, multi-paxos and two-phase-commit";
                once(&mut self.protocol, named, what).map_err(wrong)
            }
            "servers" => {
                let count = rest.parse().ok().filter(|count| (3..=SERVERS_MAX).contains(count));
                once(&mut self.servers, count, "there are 3 to 5 servers").map_err(wrong)
            }
            "mode" => {
                let what = "the modes are safe, lost, local-read and, for example, quorums 2+2";
                once(&mut self.mode, Mode::named(rest), what).map_err(wrong)
            }
            "leader" => once(&mut self.leader, server_of_text(rest), "name a server, such as s1").map_err(wrong),
            "log" => {
                self.has_short_log = rest == "short";
                if self.has_short_log { Ok(()) } else { Err(wrong("the only length of a log is short".to_string())) }
            }
            "client" => self.client(rest).map_err(wrong),
            "text" => {
                self.text.push(rest.to_string());
                Ok(())
            }
            "goal" => goal(rest, column).map(|goal| self.goals.push(goal)),
            "never" => goal(rest, column).map(|goal| self.nevers.push(goal)),
            "hint" => {
                self.hints.push(rest.to_string());
                Ok(())
            }
            "why" => {
                once(&mut self.why, why(rest), "write a rule, a file and a sentence: why 4 src/paxos/promises.rs ...")
                    .map_err(wrong)
            }
            "par" => {
                let par = rest.parse().ok().filter(|par| (1..=CHOICES_MAX).contains(par));
                once(&mut self.par, par, "par is a number of steps").map_err(wrong)
            }
            "impossible" => {
                self.is_impossible_when_safe = rest == "when-safe";
                if self.is_impossible_when_safe { Ok(()) } else { Err(wrong("write impossible when-safe".to_string())) }
            }
            "setup" => add_choices(&mut self.setup, rest).map_err(wrong),
            "solution" if rest.is_empty() => {
                self.in_solution = true;
                Ok(())
            }
            _ => {
                let shown: String = word.chars().take(WORD_MAX_BYTES).collect();
                Err((0, format!("the word '{shown}' begins no line of an exercise: see docs/teaching.md")))
            }
        }
    }

    /// `c1@s1 put city Lyon`; a further line for the same client adds a request.
    fn client(&mut self, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let what = "write a client as in: client c1@s1 put city Lyon";
        let is_later = words.get(1) == Some(&"later");
        let plain: Vec<&str> = words.iter().copied().filter(|word| *word != "later").collect();
        let (place, request) = match plain.as_slice() {
            [place, "put", key, value] => (place, ClientRequestLine::Put(key.to_string(), value.to_string())),
            [place, "get", key] => (place, ClientRequestLine::Get(key.to_string())),
            _ => return Err(what.to_string()),
        };
        if words.iter().any(|word| word.len() > WORD_MAX_BYTES) {
            return Err(format!("a key or value has at most {WORD_MAX_BYTES} bytes"));
        }
        let read = place.split_once('@').and_then(|(client, server)| {
            let number: usize = client.strip_prefix('c')?.parse().ok()?;
            Some((number, server_of_text(server)?))
        });
        let (number, server) = read.ok_or(what)?;
        if self.clients.iter().map(|client| client.requests.len()).sum::<usize>() >= REQUESTS_MAX {
            return Err(format!("all clients together have at most {REQUESTS_MAX} requests"));
        }
        let next = self.clients.len() + 1;
        match self.clients.get_mut(number.wrapping_sub(1)) {
            Some(client) if client.server == server => client.requests.push(request),
            Some(client) => return Err(format!("client c{number} contacts {} in an earlier line", client.server)),
            None if number == next && number <= CLIENTS_MAX => {
                self.clients.push(ClientLine { server, requests: vec![request], is_later });
            }
            None => return Err(format!("clients are numbered from c1 on, at most {CLIENTS_MAX} of them")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Exercise, String> {
        let missing = |what: &str| format!("the line '{what}' is missing");
        let servers = self.servers.unwrap_or(SERVERS_MAX);
        let protocol = self.protocol.unwrap_or(Protocol::BasicPaxos);
        let mode = self.mode.unwrap_or(Mode::Safe);
        if self.clients.is_empty() {
            return Err(missing("client"));
        }
        if self.goals.is_empty() {
            return Err(missing("goal"));
        }
        let named = self.clients.iter().map(|client| client.server).chain(self.leader);
        if let Some(server) = named.into_iter().find(|server| server.0 > servers) {
            return Err(format!("{server} is named, but there are only {servers} servers"));
        }
        if let Mode::Quorums(prepare, accept) = mode
            && prepare.max(accept) > usize::from(servers)
        {
            return Err(format!("a quorum is larger than the {servers} servers"));
        }
        if mode != Mode::Safe && !protocol.is_paxos() {
            return Err("two-phase commit is played in the safe mode alone".to_string());
        }
        Ok(Exercise {
            name: self.name.ok_or(missing("name"))?,
            title: self.title.ok_or(missing("title"))?,
            concept: self.concept,
            protocol,
            servers,
            mode,
            leader: self.leader,
            has_short_log: self.has_short_log,
            clients: self.clients,
            text: self.text.join(" "),
            goals: self.goals,
            nevers: self.nevers,
            hints: self.hints,
            why: self.why.ok_or(missing("why"))?,
            par: self.par.ok_or(missing("par"))?,
            is_impossible_when_safe: self.is_impossible_when_safe,
            setup: self.setup,
            solution: self.solution,
            source: String::new(),
        })
    }
}

/// Sets what a file may state once. `what` says how it is written.
fn once<T>(place: &mut Option<T>, read: Option<T>, what: &str) -> Result<(), String> {
    if place.is_some() {
        return Err("this line is there twice".to_string());
    }
    *place = Some(read.ok_or_else(|| what.to_string())?);
    Ok(())
}

/// `SENTENCE: PREDICATE`, divided at the last colon.
fn goal(rest: &str, column: usize) -> Result<Goal, LineError> {
    let Some((text, predicate)) = rest.rsplit_once(": ") else {
        return Err((
            column,
            "write a sentence, a colon and a predicate: Lyon is chosen: chosen(first, Lyon)".to_string(),
        ));
    };
    let at = column + text.len() + 2;
    let predicate = read_predicate(predicate).map_err(|(place, what)| (at + place, what))?;
    Ok(Goal { text: text.to_string(), predicate })
}

fn why(rest: &str) -> Option<Why> {
    let mut words = rest.splitn(3, ' ');
    let (rule, file, sentence) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    Some(Why { rule, file: file.to_string(), sentence: sentence.to_string() })
}

fn add_choices(to: &mut Vec<Choice>, line: &str) -> Result<(), String> {
    to.extend(read_line(line)?);
    if to.len() > CHOICES_MAX { Err(super::choice::too_many()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
# a comment
name small
title A small one
protocol multi-paxos
servers 3
mode lost
leader s2
log short
client c1@s1 put city Lyon
client c1@s1 get city
client c2@s3 put city Oslo
text First.
text Second.
goal Lyon is chosen: chosen(first, Lyon)
never Oslo, even: chosen(first, Oslo)
hint Look.
why 5 src/paxos/rules.rs A majority.
par 3
setup deliver c1>s1 REQUEST
solution
deliver s1>s2,s3 PREPARE
crash s2.acceptor
";

    #[test]
    fn whole_exercise_is_read() {
        let read = Exercise::read(WHOLE).unwrap();
        assert_eq!(
            (read.name.as_str(), read.servers, read.mode, read.leader),
            ("small", 3, Mode::Lost, Some(ServerId(2)))
        );
        assert_eq!((read.clients.len(), read.clients[0].requests.len()), (2, 2));
        assert_eq!((read.text.as_str(), read.par, read.has_short_log), ("First. Second.", 3, true));
        assert_eq!((read.goals[0].text.as_str(), read.nevers[0].text.as_str()), ("Lyon is chosen", "Oslo, even"));
        let solution: Vec<String> = read.solution.iter().map(Choice::to_string).collect();
        assert_eq!(solution, ["deliver s1>s2 PREPARE", "deliver s1>s3 PREPARE", "crash s2.acceptor"]);
        assert_eq!(read.why, Why { rule: 5, file: "src/paxos/rules.rs".into(), sentence: "A majority.".into() });
    }

    #[test]
    fn errors_name_line_and_column() {
        let broken = |from: &str, to: &str| {
            assert!(WHOLE.contains(from), "{from}");
            Exercise::read(&WHOLE.replacen(from, to, 1)).unwrap_err()
        };
        let place = |error: &ExerciseError| (error.line, error.column);
        assert_eq!(place(&broken("protocol multi-paxos", "protocol raft")), (4, 10));
        assert_eq!(place(&broken("servers 3", "servers 9")), (5, 9));
        let unknown = broken("chosen(first, Lyon)", "chosn(first, Lyon)");
        assert_eq!(place(&unknown), (14, 22), "{unknown}");
        assert!(unknown.what.contains("chosn"), "{unknown}");
        assert_eq!(place(&broken("crash s2.acceptor", "crash s2.king")), (22, 1));
        assert_eq!(place(&broken("hint Look.", "hunt Look.")), (16, 1));
        assert!(broken("client c2@s3", "client c3@s3").what.contains("numbered"));
        assert!(broken("client c2@s3", "client c2@s5").what.contains("only 3 servers"));
        assert!(broken("name small", "name small\nname other").what.contains("twice"));
        assert!(broken("name small", "# none").what.contains("'name'"));
        assert!(broken("put city Lyon", &format!("put city {}", "x".repeat(33))).what.contains("32 bytes"));
    }

    #[test]
    fn text_that_is_too_long_is_refused() {
        let error = Exercise::read(&"#".repeat(TEXT_MAX_BYTES + 1)).unwrap_err();
        assert!(error.what.contains("16384"), "{error}");
    }

    #[test]
    fn modes_are_known_by_name_and_by_what_they_guarantee() {
        for mode in [Mode::Safe, Mode::Lost, Mode::Quorums(2, 4), Mode::LocalRead] {
            assert_eq!(Mode::named(&mode.name()), Some(mode));
        }
        for name in ["", "quorums", "quorums 0+2", "quorums 2+6", "quorums 2"] {
            assert_eq!(Mode::named(name), None, "{name}");
        }
        assert!(Mode::Quorums(4, 2).is_safe(5) && !Mode::Quorums(2, 2).is_safe(5) && !Mode::Quorums(3, 2).is_safe(5));
    }
}
