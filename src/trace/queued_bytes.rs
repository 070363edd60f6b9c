//! Byte limit for batches of lines that wait for a slow reader. Their channel limits the number of batches, and this
//! module limits their bytes.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum number of bytes in the waiting batches of one channel.
pub const WAITING_MAX_BYTES: usize = 8 << 20;

/// Number of bytes in the waiting batches of one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct QueuedBytes(Arc<AtomicUsize>);

/// A batch of lines. Dropping it frees its bytes for the next one.
#[derive(Debug)]
pub struct LineBatch {
    text: String,
    waiting: QueuedBytes,
}

impl QueuedBytes {
    /// A batch that may wait; None if it would exceed the limit.
    pub(super) fn group(&self, text: String) -> Option<LineBatch> {
        // Count first: otherwise two concurrent batches could both get the last of the room.
        let held = self.0.fetch_add(text.len(), Ordering::Relaxed) + text.len();
        let group = LineBatch { text, waiting: self.clone() };
        (held <= WAITING_MAX_BYTES).then_some(group)
    }
}

impl Drop for LineBatch {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

impl Deref for LineBatch {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_of_a_stopped_reader_is_limited() {
        let waiting = QueuedBytes::default();
        let group = || waiting.group("x".repeat(WAITING_MAX_BYTES / 4));
        let mut held: Vec<LineBatch> = (0..10).filter_map(|_| group()).collect();
        assert_eq!(held.len(), 4);
        held.pop();
        assert!(group().is_some(), "what was taken makes room");
    }
}
