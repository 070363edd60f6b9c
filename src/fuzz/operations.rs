//! A file of operations: all of it is understood, or nothing of it is done.

use crate::client::script::{Operation, parse};

/// As many bytes as a text shows whole.
const SHOWN_BYTES: usize = 64;

/// Bytes as a file of operations.
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

/// An operation is shown as it would stand in a file, unless it is too long for that.
fn shown(action: &Operation) {
    let value: &[u8] = if let Operation::Put { value, .. } = action { value } else { &[] };
    if action.key().len().max(value.len()) > SHOWN_BYTES {
        return;
    }
    let text = action.to_string();
    let again = parse(text.as_bytes()).unwrap_or_else(|errors| panic!("{text}: {}", errors[0].what));
    assert_eq!(again.iter().map(|operation| &operation.action).collect::<Vec<_>>(), [action], "{text}");
}
