//! A metric's expression: SQL text to aggregates, arithmetic and a condition over fields. Knows no windows and no plugins.

mod larger;
mod predicate;
mod scope;
mod sql;
mod value;

pub use scope::{Fields, Scope};

use crate::catalog::diagnostic::{Problems, Span};
use crate::catalog::literal::Literal;
use crate::engine::arith::Arith;
use crate::engine::plan::{Predicate, Slot};
use crate::time::Millis;

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
    /// Contains something else than `count`, `sum` or `uniq`: no data is no value.
    pub null_without_data: bool,
    /// The metrics it combines, and where they are named.
    pub parts: Vec<(usize, Span)>,
    /// The value is one.
    pub funnel: Option<Funnel>,
}

/// What a funnel's first slot does not say.
#[derive(Clone, Debug)]
pub struct Funnel {
    pub span_ms: Millis,
    /// The first one included.
    pub steps: Vec<Predicate>,
    /// As typed.
    pub texts: Vec<String>,
}

impl Expression {
    /// Its value is a list, and no number.
    pub fn is_list(&self) -> bool {
        matches!(&self.value, Arith::Leaf(Leaf::Slot(Slot::Top { .. } | Slot::FunnelFirst { .. })))
    }
}

/// `None` after having said why.
pub fn read(literal: &Literal<'_>, scope: &mut Scope<'_>, problems: &mut Problems) -> Option<Expression> {
    check_length(literal, problems)?;
    let select = sql::parse(literal, problems)?;
    let mut reader = Reader::new(literal, scope, problems);
    let value = reader.value(&select.value);
    let filter = select.condition.as_ref().map(|condition| reader.condition(condition));
    let value = value?;
    let filter = match filter {
        Some(condition) => Some(condition?),
        None => None,
    };
    let Reader { null_without_data, parts, slots, lists, funnel, .. } = reader;
    if slots == 0 && parts.is_empty() {
        problems
            .add(&literal.locate(0, literal.text.chars().count()), "the expression has no aggregate")
            .expected("`count()`, `sum(field)` or another aggregate, or names of metrics");
        return None;
    }
    if let (Some((name, span)), false) = (lists.first(), matches!(value, Arith::Leaf(_))) {
        problems
            .add(span, format!("the value of `{name}` is a list and no number"))
            .expected(format!("`{name}(…)` alone, and its `where`"));
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
    Some(Expression { value, filter, null_without_data, parts, funnel })
}

/// What could stand behind `where`, alone. `None` after having said why.
pub fn read_condition(literal: &Literal<'_>, scope: &mut Scope<'_>, problems: &mut Problems) -> Option<Predicate> {
    check_length(literal, problems)?;
    let condition = sql::parse_condition(literal, problems)?;
    Reader::new(literal, scope, problems).condition(&condition)
}

fn check_length(literal: &Literal<'_>, problems: &mut Problems) -> Option<()> {
    if literal.text.len() > EXPRESSION_BYTES_MAX {
        problems
            .add(&literal.span(), format!("the expression is {} bytes long", literal.text.len()))
            .expected(format!("at most {EXPRESSION_BYTES_MAX}"));
        return None;
    }
    Some(())
}

/// Walks one expression.
struct Reader<'r, 's> {
    literal: &'r Literal<'r>,
    scope: &'r mut Scope<'s>,
    problems: &'r mut Problems,
    null_without_data: bool,
    parts: Vec<(usize, Span)>,
    slots: usize,
    /// The aggregates whose value is a list, and where they stand.
    lists: Vec<(String, Span)>,
    funnel: Option<Funnel>,
}

impl<'r, 's> Reader<'r, 's> {
    fn new(literal: &'r Literal<'r>, scope: &'r mut Scope<'s>, problems: &'r mut Problems) -> Self {
        Self {
            literal,
            scope,
            problems,
            null_without_data: false,
            parts: Vec::new(),
            slots: 0,
            lists: Vec::new(),
            funnel: None,
        }
    }
}
