//! Disks that are too small, where this machine lets us make one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A small file system in memory over a folder; gone when dropped.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Over an empty folder. `None`: this machine does not let us.
    pub fn over(folder: &Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder);
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { folder: folder.to_owned() })
    }

    /// Takes all that is left; [`SmallDisk::empty`] gives it back.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut filler = File::create(self.filler())?;
        while filler.write_all(&[1; 4096]).is_ok() {}
        Ok(())
    }

    /// Takes the filling out.
    pub fn empty(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.filler())
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is killed a moment later may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
