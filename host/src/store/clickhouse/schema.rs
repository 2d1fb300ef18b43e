//! The tables in ClickHouse: made, brought up to date, and a column added for each dimension that is new.
//! `docs/clickhouse.md` is what people read about them.

use std::collections::HashSet;

use super::connection::{Address, Connection, quoted};
use super::rows::{Reader, all};
use crate::store::StoreError;
use crate::store::embedded::{HOURS_KEPT_DAYS, MINUTES_KEPT_DAYS};

/// What this version makes and reads.
pub const VERSION: u32 = 2;
/// What migrations make.
const TABLES: [&str; 4] = ["metrics", "minutes", "hours", "events"];
/// Inserts whose tokens are remembered.
const TOKENS_REMEMBERED: u32 = 10_000;
/// Columns that are not dimensions. A dimension of such a name has `_` behind it.
const OWN: [&str; 14] = [
    "metric",
    "fingerprint",
    "part",
    "start",
    "row",
    "version",
    "gone",
    "count",
    "sum",
    "min",
    "max",
    "uniq",
    "sketch",
    "rest",
];

/// Names and statements for one installation.
pub struct Schema {
    database: String,
    cluster: Option<String>,
    events_kept_days: u32,
}

impl Schema {
    pub fn new(address: &Address) -> Self {
        Self {
            database: address.database.clone(),
            cluster: address.cluster.clone(),
            events_kept_days: address.events_days,
        }
    }

    pub fn table(&self, name: &str) -> String {
        format!("`{}`.`{name}`", self.database)
    }

    /// Makes what is not there and migrates what is older. Two hosts at once do no harm: every statement may be repeated.
    pub fn make(&self, connection: &Connection) -> Result<(), StoreError> {
        connection.execute(&format!("CREATE DATABASE IF NOT EXISTS `{}`{}", self.database, self.on_cluster()))?;
        connection.execute(&self.create(
            "schema_version",
            "version UInt32, at DateTime('UTC') DEFAULT now()",
            "MergeTree",
            "ORDER BY version",
        ))?;
        let found = connection.fetch_all(&format!("SELECT max(version) FROM {}", self.table("schema_version")))?;
        let found = Reader::new(&found).u32().unwrap_or(0);
        if found > VERSION {
            return Err(StoreError::Unavailable(format!(
                "the tables in ClickHouse are of version {found}, this host knows {VERSION}: it is too old for them"
            )));
        }
        // Somebody may have dropped some of them.
        let made = if self.are_all_there(connection)? { found } else { 0 };
        for version in made + 1..=VERSION {
            self.migration(version).iter().try_for_each(|statement| connection.execute(statement))?;
            let table = self.table("schema_version");
            connection.execute(&format!("INSERT INTO {table} (version) SELECT {version}"))?;
        }
        Ok(())
    }

    fn are_all_there(&self, connection: &Connection) -> Result<bool, StoreError> {
        let names: Vec<String> = TABLES.iter().map(|name| quoted(name)).collect();
        let sql = format!(
            "SELECT count() FROM system.tables WHERE database = {} AND name IN ({})",
            quoted(&self.database),
            names.join(", ")
        );
        Ok(Reader::new(&connection.fetch_all(&sql)?).u64() == Some(TABLES.len() as u64))
    }

    /// From the version before. Every statement may be repeated.
    fn migration(&self, version: u32) -> Vec<String> {
        match version {
            1 => {
                let metrics = "fingerprint UInt64, metric String, dimensions Array(String), kinds Array(String), \
                    since DateTime('UTC') DEFAULT now()";
                vec![
                    self.create("metrics", metrics, "ReplacingMergeTree", "ORDER BY fingerprint"),
                    self.create_rollup("minutes", "toDate(start)", MINUTES_KEPT_DAYS),
                    self.create_rollup("hours", "toYYYYMM(start)", HOURS_KEPT_DAYS),
                    self.create_events(),
                ]
            }
            // Which positions have arrived, without looking at events. `DELETE FROM events` goes on working.
            2 => {
                let (table, on_cluster) = (self.table("events"), self.on_cluster());
                let alter = format!("ALTER TABLE {table}{on_cluster}");
                let last = "SELECT origin, source, max(position), argMax(arrival, position) GROUP BY origin, source";
                vec![
                    format!("{alter} MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild'"),
                    format!("{alter} ADD PROJECTION IF NOT EXISTS last_positions ({last})"),
                ]
            }
            _ => unreachable!("only versions up to VERSION are asked for"),
        }
    }

    fn create_rollup(&self, name: &str, partition: &str, days: i64) -> String {
        // `row` numbers the cells of a pane, so that a later version with as many rows replaces it whole, whatever they are.
        let columns = "metric LowCardinality(String), fingerprint UInt64, part LowCardinality(String), \
            start DateTime('UTC') CODEC(Delta, ZSTD), row UInt32 CODEC(Delta, ZSTD), version UInt64 CODEC(ZSTD), gone Bool, \
            count UInt64, sum Float64, min Float64, max Float64, uniq UInt64, \
            sketch String CODEC(ZSTD), rest String CODEC(ZSTD)";
        let rest = format!(
            "PARTITION BY {partition} ORDER BY (metric, fingerprint, part, start, row) \
            TTL start + INTERVAL {days} DAY SETTINGS ttl_only_drop_parts = 1, {}",
            self.remembering()
        );
        self.create(name, columns, "ReplacingMergeTree(version)", &rest)
    }

    fn create_events(&self) -> String {
        let columns = "time DateTime64(3, 'UTC') CODEC(Delta, ZSTD), arrival DateTime64(3, 'UTC') CODEC(Delta, ZSTD), \
            key String CODEC(ZSTD), event String CODEC(ZSTD), address String CODEC(ZSTD), \
            user_agent LowCardinality(String), origin LowCardinality(String), source UInt32, position UInt64 CODEC(Delta, ZSTD), line UInt32 CODEC(Delta, ZSTD)";
        let rest = format!(
            "PARTITION BY toDate(arrival) ORDER BY (toStartOfHour(time), key, time) \
            TTL toDateTime(arrival) + INTERVAL {} DAY SETTINGS ttl_only_drop_parts = 1, {}",
            self.events_kept_days,
            self.remembering()
        );
        self.create("events", columns, "MergeTree", &rest)
    }

    fn create(&self, name: &str, columns: &str, engine: &str, rest: &str) -> String {
        let (table, on_cluster) = (self.table(name), self.on_cluster());
        let replicated = if self.cluster.is_some() { "Replicated" } else { "" };
        format!("CREATE TABLE IF NOT EXISTS {table}{on_cluster} ({columns}) ENGINE = {replicated}{engine} {rest}")
    }

    fn remembering(&self) -> String {
        let which = if self.cluster.is_some() { "replicated" } else { "non_replicated" };
        format!("{which}_deduplication_window = {TOKENS_REMEMBERED}")
    }

    fn on_cluster(&self) -> String {
        self.cluster.as_ref().map(|name| format!(" ON CLUSTER `{name}`")).unwrap_or_default()
    }

    /// The columns of the rollups.
    pub fn columns(&self, connection: &Connection) -> Result<HashSet<String>, StoreError> {
        // Of both tables: one of them may have been left out when a host died between the two.
        let sql = format!(
            "SELECT name FROM system.columns WHERE database = {} AND table IN ('minutes', 'hours') \
            GROUP BY name HAVING count() = 2",
            quoted(&self.database)
        );
        let bytes = connection.fetch_all(&sql)?;
        Ok(all(&bytes, |row| row.text().map(str::to_owned))?.into_iter().collect())
    }

    /// One for a dimension that no metric had before.
    pub fn add_column(&self, connection: &Connection, column: &str) -> Result<(), StoreError> {
        for table in ["minutes", "hours"] {
            let (table, on_cluster) = (self.table(table), self.on_cluster());
            connection.execute(&format!(
                "ALTER TABLE {table}{on_cluster} ADD COLUMN IF NOT EXISTS `{column}` LowCardinality(String)"
            ))?;
        }
        Ok(())
    }
}

/// The column of a dimension.
pub fn column(dimension: &str) -> String {
    let is_own = OWN.contains(&dimension.trim_end_matches('_'));
    format!("{dimension}{}", if is_own { "_" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_never_takes_one_of_our_columns() {
        for (dimension, expected) in
            [("country", "country"), ("count", "count_"), ("count_", "count__"), ("sum_up", "sum_up")]
        {
            assert_eq!(column(dimension), expected);
        }
    }

    #[test]
    fn a_cluster_is_named_in_every_statement_and_replicates() {
        let address = Address::parse("http://ch/shop?cluster=all").unwrap();
        let schema = Schema::new(&address);
        for statement in schema.migration(1) {
            assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS `shop`.`"), "{statement}");
            assert!(
                statement.contains(" ON CLUSTER `all` (") && statement.contains("ENGINE = Replicated"),
                "{statement}"
            );
            assert!(!statement.contains("non_replicated"), "{statement}");
        }
    }
}
