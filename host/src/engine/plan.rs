//! The compiled definitions: what a shard must read, decide and add up. Made by the catalog, read by everyone, changed by nobody.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::arith::Arith;
use super::extension::Enricher;
use super::memo::Memo;
use crate::time::Millis;

/// Indexes into the plan's vectors.
pub type FieldId = usize;
pub type FilterId = usize;
pub type DimensionId = usize;
pub type GroupId = usize;

/// Identity of a metric's state: hash of its name and the meaning of its definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Clone)]
pub struct Plan {
    pub event: EventPlan,
    pub fields: Vec<Field>,
    /// In an order in which inputs that are outputs of others come after them.
    pub enrichments: Vec<Enrichment>,
    /// Distinct `where` clauses.
    pub filters: Vec<Predicate>,
    pub dimensions: Vec<Dimension>,
    /// Distinct sets of dimensions that metrics are kept by, each in the order of `by`; the empty set included where used.
    pub groups: Vec<Vec<DimensionId>>,
    pub metrics: Vec<Metric>,
}

#[derive(Clone)]
pub struct EventPlan {
    pub time: Option<FieldId>,
    pub key: Option<FieldId>,
    pub id: Option<FieldId>,
    pub require: Vec<FieldId>,
    pub dedupe_ms: Millis,
    pub lateness_ms: Millis,
    pub ahead_ms: Millis,
}

/// A field that something reads, and in which forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Segments of the dotted path.
    pub path: Vec<String>,
    /// Dictionary codes of its scalar values: grouped, or compared with text, or null checks.
    pub codes: bool,
    /// Numbers as `f64`, NaN where it is not a number.
    pub number: bool,
    /// 64-bit hash of the value: counted distinct, or an id.
    pub hash: bool,
    /// Its text is handed to an enrichment.
    pub enrichment_input: bool,
    /// An object or array here rejects the event (dimensions, key, id, what is counted distinct, enrichment inputs).
    pub scalar: bool,
    /// What an event that does not bring it gets.
    pub default: FieldDefault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldDefault {
    None,
    /// The client's address (the field `ip`).
    ClientAddress,
    /// The request's `User-Agent` (the field `user_agent`).
    UserAgent,
}

#[derive(Clone)]
pub struct Enrichment {
    /// As in `[enrich.NAME]`.
    pub name: String,
    pub inputs: Vec<FieldId>,
    /// One for each declared output; `None` where nothing reads it.
    pub outputs: Vec<Option<EnrichmentOutput>>,
    pub enricher: Arc<dyn Enricher>,
    /// Answers by input; `None`: stateful, called for every row in order.
    pub memo: Option<Arc<Memo>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrichmentOutput {
    pub field: FieldId,
    /// Replaces what the event brings; else it only fills what is missing or null.
    pub replace: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Dimension {
    pub name: String,
    /// A field with `codes`.
    pub field: FieldId,
    /// Distinct values a UTC day of event time; the rest become `__other__`.
    pub limit: Option<u32>,
}

/// A `where` clause, in SQL's three-valued logic.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    Constant(bool),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    /// About one field's value alone: decided once per distinct value. Null when the value is missing or of another type.
    Value {
        field: FieldId,
        test: ValueTest,
    },
    /// Null when either side is.
    Number {
        left: Arith<FieldId>,
        compare: Compare,
        right: Arith<FieldId>,
    },
    /// Never null.
    IsNull {
        field: FieldId,
    },
}

/// The field has `codes`. Text compares byte by byte.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueTest {
    Text(Compare, String),
    TextIn(Vec<String>),
    /// SQL's pattern: `%` any text, `_` one character; `escape` before either takes it literally.
    Like {
        pattern: String,
        escape: Option<char>,
        ignore_case: bool,
    },
    Boolean(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A metric with state of its own: aggregates over the same events by the same dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub name: String,
    pub fingerprint: Fingerprint,
    /// The fingerprint without the digests and settings of plugins: equal lineage, one story.
    pub lineage: Fingerprint,
    pub filter: Option<FilterId>,
    pub group: GroupId,
    /// What is kept in each cell.
    pub slots: Vec<Slot>,
    /// Combinations kept a UTC day.
    pub limit: u32,
}

/// One mergeable state of a cell and what feeds it. A slot skips events whose input is null.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// Every event that passes the filter.
    Count,
    /// Events in which the field is neither missing nor null. The field has `codes` or `number`.
    CountPresent(FieldId),
    CountNumber(Arith<FieldId>),
    Sum(Arith<FieldId>),
    Min(Arith<FieldId>),
    Max(Arith<FieldId>),
    /// The field has `hash`.
    Uniq(FieldId),
    /// `q` says which quantile is read; the state holds all.
    Quantile {
        q: f64,
        number: Arith<FieldId>,
    },
    /// The `n` most frequent values. The field has `codes`.
    Top {
        n: u32,
        field: FieldId,
    },
    /// The first step of a funnel: what passes the metric's filter. The key has `hash`.
    FunnelFirst {
        key: FieldId,
    },
    /// The other steps of a funnel, from the second on: what passes the metric's filter and the step's.
    FunnelLater {
        key: FieldId,
        steps: Vec<FilterId>,
    },
}

/// The kind of a slot's state: how it merges and is encoded. Stored; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum StateKind {
    Count = 1,
    Sum = 2,
    Min = 3,
    Max = 4,
    Uniq = 5,
    Quantile = 6,
    Top = 7,
    Funnel = 8,
}

impl StateKind {
    pub const ALL: [Self; 8] =
        [Self::Count, Self::Sum, Self::Min, Self::Max, Self::Uniq, Self::Quantile, Self::Top, Self::Funnel];

    /// Merges only in the engine (`engine/summary`): to a store it is bytes.
    pub fn is_summary(self) -> bool {
        matches!(self, Self::Quantile | Self::Top | Self::Funnel)
    }

    /// Larger than a few numbers.
    pub fn is_sketch(self) -> bool {
        self == Self::Uniq || self.is_summary()
    }
}

impl Slot {
    pub fn kind(&self) -> StateKind {
        match self {
            Self::Count | Self::CountPresent(_) | Self::CountNumber(_) => StateKind::Count,
            Self::Sum(_) => StateKind::Sum,
            Self::Min(_) => StateKind::Min,
            Self::Max(_) => StateKind::Max,
            Self::Uniq(_) => StateKind::Uniq,
            Self::Quantile { .. } => StateKind::Quantile,
            Self::Top { .. } => StateKind::Top,
            Self::FunnelFirst { .. } | Self::FunnelLater { .. } => StateKind::Funnel,
        }
    }

    /// Over the same events both have the same state: what is only of interest to readers does not tell them apart.
    pub fn same_state(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Quantile { number: a, .. }, Self::Quantile { number: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }
}

impl Plan {
    /// Reads, judges and enriches as this one does, and counts nothing: for looking at events. Plugins that remember what they were
    /// asked are left alone.
    pub fn looking(&self, filter: Option<Predicate>) -> Self {
        let event = self.event.clone();
        let enrichments = self.enrichments.iter().filter(|it| it.memo.is_some()).cloned().collect();
        let (fields, filters) = (self.fields.clone(), filter.into_iter().collect());
        Self { event, fields, enrichments, filters, dimensions: vec![], groups: vec![], metrics: vec![] }
    }

    /// Something wants to know when each event happened, and not only in which minute.
    pub fn wants_times(&self) -> bool {
        self.metrics.iter().flat_map(|metric| &metric.slots).any(|slot| slot.kind() == StateKind::Funnel)
    }

    /// The same with these metrics alone. Fields stay, since what is in them decides which events are rejected.
    pub fn only(&self, wanted: impl Fn(&Metric) -> bool) -> Self {
        let metrics = self.metrics.iter().filter(|metric| wanted(metric)).cloned().collect();
        Self { metrics, ..self.clone() }
    }
}

impl Metric {
    /// Has a sketch, and so keeps margins: the total and each single dimension as cells of their own.
    pub fn keeps_margins(&self) -> bool {
        self.slots.iter().any(|slot| slot.kind().is_sketch())
    }
}
