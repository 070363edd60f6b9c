//! What drives the requests of a client: connections that answer or break, tries whose time is up, the next server.
//!
//! Nothing here waits. [`ClientCore::progress`] does what can be done at this moment; whoever has nothing else to do
//! waits for the connections until [`ClientCore::due`] and calls it again. Requests fail over one by one: a reply that
//! brings nothing moves its own request to the next server, a connection that breaks moves all that wait on it.

use std::collections::VecDeque;
use std::mem;

use super::in_flight::{InFlight, InFlightState, RetryBackoff, Route, asked, is_answer};
use super::outcome::{ClientError, RequestKind, Tries, Try, TryEnd};
use super::request_trace::RequestTrace;
use super::server_connection::ServerConnection;
use super::session::AssignedWrite;
use super::wire::{ClientObservation, ConnectionState, NoReply, Wire};
use super::{ClientCore, EarlierWrite, Finished, QueuedWrite, RequestHandle};
use crate::host::Time;
use crate::net::{ClientReply, ClientRequest, Reply, Request, WhyNotApplied};
use crate::paxos::NotApplied;
use crate::role::{ServerId, ServerSet};

/// At most this many new sessions are opened for one write whose session has ended: more than that is no accident.
const SESSIONS_MAX: u32 = 3;

impl ClientCore {
    /// Does what can be done now: receives, turns to the next server where time is up, and sends.
    pub fn poll(&mut self, now: Time, wire: &mut impl Wire) {
        self.receive(now, wire);
        self.expire_tries(now, wire);
        self.assign_sequences(now, wire);
        self.transmit(now, wire);
        self.close_idle(wire);
    }

    /// When [`ClientCore::progress`] must be called again, even if nothing comes before.
    pub fn due(&self) -> Option<Time> {
        let flights = self.flights.values().map(InFlight::due);
        flights.chain(self.unnamed.iter().map(|write| write.deadline)).min()
    }

    /// Nobody wants to wait any longer: the time of every request is up.
    pub fn end_time(&mut self, now: Time) {
        self.unnamed.iter_mut().for_each(|write| write.deadline = now);
        for flight in self.flights.values_mut() {
            flight.deadline = now;
            let (InFlightState::Due { at: due, .. } | InFlightState::Asked { until: due, .. }) = &mut flight.step;
            *due = now;
        }
    }

    /// Keeps no connection but those that a request waits on, and the one that the next request goes out on.
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

    /// Begins a request that is sent to this server first.
    pub(super) fn begin(
        &mut self,
        now: Time,
        handle: RequestHandle,
        request: Request,
        reach: Route,
        server: ServerId,
        deadline: Time,
    ) {
        // People count the requests that lines tell of.
        let is_counted = !matches!(
            request,
            Request::Status | Request::State { .. } | Request::Crash { .. } | Request::Restart { .. }
        );
        self.requests += u64::from(is_counted);
        let tries = Tries::new(self.identity.servers, asked(&request));
        let before = EarlierWrite { label: self.last_label(), tries, sessions: 0 };
        self.begin_as(now, handle, before, request, (reach, server), deadline);
    }

    /// As [`ClientCore::begin`], for a request that people know by a label and that has been tried before.
    fn begin_as(
        &mut self,
        now: Time,
        handle: RequestHandle,
        before: EarlierWrite,
        request: Request,
        (reach, server): (Route, ServerId),
        deadline: Time,
    ) {
        let EarlierWrite { label, tries, sessions } = before;
        let lines = RequestTrace::begin(&self.identity.trace, label, &request, server);
        let pauses = RetryBackoff::new(if reach == Route::Any { tries.cluster.len() } else { 1 });
        let request = ClientRequest { number: 0, context: lines.context(), request };
        let step = InFlightState::Due { at: now, server };
        let flight = InFlight { request, reach, lines, tries, pauses, begun: now, deadline, step, sessions };
        self.flights.insert(handle, flight);
    }

    /// Takes what the servers have said. What came before a connection ended still counts.
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
                // A server that says one wrong thing is not listened to any longer.
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

    /// Which history the data are of is news once.
    fn learn_history(&mut self, history: u64) {
        if self.history.is_none() && history != 0 {
            self.history = Some(history);
        }
    }

    fn peer(&mut self, server: ServerId) -> Option<&mut ServerConnection> {
        self.peers.iter_mut().find(|one| one.server == server)
    }

    /// One reply. An error is one that this server should not have sent.
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
            return Err(NoReply::Malformed { length: 0, what: "a reply of another kind than was asked".to_string() });
        }
        if let Some(peer) = self.peers.iter_mut().find(|one| one.server == server) {
            // Who has applied a write of this session, or opened it, has the history in which it was opened.
            match reply.reply {
                Reply::Opened { history, .. } => peer.set_history(history),
                Reply::Applied { .. } => peer.set_history(self.history.unwrap_or_default()),
                _ => {}
            }
            // The data of this server were empty when it was greeted, and this client has known others. It may be about
            // to catch up: so the next one is asked, and this one greeted again.
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
            // It would be refused everywhere, but an earlier try may have been applied: only a server's word that it is
            // not applied may be taken for that.
            Reply::Refused(_) if flight.tries.may_be_applied => self.give_up(now, handle),
            _ => {
                flight.lines.replied(&reply, server, now.since(flight.begun));
                let result = match reply.reply {
                    Reply::Refused(why) => Err(ClientError::Refused { server, why }),
                    reply => Ok(reply),
                };
                self.finish(now, handle, result);
            }
        }
        Ok(())
    }

    /// A reply that nobody waits for: to a try that was given up, or to nothing at all.
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

    /// A connection is of no more use: the tries that wait on it have ended.
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
            // What was not sent as a whole no server can have understood.
            let end = match no_reply {
                end if sent >= queued || !end.may_have_arrived() => end.clone(),
                NoReply::Broken { why } | NoReply::Malformed { what: why, .. } => NoReply::NotSent { why: why.clone() },
                _ => NoReply::NotSent { why: "its data were of no use to another request".to_string() },
            };
            self.try_failed(now, handle, TryEnd::NoReply(end), wire);
        }
    }

    /// Ends tries whose time is up, and begins those that are due.
    fn expire_tries(&mut self, now: Time, wire: &mut impl Wire) {
        let is_due = |(_, flight): &(&RequestHandle, &InFlight)| flight.due() <= now;
        let due: Vec<RequestHandle> = self.flights.iter().filter(is_due).map(|(handle, _)| *handle).collect();
        for handle in due {
            // Another one of these may have taken it along.
            match self.flights.get(&handle).map(|flight| flight.step) {
                Some(InFlightState::Asked { server, queued, since, until }) if until <= now => {
                    self.time_is_up(now, handle, (server, queued, since), wire);
                }
                Some(InFlightState::Due { at, server }) if at <= now => self.send_try(now, handle, server, wire),
                _ => {}
            }
        }
    }

    /// A server has not answered a try in time. If it has answered others since, this request alone goes on to the next
    /// server; else its connection is given up. A try that had to be short, as its request has no more time, says
    /// nothing of the connection: the others stay on it.
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
        // What was not sent yet cannot be taken back on a connection that goes on.
        if is_sent && is_alone && peer.give_up(number) {
            return self.try_failed(now, handle, silent, wire);
        }
        if is_sent {
            self.try_failed(now, handle, silent, wire);
        }
        self.connection_lost(
            now,
            server,
            &NoReply::Broken { why: format!("nothing came from it for {waited:.1?}") },
            wire,
        );
    }

    /// Sends a request to a server, over the connection there is or a new one.
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

    /// Names the writes that wait for it, in a session that is opened first if there is none.
    pub(super) fn assign_sequences(&mut self, now: Time, wire: &mut impl Wire) {
        if self.unnamed.iter().any(|write| write.deadline <= now) {
            let (late, others) = mem::take(&mut self.unnamed).into_iter().partition(|write| write.deadline <= now);
            self.unnamed = others;
            self.fail_late(late, now);
        }
        while !self.unnamed.is_empty() {
            let Some(id) = self.session.begin_write() else { break };
            let Some(QueuedWrite { handle, op, begun, deadline, before }) = self.unnamed.pop_front() else { return };
            wire.observe(ClientObservation::Named { handle, id });
            let AssignedWrite { session, nonce, sequence, first_open } = id;
            let request = Request::Write { session, nonce, sequence, first_open, op };
            let server = self.server;
            match before {
                None => self.begin(now, handle, request, Route::Any, server, deadline),
                Some(before) => self.begin_as(now, handle, before, request, (Route::Any, server), deadline),
            }
            if let Some(flight) = self.flights.get_mut(&handle) {
                // Its caller has waited since then.
                flight.begun = begun;
            }
            self.send_try(now, handle, server, wire);
        }
        let patience = self.unnamed.iter().map(|write| write.deadline).max();
        if let (Some(nonce), Some(deadline), None) = (self.session.is_opening(), patience, self.opening) {
            let (handle, server) = (self.next_handle(), self.server);
            self.begin(now, handle, Request::Open { nonce }, Route::Any, server, deadline);
            self.opening = Some(handle);
            self.send_try(now, handle, server, wire);
        }
    }

    /// Writes whose time is up before they had a number.
    fn fail_late(&mut self, late: VecDeque<QueuedWrite>, now: Time) {
        for write in late {
            let new = || Tries::new(self.identity.servers, RequestKind::Session);
            let tries = write.before.map_or_else(new, |before| before.tries);
            let took = now.since(write.begun);
            self.ended.insert(write.handle, Finished { result: Err(tries.into_error(took)), took });
        }
    }

    /// Sends what is queued, as far as the connections take it.
    pub fn transmit(&mut self, now: Time, wire: &mut impl Wire) {
        let mut at = 0;
        while let Some(server) = self.peers.get(at).map(|one| one.server) {
            match wire.transmit(server) {
                Ok(()) => at += 1,
                Err(no_reply) => self.connection_lost(now, server, &no_reply, wire),
            }
        }
    }

    /// A try has brought nothing: the next server is asked, if there is time for that and sense in it.
    fn try_failed(&mut self, now: Time, handle: RequestHandle, end: TryEnd, wire: &mut impl Wire) {
        let Some(flight) = self.flights.get_mut(&handle) else { return };
        let InFlightState::Asked { server, since, .. } = flight.step else { return };
        self.numbers.remove(&flight.request.number);
        let failed = Try { server, end, took: now.since(since) };
        if let TryEnd::NoReply(NoReply::OtherHistory { found, .. }) = failed.end
            && self.history != Some(found)
        {
            // It is told once, and the client goes on with what there is now.
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
        let next = match flight.reach {
            Route::One => server,
            Route::Any => {
                // Another request that has failed there may have moved on already: no server is skipped.
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

    /// The servers take no more writes of the session that a write was sent in. If no try of it can have been applied,
    /// it goes on in a new session; else nobody will ever know, and it is never sent again.
    fn end_session(&mut self, now: Time, handle: RequestHandle, wire: &mut impl Wire) {
        let Some(flight) = self.flights.get_mut(&handle) else { return };
        flight.tries.took = now.since(flight.begun);
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
        let InFlight { begun, deadline, .. } = flight;
        self.unnamed.push_back(QueuedWrite { handle, op, begun, deadline, before: Some(before) });
    }

    /// Ends a request without a server's word on it.
    fn give_up(&mut self, now: Time, handle: RequestHandle) {
        let Some(flight) = self.flights.get(&handle) else { return };
        let error = flight.tries.clone().into_error(now.since(flight.begun));
        flight.lines.gave_up(&error);
        let has_no_data = |one: &Try| matches!(one.end, TryEnd::NoReply(NoReply::NoData { .. }));
        if matches!(flight.request.request, Request::Get { .. }) && flight.tries.last.iter().any(has_no_data) {
            // It is told once, and the client goes on with what there is.
            self.history = None;
        }
        self.finish(now, handle, Err(error));
    }

    /// A request has ended.
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
        self.ended.insert(handle, Finished { result, took: now.since(flight.begun) });
    }

    /// The session is open. If its history is not the one that is known, the writes that wait for it hear that first.
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
            let (mut tries, took) = (flight.tries, now.since(flight.begun));
            tries.push(Try { server, end, took });
            self.fail_queued(now, &tries.into_error(took));
        }
    }

    /// There is no session to be had: the writes that wait for one have failed.
    fn fail_queued(&mut self, now: Time, error: &ClientError) {
        for write in mem::take(&mut self.unnamed) {
            let took = now.since(write.begun);
            self.ended.insert(write.handle, Finished { result: Err(error.clone()), took });
        }
    }
}

/// The next server in order of their numbers; after the last comes the first.
fn server_after(servers: ServerSet, server: ServerId) -> ServerId {
    servers.iter().find(|next| *next > server).or_else(|| servers.iter().next()).unwrap_or(server)
}
