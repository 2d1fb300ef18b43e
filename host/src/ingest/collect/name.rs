//! Names of events in snake case. Knows nothing of who named them.

/// `Order Completed`, `orderCompleted` and `order-completed` are `order_completed`. A name without a letter or digit stays as
/// it is.
pub fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before: Option<char> = None;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_alphanumeric() {
            // A word begins behind what separates, at a capital behind a small letter, and at the last capital of several.
            let begins = before.is_none_or(|before| {
                c.is_uppercase() && (!before.is_uppercase() || rest.peek().is_some_and(|next| next.is_lowercase()))
            });
            if begins && !out.is_empty() {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        }
        before = Some(c).filter(|c| c.is_alphanumeric());
    }
    if out.is_empty() { name.to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        let cases = [
            ("Order Completed", "order_completed"),
            ("orderCompleted", "order_completed"),
            ("Order-Completed!", "order_completed"),
            ("  order__completed ", "order_completed"),
            ("order_completed", "order_completed"),
            ("HTTPError", "http_error"),
            ("Step2Done", "step2_done"),
            ("Video 50% Watched", "video_50_watched"),
            ("$autocapture", "autocapture"),
            ("Größe Geändert", "größe_geändert"),
            ("购买", "购买"),
            ("A", "a"),
            ("ABC", "abc"),
            ("!?", "!?"),
            ("", ""),
        ];
        for (name, expected) in cases {
            assert_eq!(super::snake_case(name), expected, "{name}");
        }
    }
}
