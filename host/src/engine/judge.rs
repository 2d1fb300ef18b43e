//! Which events count: required fields, types, time, late and duplicate, in that order. Judged by arrival, so that a second reading judges alike.

use super::column::value_hash;
use super::decode::{Kind, Rows, number};
use super::dedupe::Dedupe;
use super::messages::Messages;
use super::plan::{FieldId, Plan};
use super::timestamp;
use crate::time::Millis;

/// A dimension, key, id or enrichment input longer than this rejects its event.
pub const VALUE_BYTES_MAX: usize = 4096;

/// When a batch came in.
#[derive(Clone, Copy, Debug)]
pub enum Arrival<'a> {
    At(Millis),
    /// As many messages, each with its own arrival and client.
    Each(&'a Messages),
    /// Replay: each event arrives at its own time, so that none is late; `ahead` counts from `now`, which is also the arrival of an event without a time.
    Own {
        now: Millis,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Counted,
    Required(FieldId),
    Type(FieldId),
    TooLong(FieldId),
    TooLarge(FieldId),
    Time(FieldId),
    Ahead,
    Late,
    Duplicate,
}

impl Fate {
    pub fn is_rejected(self) -> bool {
        !matches!(self, Self::Counted | Self::Late | Self::Duplicate)
    }

    pub fn reason(self, plan: &Plan) -> String {
        let name = |field: FieldId| plan.fields[field].path.join(".");
        match self {
            Self::Counted => "counted".into(),
            Self::Required(field) => format!("required field `{}` is missing", name(field)),
            Self::Type(field) => {
                format!("`{}` is an object or a list; a text, number or boolean is expected", name(field))
            }
            Self::TooLong(field) => format!("`{}` is longer than {VALUE_BYTES_MAX} bytes", name(field)),
            Self::TooLarge(field) => format!("`{}` is a number too large to count with", name(field)),
            Self::Time(field) => {
                format!("`{}` is no time: RFC 3339 or a Unix number between 1970 and 9999 is expected", name(field))
            }
            Self::Ahead => format!("time is more than {} s ahead of its arrival", plan.event.ahead_ms / 1000),
            Self::Late => format!("late: older than {} s at its arrival", plan.event.lateness_ms / 1000),
            Self::Duplicate => "duplicate: its id was seen before".into(),
        }
    }
}

/// Asked once a chunk for the ids that were seen before.
pub trait IdCheck {
    /// `last`: no further chunk of this batch follows.
    fn check(&mut self, hashes: &[u64], arrivals: &[Millis], last: bool, duplicate: &mut dyn FnMut(usize));
}

impl IdCheck for &Dedupe {
    fn check(&mut self, hashes: &[u64], arrivals: &[Millis], _last: bool, duplicate: &mut dyn FnMut(usize)) {
        Dedupe::check(self, hashes, arrivals, duplicate);
    }
}

/// Judgement of one chunk; room is used again.
#[derive(Default)]
pub struct Judge {
    pub fates: Vec<Fate>,
    pub times: Vec<Millis>,
    /// By field, for all decoded rows; empty where numbers are not wanted.
    pub numbers: Vec<Vec<f64>>,
    /// The message of each row, where the batch came as messages.
    pub messages: Vec<u32>,
    ids: Vec<u64>,
    arrivals: Vec<Millis>,
    id_rows: Vec<u32>,
}

impl Judge {
    pub fn new(fields: usize) -> Self {
        Self { numbers: vec![Vec::new(); fields], ..Self::default() }
    }

    pub fn run(
        &mut self,
        plan: &Plan,
        rows: &Rows,
        buffer: &[u8],
        arrival: Arrival<'_>,
        ids: &mut impl IdCheck,
        last: bool,
    ) {
        if let Arrival::Each(messages) = arrival {
            messages.of_lines(&rows.start, &mut self.messages);
        }
        self.fates.clear();
        self.fates.resize(rows.len, Fate::Counted);
        for field in &plan.event.require {
            self.condemn(rows.column(*field).iter().map(|value| value.kind() <= Kind::Null), Fate::Required(*field));
        }
        for (id, field) in plan.fields.iter().enumerate() {
            if field.scalar {
                self.condemn(rows.column(id).iter().map(|value| value.kind() >= Kind::Object), Fate::Type(id));
                self.condemn(rows.column(id).iter().map(|value| value.len() > VALUE_BYTES_MAX), Fate::TooLong(id));
            }
            if field.number {
                self.read_numbers(id, rows, buffer);
            }
        }
        self.read_times(plan, rows, buffer, arrival);
        self.judge_times(plan, arrival);
        self.find_duplicates(plan, rows, buffer, arrival, ids, last);
    }

    fn condemn(&mut self, guilty: impl Iterator<Item = bool>, fate: Fate) {
        for (row, guilty) in guilty.enumerate() {
            if guilty && self.fates[row] == Fate::Counted {
                self.fates[row] = fate;
            }
        }
    }

    fn read_numbers(&mut self, field: FieldId, rows: &Rows, buffer: &[u8]) {
        let numbers = &mut self.numbers[field];
        numbers.clear();
        for (row, value) in rows.column(field).iter().enumerate() {
            let read = if value.kind() == Kind::Number { number(rows.bytes(buffer, *value)) } else { f64::NAN };
            if read.is_infinite() && self.fates[row] == Fate::Counted {
                self.fates[row] = Fate::TooLarge(field);
            }
            numbers.push(read);
        }
    }

    fn read_times(&mut self, plan: &Plan, rows: &Rows, buffer: &[u8], arrival: Arrival<'_>) {
        self.times.clear();
        match arrival {
            Arrival::At(at) => self.read_times_or(plan, rows, buffer, |_| at),
            Arrival::Own { now } => self.read_times_or(plan, rows, buffer, |_| now),
            Arrival::Each(messages) => {
                let of_rows = std::mem::take(&mut self.messages);
                self.read_times_or(plan, rows, buffer, |row| messages.get(of_rows[row]).arrival);
                self.messages = of_rows;
            }
        }
    }

    /// `without`: the time of a row that brings none.
    #[inline]
    fn read_times_or(&mut self, plan: &Plan, rows: &Rows, buffer: &[u8], without: impl Fn(usize) -> Millis) {
        let Some(field) = plan.event.time else {
            return self.times.extend((0..rows.len).map(without));
        };
        for (row, value) in rows.column(field).iter().enumerate() {
            let time = match value.kind() {
                Kind::Missing | Kind::Null => Some(without(row)),
                Kind::Number => timestamp::from_number(rows.bytes(buffer, *value)),
                Kind::Text => timestamp::from_text(rows.bytes(buffer, *value)),
                _ => None,
            };
            if time.is_none() && self.fates[row] == Fate::Counted {
                self.fates[row] = Fate::Time(field);
            }
            self.times.push(time.unwrap_or(0));
        }
    }

    fn judge_times(&mut self, plan: &Plan, arrival: Arrival<'_>) {
        let of = |at: Millis| (at + plan.event.ahead_ms, at - plan.event.lateness_ms);
        match arrival {
            Arrival::At(at) => self.judge_times_by(|_| of(at)),
            Arrival::Own { now } => self.judge_times_by(|_| (now + plan.event.ahead_ms, Millis::MIN)),
            Arrival::Each(messages) => {
                let of_rows = std::mem::take(&mut self.messages);
                self.judge_times_by(|row| of(messages.get(of_rows[row]).arrival));
                self.messages = of_rows;
            }
        }
    }

    /// `bounds`: the latest and the earliest time that a row may have.
    #[inline]
    fn judge_times_by(&mut self, bounds: impl Fn(usize) -> (Millis, Millis)) {
        for (row, (fate, time)) in self.fates.iter_mut().zip(&self.times).enumerate() {
            let (latest, earliest) = bounds(row);
            if *fate == Fate::Counted {
                if *time > latest {
                    *fate = Fate::Ahead;
                } else if *time < earliest {
                    *fate = Fate::Late;
                }
            }
        }
    }

    fn find_duplicates(
        &mut self,
        plan: &Plan,
        rows: &Rows,
        buffer: &[u8],
        arrival: Arrival<'_>,
        ids: &mut impl IdCheck,
        last: bool,
    ) {
        let Some(field) = plan.event.id else { return };
        let Self { fates, times, messages, ids: hashes, arrivals, id_rows, .. } = self;
        hashes.clear();
        arrivals.clear();
        id_rows.clear();
        for (row, value) in rows.column(field).iter().enumerate() {
            if fates[row] == Fate::Counted && value.kind() > Kind::Null {
                hashes.push(value_hash(value.kind(), rows.bytes(buffer, *value)));
                arrivals.push(match arrival {
                    Arrival::At(at) => at,
                    Arrival::Each(all) => all.get(messages[row]).arrival,
                    Arrival::Own { .. } => times[row],
                });
                id_rows.push(row as u32);
            }
        }
        ids.check(hashes, arrivals, last, &mut |at| fates[id_rows[at] as usize] = Fate::Duplicate);
    }
}
