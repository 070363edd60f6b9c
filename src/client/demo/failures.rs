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
const LONG_WAIT: Duration = Duration::from_millis(250);
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
            fewest: observed.voters_up(),
            is_wait_told: false,
        };
        observed.running.insert(client.to_string(), running);
    }

    /// A client's request has ended. Returns the voters that were down from before its beginning until after its end.
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
        let down = |server: &ServerId| match (running.before.get(server), observed.now.get(server)) {
            (Some(before), Some(now)) => before.is_down(voter) && before.role(voter) == now.role(voter),
            _ => false,
        };
        let down: ServerSet = observed.cluster.servers.iter().filter(down).collect();
        let crashed = |server: &ServerId| match (running.before.get(server), observed.now.get(server)) {
            (Some(before), Some(now)) => before.crashes(voter) < now.crashes(voter),
            _ => false,
        };
        let verb = if matches!(action, Operation::Delete { .. }) { "delete" } else { "put" };
        let met = MetFailure {
            label: label.to_string(),
            what: format!("{verb} {}", quote_key(action.key())),
            took: ended.took,
            accepted_by: ended.accepted_by,
            down: down.without(ended.accepted_by),
            crashed: observed.cluster.servers.iter().filter(crashed).collect(),
            fewest: running.fewest,
        };
        if ended.end.is_ok() && !ended.accepted_by.is_empty() {
            let cluster = observed.cluster;
            observed.hardest.consider(met, cluster);
        }
        down.without(ended.accepted_by)
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

    /// Prints what has changed since the last line, if anything has.
    fn tell(&self, observed: &mut Observed) {
        for line in changes(observed.cluster, &observed.told, &observed.now) {
            self.printer.line(format!("        -- {line}"));
        }
        observed.told = observed.now.clone();
    }

    /// Says once per request why it waits, if no quorum is up.
    fn explain_waits(&self, observed: &mut Observed) {
        let is_long = |running: &RunningRequest| running.started.elapsed() >= LONG_WAIT;
        if !observed.running.values().any(is_long) {
            return;
        }
        self.tell(observed);
        let up = observed.voters_up();
        if observed.cluster.is_quorum(up) {
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
        let voter = self.cluster.protocol.voter();
        self.now.iter().filter(|(_, view)| view.is_up(voter)).map(|(server, _)| *server).collect()
    }

    fn note(&mut self, server: ServerId, began: Instant, view: ServerView) {
        self.asked.insert(server, began);
        self.now.insert(server, view);
        let up = self.voters_up();
        for running in self.running.values_mut() {
            if up.len() < running.fewest.len() {
                running.fewest = up;
            }
        }
    }
}
