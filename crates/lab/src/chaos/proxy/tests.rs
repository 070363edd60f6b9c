//! A listener that echoes its input, and the effect of link faults on the way.

use std::io::{Read, Write};
use std::time::Instant;

use super::*;

const HERE: Direction = (ProxyEnd::Server(ServerId(1)), ProxyEnd::Server(ServerId(2)));
const BACK: Direction = (ProxyEnd::Server(ServerId(2)), ProxyEnd::Server(ServerId(1)));

/// A network of two servers, in which server 2 echoes everything.
fn net(repeats: bool) -> ProxyNetwork {
    let free = || TcpListener::bind("127.0.0.1:0");
    let mut targets = BTreeMap::new();
    for server in [1, 2] {
        let (peer, client) = (free().unwrap(), free().unwrap());
        targets.insert(ServerId(server), (peer.local_addr().unwrap(), client.local_addr().unwrap()));
        std::thread::spawn(move || {
            for stream in peer.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 1_024];
                    let mut stream = stream;
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    ProxyNetwork::open(&targets, 1, repeats, free).unwrap()
}

fn call(net: &ProxyNetwork) -> TcpStream {
    let stream = TcpStream::connect(net.address(HERE).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream
}

/// The bytes that come back for these.
fn echo(stream: &mut TcpStream, sent: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(sent).ok()?;
    let mut heard = vec![0; sent.len()];
    stream.read_exact(&mut heard).ok()?;
    Some(heard)
}

#[test]
fn bytes_pass_a_network_without_faults_unchanged() {
    let net = net(false);
    let mut stream = call(&net);
    let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    for part in sent.chunks(1_000) {
        assert_eq!(echo(&mut stream, part).as_deref(), Some(part));
    }
}

#[test]
fn held_bytes_arrive_later_and_dropped_bytes_never() {
    let net = net(false);
    let mut stream = call(&net);
    assert!(echo(&mut stream, b"one").is_some());
    net.begin(1, &[HERE], LinkEffect::Hold);
    assert_eq!(echo(&mut stream, b"two"), None);
    net.end(1, &[HERE]);
    let mut heard = [0; 3];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"two");

    net.begin(2, &[HERE], LinkEffect::Drop);
    assert_eq!(echo(&mut stream, b"three"), None);
    assert_eq!(echo(&mut stream, b"four"), None, "the connection stays open");
    net.end(2, &[HERE]);
    let ended = match stream.read(&mut heard) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    assert!(ended, "a connection that lost bytes ends");
    assert_eq!(echo(&mut call(&net), b"five").as_deref(), Some(&b"five"[..]), "a new connection loses nothing");
}

#[test]
fn one_direction_can_be_cut_alone() {
    let net = net(false);
    let mut stream = call(&net);
    assert!(echo(&mut stream, b"one").is_some());
    net.begin(1, &[BACK], LinkEffect::Hold);
    assert_eq!(echo(&mut stream, b"two"), None, "the request arrives, but not the reply");
    net.end(1, &[BACK]);
    let mut heard = [0; 3];
    stream.read_exact(&mut heard).unwrap();
}

#[test]
fn connections_break_after_a_byte_count_and_bits_flip() {
    let net = net(false);
    net.begin(1, &[HERE], LinkEffect::Break { after: 1_500, with_reset: true });
    let mut stream = call(&net);
    assert!(echo(&mut stream, &[7; 1_000]).is_some());
    assert_eq!(echo(&mut stream, &[7; 1_000]), None);
    net.end(1, &[HERE]);
    net.begin(2, &[HERE], LinkEffect::Corrupt { per_mille: 1_000 });
    let heard = echo(&mut call(&net), &[0; 100]).unwrap();
    assert_eq!(heard.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    net.end(2, &[HERE]);
    let started = Instant::now();
    net.begin(3, &[HERE], LinkEffect::Slow { delay: Duration::from_millis(80), jitter: Duration::ZERO });
    assert!(echo(&mut call(&net), b"slow").is_some());
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[test]
fn messages_are_repeated_and_replayed_but_never_a_hello() {
    let frame = |payload: u8| [&1u32.to_le_bytes()[..], &[0; 8], &[payload]].concat();
    let net = net(true);
    let mut stream = call(&net);
    let greeting = [&b"PXKV\x06\x00"[..], &frame(b'g')].concat();
    assert_eq!(echo(&mut stream, &greeting), Some(greeting));
    assert_eq!(echo(&mut stream, &frame(b'a')), Some(frame(b'a')));
    net.begin(1, &[HERE], LinkEffect::Repeat { per_mille: 1_000 });
    stream.write_all(&frame(b'b')).unwrap();
    let mut heard = vec![0; 39];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [frame(b'b'), frame(b'b'), frame(b'a')].concat());
}
