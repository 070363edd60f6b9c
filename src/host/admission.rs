//! Admission: decides whether this server may take part in the protocol.
//!
//! An acceptor's promises are on its disk and nowhere else. A server that has lost its data directory comes back with a
//! new one, like a server that was never there. It must not vote with the new one, since it has forgotten its promises.
//! Peers that recorded the old data directory refuse the new one. But peers that never met the server while it had the
//! old one cannot tell the difference.
//!
//! So a server with a new data directory stays *pending*: it neither sends nor receives messages until enough peers
//! have durably recorded its storage id. [`Quorums::witnesses`](crate::paxos::Quorums::witnesses) is that number of
//! peers. It is so large that never again can as many peers record another data directory as this server's first.
//!
//! A server whose replica was found to be divergent does not take part either, for the rest of this incarnation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config::Config;
use super::core::{Fatal, ServerCore};
use super::cut_links;
use super::limits::ClientConnection;
use super::rules;
use crate::net::{AdmissionStatus, Caller, Hello, HelloReply, Welcome, WhyNotApplied};
use crate::paxos::Quorums;
use crate::role::{ServerId, ServerSet};
use crate::storage::admission::Claim;
use crate::storage::data_dir::DirStorage;
use crate::storage::identity::Admitted;
use crate::storage::{DataDir, DataDirError};

/// The admission of a server. Any thread may read it.
#[derive(Debug)]
pub struct Admission {
    is_active: AtomicBool,
    state: Mutex<AdmissionState>,
    /// The last claim of each server number that its caller has not proved yet.
    claims: Mutex<BTreeMap<ServerId, Claim>>,
}

#[derive(Clone, Copy, Debug)]
enum AdmissionState {
    /// The data directory is new: the peers that recorded it, and how many must.
    New { known_to: ServerSet, needed: usize },
    /// The server takes part.
    Member,
    /// The server's replica is divergent.
    Fenced,
}

impl Admission {
    /// A server that takes part.
    pub fn active() -> Admission {
        Admission::new(true, AdmissionState::Member)
    }

    /// A pending server, which needs `needed` witnesses.
    pub fn pending(needed: usize) -> Admission {
        let state = AdmissionState::New { known_to: ServerSet::NONE, needed };
        Admission::new(rules::pending_server_is_active(), state)
    }

    fn new(is_active: bool, state: AdmissionState) -> Admission {
        Admission { is_active: AtomicBool::new(is_active), state: Mutex::new(state), claims: Mutex::default() }
    }

    /// The admission of a server at its start. A server that has taken part with this data directory continues; a new
    /// one is pending until enough peers have recorded it.
    pub fn of<P: DirStorage>(data_dir: &DataDir<P>, quorums: Quorums) -> Result<Admission, DataDirError> {
        if quorums.witnesses() == 0 {
            data_dir.set_active()?;
        }
        Ok(if data_dir.is_active() { Admission::active() } else { Admission::pending(quorums.witnesses()) })
    }

    /// Whether the server may send and receive messages.
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// A peer has recorded this server's storage id. Once enough peers have, `remember` must make that durable; if it
    /// succeeds, the server takes part from now on. True if that has just begun.
    pub fn record_witness<E>(&self, peer: ServerId, remember: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
        let mut state = self.state();
        let AdmissionState::New { known_to, needed } = &mut *state else { return Ok(false) };
        known_to.insert(peer);
        if known_to.len() < *needed {
            return Ok(false);
        }
        remember()?;
        *state = AdmissionState::Member;
        self.is_active.store(true, Ordering::Release);
        Ok(true)
    }

    /// Fences the server: its replica is divergent.
    pub fn fence(&self) {
        *self.state() = AdmissionState::Fenced;
        self.is_active.store(false, Ordering::Release);
    }

    /// Why the server refuses clients; None if it serves them.
    pub fn refusal(&self) -> Option<WhyNotApplied> {
        if self.is_active() {
            return None;
        }
        match *self.state() {
            AdmissionState::New { .. } => Some(WhyNotApplied::NotAdmitted),
            AdmissionState::Member => None,
            AdmissionState::Fenced => Some(WhyNotApplied::Fenced),
        }
    }

    /// What a pending server waits for.
    pub fn pending_status(&self) -> Option<AdmissionStatus> {
        match *self.state() {
            AdmissionState::New { known_to, needed } => {
                Some(AdmissionStatus { witnesses: known_to, needed: needed as u8 })
            }
            AdmissionState::Member | AdmissionState::Fenced => None,
        }
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<ServerId, Claim>> {
        // Every change is one step.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        // Every change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason for a client when the server has too many clients.
pub const TOO_MANY: &str = "too many clients; try another server";

/// The decision of a server about a peer's HELLO.
#[derive(Debug)]
pub struct HelloDecision {
    /// The answer to the HELLO.
    pub answer: HelloReply,
    /// The server that this server must call now: the caller claims to be that server, or has just proved it.
    pub call: Option<ServerId>,
}

impl<C: ClientConnection> ServerCore<C> {
    /// The HELLO of this server to a peer. The peer's own storage id proves the caller: the peer sent it only to the
    /// address of this server. A recorded data directory that takes part is final, whatever others claim. Of a
    /// candidate and a later claim, either may be the peer's, so attempts alternate between them. A stranger that
    /// claims again and again therefore cannot keep this server from the peer that it knows.
    pub fn hello<P: DirStorage>(&self, data_dir: &DataDir<P>, to: ServerId, attempt: u32) -> Hello {
        let known = data_dir.recorded_peer(to);
        let is_claim_worth = known.is_none_or(|known| !known.bound && attempt.is_multiple_of(2));
        let claimed = self.admission.claims().get(&to).filter(|_| is_claim_worth).map(|claim| claim.storage);
        let knows = claimed.or(known.map(|known| known.storage));
        let who = Caller::Peer {
            server: self.config.me,
            storage: data_dir.storage_id(),
            incarnation: data_dir.incarnation(),
            boot: self.config.boot,
            is_active: data_dir.is_active(),
            knows,
        };
        Hello { cluster: self.config.name.clone(), to, members: self.config.cluster, who }
    }

    /// Checks the fields of a HELLO that every caller must get right.
    pub fn check_hello(&self, hello: &Hello) -> Result<(), String> {
        let Config { name, me, cluster, .. } = &self.config;
        if hello.cluster != *name {
            return Err(format!("this is cluster {name:?}, not {:?}", hello.cluster));
        }
        if hello.to != *me {
            return Err(format!("this is server {}, not {}", me.0, hello.to.0));
        }
        if hello.members != *cluster {
            let caller = match hello.who {
                Caller::Client => "the client's cluster file".to_string(),
                Caller::Peer { server, .. } => format!("server {}'s cluster file", server.0),
            };
            return Err(other_members(&caller, hello.members, &format!("server {}'s", me.0), *cluster));
        }
        Ok(())
    }

    /// The answer to a caller at the client port, if there is room for one more client.
    pub fn judge_client(&self, hello: &Hello, has_place: impl FnOnce() -> bool) -> HelloReply {
        let refused = |why: &str| HelloReply::Refused { why: why.to_string() };
        match (self.check_hello(hello), &hello.who) {
            (Err(why), _) => HelloReply::Refused { why },
            (Ok(()), Caller::Peer { .. }) => refused("this is the address for clients; servers use the peer address"),
            (Ok(()), Caller::Client) if has_place() => self.welcome(),
            (Ok(()), Caller::Client) => refused(TOO_MANY),
        }
    }

    /// The decision about a caller at the port for servers. A caller that has proved its identity is admitted. Any
    /// other caller is called back, and can then prove it.
    pub fn judge<P: DirStorage>(&self, data_dir: &DataDir<P>, hello: &Hello) -> Result<HelloDecision, Fatal> {
        let refused = |why| Ok(HelloDecision { answer: HelloReply::Refused { why }, call: None });
        if let Err(why) = self.check_hello(hello) {
            return refused(why);
        }
        match hello.who {
            Caller::Client => refused("this is the address for servers; clients use the client address".to_string()),
            Caller::Peer { server, .. } if server == self.config.me || !self.config.cluster.contains(server) => {
                refused(format!("no peer in this cluster has the number {}", server.0))
            }
            Caller::Peer { server, .. } if self.linked.is_cut(server) => {
                refused(cut_links::refusal(self.config.me, server))
            }
            Caller::Peer { server, storage, incarnation, boot, is_active, knows } => {
                self.admit(data_dir, Claim { server, storage, incarnation, boot, is_active, knows })
            }
        }
    }

    fn admit<P: DirStorage>(&self, data_dir: &DataDir<P>, claim: Claim) -> Result<HelloDecision, Fatal> {
        let admitted = rules::admitted(match data_dir.admit(&claim) {
            Err(error) => Err(survived(&error)?),
            Ok(admitted) => Ok(admitted),
        });
        let is_news = match &admitted {
            Ok(Admitted::Yes) => {
                self.admission.claims().remove(&claim.server);
                true
            }
            // A refused claim is kept too: the recorded data directory may be replaced later.
            Ok(Admitted::CallBack) | Err(_) => self.admission.claims().insert(claim.server, claim) != Some(claim),
        };
        let answer = match admitted {
            Ok(Admitted::Yes) => self.welcome(),
            Ok(Admitted::CallBack) => HelloReply::CallBackFirst,
            Err(why) => HelloReply::Refused { why },
        };
        Ok(HelloDecision { answer, call: is_news.then_some(claim.server) })
    }

    /// The WELCOME of this server to an admitted caller.
    pub fn welcome(&self) -> HelloReply {
        HelloReply::Welcome(Welcome { history: self.shared_status.read().history, members: self.config.cluster })
    }

    /// A peer has welcomed this server in reply to `hello`, so the peer has durably recorded this server's storage id.
    /// The welcome proves that the peer's storage id is the one in `hello`. True if this server takes part from now on
    /// because of it; the inner error is why this server refuses the peer.
    pub fn welcomed<P: DirStorage>(
        &self,
        data_dir: &DataDir<P>,
        peer: ServerId,
        hello: &Hello,
        welcome: &Welcome,
    ) -> Result<Result<bool, String>, Fatal> {
        let cluster = self.config.cluster;
        if welcome.members != cluster {
            let theirs = format!("server {}'s cluster file", peer.0);
            return Ok(Err(other_members(&theirs, welcome.members, "this one's", cluster)));
        }
        let Caller::Peer { knows: Some(knows), .. } = hello.who else {
            return Ok(Err("the peer sent WELCOME, but HELLO did not name its storage id".to_string()));
        };
        if data_dir.recorded_peer(peer).is_some_and(|known| known.storage != knows) {
            return Ok(Err(format!("server {} has another data directory than the one recorded here", peer.0)));
        }
        match self.admission.record_witness(peer, || data_dir.set_active()) {
            Ok(begins) => Ok(Ok(begins)),
            Err(error) => survived(&error).map(Err),
        }
    }
}

/// The reason for a peer when a record cannot be persisted; an error if the disk has failed and this server must end.
fn survived(error: &DataDirError) -> Result<String, Fatal> {
    if error.is_fatal() { Err(Fatal(format!("stable storage failed: {error}"))) } else { Ok(error.reason()) }
}

fn other_members(theirs: &str, members: ServerSet, mine: &str, cluster: ServerSet) -> String {
    format!(
        "{theirs} lists servers {}, {mine} {}: one of the two cluster files is wrong",
        members.numbers(),
        cluster.numbers()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known_to(admission: &Admission, server: u8, can_write: bool) -> Result<bool, &'static str> {
        admission.record_witness(ServerId(server), || if can_write { Ok(()) } else { Err("full") })
    }

    #[test]
    fn pending_server_is_admitted_once_it_has_enough_witnesses_and_that_is_durable() {
        let admission = Admission::pending(2);
        assert_eq!((admission.is_active(), admission.refusal()), (false, Some(WhyNotApplied::NotAdmitted)));
        assert_eq!(known_to(&admission, 4, true), Ok(false));
        assert_eq!(known_to(&admission, 4, true), Ok(false), "one server, though it says so twice");
        assert_eq!(known_to(&admission, 5, false), Err("full"));
        assert!(!admission.is_active(), "what is not durable is lost for the next incarnation");
        let known = [4, 5].map(ServerId).into_iter().collect();
        assert_eq!(admission.pending_status(), Some(AdmissionStatus { witnesses: known, needed: 2 }));
        assert_eq!(known_to(&admission, 5, true), Ok(true));
        assert_eq!((admission.is_active(), admission.refusal(), admission.pending_status()), (true, None, None));
        assert_eq!(known_to(&admission, 3, true), Ok(false), "it was admitted before");
    }

    #[test]
    fn fenced_server_is_not_admitted_by_witnesses() {
        let admission = Admission::active();
        admission.fence();
        assert_eq!(known_to(&admission, 1, true), Ok(false));
        assert_eq!((admission.is_active(), admission.refusal()), (false, Some(WhyNotApplied::Fenced)));
    }
}
