//! Reading Redis's answers. Whatever else stands there is an error, never a panic.

use redis::Value;

use super::link::unexpected;
use crate::engine::plan::Fingerprint;
use crate::store::StoreError;

/// What a function answers: a word, and what belongs to it.
pub struct Answer(Vec<Value>);

impl Answer {
    /// `restarted` is an error here, so that nobody overlooks it.
    pub fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) if matches!(values.first(), Some(Value::BulkString(_))) => {
                let answer = Self(values);
                if answer.word() == b"restarted" { Err(StoreError::Restarted) } else { Ok(answer) }
            }
            other => Err(unexpected(&other)),
        }
    }

    pub fn word(&self) -> &[u8] {
        match &self.0[0] {
            Value::BulkString(word) => word,
            _ => &[],
        }
    }

    pub fn rest(&self) -> &[Value] {
        &self.0[1..]
    }

    /// The number at a place behind the word.
    pub fn number<N: TryFrom<u64>>(&self, at: usize) -> Result<N, StoreError> {
        number(self.0.get(at + 1).unwrap_or(&Value::Nil))
    }

    pub fn unexpected(self) -> StoreError {
        unexpected(&Value::Array(self.0))
    }
}

pub fn bytes(value: &Value) -> Result<&[u8], StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected(other)),
    }
}

pub fn text(value: &Value) -> Result<&str, StoreError> {
    std::str::from_utf8(bytes(value)?).map_err(|_| unexpected(value))
}

/// As an integer, or as text.
pub fn number<N: TryFrom<u64>>(value: &Value) -> Result<N, StoreError> {
    let number = match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.and_then(|number| N::try_from(number).ok()).ok_or_else(|| unexpected(value))
}

pub fn list(value: &Value) -> Result<&[Value], StoreError> {
    match value {
        Value::Array(values) | Value::Set(values) => Ok(values),
        other => Err(unexpected(other)),
    }
}

/// A list of one thing and another, by twos.
pub fn pairs(value: &Value) -> Result<impl Iterator<Item = (&Value, &Value)>, StoreError> {
    Ok(list(value)?.chunks_exact(2).map(|pair| (&pair[0], &pair[1])))
}

pub fn fingerprint(value: &Value) -> Result<Fingerprint, StoreError> {
    u64::from_str_radix(text(value)?, 16).map(Fingerprint).map_err(|_| unexpected(value))
}
