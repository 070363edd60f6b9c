//! HTTP requests of browsers: the result must not depend on how the bytes arrive, and only pages of this server are
//! served.

use std::net::SocketAddr;
use std::time::Duration;

use paxos_kv::choices::Choices;
use paxos_kv::duration::parse_duration;
use paxos_kv::server::http::request::parse;

/// The address on which the server listens.
const BOUND: &str = "127.0.0.1:7301";

/// Reads bytes as the head of a request.
pub fn http(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    let cut = usize::from(source.byte());
    let head = source.rest();
    let at_once = parse(head);
    if let Some(Ok(request)) = &at_once {
        // Bytes after a head must not change its meaning.
        assert_eq!(parse(&[head, b"GET / HTTP/1.1\r\n\r\n"].concat()), at_once);
        let bound: SocketAddr = BOUND.parse().expect("an address");
        if request.check_caller(bound).is_ok() {
            let text = String::from_utf8_lossy(head);
            assert!(text.contains(BOUND) || text.contains("localhost:7301"), "a stranger is answered");
        }
        if request.check_change(true).is_ok() {
            assert!(head.starts_with(b"POST") || head.windows(4).any(|word| word == b"POST"));
            assert!(request.check_change(false).is_err(), "only in lab mode");
        }
        if let Some(text) = request.parameter("for") {
            assert!(request.query.contains(text));
            assert!(
                parse_duration(text).is_ok_and(|time| time <= Duration::from_secs(86_400))
                    || parse_duration(text).is_err()
            );
        }
    }
    // A head that is accepted before its end has arrived must be the same at its end.
    if let Some((part, _)) = head.split_at_checked(cut)
        && let early @ Some(Ok(_)) = parse(part)
    {
        assert_eq!(early, at_once);
    }
}
