//! Frame splitter: cuts the stream between two servers into frames, so that a frame can be repeated.

use std::collections::VecDeque;

/// Length of the preamble before the first frame of a connection.
const PREAMBLE_BYTES: usize = 6;
/// Length of the header before a frame's payload: its length and two checksums.
const HEADER_BYTES: usize = 12;
/// Maximum payload length. Bytes that announce more are not a frame: they and the rest of the stream are passed on
/// unchanged.
const FRAME_MAX_BYTES: usize = 8 << 20;
/// Number of frames kept for a repetition.
const OLD_MAX: usize = 64;
/// Maximum length of a kept frame.
const OLD_MAX_BYTES: usize = 16 << 10;

/// A stream of bytes, cut into its frames.
#[derive(Debug, Default)]
pub struct FrameSplitter {
    bytes: Vec<u8>,
    state: SplitState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SplitState {
    /// The preamble and the introduction. They are never repeated: the receiver would close the connection.
    #[default]
    Greeting,
    Frames,
    /// The bytes are not frames.
    Raw,
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPiece {
    /// One whole frame, header included.
    Frame(Vec<u8>),
    /// Other bytes.
    Bytes(Vec<u8>),
}

impl FrameSplitter {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole piece.
    pub fn next(&mut self) -> Option<StreamPiece> {
        let head = if self.state == SplitState::Greeting { PREAMBLE_BYTES } else { 0 };
        if self.state == SplitState::Raw {
            return (!self.bytes.is_empty()).then(|| StreamPiece::Bytes(std::mem::take(&mut self.bytes)));
        }
        let length = self.bytes.get(head..head + 4)?;
        let payload = length.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        if payload > FRAME_MAX_BYTES {
            self.state = SplitState::Raw;
            return self.next();
        }
        let whole = head + HEADER_BYTES + payload;
        if self.bytes.len() < whole {
            return None;
        }
        let rest = self.bytes.split_off(whole);
        let piece = std::mem::replace(&mut self.bytes, rest);
        match std::mem::replace(&mut self.state, SplitState::Frames) {
            SplitState::Greeting => Some(StreamPiece::Bytes(piece)),
            SplitState::Frames | SplitState::Raw => Some(StreamPiece::Frame(piece)),
        }
    }
}

/// Frames sent earlier, including those of closed connections and earlier incarnations.
#[derive(Debug, Default)]
pub struct ReplayBuffer(VecDeque<Vec<u8>>);

impl ReplayBuffer {
    /// Stores a frame, and drops the oldest if the buffer is full.
    pub fn keep(&mut self, frame: &[u8]) {
        if frame.len() > OLD_MAX_BYTES {
            return;
        }
        if self.0.len() == OLD_MAX {
            self.0.pop_front();
        }
        self.0.push_back(frame.to_vec());
    }

    /// Number of stored frames.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The frame at this index.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        self.0.get(at).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_le_bytes()[..], &[9; 8], payload].concat()
    }

    #[test]
    fn frames_pass_unchanged_however_the_stream_is_split() {
        let greeting = [&b"PXKV\x06\x00"[..], &frame(b"hello")].concat();
        let stream = [greeting.clone(), frame(b"one"), frame(b""), frame(b"three")].concat();
        for step in 1..=stream.len() {
            let (mut splitter, mut pieces) = (FrameSplitter::default(), Vec::new());
            for part in stream.chunks(step) {
                splitter.push(part);
                pieces.extend(std::iter::from_fn(|| splitter.next()));
            }
            let wanted = [StreamPiece::Bytes(greeting.clone())];
            let wanted =
                wanted.into_iter().chain([&b"one"[..], b"", b"three"].map(|one| StreamPiece::Frame(frame(one))));
            assert_eq!(pieces, wanted.collect::<Vec<_>>(), "in parts of {step} bytes");
        }
    }

    #[test]
    fn bytes_that_are_not_frames_pass_unchanged() {
        let (mut splitter, noise) = (FrameSplitter::default(), [255; 40]);
        splitter.push(&noise);
        assert_eq!(splitter.next(), Some(StreamPiece::Bytes(noise.to_vec())));
        splitter.push(b"more");
        assert_eq!((splitter.next(), splitter.next()), (Some(StreamPiece::Bytes(b"more".to_vec())), None));
    }

    #[test]
    fn newest_short_frames_are_kept_for_replay() {
        let mut old = ReplayBuffer::default();
        (0..100).for_each(|n| old.keep(&[n]));
        old.keep(&vec![0; OLD_MAX_BYTES + 1]);
        assert_eq!((old.len(), old.get(0), old.get(63), old.get(64)), (64, Some(&[36][..]), Some(&[99][..]), None));
    }
}
