//! The history of all client requests with their results, and the check that it is linearizable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::env::{Micros, SimEnv};
use super::oracle::{UNDECIDED, Violation};
use crate::linearizability;
use crate::linearizability::search::{SearchLimits, SearchResult, search};
use crate::linearizability::value_ids::ValueIds;
use crate::linearizability::versioned_model::{InitialState, VersionedCall, VersionedModel, VersionedOutcome};
use paxos_kv::kv::{Op, WriteResult};
use paxos_kv::paxos::{CommandId, Slot};
use paxos_kv::trace::QuotedText;

/// Maximum number of requests in flight for one key: the search tries all their orders.
const IN_FLIGHT_PER_KEY_MAX: usize = 8;
/// Memory limit of the search, in bytes.
const SEARCH_BYTES: usize = 256 << 20;
/// Step limit of the search; no run of the simulator has needed a hundredth of it. No clock ends the search, so the
/// same seed always gives the same result.
const SEARCH_STEPS: u64 = 100_000_000;
/// A time limit that is never reached, because the clock must not matter.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The operation that a client requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedOperation {
    /// A write.
    Write(Op),
    /// A read.
    Get {
        /// The key to read.
        key: Vec<u8>,
    },
}

impl RequestedOperation {
    /// The key of the operation.
    pub fn key(&self) -> &[u8] {
        match self {
            RequestedOperation::Write(op) => op.key(),
            RequestedOperation::Get { key } => key,
        }
    }
}

/// The result that the client observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedResult {
    /// Unknown: the operation may have happened, may still happen, or may never happen.
    Unknown,
    /// The operation certainly never happened.
    Refused,
    /// The slot and the result of a write.
    Wrote(Slot, WriteResult),
    /// The slot, value and version that a read found.
    Read(Slot, Option<Vec<u8>>, u64),
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct ClientRecord {
    /// The number of the client.
    pub client: usize,
    /// The operation.
    pub what: RequestedOperation,
    /// When the operation was called, as a moment; no two moments are equal.
    pub called: u64,
    /// When the operation ended, as a moment; None if it never did.
    pub ended: Option<u64>,
    /// When the operation ended, in virtual microseconds.
    pub at: Option<Micros>,
    /// The observed result.
    pub result: ObservedResult,
    /// One of its tries found that the client's session had expired, which other clients can cause.
    pub has_expired: bool,
    /// The command id of a write, once it is assigned.
    pub id: Option<CommandId>,
    /// The history of the cluster in which the operation began, and the one in which it ended.
    pub epochs: (u32, Option<u32>),
}

/// An operation as the versioned model sees it.
type ModelCall<'a> = (&'a ClientRecord, VersionedCall, Option<VersionedOutcome>);

impl ClientRecord {
    /// Whether the operation may have taken effect at all.
    fn may_count(&self) -> bool {
        let never_sent = matches!(self.what, RequestedOperation::Write(_)) && self.id.is_none();
        self.result != ObservedResult::Refused && !never_sent
    }

    /// Whether it may have taken effect in this history of the cluster. A read belongs to the history that answered it.
    fn may_be_of(&self, epoch: u32) -> bool {
        let (began, ended) = self.epochs;
        let is_within = began <= epoch && ended.is_none_or(|ended| epoch <= ended);
        is_within && (matches!(self.what, RequestedOperation::Write(_)) || ended == Some(epoch))
    }

    /// Whether the client knows the result.
    pub fn has_result(&self) -> bool {
        matches!(self.result, ObservedResult::Wrote(..) | ObservedResult::Read(..))
    }
}

/// All operations, in the order of their calls.
#[derive(Clone, Debug, Default)]
pub struct ClientHistory {
    operations: Vec<ClientRecord>,
    /// Number of requests in flight for each key.
    in_flight: BTreeMap<Vec<u8>, usize>,
    /// Number of times that the cluster started a new history.
    epoch: u32,
}

impl ClientHistory {
    /// All operations, in the order of their calls.
    pub fn operations(&self) -> &[ClientRecord] {
        &self.operations
    }

    /// Whether another request for this key may be in flight.
    pub fn may_start_request(&self, key: &[u8]) -> bool {
        self.in_flight.get(key).is_none_or(|count| *count < IN_FLIGHT_PER_KEY_MAX)
    }

    /// Its client no longer waits for it, whatever the result.
    pub fn request_ended(&mut self, operation: usize) {
        if let Some(count) = self.in_flight.get_mut(self.operations[operation].what.key()) {
            *count -= 1;
        }
    }

    /// The write has got its command id.
    pub fn set_id(&mut self, operation: usize, id: CommandId) {
        self.operations[operation].id = Some(id);
    }

    /// A try found that the client's session had expired.
    pub fn expired(&mut self, operation: usize) {
        self.operations[operation].has_expired = true;
    }

    fn end(&mut self, operation: usize, (moment, at): (u64, Micros), result: ObservedResult) {
        let operation = &mut self.operations[operation];
        (operation.ended, operation.at, operation.result) = (Some(moment), Some(at), result);
        operation.epochs.1 = Some(self.epoch);
    }

    /// The cluster has started a new history.
    pub fn begin_new_history(&mut self) {
        self.epoch += 1;
    }

    /// The cluster's histories; each one is checked against a store of its own.
    fn epochs(&self) -> impl Iterator<Item = u32> + use<> {
        0..=self.epoch
    }

    /// Checks the slot witness. Sorted by the slots of the replies, the results must be those of one store. An
    /// operation that ended before another one began must come before it. This needs no search, and covers every
    /// result.
    pub fn check_slots(&self) -> Result<(), Violation> {
        self.epochs().try_for_each(|epoch| {
            self.replay(epoch)?;
            self.check_real_time(epoch)
        })
    }

    /// Checks by search: some order of all operations, each between its call and its end, must give every result. An
    /// operation whose outcome is unknown may take effect at any time after its call, or never.
    ///
    /// A search that reaches a limit is a failure, too, because it proves nothing.
    pub fn check_search(&self) -> Result<(), Violation> {
        self.epochs().try_for_each(|epoch| self.search(epoch))
    }

    fn search(&self, epoch: u32) -> Result<(), Violation> {
        let deadline = Instant::now() + NEVER;
        let mut by_key: BTreeMap<&[u8], Vec<ModelCall<'_>>> = BTreeMap::new();
        let read = self.operations.iter().filter_map(|one| match &one.result {
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
            let outcome = match &operation.result {
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
            // An operation that ended in one history may have left a copy in earlier ones.
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
                SearchResult::Stuck(stuck) => {
                    format!("no order of the operations explains {:?}, which ended last", all[stuck.breaks].0)
                }
                SearchResult::OutOfTime | SearchResult::OutOfMemory => {
                    let what = format!("key {}: the search was stopped at its limit", String::from_utf8_lossy(key));
                    return Err(Violation { invariant: UNDECIDED, what });
                }
            };
            let what = format!("key {}: {why}", String::from_utf8_lossy(key));
            return Err(Violation { invariant: 16, what });
        }
        Ok(())
    }

    /// The operations whose result was observed in this history.
    fn read_in(&self, epoch: u32) -> impl Iterator<Item = &ClientRecord> {
        self.operations.iter().filter(move |one| one.epochs.1 == Some(epoch))
    }

    fn replay(&self, epoch: u32) -> Result<(), Violation> {
        let broken = |what: String| Err(Violation { invariant: 19, what });
        let mut by_slot: BTreeMap<Slot, Vec<&ClientRecord>> = BTreeMap::new();
        for operation in self.read_in(epoch) {
            if let ObservedResult::Wrote(slot, _) | ObservedResult::Read(slot, ..) = operation.result {
                by_slot.entry(slot).or_default().push(operation);
            }
        }
        // The known content of each key. Writes with an unknown outcome leave gaps; then only versions are compared.
        let mut known: BTreeMap<&[u8], (Option<&[u8]>, u64)> = BTreeMap::new();
        for (slot, operations) in by_slot {
            let (writes, reads): (Vec<_>, Vec<_>) =
                operations.into_iter().partition(|operation| matches!(operation.what, RequestedOperation::Write(_)));
            if writes.len() > 1 {
                return broken(format!("the replies to {} writes name the same slot {slot}", writes.len()));
            }
            for write in writes {
                let (RequestedOperation::Write(op), ObservedResult::Wrote(_, written)) = (&write.what, &write.result)
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
                    (&read.what, &read.result)
                else {
                    continue;
                };
                let (held, at) = known.get(key.as_slice()).copied().unwrap_or_default();
                let same = *version > at || (*version == at && value.as_deref() == held);
                if !same {
                    return broken(format!(
                        "a read at slot {slot} returned {value:?} at version {version}, but the key held {held:?} at version {at}"
                    ));
                }
                known.insert(key, (value.as_deref(), *version));
            }
        }
        Ok(())
    }

    /// Checks that slots agree with real time. A write is ordered at its slot, and a read directly after its slot.
    fn check_real_time(&self, epoch: u32) -> Result<(), Violation> {
        let mut called: Vec<(u64, (Slot, bool))> = Vec::new();
        let mut ended: Vec<(u64, (Slot, bool))> = Vec::new();
        for operation in self.read_in(epoch) {
            let place = match operation.result {
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
                let what = format!(
                    "an operation with slot {} began after an operation with slot {} had ended",
                    place.0, furthest.0
                );
                return Err(Violation { invariant: 19, what });
            }
        }
        Ok(())
    }
}

/// The content of a key after a write with this result, given the content before; an error if the result is impossible.
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
                Err(format!("put returned version {version} after version {at}"))
            }
        }
        (Op::Delete { .. }, WriteResult::Done { version }) => {
            let there = *version > at + 1 || (*version == at + 1 && held.is_some());
            if there {
                Ok((None, *version))
            } else {
                Err(format!("delete returned version {version} after version {at}"))
            }
        }
        (Op::Delete { .. }, WriteResult::NotFound { version }) => {
            let missing = gap(*version) || (*version == at && held.is_none());
            if missing {
                Ok((None, *version))
            } else {
                Err(format!("delete found no value at version {version}, but the key was at version {at}"))
            }
        }
        (Op::Put { if_version: Some(wanted), .. }, WriteResult::Mismatch { version }) => {
            let differs = wanted != version && *version >= at;
            if differs {
                Ok((held, at))
            } else {
                Err(format!("put found version {version} and required {wanted}, but the key was at version {at}"))
            }
        }
        _ => Err(format!("{op:?} cannot have the result {written:?}")),
    }
}

impl SimEnv {
    /// A client calls an operation.
    pub fn history_begins(&mut self, client: usize, what: RequestedOperation) -> usize {
        let called = self.next_moment();
        let epochs = (self.history.epoch, None);
        *self.history.in_flight.entry(what.key().to_vec()).or_default() += 1;
        let operation = ClientRecord {
            client,
            what,
            called,
            ended: None,
            at: None,
            result: ObservedResult::Unknown,
            has_expired: false,
            id: None,
            epochs,
        };
        self.history.operations.push(operation);
        self.history.operations.len() - 1
    }

    /// A write has ended with this result.
    pub fn history_wrote(&mut self, operation: usize, slot: Slot, written: WriteResult) {
        let moment = (self.next_moment(), self.now());
        self.history.end(operation, moment, ObservedResult::Wrote(slot, written));
        if let Some(id) = self.history.operations[operation].id {
            self.oracle.acknowledged(id, slot, written);
        }
    }

    /// A read has ended with this result.
    pub fn history_read(&mut self, operation: usize, slot: Slot, value: Option<Vec<u8>>, version: u64) {
        let moment = (self.next_moment(), self.now());
        self.history.end(operation, moment, ObservedResult::Read(slot, value, version));
    }

    /// A write certainly was not applied under its command id, and gets another one.
    pub fn history_renames(&mut self, operation: usize) {
        if let Some(id) = self.history.operations[operation].id.take() {
            self.oracle.refused(id);
        }
    }

    /// The operation certainly was not applied.
    pub fn history_refused(&mut self, operation: usize) {
        let moment = (self.next_moment(), self.now());
        self.history.end(operation, moment, ObservedResult::Refused);
        if let Some(id) = self.history.operations[operation].id {
            self.oracle.refused(id);
        }
    }
}
