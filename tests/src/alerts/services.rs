//! With a real Alertmanager, and with hosts that share Kafka and Redis.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tidemark_services::{Kind, Service, missing};

use super::receiver::Receiver;
use super::{MEASURED, Sender, home, looks, series, webhook};
use crate::host::{self, Home, until};

/// What it makes of what it is told, as it tells others; and by its own list.
pub fn alertmanager() -> Result<()> {
    let receiver = Receiver::start(200)?;
    let mut service = Service::start_with(Kind::Alertmanager, &[&receiver.url()])?;
    let manager = format!("http://{}", service.address());
    let (home, sender) = (home(&format!("[notify.manager]\nalertmanager = \"{manager}\"\n"))?, Sender::new());
    let host = home.start_ready()?;
    sender.send(&host, "DE", 9)?;
    let told = receiver.nth(1).with_context(|| service.log())?.body;
    let alert = &told["alerts"][0];
    ensure!(told["status"] == "firing" && alert["labels"]["alertname"] == "balance", "{told}");
    ensure!(alert["labels"]["country"] == "DE" && alert["labels"]["metric"] == "balance", "{told}");
    let summary = alert["annotations"]["summary"].as_str().unwrap_or_default();
    ensure!(summary.starts_with("Balance: country = DE: 9 EUR (at most 5 EUR), since "), "{told}");
    let listed = |labels: &str| -> Result<Vec<Value>> {
        let mut answer = host::agent().get(format!("{manager}/api/v2/alerts?filter={labels}")).call()?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    };
    ensure!(listed("country%3D%22DE%22")?.len() == 1 && listed("country%3D%22US%22")?.is_empty());
    sender.send(&host, "DE", -9)?;
    let told = receiver.nth(2).with_context(|| service.log())?.body;
    ensure!(told["status"] == "resolved" && told["alerts"][0]["labels"]["country"] == "DE", "{told}");
    // It is away while one begins: it hears of it when it is back.
    service.kill()?;
    sender.send(&host, "US", 9)?;
    until("a failure", || {
        let target = host.get_json("/v1/alerts")?["targets"][0].clone();
        Ok((target["failures"].as_u64() > Some(0)).then_some(()))
    })?;
    service.start_again()?;
    let told = until("what it missed", || {
        Ok(receiver.taken().into_iter().find(|message| message.body["alerts"][0]["labels"]["country"] == "US"))
    })?;
    ensure!(told.body["status"] == "firing", "{told:?}");
    host.stop()
}

/// Whichever it is: one message at the start; when the one that told is killed the other goes on.
pub fn two_hosts() -> Result<()> {
    if let Some(reason) = missing(Kind::Redis) {
        bail!("no Redis: {reason}");
    }
    let (kafka, redis) = (Service::start(Kind::Kafka)?, Service::start(Kind::Redis)?);
    let (brokers, url) = (kafka.address(), format!("redis://{}", redis.address()));
    let flags = ["--kafka", &brokers, "--topic", "shop", "--group", "shop", "--redis", &url, "--refresh", "50ms"];
    let (receiver, sender) = (Receiver::start(200)?, Sender::new());
    let text =
        format!("{}{}", MEASURED.replace("time = \"ts\"", "time = \"ts\"\nkey = \"country\""), webhook(&receiver));
    let home = || Ok::<_, anyhow::Error>(Home::new(&text)?.with_flags(&flags));
    let (first_home, second_home) = (home()?, home()?);
    let mut hosts = vec![first_home.start_ready()?, second_home.start_ready()?];
    sender.send(&hosts[0], "DE", 9)?;
    ensure!(series(&receiver.nth(1)?.body) == ["firing DE"]);
    let tells = |host: &host::Host| Ok::<_, anyhow::Error>(host.get_json("/v1/alerts")?["tells"] == true);
    let telling = [tells(&hosts[0])?, tells(&hosts[1])?];
    ensure!(telling.iter().filter(|tells| **tells).count() == 1, "{telling:?}");
    let teller = hosts.remove(telling.iter().position(|tells| *tells).context("one")?);
    looks(&teller)?;
    teller.kill()?;
    let other = &hosts[0];
    until("the other one to tell", || Ok(tells(other)?.then_some(()))).with_context(|| other.log())?;
    looks(other)?;
    receiver.nth(1)?;
    sender.send(other, "DE", -9)?;
    ensure!(series(&receiver.nth(2)?.body) == ["resolved DE"]);
    hosts.remove(0).stop()
}
