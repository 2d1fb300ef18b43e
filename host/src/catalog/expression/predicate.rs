//! The condition behind `where`, in SQL's three-valued logic.

use sqlparser::ast::{BinaryOperator, Expr, InTarget, UnaryOperator, Value, ValueWithSpan};

use super::Reader;
use super::sql::name_of;
use super::value::{is_aggregate, operator};
use crate::engine::arith::Arith;
use crate::engine::plan::{Compare, FieldId, Predicate, ValueTest};

/// One side of a comparison.
#[derive(Clone, Debug)]
enum Side {
    Field(FieldId),
    Number(Arith<FieldId>),
    Text(String),
    Boolean(bool),
    Null,
}

impl Side {
    fn is_literal(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Boolean(_) | Self::Number(Arith::Literal(_)))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Field(_) => "a field",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::Boolean(_) => "a boolean",
            Self::Null => "`null`",
        }
    }
}

impl Reader<'_, '_> {
    pub fn condition(&mut self, expr: &Expr) -> Option<Predicate> {
        if let Some(path) = name_of(expr) {
            return Some(Predicate::Value { field: self.scope.field(&path), test: ValueTest::Boolean(true) });
        }
        match expr {
            Expr::Nested(inner) => self.condition(inner),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => self.condition(expr).map(not),
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => self.chain(expr, op),
            Expr::BinaryOp { left, op, right } => match compare(op) {
                Some(op) => self.comparison(expr, left, op, right),
                None if operator(op).is_some() => self.no_condition(expr),
                None => self.unsupported_operator(expr, op),
            },
            Expr::IsNull(inner) => self.is_null(inner),
            Expr::IsNotNull(inner) => self.is_null(inner).map(not),
            Expr::In { expr: left, target, negated, global: false } => {
                self.is_in(expr, left, target).map(|p| not_if(*negated, p))
            }
            Expr::Between { expr: inner, negated, low, high } => {
                let low = self.comparison(expr, inner, Compare::GreaterOrEqual, low);
                let high = self.comparison(expr, inner, Compare::LessOrEqual, high);
                Some(not_if(*negated, all(vec![low?, high?])))
            }
            Expr::Like { negated, any: false, expr: inner, pattern, escape_char } => {
                let like = self.like(inner, pattern, escape_char.as_deref(), false);
                like.map(|like| not_if(*negated, like))
            }
            Expr::ILike { negated, any: false, expr: inner, pattern, escape_char } => {
                let like = self.like(inner, pattern, escape_char.as_deref(), true);
                like.map(|like| not_if(*negated, like))
            }
            Expr::Value(ValueWithSpan { value: Value::Boolean(value), .. }) => Some(Predicate::Constant(*value)),
            Expr::Value(_) | Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, .. } => {
                self.no_condition(expr)
            }
            Expr::Function(_) => self.function(expr),
            other => self.unsupported(other),
        }
    }

    fn no_condition<T>(&mut self, expr: &Expr) -> Option<T> {
        let span = self.span(expr);
        self.problems.add(&span, "this is no condition").expected("a comparison, as `type = 'error'`");
        None
    }

    fn function<T>(&mut self, expr: &Expr) -> Option<T> {
        let Expr::Function(function) = expr else { return self.unsupported(expr) };
        let name = function.name.to_string();
        if !is_aggregate(&name.to_lowercase()) {
            return self.unsupported(expr);
        }
        let span = self.span(expr);
        self.problems
            .add(&span, format!("the aggregate `{name}` inside `where`"))
            .expected("fields, numbers and texts")
            .help("`where` is about one event at a time");
        None
    }

    /// `a and b and c` is one list, however long.
    fn chain(&mut self, expr: &Expr, op: &BinaryOperator) -> Option<Predicate> {
        let (mut operands, mut rest) = (Vec::new(), expr);
        while let Expr::BinaryOp { left, op: inner, right } = rest {
            if inner != op {
                break;
            }
            operands.push(&**right);
            rest = left;
        }
        operands.push(rest);
        // All are read, so that all errors are found.
        let read: Vec<_> = operands.into_iter().rev().map(|operand| self.condition(operand)).collect();
        let read: Vec<_> = read.into_iter().collect::<Option<_>>()?;
        Some(if *op == BinaryOperator::And { all(read) } else { any(read) })
    }

    fn side(&mut self, expr: &Expr) -> Option<Side> {
        if let Some(path) = name_of(expr) {
            return Some(Side::Field(self.scope.field(&path)));
        }
        match expr {
            Expr::Nested(inner) => self.side(inner),
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Some(Side::Text(text.clone())),
                Value::Boolean(value) => Some(Side::Boolean(*value)),
                Value::Null => Some(Side::Null),
                Value::Number(text, _) => self.number(text, expr).map(|number| Side::Number(Arith::Literal(number))),
                _ => {
                    let span = self.span(expr);
                    self.problems
                        .add(&span, "this kind of literal is not supported")
                        .expected("a number, `true`, `false` or a text in single quotes");
                    None
                }
            },
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, .. } => {
                self.numeric(expr).map(Side::Number)
            }
            Expr::BinaryOp { op, .. } if operator(op).is_some() => self.numeric(expr).map(Side::Number),
            Expr::BinaryOp { op, .. }
                if compare(op).is_none() && !matches!(op, BinaryOperator::And | BinaryOperator::Or) =>
            {
                self.unsupported_operator(expr, op)
            }
            Expr::Function(_) => self.function(expr),
            Expr::BinaryOp { .. }
            | Expr::In { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::UnaryOp { op: UnaryOperator::Not, .. } => {
                let span = self.span(expr);
                self.problems
                    .add(&span, "a condition inside a comparison")
                    .expected("a field, a number or a text")
                    .help("join conditions by `and`, `or`, `not`");
                None
            }
            other => self.unsupported(other),
        }
    }

    fn comparison(&mut self, expr: &Expr, left: &Expr, op: Compare, right: &Expr) -> Option<Predicate> {
        let (left_side, right_side) = (self.side(left), self.side(right));
        match (left_side?, right_side?) {
            // The literal stands right, so that `5 < a` and `a > 5` are one condition.
            (left_side, right_side) if left_side.is_literal() && !right_side.is_literal() => {
                self.compare_sides(expr, (right_side, flip(op), left_side), left)
            }
            (left_side, right_side) => self.compare_sides(expr, (left_side, op, right_side), right),
        }
    }

    fn compare_sides(&mut self, whole: &Expr, sides: (Side, Compare, Side), right: &Expr) -> Option<Predicate> {
        match sides {
            (Side::Null, ..) | (.., Side::Null) => {
                let span = self.span(whole);
                self.problems
                    .add(&span, "a comparison with `null` is never true")
                    .expected("a number or a text")
                    .help("use `is null` or `is not null`");
                None
            }
            (Side::Field(field), op, Side::Text(text)) => {
                Some(Predicate::Value { field, test: ValueTest::Text(op, text) })
            }
            (Side::Field(field), Compare::Equal, Side::Boolean(value)) => {
                Some(Predicate::Value { field, test: ValueTest::Boolean(value) })
            }
            (Side::Field(field), Compare::NotEqual, Side::Boolean(value)) => {
                Some(not(Predicate::Value { field, test: ValueTest::Boolean(value) }))
            }
            (Side::Field(field), op, Side::Number(right)) => Some(number(Arith::Leaf(field), op, right)),
            (Side::Number(left), op, Side::Field(field)) => Some(number(left, op, Arith::Leaf(field))),
            (Side::Number(left), op, Side::Number(right)) => Some(number(left, op, right)),
            (Side::Text(left), op, Side::Text(right)) => Some(Predicate::Constant(holds(op, left.cmp(&right)))),
            (Side::Boolean(left), op, Side::Boolean(right)) => Some(Predicate::Constant(holds(op, left.cmp(&right)))),
            (Side::Field(_), _, Side::Field(_)) => {
                let help = self.text_help(right).unwrap_or_else(|| "for numbers write `a - b = 0`".to_owned());
                let span = self.span(right);
                self.problems
                    .add(&span, "two fields cannot be compared with each other")
                    .expected("a number or a text in single quotes")
                    .help(help);
                None
            }
            (Side::Field(_), _, Side::Boolean(_)) => {
                let span = self.span(whole);
                self.problems.add(&span, "a boolean has no order").expected("`=` or `<>`");
                None
            }
            (left, _, other) => {
                let span = self.span(right);
                let message = format!("{} cannot be compared with {}", left.kind(), other.kind());
                self.problems.add(&span, message).expected(left.kind()).help("a number in a string is a string");
                None
            }
        }
    }

    fn is_null(&mut self, inner: &Expr) -> Option<Predicate> {
        match self.side(inner)? {
            Side::Field(field) => Some(Predicate::IsNull { field }),
            other => {
                let span = self.span(inner);
                self.problems.add(&span, format!("`is null` of {}", other.kind())).expected("a field");
                None
            }
        }
    }

    fn is_in(&mut self, whole: &Expr, left: &Expr, target: &InTarget) -> Option<Predicate> {
        let InTarget::List(items) = target else {
            let span = self.span(whole);
            self.problems.add(&span, "`in` takes a list of literals").expected("`in ('a', 'b')`");
            return None;
        };
        let left_side = self.side(left);
        let sides: Vec<_> = items.iter().map(|item| (item, self.literal_side(item))).collect();
        let left_side = left_side?;
        if items.is_empty() {
            let span = self.span(whole);
            self.problems.add(&span, "`in` with an empty list").expected("at least one literal");
            return None;
        }
        let (mut texts, mut others) = (Vec::new(), Vec::new());
        let mut failed = false;
        for (item, side) in sides {
            match (&left_side, side) {
                (_, None) => failed = true,
                (Side::Field(_), Some(Side::Text(text))) => texts.push(text),
                (left_side, Some(side)) => {
                    match self.compare_sides(item, (left_side.clone(), Compare::Equal, side), item) {
                        Some(predicate) => others.push(predicate),
                        None => failed = true,
                    }
                }
            }
        }
        if failed {
            return None;
        }
        if let (Side::Field(field), false) = (&left_side, texts.is_empty()) {
            texts.sort();
            texts.dedup();
            others.insert(0, Predicate::Value { field: *field, test: ValueTest::TextIn(texts) });
        }
        Some(any(others))
    }

    fn literal_side(&mut self, item: &Expr) -> Option<Side> {
        let side = self.side(item)?;
        match side {
            Side::Field(_) | Side::Number(Arith::Leaf(_) | Arith::Negate(_) | Arith::Binary(..)) => {
                let span = self.span(item);
                let help = self.text_help(item);
                let problem = self
                    .problems
                    .add(&span, "`in` takes a list of literals")
                    .expected("a number or a text in single quotes");
                if let Some(help) = help {
                    problem.help(help);
                }
                None
            }
            Side::Null => {
                let span = self.span(item);
                self.problems
                    .add(&span, "a comparison with `null` is never true")
                    .expected("a number or a text")
                    .help("add `or … is null`");
                None
            }
            side => Some(side),
        }
    }

    fn like(
        &mut self,
        inner: &Expr,
        pattern_expr: &Expr,
        escape: Option<&Expr>,
        ignore_case: bool,
    ) -> Option<Predicate> {
        let (left, right) = (self.side(inner), self.side(pattern_expr));
        let escape = match escape {
            Some(expr) => Some(self.escape(expr)?),
            None => None,
        };
        match (left?, right?) {
            (Side::Field(field), Side::Text(pattern)) => {
                if let Some(escape) = escape
                    && ends_in_escape(&pattern, escape)
                {
                    let span = self.span(pattern_expr);
                    self.problems
                        .add(&span, "the pattern ends in its escape character")
                        .expected("a character to escape");
                    return None;
                }
                Some(Predicate::Value { field, test: ValueTest::Like { pattern, escape, ignore_case } })
            }
            (Side::Field(_), other) => {
                let span = self.span(pattern_expr);
                self.problems
                    .add(&span, format!("{} as a pattern", other.kind()))
                    .expected("a text in single quotes, as `'/cart/%'`");
                None
            }
            (other, _) => {
                let span = self.span(inner);
                self.problems.add(&span, format!("`like` of {}", other.kind())).expected("a field");
                None
            }
        }
    }

    fn escape(&mut self, expr: &Expr) -> Option<char> {
        if let Some(Side::Text(text)) = self.side(expr) {
            let mut chars = text.chars();
            if let (Some(c), None) = (chars.next(), chars.next()) {
                return Some(c);
            }
        }
        let span = self.span(expr);
        self.problems.add(&span, "an escape is one character").expected("a text of one character, as `'!'`");
        None
    }
}

fn ends_in_escape(pattern: &str, escape: char) -> bool {
    let mut open = false;
    for c in pattern.chars() {
        open = !open && c == escape;
    }
    open
}

fn compare(op: &BinaryOperator) -> Option<Compare> {
    Some(match op {
        BinaryOperator::Eq => Compare::Equal,
        BinaryOperator::NotEq => Compare::NotEqual,
        BinaryOperator::Lt => Compare::Less,
        BinaryOperator::LtEq => Compare::LessOrEqual,
        BinaryOperator::Gt => Compare::Greater,
        BinaryOperator::GtEq => Compare::GreaterOrEqual,
        _ => return None,
    })
}

fn flip(op: Compare) -> Compare {
    match op {
        Compare::Equal => Compare::Equal,
        Compare::NotEqual => Compare::NotEqual,
        Compare::Less => Compare::Greater,
        Compare::LessOrEqual => Compare::GreaterOrEqual,
        Compare::Greater => Compare::Less,
        Compare::GreaterOrEqual => Compare::LessOrEqual,
    }
}

fn holds(op: Compare, order: std::cmp::Ordering) -> bool {
    match op {
        Compare::Equal => order.is_eq(),
        Compare::NotEqual => order.is_ne(),
        Compare::Less => order.is_lt(),
        Compare::LessOrEqual => order.is_le(),
        Compare::Greater => order.is_gt(),
        Compare::GreaterOrEqual => order.is_ge(),
    }
}

fn number(left: Arith<FieldId>, compare: Compare, right: Arith<FieldId>) -> Predicate {
    match (&left, &right) {
        (Arith::Literal(left), Arith::Literal(right)) => {
            Predicate::Constant(left.partial_cmp(right).is_some_and(|order| holds(compare, order)))
        }
        _ => Predicate::Number { left, compare, right },
    }
}

fn not(inner: Predicate) -> Predicate {
    match inner {
        Predicate::Constant(value) => Predicate::Constant(!value),
        Predicate::Not(inner) => *inner,
        inner => Predicate::Not(Box::new(inner)),
    }
}

fn not_if(negated: bool, inner: Predicate) -> Predicate {
    if negated { not(inner) } else { inner }
}

/// All of them hold; constants are decided here.
fn all(list: Vec<Predicate>) -> Predicate {
    if list.contains(&Predicate::Constant(false)) {
        return Predicate::Constant(false);
    }
    let mut flat = Vec::new();
    for predicate in list {
        match predicate {
            Predicate::Constant(_) => {}
            Predicate::And(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Predicate::Constant(true),
        1 => flat.remove(0),
        _ => Predicate::And(flat),
    }
}

/// One of them holds.
fn any(list: Vec<Predicate>) -> Predicate {
    if list.contains(&Predicate::Constant(true)) {
        return Predicate::Constant(true);
    }
    let mut flat = Vec::new();
    for predicate in list {
        match predicate {
            Predicate::Constant(_) => {}
            Predicate::Or(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Predicate::Constant(false),
        1 => flat.remove(0),
        _ => Predicate::Or(flat),
    }
}
