//! A metric's expression: SQL text to aggregates, arithmetic and a condition over fields. Knows no windows and no plugins.

mod predicate;
mod scope;
mod sql;
mod value;

pub use scope::{Fields, Scope};

use crate::catalog::diagnostic::{Problems, Span};
use crate::catalog::literal::Literal;
use crate::engine::arith::Arith;
use crate::engine::plan::{Predicate, Slot};

pub const EXPRESSION_BYTES_MAX: usize = 10_000;
/// Brackets and operators inside one another; a chain of `and` or `or` counts once.
pub const EXPRESSION_DEPTH_MAX: usize = 64;

/// What an expression computes with.
#[derive(Clone, Debug, PartialEq)]
pub enum Leaf {
    Slot(Slot),
    /// Another metric, by its index in the file.
    Metric(usize),
}

#[derive(Clone, Debug)]
pub struct Expression {
    pub value: Arith<Leaf>,
    pub filter: Option<Predicate>,
    /// Contains `avg`, `min` or `max`: no data is no value.
    pub null_without_data: bool,
    /// The metrics it combines, and where they are named.
    pub parts: Vec<(usize, Span)>,
}

/// `None` after having said why.
pub fn read(literal: &Literal<'_>, scope: &mut Scope<'_>, problems: &mut Problems) -> Option<Expression> {
    if literal.text.len() > EXPRESSION_BYTES_MAX {
        problems
            .add(&literal.span(), format!("the expression is {} bytes long", literal.text.len()))
            .expected(format!("at most {EXPRESSION_BYTES_MAX}"));
        return None;
    }
    let select = sql::parse(literal, problems)?;
    let mut reader = Reader { literal, scope, problems, null_without_data: false, parts: Vec::new(), slots: 0 };
    let value = reader.value(&select.value);
    let filter = select.condition.as_ref().map(|condition| reader.condition(condition));
    let value = value?;
    let filter = match filter {
        Some(condition) => Some(condition?),
        None => None,
    };
    let Reader { null_without_data, parts, slots, .. } = reader;
    if slots == 0 && parts.is_empty() {
        problems
            .add(&literal.locate(0, literal.text.chars().count()), "the expression has no aggregate")
            .expected("`count()`, `sum(field)`, `avg`, `min`, `max` or `uniq`, or names of metrics");
        return None;
    }
    if let (true, Some((_, span))) = (slots > 0, parts.first()) {
        problems
            .add(span, "aggregates and metrics in one expression")
            .expected("either aggregates over fields, or names of metrics")
            .help("make the aggregate a metric of its own and combine the two by name");
        return None;
    }
    if let (Some(_), Some(condition)) = (&filter, &select.condition)
        && !parts.is_empty()
    {
        problems
            .add(&sql::span_of(condition, literal), "a metric made of metrics has no `where`")
            .expected("names of metrics, numbers and arithmetic")
            .help("its parts keep their own");
        return None;
    }
    Some(Expression { value, filter, null_without_data, parts })
}

/// Walks one expression.
struct Reader<'r, 's> {
    literal: &'r Literal<'r>,
    scope: &'r mut Scope<'s>,
    problems: &'r mut Problems,
    null_without_data: bool,
    parts: Vec<(usize, Span)>,
    slots: usize,
}
