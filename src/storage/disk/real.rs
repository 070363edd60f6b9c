//! A folder of the operating system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Files, StableFile};

/// Zeros are written in blocks of so many bytes.
const ZEROS_BYTES: usize = 1 << 20;

/// A folder of the operating system. A handle: clones are the same folder.
#[derive(Clone, Debug)]
pub struct RealFiles {
    path: Arc<Path>,
    /// The folder itself, open, to sync the names in it.
    folder: Arc<File>,
}

/// An open file of the operating system.
#[derive(Debug)]
pub struct RealFile(File);

impl RealFiles {
    /// Opens a folder that exists.
    pub fn open(path: &Path) -> io::Result<RealFiles> {
        let folder = File::open(path)?;
        if !folder.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(RealFiles { path: path.into(), folder: Arc::new(folder) })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Files for RealFiles {
    type File = RealFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.at(name))
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        Ok(RealFile(OpenOptions::new().write(true).open(self.at(name))?))
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<RealFile> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.at(name))?;
        // Real zeros: blocks that are merely reserved cost every later sync a change of the file system's own tables.
        let zeros = vec![0; (ZEROS_BYTES as u64).min(bytes) as usize];
        let mut offset = 0;
        while offset < bytes {
            let block = (bytes - offset).min(zeros.len() as u64) as usize;
            file.write_all_at(&zeros[..block], offset)?;
            offset += block as u64;
        }
        file.sync_all()?;
        Ok(RealFile(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.folder.sync_all()
    }
}

impl StableFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // fdatasync: the length never changes, so there is nothing else to sync.
        self.0.sync_data()
    }
}
