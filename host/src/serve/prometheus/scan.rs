//! Looks over a query before the parser does, which has no limits of its own: length, number of words, and how deep it is nested,
//! since the parser descends. Knows tokens, no grammar.

pub const QUERY_BYTES_MAX: usize = 64 * 1024;
/// Words and signs outside of strings.
const TOKENS_MAX: usize = 2_000;
/// Parentheses in each other, signs in a row, powers of powers; the expression's own depth has the same limit.
pub const DEPTH_MAX: usize = 64;

const RANGES: &str = "range selectors (`[…]`), and the functions over them, are not supported: a value is already that of the \
                      metric's window; see docs/prometheus.md";

pub fn scan(text: &str) -> Result<(), String> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(format!("the query is longer than {QUERY_BYTES_MAX} bytes"));
    }
    let (mut tokens, mut parentheses, mut powers, mut signs) = (0, 0_usize, 0, 0);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = token_bytes(rest, first);
        rest = &rest[length..];
        if first.is_whitespace() || first == '#' {
            continue;
        }
        tokens += 1;
        signs = if matches!(first, '+' | '-') { signs + 1 } else { 0 };
        match first {
            '(' => parentheses += 1,
            ')' => parentheses = parentheses.saturating_sub(1),
            '^' => powers += 1,
            '[' => return Err(RANGES.into()),
            _ => {}
        }
        if tokens > TOKENS_MAX {
            return Err(format!("the query has more than {TOKENS_MAX} words and signs"));
        }
        if parentheses.max(powers).max(signs) > DEPTH_MAX {
            return Err(format!("the query is nested more than {DEPTH_MAX} deep"));
        }
    }
    Ok(())
}

/// Of the token that `text` begins with.
fn token_bytes(text: &str, first: char) -> usize {
    let until = |end: fn(char) -> bool| text.find(end).unwrap_or(text.len());
    match first {
        '"' | '\'' => {
            let mut escaped = false;
            let end = text.char_indices().skip(1).find(|(_, c)| {
                let ends = *c == first && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            end.map_or(text.len(), |(at, _)| at + 1)
        }
        '`' => text[1..].find('`').map_or(text.len(), |at| at + 2),
        '#' => until(|c| c == '\n'),
        c if c.is_whitespace() => until(|c| !c.is_whitespace()),
        c if is_word(c) => until(|c| !is_word(c)),
        c => c.len_utf8(),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_harm_the_parser_is_refused() {
        let deep = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
        let refused = [
            (deep(65), "nested"),
            ("-".repeat(65), "nested"),
            ("1^".repeat(65), "nested"),
            ("1".to_owned() + &"+1".repeat(1_001), "words"),
            ("a".repeat(QUERY_BYTES_MAX + 1), "longer"),
            ("rate(a[5m])".into(), "range selectors"),
        ];
        for (query, reason) in refused {
            let error = scan(&query).unwrap_err();
            assert!(error.contains(reason), "{query:.40}: {error}");
        }
        let fine = [
            deep(64),
            r#"a{b="((((([[[", c='\'[', d=`\`} # [ ( "#.into(),
            format!(r#"a{{b="{}"}}"#, "(".repeat(10_000)),
            "\"open".into(),
            "ä=~`".into(),
        ];
        for query in fine {
            assert_eq!(scan(&query), Ok(()), "{query:.40}");
        }
    }
}
