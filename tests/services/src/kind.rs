//! The services: whether they can be had, how they are started, how one knows that they answer.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::dies_with_us;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Kafka,
    Redis,
    ClickHouse,
    /// Its further argument: the webhook that it tells.
    Alertmanager,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kafka => "Kafka",
            Self::Redis => "Redis",
            Self::ClickHouse => "ClickHouse",
            Self::Alertmanager => "Alertmanager",
        })
    }
}

/// 16 bytes in base64; any will do.
const CLUSTER_ID: &str = "dGlkZW1hcmstdGVzdC0wMQ";

/// Why a service cannot be started here; `None`: it can.
pub fn missing(kind: Kind) -> Option<String> {
    let name = match kind {
        Kind::Kafka => "kafka",
        Kind::Redis => "redis",
        Kind::ClickHouse => "clickhouse",
        Kind::Alertmanager => "alertmanager",
    };
    let output = match Command::new(root().join("scripts/services.sh")).args(["has", name]).output() {
        Ok(output) => output,
        Err(error) => return Some(format!("scripts/services.sh does not start: {error}")),
    };
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Root of the sources: where cargo runs the tests, which may be another checkout than the one that they were built in.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let holds = |folder: &&Path| folder.join("scripts/services.sh").exists();
    Path::new(&here).ancestors().find(holds).expect("the crate stands in the workspace").to_owned()
}

/// Where `scripts/services.sh` leaves what it loads.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("TIDEMARK_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("tidemark")))
        .unwrap_or_else(|| variable("HOME").unwrap_or_default().join(".cache/tidemark"));
    folder.join("services")
}

/// Java with Kafka's jars at hand: the class of a tool and its arguments are to follow.
pub fn kafka_java() -> Command {
    let mut jars: OsString = cache().join("kafka-4.3.1").into();
    jars.push("/*");
    let log = root().join("tests/services/kafka/log4j2.properties");
    let mut command = dies_with_us("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC"]).arg(format!("-Dlog4j2.configurationFile={}", log.display()));
    command.arg("-cp").arg(jars);
    command
}

impl Kind {
    /// Where a service keeps what it is given.
    pub(crate) fn data(self, folder: &Path) -> PathBuf {
        folder.join("data")
    }

    pub(crate) fn command(self, folder: &Path, port: u16, second_port: u16, more: &[String]) -> Result<Command> {
        let data = self.data(folder);
        match self {
            Self::Kafka => kafka(folder, port, second_port, more),
            Self::Redis => {
                std::fs::create_dir_all(&data)?;
                let mut command = dies_with_us("redis-server");
                // The append-only file is written before an answer is sent: what was answered outlives kill -9.
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]).arg("--dir").arg(data);
                command.args(["--port", &port.to_string()]).args(more);
                Ok(command)
            }
            Self::ClickHouse => {
                let mut command = dies_with_us(cache().join("chdb-26.9.0/bin/python"));
                command.arg(root().join("tests/services/clickhouse_http.py"));
                command.args(["--port", &port.to_string()]).arg("--path").arg(data).args(more);
                Ok(command)
            }
            Self::Alertmanager => alertmanager(folder, port, more),
        }
    }

    pub(crate) fn answers(self, port: u16, within: Duration) -> bool {
        let ask = || match self {
            Self::Kafka => kafka_has_broker(port, within),
            Self::Redis => Ok(talk(port, within, b"PING\r\n", 5)? == b"+PONG"),
            Self::ClickHouse => Ok(talk(port, within, b"GET /ping HTTP/1.0\r\n\r\n", 12)?.ends_with(b" 200")),
            Self::Alertmanager => Ok(talk(port, within, b"GET /-/ready HTTP/1.0\r\n\r\n", 12)?.ends_with(b" 200")),
        };
        ask().unwrap_or(false)
    }
}

/// Sends a request and reads so many bytes of the answer.
fn talk(port: u16, within: Duration, request: &[u8], answer_bytes: usize) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), within)?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(request)?;
    let mut answer = vec![0; answer_bytes];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Asks for metadata without topics (key 3, version 0 to 13 of Kafka's protocol): a broker that is listed has joined.
fn kafka_has_broker(port: u16, within: Duration) -> Result<bool> {
    // Length; key 3, version 1, correlation 7, no client id; no topics.
    let request = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0];
    // Length, correlation, number of brokers.
    let answer = talk(port, within, &request, 12)?;
    Ok(answer[4..8] == [0, 0, 0, 7] && answer[8..12] != [0, 0, 0, 0])
}

/// Alone, and without its usual pauses before it tells.
fn alertmanager(folder: &Path, port: u16, more: &[String]) -> Result<Command> {
    let configuration = folder.join("alertmanager.yml");
    let webhooks: String = more.iter().map(|url| format!("    webhook_configs: [{{ url: '{url}' }}]\n")).collect();
    let text = format!(
        "route: {{ receiver: test, group_by: ['...'], group_wait: 0s, group_interval: 1s }}\nreceivers:\n  - name: test\n{webhooks}"
    );
    std::fs::write(&configuration, text)?;
    let mut command = dies_with_us("prometheus-alertmanager");
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--cluster.listen-address=");
    Ok(command)
}

/// One node that is broker and controller.
fn kafka(folder: &Path, port: u16, second_port: u16, more: &[String]) -> Result<Command> {
    let (properties, data) = (folder.join("server.properties"), Kind::Kafka.data(folder));
    let text = format!(
        "process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{second_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{second_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
{}
",
        data.display(),
        more.join("\n").replace("{port}", &port.to_string()).replace("{second_port}", &second_port.to_string()),
    );
    std::fs::write(&properties, text)?;
    if !data.exists() {
        let mut format = kafka_java();
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
        let output = format.output().context("java does not start")?;
        ensure!(output.status.success(), "Kafka's folder is not made: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut command = kafka_java();
    command.arg("kafka.Kafka").arg(properties);
    Ok(command)
}
