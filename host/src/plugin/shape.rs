//! Whether an enricher's answer has the promised shape. Everything after this trusts it.

use super::abi::v0_1::enricher::tidemark::plugin::types::{Column, TextColumnResult};
use crate::engine::extension::{OutputColumn, TextColumn};

/// One column an output, each of `rows` rows. The message says what is wrong with which column.
pub fn check(outputs: &[String], rows: u32, columns: Vec<Column>) -> Result<Vec<OutputColumn>, String> {
    if columns.len() != outputs.len() {
        return Err(format!("answered {} columns, {} outputs were asked for", columns.len(), outputs.len()));
    }
    let checked = outputs.iter().zip(columns).map(|(output, column)| {
        check_column(rows as usize, column).map_err(|wrong| format!("answered `{output}` {wrong}"))
    });
    checked.collect()
}

fn check_column(rows: usize, column: Column) -> Result<OutputColumn, String> {
    match column {
        Column::Text(text) => check_text(rows, text).map(OutputColumn::Text),
        Column::Number(numbers) if numbers.len() != rows => {
            Err(format!("with {} rows instead of {rows}", numbers.len()))
        }
        Column::Number(numbers) => match numbers.iter().position(|number| number.is_infinite()) {
            Some(row) => Err(format!("with an infinite number in row {row}")),
            None => Ok(OutputColumn::Number(numbers)),
        },
    }
}

fn check_text(rows: usize, column: TextColumnResult) -> Result<TextColumn, String> {
    let TextColumnResult { bytes, ends, nulls } = column;
    if ends.len() != rows {
        return Err(format!("with {} rows instead of {rows}", ends.len()));
    }
    let text = simdutf8::basic::from_utf8(&bytes).map_err(|_| "as text that is not UTF-8".to_owned())?;
    let mut begin = 0;
    for (row, &end) in ends.iter().enumerate() {
        if end < begin || !text.is_char_boundary(end as usize) {
            return Err(format!(
                "with row {row} ending at byte {end}, before its begin, outside or inside a character"
            ));
        }
        begin = end;
    }
    if begin as usize != bytes.len() {
        return Err(format!("with {} bytes after the last row", bytes.len() - begin as usize));
    }
    if nulls.windows(2).any(|pair| pair[0] >= pair[1]) || nulls.last().is_some_and(|&last| last as usize >= rows) {
        return Err("with null rows that are out of order or do not exist".into());
    }
    let width = |row: usize| ends[row] - if row == 0 { 0 } else { ends[row - 1] };
    match nulls.iter().find(|&&row| width(row as usize) != 0) {
        Some(row) => Err(format!("with text in row {row}, which it says is null")),
        None => Ok(TextColumn { bytes, ends, nulls }),
    }
}
