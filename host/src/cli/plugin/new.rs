//! `tidemark plugin new`: a plugin that works, from the SDK's template.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../plugin-sdk/template"]
struct Template;

/// Longer names make no sense as file names and dimension names.
const NAME_BYTES_MAX: usize = 64;

/// Types that the templates import.
const TAKEN: [&str; 9] = ["Config", "Detector", "Duration", "Enricher", "Out", "Row", "Settings", "Verdict", "Window"];

/// Make a folder NAME with a plugin that works, to start from.
#[derive(Args)]
pub struct Arguments {
    /// In snake case; also the name of the .wasm.
    name: String,
    #[arg(long)]
    kind: Kind,
    /// The SDK's folder; by default `plugin-sdk` here or in a folder above, or above this program.
    #[arg(long, env = "TIDEMARK_PLUGIN_SDK")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Enricher,
    Detector,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.name.as_str();
    check_name(name)?;
    let sdk = sdk(arguments.sdk.as_deref())?;
    let folder = Path::new(name);
    if folder.exists() {
        bail!("{name} is there already");
    }
    let kind = match arguments.kind {
        Kind::Enricher => "enricher",
        Kind::Detector => "detector",
    };
    for path in Template::iter() {
        let Some(inside) = path.strip_prefix(kind).and_then(|path| path.strip_prefix('/')) else { continue };
        let file = Template::get(&path).context("the template is not in this program")?;
        let text = std::str::from_utf8(&file.data).context("the template is not text")?;
        write(&folder.join(inside), &fill(text, name, &sdk))?;
    }
    // The SDK's own versions of what it needs: nothing has to be looked up.
    let lock = sdk.join("Cargo.lock");
    if lock.exists() {
        std::fs::copy(&lock, folder.join("Cargo.lock")).with_context(|| format!("cannot copy {}", lock.display()))?;
    }
    println!("{name}/ is {} that works. Next:", if kind == "enricher" { "an enricher" } else { "a detector" });
    println!("  cd {name}");
    println!("  tidemark plugin test     # builds {name}.wasm and runs the examples of cases.toml in the sandbox");
    println!("  cp {name}.wasm PLUGINS   # live at once where metrics.toml names it");
    Ok(ExitCode::SUCCESS)
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !letters || !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.len() > NAME_BYTES_MAX {
        bail!(
            "`{name}` is not a name for a plugin: small letters, digits and _, a letter first, at most {NAME_BYTES_MAX}"
        );
    }
    Ok(())
}

/// Absolute, so that the new folder may be moved.
fn sdk(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let is_sdk = |folder: &Path| folder.join("Cargo.toml").is_file() && folder.join("wit").is_dir();
    let found = match given {
        Some(folder) if is_sdk(folder) => folder.to_owned(),
        Some(folder) => bail!("{} is not the SDK: it has no Cargo.toml or no wit/", folder.display()),
        None => {
            let from = [std::env::current_dir().ok(), std::env::current_exe().ok()];
            let above = from.iter().flatten().flat_map(|path| path.ancestors()).map(|path| path.join("plugin-sdk"));
            above
                .into_iter()
                .find(|path| is_sdk(path))
                .context("cannot find the folder plugin-sdk here or above: say where it is with --sdk")?
        }
    };
    found.canonicalize().with_context(|| format!("cannot find {}", found.display()))
}

fn fill(text: &str, name: &str, sdk: &Path) -> String {
    // In TOML strings.
    let sdk = sdk.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    text.replace("{{name}}", name).replace("{{type_name}}", &type_name(name)).replace("{{sdk}}", &sdk)
}

/// `user_agent` → `UserAgent`.
fn type_name(name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty());
    let camel: String = words.map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    if TAKEN.contains(&camel.as_str()) { camel + "Plugin" } else { camel }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_in_the_program_and_leave_no_placeholder() {
        for kind in ["enricher", "detector"] {
            let files: Vec<_> = Template::iter().filter(|path| path.starts_with(kind)).collect();
            for needed in ["Cargo.toml", "cases.toml", "src/lib.rs", ".cargo/config.toml"] {
                assert!(files.contains(&format!("{kind}/{needed}").into()), "{needed} is not in {files:?}");
            }
            for path in files {
                let file = Template::get(&path).unwrap();
                let text = fill(std::str::from_utf8(&file.data).unwrap(), "row", Path::new("/sdk"));
                assert!(!text.contains("{{"), "{path}: {text}");
            }
        }
    }

    #[test]
    fn names() {
        for (name, good) in [
            ("user_agent", true),
            ("a1", true),
            ("", false),
            ("1a", false),
            ("User", false),
            ("a-b", false),
            ("../x", false),
            ("é", false),
            ("_a", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
        assert_eq!(type_name("user_agent"), "UserAgent");
        assert_eq!(type_name("a__b_"), "AB");
        assert_eq!(type_name("row"), "RowPlugin");
    }
}
