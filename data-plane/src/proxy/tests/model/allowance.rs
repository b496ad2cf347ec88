//! What callers may do: a reference of all limits that remembers every admission and adds up from the beginning each
//! time. Money is what the ledger says; nothing is reserved while nothing is under way.

use super::steps::{Bound, KEYS, Whose};
use std::collections::BTreeMap;
use std::ops::Range;

/// How long a conversation counts as alive after its last request, in ms.
const SESSION_MS: i64 = 300_000;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const FIVE_HOURS_MS: i64 = 18_000_000;

/// A request that was admitted.
#[derive(Clone, Debug)]
struct Admitted {
    key: i64,
    user: i64,
    at_ms: i64,
    /// When it ended: money is spent then, and told apart by the minute.
    ended_ms: i64,
    /// In nano-USD, as recorded.
    cost: i64,
}

impl Admitted {
    /// When the whole minute in which it ended is five hours old.
    fn leaves_ms(&self) -> i64 {
        (self.ended_ms.div_euclid(MINUTE_MS) + 1) * MINUTE_MS + FIVE_HOURS_MS
    }
}

/// Everything that counts.
#[derive(Default)]
pub struct Allowance {
    pub bounds: BTreeMap<Whose, Vec<Bound>>,
    admitted: Vec<Admitted>,
    /// Requests that a limit on requests counted, by when they were admitted.
    requests: Vec<(Whose, i64)>,
    /// When each conversation ends that a limit on conversations counted.
    sessions: BTreeMap<(Whose, String), i64>,
}

/// Room for so many more requests at once; `exact`: neither more nor fewer would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub most: i64,
    pub exact: bool,
}

impl Allowance {
    /// How many of `conversations` may go on now; each request reserves at least `reserved` nano-USD.
    pub fn room(&self, key: usize, conversations: &[String], reserved: i64, now_ms: i64) -> Room {
        let (key, user) = KEYS[key];
        let mut room = Room { most: i64::try_from(conversations.len()).unwrap(), exact: true };
        for whose in [Whose::Key(key), Whose::User(user)] {
            for bound in self.bounds.get(&whose).into_iter().flatten() {
                let most = match *bound {
                    Bound::Minute(most) => most - self.requests(whose, now_ms),
                    Bound::Sessions(most) => {
                        let alive = self.alive(whose, now_ms);
                        let known = conversations.iter().filter(|name| alive.contains(name)).count();
                        let fresh = most - i64::try_from(alive.len()).unwrap();
                        i64::try_from(known).unwrap() + fresh.max(0)
                    }
                    Bound::Total(milli) | Bound::Day(milli) | Bound::FiveHours(milli) => {
                        let left = milli * 1_000_000 - self.spent(whose, *bound, now_ms);
                        // A request may pass while anything is left; the reservations of those before it count.
                        room.exact &= left <= 0 || conversations.len() == 1;
                        (left + reserved - 1).div_euclid(reserved)
                    }
                };
                room.most = room.most.min(most.max(0));
            }
        }
        room
    }

    /// What is spent of a limit on money, in nano-USD.
    pub fn spent(&self, whose: Whose, bound: Bound, now_ms: i64) -> i64 {
        let day = now_ms.div_euclid(DAY_MS);
        let counts = |one: &&Admitted| match bound {
            Bound::Day(_) => one.at_ms.div_euclid(DAY_MS) == day,
            Bound::FiveHours(_) => one.leaves_ms() > now_ms,
            _ => true,
        };
        self.of(whose).filter(counts).map(|one| one.cost).sum()
    }

    fn of(&self, whose: Whose) -> impl Iterator<Item = &Admitted> {
        self.admitted.iter().filter(move |one| match whose {
            Whose::Key(id) => one.key == id,
            Whose::User(id) => one.user == id,
        })
    }

    fn requests(&self, whose: Whose, now_ms: i64) -> i64 {
        let counts = |(owner, at): &&(Whose, i64)| *owner == whose && *at > now_ms - MINUTE_MS;
        i64::try_from(self.requests.iter().filter(counts).count()).unwrap()
    }

    fn alive(&self, whose: Whose, now_ms: i64) -> Vec<&String> {
        let mine = self.sessions.iter().filter(|((owner, _), ends)| *owner == whose && **ends > now_ms);
        mine.map(|((_, name), _)| name).collect()
    }

    /// A request was admitted when `under_way` began, and ended with it. What no limit counted then is not known later.
    pub fn admitted(&mut self, key: usize, conversation: &str, under_way: Range<i64>, cost: i64) {
        let at_ms = under_way.start;
        let (key, user) = KEYS[key];
        self.admitted.push(Admitted { key, user, at_ms, ended_ms: under_way.end, cost });
        for whose in [Whose::Key(key), Whose::User(user)] {
            let has =
                |kind: fn(&Bound) -> bool| self.bounds.get(&whose).is_some_and(|all| all.iter().any(kind));
            if has(|bound| matches!(bound, Bound::Minute(_))) {
                self.requests.push((whose, at_ms));
            }
            if has(|bound| matches!(bound, Bound::Sessions(_))) {
                self.sessions.insert((whose, conversation.to_owned()), under_way.end + SESSION_MS);
            }
        }
    }

    /// The proxy lost its memory: requests and conversations are counted anew, money is not.
    pub fn forget(&mut self) {
        self.requests.clear();
        self.sessions.clear();
    }

    /// Whether minutes matter.
    pub fn rolls(&self) -> bool {
        self.bounds.values().flatten().any(|bound| matches!(bound, Bound::FiveHours(_)))
    }

    /// Moments at which an answer of [`Allowance::room`] changes by itself.
    pub fn edges(&self) -> impl Iterator<Item = i64> {
        let requests = self.requests.iter().map(|(_, at)| at + MINUTE_MS);
        let rolled = self.admitted.iter().filter(|_| self.rolls()).map(Admitted::leaves_ms);
        requests.chain(self.sessions.values().copied()).chain(rolled)
    }
}
