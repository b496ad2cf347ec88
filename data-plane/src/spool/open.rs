//! What a start finds on disk: segments, what in them waits, and what is damaged. Nothing is cut off: what cannot be
//! read now may be read by somebody later.

use super::acked::Acked;
use super::disk::{Disk, io_error};
use super::reader::path;
use super::segment::{FIRST, Frames, Next};
use super::{Error, SPOOL_TORN_BYTES};
use contract::ids::RequestId;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use uuid::Uuid;

/// Segments.
pub(super) const SEGMENT: &str = "seg";
/// Segments that could not be read, and are tried again at the next start.
pub(super) const UNREAD: &str = "unread";
/// Segments that were delivered but for damaged frames.
pub(super) const DAMAGED: &str = "damaged";
/// Tag and length of a record's first field, its id.
const ID_HEAD: usize = 2;
const ID_BYTES: usize = 16;

/// A segment as it was found.
pub(super) struct Examined {
    pub(super) bytes: u64,
    /// Whole records from where it was looked at.
    pub(super) records: u64,
    /// Offsets of damage that has something behind it.
    pub(super) damage: Vec<u64>,
    /// Where an end begins that is not whole: the process or the machine died while it was written.
    pub(super) torn: Option<u64>,
}

/// Numbers of the files in a folder that end in `kind`, ascending.
pub(super) fn numbers(folder: &Path, kind: &str) -> Result<Vec<u64>, Error> {
    let fail = io_error("read", folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(&fail)? {
        let name = entry.map_err(&fail)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(kind)?.strip_suffix('.'));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Gives segments that could not be read another chance, as the newest ones: they may be again.
pub(super) fn take_back(folder: &Path, after: u64) -> Result<(), Error> {
    let last = numbers(folder, SEGMENT)?.last().map_or(after, |last| after.max(*last));
    for (number, fresh) in numbers(folder, UNREAD)?.into_iter().zip(last + 1..) {
        let from = path(folder, number).with_extension(UNREAD);
        if let Err(error) = fs::rename(&from, path(folder, fresh)) {
            tracing::warn!(%error, path = %from.display(), "a segment that was set aside stays aside");
        }
    }
    Ok(())
}

/// What waits in a segment from `from` on. One that cannot be read now is taken as it stands: the reader comes to it.
pub(super) fn examine(disk: &Disk, folder: &Path, number: u64, from: u64) -> Examined {
    let path = path(folder, number);
    let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
    let mut found = Examined { bytes: bytes.max(FIRST), records: 0, damage: Vec::new(), torn: None };
    let looked = look(disk, &path, from.min(bytes), bytes, &mut |next, _| match next {
        Next::Record => found.records += 1,
        Next::Damage { from, to } if to < bytes => found.damage.push(from),
        Next::Damage { from, to } => {
            metrics::counter!(SPOOL_TORN_BYTES).increment(to - from);
            tracing::warn!(path = %path.display(), bytes = to - from, "the end of a spool segment is not whole; it is left out");
            found.torn = Some(from);
        }
        Next::End => {}
    });
    if let Err(error) = looked {
        tracing::error!(%error, path = %path.display(), "a spool segment cannot be read");
    }
    found
}

/// Takes the ids of records in the folder's segments, delivered ones and those set aside too, out of `ids`.
pub(super) fn strike_out(disk: &Disk, folder: &Path, ids: &mut HashSet<RequestId>) -> Result<(), Error> {
    let files = |kind| Ok(numbers(folder, kind)?.into_iter().map(move |number| (number, kind)));
    for (number, kind) in files(SEGMENT)?.chain(files(UNREAD)?) {
        if ids.is_empty() {
            break;
        }
        let path = path(folder, number).with_extension(kind);
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        let looked = look(disk, &path, FIRST, bytes, &mut |next, record| {
            if next == Next::Record
                && let Some(Ok(id)) = record.get(ID_HEAD..ID_HEAD + ID_BYTES).map(Uuid::from_slice)
            {
                ids.remove(&RequestId(id));
            }
        });
        if let Err(error) = looked {
            tracing::error!(%error, path = %path.display(), "a spool segment cannot be read");
        }
    }
    Ok(())
}

fn look(
    disk: &Disk,
    path: &Path,
    from: u64,
    to: u64,
    see: &mut impl FnMut(Next, &[u8]),
) -> std::io::Result<()> {
    let mut frames = Frames::new(disk.open(path)?, from, to)?;
    let mut record = Vec::new();
    loop {
        match frames.next(&mut record)? {
            Next::End => return Ok(()),
            next => see(next, &record),
        }
    }
}

/// The position in a segment from which it waits.
pub(super) fn waits_from(done: Acked, number: u64) -> u64 {
    if number == done.segment { done.offset.max(FIRST) } else { FIRST }
}
