//! The caller's body: bounded, within a budget of all requests together, decompressed.

use super::budget::Share;
use super::head::header;
use super::refuse::Refusal;
use crate::clock::Instant;
use crate::config::Config;
use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use std::fmt::Display;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout_at;

/// Decompressed bytes between two looks at the other tasks of this thread.
const DECODE_STEP: usize = 64 * 1024;
/// The largest window of zstd that is kept while a body is unpacked, as a power of two: 8 MiB, what the standard asks every
/// reader to support. It is not part of the budget.
const ZSTD_WINDOW_LOG: u32 = 23;
/// What a body costs besides its bytes.
const FRAME: usize = 72;
/// So much memory is taken for a body at once, if it is longer than its first frame.
const AT_ONCE: usize = 256 * 1024;

/// Reads the whole body. Cancel-safe: what was read is dropped and its share given back.
pub async fn collect<B>(
    config: &Config,
    headers: &HeaderMap,
    mut body: B,
    share: &mut Share,
) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes, Error: Display> + Unpin,
{
    let limit = config.max_body_bytes as u64;
    if body.size_hint().lower() > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let mut gathered = Gathered::expecting(body.size_hint().exact());
    let end = Instant::now() + config.body_total_timeout;
    loop {
        let soon = (Instant::now() + config.body_read_timeout).min(end);
        let frame = match timeout_at(soon, body.frame()).await {
            Err(_) => return Err(Refusal::BodyTimeout),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(Refusal::BodyUnreadable(error.to_string())),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if (gathered.len() + data.len()) as u64 > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        gathered.take(data);
        share.resize(gathered.held(), config.body_budget_bytes as u64)?;
    }
    decode(config, headers, gathered.whole(), share).await
}

/// What came of a body: its one frame as it is, or all of them in one piece of memory. A frame is given back as soon as
/// it is copied.
struct Gathered {
    /// The only frame so far.
    first: Bytes,
    /// From the second on, all of them.
    whole: Vec<u8>,
    /// The length, where the caller said it.
    expected: Option<usize>,
}

impl Gathered {
    fn expecting(length: Option<u64>) -> Self {
        let expected = length.and_then(|length| usize::try_from(length).ok());
        Self { first: Bytes::new(), whole: Vec::new(), expected }
    }

    fn len(&self) -> usize {
        self.first.len() + self.whole.len()
    }

    /// The memory that it takes.
    fn held(&self) -> usize {
        self.first.len() + self.whole.capacity() + FRAME
    }

    fn take(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        let first = std::mem::take(&mut self.first);
        let need = self.whole.len() + first.len() + data.len();
        if need > self.whole.capacity() {
            self.whole.reserve_exact(self.room(need) - self.whole.len());
        }
        self.whole.extend_from_slice(&first);
        self.whole.extend_from_slice(&data);
    }

    /// How much memory to have for `need` bytes: no more than what the caller said will come, and not all of that before
    /// much of it has come.
    fn room(&self, need: usize) -> usize {
        let grown = (need + need / 2).max(AT_ONCE);
        self.expected.map_or(grown, |expected| grown.min(expected)).max(need)
    }

    fn whole(self) -> Bytes {
        if self.whole.is_empty() { self.first } else { self.whole.into() }
    }
}

async fn decode(
    config: &Config,
    headers: &HeaderMap,
    body: Bytes,
    share: &mut Share,
) -> Result<Bytes, Refusal> {
    let Some(encoding) = header(headers, "content-encoding") else { return Ok(body) };
    let input = body.as_ref();
    let reader: Pin<Box<dyn AsyncRead + '_>> = match encoding.to_ascii_lowercase().as_str() {
        "" | "identity" => return Ok(body),
        "gzip" | "x-gzip" => Box::pin(GzipDecoder::new(input)),
        "deflate" => Box::pin(ZlibDecoder::new(input)),
        "br" => Box::pin(BrotliDecoder::new(input)),
        "zstd" => Box::pin(ZstdDecoder::with_params(input, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)])),
        other => return Err(Refusal::BodyUnreadable(format!("unknown content-encoding `{other}`"))),
    };
    // Boxed, as every rare turn of the walk: its room would be a part of every request's future.
    Box::pin(inflate(config, (reader, body.len()), share)).await
}

async fn inflate(
    config: &Config,
    (mut reader, packed): (Pin<Box<dyn AsyncRead + '_>>, usize),
    share: &mut Share,
) -> Result<Bytes, Refusal> {
    let limit = config.max_body_bytes as u64;
    let mut out = BytesMut::new();
    loop {
        out.reserve(DECODE_STEP);
        // Bounded, because the spare room of a large buffer is many steps.
        let mut step = (&mut out).limit(DECODE_STEP);
        let read = reader
            .read_buf(&mut step)
            .await
            .map_err(|error| Refusal::BodyUnreadable(format!("it does not decompress: {error}")))?;
        if read == 0 {
            // What came is gone with its reader.
            share.resize(out.capacity(), config.body_budget_bytes as u64)?;
            return Ok(out.freeze());
        }
        if out.len() as u64 > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        share.resize(packed + out.capacity(), config.body_budget_bytes as u64)?;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_is_not_copied_and_many_lie_in_one_piece_of_memory() {
        let frame = Bytes::from(vec![b'x'; 100]);
        let mut gathered = Gathered::expecting(Some(100));
        gathered.take(frame.clone());
        assert_eq!(gathered.whole().as_ptr(), frame.as_ptr());
        for (expected, count) in [(None, 2), (None, 50_000), (Some(5_000_000), 50_000), (Some(5_000_000), 2)]
        {
            let mut gathered = Gathered::expecting(expected);
            for _ in 0..count {
                gathered.take(frame.clone());
                let most = (gathered.len() + gathered.len() / 2).max(AT_ONCE) + 2 * FRAME + 100;
                assert!(gathered.held() <= most, "{} of {}", gathered.held(), gathered.len());
            }
            if expected == Some(100 * count) {
                assert_eq!(gathered.held(), 100 * count as usize + FRAME, "as long as was said");
            }
            assert_eq!(gathered.whole().len(), 100 * count as usize);
        }
    }
}
