//! The accept loop: how many connections, how long a silent one is kept, how it all ends. Does not know what is served.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use crate::telemetry::Telemetry;
use crate::web::Peer;

const CONNECTIONS_MAX: u32 = 20_000;
/// From a request's first byte to the end of its headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(20);
const HEADERS_MAX: usize = 100;
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A connection on which nothing moves in either direction for so long is closed. Live ones have pings.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// What is under way when the host stops may take so long.
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// After an error of `accept` that is not the peer's: too many open files, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves; then takes no connection, lets those under way finish, and returns.
pub async fn listen(
    listener: TcpListener,
    router: Router,
    telemetry: Arc<Telemetry>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let (stop, stopping) = watch::channel(());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (place, stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer);
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(WatchedStream::new(stream)), service)
            .with_upgrades();
        let (telemetry, mut stopping) = (telemetry.clone(), stopping.clone());
        tokio::spawn(async move {
            telemetry.serve.connections.inc();
            let mut connection = std::pin::pin!(connection);
            // How a connection ends is its client's affair.
            tokio::select! {
                _ = connection.as_mut() => {}
                _ = stopping.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            telemetry.serve.connections.dec();
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(());
    if tokio::time::timeout(FINISH_WITHIN, places.acquire_many(CONNECTIONS_MAX)).await.is_err() {
        tracing::warn!("connections were still busy after {} s", FINISH_WITHIN.as_secs());
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, Peer)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are written whole; waiting for more would only delay them.
    stream.set_nodelay(true)?;
    Ok((place, stream, Peer(peer)))
}

/// Fails once nothing has moved for `IDLE_MAX`.
pub struct WatchedStream {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
}

impl WatchedStream {
    fn new(stream: TcpStream) -> Self {
        Self { stream, idle: Box::pin(tokio::time::sleep(IDLE_MAX)) }
    }

    /// For those who watch over it themselves.
    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn watched<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
            return done;
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watched(cx, done)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watched(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
