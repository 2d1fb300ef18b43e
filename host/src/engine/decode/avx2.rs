//! Blocks by AVX2 and carry-less multiplication.
//!
//! The one place of the decoder with `unsafe`: the call from code built for any x86-64 into code built for AVX2.

use std::arch::x86_64::*;

use super::scan::{Block, Details, Masks, Scan, Tape, scan_with};

/// Proof that this machine has what `scan_avx2` is built for: only `detect` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Available(());

impl Available {
    pub fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        all.then_some(Self(()))
    }

    #[inline]
    #[allow(unsafe_code)]
    pub fn scan(self, buffer: &[u8], start: usize, limit: usize, tape: &mut Tape) -> Scan {
        // SAFETY: `scan_avx2` is a safe function but for the processor features it is built for, and a value of this
        // type exists only where `detect` found every one of them.
        unsafe { scan_avx2(buffer, start, limit, tape) }
    }
}

#[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
fn scan_avx2(buffer: &[u8], start: usize, limit: usize, tape: &mut Tape) -> Scan {
    // The expected byte by low nibble, compared with the byte with bit 5 set, which folds `[` and `{`, `]` and `}`.
    // What else it folds are control characters, which no event has.
    let structure_of_nibble =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0x7b, 0, 0x7d, 0, 0));
    let is = |v: __m256i, byte: u8| _mm256_cmpeq_epi8(v, _mm256_set1_epi8(byte as i8));
    let is_structure = |v: __m256i| {
        _mm256_cmpeq_epi8(_mm256_shuffle_epi8(structure_of_nibble, v), _mm256_or_si256(v, _mm256_set1_epi8(0x20)))
    };
    let is_control = |v: __m256i| _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v);
    let halves = |block: &Block| -> [__m256i; 2] { bytemuck::cast(*block) };
    let word = |[low, high]: [__m256i; 2]| {
        u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32
    };
    let masks = |block: &Block| {
        let halves = halves(block);
        let [low, high] = halves;
        let backslash = _mm256_or_si256(is(low, b'\\'), is(high, b'\\'));
        let control = _mm256_or_si256(is_control(low), is_control(high));
        Masks {
            quotes: word(halves.map(|v| is(v, b'"'))),
            structure: word(halves.map(is_structure)),
            high: _mm256_movemask_epi8(_mm256_or_si256(low, high)) as u64,
            rare: _mm256_movemask_epi8(_mm256_or_si256(backslash, control)) != 0,
        }
    };
    let details = |block: &Block| {
        let halves = halves(block);
        Details {
            backslash: word(halves.map(|v| is(v, b'\\'))),
            control: word(halves.map(is_control)),
            newline: word(halves.map(|v| is(v, b'\n'))),
            blank: word(halves.map(|v| _mm256_or_si256(is(v, b'\t'), is(v, b'\r')))),
        }
    };
    let prefix_xor = |bits: u64| {
        let product = _mm_clmulepi64_si128(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1), 0);
        _mm_cvtsi128_si64(product) as u64
    };
    scan_with(buffer, start, limit, tape, masks, details, prefix_xor)
}
