//! The scripted demo: fills the store, runs operations on all servers while they fail, and checks the final state.

mod changes;
mod check;
mod failures;
mod hardest;
mod leader_crash;
mod scenes;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::check::{ExpectedState, KeyCheck, check_monotonic};
use self::failures::FailureWatch;
use crate::client::client::{Client, ClientOptions};
use crate::client::cluster_status::{ClusterStatus, roles_down};
use crate::client::execute::OutcomeCounts;
use crate::client::name::ClientName;
use crate::client::operation::{CompletedOperation, Operation, OperationResult};
use crate::client::outcome::{ClientError, GetResponse};
use crate::client::printer::{Printer, table};
use crate::client::retry_notes::RetryNotes;
use crate::client::script::{ScriptStep, quote_key};
use crate::cluster::Cluster;
use crate::net::ServerStatus;
use crate::paxos::Slot;
use crate::role::{RoleKind, ServerId, ServerSet};
use crate::trace::{Digest, Event, PendingLine, QuotedText, Speaker, Trace};

/// Maximum time for a server to answer a status request.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);
/// Maximum time for links between servers to come up before they are reported as a problem.
const LINK_PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two status queries of all servers.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The placeholder for the client's name in a value.
const PLACEHOLDER: &str = "{client}";

/// The configuration of a demo.
pub struct Demo {
    /// The cluster, with the addresses of its servers.
    pub cluster: Cluster,
    /// The clients. Each executes the same operations, all at the same time.
    pub clients: Vec<ClientName>,
    /// The operations of the first client before the others begin.
    pub prepopulate: Vec<ScriptStep>,
    /// The operations of every client.
    pub operations: Vec<ScriptStep>,
    /// Pause between two operations of a client.
    pub pace: Duration,
    /// Maximum time for a request.
    pub timeout: Duration,
    /// Maximum time for the servers to reach the same state at the end.
    pub converge_timeout: Duration,
    /// The two clients of the scene in which two clients write one key; empty if no scene is played.
    pub conflict_clients: Vec<ClientName>,
    /// Where the demo prints its messages.
    pub printer: Arc<Printer>,
}

/// One client of the demo, and what it has observed.
pub struct DemoClient {
    /// The client of the cluster.
    pub client: Client,
    /// Reports the failed tries of its requests.
    retry_notes: RetryNotes,
    /// The client's log.
    pub trace: Trace,
    /// The results of its writes.
    pub ledger: ExpectedState,
    /// The results of its requests.
    pub counts: OutcomeCounts,
    /// Violations that it has found, one message each.
    pub problems: Vec<String>,
    /// Where its messages are printed.
    pub printer: Arc<Printer>,
    /// Observes the servers meanwhile.
    pub watch: Arc<FailureWatch>,
}

impl DemoClient {
    /// Creates a client of the demo.
    pub fn new(demo: &Demo, identity: &ClientName, watch: &Arc<FailureWatch>) -> Result<DemoClient, ClientError> {
        let options = ClientOptions {
            timeout: demo.timeout,
            trace: identity.trace.clone(),
            ..ClientOptions::new(demo.cluster.clone(), &identity.name)
        };
        let mut client = Client::new(options)?;
        let retry_notes = RetryNotes::of(&mut client, Some(&identity.name), "the cluster", demo.timeout, &demo.printer);
        let (trace, printer) = (identity.trace.clone(), demo.printer.clone());
        Ok(DemoClient {
            client,
            retry_notes,
            trace,
            ledger: ExpectedState::default(),
            counts: OutcomeCounts::default(),
            problems: Vec::new(),
            printer,
            watch: watch.clone(),
        })
    }

    /// Logs that a phase of the demo begins.
    pub fn phase(&self, name: &str) {
        self.trace.line(PendingLine::new(Speaker::Client, Event::Stage { name: QuotedText::from(name) }));
    }

    /// Executes one operation, prints its result and records it.
    pub fn run_operation(&mut self, server: ServerId, action: &Operation) -> CompletedOperation {
        let action = for_client(action, self.client.name());
        if let Err(error) = self.client.set_server(server) {
            self.problems.push(error.to_string());
        }
        self.watch.request_begins(self.client.name());
        let ended = self.retry_notes.perform(&mut self.client, &action);
        let label = self.client.last_label();
        let down = self.watch.request_ended(self.client.name(), &label, &action, &ended);
        let by = self.client.server();
        let via = (by != server && ended.end.is_ok()).then_some(by);
        let votes = votes_of(&ended, via, down);
        self.printer.line(format!("{label:<6} {server} {:<29} {}{votes}", action.to_string(), ended.describe()));
        self.counts.add(&ended.end);
        let noted = match &ended.end {
            Ok(OperationResult::Wrote(outcome)) => self.ledger.record(&action, &Ok(*outcome)),
            Ok(OperationResult::Read(_)) => Ok(()),
            Err(error) => self.ledger.record(&action, &Err(error.clone())),
        };
        self.problems.extend(noted.err());
        ended
    }
}

/// The majority that carried a write and the servers whose vote was not available, ` by s1,s2,s5; s3 down`, or the other
/// server that answered, ` by s1,s2,s5 via s2`.
fn votes_of(ended: &CompletedOperation, via: Option<ServerId>, down: ServerSet) -> String {
    let by = if ended.accepted_by.is_empty() { String::new() } else { format!(" by {}", ended.accepted_by) };
    match via {
        Some(server) => format!("{by} via {server}"),
        None if by.is_empty() || down.is_empty() => by,
        None => format!("{by}; {down} down"),
    }
}

/// The operation with `{client}` replaced by the client's name.
fn for_client(action: &Operation, name: &str) -> Operation {
    match action {
        Operation::Put { key, value, if_version } => match std::str::from_utf8(value) {
            Ok(text) => {
                let value = text.replace(PLACEHOLDER, name).into_bytes();
                Operation::Put { key: key.clone(), value, if_version: *if_version }
            }
            Err(_) => action.clone(),
        },
        Operation::Get { .. } | Operation::Delete { .. } => action.clone(),
    }
}

impl Demo {
    /// Runs the demo. An error has one message per violation.
    pub fn run(&self) -> Result<(), Vec<String>> {
        let one = |error: ClientError| vec![error.to_string()];
        let before = self.check_cluster()?;
        let watch = Arc::new(FailureWatch::start(&self.cluster, &before, &self.printer).map_err(one)?);
        let mut demo_clients = Vec::new();
        for identity in &self.clients {
            demo_clients.push(DemoClient::new(self, identity, &watch).map_err(one)?);
        }
        self.start_phase(&demo_clients, "prepopulate", "Pre-population by the first client");
        if let Some(first) = demo_clients.first_mut() {
            self.play_all(first, &self.prepopulate, Duration::ZERO);
        }
        let by =
            if demo_clients.len() == 1 { String::new() } else { format!(" by each of {} clients", demo_clients.len()) };
        let what = format!("{} operations{by}, sent to all servers in turn", self.operations.len());
        self.start_phase(&demo_clients, "operations", &what);
        thread::scope(|scope| {
            for demo_client in &mut demo_clients {
                scope.spawn(move || self.play_all(demo_client, &self.operations, self.pace));
            }
        });
        let mut problems = Vec::new();
        if !self.conflict_clients.is_empty() {
            problems.extend(scenes::play(self, &mut demo_clients, before.protocol()));
        }
        let (mut ledger, mut counts) = (ExpectedState::default(), OutcomeCounts::default());
        for demo_client in &mut demo_clients {
            problems.append(&mut demo_client.problems);
            problems.extend(ledger.merge(std::mem::take(&mut demo_client.ledger)).err());
            counts.merge(demo_client.counts);
        }
        watch.tell_changes();
        self.start_phase(&demo_clients, "readback", "Every key, read from each server");
        if let Some(first) = demo_clients.first_mut() {
            problems.extend(self.read_back(first, &ledger));
        }
        self.start_phase(&demo_clients, "digest", "Comparison of the replicas");
        problems.extend(self.compare_replicas(&demo_clients, &before).err());
        self.printer.line(counts.to_string());
        watch.summary().iter().for_each(|sentence| self.printer.line(sentence));
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Prints and logs that a phase of the demo begins.
    pub fn start_phase(&self, demo_clients: &[DemoClient], name: &str, title: &str) {
        self.printer.line(format!("\n== {title} =="));
        for demo_client in demo_clients {
            demo_client.phase(name);
        }
    }

    /// The n-th server of the cluster, counted from 0 and modulo the number of servers.
    pub fn server(&self, n: usize) -> ServerId {
        let servers: Vec<ServerId> = self.cluster.servers().iter().collect();
        servers[n % servers.len()]
    }

    /// Checks that at least one server answers. Servers that have just started renew their links once: a problem of a
    /// link counts only if it lasts.
    fn check_cluster(&self) -> Result<ClusterStatus, Vec<String>> {
        let deadline = Instant::now() + LINK_PATIENCE;
        let mut cluster_status = ClusterStatus::query(&self.cluster, STATUS_PATIENCE);
        while !cluster_status.verdict().is_linked && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
            cluster_status = ClusterStatus::query(&self.cluster, STATUS_PATIENCE);
        }
        if cluster_status.statuses().next().is_none() {
            let why =
                "no server of the cluster replies. Next: ./run_server.sh, or choose a cluster with --cluster FILE";
            return Err(vec![why.to_string()]);
        }
        self.printer.line(cluster_status.summary().trim_end());
        Ok(cluster_status)
    }

    /// Lets one client execute operations one after the other.
    fn play_all(&self, demo_client: &mut DemoClient, operations: &[ScriptStep], pace: Duration) {
        for (n, operation) in operations.iter().enumerate() {
            if n > 0 {
                thread::sleep(pace);
            }
            demo_client.run_operation(operation.server.unwrap_or_else(|| self.server(n)), &operation.action);
        }
    }

    /// Reads every key from each server and checks the values found.
    fn read_back(&self, demo_client: &mut DemoClient, ledger: &ExpectedState) -> Vec<String> {
        demo_client.client.set_timeout(self.converge_timeout);
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        for key in ledger.keys() {
            let mut found: Vec<(ServerId, GetResponse)> = Vec::new();
            for server in self.cluster.servers().iter() {
                match demo_client.client.set_server(server).and_then(|()| demo_client.client.get_from_current(key)) {
                    Ok(read) => found.push((server, read)),
                    Err(error) => {
                        problems.push(format!("cannot read {} from server {}: {error}", quote_key(key), server.0))
                    }
                }
            }
            problems.extend(check_monotonic(key, &found).err());
            let Some((_, last)) = found.last() else { continue };
            let verdict = match ledger.judge(key, last) {
                KeyCheck::Consistent => "OK".to_string(),
                KeyCheck::OtherWriter(why) => why,
                KeyCheck::Inconsistent(why) => {
                    problems.push(why.clone());
                    format!("INCORRECT: {why}")
                }
            };
            let alike =
                found.iter().filter(|(_, read)| read.value == last.value && read.version == last.version).count();
            let value = last.value.as_deref().map_or("(none)".to_string(), |value| quote_key(value).to_string());
            let agree = format!("{alike} of {} agree", self.cluster.servers().len());
            rows.push(vec![quote_key(key).to_string(), value, last.version.to_string(), agree, verdict]);
        }
        demo_client.client.set_timeout(self.timeout);
        self.printer.line(table(&["key", "value", "version", "read from servers", "result"], &rows).trim_end());
        problems
    }

    /// Waits until all servers have the same state; reports the state and the role crashes meanwhile.
    fn compare_replicas(&self, demo_clients: &[DemoClient], before: &ClusterStatus) -> Result<(), String> {
        let servers = self.cluster.servers().len();
        let deadline = Instant::now() + self.converge_timeout;
        let cluster_status = loop {
            let cluster_status = ClusterStatus::query(&self.cluster, STATUS_PATIENCE);
            if cluster_status.agreement().is_some() || Instant::now() >= deadline {
                break cluster_status;
            }
            thread::sleep(POLL_INTERVAL);
        };
        self.printer.line(cluster_status.render().trim_end());
        self.printer.line("");
        let crashes = |role| cluster_status.crashes(role).saturating_sub(before.crashes(role));
        let of = |role: &RoleKind| format!("{} {}", crashes(*role), role.as_str());
        let roles = match before.protocol().is_paxos() {
            true => [RoleKind::Acceptor, RoleKind::Proposer, RoleKind::Learner].as_slice(),
            false => [RoleKind::Participant, RoleKind::Coordinator].as_slice(),
        };
        let crashes: Vec<String> = roles.iter().map(of).collect();
        self.printer.line(format!("crashes during this run: {}", crashes.join(", ")));
        let Some((slot, digest)) = cluster_status.agreement() else {
            let equal = cluster_status.largest_agreement();
            self.printer.line(format!("replica digest: {equal} of {servers} equal"));
            return Err(format!(
                "only {equal} of {servers} replicas have the same state after {:.0} s{}",
                self.converge_timeout.as_secs_f64(),
                cluster_status.statuses().filter_map(down_sentence).collect::<String>()
            ));
        };
        self.printer.line(format!("replica digest: {servers} of {servers} equal ({digest:016x} after slot {slot})"));
        let count = u8::try_from(servers).ok();
        let event = Event::Digest { slot: Slot(slot), digest: Digest(digest), equal: count, of: count };
        for demo_client in demo_clients {
            demo_client.trace.line(PendingLine::new(Speaker::Client, event.clone()));
        }
        Ok(())
    }
}

/// A clause that names the roles of a server that are down; None if all are up.
fn down_sentence(status: &ServerStatus) -> Option<String> {
    roles_down(status).map(|down| format!("; server {}: {down} down", status.server.0))
}
