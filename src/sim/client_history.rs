//! What clients have asked and heard, and whether one store can have said it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::env::{Micros, SimEnv};
use super::oracle::{UNDECIDED, Violation};
use crate::kv::{Op, WriteResult};
use crate::linearizability;
use crate::linearizability::search::{SearchLimits, SearchResult, search};
use crate::linearizability::value_ids::ValueIds;
use crate::linearizability::versioned_model::{InitialState, VersionedCall, VersionedModel, VersionedOutcome};
use crate::paxos::{CommandId, Slot};
use crate::trace::QuotedText;

/// At most so many requests for one key are under way at once: the search tries the orders of all of them.
const UNDER_WAY_A_KEY_MAX: usize = 8;
/// The search may use so much memory.
const SEARCH_BYTES: usize = 256 << 20;
/// And so many steps: no run of the simulator has needed a hundredth of it. No clock ends it, so the same seed always
/// comes to the same.
const SEARCH_STEPS: u64 = 100_000_000;
/// Of the clock, which is not looked at.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedOperation {
    /// A write.
    Write(Op),
    /// A read.
    Get {
        /// The key.
        key: Vec<u8>,
    },
}

impl RequestedOperation {
    /// The key that it is about.
    pub fn key(&self) -> &[u8] {
        match self {
            RequestedOperation::Write(op) => op.key(),
            RequestedOperation::Get { key } => key,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedResult {
    /// Nothing, or nothing certain: it may have happened, or still happen.
    Unknown,
    /// It never happened.
    Refused,
    /// The write's result.
    Wrote(Slot, WriteResult),
    /// What the read found.
    Read(Slot, Option<Vec<u8>>, u64),
}

/// One operation.
#[derive(Clone, Debug)]
pub struct ClientRecord {
    /// Who asked.
    pub client: usize,
    /// What.
    pub what: RequestedOperation,
    /// When: moments, of which no two are the same.
    pub called: u64,
    /// When it ended; for ever open if None.
    pub ended: Option<u64>,
    /// The same in virtual microseconds.
    pub at: Option<Micros>,
    /// What was heard.
    pub heard: ObservedResult,
    /// One of its tries has found that the client's session is gone, which other clients can bring about.
    pub has_expired: bool,
    /// The write's name.
    pub id: Option<CommandId>,
    /// In which of the cluster's histories it began, and ended if it did.
    pub epochs: (u32, Option<u32>),
}

/// An operation in the words of the model.
type ModelCall<'a> = (&'a ClientRecord, VersionedCall, Option<VersionedOutcome>);

impl ClientRecord {
    /// Whether it may have been done at all.
    fn may_count(&self) -> bool {
        let never_sent = matches!(self.what, RequestedOperation::Write(_)) && self.id.is_none();
        self.heard != ObservedResult::Refused && !never_sent
    }

    /// Whether it may have been done in this of the cluster's histories. A read is of the one that answered it.
    fn may_be_of(&self, epoch: u32) -> bool {
        let (began, ended) = self.epochs;
        let is_within = began <= epoch && ended.is_none_or(|ended| epoch <= ended);
        is_within && (matches!(self.what, RequestedOperation::Write(_)) || ended == Some(epoch))
    }

    /// Whether its client knows what came of it.
    pub fn has_result(&self) -> bool {
        matches!(self.heard, ObservedResult::Wrote(..) | ObservedResult::Read(..))
    }
}

/// All operations, in the order in which they were called.
#[derive(Clone, Debug, Default)]
pub struct ClientHistory {
    operations: Vec<ClientRecord>,
    /// How many requests for a key are under way.
    under_way: BTreeMap<Vec<u8>, usize>,
    /// So many times the cluster was begun anew.
    epoch: u32,
}

impl ClientHistory {
    /// All of them.
    pub fn operations(&self) -> &[ClientRecord] {
        &self.operations
    }

    /// Whether another request for this key may be under way.
    pub fn has_room_for(&self, key: &[u8]) -> bool {
        self.under_way.get(key).is_none_or(|count| *count < UNDER_WAY_A_KEY_MAX)
    }

    /// Nobody waits for it any longer, whatever is known of it.
    pub fn left(&mut self, operation: usize) {
        if let Some(count) = self.under_way.get_mut(self.operations[operation].what.key()) {
            *count -= 1;
        }
    }

    /// The write has got its name.
    pub fn name(&mut self, operation: usize, id: CommandId) {
        self.operations[operation].id = Some(id);
    }

    /// A try has found that the client's session is gone.
    pub fn expired(&mut self, operation: usize) {
        self.operations[operation].has_expired = true;
    }

    fn end(&mut self, operation: usize, (moment, at): (u64, Micros), heard: ObservedResult) {
        let operation = &mut self.operations[operation];
        (operation.ended, operation.at, operation.heard) = (Some(moment), Some(at), heard);
        operation.epochs.1 = Some(self.epoch);
    }

    /// The cluster has begun anew.
    pub fn begin_anew(&mut self) {
        self.epoch += 1;
    }

    /// Each of the cluster's histories is that of a store of its own.
    fn epochs(&self) -> impl Iterator<Item = u32> + use<> {
        0..=self.epoch
    }

    /// The slot witness: sorted by the slots that the replies name, the results are those of one store, and whatever
    /// ended before something else began stands before it. No search is needed, and every client's word is checked.
    pub fn check_slots(&self) -> Result<(), Violation> {
        self.epochs().try_for_each(|epoch| {
            self.replay(epoch)?;
            self.agrees_with_time(epoch)
        })
    }

    /// The search: some order of all operations, each between its call and its end, gives every result. Operations
    /// whose outcome nobody knows may have happened at any time after their call, or never.
    ///
    /// A search that finds no end has failed too, as one that nobody can trust.
    pub fn check_search(&self) -> Result<(), Violation> {
        self.epochs().try_for_each(|epoch| self.search(epoch))
    }

    fn search(&self, epoch: u32) -> Result<(), Violation> {
        let deadline = Instant::now() + NEVER;
        let mut by_key: BTreeMap<&[u8], Vec<ModelCall<'_>>> = BTreeMap::new();
        let read = self.operations.iter().filter_map(|one| match &one.heard {
            ObservedResult::Read(_, Some(value), _) => Some(QuotedText::new(value)),
            _ => None,
        });
        let model = VersionedModel { start: InitialState::Empty, values: ValueIds::read(read), strangers: false };
        for operation in self.operations.iter().filter(|one| one.may_count() && one.may_be_of(epoch)) {
            let (key, call) = match &operation.what {
                RequestedOperation::Get { key } => (key.as_slice(), VersionedCall::Get),
                RequestedOperation::Write(Op::Delete { key }) => (key.as_slice(), VersionedCall::Delete),
                RequestedOperation::Write(Op::Put { key, value, if_version }) => {
                    let value = model.values.number(&QuotedText::new(value));
                    (key.as_slice(), VersionedCall::Put { value, if_version: *if_version })
                }
            };
            let outcome = match &operation.heard {
                ObservedResult::Wrote(_, WriteResult::Done { version }) => Some(VersionedOutcome::Done(*version)),
                ObservedResult::Wrote(_, WriteResult::NotFound { version }) => {
                    Some(VersionedOutcome::NotFound(*version))
                }
                ObservedResult::Wrote(_, WriteResult::Mismatch { version }) => {
                    Some(VersionedOutcome::Mismatch(*version))
                }
                ObservedResult::Read(_, value, version) => Some(VersionedOutcome::Holds(
                    value.as_ref().map(|value| model.values.number(&QuotedText::new(value))),
                    *version,
                )),
                ObservedResult::Unknown | ObservedResult::Refused => None,
            };
            // What is known to have happened in one history may have left a copy in those before.
            let outcome = outcome.filter(|_| operation.epochs.1 == Some(epoch));
            by_key.entry(key).or_default().push((operation, call, outcome));
        }
        for (key, all) in by_key {
            let returned = |one: &ClientRecord, outcome: Option<VersionedOutcome>| Some((one.ended?, outcome?));
            let operations: Vec<_> = all
                .iter()
                .map(|(one, call, outcome)| linearizability::HistoryOperation {
                    call: *call,
                    called: one.called,
                    returned: returned(one, *outcome),
                })
                .collect();
            let limits = SearchLimits { deadline, now: Instant::now, memory_bytes: SEARCH_BYTES, steps: SEARCH_STEPS };
            let why = match search(&model, &operations, limits) {
                SearchResult::Order(_) => continue,
                SearchResult::Stuck(stuck) => format!("nothing explains {:?}, which ended last", all[stuck.breaks].0),
                SearchResult::OutOfTime | SearchResult::OutOfMemory => {
                    let what = format!("key {}: the search found no end", String::from_utf8_lossy(key));
                    return Err(Violation { invariant: UNDECIDED, what });
                }
            };
            let what = format!("key {}: {why}", String::from_utf8_lossy(key));
            return Err(Violation { invariant: 16, what });
        }
        Ok(())
    }

    /// The operations whose result was heard in this epoch.
    fn heard_in(&self, epoch: u32) -> impl Iterator<Item = &ClientRecord> {
        self.operations.iter().filter(move |one| one.epochs.1 == Some(epoch))
    }

    fn replay(&self, epoch: u32) -> Result<(), Violation> {
        let broken = |what: String| Err(Violation { invariant: 19, what });
        let mut by_slot: BTreeMap<Slot, Vec<&ClientRecord>> = BTreeMap::new();
        for operation in self.heard_in(epoch) {
            if let ObservedResult::Wrote(slot, _) | ObservedResult::Read(slot, ..) = operation.heard {
                by_slot.entry(slot).or_default().push(operation);
            }
        }
        // What each key is known to hold. Writes whose outcome nobody heard leave gaps: then only versions are
        // compared.
        let mut known: BTreeMap<&[u8], (Option<&[u8]>, u64)> = BTreeMap::new();
        for (slot, operations) in by_slot {
            let (writes, reads): (Vec<_>, Vec<_>) =
                operations.into_iter().partition(|operation| matches!(operation.what, RequestedOperation::Write(_)));
            if writes.len() > 1 {
                return broken(format!("slot {slot} was named in the replies to {} writes", writes.len()));
            }
            for write in writes {
                let (RequestedOperation::Write(op), ObservedResult::Wrote(_, written)) = (&write.what, &write.heard)
                else {
                    continue;
                };
                let before = known.get(op.key()).copied().unwrap_or_default();
                let now = after(op, written, before);
                let now = now.map_err(|why| Violation { invariant: 19, what: format!("slot {slot}: {why}") })?;
                known.insert(op.key(), now);
            }
            for read in reads {
                let (RequestedOperation::Get { key }, ObservedResult::Read(_, value, version)) =
                    (&read.what, &read.heard)
                else {
                    continue;
                };
                let (held, at) = known.get(key.as_slice()).copied().unwrap_or_default();
                let same = *version > at || (*version == at && value.as_deref() == held);
                if !same {
                    return broken(format!(
                        "a read at slot {slot} found {value:?} version {version}, after {held:?} version {at}"
                    ));
                }
                known.insert(key, (value.as_deref(), *version));
            }
        }
        Ok(())
    }

    /// A write stands at its slot, a read behind it.
    fn agrees_with_time(&self, epoch: u32) -> Result<(), Violation> {
        let mut called: Vec<(u64, (Slot, bool))> = Vec::new();
        let mut ended: Vec<(u64, (Slot, bool))> = Vec::new();
        for operation in self.heard_in(epoch) {
            let place = match operation.heard {
                ObservedResult::Wrote(slot, _) => (slot, false),
                ObservedResult::Read(slot, ..) => (slot, true),
                ObservedResult::Unknown | ObservedResult::Refused => continue,
            };
            called.push((operation.called, place));
            ended.extend(operation.ended.map(|moment| (moment, place)));
        }
        ended.sort_unstable();
        let mut ended = ended.into_iter().peekable();
        let mut furthest = (Slot(0), false);
        for (moment, place) in called {
            while let Some((_, before)) = ended.next_if(|(end, _)| *end < moment) {
                furthest = furthest.max(before);
            }
            let later = if place.1 { place >= furthest } else { place > furthest };
            if !later {
                let what = format!("an operation of slot {} began after one of slot {} had ended", place.0, furthest.0);
                return Err(Violation { invariant: 19, what });
            }
        }
        Ok(())
    }
}

/// What a key holds after a write that came to this, if it held that before; an error if it cannot have come to this.
fn after<'a>(
    op: &'a Op,
    written: &WriteResult,
    (held, at): (Option<&'a [u8]>, u64),
) -> Result<(Option<&'a [u8]>, u64), String> {
    let gap = |version: u64| version > at;
    match (op, written) {
        (Op::Put { value, if_version, .. }, WriteResult::Done { version }) => {
            let wanted = if_version.is_none_or(|wanted| wanted + 1 == *version);
            if gap(*version) && wanted {
                Ok((Some(value), *version))
            } else {
                Err(format!("put made {version} of {at}"))
            }
        }
        (Op::Delete { .. }, WriteResult::Done { version }) => {
            let there = *version > at + 1 || (*version == at + 1 && held.is_some());
            if there { Ok((None, *version)) } else { Err(format!("delete made {version} of {at}")) }
        }
        (Op::Delete { .. }, WriteResult::NotFound { version }) => {
            let missing = gap(*version) || (*version == at && held.is_none());
            if missing { Ok((None, *version)) } else { Err(format!("delete found nothing at {version}, after {at}")) }
        }
        (Op::Put { if_version: Some(wanted), .. }, WriteResult::Mismatch { version }) => {
            let differs = wanted != version && *version >= at;
            if differs { Ok((held, at)) } else { Err(format!("put found {version}, after {at}, and wanted {wanted}")) }
        }
        _ => Err(format!("{op:?} cannot come to {written:?}")),
    }
}

impl SimEnv {
    /// A client asks for something.
    pub fn history_begins(&mut self, client: usize, what: RequestedOperation) -> usize {
        let called = self.moment();
        let epochs = (self.history.epoch, None);
        *self.history.under_way.entry(what.key().to_vec()).or_default() += 1;
        let operation = ClientRecord {
            client,
            what,
            called,
            ended: None,
            at: None,
            heard: ObservedResult::Unknown,
            has_expired: false,
            id: None,
            epochs,
        };
        self.history.operations.push(operation);
        self.history.operations.len() - 1
    }

    /// A write has ended with this.
    pub fn history_wrote(&mut self, operation: usize, slot: Slot, written: WriteResult) {
        let moment = (self.moment(), self.now());
        self.history.end(operation, moment, ObservedResult::Wrote(slot, written));
        if let Some(id) = self.history.operations[operation].id {
            self.oracle.acknowledged(id, slot, written);
        }
    }

    /// A read has ended with this.
    pub fn history_read(&mut self, operation: usize, slot: Slot, value: Option<Vec<u8>>, version: u64) {
        let moment = (self.moment(), self.now());
        self.history.end(operation, moment, ObservedResult::Read(slot, value, version));
    }

    /// A write certainly has not been done under the name that it had, and gets another one.
    pub fn history_renames(&mut self, operation: usize) {
        if let Some(id) = self.history.operations[operation].id.take() {
            self.oracle.refused(id);
        }
    }

    /// Certainly not done.
    pub fn history_refused(&mut self, operation: usize) {
        let moment = (self.moment(), self.now());
        self.history.end(operation, moment, ObservedResult::Refused);
        if let Some(id) = self.history.operations[operation].id {
            self.oracle.refused(id);
        }
    }
}
