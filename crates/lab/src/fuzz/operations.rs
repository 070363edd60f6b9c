//! Scripts of operations: a file is accepted completely, or none of its operations is returned.

use paxos_kv::client::operation::Operation;
use paxos_kv::client::script::parse;

/// The maximum length of a text that is shown uncut.
const SHOWN_BYTES: usize = 64;

/// Reads bytes as a script.
pub fn operations(bytes: &[u8]) {
    match parse(bytes) {
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.line <= 1 + bytes.iter().filter(|byte| **byte == b'\n').count());
                assert!(!error.what.contains(char::is_control), "{:?} would garble a terminal", error.what);
            }
        }
        Ok(operations) => {
            assert!(operations.windows(2).all(|two| two[0].line < two[1].line));
            for operation in operations {
                shown(&operation.action);
            }
        }
    }
}

/// An operation is shown as in a script, unless it is too long.
fn shown(action: &Operation) {
    let value: &[u8] = if let Operation::Put { value, .. } = action { value } else { &[] };
    if action.key().len().max(value.len()) > SHOWN_BYTES {
        return;
    }
    let text = action.to_string();
    let again = parse(text.as_bytes()).unwrap_or_else(|errors| panic!("{text}: {}", errors[0].what));
    assert_eq!(again.iter().map(|operation| &operation.action).collect::<Vec<_>>(), [action], "{text}");
}
