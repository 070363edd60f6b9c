//! Cuts what a server says to another into frames, so that one can be said twice.

use std::collections::VecDeque;

/// Before the first frame of a connection: the caller's raw words.
const PREAMBLE_BYTES: usize = 6;
/// Before the payload of a frame: its length, and two checksums.
const HEADER_BYTES: usize = 12;
/// What claims to be longer is no frame: it is passed on as it is, and so is all that follows.
const FRAME_MAX_BYTES: usize = 8 << 20;
/// So many frames of a link are remembered, to be said again.
const OLD_MAX: usize = 64;
/// Longer ones are not.
const OLD_MAX_BYTES: usize = 16 << 10;

/// A stream of bytes, cut into its frames.
#[derive(Debug, Default)]
pub struct FrameSplitter {
    bytes: Vec<u8>,
    cluster: SplitState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SplitState {
    /// The preamble and the introduction are never said twice: nobody would listen to the rest.
    #[default]
    Greeting,
    Frames,
    /// It was no frame.
    Raw,
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPiece {
    /// A whole message.
    Frame(Vec<u8>),
    /// Something else.
    Bytes(Vec<u8>),
}

impl FrameSplitter {
    /// More has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole piece.
    pub fn next(&mut self) -> Option<StreamPiece> {
        let head = if self.cluster == SplitState::Greeting { PREAMBLE_BYTES } else { 0 };
        if self.cluster == SplitState::Raw {
            return (!self.bytes.is_empty()).then(|| StreamPiece::Bytes(std::mem::take(&mut self.bytes)));
        }
        let length = self.bytes.get(head..head + 4)?;
        let payload = length.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
        if payload > FRAME_MAX_BYTES {
            self.cluster = SplitState::Raw;
            return self.next();
        }
        let whole = head + HEADER_BYTES + payload;
        if self.bytes.len() < whole {
            return None;
        }
        let rest = self.bytes.split_off(whole);
        let piece = std::mem::replace(&mut self.bytes, rest);
        match std::mem::replace(&mut self.cluster, SplitState::Frames) {
            SplitState::Greeting => Some(StreamPiece::Bytes(piece)),
            SplitState::Frames | SplitState::Raw => Some(StreamPiece::Frame(piece)),
        }
    }
}

/// Frames that were said before, also on connections and in lives that are over.
#[derive(Debug, Default)]
pub struct ReplayBuffer(VecDeque<Vec<u8>>);

impl ReplayBuffer {
    /// Remembers one; the oldest is forgotten.
    pub fn keep(&mut self, frame: &[u8]) {
        if frame.len() > OLD_MAX_BYTES {
            return;
        }
        if self.0.len() == OLD_MAX {
            self.0.pop_front();
        }
        self.0.push_back(frame.to_vec());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One of them.
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
    fn a_stream_comes_out_as_it_went_in_whatever_it_is_cut_into() {
        let greeting = [&b"PXKV\x05\x00"[..], &frame(b"hello")].concat();
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
    fn what_is_no_frame_is_passed_on_as_it_is() {
        let (mut splitter, noise) = (FrameSplitter::default(), [255; 40]);
        splitter.push(&noise);
        assert_eq!(splitter.next(), Some(StreamPiece::Bytes(noise.to_vec())));
        splitter.push(b"more");
        assert_eq!((splitter.next(), splitter.next()), (Some(StreamPiece::Bytes(b"more".to_vec())), None));
    }

    #[test]
    fn the_newest_frames_are_remembered_and_long_ones_are_not() {
        let mut old = ReplayBuffer::default();
        (0..100).for_each(|n| old.keep(&[n]));
        old.keep(&vec![0; OLD_MAX_BYTES + 1]);
        assert_eq!((old.len(), old.get(0), old.get(63), old.get(64)), (64, Some(&[36][..]), Some(&[99][..]), None));
    }
}
