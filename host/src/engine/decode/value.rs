//! Numbers and strings: is it one, and what does it say.
//!
//! Knows nothing of where they stand. Control characters and UTF-8 were checked before.

use super::rows::{Kind, Value};

const WINDOW_BYTES: usize = 16;
const DIGITS_EXACT: usize = 15;
/// Powers of ten that are exact as `f64` and divide an exact integer with one rounding.
const POWERS: [f64; DIGITS_EXACT + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Masks of the last n bytes of a window.
const LAST_BYTES: [u128; WINDOW_BYTES + 1] = {
    let mut masks = [0; WINDOW_BYTES + 1];
    let mut len = 1;
    while len <= WINDOW_BYTES {
        masks[len] = u128::MAX << ((WINDOW_BYTES - len) * 8);
        len += 1;
    }
    masks
};

/// Whether `buffer[begin..end]` is a JSON number. Integers and decimals are judged 8 or 16 bytes at once.
#[inline(always)]
pub(super) fn is_number(buffer: &[u8], begin: usize, end: usize) -> bool {
    /// A bit in each byte of the number that is no digit, and how many bits stand before the number.
    macro_rules! others {
        ($word:ty, $bytes:literal) => {{
            const ZEROS: $word = <$word>::from_le_bytes([b'0'; $bytes]);
            const LOW: $word = <$word>::from_le_bytes([0x7f; $bytes]);
            const TO_HIGH: $word = <$word>::from_le_bytes([0x80 - 10; $bytes]);
            let Some(window) = buffer[..end].last_chunk::<$bytes>() else { return is_any_number(&buffer[begin..end]) };
            // As many zeros as the number leaves room for, then its bytes; a digit becomes 0 to 9, all else has a high bit.
            let mask = (LAST_BYTES[(end - begin) % (WINDOW_BYTES + 1)] >> ((WINDOW_BYTES - $bytes) * 8)) as $word;
            let values = (<$word>::from_le_bytes(*window) ^ ZEROS) & mask;
            let others = (((values & LOW) + TO_HIGH) | values) & !LOW;
            let first_other = (others.trailing_zeros() as usize / 8 + end).wrapping_sub($bytes);
            (others != 0, others & others.wrapping_sub(1) == 0, first_other)
        }};
    }
    let len = end - begin;
    let (some, one, first) = match len {
        0 | WINDOW_BYTES.. => return is_any_number(&buffer[begin..end]),
        1..=8 => others!(u64, 8),
        _ => others!(u128, 16),
    };
    let leading_zero = buffer[begin] == b'0';
    if !some {
        return len == 1 || !leading_zero;
    }
    if one && buffer[first] == b'.' {
        return first > begin && first + 1 < end && (first == begin + 1 || !leading_zero);
    }
    is_any_number(&buffer[begin..end])
}

/// The grammar, byte by byte.
fn is_any_number(literal: &[u8]) -> bool {
    let digits = |from: usize| literal[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(literal.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && literal[at] == b'0') {
        return false;
    }
    at += whole;
    if literal.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return false;
        }
        at += 1 + fraction;
    }
    if matches!(literal.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(literal.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return false;
        }
        at += exponent;
    }
    at == literal.len()
}

/// Exact value of a JSON number literal (already checked by the decoder); infinite when it is too large for `f64`.
#[inline]
pub fn number(literal: &[u8]) -> f64 {
    if literal.len() > DIGITS_EXACT + 1 {
        return any_number(literal);
    }
    let (mut integer, mut digits_behind, mut behind) = (0_u64, 0, 0);
    for &byte in literal {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            integer = integer * 10 + u64::from(digit);
            digits_behind += behind;
        } else if byte == b'.' && behind == 0 {
            behind = 1;
        } else {
            return any_number(literal);
        }
    }
    // Without a point the conversion rounds, with one there are at most 15 digits and the division does.
    integer as f64 / POWERS[digits_behind.min(DIGITS_EXACT)]
}

fn any_number(literal: &[u8]) -> f64 {
    std::str::from_utf8(literal).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

/// `true`, `false` or `null`; a block is readable behind `end`. Which one varies from event to event: no branch.
#[inline]
pub(super) fn literal(buffer: &[u8], begin: usize, end: usize) -> Option<Value> {
    const TRUE: u64 = u64::from_le_bytes(*b"true\0\0\0\0");
    const FALSE: u64 = u64::from_le_bytes(*b"false\0\0\0");
    const NULL: u64 = u64::from_le_bytes(*b"null\0\0\0\0");
    let len = end - begin;
    if !matches!(len, 4 | 5) {
        return None;
    }
    let word = u64::from_le_bytes(*buffer[begin..].first_chunk()?) & (u64::MAX >> (64 - 8 * len));
    let kind = u32::from(word == TRUE) * Kind::True as u32
        + u32::from(word == FALSE) * Kind::False as u32
        + u32::from(word == NULL) * Kind::Null as u32;
    (kind != 0).then(|| Value::of_bits(kind, begin, end))
}

/// The string between two quotes, unescaped into `scratch` if it has an escape.
#[inline]
pub(super) fn text(buffer: &[u8], start: usize, end: usize, scratch: &mut Vec<u8>) -> Option<Value> {
    let spelled = &buffer[start..end];
    if memchr::memchr(b'\\', spelled).is_none() {
        return Some(Value::new(Kind::Text, start, end));
    }
    let from = scratch.len();
    unescape(spelled, scratch)?;
    Some(Value::unescaped(from, scratch.len()))
}

/// Appends what an escaped string spells; `None` where an escape is none, or half a surrogate pair.
pub(super) fn unescape(spelled: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = spelled;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let escape = *rest.get(at + 1)?;
        rest = &rest[at + 2..];
        out.push(match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, behind) = escaped_character(rest)?;
                rest = behind;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        });
    }
    out.extend_from_slice(rest);
    Some(())
}

/// What stands behind `\u`, a second half of a pair included.
fn escaped_character(spelled: &[u8]) -> Option<(char, &[u8])> {
    let (first, rest) = hex4(spelled)?;
    if !(0xD800..0xDC00).contains(&first) {
        return Some((char::from_u32(first)?, rest));
    }
    let (second, rest) = hex4(rest.strip_prefix(b"\\u")?)?;
    let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x10000 + ((first - 0xD800) << 10) + low)?, rest))
}

fn hex4(spelled: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = spelled.split_first_chunk::<4>()?;
    let value = digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))?;
    Some((value, rest))
}
