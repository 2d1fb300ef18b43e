//! A WebSocket of the host's side: the handshake, and frames that many are sent written without a copy for each. Does not know
//! what is said, nor on which threads.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use bytes::{Buf, BufMut, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::frame::Frame;
use crate::serve::listen::WatchedStream;

/// Of a frame or message that a client sends.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// A connection keeps so much for what comes in; a longer message takes its own length, and gives it back.
const READ_BUFFER_BYTES: usize = 1024;
/// A client that takes no byte for so long is gone.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// A client that made us wait for so long and then went on is there.
const WAITED: Duration = Duration::from_secs(1);
/// The last and only frame of a text message, and what says how long it is (RFC 6455, 5.2).
const TEXT_WHOLE: u8 = 0x81;
const LEN_IN_16_BITS: u8 = 126;
const LEN_IN_64_BITS: u8 = 127;

/// The connection is over.
pub struct Gone;

pub struct Stream {
    socket: WebSocketStream<TcpStream>,
    /// When the client was last known to be there.
    pub heard: Instant,
}

/// The answer that opens a WebSocket, or why the request does not ask for one.
pub fn handshake(request: &Request<Body>) -> Result<Response<Body>, String> {
    create_response_with_body(request, Body::empty).map_err(|error| error.to_string())
}

impl Stream {
    /// Takes the connection out of the hands of HTTP and of the runtime that accepted it: the one that this runs on looks after it.
    pub async fn open(upgraded: Upgraded) -> Result<Self, Gone> {
        let parts = upgraded.downcast::<TokioIo<WatchedStream>>().map_err(|_| Gone)?;
        let stream = parts.io.into_inner().into_inner().into_std().and_then(TcpStream::from_std).map_err(|_| Gone)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        // What the client has said already was read with its request.
        let said = parts.read_buf.to_vec();
        let socket = WebSocketStream::from_partially_read(stream, said, Role::Server, Some(config)).await;
        Ok(Self { socket, heard: Instant::now() })
    }

    /// The next message; may be dropped while it waits.
    pub async fn next(&mut self) -> Result<Message, Gone> {
        let message = self.socket.next().await.ok_or(Gone)?.map_err(|_| Gone)?;
        self.heard = Instant::now();
        Ok(message)
    }

    pub async fn ping(&mut self) -> Result<(), Gone> {
        self.control(Message::Ping(Bytes::new())).await
    }

    pub async fn close(&mut self, frame: CloseFrame) -> Result<(), Gone> {
        self.control(Message::Close(Some(frame))).await
    }

    async fn control(&mut self, message: Message) -> Result<(), Gone> {
        timeout(TAKE_WITHIN, self.socket.send(message)).await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Writes a text frame as it is. The library would copy it into a buffer of the connection, and keep one as large as the
    /// largest frame for as long as the connection lives. Not to be dropped half-way.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Gone> {
        let started = Instant::now();
        // Nothing of the library's own stands half written in between.
        timeout(TAKE_WITHIN, self.socket.flush()).await.map_err(|_| Gone)?.map_err(|_| Gone)?;
        let mut bytes = header(frame.len()).chain(frame.head.clone()).chain(frame.body.clone());
        let stream = self.socket.get_mut();
        while bytes.has_remaining() {
            match timeout(TAKE_WITHIN, stream.write_buf(&mut bytes)).await {
                Ok(Ok(taken)) if taken > 0 => {}
                _ => return Err(Gone),
            }
        }
        if started.elapsed() > WAITED {
            self.heard = Instant::now();
        }
        Ok(())
    }
}

fn header(len: usize) -> Bytes {
    let mut header = BytesMut::with_capacity(10);
    header.put_u8(TEXT_WHOLE);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if len < LEN_IN_16_BITS => header.put_u8(len),
        (_, Ok(len)) => {
            header.put_u8(LEN_IN_16_BITS);
            header.put_u16(len);
        }
        _ => {
            header.put_u8(LEN_IN_64_BITS);
            header.put_u64(len as u64);
        }
    }
    header.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_the_standard_says() {
        let cases: [(usize, &[u8]); 5] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 255, 255]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ];
        for (len, bytes) in cases {
            assert_eq!(header(len), bytes, "{len}");
        }
    }
}
