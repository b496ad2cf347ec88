//! How long one attempt is waited for, by one timer: for a sign of life, for the first content, and until the silence
//! towards the caller is to be broken.

use super::super::silence::Silence;
use crate::clock::Instant;
use crate::config::Config;
use crate::table::Upstream;
use contract::usage::Dialect;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// The waits of one attempt; zero: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a sign of life of a stream, for the head of a document and the next piece; each one renews it.
    sign: Duration,
    /// For the first content of a stream; for a document as a whole, where its provider says so.
    whole: Duration,
}

impl Limits {
    /// For a stream: what the provider says, else what its dialect deserves.
    pub fn of_stream(config: &Config, up: &Upstream, dialect: Dialect) -> Self {
        let own = up.row.first_byte_timeout;
        let sign = match dialect {
            _ if !own.is_zero() => own,
            // Its reasoning models are silent while they think.
            Dialect::OpenAi => config.first_sign_timeout_chat,
            Dialect::Anthropic | Dialect::Responses | Dialect::Gemini => config.first_sign_timeout,
        };
        let whole = config.first_byte_timeout;
        Self { sign, whole: if whole.is_zero() { whole } else { whole.max(own) } }
    }

    /// For a document: for its head, and for each piece, which the idle timeout of its body bounds sooner. Of what is
    /// coming, none is thrown away and bought again. What the provider says holds for the whole.
    pub fn of_document(config: &Config, up: &Upstream) -> Self {
        let own = up.row.total_timeout;
        let sign = if own.is_zero() { config.total_timeout } else { Duration::ZERO };
        Self { sign, whole: own }
    }

    /// When the first of them is over, counted from `now`.
    pub fn first(&self, now: Instant) -> Option<Instant> {
        [after(now, self.sign), after(now, self.whole)].into_iter().flatten().min()
    }
}

fn after(now: Instant, limit: Duration) -> Option<Instant> {
    now.checked_add(limit).filter(|_| !limit.is_zero())
}

/// A wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// The patience with one attempt.
pub struct Patience<'a> {
    /// Not moved at every sign: when it rings, the times below say whether it is time.
    alarm: Pin<&'a mut Sleep>,
    sign: Duration,
    /// Without a sign of life.
    until: Option<Instant>,
    /// However lively.
    end: Option<Instant>,
    silence: &'a Silence,
}

impl<'a> Patience<'a> {
    /// From `now` on; `alarm` may be set to any time that is not later than the first one of `limits` and `silence`.
    pub fn new(alarm: Pin<&'a mut Sleep>, limits: Limits, silence: &'a Silence, now: Instant) -> Self {
        let (until, end) = (limits.first(now), after(now, limits.whole));
        Self { alarm, sign: limits.sign, until, end, silence }
    }

    /// A sign of life came.
    pub fn sign(&mut self) {
        if !self.sign.is_zero() {
            let renewed = after(Instant::now(), self.sign);
            self.until = [renewed, self.end].into_iter().flatten().min();
        }
    }

    /// Waits for `future`. Cancel-safe if that is. Pinned by the caller: an `async fn` would hold it twice, and the walk
    /// is copied whole when it is boxed.
    pub fn wait<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
    ) -> impl Future<Output = Result<F::Output, Late>> {
        poll_fn(move |cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_late(cx).map(Err),
        })
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        if self.until.is_none() && self.silence.ends().is_none() {
            return Poll::Pending;
        }
        loop {
            std::task::ready!(self.alarm.as_mut().poll(cx));
            let now = Instant::now();
            if self.silence.ends().is_some_and(|at| now >= at) {
                self.silence.end();
            }
            if self.until.is_some_and(|at| now >= at) {
                return Poll::Ready(Late);
            }
            let Some(next) = [self.until, self.silence.ends()].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            self.alarm.as_mut().reset(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::silence::Beat;
    use super::*;
    use contract::ids::RequestId;
    use std::future::pending;
    use std::pin::pin;
    use tokio::time::{sleep_until, timeout};

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(sign: u32, whole: u32) -> Limits {
        Limits { sign: SECOND * sign, whole: SECOND * whole }
    }

    /// After how many seconds it is over, signs coming at the given ones.
    async fn over(limits: Limits, silence: &Silence, signs: &[u32]) -> Option<u64> {
        let start = Instant::now();
        let first = [limits.first(start), silence.ends()].into_iter().flatten().min();
        let alarm = pin!(sleep_until(first.unwrap_or(start)));
        let mut patience = Patience::new(alarm, limits, silence, start);
        for sign in signs {
            if patience.wait(pin!(sleep_until(start + SECOND * *sign))).await.is_err() {
                return Some(start.elapsed().as_secs());
            }
            patience.sign();
        }
        let never = timeout(SECOND * 10_000, patience.wait(pin!(pending::<()>()))).await;
        never.is_ok().then(|| start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_sign_of_life_renews_the_wait_up_to_the_whole() {
        let silence = Silence::default();
        for (limits, signs, expected) in [
            (limits(60, 600), &[][..], Some(60)),
            (limits(60, 600), &[1], Some(61)),
            (limits(60, 600), &[50, 100, 159], Some(219)),
            (limits(60, 600), &[50, 100, 161], Some(160)),
            (limits(60, 100), &[50, 99], Some(100)),
            (limits(0, 600), &[1, 2], Some(600)),
            (limits(60, 0), &[59], Some(119)),
            (limits(0, 0), &[5], None),
        ] {
            assert_eq!(over(limits, &silence, signs).await, expected, "{limits:?} {signs:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_in_time_and_the_wait_goes_on() {
        let silence = Silence::default();
        let beat = Beat { dialect: Dialect::OpenAi, id: RequestId::new(1, [0; 10]), every: SECOND * 10 };
        silence.limit(beat);
        let start = Instant::now();
        let alarm = pin!(sleep_until(start + SECOND * 10));
        let mut patience = Patience::new(alarm, limits(60, 600), &silence, start);
        let before = timeout(SECOND * 9, patience.wait(pin!(pending::<()>()))).await;
        assert!(before.is_err() && !silence.is_broken());
        let after = timeout(SECOND * 2, patience.wait(pin!(pending::<()>()))).await;
        assert!(after.is_err() && silence.is_broken(), "ten seconds are over, sixty are not");
        assert_eq!(patience.wait(pin!(pending::<()>())).await, Err(Late));
        assert_eq!(start.elapsed(), SECOND * 60);
        // A wait without limits breaks the silence all the same, and goes on.
        silence.limit(beat);
        let alarm = pin!(sleep_until(Instant::now() + SECOND * 10));
        let mut patience = Patience::new(alarm, limits(0, 0), &silence, Instant::now());
        assert!(timeout(SECOND * 11, patience.wait(pin!(pending::<()>()))).await.is_err());
        assert!(silence.is_broken());
        assert!(timeout(SECOND * 11, patience.wait(pin!(pending::<()>()))).await.is_err());
    }
}
