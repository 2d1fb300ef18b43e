//! What `tidemark plugin new` copies works as it is: its cases pass, natively.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo runs this test, which may be another checkout than the one that it was built in.
fn sdk() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate is").into()
}

#[track_caller]
fn check(kind: &str) {
    let sdk = sdk();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("my_{kind}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    copy(&sdk.join("template").join(kind), &folder, &|text| {
        text.replace("{{name}}", &format!("my_{kind}"))
            .replace("{{type_name}}", "MyPlugin")
            .replace("{{sdk}}", &sdk.to_string_lossy())
    });
    // The SDK's own versions: they are built already, and nothing is looked up.
    std::fs::copy(sdk.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let run = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--target-dir"])
        .arg(target)
        .current_dir(&folder)
        .env_remove("CARGO_MANIFEST_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("test cases ... ok"),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(!String::from_utf8_lossy(&run.stderr).contains("warning"), "{}", String::from_utf8_lossy(&run.stderr));
}

fn copy(from: &Path, to: &Path, fill: &dyn Fn(&str) -> String) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to, fill);
        } else {
            std::fs::write(&to, fill(&std::fs::read_to_string(entry.path()).unwrap())).unwrap();
        }
    }
}

#[test]
fn enricher() {
    check("enricher");
}

#[test]
fn detector() {
    check("detector");
}
