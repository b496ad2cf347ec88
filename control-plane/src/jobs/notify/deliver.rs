//! Delivers what is due. A claimed message is due again after a while, so one whose replica dies is not lost; it
//! carries the same id then, for receivers that care.

use super::Notifier;
use crate::db::notifications::{self, Due, Outcome};
use crate::db::settings;
use crate::outbound::{Message, Target};
use crate::rules::notification::{KEY, Stored, Topic, render, secret_aad, webhook_aad};
use chrono::{DateTime, TimeDelta, Utc};

/// Messages of one claim.
const BATCH: i64 = 5;
/// Longer than the deliveries of one claim can take, with the default of `OUTBOUND_TIMEOUT_MS`.
const LEASE: TimeDelta = TimeDelta::minutes(2);
/// Longest pause between two attempts.
const PAUSE_MAX: TimeDelta = TimeDelta::hours(1);

/// Everything that is due now.
pub(super) async fn all(notifier: &Notifier, now: DateTime<Utc>) -> anyhow::Result<()> {
    loop {
        let due = notifications::claim(&mut *notifier.pool.write().await?, BATCH, LEASE).await?;
        if due.is_empty() {
            return Ok(());
        }
        for due in due {
            one(notifier, &due, now).await?;
        }
    }
}

async fn one(notifier: &Notifier, due: &Due, now: DateTime<Utc>) -> anyhow::Result<()> {
    // Read for each: it may have been switched off since the last.
    let value = settings::get(&mut *notifier.pool.read().await?, due.owner_id, KEY).await?;
    let stored = Stored::read(value.as_ref());
    let target =
        Topic::parse(&due.topic).map(|topic| (topic, target(notifier, due.owner_id, &stored, topic)));
    let result = match target {
        None | Some((_, Ok(None))) => Ok(Outcome::Skipped),
        // Sealed under another key: no later attempt opens it.
        Some((_, Err(why))) => Err((why, false)),
        Some((topic, Ok(Some(target)))) => {
            let text = render(topic, &due.payload, stored.language());
            let id = format!("notification-{}", due.id);
            let now_ms = now.timestamp_millis();
            let message = Message { topic, text: &text, payload: &due.payload, id, now_ms };
            let sent = notifier.outbound.deliver(&target, &message).await;
            sent.map(|()| Outcome::Delivered).map_err(|error| (error.to_string(), error.is_passing()))
        }
    };
    let mut conn = notifier.pool.write().await?;
    match result {
        Ok(outcome) => notifications::end(&mut conn, due.id, outcome, None).await?,
        Err((why, is_passing)) => {
            let is_last = usize::try_from(due.attempts).unwrap_or(0) >= notifier.settings.attempts;
            tracing::warn!(
                notification_id = due.id,
                topic = due.topic,
                why,
                "a notification was not delivered"
            );
            if is_last || !is_passing {
                notifications::end(&mut conn, due.id, Outcome::Failed, Some(&why)).await?;
            } else {
                let until = Utc::now() + pause(notifier, due.attempts);
                notifications::put_off(&mut conn, due.id, until, &why).await?;
            }
        }
    }
    Ok(())
}

/// Doubles with every attempt.
fn pause(notifier: &Notifier, attempts: i32) -> TimeDelta {
    let first = TimeDelta::from_std(notifier.settings.backoff).unwrap_or(PAUSE_MAX);
    let doubled = first.checked_mul(1 << attempts.saturating_sub(1).clamp(0, 20));
    doubled.unwrap_or(PAUSE_MAX).min(PAUSE_MAX)
}

/// Where a topic goes now; `None` if it is switched off.
fn target(notifier: &Notifier, owner: i64, stored: &Stored, topic: Topic) -> Result<Option<Target>, String> {
    let Some(channel) = stored.active(topic) else { return Ok(None) };
    let open = |sealed: &str, identity: String| -> Result<String, String> {
        let bytes = hex::decode(sealed).map_err(|_| "the stored webhook has an unknown form")?;
        let clear = notifier.sealer.open(&bytes, &identity).map_err(|error| error.to_string())?;
        String::from_utf8(clear).map_err(|_| "the stored webhook is not text".to_owned())
    };
    let Some(webhook) = &channel.webhook else { return Ok(None) };
    let url =
        open(webhook, webhook_aad(owner, topic))?.parse().map_err(|_| "the stored webhook is no URL")?;
    let secret =
        channel.secret.as_deref().map(|secret| open(secret, secret_aad(owner, topic))).transpose()?;
    Ok(Some(Target { url, kind: channel.kind, secret }))
}
