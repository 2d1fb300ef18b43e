//! The catalog from the outside: text in, definitions or diagnostics out.

use super::definitions::{Definitions, MetricKind};
use super::fake::Fake;
use super::load;
use crate::engine::arith::{Arith, Operator};
use crate::engine::plan::{Compare, FieldDefault, Predicate, Slot, ValueTest};

const EXAMPLE: &str = include_str!("../../../metrics.toml");

fn loaded(text: &str) -> Definitions {
    load("metrics.toml", text, &Fake { digest: "1" }).unwrap_or_else(|diagnostics| {
        panic!("{}", diagnostics.iter().map(|d| d.rendered.as_str()).collect::<Vec<_>>().join("\n\n"))
    })
}

fn field(definitions: &Definitions, path: &str) -> usize {
    let fields = &definitions.plan.fields;
    fields.iter().position(|field| field.path.join(".") == path).unwrap_or_else(|| panic!("no field {path}"))
}

#[test]
fn the_example_compiles() {
    let definitions = loaded(EXAMPLE);
    let plan = &definitions.plan;
    let names: Vec<_> = definitions.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["events", "errors", "revenue", "active_users", "events_rate", "mean_order", "error_rate"]);
    assert_eq!(plan.metrics.len(), 6);
    assert_eq!(definitions.headline, ["active_users", "events_rate", "revenue", "error_rate"]);

    let kind = field(&definitions, "type");
    let amount = field(&definitions, "props.amount");
    let purchase = Predicate::Value { field: kind, test: ValueTest::Text(Compare::Equal, "purchase".into()) };
    assert_eq!(plan.filters.len(), 2);
    let mean = &plan.metrics[5];
    assert_eq!(mean.slots, [Slot::Sum(Arith::Leaf(amount)), Slot::Count]);
    assert_eq!(plan.filters[mean.filter.unwrap()], purchase);
    let MetricKind::Aggregate { finish, .. } = &definitions.metrics[5].kind else { panic!() };
    assert_eq!(*finish, Arith::Binary(Operator::Divide, Box::new(Arith::Leaf(0)), Box::new(Arith::Leaf(1))));
    let MetricKind::Composite { combine } = &definitions.metrics[6].kind else { panic!() };
    assert_eq!(*combine, Arith::Binary(Operator::Divide, Box::new(Arith::Leaf(1)), Box::new(Arith::Leaf(0))));

    assert_eq!(plan.groups, [vec![0, 1, 2], vec![0, 1]]);
    assert_eq!(plan.metrics[3].limit, 1_000);
    assert_eq!(plan.metrics[0].limit, 50_000);
    let user = &plan.fields[field(&definitions, "user_id")];
    assert!(user.hash && user.scalar && !user.codes && !user.number);
    let ip = &plan.fields[field(&definitions, "ip")];
    assert!(ip.enrichment_input && ip.scalar && !ip.codes && ip.default == FieldDefault::ClientAddress);
    let country = field(&definitions, "country");
    assert_eq!(plan.enrichments[1].outputs[0].unwrap().field, country);
    assert_eq!(plan.enrichments[0].outputs.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(definitions.plugin_uses.len(), 3);
}
