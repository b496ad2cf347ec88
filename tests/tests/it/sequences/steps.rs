//! What a sequence is made of, drawn from a seed.

use std::fmt;

/// What may become of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Emptied,
}

/// How one request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answered by whichever provider can.
    Plain,
    /// A stream that takes its time, so that it is under way when something happens.
    Slow,
    /// The upstream says that it is the caller's fault.
    Refused,
    /// The upstream breaks off after its first content.
    Cut,
    /// The caller leaves after the first bytes.
    Left,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Keys 0 and 1 are the first user's, key 2 is the second one's.
    pub key: usize,
    pub proxy: usize,
    pub stream: bool,
    /// Words of the question.
    pub words: usize,
    pub kind: Kind,
}

/// What the first provider does to all requests of a crowd that have no kind of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Broken,
    Limited,
    HangsUp,
    CutEarly,
}

/// What happens while a crowd asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    None,
    /// kill -9 of a proxy, which is started again.
    Kill(usize),
    /// SIGTERM of a proxy, which is started again.
    Stop(usize),
    /// The control plane is away for a moment.
    Control,
    /// kill -9 of the control plane and of a proxy, which comes back first.
    Both(usize),
    /// Redis cannot be reached for a moment, and keeps its data.
    Unreachable,
    /// Redis loses everything.
    Flush,
    /// Redis is killed and comes back empty.
    Restart,
}

impl Blow {
    /// Whether limits on requests are not what they were.
    pub fn concerns_redis(self) -> bool {
        matches!(self, Self::Unreachable | Self::Flush | Self::Restart)
    }
}

/// A step of a sequence.
#[derive(Clone, Debug)]
pub enum Step {
    Crowd {
        asks: Vec<Ask>,
        fault: Fault,
        blow: Blow,
    },
    /// The first user's limits: requests in a minute, and milli-USD a day.
    Limits {
        rpm: u64,
        quota: u64,
    },
}

/// A whole sequence.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub seed: u64,
    pub steps: Vec<Step>,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the sequence of seed {}:", self.seed)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(1);
        usize::try_from(self.roll() % bound).unwrap_or_default()
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

impl Sequence {
    /// The same for the same seed.
    pub fn new(seed: u64, fate: Fate) -> Self {
        let mut dice = Dice(seed);
        let count = 3 + dice.below(2);
        // At least one blow in each.
        let mut steps = vec![crowd(&mut dice, fate, true)];
        while steps.len() < count {
            let step = match dice.below(4) {
                0 => limits(&mut dice),
                _ => {
                    let has_blow = dice.below(3) == 0;
                    crowd(&mut dice, fate, has_blow)
                }
            };
            steps.push(step);
        }
        let at = dice.below(steps.len());
        steps.swap(0, at);
        Self { seed, steps }
    }
}

fn limits(dice: &mut Dice) -> Step {
    Step::Limits { rpm: dice.of(&[3, 8, 20, 60]), quota: dice.of(&[1, 5, 20, 1_000_000]) }
}

fn crowd(dice: &mut Dice, fate: Fate, has_blow: bool) -> Step {
    let at = dice.below(2);
    let common = [Blow::Kill(at), Blow::Kill(at), Blow::Stop(at), Blow::Control, Blow::Both(at)];
    let own = match fate {
        Fate::Kept => [Blow::Unreachable, Blow::Unreachable],
        Fate::Emptied => [Blow::Flush, Blow::Restart],
    };
    let blow = if has_blow { dice.of(&[&common[..], &own[..]].concat()) } else { Blow::None };
    let faults = [Fault::None, Fault::None, Fault::Broken, Fault::Limited, Fault::HangsUp, Fault::CutEarly];
    let fault = dice.of(&faults);
    let asks = (0..4 + dice.below(9)).map(|_| ask(dice)).collect();
    Step::Crowd { asks, fault, blow }
}

fn ask(dice: &mut Dice) -> Ask {
    let kinds =
        [Kind::Plain, Kind::Plain, Kind::Plain, Kind::Slow, Kind::Slow, Kind::Refused, Kind::Cut, Kind::Left];
    let kind = dice.of(&kinds);
    Ask {
        key: dice.below(3),
        proxy: dice.below(2),
        stream: dice.below(2) == 0 || matches!(kind, Kind::Slow | Kind::Cut | Kind::Left),
        words: 1 + dice.below(200),
        kind,
    }
}
