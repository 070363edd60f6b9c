//! The latest lines of the cluster, for whoever watches: bounded, and nobody who writes lines ever waits for a viewer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::role::ServerId;

/// So many lines are kept for viewers that come late or read slowly, and so many bytes of them.
const LINES_MAX: usize = 30_000;
const BYTES_MAX: usize = 8 << 20;
/// A viewer takes at most this many at once, and this many bytes of them, or one longer line.
const BATCH_MAX: usize = 512;
const BATCH_MAX_BYTES: usize = 256 << 10;

/// Something that viewers hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedItem {
    /// A line, of this server or of another.
    Line {
        /// Of this one.
        own: bool,
        /// Without its line break.
        text: Arc<str>,
    },
    /// How many lines were lost on their way here.
    Lost(u64),
}

/// How this server hears of the lines of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFeedState {
    /// It is this one.
    Here,
    /// Nobody watches, so nobody listens.
    Idle,
    /// It is connected.
    Up,
    /// It is not.
    Gone,
    /// The cluster file names no address to ask.
    Nowhere,
}

impl PeerFeedState {
    /// In a word.
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

/// What a viewer takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedBatch {
    /// In order.
    pub items: Vec<FeedItem>,
    /// How many came and went before the viewer took them.
    pub missed: u64,
    /// Where the viewer goes on.
    pub next: u64,
    /// Who is heard, if that has changed.
    pub hearing: Option<BTreeMap<ServerId, PeerFeedState>>,
    /// The number of that change.
    pub change: u64,
}

/// The lines.
#[derive(Default)]
pub struct Feed {
    ring: Mutex<LineRing>,
    news: Condvar,
    viewers: AtomicUsize,
    lost: AtomicU64,
}

#[derive(Default)]
struct LineRing {
    items: VecDeque<FeedItem>,
    bytes: usize,
    /// How many items there have been before the first one here.
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
    fn ring(&self) -> MutexGuard<'_, LineRing> {
        // Each change under this lock is whole.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more item; the oldest go when there are too many.
    pub fn push(&self, item: FeedItem) {
        if let FeedItem::Lost(n) = item {
            self.lost.fetch_add(n, Ordering::Relaxed);
        }
        let mut ring = self.ring();
        ring.bytes += size(&item);
        ring.items.push_back(item);
        while ring.items.len() > LINES_MAX || ring.bytes > BYTES_MAX {
            let Some(old) = ring.items.pop_front() else { break };
            ring.bytes -= size(&old);
            ring.gone += 1;
        }
        drop(ring);
        self.news.notify_all();
    }

    /// The lines of a group, of this server or of another.
    pub fn push_lines(&self, own: bool, group: &str) {
        for line in group.lines() {
            self.push(FeedItem::Line { own, text: line.into() });
        }
    }

    /// What is known of the way to a server.
    pub fn tell(&self, server: ServerId, hearing: PeerFeedState) {
        let mut ring = self.ring();
        if ring.hearing.insert(server, hearing) != Some(hearing) {
            ring.changes += 1;
            drop(ring);
            self.news.notify_all();
        }
    }

    /// What has come since `next`, waiting so long for something to come; `change` is what the viewer knows of who is
    /// heard.
    pub fn take(&self, next: u64, change: u64, patience: Duration) -> FeedBatch {
        let ring = self.ring();
        let idle = |ring: &mut LineRing| ring.gone + ring.items.len() as u64 <= next && ring.changes == change;
        let (ring, _) = self.news.wait_timeout_while(ring, patience, idle).unwrap_or_else(PoisonError::into_inner);
        let from = next.max(ring.gone);
        let mut bytes = 0;
        let fits = |item: &&FeedItem| {
            bytes += size(item);
            bytes <= BATCH_MAX_BYTES.max(size(item))
        };
        let items = ring.items.iter().skip((from - ring.gone) as usize).take(BATCH_MAX).take_while(fits);
        let items: Vec<FeedItem> = items.cloned().collect();
        FeedBatch {
            missed: from - next,
            next: from + items.len() as u64,
            items,
            hearing: (ring.changes != change).then(|| ring.hearing.clone()),
            change: ring.changes,
        }
    }

    /// Where a viewer that wants all there is begins.
    pub fn beginning(&self) -> u64 {
        self.ring().gone
    }

    /// Counts a viewer.
    pub fn sit(&self) -> ViewerGuard<'_> {
        self.viewers.fetch_add(1, Ordering::Relaxed);
        ViewerGuard(self)
    }

    /// How many watch.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// A viewer has missed so many lines.
    pub fn add_missed(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many lines were lost on the way, to any viewer.
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
    fn what_a_slow_viewer_has_missed_is_counted_and_nothing_grows() {
        let feed = Feed::default();
        for n in 0..LINES_MAX + 10 {
            feed.push_lines(false, &format!("line {n}"));
        }
        let batch = feed.take(0, 0, NOW);
        assert_eq!((batch.missed, texts(&batch)[0], batch.items.len()), (10, "line 10", BATCH_MAX));
        assert_eq!(feed.beginning(), 10);
        // Long lines are fewer.
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            feed.push_lines(false, &long);
        }
        assert!(feed.ring().items.len() < 10 && feed.ring().bytes <= BYTES_MAX);
        let batch = feed.take(feed.beginning(), 0, NOW);
        assert_eq!(batch.items.len(), 1, "a line that is longer than a batch is one");
        for _ in 0..20 {
            feed.push_lines(false, &long[..BATCH_MAX_BYTES / 4]);
        }
        assert_eq!(feed.take(LINES_MAX as u64 + 30, 0, NOW).items.len(), 3);
    }

    #[test]
    fn a_change_of_who_is_heard_is_news_once() {
        let feed = Feed::default();
        feed.tell(ServerId(2), PeerFeedState::Up);
        feed.tell(ServerId(2), PeerFeedState::Up);
        let batch = feed.take(0, 0, NOW);
        assert_eq!((batch.hearing.unwrap()[&ServerId(2)], batch.change), (PeerFeedState::Up, 1));
        assert_eq!(feed.take(0, 1, NOW).hearing, None);
    }

    #[test]
    fn viewers_are_counted_while_they_sit() {
        let feed = Feed::default();
        let seat = feed.sit();
        assert_eq!(feed.viewers(), 1);
        drop(seat);
        assert_eq!(feed.viewers(), 0);
    }
}
