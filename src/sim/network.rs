//! Links: each message of each pair of ends has a fate of its own.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::coverage::CoveragePoint;
use super::env::{DeliveryMode, MS, Micros, Piece, SECOND, SimEnv, SimEvent, Weight};
use super::plan::RunPlan;
use crate::net::{BEGUN_BYTES, BULK_MAX_BYTES, CONTROL_MAX_BYTES};
use crate::role::{Lane, ServerId};

/// So many old frames are kept to be sent once more.
const OLD_FRAMES_MAX: usize = 128;
/// At most so many frames are under way on a link; a link with less room has less.
const IN_FLIGHT_MAX: usize = 1_024;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A server.
    Server(ServerId),
    /// A client, by its number.
    Client(usize),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Server(server) => write!(f, "{server}"),
            Endpoint::Client(client) => write!(f, "c{}", client + 1),
        }
    }
}

/// One direction between two ends.
#[derive(Clone, Debug, Default)]
struct SimLink {
    /// How many faults cut it; nothing gets through unless 0.
    cuts: u32,
    /// Rises with each reset.
    connection: u64,
    /// What was under way on connections before this one is lost.
    lost_below: u64,
    in_flight: usize,
    /// The bytes under way in each lane.
    lanes: [usize; 2],
    /// When the last frame of each lane arrives, on a link whose rate is limited.
    lanes_due: [Micros; 2],
    /// When the last frame arrives: those of one connection keep their order, unless links reorder.
    last_due: Micros,
    /// A slow link: room for so many frames, and so long for each.
    slow: Option<(usize, Micros)>,
}

/// What can happen to any frame.
#[derive(Clone, Debug)]
pub struct LinkFaults {
    /// The least time of a frame's way.
    pub latency: Micros,
    /// What is added to it, on average.
    pub jitter: Micros,
    /// So many of a thousand take seconds.
    pub late: u64,
    /// Frames of one connection overtake each other.
    pub reorders: bool,
    /// Lost, of a thousand.
    pub loss: u64,
    /// Of a thousand ACCEPTs so many more are lost: what a proposer leaves half done is found by the next.
    pub accept_loss: u64,
    /// Sent twice, of a thousand.
    pub duplicate: u64,
    /// Followed by an old frame of the same link, of a thousand.
    pub replay: u64,
    /// Damaged on the way, of a thousand.
    pub corrupt: u64,
    /// So many bytes go through a link in a millisecond; as many as there are if None. What is sent faster waits:
    /// control messages in front of what is bulk.
    pub rate: Option<usize>,
    /// At most so many bytes of each lane are under way on a link; what is more is lost, but one frame.
    pub lane_bytes: [usize; 2],
}

/// As many bytes as a link of real servers takes.
pub const LANE_BYTES: [usize; 2] = [CONTROL_MAX_BYTES, BULK_MAX_BYTES];

/// All links.
#[derive(Clone, Debug)]
pub struct Network {
    link_faults: LinkFaults,
    links: BTreeMap<(Endpoint, Endpoint), SimLink>,
    old: VecDeque<(Endpoint, Endpoint, Arc<[u8]>, Piece)>,
    /// Frames between servers so far.
    pub frames: u64,
}

impl Network {
    /// Links of this kind.
    pub fn new(plan: &RunPlan) -> Network {
        Network { link_faults: plan.link_faults.clone(), links: BTreeMap::new(), old: VecDeque::new(), frames: 0 }
    }

    /// Nothing happens to frames any more but that they take their time.
    pub fn calm_down(&mut self) {
        let LinkFaults { latency, jitter, .. } = self.link_faults;
        let link_faults = &mut self.link_faults;
        (link_faults.latency, link_faults.jitter) = (latency.min(5 * MS), jitter.min(5 * MS));
        (link_faults.late, link_faults.loss, link_faults.accept_loss) = (0, 0, 0);
        (link_faults.duplicate, link_faults.replay, link_faults.corrupt) = (0, 0, 0);
        // What servers have open fits into a real link.
        link_faults.lane_bytes = LANE_BYTES;
        self.old.clear();
        for link in self.links.values_mut() {
            (link.cuts, link.slow) = (0, None);
        }
    }

    /// How long the fullest link takes for what it carries, and for this number of bytes behind it.
    pub fn time_for(&self, bytes: usize) -> Micros {
        let Some(rate) = self.link_faults.rate else { return 0 };
        let fullest = self.links.values().map(|link| link.lanes.iter().sum::<usize>()).max();
        ((fullest.unwrap_or_default() + bytes) / rate) as Micros * MS
    }

    fn link(&mut self, from: Endpoint, to: Endpoint) -> &mut SimLink {
        self.links.entry((from, to)).or_default()
    }

    /// Cuts a direction, or takes one cut away.
    pub fn cut(&mut self, from: Endpoint, to: Endpoint, on: bool) {
        let link = self.link(from, to);
        link.cuts = if on { link.cuts + 1 } else { link.cuts.saturating_sub(1) };
    }

    /// Ends the connection. What is under way is lost, or comes all the same, behind what the next one brings.
    pub fn reset(&mut self, from: Endpoint, to: Endpoint, is_lost: bool) {
        let link = self.link(from, to);
        link.connection += 1;
        (link.last_due, link.lanes_due) = (0, [0; 2]);
        if is_lost {
            link.lost_below = link.connection;
        }
    }

    /// Nothing is under way any more, and nothing comes again of what was ever sent.
    pub fn forget_all(&mut self) {
        self.old.clear();
        for link in self.links.values_mut() {
            (link.in_flight, link.last_due) = (0, 0);
            (link.lanes, link.lanes_due) = ([0; 2], [0; 2]);
        }
    }

    /// Nothing that a server has said arrives any more: it was said with another disk than it has now, on connections
    /// that were begun with that disk.
    pub fn forget(&mut self, server: ServerId) {
        let from = Endpoint::Server(server);
        self.old.retain(|(sender, ..)| *sender != from);
        let links: Vec<_> = self.links.keys().copied().filter(|(sender, _)| *sender == from).collect();
        links.into_iter().for_each(|(from, to)| self.reset(from, to, true));
    }

    /// Gives a link little room and time, or takes that away.
    pub fn slow_down(&mut self, from: Endpoint, to: Endpoint, slow: Option<(usize, Micros)>) {
        self.link(from, to).slow = slow;
    }

    /// A frame has come to the end of its way; false if it was lost on it.
    pub fn arrives(&mut self, from: Endpoint, to: Endpoint, way: DeliveryMode, piece: Piece) -> bool {
        let (link, Weight { lane, bytes }) = (self.link(from, to), piece.weight());
        match way {
            DeliveryMode::Connection(sent_on) => {
                link.in_flight = link.in_flight.saturating_sub(1);
                link.lanes[lane as usize] = link.lanes[lane as usize].saturating_sub(bytes);
                link.cuts == 0 && sent_on >= link.lost_below
            }
            DeliveryMode::Again => link.cuts == 0,
            DeliveryMode::Arrived => true,
        }
    }

    /// Whether one end can hear the other.
    pub fn is_cut(&mut self, from: Endpoint, to: Endpoint) -> bool {
        self.link(from, to).cuts > 0
    }
}

impl SimEnv {
    /// Sends an ACCEPT on its way, if it is not lost before all others.
    pub fn send_accept(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: Piece) {
        if self.chance(self.network.link_faults.accept_loss) {
            return self.reached(CoveragePoint::FrameLost);
        }
        // What is lost later is lost as well.
        let _ = self.send(from, to, bytes, piece);
    }

    /// Sends a frame on its way; false if it is lost already.
    pub fn send(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: Piece) -> bool {
        self.network.frames += 1;
        let LinkFaults { loss, duplicate, replay, .. } = self.network.link_faults;
        if self.chance(loss) {
            self.reached(CoveragePoint::FrameLost);
            return false;
        }
        let is_sent = self.send_copy(from, to, bytes.clone(), piece);
        // A client's try is one connection: it cannot be refused and arrive all the same.
        if piece != Piece::OfClient && self.chance(duplicate) {
            self.reached(CoveragePoint::FrameDoubled);
            self.send_copy(from, to, bytes.clone(), piece);
        }
        if matches!(piece, Piece::Hello(_) | Piece::Answer(_) | Piece::Word(..)) && replay > 0 {
            self.replay(from, to, bytes, piece, replay);
        }
        is_sent
    }

    fn send_copy(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: Piece) -> bool {
        let LinkFaults { latency, jitter, late, reorders, corrupt, rate, lane_bytes, .. } = self.network.link_faults;
        let Weight { lane, bytes: size } = piece.weight();
        let (now, mut delay) = (self.now(), latency + self.exponential(jitter));
        if self.chance(late) {
            self.reached(CoveragePoint::FrameLate);
            delay += self.time(&(SECOND..=10 * SECOND));
        }
        let link = self.network.link(from, to);
        let (room, each) = link.slow.unwrap_or((IN_FLIGHT_MAX, 0));
        let of_lane = link.lanes[lane as usize];
        let is_word = matches!(piece, Piece::Word(..));
        let is_full = is_word && of_lane > 0 && of_lane + size > lane_bytes[lane as usize];
        if link.cuts > 0 || link.in_flight >= room || is_full {
            self.reached(if is_full { CoveragePoint::LaneFull } else { CoveragePoint::FrameLost });
            return false;
        }
        delay += each * (1 + link.in_flight as Micros);
        if let Some(rate) = rate {
            let [control, bulk] = link.lanes;
            // What is bulk lets control messages pass, but for what of it has begun.
            let (ahead, has_passed) = match lane {
                Lane::Control => (control + bulk.min(BEGUN_BYTES), bulk > BEGUN_BYTES),
                Lane::Bulk => (control + bulk, false),
            };
            let due = &mut link.lanes_due[lane as usize];
            delay += ((ahead + size) / rate) as Micros * MS;
            if !reorders {
                delay = delay.max(due.saturating_sub(now));
            }
            *due = now + delay;
            if has_passed {
                self.reached(CoveragePoint::LanePassed);
            }
        } else if !reorders {
            delay = delay.max(link.last_due.saturating_sub(now));
        }
        let link = self.network.link(from, to);
        link.in_flight += 1;
        link.lanes[lane as usize] += size;
        link.last_due = now + delay;
        let way = DeliveryMode::Connection(link.connection);
        let is_damaged = !bytes.is_empty() && self.chance(corrupt);
        let bytes = if is_damaged { self.corrupted(&bytes) } else { bytes };
        self.after(delay, SimEvent::Frame { from, to, bytes, way, piece });
        true
    }

    /// Keeps a frame, and sends one that was kept, perhaps long ago.
    fn replay(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: Piece, per_mille: u64) {
        if self.chance(per_mille)
            && let Some(at) = (self.network.old.len() as u64).checked_sub(1)
        {
            let at = self.random.within(0..=at) as usize;
            if let Some((from, to, bytes, piece)) = self.network.old.get(at).cloned() {
                self.reached(CoveragePoint::FrameReplayed);
                self.after(1, SimEvent::Frame { from, to, bytes, way: DeliveryMode::Again, piece });
            }
        }
        if self.chance(100) {
            let old = &mut self.network.old;
            if old.len() == OLD_FRAMES_MAX {
                let at = self.random.within(0..=OLD_FRAMES_MAX as u64 - 1) as usize;
                self.network.old.remove(at);
            }
            self.network.old.push_back((from, to, bytes, piece));
        }
    }

    /// Flips some bits of one byte: never the same one twice, so that something is wrong with the frame afterwards,
    /// however long it is. (It is longer while somebody reads the lines, and that must change nothing else.)
    fn corrupted(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        let mut bytes = bytes.to_vec();
        let flips = self.random.within(1..=255) as u8;
        let place = self.random.within(0..=bytes.len() as u64 - 1) as usize;
        bytes[place] ^= flips;
        bytes.into()
    }

    /// Most are short, few are long.
    fn exponential(&mut self, mean: Micros) -> Micros {
        if mean == 0 {
            return 0;
        }
        // Each further mean is half as likely, and within one all times are alike. Whole numbers are the same on every
        // machine, which logarithms are not.
        let (bits, step) = (self.random.next(), mean * 2 / 3);
        let whole = Micros::from((bits >> 32 | 1 << 8).trailing_zeros()) * step;
        whole + (((bits & 0xffff_ffff) * step) >> 32)
    }
}
