//! The lines of `GET /metrics` by name. Reads what a Tidemark host writes, and passes over the rest.

/// Name, the value of the first label, value.
pub struct Samples(Vec<(String, String, f64)>);

impl Samples {
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| {
                    let (series, value) = line.rsplit_once(' ')?;
                    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                    let label = labels.split('"').nth(1).unwrap_or_default();
                    Some((name.to_owned(), label.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    pub fn one(&self, name: &str) -> Option<f64> {
        self.each(name).map(|(_, value)| value).next()
    }

    /// All of one name, with their first label's value.
    pub fn each<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> + Clone {
        self.0.iter().filter(move |(of, _, _)| of == name).map(|(_, label, value)| (label.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_host_writes() {
        let telemetry = crate::telemetry::Telemetry::default();
        telemetry.shards.set(0, 12, 3);
        telemetry.shards.set(1, 5, 0);
        telemetry.serve.connections.set(7);
        let samples = Samples::read(&telemetry.encode());
        assert_eq!(samples.one("tidemark_connections"), Some(7.0));
        assert_eq!(samples.one("tidemark_nothing"), None);
        let mut shards: Vec<_> = samples.each("tidemark_shard_events_total").collect();
        shards.sort_by(|a, b| a.0.cmp(b.0));
        assert_eq!(shards, [("0", 12.0), ("1", 5.0)]);
    }
}
