//! The request that met the most failures, and why no write was lost.

use std::time::Duration;

use super::changes::{Cluster, and, owners};
use crate::role::ServerSet;
use crate::trace::hardship::Hardship;

/// A request that succeeded, and the failures that it met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetFailure {
    /// Its label, as in `c1-5`.
    pub label: String,
    /// The operation and its key.
    pub what: String,
    /// Time from beginning to end.
    pub took: Duration,
    /// A read, and not a write.
    pub is_read: bool,
    /// The acceptors whose votes chose a write; empty if the replying server did not count them.
    pub accepted_by: ServerSet,
    /// The voters that were down when it began or when it ended.
    pub down: ServerSet,
    /// Those of them that crashed meanwhile.
    pub crashed: ServerSet,
    /// The smallest set of voters that were up at the same time.
    pub fewest: ServerSet,
}

impl MetFailure {
    fn hardship(&self, cluster: Cluster) -> Hardship {
        Hardship {
            is_without_quorum: !cluster.is_quorum(self.fewest),
            is_crash_inside: !self.crashed.is_empty(),
            down: self.down.len(),
            took: self.took,
        }
    }
}

/// The most telling request so far.
#[derive(Clone, Debug, Default)]
pub struct Hardest(Option<MetFailure>);

impl Hardest {
    /// Keeps this request if it met more than the one before.
    pub fn consider(&mut self, met: MetFailure, cluster: Cluster) {
        let is_harder = |before: &MetFailure| met.hardship(cluster) > before.hardship(cluster);
        if met.hardship(cluster).has_failure() && self.0.as_ref().is_none_or(is_harder) {
            self.0 = Some(met);
        }
    }

    /// Which request met which failure, why nothing was lost, and the command that shows it. Empty if no request met
    /// a failure.
    pub fn sentences(&self, cluster: Cluster) -> Vec<String> {
        let Some(met) = &self.0 else { return Vec::new() };
        let all = cluster.servers.len();
        let names = |servers: ServerSet| and(&servers.iter().map(|server| server.to_string()).collect::<Vec<_>>());
        let were = |servers: ServerSet| if servers.len() == 1 { "was" } else { "were" };
        let some = |count| if count == 0 { "none".to_string() } else { format!("only {count}") };
        let voter = cluster.protocol.voter().as_str();
        let failure = if !cluster.is_quorum(met.fewest) {
            format!("it waited while {} of {all} {voter}s were up", some(met.fewest.len()))
        } else if met.crashed == met.down {
            format!("{} crashed just then", owners(met.crashed, voter))
        } else {
            format!("{} {} down", owners(met.down, voter), were(met.down))
        };
        let took = met.took.as_secs_f64() * 1_000.0;
        let needed = cluster.protocol.votes_needed(all);
        vec![
            format!("{} ({}) met the most failures: {failure}.", met.label, met.what),
            if met.is_read {
                format!("A majority was asked before its reply, which came after {took:.0} ms.")
            } else if met.accepted_by.is_empty() {
                format!("Its OK came after {took:.0} ms.")
            } else {
                format!("The votes of {} chose it; its OK came after {took:.0} ms.", names(met.accepted_by))
            },
            format!(
                "Nothing was lost: OK means that {needed} of {all} {voter}s have the write on disk. Each later ballot"
            ),
            format!("needs promises from {needed}, so one of these reports the value, and it is proposed again."),
            format!("See it: ./run_server.sh logs --req {}", met.label),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;
    use crate::role::ServerId;

    fn cluster() -> Cluster {
        Cluster { servers: ServerSet::first(5), protocol: Protocol::BasicPaxos }
    }

    fn set(servers: &[u8]) -> ServerSet {
        servers.iter().map(|server| ServerId(*server)).collect()
    }

    fn met(label: &str, down: &[u8], crashed: &[u8], fewest: &[u8]) -> MetFailure {
        MetFailure {
            label: label.to_string(),
            what: "put city".to_string(),
            took: Duration::from_millis(778),
            is_read: false,
            accepted_by: set(&[1, 2, 5]),
            down: set(down),
            crashed: set(crashed),
            fewest: set(fewest),
        }
    }

    /// The first sentence about the hardest of these requests.
    fn first(requests: &[MetFailure]) -> Option<String> {
        let mut hardest = Hardest::default();
        requests.iter().for_each(|one| hardest.consider(one.clone(), cluster()));
        hardest.sentences(cluster()).into_iter().next()
    }

    #[test]
    fn most_telling_request_is_named() {
        let calm = met("c1-1", &[], &[], &[1, 2, 3, 4, 5]);
        let one_down = met("c1-2", &[4], &[], &[1, 2, 3, 5]);
        let two_down = met("c1-3", &[3, 4], &[], &[1, 2, 5]);
        let crash = met("c1-4", &[3, 4], &[3], &[1, 2, 5]);
        let waited = met("c1-5", &[], &[], &[1]);
        let says = |text: &str| Some(text.to_string());
        assert_eq!(first(std::slice::from_ref(&calm)), None);
        assert_eq!(
            first(&[one_down.clone(), calm]),
            says("c1-2 (put city) met the most failures: s4's acceptor was down.")
        );
        assert_eq!(
            first(&[two_down.clone(), one_down.clone()]),
            says("c1-3 (put city) met the most failures: s3's and s4's acceptors were down.")
        );
        assert_eq!(
            first(&[met("c1-7", &[3], &[3], &[1, 2, 4, 5])]),
            says("c1-7 (put city) met the most failures: s3's acceptor crashed just then.")
        );
        assert_eq!(
            first(&[two_down.clone(), crash.clone(), one_down.clone()]),
            says("c1-4 (put city) met the most failures: s3's and s4's acceptors were down.")
        );
        assert_eq!(
            first(&[waited, crash, two_down, one_down]),
            says("c1-5 (put city) met the most failures: it waited while only 1 of 5 acceptors were up.")
        );
        assert_eq!(
            first(&[met("c1-6", &[], &[], &[])]),
            says("c1-6 (put city) met the most failures: it waited while none of 5 acceptors were up.")
        );
    }

    #[test]
    fn summary_fits_a_screen_and_names_the_command() {
        let mut hardest = Hardest::default();
        hardest.consider(met("c1-14", &[3, 4], &[], &[1, 2, 5]), cluster());
        let sentences = hardest.sentences(cluster());
        assert!(sentences.iter().all(|line| line.chars().count() <= 100), "{sentences:#?}");
        assert_eq!(sentences[1], "The votes of s1, s2 and s5 chose it; its OK came after 778 ms.");
        assert_eq!(sentences.last().unwrap(), "See it: ./run_server.sh logs --req c1-14");
        // A server that learned the choice from another one does not know whose votes were counted.
        let second = |request: MetFailure| {
            let mut hardest = Hardest::default();
            hardest.consider(request, cluster());
            hardest.sentences(cluster()).swap_remove(1)
        };
        let learned = MetFailure { accepted_by: ServerSet::NONE, ..met("c1-15", &[3], &[], &[1, 2, 4, 5]) };
        assert_eq!(second(learned.clone()), "Its OK came after 778 ms.");
        let read = MetFailure { is_read: true, ..learned };
        assert_eq!(second(read), "A majority was asked before its reply, which came after 778 ms.");
    }
}
