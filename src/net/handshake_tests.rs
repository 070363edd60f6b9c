use std::io::Write;
use std::net::TcpListener;
use std::thread;

use super::*;

/// What the called side tells about itself.
const WELCOME: Welcome = Welcome { history: 7, members: ServerSet::NONE };

fn hello() -> Hello {
    Hello {
        cluster: "lab".to_string(),
        to: ServerId(2),
        members: ServerSet::first(3),
        who: Caller::Peer { server: ServerId(1), storage: 5, incarnation: 1, boot: 0, is_active: true, knows: Some(9) },
    }
}

type HelloOutcome = Result<Option<Caller>, HandshakeError>;

/// Runs both sides over a connection: `call` on the calling end, and the called side with this reply.
fn meet<T>(
    call: impl FnOnce(TcpStream) -> T,
    judge: impl FnOnce(&Hello) -> HelloReply + Send + 'static,
) -> (T, HelloOutcome) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let calling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let called = listener.accept().unwrap().0;
    let called = thread::spawn(move || accept_handshake(&mut FrameReader::new(called, 1 << 10), judge));
    let said = call(calling);
    (said, called.join().unwrap())
}

#[test]
fn both_sides_learn_the_identity_of_the_other() {
    let (reached, heard) = meet(
        |stream| connect_handshake(&stream, &hello()),
        |heard| {
            assert_eq!(*heard, hello());
            HelloReply::Welcome(WELCOME)
        },
    );
    assert_eq!(reached.unwrap(), WELCOME);
    assert_eq!(heard.unwrap(), Some(hello().who));
}

#[test]
fn both_sides_get_the_reason_of_a_refusal() {
    let refusal = |_: &Hello| HelloReply::Refused { why: "this is server 3, not 2".to_string() };
    let (reached, heard) = meet(|stream| connect_handshake(&stream, &hello()), refusal);
    for outcome in [reached.map(|_| ()), heard.map(|_| ())] {
        let Err(HandshakeError::Refused(why)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(why, "this is server 3, not 2");
    }
}

#[test]
fn call_you_first_ends_the_handshake_on_both_sides() {
    let (reached, heard) = meet(|stream| connect_handshake(&stream, &hello()), |_| HelloReply::CallBackFirst);
    assert!(matches!(reached, Err(HandshakeError::CallBackFirst)), "{reached:?}");
    assert!(matches!(heard, Err(HandshakeError::CallBackFirst)), "{heard:?}");
}

#[test]
fn caller_that_closes_without_a_byte_is_no_error() {
    let (_, heard) = meet(drop, |_| unreachable!("no HELLO was read"));
    assert_eq!(heard.unwrap(), None);
}

#[test]
fn malformed_handshakes_are_refused_with_their_length() {
    let mut other_version = preamble();
    other_version[4] = 99;
    let mut unfinished = preamble();
    unfinished.extend_from_slice(&frame(&hello())[..10]);
    let mut other_words = preamble();
    other_words.extend_from_slice(&frame(&vec![0xffu8; 9]));
    let mut too_long = preamble();
    let long = Hello { cluster: "x".repeat(2_000), ..hello() };
    too_long.extend_from_slice(&frame(&long));
    let cases = [
        (b"GET / HTTP/1.1".to_vec(), 14, "not those of this protocol"),
        (other_version, 6, &*format!("protocol version 99, this server uses {VERSION}")),
        (b"PX".to_vec(), 2, "closed after 2 of 6"),
        (unfinished, 10, "closed after 10 of"),
        (other_words, 22, "as Hello: "),
        (too_long, crate::codec::encode(&long).len() as u64, "the maximum is 1024"),
    ];
    for (bytes, count, reason) in cases {
        let say = |mut stream: TcpStream| {
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream
        };
        let (_stream, heard) = meet(say, |_| unreachable!("no HELLO was decoded"));
        let Err(HandshakeError::Broken(FrameError::Malformed { length, what })) = heard else { panic!("{heard:?}") };
        assert!(what.contains(reason), "{what}");
        assert_eq!(length, count, "{what}");
    }
}

#[test]
fn other_protocol_version_is_refused_with_a_reason() {
    let speak = |mut stream: TcpStream| {
        let mut bytes = preamble();
        bytes[4] = 99;
        stream.write_all(&bytes).unwrap();
        FrameReader::new(stream, 1 << 10).read::<HelloReply>(Some(Instant::now() + HANDSHAKE_DEADLINE)).unwrap()
    };
    let (answer, _) = meet(speak, |_| unreachable!("no HELLO was decoded"));
    let Some(HelloReply::Refused { why }) = answer else { panic!("{answer:?}") };
    assert!(why.contains("version 99"), "{why}");
}

#[test]
fn caller_rejected_before_its_hello_gets_a_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let calling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let called = listener.accept().unwrap().0;
    reject(&called, "too many clients");
    let greeted = connect_handshake(&calling, &hello());
    assert!(matches!(&greeted, Err(HandshakeError::Refused(why)) if why == "too many clients"), "{greeted:?}");
}

#[test]
fn closing_instead_of_a_reply_is_a_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let calling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(listener.accept().unwrap());
    let greeted = connect_handshake(&calling, &hello());
    assert!(matches!(greeted, Err(HandshakeError::Broken(FrameError::Broken(_)))), "{greeted:?}");
}
