//! The HTTP responses: heads, the status, the metrics.

use std::fmt::Write as _;

use super::feed::Feed;
use crate::net::{RoleStatus, ServerStatus};
use crate::trace::Speaker;

/// A complete response.
pub fn answer(status: u16, kind: &str, body: &str) -> String {
    format!("{}Content-Length: {}\r\n\r\n{body}", head(status, kind), body.len())
}

/// The head of a response, without the blank line at its end.
pub fn head(status: u16, kind: &str) -> String {
    let word = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Error",
    };
    format!(
        "HTTP/1.1 {status} {word}\r\nContent-Type: {kind}; charset=utf-8\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n"
    )
}

/// The status in the text format of Prometheus.
pub fn metrics(status: &ServerStatus, feed: &Feed) -> String {
    let one = |value| vec![(String::new(), value)];
    let flag = |is_set| one(u64::from(is_set));
    let servers = |servers: usize| one(servers as u64);
    let by_role = |value: fn(&RoleStatus) -> u64| -> Vec<(String, u64)> {
        let label = |role: &RoleStatus| format!("{{role=\"{}\"}}", Speaker::from(role.role).as_str());
        status.roles.iter().map(|role| (label(role), value(role))).collect()
    };
    let info = format!(
        "{{server=\"{}\",version=\"{}\",protocol=\"{}\",restart=\"{}\"}}",
        status.server.0, status.version, status.protocol, status.restart
    );
    let metrics = [
        ("info", "Number, version, protocol and restart mode of the server.", vec![(info, 1)]),
        ("applied_slot", "Last slot that the learner applied.", one(status.applied.0)),
        ("chosen_slot", "Highest slot known to be chosen.", one(status.chosen.0)),
        ("promised_round", "Round of the acceptor's promise.", one(status.promised.round)),
        (
            "accepted_slots",
            "Slots with an accepted value; under two-phase commit, unacknowledged commits.",
            one(status.accepted),
        ),
        ("role_up", "1 if the role is up, else 0.", by_role(|role| role.up.into())),
        ("role_crashes_total", "Crashes of the role since the process started.", by_role(|role| role.crashes.into())),
        (
            "dropped_messages_total",
            "Messages not delivered: role down, mailbox or disk full, or server not active.",
            one(status.dropped),
        ),
        ("connected_peers", "Peers that this server's own links are connected to.", servers(status.connected.len())),
        ("heard_peers", "Peers from which something arrived in the last 2 s.", servers(status.hears.len())),
        ("refused_peers", "Peers that refuse this server or are refused by it.", servers(status.refusals.len())),
        ("is_active", "1 if the server is admitted and not fenced, else 0.", flag(status.is_active())),
        ("is_leader", "1 if the server leads (multi-paxos), else 0.", flag(status.leads().is_some())),
        ("corrupt_slots", "Slots that the acceptor cannot read back from its disk.", one(status.corrupt_slots)),
        ("keys", "Keys in the store, including tombstones.", one(status.keys)),
        ("sessions", "Client sessions in the store.", one(status.sessions)),
        ("disk_full", "1 if the disk has no space for new values, else 0.", flag(status.disk_full)),
        (
            "server_starts_total",
            "Starts of the server on its data directory: the incarnation.",
            one(status.incarnation.into()),
        ),
        ("viewers", "Viewers connected over HTTP.", one(feed.viewers() as u64)),
        (
            "viewer_dropped_lines_total",
            "Log lines not sent to viewers of the page that read too slowly.",
            one(feed.lost()),
        ),
    ];
    let mut text = String::new();
    for (name, help, values) in metrics {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP paxos_{name} {help}\n# TYPE paxos_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "paxos_{name}{labels} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::http::feed::FeedItem;

    /// Dashboards and alarms depend on these names and values. They must not change by accident.
    #[test]
    fn metrics_are_those_of_the_golden_file() {
        let feed = Feed::default();
        let _viewer = feed.add_viewer();
        feed.push(FeedItem::Lost(9));
        let text = metrics(&ServerStatus::filled(), &feed);
        assert_eq!(text, include_str!("testdata/metrics.txt"), "{text}");
    }
}
