//! What a slot holds of a request that is under way: enough for its record if the process is killed. A length, a
//! checksum, numbers of fixed size, then texts. Pure.

use contract::ids::{Generation, KeyId, ProviderId, RequestId, UserId};
use contract::usage::Dialect;
use std::borrow::Cow;
use uuid::Uuid;

/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = 1024;
/// Length and checksum, 4 bytes each, little-endian. Length 0: no request.
const HEAD: usize = 8;
const LENGTH_BYTES: usize = 4;
/// Names the form; entries of another form, another version's, are not understood: they are counted and left out.
const FORM: u8 = 2;
const STREAMED: u8 = 1;
const METERED: u8 = 2;
const SENT: u8 = 4;
const FAST: u8 = 8;
/// Longest text of each kind; the last ones give way where there is no more room.
const NAME: usize = 256;
const PATH: usize = 128;
/// Bytes of a text's length.
const LENGTH: usize = 2;

/// A request that a provider was chosen for and whose end is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The record's id.
    pub id: RequestId,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    /// First-level account.
    pub owner: UserId,
    /// Caller.
    pub user: UserId,
    /// Caller's key.
    pub key: KeyId,
    /// Who was asked last.
    pub provider: ProviderId,
    /// Of the table that the request was pinned to.
    pub generation: Generation,
    /// Body bytes read.
    pub request_bytes: u64,
    /// What the input is estimated from.
    pub input_bytes: u64,
    /// In which price classes the input of the conversation's last answer lay, as their bits; 0: not known.
    pub classes: u64,
    /// Items of the conversation.
    pub messages: u32,
    /// Caller's protocol.
    pub dialect: Dialect,
    /// Whether a stream was asked for.
    pub streamed: bool,
    /// Whether it costs anything.
    pub metered: bool,
    /// Whether the upstream had it: else it costs nothing.
    pub sent: bool,
    /// Whether fast mode was asked for.
    pub fast: bool,
    /// Asked for.
    pub model: Cow<'a, str>,
    /// Conversation; empty: none.
    pub session: Cow<'a, str>,
    /// Path without query.
    pub endpoint: Cow<'a, str>,
    /// Sent upstream; empty: as asked for.
    pub upstream_model: Cow<'a, str>,
    /// Caller's address.
    pub client_ip: Cow<'a, str>,
    /// Caller's program; empty: not told.
    pub user_agent: Cow<'a, str>,
}

impl Entry<'_> {
    /// The whole slot, or as much of it as is needed.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[0; HEAD]);
        out.push(FORM);
        out.push(self.dialect as u8);
        let flags =
            [(self.streamed, STREAMED), (self.metered, METERED), (self.sent, SENT), (self.fast, FAST)];
        out.push(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        out.extend_from_slice(self.id.0.as_bytes());
        let numbers =
            [self.started_at_ms, self.owner.0, self.user.0, self.key.0, self.provider.0, self.generation.0];
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        for number in [self.request_bytes, self.input_bytes, self.classes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.messages.to_le_bytes());
        let texts = [
            (&self.model, NAME),
            (&self.session, NAME),
            (&self.endpoint, PATH),
            (&self.upstream_model, NAME),
            (&self.client_ip, NAME),
            (&self.user_agent, NAME),
        ];
        for (at, (value, most)) in texts.into_iter().enumerate() {
            // Every text to come needs at least its length.
            let kept = LENGTH * (texts.len() - at);
            text(value, SLOT_BYTES.saturating_sub(out.len() + kept).min(most), out);
        }
        let checksum = crc32fast::hash(&out[HEAD..]);
        let length = u32::try_from(out.len() - HEAD).unwrap_or_default();
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..HEAD].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Whether a slot holds anything, be it readable or not.
    pub(super) fn is_any(slot: &[u8]) -> bool {
        slot.get(..LENGTH_BYTES).is_some_and(|length| length.iter().any(|byte| *byte != 0))
    }

    /// `None`: no request, or one that cannot be read.
    pub(super) fn decode(slot: &[u8]) -> Option<Entry<'static>> {
        let mut head = Fields(slot);
        let (length, checksum) = (u32::from_le_bytes(head.array()?), u32::from_le_bytes(head.array()?));
        let mut rest = Fields(head.take(usize::try_from(length).ok()?)?);
        if length == 0 || crc32fast::hash(rest.0) != checksum {
            return None;
        }
        let [form, dialect, flags] = rest.array()?;
        let dialect = *Dialect::ALL.get(usize::from(dialect)).filter(|_| form == FORM)?;
        Some(Entry {
            dialect,
            streamed: flags & STREAMED != 0,
            metered: flags & METERED != 0,
            sent: flags & SENT != 0,
            fast: flags & FAST != 0,
            id: RequestId(Uuid::from_bytes(rest.array()?)),
            started_at_ms: rest.number()?,
            owner: UserId(rest.number()?),
            user: UserId(rest.number()?),
            key: KeyId(rest.number()?),
            provider: ProviderId(rest.number()?),
            generation: Generation(rest.number()?),
            request_bytes: rest.number()?.cast_unsigned(),
            input_bytes: rest.number()?.cast_unsigned(),
            classes: rest.number()?.cast_unsigned(),
            messages: u32::from_le_bytes(rest.array()?),
            model: rest.text()?,
            session: rest.text()?,
            endpoint: rest.text()?,
            upstream_model: rest.text()?,
            client_ip: rest.text()?,
            user_agent: rest.text()?,
        })
    }
}

/// A length and the text, cut where there is no more room.
fn text(value: &str, room: usize, out: &mut Vec<u8>) {
    let value = if value.len() <= room { value } else { &value[..value.floor_char_boundary(room)] };
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Cow<'static, str>> {
        let length = u16::from_le_bytes(self.array()?);
        let text = std::str::from_utf8(self.take(usize::from(length))?).ok()?;
        Some(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry<'static>> {
        let texts = prop::collection::vec("[a-zé]{0,300}", 6);
        (texts, any::<[i64; 9]>(), any::<(bool, bool, bool, bool, u32, u8)>(), any::<[u8; 16]>()).prop_map(
            |(texts, numbers, (streamed, metered, sent, fast, messages, dialect), id)| Entry {
                id: RequestId(Uuid::from_bytes(id)),
                started_at_ms: numbers[0],
                owner: UserId(numbers[1]),
                user: UserId(numbers[2]),
                key: KeyId(numbers[3]),
                provider: ProviderId(numbers[4]),
                generation: Generation(numbers[5]),
                request_bytes: numbers[6].cast_unsigned(),
                input_bytes: numbers[7].cast_unsigned(),
                classes: numbers[8].cast_unsigned(),
                messages,
                dialect: Dialect::ALL[usize::from(dialect) % Dialect::ALL.len()],
                streamed,
                metered,
                sent,
                fast,
                model: texts[0].clone().into(),
                session: texts[1].clone().into(),
                endpoint: texts[2].clone().into(),
                upstream_model: texts[3].clone().into(),
                client_ip: texts[4].clone().into(),
                user_agent: texts[5].clone().into(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_and_texts_are_cut_to_the_slot(entry in entry()) {
            let mut slot = Vec::new();
            entry.encode(&mut slot);
            prop_assert!(slot.len() <= SLOT_BYTES, "{}", slot.len());
            slot.resize(SLOT_BYTES, 0xff);
            let back = Entry::decode(&slot).expect("an entry");
            let numbers = |e: &Entry<'_>| Entry {
                model: "".into(), session: "".into(), endpoint: "".into(), upstream_model: "".into(),
                client_ip: "".into(), user_agent: "".into(), ..e.clone()
            }.clone();
            let empty = |e: &Entry<'_>| format!("{:?}", numbers(e));
            prop_assert_eq!(empty(&back), empty(&entry));
            prop_assert!(entry.model.starts_with(&*back.model) && back.model.len() >= entry.model.len().min(NAME - 1));
            prop_assert!(entry.session.starts_with(&*back.session));
            prop_assert!(entry.user_agent.starts_with(&*back.user_agent));
        }

        #[test]
        fn what_is_not_whole_is_no_entry(entry in entry(), at in 0..200usize, bit in 0..8u32) {
            let mut slot = Vec::new();
            entry.encode(&mut slot);
            let at = at % slot.len();
            slot[at] ^= 1 << bit;
            prop_assert_eq!(Entry::decode(&slot), None);
            prop_assert_eq!(Entry::decode(&slot[..at]), None);
        }
    }

    #[test]
    fn an_empty_slot_is_no_entry() {
        assert_eq!(Entry::decode(&[0; SLOT_BYTES]), None);
        assert_eq!(Entry::decode(&[]), None);
    }
}
