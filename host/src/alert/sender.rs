//! A target's task: sends what it is to be told, one message after the other, with ever longer pauses while it does not take
//! them. Does not know of other targets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::client::Client;
use super::{Alerts, Message, Next};

/// Doubled with each failure in a row, up to the second.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Until the target is gone, or the host stops: what is on its way then is waited for.
pub async fn run(alerts: Arc<Alerts>, name: String, client: Arc<Client>, mut stopped: watch::Receiver<bool>) {
    let mut failures = 0;
    while !*stopped.borrow() {
        let Some(Next { wake, message }) = alerts.next(&name) else { return };
        let Some(Message { url, body, batch }) = message else {
            tokio::select! {
                () = wake.notified() => {}
                _ = stopped.changed() => return,
            }
            continue;
        };
        let outcome = client.post(&url, body).await;
        alerts.note(&name, &batch, &outcome);
        if outcome.is_ok() {
            failures = 0;
            let keeping = alerts.clone();
            // What cannot be kept has said so.
            let _ = tokio::task::spawn_blocking(move || keeping.save()).await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(pause(failures)) => {}
            _ = stopped.changed() => return,
        }
        failures += 1;
    }
}

fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(6)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let pauses: Vec<u64> = (0..9).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
