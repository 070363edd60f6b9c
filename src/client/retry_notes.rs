//! What a person hears of a request's detours: each failure of a server once, and one sentence if nobody listens.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::client::Client;
use super::execute::{CompletedOperation, execute};
use super::outcome::{Try, TryEnd};
use super::printer::Printer;
use super::script::Operation;
use super::{NoReply, outcome::seconds};
use crate::role::{ServerId, ServerSet};

/// The detours of one client's requests, one request after the other.
pub struct Detours(Arc<Mutex<Telling>>);

struct Telling {
    printer: Arc<Printer>,
    /// Stands before each sentence: who speaks, where several clients share a screen.
    prefix: String,
    /// What is said when no server listens.
    nobody: String,
    cluster: ServerSet,
    /// The failures that this request has met, by server and word. A client goes round and round: each is told once.
    met: BTreeSet<(ServerId, &'static str)>,
    /// The servers that have refused the connection.
    refused: ServerSet,
    /// Refusals that are not told yet: if all servers refuse, one sentence says more.
    held: Vec<String>,
}

impl Detours {
    /// Tells `printer` of a client's detours from now on. `file` names the cluster, and `who` the client if there are
    /// more.
    pub fn of(
        client: &mut Client,
        who: Option<&str>,
        file: &str,
        timeout: Duration,
        printer: &Arc<Printer>,
    ) -> Detours {
        let telling = Arc::new(Mutex::new(Telling {
            printer: printer.clone(),
            prefix: who.map(|who| format!("{who}: ")).unwrap_or_default(),
            nobody: format!("no server of {file} listens; trying for up to {}", seconds(timeout)),
            cluster: client.servers(),
            met: BTreeSet::new(),
            refused: ServerSet::NONE,
            held: Vec::new(),
        }));
        let hears = telling.clone();
        client.on_failover(move |failed, next| lock(&hears).hear(failed, next));
        Detours(telling)
    }

    /// Carries an operation out, and has told of its detours when it is back.
    pub fn perform(&self, client: &mut Client, action: &Operation) -> CompletedOperation {
        let ended = execute(client, action);
        self.end();
        ended
    }

    /// What was asked has ended: what follows is another request.
    pub fn end(&self) {
        let mut telling = lock(&self.0);
        telling.tell_held();
        telling.met.clear();
        telling.refused = ServerSet::NONE;
    }
}

impl Telling {
    fn hear(&mut self, failed: &Try, next: ServerId) {
        if !self.met.insert((failed.server, failed.end.word())) {
            return;
        }
        let sentence = failed.and_next(next);
        if failed.end != TryEnd::NoReply(NoReply::ConnectionRefused) {
            self.tell_held();
            return self.printer.warn(format!("{}{sentence}", self.prefix));
        }
        self.held.push(sentence);
        self.refused.insert(failed.server);
        if self.refused == self.cluster {
            self.held.clear();
            self.printer.warn(format!("{}{}", self.prefix, self.nobody));
        }
    }

    fn tell_held(&mut self) {
        for sentence in mem::take(&mut self.held) {
            self.printer.warn(format!("{}{sentence}", self.prefix));
        }
    }
}

fn lock(telling: &Mutex<Telling>) -> std::sync::MutexGuard<'_, Telling> {
    telling.lock().unwrap_or_else(PoisonError::into_inner)
}
