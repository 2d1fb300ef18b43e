//! `tidemark run --redis` from outside: the counts are in Redis, others can read them, and whatever happens to Redis, every
//! acknowledged event is counted once in the end.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tidemark_services::{Kind, Service, missing};

use crate::host::{self, Home, Host, until};
use crate::http::resume::Dashboard;
use crate::services::with;

const DEFINITIONS: &str = r#"
[event]
time = "ts"
key = "user"
id = "id"

[dimensions]
country = {}

[metrics]
events = "count()"
revenue = "sum(x)"
users = "uniq(user)"
half = "quantile(0.5, x)"
countries = { value = "top(1, country)", by = [] }
path = "funnel('1m', x > 0, country = 'DE')"
"#;

pub fn trials() -> Vec<Trial> {
    vec![
        with(Kind::Redis, "redis holds the counts and others read them", others_read),
        with(Kind::Redis, "redis may be gone, frozen, or emptied", gone_frozen_emptied),
        with(Kind::Redis, "redis and a data folder belong together", belong_together),
        with(Kind::Kafka, "kafka and redis serve two hosts", two_hosts),
        with(Kind::Kafka, "kafka and redis: dashboards of a dead host go on with another", dashboards_move),
    ]
}

fn home(service: &Service) -> Result<Home> {
    let url = format!("redis://{}", service.address());
    Ok(Home::new(DEFINITIONS)?.with_flags(&["--redis", &url, "--checkpoint", "200ms"]))
}

/// Events of one past minute; their ids go on from `from`.
fn lines(at_ms: i64, from: u64, count: u64) -> String {
    let line = |n: u64| {
        let country = if n.is_multiple_of(4) { "DE" } else { "US" };
        format!("{{\"ts\":{at_ms},\"user\":\"u{n}\",\"id\":\"{n}\",\"x\":0.5,\"country\":\"{country}\"}}\n")
    };
    (from..from + count).map(line).collect()
}

/// The start of a minute that is over.
fn minute_ms() -> i64 {
    host::now_ms() / 60_000 * 60_000 - 5 * 60_000
}

fn counted(host: &Host) -> Result<u64> {
    Ok(host.sums("metric=events&from=-1h&step=1h")?.values().sum::<f64>() as u64)
}

fn becomes(host: &Host, expected: u64) -> Result<()> {
    let mut last = 0;
    until(&format!("{expected} events"), || {
        last = counted(host)?;
        ensure!(last <= expected, "{last} of {expected}: counted twice");
        Ok((last == expected).then_some(()))
    })
    .with_context(|| format!("{last}\n{}", host.log()))
}

/// What only hosts can merge is as exact: three quarters are of the US, and who is of DE takes both steps at once.
fn summarised(host: &Host, events: u64) -> Result<()> {
    let ask = |metric: &str| -> Result<Value> {
        let answer = host.get_json(&format!("/v1/query?metric={metric}&from=-30m"))?;
        Ok(answer["series"][0]["points"][0][1].clone())
    };
    let expected = (json!([["US", events / 4 * 3]]), json!([events, events / 4]));
    let found = || Ok(((ask("countries")?, ask("path")?) == expected).then_some(()));
    until(&format!("summaries of {events} events"), found).with_context(|| host.log())?;
    let half = ask("half")?.as_f64().context("a median")?;
    ensure!((half - 0.5).abs() <= 0.005, "{half}");
    Ok(())
}

/// One command, its answer's lines without lengths.
fn redis(service: &Service, command: &str) -> Result<Vec<String>> {
    let stream = TcpStream::connect(service.address())?;
    let mut writer = stream.try_clone()?;
    writer.write_all(format!("{command}\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut values = Vec::new();
    answer(&mut reader, &mut values)?;
    Ok(values)
}

fn answer(reader: &mut impl BufRead, values: &mut Vec<String>) -> Result<()> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        "*" => (0..rest.parse()?).try_for_each(|_: u32| answer(reader, values))?,
        "$" => {
            let mut bytes = vec![0; usize::try_from(rest.parse::<i64>()?).context("no such key")? + 2];
            reader.read_exact(&mut bytes)?;
            values.push(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned());
        }
        "-" => bail!("{rest}"),
        _ => values.push(rest.to_owned()),
    }
    Ok(())
}

fn others_read() -> Result<()> {
    let service = Service::start(Kind::Redis)?;
    let (host, at) = (home(&service)?.start_ready()?, minute_ms());
    host.send(&lines(at, 0, 400))?;
    becomes(&host, 400)?;
    let seconds = at / 1000;
    let key = format!("{{tidemark}}:minute:events:count:{seconds}");
    // Written right after the counts are visible.
    let total = until("what others read", || Ok(redis(&service, &format!("HGET {key} total")).ok()))?;
    ensure!(total == ["400"], "{total:?}");
    let of_de = redis(&service, &format!("HGET {key} country=DE"))?;
    ensure!(of_de == ["100"], "{of_de:?}");
    let users = until("uniques", || {
        let users: u64 = redis(&service, &format!("PFCOUNT {{tidemark}}:uniq:users:{seconds}"))?[0].parse()?;
        Ok((users > 0).then_some(users))
    })?;
    ensure!((390..=410).contains(&users), "{users}");
    let revenue = redis(&service, "ZRANGE {tidemark}:series:revenue:sum 0 -1")?;
    ensure!(revenue == [format!("{seconds}:200")], "{revenue:?}");
    host.stop()
}

fn gone_frozen_emptied() -> Result<()> {
    let mut service = Service::start_with(Kind::Redis, &["--appendonly", "no"])?;
    let (home, at) = (home(&service)?, minute_ms());
    let host = home.start_ready()?;
    host.send(&lines(at, 0, 100))?;
    becomes(&host, 100)?;
    // Frozen: events are taken, queries are answered from the copy, readiness says why it is not.
    service.freeze()?;
    host.send(&lines(at, 100, 100))?;
    let ready = until("not ready", || Ok(Some(host.get("/health/ready")?).filter(|answer| answer.status == 503)))?;
    ensure!(ready.text.contains("Redis"), "{}", ready.text);
    ensure!(counted(&host)? == 100, "the copy answers");
    host.send(&lines(at, 200, 100))?;
    service.thaw()?;
    becomes(&host, 300)?;
    summarised(&host, 300)?;
    // Gone, and back with nothing: counted again from the journal.
    service.kill()?;
    host.send(&lines(at, 300, 100))?;
    service.start_again()?;
    becomes(&host, 400)?;
    host.send(&lines(at, 400, 100))?;
    becomes(&host, 500)?;
    // Emptied under the host's eyes.
    redis(&service, "FLUSHALL")?;
    host.send(&lines(at, 500, 100))?;
    becomes(&host, 600)?;
    summarised(&host, 600)?;
    // And the same ids once more are duplicates still.
    host.send(&lines(at, 550, 50))?;
    // The host dies; the next one goes on from where Redis stands.
    host.send(&lines(at, 600, 100))?;
    host.kill()?;
    let host = home.start_ready()?;
    becomes(&host, 700)?;
    summarised(&host, 700)?;
    // Emptied while nothing happens: no event is needed to notice.
    redis(&service, "FLUSHALL")?;
    let total = format!("HGET {{tidemark}}:minute:events:count:{} total", at / 1000);
    until("all in Redis again", || Ok(redis(&service, &total).is_ok_and(|total| total == ["700"]).then_some(())))
        .with_context(|| host.log())?;
    until("ready again", || Ok((host.get("/health/ready")?.status == 200).then_some(())))?;
    host.stop()
}

fn belong_together() -> Result<()> {
    let service = Service::start(Kind::Redis)?;
    let first = home(&service)?;
    let host = first.start_ready()?;
    host.send(&lines(minute_ms(), 0, 10))?;
    becomes(&host, 10)?;
    host.stop()?;
    // Another journal's positions would mean nothing here.
    let second = home(&service)?;
    let host = second.start()?;
    until("the refusal", || Ok(host.log().contains("of another log").then_some(()))).with_context(|| host.log())?;
    drop(host);
    Ok(())
}

/// Each takes events and shows all of them; when one dies the other counts on, and what comes back takes its share again.
fn two_hosts() -> Result<()> {
    if let Some(reason) = missing(Kind::Redis) {
        bail!("no Redis: {reason}");
    }
    let (kafka, redis) = (Service::start(Kind::Kafka)?, Service::start(Kind::Redis)?);
    let (brokers, url) = (kafka.address(), format!("redis://{}", redis.address()));
    let flags = ["--kafka", &brokers, "--topic", "shop", "--group", "shop", "--redis", &url, "--checkpoint", "200ms"];
    let home = || Ok::<_, anyhow::Error>(Home::new(DEFINITIONS)?.with_flags(&flags));
    let (first_home, second_home, at) = (home()?, home()?, minute_ms());
    let (first, second) = (first_home.start_ready()?, second_home.start_ready()?);
    first.send(&lines(at, 0, 400))?;
    second.send(&lines(at, 400, 400))?;
    becomes(&first, 800)?;
    becomes(&second, 800)?;
    first.kill()?;
    second.send(&lines(at, 800, 400))?;
    becomes(&second, 1_200)?;
    summarised(&second, 1_200)?;
    let first = first_home.start_ready()?;
    first.send(&lines(at, 1_200, 100))?;
    // Sent twice, by another way.
    second.send(&lines(at, 1_000, 250))?;
    becomes(&first, 1_300)?;
    becomes(&second, 1_300)?;
    summarised(&first, 1_300)?;
    summarised(&second, 1_300)?;
    first.stop()?;
    second.stop()
}

/// One of two serving hosts dies; its dashboards return to the other and hold what a new one is told.
fn dashboards_move() -> Result<()> {
    if let Some(reason) = missing(Kind::Redis) {
        bail!("no Redis: {reason}");
    }
    let (kafka, redis) = (Service::start(Kind::Kafka)?, Service::start(Kind::Redis)?);
    let (brokers, url) = (kafka.address(), format!("redis://{}", redis.address()));
    let flags = ["--kafka", &brokers, "--redis", &url, "--refresh", "100ms", "--checkpoint", "200ms"];
    let home = || Ok::<_, anyhow::Error>(Home::new(DEFINITIONS)?.with_flags(&flags));
    let (first_home, second_home, at) = (home()?, home()?, minute_ms());
    let (first, second) = (first_home.start_ready()?, second_home.start_ready()?);
    second.send(&lines(at, 0, 400))?;
    becomes(&first, 400)?;
    becomes(&second, 400)?;
    let mut moves: Vec<Dashboard> = (0..3).map(|_| Dashboard::open(&first)).collect::<Result<_>>()?;
    let mut stays = Dashboard::open(&second)?;
    // Told by the first host, whose numbering of series is its own.
    let elsewhere = lines(at, 400, 400).replace("\"DE\"", "\"AT\"");
    second.send(&elsewhere)?;
    becomes(&first, 800)?;
    becomes(&second, 800)?;
    moves.iter_mut().try_for_each(|dashboard| dashboard.agrees(&first))?;
    first.kill()?;
    second.send(&lines(at, 800, 400))?;
    becomes(&second, 1_200)?;
    for (number, dashboard) in moves.iter_mut().enumerate() {
        dashboard.come_back(&second, number > 0)?;
        dashboard.reaches(1_200.0)?;
        dashboard.agrees(&second)?;
    }
    stays.agrees(&second)?;
    // A connection that was only lost goes on where it was, on a host that shares its store too.
    stays.drop_connection();
    second.send(&lines(at, 1_200, 100))?;
    becomes(&second, 1_300)?;
    ensure!(stays.come_back(&second, true)?, "it was told all by this host");
    stays.agrees(&second)?;
    second.stop()
}
