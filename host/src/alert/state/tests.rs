//! Stories of what was seen and told, and verdicts made into runs.

use super::*;
use crate::engine::extension::Verdict;

const HOUR: Policy = Policy { for_ms: 0, again_ms: 60 * MINUTE_MS, ends_again_ms: 0, batch_max: 3 };

fn run(text: &str) -> (Labels, Run) {
    let mut words = text.split_whitespace();
    let (series, span) = (words.next().unwrap(), words.next().unwrap());
    let began_before = span.starts_with('<');
    let (first, last) = span.trim_start_matches('<').split_once("..").unwrap();
    let minute = |text: &str| text.parse::<Millis>().unwrap() * MINUTE_MS;
    let last = Seen { t: minute(last), value: Some(1.0), ..Seen::default() };
    (vec![("s".into(), series.into())], Run { first: minute(first), began_before, last })
}

/// Lines of `minute | series first..last, … | what is told`: `+` began, `~` lasts, `-` ended, with the series and the minute
/// since which. `<first`: nothing normal was seen before. The series' first letter is its rule; `?` after the minute: rules
/// could not be asked; `!`: the target is away; `gone`: there are no rules any more; `restart`: the state is stored and read.
fn check(policy: Policy, story: &str) {
    let mut state = State::default();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "restart" {
            state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
            continue;
        }
        let [when, seen, expected] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{line}") };
        let now = when.trim_end_matches(['?', '!']).parse::<Millis>().unwrap() * MINUTE_MS;
        let runs = |rule: &str| {
            let series = seen.split(", ").filter(|text| text.starts_with(rule)).map(run);
            (!when.contains('?')).then(|| series.collect())
        };
        let look = |rule| Look { rule, kind: "zscore", metric: "m", runs: runs(rule) };
        let looks = if seen == "gone" { vec![] } else { vec![look("a"), look("b")] };
        state.observe(&policy, &looks.iter().collect::<Vec<_>>(), now);
        let mut told = Vec::new();
        while let Some(batch) = state.due(&policy, now).filter(|_| !when.contains('!')) {
            let sign = match batch.news {
                News::Began => '+',
                News::Lasts => '~',
                News::Ended => '-',
            };
            let series = |(key, alert): &(Key, Alert)| format!("{}@{}", key.labels[0].1, alert.since / MINUTE_MS);
            told.push(format!("{sign}{}", batch.alerts.iter().map(series).collect::<Vec<_>>().join(",")));
            assert!(batch.alerts.iter().all(|(key, _)| key.rule == batch.alerts[0].0.rule), "{line}");
            state.told(&policy, &batch, now);
        }
        assert_eq!(told.join(" "), expected, "{line}");
    }
}

#[test]
fn one_message_at_the_start_and_one_at_the_end() {
    check(
        HOUR,
        "0 | |
         1 | a 1..1 | +a@1
         2 | a 1..2 |
         restart
         3 | a <1..3 |
         4 | | -a@1
         5 | |
         6 | a 6..6 | +a@6
         7 | gone | -a@6
         8 | |",
    );
}

#[test]
fn only_what_lasts() {
    let two = Policy { for_ms: 2 * MINUTE_MS, ..HOUR };
    check(
        two,
        "1 | a 1..1 |
         2 | a 1..1 |
         3 | |
         4 | a 4..4 |
         restart
         5 | a 4..5 |
         6 | a 4..5 | +a@4
         9 | a 8..8 |
         10 | | -a@4",
    );
    // It was normal in between, though nobody looked then.
    check(two, "1 | a 1..1 | \n 9 | a 8..8 | \n 10 | a 8..9 | +a@8");
    // What was seen before is older than what is looked at.
    check(two, "10 | a 1..9 | +a@1 \n 20 | a <10..19 | \n 21 | | -a@1");
    check(Policy { for_ms: 20 * MINUTE_MS, ..HOUR }, "2 | a <1..1 | \n 18 | a <8..17 | \n 21 | a <11..20 | +a@1");
}

#[test]
fn what_lasts_is_told_again_together() {
    check(
        HOUR,
        "0 | a 0..0 | +a@0
         3 | a 0..3, a2 3..3 | +a2@3
         59 | a 0..59, a2 3..59 |
         60 | a 0..60, a2 3..60 | ~a@0,a2@3
         119 | a 0..119, a2 3..119 |
         120 | a 0..120, a2 3..120 | ~a@0,a2@3
         121 | | -a@0,a2@3",
    );
}

#[test]
fn a_message_for_each_rule_and_so_many_series() {
    check(
        HOUR,
        "0 | a1 0..0, a2 0..0, a3 0..0, a4 0..0, b1 0..0 | +a1@0,a2@0,a3@0 +a4@0 +b1@0
         1 | a4 0..1, a5 1..1 | +a5@1 -a1@0,a2@0,a3@0 -b1@0
         2 | | -a4@0,a5@1",
    );
}

#[test]
fn a_target_that_was_away_is_told_what_is_so() {
    check(
        HOUR,
        "0! | a1 0..0, a2 0..0 |
         1! | a2 0..1 |
         2! | a2 0..1, a3 2..2 |
         3 | a3 2..3 | +a3@2 -a1@0,a2@0
         4! | |
         5! | a3 5..5 |
         6 | a3 5..6 |
         7! | |
         90 | | -a3@2",
    );
}

#[test]
fn what_cannot_be_asked_stays() {
    check(HOUR, "0 | a 0..0 | +a@0 \n 1? | | \n 61? | | ~a@0 \n 62 | | -a@0");
}

#[test]
fn ends_are_told_for_a_while() {
    let policy = Policy { for_ms: 0, again_ms: MINUTE_MS, ends_again_ms: 3 * MINUTE_MS, batch_max: 9 };
    check(
        policy,
        "0 | a 0..0 | +a@0
         1 | a 0..1 | ~a@0
         2 | | -a@0
         3 | | -a@0
         4 | | -a@0
         5 | |
         6 | a 6..6 | +a@6
         7 | | -a@6
         8 | a 8..8 | +a@8
         9 | | -a@8",
    );
}

#[test]
fn more_than_there_is_room_for_is_counted() {
    let run = |n: usize| run(&format!("s{n:05} 0..0"));
    let look = |series| Look { rule: "a", kind: "zscore", metric: "m", runs: Some((0..series).map(run).collect()) };
    let mut state = State::default();
    let over = state.observe(&HOUR, &[&look(ALERTS_MAX + 7)], 0);
    assert_eq!((over, state.alerts.len()), (Observed { changed: true, over: 7 }, ALERTS_MAX));
    assert_eq!(state.observe(&HOUR, &[&look(ALERTS_MAX)], 1), Observed::default());
}

#[test]
fn an_id_is_of_one_incident() {
    let key = |rule: &str, labels: &[(&str, &str)]| Key {
        rule: rule.into(),
        labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    let id = key("revenue", &[("country", "BR")]).id(60_000);
    assert_eq!(id, "ca921ab152c926eb");
    assert_ne!(id, key("revenue", &[("country", "BR")]).id(120_000));
    assert_ne!(id, key("revenue", &[("country", "AR")]).id(60_000));
    assert_ne!(id, key("revenue", &[]).id(60_000));
}

/// `n` normal, `A` anomalous, `-` no verdict; what is behind `/` is open.
#[test]
fn runs() {
    for (points, open_counts, expected) in [
        ("nnn/n", false, None),
        ("nnA/n", false, Some((2, false, 2))),
        ("nnA/n", true, None),
        ("nAA/A", false, Some((1, false, 3))),
        ("nnn/A", false, Some((3, false, 3))),
        ("AAA/n", false, Some((0, true, 2))),
        ("A-A--/-", false, Some((0, true, 2))),
        ("nA-An/n", false, None),
        ("A/nA", false, Some((0, true, 2))),
        ("A/-n", false, Some((0, true, 0))),
        ("---/-", false, None),
    ] {
        let closed = points.find('/').unwrap();
        let verdict = |anomalous| Verdict { expected: f64::NAN, lower: 0.0, upper: 1.0, score: 0.0, anomalous };
        let steps = points.replace('/', "");
        let judged = steps.chars().enumerate().filter(|(_, c)| *c != '-');
        let judged: Vec<Judged> =
            judged.map(|(at, c)| Judged { step: at as u32, value: 1.0, verdict: verdict(c == 'A') }).collect();
        let run = Run::of(&judged, Millis::from, closed, open_counts);
        let found = run.as_ref().map(|run| (run.first, run.began_before, run.last.t));
        assert_eq!(found, expected, "{points}");
        assert!(run.is_none_or(|run| run.last.expected.is_none() && run.last.upper == Some(1.0)));
    }
}
