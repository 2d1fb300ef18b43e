//! The fields seen in events, learnt from a few of them each second: names, types, how common, examples. So that people who write
//! `metrics.toml` see what there is. Does not know who picks the events.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::Services;
use crate::engine::plan::Plan;
use crate::time::Millis;

const FIELDS_MAX: usize = 1_000;
const PATH_BYTES_MAX: usize = 200;
/// Objects inside one another; what is deeper counts as an object.
const DEPTH_MAX: usize = 8;
const EXAMPLES_MAX: usize = 5;
const EXAMPLE_BYTES_MAX: usize = 100;
/// Distinct values of a field that are told apart.
const DISTINCT_MAX: usize = 256;
/// Then all counts are halved, so that what is old weighs less and less.
const EVENTS_MAX: u64 = 20_000;

const TYPES: [&str; 5] = ["null", "boolean", "number", "string", "array"];
const OBJECT: &str = "object";

#[derive(Default)]
pub struct Fields {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    events: u64,
    fields: BTreeMap<String, Field>,
    /// Events with fields that there is no room for.
    over: u64,
}

#[derive(Default)]
struct Field {
    events: u64,
    /// As `TYPES`, and objects.
    types: [u64; TYPES.len() + 1],
    examples: Vec<Value>,
    distinct: HashSet<u64>,
    last_at: Millis,
}

impl Fields {
    /// One event as it came; what is no JSON object says nothing.
    pub fn note(&self, arrival: Millis, event: &[u8]) {
        let Ok(event @ Value::Object(_)) = serde_json::from_slice::<Value>(event) else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.events += 1;
        let mut no_room = false;
        seen.walk(&event, &mut String::new(), 0, arrival, &mut no_room);
        seen.over += u64::from(no_room);
        if seen.events >= EVENTS_MAX {
            seen.halve();
        }
    }

    fn json(&self, plan: &Plan, events_per_s: f64) -> Value {
        let read: HashSet<String> = plan.fields.iter().map(|field| name(&field.path)).collect();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fields: Vec<Value> = seen
            .fields
            .iter()
            .map(|(name, field)| {
                let share = field.events as f64 / seen.events.max(1) as f64;
                let types = TYPES.iter().chain([&OBJECT]).zip(field.types).filter(|(_, events)| *events > 0);
                json!({
                    "name": name,
                    "types": types.map(|(name, events)| ((*name).to_owned(), events.into())).collect::<serde_json::Map<_, _>>(),
                    "share": share,
                    "per_s": share * events_per_s,
                    "distinct": field.distinct.len(),
                    "distinct_more": field.distinct.len() >= DISTINCT_MAX,
                    "examples": field.examples,
                    "last_at": field.last_at,
                    "read": read.contains(name),
                })
            })
            .collect();
        json!({"sampled": seen.events, "events_per_s": events_per_s, "fields": fields, "left_out": seen.over})
    }
}

impl Seen {
    fn walk(&mut self, value: &Value, path: &mut String, depth: usize, arrival: Millis, no_room: &mut bool) {
        if let Value::Object(members) = value
            && depth < DEPTH_MAX
            && (!members.is_empty() || depth == 0)
        {
            for (key, member) in members {
                let before = path.len();
                push(path, key);
                self.walk(member, path, depth + 1, arrival, no_room);
                path.truncate(before);
            }
            return;
        }
        if path.len() > PATH_BYTES_MAX || (self.fields.len() >= FIELDS_MAX && !self.fields.contains_key(path)) {
            *no_room = true;
            return;
        }
        match self.fields.get_mut(path) {
            Some(field) => field.note(value, arrival),
            None => self.fields.entry(path.clone()).or_default().note(value, arrival),
        }
    }

    fn halve(&mut self) {
        self.events /= 2;
        self.over /= 2;
        self.fields.retain(|_, field| {
            field.events /= 2;
            field.types.iter_mut().for_each(|events| *events /= 2);
            field.events > 0
        });
    }
}

impl Field {
    fn note(&mut self, value: &Value, arrival: Millis) {
        self.events += 1;
        self.last_at = self.last_at.max(arrival);
        self.types[match value {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Number(_) => 2,
            Value::String(_) => 3,
            Value::Array(_) => 4,
            Value::Object(_) => 5,
        }] += 1;
        if value.is_null() || self.distinct.len() >= DISTINCT_MAX {
            return;
        }
        let text = value.to_string();
        if self.distinct.insert(xxh3_64(text.as_bytes())) && self.examples.len() < EXAMPLES_MAX {
            self.examples.push(if text.len() <= EXAMPLE_BYTES_MAX { value.clone() } else { cut(value, &text) });
        }
    }
}

/// The beginning of a long one, as text.
fn cut(value: &Value, json: &str) -> Value {
    let text = value.as_str().unwrap_or(json);
    Value::String(format!("{}…", &text[..text.floor_char_boundary(EXAMPLE_BYTES_MAX)]))
}

/// As it is written in `metrics.toml`; a key that has a dot of its own cannot be, and stands in quotes.
fn push(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    if key.is_empty() || key.contains(['.', '"']) {
        path.push_str(&Value::from(key).to_string());
    } else {
        path.push_str(key);
    }
}

fn name(path: &[String]) -> String {
    let mut name = String::new();
    path.iter().for_each(|key| push(&mut name, key));
    name
}

pub async fn answer(State(services): State<Arc<Services>>) -> Json<Value> {
    let plan = services.active.load().definitions.plan.clone();
    Json(services.fields.json(&plan, services.host.status().events_per_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plan::{Field, FieldDefault};
    use crate::serve::query::fake::World;

    /// Where the definitions read `type`.
    fn told(fields: &Fields) -> Value {
        let mut plan = (*World::new().active.definitions.plan).clone();
        plan.fields.push(Field {
            path: vec!["type".into()],
            codes: true,
            number: false,
            hash: false,
            enrichment_input: false,
            scalar: true,
            default: FieldDefault::None,
        });
        fields.json(&plan, 10.0)
    }

    #[test]
    fn paths_types_shares_and_examples() {
        let fields = Fields::default();
        fields.note(5, br#"{"type":"a","props":{"ms":1,"tags":["x"]},"a.b":true,"none":{}}"#);
        fields.note(7, br#"{"type":"b","props":{"ms":"slow"},"nil":null}"#);
        fields.note(9, b"[1]");
        fields.note(9, b"{\"half\":");
        let told = told(&fields);
        assert_eq!(told["sampled"], 2);
        let names: Vec<&str> =
            told["fields"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["\"a.b\"", "nil", "none", "props.ms", "props.tags", "type"]);
        let ms = &told["fields"][3];
        assert_eq!(ms["types"], json!({"number": 1, "string": 1}));
        assert_eq!((&ms["share"], &ms["per_s"], &ms["last_at"]), (&json!(1.0), &json!(10.0), &json!(7)));
        assert_eq!((&ms["examples"], &ms["distinct"]), (&json!([1, "slow"]), &json!(2)));
        assert_eq!((&told["fields"][1]["distinct"], &told["fields"][2]["types"]), (&json!(0), &json!({"object": 1})));
        assert_eq!((&told["fields"][5]["read"], &told["fields"][3]["read"]), (&json!(true), &json!(false)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let fields = Fields::default();
        for n in 0..2_000 {
            fields.note(n, format!(r#"{{"f{n}":1,"same":{n},"long":"{}é"}}"#, "x".repeat(99)).as_bytes());
        }
        let deep = format!("{}1{}", r#"{"d":"#.repeat(30), "}".repeat(30));
        fields.note(1, deep.as_bytes());
        fields.note(1, format!(r#"{{"{}":1}}"#, "k".repeat(300)).as_bytes());
        let seen = fields.seen.lock().unwrap();
        assert!(seen.fields.len() == FIELDS_MAX && seen.over > 900, "{} {}", seen.fields.len(), seen.over);
        assert_eq!(seen.fields["same"].distinct.len(), DISTINCT_MAX);
        assert_eq!(seen.fields["long"].examples, [Value::from(format!("{}…", "x".repeat(99)))]);
        drop(seen);
        let deep_only = Fields::default();
        deep_only.note(1, deep.as_bytes());
        assert_eq!(told(&deep_only)["fields"][0]["types"], json!({"object": 1}));
    }

    #[test]
    fn what_is_old_weighs_less() {
        let fields = Fields::default();
        fields.note(1, br#"{"old":1}"#);
        (0..EVENTS_MAX).for_each(|_| fields.note(2, br#"{"new":1}"#));
        let seen = fields.seen.lock().unwrap();
        assert!(!seen.fields.contains_key("old") && seen.events < EVENTS_MAX);
    }
}
