//! Real servers that truncate: journals stay short, a server that was down gets the state, and corrupt slots are
//! repaired.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use paxos_kv::client::Client;
use paxos_kv::cluster;
use support::{Cluster, await_value, cluster_file, resident_kib};

/// Short files and frequent checkpoints.
const SHORT_RETENTION: [&str; 10] =
    ["--seed", "1", "--segment-kib", "256", "--checkpoint-slots", "300", "--retain-slots", "50", "--steps", "off"];

/// Overwrites a few keys, from some clients at once.
fn write(cluster: &Cluster, clients: usize, each: usize, bytes: usize) {
    thread::scope(|scope| {
        for n in 0..clients {
            scope.spawn(move || {
                let mut client = cluster.client(&format!("c{n}"), 1);
                for i in 0..each {
                    let key = format!("k{}", (n * 31 + i) % 40);
                    client.put(key.as_bytes(), vec![i as u8; bytes]).unwrap();
                }
            });
        }
    });
}

fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| {
        if entry.path().is_dir() { size_of(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }
    };
    entries.filter_map(Result::ok).map(size).sum()
}

fn snapshots_in(lines: &str) -> usize {
    lines.lines().filter(|line| line.contains(" SNAPSHOT ") && line.contains(" from=")).count()
}

#[test]
fn server_that_was_down_for_five_thousand_commands_catches_up() {
    let mut cluster = Cluster::start(5, &SHORT_RETENTION);
    write(&cluster, 1, 20, 100);
    cluster.await_agreement();
    cluster.kill(&[5]);
    write(&cluster, 5, 1_000, 100);
    cluster.start_server(5);
    let agreed = cluster.await_agreement();
    assert!(agreed.applied.0 > 5_000);
    assert_eq!(snapshots_in(&cluster.log_text(5)), 1, "{}", cluster.log_text(5));
    // Away once more, and no longer: then entries are enough, or another snapshot comes.
    cluster.kill(&[5]);
    write(&cluster, 3, 300, 100);
    cluster.start_server(5);
    cluster.await_agreement();
    for id in 1..=5 {
        let journal = size_of(&cluster.data_dir(id).join("journal"));
        assert!(journal <= 12 * (256 << 10), "the journal of server {id} has {journal} bytes");
    }
    // What was sent survives on its own disk.
    cluster.kill(&[1, 2, 3, 4, 5]);
    (1..=5).for_each(|id| cluster.start_server(id));
    cluster.await_all();
    let after = cluster.await_agreement();
    assert!(after.applied >= agreed.applied);
}

#[test]
fn disk_and_memory_are_flat_under_a_steady_load() {
    let cluster = Cluster::start(3, &SHORT_RETENTION);
    let (mut disks, mut memories) = (Vec::new(), Vec::new());
    let started = Instant::now();
    let mut written = 0;
    while started.elapsed() < Duration::from_secs(20) {
        write(&cluster, 4, 50, 2_000);
        written += 200;
        disks.push((1..=3).map(|id| size_of(&cluster.data_dir(id))).max().unwrap());
        memories.push((1..=3).map(|id| resident_kib(cluster.pid(id))).max().unwrap());
    }
    println!("{written} writes; disks {disks:?}; memories {memories:?}");
    // In the first half everything has grown to what it needs: some files, and a log for those who are a little late.
    let (disk, memory) = (disks.split_at(disks.len() / 2), memories.split_at(memories.len() / 2));
    let most = |of: &[u64]| of.iter().copied().max().unwrap();
    assert!(written >= 1_000, "only {written} writes: too few to show anything");
    assert!(most(disk.1) <= most(disk.0) + (4 << 20), "{disks:?}");
    assert!(most(memory.1) <= most(memory.0) + (16 << 10), "{memories:?}");
}

#[test]
fn snapshot_transfer_survives_a_killed_receiver_or_sender() {
    let mut cluster = Cluster::start(3, &SHORT_RETENTION);
    cluster.kill(&[3]);
    // A state of some thirty parts.
    write(&cluster, 3, 120, 700_000);
    for pause in [30, 60, 120, 250] {
        cluster.start_server(3);
        thread::sleep(Duration::from_millis(pause));
        cluster.kill(&[3]);
    }
    cluster.start_server(3);
    thread::sleep(Duration::from_millis(100));
    cluster.kill(&[1]);
    cluster.start_server(1);
    cluster.await_all();
    cluster.await_agreement();
    assert!(snapshots_in(&cluster.log_text(3)) >= 1);
}

fn keys(client: &mut Client, count: usize) -> Vec<(Option<Vec<u8>>, u64)> {
    let get = |n| {
        let found = client.get(format!("k{n}").as_bytes()).unwrap();
        (found.value, found.version)
    };
    (0..count).map(get).collect()
}

#[test]
fn a_backup_becomes_a_new_cluster_with_the_same_store() {
    let cluster = Cluster::start(3, &SHORT_RETENTION);
    write(&cluster, 2, 60, 500);
    cluster.client("c9", 1).delete(b"k3").unwrap();
    let before = keys(&mut cluster.client("c8", 2), 40);
    let file = cluster.dir.path().join("store.backup");
    let done = cluster.client_tool(&["backup", &file.to_string_lossy()]);
    assert!(done.status.success(), "{done:?}");
    let (is_whole, text) = inspect(&file);
    assert!(is_whole && text.contains("of cluster \"test\"") && text.contains(" keys, "), "{text}");
    fs::write(cluster.dir.path().join("cut"), &fs::read(&file).unwrap()[..100]).unwrap();
    let (is_whole, text) = inspect(&cluster.dir.path().join("cut"));
    assert!(!is_whole && text.is_empty(), "{text}");

    let new = cluster.dir.path().join("new.toml");
    let restore = |data: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxos-server"));
        command.arg("restore").arg(&file).arg("--cluster").arg(&new).arg("--data").arg(data);
        command.output().unwrap()
    };
    fs::write(&new, cluster_file(3)).unwrap();
    let same_name = restore(&cluster.dir.path().join("other"));
    assert!(!same_name.status.success() && String::from_utf8_lossy(&same_name.stderr).contains("another name"));
    fs::write(&new, cluster_file(5).replace("cluster = \"test\"", "cluster = \"renewed\"")).unwrap();
    let occupied = restore(&cluster.dir.path().join("data"));
    assert!(!occupied.status.success() && String::from_utf8_lossy(&occupied.stderr).contains("is not empty"));

    let mut renewed = Cluster::prepare(5, &SHORT_RETENTION);
    fs::copy(&new, renewed.file()).unwrap();
    renewed.cluster = cluster::Cluster::read(&new).unwrap();
    let done = restore(&renewed.dir.path().join("data"));
    assert!(done.status.success(), "{done:?}");
    (1..=5).for_each(|id| renewed.start_server(id));
    renewed.await_all();
    assert_eq!(keys(&mut renewed.client("c1", 4), 40), before);
    renewed.client("c2", 5).put(b"k0", b"new").unwrap();
    renewed.await_agreement();
}

fn inspect(dir: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_paxos-server")).arg("inspect").arg(dir).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every file of a directory and its contents.
fn image(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(dir).unwrap().filter_map(Result::ok) {
        match entry.path().is_dir() {
            true => files.extend(image(&entry.path())),
            false => files.push((entry.path().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn corrupt_slots_are_reported_and_repaired_from_peers() {
    let mut cluster = Cluster::start(5, &["--seed", "1", "--segment-kib", "256"]);
    write(&cluster, 2, 400, 300);
    cluster.await_agreement();
    cluster.kill(&[2]);
    let dir = cluster.data_dir(2);
    let before = image(&dir);
    let (is_healthy, text) = inspect(&dir);
    assert!(is_healthy, "{text}");
    assert_eq!(image(&dir), before, "inspection changes nothing");

    // A bit of a group in the oldest file, which is full; one that accepts values. Each sector says of which slots its
    // group does, first and last at bytes 24 and 32, and 1 and 0 if it only promises.
    let mut names: Vec<_> = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "journal"));
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    let mut bytes = Vec::new();
    fs::File::open(&names[0]).unwrap().read_to_end(&mut bytes).unwrap();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let sector = (40..).find(|sector| number(sector * 512 + 24) <= number(sector * 512 + 32)).unwrap();
    bytes[sector * 512 + 100] ^= 8;
    fs::write(&names[0], &bytes).unwrap();
    let (is_healthy, text) = inspect(&dir);
    assert!(!is_healthy && text.contains(&format!("is corrupt at byte {}", sector * 512)), "{text}");

    cluster.start_server(2);
    cluster.await_agreement();
    let status = await_value("the slots are repaired", || cluster.status(2).filter(|status| status.corrupt_slots == 0));
    assert!(status.accepted > 700);
    let lines = cluster.log_text(2);
    let (_, after) = lines.split_once(" CORRUPT ").unwrap();
    let slot = after.split("slot=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    // The learner tells what was chosen, unless a proposer comes first that has to finish the slot and proposes it
    // again.
    let holds_it = |line: &str| line.contains(" REPAIR ") || line.contains(" ACCEPTED ");
    assert!(after.lines().any(|line| holds_it(line) && line.contains(&format!(" slot={slot} "))), "{lines}");

    // A checkpoint that is damaged as a whole is made anew.
    cluster.kill(&[2]);
    let run = "0000000001-0000000001.run";
    fs::write(dir.join("checkpoint").join(run), [7; 9_000]).unwrap();
    let (is_healthy, text) = inspect(&dir);
    assert!(!is_healthy && text.contains(&format!("{run} of the directory checkpoint is corrupt")), "{text}");
    cluster.start_server(2);
    cluster.await_agreement();
    assert!(dir.join("checkpoint").join(format!("{run}.quarantined")).exists());
    let lines = cluster.log_text(2);
    assert!(lines.contains(run) && lines.contains("restored from the other servers"), "{lines}");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().filter_map(Result::ok) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn old_copy_of_a_data_dir_does_not_vote() {
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    write(&cluster, 1, 5, 10);
    cluster.kill(&[3]);
    let copy = cluster.dir.path().join("copy");
    copy_folder(&cluster.data_dir(3), &copy);
    cluster.start_server(3);
    cluster.await_all();
    write(&cluster, 1, 5, 10);
    cluster.kill(&[3]);
    fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    copy_folder(&copy, &cluster.data_dir(3));
    cluster.start_server(3);
    await_value("its peers report why", || cluster.log_text(1).contains("the directory is an old copy").then_some(()));
    // With the other one dead, the old copy makes no majority.
    cluster.kill(&[2]);
    let mut client = cluster.client("c7", 1);
    client.set_timeout(Duration::from_secs(3));
    assert!(client.put(b"k", b"v").is_err());
}
