//! What a server's data folder lies on: a plain folder, or an ext4 file system of its own, in a file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::capabilities::command;

/// A disk of a server is so large.
const DISK_MIB: u64 = 64;
/// A file that fills it.
const BALLAST: &str = "ballast";

/// Where a server's data folder lies. Its mount goes with it.
pub struct Volume {
    /// Where it is mounted, or the plain folder.
    path: PathBuf,
    image: Option<PathBuf>,
    is_mounted: bool,
    is_frozen: bool,
}

impl Volume {
    /// A plain folder.
    pub fn plain(folder: &Path, number: u8) -> Result<Volume, String> {
        let path = folder.join(format!("disk-{number}"));
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Volume { path, image: None, is_mounted: false, is_frozen: false })
    }

    /// A file system of its own.
    pub fn with_disk(folder: &Path, number: u8) -> Result<Volume, String> {
        let mut ground = Volume::plain(folder, number)?;
        let image = folder.join(format!("disk-{number}.img"));
        let file = fs::File::create(&image).and_then(|file| file.set_len(DISK_MIB << 20));
        file.map_err(|error| format!("cannot make {}: {error}", image.display()))?;
        command(&["mkfs.ext4", "-q", "-F", "-m", "0", &image.to_string_lossy()])?;
        ground.image = Some(image);
        ground.mount()?;
        Ok(ground)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn mount(&mut self) -> Result<(), String> {
        let Some(image) = &self.image else { return Ok(()) };
        command(&["mount", "-o", "loop", &image.to_string_lossy(), &self.path.to_string_lossy()])?;
        self.is_mounted = true;
        Ok(())
    }

    /// After a power cut: nobody may use it meanwhile.
    pub fn mount_again(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.is_mounted) {
            command(&["umount", &self.path.to_string_lossy()])?;
        }
        Ok(())
    }

    /// Everything that is written to it waits.
    pub fn freeze(&mut self) -> Result<(), String> {
        command(&["fsfreeze", "-f", &self.path.to_string_lossy()])?;
        self.is_frozen = true;
        Ok(())
    }

    /// It goes on.
    pub fn thaw(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.is_frozen) {
            command(&["fsfreeze", "-u", &self.path.to_string_lossy()])?;
        }
        Ok(())
    }

    /// Fills it to the last byte.
    pub fn fill(&self) -> Result<(), String> {
        let name = self.path.join(BALLAST);
        let mut file = fs::File::create(&name).map_err(|error| format!("cannot make {}: {error}", name.display()))?;
        for size in [1 << 20, 4 << 10] {
            let part = vec![1; size];
            while file.write_all(&part).is_ok() {}
        }
        let _ = file.sync_all();
        Ok(())
    }

    /// There is room again.
    pub fn empty(&self) -> Result<(), String> {
        let removed = match fs::remove_file(self.path.join(BALLAST)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // Else a power cut would bring it back.
            removed => removed.and_then(|()| fs::File::open(&self.path)?.sync_all()),
        };
        removed.map_err(|error| format!("cannot make room: {error}"))
    }

    /// Nobody may write to it; nobody may be about to.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<(), String> {
        let how = if is_read_only { "remount,ro" } else { "remount,rw" };
        command(&["mount", "-o", how, &self.path.to_string_lossy()])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = self.thaw();
        if self.unmount().is_err() {
            // Somebody is in there still: it goes when they do.
            let _ = command(&["umount", "-l", &self.path.to_string_lossy()]);
        }
    }
}

/// Unmounts what a run that was ended by force has left below this folder.
pub fn sweep(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(path).starts_with(&folder) {
            let _ = command(&["fsfreeze", "-u", path]);
            let _ = command(&["umount", "-l", path]);
        }
    }
}

/// A copy of a folder and all in it, durable when this returns: a server takes its older files for durable, since those
/// before it have synced them, and the next power cut must not prove that wrong.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
            fs::File::open(&to)?.sync_all()?;
        }
    }
    fs::File::open(to)?.sync_all()
}

/// Moves a folder, durably.
pub fn move_durably(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}
