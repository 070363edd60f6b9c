//! The failures that the servers report while the demo runs. Each server is asked for its status many times a second,
//! so the demo can print crashes, restarts and lost majorities between its requests, wherever the client runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::changes::{Cluster, ServerView, changes};
use super::hardest::{Hardest, MetFailure};
use crate::client::client::{Client, ClientOptions};
use crate::client::cluster_status::ClusterStatus;
use crate::client::operation::{CompletedOperation, Operation};
use crate::client::outcome::ClientError;
use crate::client::printer::Printer;
use crate::client::script::quote_key;
use crate::cluster::Cluster as ClusterFile;
use crate::net::ServerStatus;
use crate::role::{ServerId, ServerSet};

/// Pause between two status queries of one server. A shorter outage is still known from the server's crash counter.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A server that has not answered for this long is reported as silent.
const PATIENCE: Duration = Duration::from_millis(300);
/// A request that takes longer is explained while it waits.
const LONG_WAIT: Duration = Duration::from_millis(100);
/// Maximum time to wait for a status of every server that is newer than a request.
const FRESH_WAIT: Duration = Duration::from_millis(100);

/// Watches the servers until it is dropped.
pub struct FailureWatch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    observed: Mutex<Observed>,
    /// A status has come, or is wanted, or the watch ends.
    changed: Condvar,
    printer: Arc<Printer>,
}

/// What the servers have reported.
struct Observed {
    cluster: Cluster,
    /// The last report of each server.
    now: BTreeMap<ServerId, ServerView>,
    /// The reports as of the last printed change.
    told: BTreeMap<ServerId, ServerView>,
    /// The voters that are down, as last reported.
    down: BTreeMap<ServerId, VoterOutage>,
    /// When the query of each server's last report began.
    asked: BTreeMap<ServerId, Instant>,
    /// A report is wanted whose query begins later than this.
    wanted: Option<Instant>,
    /// The requests in flight, by client.
    running: BTreeMap<String, RunningRequest>,
    /// The request that met the most failures.
    hardest: Hardest,
    is_ended: bool,
}

/// A voter was down without a break from the first report to the last, because its crash counter has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct VoterOutage {
    crashes: u32,
    /// When the first report that it is down had come.
    first: Instant,
    /// When the query of the last such report began.
    last: Instant,
}

/// A request in flight.
struct RunningRequest {
    started: Instant,
    /// The reports when it began.
    before: BTreeMap<ServerId, ServerView>,
    /// The smallest set of voters that were up at the same time meanwhile.
    fewest: ServerSet,
    is_wait_told: bool,
}

impl FailureWatch {
    /// Begins to watch these servers, whose present state is known and need not be told.
    pub fn start(
        cluster: &ClusterFile,
        present: &ClusterStatus,
        printer: &Arc<Printer>,
    ) -> Result<FailureWatch, ClientError> {
        let view =
            |(server, reply): &(ServerId, Result<ServerStatus, _>)| (*server, ServerView::of(reply.as_ref().ok()));
        let now: BTreeMap<ServerId, ServerView> = present.replies.iter().map(view).collect();
        let observed = Observed {
            cluster: Cluster { servers: cluster.servers(), protocol: present.protocol() },
            told: now.clone(),
            now,
            down: BTreeMap::new(),
            asked: BTreeMap::new(),
            wanted: None,
            running: BTreeMap::new(),
            hardest: Hardest::default(),
            is_ended: false,
        };
        let shared =
            Arc::new(Shared { observed: Mutex::new(observed), changed: Condvar::new(), printer: printer.clone() });
        let mut watch = FailureWatch { shared, threads: Vec::new() };
        for server in cluster.servers().iter() {
            let options = ClientOptions {
                first_server: Some(server),
                timeout: PATIENCE,
                try_timeout: PATIENCE,
                ..ClientOptions::new(cluster.clone(), "status")
            };
            let (client, shared) = (Client::new(options)?, watch.shared.clone());
            watch.threads.push(thread::spawn(move || shared.poll(server, client)));
        }
        Ok(watch)
    }

    /// A client's request begins. Changes since the last line are printed before it. Every server is asked once more
    /// first: a crash before the request must not count as one during it.
    pub fn request_begins(&self, client: &str) {
        let mut observed = self.shared.await_fresh();
        self.shared.tell(&mut observed);
        let running = RunningRequest {
            started: Instant::now(),
            before: observed.now.clone(),
            fewest: observed.certainly_up(),
            is_wait_told: false,
        };
        observed.running.insert(client.to_string(), running);
    }

    /// A client's request has ended. Returns the voters that were down when it began or when it ended, and whose votes did
    /// not count.
    pub fn request_ended(
        &self,
        client: &str,
        label: &str,
        action: &Operation,
        ended: &CompletedOperation,
    ) -> ServerSet {
        let mut observed = self.shared.await_fresh();
        let Some(running) = observed.running.remove(client) else { return ServerSet::NONE };
        // What has changed meanwhile stands before the result that it may explain.
        self.shared.tell(&mut observed);
        let voter = observed.cluster.protocol.voter();
        let is_down = |view: Option<&ServerView>| view.is_some_and(|view| view.is_down(voter));
        let down = |server: &ServerId| is_down(running.before.get(server)) || is_down(observed.now.get(server));
        let down: ServerSet = observed.cluster.servers.iter().filter(down).collect();
        let down = down.without(ended.accepted_by);
        let crashed = |server: &ServerId| match (running.before.get(server), observed.now.get(server)) {
            (Some(before), Some(now)) => before.crashes(voter) < now.crashes(voter),
            _ => false,
        };
        let verb = match action {
            Operation::Put { .. } => "put",
            Operation::Get { .. } => "get",
            Operation::Delete { .. } => "delete",
        };
        let met = MetFailure {
            label: label.to_string(),
            what: format!("{verb} {}", quote_key(action.key())),
            took: ended.took,
            is_read: matches!(action, Operation::Get { .. }),
            accepted_by: ended.accepted_by,
            down,
            crashed: observed.cluster.servers.iter().filter(crashed).collect::<ServerSet>().and(down),
            fewest: running.fewest,
        };
        if ended.end.is_ok() && observed.cluster.protocol.is_paxos() {
            let cluster = observed.cluster;
            observed.hardest.consider(met, cluster);
        }
        down
    }

    /// Prints the changes since the last line.
    pub fn tell_changes(&self) {
        self.shared.tell(&mut self.shared.lock());
    }

    /// Sentences about the request that met the most failures, and why no write was lost.
    pub fn summary(&self) -> Vec<String> {
        let observed = self.shared.lock();
        observed.hardest.sentences(observed.cluster)
    }
}

impl Drop for FailureWatch {
    fn drop(&mut self) {
        self.shared.lock().is_ended = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in such a thread has printed its message; the demo's result does not depend on it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one server again and again.
    fn poll(&self, server: ServerId, mut client: Client) {
        loop {
            let began = Instant::now();
            let view = ServerView::of(client.status(server).ok().as_ref());
            let mut observed = self.lock();
            observed.note(server, began, view);
            self.explain_waits(&mut observed);
            self.changed.notify_all();
            let due = began + POLL_INTERVAL;
            while !observed.is_ended && Instant::now() < due && observed.wanted.is_none_or(|wanted| began > wanted) {
                let left = due.saturating_duration_since(Instant::now());
                observed = self.changed.wait_timeout(observed, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if observed.is_ended {
                return;
            }
        }
    }

    /// Waits until every server that answers has reported again.
    fn await_fresh(&self) -> MutexGuard<'_, Observed> {
        let wanted = Instant::now();
        let mut observed = self.lock();
        observed.wanted = Some(wanted);
        self.changed.notify_all();
        let is_fresh = |observed: &Observed| {
            observed.now.iter().all(|(server, view)| !view.answers || observed.asked.get(server) > Some(&wanted))
        };
        while !is_fresh(&observed) && wanted.elapsed() < FRESH_WAIT {
            let left = FRESH_WAIT.saturating_sub(wanted.elapsed());
            observed = self.changed.wait_timeout(observed, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        observed
    }

    /// Prints what has changed since the last line, if anything has. The servers report at different moments, so that
    /// no quorum was up is printed only once it is certain.
    fn tell(&self, observed: &mut Observed) {
        if !observed.cluster.is_quorum(observed.voters_up()) && !observed.is_simultaneous() {
            return;
        }
        for line in changes(observed.cluster, &observed.told, &observed.now) {
            self.printer.line(format!("        -- {line}"));
        }
        observed.told = observed.now.clone();
    }

    /// Says at once that no quorum is up, and once per request why it waits.
    fn explain_waits(&self, observed: &mut Observed) {
        let is_lost = |views: &BTreeMap<ServerId, ServerView>| !observed.cluster.is_quorum(observed.voters_of(views));
        if is_lost(&observed.now) && !is_lost(&observed.told) {
            self.tell(observed);
        }
        let is_long = |running: &RunningRequest| running.started.elapsed() >= LONG_WAIT;
        if !observed.running.values().any(is_long) {
            return;
        }
        self.tell(observed);
        let up = observed.voters_up();
        if observed.cluster.is_quorum(up) || !observed.is_simultaneous() {
            return;
        }
        let why = observed.cluster.no_quorum(up);
        for (client, running) in &mut observed.running {
            if is_long(running) && !running.is_wait_told {
                running.is_wait_told = true;
                self.printer.line(format!("        -- {client} waits: {why}"));
            }
        }
    }
}

impl Observed {
    /// The servers whose vote is available, as last reported.
    fn voters_up(&self) -> ServerSet {
        self.voters_of(&self.now)
    }

    fn voters_of(&self, views: &BTreeMap<ServerId, ServerView>) -> ServerSet {
        let voter = self.cluster.protocol.voter();
        views.iter().filter(|(_, view)| view.is_up(voter)).map(|(server, _)| *server).collect()
    }

    /// The voters that were up at one moment. If it is not certain that the others were down together, all voters.
    fn certainly_up(&self) -> ServerSet {
        if self.is_simultaneous() { self.voters_up() } else { self.cluster.servers }
    }

    /// Whether all voters that are down were down at one moment.
    fn is_simultaneous(&self) -> bool {
        let (first, last) =
            (self.down.values().map(|one| one.first).max(), self.down.values().map(|one| one.last).min());
        first <= last
    }

    fn note(&mut self, server: ServerId, began: Instant, view: ServerView) {
        let (voter, now) = (self.cluster.protocol.voter(), Instant::now());
        let crashes = view.crashes(voter);
        match self.down.get_mut(&server) {
            _ if view.is_up(voter) => {
                self.down.remove(&server);
            }
            Some(outage) if outage.crashes == crashes => outage.last = began,
            _ => {
                self.down.insert(server, VoterOutage { crashes, first: now, last: began });
            }
        }
        self.asked.insert(server, began);
        self.now.insert(server, view);
        let up = self.certainly_up();
        for running in self.running.values_mut() {
            if up.len() < running.fewest.len() {
                running.fewest = up;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::RoleStatus;
    use crate::protocol::Protocol;
    use crate::role::RoleKind;

    fn report(up: bool, crashes: u32) -> ServerView {
        let mut status = ServerStatus::healthy(ServerId(1), Protocol::BasicPaxos);
        status.roles = vec![RoleStatus { role: RoleKind::Acceptor, up, crashes }];
        ServerView::of(Some(&status))
    }

    fn watched() -> Observed {
        let up = || (1..=3).map(|server| (ServerId(server), report(true, 0))).collect::<BTreeMap<_, _>>();
        Observed {
            cluster: Cluster { servers: ServerSet::first(3), protocol: Protocol::BasicPaxos },
            now: up(),
            told: up(),
            down: BTreeMap::new(),
            asked: BTreeMap::new(),
            wanted: None,
            running: BTreeMap::new(),
            hardest: Hardest::default(),
            is_ended: false,
        }
    }

    #[test]
    fn reports_of_different_moments_do_not_make_a_lost_majority() {
        let mut observed = watched();
        let query = Instant::now();
        observed.note(ServerId(1), query, report(false, 1));
        // Server 1 may have restarted before server 2 crashed.
        observed.note(ServerId(2), query, report(false, 1));
        assert!(!observed.is_simultaneous());
        assert_eq!(observed.certainly_up(), ServerSet::first(3));
        // Both are down again at a later query, without another crash: they were down at the same time.
        let later = Instant::now();
        observed.note(ServerId(1), later, report(false, 1));
        assert!(!observed.is_simultaneous());
        observed.note(ServerId(2), later, report(false, 1));
        assert!(observed.is_simultaneous());
        assert_eq!(observed.certainly_up(), ServerSet::only(ServerId(3)));
        // Another crash began another outage.
        observed.note(ServerId(2), Instant::now(), report(false, 2));
        assert!(!observed.is_simultaneous());
    }
}
