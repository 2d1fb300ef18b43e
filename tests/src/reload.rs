//! Definitions and plugins change under load: whatever way they are saved, whole or not at all, no event lost or counted twice.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::binary;
use crate::host::{self, Home, Host, NDJSON, until};
use crate::trial::trial;

const HEAD: &str = "[event]\ntime = \"ts\"\n[dimensions]\ncountry = {}\n[metrics]\nevents = \"count()\"\n";
const CLIENTS: usize = 2;
const EVENTS_A_BATCH: u64 = 20;

pub fn trials() -> Vec<Trial> {
    let test = |name: &str, run: fn() -> Result<()>| trial(format!("reload::{name}"), run);
    let plugin = binary::plugins_with("user_agent").is_some();
    vec![
        test("under_load_in_every_way_of_saving", under_load),
        test("a_rejected_file_changes_nothing", rejected),
        test("a_removed_metric_comes_back_with_its_state", undo),
        test("window_and_title_keep_the_state", settings_keep_state),
        test("a_new_meaning_begins_anew", meaning),
        test("a_bad_file_stops_a_start", bad_start),
        test("a_plugin_is_replaced_under_load", plugin_replaced).with_ignored_flag(!plugin),
    ]
}

fn definitions(host: &Host) -> Result<Value> {
    host.get_json("/v1/definitions")
}

fn revision(host: &Host) -> Result<u64> {
    definitions(host)?["revision"].as_u64().context("a revision")
}

fn outcome(host: &Host) -> Result<String> {
    let answer = definitions(host)?;
    Ok(answer["last"]["outcome"].as_str().with_context(|| answer.to_string())?.to_owned())
}

/// Saves, and waits for the revision to move.
pub fn applied(host: &Host, save: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = revision(host)?;
    save()?;
    until("the new definitions", || Ok((revision(host)? > before).then_some(()))).with_context(|| host.log())?;
    ensure!(outcome(host)? == "applied", "{}", definitions(host)?);
    Ok(())
}

/// Saves, and waits for the rejection; the revision stays.
fn refused(host: &Host, save: impl FnOnce() -> Result<()>) -> Result<Value> {
    let before = definitions(host)?;
    save()?;
    let after = until("the rejection", || {
        let now = definitions(host)?;
        Ok((now["last"]["outcome"] == "rejected" && now["last"] != before["last"]).then_some(now))
    })
    .with_context(|| host.log())?;
    ensure!(after["revision"] == before["revision"], "a rejected file moved the revision: {after}");
    Ok(after)
}

fn total(host: &Host, metric: &str) -> Result<f64> {
    let from = host::now_ms() - 3_600_000;
    Ok(host.sums(&format!("metric={metric}&from={from}&to={}", host::now_ms() + 120_000))?.values().sum())
}

fn shows(host: &Host, metric: &str, expected: f64) -> Result<()> {
    let mut last = f64::NAN;
    until(&format!("{metric} to be {expected}"), || {
        last = total(host, metric)?;
        ensure!(last <= expected, "{metric} is {last}, more than the {expected} that were sent");
        Ok((last == expected).then_some(()))
    })
    .with_context(|| format!("{metric} stays at {last}\n{}", host.log()))
}

fn lines(count: u64) -> String {
    let now = host::now_ms();
    (0..count)
        .map(|n| {
            format!("{{\"ts\":{now},\"type\":\"a\",\"x\":{n},\"country\":\"{}\"}}\n", ["DE", "FR"][n as usize % 2])
        })
        .collect()
}

/// Runs `work` while clients post without a pause; gives the number of acknowledged events.
fn while_posting(host: &Host, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let client = || -> Result<()> {
            let agent = host::agent();
            while !over.load(Ordering::Acquire) {
                let answer = host::post(&agent, &host.url, lines(EVENTS_A_BATCH).as_bytes(), &[NDJSON])?;
                ensure!(answer.status == 202, "{} {}", answer.status, answer.text);
                sent.fetch_add(EVENTS_A_BATCH, Ordering::AcqRel);
            }
            Ok(())
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let worked = work();
        over.store(true, Ordering::Release);
        for client in clients {
            client.join().expect("no panic")?;
        }
        worked
    })?;
    Ok(sent.into_inner())
}

fn under_load() -> Result<()> {
    let home = Home::new(HEAD)?;
    let host = home.start_ready()?;
    let file = home.metrics();
    let with = |metric: &str| format!("{HEAD}{metric}\n");
    let sent = while_posting(&host, || {
        applied(&host, || Ok(fs::write(&file, with("in_place = \"count()\""))?))?;
        applied(&host, || rename_over(&file, &with("renamed = \"sum(x)\"")))?;
        refused(&host, || Ok(fs::write(&file, with("broken = \"cuont()\""))?))?;
        // Half a file, as an editor leaves it for a moment, then all of it.
        let whole = with("half = \"count()\"");
        refused(&host, || Ok(fs::write(&file, &whole[..whole.len() - 6])?))?;
        applied(&host, || Ok(fs::write(&file, &whole)?))?;
        refused(&host, || Ok(fs::write(&file, [0xff, 0xfe, 0x00])?))?;
        refused(&host, || Ok(fs::write(&file, "")?))?;
        applied(&host, || Ok(fs::write(&file, with("after = \"count()\""))?))?;
        config_map(&host, &file)
    })?;
    ensure!(sent > 0, "nobody sent anything");
    shows(&host, "events", sent as f64)?;
    host.kill()?;
    let host = home.start_ready()?;
    shows(&host, "events", sent as f64)
}

fn rename_over(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, file)?)
}

/// As Kubernetes mounts a ConfigMap: the file is a link into `..data`, which is a link to a folder that is swapped.
fn config_map(host: &Host, file: &Path) -> Result<()> {
    let folder = file.parent().context("a folder")?;
    let version = |name: &str, metric: &str| -> Result<()> {
        fs::create_dir(folder.join(name))?;
        fs::write(folder.join(name).join("metrics.toml"), format!("{HEAD}{metric} = \"count()\"\n"))?;
        symlink(name, folder.join("..new"))?;
        Ok(fs::rename(folder.join("..new"), folder.join("..data"))?)
    };
    applied(host, || {
        version("..v1", "mounted")?;
        symlink("..data/metrics.toml", folder.join("link"))?;
        Ok(fs::rename(folder.join("link"), file)?)
    })?;
    applied(host, || version("..v2", "swapped"))?;
    applied(host, || version("..v3", "swapped_again"))?;
    let answer = host.get_json("/v1/metrics")?.to_string();
    ensure!(answer.contains("swapped_again") && !answer.contains("mounted"), "{answer}");
    Ok(())
}

fn rejected() -> Result<()> {
    let home = Home::new(HEAD)?;
    let host = home.start_ready()?;
    host.send(&lines(10))?;
    let answer = refused(&host, || Ok(fs::write(home.metrics(), format!("{HEAD}more = \"cuont()\"\n"))?))?;
    let diagnostic = &answer["last"]["diagnostics"][0];
    ensure!(diagnostic["line"] == 7 && diagnostic["column"].is_u64(), "{answer}");
    ensure!(diagnostic["rendered"].as_str().is_some_and(|text| text.contains("^^^^^")), "{answer}");
    host.send(&lines(10))?;
    shows(&host, "events", 20.0)?;
    ensure!(host.get("/v1/query?metric=more")?.status == 404, "the rejected metric is there");
    // What was wrong is put right: applied, though the file is what it was before.
    fs::write(home.metrics(), HEAD)?;
    until("the rejection to be over", || Ok((outcome(&host)? == "applied").then_some(())))?;
    host.send(&lines(10))?;
    shows(&host, "events", 30.0)
}

fn undo() -> Result<()> {
    let home = Home::new(&format!("{HEAD}other = \"sum(x)\"\n"))?;
    let host = home.start_ready()?;
    host.send(&lines(4))?;
    shows(&host, "other", 6.0)?;
    applied(&host, || Ok(fs::write(home.metrics(), HEAD)?))?;
    ensure!(host.get("/v1/query?metric=other")?.status == 404, "a removed metric answers");
    host.send(&lines(4))?;
    shows(&host, "events", 8.0)?;
    applied(&host, || Ok(fs::write(home.metrics(), format!("{HEAD}other = \"sum(x)\"\n"))?))?;
    host.send(&lines(4))?;
    // What came while it was gone is not its own.
    shows(&host, "other", 12.0)
}

fn settings_keep_state() -> Result<()> {
    let home = Home::new(HEAD)?;
    let host = home.start_ready()?;
    host.send(&lines(10))?;
    shows(&host, "events", 10.0)?;
    let changed =
        HEAD.replace("\"count()\"", "{ value = \"count()\", title = \"All of them\", unit = \"1\", limit = 9 }");
    applied(&host, || Ok(fs::write(home.metrics(), changed)?))?;
    shows(&host, "events", 10.0)?;
    host.send(&lines(10))?;
    shows(&host, "events", 20.0)
}

fn meaning() -> Result<()> {
    let home = Home::new(HEAD)?;
    let host = home.start_ready()?;
    host.send(&lines(10))?;
    shows(&host, "events", 10.0)?;
    applied(&host, || Ok(fs::write(home.metrics(), HEAD.replace("count()", "count() where country = 'DE'"))?))?;
    let answer = definitions(&host)?;
    ensure!(answer["last"]["changed"] == serde_json::json!(["events"]), "{answer}");
    host.send(&lines(10))?;
    shows(&host, "events", 5.0)
}

fn bad_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("metrics.toml");
    fs::write(&file, "[metrics]\nevents = \"cuont()\"\n")?;
    let text = |path: &Path| path.display().to_string();
    let data = text(&folder.path().join("data"));
    let output = binary::run(&["run", "--metrics", &text(&file), "--data", &data, "--listen", "127.0.0.1:0"])?;
    ensure!(output.status == Some(2), "exit {:?}: {}", output.status, output.stderr);
    ensure!(output.stderr.contains("^^^^^") && output.stderr.contains("did you mean"), "{}", output.stderr);
    Ok(())
}

/// A file that is no plugin is rejected, and the plugin before it goes on; the same file back is applied again.
fn plugin_replaced() -> Result<()> {
    let enrich =
        "[enrich.device]\nplugin = \"user_agent\"\ninput = [\"agent\"]\noutput = [\"device\", \"browser\", \"os\"]\n";
    let definitions = HEAD.replace("[dimensions]\n", &format!("{enrich}[dimensions]\nbrowser = {{}}\n"));
    let home = Home::new(&definitions)?;
    let built = binary::plugins_with("user_agent").context("built")?.join("user_agent.wasm");
    let place = home.path().join("plugins/user_agent.wasm");
    fs::copy(&built, &place)?;
    let host = home.start_ready()?;
    let sent = while_posting(&host, || {
        refused(&host, || Ok(fs::write(&place, b"\0asm, but not really")?))?;
        let good = place.with_extension("new");
        fs::copy(&built, &good)?;
        fs::rename(&good, &place)?;
        until("the plugin to be taken back", || Ok((outcome(&host)? == "applied").then_some(())))?;
        refused(&host, || Ok(fs::remove_file(&place)?))?;
        fs::copy(&built, &place)?;
        until("the plugin to be taken back", || Ok((outcome(&host)? == "applied").then_some(())))
    })?;
    shows(&host, "events", sent as f64)?;
    let plugins = host.get_json("/v1/plugins")?.to_string();
    ensure!(plugins.contains("user_agent") && plugins.contains("live"), "{plugins}");
    Ok(())
}
