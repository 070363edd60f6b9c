//! The name of a client and its log file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::role::ServerSet;
use crate::trace::{Event, PendingLine, ProcessId, Speaker, Trace};

/// The log file of all clients without a file of their own.
const SHARED_FILE: &str = "client.log";
/// The file with the number of the last client that was named by number. A client locks it to draw its number.
const COUNTER_FILE: &str = "client.last";

/// A client's name and its log.
#[derive(Clone)]
pub struct ClientName {
    /// The name, as in `c1`.
    pub name: String,
    /// Where its log lines go.
    pub trace: Trace,
}

impl ClientName {
    /// A client without a log.
    pub fn without_log(name: &str) -> Result<ClientName, String> {
        ProcessId::named(name)?;
        Ok(ClientName { name: name.to_string(), trace: Trace::disabled() })
    }

    /// A client with a new log file in this directory. Without a given name, it gets the first number that no client in
    /// the directory has had. Two clients never share a name, even if they start at the same moment.
    pub fn in_log_dir(dir: &Path, name: Option<&str>, cluster: ServerSet) -> Result<ClientName, String> {
        let Some(name) = name else {
            let mut counter = Counter::lock(dir)?;
            let name = counter.draw()?;
            return reserve_name(dir, &name, cluster).map_err(|error| unwritable(dir, &file_of(&name), &error));
        };
        ProcessId::named(name)?;
        let used = || {
            let dir = dir.display();
            format!("the name {name} is already used in the log directory {dir}. Choose another --name, or omit it")
        };
        // The counter stays locked until the log file exists.
        let counter = number_of(name).map(|_| Counter::lock(dir)).transpose()?;
        if counter.is_some_and(|counter| counter.has_given(name)) {
            return Err(used());
        }
        reserve_name(dir, name, cluster).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => used(),
            _ => unwritable(dir, &file_of(name), &error),
        })
    }

    /// A client that writes to the log file that clients of this directory share, possibly at the same time. Each has a
    /// number of its own.
    pub fn sharing(dir: &Path, cluster: ServerSet) -> Result<ClientName, String> {
        let name = Counter::lock(dir)?.draw()?;
        let trace = Trace::to_shared_file(ProcessId::named(&name)?, &dir.join(SHARED_FILE));
        let trace = trace.map_err(|error| unwritable(dir, SHARED_FILE, &error))?;
        Ok(ClientName::begin(&name, trace, cluster))
    }

    /// Begins the client's log.
    fn begin(name: &str, trace: Trace, cluster: ServerSet) -> ClientName {
        let boot = Event::Boot {
            version: env!("CARGO_PKG_VERSION").into(),
            lines: Some(crate::trace::FORMAT),
            cluster,
            protocol: None,
            seed: None,
            fail: None,
            mean_up: None,
            mean_down: None,
            restart: None,
            data: None,
            steps: None,
            incarnation: None,
            applied: None,
            digest: None,
            promised: None,
            accepted: None,
            history: None,
            disk: None,
        };
        trace.line(PendingLine::new(Speaker::Client, boot));
        ClientName { name: name.to_string(), trace }
    }
}

/// The counter of the clients of a directory. This process holds its lock as long as the value exists.
struct Counter<'a> {
    dir: &'a Path,
    file: File,
    last: u64,
}

impl Counter<'_> {
    fn lock(dir: &Path) -> Result<Counter<'_>, String> {
        let failed = |error| unwritable(dir, COUNTER_FILE, &error);
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(COUNTER_FILE));
        let mut file = options.map_err(failed)?;
        file.lock().map_err(failed)?;
        let mut text = String::new();
        // Reading 32 bytes is enough to reject a text that is too long for a number.
        io::Read::by_ref(&mut file).take(32).read_to_string(&mut text).map_err(failed)?;
        let last = if text.is_empty() { Some(0) } else { text.trim_end().parse::<u32>().ok() };
        let wrong = || format!("{} does not contain a client number", dir.join(COUNTER_FILE).display());
        Ok(Counter { dir, file, last: last.ok_or_else(wrong)?.into() })
    }

    /// Whether the counter has given out this name.
    fn has_given(&self, name: &str) -> bool {
        number_of(name).is_some_and(|number| number <= self.last)
    }

    /// The next name. Names that clients have chosen themselves are skipped.
    fn draw(&mut self) -> Result<String, String> {
        let mut number = self.last + 1;
        while self.dir.join(file_of(&format!("c{number}"))).exists() {
            number += 1;
        }
        self.last = number;
        // One write, which is never shorter than the previous content, so no old digits remain.
        let written = self.file.write_all_at(format!("{number}\n").as_bytes(), 0);
        written.map_err(|error| unwritable(self.dir, COUNTER_FILE, &error))?;
        Ok(format!("c{number}"))
    }
}

fn unwritable(dir: &Path, file: &str, error: &io::Error) -> String {
    format!("cannot write {file} in {}: {error}", dir.display())
}

/// The number in a name such as `c3`.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix('c').filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// The log file of a client: `c3` writes `client-3.log`.
fn file_of(name: &str) -> String {
    let number =
        name.strip_prefix('c').filter(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    format!("client-{}.log", number.unwrap_or(name))
}

/// Creates the log file, which must not exist, and begins the log.
fn reserve_name(dir: &Path, name: &str, cluster: ServerSet) -> io::Result<ClientName> {
    let path = dir.join(file_of(name));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    let process = ProcessId::named(name).map_err(io::Error::other)?;
    Ok(ClientName::begin(name, Trace::to_file(process, &path, false)?, cluster))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::thread;

    #[test]
    fn clients_that_start_together_get_different_names() {
        let dir = tempfile::tempdir().unwrap();
        let names: BTreeSet<String> = thread::scope(|scope| {
            let claim = || ClientName::in_log_dir(dir.path(), None, ServerSet::first(5)).unwrap().name;
            let claims: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).collect()
        });
        assert_eq!(names, (1..=8).map(|number| format!("c{number}")).collect());
        let text = std::fs::read_to_string(dir.path().join("client-8.log")).unwrap();
        assert!(text.contains("c8.1") && text.contains("BOOT"), "{text}");
    }

    #[test]
    fn clients_that_share_a_log_file_have_distinct_numbers_and_tear_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SHARED_FILE);
        let lines = || std::fs::read_to_string(&path).unwrap();
        let cluster = ServerSet::first(5);
        std::fs::write(&path, "half a line, whose writer was kil").unwrap();
        ClientName::in_log_dir(dir.path(), Some("c3"), cluster).unwrap();
        let names: BTreeSet<String> = thread::scope(|scope| {
            let claim = |n: u32| {
                let shares = n.is_multiple_of(2);
                let identity = match shares {
                    true => ClientName::sharing(dir.path(), cluster),
                    false => ClientName::in_log_dir(dir.path(), None, cluster),
                };
                let ClientName { name, trace } = identity.unwrap();
                for n in 0..100 {
                    let name = "x".repeat(n).as_str().into();
                    trace.line(PendingLine::new(Speaker::Client, Event::Stage { name }));
                }
                name
            };
            let claims: Vec<_> = (0..8).map(|n| scope.spawn(move || claim(n))).collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).collect()
        });
        assert_eq!(names, [1, 2, 4, 5, 6, 7, 8, 9].map(|number| format!("c{number}")).into());
        let mut last: std::collections::BTreeMap<ProcessId, u64> = std::collections::BTreeMap::new();
        for line in lines().lines() {
            let line: crate::trace::Line = line.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
            let last = last.entry(line.id.process).or_default();
            assert_eq!(line.id.n, *last + 1);
            *last = line.id.n;
        }
        assert_eq!(last.into_values().collect::<Vec<_>>(), [101; 4]);
        // A number stays in use, even if its log file is removed.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(ClientName::sharing(dir.path(), cluster).unwrap().name, "c10");
        let again = ClientName::in_log_dir(dir.path(), Some("c5"), cluster).err().unwrap();
        assert!(again.contains("the name c5 is already used"), "{again}");
    }

    #[test]
    fn a_name_is_not_used_twice_in_one_run() {
        let dir = tempfile::tempdir().unwrap();
        let claim =
            |name| ClientName::in_log_dir(dir.path(), Some(name), ServerSet::first(5)).map(|identity| identity.name);
        assert_eq!(claim("teacher"), Ok("teacher".to_string()));
        assert!(claim("teacher").unwrap_err().contains("the name teacher is already used"));
        assert_eq!(claim("c1"), Ok("c1".to_string()));
        assert!(dir.path().join("client-1.log").exists());
        for wrong in ["", "s1", "a b", "../x", "c\n1"] {
            assert!(claim(wrong).unwrap_err().contains("is not a valid name"), "{wrong:?}");
        }
        assert!(
            ClientName::in_log_dir(Path::new("/nowhere"), None, ServerSet::first(5))
                .err()
                .unwrap()
                .contains("/nowhere")
        );
    }
}
