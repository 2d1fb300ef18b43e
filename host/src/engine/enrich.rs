//! Enrichments of a chunk: the memo is asked for every row, the plugin only for inputs that nobody asked about before.

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::column::{Columns, value_hash};
use super::decode::Kind;
use super::dictionary::{Dictionary, NO_VALUE};
use super::extension::{OutputColumn, TextColumn};
use super::memo::{self, Answer, Memo};
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
    /// By answer number times outputs; `UNKNOWN` where the number was not seen since codes mean what they mean.
    translated: Vec<Filled>,
    /// Numbers of answers by their bytes, so that an answer seen before costs no allocation.
    numbers_of: HashMap<Vec<u8>, u32>,
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
const UNKNOWN: Filled = Filled { code: u32::MAX, number: f64::NAN, hash: 0 };
/// A row without an answer.
const NO_ANSWER: u32 = memo::NONE;
/// From here on: an answer of this chunk that the memo has no number for.
const UNKEPT: u32 = 1 << 30;
const ROWS_A_CALL: usize = 1024;
/// Distinct answers whose numbers a shard remembers by itself.
const NUMBERS_MAX: usize = 1 << 16;

impl Enricher {
    pub fn new(plan: usize) -> Self {
        Self { plan, translated: Vec::new(), numbers_of: HashMap::new(), hashes: Vec::new(), numbers: Vec::new() }
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
        let mut of_chunk = Vec::new();
        unkept.iter().for_each(|answer| translate(answer, enrichment, dictionaries, &mut of_chunk));
        self.translate_new(enrichment, dictionaries);
        let width = enrichment.outputs.len();
        for (at, output) in enrichment.outputs.iter().enumerate() {
            let Some(EnrichmentOutput { field, replace }) = *output else { continue };
            for (row, number) in self.numbers.iter().enumerate() {
                if !replace && inputs.brought(field, row) {
                    continue;
                }
                let filled = match *number {
                    NO_ANSWER => NOTHING,
                    number @ UNKEPT.. => of_chunk[(number - UNKEPT) as usize * width + at],
                    number => self.translated[number as usize * width + at],
                };
                columns.fill(field, row, filled.code, filled.number, filled.hash);
            }
        }
    }

    /// Translates the answers of this chunk that were not translated before.
    fn translate_new(&mut self, enrichment: &Enrichment, dictionaries: &mut [Option<Dictionary>]) {
        let width = enrichment.outputs.len();
        let Some(memo) = &enrichment.memo else { return };
        for number in self.numbers.iter().filter(|number| **number < UNKEPT) {
            let from = *number as usize * width;
            if from >= self.translated.len() {
                self.translated.resize(from + width, UNKNOWN);
            }
            if self.translated[from].code == UNKNOWN.code {
                let mut filled = Vec::with_capacity(width);
                match memo.answer(*number) {
                    Some(answer) => translate(&answer, enrichment, dictionaries, &mut filled),
                    None => filled.resize(width, NOTHING),
                }
                self.translated[from..from + width].copy_from_slice(&filled);
            }
        }
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
        let Self { hashes, numbers, numbers_of, .. } = self;
        hashes.clear();
        hashes.extend((0..columns.rows).map(|row| input_hash(enrichment, inputs, row, dictionaries, columns)));
        memo.get_all(hashes, numbers);
        // Where each input that nobody asked about stands first.
        let mut asked: HashMap<u64, u32> = HashMap::new();
        let mut missed: Vec<u32> = Vec::new();
        for (row, _) in numbers.iter().enumerate().filter(|(_, number)| **number == NO_ANSWER) {
            asked.entry(hashes[row]).or_insert_with(|| {
                missed.push(row as u32);
                row as u32
            });
        }
        let misses = missed.len() as u64;
        memo.count((columns.rows as u64) - misses, misses);
        let (mut unkept, mut key) = (Vec::new(), Vec::new());
        for rows in missed.chunks(ROWS_A_CALL) {
            let Some(answers) = ask(shard, enrichment, inputs, rows, dictionaries, columns) else { continue };
            for (at, row) in rows.iter().enumerate() {
                answers.key(at, &mut key);
                let known = numbers_of.get(&key).copied().or_else(|| {
                    let number = memo.number_of(&key, || answers.answer(at))?;
                    if numbers_of.len() < NUMBERS_MAX {
                        numbers_of.insert(key.clone(), number);
                    }
                    Some(number)
                });
                numbers[*row as usize] = match known {
                    Some(number) => {
                        memo.insert(hashes[*row as usize], number);
                        number
                    }
                    None => {
                        unkept.push(answers.answer(at));
                        UNKEPT + unkept.len() as u32 - 1
                    }
                };
            }
        }
        if misses > 0 {
            for row in 0..numbers.len() {
                if numbers[row] == NO_ANSWER {
                    numbers[row] = numbers[asked[&hashes[row]] as usize];
                }
            }
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
                Some(answers) => (0..rows.len()).for_each(|at| {
                    self.numbers.push(UNKEPT + unkept.len() as u32);
                    unkept.push(answers.answer(at));
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

/// Asks the plugin; `None`: it failed.
fn ask(
    shard: usize,
    enrichment: &Enrichment,
    inputs: &impl Inputs,
    rows: &[u32],
    dictionaries: &[Option<Dictionary>],
    columns: &Columns,
) -> Option<Answers> {
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
    Some(Answers(enrichment.enricher.enrich(shard, rows.len() as u32, &input)?))
}

/// What a plugin gave, to be read row by row.
struct Answers(Vec<OutputColumn>);

enum Given<'a> {
    Null,
    Text(&'a [u8]),
    Number(f64),
}

impl Answers {
    fn row(&self, row: usize) -> impl Iterator<Item = Given<'_>> {
        self.0.iter().map(move |column| match column {
            OutputColumn::Number(numbers) if numbers[row].is_finite() => Given::Number(numbers[row]),
            OutputColumn::Number(_) => Given::Null,
            OutputColumn::Text(column) if column.nulls.binary_search(&(row as u32)).is_ok() => Given::Null,
            OutputColumn::Text(column) => {
                let from = if row == 0 { 0 } else { column.ends[row - 1] as usize };
                Given::Text(&column.bytes[from..column.ends[row] as usize])
            }
        })
    }

    /// Bytes that are equal for equal answers only.
    fn key(&self, row: usize, key: &mut Vec<u8>) {
        key.clear();
        for given in self.row(row) {
            match given {
                Given::Null => key.push(0),
                Given::Text(text) => {
                    key.push(1);
                    key.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    key.extend_from_slice(text);
                }
                Given::Number(number) => {
                    key.push(2);
                    key.extend_from_slice(&number.to_bits().to_le_bytes());
                }
            }
        }
    }

    fn answer(&self, row: usize) -> Vec<Answer> {
        let value = |given| match given {
            Given::Null => Answer::Null,
            Given::Text(text) => Answer::Text(String::from_utf8_lossy(text).into()),
            Given::Number(number) => Answer::Number(number),
        };
        self.row(row).map(value).collect()
    }
}

fn translate(
    answer: &[Answer],
    enrichment: &Enrichment,
    dictionaries: &mut [Option<Dictionary>],
    out: &mut Vec<Filled>,
) {
    for (output, value) in enrichment.outputs.iter().zip(answer) {
        let mut code = |kind, bytes: &[u8]| {
            let dictionary = output.and_then(|output| dictionaries[output.field].as_mut());
            dictionary.map_or(NO_VALUE, |dictionary| dictionary.code(kind, bytes))
        };
        out.push(match value {
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
        });
    }
}
