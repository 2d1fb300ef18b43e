//! What a metric means, written in one way only, and its hash: the identity of the metric's state.
//!
//! Fields appear by their paths, so that neither the order of the file nor other metrics change a fingerprint. The form is
//! stored through its hash: to change it is to give every metric new state.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_64;

use super::enrichment::Enrich;
use super::expression::Funnel;
use crate::engine::arith::Arith;
use crate::engine::plan::{Dimension, Field, FieldId, Fingerprint, Predicate, Slot, ValueTest};

pub struct Meaning<'a> {
    pub name: &'a str,
    pub slots: &'a [Slot],
    pub finish: &'a Arith<usize>,
    pub filter: Option<&'a Predicate>,
    pub dimensions: &'a [&'a Dimension],
    pub funnel: Option<&'a Funnel>,
}

/// The fingerprint, and the lineage: the same without the digests of plugins.
pub fn identity(meaning: &Meaning<'_>, fields: &[Field], enrichments: &[Enrich]) -> (Fingerprint, Fingerprint) {
    let mut lineage = meaning_text(meaning, fields);
    let mut full = lineage.clone();
    for enrich in depended_on(meaning, fields, enrichments) {
        let _ = write!(lineage, ";{}", enrich_text(enrich));
        let _ = write!(full, ";{} {:?}", enrich_text(enrich), enrich.loaded.digest);
    }
    (Fingerprint(xxh3_64(full.as_bytes())), Fingerprint(xxh3_64(lineage.as_bytes())))
}

/// All but the enrichments.
pub fn meaning_text(meaning: &Meaning<'_>, fields: &[Field]) -> String {
    let mut text = format!("{:?}", meaning.name);
    for slot in meaning.slots {
        let _ = write!(text, ";{}", slot_text(slot, fields));
    }
    let _ = write!(text, ";finish {}", arith_text(meaning.finish, &|slot| format!("${slot}")));
    if let Some(filter) = meaning.filter {
        let _ = write!(text, ";where {}", predicate_text(filter, fields));
    }
    if let Some(funnel) = meaning.funnel {
        let _ = write!(text, ";within {}", funnel.span_ms);
        for step in &funnel.steps {
            let _ = write!(text, ";step {}", predicate_text(step, fields));
        }
    }
    for dimension in meaning.dimensions {
        let _ = write!(text, ";by {:?} {}", dimension.name, path_text(dimension.field, fields));
    }
    text
}

fn enrich_text(enrich: &Enrich) -> String {
    let Enrich { name, plugin, input, output, replace, .. } = enrich;
    let paths =
        |paths: &[super::read::Path]| paths.iter().map(|path| segments_text(&path.0)).collect::<Vec<_>>().join(" ");
    format!("enrich {name:?} {plugin:?} ({}) ({}) {replace}", paths(input), paths(output))
}

/// Directly and through their inputs, by name.
fn depended_on<'a>(meaning: &Meaning<'_>, fields: &[Field], enrichments: &'a [Enrich]) -> Vec<&'a Enrich> {
    let mut read: BTreeSet<&[String]> = BTreeSet::new();
    let mut see = |field: FieldId| {
        read.insert(&fields[field].path);
    };
    meaning.slots.iter().for_each(|slot| slot_fields(slot, &mut see));
    meaning.filter.iter().for_each(|filter| predicate_fields(filter, &mut see));
    let steps = meaning.funnel.iter().flat_map(|funnel| &funnel.steps);
    steps.for_each(|step| predicate_fields(step, &mut see));
    meaning.dimensions.iter().for_each(|dimension| see(dimension.field));
    let mut found: Vec<&Enrich> = Vec::new();
    // Backwards in the order of work: whoever reads comes before whoever gives.
    for enrich in enrichments.iter().rev() {
        if enrich.output.iter().any(|path| read.contains(&path.0[..])) {
            read.extend(enrich.input.iter().map(|path| &path.0[..]));
            found.push(enrich);
        }
    }
    found.sort_by_key(|enrich| &enrich.name);
    found
}

pub fn slot_fields(slot: &Slot, see: &mut impl FnMut(FieldId)) {
    match slot {
        Slot::Count => {}
        Slot::CountPresent(field)
        | Slot::Uniq(field)
        | Slot::Top { field, .. }
        | Slot::FunnelFirst { key: field }
        | Slot::FunnelLater { key: field, .. } => see(*field),
        Slot::CountNumber(number)
        | Slot::Sum(number)
        | Slot::Min(number)
        | Slot::Max(number)
        | Slot::Quantile { number, .. } => {
            number.leaves(&mut |field| see(*field));
        }
    }
}

pub fn predicate_fields(predicate: &Predicate, see: &mut impl FnMut(FieldId)) {
    match predicate {
        Predicate::Constant(_) => {}
        Predicate::And(list) | Predicate::Or(list) => list.iter().for_each(|inner| predicate_fields(inner, see)),
        Predicate::Not(inner) => predicate_fields(inner, see),
        Predicate::Value { field, .. } | Predicate::IsNull { field } => see(*field),
        Predicate::Number { left, right, .. } => {
            left.leaves(&mut |field| see(*field));
            right.leaves(&mut |field| see(*field));
        }
    }
}

fn slot_text(slot: &Slot, fields: &[Field]) -> String {
    let number = |number: &Arith<FieldId>| arith_text(number, &|field| path_text(*field, fields));
    match slot {
        Slot::Count => "count".to_owned(),
        Slot::CountPresent(field) => format!("count-present {}", path_text(*field, fields)),
        Slot::CountNumber(inner) => format!("count-number {}", number(inner)),
        Slot::Sum(inner) => format!("sum {}", number(inner)),
        Slot::Min(inner) => format!("min {}", number(inner)),
        Slot::Max(inner) => format!("max {}", number(inner)),
        Slot::Uniq(field) => format!("uniq {}", path_text(*field, fields)),
        Slot::Quantile { q, number: inner } => format!("quantile {q:?} {}", number(inner)),
        Slot::Top { n, field } => format!("top {n} {}", path_text(*field, fields)),
        Slot::FunnelFirst { key } | Slot::FunnelLater { key, .. } => format!("funnel {}", path_text(*key, fields)),
    }
}

/// Plain segments joined by dots, others in quotes: `props.amount`, `props."a.b"`.
fn path_text(field: FieldId, fields: &[Field]) -> String {
    segments_text(&fields[field].path)
}

fn segments_text(path: &[String]) -> String {
    let plain = |segment: &String| segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let segments: Vec<_> =
        path.iter().map(|segment| if plain(segment) { segment.clone() } else { format!("{segment:?}") }).collect();
    segments.join(".")
}

fn arith_text<L>(arith: &Arith<L>, leaf: &impl Fn(&L) -> String) -> String {
    match arith {
        Arith::Leaf(at) => leaf(at),
        Arith::Literal(value) => format!("{value:?}"),
        Arith::Negate(inner) => format!("(- {})", arith_text(inner, leaf)),
        Arith::Binary(operator, left, right) => {
            format!("({operator:?} {} {})", arith_text(left, leaf), arith_text(right, leaf))
        }
    }
}

/// The parts of `and` and `or` are sorted: their order means nothing.
fn predicate_text(predicate: &Predicate, fields: &[Field]) -> String {
    let list = |word: &str, list: &[Predicate]| {
        let mut parts: Vec<_> = list.iter().map(|inner| predicate_text(inner, fields)).collect();
        parts.sort();
        parts.dedup();
        format!("({word} {})", parts.join(" "))
    };
    let number = |number: &Arith<FieldId>| arith_text(number, &|field| path_text(*field, fields));
    match predicate {
        Predicate::Constant(value) => format!("{value}"),
        Predicate::And(parts) => list("and", parts),
        Predicate::Or(parts) => list("or", parts),
        Predicate::Not(inner) => format!("(not {})", predicate_text(inner, fields)),
        Predicate::Value { field, test } => format!("({} {})", test_text(test), path_text(*field, fields)),
        Predicate::Number { left, compare, right } => format!("({compare:?} {} {})", number(left), number(right)),
        Predicate::IsNull { field } => format!("(null {})", path_text(*field, fields)),
    }
}

fn test_text(test: &ValueTest) -> String {
    match test {
        ValueTest::Text(compare, text) => format!("text {compare:?} {text:?}"),
        ValueTest::TextIn(texts) => format!("text-in {texts:?}"),
        ValueTest::Like { pattern, escape, ignore_case } => format!("like {pattern:?} {escape:?} {ignore_case}"),
        ValueTest::Boolean(value) => format!("boolean {value}"),
    }
}
