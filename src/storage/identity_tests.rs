//! The identity on a disk in memory that stops, rots and is copied.

use super::*;
use crate::storage::disk::{Failure, MemoryFiles};

fn read(files: &MemoryFiles) -> Option<Identity<MemoryFiles>> {
    Identity::read(files.clone(), "lab", Server(3)).unwrap()
}

fn create(files: &MemoryFiles) -> Result<Identity<MemoryFiles>, IdentityError> {
    Identity::create(files.clone(), "lab", Server(3), 0xabc, "today".to_string())
}

#[test]
fn what_was_remembered_is_read_back() {
    let files = MemoryFiles::new();
    assert!(read(&files).is_none());
    let identity = create(&files).unwrap();
    assert_eq!(identity.begin_life().unwrap(), 1);
    identity.set_has_journal(true).unwrap();
    identity.remember_peer(Server(1), u64::MAX).unwrap();
    let identity = read(&files).unwrap();
    assert_eq!((identity.storage_id(), identity.life()), (0xabc, 1));
    assert_eq!((identity.has_journal(), identity.has_rounds()), (true, false));
    assert_eq!((identity.known_peer(Server(1)), identity.known_peer(Server(2))), (Some(u64::MAX), None));
}

#[test]
fn a_peer_that_comes_back_with_another_disk_is_refused() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    identity.remember_peer(Server(5), 1).unwrap();
    identity.remember_peer(Server(5), 1).unwrap();
    let error = identity.remember_peer(Server(5), 2).unwrap_err();
    assert!(matches!(error, IdentityError::OtherPeer { server: Server(5), known: 1, offered: 2 }));
    assert_eq!(read(&files).unwrap().known_peer(Server(5)), Some(1));
}

#[test]
fn a_peer_whose_folder_is_an_old_copy_is_refused() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    for (life, boot) in [(3, 1), (3, 1), (4, 2)] {
        identity.meet(Server(5), life, boot).unwrap();
    }
    let identity = read(&files).unwrap();
    // An earlier life, and the same one on a copy of the folder.
    for (life, boot) in [(3, 1), (4, 9)] {
        let error = identity.meet(Server(5), life, boot).unwrap_err();
        assert!(matches!(error, IdentityError::OldLife { known: 4, .. }), "{error}");
    }
    identity.meet(Server(5), 4, 2).unwrap();
    identity.meet(Server(5), 5, 3).unwrap();
    identity.meet(Server(4), 1, 3).unwrap();
}

#[test]
fn the_folder_of_another_cluster_or_server_is_refused() {
    let files = MemoryFiles::new();
    create(&files).unwrap();
    let other = Identity::read(files.clone(), "home", Server(3)).unwrap_err();
    assert_eq!(
        other.to_string(),
        "it belongs to cluster \"lab\" and this is cluster \"home\". Give this server a folder of its own"
    );
    let other = Identity::read(files, "lab", Server(4)).unwrap_err();
    assert!(matches!(other, IdentityError::OtherServer { found: Server(3), expected: Server(4) }));
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let files = MemoryFiles::new();
    create(&files).unwrap().remember_peer(Server(1), 7).unwrap();
    let whole = files.read(IDENTITY_FILE).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        files.put(IDENTITY_FILE, &bytes);
        let error = Identity::read(files.clone(), "lab", Server(3)).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "bit {bit}: {error}");
    }
    for length in 0..whole.len() {
        files.put(IDENTITY_FILE, &whole[..length]);
        assert!(Identity::read(files.clone(), "lab", Server(3)).is_err(), "{length} bytes");
    }
}

#[test]
fn another_format_is_named() {
    let files = MemoryFiles::new();
    create(&files).unwrap();
    let text = String::from_utf8(files.read(IDENTITY_FILE).unwrap()).unwrap();
    let rest = text.split_once('\n').unwrap().1.replace("format = 2", "format = 3");
    files.put(IDENTITY_FILE, (checksum_line(&rest) + &rest).as_bytes());
    let error = Identity::read(files, "lab", Server(3)).unwrap_err();
    assert!(matches!(error, IdentityError::Format { found: 3 }), "{error}");
}

#[test]
fn no_crash_makes_two_lives_have_one_number() {
    for seed in 0..16 {
        let files = MemoryFiles::new();
        create(&files).unwrap();
        let mut last = 0;
        for operation in 0..60 {
            let identity = read(&files).unwrap();
            files.fail(operation % 12, Failure::Stop);
            if let Ok(life) = identity.begin_life() {
                assert!(life > last, "life {life} after {last}");
                last = life;
            }
            // A program that dies and comes back may see what is not durable yet, and then loses power.
            files.restart();
            drop(read(&files).unwrap());
            files.power_cut(seed * 1_000 + operation);
        }
        assert!(last > 5);
    }
}

#[test]
fn a_life_begins_on_a_disk_that_is_full() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    assert_eq!(identity.begin_life().unwrap(), 1);
    identity.remember_peer(Server(1), 7).unwrap();
    let used: usize = files.image().values().map(Vec::len).sum();
    files.set_capacity(Some(used as u64));
    assert!(identity.remember_peer(Server(2), 8).unwrap_err().is_full());
    for life in 2..=5 {
        let identity = read(&files).unwrap();
        assert_eq!(
            identity.begin_life().unwrap(),
            life,
            "what stood ready has become the file, and stands ready again"
        );
        assert_eq!(identity.known_peer(Server(1)), Some(7));
    }
    files.set_capacity(None);
    read(&files).unwrap().remember_peer(Server(2), 8).unwrap();
}

#[test]
fn who_takes_part_has_written_it_down() {
    let files = MemoryFiles::new();
    assert!(!create(&files).unwrap().takes_part());
    read(&files).unwrap().set_takes_part().unwrap();
    files.power_cut(1);
    assert!(read(&files).unwrap().takes_part());
}

#[test]
fn what_a_new_process_has_read_is_durable() {
    for seed in 0..16 {
        let files = MemoryFiles::new();
        let identity = create(&files).unwrap();
        // Dies after renaming the file, before syncing its name; the machine itself runs on.
        files.fail(5, Failure::Stop);
        assert!(identity.remember_peer(Server(1), 7).is_err());
        files.restart();
        assert_eq!(read(&files).unwrap().known_peer(Server(1)), Some(7));
        files.power_cut(seed);
        assert_eq!(read(&files).unwrap().known_peer(Server(1)), Some(7), "seed {seed}");
    }
}

#[test]
fn threads_share_it() {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    std::thread::scope(|threads| {
        for server in 1..=5 {
            let identity = &identity;
            threads.spawn(move || identity.remember_peer(Server(server), u64::from(server)).unwrap());
        }
    });
    let identity = read(&files).unwrap();
    assert!((1..=5).all(|server| identity.known_peer(Server(server)) == Some(u64::from(server))));
}

#[test]
fn more_lives_than_there_can_be_are_not_believed() {
    let files = MemoryFiles::new();
    create(&files).unwrap();
    let text = String::from_utf8(files.read(IDENTITY_FILE).unwrap()).unwrap();
    let body = text.split_once('\n').unwrap().1;
    for count in ["life = 0", "role_life = 0"] {
        let name = count.trim_end_matches('0');
        let body = body.replace(&format!("\n{count}"), &format!("\n{name}{}", u32::MAX));
        files.put(IDENTITY_FILE, (checksum_line(&body) + &body).as_bytes());
        let error = Identity::read(files.clone(), "lab", Server(3)).unwrap_err();
        assert!(matches!(&error, IdentityError::Damaged { why } if why.contains("lives")), "{error}");
    }
}

/// A folder that counts so many lives.
fn aged(life: u32, role_life: u32) -> Identity<MemoryFiles> {
    let files = MemoryFiles::new();
    let identity = create(&files).unwrap();
    let change = |contents: &mut Contents| (contents.life, contents.role_life) = (life, role_life);
    identity.change(change).unwrap();
    read(&files).unwrap()
}

#[test]
fn the_last_life_of_a_folder_begins_and_no_other_after_it() {
    let identity = aged(LIVES_MAX - 1, 0);
    assert_eq!(identity.begin_life().unwrap(), LIVES_MAX);
    let error = identity.begin_life().unwrap_err();
    assert!(matches!(error, IdentityError::UsedUp { lives: LIVES_MAX, .. }), "{error}");
    assert_eq!(identity.life(), LIVES_MAX, "nothing was begun");
    let again = Identity::read(identity.files, "lab", Server(3)).unwrap().unwrap();
    assert!(again.begin_life().is_err(), "nor later, and the file is not called damaged");
}

#[test]
fn the_last_lives_of_the_roles_of_a_folder_begin_and_no_other_after_them() {
    let identity = aged(9, LIVES_MAX - ROLE_LIVES);
    identity.begin_life().unwrap();
    for life in 1..=ROLE_LIVES {
        assert_eq!(identity.begin_role_life().unwrap(), LIVES_MAX - ROLE_LIVES + life);
    }
    assert!(matches!(identity.begin_role_life(), Err(IdentityError::UsedUp { role_lives: LIVES_MAX, .. })));
    assert!(matches!(identity.begin_life(), Err(IdentityError::UsedUp { .. })));
    // One that had begun so many lives that a role's would once have been numbered beyond 24 bits goes on.
    let old = aged(1 << 18, 1 << 24);
    old.begin_life().unwrap();
    assert_eq!(old.begin_role_life().unwrap(), (1 << 24) + 1);
}
