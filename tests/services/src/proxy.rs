//! A TCP proxy before a service, for failures between a client and it: answers that are lost after the service did its work,
//! connections that are refused or cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

/// Forwards to one service until it is dropped.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    arrive: AtomicU32,
    lose: AtomicU32,
    lost: AtomicU32,
    instead: Mutex<Option<&'static str>>,
    cut: AtomicBool,
    closed: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn before(service_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if shared.closed.load(SeqCst) {
                    return;
                }
                // A connection that fails is the client's affair.
                let _ = shared.forward(client, service_port);
            }
        });
        Ok(Self { port, state })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The next answers, so many, do not arrive: the connection ends in their place.
    pub fn lose_answers(&self, count: u32) {
        self.lose_answers_after(0, count);
    }

    /// The same, but so many answers do arrive before.
    pub fn lose_answers_after(&self, arrive: u32, count: u32) {
        self.state.arrive.store(arrive, SeqCst);
        self.state.lose.store(count, SeqCst);
    }

    /// After the answers that are to be lost, once: this comes in an answer's place, and the connection ends.
    pub fn answer_instead(&self, text: &'static str) {
        *self.state.instead.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// How many answers did not arrive.
    pub fn lost(&self) -> u32 {
        self.state.lost.load(SeqCst)
    }

    /// Cuts all connections, and refuses new ones until `mend`.
    pub fn cut(&self) {
        self.state.cut.store(true, SeqCst);
        self.state.end_all();
    }

    /// All is well again: answers arrive, too.
    pub fn mend(&self) {
        self.lose_answers(0);
        self.state.cut.store(false, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, SeqCst);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
    }
}

impl State {
    fn forward(self: &Arc<Self>, client: TcpStream, port: u16) -> io::Result<()> {
        let service = TcpStream::connect(("127.0.0.1", port))?;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.extend([client.try_clone()?, service.try_clone()?]);
        drop(streams);
        if self.cut.load(SeqCst) {
            self.end_all();
            return Ok(());
        }
        let (from_client, to_service) = (client.try_clone()?, service.try_clone()?);
        std::thread::spawn(move || copy(from_client, to_service, |_| true));
        let state = self.clone();
        std::thread::spawn(move || copy(service, client, |client| state.answer_passes(client)));
        Ok(())
    }

    fn answer_passes(&self, client: &mut TcpStream) -> bool {
        let take = |of: &AtomicU32| of.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if take(&self.arrive) {
            return true;
        }
        let lost = take(&self.lose);
        let instead = if lost { None } else { self.instead.lock().unwrap_or_else(PoisonError::into_inner).take() };
        self.lost.fetch_add(u32::from(lost || instead.is_some()), SeqCst);
        // If it does not arrive either, that is a lost answer too.
        instead.map(|text| client.write_all(text.as_bytes()));
        !lost && instead.is_none()
    }

    fn end_all(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Copies until one side ends or `passes` says no; then ends both.
fn copy(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&mut TcpStream) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || !passes(&mut to) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
