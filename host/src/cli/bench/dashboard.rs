//! One dashboard: a live connection with one subscription, and when what came over it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::target::Target;
use crate::time::{Clock, Millis};

/// A storm's connections come back within this time.
pub const STORM: Duration = Duration::from_secs(5);
/// An answer that takes longer is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Before a connection that was refused is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 20;
/// What a frame is about stands at its beginning.
const HEAD_BYTES: usize = 512;

/// What all dashboards are doing.
#[derive(Clone, Copy, PartialEq)]
pub enum Phase {
    Watch,
    /// All drop their connection and come back.
    Storm,
    End,
}

pub struct Dashboard {
    pub target: Target,
    pub number: usize,
    /// Without `op` and `id`.
    pub asked: Value,
}

/// What one dashboard saw.
#[derive(Default)]
pub struct Seen {
    pub deltas: Vec<Delta>,
    pub delta_bytes: u64,
    /// Snapshots after the first: it was skipped forward, or its metric has changed.
    pub skipped: u64,
    pub first: Option<Duration>,
    /// What comes from now on is not measured any more.
    pub watched: bool,
    pub back: Option<Back>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delta {
    pub prev: u64,
    pub seq: u64,
    /// When it had come, by this machine's clock.
    pub at: Millis,
}

/// How it was to come back.
pub struct Back {
    /// From the first try to what was missed, or a snapshot.
    pub took: Duration,
    pub by_delta: bool,
    pub tries: u32,
}

/// Where the client stands.
#[derive(Default)]
struct Held {
    seq: u64,
    epoch: Option<String>,
}

type Socket = WebSocketStream<TcpStream>;

impl Dashboard {
    /// Until the end. `told` hears when it was answered, and again when it is back after a storm. `turn` is held until then.
    pub async fn run(
        self,
        mut phase: watch::Receiver<Phase>,
        told: mpsc::UnboundedSender<()>,
        turn: OwnedSemaphorePermit,
    ) -> Result<Seen> {
        let (mut seen, mut held) = (Seen::default(), Held::default());
        let started = Instant::now();
        let mut socket = self.target.live(self.number).await?;
        self.say(&mut socket, "subscribe", &held).await?;
        next(&mut socket, &mut held, &mut seen).await?;
        seen.first = Some(started.elapsed());
        drop(turn);
        told.send(())?;
        loop {
            let now = *phase.borrow_and_update();
            match now {
                Phase::End => return Ok(seen),
                Phase::Storm if seen.back.is_none() => {
                    seen.watched = true;
                    drop(socket);
                    sleep(STORM.mul_f64(rand::random())).await;
                    let (back, again) = self.come_back(&mut held, &mut seen).await?;
                    seen.back = Some(back);
                    socket = again;
                    told.send(())?;
                }
                _ => {}
            }
            tokio::select! {
                _ = phase.changed() => {}
                frame = read(&mut socket) => take(&frame?, &mut held, &mut seen).map(drop)?,
            }
        }
    }

    async fn come_back(&self, held: &mut Held, seen: &mut Seen) -> Result<(Back, Socket)> {
        let started = Instant::now();
        let mut tries = 1;
        let mut socket = loop {
            match self.target.live(self.number).await {
                Ok(socket) => break socket,
                Err(error) if tries >= TRIES => return Err(error),
                Err(_) => sleep(TRY_AGAIN).await,
            }
            tries += 1;
        };
        self.say(&mut socket, "resume", held).await?;
        let by_delta = next(&mut socket, held, seen).await?;
        Ok((Back { took: started.elapsed(), by_delta, tries }, socket))
    }

    async fn say(&self, socket: &mut Socket, op: &str, held: &Held) -> Result<()> {
        let mut said = self.asked.clone();
        said["op"] = op.into();
        said["id"] = "a".into();
        if op == "resume" {
            said["seq"] = held.seq.into();
            said["epoch"] = held.epoch.clone().into();
        }
        Ok(socket.send(Message::text(said.to_string())).await?)
    }
}

/// Waits for what was asked for. True: it is a delta.
async fn next(socket: &mut Socket, held: &mut Held, seen: &mut Seen) -> Result<bool> {
    let answer = async {
        loop {
            if let Some(by_delta) = take(&read(socket).await?, held, seen)? {
                return Ok(by_delta);
            }
        }
    };
    timeout(ANSWER_WITHIN, answer).await.context("a dashboard was not answered")?
}

async fn read(socket: &mut Socket) -> Result<Message> {
    Ok(socket.next().await.context("a connection was closed")??)
}

/// What a frame says about the numbers: true a delta, false a snapshot.
fn take(message: &Message, held: &mut Held, seen: &mut Seen) -> Result<Option<bool>> {
    let Message::Text(text) = message else {
        match message {
            Message::Close(reason) => bail!("the host closed a connection: {reason:?}"),
            _ => return Ok(None),
        }
    };
    let head = &text[..text.floor_char_boundary(HEAD_BYTES)];
    let seq = || number(head, "seq").with_context(|| format!("a frame without `seq`: {head}"));
    if head.starts_with("{\"op\":\"delta\"") {
        let prev = number(head, "prev");
        if prev != Some(held.seq) {
            bail!("a gap: {} was known, {prev:?} is said to come before {head}", held.seq);
        }
        let prev = std::mem::replace(&mut held.seq, seq()?);
        if !seen.watched {
            seen.delta_bytes += text.len() as u64;
            seen.deltas.push(Delta { prev, seq: held.seq, at: Clock::System.now() });
        }
        return Ok(Some(true));
    }
    if head.starts_with("{\"op\":\"snapshot\"") {
        seen.skipped += u64::from(seen.first.is_some() && !seen.watched);
        let epoch = head.split_once("\"epoch\":\"").and_then(|(_, rest)| rest.split_once('"'));
        *held = Held { seq: seq()?, epoch: epoch.map(|(epoch, _)| epoch.to_owned()) };
        return Ok(Some(false));
    }
    if head.starts_with("{\"op\":\"error\"") {
        bail!("the host answered {text}");
    }
    Ok(None)
}

fn number(head: &str, name: &str) -> Option<u64> {
    let (_, rest) = head.split_once(&format!("\"{name}\":"))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed() {
        let (mut held, mut seen) = (Held::default(), Seen::default());
        let mut told = |text: &str| take(&Message::text(text), &mut held, &mut seen).ok();
        let snapshot = r#"{"op":"snapshot","id":"a","seq":7,"revision":1,"step_ms":60000,"epoch":"2a","series":[]}"#;
        assert_eq!(told(snapshot), Some(Some(false)));
        assert_eq!(told(r#"{"op":"delta","id":"a","prev":7,"seq":9,"points":[]}"#), Some(Some(true)));
        assert_eq!(told(r#"{"op":"anomaly","id":"a"}"#), Some(None));
        assert_eq!(told(r#"{"op":"delta","id":"a","prev":7,"seq":11,"points":[]}"#), None, "a gap");
        assert_eq!(told(r#"{"op":"error","id":"a","code":"x"}"#), None);
        assert_eq!((held.seq, held.epoch.as_deref(), seen.deltas.len()), (9, Some("2a"), 1));
    }
}
