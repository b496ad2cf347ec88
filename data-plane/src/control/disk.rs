//! The last good table on the proxy's own disk, so that it starts without a control plane. The file is the
//! stream that would rebuild the table: sections as they came (credentials sealed), the commit, a checksum.
//!
//! Two generations, each written aside and renamed, readable by the owner only. A file that is broken is no
//! table, never an error.

use crate::table::{Change, RawSection};
use crate::tasks::Tasks;
use bytes::{Buf, Bytes, BytesMut};
use contract::ids::Generation;
use contract::pb;
use prost::Message;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const MAGIC: &[u8] = b"switchyard table 1\n";
const CHECKSUM: usize = 32;
/// The newest table, the one before, and the one being written.
const LAST: &str = "table.last";
const PREVIOUS: &str = "table.previous";
const FRESH: &str = "table.fresh";
/// At most one write in this time, however often the table changes.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A table as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its generation.
    pub generation: Generation,
    /// Hash over its sections.
    pub table_hash: [u8; 32],
    /// Its sections.
    pub sections: Vec<(String, Bytes, Bytes)>,
}

impl Stored {
    /// As a change that builds it from nothing.
    pub fn into_change(self) -> Change {
        let section = |(name, version, payload)| RawSection { name, version, payload };
        Change {
            generation: self.generation,
            sections: self.sections.into_iter().map(section).collect(),
            removed: Vec::new(),
            replace: true,
            table_hash: Some(Bytes::copy_from_slice(&self.table_hash)),
        }
    }

    fn messages(&self) -> impl Iterator<Item = pb::FromControl> {
        let sections = self.sections.iter().cloned().map(|(name, version, payload)| {
            pb::from_control::Message::Section(pb::Section { name, version, payload })
        });
        let commit = pb::Commit {
            generation: self.generation.0,
            table_hash: Bytes::copy_from_slice(&self.table_hash),
            removed: Vec::new(),
        };
        let commit = std::iter::once(pb::from_control::Message::Commit(commit));
        sections.chain(commit).map(|message| pb::FromControl { message: Some(message) })
    }
}

/// Why a file is no table.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is none, or it cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// Not written by this software, cut, or changed since.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and the content is not: written by another version.
    #[error("its content is not understood")]
    Content,
}

/// The tables on disk, newest first. The caller takes the first that it can use.
pub fn load(dir: &Path) -> impl Iterator<Item = (PathBuf, Result<Stored, Unusable>)> {
    [LAST, PREVIOUS].into_iter().map(|name| dir.join(name)).filter(|path| path.exists()).map(|path| {
        let stored = read(&path);
        (path, stored)
    })
}

fn read(path: &Path) -> Result<Stored, Unusable> {
    let bytes = Bytes::from(fs::read(path)?);
    let length = bytes.len().checked_sub(CHECKSUM).ok_or(Unusable::Checksum)?;
    let (body, sum) = (bytes.slice(..length), bytes.slice(length..));
    if !body.starts_with(MAGIC) || Sha256::digest(&body)[..] != sum[..] {
        return Err(Unusable::Checksum);
    }
    let mut body = body.slice(MAGIC.len()..);
    let mut sections = Vec::new();
    while body.has_remaining() {
        let message = pb::FromControl::decode_length_delimited(&mut body).map_err(|_| Unusable::Content)?;
        match message.message {
            Some(pb::from_control::Message::Section(s)) => sections.push((s.name, s.version, s.payload)),
            Some(pb::from_control::Message::Commit(commit)) => {
                let table_hash = commit.table_hash.as_ref().try_into().map_err(|_| Unusable::Content)?;
                return Ok(Stored { generation: Generation(commit.generation), table_hash, sections });
            }
            _ => return Err(Unusable::Content),
        }
    }
    Err(Unusable::Content)
}

/// Writes `stored` so that at every instant a complete table is on disk.
pub fn write(dir: &Path, stored: &Stored) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let fresh = dir.join(FRESH);
    // A leftover of a crash may have other permissions; the mode below is for new files only.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let mut out = BufWriter::new(file);
    let mut sum = Sha256::new();
    let mut put = |bytes: &[u8]| {
        sum.update(bytes);
        out.write_all(bytes)
    };
    put(MAGIC)?;
    for message in stored.messages() {
        let mut buffer = BytesMut::with_capacity(message.encoded_len() + 10);
        message.encode_length_delimited(&mut buffer).map_err(io::Error::other)?;
        put(&buffer)?;
    }
    out.write_all(&sum.finalize())?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    let last = dir.join(LAST);
    if last.exists() {
        fs::rename(&last, dir.join(PREVIOUS))?;
    }
    fs::rename(&fresh, &last)?;
    File::open(dir)?.sync_all()
}

/// Where the newest table is left to be written.
pub type Saver = watch::Sender<Option<Arc<Stored>>>;

/// Starts the write-behind: at most one write a second, always of the newest table, the last one at the end.
pub fn save_behind(dir: PathBuf, tasks: &Tasks) -> Saver {
    let (saver, mut newest) = watch::channel::<Option<Arc<Stored>>>(None);
    let within = tasks.clone();
    tasks.spawn_vital("table-to-disk", async move {
        let stop = within.stopping();
        let mut written: Option<Arc<Stored>> = None;
        loop {
            let more = tokio::select! {
                changed = newest.changed() => changed.is_ok(),
                () = stop.cancelled() => false,
            };
            let stored = newest.borrow_and_update().clone();
            let is_new =
                |stored: &Arc<Stored>| !written.as_ref().is_some_and(|last| Arc::ptr_eq(last, stored));
            if let Some(stored) = stored.filter(is_new) {
                written = Some(Arc::clone(&stored));
                let dir = dir.clone();
                let done = within.blocking("write-table", move || write(&dir, &stored)).await;
                if let Some(Err(error)) = done {
                    tracing::error!(%error, "the table could not be kept on disk");
                }
            }
            if !more {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(WRITE_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    });
    saver
}

#[cfg(test)]
mod tests;
