//! Enrichments of a chunk: the memo is asked for every row, the plugin only for inputs that nobody asked about before.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::column::{Columns, value_hash};
use super::decode::Kind;
use super::dictionary::{Dictionary, NO_VALUE};
use super::extension::{OutputColumn, TextColumn};
use super::memo::{Answer, Memo};
use super::plan::{Enrichment, EnrichmentOutput, FieldId};

/// Where the text of an input field is found.
pub trait Inputs {
    /// `None`: no value in this row.
    fn text<'a>(
        &'a self,
        field: FieldId,
        row: usize,
        dictionaries: &'a [Option<Dictionary>],
        columns: &'a Columns,
    ) -> Option<&'a [u8]>;
    /// The event brought a value for this field itself.
    fn brought(&self, field: FieldId, row: usize) -> bool;
}

/// A shard's view of one enrichment: what each answer number means in its own codes.
pub struct Enricher {
    plan: usize,
    /// By answer number, then by output.
    translated: Vec<Option<Box<[Filled]>>>,
    nothing: Box<[Filled]>,
    hashes: Vec<u64>,
    numbers: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Filled {
    code: u32,
    number: f64,
    hash: u64,
}

const NOTHING: Filled = Filled { code: NO_VALUE, number: f64::NAN, hash: 0 };
/// Row numbers that are no numbers of the memo.
const NO_ANSWER: u32 = u32::MAX;
/// From here on: an answer of this chunk that the memo had no room for.
const UNKEPT: u32 = 1 << 30;
const ROWS_A_CALL: usize = 1024;

impl Enricher {
    pub fn new(plan: usize, enrichment: &Enrichment) -> Self {
        let nothing = vec![NOTHING; enrichment.outputs.len()].into();
        Self { plan, translated: Vec::new(), nothing, hashes: Vec::new(), numbers: Vec::new() }
    }

    /// Codes mean something else from now on.
    pub fn forget(&mut self) {
        self.translated.clear();
    }

    /// Fills the output fields of the chunk's columns.
    pub fn run(
        &mut self,
        shard: usize,
        enrichments: &[Enrichment],
        inputs: &impl Inputs,
        dictionaries: &mut [Option<Dictionary>],
        columns: &mut Columns,
    ) {
        let enrichment = &enrichments[self.plan];
        let unkept = match &enrichment.memo {
            Some(memo) => self.look_up(shard, enrichment, memo, inputs, dictionaries, columns),
            None => self.ask_in_order(shard, enrichment, inputs, dictionaries, columns),
        };
        let unkept: Vec<Box<[Filled]>> =
            unkept.iter().map(|answer| translate(answer, enrichment, dictionaries)).collect();
        for row in 0..columns.rows {
            let number = self.numbers[row];
            let filled = match number {
                NO_ANSWER => &self.nothing,
                UNKEPT.. => &unkept[(number - UNKEPT) as usize],
                _ => self.translation(number, enrichment, dictionaries),
            };
            for (output, filled) in enrichment.outputs.iter().zip(filled) {
                if let Some(EnrichmentOutput { field, replace }) = *output
                    && (replace || !inputs.brought(field, row))
                {
                    columns.fill(field, row, filled.code, filled.number, filled.hash);
                }
            }
        }
    }

    fn translation(
        &mut self,
        number: u32,
        enrichment: &Enrichment,
        dictionaries: &mut [Option<Dictionary>],
    ) -> &[Filled] {
        let at = number as usize;
        if at >= self.translated.len() {
            self.translated.resize(at + 1, None);
        }
        let nothing = &self.nothing;
        self.translated[at].get_or_insert_with(|| {
            let answer = enrichment.memo.as_ref().and_then(|memo| memo.answer(number));
            answer.map_or_else(|| nothing.clone(), |answer| translate(&answer, enrichment, dictionaries))
        })
    }

    /// Sets `numbers`; gives the answers that the memo could not keep.
    fn look_up(
        &mut self,
        shard: usize,
        enrichment: &Enrichment,
        memo: &Memo,
        inputs: &impl Inputs,
        dictionaries: &[Option<Dictionary>],
        columns: &Columns,
    ) -> Vec<Vec<Answer>> {
        let Self { hashes, numbers, .. } = self;
        hashes.clear();
        hashes.extend((0..columns.rows).map(|row| input_hash(enrichment, inputs, row, dictionaries, columns)));
        numbers.clear();
        let mut missed: Vec<u32> = Vec::new();
        let mut asked: HashSet<u64> = HashSet::new();
        for (row, hash) in hashes.iter().enumerate() {
            let number = memo.get(*hash);
            numbers.push(number.unwrap_or(NO_ANSWER));
            if number.is_none() && asked.insert(*hash) {
                missed.push(row as u32);
            }
        }
        let misses = missed.len() as u64;
        memo.count((columns.rows as u64) - misses, misses);
        let mut unkept = Vec::new();
        let mut given: HashMap<u64, u32> = HashMap::new();
        for rows in missed.chunks(ROWS_A_CALL) {
            let Some(answers) = ask(shard, enrichment, inputs, rows, dictionaries, columns) else { continue };
            for (row, answer) in rows.iter().zip(answers) {
                let hash = hashes[*row as usize];
                let number = memo.insert(hash, &answer).unwrap_or_else(|| {
                    unkept.push(answer);
                    UNKEPT + unkept.len() as u32 - 1
                });
                given.insert(hash, number);
            }
        }
        if misses > 0 {
            let unanswered = numbers.iter_mut().zip(hashes.iter()).filter(|(number, _)| **number == NO_ANSWER);
            unanswered.for_each(|(number, hash)| *number = given.get(hash).copied().unwrap_or(NO_ANSWER));
        }
        unkept
    }

    /// A stateful plugin sees every row, in order.
    fn ask_in_order(
        &mut self,
        shard: usize,
        enrichment: &Enrichment,
        inputs: &impl Inputs,
        dictionaries: &[Option<Dictionary>],
        columns: &Columns,
    ) -> Vec<Vec<Answer>> {
        let rows: Vec<u32> = (0..columns.rows as u32).collect();
        let mut unkept = Vec::new();
        self.numbers.clear();
        for rows in rows.chunks(ROWS_A_CALL) {
            match ask(shard, enrichment, inputs, rows, dictionaries, columns) {
                Some(answers) => answers.into_iter().for_each(|answer| {
                    self.numbers.push(UNKEPT + unkept.len() as u32);
                    unkept.push(answer);
                }),
                None => self.numbers.resize(self.numbers.len() + rows.len(), NO_ANSWER),
            }
        }
        unkept
    }
}

#[inline]
fn input_hash(
    enrichment: &Enrichment,
    inputs: &impl Inputs,
    row: usize,
    dictionaries: &[Option<Dictionary>],
    columns: &Columns,
) -> u64 {
    const NULL_HASH: u64 = 0x51_7c_c1_b7_27_22_0a_95;
    enrichment.inputs.iter().fold(0, |hash: u64, field| {
        let part = inputs.text(*field, row, dictionaries, columns).map_or(NULL_HASH, xxh3_64);
        hash.rotate_left(31).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part
    })
}

/// Answers row by row; `None`: the plugin failed.
fn ask(
    shard: usize,
    enrichment: &Enrichment,
    inputs: &impl Inputs,
    rows: &[u32],
    dictionaries: &[Option<Dictionary>],
    columns: &Columns,
) -> Option<Vec<Vec<Answer>>> {
    let column = |field: &FieldId| {
        let mut column = TextColumn::default();
        for (at, row) in rows.iter().enumerate() {
            match inputs.text(*field, *row as usize, dictionaries, columns) {
                Some(bytes) => column.bytes.extend_from_slice(bytes),
                None => column.nulls.push(at as u32),
            }
            column.ends.push(column.bytes.len() as u32);
        }
        column
    };
    let input: Vec<TextColumn> = enrichment.inputs.iter().map(column).collect();
    let outputs = enrichment.enricher.enrich(shard, rows.len() as u32, &input)?;
    let mut answers = vec![Vec::with_capacity(outputs.len()); rows.len()];
    for output in &outputs {
        match output {
            OutputColumn::Number(numbers) => {
                let values = numbers
                    .iter()
                    .map(|number| if number.is_finite() { Answer::Number(*number) } else { Answer::Null });
                answers.iter_mut().zip(values).for_each(|(answer, value)| answer.push(value));
            }
            OutputColumn::Text(column) => {
                let (mut from, mut nulls) = (0, column.nulls.iter().peekable());
                for (at, (answer, end)) in answers.iter_mut().zip(&column.ends).enumerate() {
                    let text = &column.bytes[from..*end as usize];
                    from = *end as usize;
                    answer.push(match nulls.next_if_eq(&&(at as u32)) {
                        Some(_) => Answer::Null,
                        None => Answer::Text(String::from_utf8_lossy(text).into()),
                    });
                }
            }
        }
    }
    Some(answers)
}

fn translate(answer: &[Answer], enrichment: &Enrichment, dictionaries: &mut [Option<Dictionary>]) -> Box<[Filled]> {
    let fill = |(output, value): (&Option<EnrichmentOutput>, &Answer)| {
        let mut code = |kind, bytes: &[u8]| {
            let dictionary = output.and_then(|output| dictionaries[output.field].as_mut());
            dictionary.map_or(NO_VALUE, |dictionary| dictionary.code(kind, bytes))
        };
        match value {
            Answer::Null => NOTHING,
            Answer::Text(text) => {
                let bytes = text.as_bytes();
                Filled { code: code(Kind::Text, bytes), number: f64::NAN, hash: value_hash(Kind::Text, bytes) }
            }
            Answer::Number(number) => {
                let literal = number.to_string();
                let bytes = literal.as_bytes();
                Filled { code: code(Kind::Number, bytes), number: *number, hash: value_hash(Kind::Number, bytes) }
            }
        }
    };
    enrichment.outputs.iter().zip(answer).map(fill).collect()
}
