use super::*;
use crate::store::Resolution;
use crate::store::suite::{self, Event, Model};
use crate::store::embedded::Embedded;
use std::time::Instant;
#[test]
fn speed() {
    let plan = suite::plan();
    let mut plan = Arc::into_inner(plan).unwrap();
    for m in &mut plan.metrics { m.limit = 5000; }
    plan.dimensions[1].limit = None;
    let plan = Arc::new(plan);
    let folder = suite::Folder::new("speed");
    let e = Embedded::open(&folder.0).unwrap();
    let store = e.load().unwrap();
    let mut model = Model::default();
    let mut t = 0.0;
    for minute in 0..1440u32 {
        let events: Vec<Event> = (0..1000u64).map(|n| Event { minute: Minute(14400 + minute), values: [format!("a{}", n % 10), format!("b{}", n / 10 % 10), format!("c{}", n / 100)], amount: n as f64, user: n * 7919 + u64::from(minute % 97) }).collect();
        let d = suite::delta(&plan, &model, &events);
        let s = Instant::now();
        store.apply(d).unwrap();
        t += s.elapsed().as_secs_f64();
        for (k, v) in [(0, 500), (1, 500)] { *model.positions.entry(k).or_default() += v; }
    }
    println!("apply {:.3} ms a tick of 1000 rows x 6 metrics; {} MB", t / 1440.0 * 1000.0, store.bytes() >> 20);
    for (metric, by, res) in [(0, vec![0, 1, 2], Resolution::Minute), (0, vec![0], Resolution::Minute), (0, vec![], Resolution::Minute), (0, vec![0,1,2], Resolution::Hour), (2, vec![], Resolution::Minute), (2, vec![0], Resolution::Minute), (2, vec![0, 1], Resolution::Minute), (2, vec![0,1,2], Resolution::Minute)] {
        let mut r = suite::request(&plan, metric, vec![Minute(14400)..Minute(15840)], res);
        r.by = by;
        let s = Instant::now();
        let a = store.read(&r).unwrap();
        let el = s.elapsed();
        println!("read metric {metric} by {:?} {:?}: {} series {} steps {:?}", r.by, res, a.series.len(), a.steps.len(), el);
    }
    store.close_up_to(Minute(15840));
    let s = Instant::now();
    let c = e.checkpoint(&store, &|| Ok(())).unwrap();
    println!("checkpoint {c:?} {:?}", s.elapsed());
    drop(e);
    let s = Instant::now();
    let e = Embedded::open(&folder.0).unwrap();
    println!("open {:?}", s.elapsed());
    let store = Arc::new(e.load().unwrap());
    println!("load {:?}, disk {} MB", s.elapsed(), e.bytes().unwrap() >> 20);
    store.evict(Minute(15840));
    let j = crate::store::reader::JoinedReader::new(store, Some(e.history()));
    for (metric, by, res) in [(0, vec![0, 1, 2], Resolution::Minute), (2, vec![], Resolution::Minute), (0, vec![0,1,2], Resolution::Hour)] {
        let mut r = suite::request(&plan, metric, vec![Minute(14400)..Minute(15840)], res);
        r.by = by;
        let s = Instant::now();
        let a = j.read(&r).unwrap();
        println!("history read metric {metric} by {:?} {:?}: {} series {} steps {:?}", r.by, res, a.series.len(), a.steps.len(), s.elapsed());
    }
}
