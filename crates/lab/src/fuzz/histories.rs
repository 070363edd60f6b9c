//! Histories in foreign formats: every readable history gets a verdict, and each prefix of a linearizable history is
//! linearizable.

use std::time::{Duration, Instant};

use crate::linearizability::{Format, History, LinearizabilityVerdict, SourceLines};
use paxos_kv::choices::Choices;

/// Maximum time for a search; beyond it the input proves nothing.
const WITHIN: Duration = Duration::from_millis(20);

/// Reads a text as a history in one of the foreign formats.
pub fn histories(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let cut = usize::from(source.byte());
    let Ok(text) = std::str::from_utf8(source.rest()) else { return };
    let Ok((format, verdict)) = check(text) else { return };
    let lines = text.lines().count();
    match verdict {
        LinearizabilityVerdict::Unknown(_) => {}
        LinearizabilityVerdict::Violation(witness) => {
            let is_there =
                |place: &SourceLines| place.call < lines && place.end.is_none_or(|end| place.call < end && end < lines);
            assert!(witness.order.iter().chain(&witness.open).chain([&witness.breaks]).all(is_there), "{witness:?}");
            assert!(witness.breaks.end.is_some(), "only a return can be wrong");
        }
        LinearizabilityVerdict::Linearizable { .. } => {
            // Herlihy and Wing: every prefix of a linearizable history is linearizable, with the operations in flight
            // at its end pending.
            let cut = cut % (lines + 1);
            let prefix: String = text.lines().take(cut).map(|line| format!("{line}\n")).collect();
            match check(&prefix) {
                Ok((_, LinearizabilityVerdict::Linearizable { .. } | LinearizabilityVerdict::Unknown(_))) => {}
                Ok((_, LinearizabilityVerdict::Violation(witness))) => {
                    panic!("the whole history is linearizable, but its first {cut} lines are not: {witness:?}")
                }
                Err(error) => {
                    assert!(Format::of(&prefix) != Ok(format), "the first {cut} lines cannot be read: {error}")
                }
            }
        }
    }
}

fn check(text: &str) -> Result<(Format, LinearizabilityVerdict), String> {
    let format = Format::of(text).map_err(|error| error.to_string())?;
    let history = match format {
        Format::EtcdLog => History::EtcdLog(text.to_string()),
        Format::KvText => History::KvText(text.to_string()),
        // Log lines are checked by the target `runs`.
        Format::Lines => return Err("lines".to_string()),
    };
    let verdict = history.check(Instant::now() + WITHIN).map_err(|error| error.to_string())?;
    Ok((format, verdict))
}
