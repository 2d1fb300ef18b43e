//! Enricher: device class, browser and operating system out of a User-Agent string, by woothee's rules.
//!
//! Input: one field, the User-Agent. Outputs, any of them in any order: `device` (see [`device`]); `browser` and `os` by
//! woothee's names for them (`Chrome`, `Safari`, `Edge`, …, for a bot the bot's name; `Windows 10`, `Mac OSX`, `iPhone`,
//! `Android`, …). What woothee cannot tell, and an empty string, has no value. There is no config.

use serde::Deserialize;
use tidemark_plugin::{Enricher, Out, Row, Settings, export_enricher};
use woothee::parser::{Parser, WootheeResult};
use woothee::woothee::VALUE_UNKNOWN;

const OUTPUTS: [&str; 3] = ["device", "browser", "os"];
type Reader = for<'a> fn(&WootheeResult<'a>, &'a str) -> Option<&'a str>;
const READERS: [Reader; 3] = [device, |found, _| known(found.name), |found, _| known(found.os)];

/// Longer ones are made by hand: only so much of them is read, so that a batch of them stays far from the deadline
/// (50 µs for 512 bytes that match nothing). Of 10,000 real ones the longest had 270.
const AGENT_BYTES_READ: usize = 320;

/// woothee compiles its patterns when they are first needed: these agents need most of them, so that the first rows do
/// not pay for it.
const WARM_UP: [&str; 4] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 Version/17.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 SamsungBrowser/23.0 Chrome/115.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (compatible; somebot/1.0)",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoConfig {}

struct UserAgent {
    parser: Parser,
    /// For each declared output, where it is read.
    readers: Vec<Reader>,
}

impl Enricher for UserAgent {
    fn new(settings: &Settings) -> Result<Self, String> {
        settings.expect_input(&["the User-Agent"])?;
        let NoConfig {} = settings.config()?;
        let readers = settings.expect_output(&OUTPUTS)?.into_iter().map(|known| READERS[known]).collect();
        let parser = Parser::new();
        WARM_UP.iter().for_each(|agent| drop(parser.parse(agent)));
        Ok(UserAgent { parser, readers })
    }

    fn enrich(&mut self, row: Row<'_>, out: &mut Out<'_>) {
        let Some(agent) = row.text(0) else { return };
        let agent = &agent[..agent.floor_char_boundary(AGENT_BYTES_READ)];
        let Some(found) = self.parser.parse(agent) else { return };
        for (output, read) in self.readers.iter().enumerate() {
            out.text(output, read(&found, agent));
        }
    }
}

export_enricher!(UserAgent);

fn known(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty() && *value != VALUE_UNKNOWN)
}

/// woothee's category in the words of `device`:
///
/// | woothee | device |
/// |---|---|
/// | pc | `desktop` |
/// | smartphone | `tablet` for an iPad and for an Android that does not say `Mobile`, else `mobile` |
/// | mobilephone | `mobile` |
/// | appliance | `tv` for a television, else `console` |
/// | crawler | `bot` |
/// | misc | `bot` for HTTP libraries, `other` for the rest (feed readers, desktop tools) |
///
/// woothee itself does not tell Android tablets from phones; the word `Mobile` is Chrome's documented difference.
fn device<'a>(found: &WootheeResult<'a>, agent: &'a str) -> Option<&'a str> {
    Some(match (found.category, found.os) {
        ("pc", _) => "desktop",
        ("smartphone", "iPad") => "tablet",
        ("smartphone", "Android") if !agent.contains("Mobile") => "tablet",
        ("smartphone" | "mobilephone", _) => "mobile",
        ("appliance", "DigitalTV") => "tv",
        ("appliance", _) => "console",
        ("crawler", _) => "bot",
        ("misc", _) if found.name == "HTTP Library" => "bot",
        ("misc", _) => "other",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tidemark_plugin::testing::{Value, enrich_one, enricher_cases, settings};

    use super::UserAgent;

    #[test]
    fn cases() {
        enricher_cases::<UserAgent>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases.toml"));
    }

    #[test]
    fn outputs_are_the_declared_ones_in_their_order() {
        let two = settings(&["ua"], &["os", "device"], "{}");
        let row = enrich_one::<UserAgent>(&two, &[Some("Mozilla/5.0 (Windows NT 10.0; rv:115.0) Firefox/115.0")]);
        assert_eq!(row, Ok(vec![Value::from("Windows 10"), Value::from("desktop")]));
    }

    #[test]
    fn of_a_very_long_one_the_beginning_is_read() {
        let device = |agent: &str| enrich_one::<UserAgent>(&settings(&["ua"], &["device"], "{}"), &[Some(agent)]);
        for shift in 0..12 {
            let long = format!("{}{}", "x".repeat(shift), "curl/8.0 €".repeat(50_000));
            let wanted = if shift == 0 { Value::from("bot") } else { Value::Null };
            assert_eq!(device(&long), Ok(vec![wanted]), "{shift}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |input: &[&str], output: &[&str], config: &str| {
            enrich_one::<UserAgent>(&settings(input, output, config), &[Some("curl/8.0")]).unwrap_err()
        };
        assert_eq!(
            error(&["ua"], &["device", "browsr"], "{}"),
            "output: there is no \"browsr\", did you mean \"browser\"?; known are \"device\", \"browser\", \"os\""
        );
        assert_eq!(error(&[], &["device"], "{}"), "input: takes 1 field (the User-Agent), but is given 0 fields");
        assert_eq!(
            error(&["ua"], &["device"], r#"{"lang":"en"}"#),
            "config: unknown field `lang`, there are no fields"
        );
    }
}
