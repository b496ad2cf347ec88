//! The masks from the vector unit: AVX2 where the processor has it, SSE2, which every x86-64 has, else.
#![expect(
    unsafe_code,
    reason = "functions compiled for processor features can only be called so; 50 us of safe code become 6"
)]

use super::{Block, Masks, Steps, prefix_xor, run_with};
use std::arch::x86_64::*;

/// Runs with the best this processor has.
#[inline]
pub(super) fn run<S: Steps>(steps: &mut S, blocks: &[Block]) -> Option<(usize, usize)> {
    if has_avx2() {
        // SAFETY: the features were just found to be there.
        unsafe { run_avx2(steps, blocks) }
    } else {
        // SAFETY: SSE2 is a part of x86-64.
        unsafe { run_sse2(steps, blocks) }
    }
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("bmi1")
}

#[target_feature(enable = "avx2,pclmulqdq,popcnt,bmi1")]
fn run_avx2<S: Steps>(steps: &mut S, blocks: &[Block]) -> Option<(usize, usize)> {
    let quote = _mm256_set1_epi8(b'"' as i8);
    let backslash = _mm256_set1_epi8(b'\\' as i8);
    // `{`/`[` and `}`/`]` differ in bit 5 only, and no other byte maps onto them.
    let fold = _mm256_set1_epi8(0x20);
    let open = _mm256_set1_epi8(b'{' as i8);
    let close = _mm256_set1_epi8(b'}' as i8);
    let bits = |bytes, wanted| u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, wanted)) as u32);
    let masks = |block: &Block| {
        let (words, _) = block.as_chunks::<8>();
        let word = |n: usize| i64::from_le_bytes(words[n]);
        let low = _mm256_set_epi64x(word(3), word(2), word(1), word(0));
        let high = _mm256_set_epi64x(word(7), word(6), word(5), word(4));
        let (low_folded, high_folded) = (_mm256_or_si256(low, fold), _mm256_or_si256(high, fold));
        Masks {
            quote: bits(low, quote) | (bits(high, quote) << 32),
            backslash: bits(low, backslash) | (bits(high, backslash) << 32),
            open: bits(low_folded, open) | (bits(high_folded, open) << 32),
            close: bits(low_folded, close) | (bits(high_folded, close) << 32),
        }
    };
    // A carry-less product with all ones is the prefix parity.
    let prefix = |bits: u64| {
        let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1));
        _mm_cvtsi128_si64(product) as u64
    };
    run_with(steps, blocks, masks, prefix)
}

#[target_feature(enable = "sse2")]
fn run_sse2<S: Steps>(steps: &mut S, blocks: &[Block]) -> Option<(usize, usize)> {
    let quote = _mm_set1_epi8(b'"' as i8);
    let backslash = _mm_set1_epi8(b'\\' as i8);
    let fold = _mm_set1_epi8(0x20);
    let open = _mm_set1_epi8(b'{' as i8);
    let close = _mm_set1_epi8(b'}' as i8);
    let bits = |bytes, wanted| u64::from(_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, wanted)) as u16);
    let masks = |block: &Block| {
        let (words, _) = block.as_chunks::<8>();
        let word = |n: usize| i64::from_le_bytes(words[n]);
        let mut masks = Masks::default();
        for lane in 0..4 {
            let bytes = _mm_set_epi64x(word(2 * lane + 1), word(2 * lane));
            let folded = _mm_or_si128(bytes, fold);
            let at = 16 * lane;
            masks.quote |= bits(bytes, quote) << at;
            masks.backslash |= bits(bytes, backslash) << at;
            masks.open |= bits(folded, open) << at;
            masks.close |= bits(folded, close) << at;
        }
        masks
    };
    run_with(steps, blocks, masks, prefix_xor)
}

#[cfg(test)]
type Run<S> = fn(&mut S, &[Block]) -> Option<(usize, usize)>;

/// Every form that this processor can run.
#[cfg(test)]
pub(super) fn every<S: Steps>() -> Vec<Run<S>> {
    // SAFETY: SSE2 is a part of x86-64.
    let mut every: Vec<Run<S>> = vec![|steps, blocks| unsafe { run_sse2(steps, blocks) }];
    if has_avx2() {
        // SAFETY: the features were just found to be there.
        every.push(|steps, blocks| unsafe { run_avx2(steps, blocks) });
    }
    every
}
