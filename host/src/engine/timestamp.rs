//! An event's time: RFC 3339 text or a Unix number, to milliseconds.

use super::decode::number;
use crate::time::{DAY_MS, Millis};

/// The last millisecond of the year 9999.
pub const TIME_MAX: Millis = 253_402_300_799_999;

/// A Unix number: seconds below 1e11, milliseconds below 1e14, microseconds below 1e17, else nanoseconds. `None`: outside 1970 to 9999.
pub fn from_number(literal: &[u8]) -> Option<Millis> {
    let millis = if let Some(value) = integer(literal) {
        match value {
            0..100_000_000_000 => value * 1_000,
            100_000_000_000..100_000_000_000_000 => value,
            100_000_000_000_000..100_000_000_000_000_000 => value / 1_000,
            _ => value / 1_000_000,
        }
    } else {
        let value = number(literal);
        let scaled = match value {
            v if !(0.0..=1e19).contains(&v) => return None,
            v if v < 1e11 => v * 1e3,
            v if v < 1e14 => v,
            v if v < 1e17 => v / 1e3,
            v => v / 1e6,
        };
        // A fraction of a second has few digits: the nearest microsecond first, so that 0.123 s is 123 ms and not 122.
        (scaled * 1e3).round() as u64 / 1_000
    };
    (millis <= TIME_MAX as u64).then_some(millis as Millis)
}

/// Up to 19 digits, eight at a time.
fn integer(literal: &[u8]) -> Option<u64> {
    if literal.len() > 19 {
        return None;
    }
    let (eights, rest) = literal.as_chunks::<8>();
    let value = eights.iter().try_fold(0, |value: u64, eight| Some(value * 100_000_000 + eight_digits(*eight)?))?;
    rest.iter().try_fold(value, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0')))
}

/// Pairs of digits, then pairs of pairs, then both halves. (After Lemire, Quickly parsing eight digits.)
fn eight_digits(bytes: [u8; 8]) -> Option<u64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(bytes);
    let digits = word.wrapping_sub(EACH * b'0' as u64);
    if (digits | digits.wrapping_add(EACH * (0x80 - 10))) & (EACH * 0x80) != 0 {
        return None;
    }
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// RFC 3339: `2026-11-24T12:00:00.123+01:00`, `Z`, and a space for the `T`. `None`: not that, or outside 1970 to 9999.
pub fn from_text(text: &[u8]) -> Option<Millis> {
    let (head, mut rest) = text.split_first_chunk::<19>()?;
    let pair = |at: usize| -> Option<i64> {
        let (tens, ones) = (head[at].wrapping_sub(b'0'), head[at + 1].wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let marks = head[4] == b'-'
        && head[7] == b'-'
        && matches!(head[10], b'T' | b't' | b' ')
        && head[13] == b':'
        && head[16] == b':';
    if !marks {
        return None;
    }
    let (year, month, day) = (pair(0)? * 100 + pair(2)?, pair(5)?, pair(8)?);
    let (hour, minute, second) = (pair(11)?, pair(14)?, pair(17)?);
    let leap_year = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap_year { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let in_range = (1..=12).contains(&month) && (1..=days[(month - 1).clamp(0, 11) as usize]).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut millis = 0;
    if let [b'.', fraction @ ..] = rest {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        millis =
            (0..3).fold(0, |millis, at| millis * 10 + if at < digits { i64::from(fraction[at] - b'0') } else { 0 });
        rest = &fraction[digits..];
    }
    let offset_minutes = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
            let (hours, minutes) = (digit(h1)? * 10 + digit(h2)?, digit(m1)? * 10 + digit(m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = hour * 3_600 + minute * 60 + second - offset_minutes * 60;
    let time = days_from_civil(year, month, day) * DAY_MS + seconds * 1_000 + millis;
    (0..=TIME_MAX).contains(&time).then_some(time)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant, chrono-Compatible Low-Level Date Algorithms).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-24T12:00:00Z", Some(1_795_521_600_000)),
            ("2026-11-24T12:00:00.1239Z", Some(1_795_521_600_123)),
            ("2026-11-24t13:00:00.5+01:00", Some(1_795_521_600_500)),
            ("2026-11-24 06:30:00-05:30", Some(1_795_521_600_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2000-02-29T23:59:60z", Some(951_868_800_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-24T24:00:00Z", None),
            ("2026-11-24T12:00:00", None),
            ("2026-11-24T12:00:00.Z", None),
            ("2026-11-24T12:00:00+0100", None),
            ("1969-12-31T23:59:59Z", None),
            ("1970-01-01T00:30:00+01:00", None),
            ("9999-12-31T23:59:59.999Z", Some(TIME_MAX)),
            ("1795521600", None),
            ("", None),
        ] {
            assert_eq!(from_text(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn numbers() {
        for (text, want) in [
            ("1795521600", Some(1_795_521_600_000)),
            ("1795521600.123", Some(1_795_521_600_123)),
            ("1795521600123", Some(1_795_521_600_123)),
            ("1795521600123456", Some(1_795_521_600_123)),
            ("1795521600123456789", Some(1_795_521_600_123)),
            ("1.7955216e9", Some(1_795_521_600_000)),
            ("99999999999", Some(99_999_999_999_000)),
            ("0", Some(0)),
            ("-1", None),
            ("1e300", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(from_number(text.as_bytes()), want, "{text}");
        }
    }
}
