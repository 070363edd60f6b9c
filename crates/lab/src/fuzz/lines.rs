//! Log lines: reading returns what was written, and no bytes can make one line look like another.

use jiff::Timestamp;

use paxos_kv::choices::Choices;
use paxos_kv::paxos::{Ballot, Slot};
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::trace::{
    Event, Line, LineId, MaybeBallot, OpKind, ProcessId, QuotedText, Speaker, clean_label, clean_reason, is_invisible,
};

/// Reads bytes as a line, and writes them as fields that a client controls.
pub fn lines(bytes: &[u8]) {
    read(&String::from_utf8_lossy(bytes));
    written(bytes);
}

/// A text accepted as a line must be one row without invisible characters.
fn read(text: &str) {
    let Ok(line) = text.parse::<Line>() else { return };
    assert_eq!(line.to_string(), text);
    assert!(!text.contains(is_invisible), "{text:?} is accepted as a log line");
    assert!(text.split(' ').nth(1).is_some_and(|word| word == line.level().as_str()));
    // Writing the same content again must give the same text.
    assert_eq!(
        (line.req.clone().and_then(clean_label), line.reason.clone().and_then(clean_reason)),
        (line.req, line.reason)
    );
}

/// Key, value, label and reason from a client must be read back unchanged, or cut and hashed.
fn written(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let (key, value, label) = (source.bytes(), source.bytes(), source.bytes());
    let (key, value) = (QuotedText::new(key), QuotedText::new(value));
    let event = Event::Accept {
        slot: Slot(7),
        ballot: Ballot { round: 3, server: ServerId(1) },
        op: OpKind::Put,
        key: Some(key.clone()),
        value: Some(value.clone()),
        if_version: None,
        adopted: MaybeBallot(None),
        quorum: ServerSet::first(3),
        to: ServerSet::first(5),
    };
    let text = Line {
        time: Timestamp::UNIX_EPOCH,
        id: LineId { process: ProcessId::server(ServerId(1), 1), n: 1 },
        role: Speaker::Proposer,
        req: clean_label(String::from_utf8_lossy(label).into_owned()),
        event: event.clone(),
        parent: None,
        reason: clean_reason(String::from_utf8_lossy(source.rest()).into_owned()),
    }
    .to_string();
    assert!(!text.contains(is_invisible), "{text:?}");
    let line: Line = text.parse().unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!((line.event, line.role), (event, Speaker::Proposer));
    for text in [key, value] {
        assert_eq!(QuotedText::parse(&text.to_string()), Some(text));
    }
}
