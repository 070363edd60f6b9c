//! The identity on a disk in memory that stops, corrupts data and is copied.

use super::*;
use crate::storage::disk::{InjectedFailure, MemoryFiles};

const STORAGE: u64 = 0xabc;

fn owner() -> Owner<'static> {
    Owner { cluster: "lab", quorums: Quorums::majority(ServerSet::first(5)), server: ServerId(3) }
}

fn read(files: &MemoryFiles) -> Option<DirIdentity<MemoryFiles>> {
    DirIdentity::read(files.clone(), owner()).unwrap()
}

fn create(files: &MemoryFiles) -> Result<DirIdentity<MemoryFiles>, IdentityError> {
    DirIdentity::create(files.clone(), owner(), STORAGE, "today".to_string())
}

/// The claim of a peer that was called back.
fn claim(server: u8, storage: u64) -> Claim {
    Claim { server: ServerId(server), storage, incarnation: 1, boot: 10, is_active: true, knows: Some(STORAGE) }
}

/// The recorded storage id of a peer.
fn known(identity: &DirIdentity<MemoryFiles>, server: u8) -> Option<u64> {
    identity.recorded_peer(ServerId(server)).map(|known| known.storage)
}

#[test]
fn recorded_identity_is_read_back() {
    let files = MemoryFiles::new();
    assert!(read(&files).is_none());
    let identity = create(&files).unwrap();
    assert_eq!(identity.begin_incarnation().unwrap(), 1);
    identity.set_has_journal(true).unwrap();
    identity.admit(&claim(1, u64::MAX)).unwrap();
    let identity = read(&files).unwrap();
    assert_eq!((identity.storage_id(), identity.incarnation()), (STORAGE, 1));
    assert_eq!((identity.has_journal(), identity.has_rounds()), (true, false));
    assert_eq!((known(&identity, 1), known(&identity, 2)), (Some(u64::MAX), None));
}

#[test]
fn admitted_peer_is_durable_and_an_unproved_claim_is_not_recorded() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    let before = files.image();
    for knows in [None, Some(STORAGE + 1)] {
        let claim = Claim { knows, incarnation: u32::MAX, ..claim(5, 2) };
        assert_eq!(identity.admit(&claim).unwrap(), Admitted::CallBack);
    }
    assert_eq!((files.image(), identity.recorded_peer(ServerId(5))), (before, None));
    assert_eq!(identity.admit(&claim(5, 1)).unwrap(), Admitted::Yes);
    files.power_cut(1);
    let expected = RecordedPeer { storage: 1, bound: true, incarnation: 1, boot: 10 };
    assert_eq!(read(&files).unwrap().recorded_peer(ServerId(5)), Some(expected));
    let error = read(&files).unwrap().admit(&claim(5, 2)).unwrap_err();
    assert!(matches!(error, IdentityError::NotAdmitted(NotAdmitted::OtherDataDir(5))), "{error}");
    assert_eq!(read(&files).unwrap().recorded_peer(ServerId(5)), Some(expected));
}

#[test]
fn active_data_dir_is_admitted_after_a_new_one_was_recorded() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    let pending_claim = Claim { is_active: false, ..claim(5, 2) };
    identity.admit(&pending_claim).unwrap();
    // Another new directory is refused, and the active one is admitted.
    assert!(identity.admit(&Claim { storage: 3, ..pending_claim }).is_err());
    assert_eq!(identity.admit(&claim(5, 1)).unwrap(), Admitted::Yes);
    assert_eq!(known(&read(&files).unwrap(), 5), Some(1));
    assert!(identity.admit(&pending_claim).is_err());
}

#[test]
fn full_disk_admits_the_next_incarnation_of_a_recorded_peer_and_no_unknown_peer() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    identity.admit(&claim(5, 1)).unwrap();
    let used: usize = files.image().values().map(Vec::len).sum();
    files.set_capacity(Some(used as u64));
    assert_eq!(identity.admit(&Claim { incarnation: 2, ..claim(5, 1) }).unwrap(), Admitted::Yes);
    assert!(identity.admit(&claim(4, 1)).unwrap_err().is_full());
}

#[test]
fn forget_removes_the_whole_record_of_a_peer() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    identity.admit(&Claim { incarnation: 9, ..claim(5, 1) }).unwrap();
    assert!(identity.forget_peer(ServerId(5)).unwrap());
    assert!(!identity.forget_peer(ServerId(5)).unwrap());
    assert_eq!(read(&files).unwrap().admit(&claim(5, 2)).unwrap(), Admitted::Yes);
}

#[test]
fn members_are_fixed_by_the_first_start_that_was_active() {
    let files = MemoryFiles::new();
    let three = Owner { quorums: Quorums::majority(ServerSet::first(3)), ..owner() };
    // A start with a wrong cluster file: nothing was recorded yet.
    DirIdentity::create(files.clone(), three, STORAGE, "today".to_string()).unwrap();
    assert_eq!(read(&files).unwrap().owner().1, ServerSet::first(5));
    files.power_cut(1);
    read(&files).unwrap().set_active().unwrap();
    let error = DirIdentity::read(files.clone(), three).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it belongs to cluster \"lab\" with servers 1-5, and the cluster file lists 1-3. Editing the file may change the \
         addresses of a cluster, but not its servers. Use the file with servers 1-5, or an empty directory for a new cluster"
    );
    assert_eq!(read(&files).unwrap().owner().1, ServerSet::first(5));
    let flexible = Owner { quorums: Quorums::new(ServerSet::first(5), 4, 2), ..owner() };
    let error = DirIdentity::read(files, flexible).unwrap_err();
    assert!(matches!(error, IdentityError::OtherQuorums { found: (3, 3), expected: (4, 2) }), "{error}");
}

#[test]
fn no_server_starts_on_an_unfinished_data_dir() {
    let files = MemoryFiles::new();
    let made = DirIdentity::create_unfinished(files.clone(), owner(), STORAGE, "today".to_string()).unwrap();
    made.begin_incarnation().unwrap();
    assert!(matches!(DirIdentity::read(files.clone(), owner()), Err(IdentityError::Unfinished)));
    DirIdentity::read_any(files.clone()).unwrap().unwrap().finish().unwrap();
    files.power_cut(1);
    assert_eq!(read(&files).unwrap().storage_id(), STORAGE);
}

#[test]
fn first_start_that_crashes_at_any_step_leaves_nothing_or_all() {
    let mut has_ended = false;
    for seed in 0..4 {
        for operation in 0..20 {
            let files = MemoryFiles::new();
            files.fail(operation, InjectedFailure::Stop);
            has_ended |= create(&files).is_ok();
            files.restart();
            files.power_cut(seed);
            let stranger =
                files.list().unwrap().into_iter().find(|name| {
                    *name != IDENTITY_FILE && *name != crate::storage::disk::name_in_making(IDENTITY_FILE)
                });
            assert_eq!(stranger, None, "a start would take it for a foreign file");
            match read(&files) {
                Some(identity) => assert_eq!((identity.storage_id(), identity.incarnation()), (STORAGE, 0)),
                None => drop(create(&files).unwrap()),
            }
        }
    }
    assert!(has_ended, "there are more operations than this");
}

#[test]
fn data_dir_of_another_cluster_or_server_is_refused() {
    let files = MemoryFiles::new();
    create(&files).unwrap();
    let other = DirIdentity::read(files.clone(), Owner { cluster: "home", ..owner() }).unwrap_err();
    assert_eq!(
        other.to_string(),
        "it belongs to cluster \"lab\" and this is cluster \"home\". Give this server its own directory"
    );
    let other = DirIdentity::read(files, Owner { server: ServerId(4), ..owner() }).unwrap_err();
    assert!(matches!(other, IdentityError::OtherServer { found: ServerId(3), expected: ServerId(4) }));
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let files = MemoryFiles::new();
    create(&files).unwrap().admit(&claim(1, 7)).unwrap();
    let whole = files.read(IDENTITY_FILE).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        files.put(IDENTITY_FILE, &bytes);
        let error = DirIdentity::read(files.clone(), owner()).unwrap_err();
        assert!(matches!(error, IdentityError::Corrupt { .. }), "bit {bit}: {error}");
    }
    for length in 0..whole.len() {
        files.put(IDENTITY_FILE, &whole[..length]);
        assert!(DirIdentity::read(files.clone(), owner()).is_err(), "{length} bytes");
    }
}

#[test]
fn data_dir_of_another_version_is_refused_with_the_next_step() {
    let files = MemoryFiles::new();
    create(&files).unwrap();
    let text = String::from_utf8(files.read(IDENTITY_FILE).unwrap()).unwrap();
    let of = |format: u32| {
        let rest = text.split_once('\n').unwrap().1.replace("format = 4", &format!("format = {format}"));
        files.put(IDENTITY_FILE, (checksum_line(&rest) + &rest).as_bytes());
        DirIdentity::read(files.clone(), owner()).unwrap_err()
    };
    let (earlier, later) = (of(3), of(5));
    assert!(matches!(earlier, IdentityError::Earlier { found: 3 }), "{earlier}");
    assert!(earlier.to_string().contains("make a backup with it"), "{earlier}");
    assert!(matches!(later, IdentityError::Later { found: 5 }), "{later}");
}

#[test]
fn no_crash_gives_two_incarnations_one_number() {
    for seed in 0..16 {
        let files = MemoryFiles::new();
        create(&files).unwrap();
        let mut last = 0;
        for operation in 0..60 {
            let identity = read(&files).unwrap();
            files.fail(operation % 12, InjectedFailure::Stop);
            if let Ok(incarnation) = identity.begin_incarnation() {
                assert!(incarnation > last, "incarnation {incarnation} after {last}");
                last = incarnation;
            }
            // A program that crashes and restarts may see what is not durable yet; then the power fails.
            files.restart();
            drop(read(&files).unwrap());
            files.power_cut(seed * 1_000 + operation);
        }
        assert!(last > 5);
    }
}

#[test]
fn incarnation_starts_on_a_full_disk() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    assert_eq!(identity.begin_incarnation().unwrap(), 1);
    identity.admit(&claim(1, 7)).unwrap();
    let used: usize = files.image().values().map(Vec::len).sum();
    files.set_capacity(Some(used as u64));
    assert!(identity.admit(&claim(2, 8)).unwrap_err().is_full());
    for incarnation in 2..=5 {
        let identity = read(&files).unwrap();
        assert_eq!(
            identity.begin_incarnation().unwrap(),
            incarnation,
            "the spare has become the file, and there is a spare again"
        );
        assert_eq!(known(&identity, 1), Some(7));
    }
    files.set_capacity(None);
    read(&files).unwrap().admit(&claim(2, 8)).unwrap();
}

#[test]
fn active_server_has_a_durable_record_of_its_admission() {
    let files = MemoryFiles::new();
    assert!(!create(&files).unwrap().is_active());
    read(&files).unwrap().set_active().unwrap();
    files.power_cut(1);
    assert!(read(&files).unwrap().is_active());
}

#[test]
fn bytes_read_by_a_new_process_are_durable() {
    for seed in 0..16 {
        let files = MemoryFiles::new();
        let identity = create(&files).unwrap();
        // Crashes after renaming the file, before syncing its name; the machine itself keeps running.
        files.fail(5, InjectedFailure::Stop);
        assert!(identity.admit(&claim(1, 7)).is_err());
        files.restart();
        assert_eq!(known(&read(&files).unwrap(), 1), Some(7));
        files.power_cut(seed);
        assert_eq!(known(&read(&files).unwrap(), 1), Some(7), "seed {seed}");
    }
}

#[test]
fn threads_share_the_identity() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    std::thread::scope(|threads| {
        for server in 1..=5 {
            let identity = &identity;
            threads.spawn(move || identity.admit(&claim(server, u64::from(server))).unwrap());
        }
    });
    let identity = read(&files).unwrap();
    assert!((1..=5).all(|server| known(&identity, server) == Some(u64::from(server))));
}

#[test]
fn impossible_incarnation_number_is_refused() {
    let files = MemoryFiles::new();
    create(&files).unwrap();
    let text = String::from_utf8(files.read(IDENTITY_FILE).unwrap()).unwrap();
    let body = text.split_once('\n').unwrap().1;
    for count in ["life = 0", "role_life = 0"] {
        let name = count.trim_end_matches('0');
        let body = body.replace(&format!("\n{count}"), &format!("\n{name}{}", u32::MAX));
        files.put(IDENTITY_FILE, (checksum_line(&body) + &body).as_bytes());
        let error = DirIdentity::read(files.clone(), owner()).unwrap_err();
        assert!(matches!(&error, IdentityError::Corrupt { why } if why.contains("incarnations")), "{error}");
    }
}

/// A directory with this number of incarnations.
fn aged(incarnation: u32, role_incarnation: u32) -> DirIdentity<MemoryFiles> {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    let change = |contents: &mut IdentityFile| {
        (contents.incarnation, contents.role_incarnation) = (incarnation, role_incarnation)
    };
    identity.change(change).unwrap();
    read(&files).unwrap()
}

#[test]
fn last_incarnation_of_a_data_dir_starts_and_none_after_it() {
    let identity = aged(INCARNATIONS_MAX - 1, 0);
    assert_eq!(identity.begin_incarnation().unwrap(), INCARNATIONS_MAX);
    let error = identity.begin_incarnation().unwrap_err();
    assert!(matches!(error, IdentityError::UsedUp { incarnations: INCARNATIONS_MAX, .. }), "{error}");
    assert_eq!(identity.incarnation(), INCARNATIONS_MAX, "no incarnation started");
    let again = read(&identity.files).unwrap();
    assert!(again.begin_incarnation().is_err(), "nor later, and the file is not reported corrupt");
}

#[test]
fn last_role_incarnations_of_a_data_dir_start_and_none_after_them() {
    let identity = aged(9, INCARNATIONS_MAX - ROLE_INCARNATIONS_RESERVED);
    identity.begin_incarnation().unwrap();
    for incarnation in 1..=ROLE_INCARNATIONS_RESERVED {
        assert_eq!(
            identity.next_role_incarnation().unwrap(),
            INCARNATIONS_MAX - ROLE_INCARNATIONS_RESERVED + incarnation
        );
    }
    assert!(matches!(
        identity.next_role_incarnation(),
        Err(IdentityError::UsedUp { role_incarnations: INCARNATIONS_MAX, .. })
    ));
    assert!(matches!(identity.begin_incarnation(), Err(IdentityError::UsedUp { .. })));
    // Incarnation numbers of roles beyond 24 bits are allowed.
    let old = aged(1 << 18, 1 << 24);
    old.begin_incarnation().unwrap();
    assert_eq!(old.next_role_incarnation().unwrap(), (1 << 24) + 1);
}
