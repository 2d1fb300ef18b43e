//! A broker that wants TLS and a password: the settings reach every client of the host, and what is wrong with them is said.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidemark_services::{Kind, Service, free_port};

use super::{DEFINITIONS, event, expect};
use crate::host::Home;

const PASSWORD: &str = "of tidemark";

pub fn tls_and_password() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, strangers) = (certificate(folder.path(), "ours")?, certificate(folder.path(), "strangers")?);
    let (_broker, address) = broker(&ours)?;
    let trusting = |authority: &str, password: &str| -> Result<Home> {
        let settings = [
            "security.protocol=SASL_SSL",
            "sasl.mechanism=PLAIN",
            "sasl.username=tidemark",
            &format!("sasl.password={password}"),
            &format!("ssl.ca.location={authority}"),
        ];
        let flags = settings.iter().flat_map(|setting| ["--kafka-option", setting]);
        let flags: Vec<&str> =
            ["--kafka", &address, "--topic", "secure", "--group", "secure"].into_iter().chain(flags).collect();
        Ok(Home::new(DEFINITIONS)?.with_flags(&flags))
    };
    let host = trusting(&ours.certificate, PASSWORD)?.start_ready()?;
    host.send(&event("1", "a", 1))?;
    expect(&host, "events", "type", &[("a", 1.0)])?;
    host.stop()?;
    let refused = |home: Home| -> Result<String> { Ok(home.start().err().context("refused")?.to_string()) };
    let wrong = refused(trusting(&ours.certificate, "of somebody else")?)?;
    ensure!(wrong.contains("cannot be reached") && wrong.contains("Authentication failed"), "{wrong}");
    let unknown = refused(trusting(&strangers.certificate, PASSWORD)?)?;
    ensure!(unknown.contains("cannot be reached") && unknown.contains("certificate verify failed"), "{unknown}");
    Ok(())
}

/// Files in PEM.
struct Certificate {
    certificate: String,
    /// The key, and the certificate.
    store: String,
}

fn certificate(folder: &Path, name: &str) -> Result<Certificate> {
    let file = |end: &str| folder.join(format!("{name}{end}")).display().to_string();
    let (key, certificate, store) = (file(".key"), file(".pem"), file(".store.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate])
        .output()
        .context("openssl does not start")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(&store, std::fs::read_to_string(&key)? + &std::fs::read_to_string(&certificate)?)?;
    Ok(Certificate { certificate, store })
}

/// One more door beside the usual ones, and its address.
fn broker(certificate: &Certificate) -> Result<(Service, String)> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let login = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let lines = [
        &format!("listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{second_port}},SECURE://{address}"),
        &format!("advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SECURE://{address}"),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        "listener.name.secure.sasl.enabled.mechanisms=PLAIN",
        &format!("listener.name.secure.plain.sasl.jaas.config={login} required user_tidemark=\"{PASSWORD}\";"),
        "listener.name.secure.ssl.keystore.type=PEM",
        &format!("listener.name.secure.ssl.keystore.location={}", certificate.store),
    ];
    Ok((Service::start_with(Kind::Kafka, &lines)?, address))
}
