//! One POST over http or https, with a deadline and a bounded look at the answer. Knows nothing of what it sends.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Hyper, Error};
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;
use url::Url;

/// From the look-up of the name to the answer's end.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Of an answer that says no.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const ANSWER_CHARS_SHOWN: usize = 200;

/// Connections are not kept: messages are few, and a kept one is as likely gone as there.
pub struct Client {
    plain: Hyper<HttpConnector, Full<Bytes>>,
    /// Without the machine's authorities there is none.
    secure: Result<Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>, String>,
}

impl Default for Client {
    fn default() -> Self {
        let mut builder = Hyper::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(0);
        let authorities = HttpsConnectorBuilder::new().with_native_roots();
        let secure = authorities.map(|with| builder.build(with.https_only().enable_http1().build())).map_err(|error| {
            format!(
                "no certificates of authorities are found on this machine (ca-certificates is the package): {error}"
            )
        });
        Self { plain: builder.build_http(), secure }
    }
}

impl Client {
    /// Ok: the answer's status is one of success. What goes wrong is said without the address, which may hold a secret.
    pub async fn post(&self, url: &Url, body: Vec<u8>) -> Result<(), String> {
        match tokio::time::timeout(DEADLINE, self.send(url, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
        }
    }

    async fn send(&self, url: &Url, body: Vec<u8>) -> Result<(), String> {
        let request = request(url, body)?;
        let response = if url.scheme() == "https" {
            self.secure.as_ref().map_err(Clone::clone)?.request(request).await
        } else {
            self.plain.request(request).await
        };
        let (head, body) = response.map_err(|error| said(&error))?.into_parts();
        if head.status.is_success() {
            return Ok(());
        }
        let answer = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes());
        let text = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = line.chars().take(ANSWER_CHARS_SHOWN).collect();
        Err(format!("{} {shown}", head.status).trim_end().to_owned())
    }
}

/// A name and a password in the address are sent as Basic authorization.
fn request(url: &Url, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
    let mut bare = url.clone();
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (plain(url.username()), plain(url.password().unwrap_or_default()));
    // Both fail for addresses without a host alone, and http has one.
    let _ = (bare.set_username(""), bare.set_password(None));
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(bare.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("tidemark/", env!("CARGO_PKG_VERSION")));
    if !user.is_empty() || !password.is_empty() {
        let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        request = request.header(AUTHORIZATION, value.map_err(|_| "its name and password cannot be sent")?);
    }
    request.body(Full::new(body.into())).map_err(|error| error.to_string())
}

/// The error with its causes.
fn said(error: &Error) -> String {
    let mut text = if error.is_connect() { "cannot be reached".to_owned() } else { "no whole answer".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}
