//! The handshake, from both sides: every input must get the right answer, with a message.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::frames::{HEADER_BYTES, connection, put_frame};
use paxos_kv::choices::Choices;
use paxos_kv::net::{
    Caller, FrameError, FrameReader, HANDSHAKE_FRAME_MAX_BYTES, HandshakeError, Hello, HelloReply, Welcome,
    accept_handshake, connect_handshake, frame, greeting, unframe,
};
use paxos_kv::role::{ServerId, ServerSet};

/// The answer of the called server.
const WELCOME: Welcome = Welcome { history: 0x5eed, members: ServerSet::NONE };
/// `PXKV` and the version.
const PREAMBLE_BYTES: usize = 6;

/// An unknown program connects, or answers a connection.
pub fn handshake(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let kind = source.byte();
    let words = match kind % 4 {
        0 => source.rest().to_vec(),
        1 => [&greeting(&hello())[..PREAMBLE_BYTES], source.rest()].concat(),
        preamble => {
            let mut words = if preamble == 2 { greeting(&hello())[..PREAMBLE_BYTES].to_vec() } else { Vec::new() };
            put_frame(source.bytes(), &mut words);
            words.extend_from_slice(source.rest());
            words
        }
    };
    if kind & 0x80 == 0 { called(&words) } else { calling(&words) }
}

fn hello() -> Hello {
    Hello { cluster: "lab".to_string(), to: ServerId(2), members: ServerSet::first(3), who: Caller::Client }
}

/// A connection whose other side has sent these bytes and nothing more.
fn other_side(bytes: &[u8]) -> (TcpStream, TcpStream) {
    let (mut far, near) = connection();
    far.write_all(bytes).expect("a short handshake fits into a socket");
    far.shutdown(Shutdown::Write).expect("a connection can be closed");
    (far, near)
}

/// Checks the answer to a caller that sends these bytes.
fn called(bytes: &[u8]) {
    let (mut far, near) = other_side(bytes);
    let judge = |hello: &Hello| match (hello.cluster.as_str(), &hello.who) {
        ("lab", Caller::Peer { knows: None, .. }) => HelloReply::CallBackFirst,
        ("lab", _) => HelloReply::Welcome(WELCOME),
        _ => HelloReply::Refused { why: "another cluster".to_string() },
    };
    let outcome = accept_handshake(&mut FrameReader::new(near, HANDSHAKE_FRAME_MAX_BYTES), judge);
    let mut said = Vec::new();
    far.read_to_end(&mut said).expect("the answer is there");
    let heard = heard(bytes);
    match outcome {
        Ok(None) => assert!(said.is_empty() && (bytes.is_empty() || bytes.len() == PREAMBLE_BYTES)),
        Ok(Some(who)) => {
            let hello = heard.expect("only a valid HELLO is accepted");
            assert_eq!((hello.who, hello.cluster.as_str()), (who, "lab"));
            assert_eq!(said, frame(&HelloReply::Welcome(WELCOME)));
        }
        Err(HandshakeError::CallBackFirst) => {
            assert!(matches!(heard.expect("only a HELLO is answered").who, Caller::Peer { knows: None, .. }));
            assert_eq!(said, frame(&HelloReply::CallBackFirst));
        }
        Err(HandshakeError::Refused(why)) => {
            assert_ne!(heard.expect("only a HELLO is refused").cluster, "lab");
            assert_eq!(said, frame(&HelloReply::Refused { why }));
        }
        Err(HandshakeError::Broken(FrameError::Malformed { length, .. })) => {
            assert!(heard.is_none() && length > 0);
            if !said.is_empty() {
                let refused = unframe(&said, HANDSHAKE_FRAME_MAX_BYTES);
                assert!(matches!(refused, Ok(HelloReply::Refused { why }) if why.contains("version")));
            }
        }
        Err(other) => panic!("{other}"),
    }
}

/// The hello in these bytes, by the definition of a greeting.
fn heard(bytes: &[u8]) -> Option<Hello> {
    let rest = bytes.strip_prefix(&greeting(&hello())[..PREAMBLE_BYTES])?;
    let length = u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize;
    unframe(rest.get(..HEADER_BYTES.checked_add(length)?)?, HANDSHAKE_FRAME_MAX_BYTES).ok()
}

/// Checks the caller's result when the called side sends these bytes.
fn calling(bytes: &[u8]) {
    let (_far, near) = other_side(bytes);
    let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let first = bytes.get(..length.saturating_add(HEADER_BYTES));
    let expected = first.and_then(|first| unframe::<HelloReply>(first, HANDSHAKE_FRAME_MAX_BYTES).ok());
    match (connect_handshake(&near, &hello()), expected) {
        (Ok(welcome), Some(HelloReply::Welcome(said))) => assert_eq!(welcome, said),
        (Err(HandshakeError::CallBackFirst), Some(HelloReply::CallBackFirst)) => {}
        (Err(HandshakeError::Refused(why)), Some(HelloReply::Refused { why: said })) => assert_eq!(why, said),
        (Err(HandshakeError::Broken(_)), None) => {}
        other => panic!("{other:?}"),
    }
}
