//! Aggregates with a setting before their input: `quantile(q, x)`, `top(n, field)`, `funnel(span, step, step, …)`.

use sqlparser::ast::{Expr, FunctionArgExpr, Value};

use super::sql::name_of;
use super::{Funnel, Leaf, Reader};
use crate::catalog::diagnostic::Span;
use crate::catalog::read::Period;
use crate::engine::arith::Arith;
use crate::engine::plan::Slot;
use crate::engine::summary::funnel::STEPS_MAX;
use crate::engine::summary::top::N_MAX;
use crate::time::DAY_MS;

const STEPS_MIN: usize = 2;
const SPAN: &str = "a length of time in single quotes, at most 24 h, as `'30m'`";

impl Reader<'_, '_> {
    pub fn quantile(&mut self, span: &Span, args: &[&FunctionArgExpr]) -> Option<Arith<Leaf>> {
        let [q, number] = self.two(span, "quantile", args, "`quantile(0.95, props.ms)`")?;
        let (share, number) = (self.setting(q), self.numeric(number));
        let expected = "a number between 0 and 1, as `0.95`";
        let share = share.filter(|share| *share > 0.0 && *share < 1.0);
        if share.is_none() {
            let span = self.span(q);
            let problem = self.problems.add(&span, "which quantile is not between 0 and 1").expected(expected);
            if let Expr::Value(value) = q
                && let Value::Number(text, _) = &value.value
                && text.parse::<f64>().is_ok_and(|share| share > 1.0 && share < 100.0)
            {
                problem.help("a percentile is a hundredth: the 95th is `0.95`");
            }
        }
        let (q, number) = (share?, number?);
        if let Arith::Literal(_) = number {
            self.problems.add(span, "`quantile` of a constant").expected("a field");
            return None;
        }
        Some(self.extreme(Slot::Quantile { q, number }))
    }

    pub fn top(&mut self, span: &Span, args: &[&FunctionArgExpr]) -> Option<Arith<Leaf>> {
        let [n, field] = self.two(span, "top", args, "`top(10, url)`")?;
        let most = self.setting(n).filter(|n| n.fract() == 0.0 && (1.0..=f64::from(N_MAX)).contains(n));
        if most.is_none() {
            let span = self.span(n);
            self.problems
                .add(&span, "how many values is no whole number within the limits")
                .expected("1 to 1,000, as in `top(10, url)`");
        }
        let Some(path) = name_of(field) else {
            let span = self.span(field);
            self.problems.add(&span, "`top` lists the values of one field").expected("a field: `top(10, url)`");
            return None;
        };
        let field = self.scope.field(&path);
        self.lists.push(("top".to_owned(), span.clone()));
        Some(self.extreme(Slot::Top { n: most? as u32, field }))
    }

    pub fn funnel(&mut self, span: &Span, args: &[&FunctionArgExpr]) -> Option<Arith<Leaf>> {
        let example = "`funnel('30m', type = 'page_view', type = 'purchase')`";
        let args = self.plain(span, "funnel", args, example)?;
        let Some((within, steps)) = args.split_first() else {
            self.problems.add(span, "`funnel` of no arguments").expected(example);
            return None;
        };
        let span_ms = self.span_ms(within);
        if !(STEPS_MIN..=STEPS_MAX).contains(&steps.len()) {
            self.problems
                .add(span, format!("`funnel` of {} {}", steps.len(), if steps.len() == 1 { "step" } else { "steps" }))
                .expected(format!("a span and {STEPS_MIN} to {STEPS_MAX} conditions: {example}"));
            return None;
        }
        // All are read, so that all errors are found.
        let conditions: Vec<_> = steps.iter().map(|step| self.condition(step)).collect();
        let Some(key) = self.scope.key else {
            self.problems
                .add(span, "a `funnel` has to know whose steps they are")
                .expected("a `key` in `[event]`")
                .help("say whom an event is about: `key = \"user_id\"` in `[event]`");
            return None;
        };
        let key = self.scope.fields.id(key);
        let texts = steps.iter().map(|step| unwrapped(step).to_string()).collect();
        self.funnel = Some(Funnel { span_ms: span_ms?, steps: conditions.into_iter().collect::<Option<_>>()?, texts });
        self.lists.push(("funnel".to_owned(), span.clone()));
        Some(self.extreme(Slot::FunnelFirst { key }))
    }

    fn span_ms(&mut self, expr: &Expr) -> Option<crate::time::Millis> {
        if let Expr::Value(value) = unwrapped(expr)
            && let Value::SingleQuotedString(text) = &value.value
            && let Some(Period(ms)) = Period::parse(text)
            && (1..=DAY_MS).contains(&ms)
        {
            return Some(ms);
        }
        let span = self.span(unwrapped(expr));
        self.problems.add(&span, "how long a `funnel` may take is no length of time within the limits").expected(SPAN);
        None
    }

    /// A number that stands there as one.
    fn setting(&mut self, expr: &Expr) -> Option<f64> {
        match unwrapped(expr) {
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => self.number(text, expr),
                _ => None,
            },
            _ => None,
        }
    }

    fn two<'e>(
        &mut self,
        span: &Span,
        name: &str,
        args: &[&'e FunctionArgExpr],
        example: &str,
    ) -> Option<[&'e Expr; 2]> {
        let plain = self.plain(span, name, args, example)?;
        let given = plain.len();
        let two = <[&Expr; 2]>::try_from(plain).ok();
        if two.is_none() {
            let arguments = if given == 1 { "argument" } else { "arguments" };
            self.problems.add(span, format!("`{name}` of {given} {arguments}")).expected(format!("two: {example}"));
        }
        two
    }

    fn plain<'e>(
        &mut self,
        span: &Span,
        name: &str,
        args: &[&'e FunctionArgExpr],
        example: &str,
    ) -> Option<Vec<&'e Expr>> {
        let expr = |arg: &&'e FunctionArgExpr| match arg {
            FunctionArgExpr::Expr(expr) => Some(expr),
            _ => None,
        };
        let plain: Option<Vec<&Expr>> = args.iter().map(expr).collect();
        if plain.is_none() {
            self.problems.add(span, format!("`{name}` of `*`")).expected(example).help("`*` stands only in `count(*)`");
        }
        plain
    }
}

/// Without the brackets around it.
fn unwrapped(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}
