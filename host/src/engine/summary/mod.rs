//! States that only the engine merges: quantiles, top lists, funnels. To a store each is a kind and bytes.
//!
//! Equal inputs give equal summaries, in whatever order and from whatever merges they came, except for top lists past their
//! capacity.

pub mod funnel;
pub mod quantile;
pub mod top;
mod wire;

use funnel::Visits;
use quantile::Quantiles;
use top::Top;

use super::plan::StateKind;

const VERSION: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Summary {
    #[default]
    Nothing,
    Quantiles(Quantiles),
    Top(Top),
    Funnel(Visits),
}

impl Summary {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Quantiles(quantiles) => quantiles.is_empty(),
            Self::Top(top) => top.is_empty(),
            Self::Funnel(visits) => visits.is_empty(),
        }
    }

    /// Both are of one kind, or nothing.
    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) => {}
            (Self::Nothing, other) => *self = other.clone(),
            (Self::Quantiles(mine), Self::Quantiles(theirs)) => mine.merge(theirs),
            (Self::Top(mine), Self::Top(theirs)) => mine.merge(theirs),
            (Self::Funnel(mine), Self::Funnel(theirs)) => mine.merge(theirs),
            _ => unreachable!("kinds are compared before anything is merged"),
        }
    }

    /// Heap bytes, for limits.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Quantiles(quantiles) => quantiles.bytes(),
            Self::Top(top) => top.bytes(),
            Self::Funnel(visits) => visits.bytes(),
        }
    }

    /// The length of what follows as `u32`, little endian; a version (1); the kind's own bytes. Nothing: a length of 0. Frozen.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        if !matches!(self, Self::Nothing) {
            out.push(VERSION);
        }
        match self {
            Self::Nothing => {}
            Self::Quantiles(quantiles) => quantiles.encode(out),
            Self::Top(top) => top.encode(out),
            Self::Funnel(visits) => visits.encode(out),
        }
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Takes one summary off the front of `bytes`; `None` where they are not one of this kind.
    pub fn decode(kind: StateKind, bytes: &mut &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (own, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *bytes = rest;
        let Some((version, mut own)) = own.split_first() else { return Some(Self::Nothing) };
        if *version != VERSION {
            return None;
        }
        let summary = match kind {
            StateKind::Quantile => Self::Quantiles(Quantiles::decode(&mut own)?),
            StateKind::Top => Self::Top(Top::decode(&mut own)?),
            StateKind::Funnel => Self::Funnel(Visits::decode(&mut own)?),
            StateKind::Count | StateKind::Sum | StateKind::Min | StateKind::Max | StateKind::Uniq => return None,
        };
        own.is_empty().then_some(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    fn some(seed: u64) -> Vec<(StateKind, Summary)> {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let (mut quantiles, mut visits) = (quantile::Gather::default(), funnel::Gather::default());
        let mut counts = Vec::new();
        for _ in 0..rng.random_range(0..400) {
            quantiles.push(rng.random_range(-50.0..2_000.0));
            visits.push(rng.random(), rng.random_range(0..4), 1_772_409_600_000 + rng.random_range(0..100_000));
            counts.push((format!("/p/{}", rng.random_range(0..50)).as_str().into(), rng.random_range(1..9)));
        }
        vec![
            (StateKind::Quantile, Summary::Quantiles(quantiles.finish())),
            (StateKind::Top, Summary::Top(Top::of(30, counts))),
            (StateKind::Funnel, Summary::Funnel(visits.finish())),
            (StateKind::Top, Summary::Nothing),
        ]
    }

    #[test]
    fn encoding_returns_what_went_in() {
        for (kind, summary) in (0..30).flat_map(some) {
            let mut bytes = Vec::new();
            summary.encode(&mut bytes);
            bytes.push(7);
            let mut rest = bytes.as_slice();
            assert_eq!(Summary::decode(kind, &mut rest), Some(summary));
            assert_eq!(rest, [7]);
        }
    }

    const ENCODED: [&str; 4] = [
        "00000000",
        "110000000104dbf10401dcf1040180f10401ce0302",
        "0d00000001e80700020162ac0202c3bc01",
        "2e00000001ffffffffffffffffff01030780f0e0deca33008580808080808001f7ffffffffffffffff01858080808080c004",
    ];

    /// What is stored is read by later versions: a change here is a change of the stored format.
    #[test]
    fn encodings_are_what_they_were() {
        let (mut quantiles, mut visits) = (quantile::Gather::default(), funnel::Gather::default());
        [-2.5, 0.0, 1.0, 100.0, 100.5].iter().for_each(|value| quantiles.push(*value));
        [(7, 0, 1_772_409_600_000), (7, 2, 1_772_409_600_005), (u64::MAX - 1, 9, 5)]
            .iter()
            .for_each(|(key, step, ms)| visits.push(*key, *step, *ms));
        let counts = [("b", 300u64), ("ü", 1)].map(|(text, count)| (text.into(), count)).to_vec();
        let found = [
            Summary::Nothing,
            Summary::Quantiles(quantiles.finish()),
            Summary::Top(Top::of(1_000, counts)),
            Summary::Funnel(visits.finish()),
        ];
        let hexadecimal = |summary: &Summary| {
            let mut bytes = Vec::new();
            summary.encode(&mut bytes);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(found.map(|summary| hexadecimal(&summary)), ENCODED);
    }

    #[test]
    fn damaged_bytes_are_refused_or_something_else() {
        let rng = &mut SmallRng::seed_from_u64(1);
        for (kind, summary) in (0..20).flat_map(some) {
            let mut bytes = Vec::new();
            summary.encode(&mut bytes);
            for cut in 0..bytes.len() {
                assert_eq!(Summary::decode(kind, &mut &bytes[..cut]), None);
            }
            for _ in 0..200 {
                let mut damaged = bytes.clone();
                let at = rng.random_range(0..damaged.len());
                damaged[at] = rng.random();
                if let Some(mut read) = Summary::decode(kind, &mut damaged.as_slice()) {
                    // Whatever it is now, it can be worked with.
                    read.merge(&summary);
                    read.encode(&mut Vec::new());
                }
            }
        }
    }
}
