//! The services that many hosts share, as tests start them: what was answered is there after kill -9, and a frozen one
//! answers again. Everything that needs a service is built on this.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::trial::trial;
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tidemark_services::{Kind, Proxy, Service, missing};

pub fn trials() -> Vec<Trial> {
    vec![
        with(Kind::Kafka, "kafka outlives what is done to it", || outlives(Kind::Kafka, kafka_write, kafka_read)),
        with(Kind::Redis, "redis outlives what is done to it", || outlives(Kind::Redis, redis_write, redis_read)),
        with(Kind::ClickHouse, "clickhouse outlives what is done to it", || {
            outlives(Kind::ClickHouse, clickhouse_write, clickhouse_read)
        }),
        with(Kind::ClickHouse, "clickhouse asks for a password", clickhouse_password),
        with(Kind::Redis, "a lost answer was work done", lost_answer),
    ]
}

/// A test that counts as not run where the service cannot be had, and says why.
pub fn with(kind: Kind, name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let reason = missing(kind);
    if let Some(reason) = &reason {
        eprintln!("NOT RUN services::{name}: {reason}");
    }
    trial(format!("services::{name}"), run).with_ignored_flag(reason.is_some())
}

fn outlives(
    kind: Kind,
    write: fn(&Service, u32) -> Result<()>,
    read: fn(&Service) -> Result<Vec<String>>,
) -> Result<()> {
    let mut service = Service::start(kind)?;
    write(&service, 1)?;
    service.kill()?;
    ensure!(read(&service).is_err(), "it is gone");
    service.start_again()?;
    write(&service, 2)?;
    service.freeze()?;
    ensure!(!service.answers(Duration::from_millis(200)), "it is frozen");
    std::thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| write(&service, 3));
        service.thaw()?;
        writing.join().expect("no panic")
    })?;
    service.stop()?;
    service.start_again()?;
    let found = read(&service)?;
    ensure!(found == ["1", "2", "3"], "{found:?}");
    Ok(())
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    use std::process::Stdio;
    let mut command = Command::new("timeout");
    command.arg("60").arg(program).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn kafka_write(kafka: &Service, number: u32) -> Result<()> {
    // The topic is made by the first write.
    run("kcat", &["-b", &kafka.address(), "-P", "-t", "numbers", "-p", "0"], &format!("{number}\n")).map(drop)
}

fn kafka_read(kafka: &Service) -> Result<Vec<String>> {
    let read = ["-b", &kafka.address(), "-C", "-t", "numbers", "-e", "-q", "-m", "5"];
    Ok(run("kcat", &read, "")?.lines().map(str::to_owned).collect())
}

/// Redis takes commands as lines.
fn redis(address: &str, command: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn redis_write(service: &Service, number: u32) -> Result<()> {
    let answer = redis(&service.address(), &format!("RPUSH numbers {number}"))?;
    ensure!(answer.starts_with(':'), "{answer}");
    Ok(())
}

fn redis_read(service: &Service) -> Result<Vec<String>> {
    let answer = redis(&service.address(), "LRANGE numbers 0 -1")?;
    let values = answer.lines().filter(|line| !line.starts_with(['$', '*', '+']));
    Ok(values.map(str::to_owned).collect())
}

fn clickhouse(address: &str, sql: &str, headers: &[(&str, &str)]) -> Result<String> {
    let request =
        headers.iter().fold(crate::host::agent().post(format!("http://{address}/")), |request, (name, value)| {
            request.header(*name, *value)
        });
    let mut answer = request.send(sql)?;
    let text = answer.body_mut().read_to_string()?;
    ensure!(answer.status() == 200, "{} {text}", answer.status());
    Ok(text)
}

fn clickhouse_write(service: &Service, number: u32) -> Result<()> {
    let address = service.address();
    clickhouse(&address, "CREATE TABLE IF NOT EXISTS numbers (n UInt32) ENGINE = MergeTree ORDER BY n", &[])?;
    clickhouse(&address, &format!("INSERT INTO numbers SETTINGS async_insert = 0 VALUES ({number})"), &[]).map(drop)
}

fn clickhouse_read(service: &Service) -> Result<Vec<String>> {
    let text = clickhouse(&service.address(), "SELECT n FROM numbers ORDER BY n", &[])?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn clickhouse_password() -> Result<()> {
    let service = Service::start_with(Kind::ClickHouse, &["--password", "open"])?;
    let refused = clickhouse(&service.address(), "SELECT 1", &[("X-ClickHouse-Key", "shut")]);
    let refused = refused.err().context("refused")?.to_string();
    ensure!(refused.starts_with("403") && refused.contains("AUTHENTICATION_FAILED"), "{refused}");
    ensure!(clickhouse(&service.address(), "SELECT 1", &[("X-ClickHouse-Key", "open")])? == "1\n", "let in");
    Ok(())
}

fn lost_answer() -> Result<()> {
    let service = Service::start(Kind::Redis)?;
    let proxy = Proxy::before(service.port)?;
    proxy.lose_answers(1);
    let lost = redis(&proxy.address(), "RPUSH numbers 1");
    ensure!(lost.as_ref().map_or(true, String::is_empty) && proxy.lost() == 1, "{lost:?}");
    ensure!(redis_read(&service)? == ["1"], "done");
    proxy.cut();
    ensure!(redis(&proxy.address(), "RPUSH numbers 2").map_or(true, |answer| answer.is_empty()), "cut off");
    proxy.mend();
    redis(&proxy.address(), "RPUSH numbers 3")?;
    ensure!(redis_read(&service)? == ["1", "3"], "mended");
    Ok(())
}
