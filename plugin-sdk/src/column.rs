//! Rows for the author, columns for the host. No allocation a row: inputs are slices of the columns that came in,
//! outputs are appended to the columns that go out.

use std::borrow::Cow;

use crate::bindings::enricher::exports::tidemark::plugin::enricher as wit;

/// One row of input: the values of the declared input fields, in their order.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    values: &'a [Option<&'a str>],
}

impl<'a> Row<'a> {
    pub(crate) fn new(values: &'a [Option<&'a str>]) -> Row<'a> {
        Row { values }
    }

    /// The text of input field `input`, `None` if the event does not have it. A number or boolean of an event is its
    /// JSON text. Panics if there is no such input field: check with [`crate::Settings::expect_input`].
    pub fn text(&self, input: usize) -> Option<&'a str> {
        self.values[input]
    }

    /// The number in input field `input`, `None` if the event does not have it or it is not a number.
    pub fn number(&self, input: usize) -> Option<f64> {
        self.text(input)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// How many input fields there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.values.len()
    }
}

/// Walks an input column row by row.
pub(crate) struct Reader<'a> {
    text: &'a str,
    ends: &'a [u32],
    nulls: &'a [u32],
    row: u32,
    start: usize,
}

impl<'a> Reader<'a> {
    /// `None` if the column is not UTF-8, which the host promises it is.
    pub(crate) fn new(column: &'a wit::TextColumn) -> Option<Reader<'a>> {
        let text = std::str::from_utf8(&column.bytes).ok()?;
        Some(Reader { text, ends: &column.ends, nulls: &column.nulls, row: 0, start: 0 })
    }

    pub(crate) fn next_row(&mut self) -> Option<&'a str> {
        let end = *self.ends.get(self.row as usize)? as usize;
        let null = self.nulls.first() == Some(&self.row);
        if null {
            self.nulls = &self.nulls[1..];
        }
        let value = self.text.get(self.start..end);
        self.row += 1;
        self.start = end;
        if null { None } else { value }
    }
}

/// What can be written as a text: strings of all kinds, and options of them.
pub trait Text {
    /// The text, `None` for no value.
    fn text(&self) -> Option<&str>;
}

impl Text for str {
    fn text(&self) -> Option<&str> {
        Some(self)
    }
}

impl Text for String {
    fn text(&self) -> Option<&str> {
        Some(self)
    }
}

impl Text for Cow<'_, str> {
    fn text(&self) -> Option<&str> {
        Some(self)
    }
}

impl<T: Text> Text for Option<T> {
    fn text(&self) -> Option<&str> {
        self.as_ref()?.text()
    }
}

impl<T: Text + ?Sized> Text for &T {
    fn text(&self) -> Option<&str> {
        (**self).text()
    }
}

/// The outputs of the row at hand. What is not written stays without a value.
#[derive(Debug)]
pub struct Out<'a> {
    columns: &'a mut [Writer],
}

impl<'a> Out<'a> {
    pub(crate) fn new(columns: &'a mut [Writer]) -> Out<'a> {
        Out { columns }
    }

    /// Writes a text (or none) as output field `output`. Written twice, the second counts.
    ///
    /// Panics if there is no such output field, or if it was given a number in another row: a field is one or the other.
    pub fn text(&mut self, output: usize, value: impl Text) {
        match value.text() {
            Some(text) => self.columns[output].text(text),
            None => self.columns[output].null(),
        }
    }

    /// Writes a number (or none) as output field `output`. Written twice, the second counts.
    ///
    /// Panics if there is no such output field, or if it was given a text in another row: a field is one or the other.
    pub fn number(&mut self, output: usize, value: impl Into<Option<f64>>) {
        match value.into() {
            Some(number) => self.columns[output].number(number),
            None => self.columns[output].null(),
        }
    }

    /// Takes back what was written as output field `output` of this row.
    pub fn null(&mut self, output: usize) {
        self.columns[output].null();
    }

    /// How many output fields there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.columns.len()
    }
}

/// An output column being written. Text until a number is written into it.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Rows finished before the one at hand.
    rows: usize,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    nulls: Vec<u32>,
    numbers: Option<Vec<f64>>,
    /// Whether a text was ever written.
    has_text: bool,
}

/// A guess that saves growing for short texts.
const TEXT_BYTES_A_ROW: usize = 8;

impl Writer {
    pub(crate) fn new(rows: usize) -> Writer {
        Writer {
            rows: 0,
            bytes: Vec::with_capacity(rows * TEXT_BYTES_A_ROW),
            ends: Vec::with_capacity(rows),
            nulls: Vec::new(),
            numbers: None,
            has_text: false,
        }
    }

    fn text(&mut self, text: &str) {
        assert!(self.numbers.is_none(), "an output field was given a number and then a text");
        self.take_back();
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len() as u32);
        self.has_text = true;
    }

    fn number(&mut self, number: f64) {
        assert!(!self.has_text, "an output field was given a text and then a number");
        self.take_back();
        let rows = self.rows;
        self.numbers.get_or_insert_with(|| vec![f64::NAN; rows]).push(number);
    }

    fn null(&mut self) {
        self.take_back();
    }

    /// Forgets what the row at hand has so far.
    fn take_back(&mut self) {
        if self.ends.len() > self.rows {
            self.ends.truncate(self.rows);
            self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.truncate(self.rows);
        }
    }

    pub(crate) fn end_row(&mut self) {
        match &mut self.numbers {
            Some(numbers) if numbers.len() == self.rows => numbers.push(f64::NAN),
            None if self.ends.len() == self.rows => {
                self.nulls.push(self.rows as u32);
                self.ends.push(self.bytes.len() as u32);
            }
            _ => {}
        }
        self.rows += 1;
    }

    pub(crate) fn finish(self) -> wit::Column {
        match self.numbers {
            Some(numbers) => wit::Column::Number(numbers),
            None => wit::Column::Text(wit::TextColumn { bytes: self.bytes, ends: self.ends, nulls: self.nulls }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(rows: &[Option<&str>]) -> wit::TextColumn {
        let mut writer = Writer::new(rows.len());
        for row in rows {
            row.iter().for_each(|text| writer.text(text));
            writer.end_row();
        }
        match writer.finish() {
            wit::Column::Text(column) => column,
            wit::Column::Number(_) => panic!("text was written"),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let rows = [Some("añb"), None, Some(""), Some("x"), None];
        let column = column(&rows);
        assert_eq!((column.ends.as_slice(), column.nulls.as_slice()), ([4, 4, 4, 5, 5].as_slice(), [1, 4].as_slice()));
        let mut reader = Reader::new(&column).unwrap();
        assert_eq!(rows.map(|_| reader.next_row()), rows);
        assert_eq!(reader.next_row(), None, "past the end");
    }

    #[test]
    fn the_second_write_of_a_row_counts() {
        let mut writer = Writer::new(2);
        writer.text("kept");
        writer.end_row();
        writer.text("wrong");
        writer.text("right");
        writer.end_row();
        writer.text("taken back");
        writer.null();
        writer.end_row();
        let wit::Column::Text(column) = writer.finish() else { panic!("text was written") };
        assert_eq!(column.bytes, b"keptright");
        assert_eq!((column.ends.as_slice(), column.nulls.as_slice()), ([4, 9, 9].as_slice(), [2].as_slice()));
    }

    #[test]
    fn strings_of_all_kinds_are_text() {
        let owned = "b".to_owned();
        let mut writers: Vec<Writer> = (0..7).map(|_| Writer::new(1)).collect();
        let mut out = Out::new(&mut writers);
        out.text(0, "a");
        out.text(1, &owned);
        out.text(2, owned.clone());
        out.text(3, String::from_utf8_lossy(b"c"));
        out.text(4, Some("d"));
        out.text(5, Some(&owned));
        out.text(6, None::<&str>);
        writers.iter_mut().for_each(Writer::end_row);
        let text = |writer: Writer| match writer.finish() {
            wit::Column::Text(column) => (String::from_utf8(column.bytes).unwrap(), column.nulls.len()),
            wit::Column::Number(_) => panic!("text was written"),
        };
        let texts: Vec<(String, usize)> = writers.into_iter().map(text).collect();
        let expected = [("a", 0), ("b", 0), ("b", 0), ("c", 0), ("d", 0), ("b", 0), ("", 1)];
        assert_eq!(texts, expected.map(|(text, nulls)| (text.to_owned(), nulls)));
    }

    #[test]
    fn numbers_fill_up_with_nan() {
        let mut writer = Writer::new(3);
        writer.end_row();
        writer.number(1.0);
        writer.number(2.5);
        writer.end_row();
        writer.end_row();
        let wit::Column::Number(numbers) = writer.finish() else { panic!("numbers were written") };
        assert!(numbers[0].is_nan() && numbers[1] == 2.5 && numbers[2].is_nan() && numbers.len() == 3);
    }

    #[test]
    #[should_panic(expected = "a number and then a text")]
    fn a_field_is_a_number_or_a_text() {
        let mut writer = Writer::new(2);
        writer.number(1.0);
        writer.end_row();
        writer.text("one");
    }

    #[test]
    fn broken_columns_do_not_panic() {
        let not_utf8 = wit::TextColumn { bytes: vec![0xff], ends: vec![1], nulls: vec![] };
        assert!(Reader::new(&not_utf8).is_none());
        let past_end = wit::TextColumn { bytes: b"ab".to_vec(), ends: vec![1, 9], nulls: vec![] };
        let mut reader = Reader::new(&past_end).unwrap();
        assert_eq!([reader.next_row(), reader.next_row()], [Some("a"), None]);
    }
}
