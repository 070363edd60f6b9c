//! Decoded requests of clients and messages of peers, in any order and with any numbers. Their target is everything a
//! real server decides with: its core, its roles and its checkpointer.
//!
//! Checksums and the codec reject malformed bytes, but not well-formed nonsense: a slot at the end of all numbers, a
//! chunk with an invalid start, another client's session. In addition to a client that sends nonsense, an honest client
//! writes and reads, and must get right answers.
//!
//! One assumption about peers remains: at one ballot, a peer proposes only one value per slot. A server whose peer
//! violates this stops.

use paxos_kv::choices::Choices;
use paxos_kv::codec::{decode, encode};
use paxos_kv::kv::{Kv, KvCommand, Op, StateEntry, VersionedValue, decode_part, encode_chunk};
use paxos_kv::net::{ClientRequest, PeerMessage, Reply, Request, StatePart};
use paxos_kv::paxos::{
    self, Ballot, ChunkRequest, CommandId, Entry, Message, NackedRequest, Page, PartToken, Slot, SlotRange,
    SnapshotChunk, StateMachine, Value,
};
use paxos_kv::protocol::Protocol;
use paxos_kv::role::{RoleKind, ServerId, ServerSet};
use paxos_kv::server::bench_server::{BenchConnection, BenchServer, Which};
use paxos_kv::trace::TraceContext;

/// Maximum number of steps.
const STEPS_MAX: usize = 200;
/// The honest client tries this often, and lets at most this number of timers run out for each try.
const TRIES: usize = 20;
const TIMERS: usize = 60;
/// A key that only the honest client uses.
const HONEST_KEY: &[u8] = b"honest";

/// Some servers, in the cluster or not.
fn servers(source: &mut Choices<'_>) -> ServerSet {
    (1..=5).map(ServerId).filter(|_| source.below(2) == 0).collect()
}

/// Either a single server, whose honest client must find everything as it left it; or one of three servers, whose peers
/// send anything.
pub fn requests(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let (is_alone, protocol) =
        (source.below(2) == 0, if source.below(2) == 0 { Protocol::BasicPaxos } else { Protocol::MultiPaxos });
    let mut stage = BenchServer::new(if is_alone { 1 } else { 3 }, protocol);
    let mut honest = is_alone.then(|| HonestClient::new(&mut stage));
    let mut stranger = stage.connect();
    let mut promised = stage.promised();
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        match source.below(8) {
            0 => honest.iter_mut().for_each(|honest| honest.write(&mut stage)),
            1 => honest.iter_mut().for_each(|honest| honest.check(&mut stage)),
            2 => stage.restart(any_which(&mut source)),
            3 | 4 if !is_alone => {
                let from = ServerId(2 + source.below(2));
                // A message that cannot be decoded never reaches the server.
                if let Ok(message) =
                    decode::<PeerMessage>(&encode(&PeerMessage::from(message(&mut source, from, &stage))))
                {
                    stage.hear(from, message);
                }
            }
            3 => stage.time_out(any_which(&mut source)),
            _ => ask(&mut stage, &mut stranger, request(&mut source, honest.as_ref())),
        }
        if !is_alone && source.below(3) == 0 {
            stage.time_out(any_which(&mut source));
        }
        assert!(stage.promised() >= promised, "{promised} was promised");
        promised = stage.promised();
    }
    if let Some(honest) = &mut honest {
        honest.check(&mut stage);
        honest.write(&mut stage);
        honest.check(&mut stage);
        honest.back_up(&mut stage);
    }
}

/// The stranger sends a request. An invalid request must close its connection, and have no other effect.
fn ask(stage: &mut BenchServer, stranger: &mut BenchConnection, request: ClientRequest) {
    let Ok(request) = decode::<ClientRequest>(&encode(&request)) else { return };
    let number = request.number;
    let must_be_answered = matches!(request.request, Request::Status | Request::State { .. } | Request::Crash { .. });
    if stage.ask(stranger, request).is_err() {
        *stranger = stage.connect();
    } else if must_be_answered {
        assert!(stranger.replies().iter().any(|reply| reply.number == number), "request {number} got no reply");
    }
}

/// A nonce that no other client knows.
const HONEST_NONCE: u128 = 1 << 100;

/// A client that follows the protocol.
struct HonestClient {
    connection: BenchConnection,
    number: u64,
    session: u64,
    sequence: u64,
}

impl HonestClient {
    fn new(stage: &mut BenchServer) -> HonestClient {
        let mut honest = HonestClient { connection: stage.connect(), number: 0, session: 0, sequence: 0 };
        let Reply::Opened { session, .. } = honest.ask(stage, &Request::Open { nonce: HONEST_NONCE }) else {
            panic!("no session was opened")
        };
        honest.session = session;
        honest.write(stage);
        honest
    }

    /// The value of its last write.
    fn value(&self) -> Vec<u8> {
        self.sequence.to_string().into_bytes()
    }

    fn write(&mut self, stage: &mut BenchServer) {
        self.sequence += 1;
        let (session, sequence) = (self.session, self.sequence);
        let op = Op::Put { key: HONEST_KEY.to_vec(), value: self.value().into(), if_version: None };
        let reply =
            self.ask(stage, &Request::Write { session, nonce: HONEST_NONCE, sequence, first_open: sequence, op });
        assert!(matches!(reply, Reply::Applied { .. }), "write {sequence}: {reply:?}");
    }

    fn check(&mut self, stage: &mut BenchServer) {
        let reply = self.ask(stage, &Request::Get { key: HONEST_KEY.to_vec() });
        let Reply::Value { value, version, .. } = &reply else { panic!("{reply:?}") };
        assert_eq!((value.as_ref().map(|value| value.to_vec()), *version), (Some(self.value()), self.sequence));
    }

    /// A backup, chunk by chunk, must contain what was written.
    fn back_up(&mut self, stage: &mut BenchServer) {
        let (mut state, mut part, mut sessions) = (Kv::default(), None, 0u64);
        loop {
            let reply = self.ask(stage, &Request::State { at_least: Slot(0), part: part.clone() });
            let Reply::Chunk(got) = reply else { panic!("{reply:?}") };
            // There may be no checkpoint yet.
            let Some(StatePart { part: got, left_out }) = got else { return };
            sessions = sessions.wrapping_add(left_out);
            let is_begun_anew = part.as_ref().is_some_and(|part: &ChunkRequest| part.index != got.index);
            if is_begun_anew || part.is_none() {
                (state, sessions) = (Kv::default(), left_out);
            }
            state.put_pieces(decode_part(&got.bytes).expect("a server's parts can be read"));
            let Some(token) = got.next else { return assert_eq!(state.digest().wrapping_add(sessions), got.digest) };
            part = Some(ChunkRequest { slot: got.slot, index: got.index + 1, token });
        }
    }

    /// Asks until it has a result, and lets timers run out meanwhile.
    fn ask(&mut self, stage: &mut BenchServer, request: &Request) -> Reply {
        for _ in 0..TRIES {
            self.number += 1;
            let (number, context) = (self.number, TraceContext::default());
            let asked = ClientRequest { number, context, request: request.clone() };
            stage.ask(&self.connection, asked).expect("the request is valid");
            for _ in 0..TIMERS {
                match self
                    .connection
                    .replies()
                    .into_iter()
                    .find(|reply| reply.number == number)
                    .map(|reply| reply.reply)
                {
                    Some(Reply::NotApplied(_)) => break,
                    Some(reply) => return reply,
                    None => [Which::Learner, Which::Proposer].into_iter().for_each(|which| stage.time_out(which)),
                }
            }
        }
        panic!("{request:?} has no result")
    }
}

fn any_which(source: &mut Choices<'_>) -> Which {
    [Which::Proposer, Which::Acceptor, Which::Learner][usize::from(source.below(3))]
}

/// A number: small, or near some limit.
fn number(source: &mut Choices<'_>) -> u64 {
    const ENDS: [u64; 12] = [
        u64::MAX,
        u64::MAX - 1,
        1 << 63,
        (1 << 62) + 1,
        1 << 62,
        (1 << 62) - 1,
        (1 << 62) - 2,
        1 << 56,
        1 << 40,
        1 << 32,
        u32::MAX as u64,
        1 << 24,
    ];
    match source.byte() {
        at @ 200..=250 => ENDS[usize::from(at) % ENDS.len()],
        251..=255 => source.number(),
        small => u64::from(small) % 40,
    }
}

fn key(source: &mut Choices<'_>) -> Vec<u8> {
    match source.below(10) {
        9 => vec![b'x'; 4 << 10],
        8 => vec![b'x'; (4 << 10) + 1],
        n => vec![b'k', n],
    }
}

fn op(source: &mut Choices<'_>) -> Op {
    match source.below(4) {
        0 => Op::Delete { key: key(source) },
        1 => Op::Put { key: key(source), value: vec![7; 100].into(), if_version: Some(number(source)) },
        _ => Op::Put { key: key(source), value: source.bytes().to_vec().into(), if_version: None },
    }
}

fn part_name(source: &mut Choices<'_>) -> ChunkRequest {
    let token = match source.below(3) {
        0 => PartToken::Session(number(source)),
        1 => PartToken::Key(key(source)),
        _ => PartToken::Key(source.bytes().to_vec()),
    };
    ChunkRequest { slot: Slot(number(source)), index: number(source) as u32, token }
}

fn request(source: &mut Choices<'_>, honest: Option<&HonestClient>) -> ClientRequest {
    let request = match source.below(10) {
        0 => Request::Open { nonce: number(source).into() },
        1..=3 => {
            // The slot of another client's session can be guessed, but not its nonce.
            let own = number(source);
            let session = honest.filter(|_| source.below(2) == 0).map_or(own, |honest| honest.session);
            let (nonce, sequence, first_open) = (number(source).into(), number(source), number(source));
            Request::Write { session, nonce, sequence, first_open, op: op(source) }
        }
        4 => Request::Get { key: key(source) },
        5 => Request::Status,
        6..=8 => {
            let part = (source.below(3) > 0).then(|| part_name(source));
            Request::State { at_least: Slot(number(source)), part }
        }
        _ => {
            let role = RoleKind::ALL.get(usize::from(source.below(6))).copied();
            let down_ms = (source.below(2) > 0).then(|| number(source));
            match source.below(4) {
                0 => Request::Crash { role, down_ms },
                1 => Request::Restart { role },
                2 => Request::Cut { peers: servers(source) },
                _ => Request::Join { peers: servers(source) },
            }
        }
    };
    let req = match source.below(8) {
        0 => Some("c9-1".to_string()),
        1 => Some("\n \u{202e}".to_string()),
        2 => Some("l".repeat(49)),
        _ => None,
    };
    ClientRequest { number: number(source), context: TraceContext { parent: None, req }, request }
}

/// The value proposed at this ballot in this slot.
fn proposed(ballot: Ballot, slot: Slot) -> Value {
    let mark = ballot.round.wrapping_mul(31) ^ slot.0 ^ u64::from(ballot.server.0) << 7;
    let id = CommandId::new(mark % 3, (mark % 2).into(), mark % 5);
    let write = |sequence, first_open| {
        let op = Op::Put { key: vec![b'k', (mark % 4) as u8], value: vec![1].into(), if_version: None };
        let (session, nonce, label) = (mark % 7, (mark % 3).into(), "l".repeat(80));
        Value::Command(KvCommand::Write { session, nonce, sequence, first_open, label, op }.to_paxos())
    };
    match mark % 6 {
        0 => Value::Noop,
        1 => Value::Command(paxos::Command { id, payload: [255; 9][..].into() }),
        2 => Value::Command(KvCommand::Open { nonce: (mark % 3).into(), label: String::new() }.to_paxos()),
        3 => write(u64::MAX, u64::MAX),
        4 => write(u64::MAX, 1),
        _ => write(mark % 9, mark % 9),
    }
}

fn entries(source: &mut Choices<'_>, ballot: Ballot) -> Vec<Entry> {
    let first = number(source);
    let slots = (0..u64::from(source.below(4))).map(|n| Slot(first.saturating_add(n)));
    slots.map(|slot| Entry { slot, ballot, value: proposed(ballot, slot) }).collect()
}

/// A snapshot chunk, which may even be valid.
fn snapshot(source: &mut Choices<'_>) -> SnapshotChunk {
    let mut state = Kv::default();
    for slot in 1..=u64::from(source.below(4)) {
        state.apply(Slot(slot), &proposed(Ballot { round: number(source), server: ServerId(2) }, Slot(slot)));
    }
    let entry = VersionedValue { value: Some(vec![2].into()), version: number(source) };
    state.put_pieces(vec![StateEntry::Key { key: vec![b'k', source.below(5)], entry: entry.clone() }]);
    let digest = if source.below(4) == 0 { number(source) } else { state.digest() };
    let mut all = Kv::empty_like(&state);
    let mut pieces = state.take_delta().pieces;
    pieces.push(StateEntry::Key { key: vec![b'k', 0], entry });
    all.put_pieces(pieces.clone());
    let digest = if source.below(2) == 0 { digest } else { all.digest() };
    let bytes = if source.below(4) == 0 { source.bytes().to_vec() } else { encode_chunk(&pieces) };
    let next = (source.below(3) == 0).then(|| PartToken::Session(number(source)));
    let index = if source.below(2) == 0 { 0 } else { number(source) as u32 };
    SnapshotChunk { slot: Slot(number(source)), digest, index, bytes: bytes.into(), next }
}

/// Any message that a peer can send.
fn message(source: &mut Choices<'_>, from: ServerId, stage: &BenchServer) -> Message {
    let own = Ballot { round: number(source), server: from };
    let ballot = Ballot { server: ServerId(1 + source.below(3)), ..own };
    let (slot, other) = (Slot(number(source)), Slot(number(source)));
    let slots = SlotRange { first: slot, last: other };
    match source.below(24) {
        0 => Message::Prepare { ballot: own, from: slot },
        1 => Message::Promise {
            ballot: if source.below(2) == 0 { stage.at_work().unwrap_or(ballot) } else { ballot },
            page: Page {
                from: slot,
                end: if source.below(2) == 0 { Some(Slot(number(source))) } else { None },
                truncated_below: other,
                accepted: entries(source, own),
                corrupt: if source.below(3) == 0 { vec![slots] } else { Vec::new() },
            },
        },
        2 => Message::Nack {
            ballot: stage.at_work().unwrap_or(ballot),
            refused: if source.below(2) == 0 { NackedRequest::Prepare(slot) } else { NackedRequest::Accept(slot) },
            promised: own,
        },
        3 => Message::Truncated { ballot: stage.at_work().unwrap_or(ballot), slot, below: other },
        4 | 5 => {
            let slots = (0..u64::from(source.below(4))).map(|n| Slot(slot.0.saturating_add(n)));
            Message::Accept { ballot: own, first: slot, values: slots.map(|slot| proposed(own, slot)).collect() }
        }
        6 => Message::Accepted { ballot: stage.at_work().unwrap_or(ballot), slots },
        7 => Message::Chosen { ballot, slots },
        8 => {
            let digest = if source.below(8) == 0 { number(source) } else { stage.digest() };
            Message::Progress { applied: slot, digest }
        }
        9 => Message::CatchUp { from: slot },
        10 | 11 => Message::Entries { entries: entries(source, own), applied: slot },
        12 => Message::Read { id: u128::from(number(source)) << 64 | u128::from(number(source)) },
        13 => Message::ReadReply { id: 2 << 64 | u128::from(number(source)), slot },
        14 => Message::Fill { slot },
        15 => {
            let commands = entries(source, own).into_iter().filter_map(|entry| match entry.value {
                Value::Command(command) => Some(command),
                Value::Noop => None,
            });
            Message::Forward { commands: commands.collect() }
        }
        16 => Message::ForwardRefused { leader: (source.below(2) == 0).then_some(ballot) },
        17 => Message::Heartbeat { ballot: own },
        18 => Message::HeartbeatReply { ballot },
        19 => Message::LeaderHint { ballot },
        20 => Message::PreVote { id: number(source) },
        21 => Message::PreVoteReply { id: number(source), hears: source.below(4) == 0 },
        22 => Message::Snapshot(snapshot(source)),
        _ => Message::FetchSnapshot(part_name(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::requests;
    use paxos_kv::random::Random;

    /// Runs the target without a fuzzer, with fixed seeds. If `RUNS` is set, it runs that number of times with a random
    /// seed.
    #[test]
    fn random_choices_violate_no_rule() {
        let asked = std::env::var("RUNS").ok().and_then(|runs| runs.parse().ok());
        let seed = if asked.is_some() { Random::unseeded().next() } else { 1 };
        for run in 0..asked.unwrap_or(60) {
            let mut random = Random::new(seed, run);
            let length = random.within(20..=900);
            let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            println!("seed {seed}, run {run}");
            requests(&bytes);
        }
    }
}
