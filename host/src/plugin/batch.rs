//! A batch that is too large for one call, in parts: what people send must not drive a plugin into its limits.

use std::ops::Range;

use crate::engine::extension::{OutputColumn, TextColumn};

/// Rows that go into one call: as many as fit in `bytes_max` of input, at least one.
pub fn parts(rows: u32, input: &[TextColumn], bytes_max: usize) -> Vec<Range<u32>> {
    let end_of = |row: u32| input.iter().map(|column| column.ends[row as usize] as usize).sum::<usize>();
    let mut parts = Vec::new();
    let (mut begin, mut bytes_before) = (0, 0);
    for row in 1..rows {
        if end_of(row) - bytes_before > bytes_max {
            parts.push(begin..row);
            (begin, bytes_before) = (row, end_of(row - 1));
        }
    }
    parts.push(begin..rows);
    parts
}

pub fn part(column: &TextColumn, rows: Range<u32>) -> TextColumn {
    let begin = if rows.start == 0 { 0 } else { column.ends[rows.start as usize - 1] };
    let ends: Vec<u32> = column.ends[rows.start as usize..rows.end as usize].iter().map(|end| end - begin).collect();
    let end = begin + ends.last().copied().unwrap_or(0);
    let nulls = column.nulls.iter().filter(|row| rows.contains(row)).map(|row| row - rows.start).collect();
    TextColumn { bytes: column.bytes[begin as usize..end as usize].to_vec(), ends, nulls }
}

/// Puts the rows of `more` after those of `all`. False: one is text, the other numbers.
pub fn append(all: &mut [OutputColumn], more: Vec<OutputColumn>) -> bool {
    all.iter_mut().zip(more).all(|pair| match pair {
        (OutputColumn::Number(all), OutputColumn::Number(more)) => {
            all.extend(more);
            true
        }
        (OutputColumn::Text(all), OutputColumn::Text(more)) => {
            let (rows, bytes) = (all.ends.len() as u32, all.bytes.len() as u32);
            all.nulls.extend(more.nulls.iter().map(|row| rows + row));
            all.ends.extend(more.ends.iter().map(|end| bytes + end));
            all.bytes.extend(more.bytes);
            true
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(rows: &[Option<&str>]) -> TextColumn {
        let mut column = TextColumn::default();
        for (row, text) in rows.iter().enumerate() {
            match text {
                Some(text) => column.bytes.extend(text.as_bytes()),
                None => column.nulls.push(row as u32),
            }
            column.ends.push(column.bytes.len() as u32);
        }
        column
    }

    #[test]
    fn parts_put_together_are_the_whole() {
        let texts = [Some("aaaa"), None, Some("bb"), Some(""), Some("cccccccc"), Some("d"), None];
        let whole = column(&texts);
        for bytes_max in 0..20 {
            let parts = parts(7, std::slice::from_ref(&whole), bytes_max);
            let mut all = vec![OutputColumn::Text(TextColumn::default())];
            let mut next = 0;
            for rows in parts {
                assert_eq!(rows.start, next);
                next = rows.end;
                let part = part(&whole, rows.clone());
                assert!(part.bytes.len() <= bytes_max || rows.len() == 1, "{} bytes in {rows:?}", part.bytes.len());
                assert_eq!(part, column(&texts[rows.start as usize..rows.end as usize]));
                assert!(append(&mut all, vec![OutputColumn::Text(part)]));
            }
            assert_eq!((next, &all[0]), (7, &OutputColumn::Text(whole.clone())));
        }
    }

    #[test]
    fn text_and_numbers_do_not_mix() {
        let mut all = vec![OutputColumn::Number(vec![1.0])];
        assert!(append(&mut all, vec![OutputColumn::Number(vec![2.0])]));
        assert!(!append(&mut all, vec![OutputColumn::Text(column(&[Some("x")]))]));
        assert_eq!(all, [OutputColumn::Number(vec![1.0, 2.0])]);
    }
}
