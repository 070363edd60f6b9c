//! A line: what is read is what was written, and nobody's bytes can make it look like another.

use jiff::Timestamp;

use super::choices::Choices;
use crate::paxos::{Ballot, Slot};
use crate::role::{ServerId, ServerSet};
use crate::trace::{
    Event, Line, LineId, MaybeBallot, OpKind, ProcessId, QuotedText, Speaker, clean_label, clean_why, is_invisible,
};

/// Bytes as a line, and as what a client would like to see in one.
pub fn lines(bytes: &[u8]) {
    read(&String::from_utf8_lossy(bytes));
    written(bytes);
}

/// Whatever is a line is one for everybody: on one row, with nothing in it that cannot be seen.
fn read(text: &str) {
    let Ok(line) = text.parse::<Line>() else { return };
    assert_eq!(line.to_string(), text);
    assert!(!text.contains(is_invisible), "{text:?} is taken for a line");
    assert!(text.split(' ').nth(1).is_some_and(|word| word == line.level().as_str()));
    // A writer that has the same to say says it in the same words.
    assert_eq!(
        (line.req.clone().and_then(clean_label), line.reason.clone().and_then(clean_why)),
        (line.req, line.reason)
    );
}

/// What a client has put into key, value, label and a sentence comes back as it was, or cut and hashed.
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
        reason: clean_why(String::from_utf8_lossy(source.rest()).into_owned()),
    }
    .to_string();
    assert!(!text.contains(is_invisible), "{text:?}");
    let line: Line = text.parse().unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!((line.event, line.role), (event, Speaker::Proposer));
    for text in [key, value] {
        assert_eq!(QuotedText::parse(&text.to_string()), Some(text));
    }
}
