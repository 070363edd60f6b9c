//! Whether a server takes part in anything at all.
//!
//! What an acceptor has promised is on its disk and nowhere else. A server whose data folder was lost comes back with a
//! new one, like a server that was never there, and must not vote with it: it has forgotten what it is bound to. Those
//! who know the old folder refuse the new one; but those who never met the server while it had the old one cannot tell.
//! So a server with a new folder says nothing and hears nothing until enough of the others have remembered that folder:
//! so many that never again will as many take another one for its first.
//! [`Quorums::witnesses`](crate::paxos::Quorums::witnesses) says how many, and why.
//!
//! A server whose state was found to be wrong does not take part either, and never again in this life.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config::Config;
use super::core::{Fatal, ServerCore};
use super::limits::ClientConnection;
use super::rules;
use crate::net::{AdmissionStatus, Caller, Hello, HelloReply, Welcome, WhyNotApplied};
use crate::paxos::Quorums;
use crate::role::{ServerId, ServerSet};
use crate::storage::admission::Claim;
use crate::storage::data_dir::DirStorage;
use crate::storage::identity::Admitted;
use crate::storage::{DataDir, DataDirError};

/// How a server stands to the others. Any thread may ask.
#[derive(Debug)]
pub struct Admission {
    is_active: AtomicBool,
    state: Mutex<AdmissionState>,
    /// What callers have said of themselves and not proved yet: the last claim of each number.
    claims: Mutex<BTreeMap<ServerId, Claim>>,
}

#[derive(Clone, Copy, Debug)]
enum AdmissionState {
    /// Its folder is new: these know it, and so many must.
    New { known_to: ServerSet, needed: usize },
    /// It takes part.
    Member,
    /// Its state is wrong.
    Fenced,
}

impl Admission {
    /// A server that takes part.
    pub fn active() -> Admission {
        Admission::new(true, AdmissionState::Member)
    }

    /// A server with a new folder, which so many others must know; it takes part at once if that is nobody.
    pub fn pending(needed: usize) -> Admission {
        let state = AdmissionState::New { known_to: ServerSet::NONE, needed };
        Admission::new(rules::newcomer_takes_part(), state)
    }

    fn new(takes_part: bool, state: AdmissionState) -> Admission {
        Admission { is_active: AtomicBool::new(takes_part), state: Mutex::new(state), claims: Mutex::default() }
    }

    /// Who has taken part with this folder goes on to; a server whose folder is new waits until enough of the others
    /// know it.
    pub fn of<P: DirStorage>(folder: &DataDir<P>, quorums: Quorums) -> Result<Admission, DataDirError> {
        if quorums.witnesses() == 0 {
            folder.set_takes_part()?;
        }
        Ok(if folder.is_active() { Admission::active() } else { Admission::pending(quorums.witnesses()) })
    }

    /// Whether it may say and hear anything.
    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// Another server has said that it knows this one's folder. Once enough have, `remember` must write that down; if
    /// it does, the server takes part from now on. True if that has just begun.
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

    /// Its state is not that of the others.
    pub fn fence(&self) {
        *self.state() = AdmissionState::Fenced;
        self.is_active.store(false, Ordering::Release);
    }

    /// Why it answers no client; None if it does.
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

    /// What it waits for if its folder is new.
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

/// What a client is told for whom there is no place.
pub const TOO_MANY: &str = "too many clients already; try another server";

/// What a server says to another one that has called it.
#[derive(Debug)]
pub struct HelloDecision {
    /// The answer.
    pub answer: HelloReply,
    /// This server must be called now: whoever called in its name has something to prove, or has just proved it.
    pub call: Option<ServerId>,
}

impl<C: ClientConnection> ServerCore<C> {
    /// What this server says to a peer that it calls. The peer's own storage id proves who calls: it was told to the
    /// address of this server only. A folder that takes part is the peer's whoever claims what. Of a candidate and a
    /// folder that somebody claims since, either may be the peer's, so every other attempt names the other one: a
    /// stranger that claims a folder again and again does not keep this server from the peer that it knows.
    pub fn hello<P: DirStorage>(&self, folder: &DataDir<P>, to: ServerId, attempt: u32) -> Hello {
        let known = folder.recorded_peer(to);
        let is_claim_worth = known.is_none_or(|known| !known.bound && attempt.is_multiple_of(2));
        let claimed = self.admission.claims().get(&to).filter(|_| is_claim_worth).map(|claim| claim.storage);
        let knows = claimed.or(known.map(|known| known.storage));
        let who = Caller::Peer {
            server: self.config.me,
            storage: folder.storage_id(),
            life: folder.incarnation(),
            boot: self.config.boot,
            takes_part: folder.is_active(),
            knows,
        };
        Hello { cluster: self.config.name.clone(), to, members: self.config.cluster, who }
    }

    /// The parts of a greeting that every caller must get right.
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
                Caller::Client => "the client's file".to_string(),
                Caller::Peer { server, .. } => format!("server {}'s file", server.0),
            };
            return Err(other_members(&caller, hello.members, &format!("server {}'s", me.0), *cluster));
        }
        Ok(())
    }

    /// What this server answers a caller at the door for clients, if there is a place for one more.
    pub fn judge_client(&self, hello: &Hello, has_place: impl FnOnce() -> bool) -> HelloReply {
        let refused = |why: &str| HelloReply::Refused { why: why.to_string() };
        match (self.check_hello(hello), &hello.who) {
            (Err(why), _) => HelloReply::Refused { why },
            (Ok(()), Caller::Peer { .. }) => refused("this is the address for clients; servers have another one"),
            (Ok(()), Caller::Client) if has_place() => self.welcome(),
            (Ok(()), Caller::Client) => refused(TOO_MANY),
        }
    }

    /// What this server answers a caller at the door for servers. It lets a caller in that has proved who it is; who
    /// has not is called, and then it can.
    pub fn judge<P: DirStorage>(&self, folder: &DataDir<P>, hello: &Hello) -> Result<HelloDecision, Fatal> {
        let refused = |why| Ok(HelloDecision { answer: HelloReply::Refused { why }, call: None });
        if let Err(why) = self.check_hello(hello) {
            return refused(why);
        }
        match hello.who {
            Caller::Client => refused("this is the address for servers; clients have another one".to_string()),
            Caller::Peer { server, .. } if server == self.config.me || !self.config.cluster.contains(server) => {
                refused(format!("no other server of this cluster has the number {}", server.0))
            }
            Caller::Peer { server, storage, life, boot, takes_part, knows } => {
                self.admit(folder, Claim { server, storage, life, boot, takes_part, knows })
            }
        }
    }

    fn admit<P: DirStorage>(&self, folder: &DataDir<P>, claim: Claim) -> Result<HelloDecision, Fatal> {
        let admitted = rules::admitted(match folder.admit(&claim) {
            Err(error) => Err(survived(&error)?),
            Ok(admitted) => Ok(admitted),
        });
        let is_news = match &admitted {
            Ok(Admitted::Yes) => {
                self.admission.claims().remove(&claim.server);
                true
            }
            // It is kept as well: that another folder is refused may not be the last word.
            Ok(Admitted::CallBack) | Err(_) => self.admission.claims().insert(claim.server, claim) != Some(claim),
        };
        let answer = match admitted {
            Ok(Admitted::Yes) => self.welcome(),
            Ok(Admitted::CallBack) => HelloReply::CallYouFirst,
            Err(why) => HelloReply::Refused { why },
        };
        Ok(HelloDecision { answer, call: is_news.then_some(claim.server) })
    }

    /// What a server says of itself to whom it lets in.
    pub fn welcome(&self) -> HelloReply {
        HelloReply::Welcome(Welcome { history: self.board.read().history, members: self.config.cluster })
    }

    /// A peer has welcomed this server after this greeting, and remembers its folder durably by then. That it did
    /// proves that its own folder is the one that this server took it for. True if this server takes part from now on
    /// because of it; the inner error is why the peer is not believed.
    pub fn welcomed<P: DirStorage>(
        &self,
        folder: &DataDir<P>,
        peer: ServerId,
        hello: &Hello,
        welcome: &Welcome,
    ) -> Result<Result<bool, String>, Fatal> {
        let cluster = self.config.cluster;
        if welcome.members != cluster {
            let theirs = format!("server {}'s file", peer.0);
            return Ok(Err(other_members(&theirs, welcome.members, "this one's", cluster)));
        }
        let Caller::Peer { knows: Some(knows), .. } = hello.who else {
            return Ok(Err("it has let in a server that could not say whom it called".to_string()));
        };
        if folder.recorded_peer(peer).is_some_and(|known| known.storage != knows) {
            return Ok(Err(format!(
                "server {} comes with another data folder than the one that is known here",
                peer.0
            )));
        }
        match self.admission.record_witness(peer, || folder.set_takes_part()) {
            Ok(begins) => Ok(Ok(begins)),
            Err(error) => survived(&error).map(Err),
        }
    }
}

/// What a peer is told if something cannot be remembered; where the disk has failed this server is no more.
fn survived(error: &DataDirError) -> Result<String, Fatal> {
    if error.is_fatal() { Err(Fatal(format!("stable storage failed: {error}"))) } else { Ok(error.reason()) }
}

fn other_members(theirs: &str, members: ServerSet, mine: &str, cluster: ServerSet) -> String {
    format!("{theirs} lists servers {}, {mine} {}: one of the two files is wrong", members.numbers(), cluster.numbers())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known_to(admission: &Admission, server: u8, can_write: bool) -> Result<bool, &'static str> {
        admission.record_witness(ServerId(server), || if can_write { Ok(()) } else { Err("full") })
    }

    #[test]
    fn who_is_new_takes_part_once_enough_know_it_and_that_is_written_down() {
        let admission = Admission::pending(2);
        assert_eq!((admission.is_active(), admission.refusal()), (false, Some(WhyNotApplied::NotAdmitted)));
        assert_eq!(known_to(&admission, 4, true), Ok(false));
        assert_eq!(known_to(&admission, 4, true), Ok(false), "one server, though it says so twice");
        assert_eq!(known_to(&admission, 5, false), Err("full"));
        assert!(!admission.is_active(), "what is not written down is forgotten by the next life");
        let known = [4, 5].map(ServerId).into_iter().collect();
        assert_eq!(admission.pending_status(), Some(AdmissionStatus { witnesses: known, needed: 2 }));
        assert_eq!(known_to(&admission, 5, true), Ok(true));
        assert_eq!((admission.is_active(), admission.refusal(), admission.pending_status()), (true, None, None));
        assert_eq!(known_to(&admission, 3, true), Ok(false), "it is no news any more");
    }

    #[test]
    fn who_is_wrong_takes_no_part_whoever_knows_it() {
        let admission = Admission::active();
        admission.fence();
        assert_eq!(known_to(&admission, 1, true), Ok(false));
        assert_eq!((admission.is_active(), admission.refusal()), (false, Some(WhyNotApplied::Fenced)));
    }
}
