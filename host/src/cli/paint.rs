//! Colour for people at a terminal: none when piped, none with `NO_COLOR`. Does not know what is said.

use std::fmt::Write as _;

use console::Style;

/// Colour is wanted on standard output.
pub fn on_out() -> bool {
    console::colors_enabled()
}

/// Colour is wanted on standard error.
pub fn on_err() -> bool {
    console::colors_enabled_stderr()
}

/// `error:` and what was wrong, on standard error.
pub fn error(message: &str) {
    eprintln!("{} {message}", Style::new().red().bold().force_styling(on_err()).apply_to("error:"));
}

/// A rendered diagnostic: its head, its margin and its carets.
pub fn diagnostic(rendered: &str, wanted: bool) -> String {
    let style = |style: Style| style.force_styling(wanted);
    let (loud, bold) = (style(Style::new().red().bold()), style(Style::new().bold()));
    let margin = style(Style::new().blue());
    let mut out = String::with_capacity(rendered.len());
    for (at, line) in rendered.lines().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let _ = match (line.strip_prefix("error:").filter(|_| at == 0), margin_end(line)) {
            (Some(message), _) => write!(out, "{}{}", loud.apply_to("error:"), bold.apply_to(message)),
            (None, Some(end)) => {
                let (before, behind) = line.split_at(end);
                let marks = behind.contains('^') && behind.chars().all(|c| c == ' ' || c == '^');
                let behind = if marks { loud.apply_to(behind).to_string() } else { behind.to_owned() };
                write!(out, "{}{behind}", margin.apply_to(before))
            }
            (None, None) => write!(out, "{line}"),
        };
    }
    out
}

/// Behind the number of a line and its bar, or what stands in their place.
fn margin_end(line: &str) -> Option<usize> {
    let rest = line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
    let mark = ["-->", "|", "="].into_iter().find(|mark| rest.starts_with(mark))?;
    Some(line.len() - rest.len() + mark.len())
}

/// What others wrote, without the characters that a terminal obeys.
pub fn plain(text: &str, lines: bool) -> String {
    let obeyed = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() && !(lines && c == '\n')) || turns
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENDERED: &str = "error: there is no aggregate `cuont`\n --> m.toml:2:9\n  |\n2 | a = \"cuont()\"\n  |      ^^^^^\n  = expected: one\n  = help: `count`?";

    #[test]
    fn a_diagnostic_keeps_its_text() {
        assert_eq!(diagnostic(RENDERED, false), RENDERED);
        let painted = diagnostic(RENDERED, true);
        assert!(painted.contains("\u{1b}[31m\u{1b}[1m      ^^^^^\u{1b}[0m"), "{painted:?}");
        assert_eq!(painted.matches("\u{1b}[34m").count(), 6, "{painted:?}");
        assert_eq!(console::strip_ansi_codes(&painted), RENDERED);
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do_by_an_event() {
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}c\u{202e}d\ne", false), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e");
        assert_eq!(plain("é 日本\nx", true), "é 日本\nx");
    }
}
