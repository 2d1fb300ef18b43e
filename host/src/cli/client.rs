//! A running host, asked over HTTP. Knows the shape of its errors, not what it is asked.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::paint;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Until the head of an answer has come.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Of one answer; two million points are some 60 MB.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
const ERROR_BYTES_MAX: u64 = 1 << 16;

/// What stays as it is in a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Args)]
pub struct Remote {
    /// The running host.
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "TIDEMARK_URL")]
    url: String,
    /// A key that reads, where the host has keys.
    #[arg(long, env = "TIDEMARK_READ_KEY", value_delimiter = ',', hide_env_values = true)]
    read_key: Vec<String>,
}

/// The host has understood, and says no: exit 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    /// As the host says it.
    pub fn new(message: &str, help: &str) -> Self {
        Self(paint::plain(&format!("{message}\n{help}"), true))
    }
}

pub type Answer = ureq::http::Response<ureq::Body>;

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorText,
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
    help: String,
}

impl Remote {
    /// `path` with its parameters, which are escaped.
    pub fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let base = self.url.trim_end_matches('/');
        if !base.starts_with("http://") && !base.starts_with("https://") {
            bail!("--url: `{base}` is no address such as http://127.0.0.1:8080");
        }
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier);
        let config = ureq::Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_recv_response(Some(ANSWER_WITHIN))
            .user_agent(concat!("tidemark/", env!("CARGO_PKG_VERSION")))
            .build();
        let mut request = ureq::Agent::new_with_config(config).get(format!("{base}{path}"));
        // The variable may hold several, for the host.
        if let Some(key) = self.read_key.first() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let answer = request.call().with_context(|| format!("cannot ask {base}"))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(answer)) }
    }

    /// The whole answer.
    pub fn text(&self, path: &str) -> anyhow::Result<String> {
        let mut answer = self.get(path)?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        body.read_to_string().with_context(|| format!("the answer of {} broke off", self.url))
    }
}

/// As the host says it: its message and its help.
fn refused(answer: Answer) -> anyhow::Error {
    let status = answer.status();
    let mut text = String::new();
    // What broke off says nothing either.
    let _ = answer.into_body().into_reader().take(ERROR_BYTES_MAX).read_to_string(&mut text);
    let said = match serde_json::from_str::<ErrorBody>(&text) {
        Ok(ErrorBody { error }) => Refused::new(&error.message, &error.help),
        Err(_) => Refused(format!("the answer is {status}, and not of a Tidemark host")),
    };
    if status.is_client_error() { said.into() } else { anyhow::Error::msg(said.0) }
}

pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_looked_at_before_they_are_asked() {
        for url in ["127.0.0.1:8080", "ftp://host", ""] {
            let remote = Remote { url: url.into(), read_key: vec![] };
            let error = remote.get("/").expect_err(url).to_string();
            assert!(error.contains("is no address"), "{error}");
        }
    }

    #[test]
    fn nothing_of_a_value_is_url() {
        assert_eq!(escaped("a b&c=d,%é/~"), "a%20b%26c%3Dd%2C%25%C3%A9%2F~");
    }
}
