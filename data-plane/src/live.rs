//! Which requests are open now, for people. A request of a conversation takes a seat when its record begins and
//! leaves it when the record's guard is dropped, whatever happens; the control plane is told once a second.
//!
//! Where it is configured, what callers say waits here for the same road; off by default.
//!
//! Depends on `contract` and bytes only. A seat costs two short locks that are hardly ever contended: sixteen shards.

mod unpriced;

use bytes::Bytes;
use contract::ids::{KeyId, ProviderId, RequestId, UserId};
use contract::pb;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Largest body that is kept, and what may wait to be told; the oldest goes first.
const SPOKEN_MAX: usize = 1 << 20;
const WAITING_MAX: usize = 8 << 20;
/// Parts that are locked on their own.
const SHARDS: usize = 16;

/// An open request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Whose rows it belongs to.
    pub owner: UserId,
    /// Who calls.
    pub user: UserId,
    /// With which key.
    pub key: KeyId,
    /// The provider that is tried or answers.
    pub provider: Option<ProviderId>,
    /// Conversation.
    pub session: Arc<str>,
    /// Asked for.
    pub model: String,
    /// The word of the caller's protocol.
    pub dialect: &'static str,
    /// Unix milliseconds.
    pub started_at_ms: i64,
}

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Live(Arc<Inner>);

#[derive(Default)]
struct Inner {
    shards: [Mutex<Shard>; SHARDS],
    spoken: Mutex<VecDeque<Spoken>>,
    unpriced: unpriced::Unpriced,
}

/// What the caller of a conversation said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Whose rows it belongs to.
    pub owner: UserId,
    /// Who said it.
    pub user: UserId,
    /// Conversation.
    pub session: Arc<str>,
    /// The request's body, shared with the request.
    pub body: Bytes,
}

#[derive(Default)]
struct Shard {
    seats: Vec<Option<Open>>,
    free: Vec<usize>,
}

/// The place of one request; dropping it leaves.
pub struct Seat {
    live: Live,
    shard: usize,
    at: usize,
}

impl Live {
    /// Takes a seat; the request's identity spreads them.
    pub fn enter(&self, id: RequestId, open: Open) -> Seat {
        let shard = usize::from(id.0.as_bytes()[15]) % SHARDS;
        let mut seats = self.lock(shard);
        let at = match seats.free.pop() {
            Some(at) => {
                seats.seats[at] = Some(open);
                at
            }
            None => {
                seats.seats.push(Some(open));
                seats.seats.len() - 1
            }
        };
        drop(seats);
        Seat { live: self.clone(), shard, at }
    }

    /// Those that are open, oldest first, at most so many.
    pub fn open(&self, most: usize) -> Vec<Open> {
        let mut all: Vec<Open> = (0..SHARDS)
            .flat_map(|shard| self.lock(shard).seats.iter().flatten().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_by(|a, b| (a.started_at_ms, &a.session).cmp(&(b.started_at_ms, &b.session)));
        all.truncate(most);
        all
    }

    /// Keeps what was said until it is told; of one conversation the newest.
    pub fn keep(&self, spoken: Spoken) {
        if spoken.body.len() > SPOKEN_MAX {
            return;
        }
        let mut waiting = self.0.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| other.user != spoken.user || other.session != spoken.session);
        waiting.push_back(spoken);
        while waiting.iter().map(|spoken| spoken.body.len()).sum::<usize>() > WAITING_MAX {
            waiting.pop_front();
        }
    }

    /// Takes what waits.
    pub fn spoken(&self) -> VecDeque<Spoken> {
        std::mem::take(&mut *self.0.spoken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // Every change under the lock is a plain assignment, so a panicked holder left it whole.
        self.0.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A provider is tried.
    pub fn at(&self, provider: ProviderId) {
        if let Some(open) = &mut self.live.lock(self.shard).seats[self.at] {
            open.provider = Some(provider);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.live.lock(self.shard);
        let open = seats.seats[self.at].take();
        seats.free.push(self.at);
        drop(seats);
        // Its memory is freed outside of the lock.
        drop(open);
    }
}

impl From<Spoken> for pb::Spoken {
    fn from(spoken: Spoken) -> Self {
        Self {
            owner_id: spoken.owner.0,
            user_id: spoken.user.0,
            session_id: spoken.session.to_string(),
            body: spoken.body,
        }
    }
}

impl From<&Open> for pb::OpenRequest {
    fn from(open: &Open) -> Self {
        Self {
            owner_id: open.owner.0,
            user_id: open.user.0,
            key_id: open.key.0,
            provider_id: open.provider.map(|id| id.0),
            session_id: open.session.to_string(),
            model: open.model.clone(),
            dialect: open.dialect.to_owned(),
            started_at_ms: open.started_at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(at: i64) -> Open {
        Open {
            owner: UserId(1),
            user: UserId(2),
            key: KeyId(3),
            provider: None,
            session: "s".into(),
            model: "m".to_owned(),
            dialect: "anthropic",
            started_at_ms: at,
        }
    }

    #[test]
    fn of_what_is_said_the_newest_is_kept_within_bounds() {
        let live = Live::default();
        let say = |session: &str, size: usize| {
            let (owner, user) = (UserId(1), UserId(2));
            live.keep(Spoken { owner, user, session: session.into(), body: vec![b' '; size].into() });
        };
        let sizes = || live.spoken().iter().map(|spoken| spoken.body.len()).collect::<Vec<_>>();
        say("a", 1);
        say("b", 2);
        say("a", 3);
        say("c", SPOKEN_MAX + 1);
        assert_eq!(sizes(), [2, 3]);
        assert!(sizes().is_empty(), "told once");
        for session in 0..9 {
            say(&session.to_string(), SPOKEN_MAX);
        }
        assert_eq!(sizes().len(), 8);
    }

    #[test]
    fn seats_are_taken_changed_left_and_used_again() {
        let live = Live::default();
        let ids: Vec<RequestId> = (0..40).map(|n| RequestId::new(n, rand::random())).collect();
        let mut seats: Vec<Seat> =
            ids.iter().zip((0..40).rev()).map(|(id, at)| live.enter(*id, open(at))).collect();
        let starts = |most| live.open(most).iter().map(|open| open.started_at_ms).collect::<Vec<_>>();
        assert_eq!(starts(3), [0, 1, 2], "oldest first");
        seats[39].at(ProviderId(7));
        assert_eq!(live.open(1)[0].provider, Some(ProviderId(7)));
        seats.truncate(1);
        assert_eq!(starts(100), [39]);
        let memory = |live: &Live| (0..SHARDS).map(|shard| live.lock(shard).seats.len()).sum::<usize>();
        let before = memory(&live);
        seats.extend(ids.iter().skip(1).map(|id| live.enter(*id, open(5))));
        assert_eq!((memory(&live), live.open(100).len()), (before, 40), "places are used again");
        drop(seats);
        assert!(live.open(100).is_empty());
    }
}
