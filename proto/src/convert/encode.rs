//! A usage record straight to its bytes. The proxy writes one per request before the answer's last byte goes out;
//! by way of the message type every text of it would be copied first, and the copies freed.

use crate::usage::{Attempt, TokenCounts, UsageRecord};
use prost::encoding::{WireType, encode_key, encode_varint};
use rust_decimal::Decimal;

/// Most bytes of a decimal: 29 digits, sign, point and leading zero.
const DECIMAL_ROOM: usize = 40;

impl UsageRecord {
    /// Appends the record as a `switchyard.v1.UsageRecord`; the same as by [`crate::pb::UsageRecord`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        bytes(1, self.id.0.as_bytes(), out);
        text(2, &self.proxy_id, out);
        signed(3, self.started_at_ms, out);
        signed(4, self.owner_id.0, out);
        signed(5, self.user_id.0, out);
        signed(6, self.key_id.0, out);
        present(7, self.provider_id.map(|id| id.0.cast_unsigned()), out);
        some(8, &self.session_id, out);
        text(9, self.dialect.as_str(), out);
        text(10, &self.endpoint, out);
        text(11, &self.model, out);
        some(12, &self.upstream_model, out);
        some(13, &self.response_model, out);
        some(14, &self.billed_model, out);
        number(15, u64::from(self.streamed), out);
        text(16, self.outcome.as_str(), out);
        number(17, u64::from(self.status), out);
        some(18, &self.error, out);
        some(19, &self.blocked_by, out);
        some(20, &self.blocked_reason, out);
        message(21, out, |out| tokens(&self.tokens, out));
        text(22, self.usage_source.as_str(), out);
        if let Some(cost) = self.cost {
            decimal(23, cost, out);
        }
        for (name, part) in &self.cost_parts {
            message(24, out, |out| {
                text(1, name, out);
                decimal(2, *part, out);
            });
        }
        decimal(25, self.cost_multiplier, out);
        signed(26, self.generation.0, out);
        number(27, u64::from(self.duration_ms), out);
        present(28, self.ttft_ms.map(u64::from), out);
        for attempt in &self.attempts {
            message(29, out, |out| line(attempt, out));
        }
        some(30, &self.user_agent, out);
        some(31, &self.client_ip, out);
        some(32, &self.trace_id, out);
        number(33, self.request_bytes, out);
        number(34, self.response_bytes, out);
        number(35, u64::from(self.messages_count), out);
        if let Some(why) = self.unpriced {
            text(36, why.as_str(), out);
        }
        if let Some(held) = self.held_cost {
            decimal(37, held, out);
        }
        for skipped in &self.skipped {
            message(38, out, |out| {
                signed(1, skipped.provider_id.0, out);
                text(2, &skipped.provider_name, out);
                text(3, skipped.why.as_str(), out);
            });
        }
    }
}

fn tokens(counts: &TokenCounts, out: &mut Vec<u8>) {
    number(1, counts.input, out);
    number(2, counts.output, out);
    number(3, counts.reasoning, out);
    number(4, counts.cache_read, out);
    number(5, counts.cache_write_5m, out);
    number(6, counts.cache_write_1h, out);
    number(7, counts.input_audio, out);
    number(8, counts.output_audio, out);
    number(9, counts.input_image, out);
    number(10, counts.output_image, out);
}

fn line(attempt: &Attempt, out: &mut Vec<u8>) {
    signed(1, attempt.provider_id.0, out);
    text(2, &attempt.provider_name, out);
    text(3, attempt.result.as_str(), out);
    present(4, attempt.status.map(u64::from), out);
    text(5, &attempt.detail, out);
    signed(6, attempt.started_at_ms, out);
    number(7, u64::from(attempt.duration_ms), out);
    text(8, &attempt.model, out);
    text(9, attempt.selected_by.as_str(), out);
}

fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// An empty text is left out, as proto3 has it.
fn text(tag: u32, value: &str, out: &mut Vec<u8>) {
    if !value.is_empty() {
        bytes(tag, value.as_bytes(), out);
    }
}

fn some(tag: u32, value: &Option<String>, out: &mut Vec<u8>) {
    text(tag, value.as_deref().unwrap_or_default(), out);
}

fn present(tag: u32, value: Option<u64>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    present(tag, Some(value).filter(|value| *value != 0), out);
}

fn signed(tag: u32, value: i64, out: &mut Vec<u8>) {
    number(tag, value.cast_unsigned(), out);
}

/// A message whose length is known once it is written.
fn message(tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, out);
    let start = out.len();
    // One byte for the length, which is enough for most; more room is made where it is not.
    out.push(0);
    write(out);
    let length = out.len() - start - 1;
    if let Ok(short @ 0..128) = u8::try_from(length) {
        out[start] = short;
    } else {
        let mut long = Vec::with_capacity(10);
        encode_varint(length as u64, &mut long);
        out.splice(start..=start, long);
    }
}

/// As `Display` writes it: digits, the point where the scale says, no exponent.
fn decimal(tag: u32, value: Decimal, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value.mantissa().unsigned_abs()).as_bytes();
    let scale = value.scale() as usize;
    let mut room = [b'0'; DECIMAL_ROOM];
    // At least one digit before the point.
    let whole = digits.len().max(scale + 1) - scale;
    let sign = usize::from(value.is_sign_negative() && !value.is_zero());
    if sign == 1 {
        room[0] = b'-';
    }
    let zeros = (scale + 1).saturating_sub(digits.len());
    let point = sign + whole;
    // Written without the point first, then the part after it moves on by one.
    room[sign + zeros..sign + zeros + digits.len()].copy_from_slice(digits);
    let mut end = point + scale;
    if scale > 0 {
        room.copy_within(point..end, point + 1);
        room[point] = b'.';
        end += 1;
    }
    bytes(tag, &room[..end], out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Generation, KeyId, ProviderId, RequestId, UserId};
    use crate::pb;
    use crate::usage::{
        AttemptResult, Dialect, Outcome, SelectedBy, Skipped, UsageSource, WhySkipped, WhyUnpriced,
    };
    use proptest::prelude::*;
    use prost::Message;

    fn money() -> impl Strategy<Value = Decimal> {
        (any::<i64>(), 0..=28u32).prop_map(|(mantissa, scale)| Decimal::new(mantissa, scale))
    }

    fn maybe() -> impl Strategy<Value = Option<String>> {
        prop_oneof![Just(None), "[a-zé]{1,300}".prop_map(Some)]
    }

    fn attempt() -> impl Strategy<Value = Attempt> {
        ("[a-z]{0,200}", any::<Option<u16>>(), any::<(i64, u32)>(), "[a-z]{0,9}").prop_map(
            |(detail, status, (at, took), model)| Attempt {
                provider_id: ProviderId(at >> 7),
                provider_name: model.clone(),
                result: AttemptResult::ALL[took as usize % AttemptResult::ALL.len()],
                selected_by: SelectedBy::ALL[took as usize % SelectedBy::ALL.len()],
                status,
                detail,
                started_at_ms: at,
                duration_ms: took,
                model,
            },
        )
    }

    fn record() -> impl Strategy<Value = UsageRecord> {
        let texts = prop::collection::vec(maybe(), 10);
        let numbers = prop::collection::vec(any::<u64>(), 12);
        let parts = prop::collection::btree_map("[a-z_0-9]{0,20}", money(), 0..4);
        let attempts = prop::collection::vec(attempt(), 0..4);
        let skipped = ("[a-z]{0,200}", any::<i64>()).prop_map(|(provider_name, number)| Skipped {
            provider_id: ProviderId(number),
            provider_name,
            why: WhySkipped::ALL[number.unsigned_abs() as usize % WhySkipped::ALL.len()],
        });
        let attempts = (attempts, prop::collection::vec(skipped, 0..3));
        (texts, numbers, parts, attempts, prop::option::of(money()), money()).prop_map(
            |(mut texts, numbers, cost_parts, (attempts, skipped), cost, cost_multiplier)| {
                let mut next = || texts.pop().flatten();
                let signed = |at: usize| numbers[at].cast_signed();
                let short = |at: usize| (numbers[at] >> 40) as u32;
                UsageRecord {
                    id: RequestId::new(signed(0) >> 20, [7; 10]),
                    proxy_id: next().unwrap_or_default(),
                    started_at_ms: signed(1),
                    owner_id: UserId(signed(2)),
                    user_id: UserId(0),
                    key_id: KeyId(signed(3)),
                    provider_id: (signed(4) > 0).then_some(ProviderId(signed(4) & 1)),
                    session_id: next(),
                    dialect: Dialect::ALL[numbers[5] as usize % Dialect::ALL.len()],
                    endpoint: next().unwrap_or_default(),
                    model: next().unwrap_or_default(),
                    upstream_model: next(),
                    response_model: next(),
                    billed_model: next(),
                    streamed: signed(6) > 0,
                    outcome: Outcome::ALL[numbers[6] as usize % Outcome::ALL.len()],
                    status: (numbers[7] % 600) as u16,
                    error: next(),
                    blocked_by: None,
                    blocked_reason: next(),
                    tokens: TokenCounts {
                        input: numbers[8],
                        output: numbers[8] & 0xff,
                        reasoning: 1,
                        cache_read: 0,
                        cache_write_5m: 3,
                        cache_write_1h: 4,
                        input_audio: 5,
                        output_audio: 6,
                        input_image: 7,
                        output_image: 8,
                    },
                    usage_source: UsageSource::ALL[numbers[9] as usize % UsageSource::ALL.len()],
                    cost,
                    cost_parts,
                    cost_multiplier,
                    generation: Generation(signed(9)),
                    duration_ms: short(10),
                    ttft_ms: (short(10) > 9).then_some(short(11) & 1),
                    attempts,
                    user_agent: next(),
                    client_ip: None,
                    trace_id: None,
                    request_bytes: numbers[10],
                    response_bytes: numbers[11] & 1,
                    messages_count: short(8),
                    unpriced: cost.is_none().then_some(WhyUnpriced::ALL[numbers[4] as usize % 2]),
                    held_cost: cost.map(|cost| cost + Decimal::ONE),
                    skipped,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_what_the_message_type_would_write(record in record()) {
            let mut out = b"before".to_vec();
            record.encode(&mut out);
            prop_assert_eq!(pb::UsageRecord::decode(&out[6..]).unwrap(), pb::UsageRecord::from(&record));
            prop_assert_eq!(&out[6..], pb::UsageRecord::from(&record).encode_to_vec());
        }
    }

    #[test]
    fn decimals_are_written_in_full() {
        let all = ["0", "0.00", "1", "10.50", "0.1", "-0.05", "-12", "0.0000000000000000000000000001"];
        for text in
            all.into_iter().chain(["79228162514264337593543950335", "-7.9228162514264337593543950335"])
        {
            let value: Decimal = text.parse().unwrap();
            let mut out = Vec::new();
            decimal(1, value, &mut out);
            assert_eq!(std::str::from_utf8(&out[2..]).unwrap(), value.to_string());
        }
    }
}
