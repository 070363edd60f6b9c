//! The state of the store: as pieces, as a backup, as the result of a log, and as the files of a checkpoint.

use paxos_kv::choices::Choices;
use paxos_kv::codec;
use paxos_kv::kv::{Kv, KvCommand, Op, decode_part, encode_chunk};
use paxos_kv::paxos::{CommandId, Slot, StateMachine, Value};
use paxos_kv::storage::backup::{BackupHeader, BackupWriter, read};
use paxos_kv::storage::checkpoint::{Checkpoint, CheckpointError, CheckpointMeta, CheckpointOptions};
use paxos_kv::storage::disk::{Files, MemoryFiles};

/// Maximum number of sessions; it is small, so that the table is soon full.
const SESSIONS: usize = 2;

/// Reads bytes as a chunk of a state, as a backup, or as a log.
pub fn state(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    match source.below(3) {
        0 => pieces(source.rest()),
        1 => backup(source),
        _ => log(source),
    }
}

/// A chunk of a state must be the same after it was written and read again in chunks of any size.
fn pieces(part: &[u8]) {
    let Ok(pieces) = decode_part(part) else { return };
    let count = pieces.len();
    let mut state = Kv::empty_like(&Kv::default());
    state.put_pieces(pieces);
    let changes = state.whole();
    assert!(changes.pieces.len() <= count);
    for size in [1, 3, count.max(1)] {
        let mut again = Kv::empty_like(&state);
        for pieces in changes.pieces.chunks(size) {
            again.load_chunk(&encode_chunk(&pieces.to_vec())).expect("a written state can be read");
        }
        assert_eq!((again.digest(), again.store()), (state.digest(), state.store()), "in parts of {size}");
    }
}

/// A backup with right checksums, and with the right digest unless `wrong` is 1.
fn backup(mut source: Choices<'_>) {
    let (wrong, version) = (source.below(4), source.twist(3));
    let mut parts = Vec::new();
    while !source.is_empty() {
        parts.push(source.bytes());
    }
    let mut whole = Kv::empty_like(&Kv::default());
    let is_state = parts.iter().all(|part| part.is_empty() || whole.load_chunk(part).is_ok());
    let is_right = wrong != 1;
    let title = BackupHeader { cluster: "lab".to_string(), history: 1, slot: Slot(7), digest: whole.digest() };
    let keys = whole.store().digest();
    let end = keys.wrapping_add(u64::from(!is_right)).to_le_bytes();
    let mut file = [&b"PaxosBak"[..], &(version as u32).to_le_bytes()].concat();
    for block in [&codec::encode(&title)[..]].into_iter().chain(parts.iter().copied()).chain([&b""[..], &end]) {
        put_block(block, &mut file);
    }
    if wrong == 2 {
        file.pop();
    }
    let Ok((found, state)) = read(&file[..]) else {
        let holds_all = is_state && parts.iter().all(|part| !part.is_empty());
        let is_good = holds_all && is_right && wrong != 2 && version as u32 == 3 && whole.sessions().is_empty();
        return assert!(!is_good, "a good backup is refused");
    };
    assert!(is_right && wrong != 2 && state.sessions().is_empty());
    assert_eq!((&found, state.digest()), (&title, keys));
    let mut writer = BackupWriter::begin(Vec::new(), &title).expect("writing to memory does not fail");
    for part in parts.iter().take_while(|part| !part.is_empty()) {
        writer.chunk(part).expect("writing to memory does not fail");
    }
    assert_eq!(writer.end(keys).expect("writing to memory does not fail"), file);
}

/// Small files, which are soon merged.
const OPTIONS: CheckpointOptions = CheckpointOptions { owner: 7, part_bytes: 100, merge_bytes: 1_500 };

fn open(files: &MemoryFiles) -> Result<(Checkpoint<MemoryFiles>, Kv), CheckpointError> {
    Checkpoint::open(files.clone(), OPTIONS, Kv::with_sessions_at_most(SESSIONS))
}

/// Two servers that apply one log must be equal, and so must a third one that reads the checkpoints written meanwhile.
/// A file of a checkpoint with any other byte must be refused.
fn log(mut source: Choices<'_>) {
    let (mut one, mut other) = (Kv::with_sessions_at_most(SESSIONS), Kv::with_sessions_at_most(SESSIONS));
    let files = MemoryFiles::new();
    let (mut checkpoint, _) = open(&files).expect("an empty directory is an empty state");
    let (changed_file, changed_bit) = (source.below(4), source.number());
    let mut slot = 0;
    while !source.is_empty() && slot < 200 {
        slot += 1;
        let value = value(&mut source);
        assert_eq!(one.apply(Slot(slot), &value), other.apply(Slot(slot), &value), "slot {slot}");
        if source.below(4) == 1 {
            let changes = one.take_delta();
            if source.below(3) == 0 {
                // As if the disk were full.
                one.delta_failed();
                continue;
            }
            let mark = CheckpointMeta { slot: Slot(slot), digest: one.digest() };
            checkpoint.write(mark, &changes).expect("writing to memory does not fail");
            one.delta_saved();
            for _ in 0..source.below(3) {
                checkpoint.merge_some().expect("writing to memory does not fail");
            }
            let written;
            (checkpoint, written) = open(&files).expect("what was written can be read");
            assert_eq!(checkpoint.mark(), mark);
            assert_eq!((written.digest(), written.store()), (one.digest(), one.store()), "written after slot {slot}");
            assert_eq!(written.sessions(), one.sessions());
        }
    }
    let names = files.list().expect("a disk in memory does not fail");
    if let Some(name) = names.get(usize::from(changed_file)) {
        let length = files.read(name).map_or(0, |bytes| bytes.len());
        files.flip_bit(name, changed_bit as usize % (8 * length));
        assert!(matches!(open(&files), Err(CheckpointError::Corrupt { .. })), "a changed bit of {name} is not found");
    }
    assert_eq!((one.digest(), one.store(), one.sessions()), (other.digest(), other.store(), other.sessions()));
    assert!(one.sessions().len() <= SESSIONS);
}

/// A value that a slot of the log may hold.
fn value(source: &mut Choices<'_>) -> Value {
    let command = match source.below(8) {
        0 => return Value::Noop,
        1 => {
            let payload = source.bytes().into();
            return Value::Command(paxos_kv::paxos::Command { id: CommandId::new(1, 0, 1), payload });
        }
        2 => KvCommand::Open { nonce: source.below(4).into(), label: String::new() },
        kind => {
            let key = vec![b'k', source.below(5)];
            let op = match kind {
                3 => Op::Delete { key },
                kind => Op::Put { key, value: vec![kind].into(), if_version: (kind == 4).then(|| source.number()) },
            };
            let (session, sequence, first_open) = (source.number(), source.number(), source.number());
            let nonce = source.below(4).into();
            KvCommand::Write { session, nonce, sequence, first_open, label: String::new(), op }
        }
    };
    Value::Command(command.to_paxos())
}

/// Appends a block as in a backup file: length, checksum and content.
fn put_block(block: &[u8], file: &mut Vec<u8>) {
    file.extend_from_slice(&(block.len() as u32).to_le_bytes());
    file.extend_from_slice(&crc32c::crc32c(block).to_le_bytes());
    file.extend_from_slice(block);
}
