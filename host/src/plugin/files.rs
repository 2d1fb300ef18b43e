//! Files a plugin is granted: resolved below the plugin folder, read once, so that what is served is what was hashed.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::limits::FILES_MAX;

/// Granted files by the names the definitions use.
#[derive(Debug, Default)]
pub struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    /// The message says which name is wrong and why.
    pub fn load(folder: &Path, names: &[String], bytes_max: u64) -> Result<Self, String> {
        if names.len() > FILES_MAX {
            return Err(format!("{} files are granted, at most {FILES_MAX} can be", names.len()));
        }
        let files = names.iter().map(|name| Ok((name.clone(), read(&resolve(folder, name)?, name, bytes_max)?)));
        files.collect::<Result<_, _>>().map(Self)
    }

    /// Files from anywhere, for the plugin author's tests.
    pub fn from_paths(paths: &[(String, PathBuf)], bytes_max: u64) -> Result<Self, String> {
        let files = paths.iter().map(|(name, path)| Ok((name.clone(), read(path, name, bytes_max)?)));
        files.collect::<Result<_, _>>().map(Self)
    }

    /// What the plugin gets; the error is for its author.
    pub fn read(&self, name: &str) -> Result<&[u8], String> {
        match self.0.iter().find(|(granted, _)| granted == name) {
            Some((_, bytes)) => Ok(bytes),
            None => Err(format!("`{name}` is not among the files granted to this plugin ({})", self.list())),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    fn list(&self) -> String {
        if self.0.is_empty() {
            return "none are".into();
        }
        self.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// A plain relative path, and after following links still below the folder: who writes definitions decides what is granted,
/// and that must not reach the rest of the machine. (A ConfigMap's links stay inside its folder.)
fn resolve(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let path = Path::new(name);
    let plain = !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain {
        return Err(format!("`{name}` is not a plain path below the plugin folder"));
    }
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no file `{name}` in {}", folder.display()),
        _ => format!("cannot read `{name}` in {}: {error}", folder.display()),
    };
    let folder_itself = folder.canonicalize().map_err(unreadable)?;
    let file = folder.join(path).canonicalize().map_err(unreadable)?;
    if !file.starts_with(&folder_itself) {
        return Err(format!("`{name}` is a link that leaves the plugin folder; copy or mount the file there"));
    }
    Ok(file)
}

fn read(path: &Path, name: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    read_bounded(path, bytes_max).map_err(|error| format!("cannot read `{name}`: {error}"))
}

/// The whole of a regular file, unless it is larger than `bytes_max`.
pub fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A plugin folder as Kubernetes mounts one, with a few traps.
    fn folder() -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("plugins");
        std::fs::create_dir_all(folder.join("..2026_11/data")).unwrap();
        std::fs::write(top.path().join("secret"), "secret").unwrap();
        std::fs::write(folder.join("..2026_11/a.csv"), "a,b").unwrap();
        std::fs::write(folder.join("..2026_11/data/deep.csv"), "deep").unwrap();
        symlink("..2026_11", folder.join("..data")).unwrap();
        symlink("..data/a.csv", folder.join("a.csv")).unwrap();
        symlink("..data/data", folder.join("data")).unwrap();
        symlink("../secret", folder.join("out.csv")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        symlink("nowhere", folder.join("dangling")).unwrap();
        top
    }

    #[test]
    fn only_what_is_below_the_folder_is_granted() {
        let top = folder();
        for (name, outcome) in [
            ("a.csv", Ok("a,b")),
            ("data/deep.csv", Ok("deep")),
            ("out.csv", Err("leaves the plugin folder")),
            ("up/secret", Err("leaves the plugin folder")),
            ("../secret", Err("not a plain path")),
            ("data/../../secret", Err("not a plain path")),
            ("/etc/hostname", Err("not a plain path")),
            ("", Err("not a plain path")),
            (".", Err("not a plain path")),
            ("./a.csv", Err("not a plain path")),
            ("dangling", Err("there is no file `dangling`")),
            ("b.csv", Err("there is no file `b.csv`")),
            ("data", Err("not a regular file")),
            ("a\0b", Err("cannot read")),
        ] {
            let loaded = Files::load(&top.path().join("plugins"), &[name.to_owned()], 5);
            match (loaded, outcome) {
                (Ok(files), Ok(text)) => assert_eq!(files.read(name), Ok(text.as_bytes())),
                (Err(message), Err(part)) => assert!(message.contains(part), "{name}: {message}"),
                (loaded, _) => panic!("{name}: {loaded:?} instead of {outcome:?}"),
            }
        }
    }

    #[test]
    fn sizes_and_numbers_are_limited() {
        let top = folder();
        let load = |names: &[String], bytes_max| Files::load(&top.path().join("plugins"), names, bytes_max);
        assert!(load(&["a.csv".into()], 3).is_ok());
        assert!(load(&["a.csv".into()], 2).unwrap_err().contains("larger than 2 bytes"));
        assert!(load(&vec!["a.csv".into(); FILES_MAX + 1], 3).unwrap_err().contains("at most 16"));
        let files = load(&["a.csv".into()], 3).unwrap();
        assert!(files.read("data/deep.csv").unwrap_err().contains("granted to this plugin (a.csv)"));
    }
}
