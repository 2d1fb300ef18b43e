//! Who is told: a small HTTP server that keeps what it is sent, and answers as it is told to, or not at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::until;

/// Takes what it is sent, and never answers.
pub const HANGS: u16 = 0;

#[derive(Clone, Debug)]
pub struct Message {
    pub path: String,
    /// Of `Authorization`.
    pub authorization: Option<String>,
    pub body: Value,
}

pub struct Receiver {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    status: AtomicU16,
    tried: AtomicU16,
    taken: Mutex<Vec<Message>>,
    hanging: Mutex<Vec<TcpStream>>,
}

impl Receiver {
    /// Answers with this status.
    pub fn start(status: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let (tried, taken, hanging) = Default::default();
        let state = Arc::new(State { status: AtomicU16::new(status), tried, taken, hanging });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Who sends half a message is not answered.
                let _ = shared.answer(stream);
            }
        });
        Ok(Self { port, state })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn answer_with(&self, status: u16) {
        self.state.status.store(status, SeqCst);
    }

    /// How often it was asked, whatever it answered.
    pub fn tried(&self) -> u16 {
        self.state.tried.load(SeqCst)
    }

    /// What it has taken.
    pub fn taken(&self) -> Vec<Message> {
        self.state.taken.lock().expect("no panic").clone()
    }

    /// Waits for so many messages in all; more is an error. Gives the newest.
    pub fn nth(&self, count: usize) -> Result<Message> {
        let taken = until(&format!("{count} messages"), || {
            let taken = self.taken();
            ensure!(taken.len() <= count, "{} messages instead of {count}: {taken:#?}", taken.len());
            Ok((taken.len() == count).then_some(taken))
        });
        taken?.pop().context("a message")
    }
}

impl State {
    fn answer(&self, stream: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).context("a path")?.to_owned();
        let (mut bytes, mut authorization) = (0, None);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => bytes = value.parse()?,
                "authorization" => authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body)?;
        self.tried.fetch_add(1, SeqCst);
        let status = self.status.load(SeqCst);
        if status == HANGS {
            self.hanging.lock().expect("no panic").push(stream);
            return Ok(());
        }
        if (200..300).contains(&status) {
            let message = Message { path, authorization, body: serde_json::from_slice(&body)? };
            self.taken.lock().expect("no panic").push(message);
        }
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status} as told\r\ncontent-length: 7\r\nconnection: close\r\n\r\nas told")?;
        Ok(())
    }
}

/// TLS before a receiver, one connection after the other; the openssl command speaks it.
pub struct TlsDoor {
    pub port: u16,
    openssl: Child,
}

impl TlsDoor {
    pub fn before(receiver: u16, key: &str, certificate: &str) -> Result<Self> {
        let port = tidemark_services::free_port()?;
        let mut openssl = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-key", key, "-cert", certificate])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl does not start")?;
        let (mut answers, mut asked) =
            (openssl.stdin.take().context("piped")?, openssl.stdout.take().context("piped")?);
        std::thread::spawn(move || -> Result<()> {
            loop {
                // Connections come one after the other through one pipe: a receiver's answer ends each.
                let mut stream = TcpStream::connect(("127.0.0.1", receiver))?;
                let mut back = stream.try_clone()?;
                let done = std::thread::spawn(move || -> Result<Vec<u8>> {
                    let mut answer = Vec::new();
                    back.read_to_end(&mut answer)?;
                    Ok(answer)
                });
                let mut buffer = [0; 4096];
                while !done.is_finished() {
                    let read = asked.read(&mut buffer)?;
                    if read == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buffer[..read])?;
                    if buffer[..read].ends_with(b"}") {
                        break;
                    }
                }
                answers.write_all(&done.join().expect("no panic")?)?;
                answers.flush()?;
            }
        });
        until("the door", || Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
        Ok(Self { port, openssl })
    }
}

impl Drop for TlsDoor {
    fn drop(&mut self) {
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}
