//! What a selector asks of a label. Knows values, no series.

use regex::{Regex, RegexBuilder};
use rusty_promql_parser::parser::selector::{LabelMatchOp, LabelMatcher};

const REGEX_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: String,
    /// As typed.
    pub value: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equal,
    NotEqual,
    Matches(Regex),
    MatchesNot(Regex),
}

impl Matcher {
    pub fn equal(name: &str, value: String) -> Self {
        Self { name: name.to_owned(), value, test: Test::Equal }
    }

    pub fn new(matcher: LabelMatcher) -> Result<Self, String> {
        let LabelMatcher { name, op, value } = matcher;
        let test = match op {
            LabelMatchOp::Equal => Test::Equal,
            LabelMatchOp::NotEqual => Test::NotEqual,
            LabelMatchOp::RegexMatch => Test::Matches(compile(&value)?),
            LabelMatchOp::RegexNotMatch => Test::MatchesNot(compile(&value)?),
        };
        Ok(Self { name, value, test })
    }

    pub fn is_equal(&self) -> bool {
        matches!(self.test, Test::Equal)
    }

    pub fn is_regex(&self) -> bool {
        matches!(self.test, Test::Matches(_) | Test::MatchesNot(_))
    }

    pub fn is_match(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal => self.value == value,
            Test::NotEqual => self.value != value,
            Test::Matches(regex) => regex.is_match(value),
            Test::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// Matches whole values.
fn compile(pattern: &str) -> Result<Regex, String> {
    // A line break is a character like others, as in Prometheus.
    let builder = RegexBuilder::new(&format!("^(?s:{pattern})$")).size_limit(REGEX_BYTES_MAX).build();
    builder.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("the regular expression `{pattern:.100}` is too large"),
        _ => format!("`{pattern:.100}` is no regular expression"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_values() {
        let cases = [
            ("US|DE", &["US", "DE"][..], &["USA", "", "XDE"][..]),
            (".*", &["", "a", "a\nb"], &[]),
            (".+", &["a"], &[""]),
            ("(a|b)c?", &["a", "bc"], &["abc"]),
            ("a\\.b", &["a.b"], &["axb"]),
        ];
        for (pattern, matched, others) in cases {
            let regex = compile(pattern).unwrap();
            assert!(matched.iter().all(|value| regex.is_match(value)), "{pattern}");
            assert!(!others.iter().any(|value| regex.is_match(value)), "{pattern}");
        }
        assert!(compile("(").unwrap_err().contains("no regular expression"));
        assert!(compile("(\\w{500}){50}").unwrap_err().contains("too large"));
    }
}
