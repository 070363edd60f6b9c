//! The small files of a data directory: the server's identity and the reserved rounds.

use paxos_kv::choices::Choices;
use paxos_kv::paxos::{ProposerRecord, Quorums};
use paxos_kv::role::{ServerId, ServerSet, StableStore};
use paxos_kv::storage::BallotStore;
use paxos_kv::storage::admission::{Claim, RecordedPeer};
use paxos_kv::storage::ballot_store::ROUNDS_FILE;
use paxos_kv::storage::disk::MemoryFiles;
use paxos_kv::storage::identity::{Admitted, DirIdentity, IDENTITY_FILE, Owner, checksum_line, describe};

const SERVER: ServerId = ServerId(2);
const OWNER: u64 = 0x5eed;

/// Reads a file that another program may have written.
pub fn folder(bytes: &[u8]) {
    let mut source = Choices::new(bytes);
    match source.below(4) {
        0 => assert!(describe(source.rest()).is_err() || bytes.len() > 60, "a short text has no checksum"),
        1 => rounds(source.rest(), false),
        2 => rounds(source.rest(), true),
        _ => identity(source.rest()),
    }
}

fn owner() -> Owner<'static> {
    Owner { cluster: "lab", quorums: Quorums::majority(ServerSet::first(3)), server: SERVER }
}

/// An identity with the right checksum. If it is accepted, it is complete, and stays the same when read again.
fn identity(body: &[u8]) {
    let Ok(body) = std::str::from_utf8(body) else { return };
    let files = MemoryFiles::new();
    files.put(IDENTITY_FILE, (checksum_line(body) + body).as_bytes());
    let read = || DirIdentity::read(files.clone(), owner());
    let Ok(identity) = read() else { return };
    let identity = identity.expect("the file is there");
    let known = |identity: &DirIdentity<MemoryFiles>| {
        let peers: Vec<_> = (0..=ServerId::MAX).map(|server| identity.recorded_peer(ServerId(server))).collect();
        (identity.storage_id(), identity.has_journal(), identity.has_rounds(), identity.is_active(), peers)
    };
    let before = known(&identity);
    let incarnation = identity.incarnation();
    assert_eq!(
        describe(&files.image()[IDENTITY_FILE]).expect("an identity that can be read can be displayed").storage,
        before.0
    );
    assert_eq!(identity.begin_incarnation().expect("there is room"), incarnation + 1);
    let role_life = identity.next_role_incarnation().expect("there is room");
    let again = read().expect("a written file can be read").expect("the file is there");
    assert_eq!((known(&again), again.incarnation()), (before, incarnation + 1));
    again.begin_incarnation().expect("there is room");
    assert!(
        again.next_role_incarnation().expect("there is room") > role_life,
        "an incarnation number of a role is used twice"
    );
    // A server that was not recorded yet is recorded now.
    let stranger = (1..=ServerId::MAX).map(ServerId).find(|server| again.recorded_peer(*server).is_none());
    if let Some(server) = stranger {
        let knows = Some(again.storage_id());
        let claim = Claim { server, storage: 9, incarnation: 1, boot: 2, is_active: false, knows };
        assert_eq!(again.admit(&claim).expect("no peer is recorded yet"), Admitted::Yes);
        let remembered = read().expect("a written file can be read").expect("the file is there");
        assert_eq!(
            remembered.recorded_peer(server),
            Some(RecordedPeer { storage: 9, bound: false, incarnation: 1, boot: 2 })
        );
    }
}

/// The file of reserved rounds. With a right checksum it is accepted or rejected; with a wrong one it must be rejected.
fn rounds(body: &[u8], is_closed: bool) {
    let mut file = body.to_vec();
    if is_closed {
        file.resize(512, 0);
        let sum = crc32c::crc32c(&file[4..]);
        file[..4].copy_from_slice(&sum.to_le_bytes());
    }
    let files = MemoryFiles::new();
    files.put(ROUNDS_FILE, &file);
    let spent = |rounds: &BallotStore<MemoryFiles>| {
        let ProposerRecord::RoundsReserved(spent) = rounds.record();
        spent
    };
    match BallotStore::open(files.clone(), OWNER, true) {
        Err(_) => assert_eq!(files.image()[ROUNDS_FILE], file, "a refused data directory stays unchanged"),
        Ok(mut rounds) => {
            assert_eq!(
                (file.len(), u32::from_le_bytes([file[0], file[1], file[2], file[3]])),
                (512, crc32c::crc32c(&file[4..]))
            );
            let before = spent(&rounds);
            rounds.commit(&[ProposerRecord::RoundsReserved(before / 2)]).expect("there is room");
            let next = before.saturating_add(1);
            rounds.commit(&[ProposerRecord::RoundsReserved(next)]).expect("there is room");
            assert_eq!(spent(&BallotStore::open(files, OWNER, true).expect("a written file can be read")), next);
        }
    }
}
