//! Key versions: compares replies with each other where the log is not in the lines. The slots and versions that they
//! report must fit one log.

use std::collections::BTreeMap;

use super::super::event::Event;
use super::super::quoted::QuotedText;
use super::super::request_spans::request_spans;
use super::super::values::{OpKind, RequestStatus};
use super::{Rule, RunIndex};
use crate::paxos::Slot;

/// What a reply states about a key.
struct KeyClaim<'a> {
    /// Slot, and whether it is a read: a read follows the slot that it was answered from.
    position: (Slot, bool),
    version: u64,
    /// Whether the operation created this version.
    is_new: bool,
    /// The key's value at this version: Some(None) if it has none. None if the reply does not show it, as for a refused
    /// write.
    value: Option<Option<&'a QuotedText>>,
    lines: [usize; 2],
}

/// In slot order, a key's version never decreases, increases with each write, and has one value.
pub(super) fn check(index: &mut RunIndex<'_>) {
    let mut keys: BTreeMap<&QuotedText, Vec<KeyClaim<'_>>> = BTreeMap::new();
    for span in request_spans(index.run) {
        let (Some(key), Some(reply)) = (span.key, span.reply.filter(|reply| index.is_claim(*reply))) else {
            continue;
        };
        let Event::Response { status, slot: Some(slot), version: Some(version), value, .. } =
            &index.run.line(reply).event
        else {
            continue;
        };
        let (is_read, is_new, value) = match (span.op, status) {
            (OpKind::Get, RequestStatus::Ok) => (true, false, value.as_ref().map(Some)),
            (OpKind::Get, RequestStatus::NotFound) | (OpKind::Delete, RequestStatus::NotFound) => {
                (span.op == OpKind::Get, false, Some(None))
            }
            (OpKind::Put, RequestStatus::Ok) => (false, true, span.value.map(Some)),
            (OpKind::Delete, RequestStatus::Ok) => (false, true, Some(None)),
            (OpKind::Put, RequestStatus::Mismatch) => (false, false, None),
            _ => continue,
        };
        let (place, lines) = ((*slot, is_read), [span.request, reply]);
        keys.entry(key).or_default().push(KeyClaim { position: place, version: *version, is_new, value, lines });
    }
    for (key, mut said) in keys {
        said.sort_by_key(|one| one.position);
        for pair in said.windows(2) {
            let [before, after] = pair else { continue };
            let shown = [before.lines, after.lines].concat();
            let fell = after.version < before.version || (after.is_new && after.version == before.version);
            let other = after.version == before.version
                && matches!((before.value, after.value), (Some(before), Some(after)) if before != after);
            if fell || other {
                let message = format!(
                    "key {key} was at version {} in slot {} and at version {} in slot {}, which no single log allows",
                    before.version, before.position.0, after.version, after.position.0
                );
                index.violated(Rule::Reply, &shown, message);
            }
        }
    }
}
