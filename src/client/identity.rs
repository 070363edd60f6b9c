//! Who a client is: its name, and the file that its lines go to.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use crate::role::Servers;
use crate::trace::{Draft, Event, Process, RoleTag, Trace};

/// So many clients of one run find a name; the 10,001st is told to name itself.
const NAMES_MAX: u32 = 10_000;

/// A client's name and its lines.
#[derive(Clone)]
pub struct Identity {
    /// As in `c1`.
    pub name: String,
    /// Where its lines go.
    pub trace: Trace,
}

impl Identity {
    /// A client that writes no lines.
    pub fn without_lines(name: &str) -> Result<Identity, String> {
        Process::named(name)?;
        Ok(Identity { name: name.to_string(), trace: Trace::disabled() })
    }

    /// A client whose lines go to a new file of this folder. Unnamed, it gets the first number that no client of the
    /// folder has had: two clients never share a name, even if they start at the same moment.
    pub fn in_folder(folder: &Path, name: Option<&str>, cluster: Servers) -> Result<Identity, String> {
        let taken = |name: &str, error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "the name {name} has been used in this run: {} has {}. Choose another --name, or none",
                folder.display(),
                file_of(name)
            ),
            _ => format!("cannot write {} in {}: {error}", file_of(name), folder.display()),
        };
        if let Some(name) = name {
            Process::named(name)?;
            return claim(folder, name, cluster).map_err(|error| taken(name, error));
        }
        for number in 1..=NAMES_MAX {
            let name = format!("c{number}");
            match claim(folder, &name, cluster) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                claimed => return claimed.map_err(|error| taken(&name, error)),
            }
        }
        Err(format!("{} has {NAMES_MAX} clients already: choose a --name or another --log-dir", folder.display()))
    }
}

/// The file of a client: `c3` writes `client-3.log`.
fn file_of(name: &str) -> String {
    let number =
        name.strip_prefix('c').filter(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    format!("client-{}.log", number.unwrap_or(name))
}

/// Makes the file, which must not be there, and begins it.
fn claim(folder: &Path, name: &str, cluster: Servers) -> io::Result<Identity> {
    let path = folder.join(file_of(name));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    let process = Process::named(name).map_err(io::Error::other)?;
    let trace = Trace::to_file(process, &path, false)?;
    let boot = Event::Boot {
        version: env!("CARGO_PKG_VERSION").into(),
        cluster,
        protocol: None,
        seed: None,
        fail: None,
        mean_up: None,
        mean_down: None,
        restart: None,
        data: None,
        steps: None,
        life: None,
        applied: None,
        digest: None,
        promised: None,
        accepted: None,
        history: None,
        disk: None,
    };
    trace.line(Draft::new(RoleTag::Client, boot));
    Ok(Identity { name: name.to_string(), trace })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::thread;

    #[test]
    fn clients_that_start_together_get_different_names() {
        let folder = tempfile::tempdir().unwrap();
        let names: BTreeSet<String> = thread::scope(|scope| {
            let claim = || Identity::in_folder(folder.path(), None, Servers::first(5)).unwrap().name;
            let claims: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).collect()
        });
        assert_eq!(names, (1..=8).map(|number| format!("c{number}")).collect());
        let text = std::fs::read_to_string(folder.path().join("client-8.log")).unwrap();
        assert!(text.contains("c8.1") && text.contains("BOOT"), "{text}");
    }

    #[test]
    fn a_name_is_not_used_twice_in_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let claim =
            |name| Identity::in_folder(folder.path(), Some(name), Servers::first(5)).map(|identity| identity.name);
        assert_eq!(claim("teacher"), Ok("teacher".to_string()));
        assert!(claim("teacher").unwrap_err().contains("client-teacher.log"));
        assert_eq!(claim("c1"), Ok("c1".to_string()));
        assert!(folder.path().join("client-1.log").exists());
        for wrong in ["", "s1", "a b", "../x", "c\n1"] {
            assert!(claim(wrong).unwrap_err().contains("is no name"), "{wrong:?}");
        }
        assert!(
            Identity::in_folder(Path::new("/nowhere"), None, Servers::first(5)).err().unwrap().contains("/nowhere")
        );
    }
}
