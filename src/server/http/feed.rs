//! The feed of the cluster's latest log lines, for viewers: bounded, and no thread that writes lines ever waits for a
//! viewer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::role::ServerId;

/// Maximum number and bytes of the lines that are kept for viewers that come late or read slowly.
const LINES_MAX: usize = 30_000;
const BYTES_MAX: usize = 8 << 20;
/// Maximum number and bytes of the lines that a viewer takes at once; a longer line is taken alone.
const BATCH_MAX: usize = 512;
const BATCH_MAX_BYTES: usize = 256 << 10;

/// An item of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedItem {
    /// A log line, of this server or of a peer.
    Line {
        /// Whether the line is of this server.
        own: bool,
        /// The line, without its line break.
        text: Arc<str>,
    },
    /// Number of lines lost before they reached this feed.
    Lost(u64),
}

/// How this server receives the lines of another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFeedState {
    /// The other server is this one.
    Here,
    /// No viewer is here, so the peer's lines are not fetched.
    Idle,
    /// The peer is connected.
    Up,
    /// The peer is not connected.
    Gone,
    /// The cluster file names no HTTP address of the peer.
    Nowhere,
}

impl PeerFeedState {
    /// The state as one word.
    pub fn word(self) -> &'static str {
        match self {
            PeerFeedState::Here => "here",
            PeerFeedState::Idle => "idle",
            PeerFeedState::Up => "up",
            PeerFeedState::Gone => "gone",
            PeerFeedState::Nowhere => "nowhere",
        }
    }
}

/// The items that a viewer takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedBatch {
    /// The items, in order.
    pub items: Vec<FeedItem>,
    /// Number of items that were discarded before the viewer took them.
    pub missed: u64,
    /// The number of the viewer's next item.
    pub next: u64,
    /// The state of each server's lines, if it has changed.
    pub hearing: Option<BTreeMap<ServerId, PeerFeedState>>,
    /// The number of the last change of these states.
    pub change: u64,
}

/// The feed of log lines.
#[derive(Default)]
pub struct Feed {
    line_ring: Mutex<LineRing>,
    changed: Condvar,
    viewers: AtomicUsize,
    lost: AtomicU64,
}

#[derive(Default)]
struct LineRing {
    items: VecDeque<FeedItem>,
    bytes: usize,
    /// Number of items discarded before the first one here.
    gone: u64,
    hearing: BTreeMap<ServerId, PeerFeedState>,
    changes: u64,
}

/// Counts a viewer while it watches.
pub struct ViewerGuard<'a>(&'a Feed);

impl Drop for ViewerGuard<'_> {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feed {
    fn line_ring(&self) -> MutexGuard<'_, LineRing> {
        // Every change under this lock is complete.
        self.line_ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item; the oldest items are discarded when there are too many.
    pub fn push(&self, item: FeedItem) {
        if let FeedItem::Lost(n) = item {
            self.lost.fetch_add(n, Ordering::Relaxed);
        }
        let mut line_ring = self.line_ring();
        line_ring.bytes += size(&item);
        line_ring.items.push_back(item);
        while line_ring.items.len() > LINES_MAX || line_ring.bytes > BYTES_MAX {
            let Some(old) = line_ring.items.pop_front() else { break };
            line_ring.bytes -= size(&old);
            line_ring.gone += 1;
        }
        drop(line_ring);
        self.changed.notify_all();
    }

    /// Adds the lines of a batch, of this server or of a peer.
    pub fn push_lines(&self, own: bool, group: &str) {
        for line in group.lines() {
            self.push(FeedItem::Line { own, text: line.into() });
        }
    }

    /// Sets how this server receives the lines of another server.
    pub fn tell(&self, server: ServerId, hearing: PeerFeedState) {
        let mut line_ring = self.line_ring();
        if line_ring.hearing.insert(server, hearing) != Some(hearing) {
            line_ring.changes += 1;
            drop(line_ring);
            self.changed.notify_all();
        }
    }

    /// The items from number `next` on; waits up to `patience` for the first one. `change` is the number of the last
    /// change that the viewer knows.
    pub fn take(&self, next: u64, change: u64, patience: Duration) -> FeedBatch {
        let line_ring = self.line_ring();
        let idle = |line_ring: &mut LineRing| {
            line_ring.gone + line_ring.items.len() as u64 <= next && line_ring.changes == change
        };
        let (line_ring, _) =
            self.changed.wait_timeout_while(line_ring, patience, idle).unwrap_or_else(PoisonError::into_inner);
        let from = next.max(line_ring.gone);
        let mut bytes = 0;
        let fits = |item: &&FeedItem| {
            bytes += size(item);
            bytes <= BATCH_MAX_BYTES.max(size(item))
        };
        let items = line_ring.items.iter().skip((from - line_ring.gone) as usize).take(BATCH_MAX).take_while(fits);
        let items: Vec<FeedItem> = items.cloned().collect();
        FeedBatch {
            missed: from - next,
            next: from + items.len() as u64,
            items,
            hearing: (line_ring.changes != change).then(|| line_ring.hearing.clone()),
            change: line_ring.changes,
        }
    }

    /// The number of the oldest item: the start for a viewer that wants all items.
    pub fn beginning(&self) -> u64 {
        self.line_ring().gone
    }

    /// Counts a viewer until the guard is dropped.
    pub fn add_viewer(&self) -> ViewerGuard<'_> {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        ViewerGuard(self)
    }

    /// Number of viewers.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Counts lines that a viewer has missed.
    pub fn add_missed(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Number of lines that any viewer has missed.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

fn size(item: &FeedItem) -> usize {
    match item {
        FeedItem::Line { text, .. } => text.len() + 48,
        FeedItem::Lost(_) => 48,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn texts(batch: &FeedBatch) -> Vec<&str> {
        batch.items.iter().map(|item| if let FeedItem::Line { text, .. } = item { text } else { "LOST" }).collect()
    }

    #[test]
    fn a_viewer_takes_everything_in_order_and_waits_for_more() {
        let feed = Feed::default();
        feed.push_lines(true, "a\nb\n");
        let batch = feed.take(0, 0, NOW);
        assert_eq!((texts(&batch), batch.next, batch.missed), (vec!["a", "b"], 2, 0));
        assert_eq!(feed.take(2, 0, NOW), FeedBatch { next: 2, ..FeedBatch::default() });
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| feed.take(2, 0, Duration::from_secs(30)));
            feed.push(FeedItem::Lost(3));
            assert_eq!(texts(&waits.join().unwrap()), ["LOST"]);
        });
        assert_eq!(feed.lost(), 3);
    }

    #[test]
    fn items_that_a_slow_viewer_missed_are_counted_and_the_feed_stays_bounded() {
        let feed = Feed::default();
        for n in 0..LINES_MAX + 10 {
            feed.push_lines(false, &format!("line {n}"));
        }
        let batch = feed.take(0, 0, NOW);
        assert_eq!((batch.missed, texts(&batch)[0], batch.items.len()), (10, "line 10", BATCH_MAX));
        assert_eq!(feed.beginning(), 10);
        // Fewer long lines fit.
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            feed.push_lines(false, &long);
        }
        assert!(feed.line_ring().items.len() < 10 && feed.line_ring().bytes <= BYTES_MAX);
        let batch = feed.take(feed.beginning(), 0, NOW);
        assert_eq!(batch.items.len(), 1, "a line that is longer than a batch is one");
        for _ in 0..20 {
            feed.push_lines(false, &long[..BATCH_MAX_BYTES / 4]);
        }
        assert_eq!(feed.take(LINES_MAX as u64 + 30, 0, NOW).items.len(), 3);
    }

    #[test]
    fn change_of_a_peers_feed_state_is_delivered_once() {
        let feed = Feed::default();
        feed.tell(ServerId(2), PeerFeedState::Up);
        feed.tell(ServerId(2), PeerFeedState::Up);
        let batch = feed.take(0, 0, NOW);
        assert_eq!((batch.hearing.unwrap()[&ServerId(2)], batch.change), (PeerFeedState::Up, 1));
        assert_eq!(feed.take(0, 1, NOW).hearing, None);
    }

    #[test]
    fn viewers_are_counted_while_they_watch() {
        let feed = Feed::default();
        let seat = feed.add_viewer();
        assert_eq!(feed.viewers(), 1);
        drop(seat);
        assert_eq!(feed.viewers(), 0);
    }
}
