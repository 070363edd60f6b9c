//! The steps that drive a client's requests: replies, broken connections, tries whose time is up, failover.
//!
//! Nothing here waits. [`ClientCore::poll`] does everything that can be done at this moment. The caller then waits for
//! the connections, at most until [`ClientCore::due`], and calls it again. Requests fail over one by one: a reply
//! without a result moves only its own request to the next server, a broken connection moves all requests that wait on
//! it.

use std::collections::VecDeque;
use std::mem;

use super::in_flight::{InFlight, InFlightState, RetryBackoff, Route, asked, is_answer};
use super::outcome::{ClientError, RequestKind, Tries, Try, TryEnd};
use super::request_trace::RequestTrace;
use super::server_connection::ServerConnection;
use super::session::AssignedWrite;
use super::wire::{ClientObservation, ConnectionState, NoReply, Wire};
use super::{ClientCore, EarlierWrite, Finished, QueuedWrite, RequestHandle};
use crate::net::{ClientReply, ClientRequest, Reply, Request, WhyNotApplied};
use crate::paxos::NotApplied;
use crate::role::{ServerId, ServerSet};
use crate::time::Time;

/// Maximum number of new sessions for one write whose session has ended; then the write fails, for this is no accident.
const SESSIONS_MAX: u32 = 3;

impl ClientCore {
    /// Does everything that needs no waiting: receives, fails over where a try's time is up, and sends.
    pub fn poll(&mut self, now: Time, wire: &mut impl Wire) {
        self.receive(now, wire);
        self.expire_tries(now, wire);
        self.assign_sequences(now, wire);
        self.transmit(now, wire);
        self.close_idle(wire);
    }

    /// When [`ClientCore::poll`] must be called again, even if nothing arrives before.
    pub fn due(&self) -> Option<Time> {
        let flights = self.flights.values().map(InFlight::due);
        flights.chain(self.unnamed.iter().map(|write| write.deadline)).min()
    }

    /// Ends the time of every request now: the client was stopped.
    pub fn end_time(&mut self, now: Time) {
        self.unnamed.iter_mut().for_each(|write| write.deadline = now);
        for flight in self.flights.values_mut() {
            flight.deadline = now;
            let (InFlightState::Due { at: due, .. } | InFlightState::Asked { until: due, .. }) = &mut flight.step;
            *due = now;
        }
    }

    /// Closes connections that no request waits on, except that to the server that the next request goes to.
    fn close_idle(&mut self, wire: &mut impl Wire) {
        if self.peers.len() > 1 {
            let (flights, server) = (&self.flights, self.server);
            let is_waited_for = |server| flights.values().any(|flight| flight.asked_of() == Some(server));
            self.peers.retain(|one| {
                let stays = one.server == server || is_waited_for(one.server);
                if !stays {
                    wire.close(one.server);
                }
                stays
            });
        }
    }

    /// Begins a request that is sent to `server` first.
    pub(super) fn begin(
        &mut self,
        now: Time,
        handle: RequestHandle,
        request: Request,
        route: Route,
        server: ServerId,
        deadline: Time,
    ) {
        // Labels count only requests that have log lines.
        let is_counted = !matches!(
            request,
            Request::Status
                | Request::State { .. }
                | Request::Crash { .. }
                | Request::Restart { .. }
                | Request::Cut { .. }
                | Request::Join { .. }
        );
        self.requests += u64::from(is_counted);
        let tries = Tries::new(self.identity.servers, asked(&request));
        let before = EarlierWrite { label: self.last_label(), tries, sessions: 0 };
        self.begin_as(now, handle, before, request, (route, server), deadline);
    }

    /// As [`ClientCore::begin`], for a request that already has a label and perhaps failed tries.
    fn begin_as(
        &mut self,
        now: Time,
        handle: RequestHandle,
        before: EarlierWrite,
        request: Request,
        (route, server): (Route, ServerId),
        deadline: Time,
    ) {
        let EarlierWrite { label, tries, sessions } = before;
        let lines = RequestTrace::begin(&self.identity.trace, label, &request, server);
        let pauses = RetryBackoff::new(if route == Route::Any { tries.cluster.len() } else { 1 });
        let request = ClientRequest { number: 0, context: lines.context(), request };
        let step = InFlightState::Due { at: now, server };
        let flight = InFlight { request, route, lines, tries, pauses, started: now, deadline, step, sessions };
        self.flights.insert(handle, flight);
    }

    /// Handles the received replies. Replies that arrived before a connection ended still count.
    fn receive(&mut self, now: Time, wire: &mut impl Wire) {
        let mut replies = mem::take(&mut self.replies);
        let mut at = 0;
        while let Some(peer) = self.peers.get_mut(at) {
            let server = peer.server;
            let mut end = wire.receive(server, &mut replies);
            if !replies.is_empty() {
                peer.hears(now);
            }
            if let ConnectionState::Ready { history } = wire.stage(server) {
                peer.set_history(history);
            }
            let history = peer.history();
            let mut is_believed = true;
            for reply in replies.drain(..) {
                // After one invalid reply, the server's further replies are ignored and its connection is closed.
                if is_believed && let Err(no_reply) = self.handle_reply(now, server, reply, wire) {
                    (is_believed, end) = (false, Err(no_reply));
                }
            }
            self.learn_history(history);
            match end {
                Ok(()) => at += 1,
                Err(no_reply) => self.connection_lost(now, server, &no_reply, wire),
            }
        }
        self.replies = replies;
    }

    /// Stores the history that is reported first.
    fn learn_history(&mut self, history: u64) {
        if self.history.is_none() && history != 0 {
            self.history = Some(history);
        }
    }

    fn peer(&mut self, server: ServerId) -> Option<&mut ServerConnection> {
        self.peers.iter_mut().find(|one| one.server == server)
    }

    /// Handles one reply. An error means that the server should not have sent it.
    fn handle_reply(
        &mut self,
        now: Time,
        server: ServerId,
        reply: ClientReply,
        wire: &mut impl Wire,
    ) -> Result<(), NoReply> {
        let Some(handle) = self.numbers.get(&reply.number).copied() else {
            return self.handle_unrequested(server, &reply, wire);
        };
        let Some(flight) = self.flights.get(&handle).filter(|flight| flight.asked_of() == Some(server)) else {
            return self.handle_unrequested(server, &reply, wire);
        };
        if !is_answer(&flight.request.request, &reply.reply) {
            return Err(NoReply::Malformed {
                length: 0,
                what: "a reply of the wrong kind for the request".to_string(),
            });
        }
        if let Some(peer) = self.peers.iter_mut().find(|one| one.server == server) {
            // A server that applied a write of this session, or its OPEN, has the history in which the session was
            // opened.
            match reply.reply {
                Reply::Opened { history, .. } => peer.set_history(history),
                Reply::Applied { .. } => peer.set_history(self.history.unwrap_or_default()),
                _ => {}
            }
            // The server reported no data when it was greeted, but this client knows a history. The server may still
            // have to catch up: ask the next one, and connect to this one again.
            if matches!(reply.reply, Reply::Value { .. }) && self.history.is_some() && peer.history() == 0 {
                return Err(NoReply::NoData { cluster: self.identity.cluster.clone() });
            }
        }
        match reply.reply {
            Reply::NotApplied(why) => {
                let busy = matches!(why, WhyNotApplied::Busy | WhyNotApplied::Proposer(NotApplied::Busy));
                self.busy += u64::from(busy);
                self.try_failed(now, handle, TryEnd::NotApplied(why), wire);
            }
            Reply::Unknown(why) => self.try_failed(now, handle, TryEnd::Unknown(why), wire),
            // Every server would refuse the request, but an earlier try may have applied it. Only a server's NotApplied
            // is proof that it was not applied.
            Reply::Refused(_) if flight.tries.may_be_applied => self.give_up(now, handle),
            _ => {
                flight.lines.replied(&reply, server, now.since(flight.started));
                let result = match reply.reply {
                    Reply::Refused(why) => Err(ClientError::Refused { server, why }),
                    reply => Ok(reply),
                };
                self.finish(now, handle, result);
            }
        }
        Ok(())
    }

    /// Handles a reply without a waiting request: the reply to a try that was given up, or to nothing that was asked.
    fn handle_unrequested(&mut self, server: ServerId, reply: &ClientReply, wire: &impl Wire) -> Result<(), NoReply> {
        let Some(peer) = self.peers.iter_mut().find(|one| one.server == server) else { return Ok(()) };
        if peer.takes_late(reply.number) {
            return Ok(());
        }
        let of_server = |flight: &&InFlight| flight.asked_of() == Some(server);
        if let Some(flight) = self.flights.values().find(of_server) {
            flight.lines.unrequested(reply, (server, wire.address(server)), flight.request.number);
        }
        peer.count_unrequested()
    }

    /// Closes a connection that failed: the tries that wait on it have failed too.
    fn connection_lost(&mut self, now: Time, server: ServerId, no_reply: &NoReply, wire: &mut impl Wire) {
        let Some(at) = self.peers.iter().position(|one| one.server == server) else { return };
        self.peers.swap_remove(at);
        let (sent, address) = (wire.sent(server), wire.address(server));
        wire.close(server);
        let of_server = |(_, flight): &(&RequestHandle, &InFlight)| flight.asked_of() == Some(server);
        let waiting: Vec<RequestHandle> = self.flights.iter().filter(of_server).map(|(handle, _)| *handle).collect();
        for handle in waiting {
            let Some(flight) = self.flights.get(&handle) else { continue };
            flight.lines.malformed(no_reply, address);
            let InFlightState::Asked { queued, .. } = flight.step else { continue };
            // A request that was not sent completely cannot have been understood.
            let end = match no_reply {
                end if sent >= queued || !end.may_have_arrived() => end.clone(),
                NoReply::Broken { why } | NoReply::Malformed { what: why, .. } => NoReply::NotSent { why: why.clone() },
                _ => NoReply::NotSent { why: "the connection was closed because of another request".to_string() },
            };
            self.try_failed(now, handle, TryEnd::NoReply(end), wire);
        }
    }

    /// Ends tries whose time is up, and sends those that are due.
    fn expire_tries(&mut self, now: Time, wire: &mut impl Wire) {
        let is_due = |(_, flight): &(&RequestHandle, &InFlight)| flight.due() <= now;
        let due: Vec<RequestHandle> = self.flights.iter().filter(is_due).map(|(handle, _)| *handle).collect();
        for handle in due {
            // An earlier one in this loop may have ended this request too, with its connection.
            match self.flights.get(&handle).map(|flight| flight.step) {
                Some(InFlightState::Asked { server, queued, since, until }) if until <= now => {
                    self.time_is_up(now, handle, (server, queued, since), wire);
                }
                Some(InFlightState::Due { at, server }) if at <= now => self.send_try(now, handle, server, wire),
                _ => {}
            }
        }
    }

    /// A server has not answered a try in time. If the server has answered other requests since, only this request
    /// moves to the next server; otherwise the connection is closed. A try cut short because its request has no more
    /// time proves nothing about the connection: other requests stay on it.
    fn time_is_up(
        &mut self,
        now: Time,
        handle: RequestHandle,
        (server, queued, since): (ServerId, u64, Time),
        wire: &mut impl Wire,
    ) {
        let (waited, try_timeout) = (now.since(since), self.identity.try_timeout);
        let (stage, is_sent) = (wire.stage(server), wire.sent(server) >= queued);
        let number = self.flights.get(&handle).map_or(0, |flight| flight.request.number);
        let Some(peer) = self.peer(server) else { return };
        if !matches!(stage, ConnectionState::Ready { .. }) {
            let late = peer.late(stage, now);
            return self.connection_lost(now, server, &late, wire);
        }
        let silent = TryEnd::NoReply(NoReply::TimedOut { waited });
        let is_alone = waited < try_timeout || peer.has_answered_since(since);
        // An incompletely sent request cannot be withdrawn while the connection stays open.
        if is_sent && is_alone && peer.give_up(number) {
            return self.try_failed(now, handle, silent, wire);
        }
        if is_sent {
            self.try_failed(now, handle, silent, wire);
        }
        self.connection_lost(now, server, &NoReply::Broken { why: format!("no data from it for {waited:.1?}") }, wire);
    }

    /// Sends a request to a server, on the existing connection or a new one.
    pub(super) fn send_try(&mut self, now: Time, handle: RequestHandle, server: ServerId, wire: &mut impl Wire) {
        let try_timeout = self.identity.try_timeout;
        let Some(flight) = self.flights.get_mut(&handle) else { return };
        if !flight.has_time(now, try_timeout) {
            return self.give_up(now, handle);
        }
        self.frames += 1;
        flight.request.number = self.frames;
        flight.request.context = flight.lines.context();
        self.numbers.insert(self.frames, handle);
        let until = flight.deadline.min(now + try_timeout);
        flight.step = InFlightState::Asked { server, queued: 0, since: now, until };
        if !self.peers.iter().any(|one| one.server == server) {
            if let Err(no_reply) = wire.open(server, self.history.unwrap_or_default()) {
                return self.try_failed(now, handle, TryEnd::NoReply(no_reply), wire);
            }
            self.peers.push(ServerConnection::new(server, now));
        }
        let queued = wire.queue(server, &flight.request);
        flight.step = InFlightState::Asked { server, queued, since: now, until };
    }

    /// Gives sequences to the waiting writes, and first opens a session if there is none.
    pub(super) fn assign_sequences(&mut self, now: Time, wire: &mut impl Wire) {
        if self.unnamed.iter().any(|write| write.deadline <= now) {
            let (late, others) = mem::take(&mut self.unnamed).into_iter().partition(|write| write.deadline <= now);
            self.unnamed = others;
            self.fail_late(late, now);
        }
        while !self.unnamed.is_empty() {
            let Some(id) = self.session.begin_write() else { break };
            let Some(QueuedWrite { handle, op, started, deadline, before }) = self.unnamed.pop_front() else { return };
            wire.observe(ClientObservation::Named { handle, id });
            let AssignedWrite { session, nonce, sequence, first_open } = id;
            let request = Request::Write { session, nonce, sequence, first_open, op };
            let server = self.server;
            match before {
                None => self.begin(now, handle, request, Route::Any, server, deadline),
                Some(before) => self.begin_as(now, handle, before, request, (Route::Any, server), deadline),
            }
            if let Some(flight) = self.flights.get_mut(&handle) {
                // The caller's wait began when the write was queued, not now.
                flight.started = started;
            }
            self.send_try(now, handle, server, wire);
        }
        if let Some(patience) = self.unnamed.iter().map(|write| write.deadline).max() {
            self.open_session(now, patience, wire);
        }
    }

    /// Opens a session by `deadline`, if there is none. The first write does this by itself.
    pub fn open_session(&mut self, now: Time, deadline: Time, wire: &mut impl Wire) {
        if let (Some(nonce), None) = (self.session.is_opening(), self.opening) {
            let (handle, server) = (self.next_handle(), self.server);
            self.begin(now, handle, Request::Open { nonce }, Route::Any, server, deadline);
            self.opening = Some(handle);
            self.send_try(now, handle, server, wire);
        }
    }

    /// Fails writes whose time was up before they had a sequence.
    fn fail_late(&mut self, late: VecDeque<QueuedWrite>, now: Time) {
        for write in late {
            let new = || Tries::new(self.identity.servers, RequestKind::Session);
            let tries = write.before.map_or_else(new, |before| before.tries);
            let took = now.since(write.started);
            self.ended.insert(write.handle, Finished { result: Err(tries.into_error(took)), took });
        }
    }

    /// Sends queued requests as far as the connections accept them.
    pub fn transmit(&mut self, now: Time, wire: &mut impl Wire) {
        let mut at = 0;
        while let Some(server) = self.peers.get(at).map(|one| one.server) {
            match wire.transmit(server) {
                Ok(()) => at += 1,
                Err(no_reply) => self.connection_lost(now, server, &no_reply, wire),
            }
        }
    }

    /// Handles a failed try: asks the next server, if there is time and another try makes sense.
    fn try_failed(&mut self, now: Time, handle: RequestHandle, end: TryEnd, wire: &mut impl Wire) {
        let Some(flight) = self.flights.get_mut(&handle) else { return };
        let InFlightState::Asked { server, since, .. } = flight.step else { return };
        self.numbers.remove(&flight.request.number);
        let failed = Try { server, end, took: now.since(since) };
        if let TryEnd::NoReply(NoReply::OtherHistory { found, .. }) = failed.end
            && self.history != Some(found)
        {
            // The caller gets this error once; the client then continues with the new history.
            self.history = Some(found);
            self.session.drop_any();
            flight.tries.push(failed);
            return self.give_up(now, handle);
        }
        let pause = flight.pauses.after(failed.took, &mut self.random);
        flight.tries.push(failed.clone());
        if failed.end.ends_session() {
            return self.end_session(now, handle, wire);
        }
        let next = match flight.route {
            Route::One => server,
            Route::Any => {
                // Another request that failed there may have moved on already: skip no server.
                if self.server == server {
                    self.server = server_after(self.identity.servers, server);
                }
                self.server
            }
        };
        if !flight.has_time(now + pause, self.identity.try_timeout) {
            return self.give_up(now, handle);
        }
        flight.step = InFlightState::Due { at: now + pause, server: next };
        if !flight.has_failed_alike() {
            flight.lines.failover(&failed, next);
            wire.observe(ClientObservation::FailedOver { failed: &failed, next });
        }
    }

    /// Handles the end of the session that a write was sent in: the servers take no more writes of it. If no try can
    /// have been applied, the write continues in a new session. Otherwise its outcome stays unknown, and it is never
    /// sent again.
    fn end_session(&mut self, now: Time, handle: RequestHandle, wire: &mut impl Wire) {
        let Some(flight) = self.flights.get_mut(&handle) else { return };
        flight.tries.took = now.since(flight.started);
        flight.lines.session_ended(&flight.tries);
        if let Request::Write { nonce, .. } = flight.request.request {
            self.session.ended(nonce);
        }
        if flight.tries.may_be_applied || flight.sessions >= SESSIONS_MAX {
            let error = flight.tries.clone().into_error(flight.tries.took);
            return self.finish(now, handle, Err(error));
        }
        let Some(flight) = self.flights.remove(&handle) else { return };
        let Request::Write { op, .. } = flight.request.request else { return };
        wire.observe(ClientObservation::Unnamed { handle });
        let before = EarlierWrite { label: flight.lines.label(), tries: flight.tries, sessions: flight.sessions + 1 };
        let InFlight { started, deadline, .. } = flight;
        self.unnamed.push_back(QueuedWrite { handle, op, started, deadline, before: Some(before) });
    }

    /// Ends a request without a result from a server.
    fn give_up(&mut self, now: Time, handle: RequestHandle) {
        let Some(flight) = self.flights.get(&handle) else { return };
        let error = flight.tries.clone().into_error(now.since(flight.started));
        flight.lines.gave_up(&error);
        let has_no_data = |one: &Try| matches!(one.end, TryEnd::NoReply(NoReply::NoData { .. }));
        if matches!(flight.request.request, Request::Get { .. }) && flight.tries.last.iter().any(has_no_data) {
            // The caller gets this error once; the client then continues with the data there are.
            self.history = None;
        }
        self.finish(now, handle, Err(error));
    }

    /// Stores the result of a request that has ended.
    fn finish(&mut self, now: Time, handle: RequestHandle, result: Result<Reply, ClientError>) {
        let Some(flight) = self.flights.remove(&handle) else { return };
        self.numbers.remove(&flight.request.number);
        if let Request::Write { nonce, sequence, .. } = flight.request.request {
            self.session.end_write(nonce, sequence);
        }
        if self.opening == Some(handle) {
            self.opening = None;
            return match result {
                Ok(Reply::Opened { session, history }) => self.begin_session(now, flight, session, history),
                Ok(other) => unreachable!("a reply of the wrong kind is malformed: {other:?}"),
                Err(error) => self.fail_queued(now, &error),
            };
        }
        self.ended.insert(handle, Finished { result, took: now.since(flight.started) });
    }

    /// Handles an opened session. If its history is not the known one, the waiting writes fail with that error first.
    fn begin_session(&mut self, now: Time, flight: InFlight, session: u64, history: u64) {
        if let Request::Open { nonce } = flight.request.request {
            self.session.opened(nonce, session);
        }
        let known = self.history.filter(|known| ![0, *known].contains(&history));
        self.learn_history(history);
        if let (Some(known), Some(server)) = (known, flight.asked_of()) {
            self.history = Some(history);
            let cluster = self.identity.cluster.clone();
            let end = TryEnd::NoReply(NoReply::OtherHistory { cluster, known, found: history });
            let (mut tries, took) = (flight.tries, now.since(flight.started));
            tries.push(Try { server, end, took });
            self.fail_queued(now, &tries.into_error(took));
        }
    }

    /// Fails the writes that wait for a session: it could not be opened.
    fn fail_queued(&mut self, now: Time, error: &ClientError) {
        for write in mem::take(&mut self.unnamed) {
            let took = now.since(write.started);
            self.ended.insert(write.handle, Finished { result: Err(error.clone()), took });
        }
    }
}

/// The next server by number; after the last follows the first.
fn server_after(servers: ServerSet, server: ServerId) -> ServerId {
    servers.iter().find(|next| *next > server).or_else(|| servers.iter().next()).unwrap_or(server)
}
