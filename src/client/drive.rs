//! What drives the requests of a client: connections that answer or break, tries whose time is up, the next server.
//!
//! Nothing here waits. [`Client::progress`] does what can be done at this moment; whoever has nothing else to do waits
//! for the client's sockets until [`Client::next_due`] and calls it again. Requests fail over one by one: a reply
//! that brings nothing moves its own request to the next server, a connection that breaks moves all that wait on it.

use std::collections::VecDeque;
use std::mem;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, NoReply};
use super::flight::{Flight, Pauses, Reach, Stage, asked, is_answer};
use super::lines::Lines;
use super::outcome::{Asked, ClientError, Tries, Try, TryEnd};
use super::session::WriteId;
use super::stub::{Before, Client, Ticket, Unnamed};
use crate::net::{ClientReply, ClientRequest, Reply, Request, WhyNotApplied};
use crate::paxos::NotApplied;
use crate::role::Server;

/// At most this many new sessions are opened for one write whose session has ended: more than that is no accident.
pub(crate) const SESSIONS_MAX: u32 = 3;

impl Client {
    /// Does what can be done now without waiting: sends, receives, and turns to the next server where time is up.
    pub fn progress(&mut self) {
        self.receive();
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst)) {
            self.end_time();
        }
        self.look_at_the_clock();
        self.name_writes();
        self.transmit();
        self.close_idle();
    }

    /// Nobody wants to wait any longer: the time of every request is up.
    fn end_time(&mut self) {
        let now = Instant::now();
        self.unnamed.iter_mut().for_each(|write| write.deadline = now);
        for flight in self.flights.values_mut() {
            flight.deadline = now;
            let (Stage::Due { at: due, .. } | Stage::Asked { until: due, .. }) = &mut flight.stage;
            *due = now;
        }
    }

    /// Keeps no connection but those that a request waits on, and the one that the next request goes out on.
    fn close_idle(&mut self) {
        if self.connections.len() > 1 {
            let (flights, server) = (&self.flights, self.server);
            let is_waited_for = |server| flights.values().any(|flight| flight.asked_of() == Some(server));
            self.connections.retain(|one| one.server() == server || is_waited_for(one.server()));
        }
    }

    /// When [`Client::progress`] must be called again, even if none of the sockets is ready before.
    pub fn next_due(&self) -> Option<Instant> {
        let flights = self.flights.values().map(Flight::due);
        flights.chain(self.unnamed.iter().map(|write| write.deadline)).min()
    }

    /// The sockets to wait for, and whether each waits for room to write.
    pub fn sockets(&self) -> impl Iterator<Item = (&TcpStream, bool)> {
        self.connections.iter().map(|connection| (connection.stream(), connection.wants_to_write()))
    }

    /// Waits until there is something to do, then does it.
    pub(super) fn drive(&mut self) {
        let mut sockets: Vec<PollFd<'_>> = Vec::with_capacity(self.connections.len());
        for (stream, writes) in self.sockets() {
            let wanted = if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            sockets.push(PollFd::new(stream, wanted));
        }
        let left = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        // If it comes back for another reason, such as a signal, there is simply nothing to do yet.
        let _ = poll(&mut sockets, left.and_then(|left| Timespec::try_from(left).ok()).as_ref());
        self.progress();
    }

    /// Begins a request that is sent to this server first, as soon as the client makes progress.
    pub(super) fn begin(&mut self, request: Request, reach: Reach, server: Server, deadline: Instant) -> Ticket {
        // People count the requests that lines tell of.
        let is_counted = !matches!(
            request,
            Request::Status | Request::State { .. } | Request::Crash { .. } | Request::Restart { .. }
        );
        self.requests += u64::from(is_counted);
        let label = self.last_label();
        let tries = Tries::new(self.options.cluster.servers(), asked(&request));
        self.begin_as(label, tries, request, reach, server, deadline)
    }

    /// As [`Client::begin`], for a request that people know by this label and that has been tried before.
    fn begin_as(
        &mut self,
        label: String,
        tries: Tries,
        request: Request,
        reach: Reach,
        server: Server,
        deadline: Instant,
    ) -> Ticket {
        let now = Instant::now();
        let lines = Lines::begin(&self.options.trace, label, &request, server);
        let pauses = Pauses::new(if reach == Reach::Any { tries.cluster.len() } else { 1 });
        let request = ClientRequest { number: 0, context: lines.context(), request };
        let stage = Stage::Due { at: now, server };
        let ticket = self.draw_ticket();
        let flight = Flight { request, reach, lines, tries, pauses, begun: now, deadline, stage, sessions: 0 };
        self.flights.insert(ticket, flight);
        ticket
    }

    /// Takes what the servers have said. What came before a connection ended still counts.
    fn receive(&mut self) {
        let mut replies = mem::take(&mut self.replies);
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(at) {
            let (server, mut end) = (connection.server(), connection.receive(&mut replies));
            let history = connection.history();
            let mut is_believed = true;
            for reply in replies.drain(..) {
                // A server that says one wrong thing is not listened to any longer.
                if is_believed && let Err(no_reply) = self.hear(server, reply) {
                    (is_believed, end) = (false, Err(no_reply));
                }
            }
            self.learn_history(history);
            match end {
                Ok(()) => at += 1,
                Err(no_reply) => self.lose(server, &no_reply),
            }
        }
        self.replies = replies;
    }

    /// Which history the data are of is news once.
    fn learn_history(&mut self, history: u64) {
        if self.history.is_none() && history != 0 {
            self.history = Some(history);
        }
    }

    /// One reply. An error is one that this server should not have sent.
    fn hear(&mut self, server: Server, reply: ClientReply) -> Result<(), NoReply> {
        let Some(ticket) = self.numbers.get(&reply.number).copied() else {
            return self.hear_unrequested(server, &reply);
        };
        let Some(flight) = self.flights.get(&ticket).filter(|flight| flight.asked_of() == Some(server)) else {
            return self.hear_unrequested(server, &reply);
        };
        if !is_answer(&flight.request.request, &reply.reply) {
            return Err(NoReply::Malformed { length: 0, what: "a reply of another kind than was asked".to_string() });
        }
        // Who has applied a write of this session, or opened it, has the history in which it was opened.
        let shown = match reply.reply {
            Reply::Opened { history, .. } => Some(history),
            Reply::Applied { .. } => self.history,
            _ => None,
        };
        if let Some(history) = shown {
            let of_server = self.connections.iter_mut().filter(|one| one.server() == server);
            of_server.for_each(|one| one.set_history(history));
        }
        // The data of this server were empty when it was greeted, and this client has known others. It may be about to catch
        // up: so the next one is asked, and this one greeted again.
        let is_empty = |one: &Connection| one.server() == server && one.history() == 0;
        if matches!(reply.reply, Reply::Value { .. }) && self.history.is_some() && self.connections.iter().any(is_empty)
        {
            return Err(NoReply::NoData { cluster: self.options.cluster.name.clone() });
        }
        match reply.reply {
            Reply::NotApplied(why) => {
                let busy = matches!(why, WhyNotApplied::Busy | WhyNotApplied::Proposer(NotApplied::Busy));
                self.busy += u64::from(busy);
                self.end_try(ticket, TryEnd::NotApplied(why));
            }
            Reply::Unknown(why) => self.end_try(ticket, TryEnd::Unknown(why)),
            // It would be refused everywhere, but an earlier try may have been applied: only a server's word that it is
            // not applied may be taken for that.
            Reply::Refused(_) if flight.tries.may_be_applied => self.give_up(ticket),
            _ => {
                let took = flight.begun.elapsed();
                flight.lines.replied(&reply, server, took);
                let result = match reply.reply {
                    Reply::Refused(why) => Err(ClientError::Refused { server, why }),
                    reply => Ok(reply),
                };
                self.finish(ticket, result);
            }
        }
        Ok(())
    }

    /// A reply that nobody waits for: to a try that was given up, or to nothing at all.
    fn hear_unrequested(&mut self, server: Server, reply: &ClientReply) -> Result<(), NoReply> {
        let Some(connection) = self.connections.iter_mut().find(|one| one.server() == server) else { return Ok(()) };
        if connection.is_given_up(reply.number) {
            return Ok(());
        }
        let of_server = |flight: &&Flight| flight.asked_of() == Some(server);
        if let Some(flight) = self.flights.values().find(of_server) {
            flight.lines.unrequested(reply, (server, connection.address()), flight.request.number);
        }
        connection.count_unrequested()
    }

    /// A connection is of no more use: the tries that wait on it have ended.
    fn lose(&mut self, server: Server, no_reply: &NoReply) {
        let Some(at) = self.connections.iter().position(|one| one.server() == server) else { return };
        let connection = self.connections.swap_remove(at);
        let of_server = |(_, flight): &(&Ticket, &Flight)| flight.asked_of() == Some(server);
        let waiting: Vec<Ticket> = self.flights.iter().filter(of_server).map(|(ticket, _)| *ticket).collect();
        for ticket in waiting {
            let Some(flight) = self.flights.get(&ticket) else { continue };
            flight.lines.malformed(no_reply, connection.address());
            let Stage::Asked { queued, .. } = flight.stage else { continue };
            let end = match no_reply {
                NoReply::Broken { why } if !connection.has_sent(queued) => NoReply::NotSent { why: why.clone() },
                NoReply::Malformed { what, .. } if !connection.has_sent(queued) => {
                    NoReply::NotSent { why: what.clone() }
                }
                other => other.clone(),
            };
            self.end_try(ticket, TryEnd::NoReply(end));
        }
    }

    /// Ends tries whose time is up, and begins those that are due.
    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let is_due = |(_, flight): &(&Ticket, &Flight)| flight.due() <= now;
        let due: Vec<Ticket> = self.flights.iter().filter(is_due).map(|(ticket, _)| *ticket).collect();
        for ticket in due {
            // Another one of these may have taken it along.
            match self.flights.get(&ticket).map(|flight| flight.stage) {
                Some(Stage::Asked { server, queued, since, until }) if until <= now => {
                    self.time_is_up(ticket, server, queued, since);
                }
                Some(Stage::Due { at, server }) if at <= now => self.ask(ticket, server, now),
                _ => {}
            }
        }
    }

    /// A server has not answered a try in time. If it has answered none since, its connection is given up; else this
    /// request alone goes on to the next server.
    fn time_is_up(&mut self, ticket: Ticket, server: Server, queued: u64, since: Instant) {
        let waited = since.elapsed();
        let silent = NoReply::Silent { waited };
        let Some(connection) = self.connections.iter_mut().find(|one| one.server() == server) else { return };
        if !connection.is_ready() {
            let late = connection.late();
            return self.lose(server, &late);
        }
        let answers_others = connection.has_sent(queued) && connection.heard().is_some_and(|heard| heard > since);
        if let Some(flight) = self.flights.get(&ticket).filter(|_| answers_others)
            && connection.give_up(flight.request.number)
        {
            return self.end_try(ticket, TryEnd::NoReply(silent));
        }
        if connection.has_sent(queued) {
            self.end_try(ticket, TryEnd::NoReply(silent));
        }
        self.lose(server, &NoReply::Broken { why: format!("nothing came from it for {waited:.1?}") });
    }

    /// Sends a request to a server, over the connection there is or a new one.
    pub(super) fn ask(&mut self, ticket: Ticket, server: Server, now: Instant) {
        let try_timeout = self.options.try_timeout;
        let Some(flight) = self.flights.get_mut(&ticket) else { return };
        if !flight.has_time(now, try_timeout) {
            return self.give_up(ticket);
        }
        self.frames += 1;
        flight.request.number = self.frames;
        flight.request.context = flight.lines.context();
        flight.stage = Stage::Asked { server, queued: 0, since: now, until: flight.deadline.min(now + try_timeout) };
        self.numbers.insert(self.frames, ticket);
        let at = match self.connections.iter().position(|one| one.server() == server) {
            Some(at) => at,
            None => match Connection::open(&self.options.cluster, server, self.history.unwrap_or_default()) {
                Ok(connection) => {
                    self.opened += 1;
                    self.connections.push(connection);
                    self.connections.len() - 1
                }
                Err(no_reply) => return self.end_try(ticket, TryEnd::NoReply(no_reply)),
            },
        };
        if let Some(Flight { request, stage: Stage::Asked { queued, .. }, .. }) = self.flights.get_mut(&ticket) {
            *queued = self.connections[at].queue(request);
        }
    }

    /// Names the writes that wait for it, in a session that is opened first if there is none.
    pub(super) fn name_writes(&mut self) {
        let now = Instant::now();
        if self.unnamed.iter().any(|write| write.deadline <= now) {
            let (late, others) = mem::take(&mut self.unnamed).into_iter().partition(|write| write.deadline <= now);
            self.unnamed = others;
            self.fail_late(late, now);
        }
        while !self.unnamed.is_empty() {
            let Some(id) = self.session.begin_write() else { break };
            let Some(write) = self.unnamed.pop_front() else { return };
            let WriteId { session, nonce, sequence, first_open } = id;
            let request = Request::Write { session, nonce, sequence, first_open, op: write.op };
            let sessions = write.before.as_ref().map_or(0, |before| before.sessions);
            let ticket = match write.before {
                None => self.begin(request, Reach::Any, self.server, write.deadline),
                Some(Before { label, tries, .. }) => {
                    self.begin_as(label, tries, request, Reach::Any, self.server, write.deadline)
                }
            };
            if let Some(mut flight) = self.flights.remove(&ticket) {
                // It keeps the ticket that its caller has, and the time since when the caller waits.
                (flight.begun, flight.sessions) = (write.begun, sessions);
                self.flights.insert(write.ticket, flight);
            }
            self.ask(write.ticket, self.server, now);
        }
        let patience = self.unnamed.iter().map(|write| write.deadline).max();
        if let (Some(nonce), Some(deadline), None) = (self.session.wanted(), patience, self.opening) {
            let ticket = self.begin(Request::Open { nonce }, Reach::Any, self.server, deadline);
            self.opening = Some(ticket);
            self.ask(ticket, self.server, now);
        }
    }

    /// Writes whose time is up before they had a number.
    fn fail_late(&mut self, late: VecDeque<Unnamed>, now: Instant) {
        for write in late {
            let new = || Tries::new(self.options.cluster.servers(), Asked::Session);
            let tries = write.before.map_or_else(new, |before| before.tries);
            let waited = now - write.begun;
            self.keep_result(write.ticket, Err(tries.into_error(waited)), waited);
        }
    }

    /// Sends what is queued, as far as the sockets take it.
    pub(super) fn transmit(&mut self) {
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(at) {
            match connection.transmit() {
                Ok(()) => at += 1,
                Err(no_reply) => {
                    let server = connection.server();
                    self.lose(server, &no_reply);
                }
            }
        }
    }

    /// A try has brought nothing: the next server is asked, if there is time for that and sense in it.
    fn end_try(&mut self, ticket: Ticket, end: TryEnd) {
        let now = Instant::now();
        let Some(flight) = self.flights.get_mut(&ticket) else { return };
        let Stage::Asked { server, since, .. } = flight.stage else { return };
        self.numbers.remove(&flight.request.number);
        if let TryEnd::NoReply(NoReply::OtherHistory { found, .. }) = end
            && self.history != Some(found)
        {
            // It is told once, and the client goes on with what there is now.
            self.history = Some(found);
            self.session.drop_any();
            flight.tries.push(Try { server, end, took: now - since });
            return self.give_up(ticket);
        }
        let ends_session = end.ends_session();
        let failed = Try { server, end, took: now - since };
        let pause = flight.pauses.after(failed.took, &mut self.random);
        flight.tries.push(failed.clone());
        if ends_session {
            return self.end_session(ticket, now);
        }
        let next = match flight.reach {
            Reach::One => server,
            Reach::Any => {
                if self.server == server {
                    self.server = server_after(&self.options.cluster, server);
                }
                self.server
            }
        };
        if !flight.has_time(now + pause, self.options.try_timeout) {
            return self.give_up(ticket);
        }
        flight.stage = Stage::Due { at: now + pause, server: next };
        if !flight.has_failed_alike() {
            flight.lines.failover(&failed, next);
            if let Some(hear) = &mut self.on_failover {
                hear(&failed, next);
            }
        }
    }

    /// The servers take no more writes of the session that a write was sent in. If no try of it can have been applied, it
    /// goes on in a new session; else nobody will ever know, and it is never sent again.
    fn end_session(&mut self, ticket: Ticket, now: Instant) {
        let Some(flight) = self.flights.get_mut(&ticket) else { return };
        flight.tries.took = now - flight.begun;
        flight.lines.session_ended(&flight.tries);
        if let Request::Write { nonce, .. } = flight.request.request {
            self.session.ended(nonce);
        }
        if flight.tries.may_be_applied || flight.sessions >= SESSIONS_MAX {
            let error = flight.tries.clone().into_error(flight.tries.took);
            return self.finish(ticket, Err(error));
        }
        let Some(flight) = self.flights.remove(&ticket) else { return };
        let Request::Write { op, .. } = flight.request.request else { return };
        let before = Before { label: flight.lines.label(), tries: flight.tries, sessions: flight.sessions + 1 };
        let Flight { begun, deadline, .. } = flight;
        self.unnamed.push_back(Unnamed { ticket, op, begun, deadline, before: Some(before) });
    }

    /// Ends a request without a server's word on it.
    fn give_up(&mut self, ticket: Ticket) {
        let Some(flight) = self.flights.get(&ticket) else { return };
        let error = flight.tries.clone().into_error(flight.begun.elapsed());
        flight.lines.gave_up(&error);
        if flight.tries.last.iter().any(|one| matches!(one.end, TryEnd::NoReply(NoReply::NoData { .. }))) {
            // It is told once, and the client goes on with what there is.
            self.history = None;
        }
        self.finish(ticket, Err(error));
    }

    /// A request has ended.
    fn finish(&mut self, ticket: Ticket, result: Result<Reply, ClientError>) {
        let Some(flight) = self.flights.remove(&ticket) else { return };
        self.numbers.remove(&flight.request.number);
        let took = flight.begun.elapsed();
        if let Request::Write { nonce, sequence, .. } = flight.request.request {
            self.session.end_write(nonce, sequence);
        }
        if self.opening == Some(ticket) {
            self.opening = None;
            return match result {
                Ok(Reply::Opened { session, history }) => self.begin_session(flight, session, history),
                Ok(other) => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
                Err(error) => self.fail_unnamed(&error),
            };
        }
        self.keep_result(ticket, result, took);
    }

    /// The session is open. If its history is not the one that is known, the writes that wait for it hear that first.
    fn begin_session(&mut self, flight: Flight, session: u64, history: u64) {
        if let Request::Open { nonce } = flight.request.request {
            self.session.opened(nonce, session);
        }
        let known = self.history.filter(|known| ![0, *known].contains(&history));
        self.learn_history(history);
        if let (Some(known), Some(server)) = (known, flight.asked_of()) {
            self.history = Some(history);
            let cluster = self.options.cluster.name.clone();
            let end = TryEnd::NoReply(NoReply::OtherHistory { cluster, known, found: history });
            let mut tries = flight.tries;
            tries.push(Try { server, end, took: flight.begun.elapsed() });
            self.fail_unnamed(&tries.into_error(flight.begun.elapsed()));
        }
    }

    /// There is no session to be had: the writes that wait for one have failed.
    fn fail_unnamed(&mut self, error: &ClientError) {
        for write in mem::take(&mut self.unnamed) {
            self.keep_result(write.ticket, Err(error.clone()), write.begun.elapsed());
        }
    }

    fn keep_result(&mut self, ticket: Ticket, result: Result<Reply, ClientError>, took: Duration) {
        self.ended.insert(ticket, (result, took));
    }
}

/// The next server in order of their numbers; after the last comes the first.
fn server_after(cluster: &crate::cluster::Cluster, server: Server) -> Server {
    let servers = cluster.servers();
    servers.iter().find(|next| *next > server).or_else(|| servers.iter().next()).unwrap_or(server)
}
