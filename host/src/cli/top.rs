//! `tidemark top`: how a running host does, in one table that is kept up to date. Reads what anybody can read of it.

mod exposition;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use console::{Style, Term};
use serde::Deserialize;

use super::client::Remote;
use super::paint;
use super::table::{Cell, Table};
use crate::serve::query::request::parse_duration;
use exposition::Samples;

/// Show how a running host does: rate, lag, shards, plugins, connections. Once, where the output is no terminal.
#[derive(Args)]
pub struct Arguments {
    /// Between two looks.
    #[arg(long, default_value = "2s", value_parser = every)]
    every: Duration,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Deserialize)]
struct Status {
    version: String,
    started_at: i64,
    now: i64,
    ready: bool,
    events_total: u64,
    events_per_s: f64,
    rejected_total: u64,
    late_total: u64,
    duplicates_total: u64,
    lag_ms: i64,
    impaired: Vec<String>,
}

#[derive(Deserialize)]
struct Plugins {
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    name: String,
    kind: String,
    state: String,
    rows: u64,
    memo_hits: u64,
    memo_misses: u64,
    ns_per_row: f64,
    traps: u64,
}

struct Look {
    at: Instant,
    status: Status,
    samples: Samples,
    plugins: Vec<Plugin>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let terminal = Term::stdout();
    let mut before = None;
    loop {
        let look = Look::at(&arguments.remote)?;
        let screen = screen(&look, before.as_ref(), paint::on_out());
        if !terminal.is_term() {
            return super::print(screen.as_bytes());
        }
        let (rows, _) = terminal.size();
        let lines: Vec<&str> = screen.lines().take(usize::from(rows.saturating_sub(1)).max(1)).collect();
        terminal.clear_screen()?;
        terminal.write_line(&lines.join("\n"))?;
        before = Some(look);
        std::thread::sleep(arguments.every);
    }
}

impl Look {
    fn at(remote: &Remote) -> anyhow::Result<Self> {
        let odd = || "the answer is not what a Tidemark host says";
        let status = serde_json::from_str(&remote.text("/v1/status")?).with_context(odd)?;
        let Plugins { plugins } = serde_json::from_str(&remote.text("/v1/plugins")?).with_context(odd)?;
        let samples = Samples::read(&remote.text("/metrics")?);
        Ok(Self { at: Instant::now(), status, samples, plugins })
    }
}

fn screen(look: &Look, before: Option<&Look>, colours: bool) -> String {
    let Status { version, started_at, now, ready, impaired, .. } = &look.status;
    let loud = Style::new().red().bold().force_styling(colours);
    let good = Style::new().green().force_styling(colours);
    let state = if *ready { good.apply_to("ready") } else { loud.apply_to("not ready") };
    let mut out = format!("tidemark {version}, up {}, {state}\n", span(now - started_at));
    for problem in impaired {
        let _ = writeln!(out, "{}", loud.apply_to(paint::plain(problem, false)));
    }
    for table in [events(&look.status), load(look), shards(look, before), plugins(&look.plugins)] {
        if table.rows.len() > 1 {
            let _ = write!(out, "\n{}", table.render(colours));
        }
    }
    out
}

fn events(status: &Status) -> Table {
    let head = ["events/s", "lag", "events", "rejected", "late", "duplicates"];
    let mut table = Table::new(head.map(Cell::right).to_vec());
    let lag = format!("{:.1} s", status.lag_ms as f64 / 1e3);
    let totals = [status.events_total, status.rejected_total, status.late_total, status.duplicates_total].map(grouped);
    let cells = [rate(status.events_per_s), lag].into_iter().chain(totals);
    table.rows.push(cells.map(Cell::right).collect());
    table
}

fn load(look: &Look) -> Table {
    let head = ["connections", "live", "subscriptions", "queries", "waiting", "journal", "state"];
    let mut table = Table::new(head.map(Cell::right).to_vec());
    let of = |name: &str| look.samples.one(&format!("tidemark_{name}")).unwrap_or(0.0);
    let counts =
        ["connections", "live_connections", "live_subscriptions", "queries_total"].map(|name| grouped(of(name) as u64));
    let sizes = ["ingest_queue_bytes", "journal_size_bytes", "state_memory_bytes"].map(|name| bytes(of(name)));
    table.rows.push(counts.into_iter().chain(sizes).map(Cell::right).collect());
    table
}

fn shards(look: &Look, before: Option<&Look>) -> Table {
    let mut table = Table::new(["shard", "events/s", "events", "batches waiting"].map(Cell::right).to_vec());
    let waiting = look.samples.each("tidemark_shard_waiting_batches");
    let mut shards: Vec<(&str, f64)> = look.samples.each("tidemark_shard_events_total").collect();
    shards.sort_by_key(|(shard, _)| shard.parse::<u32>().unwrap_or(u32::MAX));
    for (shard, events) in shards {
        let rate = before.and_then(|before| {
            let seconds = look.at.duration_since(before.at).as_secs_f64();
            let then = before.samples.each("tidemark_shard_events_total").find(|(name, _)| *name == shard)?.1;
            (seconds > 0.0).then(|| rate((events - then).max(0.0) / seconds))
        });
        let waits = waiting.clone().find(|(name, _)| *name == shard).map_or(0.0, |(_, batches)| batches);
        let cells = [shard.to_owned(), rate.unwrap_or_else(|| "-".into()), grouped(events as u64), waits.to_string()];
        table.rows.push(cells.map(Cell::right).to_vec());
    }
    table
}

fn plugins(plugins: &[Plugin]) -> Table {
    let head = ["rows", "from memory", "ns/row", "traps"].map(Cell::right);
    let mut table = Table::new(["plugin", "kind", "state"].map(Cell::left).into_iter().chain(head).collect());
    for plugin in plugins {
        let asked = plugin.memo_hits + plugin.memo_misses;
        let share = plugin.memo_hits as f64 / asked.max(1) as f64;
        let known = if asked == 0 { "-".to_owned() } else { format!("{:.1} %", share * 100.0) };
        let state = Cell::left(&plugin.state);
        let bad = Style::new().red().bold();
        let state = if plugin.state == "live" { state } else { state.styled(bad.clone()) };
        let traps = Cell::right(grouped(plugin.traps));
        table.rows.push(vec![
            Cell::left(&plugin.name),
            Cell::left(&plugin.kind),
            state,
            Cell::right(grouped(plugin.rows)),
            Cell::right(known),
            Cell::right(format!("{:.0}", plugin.ns_per_row)),
            if plugin.traps > 0 { traps.styled(bad) } else { traps },
        ]);
    }
    table
}

fn every(text: &str) -> Result<Duration, String> {
    let known = parse_duration(text).filter(|ms| *ms >= 100);
    known.map(|ms| Duration::from_millis(ms as u64)).ok_or_else(|| format!("`{text}` is no duration of at least 100ms"))
}

/// `1 234 567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn rate(per_s: f64) -> String {
    if per_s < 100.0 { format!("{per_s:.1}") } else { grouped(per_s.round() as u64) }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        ..1e3 => format!("{bytes:.0} B"),
        ..1e6 => format!("{:.0} KB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

fn span(ms: i64) -> String {
    let minutes = ms / 60_000;
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{} s", ms.max(0) / 1_000),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(events: f64, seconds: u64) -> Look {
        let status = serde_json::from_str(
            r#"{"version":"1.2.3","started_at":0,"now":93784000,"ready":true,"events_total":1234567,"events_per_s":1000.4,
                "rejected_total":1,"late_total":2,"duplicates_total":3,"lag_ms":750,"impaired":["history is not written"]}"#,
        );
        let plugins = serde_json::from_str(
            r#"[{"name":"geo_ip","kind":"enricher","state":"quarantined","rows":12,"memo_hits":3,"memo_misses":1,
                 "ns_per_row":560.4,"traps":7}]"#,
        );
        let metrics = format!(
            "tidemark_connections 4\ntidemark_shard_events_total{{shard=\"0\"}} {events}\n\
             tidemark_shard_waiting_batches{{shard=\"0\"}} 2\ntidemark_journal_size_bytes 1500000\n"
        );
        let samples = Samples::read(&metrics);
        let at = Instant::now() + Duration::from_secs(seconds);
        Look { at, status: status.unwrap(), samples, plugins: plugins.unwrap() }
    }

    #[test]
    fn one_screen_says_how_it_does() {
        let screen = screen(&look(3_000.0, 2), Some(&look(1_000.0, 0)), false);
        for words in [
            "tidemark 1.2.3, up 1 d 2 h, ready\nhistory is not written\n",
            "   1 000  0.8 s  1 234 567         1     2           3\n",
            "          4     0              0        0      0 B   1.5 MB    0 B\n",
            "geo_ip  enricher  quarantined    12       75.0 %     560      7\n",
        ] {
            assert!(screen.contains(words), "{words:?} is missing in\n{screen}");
        }
        let rate = screen.lines().find(|line| line.starts_with("    0 ")).unwrap();
        assert!(rate.contains(" 1 000  ") || rate.contains(" 999  "), "2,000 in two seconds: {rate}");
    }
}
