//! The format of a Jepsen log of one register, as in the Porcupine project's test data.
//!
//! ```text
//! INFO  jepsen.util - 2  :invoke  :write  4
//! INFO  jepsen.util - 2  :ok      :write  4
//! INFO  jepsen.util - 1  :invoke  :cas    [0 3]
//! INFO  jepsen.util - 1  :fail    :cas    [0 3]
//! INFO  jepsen.util - 3  :invoke  :read   nil
//! INFO  jepsen.util - 3  :fail    :read   :timed-out
//! ```
//!
//! `:info` means that the outcome is unknown; the same holds for a write or compare-and-set that failed with a
//! time-out. A failed compare-and-set that repeats its values found another value. Any other failed operation did not
//! happen.

use super::events::{EventKind, PairedOperation, ProcessEvent, pair};
use super::history::FormatError;
use super::model::HistoryOperation;
use super::register_model::{RegisterCall, RegisterModel, RegisterOutcome};
use super::value_ids::ValueIds;
use super::verdict::{KeyHistory, SourceLines};

/// The text in every line of the test, before its fields.
pub(super) const LINE_MARK: &str = "jepsen.util - ";

/// The content of a line about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EtcdEvent<'a> {
    Read(Option<&'a str>),
    Write(&'a str),
    CompareAndSet(&'a str, &'a str),
    TimedOut,
}

/// Reads a log. Lines without the mark are ignored.
pub(super) fn read(text: &str) -> Result<Vec<KeyHistory<RegisterModel>>, FormatError> {
    let fields = |line| text_after_mark(line).map(|fields| fields.split_whitespace().collect::<Vec<_>>());
    let lines = text.lines().enumerate().filter_map(|(number, line)| Some((number, fields(line)?)));
    let events = lines.map(|(number, fields)| {
        parse_event(number, &fields).ok_or_else(|| FormatError::new(number, "this is not PROCESS KIND FUNCTION VALUE"))
    });
    let pairs = pair(events.collect::<Result<_, _>>()?)?;
    Ok(vec![part(&pairs)?])
}

fn text_after_mark(line: &str) -> Option<&str> {
    line.split_once(LINE_MARK).map(|(_, fields)| fields)
}

fn parse_event<'a>(line: usize, fields: &[&'a str]) -> Option<ProcessEvent<'a, EtcdEvent<'a>>> {
    let [process, kind, function, values @ ..] = fields else { return None };
    let what = match (*function, values) {
        (":read" | ":write" | ":cas", [":timed-out"]) => EtcdEvent::TimedOut,
        (":read", ["nil"]) => EtcdEvent::Read(None),
        (":read", [value]) => EtcdEvent::Read(Some(value)),
        (":write", [value]) => EtcdEvent::Write(value),
        // No test compares with nil, so its meaning is undefined here: reject it.
        (":cas", ["[nil", _]) => return None,
        (":cas", [from, to]) => EtcdEvent::CompareAndSet(from.strip_prefix('[')?, to.strip_suffix(']')?),
        _ => return None,
    };
    Some(ProcessEvent { line, process, kind: EventKind::parse(kind)?, what })
}

fn part(pairs: &[PairedOperation<EtcdEvent>]) -> Result<KeyHistory<RegisterModel>, FormatError> {
    // A comparison counts as a read of the value, because the result depends on it.
    let read = pairs.iter().flat_map(|pair| [Some(pair.call.1), pair.end.as_ref().map(|end| end.2)]);
    let read = read.flatten().filter_map(|what| match what {
        EtcdEvent::Read(value) => value,
        EtcdEvent::CompareAndSet(from, _) => Some(from),
        EtcdEvent::Write(_) | EtcdEvent::TimedOut => None,
    });
    let values = ValueIds::read(read.map(str::to_string));
    let (mut operations, mut places) = (Vec::new(), Vec::new());
    for pair in pairs {
        if let Some(operation) = operation(pair, &values)? {
            operations.push(operation);
            places.push(SourceLines { call: pair.call.0, end: pair.end.as_ref().map(|end| end.0) });
        }
    }
    Ok(KeyHistory { key: "the register".to_string(), model: RegisterModel { values }, operations, lines: places })
}

/// The operation; None if it did not happen, or if it is a read without a result.
fn operation(
    pair: &PairedOperation<EtcdEvent>,
    values: &ValueIds<String>,
) -> Result<Option<HistoryOperation<RegisterCall, RegisterOutcome>>, FormatError> {
    let number = |value: &str| values.number(&value.to_string());
    let (called, what) = pair.call;
    let call = match what {
        EtcdEvent::Read(None) => RegisterCall::Read,
        EtcdEvent::Write(value) => RegisterCall::Write(number(value)),
        EtcdEvent::CompareAndSet(from, to) => RegisterCall::CompareAndSet(number(from), number(to)),
        EtcdEvent::Read(Some(_)) | EtcdEvent::TimedOut => return Err(FormatError::new(called, "this is not a call")),
    };
    let returned = match pair.end {
        None | Some((_, EventKind::Info, _) | (_, EventKind::Fail, EtcdEvent::TimedOut)) => None,
        Some((line, EventKind::Ok, EtcdEvent::Read(value))) if call == RegisterCall::Read => {
            Some((line as u64, RegisterOutcome::Holds(value.map(number))))
        }
        Some((line, EventKind::Ok, told)) if call != RegisterCall::Read && told == what => {
            Some((line as u64, RegisterOutcome::Done))
        }
        Some((line, EventKind::Fail, told)) if matches!(call, RegisterCall::CompareAndSet(..)) && told == what => {
            Some((line as u64, RegisterOutcome::Mismatch))
        }
        Some((_, EventKind::Fail, _)) => return Ok(None),
        Some((line, EventKind::Ok | EventKind::Invoke, _)) => {
            return Err(FormatError::new(line, "this return does not match the call"));
        }
    };
    let tells_nothing = returned.is_none() && call == RegisterCall::Read;
    Ok((!tells_nothing).then_some(HistoryOperation { call, called: called as u64, returned }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> String {
        lines
            .iter()
            .map(|line| format!("INFO  jepsen.util - {}\n", line.replace(' ', "\t").replace("_", " ")))
            .collect()
    }

    #[test]
    fn ends_mean_done_mismatch_not_happened_or_unknown() {
        let text = log(&[
            "0 :invoke :read nil",
            "1 :invoke :write 4",
            "0 :ok :read nil",
            "1 :info :write :timed-out",
            "2 :invoke :cas [0_3]",
            "3 :invoke :cas [4_1]",
            "2 :fail :cas [0_3]",
            "3 :ok :cas [4_1]",
            "0 :invoke :read nil",
            "0 :fail :read :timed-out",
            "4 :invoke :write 2",
            "4 :fail :write 2",
            "4 :invoke :write 7",
            "4 :fail :write :timed-out",
            "5 :invoke :read nil",
        ]);
        let parts = read(&format!("a line of another program\n{text}")).unwrap();
        let [part] = &*parts else { panic!("one register") };
        let number = |value: &str| part.model.values.number(&value.to_string());
        assert_eq!(
            part.operations,
            [
                HistoryOperation {
                    call: RegisterCall::Read,
                    called: 1,
                    returned: Some((3, RegisterOutcome::Holds(None)))
                },
                HistoryOperation { call: RegisterCall::Write(number("4")), called: 2, returned: None },
                HistoryOperation {
                    call: RegisterCall::CompareAndSet(number("0"), number("3")),
                    called: 5,
                    returned: Some((7, RegisterOutcome::Mismatch)),
                },
                HistoryOperation {
                    call: RegisterCall::CompareAndSet(number("4"), number("1")),
                    called: 6,
                    returned: Some((8, RegisterOutcome::Done)),
                },
                HistoryOperation { call: RegisterCall::Write(number("7")), called: 13, returned: None },
            ]
        );
        assert_ne!(number("4"), number("0"), "compared with");
        assert_eq!(number("1"), number("3"), "read by no operation");
        assert_eq!(part.lines[1], SourceLines { call: 2, end: Some(4) });
    }

    #[test]
    fn text_that_is_no_history_is_reported() {
        for (lines, line, what) in [
            (&["0 :invoke :read nil", "0 :invoke :read nil"][..], 1, "has not ended"),
            (&["0 :ok :read nil"], 0, "has called no operation"),
            (&["0 :invoke :read 4"], 0, "not a call"),
            (&["0 :invoke :read nil", "0 :ok :write 4"], 1, "does not match"),
            (&["0 :invoke :write 4", "0 :ok :write 5"], 1, "does not match"),
            (&["0 :invoke :write 4", "0 :ok :read 4"], 1, "does not match"),
            (&["0 :invoke :swim 4"], 0, "PROCESS KIND"),
            (&["0 :invoke :cas [nil_3]"], 0, "PROCESS KIND"),
            (&["0 :maybe :write 4"], 0, "PROCESS KIND"),
            (&["0 :invoke"], 0, "PROCESS KIND"),
        ] {
            let error = read(&log(lines)).unwrap_err();
            assert_eq!(error.line, line, "{lines:?}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
