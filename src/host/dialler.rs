//! The dialler of a server's own link to one peer: when to dial, what to say, and how to handle the answer.
//!
//! Each server dials every peer for the messages that it sends. A failed attempt is followed by a pause, which grows.
//! The caller has the connection and the clock.

use std::time::Duration;

use super::core::{Fatal, ServerCore};
use super::limits::ClientConnection;
use super::trace_lines;
use crate::net::{Backoff, Caller, Hello, LinkEnded, Welcome};
use crate::role::{ServerId, ServerSet};
use crate::storage::DataDir;
use crate::storage::data_dir::DirStorage;
use crate::trace::{LinkEvent, Speaker, TraceContext};

/// The shortest pause between attempts, and the limit up to which pauses grow.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// A refused server asks again only every 2 seconds: an operator must change something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// A connection that breaks sooner counts as a failed attempt, so the pause does not shrink.
const STEADY: Duration = Duration::from_secs(1);
/// After this many requests to call back first, the peer's call may never arrive: the operator must be informed.
const UNPROVED_MAX: u32 = 10;
const NO_CALLBACK: &str = "the peer admits this server only after calling it back, and that has not succeeded. Check \
                           this server's address in the peer's cluster file, and whether the peer has its old data \
                           directory";

/// The own link to one peer.
#[derive(Debug)]
pub struct Dialler {
    peer: ServerId,
    pause: Duration,
    /// The last refusal that was traced.
    refused: Option<String>,
    /// How many times in a row the peer wanted to call back first.
    unproved: u32,
    /// This peer's welcome completed the admission of this server, and the other peers do not know it yet.
    has_just_become_active: bool,
    /// Whether the last HELLO said that this server takes part.
    last_hello_was_active: bool,
}

impl Dialler {
    /// A link that was never up.
    pub fn new(peer: ServerId) -> Dialler {
        Dialler {
            peer,
            pause: PAUSES.0,
            refused: None,
            unproved: 0,
            has_just_become_active: false,
            last_hello_was_active: false,
        }
    }

    /// The HELLO for this attempt.
    pub fn hello<C: ClientConnection, P: DirStorage>(&mut self, core: &ServerCore<C>, data_dir: &DataDir<P>) -> Hello {
        let hello = core.hello(data_dir, self.peer, self.unproved);
        self.last_hello_was_active = matches!(hello.who, Caller::Peer { is_active: true, .. });
        hello
    }

    /// The peer has welcomed this server in reply to `hello`. The inner error is why this server refuses the peer.
    pub fn welcomed<C: ClientConnection, P: DirStorage>(
        &mut self,
        core: &ServerCore<C>,
        data_dir: &DataDir<P>,
        hello: &Hello,
        welcome: &Welcome,
    ) -> Result<Result<(), String>, Fatal> {
        let begins = core.welcomed(data_dir, self.peer, hello, welcome)?;
        self.has_just_become_active |= begins == Ok(true);
        Ok(begins.map(|_| ()))
    }

    /// The link is up. Returns the peers that need a new HELLO: a server that now takes part says so to all of them.
    /// From then on, no peer accepts another data directory for it.
    pub fn up<C: ClientConnection, P: DirStorage>(&mut self, core: &ServerCore<C>, data_dir: &DataDir<P>) -> ServerSet {
        (self.refused, self.unproved) = (None, 0);
        core.linked.up(self.peer);
        let news = "enough peers have recorded this server's new data directory: it is admitted";
        let begins = std::mem::take(&mut self.has_just_become_active);
        self.trace_link(core, LinkEvent::Up, begins.then_some(news));
        if begins {
            core.config.cluster.without(ServerSet::only(core.config.me))
        } else if !self.last_hello_was_active && data_dir.is_active() {
            // Its admission completed while this HELLO was in flight.
            ServerSet::only(self.peer)
        } else {
            ServerSet::NONE
        }
    }

    /// The link is down: returns how long to wait before the next attempt. A refusal is traced once, until the reason
    /// changes or the link was up.
    pub fn ended<C: ClientConnection>(&mut self, core: &ServerCore<C>, ended: LinkEnded<'_>) -> Backoff {
        let mut pause = self.pause;
        match ended {
            LinkEnded::Broken { why, after } => {
                core.linked.down(self.peer);
                // The line about the cut already says this.
                if !core.linked.is_cut(self.peer) {
                    self.trace_link(core, LinkEvent::Lost, Some(why));
                }
                if after >= STEADY {
                    (self.pause, pause) = (PAUSES.0, PAUSES.0);
                }
            }
            LinkEnded::Refused(why) => {
                if self.refused.as_deref() != Some(why) {
                    self.trace_refused(core, why);
                    self.refused = Some(why.to_string());
                }
                pause = REFUSED_PAUSE;
            }
            LinkEnded::CallBackFirst => {
                self.unproved += 1;
                if self.unproved == UNPROVED_MAX {
                    self.trace_refused(core, NO_CALLBACK);
                }
            }
            // The line about the lost link already says this.
            LinkEnded::Unanswered => {}
        }
        self.pause = (self.pause * 2).min(PAUSES.1);
        Backoff { least: PAUSES.0, most: pause }
    }

    fn trace_refused<C: ClientConnection>(&self, core: &ServerCore<C>, why: &str) {
        core.linked.refused(self.peer, why);
        self.trace_link(core, LinkEvent::Refused, Some(why));
    }

    fn trace_link<C: ClientConnection>(&self, core: &ServerCore<C>, state: LinkEvent, why: Option<&str>) {
        let event = trace_lines::link(self.peer, state, None);
        core.trace_with_reason(Speaker::Server, &TraceContext::default(), event, why.map(str::to_string));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::limits::tests::TestConnection;
    use crate::host::{Admission, Config};
    use crate::net::{HelloReply, Refusal};
    use crate::paxos::Quorums;
    use crate::protocol::Protocol;
    use crate::storage::identity::Owner;
    use crate::trace::Trace;

    const PEER: ServerId = ServerId(2);

    fn core() -> ServerCore<TestConnection> {
        let quorums = Quorums::majority(ServerSet::first(3));
        let config = Config::of_tests(Protocol::MultiPaxos, quorums.servers());
        ServerCore::new(config, Trace::disabled(), Admission::active())
    }

    fn most(dialler: &mut Dialler, core: &ServerCore<TestConnection>, ended: LinkEnded<'_>) -> u128 {
        let pause = dialler.ended(core, ended);
        assert_eq!(pause.least, PAUSES.0, "with news of the peer");
        pause.most.as_millis()
    }

    #[test]
    fn pauses_grow_and_restart_after_a_stable_connection() {
        let (mut dialler, core) = (Dialler::new(PEER), core());
        let unanswered = [0; 7].map(|_| most(&mut dialler, &core, LinkEnded::Unanswered));
        assert_eq!(unanswered, [20, 40, 80, 160, 320, 500, 500]);
        let broken = |after| LinkEnded::Broken { why: "reset", after };
        assert_eq!(most(&mut dialler, &core, broken(STEADY - Duration::from_millis(1))), 500, "it was none");
        assert_eq!(most(&mut dialler, &core, broken(STEADY)), 20);
        assert_eq!(most(&mut dialler, &core, LinkEnded::Unanswered), 40);
        assert_eq!(most(&mut dialler, &core, LinkEnded::Refused("no")), 2_000);
    }

    #[test]
    fn peer_that_never_calls_back_is_reported() {
        let (mut dialler, core) = (Dialler::new(PEER), core());
        for _ in 1..UNPROVED_MAX {
            dialler.ended(&core, LinkEnded::CallBackFirst);
            assert_eq!(core.linked.refusals(core.config.me), []);
        }
        dialler.ended(&core, LinkEnded::CallBackFirst);
        assert_eq!(core.linked.refusals(core.config.me), [Refusal { server: PEER, why: NO_CALLBACK.to_string() }]);
    }

    #[test]
    fn refusal_is_reported_once_until_it_changes() {
        let (mut dialler, core) = (Dialler::new(PEER), core());
        let mut tells = |why| {
            dialler.ended(&core, LinkEnded::Refused(why));
            let told = !core.linked.refusals(core.config.me).is_empty();
            core.linked.down(PEER);
            told
        };
        assert_eq!(["no", "no", "never", "no"].map(&mut tells), [true, false, true, true]);
    }

    /// Which storage id of the peer the next HELLO names.
    fn names(dialler: &mut Dialler, core: &ServerCore<TestConnection>, data_dir: &DataDir) -> Option<u64> {
        let Caller::Peer { knows, .. } = dialler.hello(core, data_dir).who else {
            panic!("a server sends HELLO as a peer")
        };
        dialler.ended(core, LinkEnded::CallBackFirst);
        knows
    }

    #[test]
    fn false_claims_do_not_keep_a_server_from_a_recorded_peer() {
        let (mut dialler, core) = (Dialler::new(PEER), core());
        let quorums = core.config.quorums;
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { cluster: "tests", quorums, server: core.config.me };
        let data_dir = DataDir::open(&dir.path().join("data"), owner).unwrap();
        let claims = |storage, is_active, knows| {
            let who = Caller::Peer { server: PEER, storage, incarnation: 1, boot: 1, is_active, knows };
            let hello = Hello { cluster: "tests".to_string(), to: core.config.me, members: quorums.servers(), who };
            core.judge(&data_dir, &hello).unwrap().answer
        };
        let proof = Some(data_dir.storage_id());
        let (own, lie) = (11, 22);
        assert!(matches!(claims(own, false, proof), HelloReply::Welcome(_)));
        assert_eq!(claims(lie, true, None), HelloReply::CallBackFirst);
        // Either id may be the peer's: a candidate is not final.
        assert_eq!([0; 4].map(|_| names(&mut dialler, &core, &data_dir)), [lie, own, lie, own].map(Some));
        assert!(matches!(claims(own, true, proof), HelloReply::Welcome(_)));
        assert_eq!(claims(lie, true, None), HelloReply::CallBackFirst);
        assert_eq!([0; 2].map(|_| names(&mut dialler, &core, &data_dir)), [own, own].map(Some), "it is admitted");
    }
}
