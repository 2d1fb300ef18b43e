//! Evaluates an expression at all instants at once: a row of values for each series. Knows series only as labels and values.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Evaluation;
use super::failure::Failure;
use super::language::{Aggregate, Aggregator, Binary, Grouping, Labels, NAME, Node, Operator};

/// A series: its value at each instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub labels: Labels,
    pub values: Vec<Option<f64>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The same at each instant.
    Number(f64),
    Rows(Vec<Row>),
}

impl Evaluation<'_> {
    pub fn evaluate(&self, node: &Node) -> Result<Value, Failure> {
        self.in_time()?;
        match node {
            Node::Number(number) => Ok(Value::Number(*number)),
            Node::Select(selector) => self.select(selector, None).map(Value::Rows),
            Node::Negate(inner) => {
                let rows = map(self.rows(inner)?, |value| Some(-value));
                nameless(rows).map(Value::Rows)
            }
            Node::Aggregate(aggregate) => self.aggregate(aggregate).map(Value::Rows),
            Node::Binary(binary) => self.binary(binary).map(Value::Rows),
        }
    }

    fn rows(&self, node: &Node) -> Result<Vec<Row>, Failure> {
        match self.evaluate(node)? {
            Value::Rows(rows) => Ok(rows),
            // The parser has checked the types.
            Value::Number(_) => Err(Failure::execution("expected an instant vector, got a scalar")),
        }
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Result<Vec<Row>, Failure> {
        let Aggregate { operator, k, grouping, inner } = aggregate;
        let rows = match &**inner {
            Node::Select(selector) => self.select(selector, Some((*operator, grouping)))?,
            inner => self.rows(inner)?,
        };
        let mut groups: BTreeMap<Labels, Vec<Row>> = BTreeMap::new();
        for row in rows {
            groups.entry(kept(&row.labels, grouping)).or_default().push(row);
        }
        let mut out = Vec::new();
        for (labels, mut rows) in groups {
            self.in_time()?;
            if matches!(operator, Aggregator::Top | Aggregator::Bottom) {
                self.choose(&mut rows, *k, *operator == Aggregator::Top)?;
                out.extend(rows.into_iter().filter(|row| row.values.iter().any(Option::is_some)));
            } else {
                self.made(self.times.count)?;
                let value = |at| fold(*operator, rows.iter().filter_map(|row| row.values[at]));
                out.push(Row { labels, values: (0..self.times.count).map(value).collect() });
            }
        }
        Ok(out)
    }

    /// Leaves at each instant the `k` largest or smallest values of a group; NaN comes last.
    fn choose(&self, rows: &mut [Row], k: usize, largest: bool) -> Result<(), Failure> {
        let mut order: Vec<usize> = Vec::new();
        for at in 0..self.times.count {
            self.in_time()?;
            order.clear();
            order.extend((0..rows.len()).filter(|row| rows[*row].values[at].is_some()));
            order.sort_by(|a, b| ranked(rows[*a].values[at], rows[*b].values[at], largest));
            order.iter().skip(k).for_each(|row| rows[*row].values[at] = None);
        }
        Ok(())
    }

    fn binary(&self, binary: &Binary) -> Result<Vec<Row>, Failure> {
        let Binary { operator, as_bool, left, right, .. } = binary;
        let filters = operator.compares() && !as_bool;
        // A filter keeps the value of the vector, whichever side that is.
        let rows = match (self.evaluate(left)?, self.evaluate(right)?) {
            (Value::Rows(rows), Value::Number(b)) => map(rows, |a| result(*operator, filters, a, (a, b))),
            (Value::Number(a), Value::Rows(rows)) => map(rows, |b| result(*operator, filters, b, (a, b))),
            (Value::Rows(left), Value::Rows(right)) => self.pair(binary, filters, left, right)?,
            (Value::Number(a), Value::Number(b)) => {
                let value = Some(operator.apply(a, b));
                vec![Row { labels: Labels::new(), values: vec![value; self.times.count] }]
            }
        };
        if filters { Ok(rows) } else { nameless(rows) }
    }

    /// One series with one of equal labels on the other side.
    fn pair(&self, binary: &Binary, filters: bool, left: Vec<Row>, right: Vec<Row>) -> Result<Vec<Row>, Failure> {
        let Binary { operator, matching, .. } = binary;
        let mut others: HashMap<Labels, Row> = HashMap::with_capacity(right.len());
        for row in right {
            let key = kept(&row.labels, matching);
            if others.insert(key.clone(), row).is_some() {
                return Err(ambiguous("right", &key));
            }
        }
        let mut used: HashSet<&Labels> = HashSet::new();
        let mut out = Vec::new();
        for mut row in left {
            self.in_time()?;
            let key = kept(&row.labels, matching);
            let Some((key, other)) = others.get_key_value(&key) else { continue };
            if !used.insert(key) {
                return Err(ambiguous("left", key));
            }
            for (a, b) in row.values.iter_mut().zip(&other.values) {
                *a = a.zip(*b).and_then(|(a, b)| result(*operator, filters, a, (a, b)));
            }
            if row.values.iter().any(Option::is_some) {
                // A filter keeps the name, unless `on` says which labels stay.
                row.labels.retain(|(name, _)| matching.keeps(name) || filters && !matching.listed && **name == *NAME);
                out.push(row);
            }
        }
        Ok(out)
    }
}

fn ambiguous(side: &str, key: &Labels) -> Failure {
    let labels: Vec<String> = key.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    Failure::execution(format!(
        "found duplicate series for the match group {{{}}} on the {side} hand-side of the operation; many-to-many matching not \
         allowed: matching labels must be unique on one side",
        labels.join(", ")
    ))
}

fn result(operator: Operator, filters: bool, kept: f64, (a, b): (f64, f64)) -> Option<f64> {
    let value = operator.apply(a, b);
    if filters { (value != 0.0).then_some(kept) } else { Some(value) }
}

fn fold(operator: Aggregator, values: impl Iterator<Item = f64>) -> Option<f64> {
    // As Prometheus: a NaN gives way to any number.
    let better =
        |a: f64, b: f64, smaller: bool| if a.is_nan() || (b < a) == smaller && b != a && !b.is_nan() { b } else { a };
    let (mut count, mut sum, mut least, mut most) = (0.0, 0.0, f64::NAN, f64::NAN);
    for value in values {
        count += 1.0;
        sum += value;
        least = better(least, value, true);
        most = better(most, value, false);
    }
    let value = match operator {
        Aggregator::Sum => sum,
        Aggregator::Avg => sum / count,
        Aggregator::Min => least,
        Aggregator::Max => most,
        Aggregator::Count | Aggregator::Top | Aggregator::Bottom => count,
    };
    (count > 0.0).then_some(value)
}

/// The order of `topk` or `bottomk`.
pub fn ranked(a: Option<f64>, b: Option<f64>, largest: bool) -> std::cmp::Ordering {
    let key = |value: Option<f64>| match value {
        Some(value) if !value.is_nan() => (false, if largest { -value } else { value }),
        _ => (true, 0.0),
    };
    let ((a_last, a), (b_last, b)) = (key(a), key(b));
    a_last.cmp(&b_last).then_with(|| a.total_cmp(&b))
}

fn kept(labels: &Labels, grouping: &Grouping) -> Labels {
    labels.iter().filter(|(name, _)| grouping.keeps(name)).cloned().collect()
}

/// Series without any value left are gone.
fn map(rows: Vec<Row>, change: impl Fn(f64) -> Option<f64>) -> Vec<Row> {
    let changed = rows.into_iter().map(|mut row| {
        row.values.iter_mut().for_each(|value| *value = value.and_then(&change));
        row
    });
    changed.filter(|row| row.values.iter().any(Option::is_some)).collect()
}

/// What is computed has no metric's name; two series must not become one by that.
fn nameless(mut rows: Vec<Row>) -> Result<Vec<Row>, Failure> {
    rows.iter_mut().for_each(|row| row.labels.retain(|(name, _)| **name != *NAME));
    rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    if rows.windows(2).any(|pair| pair[0].labels == pair[1].labels) {
        return Err(Failure::execution("vector cannot contain metrics with the same labelset"));
    }
    Ok(rows)
}
