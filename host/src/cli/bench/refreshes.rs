//! When the host began to bring dashboards up to date, as its status says. Looks from a thread of its own: the many dashboards of
//! this process do not keep it from looking. Does not know what was told.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

use super::target::{Http, Target};
use crate::time::{Clock, Millis};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A look that takes longer has failed.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// Clocks that differ by less are taken for one.
const SAME_CLOCK_MS: Millis = 500;
/// Refreshes so near each other are one, seen twice by clocks that differ.
const SAME_REFRESH_MS: Millis = 5;

/// When one began, by this machine's clock, and how far the store was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refresh {
    pub at: Millis,
    pub seq: u64,
}

#[derive(Deserialize)]
struct Status {
    now: Millis,
    refreshed_at: Millis,
    refreshed_seq: u64,
}

/// Looks at the host's status until it is asked what it has found.
pub struct Refreshes {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Refresh>>,
}

impl Refreshes {
    pub fn watch(target: Target) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let look = move || runtime.block_on(look(&target, stopped));
        Ok(Self { stop, thread: std::thread::Builder::new().name("refreshes".into()).spawn(look)? })
    }

    /// In the order of time.
    pub async fn found(self) -> Vec<Refresh> {
        let Self { stop, thread } = self;
        drop(stop);
        tokio::task::spawn_blocking(|| thread.join()).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

async fn look(target: &Target, mut stopped: oneshot::Receiver<()>) -> Vec<Refresh> {
    let (mut found, mut http, mut every) = (Vec::<Refresh>::new(), None, interval(LOOK_EVERY));
    loop {
        tokio::select! {
            _ = &mut stopped => return found,
            _ = every.tick() => {}
        }
        let asked = Clock::System.now();
        let looked = timeout(LOOK_WITHIN, status(&mut http, target)).await;
        let Ok(Ok(status)) = looked else {
            // A look less, and another connection for the next.
            http = None;
            continue;
        };
        let ahead = status.now - (asked + Clock::System.now()) / 2;
        // On one machine the clocks are the same, and what differs is how long the answer took.
        let ahead = if ahead.abs() < SAME_CLOCK_MS { 0 } else { ahead };
        let refresh = Refresh { at: status.refreshed_at - ahead, seq: status.refreshed_seq };
        if status.refreshed_at > 0 && found.last().is_none_or(|last| refresh.at - last.at >= SAME_REFRESH_MS) {
            found.push(refresh);
        }
    }
}

async fn status(http: &mut Option<Http>, target: &Target) -> Result<Status> {
    if http.is_none() {
        *http = Some(target.http().await?);
    }
    http.as_mut().context("just made")?.get_json("/v1/status").await
}

/// The refresh that made a frame: it began before the first of equal frames came, when the store was no further than the frame.
pub fn refresh_of(refreshes: &[Refresh], seq: u64, first: Millis) -> Option<usize> {
    refreshes.iter().rposition(|refresh| refresh.seq <= seq && refresh.at <= first)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_frame_is_of_the_refresh_that_made_it() {
        let refreshes = [(1_000, 10), (2_000, 12), (3_000, 12)].map(|(at, seq)| Refresh { at, seq });
        let of = |seq, at| refresh_of(&refreshes, seq, at);
        assert_eq!(of(10, 1_040), Some(0));
        assert_eq!(of(11, 1_040), Some(0), "the store went on meanwhile");
        assert_eq!(of(10, 2_300), Some(0), "late, and not of the next one");
        assert_eq!((of(12, 2_100), of(12, 3_100)), (Some(1), Some(2)));
        assert_eq!((of(9, 900), of(10, 999)), (None, None));
    }

    /// Each connection is good for one answer, and one for none.
    #[tokio::test]
    async fn a_connection_that_is_lost_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let refreshes = Refreshes::watch(Target::find(&url, None).await.unwrap()).unwrap();
        for number in 1..=4_i64 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            if number == 2 {
                continue;
            }
            let (now, at) = (Clock::System.now(), number * 1_000);
            let body = format!("{{\"now\":{now},\"refreshed_at\":{at},\"refreshed_seq\":{number}}}");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        // It comes once more when it has read the last answer.
        drop(listener.accept().await.unwrap());
        let found: Vec<_> = refreshes.found().await.iter().map(|refresh| (refresh.at, refresh.seq)).collect();
        assert_eq!(found, [(1_000, 1), (3_000, 3), (4_000, 4)]);
    }
}
