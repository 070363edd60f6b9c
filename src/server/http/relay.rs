//! The relay of the other servers' lines, while this server has a viewer: one thread per peer, which reads that
//! server's own page.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::feed::{Feed, FeedItem, PeerFeedState};
use crate::net::{ThreadGroup, dial};
use crate::role::ServerId;
use crate::trace::Line;

/// Time-outs for connecting to a peer, and for the next data from it.
const CALL: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Pause after a failure, and between checks for a viewer.
const PAUSE: Duration = Duration::from_millis(300);
/// Maximum bytes of a line; a longer one is no log line.
const LINE_MAX_BYTES: u64 = 64 << 10;

/// Starts the thread that relays a peer's lines until the server stops.
pub fn start(threads: &Arc<ThreadGroup>, peer: ServerId, address: SocketAddr, feed: Arc<Feed>) -> io::Result<()> {
    feed.tell(peer, PeerFeedState::Idle);
    let group = threads.clone();
    let hear_always = move || {
        let mut last = None;
        while !group.is_stopping() {
            if feed.viewers() == 0 {
                feed.tell(peer, PeerFeedState::Idle);
            } else {
                // The reason does not matter: the thread connects again.
                let _ = hear(&group, peer, address, &feed, &mut last);
                feed.tell(peer, PeerFeedState::Gone);
            }
            group.rest(PAUSE);
        }
    };
    threads.spawn(format!("hears {peer}"), hear_always).map(drop)
}

/// Reads one connection, until it breaks or there is no viewer.
fn hear(
    threads: &Arc<ThreadGroup>,
    peer: ServerId,
    address: SocketAddr,
    feed: &Feed,
    last: &mut Option<(u32, u64)>,
) -> io::Result<()> {
    let stream = Arc::new(dial(address, CALL)?);
    let _open = threads.watch(stream.clone());
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(CALL))?;
    (&*stream).write_all(format!("GET /feed HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut lines = BufReader::new(&*stream);
    let mut next = |text: &mut String| {
        text.clear();
        match lines.by_ref().take(LINE_MAX_BYTES).read_line(text)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(()),
        }
    };
    let mut text = String::new();
    next(&mut text)?;
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other("the peer does not send its log lines"));
    }
    while !text.trim_end().is_empty() {
        next(&mut text)?;
    }
    feed.tell(peer, PeerFeedState::Up);
    while feed.viewers() > 0 {
        next(&mut text)?;
        let line = text.trim_end();
        if let Some(lost) = line.strip_prefix("LOST ").and_then(|n| n.parse().ok()) {
            feed.push(FeedItem::Lost(lost));
        } else if let Some(number) = number_of(peer, line)
            && Some(number) > *last
        {
            // The peer begins with its oldest kept line, so lines relayed before are skipped.
            *last = Some(number);
            feed.push_lines(false, line);
        }
    }
    Ok(())
}

/// The incarnation and number of a line, if it is a line of this server. Anything else that a peer sends is not
/// relayed.
fn number_of(peer: ServerId, text: &str) -> Option<(u32, u64)> {
    let line: Line = text.parse().ok()?;
    (line.id.process.as_server() == Some(peer)).then_some((line.id.process.incarnation(), line.id.n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_peer_itself_are_passed_on() {
        let line = "2026-08-21T14:03:07.105612Z WARN  s3@2.7  acceptor DROP     msg=ACCEPT cause=crashed";
        assert_eq!(number_of(ServerId(3), line), Some((2, 7)));
        assert_eq!(number_of(ServerId(2), line), None);
        assert_eq!(number_of(ServerId(3), "HTTP/1.1 200 OK"), None);
    }
}
