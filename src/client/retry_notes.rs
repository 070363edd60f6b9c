//! Messages to the user about failed tries: each failure of a server once per request, and one message if no server
//! is running.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::client::Client;
use super::execute::execute;
use super::operation::{CompletedOperation, Operation};
use super::outcome::{Try, TryEnd};
use super::printer::Printer;
use super::{NoReply, outcome::seconds};
use crate::role::{ServerId, ServerSet};

/// Reports the failed tries of one client's requests, one request after the other.
pub struct RetryNotes(Arc<Mutex<RetryNotesState>>);

struct RetryNotesState {
    printer: Arc<Printer>,
    /// The prefix of each message: the client's name, where several clients share a terminal.
    prefix: String,
    /// The message for the case that no server is running.
    no_server: String,
    cluster: ServerSet,
    /// The failures of this request, by server and word. A client may ask a server many times: each failure is reported
    /// once.
    met: BTreeSet<(ServerId, &'static str)>,
    /// The servers that refused the connection during this request.
    refused: ServerSet,
    /// Refusals that are not reported yet. If all servers refuse, one message replaces them.
    held: Vec<String>,
}

impl RetryNotes {
    /// Reports the failed tries of `client` to `printer` from now on. `file` names the cluster, and `who` the client if
    /// there are several.
    pub fn of(
        client: &mut Client,
        who: Option<&str>,
        file: &str,
        timeout: Duration,
        printer: &Arc<Printer>,
    ) -> RetryNotes {
        let state = Arc::new(Mutex::new(RetryNotesState {
            printer: printer.clone(),
            prefix: who.map(|who| format!("{who}: ")).unwrap_or_default(),
            no_server: format!("no server of {file} is running; trying for up to {}", seconds(timeout)),
            cluster: client.servers(),
            met: BTreeSet::new(),
            refused: ServerSet::NONE,
            held: Vec::new(),
        }));
        let hears = state.clone();
        client.on_failover(move |failed, next| lock(&hears).hear(failed, next));
        RetryNotes(state)
    }

    /// Executes an operation. All messages about its failed tries are printed before this returns.
    pub fn perform(&self, client: &mut Client, action: &Operation) -> CompletedOperation {
        let ended = execute(client, action);
        self.end();
        ended
    }

    /// Ends the current request; later failures belong to the next one.
    pub fn end(&self) {
        let mut state = lock(&self.0);
        state.print_held();
        state.met.clear();
        state.refused = ServerSet::NONE;
    }
}

impl RetryNotesState {
    fn hear(&mut self, failed: &Try, next: ServerId) {
        if !self.met.insert((failed.server, failed.end.word())) {
            return;
        }
        let sentence = failed.and_next(next);
        if failed.end != TryEnd::NoReply(NoReply::ConnectionRefused) {
            self.print_held();
            return self.printer.warn(format!("{}{sentence}", self.prefix));
        }
        self.held.push(sentence);
        self.refused.insert(failed.server);
        if self.refused == self.cluster {
            self.held.clear();
            self.printer.warn(format!("{}{}", self.prefix, self.no_server));
        }
    }

    fn print_held(&mut self) {
        for sentence in mem::take(&mut self.held) {
            self.printer.warn(format!("{}{sentence}", self.prefix));
        }
    }
}

fn lock(state: &Mutex<RetryNotesState>) -> std::sync::MutexGuard<'_, RetryNotesState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
