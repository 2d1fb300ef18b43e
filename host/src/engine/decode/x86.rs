//! Blocks by AVX2 or AVX-512 and carry-less multiplication.
//!
//! The one module with `unsafe`: the calls from code built for any x86-64 into code built for those.

use std::arch::x86_64::*;

use super::scan::{BLOCK_BYTES, Block, Details, Masks, Scan, Tape, place_bits, scan_with};

/// Proof that this machine has some vector instructions: only `detect` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vectors(Width);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Avx2,
    Avx512,
}

impl Vectors {
    /// The best ones last.
    pub fn detect() -> Vec<Self> {
        let bits = is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        let avx2 = bits && is_x86_feature_detected!("avx2");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi2");
        let widths = [avx2.then_some(Width::Avx2), avx512.then_some(Width::Avx512)];
        widths.into_iter().flatten().map(Self).collect()
    }

    #[inline]
    #[allow(unsafe_code)]
    pub fn scan(self, buffer: &[u8], start: usize, limit: usize, tape: &mut Tape) -> Scan {
        // SAFETY: both are safe functions but for the processor features they are built for, and a value of this type
        // with their width exists only where `detect` found every one of them.
        match self.0 {
            Width::Avx2 => unsafe { scan_avx2(buffer, start, limit, tape) },
            Width::Avx512 => unsafe { scan_avx512(buffer, start, limit, tape) },
        }
    }
}

/// The expected byte by low nibble, compared with the byte with bit 5 set, which folds `[` and `{`, `]` and `}`.
/// What else it folds are control characters, which no event has.
const STRUCTURE_OF_NIBBLE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b':', b'{', 0, b'}', 0, 0];

#[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
fn scan_avx2(buffer: &[u8], start: usize, limit: usize, tape: &mut Tape) -> Scan {
    let structure_of_nibble = _mm256_broadcastsi128_si256(bytemuck::cast(STRUCTURE_OF_NIBBLE));
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
    scan_with(buffer, start, limit, tape, masks, details, |bits| prefix_xor(bits), place_bits)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
fn scan_avx512(buffer: &[u8], start: usize, limit: usize, tape: &mut Tape) -> Scan {
    const NUMBERS: Block = {
        let mut numbers = [0; BLOCK_BYTES];
        let mut n = 0;
        while n < BLOCK_BYTES {
            numbers[n] = n as u8;
            n += 1;
        }
        numbers
    };
    const LANES: usize = 16;
    let structure_of_nibble = _mm512_broadcast_i32x4(bytemuck::cast(STRUCTURE_OF_NIBBLE));
    let numbers: __m512i = bytemuck::cast(NUMBERS);
    let whole = |block: &Block| -> __m512i { bytemuck::cast(*block) };
    let is = |v: __m512i, byte: u8| _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(byte as i8));
    let is_control = |v: __m512i| _mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(0x20));
    let masks = |block: &Block| {
        let v = whole(block);
        let folded = _mm512_or_si512(v, _mm512_set1_epi8(0x20));
        Masks {
            quotes: is(v, b'"'),
            structure: _mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(structure_of_nibble, v), folded),
            high: _mm512_movepi8_mask(v),
            rare: (is(v, b'\\') | is_control(v)) != 0,
        }
    };
    let details = |block: &Block| {
        let v = whole(block);
        Details {
            backslash: is(v, b'\\'),
            control: is_control(v),
            newline: is(v, b'\n'),
            blank: is(v, b'\t') | is(v, b'\r'),
        }
    };
    // The numbers of the set bits side by side, the first sixteen widened at once: more there hardly are.
    let place = |out: &mut [u32; BLOCK_BYTES], base: u32, bits: u64| {
        let packed = _mm512_maskz_compress_epi8(bits, numbers);
        let widen = |bytes: __m128i| -> [u32; LANES] {
            bytemuck::cast(_mm512_add_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(base as i32)))
        };
        out[..LANES].copy_from_slice(&widen(_mm512_castsi512_si128(packed)));
        if bits.count_ones() as usize > LANES {
            let packed: [[u8; LANES]; 4] = bytemuck::cast(packed);
            for (out, bytes) in out.chunks_exact_mut(LANES).zip(packed).skip(1) {
                out.copy_from_slice(&widen(bytemuck::cast(bytes)));
            }
        }
    };
    scan_with(buffer, start, limit, tape, masks, details, |bits| prefix_xor(bits), place)
}

#[inline]
#[target_feature(enable = "pclmulqdq")]
fn prefix_xor(bits: u64) -> u64 {
    let product = _mm_clmulepi64_si128(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1), 0);
    _mm_cvtsi128_si64(product) as u64
}
