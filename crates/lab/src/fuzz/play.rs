//! What a page sends: choices as codes and as text, and the exercise of a teacher. What is read is written back equal.

use crate::play::choice::{CHOICES_MAX, codes, read_codes, read_lines};
use crate::play::exercise::{Exercise, TEXT_MAX_BYTES};

/// Reads bytes as a list of choices, in both spellings.
pub fn choices(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(read) = read_codes(&text) {
        assert!(read.len() <= CHOICES_MAX);
        assert_eq!(read_codes(&codes(&read)).as_ref(), Ok(&read), "a code is read back");
    }
    if let Ok(read) = read_lines(&text) {
        assert!(read.len() <= CHOICES_MAX);
        let written: String = read.iter().map(|choice| format!("{choice}\n")).collect();
        assert_eq!(read_lines(&written).as_ref(), Ok(&read), "a text is read back");
        assert_eq!(read_codes(&codes(&read)), Ok(read), "both spellings mean the same");
    }
}

/// Reads bytes as an exercise.
pub fn exercises(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Exercise::read(&text) {
        Ok(exercise) => {
            assert!(text.len() <= TEXT_MAX_BYTES);
            assert!(
                !exercise.goals.is_empty() && !exercise.clients.is_empty() && exercise.solution.len() <= CHOICES_MAX
            );
        }
        Err(error) => assert!(error.line >= 1 && error.column >= 1 && !error.what.is_empty(), "{error}"),
    }
}
