//! A case that is not so fails, and says what is so instead.

use std::path::PathBuf;
use std::time::Duration;

use tidemark_plugin::testing::{detector_cases, enricher_cases};
use tidemark_plugin::{Config, Detector, Enricher, Out, Row, Settings, Verdict, Window, host};

/// `length` of the input's text as a number, and the granted file's text as `file`.
struct Length;

impl Enricher for Length {
    fn new(settings: &Settings) -> Result<Self, String> {
        settings.expect_output(&["length", "file"]).map(|_| Length)
    }

    fn enrich(&mut self, row: Row<'_>, out: &mut Out<'_>) {
        out.number(0, row.text(0).map(|text| text.len() as f64));
        out.text(1, host::read_file("note").ok().and_then(|bytes| String::from_utf8(bytes).ok()));
    }
}

/// Expects what was there before, give or take 1.
struct Steady;

impl Detector for Steady {
    fn new(_: &Config) -> Result<Self, String> {
        Ok(Steady)
    }

    fn history(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn judge(&mut self, window: &Window) -> Option<Verdict> {
        let expected = window.past.last()?.value;
        let score = window.last.value - expected;
        Some(Verdict { expected, lower: expected - 1.0, upper: expected + 1.0, score, anomalous: score.abs() > 1.0 })
    }
}

/// What running the case file says: empty when all is well.
fn said(name: &str, run: fn(PathBuf), text: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cases").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("note.txt"), "noted").unwrap();
    let path = folder.join("cases.toml");
    std::fs::write(&path, text).unwrap();
    match std::panic::catch_unwind(|| run(path)) {
        Ok(()) => String::new(),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    }
}

#[track_caller]
fn check(name: &str, run: fn(PathBuf), cases: &str, expected: &str) {
    let settings = "[settings]\ninput = [\"text\"]\noutput = [\"length\", \"file\"]\nfiles = { note = \"note.txt\" }\n";
    let said = said(name, run, &format!("{settings}[[case]]\nname = \"a\"\n{cases}\n"));
    assert!(if expected.is_empty() { said.is_empty() } else { said.contains(expected) }, "{said}");
}

#[test]
fn enrichers() {
    let check = |name, cases, expected| check(name, enricher_cases::<Length>, cases, expected);
    check("good", "in = { text = \"four\" }\nout = { length = 4, file = \"noted\" }", "");
    check("as_json", "in = { text = true }\nout = { length = 4, file = \"noted\" }", "");
    check("absent", "out = { file = \"noted\" }", "");
    check(
        "other",
        "in = { text = \"four\" }\nout = { length = 5, file = \"noted\" }",
        "got [Number(4.0), Text(\"noted\")]",
    );
    check("not_null", "in = { text = \"four\" }\nout = { file = \"noted\" }", "expected [Null, Text(\"noted\")]");
    check(
        "text_for_number",
        "in = { text = \"x\" }\nout = { length = \"1\", file = \"noted\" }",
        "1 of 1 cases differ",
    );
    check("no_input", "in = { txt = \"four\" }", "in: no input \"txt\"");
    check("no_output", "out = { lenght = 4 }", "out: no output \"lenght\"");
    check("no_key", "output = { length = 4 }", "unknown field `output`");
}

#[test]
fn detectors() {
    let check = |name, cases, expected| check(name, detector_cases::<Steady>, cases, expected);
    check("steady", "values = [3, nan, 3.5]\nanomalous = false\nexpected = 3\nlower = 2\nupper = 4", "");
    check("points", "points = [[0, 3], [60000, 9.5]]\nanomalous = true", "");
    check("none", "values = [3]\nnone = true", "");
    check("tolerance", "values = [3, 3]\nexpected = 3.1\ntolerance = 0.2", "");
    check("not_anomalous", "values = [3, 3.5]\nanomalous = true", "anomalous: false");
    check("not_expected", "values = [3, 3]\nexpected = 3.1", "expected: 3.0");
    check("not_lower", "values = [3, 3]\nlower = 2.1", "lower: 2.0");
    check("not_upper", "values = [3, 3]\nupper = 3.9", "upper: 4.0");
    check("not_none", "values = [3, 3]\nnone = true", "expected no verdict");
    check("a_verdict", "values = [3]\nanomalous = false", "expected false\n     got true");
    check("both", "values = [3]\npoints = [[0, 3]]", "give either values or points");
    check("empty", "values = []", "no point to judge");
}
