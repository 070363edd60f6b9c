//! Real servers whose disk is new, lost, full, or holds a wrong state: what they say, and what they keep quiet about.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use paxos_kv::client::{Client, ClientError};
use paxos_kv::kv::{DeltaScope, Kv, StateDelta, StateEntry, VersionedValue};
use paxos_kv::net::AdmissionStatus;
use paxos_kv::paxos::StateMachine;
use paxos_kv::role::{ServerId, ServerSet};
use paxos_kv::storage::DataDir;
use paxos_kv::storage::checkpoint::{Checkpoint, CheckpointMeta, CheckpointOptions};
use support::{Cluster, await_value};

fn servers(ids: &[u8]) -> ServerSet {
    ids.iter().copied().map(ServerId).collect()
}

/// A client that does not wait for long.
fn client_with_short_timeout(cluster: &Cluster, name: &str, server: u8) -> Client {
    let mut client = cluster.client(name, server);
    client.set_timeout(Duration::from_secs(3));
    client
}

/// The write is certainly not applied; the sentence that says so.
fn refusal_of_write(client: &mut Client) -> String {
    match client.put(b"k", b"never") {
        Err(error @ ClientError::NotApplied(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_servers_start_when_a_majority_of_peers_has_recorded_each() {
    let mut cluster = Cluster::prepare(5, &["--seed", "1"]);
    (1..=3).for_each(|id| cluster.start_server(id));
    let await_witnesses = |id: u8, known_to: &[u8]| {
        let waited = Some(AdmissionStatus { witnesses: servers(known_to), needed: 3 });
        await_value("two peers have recorded it", || (cluster.status(id)?.admission == waited).then_some(()));
    };
    await_witnesses(1, &[2, 3]);
    await_witnesses(2, &[1, 3]);
    await_witnesses(3, &[1, 2]);
    let why = refusal_of_write(&mut client_with_short_timeout(&cluster, "c1", 1));
    assert!(why.contains("is not admitted: its data directory is new, and too few peers have recorded it"), "{why}");
    await_value("it reports what it waits for", || {
        cluster
            .log_text(1)
            .contains("It joins when 3 peers have recorded it (so far s2,s3): start those that are down")
            .then_some(())
    });
    let shown = cluster.client_tool(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("no writes: no quorum, 0 of 5 acceptors can vote and 3 are needed; no reply from s4,s5; server 1: not admitted yet"), "{shown}");
    assert!(
        shown.contains("server 1 is not admitted: its data directory is new. It joins when 3 peers have recorded it"),
        "{shown}"
    );

    cluster.start_server(4);
    let mut client = cluster.client("c2", 1);
    client.put(b"k", b"v").unwrap();
    assert_eq!(cluster.status(1).unwrap().admission, None);
    // From now on a majority is enough.
    cluster.kill(&[1, 2, 3, 4]);
    [2, 3, 4].into_iter().for_each(|id| cluster.start_server(id));
    cluster.client("c3", 2).put(b"k", b"w").unwrap();
    cluster.start_server(1);
    cluster.start_server(5);
    cluster.await_all();
    cluster.await_agreement();
}

/// A cluster file that names an address without a listener for one server.
fn without(cluster: &Cluster, absent: u8) -> String {
    let address = cluster.cluster.member(ServerId(absent)).unwrap().peer.to_string();
    let text = fs::read_to_string(cluster.file()).unwrap();
    assert!(text.contains(&address));
    let file = cluster.dir.path().join(format!("without-{absent}.toml"));
    fs::write(&file, text.replace(&address, &support::free_address().to_string())).unwrap();
    file.to_string_lossy().into_owned()
}

#[test]
fn server_that_lost_its_data_dir_does_not_vote_although_one_peer_never_recorded_it() {
    let mut cluster = Cluster::prepare(5, &["--seed", "1"]);
    // Servers 3 and 5 never meet.
    let (without_5, without_3) = (without(&cluster, 5), without(&cluster, 3));
    [1, 2, 4].into_iter().for_each(|id| cluster.start_server(id));
    cluster.start_server_with(3, &["--cluster", &without_5]);
    cluster.start_server_with(5, &["--cluster", &without_3]);
    for id in 1..=5 {
        await_value("it is admitted", || (cluster.status(id)?.admission.is_none()).then_some(()));
    }
    cluster.client("c1", 3).put(b"k", b"v").unwrap();
    cluster.kill(&[1, 2, 3, 4, 5]);

    // Server 3 comes back without its memory. Server 4 knows better, and server 5 cannot. Together they would be three.
    fs::remove_dir_all(cluster.data_dir(3)).unwrap();
    [3, 4, 5].into_iter().for_each(|id| cluster.start_server(id));
    let pending = Some(AdmissionStatus { witnesses: servers(&[5]), needed: 3 });
    await_value("server 5 treats it as new", || (cluster.status(3)?.admission == pending).then_some(()));
    await_value("server 4 does not", || cluster.log_text(4).contains("another data directory than").then_some(()));
    for server in [5, 4, 3] {
        refusal_of_write(&mut client_with_short_timeout(&cluster, &format!("d{server}"), server));
    }
    assert_eq!(cluster.status(3).unwrap().admission, pending);
    assert_eq!(cluster.status(3).unwrap().accepted, 0);

    // With one more that remembers there is a majority.
    cluster.start_server(1);
    let mut client = cluster.client("c2", 5);
    assert_eq!(client.get(b"k").unwrap().value.as_deref(), Some(&b"v"[..]));
    client.put(b"k", b"w").unwrap();
    assert_eq!(cluster.status(3).unwrap().admission, pending);
}

/// Gives a key another value in the checkpoint of a server that does not run; all its checksums are right.
fn falsify_checkpoint(cluster: &Cluster, id: u8, key: &[u8]) -> CheckpointMeta {
    let dir = DataDir::open(&cluster.data_dir(id), cluster.cluster.owner(ServerId(id))).unwrap();
    let files = dir.checkpoint_files().unwrap();
    let (mut checkpoint, mut state) =
        Checkpoint::open(files, CheckpointOptions::usual(dir.storage_id()), Kv::default()).unwrap();
    let VersionedValue { version, .. } = state.store().get(key).unwrap().clone();
    let wrong =
        StateEntry::Key { key: key.to_vec(), entry: VersionedValue { value: Some(b"wrong".to_vec().into()), version } };
    state.put_pieces(vec![wrong.clone()]);
    let mark = CheckpointMeta { slot: checkpoint.mark().slot, digest: state.digest() };
    let changes = StateDelta { scope: DeltaScope::Changes, pieces: vec![wrong].into(), ended: Vec::new() };
    checkpoint.write(mark, &changes).unwrap();
    mark
}

#[test]
fn diverged_server_fences_itself_until_it_gets_an_equal_state() {
    let mut cluster = Cluster::start(3, &["--seed", "1", "--checkpoint-slots", "20", "--segment-kib", "256"]);
    let mut client = cluster.client("c1", 1);
    // What is written again later would be right again by itself.
    client.put(b"once", b"right").unwrap();
    for n in 0..60 {
        client.put(format!("k{}", n % 5).as_bytes(), format!("value {n}").as_bytes()).unwrap();
    }
    cluster.await_agreement();
    await_value("there is a checkpoint", || (cluster.status(3)?.checkpoint.0 >= 40).then_some(()));
    cluster.kill(&[3]);
    let mark = falsify_checkpoint(&cluster, 3, b"once");

    cluster.start_server(3);
    let slot = await_value("it detects the divergence", || cluster.status(3)?.fenced);
    // It cannot evaluate earlier slots: no server still sends their digests.
    assert!(slot >= mark.slot, "{slot} and {}", mark.slot);
    let line = await_value("it reports the violation", || {
        cluster.log_text(3).lines().find(|line| line.contains(" VIOLATION ")).map(str::to_string)
    });
    assert!(line.contains(&format!("slot={slot} ")) && line.contains("differs from s1,s2"), "{line}");
    await_value("it reports the violation on its terminal", || {
        cluster.stderr_text(3).contains("the server is fenced").then_some(())
    });
    let shown = cluster.client_tool(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("FENCED") && shown.contains(&format!("the replica of server 3 diverged after slot {slot}")),
        "{shown}"
    );
    let json = cluster.client_tool(&["status", "-o", "json"]);
    assert!(String::from_utf8_lossy(&json.stdout).contains(&format!("\"fenced\":{slot}")), "{json:?}");

    // Its clients are served by the other servers; but it does not vote, so with one more down there is no majority.
    let mut asks_it = client_with_short_timeout(&cluster, "c2", 3);
    assert_eq!(asks_it.get(b"once").unwrap().value.as_deref(), Some(&b"right"[..]));
    asks_it.put(b"k", b"v").unwrap();
    let promised = cluster.status(3).unwrap().promised;
    cluster.kill(&[2]);
    refusal_of_write(&mut client_with_short_timeout(&cluster, "c3", 1));
    assert_eq!(cluster.status(3).unwrap().promised, promised);

    // Its next life knows it still, and says what to do.
    cluster.kill(&[3]);
    cluster.start_server(3);
    assert_eq!(cluster.await_exit(3).code(), Some(1));
    let why = cluster.stderr_text(3);
    assert!(
        why.contains(&format!(
            "after slot {slot} it differs from the state of the other servers. Move the directory checkpoint"
        )),
        "{why}"
    );
    let inspected =
        Command::new(env!("CARGO_BIN_EXE_paxos-server")).arg("inspect").arg(cluster.data_dir(3)).output().unwrap();
    assert_eq!(inspected.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&inspected.stdout).contains("differs from the state of the other servers"),
        "{inspected:?}"
    );
    fs::rename(cluster.data_dir(3).join("checkpoint"), cluster.dir.path().join("wrong")).unwrap();
    cluster.start_server(2);
    cluster.start_server(3);
    cluster.await_all();
    cluster.await_agreement();
    assert_eq!(cluster.status(3).unwrap().fenced, None);
}

/// A small disk of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// An ext4 file system in a file; None if this user may not mount one.
    fn mount_ext4(image: &Path, at: &Path, kib: u64) -> Option<SmallDisk> {
        fs::create_dir_all(at).unwrap();
        fs::File::create(image).unwrap().set_len(kib << 10).unwrap();
        let run = |command: &mut Command| {
            let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            done.is_ok_and(|status| status.success())
        };
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image));
        (made && run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at)))
            .then(|| SmallDisk(at.to_path_buf()))
    }

    /// None if this user may not mount one.
    fn mount(at: &Path, kib: u32) -> Option<SmallDisk> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(at);
        let done = mount.stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_path_buf()))
    }

    /// Fills it to the last byte; the file that does.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        let zeros = [0; 4_096];
        while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
        assert_eq!(self.free(), 0);
        ballast
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        disk.f_bavail * disk.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn an_acceptor_that_restarts_on_a_full_disk_promises_if_it_can_and_recovers_by_itself() {
    let mut cluster = Cluster::prepare(3, &["--seed", "1", "--segment-kib", "256", "--checkpoint-slots", "100000"]);
    let Some(disk) = SmallDisk::mount(&cluster.dir.path().join("disk"), 6 << 10) else {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    };
    let data = disk.0.join("server-3").to_string_lossy().into_owned();
    let on_it = ["--data", data.as_str()];
    cluster.start_server(1);
    cluster.start_server(2);
    cluster.start_server_with(3, &on_it);
    cluster.await_all();
    let mut client = cluster.client("c1", 1);
    client.put(b"k", b"v").unwrap();

    // Full, but the next file of the journal stands ready: it goes on, also in its next life.
    let ballast = disk.fill();
    cluster.kill(&[3]);
    cluster.start_server_with(3, &on_it);
    cluster.await_all();
    cluster.kill(&[2]);
    client.put(b"k", b"w").unwrap();
    cluster.start_server(2);

    // Now that file is used up: nothing but promises.
    let is_full = || cluster.status(3).filter(|status| status.disk_full);
    let mut n = 0;
    while is_full().is_none() {
        n += 1;
        assert!(n < 400, "it accepts more than it has space for");
        client.put(b"k", vec![n as u8; 20_000]).unwrap();
    }
    assert!(refused_there(&cluster, 3).contains("has no disk space"));
    let promised = cluster.status(3).unwrap().promised;
    client.put(b"k", b"x").unwrap();
    await_value("it continues to promise", || (cluster.status(3)?.promised > promised).then_some(()));

    // Its next life finds no file to begin with and no room for one: it waits, and says nothing.
    cluster.kill(&[3]);
    cluster.start_server_with(3, &on_it);
    let status_without_space = || cluster.status(3).filter(|status| !status.roles[1].up || status.disk_full);
    await_value("it is up without its acceptor, or promises only", status_without_space);
    client.put(b"k", b"y").unwrap();
    fs::remove_file(&ballast).unwrap();
    await_value("it has space again", || {
        cluster.status(3).filter(|s| s.roles.iter().all(|role| role.up) && !s.disk_full)
    });
    cluster.kill(&[2]);
    client.put(b"k", b"z").unwrap();
    cluster.start_server(2);
    cluster.await_all();
    cluster.await_agreement();
}

/// What a client hears that asks this server alone.
fn refused_there(cluster: &Cluster, id: u8) -> String {
    let file = cluster.dir.path().join("alone.toml");
    let text = fs::read_to_string(cluster.file()).unwrap();
    // For all other servers the file names addresses without a listener.
    let mut alone = text;
    for (server, member) in cluster.cluster.members().filter(|(server, _)| *server != ServerId(id)) {
        let _ = server;
        alone = alone.replace(&member.client.to_string(), &support::free_address().to_string());
    }
    fs::write(&file, alone).unwrap();
    let cluster = paxos_kv::cluster::Cluster::read(&file).unwrap();
    let mut options = paxos_kv::client::ClientOptions::new(cluster, "alone");
    options.first_server = Some(ServerId(id));
    options.timeout = Duration::from_secs(3);
    refusal_of_write(&mut Client::new(options).unwrap())
}

/// Found by chaos: on a full ext4 the file of a checkpoint was left longer than it should be, and then taken for
/// damaged.
#[test]
fn file_without_space_to_grow_stays_unchanged() {
    use paxos_kv::storage::disk::{Files, RealFiles, StableFile, is_full};
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount_ext4(&dir.path().join("image"), &dir.path().join("disk"), 8 << 10) else {
        eprintln!("skipped: this user may not mount an ext4 file system");
        return;
    };
    let files = RealFiles::open(&disk.0).unwrap();
    let file = files.create_zeroed("grows", 10_000).unwrap();
    file.set_length(20_000).unwrap();
    assert_eq!(file.length().unwrap(), 20_000);
    let free = disk.free();
    assert!(is_full(&file.set_length(free + 100_000).unwrap_err()));
    assert_eq!((file.length().unwrap(), disk.free()), (20_000, free));
    file.set_length(20_000 + free / 2).unwrap();
    assert!(disk.free() <= free / 2, "there is space for the larger file");
}

/// Found by chaos: a server that could not open the file in which it remembers its peers refused them for ever.
#[test]
fn server_at_its_file_limit_admits_its_peers_again_below_the_limit() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let mut cluster = Cluster::start(3, &["--seed", "1"]);
    let pid = Pid::from_raw(cluster.pid(1) as i32);
    // It allows itself as many as it may have.
    let most = getrlimit(Resource::Nofile).maximum;
    let before = Rlimit { current: most, maximum: most };
    // Its connections with the other one free some files when that one ends. With just one of them it hears who calls,
    // and can then not write that down.
    for fewer in 0..=4 {
        let open = fs::read_dir(format!("/proc/{}/fd", cluster.pid(1))).unwrap().count() as u64;
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(open - fewer), maximum: before.maximum }).unwrap();
        cluster.kill(&[2]);
        cluster.start_server(2);
        await_value("the other one is connected", || {
            cluster.status(2).filter(|status| status.connected.contains(ServerId(3)))
        });
        std::thread::sleep(Duration::from_millis(300));
        prlimit(pid, Resource::Nofile, before).unwrap();
        cluster.await_all();
    }
    cluster.await_agreement();
}
