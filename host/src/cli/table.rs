//! Columns of text for people, as wide as what is in them. Does not know what they mean.

use std::fmt::Write as _;

use console::{Style, measure_text_width};

use super::paint::plain;

const GAP: usize = 2;

#[derive(Clone, Default)]
pub struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    pub fn left(text: impl AsRef<str>) -> Self {
        Self { text: plain(text.as_ref(), false), ..Self::default() }
    }

    pub fn right(text: impl AsRef<str>) -> Self {
        Self { right: true, ..Self::left(text) }
    }

    pub fn styled(mut self, style: Style) -> Self {
        self.style = style;
        self
    }
}

pub struct Table {
    /// All of equal length; the first is the head.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(head: Vec<Cell>) -> Self {
        let head = head.into_iter().map(|cell| cell.styled(Style::new().bold()));
        Self { rows: vec![head.collect()] }
    }

    /// Keeps the first columns that fit, and at least two; says how many were left out.
    pub fn fit(&mut self, width: usize) -> usize {
        let widths = self.widths();
        let mut used = 0;
        let fitting = widths.iter().take_while(|column| {
            used += *column + GAP;
            used <= width + GAP
        });
        let kept = fitting.count().max(2).min(widths.len());
        self.rows.iter_mut().for_each(|row| row.truncate(kept));
        widths.len() - kept
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let of = |column: usize| self.rows.iter().map(|row| measure_text_width(&row[column].text)).max().unwrap_or(0);
        (0..columns).map(of).collect()
    }

    /// `colours`: where it goes, they are wanted.
    pub fn render(&self, colours: bool) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for row in &self.rows {
            let mut owed = 0;
            for (cell, width) in row.iter().zip(&widths) {
                let room = width - measure_text_width(&cell.text);
                let (before, behind) = if cell.right { (owed + room, 0) } else { (owed, room) };
                let text = cell.style.clone().force_styling(colours).apply_to(&cell.text);
                let _ = write!(out, "{}{text}", " ".repeat(before));
                owed = behind + GAP;
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![Cell::left("time"), Cell::right("日本"), Cell::left("last")]);
        table.rows.push(vec![Cell::left("a"), Cell::right("1"), Cell::left("x\u{1b}y")]);
        table.rows.push(vec![Cell::left("abcdef"), Cell::right("12345"), Cell::left("")]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_what_they_hold() {
        assert_eq!(table().render(false), "time     日本  last\na           1  x\u{fffd}y\nabcdef  12345  \n");
        assert!(table().render(true).starts_with("\u{1b}[1mtime\u{1b}[0m     "));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        for (width, left_out) in [(100, 0), (19, 0), (18, 1), (13, 1), (5, 1)] {
            let mut table = table();
            assert_eq!((table.fit(width), table.rows[2].len()), (left_out, 3 - left_out), "{width}");
        }
    }
}
