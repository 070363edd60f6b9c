//! Volume for a server's data directory: a plain directory, or an ext4 file system in a file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::capabilities::run_command;

/// Size of a server's disk, in MiB.
const DISK_MIB: u64 = 64;
/// Name of the file that fills the disk.
const FILLER_FILE: &str = "ballast";

/// The volume under a server's data directory. Dropping it unmounts it.
pub struct Volume {
    /// The mount point, or the plain directory.
    path: PathBuf,
    image: Option<PathBuf>,
    is_mounted: bool,
    is_frozen: bool,
}

impl Volume {
    /// A volume in a plain directory.
    pub fn plain(dir: &Path, number: u8) -> Result<Volume, String> {
        let path = dir.join(format!("disk-{number}"));
        fs::create_dir_all(&path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        Ok(Volume { path, image: None, is_mounted: false, is_frozen: false })
    }

    /// A volume with its own file system.
    pub fn with_disk(dir: &Path, number: u8) -> Result<Volume, String> {
        let mut volume = Volume::plain(dir, number)?;
        let image = dir.join(format!("disk-{number}.img"));
        let file = fs::File::create(&image).and_then(|file| file.set_len(DISK_MIB << 20));
        file.map_err(|error| format!("cannot create {}: {error}", image.display()))?;
        run_command(&["mkfs.ext4", "-q", "-F", "-m", "0", &image.to_string_lossy()])?;
        volume.image = Some(image);
        volume.mount()?;
        Ok(volume)
    }

    /// The mount point, or the plain directory.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn mount(&mut self) -> Result<(), String> {
        let Some(image) = &self.image else { return Ok(()) };
        run_command(&["mount", "-o", "loop", &image.to_string_lossy(), &self.path.to_string_lossy()])?;
        self.is_mounted = true;
        Ok(())
    }

    /// Mounts the volume again after a power cut. No process may use it at that moment.
    pub fn remount(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.is_mounted) {
            run_command(&["umount", &self.path.to_string_lossy()])?;
        }
        Ok(())
    }

    /// Blocks all writes to the volume.
    pub fn freeze(&mut self) -> Result<(), String> {
        run_command(&["fsfreeze", "-f", &self.path.to_string_lossy()])?;
        self.is_frozen = true;
        Ok(())
    }

    /// Ends a freeze.
    pub fn thaw(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.is_frozen) {
            run_command(&["fsfreeze", "-u", &self.path.to_string_lossy()])?;
        }
        Ok(())
    }

    /// Fills the volume to the last byte.
    pub fn fill(&self) -> Result<(), String> {
        let name = self.path.join(FILLER_FILE);
        let mut file = fs::File::create(&name).map_err(|error| format!("cannot create {}: {error}", name.display()))?;
        for size in [1 << 20, 4 << 10] {
            let part = vec![1; size];
            while file.write_all(&part).is_ok() {}
        }
        let _ = file.sync_all();
        Ok(())
    }

    /// Removes the file that fills the volume.
    pub fn empty(&self) -> Result<(), String> {
        let removed = match fs::remove_file(self.path.join(FILLER_FILE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // Without this sync, a power cut would restore the file.
            removed => removed.and_then(|()| fs::File::open(&self.path)?.sync_all()),
        };
        removed.map_err(|error| format!("cannot free disk space: {error}"))
    }

    /// Makes the volume read-only or writable. No process may have a file open for writing.
    pub fn set_read_only(&self, is_read_only: bool) -> Result<(), String> {
        let how = if is_read_only { "remount,ro" } else { "remount,rw" };
        run_command(&["mount", "-o", how, &self.path.to_string_lossy()])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = self.thaw();
        if self.unmount().is_err() {
            // A process still uses the volume: unmount it when that process ends.
            let _ = run_command(&["umount", "-l", &self.path.to_string_lossy()]);
        }
    }
}

/// Unmounts volumes below this directory that a killed run has left.
pub fn unmount_leftovers(dir: &Path) {
    let Ok(dir) = dir.canonicalize() else { return };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(path).starts_with(&dir) {
            let _ = run_command(&["fsfreeze", "-u", path]);
            let _ = run_command(&["umount", "-l", path]);
        }
    }
}

/// Copies a directory recursively and durably. A server assumes that its existing files are durable, since an earlier
/// incarnation synced them. The next power cut must not contradict that.
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

/// Moves a directory durably.
pub fn move_durably(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}
