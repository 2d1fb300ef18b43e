//! From the text of a query to what we can evaluate; the rest of the language is refused here, by name, and so are types that do
//! not fit. The grammar is the library's. Knows nothing of metrics.

use std::sync::Arc;

use rusty_promql_parser as parser;
use rusty_promql_parser::ast::{Aggregation, BinaryExpr, BinaryOp, Expr, UnaryExpr, UnaryOp};
use rusty_promql_parser::ast::{VectorMatching, VectorMatchingOp};
use rusty_promql_parser::parser::aggregation::GroupingAction;
use rusty_promql_parser::parser::selector::VectorSelector;

use super::matcher::Matcher;
use super::params::point_step;
use super::scan::{DEPTH_MAX, scan};
use crate::time::{DAY_MS, MINUTE_MS, Millis};

pub const NAME: &str = "__name__";
/// Not of a series but of how it is read: merged by these dimensions, its points at this step.
pub const BY: &str = "__by__";
pub const STEP: &str = "__step__";

const OFFSET_MAX_MS: Millis = 1_000 * 366 * DAY_MS;
const REGEXES_MAX: usize = 20;
/// Of the text at which a query cannot be read.
const SHOWN_CHARS: usize = 30;

#[derive(Clone, Debug)]
pub enum Node {
    /// What is made of numbers alone is computed when it is read.
    Number(f64),
    Select(Selector),
    Negate(Box<Node>),
    Aggregate(Aggregate),
    Binary(Box<Binary>),
}

#[derive(Clone, Debug)]
pub struct Selector {
    /// On the metric's name.
    pub names: Vec<Matcher>,
    /// On labels.
    pub labels: Vec<Matcher>,
    /// The dimensions that it is merged by; absent: each combination of all.
    pub by: Option<Vec<String>>,
    pub step_ms: Millis,
    pub offset_ms: Millis,
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub operator: Aggregator,
    /// Of `topk` and `bottomk`.
    pub k: usize,
    pub grouping: Grouping,
    pub inner: Box<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregator {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Top,
    Bottom,
}

/// The labels that decide: those listed, or all but those listed and the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    pub listed: bool,
    pub labels: Vec<String>,
}

impl Grouping {
    pub fn keeps(&self, name: &str) -> bool {
        self.labels.iter().any(|label| label == name) == self.listed && (self.listed || name != NAME)
    }
}

#[derive(Clone, Debug)]
pub struct Binary {
    pub operator: Operator,
    /// A comparison gives 1 or 0 instead of filtering.
    pub as_bool: bool,
    pub matching: Grouping,
    pub left: Node,
    pub right: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub fn compares(self) -> bool {
        use Operator::*;
        !matches!(self, Add | Subtract | Multiply | Divide | Modulo | Power)
    }

    /// 1 and 0 for a comparison.
    pub fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Modulo => a % b,
            Self::Power => a.powf(b),
            Self::Equal => f64::from(a == b),
            Self::NotEqual => f64::from(a != b),
            Self::Less => f64::from(a < b),
            Self::LessOrEqual => f64::from(a <= b),
            Self::Greater => f64::from(a > b),
            Self::GreaterOrEqual => f64::from(a >= b),
        }
    }

    fn of(operator: BinaryOp) -> Result<Self, String> {
        Ok(match operator {
            BinaryOp::Add => Self::Add,
            BinaryOp::Sub => Self::Subtract,
            BinaryOp::Mul => Self::Multiply,
            BinaryOp::Div => Self::Divide,
            BinaryOp::Mod => Self::Modulo,
            BinaryOp::Pow => Self::Power,
            BinaryOp::Eq => Self::Equal,
            BinaryOp::Ne => Self::NotEqual,
            BinaryOp::Lt => Self::Less,
            BinaryOp::Le => Self::LessOrEqual,
            BinaryOp::Gt => Self::Greater,
            BinaryOp::Ge => Self::GreaterOrEqual,
            other => return Err(format!("the operator `{other}` is not supported")),
        })
    }
}

pub fn parse(text: &str) -> Result<Node, String> {
    scan(text)?;
    let at = |rest: &str| {
        let (place, shown) = (text.len() - rest.len() + 1, rest.trim().chars().take(SHOWN_CHARS).collect::<String>());
        match shown.as_str() {
            "" => "unexpected end of input".to_owned(),
            shown => format!("{place}: parse error at `{shown}`"),
        }
    };
    match parser::expr(text) {
        _ if text.trim().is_empty() => Err("no expression found in input".into()),
        Ok((rest, expr)) => match parser::lexer::ws_opt(rest) {
            Ok(("", ())) => Reader::default().node(expr, 0),
            _ => Err(at(rest)),
        },
        Err(parser_error) => Err(match parser_error.map(|error| error.input.len()) {
            nom::Err::Error(left) | nom::Err::Failure(left) => at(&text[text.len() - left..]),
            nom::Err::Incomplete(_) => at(""),
        }),
    }
}

/// What `match[]` takes.
pub fn parse_selector(text: &str) -> Result<Selector, String> {
    match parse(text)? {
        Node::Select(selector) => Ok(selector),
        _ => Err("it is no selector".into()),
    }
}

#[derive(Default)]
struct Reader {
    regexes: usize,
}

impl Reader {
    fn node(&mut self, expr: Expr, depth: usize) -> Result<Node, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the query is nested more than {DEPTH_MAX} deep"));
        }
        match expr {
            Expr::Number(number) => Ok(Node::Number(number)),
            Expr::Paren(inner) => self.node(*inner, depth + 1),
            Expr::Unary(unary) => self.unary(*unary, depth),
            Expr::VectorSelector(selector) => self.select(selector).map(Node::Select),
            Expr::Aggregation(aggregation) => self.aggregate(*aggregation, depth),
            Expr::Binary(operation) => self.binary(*operation, depth),
            Expr::Call(call) => Err(format!("the function `{}()` is not supported", call.name)),
            Expr::String(_) => Err("a string has no value".into()),
            Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                Err("range selectors and subqueries are not supported".into())
            }
        }
    }

    fn unary(&mut self, unary: UnaryExpr, depth: usize) -> Result<Node, String> {
        let inner = self.node(unary.expr, depth + 1)?;
        Ok(match (unary.op, inner) {
            (UnaryOp::Plus, inner) => inner,
            (UnaryOp::Minus, Node::Number(number)) => Node::Number(-number),
            (UnaryOp::Minus, inner) => Node::Negate(Box::new(inner)),
        })
    }

    fn select(&mut self, selector: VectorSelector) -> Result<Selector, String> {
        if selector.at.is_some() {
            return Err("the `@` modifier is not supported".into());
        }
        let offset_ms = selector.offset.map_or(0, |offset| offset.as_millis());
        if offset_ms.unsigned_abs() > OFFSET_MAX_MS.unsigned_abs() {
            return Err("the offset is too long".into());
        }
        let named = selector.name.is_some();
        let mut all = Selector {
            names: selector.name.into_iter().map(|name| Matcher::equal(NAME, name)).collect(),
            labels: Vec::new(),
            by: None,
            step_ms: MINUTE_MS,
            offset_ms,
        };
        for matcher in selector.matchers {
            let matcher = Matcher::new(matcher)?;
            self.regexes += usize::from(matcher.is_regex());
            if self.regexes > REGEXES_MAX {
                return Err(format!("the query has more than {REGEXES_MAX} regular expressions"));
            }
            match matcher.name.as_str() {
                NAME if named && matcher.is_equal() => return Err("the metric's name must not be set twice".into()),
                NAME => all.names.push(matcher),
                BY => {
                    let names = exactly(&matcher)?.split(',').map(str::trim).filter(|name| !name.is_empty());
                    all.by = Some(names.map(str::to_owned).collect());
                }
                STEP => {
                    let step = point_step(exactly(&matcher)?);
                    all.step_ms = step.ok_or_else(|| format!("`{}` is no step for {STEP}", matcher.value))?;
                }
                _ => all.labels.push(matcher),
            }
        }
        if all.names.iter().chain(&all.labels).all(|matcher| matcher.is_match("")) {
            return Err("vector selector must contain at least one non-empty matcher".into());
        }
        Ok(all)
    }

    fn aggregate(&mut self, aggregation: Aggregation, depth: usize) -> Result<Node, String> {
        let operator = match aggregation.op.as_str() {
            "sum" => Aggregator::Sum,
            "avg" => Aggregator::Avg,
            "min" => Aggregator::Min,
            "max" => Aggregator::Max,
            "count" => Aggregator::Count,
            "topk" => Aggregator::Top,
            "bottomk" => Aggregator::Bottom,
            other => return Err(format!("the aggregation `{other}` is not supported")),
        };
        let k = match aggregation.param {
            None => 0.0,
            Some(k) => match self.node(k, depth + 1)? {
                Node::Number(k) if !k.is_nan() => k,
                _ => return Err(format!("expected a number as the parameter of `{}`", aggregation.op)),
            },
        };
        let inner = Box::new(self.node(aggregation.expr, depth + 1)?);
        if matches!(*inner, Node::Number(_)) {
            return Err("expected type instant vector in aggregation expression, got scalar".into());
        }
        let grouping = match aggregation.grouping {
            None => Grouping { listed: true, labels: Vec::new() },
            Some(grouping) => Grouping { listed: grouping.action == GroupingAction::By, labels: grouping.labels },
        };
        // Numbers below 0 are 0, those beyond are the largest.
        Ok(Node::Aggregate(Aggregate { operator, k: k as usize, grouping, inner }))
    }

    fn binary(&mut self, operation: BinaryExpr, depth: usize) -> Result<Node, String> {
        let BinaryExpr { op, lhs, rhs, modifier } = operation;
        // The library takes -2^2 for (-2)^2; Prometheus' sign binds less than its power.
        if let (BinaryOp::Pow, Expr::Unary(unary)) = (op, &lhs) {
            let UnaryExpr { op: sign, expr: lhs } = (**unary).clone();
            let power = Expr::Binary(Box::new(BinaryExpr { op, lhs, rhs, modifier }));
            return self.unary(UnaryExpr { op: sign, expr: power }, depth);
        }
        let operator = Operator::of(op)?;
        let as_bool = modifier.as_ref().is_some_and(|modifier| modifier.return_bool);
        if as_bool && !operator.compares() {
            return Err("bool modifier can only be used on comparison operators".into());
        }
        let matching = modifier.and_then(|modifier| modifier.matching);
        let explicit = matching.is_some();
        let matching = grouping_of(matching)?;
        let (left, right) = (self.node(lhs, depth + 1)?, self.node(rhs, depth + 1)?);
        let (left_number, right_number) = (matches!(left, Node::Number(_)), matches!(right, Node::Number(_)));
        if explicit && (left_number || right_number) {
            return Err("vector matching only allowed between instant vectors".into());
        }
        if left_number && right_number && operator.compares() && !as_bool {
            return Err("comparisons between scalars must use BOOL modifier".into());
        }
        if let (Node::Number(left), Node::Number(right)) = (&left, &right) {
            return Ok(Node::Number(operator.apply(*left, *right)));
        }
        Ok(Node::Binary(Box::new(Binary { operator, as_bool, matching, left, right })))
    }
}

fn exactly(matcher: &Matcher) -> Result<&str, String> {
    match matcher.is_equal() {
        true => Ok(&matcher.value),
        false => Err(format!("{} says how to read and takes `=` only", matcher.name)),
    }
}

/// Without a word: all labels.
fn grouping_of(matching: Option<VectorMatching>) -> Result<Grouping, String> {
    match matching {
        None => Ok(Grouping { listed: false, labels: Vec::new() }),
        Some(VectorMatching { group: Some(group), .. }) => Err(format!("`{}` is not supported", group.side)),
        Some(VectorMatching { op, labels, .. }) => Ok(Grouping { listed: op == VectorMatchingOp::On, labels }),
    }
}

/// Sorted by name; no empty values.
pub type Labels = Vec<(Arc<str>, Arc<str>)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_says_so() {
        let cases = [
            ("", "no expression found"),
            ("# nothing", "unexpected end"),
            ("rate(a[5m])", "range selectors"),
            ("abs(a)", "`abs()` is not supported"),
            ("a and b", "`and` is not supported"),
            ("a atan2 b", "`atan2` is not supported"),
            ("stddev(a)", "`stddev` is not supported"),
            ("a @ 5", "`@` modifier is not supported"),
            ("a * on(x) group_left b", "`group_left` is not supported"),
            ("a * on(x) 5", "vector matching"),
            ("a + bool b", "bool modifier"),
            ("\"text\"", "string"),
            (r#"a{x="1" or y="2"}"#, "parse error at `or y"),
            (r#"a{__by__=~"x"}"#, "`=` only"),
            (r#"a{__step__="soon"}"#, "no step"),
            ("topk(a, b)", "expected a number"),
            ("topk(NaN, b)", "expected a number"),
            ("topk(b)", "parse error"),
            ("sum(1)", "got scalar"),
            ("1 > 2", "BOOL"),
            ("{}", "at least one non-empty matcher"),
            (r#"{x=~".*"}"#, "at least one non-empty matcher"),
            (r#"a{__name__="b"}"#, "set twice"),
            (r#"a{x=~"("}"#, "no regular expression"),
            (r#"a{x=~"(\\w{500}){50}"}"#, "too large"),
            ("a{", "unexpected end"),
            ("a b", "3: parse error at `b`"),
            ("1 +", "unexpected end"),
            ("a offset soon", "parse error at `offset soon`"),
            ("a offset 99999999999y", "parse error"),
        ];
        for (query, reason) in cases {
            let error = parse(query).map(|node| format!("{node:?}")).unwrap_err();
            assert!(error.contains(reason), "{query}: {error}");
        }
    }

    #[test]
    fn numbers_are_computed_when_they_are_read() {
        let cases = [
            ("1+1", 2.0),
            ("-(2 ^ 3) % 5", -3.0),
            ("1 / 0", f64::INFINITY),
            ("1 < bool 2", 1.0),
            ("0x10 + 1e3 # comment", 1_016.0),
            ("-2 ^ 2", -4.0),
            ("(-2) ^ 2", 4.0),
            ("2 ^ -1", 0.5),
            ("+-2 ^ 2 * 3", -12.0),
            ("10 - 2 - 3", 5.0),
            ("-1 ^ 2", -1.0),
            ("2 ^ 3 ^ 2", 512.0),
        ];
        for (query, expected) in cases {
            match parse(query) {
                Ok(Node::Number(number)) => assert_eq!(number, expected, "{query}"),
                other => panic!("{query}: {other:?}"),
            }
        }
    }

    #[test]
    fn selectors_are_taken_apart() {
        let selector = parse_selector(r#"a{__by__=" x, y,", __step__="90s", z!="1"} offset -1h"#).unwrap();
        assert_eq!((selector.names.len(), selector.labels.len()), (1, 1));
        assert_eq!(selector.by, Some(vec!["x".to_owned(), "y".into()]));
        assert_eq!((selector.step_ms, selector.offset_ms), (120_000, -3_600_000));
        assert!(parse_selector("sum(a)").is_err());
    }

    /// Whatever is sent: an answer or an error, no panic, no overflow of the stack.
    #[test]
    fn any_text_is_read_without_a_panic() {
        use rand::prelude::*;
        let mut random = rand::rngs::StdRng::seed_from_u64(5);
        let parts = [
            "a",
            "sum",
            "by",
            "without",
            "(",
            ")",
            "{",
            "}",
            "[",
            "]",
            "\"x\"",
            "'",
            "`",
            "=~",
            "!=",
            "=",
            ",",
            "+",
            "-",
            "*",
            "/",
            "^",
            "%",
            "1",
            "5m",
            "1e300",
            "NaN",
            "Inf",
            "offset",
            "@",
            "on",
            "ignoring",
            "bool",
            ">",
            "==",
            "topk",
            "#",
            "\n",
            "\\",
            "ä",
            "\u{0}",
            "start()",
            "__name__",
            "0x",
            "0xffffffffffffffffff",
            ":",
            "or",
            "unless",
            " ",
        ];
        for _ in 0..20_000 {
            let count = random.random_range(1..30);
            let text: String = (0..count)
                .map(|_| {
                    format!("{}{}", parts[random.random_range(0..parts.len())], [" ", ""][random.random_range(0..2)])
                })
                .collect();
            let _ = parse(&text);
        }
        for long in
            ["-", "1+", "a+", "1^", "a^", "a-", "a==", "sum(", "-(", "a{x=", "a or ", "{", "a,", "f(a,", "sum by (a,"]
        {
            for n in [63, 999, 9_999] {
                let _ = parse(&format!("{}a", long.repeat(n)));
                let _ = parse(&format!("{}1{}", long.repeat(n), ")".repeat(n)));
            }
        }
        assert!(parse(&format!("{}a", "a+".repeat(999))).unwrap_err().contains("nested"));
        assert!(parse(&format!("{}1", "1+".repeat(60))).is_ok());
        let many = format!("a{{{}}}", r#"b=~"x","#.repeat(21));
        assert!(parse(&many).unwrap_err().contains("regular expressions"));
    }
}
