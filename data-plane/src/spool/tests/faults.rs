//! Faults of a disk, on command.

use crate::spool::disk::Op;
use std::io;
use std::path::Path;
use std::sync::Mutex;

/// What fails from now on.
#[derive(Default)]
pub(in crate::spool) struct Faults(Mutex<Vec<Fault>>);

struct Fault {
    op: Op,
    /// Part of the path; empty: any.
    path: String,
    code: i32,
    /// How often; `None`: until it is mended.
    times: Option<u32>,
}

/// The disk is full.
pub(in crate::spool) const ENOSPC: i32 = 28;
/// The disk is broken.
pub(in crate::spool) const EIO: i32 = 5;
/// This process has too many files open.
pub(in crate::spool) const EMFILE: i32 = 24;

impl Faults {
    /// Until [`Faults::mend`].
    pub(in crate::spool) fn fail(&self, op: Op, path: &str, code: i32) {
        self.add(Fault { op, path: path.to_owned(), code, times: None });
    }

    /// Once.
    pub(in crate::spool) fn fail_once(&self, op: Op, code: i32) {
        self.add(Fault { op, path: String::new(), code, times: Some(1) });
    }

    fn add(&self, fault: Fault) {
        self.0.lock().expect("faults").push(fault);
    }

    /// The disk is well.
    pub(in crate::spool) fn mend(&self) {
        self.0.lock().expect("faults").clear();
    }

    pub(in crate::spool) fn check(&self, op: Op, path: Option<&Path>) -> io::Result<()> {
        let mut faults = self.0.lock().expect("faults");
        let path = path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let fault = faults.iter_mut().find(|fault| {
            fault.op == op && path.contains(&fault.path) && fault.times.is_none_or(|times| times > 0)
        });
        let Some(fault) = fault else { return Ok(()) };
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Err(io::Error::from_raw_os_error(fault.code))
    }
}
