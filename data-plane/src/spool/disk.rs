//! What the spool asks of the file system, and how large that is. Every call goes through one place, where tests
//! put faults in between. Uses `std` and `rustix`; knows no segment and no record.

use super::Error;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the owner's end is waited for, and how often it is looked for.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Write,
    Sync,
    Open,
}

/// The file system. In tests it fails as it is told to.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(super) faults: std::sync::Arc<super::tests::faults::Faults>,
}

impl Disk {
    #[cfg(test)]
    fn before(&self, op: Op, path: Option<&Path>) -> io::Result<()> {
        self.faults.check(op, path)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests have faults to look for")]
    #[inline(always)]
    fn before(&self, _: Op, _: Option<&Path>) -> io::Result<()> {
        Ok(())
    }

    /// All of the bytes, at the end.
    pub(super) fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.before(Op::Write, None) {
            // A disk fails in the middle, not before.
            let _ = file.write(&bytes[..bytes.len() / 2]);
            return Err(error);
        }
        file.write_all(bytes)
    }

    /// All of the bytes, at an offset.
    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.before(Op::Write, None)?;
        file.write_all_at(bytes, offset)
    }

    /// Forces the file to disk.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.before(Op::Sync, None)?;
        file.sync_data()
    }

    /// For reading.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.before(Op::Open, Some(path))?;
        File::open(path)
    }

    /// A new file that begins with `start`. What cannot be made whole is taken away again.
    pub(super) fn create(&self, path: &Path, start: &[u8]) -> io::Result<File> {
        self.before(Op::Create, Some(path))?;
        let file = private().create_new(true).read(true).append(true).open(path)?;
        if let Err(error) = self.write(&file, start) {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(file)
    }
}

/// Only this user may read what people asked their models.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Whether the file at `path` is the open one.
pub(super) fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let open = file.metadata()?;
    Ok(found.ino() == open.ino() && found.dev() == open.dev())
}

/// Bytes of the whole file system that holds `path`; `None` if it does not say.
pub(super) fn size_of_file_system(path: &Path) -> Option<u64> {
    let seen = rustix::fs::statvfs(path).ok()?;
    Some(seen.f_blocks.saturating_mul(seen.f_frsize)).filter(|size| *size > 0)
}

/// Makes sure that the first `length` bytes of a file have blocks.
pub(super) fn allocate(file: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        // Not every file system can; then the bytes are written.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let (zeros, mut at) = (vec![0; 64 << 10], file.metadata()?.len());
            while at < length {
                let bytes = usize::try_from(length - at).map_or(zeros.len(), |left| left.min(zeros.len()));
                file.write_all_at(&zeros[..bytes], at)?;
                at += bytes as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The lock of a folder.
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// A process that was killed a moment ago may still hold it: waits a little.
    pub(super) fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("lock");
        let file = private().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file, path }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(Error::InUse(folder.to_owned())),
                Err(TryLockError::Error(source)) => return Err(Error::Io { what: "lock", path, source }),
            }
        }
    }

    /// Whether it still keeps others out: not if the folder was removed.
    pub(super) fn holds(&self) -> bool {
        is_at(&self.path, &self.file).unwrap_or(true)
    }
}

pub(super) fn io_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io { what, path: path.to_owned(), source }
}
