//! What everything that speaks HTTP shares: errors as JSON, keys, who the client is. Knows no routes.

pub mod origin;

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

/// `{"error":{"code","message","help"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    /// Snake case, for programs.
    pub code: &'static str,
    pub message: String,
    pub help: String,
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), help: help.into(), retry_after_s: None }
    }

    pub fn bad_request(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message, help)
    }

    pub fn unavailable(reason: impl Into<String>, retry_after_s: u32) -> Self {
        let help = "Nothing was taken; send it again after the time in Retry-After.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason, help).retry_after(retry_after_s)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        let help = "The host's log says more.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, help)
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message, "help": self.help}});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Who may do what. No keys of a kind: anybody may.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub write: Vec<String>,
    pub read: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Write,
    Read,
}

impl Keys {
    pub fn any(&self) -> bool {
        !self.write.is_empty() || !self.read.is_empty()
    }

    /// With keys of any kind set, a request needs one of the right kind.
    pub fn allow(&self, access: Access, given: Option<&str>) -> Result<(), ApiError> {
        if !self.any() {
            return Ok(());
        }
        let (keys, others, word) = match access {
            Access::Write => (&self.write, &self.read, "write"),
            Access::Read => (&self.read, &self.write, "read"),
        };
        let Some(given) = given else {
            return Err(unauthorized(format!("a {word} key is needed")));
        };
        if contains(keys, given) {
            return Ok(());
        }
        let message = if contains(others, given) {
            format!("this key is of the other kind: a {word} key is needed")
        } else {
            "the key is not known".to_owned()
        };
        Err(unauthorized(message))
    }
}

fn unauthorized(message: String) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message, "Send it as `Authorization: Bearer KEY`.")
}

/// Looks at every key and every byte whatever they are, so that the time tells nothing but lengths.
fn contains(keys: &[String], given: &str) -> bool {
    keys.iter().fold(false, |found, key| found | equal(key.as_bytes(), given.as_bytes()))
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0u8, |all, (a, b)| all | std::hint::black_box(a ^ b));
    a.len() == b.len() && differences == 0
}

/// The key of `Authorization: Bearer KEY`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// User name and password of `Authorization: Basic …`; one that has no colon is a user name alone.
fn basic(headers: &HeaderMap) -> Option<(String, Option<String>)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, packed) = value.split_once(' ')?;
    let text = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(packed.trim()))?.ok()?;
    let text = String::from_utf8(text).ok()?;
    Some(match text.split_once(':') {
        Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
        None => (text, None),
    })
}

/// The password of `Authorization: Basic …`, whoever the user is.
pub fn basic_password(headers: &HeaderMap) -> Option<String> {
    basic(headers)?.1
}

/// The user name of `Authorization: Basic …`: where other vendors' clients put their key.
pub fn basic_user(headers: &HeaderMap) -> Option<String> {
    Some(basic(headers)?.0)
}

/// The other end of the connection, in a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The client's address: that of the connection, or the rightmost of `X-Forwarded-For` that is no trusted proxy where the
/// connection comes from one.
pub fn client_address(peer: Option<SocketAddr>, headers: &HeaderMap, trusted_proxies: &[Network]) -> Option<IpAddr> {
    let trusted = |address: IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
    let mut address = peer?.ip().to_canonical();
    let forwarded = headers.get_all("x-forwarded-for");
    let listed: Vec<&str> = forwarded.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    for text in listed.into_iter().rev() {
        if !trusted(address) {
            break;
        }
        let Some(before) = forwarded_address(text.trim()) else { break };
        address = before;
    }
    Some(address)
}

/// Some proxies add the port.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// An address, or a range of them such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address and no range such as 10.0.0.0/8");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if prefix_bits > most {
            return Err(wrong());
        }
        Ok(Self { address, prefix_bits })
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let (mine, theirs, width) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(theirs)) => (u128::from(mine.to_bits()), u128::from(theirs.to_bits()), 32),
            (IpAddr::V6(mine), IpAddr::V6(theirs)) => (mine.to_bits(), theirs.to_bits(), 128),
            _ => return false,
        };
        let shift = width - u32::from(self.prefix_bits);
        mine.checked_shr(shift) == theirs.checked_shr(shift)
    }
}

/// The name that was probably meant.
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    let near = known.into_iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    near.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_open_only_their_own_door() {
        let keys = Keys { write: vec!["w1".into(), "w2".into()], read: vec!["r1".into()] };
        let cases = [
            (Access::Write, Some("w1"), true),
            (Access::Write, Some("w2"), true),
            (Access::Write, Some("r1"), false),
            (Access::Write, Some("w"), false),
            (Access::Write, Some("w11"), false),
            (Access::Write, Some(""), false),
            (Access::Write, None, false),
            (Access::Read, Some("r1"), true),
            (Access::Read, Some("w1"), false),
            (Access::Read, None, false),
        ];
        for (access, given, allowed) in cases {
            assert_eq!(keys.allow(access, given).is_ok(), allowed, "{access:?} {given:?}");
            assert!(Keys::default().allow(access, given).is_ok());
        }
        let write_only = Keys { write: vec!["w".into()], read: Vec::new() };
        assert!(write_only.allow(Access::Read, None).is_err(), "a host with keys is not open to readers by accident");
    }

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        let proxies: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let cases = [
            ("203.0.113.9:1", "198.51.100.1", "203.0.113.9"),
            ("10.1.2.3:1", "198.51.100.1", "198.51.100.1"),
            ("10.1.2.3:1", "6.6.6.6, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
            ("10.1.2.3:1", "198.51.100.1:4711", "198.51.100.1"),
            ("10.1.2.3:1", "nonsense", "10.1.2.3"),
            ("10.1.2.3:1", "10.0.0.1", "10.0.0.1"),
            ("[::1]:1", "2001:db8::5", "2001:db8::5"),
            ("[::ffff:10.1.2.3]:1", "198.51.100.1", "198.51.100.1"),
        ];
        for (peer, forwarded, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            let address = client_address(Some(peer.parse().unwrap()), &headers, &proxies);
            assert_eq!(address, Some(expected.parse().unwrap()), "{peer} {forwarded}");
        }
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("1.2.3.4".parse().unwrap()));
    }
}
