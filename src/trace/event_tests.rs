//! Every line reads back as it was written, whatever bytes clients put into it.

use proptest::prelude::*;

use super::*;
use crate::trace::strategies::AnyValue;
use crate::trace::{Line, clean_label, is_invisible};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn every_line_is_read_back_exactly(line in Line::any()) {
        let text = line.to_string();
        prop_assert!(!text.contains(is_invisible), "{:?}", text);
        match text.parse::<Line>() {
            Ok(read) => prop_assert_eq!(read, line),
            Err(error) => prop_assert!(false, "{}\n{}", text, error),
        }
    }

    /// A changed character yields another line or no line, never the same line in another spelling.
    #[test]
    fn no_line_has_two_forms(line in Line::any(), at: prop::sample::Index, with in "[ =\",+0-9a-zA-Z.-]") {
        let text = line.to_string();
        let at = at.index(text.chars().count());
        let changed: String =
            text.chars().enumerate().map(|(n, c)| if n == at { with.clone() } else { c.into() }).collect();
        if changed != text && let Ok(read) = changed.parse::<Line>() {
            prop_assert_ne!(read, line);
        }
    }

    /// Whatever bytes a client uses as key, value or label, the line reports its own event only.
    #[test]
    fn no_client_can_forge_a_field_or_a_line(
        key: Vec<u8>, value in forgery(), label in forgery(), line in Line::any(),
    ) {
        let (key, value) = (Some(QuotedText::new(key)), Some(QuotedText::new(value)));
        let event = Event::Accept {
            slot: Slot(7), ballot: Ballot { round: 3, server: ServerId(1) }, op: OpKind::Put, key, value,
            if_version: None, adopted: MaybeBallot(None), quorum: ServerSet::first(3), to: ServerSet::first(5),
        };
        // As a writer prepares it: a long label is cut, an empty one left out.
        let line = Line { event, req: clean_label(label), reason: None, parent: None, ..line };
        let text = line.to_string();
        prop_assert_eq!(text.lines().count(), 1);
        prop_assert_eq!(text.parse::<Line>(), Ok(line));
    }
}

/// Texts that imitate the rest of a line, or another line.
fn forgery() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "\n",
        "\r\n",
        "\u{2028}",
        " ",
        "\"",
        "\\",
        "\\\"",
        "re=s1.1",
        " -- ",
        "=",
        "quorum=s1,s2,s3 to=s1 ",
        "...",
        "+65B#",
        "2026-08-21T14:03:07.105388Z INFO  s1.206  acceptor PROMISE  slot=7+ ballot=3.1 accepted=none to=s1",
        "\u{0}",
        "é",
        "\u{202e}",
    ]);
    prop::collection::vec(bits, 0..6).prop_map(|bits| bits.concat())
}

#[test]
fn level_marks_events_that_need_attention() {
    let link = |state| Event::Link { peer: ServerSet::only(ServerId(2)), state, cause: None };
    assert_eq!(link(LinkEvent::Up).level(), Level::Info);
    assert_eq!(link(LinkEvent::Lost).level(), Level::Warn);
    assert_eq!(link(LinkEvent::Cut).level(), Level::Warn);
    let digest = |equal| Event::Digest { slot: Slot(1), digest: Digest(1), equal: Some(equal), of: Some(5) };
    assert_eq!(digest(5).level(), Level::Info);
    assert_eq!(digest(4).level(), Level::Error);
}
