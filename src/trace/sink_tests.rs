//! Files that are moved away, emptied, or become too long.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct SinkTarget {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl SinkTarget {
    fn new() -> SinkTarget {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server-1.log");
        SinkTarget { _folder: dir, path }
    }

    fn open(&self, bound: Option<LogLimits>) -> Sink {
        Sink::new(LogFile::open(&self.path, bound).unwrap())
    }

    /// The text of `server-1.log` with this suffix, if the file exists.
    fn text(&self, suffix: &str) -> Option<String> {
        fs::read_to_string(format!("{}{suffix}", self.path.display())).ok()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.parent().unwrap()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const TWO_LINES: LogLimits = LogLimits { file_bytes: 12, keep: 2 };

#[test]
fn long_file_is_rotated_and_the_oldest_are_removed() {
    let target = SinkTarget::new();
    let mut sink = target.open(Some(TWO_LINES));
    sink.take(b"longer than the bound\n");
    assert_eq!(target.names(), ["server-1.log"], "no empty file makes way");
    for group in ["1\n2\n3\n", "4 and\n", "5 and 6\n", "7\n", "longer than the bound\n", "8\n"] {
        sink.take(group.as_bytes());
        assert!(!sink.has_refused());
    }
    assert_eq!(target.text("").unwrap(), "8\n");
    assert_eq!(target.text(".1").unwrap(), "longer than the bound\n", "a group is never cut in two");
    assert_eq!(target.text(".2").unwrap(), "5 and 6\n7\n");
    assert_eq!(target.names(), ["server-1.log", "server-1.log.1", "server-1.log.2"]);
}

#[test]
fn lower_limit_keeps_fewer_files() {
    let target = SinkTarget::new();
    for keep in [5, 2] {
        let mut sink = target.open(Some(LogLimits { keep, ..TWO_LINES }));
        (0..8).for_each(|n| sink.take(format!("line {n} of {keep}\n").as_bytes()));
    }
    assert_eq!(target.names(), ["server-1.log", "server-1.log.1", "server-1.log.2"]);
}

#[test]
fn size_limit_counts_files_of_earlier_incarnations() {
    let target = SinkTarget::new();
    target.open(None).take(b"an earlier run!\n");
    target.open(Some(TWO_LINES)).take(b"new\n");
    assert_eq!((target.text("").unwrap(), target.text(".1").unwrap()), ("new\n".into(), "an earlier run!\n".into()));
}

#[test]
fn old_file_continues_if_no_new_one_can_be_created() {
    let target = SinkTarget::new();
    let mut sink = target.open(Some(TWO_LINES));
    sink.take(b"the first\n");
    // A directory stands where the new file would be created.
    let in_the_way = target.path.with_extension("log.new");
    fs::create_dir(&in_the_way).unwrap();
    sink.take(b"the second\n");
    assert!(!sink.has_refused());
    assert_eq!(target.text("").unwrap(), "the first\nthe second\n");
    fs::remove_dir(&in_the_way).unwrap();
    sink.take(b"the third\n");
    assert_eq!(target.text("").unwrap(), "the third\n");
    assert_eq!(target.text(".1").unwrap(), "the first\nthe second\n");
}

#[test]
fn moved_file_is_reopened_under_its_name() {
    let target = SinkTarget::new();
    let mut sink = target.open(None);
    sink.take(b"before\n");
    fs::rename(&target.path, target.path.with_extension("moved")).unwrap();
    sink.take(b"still there\n");
    sink.reopen().unwrap();
    sink.take(b"after\n");
    assert_eq!(target.text("").unwrap(), "after\n");
    assert_eq!(fs::read_to_string(target.path.with_extension("moved")).unwrap(), "before\nstill there\n");
}

#[test]
fn failed_reopen_keeps_the_old_file() {
    let target = SinkTarget::new();
    let mut sink = target.open(None);
    let moved = target.path.with_extension("moved");
    fs::rename(&target.path, &moved).unwrap();
    fs::create_dir(&target.path).unwrap();
    assert!(sink.reopen().is_err());
    sink.take(b"a line\n");
    assert_eq!(fs::read_to_string(moved).unwrap(), "a line\n");
}

#[test]
fn truncated_file_is_not_padded_with_zeros() {
    let target = SinkTarget::new();
    let mut sink = target.open(None);
    sink.take(b"a line that was copied away\n");
    fs::write(&target.path, "").unwrap();
    sink.take(b"short\n");
    // A write that fails with nothing on disk is followed by this cut.
    let mut file = LogFile::open(&target.path, None).unwrap();
    file.truncate(1_000).unwrap();
    assert_eq!(target.text("").unwrap(), "short\n");
}

#[test]
fn new_file_is_private_to_its_user() {
    let place = SinkTarget::new();
    let mut sink = place.open(Some(TWO_LINES));
    sink.take(b"the first\n");
    sink.take(b"the second\n");
    for name in ["server-1.log", "server-1.log.1"] {
        let mode = fs::metadata(place.path.with_file_name(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
