//! `tidemark run`: the host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::paint;
use crate::ingest::http;
use crate::ingest::journal::JournalSettings;
use crate::ingest::kafka::{KafkaSettings, MESSAGE_BYTES_MAX};
use crate::plugin::Limits;
use crate::runtime::host::{Host, HostSettings, StartError};
use crate::runtime::roles::Roles;
use crate::serve;
use crate::store::clickhouse::Address;
use crate::time::{Clock, Millis};
use crate::web::{Keys, Network};

const SHARDS_MAX: usize = 16;
/// Open files that are kept for stores, the journal, services, and senders of events.
const FILES_BESIDES: u64 = 1_000;

/// Run the host: events in, live numbers out.
#[derive(Args)]
pub struct Arguments {
    /// What to measure; watched and reloaded while running.
    #[arg(long, default_value = "metrics.toml", env = "TIDEMARK_METRICS")]
    metrics: PathBuf,
    /// The folder of plugins and the files granted to them; watched too.
    #[arg(long, default_value = "plugins", env = "TIDEMARK_PLUGINS")]
    plugins: PathBuf,
    /// Where the journal and the state are kept.
    #[arg(long, default_value = "data", env = "TIDEMARK_DATA")]
    data: PathBuf,
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", env = "TIDEMARK_LISTEN")]
    listen: SocketAddr,
    /// Threads that count events, at most 16; as many as there are cores, if not given.
    #[arg(long, env = "TIDEMARK_SHARDS")]
    shards: Option<usize>,
    /// How often what was counted becomes visible; 1s if not given, with --redis 5s.
    #[arg(long, env = "TIDEMARK_TICK", value_parser = duration)]
    tick: Option<Millis>,
    /// How often dashboards are sent what changed.
    #[arg(long, default_value = "10s", env = "TIDEMARK_REFRESH", value_parser = duration)]
    refresh: Millis,
    /// How long after its end a minute closes.
    #[arg(long, default_value = "10s", env = "TIDEMARK_GRACE", value_parser = duration)]
    grace: Millis,
    /// How often state goes to disk: tests want it more often.
    #[arg(long, value_parser = duration, default_value = "10s", hide = true)]
    checkpoint: Millis,
    /// Built-in traffic of a shop, in events per second (40 if not given).
    #[arg(long, env = "TIDEMARK_DEMO", num_args = 0..=1, default_missing_value = "40", value_name = "EVENTS_PER_S")]
    demo: Option<f64>,
    /// Kafka's brokers (`host:port`, separated by commas): the log instead of the host's own journal.
    #[arg(long, env = "TIDEMARK_KAFKA", value_name = "BROKERS")]
    kafka: Option<String>,
    /// The topic that events are in.
    #[arg(long, default_value = "events", env = "TIDEMARK_TOPIC")]
    topic: String,
    /// The consumer group of the hosts of one installation.
    #[arg(long, default_value = "tidemark", env = "TIDEMARK_GROUP")]
    group: String,
    /// A setting of the Kafka client (librdkafka), as KEY=VALUE: TLS, SASL; may be given more than once.
    #[arg(long, env = "TIDEMARK_KAFKA_OPTION", value_delimiter = ';', value_parser = option, hide_env_values = true)]
    kafka_option: Vec<(String, String)>,
    /// Where history and raw events go: http://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE][?cluster=NAME&events_days=30]; in the
    /// data folder, without raw events, if not given.
    #[arg(long, env = "TIDEMARK_CLICKHOUSE", value_name = "URL", value_parser = Address::parse, hide_env_values = true)]
    clickhouse: Option<Address>,
    /// Redis 7.0 or newer (`redis://host:6379/0`): keeps the minutes that can still change, instead of this host's memory.
    #[arg(long, env = "TIDEMARK_REDIS", value_name = "URL", hide_env_values = true)]
    redis: Option<String>,
    /// What this host does, of ingest, work and serve, separated by commas: where Kafka and Redis are, they may be spread
    /// over hosts.
    #[arg(long, default_value = "ingest,work,serve", env = "TIDEMARK_ROLES")]
    roles: Roles,
    /// A key that sends events; may be given more than once.
    #[arg(long, env = "TIDEMARK_WRITE_KEY", value_delimiter = ',', hide_env_values = true)]
    write_key: Vec<String>,
    /// A key that reads everything; may be given more than once.
    #[arg(long, env = "TIDEMARK_READ_KEY", value_delimiter = ',', hide_env_values = true)]
    read_key: Vec<String>,
    /// Listen beyond loopback without keys.
    #[arg(long, env = "TIDEMARK_ALLOW_ANONYMOUS")]
    allow_anonymous: bool,
    /// Another origin whose pages may open a live connection and send events; may be given more than once.
    #[arg(long, env = "TIDEMARK_ALLOW_ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<String>,
    /// Live connections (dashboards); further ones are answered with 503. Each needs an open file.
    #[arg(long, default_value_t = serve::CONNECTIONS_MAX, env = "TIDEMARK_CONNECTIONS_MAX", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections_max: u32,
    /// An address or range whose `X-Forwarded-For` is believed; may be given more than once.
    #[arg(long, env = "TIDEMARK_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxy: Vec<Network>,
    /// Bytes of the journal on disk; the oldest goes first.
    #[arg(long, default_value_t = 8 << 30, env = "TIDEMARK_JOURNAL_BYTES_MAX")]
    journal_bytes_max: u64,
    /// Age of the journal.
    #[arg(long, default_value = "3d", env = "TIDEMARK_JOURNAL_AGE_MAX", value_parser = duration)]
    journal_age_max: Millis,
    /// Bytes of state on disk; history is kept shorter where there are more.
    #[arg(long, default_value_t = 32 << 30, env = "TIDEMARK_DATA_BYTES_MAX")]
    data_bytes_max: u64,
    /// Bytes of minutes that may wait in memory, beyond those kept anyway, for a ClickHouse that does not take them; with more
    /// no events are taken.
    #[arg(long, default_value_t = 1 << 30, env = "TIDEMARK_HISTORY_WAITING_BYTES_MAX")]
    history_waiting_bytes_max: usize,
    /// Of one core, what filling new metrics backwards may take; 1 to 100.
    #[arg(long, default_value_t = 25, env = "TIDEMARK_BACKFILL_PERCENT_MAX", value_parser = clap::value_parser!(u32).range(1..=100))]
    backfill_percent_max: u32,
    /// Bytes of events that may wait to be counted; beyond it senders are asked to come back.
    #[arg(long = "memory-bytes-max", default_value_t = 256 << 20, env = "TIDEMARK_MEMORY_BYTES_MAX")]
    waiting_bytes_max: usize,
    /// Bytes of one body, decompressed.
    #[arg(long, default_value_t = 16 << 20, env = "TIDEMARK_BODY_BYTES_MAX")]
    body_bytes_max: usize,
    /// Bytes of one event.
    #[arg(long, default_value_t = 64 << 10, env = "TIDEMARK_EVENT_BYTES_MAX")]
    event_bytes_max: usize,
    #[command(flatten)]
    limits: Limits,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    let arguments = Arguments { connections_max: room_for(arguments.connections_max), ..arguments };
    let listen = arguments.listen;
    let refresh = arguments.refresh;
    let settings = settings(arguments)?;
    let demo = settings.demo.is_some();
    let host = match Host::start(settings) {
        Ok(host) => host,
        Err(StartError::Definitions(diagnostics)) => {
            super::complain(&diagnostics);
            return Err(StartError::Definitions(diagnostics).into());
        }
        Err(StartError::Other(error)) => return Err(error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = stop_signal();
        let listener =
            tokio::net::TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        println!("listening on http://{}", listener.local_addr()?);
        if demo {
            println!("demo traffic: the last two days are being filled in");
        }
        host.run(listener, refresh, stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn settings(arguments: Arguments) -> anyhow::Result<HostSettings> {
    let Arguments { shards, write_key, read_key, demo, tick, refresh, body_bytes_max, event_bytes_max, .. } = arguments;
    let keys = Keys { write: write_key, read: read_key };
    if !arguments.listen.ip().is_loopback() && !keys.any() && !arguments.allow_anonymous {
        bail!(
            "listening on {} lets anybody in: give --write-key and --read-key, or --allow-anonymous if that is meant",
            arguments.listen
        );
    }
    ensure!(keys.write.iter().chain(&keys.read).all(|key| !key.is_empty()), "an empty key lets nobody in");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = shards.unwrap_or(cores.min(SHARDS_MAX));
    ensure!((1..=SHARDS_MAX).contains(&shards), "--shards: between 1 and {SHARDS_MAX}");
    let tick = tick.unwrap_or(if arguments.redis.is_some() { 5_000 } else { 1_000 });
    ensure!(tick >= 10 && refresh >= 10, "--tick and --refresh: at least 10ms");
    ensure!(
        demo.is_none_or(|rate| rate > 0.0 && rate <= 1e6),
        "--demo: more than 0 and at most 1000000 events per second"
    );
    ensure!(
        event_bytes_max >= 64 && event_bytes_max <= body_bytes_max,
        "--event-bytes-max: between 64 and --body-bytes-max"
    );
    ensure!(body_bytes_max <= 1 << 30, "--body-bytes-max: at most 1 GiB");
    let kafka = arguments.kafka.map(|brokers| KafkaSettings {
        brokers,
        topic: arguments.topic,
        group: arguments.group,
        options: arguments.kafka_option,
        instance: String::new(),
        alone: arguments.redis.is_none(),
    });
    ensure!(
        arguments.roles == Roles::ALL || kafka.is_some() && arguments.redis.is_some(),
        "--roles: a host that leaves a part to others needs --kafka and --redis, or they would not have what it has"
    );
    ensure!(demo.is_none() || arguments.roles.ingest, "--demo: its events are taken in, which is the role `ingest`");
    ensure!(
        kafka.is_none() || event_bytes_max < MESSAGE_BYTES_MAX,
        "--event-bytes-max: less than {MESSAGE_BYTES_MAX} with --kafka, since an event must fit into a message"
    );
    Ok(HostSettings {
        metrics: arguments.metrics,
        plugins: arguments.plugins,
        data: arguments.data,
        shards,
        tick_ms: tick,
        grace_ms: arguments.grace,
        checkpoint_ms: arguments.checkpoint,
        event_bytes_max,
        queue_bytes_max: arguments.waiting_bytes_max,
        data_bytes_max: arguments.data_bytes_max,
        history_waiting_bytes_max: arguments.history_waiting_bytes_max,
        backfill_percent_max: arguments.backfill_percent_max,
        journal: JournalSettings {
            bytes_max: arguments.journal_bytes_max,
            age_max_ms: arguments.journal_age_max,
            ..JournalSettings::default()
        },
        kafka,
        clickhouse: arguments.clickhouse,
        redis: arguments.redis.clone(),
        roles: arguments.roles,
        limits: arguments.limits,
        http: http::Settings {
            keys: keys.clone(),
            trusted_proxies: arguments.trusted_proxy,
            allow_origin: arguments.allow_origin.clone(),
            body_bytes_max,
            inflight_bytes_max: arguments.waiting_bytes_max,
        },
        serve: serve::Settings {
            keys,
            allow_origin: arguments.allow_origin,
            refresh_ms: refresh,
            connections_max: arguments.connections_max,
            shared_seq: arguments.redis.is_some(),
        },
        demo,
        clock: Clock::System,
    })
}

/// As many of these live connections as there can be open files, of which there are made as many as the system allows.
fn room_for(connections: u32) -> u32 {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files cannot be raised");
        rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(u64::MAX, |(soft, _)| soft)
    });
    let room = files.saturating_sub(FILES_BESIDES).max(1);
    if u64::from(connections) > room {
        tracing::info!(files, room, "the limit of open files lets in fewer live connections than --connections-max");
    }
    u64::from(connections).min(room) as u32
}

fn option(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Millis, String> {
    serve::query::request::parse_duration(text)
        .filter(|ms| *ms >= 0)
        .ok_or_else(|| format!("`{text}` is no duration such as 10s, 5m, 1h"))
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // A second logger in one process is the first one's affair.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(paint::on_err())
        .with_target(false)
        .try_init();
}

/// Heard from the call on: a host that is told to go while it starts goes in order, once it has started.
fn stop_signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    async move {
        match signals {
            [Ok(mut terminate), Ok(mut interrupt)] => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            _ => drop(tokio::signal::ctrl_c().await),
        }
    }
}
