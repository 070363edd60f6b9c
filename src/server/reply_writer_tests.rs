use std::net::TcpListener;

use super::*;
use crate::host::budget::GRACE;
use crate::net::{CLIENT_FRAME_MAX_BYTES, ConnectionLimit, FrameReader, Reply, StatePart, WhyNotApplied, bind, listen};
use crate::paxos::{Slot, SnapshotChunk};
use crate::server::clock;
use crate::trace::TraceContext;

/// A connection: its reply writer, and the client's end.
fn connection(load: &Arc<RequestLoad>) -> (Arc<ReplyWriter>, FrameReader) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, address) = listener.accept().unwrap();
    let writer = ReplyWriter::new(ThreadGroup::new(), Arc::new(stream), address, load.clone(), None);
    (writer, FrameReader::new(client, CLIENT_FRAME_MAX_BYTES))
}

/// A reply to a request of this connection.
fn to(writer: &Arc<ReplyWriter>, number: u64, reply: Reply) -> (ReplyHandle<Arc<ReplyWriter>>, ClientReply) {
    let handle = ReplyHandle::new(writer.clone(), number, TraceContext::default(), clock::now());
    (handle, ClientReply { number, context: TraceContext::default(), reply })
}

fn value(bytes: usize) -> Reply {
    Reply::Value { slot: Slot(1), value: Some(vec![7; bytes].into()), version: 1 }
}

/// A snapshot chunk.
fn part(bytes: usize) -> Reply {
    let part = SnapshotChunk { slot: Slot(1), digest: 0, index: 0, bytes: vec![7; bytes].into(), next: None };
    Reply::Chunk(Some(StatePart { part, left_out: 0 }))
}

fn reply(client: &mut FrameReader) -> Option<ClientReply> {
    client.read(Some(Instant::now() + Duration::from_secs(30))).unwrap()
}

#[test]
fn replies_of_a_batch_go_to_the_connections_that_asked() {
    let load = Arc::default();
    let (one, mut first) = connection(&load);
    let (other, mut second) = connection(&load);
    let replies = [(&one, 3), (&other, 9), (&one, 1)];
    send(replies.map(|(writer, number)| to(writer, number, Reply::Done)));
    assert_eq!([reply(&mut first), reply(&mut first)].map(|reply| reply.unwrap().number), [3, 1]);
    assert_eq!(reply(&mut second).unwrap().number, 9);
}

#[test]
fn client_that_reads_nothing_delays_no_other_and_loses_only_values() {
    const MIB: usize = 1 << 20;
    let load = Arc::default();
    let (slow, mut late) = connection(&load);
    let (other, mut quick) = connection(&load);
    // More than the socket and the unsent buffer hold: if any of these writes blocked, the test would never end.
    let count = 40;
    for number in 0..count {
        send([to(&slow, number, value(MIB))]);
        send([to(&other, number, Reply::Done)]);
        assert_eq!(reply(&mut quick).unwrap().number, number);
    }
    send([to(&slow, count, part(MIB)), to(&slow, count, Reply::Done)]);
    assert!(slow.lock().share.bytes() <= UNREAD_REPLIES_MAX_BYTES + MIB);

    // When the client reads at last, all replies are there in order. From some point on, there was no room for the
    // values.
    let mut busy = 0;
    for number in 0..count {
        let reply = reply(&mut late).unwrap();
        assert_eq!(reply.number, number);
        match reply.reply {
            Reply::Value { .. } => assert_eq!(busy, 0, "a later value has come and an earlier one has not"),
            Reply::NotApplied(WhyNotApplied::Busy) => busy += 1,
            reply => panic!("{reply:?}"),
        }
    }
    assert!(busy > 0 && busy < count, "{busy} of {count} values had no room");
    assert_eq!(reply(&mut late).unwrap().reply, Reply::Chunk(None), "nor has a part of the state");
    assert_eq!(reply(&mut late).unwrap().reply, Reply::Done);
    // Afterwards the client is served like any other.
    assert!(slow.await_space());
    while slow.lock().is_queued_for_write {
        std::thread::yield_now();
    }
    send([to(&slow, 0, value(MIB))]);
    assert!(matches!(reply(&mut late).unwrap().reply, Reply::Value { .. }));
    while load.unread_replies.used() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn requests_wait_while_too_many_replies_are_unread() {
    let load = Arc::default();
    let (writer, client) = connection(&load);
    assert!(writer.await_space());
    let mut number = 0;
    while writer.lock().share.bytes() <= UNREAD_REPLIES_MAX_BYTES {
        // Small replies are always taken: they answer requests, and the requests are limited.
        let reply = Reply::Refused("no".repeat(50_000));
        send([to(&writer, number, reply)]);
        number += 1;
    }
    let (done, waits) = crossbeam_channel::bounded(1);
    let waiting = writer.clone();
    let reader = std::thread::spawn(move || done.send(waiting.await_space()).unwrap());
    assert!(waits.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
    drop(client);
    assert_eq!(waits.recv_timeout(Duration::from_secs(30)), Ok(false));
    reader.join().unwrap();
    assert_eq!(load.unread_replies.used(), 0);
    // A thread that still has a reply for it drops the reply.
    send([to(&writer, 1, Reply::Done)]);
    assert_eq!(writer.lock().share.bytes(), 0);
}

#[test]
fn full_reply_budget_closes_the_oldest_connection_and_serves_a_reader() {
    const MIB: usize = 1 << 20;
    let load: Arc<RequestLoad> = Arc::default();
    // Each connection gets some megabytes more than its socket takes.
    let fill = |(writer, client): (Arc<ReplyWriter>, FrameReader)| {
        (0..12).for_each(|number| send([to(&writer, number, part(MIB))]));
        (writer, client)
    };
    let max = load.unread_replies.max_bytes();
    let mut deaf = Vec::new();
    while load.unread_replies.used() < max - max / 4 {
        deaf.push(fill(connection(&load)));
    }
    std::thread::sleep(GRACE);
    let (honest, mut reads) = connection(&load);
    for number in 0..40 {
        send([to(&honest, number, value(MIB))]);
        assert!(matches!(reply(&mut reads).unwrap().reply, Reply::Value { .. }), "value {number} is refused");
        assert!(load.unread_replies.used() <= max);
    }
    assert!(deaf[0].0.lock().closed || load.unread_replies.take_closed().is_some());
    // A flood that continues closes its own connections, and takes no more room.
    for _ in 0..8 {
        deaf.push(fill(connection(&load)));
        assert!(load.unread_replies.used() <= max);
    }
    drop(deaf);
    while load.unread_replies.used() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn endless_small_replies_stay_within_the_budget() {
    let load: Arc<RequestLoad> = Arc::default();
    let fill = |writer: &Arc<ReplyWriter>| {
        let mut number = 0;
        while writer.lock().share.bytes() <= UNREAD_REPLIES_MAX_BYTES && writer.await_space() {
            send([to(writer, number, Reply::Refused("no".repeat(5_000)))]);
            number += 1;
        }
    };
    let count = load.unread_replies.max_bytes() / UNREAD_REPLIES_MAX_BYTES + 2;
    let connections: Vec<_> = (0..count).map(|_| connection(&load)).collect();
    for (writer, _client) in &connections {
        fill(writer);
        assert!(load.unread_replies.used() <= load.unread_replies.max_bytes());
    }
}

#[test]
fn half_closed_client_keeps_its_place_until_it_has_its_replies() {
    let load: Arc<RequestLoad> = Arc::default();
    let (outlets, heard) = crossbeam_channel::unbounded();
    let serve = move |stream, address, mut place: ConnectionPermit| {
        let has_joined = place.join(0, 1);
        // The thread of the connection ends here.
        let writer = ReplyWriter::new(ThreadGroup::new(), stream, address, load.clone(), Some(place));
        drop(outlets.send((has_joined, writer)));
    };
    let listener = bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
    let address = listener.local_addr().unwrap();
    listen(&ThreadGroup::new(), "test", listener, ConnectionLimit::new(9, 1), serve, drop, |error| panic!("{error}"))
        .unwrap();
    let call = || (TcpStream::connect(address).unwrap(), heard.recv().unwrap());
    let (_client, (has_joined, writer)) = call();
    assert!(has_joined);
    assert!(!call().1.0, "the only place is taken");
    drop(writer);
    assert!(call().1.0);
}
