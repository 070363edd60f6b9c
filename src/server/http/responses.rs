//! The HTTP responses: heads, the status, the metrics.

use std::fmt::Write as _;

use super::feed::Feed;
use crate::net::ServerStatus;
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
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP paxos_{name} {help}\n# TYPE paxos_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "paxos_{name}{labels} {value}");
        }
    };
    let one = |value| vec![(String::new(), value)];
    let by_role = |value: fn(&crate::net::RoleStatus) -> u64| -> Vec<(String, u64)> {
        let label = |role| format!("{{role=\"{}\"}}", Speaker::from(role).as_str());
        status.roles.iter().map(|role| (label(role.role), value(role))).collect()
    };
    let info = format!(
        "{{server=\"{}\",version=\"{}\",protocol=\"{}\",restart=\"{}\"}}",
        status.server.0, status.version, status.protocol, status.restart
    );
    metric("info", "gauge", "Number, version, protocol and restart mode of the server.", &[(info, 1)]);
    metric("applied_slot", "gauge", "Last slot that the learner applied.", &one(status.applied.0));
    metric("chosen_slot", "gauge", "Highest slot known to be chosen.", &one(status.chosen.0));
    metric("promised_round", "gauge", "Round of the acceptor's promise.", &one(status.promised.round));
    metric(
        "accepted_slots",
        "gauge",
        "Slots with an accepted value; under two-phase commit, unacknowledged commits.",
        &one(status.accepted),
    );
    metric("role_up", "gauge", "1 if the role is up, else 0.", &by_role(|role| u64::from(role.up)));
    metric(
        "role_crashes_total",
        "counter",
        "Crashes of the role since the process started.",
        &by_role(|role| u64::from(role.crashes)),
    );
    metric(
        "dropped_messages_total",
        "counter",
        "Messages not delivered: role down, mailbox or disk full, or server not active.",
        &one(status.dropped),
    );
    metric(
        "connected_peers",
        "gauge",
        "Peers that this server's own links are connected to.",
        &one(status.connected.len() as u64),
    );
    metric(
        "heard_peers",
        "gauge",
        "Peers from which something arrived in the last 2 s.",
        &one(status.hears.len() as u64),
    );
    metric(
        "refused_peers",
        "gauge",
        "Peers that refuse this server or are refused by it.",
        &one(status.refusals.len() as u64),
    );
    metric(
        "is_active",
        "gauge",
        "1 if the server is admitted and not fenced, else 0.",
        &one(u64::from(status.is_active())),
    );
    metric(
        "is_leader",
        "gauge",
        "1 if the server leads (multi-paxos), else 0.",
        &one(u64::from(status.leads().is_some())),
    );
    metric(
        "corrupt_slots",
        "gauge",
        "Slots that the acceptor cannot read back from its disk.",
        &one(status.corrupt_slots),
    );
    metric("keys", "gauge", "Keys in the store, including tombstones.", &one(status.keys));
    metric("sessions", "gauge", "Client sessions in the store.", &one(status.sessions));
    metric(
        "disk_full",
        "gauge",
        "1 if the disk has no space for new values, else 0.",
        &one(u64::from(status.disk_full)),
    );
    metric(
        "server_starts_total",
        "counter",
        "Starts of the server on its data directory: the incarnation.",
        &one(status.incarnation.into()),
    );
    metric("viewers", "gauge", "Viewers connected over HTTP.", &one(feed.viewers() as u64));
    metric(
        "viewer_dropped_lines_total",
        "counter",
        "Log lines not sent to viewers of the page that read too slowly.",
        &one(feed.lost()),
    );
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
