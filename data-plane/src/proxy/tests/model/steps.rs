//! What a sequence is made of: a house with its limits, and what callers, upstreams, people and clocks do to it.

use proptest::prelude::*;

/// The providers, in the order in which they are asked.
pub const PROVIDERS: usize = 3;
/// Keys by number, and whose they are: keys 1 and 2 are user 1's, key 3 is user 2's.
pub const KEYS: [(i64, i64); 3] = [(1, 1), (2, 1), (3, 2)];

/// What a provider does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answers.
    None,
    /// 500, as often as it is asked.
    Broken,
    /// It closes the connection in the head; before it, a resting connection would be replaced.
    HangsUp,
    /// A document that breaks off, or a stream that does before its content.
    CutEarly,
    /// 429, with so many seconds to wait.
    Limited(i64),
    /// 400: the caller's own fault.
    Refused,
    /// A stream that breaks off after its content; a document does before its end.
    CutLate,
    /// Nothing comes, and the caller leaves after five seconds.
    Silent,
    /// Nobody listens.
    Closed,
    /// 404: it does not have the model.
    Unknown,
    /// 403: its account may not use the model.
    Forbidden,
    /// 401: its credential is refused.
    Unauthorised,
    /// 402: its account is empty.
    Empty,
}

/// What a key or a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Milli-USD, ever.
    Total(i64),
    /// Milli-USD a day.
    Day(i64),
    /// Milli-USD in the last five hours.
    FiveHours(i64),
    /// Requests in a minute.
    Minute(i64),
    /// Sessions alive at a time.
    Sessions(i64),
}

/// Whose limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    Key(i64),
    User(i64),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Index into [`KEYS`].
    pub key: usize,
    /// One of a few conversations.
    pub session: u8,
    pub stream: bool,
    /// What each provider would do with it.
    pub faults: [Fault; PROVIDERS],
    /// Tokens that an answer reports.
    pub used: (u64, u64),
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub enum Step {
    /// One request, to its end.
    Ask(Ask),
    /// So many at once with one key, each in a conversation of its own, all answered.
    Crowd { key: usize, size: u8, used: (u64, u64) },
    /// The limits of a key or user are replaced.
    Limits(Whose, Vec<Bound>),
    /// Time passes, in seconds.
    Pass(u32),
    /// The wall clock is set forwards or back, in seconds.
    Clock(i32),
    /// The proxy is restarted in good order.
    Restart,
    /// The proxy is killed while so many requests wait for their providers.
    Kill(u8),
}

/// Rules of all providers.
#[derive(Clone, Copy, Debug)]
pub struct House {
    pub threshold: u32,
    pub trials: u32,
    pub attempts: u32,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        3 => Just(Fault::Broken),
        1 => Just(Fault::HangsUp),
        1 => Just(Fault::CutEarly),
        1 => prop_oneof![Just(7i64), Just(90)].prop_map(Fault::Limited),
        1 => Just(Fault::Refused),
        1 => Just(Fault::CutLate),
        1 => Just(Fault::Silent),
        1 => Just(Fault::Closed),
        1 => Just(Fault::Unknown),
        1 => prop_oneof![Just(Fault::Forbidden), Just(Fault::Unauthorised), Just(Fault::Empty)],
    ]
}

fn used() -> impl Strategy<Value = (u64, u64)> {
    (0u64..100, 0u64..100)
}

fn bound() -> impl Strategy<Value = Bound> {
    prop_oneof![
        (1i64..600).prop_map(Bound::Total),
        (1i64..600).prop_map(Bound::Day),
        (1i64..600).prop_map(Bound::FiveHours),
        (1i64..5).prop_map(Bound::Minute),
        (1i64..3).prop_map(Bound::Sessions),
    ]
}

fn whose() -> impl Strategy<Value = Whose> {
    prop_oneof![(1i64..=3).prop_map(Whose::Key), (1i64..=2).prop_map(Whose::User)]
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (0..KEYS.len(), 0u8..3, any::<bool>(), [fault(), fault(), fault()], used())
        .prop_map(|(key, session, stream, faults, used)| Ask { key, session, stream, faults, used });
    prop_oneof![
        12 => ask.prop_map(Step::Ask),
        2 => (0..KEYS.len(), 2u8..6, used()).prop_map(|(key, size, used)| Step::Crowd { key, size, used }),
        3 => (whose(), prop::collection::vec(bound(), 0..3)).prop_map(|(whose, bounds)| Step::Limits(whose, bounds)),
        3 => prop_oneof![Just(1u32), Just(20), Just(61), Just(301), Just(1_801), Just(9_001), Just(86_400)].prop_map(Step::Pass),
        1 => (-1_800i32..1_800).prop_map(Step::Clock),
        1 => Just(Step::Restart),
        1 => (0u8..3).prop_map(Step::Kill),
    ]
}

/// Sequences.
pub fn sequences() -> impl Strategy<Value = (House, Vec<Step>)> {
    let house = (1u32..4, 1u32..3, 1u32..3).prop_map(|(threshold, trials, attempts)| House {
        threshold,
        trials,
        attempts,
    });
    (house, prop::collection::vec(step(), 1..24))
}
