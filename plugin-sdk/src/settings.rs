//! What the definitions say to a plugin: its fields and its `config`, read into the author's own type.

use serde::de::DeserializeOwned;

use crate::suggest::{did_you_mean, listed};

/// The `config` table of the definitions, as JSON.
#[derive(Debug, Clone)]
pub struct Config {
    json: String,
}

impl Config {
    /// From JSON text, an object.
    pub fn new(json: impl Into<String>) -> Config {
        Config { json: json.into() }
    }

    /// The JSON text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Reads the config into `T`. Put `#[serde(deny_unknown_fields)]` on `T`, so that a misspelt key is an error whoever
    /// wrote the definitions can see; with `#[serde(default)]` an absent key takes the default.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_str(&self.json).map_err(|error| format!("config: {}", without_position(&error.to_string())))
    }
}

/// serde_json's line and column are of the JSON, which the author of the definitions never saw.
fn without_position(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(text, _)| text)
}

/// What an enricher is told when it is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The event fields that are handed in, in this order.
    pub input: Vec<String>,
    /// The fields that are expected back, in this order.
    pub output: Vec<String>,
    /// The `config` table.
    pub config: Config,
}

impl Settings {
    /// Reads `config` into `T`; see [`Config::read`].
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, String> {
        self.config.read()
    }

    /// An error unless there are exactly as many input fields as `what` has names for.
    ///
    /// ```
    /// # let settings = tidemark_plugin::testing::settings(&["ip"], &["country"], "{}");
    /// settings.expect_input(&["an IP address"])?;
    /// # Ok::<(), String>(())
    /// ```
    pub fn expect_input(&self, what: &[&str]) -> Result<(), String> {
        if self.input.len() == what.len() {
            return Ok(());
        }
        let count = |n: usize| if n == 1 { "1 field".to_owned() } else { format!("{n} fields") };
        Err(format!(
            "input: takes {} ({}), but is given {}",
            count(what.len()),
            what.join(", "),
            count(self.input.len())
        ))
    }

    /// For each declared output, in order, its place in `known`; an error that suggests a name if one is not there.
    ///
    /// ```
    /// # let settings = tidemark_plugin::testing::settings(&["text"], &["os", "device"], "{}");
    /// let outputs = settings.expect_output(&["device", "browser", "os"])?;
    /// assert_eq!(outputs, [2, 0]);
    /// # Ok::<(), String>(())
    /// ```
    pub fn expect_output(&self, known: &[&str]) -> Result<Vec<usize>, String> {
        let place = |name: &String| {
            known.iter().position(|k| k == name).ok_or_else(|| {
                let known_list = listed(known);
                format!("output: there is no \"{name}\"{}; known are {known_list}", did_you_mean(name, known))
            })
        };
        self.output.iter().map(place).collect()
    }
}
