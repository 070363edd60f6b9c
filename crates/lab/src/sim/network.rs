//! Links: the network between servers and clients, where each frame can be lost, delayed, duplicated or corrupted.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::coverage::CoveragePoint;
use super::env::{DeliveryMode, FrameKind, FrameSize, MS, Micros, SECOND, SimEnv, SimEvent};
use super::plan::RunPlan;
use paxos_kv::net::{BULK_MAX_BYTES, CONTROL_MAX_BYTES, IN_FLIGHT_BULK_BYTES};
use paxos_kv::role::{Lane, ServerId};
use paxos_kv::trace::DropCause;

/// Maximum number of old frames that are kept for a replay.
const OLD_FRAMES_MAX: usize = 128;
/// Maximum number of frames in flight on a link; a slow link has a lower limit.
const IN_FLIGHT_MAX: usize = 1_024;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A server, by its number.
    Server(ServerId),
    /// A client, by its number from 0.
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
    /// Number of faults that cut this direction; frames pass only at 0.
    cuts: u32,
    /// Number of the current connection; rises with each reset.
    connection: u64,
    /// Frames in flight on connections below this number are lost.
    lost_below: u64,
    in_flight: usize,
    /// The bytes in flight in each lane.
    lanes: [usize; 2],
    /// When the last frame of each lane arrives, on a link whose rate is limited.
    lanes_due: [Micros; 2],
    /// When the last frame arrives: frames of one connection keep their order, unless links reorder.
    last_due: Micros,
    /// Number of frames that were lost at once because the direction was cut.
    lost_on_cut: u64,
    /// A slow link: maximum number of frames in flight, and the delay that each adds.
    slow: Option<(usize, Micros)>,
}

/// The faults that can happen to any frame.
#[derive(Clone, Debug)]
pub struct LinkFaults {
    /// The minimum time that a frame takes.
    pub latency: Micros,
    /// The time that is added to it, on average.
    pub jitter: Micros,
    /// How many of 1000 frames take seconds.
    pub late: u64,
    /// Frames of one connection overtake each other.
    pub reorders: bool,
    /// How many of 1000 frames are lost.
    pub loss: u64,
    /// How many more of 1000 ACCEPTs are lost, so that the next proposer finds unfinished proposals.
    pub accept_loss: u64,
    /// How many of 1000 frames are sent twice.
    pub duplicate: u64,
    /// How many of 1000 frames are followed by an old frame.
    pub replay: u64,
    /// How many of 1000 frames are corrupted.
    pub corrupt: u64,
    /// Rate of each link in bytes a millisecond; None is unlimited. Frames that are sent faster wait, and control
    /// messages go ahead of bulk ones.
    pub rate: Option<usize>,
    /// Maximum bytes in flight in each lane of a link. More is lost, but an empty lane takes any frame.
    pub lane_bytes: [usize; 2],
}

impl LinkFaults {
    /// Links that only delay frames, by at least `latency`, and keep their order.
    pub fn delays(latency: Micros, jitter: Micros) -> LinkFaults {
        LinkFaults {
            latency,
            jitter,
            late: 0,
            reorders: false,
            loss: 0,
            accept_loss: 0,
            duplicate: 0,
            replay: 0,
            corrupt: 0,
            rate: None,
            lane_bytes: LANE_BYTES,
        }
    }
}

/// As many bytes as a link of real servers queues in each lane.
pub const LANE_BYTES: [usize; 2] = [CONTROL_MAX_BYTES, BULK_MAX_BYTES];

/// A message between servers that does not arrive.
#[derive(Clone, Debug)]
pub struct LostMessage {
    /// The sender.
    pub from: ServerId,
    /// The receiver.
    pub to: ServerId,
    /// The frame; all copies of a message to several servers share it.
    pub bytes: Arc<[u8]>,
    /// Why it does not arrive.
    pub cause: DropCause,
}

/// All links of a run.
#[derive(Clone, Debug)]
pub struct Network {
    link_faults: LinkFaults,
    links: BTreeMap<(Endpoint, Endpoint), SimLink>,
    old: VecDeque<(Endpoint, Endpoint, Arc<[u8]>, FrameKind)>,
    /// Number of frames sent so far, between servers and with clients.
    pub frames: u64,
    /// The messages lost since they were last taken. None: losses are not recorded.
    losses: Option<Vec<LostMessage>>,
}

impl Network {
    /// Links with the faults of this plan.
    pub fn new(plan: &RunPlan) -> Network {
        Network {
            link_faults: plan.link_faults.clone(),
            links: BTreeMap::new(),
            old: VecDeque::new(),
            frames: 0,
            losses: None,
        }
    }

    /// Records the messages that are lost from now on.
    pub fn record_losses(&mut self) {
        self.losses = Some(Vec::new());
    }

    /// The messages lost since the last call, if they are recorded.
    pub fn take_losses(&mut self) -> Vec<LostMessage> {
        self.losses.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Records a lost message, if losses are recorded. Greetings and frames of clients are no messages.
    pub fn note_loss(&mut self, from: Endpoint, to: Endpoint, bytes: &Arc<[u8]>, piece: FrameKind, cause: DropCause) {
        if let (Some(losses), Endpoint::Server(from), Endpoint::Server(to), FrameKind::Word(..)) =
            (&mut self.losses, from, to, piece)
        {
            losses.push(LostMessage { from, to, bytes: bytes.clone(), cause });
        }
    }

    /// Ends all faults; frames still take time, at most 5 ms + 5 ms on average.
    pub fn end_faults(&mut self) {
        let LinkFaults { latency, jitter, .. } = self.link_faults;
        let link_faults = &mut self.link_faults;
        (link_faults.latency, link_faults.jitter) = (latency.min(5 * MS), jitter.min(5 * MS));
        (link_faults.late, link_faults.loss, link_faults.accept_loss) = (0, 0, 0);
        (link_faults.duplicate, link_faults.replay, link_faults.corrupt) = (0, 0, 0);
        // The limits of a real link hold what servers have in flight.
        link_faults.lane_bytes = LANE_BYTES;
        self.old.clear();
        for link in self.links.values_mut() {
            (link.cuts, link.slow) = (0, None);
        }
    }

    /// How long the fullest link takes to carry its frames in flight, and this number of bytes behind them.
    pub fn time_for(&self, bytes: usize) -> Micros {
        let Some(rate) = self.link_faults.rate else { return 0 };
        let fullest = self.links.values().map(|link| link.lanes.iter().sum::<usize>()).max();
        ((fullest.unwrap_or_default() + bytes) / rate) as Micros * MS
    }

    fn link(&mut self, from: Endpoint, to: Endpoint) -> &mut SimLink {
        self.links.entry((from, to)).or_default()
    }

    /// Adds a cut to a direction, or removes one.
    pub fn cut(&mut self, from: Endpoint, to: Endpoint, on: bool) {
        let link = self.link(from, to);
        link.cuts = if on { link.cuts + 1 } else { link.cuts.saturating_sub(1) };
    }

    /// Ends the connection. Frames in flight are lost, or arrive all the same, perhaps behind those of the next one.
    pub fn reset(&mut self, from: Endpoint, to: Endpoint, is_lost: bool) {
        let link = self.link(from, to);
        link.connection += 1;
        (link.last_due, link.lanes_due) = (0, [0; 2]);
        if is_lost {
            link.lost_below = link.connection;
        }
    }

    /// Drops all frames in flight, and all that are kept for a replay.
    pub fn forget_all(&mut self) {
        self.old.clear();
        for link in self.links.values_mut() {
            (link.in_flight, link.last_due) = (0, 0);
            (link.lanes, link.lanes_due) = ([0; 2], [0; 2]);
        }
    }

    /// Drops everything that this server has sent: it was sent with another disk than the server has now, on
    /// connections that began with that disk.
    pub fn forget(&mut self, server: ServerId) {
        let from = Endpoint::Server(server);
        self.old.retain(|(sender, ..)| *sender != from);
        let links: Vec<_> = self.links.keys().copied().filter(|(sender, _)| *sender == from).collect();
        links.into_iter().for_each(|(from, to)| self.reset(from, to, true));
    }

    /// Makes a link slow, or ends that.
    pub fn slow_down(&mut self, from: Endpoint, to: Endpoint, slow: Option<(usize, Micros)>) {
        self.link(from, to).slow = slow;
    }

    /// Accounts for a frame that reaches the end of its way; returns false if the frame was lost.
    pub fn arrives(&mut self, from: Endpoint, to: Endpoint, way: DeliveryMode, piece: FrameKind) -> bool {
        let (link, FrameSize { lane, bytes }) = (self.link(from, to), piece.weight());
        match way {
            DeliveryMode::Connection(sent_on) => {
                link.in_flight = link.in_flight.saturating_sub(1);
                link.lanes[lane as usize] = link.lanes[lane as usize].saturating_sub(bytes);
                link.cuts == 0 && sent_on >= link.lost_below
            }
            DeliveryMode::Replay => link.cuts == 0,
            DeliveryMode::Delayed => true,
        }
    }

    /// Whether this direction is cut.
    pub fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.links.get(&(from, to)).is_some_and(|link| link.cuts > 0)
    }

    /// Number of frames of this direction that were lost at once because it was cut.
    pub fn lost_on_cut(&self, from: Endpoint, to: Endpoint) -> u64 {
        self.links.get(&(from, to)).map_or(0, |link| link.lost_on_cut)
    }
}

impl SimEnv {
    /// Sends an ACCEPT, unless it falls to the extra loss of ACCEPTs.
    pub fn send_accept(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: FrameKind) {
        if self.chance(self.network.link_faults.accept_loss) {
            self.network.note_loss(from, to, &bytes, piece, DropCause::Lost);
            return self.reach(CoveragePoint::FrameLost);
        }
        // An ACCEPT that is lost later is handled like any lost frame.
        let _ = self.send(from, to, bytes, piece);
    }

    /// Sends a frame; returns false if it is lost at once.
    pub fn send(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: FrameKind) -> bool {
        self.network.frames += 1;
        let LinkFaults { loss, duplicate, replay, .. } = self.network.link_faults;
        if self.chance(loss) {
            self.network.note_loss(from, to, &bytes, piece, DropCause::Lost);
            self.reach(CoveragePoint::FrameLost);
            return false;
        }
        let is_sent = self.send_copy(from, to, bytes.clone(), piece);
        if !is_sent {
            let cause = if self.network.is_cut(from, to) { DropCause::Cut } else { DropCause::Full };
            self.network.note_loss(from, to, &bytes, piece, cause);
        }
        // A client's try is one connection: it cannot be refused and still arrive.
        if piece != FrameKind::Client && self.chance(duplicate) {
            self.reach(CoveragePoint::FrameDuplicated);
            self.send_copy(from, to, bytes.clone(), piece);
        }
        if matches!(piece, FrameKind::Hello(_) | FrameKind::Answer(_) | FrameKind::Word(..)) && replay > 0 {
            self.replay(from, to, bytes, piece, replay);
        }
        is_sent
    }

    fn send_copy(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: FrameKind) -> bool {
        let LinkFaults { latency, jitter, late, reorders, corrupt, rate, lane_bytes, .. } = self.network.link_faults;
        let FrameSize { lane, bytes: size } = piece.weight();
        let (now, mut delay) = (self.now(), latency + self.exponential(jitter));
        if self.chance(late) {
            self.reach(CoveragePoint::FrameLate);
            delay += self.random_time(&(SECOND..=10 * SECOND));
        }
        let link = self.network.link(from, to);
        let (room, each) = link.slow.unwrap_or((IN_FLIGHT_MAX, 0));
        let of_lane = link.lanes[lane as usize];
        let is_word = matches!(piece, FrameKind::Word(..));
        let is_full = is_word && of_lane > 0 && of_lane + size > lane_bytes[lane as usize];
        if link.cuts > 0 || link.in_flight >= room || is_full {
            link.lost_on_cut += u64::from(link.cuts > 0);
            self.reach(if is_full { CoveragePoint::LaneFull } else { CoveragePoint::FrameLost });
            return false;
        }
        delay += each * (1 + link.in_flight as Micros);
        if let Some(rate) = rate {
            let [control, bulk] = link.lanes;
            // Control messages pass bulk frames, except the part of them that is already being sent.
            let (ahead, has_passed) = match lane {
                Lane::Control => (control + bulk.min(IN_FLIGHT_BULK_BYTES), bulk > IN_FLIGHT_BULK_BYTES),
                Lane::Bulk => (control + bulk, false),
            };
            let due = &mut link.lanes_due[lane as usize];
            delay += ((ahead + size) / rate) as Micros * MS;
            if !reorders {
                delay = delay.max(due.saturating_sub(now));
            }
            *due = now + delay;
            if has_passed {
                self.reach(CoveragePoint::LanePassed);
            }
        } else if !reorders {
            delay = delay.max(link.last_due.saturating_sub(now));
        }
        let link = self.network.link(from, to);
        link.in_flight += 1;
        link.lanes[lane as usize] += size;
        link.last_due = now + delay;
        let way = DeliveryMode::Connection(link.connection);
        let is_corrupt = !bytes.is_empty() && self.chance(corrupt);
        let bytes = if is_corrupt { self.corrupted(&bytes) } else { bytes };
        self.schedule(delay, SimEvent::Frame { from, to, bytes, mode: way, piece });
        true
    }

    /// Perhaps sends an old frame again, and perhaps keeps this one.
    fn replay(&mut self, from: Endpoint, to: Endpoint, bytes: Arc<[u8]>, piece: FrameKind, per_mille: u64) {
        if self.chance(per_mille)
            && let Some(at) = (self.network.old.len() as u64).checked_sub(1)
        {
            let at = self.random.within(0..=at) as usize;
            if let Some((from, to, bytes, piece)) = self.network.old.get(at).cloned() {
                self.reach(CoveragePoint::FrameReplayed);
                self.schedule(1, SimEvent::Frame { from, to, bytes, mode: DeliveryMode::Replay, piece });
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

    /// Flips some bits of one byte, so that a frame of any length is corrupt afterwards. The frame is longer while log
    /// lines are recorded, and that must change nothing else.
    fn corrupted(&mut self, bytes: &[u8]) -> Arc<[u8]> {
        let mut bytes = bytes.to_vec();
        let flips = self.random.within(1..=255) as u8;
        let place = self.random.within(0..=bytes.len() as u64 - 1) as usize;
        bytes[place] ^= flips;
        bytes.into()
    }

    /// An approximately exponential random time with this mean: most are short, few are long.
    fn exponential(&mut self, mean: Micros) -> Micros {
        if mean == 0 {
            return 0;
        }
        // Each further step is half as likely, and within a step all times are equally likely. Integers are the same on
        // every machine; logarithms are not.
        let (bits, step) = (self.random.next(), mean * 2 / 3);
        let whole = Micros::from((bits >> 32 | 1 << 8).trailing_zeros()) * step;
        whole + (((bits & 0xffff_ffff) * step) >> 32)
    }
}
