//! Raw events beside the state: lines that were not counted come and go with the deltas, blocks are noted by the owner alone.

use std::sync::Arc;

use super::*;
use crate::engine::delta::{GROUP_ALL, SourceRange};
use crate::engine::plan::Plan;

fn delta(plan: &Arc<Plan>, source: SourceId, from: u64, to: u64) -> Delta {
    let sources = vec![SourceRange { group: GROUP_ALL, source, from, to, arrival: 1_000 }];
    let mut random: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(from);
    let events = suite::random_events(&mut random, 2900..2920);
    Delta { sources, partials: vec![suite::partial(plan, &events)] }
}

fn place(store: &RedisStore, source: SourceId) -> RawPlace {
    let places = store.raw_places().unwrap();
    *places.places.iter().find(|place| place.source == source).unwrap()
}

fn make_sure(store: &RedisStore, source: SourceId, next: u64) {
    let life = store.raw_places().unwrap().life;
    store.raw_reached(&life, source, next, next.checked_sub(1)).unwrap();
}

#[test]
fn lines_come_with_their_delta_and_go_with_their_block() {
    let server = server(&[]);
    let (store, plan) = (store(server.port, "lines"), suite::plan());
    store.take_over(&[3, 4]).unwrap();
    assert!(store.raw_places().unwrap().places.is_empty(), "nothing was counted");
    store.apply_with(delta(&plan, 3, 0, 10), Some(vec![(3, 4, 7), (3, 9, 0), (3, 4, 0)])).unwrap();
    store.apply_with(delta(&plan, 3, 10, 20), Some(vec![])).unwrap();
    store.apply_with(delta(&plan, 3, 20, 30), Some(vec![(3, 20, 0), (3, 25, 5), (3, 29, 1)])).unwrap();
    let unsure = RawPlace { source: 3, sent: 0, noted: None, last: None, covered: 30, unsure: true, gap: false };
    assert_eq!(store.raw_places().unwrap().places, [unsure]);
    assert!(!store.note_raw(3, 0, 10).unwrap(), "not before somebody has asked");
    make_sure(&store, 3, 0);
    assert!(!place(&store, 3).unsure);
    // Refused: it leaves nothing.
    assert!(store.apply_with(delta(&plan, 3, 25, 40), Some(vec![(3, 26, 0)])).is_err());
    assert!(!store.note_raw(3, 0, 31).unwrap(), "beyond what was counted");
    assert!(!store.note_raw(3, 5, 10).unwrap(), "not where it stands");
    assert!(store.note_raw(3, 0, 26).unwrap());
    assert!(!store.note_raw(3, 0, 27).unwrap(), "another one is on its way");
    assert_eq!(place(&store, 3).noted, Some(26));
    let lines = store.uncounted(3, 0, 26).unwrap().unwrap();
    assert_eq!(lines, [(4, 0), (4, 7), (9, 0), (20, 0), (25, 5)]);
    store.raw_arrived(3, 0, 25, Some(24)).unwrap();
    assert_eq!(place(&store, 3).sent, 0, "that is not what was noted");
    store.raw_arrived(3, 0, 26, Some(24)).unwrap();
    assert_eq!((place(&store, 3).sent, place(&store, 3).noted, place(&store, 3).last), (26, None, Some(24)));
    assert_eq!(store.uncounted(3, 0, 26).unwrap(), None);
    assert!(store.note_raw(3, 26, 30).unwrap());
    assert_eq!(store.uncounted(3, 26, 30).unwrap().unwrap(), [(29, 1)]);
    store.raw_arrived(3, 26, 30, None).unwrap();
    let kept: u64 = super::faults::command(server.port, &["EXISTS", "{lines}:uncounted:3"]);
    assert_eq!(kept, 0, "nothing is kept of what has arrived");
    assert_eq!((place(&store, 3).sent, place(&store, 3).last), (30, Some(24)), "no event in the last block");
}

#[test]
fn a_block_moves_to_the_next_owner_and_a_zombie_repeats_it_only() {
    let server = server(&[]);
    let (zombie, owner, plan) = (store(server.port, "moved"), store(server.port, "moved"), suite::plan());
    zombie.take_over(&[1]).unwrap();
    zombie.apply_with(delta(&plan, 1, 0, 10), Some(vec![(1, 2, 0)])).unwrap();
    make_sure(&zombie, 1, 0);
    assert!(zombie.note_raw(1, 0, 7).unwrap());
    owner.take_over(&[1]).unwrap();
    assert!(zombie.raw_places().unwrap().places.is_empty());
    assert_eq!(place(&owner, 1).noted, Some(7));
    // The same lines for both.
    assert_eq!(zombie.uncounted(1, 0, 7).unwrap(), owner.uncounted(1, 0, 7).unwrap());
    zombie.raw_arrived(1, 0, 7, Some(6)).unwrap();
    assert_eq!((place(&owner, 1).sent, place(&owner, 1).noted), (7, None));
    assert!(!zombie.note_raw(1, 7, 10).unwrap());
    assert!(owner.note_raw(1, 7, 10).unwrap());
}

#[test]
fn after_redis_began_again_it_is_asked_what_has_arrived() {
    let mut server = server(&[]);
    let (store, plan) = (store(server.port, "again"), suite::plan());
    store.take_over(&[1]).unwrap();
    store.apply_with(delta(&plan, 1, 0, 10), Some(vec![])).unwrap();
    make_sure(&store, 1, 0);
    assert!(store.note_raw(1, 0, 10).unwrap());
    // As of now: the block may have arrived, or more.
    super::faults::command::<String>(server.port, &["SAVE"]);
    server.kill().unwrap();
    server.start_again().unwrap();
    let again = |next: u64| {
        // A first command may still meet the dead connection.
        let taken = (0..5).any(|_| store.take_over(&[1]).is_ok());
        assert!(taken && (0..5).any(|_| store.raw_places().is_ok()));
        assert!(place(&store, 1).unsure);
        make_sure(&store, 1, next);
        place(&store, 1)
    };
    let found = again(5);
    assert_eq!((found.sent, found.noted), (0, Some(10)), "the same block again");
    server.kill().unwrap();
    server.start_again().unwrap();
    let found = again(15);
    assert_eq!((found.sent, found.noted), (15, None), "it has arrived, and what this Redis does not know of");
    super::faults::command::<()>(server.port, &["FLUSHALL"]);
    let _ = store.sync();
    assert!((0..5).any(|_| store.take_over(&[1]).is_ok()));
    let applied = (0..5).any(|_| store.apply_with(delta(&plan, 1, 0, 10), Some(vec![(1, 3, 0)])).is_ok());
    assert!(applied);
    let found = again(15);
    assert_eq!((found.sent, found.covered), (15, 10), "counted again, sent before");
    // Who sends nothing leaves a gap, which the next one knows of.
    store.apply_with(delta(&plan, 1, 10, 30), None).unwrap();
    assert!(store.raw_places().unwrap().places.is_empty());
    store.apply_with(delta(&plan, 1, 30, 40), Some(vec![])).unwrap();
    let found = place(&store, 1);
    assert_eq!((found.sent, found.gap, found.unsure), (30, true, true));
}

#[test]
fn what_is_gone_where_it_had_arrived_is_sent_again_without_the_same_lines() {
    let server = server(&[]);
    let (zombie, owner, plan) = (store(server.port, "gone"), store(server.port, "gone"), suite::plan());
    zombie.take_over(&[1]).unwrap();
    owner.take_over(&[1]).unwrap();
    owner.apply_with(delta(&plan, 1, 0, 10), Some(vec![(1, 2, 0)])).unwrap();
    owner.apply_with(delta(&plan, 1, 10, 20), Some(vec![(1, 12, 3), (1, 17, 0)])).unwrap();
    make_sure(&owner, 1, 0);
    assert!(owner.note_raw(1, 0, 15).unwrap());
    owner.raw_arrived(1, 0, 15, Some(14)).unwrap();
    assert!(owner.note_raw(1, 15, 20).unwrap(), "on its way when it is noticed");
    // Judged once more, of what has arrived only.
    for store in [&zombie, &owner] {
        let is_owner = std::ptr::eq(store, &owner);
        assert_eq!(store.keep_again(1, 5..9, &[(1, 7, 0)]).unwrap(), is_owner);
        assert_eq!(store.keep_again(1, 9..15, &[(1, 12, 3)]).unwrap(), is_owner);
    }
    assert!(!owner.raw_again(1, 14, 5).unwrap(), "not where it stands");
    assert!(!zombie.raw_again(1, 15, 5).unwrap());
    assert!(owner.raw_again(1, 15, 5).unwrap());
    let found = place(&owner, 1);
    assert_eq!((found.sent, found.noted, found.last, found.covered), (5, None, None, 20));
    assert!(owner.note_raw(1, 5, 13).unwrap());
    assert_eq!(owner.uncounted(1, 5, 13).unwrap().unwrap(), [(7, 0), (12, 3)]);
    owner.raw_arrived(1, 5, 13, Some(11)).unwrap();
    assert!(owner.note_raw(1, 13, 20).unwrap());
    assert_eq!(owner.uncounted(1, 13, 20).unwrap().unwrap(), [(17, 0)]);
}
