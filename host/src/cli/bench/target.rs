//! The host under load: its address, and connections to it. Does not know what is said over them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Connections from one address: fewer than there are ports for them.
const FROM_ONE_ADDRESS: usize = 20_000;
/// There are many of them, and most say little.
const READ_BUFFER_BYTES: usize = 4 * 1024;

#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    /// As it stands in the URL.
    authority: String,
    key: Option<HeaderValue>,
}

impl Target {
    pub async fn find(url: &str, key: Option<&str>) -> Result<Self> {
        let parsed = url::Url::parse(url).with_context(|| format!("`{url}` is no address such as http://HOST:PORT"))?;
        ensure!(parsed.scheme() == "http", "`{url}`: only http:// is spoken here; TLS is the proxy's");
        let host = parsed.host_str().with_context(|| format!("`{url}` names no host"))?;
        let port = parsed.port_or_known_default().unwrap_or(80);
        let authority = format!("{host}:{port}");
        let found = tokio::net::lookup_host(authority.clone()).await.map(|mut addresses| addresses.next());
        let address = found.ok().flatten().with_context(|| format!("`{host}` has no address"))?;
        let key = key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))).transpose().context("--key")?;
        Ok(Self { address, authority, key })
    }

    /// `number`: of many connections this one's; where there are not ports enough for all they come from several addresses.
    async fn connect(&self, number: usize) -> Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if number >= FROM_ONE_ADDRESS && self.address.ip() == IpAddr::from(Ipv4Addr::LOCALHOST) {
            let last = u8::try_from(1 + number / FROM_ONE_ADDRESS).context("too many connections for one host")?;
            socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
        }
        let stream =
            socket.connect(self.address).await.with_context(|| format!("no answer from {}", self.authority))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub async fn http(&self) -> Result<Http> {
        let (sender, connection) = handshake(TokioIo::new(self.connect(0).await?)).await?;
        // How it ends is told to whoever sends next.
        tokio::spawn(connection);
        Ok(Http { sender, target: self.clone() })
    }

    pub async fn live(&self, number: usize) -> Result<WebSocketStream<TcpStream>> {
        let mut request = format!("ws://{}/v1/live", self.authority).into_client_request()?;
        if let Some(key) = &self.key {
            request.headers_mut().insert(AUTHORIZATION, key.clone());
        }
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let stream = self.connect(number).await?;
        Ok(tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?.0)
    }
}

/// One connection, kept open.
pub struct Http {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Http {
    pub async fn get(&mut self, path: &str) -> Result<String> {
        let (status, body) = self.send(Method::GET, path, "", Bytes::new()).await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status != StatusCode::OK {
            bail!("GET {path}: {status} {text}");
        }
        Ok(text)
    }

    pub async fn get_json<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        serde_json::from_str(&self.get(path).await?).with_context(|| format!("GET {path}"))
    }

    /// A number of `GET /metrics`, where the host has it.
    pub async fn metric(&mut self, name: &str) -> Result<Option<f64>> {
        Ok(number_of(&self.get("/metrics").await?, name))
    }

    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        content: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        self.sender.ready().await?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.target.authority)?);
        if !content.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        }
        if let Some(key) = &self.target.key {
            headers.insert(AUTHORIZATION, key.clone());
        }
        let response = self.sender.send_request(request).await?;
        Ok((response.status(), response.into_body().collect().await?.to_bytes()))
    }
}

fn number_of(text: &str, name: &str) -> Option<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    f64::from_str(value.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_openmetrics() {
        let text = "# TYPE a gauge\na 12\na_b 3\nc{x=\"y\"} 4\n# EOF\n";
        assert_eq!(["a", "a_b", "c", "d"].map(|name| number_of(text, name)), [Some(12.0), Some(3.0), None, None]);
    }

    #[tokio::test]
    async fn addresses() {
        for bad in ["localhost:8080", "https://localhost", "http://", "nonsense"] {
            assert!(Target::find(bad, None).await.is_err(), "{bad}");
        }
        let target = Target::find("http://127.0.0.1:9/x", Some("k")).await.unwrap();
        assert_eq!(
            (target.authority.as_str(), target.key.unwrap().as_bytes()),
            ("127.0.0.1:9", b"Bearer k".as_slice())
        );
    }
}
