//! Pages of other sites: which of them may talk to the host. Browsers say where a page comes from, others say nothing.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::ApiError;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// No browser, or a page of the host itself.
    Own,
    /// A page of another site that is let in.
    Listed(&'a HeaderValue),
    Refused(&'a str),
}

/// `allowed`: origins as browsers send them, or `*`.
pub fn of<'a>(headers: &'a HeaderMap, allowed: &[String]) -> Origin<'a> {
    let Some(value) = headers.get(header::ORIGIN) else { return Origin::Own };
    let origin = value.to_str().unwrap_or("null");
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    if authority.zip(own).is_some_and(|(authority, own)| authority.eq_ignore_ascii_case(own)) {
        return Origin::Own;
    }
    let listed = allowed.iter().any(|one| one == "*" || one.trim_end_matches('/').eq_ignore_ascii_case(origin));
    if listed { Origin::Listed(value) } else { Origin::Refused(origin) }
}

pub fn refused(origin: &str, what: &str) -> ApiError {
    let message = format!("pages of `{origin}` may not {what} here");
    ApiError::new(StatusCode::FORBIDDEN, "origin_refused", message, "Start the host with --allow-origin for it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_sites_are_let_in() {
        let allowed = ["https://shop.example/".to_owned(), "http://b.example:81".into()];
        let cases = [
            (None, "own"),
            (Some("http://host:8080"), "own"),
            (Some("https://shop.example"), "listed"),
            (Some("http://B.example:81"), "listed"),
            (Some("http://shop.example"), "refused"),
            (Some("https://shop.example.evil"), "refused"),
            (Some("null"), "refused"),
        ];
        for (origin, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("host", "host:8080".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().unwrap());
            }
            let found = match of(&headers, &allowed) {
                Origin::Own => "own",
                Origin::Listed(_) => "listed",
                Origin::Refused(_) => "refused",
            };
            assert_eq!(found, expected, "{origin:?}");
            assert!(!matches!(of(&headers, &["*".into()]), Origin::Refused(_)));
        }
    }
}
