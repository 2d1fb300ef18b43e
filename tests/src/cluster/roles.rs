//! Parts of the work on hosts of their own.

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::members::Cluster;
use crate::host::{self, Home, NDJSON, until};
use crate::kill::{self, Promise};

/// Events go in at one host, are counted by another, and asked for at a third; each says what it does not do.
pub fn apart() -> Result<()> {
    let mut cluster = Cluster::start(&["ingest", "work", "serve"])?;
    let rng = &mut SmallRng::seed_from_u64(1);
    let hour = (host::now_ms() - 90 * 60_000) / 3_600_000 * 3_600_000;
    let mut batches = Vec::new();
    for round in 0..2 {
        let [ingest, work, serve] = [0, 1, 2].map(|at| cluster.members[at].host.as_ref().expect("runs"));
        for number in 0..10 {
            let mut batch = kill::batch(rng, &format!("r{round}b{number}"), hour, true);
            ingest.send(&batch.body)?;
            batch.acknowledged = true;
            batches.push(batch);
        }
        let least: usize = batches.iter().map(|batch| batch.events).sum();
        let all = || Ok((serve.sums(&kill::all(hour))?.values().sum::<f64>() >= least as f64).then_some(()));
        until("the serving host to have it all", all)
            .and_then(|()| kill::check(serve, &batches, hour, Promise { with_ids: true, whole: true }))
            .with_context(|| cluster.log())?;
        for (host, path, role) in [(ingest, "/v1/query?metric=total", "serve"), (work, "/", "serve")] {
            let answer = host.get(path)?;
            ensure!(answer.status == 404 && answer.text.contains(&format!("`{role}`")), "{path}: {}", answer.text);
        }
        for host in [work, serve] {
            let answer = host.post(batches[0].body.as_bytes(), &[NDJSON])?;
            ensure!(answer.status == 404 && answer.json()?["error"]["code"] == "not_this_host", "{}", answer.text);
        }
        // The worker dies, another one goes on.
        cluster.members[1].host.take().context("runs")?.kill()?;
        let member = &mut cluster.members[1];
        member.host = Some(member.home.start()?);
    }
    let (serve, metrics) = (cluster.members[2].host.as_ref().context("runs")?, cluster.members[2].home.metrics());
    let warns = |wanted: bool| {
        until("the hosts to compare their definitions", || {
            let ready = serve.get("/health/ready")?;
            Ok((ready.status == 200 && ready.text.contains("measures by other definitions") == wanted).then_some(()))
        })
        .with_context(|| cluster.log())
    };
    std::fs::write(&metrics, format!("{}\nmore = \"max(x)\"\n", kill::DEFINITIONS))?;
    warns(true)?;
    std::fs::write(&metrics, kill::DEFINITIONS)?;
    warns(false)?;
    let alone = Home::new(kill::DEFINITIONS)?.with_flags(&["--roles", "work"]);
    let refused = alone.start().err().context("refused")?.to_string();
    ensure!(refused.contains("needs --kafka and --redis"), "{refused}");
    Ok(())
}
