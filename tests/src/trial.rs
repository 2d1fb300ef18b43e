//! How a test is made here: by name, and with an end. One that hangs fails alone, under its own name, and the others run on.

use std::panic;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Failed, Trial};

/// None of these takes so long on the slowest machine; what waits inside has shorter deadlines, and better words.
const LIMIT: Duration = Duration::from_secs(600);

/// One that takes longer says so.
const SLOW: Duration = Duration::from_secs(10);

pub fn trial(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    trial_within(LIMIT, name, run)
}

pub fn trial_within(
    limit: Duration,
    name: impl Into<String>,
    run: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    let name = name.into();
    Trial::test(name.clone(), move || bounded(limit, name, run))
}

/// On a thread of its own, which is left to itself when time is up: it ends with this process.
fn bounded(limit: Duration, name: String, run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<(), Failed> {
    let (done, outcome) = channel();
    let running = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let started = Instant::now();
        let result = run();
        if started.elapsed() > SLOW {
            eprintln!("{name} took {:.0} s", started.elapsed().as_secs_f64());
        }
        let _ = done.send(());
        result
    })?;
    match outcome.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => Err(format!("it hangs: not done after {limit:?}").into()),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match running.join() {
            Ok(result) => result.map_err(|error| format!("{error:?}").into()),
            Err(panicked) => panic::resume_unwind(panicked),
        },
    }
}

pub fn trials() -> Vec<Trial> {
    vec![trial("trial::one_that_hangs_fails", hanging), trial("trial::its_error_and_its_panic_are_its_own", failing)]
}

fn hanging() -> Result<()> {
    let (_never, nothing) = channel::<()>();
    let hangs = bounded(Duration::from_millis(10), "hangs".to_owned(), move || Ok(nothing.recv()?));
    anyhow::ensure!(hangs.is_err_and(|failed| failed.message().is_some_and(|words| words.contains("it hangs"))));
    Ok(())
}

fn failing() -> Result<()> {
    let fails = bounded(LIMIT, "fails".to_owned(), || anyhow::bail!("as told"));
    anyhow::ensure!(fails.is_err_and(|failed| failed.message().is_some_and(|words| words.starts_with("as told"))));
    let panics = panic::catch_unwind(|| bounded(LIMIT, "panics".to_owned(), || panic!("as told, too")));
    anyhow::ensure!(panics.is_err_and(|words| words.downcast_ref() == Some(&"as told, too")));
    Ok(())
}
