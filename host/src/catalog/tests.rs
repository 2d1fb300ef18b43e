//! The catalog from the outside: text in, definitions or diagnostics out.

use super::canonical::{Meaning, meaning_text};
use super::definitions::{Definitions, MetricKind};
use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic};
use super::fake::Fake;
use super::{difference, load};
use crate::engine::arith::{Arith, Operator};
use crate::engine::plan::{Compare, FieldDefault, Predicate, Slot, ValueTest};

const EXAMPLE: &str = include_str!("../../../metrics.toml");
const FINGERPRINTS: [&str; 11] = [
    "events 3346cb89a48f9e17",
    "errors 406712d9e9b3c0ec",
    "revenue 2002419368027387",
    "active_users 7620b62547b55934",
    "events_rate c8c7ef124efe2880",
    "mean_order be4e7f348c324c76",
    "latency_p50 8686f1e546c585e6",
    "latency_p95 f33e08b029a82a27",
    "top_pages ca8c6f9b2767a7ee",
    "checkout 993a23de34d5ab99",
    "checkout:later ab2e4efd13a97b00",
];

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
    let counted = ["events", "errors", "revenue", "active_users", "events_rate", "mean_order", "error_rate"];
    assert_eq!(names, [&counted[..], &["latency_p50", "latency_p95", "top_pages", "checkout"]].concat());
    // A funnel has one more for its later steps.
    assert_eq!(plan.metrics.len(), 11);
    assert_eq!(definitions.headline, ["active_users", "events_rate", "revenue", "error_rate"]);

    let kind = field(&definitions, "type");
    let amount = field(&definitions, "props.amount");
    let purchase = Predicate::Value { field: kind, test: ValueTest::Text(Compare::Equal, "purchase".into()) };
    assert_eq!(plan.filters.len(), 5);
    let mean = &plan.metrics[5];
    assert_eq!(mean.slots, [Slot::Sum(Arith::Leaf(amount)), Slot::Count]);
    assert_eq!(plan.filters[mean.filter.unwrap()], purchase);
    let MetricKind::Aggregate { finish, .. } = &definitions.metrics[5].kind else { panic!() };
    assert_eq!(*finish, Arith::Binary(Operator::Divide, Box::new(Arith::Leaf(0)), Box::new(Arith::Leaf(1))));
    let MetricKind::Composite { combine } = &definitions.metrics[6].kind else { panic!() };
    assert_eq!(*combine, Arith::Binary(Operator::Divide, Box::new(Arith::Leaf(1)), Box::new(Arith::Leaf(0))));

    assert_eq!(plan.groups, [vec![0, 1, 2], vec![0, 1], vec![1], vec![]]);
    assert_eq!(plan.metrics[3].limit, 1_000);
    assert_eq!(plan.metrics[0].limit, 50_000);
    assert_eq!(
        plan.metrics[6..].iter().map(|metric| metric.limit).collect::<Vec<_>>(),
        [1_000, 1_000, 1_000, 1_000, 1]
    );
    let user = &plan.fields[field(&definitions, "user_id")];
    assert!(user.hash && user.scalar && !user.codes && !user.number);
    let ip = &plan.fields[field(&definitions, "ip")];
    assert!(ip.enrichment_input && ip.scalar && !ip.codes && ip.default == FieldDefault::ClientAddress);
    let country = field(&definitions, "country");
    assert_eq!(plan.enrichments[1].outputs[0].unwrap().field, country);
    assert_eq!(plan.enrichments[0].outputs.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(definitions.plugin_uses.len(), 3);
}

/// What a metric means, in the canonical form its fingerprint is made of.
fn meaning(definitions: &Definitions, name: &str) -> String {
    let metric = definitions.metrics.iter().find(|metric| metric.name == name).unwrap();
    let MetricKind::Aggregate { plan_metric, finish, .. } = &metric.kind else { panic!("{name} is made of metrics") };
    let planned = &definitions.plan.metrics[*plan_metric];
    let dimensions: Vec<_> =
        definitions.plan.groups[planned.group].iter().map(|id| &definitions.plan.dimensions[*id]).collect();
    let filter = planned.filter.map(|filter| &definitions.plan.filters[filter]);
    let meaning = Meaning { name: "m", slots: &planned.slots, finish, filter, dimensions: &dimensions, funnel: None };
    meaning_text(&meaning, &definitions.plan.fields).trim_start_matches("\"m\";").to_owned()
}

fn one(expression: &str) -> String {
    let quoted = serde_json::to_string(expression).unwrap();
    let text = format!(
        "[dimensions]\ncategory = {{ field = \"props.category\" }}\n[defaults]\nby = []\n[metrics]\nm = {quoted}\n"
    );
    meaning(&loaded(&text), "m")
}

#[test]
fn values() {
    for (expression, expected) in [
        ("count()", "count;finish $0"),
        ("COUNT(*)", "count;finish $0"),
        ("count(1)", "count;finish $0"),
        ("count(props.amount)", "count-present props.amount;finish $0"),
        ("count(props.amount * 2)", "count-number (Multiply props.amount 2.0);finish $0"),
        ("sum(a - b)", "sum (Subtract a b);finish $0"),
        ("avg(ms)", "sum ms;count-number ms;finish (Divide $0 $1)"),
        ("avg(ms) + sum(ms)", "sum ms;count-number ms;finish (Add (Divide $0 $1) $0)"),
        ("max(ms) - min(ms)", "max ms;min ms;finish (Subtract $0 $1)"),
        ("uniq(user_id) / count()", "uniq user_id;count;finish (Divide $0 $1)"),
        ("-(sum(x) + 2 * 3)", "sum x;finish (- (Add $0 6.0))"),
        ("100.0 * sum(x) % 7", "sum x;finish (Modulo (Multiply 100.0 $0) 7.0)"),
        ("sum(category)", "sum props.category;finish $0"),
        ("uniq(\"a b\".c)", "uniq \"a b\".c;finish $0"),
        ("sum(1 + x) -- a remark", "sum (Add 1.0 x);finish $0"),
    ] {
        assert_eq!(one(expression), expected, "{expression}");
    }
}

#[test]
fn conditions() {
    for (condition, expected) in [
        ("type = 'error'", "(text Equal \"error\" type)"),
        ("'error' = type", "(text Equal \"error\" type)"),
        ("type <> 'it''s'", "(text NotEqual \"it's\" type)"),
        ("type != 'a'", "(text NotEqual \"a\" type)"),
        ("category >= 'b'", "(text GreaterOrEqual \"b\" props.category)"),
        ("amount > 5", "(Greater amount 5.0)"),
        ("5 < amount", "(Greater amount 5.0)"),
        ("amount > -1.5e3", "(Greater amount -1500.0)"),
        ("a + b <= c", "(LessOrEqual (Add a b) c)"),
        ("a = b + 0", "(Equal a (Add b 0.0))"),
        ("paid", "(boolean true paid)"),
        ("not paid", "(not (boolean true paid))"),
        ("paid = false", "(boolean false paid)"),
        ("paid <> true", "(not (boolean true paid))"),
        ("true and a = 1", "(Equal a 1.0)"),
        ("1 = 1 and 'a' < 'b'", "true"),
        ("a = 1 and b = 2 and c = 3", "(and (Equal a 1.0) (Equal b 2.0) (Equal c 3.0))"),
        ("a = 1 and (b = 2 and c = 3)", "(and (Equal a 1.0) (Equal b 2.0) (Equal c 3.0))"),
        ("a = 1 or b = 2 and c = 3", "(or (Equal a 1.0) (and (Equal b 2.0) (Equal c 3.0)))"),
        ("x in ('b', 'a')", "(text-in [\"a\", \"b\"] x)"),
        ("x not in ('a')", "(not (text-in [\"a\"] x))"),
        ("x in (1, 'a', true)", "(or (Equal x 1.0) (boolean true x) (text-in [\"a\"] x))"),
        ("a + 1 in (1, 2)", "(or (Equal (Add a 1.0) 1.0) (Equal (Add a 1.0) 2.0))"),
        ("x between 1 and 5", "(and (GreaterOrEqual x 1.0) (LessOrEqual x 5.0))"),
        ("x not between 'a' and 'c'", "(not (and (text GreaterOrEqual \"a\" x) (text LessOrEqual \"c\" x)))"),
        ("5 between a and b", "(and (GreaterOrEqual b 5.0) (LessOrEqual a 5.0))"),
        ("url like '/cart/%'", "(like \"/cart/%\" None false url)"),
        ("url not ilike '10!%' escape '!'", "(not (like \"10!%\" Some('!') true url))"),
        ("user.name is null", "(null user.name)"),
        ("props.x is not null", "(not (null props.x))"),
        ("not (not (a = 1))", "(Equal a 1.0)"),
        ("type == 'a'", "(text Equal \"a\" type)"),
    ] {
        assert_eq!(
            one(&format!("count() where {condition}")),
            format!("count;finish $0;where {expected}"),
            "{condition}"
        );
    }
}

/// Words that SQL uses and events have too.
#[test]
fn fields_with_names_of_sql() {
    for name in [
        "type",
        "user",
        "user.id",
        "date",
        "time",
        "timestamp",
        "ts",
        "order",
        "order.total",
        "group",
        "end",
        "start",
        "from",
        "to",
        "level",
        "value",
        "key",
        "position",
        "current",
        "status",
        "session",
        "session.id",
        "map",
        "match",
        "row",
        "name",
        "url",
        "year",
        "day",
        "hour",
        "text",
        "language",
        "version",
        "source",
        "action",
        "method",
        "count",
        "sum",
        "index",
        "first",
        "last",
        "left",
        "right",
        "begin",
        "set",
        "table",
        "column",
        "role",
        "desc",
        "limit",
        "in_stock",
        "a.b.c.d",
        "user_agent",
        "ip",
        "language.code",
        "order.items.count",
        "date.day",
        "end.ts",
    ] {
        let expected = format!("uniq {name};finish $0;where (text Equal \"x\" {name})");
        assert_eq!(one(&format!("uniq({name}) where {name} = 'x'")), expected, "{name}");
    }
}

#[test]
fn no_text_overflows_the_stack() {
    let nest = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let expressions = [
        nest("(", "count()", ")", 4_900),
        nest("-", "count()", "", 9_900),
        nest("- ", "count()", "", 4_900),
        nest("sum(", "x", ")", 1_900),
        nest("count() + ", "count()", "", 990),
        nest("x+", "sum(x)", "", 4_900),
        format!("sum({})", nest("x+", "x", "", 4_900)),
        format!("sum(case when {} then 1 end)", nest("x+", "x = 1", "", 4_800)),
        format!("sum(cast({} as int))", nest("x+", "x", "", 4_800)),
        format!("sum(case when {} then 1 end)", nest("x or ", "x", "", 1_900)),
        nest("case when x then ", "count()", " end", 450),
        nest("[", "1", "]", 4_900),
        nest("count() where x in (", "1", ")", 490),
        format!("count() where {}", nest("not ", "x", "", 2_400)),
        format!("count() where {}", nest("(", "x", ")", 4_900)),
        format!("count() where {}", nest("x or ", "x", "", 1_900)),
        format!("count() where {}", nest("x = ", "x", "", 2_400)),
        format!("count() where {}", nest("x and (y or ", "x", ")", 700)),
        format!("count() where {}", nest("x between ", "1", " and 2", 550)),
        format!("count() where {}", nest("exists (select ", "1", ")", 600)),
        format!("count() where x{}", "[1]".repeat(3_000)),
        format!("count() where x{}", ".a".repeat(4_900)),
        format!("count() where x{}", " is null".repeat(1_200)),
        format!("count() where x{}", "::int".repeat(1_900)),
        format!("count() where {}", nest("x like ", "'a'", "", 1_400)),
    ];
    let check = move || {
        for expression in &expressions {
            let text = format!("[metrics]\nm = {}\n", serde_json::to_string(expression).unwrap());
            // Either answer is right; coming back is what counts.
            let _ = load("m", &text, &Fake { digest: "1" });
        }
        for (open, close) in [("[", "]"), ("{a=", "}")] {
            let text = format!("a = {}", nest(open, "1", close, 100_000));
            assert!(load("m", &text, &Fake { digest: "1" }).is_err());
        }
        assert!(load("m", &format!("{}b = 1", "a.".repeat(200_000)), &Fake { digest: "1" }).is_err());
        assert!(load("m", &format!("[{}b]", "a.".repeat(200_000)), &Fake { digest: "1" }).is_err());
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
}

fn loaded_with(text: &str, digest: &'static str) -> Definitions {
    load("metrics.toml", text, &Fake { digest }).map_err(|diagnostics| diagnostics[0].rendered.clone()).unwrap()
}

const IDENTITY: &str = r#"
[enrich.geo]
plugin = "geo_ip"
input  = ["address"]
output = ["country", "city"]
config = { unknown = "--" }

[enrich.proxy]
plugin = "geo_ip"
input  = ["ip"]
output = ["address"]

[dimensions]
country  = {}
category = { field = "props.category", limit = 100 }
device   = {}

[metrics]
before  = "count()"
watched = { value = "sum(props.amount) / count() where type = 'a' and not paid", by = ["country", "category"] }
plain   = { value = "count() where city = 'Rome'", by = [] }
"#;

/// What is part of a metric's identity, and what is not.
#[test]
fn identity() {
    let before = loaded_with(IDENTITY, "1");
    let find = |definitions: &Definitions, name: &str| {
        let metric = definitions.plan.metrics.iter().find(|metric| metric.name == name).unwrap();
        (metric.fingerprint, metric.lineage)
    };
    let watched = find(&before, "watched");
    // (what is replaced, by what, the same fingerprint, the same lineage)
    for (from, to, fingerprint, lineage) in [
        ("", "", true, true),
        ("sum(props.amount) / count() where type = 'a'", "SUM( props.amount )/COUNT(*)  WHERE 'a' = type", true, true),
        ("type = 'a' and not paid", "(not paid) and (type = 'a')", true, true),
        ("before  = \"count()\"", "before = \"max(other)\"\nmore = \"sum(paid) where x = 1\"", true, true),
        (
            "by = [\"country\", \"category\"] }",
            "by = [\"country\", \"category\"], window = \"5m\", per = \"1s\", limit = 5, unit = \"x\", title = \"T\", better = \"up\" }",
            true,
            true,
        ),
        ("limit = 100", "limit = 7", true, true),
        ("device   = {}", "", true, true),
        ("[metrics]", "[event]\ntime = \"t\"\nid = \"i\"\nkey = \"k\"\nrequire = [\"type\"]\n[metrics]", true, true),
        ("'a'", "'b'", false, false),
        ("watched = { value = \"sum(", "watched = { value = \"min(", false, false),
        ("count() where type", "count() * 2 where type", false, false),
        ("props.amount", "props.price", false, false),
        ("[\"country\", \"category\"]", "[\"category\", \"country\"]", false, false),
        ("[\"country\", \"category\"]", "[\"country\"]", false, false),
        ("props.category", "props.kind", false, false),
        ("unknown = \"--\"", "unknown = \"??\"", false, true),
        ("input  = [\"ip\"]", "input = [\"client\"]", false, false),
        ("output = [\"country\", \"city\"]", "output = [\"country\", \"city\"]\noverride = true", false, false),
        ("[enrich.proxy]", "[enrich.via]", false, false),
    ] {
        let after = loaded_with(&IDENTITY.replace(from, to), "1");
        let (found, found_lineage) = find(&after, "watched");
        assert_eq!(found == watched.0, fingerprint, "fingerprint: {from} -> {to}");
        assert_eq!(found_lineage == watched.1, lineage, "lineage: {from} -> {to}");
    }
    let other_plugin = loaded_with(IDENTITY, "2");
    assert_ne!(find(&other_plugin, "watched").0, watched.0);
    assert_eq!(find(&other_plugin, "watched").1, watched.1);
    assert_ne!(find(&other_plugin, "plain").0, find(&before, "plain").0, "through its condition");
    assert_ne!(find(&other_plugin, "before").0, find(&before, "before").0, "through a dimension");
    assert_ne!(other_plugin.digest, before.digest);
}

/// Stored state is found by these: a change here is a change of the stored format.
#[test]
fn fingerprints_are_what_they_were() {
    let definitions = loaded(EXAMPLE);
    let found: Vec<_> =
        definitions.plan.metrics.iter().map(|metric| format!("{} {}", metric.name, metric.lineage)).collect();
    assert_eq!(found, FINGERPRINTS);
}

#[test]
fn difference_names_what_changed() {
    let old = loaded(EXAMPLE);
    for (from, to, changed) in [
        ("", "", vec![]),
        ("window = \"1h\", unit", "window = \"2h\", unit", vec!["revenue"]),
        ("unit = \"USD\"", "unit = \"EUR\"", vec!["revenue"]),
        ("threshold = 2.0", "threshold = 3.0", vec!["revenue"]),
        ("better = \"down\"", "better = \"up\"", vec!["error_rate", "latency_p50", "latency_p95"]),
        ("\"errors / events\"", "\"100 * errors / events\"", vec!["error_rate"]),
        ("type = 'error'", "type = 'fatal'", vec!["errors", "error_rate"]),
        ("period = \"1d\"", "period = \"2d\"", vec!["active_users"]),
        (
            "limit = 100 }",
            "limit = 10 }",
            vec!["events", "errors", "revenue", "events_rate", "mean_order", "error_rate"],
        ),
        ("'30m', type", "'40m', type", vec!["checkout"]),
        ("type = 'add_to_cart'", "type = 'add'", vec!["checkout"]),
    ] {
        let difference = difference(&old, &loaded(&EXAMPLE.replace(from, to)));
        assert_eq!(difference.changed, changed, "{from} -> {to}");
        assert_eq!(difference.changed.len() + difference.unchanged.len(), 11);
        assert!(difference.added.is_empty() && difference.removed.is_empty());
    }
    let new = loaded(&EXAMPLE.replace("mean_order ", "orders_mean "));
    let difference = difference(&old, &new);
    assert_eq!((difference.added, difference.removed), (vec!["orders_mean".to_owned()], vec!["mean_order".to_owned()]));
}

/// Editors get the schema from `docs/`; `UPDATE=1` writes it anew.
#[test]
fn the_shipped_schema_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.schema.json");
    let current = serde_json::to_string_pretty(&super::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == current,
        "run the test with UPDATE=1 to write {}",
        path.display()
    );
}

/// The bench's definitions are the first of the example, as the contract has them.
#[test]
fn the_bench_measures_the_example() {
    let (example, bench) = (loaded(EXAMPLE), loaded(include_str!("../../benches/replay.toml")));
    let fingerprints = |definitions: &Definitions| {
        definitions.plan.metrics.iter().map(|metric| metric.fingerprint).collect::<Vec<_>>()
    };
    let bench_has = fingerprints(&bench);
    assert_eq!(fingerprints(&example)[..bench_has.len()], bench_has);
    assert!(bench.plan.event.id.is_some());
}

/// What a plugin refuses is shown under the key that is at fault.
#[test]
fn plugin_faults_stand_under_their_key() {
    for (from, to, at) in [
        ("plugin = \"user_agent\"", "plugin = \"broken\"", "\"broken\""),
        ("\"country.mmdb\"", "\"missing.mmdb\"", "[\"missing.mmdb\"]"),
        ("unknown = \"--\"", "unknown = \"bad\"", "{ unknown = \"bad\" }"),
        ("period = \"1d\"", "period = \"bad\"", "{ period = \"bad\" }"),
        ("plugin = \"seasonal\"", "plugin = \"seasonel\"", "\"seasonel\""),
    ] {
        let diagnostics = load("x", &EXAMPLE.replace(from, to), &Fake { digest: "1" }).err().unwrap();
        assert_eq!(diagnostics.len(), 1, "{to}");
        let Diagnostic { line, column, length, rendered, .. } = &diagnostics[0];
        let text = EXAMPLE.replace(from, to);
        let found: String = text.lines().nth(line - 1).unwrap().chars().skip(column - 1).take(*length).collect();
        assert_eq!(found, at, "{rendered}");
    }
}

#[test]
fn bytes_that_are_no_text() {
    let error = super::decode("x", b"[metrics]\nevents = \"count()\" # caf\xe9\n".to_vec()).unwrap_err();
    assert_eq!((error[0].line, error[0].column, error[0].message.as_str()), (2, 25, "not UTF-8"));
    let marked = "\u{feff}[metrics]\r\nevents = \"count()\"\r\n";
    assert!(load("x", marked, &Fake { digest: "1" }).is_ok(), "a byte order mark and CR LF are no mistake");
}

#[test]
fn many_errors_are_counted() {
    let text: String = (0..300).map(|n| format!("x{n} = 1\n")).collect();
    let diagnostics = load("x", &text, &Fake { digest: "1" }).err().unwrap();
    assert_eq!(diagnostics.len(), DIAGNOSTICS_MAX + 1);
    assert_eq!(diagnostics[DIAGNOSTICS_MAX].message, "201 more errors are not shown");
}

/// The language is that of `where`, and names mean what they mean there.
#[test]
fn conditions_are_read_alone() {
    let plugins = Fake { digest: "1" };
    let look = |condition| super::look(EXAMPLE, condition, &plugins);
    let plan = look(Some("type = 'purchase' and category <> 'toys'")).unwrap();
    let path = |id: usize| plan.fields[id].path.join(".");
    let Predicate::And(parts) = &plan.filters[0] else { panic!("{:?}", plan.filters) };
    let read = parts.iter().map(|part| if let Predicate::Value { field, .. } = part { path(*field) } else { panic!() });
    assert_eq!(read.collect::<Vec<_>>(), ["type", "props.category"]);
    assert!(plan.metrics.is_empty() && plan.dimensions.is_empty() && look(None).unwrap().filters.is_empty());
    for (condition, column, message) in [
        ("", 1, "the condition is empty"),
        ("type = purchase", 8, "two fields"),
        ("type = 'a' and count() > 3", 16, "aggregate"),
        ("type = 'a' limit 3", 12, "unexpected"),
        ("events", 1, ""),
    ] {
        match look(Some(condition)) {
            Ok(_) => assert_eq!(message, "", "{condition}"),
            Err(found) => {
                assert!(found[0].message.contains(message), "{condition}: {}", found[0].rendered);
                assert_eq!((found[0].line, found[0].column, found.len()), (1, column, 1), "{}", found[0].rendered);
            }
        }
    }
}
