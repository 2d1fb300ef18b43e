//! `tidemark query`: a metric of a running host, for people, programs and spreadsheets.

mod show;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::client::{Remote, escaped};
use super::paint;
use crate::serve::query::request::parse_duration;

/// Ask a running host for a metric.
#[derive(Args)]
pub struct Arguments {
    /// Its name; GET /v1/metrics lists them.
    metric: String,
    /// Dimensions to tell apart, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "DIMENSION,…")]
    by: Vec<String>,
    /// Only these values: "country=US,DE" (`%2C` is a comma inside a value); may be given more than once.
    #[arg(long = "where", value_name = "DIMENSION=VALUE,…", value_parser = filter)]
    filters: Vec<Filter>,
    /// How far back from now: 30m, 1h (if nothing else is given), 7d.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["from", "to"])]
    last: Option<String>,
    /// Where it begins: RFC 3339, Unix milliseconds, or relative as -24h; 24 h before the end, if not given.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Where it ends; now, if not given.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Between two points: a whole number of minutes.
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    step: String,
    /// For people, the host's answer as it is, or one line a point.
    #[arg(long, default_value = "table")]
    format: Format,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    dimension: String,
    values: Vec<String>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let text = arguments.remote.text(&path(arguments))?;
    if arguments.format == Format::Json {
        return super::print(format!("{text}\n").as_bytes());
    }
    let answer: show::Answer = serde_json::from_str(&text).context("the answer is not what a Tidemark host says")?;
    let out = match arguments.format {
        Format::Csv => show::csv(&answer, &arguments.by)?,
        _ => {
            let terminal = console::Term::stdout();
            let width = terminal.is_term().then(|| usize::from(terminal.size().1));
            show::table(&answer, width, paint::on_out()).into_bytes()
        }
    };
    super::print(&out)
}

fn path(arguments: &Arguments) -> String {
    let Arguments { metric, by, filters, last, from, to, step, .. } = arguments;
    let mut path = format!("/v1/query?metric={}&step={}", escaped(metric), escaped(step));
    let last = if from.is_none() && to.is_none() { Some(last.as_deref().unwrap_or("1h")) } else { None };
    let from = last.map(|last| format!("-{last}")).or(from.clone());
    for (name, value) in [("from", from), ("to", to.clone())] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", escaped(&value)));
        }
    }
    if !by.is_empty() {
        path.push_str(&format!("&by={}", by.iter().map(|name| escaped(name)).collect::<Vec<_>>().join(",")));
    }
    for Filter { dimension, values } in filters {
        let values: Vec<String> = values.iter().map(|value| escaped(value)).collect();
        path.push_str(&format!("&{}={}", escaped(dimension), values.join(",")));
    }
    path
}

/// `country=US,DE`; `country = 'US'` is meant the same.
fn filter(text: &str) -> Result<Filter, String> {
    let (dimension, values) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is no filter such as country=US,DE"))?;
    let bare = |value: &str| {
        let value = value.trim();
        let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
        quoted.unwrap_or(value).replace("%2C", ",").replace("%2c", ",")
    };
    Ok(Filter { dimension: dimension.trim().to_owned(), values: values.split(',').map(bare).collect() })
}

fn duration(text: &str) -> Result<String, String> {
    let known = parse_duration(text).filter(|ms| *ms > 0);
    known.map(|_| text.to_owned()).ok_or_else(|| format!("`{text}` is no duration such as 30m, 1h, 7d"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_is_typed_is_asked() {
        let cases: &[(&[&str], &str)] = &[
            (&["m"], "/v1/query?metric=m&step=1m&from=-1h"),
            (&["m", "--last", "7d", "--step", "1h"], "/v1/query?metric=m&step=1h&from=-7d"),
            (&["m", "--from", "-24h", "--to", "-1h"], "/v1/query?metric=m&step=1m&from=-24h&to=-1h"),
            (
                &["m", "--to", "2026-01-31T12:00:00+01:00"],
                "/v1/query?metric=m&step=1m&to=2026-01-31T12%3A00%3A00%2B01%3A00",
            ),
            (
                &["a&b", "--by", "x,y", "--by", "z", "--where", "c=US,D E", "--where", "d = 'a%2Cb'", "--where", "e="],
                "/v1/query?metric=a%26b&step=1m&from=-1h&by=x,y,z&c=US,D%20E&d=a%2Cb&e=",
            ),
        ];
        for (typed, asked) in cases {
            let command = Command::try_parse_from([&["query"], *typed].concat()).unwrap();
            assert_eq!(path(&command.arguments), *asked, "{typed:?}");
        }
        let wrong: &[&[&str]] =
            &[&[], &["m", "--last", "soon"], &["m", "--where", "US"], &["m", "--last", "1h", "--to", "now"]];
        for typed in wrong {
            assert!(Command::try_parse_from([&["query"], *typed].concat()).is_err(), "{typed:?}");
        }
    }
}
