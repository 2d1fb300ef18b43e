//! Enricher: the country of an IP address, from a database in MaxMind's format.
//!
//! Input: one field, an IPv4 or IPv6 address. Output: `country`, the two-letter code of ISO 3166-1. Files: one `.mmdb`,
//! granted as `country.mmdb` or as `config.file` says; its records may be flat (`country_code`, as iptoasn's) or
//! nested (`country.iso_code`, as GeoLite2's). An address that the database does not know gets `config.unknown`, or no
//! value without it; what is not an address has no value.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use maxminddb::{PathElement, Reader};
use serde::Deserialize;
use tidemark_plugin::{Enricher, Out, Row, Settings, export_enricher, host};

const FLAT: [PathElement<'static>; 1] = [PathElement::Key("country_code")];
const NESTED: [PathElement<'static>; 2] = [PathElement::Key("country"), PathElement::Key("iso_code")];

/// Countries remembered by the place of their record. A power of two.
const REMEMBERED: usize = 1024;

/// Networks remembered, one for each first half of an IPv4 address.
const NETWORKS: usize = 1 << 16;

/// An address and some spaces around it; what is longer is not worth reading.
const ADDRESS_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    unknown: Option<String>,
    #[serde(default = "default_file")]
    file: String,
}

fn default_file() -> String {
    "country.mmdb".to_owned()
}

struct GeoIp {
    database: Reader<Vec<u8>>,
    /// Where a record has its country.
    path: &'static [PathElement<'static>],
    unknown: Option<String>,
    /// What the record at a place said last: many networks share a record, and reading one costs more than finding it.
    remembered: Vec<Option<(usize, Option<String>)>>,
    /// The network found last for each first half of an address: most addresses are of large networks, and the way down the
    /// tree to one costs more than a look here.
    networks: Vec<Network>,
}

/// Addresses that have one record.
#[derive(Clone, Copy)]
struct Network {
    first: u32,
    last: u32,
    /// Of the record.
    place: usize,
}

/// No address is in it.
const NO_NETWORK: Network = Network { first: 1, last: 0, place: 0 };

impl Enricher for GeoIp {
    fn new(settings: &Settings) -> Result<Self, String> {
        settings.expect_input(&["an IP address"])?;
        settings.expect_output(&["country"])?;
        let Config { unknown, file } = settings.config()?;
        let database = Reader::from_source(host::read_file(&file)?).map_err(|error| format!("{file}: {error}"))?;
        let path = country_path(&database).ok_or_else(|| format!("{file}: its records have no country code"))?;
        let (remembered, networks) = (vec![None; REMEMBERED], vec![NO_NETWORK; NETWORKS]);
        Ok(GeoIp { database, path, unknown, remembered, networks })
    }

    fn enrich(&mut self, row: Row<'_>, out: &mut Out<'_>) {
        let Some(address) = row.text(0).and_then(address) else { return };
        let country = self.country(address);
        for output in 0..out.len() {
            out.text(output, country);
        }
    }
}

impl GeoIp {
    /// An IPv4 address written as IPv6 (`::ffff:8.8.8.8`) is the IPv4 address.
    fn country(&mut self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        let known = match address {
            IpAddr::V4(address) => self.known_place(address),
            IpAddr::V6(_) => None,
        };
        let place = known.or_else(|| self.look_up(address));
        let country = place.and_then(|place| self.remembered[slot(place)].as_ref()?.1.as_deref());
        country.or(self.unknown.as_deref())
    }

    /// The place of a record that is remembered.
    fn known_place(&self, address: Ipv4Addr) -> Option<usize> {
        let bits = address.to_bits();
        let Network { first, last, place } = self.networks[(bits >> 16) as usize];
        let known = || self.remembered[slot(place)].as_ref().is_some_and(|(of, _)| *of == place);
        ((first..=last).contains(&bits) && known()).then_some(place)
    }

    /// Remembers the network of the address and the country of its record.
    fn look_up(&mut self, address: IpAddr) -> Option<usize> {
        let found = self.database.lookup(address).ok()?;
        let place = found.offset()?;
        if let (IpAddr::V4(address), Ok(IpNetwork::V4(network))) = (address, found.network()) {
            let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
            self.networks[(address.to_bits() >> 16) as usize] = Network { first, last, place };
        }
        let remembered = &mut self.remembered[slot(place)];
        if remembered.as_ref().is_none_or(|(of, _)| *of != place) {
            let country: Option<&str> = found.decode_path(self.path).ok().flatten();
            *remembered = Some((place, country.map(str::to_owned)));
        }
        Some(place)
    }
}

/// Where a record is remembered.
fn slot(place: usize) -> usize {
    (place.wrapping_mul(0x9e37_79b1) >> 16) % REMEMBERED
}

export_enricher!(GeoIp);

fn address(text: &str) -> Option<IpAddr> {
    if text.len() > ADDRESS_BYTES_MAX { None } else { text.trim().parse().ok() }
}

/// The way to the country that the first record with one has.
fn country_path(database: &Reader<Vec<u8>>) -> Option<&'static [PathElement<'static>]> {
    const RECORDS_TRIED_MAX: usize = 1000;
    let records = database.networks(Default::default()).ok()?;
    records.take(RECORDS_TRIED_MAX).flatten().find_map(|record| {
        let has = |path: &[PathElement]| matches!(record.decode_path::<&str>(path), Ok(Some(_)));
        if has(&FLAT) { Some(FLAT.as_slice()) } else { has(&NESTED).then_some(NESTED.as_slice()) }
    })
}

#[cfg(test)]
mod tests {
    use tidemark_plugin::testing::{Value, enrich, enrich_one, enricher_cases, grant_file, settings};

    use std::net::Ipv4Addr;

    use super::GeoIp;

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    #[test]
    fn cases() {
        enricher_cases::<GeoIp>(format!("{HERE}/cases.toml"));
    }

    #[track_caller]
    fn check(config: &str, address: &str, expected: Result<Value, &str>) {
        grant_file("country.mmdb", format!("{HERE}/../country.mmdb"));
        grant_file("broken.mmdb", format!("{HERE}/Cargo.toml"));
        let row = enrich_one::<GeoIp>(&settings(&["ip"], &["country"], config), &[Some(address)]);
        assert_eq!(row.map(|mut values| values.remove(0)), expected.map_err(str::to_owned));
    }

    #[test]
    fn an_unknown_address_has_no_value_unless_told() {
        check("{}", "10.0.0.1", Ok(Value::Null));
        check(r#"{"unknown":""}"#, "10.0.0.1", Ok("".into()));
        check(r#"{"unknown":"XX"}"#, "8.8.8.8", Ok("US".into()));
    }

    /// Neighbours in one network, in the next one, and again: each as if it were asked for alone.
    #[test]
    fn what_is_remembered_changes_no_answer() {
        grant_file("country.mmdb", format!("{HERE}/../country.mmdb"));
        let settings = settings(&["ip"], &["country"], "{}");
        let addresses: Vec<String> =
            (0..4_000u32).map(|n| Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1) & 0xff03_ffff).to_string()).collect();
        let rows: Vec<Vec<Option<&str>>> =
            addresses.iter().chain(&addresses).map(|it| vec![Some(it.as_str())]).collect();
        let together = enrich::<GeoIp>(&settings, &rows).unwrap();
        for (row, together) in rows.iter().zip(together).step_by(37) {
            assert_eq!(enrich_one::<GeoIp>(&settings, row).unwrap(), together, "{row:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        check(r#"{"unkown":"--"}"#, "8.8.8.8", Err("config: unknown field `unkown`, expected `unknown` or `file`"));
        check(r#"{"file":"city.mmdb"}"#, "8.8.8.8", Err("\"city.mmdb\" is not among the granted files"));
        let broken = "broken.mmdb: invalid database: could not find MaxMind DB metadata in file";
        check(r#"{"file":"broken.mmdb"}"#, "8.8.8.8", Err(broken));
    }
}
