//! Connections that rest between two exchanges, per origin and proxy, newest first. One per traffic thread: no lock.

use super::connect::Connection;
use crate::clock::Instant;
use crate::map::Map;
use crate::tasks;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

struct Resting {
    connection: Connection,
    since: Instant,
}

/// The resting connections of one thread.
pub(super) struct Pool {
    resting: RefCell<Map<Rc<str>, Vec<Resting>>>,
    max_idle: usize,
    keep_alive: Duration,
    max_age: Duration,
    swept: Cell<bool>,
}

impl Pool {
    pub(super) fn new(max_idle: usize, keep_alive: Duration, max_age: Duration) -> Rc<Self> {
        Rc::new(Self { resting: RefCell::default(), max_idle, keep_alive, max_age, swept: Cell::new(false) })
    }

    /// The connection that rested last, if one still stands.
    pub(super) fn take(&self, lane: &str) -> Option<Connection> {
        let mut resting = self.resting.borrow_mut();
        let list = resting.get_mut(lane)?;
        while let Some(mut candidate) = list.pop() {
            if candidate.since.elapsed() < self.keep_alive && candidate.connection.is_usable() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Lets a connection rest. One that was open for long is closed: its host may have moved meanwhile, which one that is
    /// never idle would not notice.
    pub(super) fn put(self: &Rc<Self>, connection: Connection) {
        let now = Instant::now();
        if now.duration_since(connection.born) >= self.max_age {
            return;
        }
        let mut resting = self.resting.borrow_mut();
        let list = resting.entry(Rc::clone(&connection.lane)).or_default();
        if list.len() < self.max_idle {
            list.push(Resting { connection, since: now });
        }
        drop(resting);
        self.sweep_from_time_to_time();
    }

    /// Connections that nobody asks for are closed by a task that ends with the pool.
    fn sweep_from_time_to_time(self: &Rc<Self>) {
        if self.swept.replace(true) {
            return;
        }
        let pool = Rc::downgrade(self);
        let pause = (self.keep_alive / 2).max(Duration::from_millis(10));
        tasks::keep_local("upstream-pool", move || {
            let pool = Weak::clone(&pool);
            async move {
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(pool) = pool.upgrade() else { return };
                    pool.sweep();
                }
            }
        });
    }

    fn sweep(&self) {
        self.resting.borrow_mut().retain(|_, list| {
            list.retain_mut(|one| one.since.elapsed() < self.keep_alive && one.connection.is_usable());
            !list.is_empty()
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.resting.borrow().values().map(Vec::len).sum()
    }
}
