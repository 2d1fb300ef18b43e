//! The real engine: the suite of history stores, and what happens when it is down, slow, shut or too full.

use std::sync::OnceLock;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidemark_services::{Kind, Proxy, Service};

use super::connection::quoted;
use super::*;
use crate::store::embedded::Embedded;
use crate::store::pane::Wanted;
use crate::store::reader::JoinedReader;
use crate::store::{HistoryStore, HotStore, PaneRecord, PaneRequest, Resolution, StateReader, suite};
use crate::time::Clock;

/// One engine for all tests that do no harm to it, each in a database of its own.
fn shared() -> &'static Service {
    static SHARED: OnceLock<Service> = OnceLock::new();
    SHARED.get_or_init(|| Service::start(Kind::ClickHouse).unwrap())
}

fn address(of: &str, database: &str) -> Address {
    Address::parse(&format!("http://{of}/{database}")).unwrap()
}

fn connect(database: &str) -> ClickHouse {
    ClickHouse::new(&address(&shared().address(), database)).unwrap()
}

/// A connection that does not wait long.
fn hasty(address: &Address) -> ClickHouse {
    ClickHouse::with_deadline(address, Duration::from_secs(2)).unwrap()
}

fn today() -> u32 {
    Minute::of(Clock::System.now()).day()
}

fn record(minute: u32, version: u64) -> PaneRecord {
    suite::history_record(1, Resolution::Minute, Minute(today() * 1440 + minute), version)
}

/// The minutes of today, and their versions.
fn found(store: &ClickHouse) -> Result<Vec<(u32, u64)>, StoreError> {
    let day = today() * 1440;
    let request = PaneRequest {
        fingerprint: Fingerprint(1),
        resolution: Resolution::Minute,
        steps: Minute(day)..Minute(day + 1440),
        wanted: Wanted::All,
        selected: None,
        filters: &[],
    };
    let mut found = Vec::new();
    store.read(&request, &mut |pane| {
        found.push((pane.start.0 - day, pane.version));
        Ok(())
    })?;
    Ok(found)
}

/// The only number of an answer.
fn number(store: &ClickHouse, sql: &str) -> f64 {
    let bytes = store.connection.fetch_all(&format!("SELECT toFloat64(x) FROM ({sql})")).unwrap();
    f64::from_le_bytes(bytes.try_into().unwrap())
}

fn refusal<T>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Unavailable(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it is to fail"),
    }
}

#[test]
fn is_a_history_store() {
    suite::history_store(&connect("suite"), today());
}

#[test]
fn starts_without_the_engine_and_goes_on_after_its_death() {
    let mut service = Service::start(Kind::ClickHouse).unwrap();
    service.stop().unwrap();
    let store = hasty(&address(&service.address(), "deaths"));
    assert_eq!(store.problem(), None, "nothing was asked of it yet");
    assert!(refusal(store.write(&[record(0, 1)])).contains("cannot be reached"));
    assert!(refusal(found(&store)).contains("cannot be reached"));
    assert!(store.problem().is_some());
    service.start_again().unwrap();
    store.write(&[record(0, 1)]).unwrap();
    assert_eq!(store.problem(), None);
    service.kill().unwrap();
    assert!(refusal(found(&store)).contains("cannot be reached"));
    assert!(refusal(store.write(&[record(1, 2)])).contains("cannot be reached"));
    service.start_again().unwrap();
    assert_eq!(found(&store).unwrap(), [(0, 1)], "what was answered outlived it");
    service.freeze().unwrap();
    assert!(refusal(store.write(&[record(1, 2)])).contains("does not answer within 2 s"));
    service.thaw().unwrap();
    store.write(&[record(1, 2)]).unwrap();
    assert_eq!(found(&store).unwrap(), [(0, 1), (1, 2)]);
}

#[test]
fn a_lost_answer_is_repeated_and_counts_once() {
    let proxy = Proxy::before(shared().port).unwrap();
    let store = hasty(&address(&proxy.address(), "lost_answers"));
    store.write(&[record(0, 1)]).unwrap();
    let rows = |store: &ClickHouse| number(store, "SELECT count() AS x FROM lost_answers.minutes");
    let before = rows(&store);
    // It asks what is there, then inserts.
    proxy.lose_answers_after(1, 1);
    assert!(refusal(store.write(&[record(1, 2)])).contains("cannot be reached"));
    assert_eq!(proxy.lost(), 1);
    let after = rows(&store);
    assert!(after > before, "it was done");
    store.write(&[record(1, 2)]).unwrap();
    assert_eq!(rows(&store), after, "the same token: nothing is there twice");
    assert_eq!(found(&store).unwrap(), [(0, 1), (1, 2)]);
}

#[test]
fn says_that_the_password_is_wrong() {
    let service = Service::start_with(Kind::ClickHouse, &["--password", "p@ss/word"]).unwrap();
    let with = |password: &str| {
        ClickHouse::new(&Address::parse(&format!("http://default:{password}@{}/p", service.address())).unwrap())
            .unwrap()
    };
    let text = refusal(with("guessed").write(&[record(0, 1)]));
    assert!(text.contains("refuses") && text.contains("password is incorrect") && !text.contains("guessed"), "{text}");
    with("p%40ss%2Fword").write(&[record(0, 1)]).unwrap();
}

#[test]
fn too_many_parts_is_said_and_nothing_is_lost() {
    let store = connect("parts");
    store.prepare().unwrap();
    store.connection.execute("SYSTEM STOP MERGES parts.minutes").unwrap();
    store.write(&[record(0, 1)]).unwrap();
    store.write(&[record(1, 2)]).unwrap();
    let limit = |parts: u32| {
        let sql = format!(
            "ALTER TABLE parts.minutes MODIFY SETTING parts_to_throw_insert = {parts}, parts_to_delay_insert = {parts}"
        );
        store.connection.execute(&sql).unwrap();
    };
    limit(2);
    let text = refusal(store.write(&[record(2, 3)]));
    assert!(text.contains("TOO_MANY_PARTS"), "{text}");
    assert!(store.problem().is_some());
    limit(100);
    store.write(&[record(2, 3)]).unwrap();
    assert_eq!(found(&store).unwrap(), [(0, 1), (1, 2), (2, 3)]);
}

/// What people's own SQL sees: a correction with fewer cells leaves none of the old ones.
#[test]
fn sql_of_others_sees_the_newest_version_only() {
    let store = connect("others");
    let sum = || number(&store, "SELECT sum(count) AS x FROM others.minutes FINAL WHERE metric = 'm1' AND part = ''");
    let mut newest = 0;
    for version in [3, 1, 9, 8, 12, 10, 20, 21, 22] {
        newest = newest.max(version);
        store.write(&[record(0, version)]).unwrap();
        let pane = crate::store::pane::decode(&record(0, newest).bytes, Wanted::Full).unwrap();
        let super::super::cells::Column::Count(counts) = &pane.pane.full.columns[0] else { panic!("a count") };
        assert_eq!(sum(), counts.iter().sum::<u64>() as f64, "after version {version}");
    }
}

#[test]
fn a_large_insert_is_one_part() {
    let store = connect("blocks");
    let many: Vec<PaneRecord> = (0..600).map(|minute| record(minute, 1)).collect();
    // Some megabytes: beyond what is sent and read in one piece.
    let wide = Names { metric: "x".repeat(2000).into(), dimensions: many[0].names.dimensions.clone() };
    let many: Vec<_> = many.into_iter().map(|pane| PaneRecord { names: Arc::new(wide.clone()), ..pane }).collect();
    store.prepare().unwrap();
    store.connection.execute("SYSTEM STOP MERGES blocks.minutes").unwrap();
    store.write(&many).unwrap();
    let parts = |what: &str| {
        let of = "FROM system.parts WHERE database = 'blocks' AND table = 'minutes' AND active";
        number(&store, &format!("SELECT {what} AS x {of}"))
    };
    assert!(parts("sum(rows)") * 2000.0 > 9e6, "large");
    assert_eq!(parts("count()"), 1.0);
}

#[test]
fn a_new_dimension_adds_a_column_and_newer_tables_are_refused() {
    let store = connect("columns");
    store.write(&[record(0, 1)]).unwrap();
    let names = Names { metric: "m2".into(), dimensions: vec!["planet".into(), "first".into()] };
    let second = PaneRecord { names: Arc::new(names), fingerprint: Fingerprint(2), ..record(0, 1) };
    store.write(&[second]).unwrap();
    let columns = |name: &str| {
        let of = "FROM system.columns WHERE database = 'columns' AND table IN ('minutes', 'hours')";
        number(&store, &format!("SELECT count() AS x {of} AND name = {}", quoted(name)))
    };
    assert_eq!([columns("planet"), columns("first"), columns("count_"), columns("count")], [2.0; 4]);
    let again = connect("columns");
    assert_eq!(found(&again).unwrap(), [(0, 1)]);
    store.connection.execute("INSERT INTO columns.schema_version (version) VALUES (99)").unwrap();
    assert!(refusal(found(&connect("columns"))).contains("too old for them"));
}

/// A host's stores with history here: outages, restarts, evictions and corrections in between, held against a naive model.
#[test]
fn history_is_whole_over_outages_and_restarts() {
    [3, 7, 23, 27, 29].into_iter().for_each(whole_over_outages);
}

fn whole_over_outages(seed: u64) {
    let proxy = Proxy::before(shared().port).unwrap();
    let store = Arc::new(hasty(&address(&proxy.address(), &format!("outages_{seed}"))));
    let folder = suite::Folder::new(&format!("outages-{seed}"));
    let plan = suite::plan();
    let base = (today() - 1) * 1440 - 70;
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = suite::Model::default();
    let open = || {
        let embedded = Embedded::open(&folder.0).unwrap();
        let hot = Arc::new(embedded.load_with(store.clone()).unwrap());
        (embedded, hot)
    };
    let (mut embedded, mut hot) = open();
    let mut outages = 0;
    for round in 0..24u64 {
        proxy.mend();
        let events = suite::random_events(&mut random, base..base + 140);
        hot.apply(suite::delta(&plan, &model, &events)).unwrap();
        model.apply(&plan, &events, round);
        let cut = random.random_bool(0.4);
        if cut {
            proxy.cut();
        }
        hot.close_up_to(Minute(base + random.random_range(0..260)));
        let done = embedded.checkpoint(&hot, Some(&*store), &|| Ok(())).unwrap();
        assert!(cut || done.behind.is_none(), "{done:?}");
        outages += u32::from(done.behind.is_some());
        // Days stay as long as one of their hours does, so that limits go on as if nothing had been evicted: never at midnight.
        hot.evict(Minute((today() - 1) * 1440 - random.random_range(1..70)));
        if random.random_bool(0.4) {
            drop((embedded, hot));
            (embedded, hot) = open();
        }
        let joined = JoinedReader::new(hot.clone(), Some(store.clone()));
        for metric in 0..plan.metrics.len() {
            let request = suite::random_request(&mut random, &plan, metric, base..base + 140);
            match joined.read(&request) {
                Ok(answer) => {
                    assert_eq!(
                        suite::flatten(&answer),
                        model.read(metric, &request),
                        "seed {seed}, round {round} {request:?}"
                    )
                }
                Err(StoreError::Unavailable(_)) if cut => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    assert!(outages > 3);
}

#[test]
fn what_was_emptied_is_noticed_and_written_again() {
    let store = Arc::new(connect("emptied"));
    let (folder, plan) = (suite::Folder::new("emptied"), suite::plan());
    let embedded = Embedded::open(&folder.0).unwrap();
    let hot = embedded.load_with(store.clone()).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    let (mut model, midnight) = (suite::Model::default(), today() * 1440);
    for round in 0..6 {
        let events = suite::random_events(&mut random, midnight - 90..midnight + 100);
        hot.apply(suite::delta(&plan, &model, &events)).unwrap();
        model.apply(&plan, &events, round);
    }
    hot.close_up_to(Minute(midnight + 60));
    let write = || embedded.checkpoint(&hot, Some(&*store), &|| Ok(())).unwrap();
    assert_eq!(hot.written_samples(), []);
    assert!(write().history > 0);
    let all = || {
        let of = |table: &str| format!("SELECT sum(cityHash64(*)) AS x FROM emptied.{table} FINAL WHERE NOT gone");
        [of("minutes"), of("hours")].map(|sql| number(&store, &sql))
    };
    let before = all();
    assert!(store.has(&hot.written_samples()).unwrap());
    assert_eq!(write().history, 0);
    let yesterday = number(&store, &format!("SELECT toYYYYMMDD(toDate({})) AS x", today() - 1)).to_string();
    let yesterday = format!("{}-{}-{}", &yesterday[..4], &yesterday[4..6], &yesterday[6..]);
    for harm in [
        "TRUNCATE TABLE emptied.minutes".into(),
        "TRUNCATE TABLE emptied.hours".into(),
        "TRUNCATE TABLE emptied.metrics".into(),
        "DROP TABLE emptied.hours".into(),
        "DROP TABLE emptied.schema_version".into(),
        "DROP DATABASE emptied".into(),
        format!("ALTER TABLE emptied.minutes DROP PARTITION '{yesterday}'"),
    ] {
        store.connection.execute(&harm).unwrap();
        // A table that is not there is first an error.
        let has = store.has(&hot.written_samples()).or_else(|_| store.has(&hot.written_samples())).unwrap();
        assert_eq!(has, harm.contains("schema_version"), "{harm}");
        if !has {
            hot.history_lost();
            assert!(write().history > 0, "{harm}");
        }
        assert_eq!((all(), store.has(&hot.written_samples()).unwrap()), (before, true), "{harm}");
        let again = connect("emptied");
        assert!(again.has(&hot.written_samples()).unwrap(), "{harm}: for a host that starts");
    }
    assert!(connect("emptied").has(&[]).unwrap());
}

#[test]
fn raw_events_are_there_once() {
    let proxy = Proxy::before(shared().port).unwrap();
    let store = hasty(&address(&proxy.address(), "raw"));
    let mut events = RawEvents::new("here");
    for line in 0..1000 {
        let event = format!(r#"{{"id":{line},"text":"it's \\ one"}}"#);
        events.push(&RawEvent {
            time: i64::from(today()) * 86_400_000 + i64::from(line),
            arrival: i64::from(today()) * 86_400_000,
            key: b"u\xf0\x9f\x98\x80",
            event: event.as_bytes(),
            address: "127.0.0.1",
            user_agent: "test",
            place: (3, 7, line),
        });
    }
    store.prepare().unwrap();
    proxy.lose_answers(1);
    assert!(refusal(store.append(&[(3, 7, 8)], &events)).contains("cannot be reached"));
    store.append(&[(3, 7, 8)], &events).unwrap();
    let count = |what: &str| number(&store, &format!("SELECT {what} AS x FROM raw.events"));
    assert_eq!([count("count()"), count("uniqExact(JSONExtractInt(event, 'id'))")], [1000.0; 2]);
    assert_eq!(count("countIf(address = '127.0.0.1' AND position = 7 AND source = 3 AND origin = 'here')"), 1000.0);
    assert_eq!(count("sum(toUnixTimestamp64Milli(time) % 86400000)"), 499_500.0);
    store.append(&[(3, 8, 9)], &events).unwrap();
    assert_eq!(count("count()"), 2000.0, "another range");
    // What was thrown away is not remembered either: the same block is taken again.
    for harm in ["TRUNCATE TABLE raw.events", "DROP TABLE raw.events"] {
        store.connection.execute(harm).unwrap();
        store.append(&[(3, 8, 9)], &events).or_else(|_| store.append(&[(3, 8, 9)], &events)).unwrap();
        assert_eq!(count("count()"), 1000.0, "{harm}");
    }
    assert_eq!(events.last_positions(), [(3, 7)]);
}

#[test]
fn reads_addresses() {
    for (text, expected) in [
        ("http://ch", "http://ch:8123 '' '' tidemark None"),
        ("http://me:a%40b@ch:9/shop?cluster=all", "http://ch:9 'me' 'a@b' shop Some(\"all\")"),
        ("https://ch", "error: `https` is not spoken to ClickHouse"),
        ("http://ch/a.b", "error: `a.b` is no name"),
        ("http://ch?user=x", "error: `user` is no setting"),
        ("http://ch?events_days=0", "error: `events_days=0`: a number of days"),
        ("ch:8123", "error: `ch` is not spoken"),
        ("nonsense", "error: `nonsense` is no address"),
    ] {
        let read = match Address::parse(text) {
            Ok(it) => format!("{} '{}' '{}' {} {:?}", it.server, it.user, it.password, it.database, it.cluster),
            Err(error) => format!("error: {error}"),
        };
        assert!(read.starts_with(expected), "{text}: {read}");
    }
}
