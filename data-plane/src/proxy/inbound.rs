//! The caller's body: bounded, within a budget of all requests together, decompressed.

use super::budget::Share;
use super::head::header;
use super::refuse::Refusal;
use crate::config::Config;
use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use smallvec::SmallVec;
use std::fmt::Display;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// Decompressed bytes between two looks at the other tasks of this thread.
const DECODE_STEP: usize = 64 * 1024;
/// What a piece of a body costs besides its bytes, so that a body of tiny pieces stays within the budget, too.
const PIECE: usize = 72;

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
    let mut chunks: SmallVec<[Bytes; 4]> = SmallVec::new();
    let mut total = 0usize;
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
        share.grow(data.len() + PIECE, config.body_budget_bytes as u64)?;
        total += data.len();
        if total as u64 > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        chunks.push(data);
    }
    decode(config, headers, join(chunks, total), share).await
}

/// One piece of memory, without a copy where the body came in one frame.
fn join(chunks: SmallVec<[Bytes; 4]>, total: usize) -> Bytes {
    if let [only] = chunks.as_slice() {
        return only.clone();
    }
    let mut whole = BytesMut::with_capacity(total);
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    whole.freeze()
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
        "zstd" => Box::pin(ZstdDecoder::new(input)),
        other => return Err(Refusal::BodyUnreadable(format!("unknown content-encoding `{other}`"))),
    };
    // Boxed, as every rare turn of the walk: its room would be a part of every request's future.
    Box::pin(inflate(config, reader, share)).await
}

async fn inflate(
    config: &Config,
    mut reader: Pin<Box<dyn AsyncRead + '_>>,
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
            return Ok(out.freeze());
        }
        share.grow(read, config.body_budget_bytes as u64)?;
        if out.len() as u64 > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        tokio::task::yield_now().await;
    }
}
