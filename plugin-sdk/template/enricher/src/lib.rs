//! Enricher: the site of a URL. `https://www.example.com/shop?q=1` becomes `example.com`.

use tidemark_plugin::{Enricher, Out, Row, Settings, export_enricher};

struct {{type_name}};

impl Enricher for {{type_name}} {
    fn new(settings: &Settings) -> Result<Self, String> {
        settings.expect_input(&["a URL"])?;
        settings.expect_output(&["site"])?;
        Ok({{type_name}})
    }

    fn enrich(&mut self, row: Row<'_>, out: &mut Out<'_>) {
        let Some((_, rest)) = row.text(0).and_then(|url| url.split_once("://")) else { return };
        let host = rest.split(['/', '?', '#', ':']).next().unwrap_or(rest);
        out.text(0, host.strip_prefix("www.").unwrap_or(host));
    }
}

export_enricher!({{type_name}});

#[cfg(test)]
#[test]
fn cases() {
    tidemark_plugin::testing::enricher_cases::<{{type_name}}>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases.toml"));
}
