//! Arithmetic over leaves: event fields, aggregates of a metric, or metrics combined by name. One form for all three.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Arith<L> {
    Leaf(L),
    Literal(f64),
    Negate(Box<Arith<L>>),
    Binary(Operator, Box<Arith<L>>, Box<Arith<L>>),
}

impl Operator {
    /// Null (`None`) where the result is no finite number: a division by zero, an overflow.
    pub fn apply(self, left: f64, right: f64) -> Option<f64> {
        let value = match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Modulo => left % right,
        };
        value.is_finite().then_some(value)
    }
}

impl<L> Arith<L> {
    /// SQL's null: any part that is null makes the whole null.
    pub fn evaluate(&self, leaf: &mut impl FnMut(&L) -> Option<f64>) -> Option<f64> {
        match self {
            Self::Leaf(at) => leaf(at),
            Self::Literal(value) => Some(*value),
            Self::Negate(inner) => inner.evaluate(leaf).map(|value| -value),
            Self::Binary(operator, left, right) => operator.apply(left.evaluate(leaf)?, right.evaluate(leaf)?),
        }
    }

    pub fn leaves<'a>(&'a self, visit: &mut impl FnMut(&'a L)) {
        match self {
            Self::Leaf(at) => visit(at),
            Self::Literal(_) => {}
            Self::Negate(inner) => inner.leaves(visit),
            Self::Binary(_, left, right) => {
                left.leaves(visit);
                right.leaves(visit);
            }
        }
    }
}
