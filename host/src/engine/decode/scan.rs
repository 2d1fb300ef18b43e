//! One line → its end, the places of its structure (`: { } [ ]` outside strings) and its quotes.
//!
//! Blocks of 64 bytes become words of 64 bits, a bit a byte; how they do is an argument (`x86` or the portable way
//! here), what is done with them is the same everywhere. Knows nothing of keys and values.

#[cfg(target_arch = "x86_64")]
use super::x86::Vectors;

/// Most blocks hold less structure than this.
const COMMON_IN_BLOCK: usize = 4;
pub(super) const BLOCK_BYTES: usize = 64;

pub(super) type Block = [u8; BLOCK_BYTES];

/// Of each block.
pub(super) struct Masks {
    pub quotes: u64,
    /// `: { } [ ]` anywhere.
    pub structure: u64,
    /// Above 127; a bit a byte or otherwise, but some.
    pub high: u64,
    /// Some byte is a backslash or a control character: `Details` are wanted.
    pub rare: bool,
}

/// Of a block that needs a second look: one with a backslash or a control character, which the last one of a line has.
pub(super) struct Details {
    pub backslash: u64,
    /// Below 32.
    pub control: u64,
    pub newline: u64,
    /// Tab and carriage return, which are control characters that may stand between tokens.
    pub blank: u64,
}

/// Where the last scan left structure and quotes.
pub(super) struct Tape {
    /// Places in the buffer, in order.
    pub structure: Vec<u32>,
    /// A bit for each unescaped quote, counted from the line's start.
    pub quotes: Vec<u64>,
}

impl Tape {
    pub fn new(event_bytes_max: usize) -> Self {
        let blocks = event_bytes_max / BLOCK_BYTES + 3;
        Self { structure: vec![0; blocks * BLOCK_BYTES], quotes: vec![0; blocks] }
    }
}

/// What a scan says about a line besides its tape.
#[derive(Default)]
pub(super) struct Scan {
    pub end: usize,
    pub newline: usize,
    /// Entries of `Tape::structure`.
    pub structure: usize,
    pub quotes_total: u32,
    pub high: bool,
    /// Places of the first and the last one; none: the greatest and 0.
    pub backslashes: (usize, usize),
    /// A string does not end, or a control character or a backslash stands where none may.
    pub broken: bool,
}

/// How blocks are read on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    X86(Vectors),
}

impl Level {
    pub fn best() -> Self {
        Self::all().pop().expect("one is portable")
    }

    /// Those that this machine has, the best one last.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        all.extend(Vectors::detect().into_iter().map(Self::X86));
        all
    }

    /// The line from `start` up to its newline, or to `limit` where that comes first. The tape has room for
    /// `limit - start` bytes, the buffer a block behind `limit`.
    #[inline]
    pub fn scan(self, buffer: &[u8], start: usize, limit: usize, tape: &mut Tape) -> Scan {
        match self {
            Self::Portable => scan_portable(buffer, start, limit, tape),
            #[cfg(target_arch = "x86_64")]
            Self::X86(vectors) => vectors.scan(buffer, start, limit, tape),
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn scan_with(
    buffer: &[u8],
    start: usize,
    limit: usize,
    tape: &mut Tape,
    masks: impl Fn(&Block) -> Masks,
    details: impl Fn(&Block) -> Details,
    prefix_xor: impl Fn(u64) -> u64,
    place: impl Fn(&mut [u32; BLOCK_BYTES], u32, u64),
) -> Scan {
    let mut scan = Scan { backslashes: (usize::MAX, 0), ..Scan::default() };
    let (mut base, mut block_index) = (start, 0);
    // Carried from block to block: an escape that reaches into the next one, and all ones inside a string.
    let (mut escape, mut inside) = (0_u64, 0_u64);
    let mut all_high = 0;
    loop {
        let block: &Block = buffer[base..].first_chunk().expect("a block is readable behind the limit");
        let Masks { mut quotes, mut structure, high, rare } = masks(block);
        all_high |= high;
        let mut last = false;
        if rare || escape != 0 || base + BLOCK_BYTES > limit {
            let seen = details(block);
            let past_limit = if base + BLOCK_BYTES > limit { 1 << (limit - base) } else { 0 };
            let stop = seen.newline | past_limit;
            let valid = (stop & stop.wrapping_neg()).wrapping_sub(1);
            if stop != 0 {
                last = true;
                scan.end = base + stop.trailing_zeros() as usize;
            }
            let backslash = seen.backslash & valid;
            if backslash | escape != 0 {
                quotes &= !escaped(backslash, &mut escape);
            }
            if backslash != 0 {
                scan.backslashes.0 = scan.backslashes.0.min(base + backslash.trailing_zeros() as usize);
                scan.backslashes.1 = base + 63 - backslash.leading_zeros() as usize;
            }
            quotes &= valid;
            structure &= valid;
            let control = seen.control & valid;
            let within = prefix_xor(quotes) ^ inside;
            // Inside a string a backslash is fine and no control character is; outside only blanks are.
            scan.broken |= (control & within) | (((control & !seen.blank) | backslash) & !within) != 0;
        }
        let within = prefix_xor(quotes) ^ inside;
        inside = ((within as i64) >> 63) as u64;
        tape.quotes[block_index] = quotes;
        scan.quotes_total += quotes.count_ones();
        let structure = structure & !within;
        let places = tape.structure[scan.structure..].first_chunk_mut().expect("a tape has room for a block more");
        place(places, base as u32, structure);
        scan.structure += structure.count_ones() as usize;
        base += BLOCK_BYTES;
        block_index += 1;
        if last {
            break;
        }
    }
    scan.newline = scan.end;
    scan.broken |= inside != 0;
    scan.high = all_high != 0;
    scan
}

/// Writes the places of the set bits; the first few without a branch.
#[inline(always)]
pub(super) fn place_bits(out: &mut [u32; BLOCK_BYTES], base: u32, mut bits: u64) {
    let count = bits.count_ones() as usize;
    for place in &mut out[..COMMON_IN_BLOCK] {
        *place = base.wrapping_add(bits.trailing_zeros());
        bits &= bits.wrapping_sub(1);
    }
    if count > COMMON_IN_BLOCK {
        for place in &mut out[COMMON_IN_BLOCK..] {
            *place = base.wrapping_add(bits.trailing_zeros());
            bits &= bits.wrapping_sub(1);
            if bits == 0 {
                break;
            }
        }
    }
}

/// The bytes that a backslash escapes; of a run of backslashes every second one is itself escaped. (After simdjson.)
#[inline(always)]
fn escaped(backslash: u64, carry: &mut u64) -> u64 {
    const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
    let potential = backslash & !*carry;
    let codes = (((potential << 1) | ODD).wrapping_sub(potential)) ^ ODD;
    let escaped = codes ^ (backslash | *carry);
    *carry = (codes & backslash) >> 63;
    escaped
}

/// The oracle of the other ways, and the way of machines that have none.
fn scan_portable(buffer: &[u8], start: usize, limit: usize, tape: &mut Tape) -> Scan {
    scan_with(buffer, start, limit, tape, masks_portable, details_portable, prefix_xor_portable, place_bits)
}

fn masks_portable(block: &Block) -> Masks {
    Masks {
        quotes: word(block, |byte| byte == b'"'),
        structure: word(block, |byte| byte == b':' || matches!(byte | 0x20, b'{' | b'}')),
        high: u64::from(block.iter().fold(0, |all, byte| all | byte) & 0x80),
        rare: block.iter().fold(false, |any, byte| any | (*byte == b'\\') | (*byte < 0x20)),
    }
}

fn details_portable(block: &Block) -> Details {
    Details {
        backslash: word(block, |byte| byte == b'\\'),
        control: word(block, |byte| byte < 0x20),
        newline: word(block, |byte| byte == b'\n'),
        blank: word(block, |byte| byte == b'\t' || byte == b'\r'),
    }
}

/// A bit a byte. The compiler makes vectors of the first step; the second packs eight bytes of 0 or 1 by a product.
#[inline(always)]
fn word(block: &Block, is: impl Fn(u8) -> bool) -> u64 {
    let flags = block.map(|byte| u8::from(is(byte)));
    let (eights, _) = flags.as_chunks::<8>();
    let packed = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    eights.iter().rev().fold(0, |word, eight| word << 8 | packed(eight))
}

/// Bit n of the result is the parity of bits 0 to n.
#[inline(always)]
fn prefix_xor_portable(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
