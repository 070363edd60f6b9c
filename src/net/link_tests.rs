use std::net::TcpListener;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::net::{Caller, FrameReader, HelloReply, Welcome, accept_handshake, frame};
use crate::role::{ServerId, ServerSet};

const PATIENCE: Duration = Duration::from_secs(20);

/// A call that a link has made to its observer.
#[derive(Debug, PartialEq)]
enum LinkCall {
    Checked(u64),
    Up,
    Down,
    Refused(String),
    CallYouFirst,
}

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Records the calls of the link, and accepts one peer only. A peer that calls back first is dialed again only after
/// news of it.
struct RecordingObserver {
    told: Sender<LinkCall>,
    /// The history of that peer.
    wanted: u64,
}

impl LinkObserver for RecordingObserver {
    fn hello(&mut self) -> Hello {
        let (server, storage, incarnation, boot) = (ServerId(1), 5, 1, 0);
        let who = Caller::Peer { server, storage, incarnation, boot, is_active: true, knows: Some(6) };
        Hello { cluster: "lab".to_string(), to: ServerId(2), members: ServerSet::first(3), who }
    }

    fn check(&mut self, _hello: &Hello, Welcome { history, .. }: &Welcome) -> Result<(), String> {
        let _ = self.told.send(LinkCall::Checked(*history));
        if *history == self.wanted { Ok(()) } else { Err(format!("history {history} is another one")) }
    }

    fn up(&mut self) {
        let _ = self.told.send(LinkCall::Up);
    }

    fn ended(&mut self, ended: LinkEnded<'_>) -> Backoff {
        match ended {
            LinkEnded::Broken { .. } => drop(self.told.send(LinkCall::Down)),
            LinkEnded::Refused(why) => drop(self.told.send(LinkCall::Refused(why.to_string()))),
            LinkEnded::CallBackFirst => drop(self.told.send(LinkCall::CallYouFirst)),
            LinkEnded::Unanswered => {}
        }
        Backoff { least: PAUSE, most: if ended == LinkEnded::CallBackFirst { PATIENCE * 2 } else { PAUSE } }
    }
}

fn start(address: SocketAddr) -> (Link, Receiver<LinkCall>) {
    let (told, heard) = unbounded();
    let observer = RecordingObserver { told, wanted: 7 };
    (Link::start(&ThreadGroup::new(), "link".to_string(), address, observer).unwrap(), heard)
}

/// The peer's side: accepts the next connection and replies with `words`.
fn take(listener: &TcpListener, words: &HelloReply) -> FrameReader {
    let mut reader = FrameReader::new(listener.accept().unwrap().0, 1 << 20);
    let _ = accept_handshake(&mut reader, |_| words.clone());
    reader
}

/// The reply of a peer with this history.
fn welcome(history: u64) -> HelloReply {
    HelloReply::Welcome(Welcome { history, members: ServerSet::first(3) })
}

fn refusal(why: &str) -> HelloReply {
    HelloReply::Refused { why: why.to_string() }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn next(heard: &Receiver<LinkCall>) -> LinkCall {
    heard.recv_timeout(PATIENCE).unwrap()
}

fn say(link: &Link, frame: &[u8]) -> bool {
    let is_taken = link.push(&Arc::new(frame.to_vec()), Lane::Bulk);
    link.flush();
    is_taken
}

fn word(n: u32) -> Vec<u8> {
    frame(&n)
}

#[test]
fn frames_arrive_in_order_and_a_link_that_is_down_drops_them() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    assert!(!say(&link, &word(0)), "no peer is connected yet");
    let mut reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    for n in 1..=500 {
        assert!(say(&link, &word(n)));
    }
    for n in 1..=500 {
        assert_eq!(reader.read::<u32>(None).unwrap(), Some(n));
    }
    // The thread, and with it the connection, ends when the link is dropped.
    drop(link);
    assert_eq!(reader.read::<u32>(None).unwrap(), None);
}

#[test]
fn link_reconnects_and_reports_each_change_once() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    for _ in 0..3 {
        let reader = take(&listener, &welcome(7));
        assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
        drop(reader);
        // A broken connection is noticed by sending.
        while heard.is_empty() {
            say(&link, &word(1));
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(next(&heard), LinkCall::Down);
    }
    let mut reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    assert!(say(&link, &word(3)));
    assert_eq!(reader.read::<u32>(None).unwrap(), Some(3), "nothing of the connections before");
}

#[test]
fn link_tries_again_after_either_side_refused() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    take(&listener, &refusal("not you"));
    // The wrong history: this side refuses.
    take(&listener, &welcome(8));
    let _reader = take(&listener, &welcome(7));
    let told: Vec<LinkCall> = std::iter::from_fn(|| Some(next(&heard))).take(5).collect();
    let expected = [
        LinkCall::Refused("not you".to_string()),
        LinkCall::Checked(8),
        LinkCall::Refused("history 8 is another one".to_string()),
        LinkCall::Checked(7),
        LinkCall::Up,
    ];
    assert_eq!(told, expected);
    assert!(say(&link, &word(1)));
}

#[test]
fn peer_that_reads_nothing_fills_only_its_queue() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    let _reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    let large = vec![0; 1 << 20];
    let begun = Instant::now();
    // Some leave the queue for the socket's buffers; an unlimited queue would take them all.
    let taken = (0..200).filter(|_| say(&link, &large)).count();
    assert!(taken < 100, "{taken} MiB were taken");
    let queued = |state: &LinkInner| state.bulk_bytes + state.in_flight.len() + state.writing_bytes;
    assert!(queued(&link.0.lock()) <= BULK_MAX_BYTES);
    assert!(link.push(&Arc::new(word(1)), Lane::Control), "control messages have room of their own");
    let controls = (0..200).filter(|_| link.push(&Arc::new(vec![0; CONTROL_MAX_BYTES / 16]), Lane::Control)).count();
    assert_eq!(controls, 15, "which has an end too");
    assert!(begun.elapsed() < PEER_TIMEOUT, "no thread waits for a slow peer");
    assert_eq!(next(&heard), LinkCall::Down, "a peer that takes nothing is let go");
    let left = |state: &LinkInner| queued(state) + state.control.len();
    assert_eq!(left(&link.0.lock()), 0, "its frames go to no other connection");
}

#[test]
fn frames_to_a_slow_peer_arrive_complete_and_in_order() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    let mut reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    let large = |n: u32| frame(&vec![n; 100_000]);
    let mut sent = 0;
    while !link.0.lock().is_late {
        assert!(say(&link, &large(sent)));
        sent += 1;
    }
    // These find the thread writing, or just finished.
    for n in sent..sent + 10 {
        assert!(say(&link, &large(n)));
    }
    for n in 0..sent + 10 {
        assert_eq!(reader.read::<Vec<u32>>(None).unwrap().unwrap()[..], [n; 100_000]);
    }
    assert!(say(&link, &word(1)));
    assert_eq!(reader.read::<u32>(None).unwrap(), Some(1));
}

#[test]
fn pushed_frames_leave_with_the_next_flush() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    let mut reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    (1..=2).for_each(|n| assert!(link.push(&Arc::new(word(n)), Lane::Bulk)));
    reader.stream().set_nonblocking(true).unwrap();
    assert_eq!(reader.receive_now().unwrap(), None);
    reader.stream().set_nonblocking(false).unwrap();
    link.flush();
    assert_eq!((reader.read::<u32>(None).unwrap(), reader.has_frame()), (Some(1), true), "one write has brought both");
}

#[test]
fn link_dials_at_once_when_a_peer_that_calls_back_first_has_called() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    take(&listener, &HelloReply::CallBackFirst);
    link.dial_now();
    let _reader = take(&listener, &welcome(7));
    assert_eq!(
        [next(&heard), next(&heard), next(&heard)],
        [LinkCall::CallYouFirst, LinkCall::Checked(7), LinkCall::Up]
    );
}

#[test]
fn link_reconnects_to_send_a_new_hello() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    link.greet_again();
    let _first = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up], "it was not connected yet");
    link.greet_again();
    let mut second = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard), next(&heard)], [LinkCall::Down, LinkCall::Checked(7), LinkCall::Up]);
    assert!(say(&link, &word(1)));
    assert_eq!(second.read::<u32>(None).unwrap(), Some(1));
}

#[test]
fn control_message_overtakes_bulk_that_has_not_started() {
    const MANY: u32 = 100;
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    let mut reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    (0..MANY).for_each(|_| assert!(say(&link, &frame(&vec![9u8; 150_000]))));
    assert!(link.push(&Arc::new(frame(&vec![1u8])), Lane::Control));
    link.flush();
    let is_control = |_| reader.read::<Vec<u8>>(None).unwrap().unwrap().len() == 1;
    let before = (0..MANY).position(is_control).expect("it overtakes some");
    // The bytes started, and the buffers of both systems: a few megabytes at most, of fifteen.
    assert!(before < 60, "{before} frames of 150 kB went before it");
}

#[test]
fn link_that_is_held_down_makes_no_connection_until_it_is_released() {
    let listener = listener();
    let (link, heard) = start(listener.local_addr().unwrap());
    let mut reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    link.hold(true);
    assert_eq!(next(&heard), LinkCall::Down);
    assert_eq!(reader.read::<u32>(None).unwrap(), None, "the connection has ended");
    assert!(!say(&link, &word(1)));
    // Neither the pause after a failure nor news of the peer makes it connect.
    link.dial_now();
    listener.set_nonblocking(true).unwrap();
    thread::sleep(PAUSE * 5);
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    link.hold(false);
    let mut reader = take(&listener, &welcome(7));
    assert_eq!([next(&heard), next(&heard)], [LinkCall::Checked(7), LinkCall::Up]);
    assert!(say(&link, &word(2)));
    assert_eq!(reader.read::<u32>(None).unwrap(), Some(2));
}
