//! The page's files and the script for other people's pages, from inside the binary. Does not know what they do.

use std::collections::HashMap;
use std::io::Write;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::Embed;

use crate::web::origin::{self, Origin};

#[derive(Embed)]
#[folder = "$CARGO_MANIFEST_DIR/dashboard/dist"]
struct Dist;

const INDEX: &str = "index.html";
const SCRIPT: &str = "tidemark.js";
/// Other people's pages ask for the script with every view: browsers keep it for an hour, and use it a day longer while they
/// look for a newer one.
const SCRIPT_CACHE: &str = "public, max-age=3600, stale-while-revalidate=86400";
/// The page loads only from its host, and nobody frames it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self' ws: wss:; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tidemark</title>\
     <h1>Tidemark is running</h1><p>This binary was built without its page. Build it and the binary again: \
     <code>make build</code>.</p><p>Everything else is there: <a href=\"/v1/metrics\">/v1/metrics</a>, \
     <a href=\"/metrics\">/metrics</a>, <a href=\"/health/ready\">/health/ready</a>.</p></html>";

struct File {
    plain: Bytes,
    /// Where it is smaller.
    gzip: Option<Bytes>,
    content_type: &'static str,
    etag: HeaderValue,
    /// Its name holds a hash of its content.
    immutable: bool,
}

static FILES: LazyLock<HashMap<String, File>> =
    LazyLock::new(|| Dist::iter().filter_map(|path| Some((path.to_string(), File::read(&path)?))).collect());

pub fn index(headers: &HeaderMap) -> Response {
    file(INDEX, headers)
        .unwrap_or_else(|| ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], NOT_BUILT).into_response())
}

/// The file of this path, if the page has one.
pub fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let file = FILES.get(path)?;
    let mut response = if wants(headers, header::IF_NONE_MATCH, file.etag.to_str().unwrap_or("-")) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match &file.gzip {
            Some(gzip) if wants(headers, header::ACCEPT_ENCODING, "gzip") => {
                ([(header::CONTENT_ENCODING, "gzip")], gzip.clone()).into_response()
            }
            _ => file.plain.clone().into_response(),
        }
    };
    let cache = if file.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    out.insert(header::ETAG, file.etag.clone());
    out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

/// The script for pages of any site; `allow_origin` names those that may read it, too.
pub fn script(headers: &HeaderMap, allow_origin: &[String]) -> Option<Response> {
    let mut response = file(SCRIPT, headers)?;
    let out = response.headers_mut();
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(SCRIPT_CACHE));
    out.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    out.append(header::VARY, HeaderValue::from_static("origin"));
    if let Origin::Listed(origin) = origin::of(headers, allow_origin) {
        out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    Some(response)
}

fn wants(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    let values = headers.get_all(name);
    let mut items = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    items.any(|item| item.split(';').next().is_some_and(|item| item.trim().trim_start_matches("W/") == word))
}

impl File {
    fn read(path: &str) -> Option<Self> {
        let embedded = Dist::get(path)?;
        let hash = embedded.metadata.sha256_hash();
        let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = Bytes::from(embedded.data.into_owned());
        let gzip = gzip(&plain).filter(|gzip| gzip.len() < plain.len());
        let etag = HeaderValue::try_from(format!("\"{hex}\"")).ok()?;
        Some(Self { plain, gzip, content_type: content_type(path), etag, immutable: path.starts_with("assets/") })
    }
}

fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or("") {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
