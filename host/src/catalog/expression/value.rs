//! The value of an expression: aggregates over fields, and arithmetic.

use sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned,
    UnaryOperator, Value,
};

use super::sql::{construct, is_double_quoted, name_of, operator_help, span_of, token_span};
use super::{Leaf, Reader};
use crate::catalog::diagnostic::{Span, nearest, one_of};
use crate::engine::arith::{Arith, Operator};
use crate::engine::plan::{FieldId, Slot};

const AGGREGATES: [&str; 9] = ["count", "sum", "avg", "min", "max", "uniq", "quantile", "top", "funnel"];
const SUPPORTED: &str =
    "fields, literals, arithmetic, comparisons, `in`, `between`, `like`, `is null`, `and`, `or`, `not`";
/// What other systems call them.
const OTHER_NAMES: [(&str, &str); 18] = [
    ("average", "avg"),
    ("mean", "avg"),
    ("minimum", "min"),
    ("maximum", "max"),
    ("total", "sum"),
    ("unique", "uniq"),
    ("distinct", "uniq"),
    ("count_distinct", "uniq"),
    ("approx_count_distinct", "uniq"),
    ("cardinality", "uniq"),
    ("countif", "count"),
    ("sumif", "sum"),
    ("percentile", "quantile"),
    ("approx_percentile", "quantile"),
    ("approx_quantile", "quantile"),
    ("median", "quantile"),
    ("topk", "top"),
    ("top_k", "top"),
];

pub fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name)
}

pub fn operator(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Plus => Operator::Add,
        BinaryOperator::Minus => Operator::Subtract,
        BinaryOperator::Multiply => Operator::Multiply,
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Modulo => Operator::Modulo,
        _ => return None,
    })
}

/// Literals are computed once, here.
pub fn negate<L>(inner: Arith<L>) -> Arith<L> {
    match inner {
        Arith::Literal(value) => Arith::Literal(-value),
        inner => Arith::Negate(Box::new(inner)),
    }
}

impl Reader<'_, '_> {
    pub fn span(&self, expr: &Expr) -> Span {
        span_of(expr, self.literal)
    }

    /// Of a function's name alone.
    fn name_span(&self, function: &Function) -> Span {
        token_span(function.name.span(), self.literal)
    }

    pub fn unsupported<T>(&mut self, expr: &Expr) -> Option<T> {
        let (message, help) = construct(expr);
        let mut span = self.span(expr);
        // The library knows where the argument stands, not the word before it.
        if let Some(word) = message.strip_prefix('`').and_then(|rest| rest.split('`').next()) {
            span = self.literal.extended(span, word);
        }
        let problem = self.problems.add(&span, message).expected(SUPPORTED);
        if let Some(help) = help {
            problem.help(help);
        }
        None
    }

    pub fn unsupported_operator<T>(&mut self, expr: &Expr, op: &BinaryOperator) -> Option<T> {
        let span = self.span(expr);
        let problem = self
            .problems
            .add(&span, format!("the operator `{op}` is not supported in expressions"))
            .expected("one of `+`, `-`, `*`, `/`, `%`, `=`, `<>`, `<`, `<=`, `>`, `>=`, `and`, `or`");
        if let Some(help) = operator_help(op) {
            problem.help(help);
        }
        None
    }

    /// Both sides joined, literals computed; `None` for a division by a literal 0, which is never anything.
    pub fn join<L>(&mut self, expr: &Expr, op: Operator, left: Arith<L>, right: Arith<L>) -> Option<Arith<L>> {
        if matches!(op, Operator::Divide | Operator::Modulo) && matches!(right, Arith::Literal(0.0)) {
            let span = self.span(expr);
            self.problems.add(&span, "a division by 0").expected("another divisor").help("its value is always null");
            return None;
        }
        if let (Arith::Literal(left), Arith::Literal(right)) = (&left, &right) {
            let folded = op.apply(*left, *right);
            if folded.is_none() {
                let span = self.span(expr);
                self.problems.add(&span, "the number is too large").expected("a finite number");
            }
            return folded.map(Arith::Literal);
        }
        Some(Arith::Binary(op, Box::new(left), Box::new(right)))
    }

    pub fn number(&mut self, text: &str, expr: &Expr) -> Option<f64> {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        if number.is_none() {
            let span = self.span(expr);
            self.problems.add(&span, format!("`{text}` is not a number that fits")).expected("a finite number");
        }
        number
    }

    /// A value: aggregates, or metrics by name, and arithmetic between them.
    pub fn value(&mut self, expr: &Expr) -> Option<Arith<Leaf>> {
        if let Some(path) = name_of(expr) {
            return self.metric(expr, &path);
        }
        match expr {
            Expr::Nested(inner) | Expr::UnaryOp { op: UnaryOperator::Plus, expr: inner } => self.value(inner),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => self.value(expr).map(negate),
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => self.number(text, expr).map(Arith::Literal),
                _ => self.no_value(expr, "a value is a number"),
            },
            Expr::BinaryOp { left, op, right } => match operator(op) {
                Some(op) => {
                    let (left, right) = (self.value(left), self.value(right));
                    self.join(expr, op, left?, right?)
                }
                None if is_comparison(op) => {
                    self.no_value(expr, "a condition goes behind `where`: `count() where type = 'error'`")
                }
                None => self.unsupported_operator(expr, op),
            },
            Expr::Function(function) => self.aggregate(function),
            Expr::In { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::UnaryOp { op: UnaryOperator::Not, .. } => {
                self.no_value(expr, "a condition goes behind `where`: `count() where type = 'error'`")
            }
            other => self.unsupported(other),
        }
    }

    fn no_value<T>(&mut self, expr: &Expr, help: &str) -> Option<T> {
        let span = self.span(expr);
        self.problems
            .add(&span, "this has no numeric value")
            .expected("aggregates, metrics, numbers and arithmetic")
            .help(help);
        None
    }

    fn metric(&mut self, expr: &Expr, path: &[String]) -> Option<Arith<Leaf>> {
        let span = self.span(expr);
        if let [name] = path
            && let Some(index) = self.scope.metrics.get(name)
        {
            self.parts.push((*index, span));
            return Some(Arith::Leaf(Leaf::Metric(*index)));
        }
        let name = path.join(".");
        if let [single] = path
            && AGGREGATES.contains(&single.to_lowercase().as_str())
        {
            self.problems.add(&span, format!("`{name}` without brackets")).expected(format!("`{name}(…)`"));
            return None;
        }
        let metrics = &self.scope.metrics;
        let near =
            nearest(&name, metrics.keys().map(String::as_str)).map(|near| format!("did you mean the metric `{near}`?"));
        self.problems
            .add(&span, format!("`{name}` is neither an aggregate nor a metric"))
            .expected("an aggregate over fields, or the name of a metric")
            .help(near.unwrap_or_else(|| format!("a field stands inside an aggregate: `sum({name})`")));
        None
    }

    fn aggregate(&mut self, function: &Function) -> Option<Arith<Leaf>> {
        let span = self.name_span(function);
        let name = function.name.to_string().to_lowercase();
        if !AGGREGATES.contains(&name.as_str()) {
            let other = OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours);
            let near = other.or_else(|| nearest(&name, AGGREGATES));
            let problem =
                self.problems.add(&span, format!("there is no aggregate `{name}`")).expected(one_of(AGGREGATES));
            if let Some(near) = near {
                problem.help(format!("did you mean `{near}`?"));
            }
            return None;
        }
        let args = self.arguments(&span, &name, function)?;
        match name.as_str() {
            "quantile" => return self.quantile(&span, &args),
            "top" => return self.top(&span, &args),
            "funnel" => return self.funnel(&span, &args),
            _ => {}
        }
        let argument = match (&args[..], name.as_str()) {
            ([] | [FunctionArgExpr::Wildcard], "count") => return Some(self.slot(Slot::Count)),
            ([FunctionArgExpr::Expr(argument)], _) => argument,
            ([FunctionArgExpr::Wildcard], _) => {
                self.problems
                    .add(&span, format!("`{name}` of `*`"))
                    .expected("a field")
                    .help("`*` stands only in `count(*)`");
                return None;
            }
            _ => {
                let expected = match name.as_str() {
                    "count" => "`count()`, `count(*)` or `count(field)`".to_owned(),
                    "uniq" => "one field: `uniq(user_id)`".to_owned(),
                    _ => format!("one field or arithmetic of fields: `{name}(props.amount)`"),
                };
                let given = args.len();
                self.problems.add(&span, format!("`{name}` of {given} arguments")).expected(expected);
                return None;
            }
        };
        self.aggregate_of(&name, argument)
    }

    /// The arguments of a plain call: no `distinct`, no `filter`, no `over`.
    fn arguments<'f>(&mut self, span: &Span, name: &str, function: &'f Function) -> Option<Vec<&'f FunctionArgExpr>> {
        let mut refuse = |message: String, help: &str| {
            // `DISTINCT`, `FILTER` and their like stand behind the name.
            let word = message.strip_prefix('`').and_then(|rest| rest.split('`').next()).unwrap_or_default();
            let span = self.literal.word_after(span, word).unwrap_or_else(|| span.clone());
            self.problems.add(&span, message).expected(format!("`{name}(…)` over fields")).help(help);
            None
        };
        if function.over.is_some() {
            return refuse(
                "`OVER` is not supported in expressions".into(),
                "the `window` of a metric is a key of its table",
            );
        }
        if function.filter.is_some() {
            return refuse(
                "`FILTER` is not supported in expressions".into(),
                "use `where` behind the expression; it holds for all aggregates",
            );
        }
        let FunctionArguments::List(list) = &function.args else {
            return refuse(format!("`{name}` of a subquery"), "an aggregate is over fields");
        };
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
            return refuse(
                "`DISTINCT` is not supported in expressions".into(),
                "distinct values are counted by `uniq(field)`",
            );
        }
        if !list.clauses.is_empty() || !function.within_group.is_empty() || function.null_treatment.is_some() {
            return refuse(format!("`{name}` takes nothing but its argument"), "events without a value are skipped");
        }
        let args = list.args.iter().map(|arg| match arg {
            FunctionArg::Unnamed(arg) => Some(arg),
            FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => None,
        });
        match args.collect() {
            Some(args) => Some(args),
            None => refuse(format!("`{name}` has no named arguments"), "leave the name out"),
        }
    }

    fn aggregate_of(&mut self, name: &str, argument: &Expr) -> Option<Arith<Leaf>> {
        let field = name_of(argument).map(|path| self.scope.field(&path));
        match (name, field) {
            ("count", Some(field)) => return Some(self.slot(Slot::CountPresent(field))),
            ("uniq", Some(field)) => return Some(self.slot(Slot::Uniq(field))),
            ("uniq", None) if !matches!(argument, Expr::Function(_)) => {
                let span = self.span(argument);
                self.problems.add(&span, "`uniq` counts the values of one field").expected("a field: `uniq(user_id)`");
                return None;
            }
            _ => {}
        }
        let number = self.numeric(argument)?;
        if let Arith::Literal(_) = number {
            if name == "count" {
                return Some(self.slot(Slot::Count));
            }
            let span = self.span(argument);
            self.problems
                .add(&span, format!("`{name}` of a constant"))
                .expected("a field")
                .help("events are counted by `count()`");
            return None;
        }
        Some(match name {
            "count" => self.slot(Slot::CountNumber(number)),
            "sum" => self.slot(Slot::Sum(number)),
            "min" => self.extreme(Slot::Min(number)),
            "max" => self.extreme(Slot::Max(number)),
            _ => {
                let (sum, count) = (self.slot(Slot::Sum(number.clone())), self.slot(Slot::CountNumber(number)));
                self.null_without_data = true;
                Arith::Binary(Operator::Divide, Box::new(sum), Box::new(count))
            }
        })
    }

    pub fn slot(&mut self, slot: Slot) -> Arith<Leaf> {
        self.slots += 1;
        Arith::Leaf(Leaf::Slot(slot))
    }

    /// No data is no value.
    pub fn extreme(&mut self, slot: Slot) -> Arith<Leaf> {
        self.null_without_data = true;
        self.slot(slot)
    }

    /// Arithmetic of fields and numbers.
    pub fn numeric(&mut self, expr: &Expr) -> Option<Arith<FieldId>> {
        if let Some(path) = name_of(expr) {
            return Some(Arith::Leaf(self.scope.field(&path)));
        }
        match expr {
            Expr::Nested(inner) | Expr::UnaryOp { op: UnaryOperator::Plus, expr: inner } => self.numeric(inner),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => self.numeric(expr).map(negate),
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => self.number(text, expr).map(Arith::Literal),
                other => {
                    let what = match other {
                        Value::Boolean(_) => "a boolean",
                        Value::Null => "`null`",
                        _ => "a text",
                    };
                    let span = self.span(expr);
                    self.problems
                        .add(&span, format!("{what} where a number is needed"))
                        .expected("fields, numbers and arithmetic");
                    None
                }
            },
            Expr::BinaryOp { left, op, right } => match operator(op) {
                Some(op) => {
                    let (left, right) = (self.numeric(left), self.numeric(right));
                    self.join(expr, op, left?, right?)
                }
                None if is_comparison(op) => {
                    let span = self.span(expr);
                    self.problems
                        .add(&span, "a condition where a number is needed")
                        .expected("fields, numbers and arithmetic")
                        .help("a condition goes behind `where`: `count() where type = 'error'`");
                    None
                }
                None => self.unsupported_operator(expr, op),
            },
            Expr::Function(function) if is_aggregate(&function.name.to_string().to_lowercase()) => {
                let span = self.span(expr);
                self.problems
                    .add(&span, format!("the aggregate `{}` inside another", function.name))
                    .expected("fields, numbers and arithmetic")
                    .help("make it a metric of its own and combine the two by name");
                None
            }
            other => self.unsupported(other),
        }
    }

    /// Of two fields side by side, the one that was probably meant as text.
    pub fn text_help(&self, expr: &Expr) -> Option<String> {
        let path = name_of(expr)?;
        let quoted = is_double_quoted(expr);
        (quoted || path.len() == 1).then(|| format!("text stands in single quotes: `'{}'`", path[0]))
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or)
}
