//! Capabilities of this machine and this user beyond killing processes, found by trying each once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::fault::Capability;
use super::volume::Volume;

/// A Python program that shuts down file systems named on its input. 0x8004587d is `_IOR('X', 125, u32)`, the shutdown
/// call of ext4, XFS and others. The flag 2 means "without writing the journal": data that was not synced is lost.
/// Python is used because this project makes no `unsafe` call.
const POWER_CUTTER_SCRIPT: &str = "\
import fcntl, os, struct, sys
for line in sys.stdin:
    done = []
    for path in line.rstrip('\\n').split('\\t'):
        try:
            folder = os.open(path, os.O_RDONLY)
            fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))
            os.close(folder)
        except OSError as error:
            done.append(str(error))
    print(' '.join(done), flush=True)
";

/// What this machine can do, and the reason for each missing capability.
pub struct Capabilities {
    missing: BTreeMap<Capability, String>,
    power_cutter: Option<PowerCutter>,
}

struct PowerCutter {
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Capabilities {
    /// Tries each capability once, in this directory.
    pub fn probe(dir: &Path) -> Capabilities {
        let mut capabilities = Capabilities { missing: BTreeMap::new(), power_cutter: None };
        if let Err(why) = capabilities.try_mounts(dir) {
            let needs = [Capability::Mounts, Capability::PowerCuts, Capability::Freezing];
            for need in needs {
                capabilities.missing.entry(need).or_insert(why.clone());
            }
        }
        if let Err(why) = try_tracing() {
            capabilities.missing.insert(Capability::Tracing, why);
        }
        capabilities
    }

    /// No capability beyond processes.
    pub fn none() -> Capabilities {
        let needs = [Capability::Mounts, Capability::PowerCuts, Capability::Freezing, Capability::Tracing];
        Capabilities { missing: needs.map(|need| (need, "not requested".to_string())).into(), power_cutter: None }
    }

    /// Whether this machine has the capability.
    pub fn has(&self, need: Capability) -> bool {
        !self.missing.contains_key(&need)
    }

    /// A sentence for each missing capability.
    pub fn missing(&self) -> impl Iterator<Item = String> + '_ {
        self.missing.iter().map(|(need, why)| {
            let what = match need {
                Capability::Mounts => "full and read-only disks",
                Capability::PowerCuts => "power cuts and disks that fail",
                Capability::Freezing => "disks that hang",
                Capability::Tracing => "syncs that fail or are slow",
            };
            format!("skipped: {what}: {why}")
        })
    }

    fn try_mounts(&mut self, dir: &Path) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a file system".to_string());
        }
        let place = dir.join("probe");
        let mut volume = Volume::with_disk(&place, 1)?;
        match PowerCutter::start() {
            Ok(cutter) => self.power_cutter = Some(cutter),
            Err(why) => drop(self.missing.insert(Capability::PowerCuts, why)),
        }
        if let Err(why) = volume.freeze().and_then(|()| volume.thaw()) {
            self.missing.insert(Capability::Freezing, why);
        }
        let unsynced = volume.path().join("unsynced");
        fs::write(&unsynced, "gone").map_err(|error| error.to_string())?;
        if self.power_cutter.is_some() {
            let cut = self.cut(&[&volume.path()]).and_then(|()| volume.remount());
            let lost =
                cut.and_then(|()| if unsynced.exists() { Err("unsynced data survived".to_string()) } else { Ok(()) });
            if let Err(why) = lost {
                self.missing.insert(Capability::PowerCuts, format!("the shutdown of ext4 does not work here: {why}"));
            }
        }
        drop(volume);
        let _ = fs::remove_dir_all(&place);
        Ok(())
    }

    /// Cuts the power of the file systems mounted at these paths: unsynced data is lost, and nothing more is written.
    pub fn cut(&mut self, mounts: &[&Path]) -> Result<(), String> {
        self.power_cutter.as_mut().ok_or("power cuts are not possible here")?.cut(mounts)
    }
}

impl PowerCutter {
    fn start() -> Result<PowerCutter, String> {
        let mut command = Command::new("python3");
        command
            .args(["-u", "-c", POWER_CUTTER_SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("cannot start python3: {error}"))?;
        let (Some(asks), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("python3 has no input or output".to_string());
        };
        Ok(PowerCutter { child, requests: asks, replies: BufReader::new(answers) })
    }

    fn cut(&mut self, mounts: &[&Path]) -> Result<(), String> {
        let names: Vec<String> = mounts.iter().map(|path| path.display().to_string()).collect();
        let mut answer = String::new();
        let asked = writeln!(self.requests, "{}", names.join("\t")).and_then(|()| self.replies.read_line(&mut answer));
        asked.map_err(|error| format!("python3 does not answer: {error}"))?;
        match answer.trim_end() {
            "" if answer.ends_with('\n') => Ok(()),
            why => Err(format!("cannot shut down the file system: {why}")),
        }
    }
}

impl Drop for PowerCutter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn try_tracing() -> Result<(), String> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"]);
    let done = command.arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("strace is not permitted to trace here".to_string()),
        Err(error) => Err(format!("cannot start strace: {error}")),
    }
}

/// Runs a program without input; its stderr is the error.
pub fn run_command(command: &[&str]) -> Result<(), String> {
    let output = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot start {}: {error}", command[0]))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
