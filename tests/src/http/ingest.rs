//! `POST /v1/events`: formats, encodings, limits, keys, what is told about rejected events.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Check, DEFINITIONS, counted, refused, soon, start};
use crate::binary;
use crate::host::{Home, Host, NDJSON, now_ms, until};

pub const CHECKS: &[Check] = &[
    ("takes_every_format_and_encoding", formats),
    ("tells_what_was_rejected", rejections),
    ("all_rejected_is_400", all_rejected),
    ("odd_bodies_do_no_harm", odd_bodies),
    ("late_is_accepted_and_kept_aside", late),
    ("ahead_is_rejected", ahead),
    ("duplicates_are_accepted_and_not_counted", duplicates),
    ("too_large_is_413", too_large),
    ("unknown_type_and_encoding_are_415", unsupported),
    ("keys_separate_readers_and_writers", keys),
    ("client_fills_ip_and_user_agent", client),
    ("beyond_loopback_needs_keys", beyond_loopback),
];

const JSON: (&str, &str) = ("content-type", "application/json");

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn event(id: &str) -> String {
    format!(r#"{{"ts":{},"id":"{id}","x":1}}"#, now_ms())
}

fn accepted(host: &Host, body: &[u8], headers: &[(&str, &str)], count: u64) -> Result<()> {
    let answer = host.post(body, headers)?;
    ensure!(answer.status == 202, "{headers:?}: {} {}", answer.status, answer.text);
    let told = answer.json()?;
    ensure!(told == json!({"accepted": count, "rejected": 0, "errors": []}), "{headers:?}: {told}");
    Ok(())
}

fn formats() -> Result<()> {
    let (_home, host) = start()?;
    let two = |a: &str, b: &str| format!("{}\n{}\n", event(a), event(b)).into_bytes();
    accepted(&host, &two("1", "2"), &[NDJSON], 2)?;
    accepted(&host, format!("[{},\n {}]", event("3"), event("4")).as_bytes(), &[JSON], 2)?;
    accepted(&host, event("5").as_bytes(), &[JSON], 1)?;
    accepted(&host, &gzip(&two("6", "7"))?, &[NDJSON, ("content-encoding", "gzip")], 2)?;
    accepted(&host, &zstd::bulk::compress(&two("8", "9"), 3)?, &[NDJSON, ("content-encoding", "zstd")], 2)?;
    accepted(&host, &gzip(format!("[{}]", event("10")).as_bytes())?, &[JSON, ("content-encoding", "gzip")], 1)?;
    let charset = ("content-type", "application/x-ndjson; charset=utf-8");
    accepted(&host, event("11").as_bytes(), &[charset], 1)?;
    accepted(&host, format!("\r\n{}\r\n\r\n", event("12")).as_bytes(), &[NDJSON], 1)?;
    // An object over several lines is one object.
    let pretty = format!("{{\n  \"ts\": {},\n  \"id\": \"13\"\n}}\n", now_ms());
    accepted(&host, pretty.as_bytes(), &[JSON], 1)?;
    accepted(&host, b"[]", &[JSON], 0)?;
    counted(&host, 13.0)
}

fn rejections() -> Result<()> {
    let (_home, host) = start()?;
    let body = format!("{}\n\nbroken\n{}\n{{\"ts\":true}}\n", event("a"), event("b"));
    let answer = host.post(body.as_bytes(), &[NDJSON])?;
    ensure!(answer.status == 202, "{} {}", answer.status, answer.text);
    let told = answer.json()?;
    ensure!(told["accepted"] == 2 && told["rejected"] == 2, "{told}");
    let errors = told["errors"].as_array().context("errors")?;
    // Counted among the lines that are not blank.
    ensure!(errors.len() == 2 && errors[0]["index"] == 1 && errors[1]["index"] == 3, "{told}");
    ensure!(errors.iter().all(|error| error["reason"].as_str().is_some_and(|reason| !reason.is_empty())), "{told}");
    counted(&host, 2.0)?;
    let rejects = host.get_json("/v1/rejects?limit=5")?;
    ensure!(rejects.to_string().contains("broken"), "{rejects}");
    let many = format!("{}{}\n", "nothing\n".repeat(50), event("c"));
    let told = host.post(many.as_bytes(), &[NDJSON])?.json()?;
    ensure!(told["rejected"] == 50 && told["errors"].as_array().is_some_and(|errors| errors.len() == 10), "{told}");
    counted(&host, 3.0)
}

fn all_rejected() -> Result<()> {
    let (_home, host) = start()?;
    for (body, kind, rejected) in
        [("x\ny\n", NDJSON, 2), ("{\"ts\":[]}", JSON, 1), ("[1,2,{\"ts\":\"never\"}]", JSON, 3)]
    {
        let answer = host.post(body.as_bytes(), &[kind])?;
        ensure!(answer.status == 400, "{body}: {} {}", answer.status, answer.text);
        ensure!(answer.json()?["rejected"] == rejected, "{body}: {}", answer.text);
    }
    counted(&host, 0.0)
}

fn odd_bodies() -> Result<()> {
    let (_home, host) = start()?;
    let gzipped = gzip(event("a").as_bytes())?;
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), ""),
        (b"\n\n \n".to_vec(), ""),
        (b"\0\0\0".to_vec(), ""),
        (vec![0xff; 1_000], ""),
        (gzipped[..gzipped.len() / 2].to_vec(), "gzip"),
        (b"not gzip".to_vec(), "gzip"),
        (b"not zstd".to_vec(), "zstd"),
        (b"".to_vec(), "zstd"),
        ("[".repeat(100_000).into_bytes(), ""),
        (format!("{{\"a\":\"{}\"}}", "x".repeat(100_000)).into_bytes(), ""),
    ];
    for (body, encoding) in bodies {
        for kind in [NDJSON, JSON] {
            let mut headers = vec![kind];
            headers.extend((!encoding.is_empty()).then_some(("content-encoding", encoding)));
            let answer = host.post(&body, &headers)?;
            let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
            ensure!(matches!(answer.status, 202 | 400), "{shown:?} {headers:?}: {} {}", answer.status, answer.text);
            answer.json()?;
        }
    }
    host.send(&event("b"))?;
    // What was lost with its body half was not counted either.
    counted(&host, 1.0)
}

fn late() -> Result<()> {
    let (_home, host) = start()?;
    let old = now_ms() - 25 * 3_600_000;
    host.send(&format!("{{\"ts\":{old},\"id\":\"old\"}}\n{}\n", event("new")))?;
    counted(&host, 1.0)?;
    let rejects = host.get_json("/v1/rejects?limit=10")?;
    ensure!(rejects.to_string().contains("late"), "{rejects}");
    Ok(())
}

fn ahead() -> Result<()> {
    let (_home, host) = start()?;
    let lines = [4, 6].map(|minutes| format!("{{\"ts\":{}}}\n", now_ms() + minutes * 60_000)).concat();
    let told = host.post(lines.as_bytes(), &[NDJSON])?.json()?;
    ensure!(told["accepted"] == 1 && told["rejected"] == 1 && told["errors"][0]["index"] == 1, "{told}");
    counted(&host, 1.0)
}

fn duplicates() -> Result<()> {
    let (home, host) = start()?;
    accepted(&host, format!("{}\n{}\n", event("a"), event("a")).as_bytes(), &[NDJSON], 2)?;
    accepted(&host, event("a").as_bytes(), &[NDJSON], 1)?;
    counted(&host, 1.0)?;
    host.stop()?;
    let host = home.start_ready()?;
    accepted(&host, format!("{}\n{}\n", event("a"), event("b")).as_bytes(), &[NDJSON], 2)?;
    counted(&host, 2.0)
}

fn too_large() -> Result<()> {
    let home = Home::new(DEFINITIONS)?.with_flags(&["--body-bytes-max", "10000", "--event-bytes-max", "10000"]);
    let host = home.start_ready()?;
    let large = format!("{}\n", event("a")).repeat(500);
    refused(&host.post(large.as_bytes(), &[NDJSON])?, 413, "body_too_large")?;
    for (body, encoding) in [(gzip(large.as_bytes())?, "gzip"), (zstd::bulk::compress(large.as_bytes(), 3)?, "zstd")] {
        ensure!(body.len() < 10_000, "the compressed body is small enough by itself");
        refused(&host.post(&body, &[NDJSON, ("content-encoding", encoding)])?, 413, "body_too_large")?;
    }
    counted(&host, 0.0)
}

fn unsupported() -> Result<()> {
    let (_home, host) = start()?;
    let csv = ("content-type", "text/csv");
    let body = event("a");
    ensure!(host.post(body.as_bytes(), &[csv])?.status == 415, "text/csv");
    ensure!(host.post(body.as_bytes(), &[NDJSON, ("content-encoding", "br")])?.status == 415, "br");
    ensure!(host.get("/v1/events")?.status == 405, "GET /v1/events");
    refused(&host.get("/v1/nothing")?, 404, "not_found")?;
    counted(&host, 0.0)
}

fn keys() -> Result<()> {
    let home = Home::new(DEFINITIONS)?.with_flags(&["--write-key", "w1", "--write-key", "w2", "--read-key", "r"]);
    let host = home.start()?;
    let bearer = |key: &str| format!("Bearer {key}");
    for (key, may_write, may_read) in
        [("", false, false), ("wrong", false, false), ("w1", true, false), ("w2", true, false), ("r", false, true)]
    {
        let authorization = bearer(key);
        let header = ("authorization", authorization.as_str());
        let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[header] };
        let wrote = host.post(event("a").as_bytes(), &[headers, &[NDJSON]].concat())?;
        ensure!((wrote.status == 202) == may_write, "{key:?} writes: {}", wrote.status);
        ensure!(may_write || matches!(wrote.status, 401 | 403), "{key:?} writes: {}", wrote.status);
        for path in
            ["/v1/metrics", "/v1/query?metric=events", "/v1/rejects", "/metrics", "/v1/definitions", "/v1/plugins"]
        {
            let answer = host.get_with(path, headers)?;
            ensure!((answer.status == 200) == may_read, "{key:?} reads {path}: {}", answer.status);
        }
        until("health without a key", || Ok((host.get("/health/ready")?.status == 200).then_some(())))?;
        ensure!(host.get("/health/live")?.status == 200, "health is open");
    }
    Ok(())
}

fn client() -> Result<()> {
    let definitions =
        "[event]\ntime = \"ts\"\n[dimensions]\nip = {}\nuser_agent = {}\n[metrics]\nevents = \"count()\"\n";
    let home = Home::new(definitions)?;
    let host = home.start_ready()?;
    let agent = ("user-agent", "a browser");
    let forwarded = ("x-forwarded-for", "203.0.113.7");
    host.post(b"{}", &[NDJSON, agent, forwarded])?;
    host.post(b"{\"ip\":\"192.0.2.1\",\"user_agent\":\"its own\"}", &[NDJSON, agent])?;
    shows(&host, "ip", &["127.0.0.1", "192.0.2.1"])?;
    shows(&host, "user_agent", &["a browser", "its own"])?;
    // Kept in the log: the same after a restart.
    host.kill()?;
    let host = home.start_ready()?;
    shows(&host, "ip", &["127.0.0.1", "192.0.2.1"])?;
    host.kill()?;
    let home = Home::new(definitions)?.with_flags(&["--trusted-proxy", "127.0.0.1"]);
    let host = home.start_ready()?;
    host.post(b"{}", &[NDJSON, forwarded])?;
    shows(&host, "ip", &["203.0.113.7"])
}

fn shows(host: &Host, dimension: &str, expected: &[&str]) -> Result<()> {
    let mut seen = Vec::new();
    until(&format!("{dimension} to be {expected:?}"), || {
        seen = host.sums(&format!("metric=events&by={dimension}&from=-10m&{}", soon()))?.into_keys().collect();
        seen.sort();
        Ok((seen == expected).then_some(()))
    })
    .with_context(|| format!("it is {seen:?}"))
}

fn beyond_loopback() -> Result<()> {
    let home = Home::new(DEFINITIONS)?;
    let text = |path: std::path::PathBuf| path.display().to_string();
    let (metrics, data) = (text(home.metrics()), text(home.path().join("data")));
    let output = binary::run(&["run", "--metrics", &metrics, "--data", &data, "--listen", "0.0.0.0:0"])?;
    ensure!(output.status == Some(2), "exit {:?}: {}", output.status, output.stderr);
    ensure!(output.stderr.contains("--allow-anonymous"), "{}", output.stderr);
    Ok(())
}
