//! The decoder against serde_json, against the slow checker, and against itself on other blocks.

use serde_json::Value as Json;

use super::*;

const PATHS: [&str; 9] =
    ["type", "a", "props", "props.a", "props.deep.x", "props.ключ", "", "a_key_longer_than_16_bytes", "list"];

fn decoder(paths: &[&str], event_bytes_max: usize, level: Level) -> Decoder {
    let paths: Vec<Vec<String>> = paths.iter().map(|path| path.split('.').map(String::from).collect()).collect();
    Decoder { level, ..Decoder::new(&paths, event_bytes_max) }
}

/// What a call gave: of each line, its row of values or its reason.
#[derive(Debug, PartialEq, Clone)]
enum Seen {
    Row(Vec<(Kind, Vec<u8>)>),
    Reject(String),
}

fn padded(batch: &[u8]) -> Vec<u8> {
    [batch, &[0; PADDING_BYTES]].concat()
}

fn decode(decoder: &mut Decoder, paths: usize, batch: &[u8], rows_max: usize) -> Vec<Seen> {
    let buffer = padded(batch);
    let (mut at, mut line) = (0, 0);
    let mut rows = Rows::default();
    let mut seen = Vec::new();
    while at < batch.len() {
        let first = line;
        decoder.decode(&buffer, batch.len(), &mut at, &mut line, rows_max, &mut rows);
        let mut lines = vec![None; (line - first) as usize];
        for row in 0..rows.len {
            let value = |path| {
                let value: Value = rows.column(path)[row];
                (value.kind(), rows.bytes(&buffer, value).to_vec())
            };
            assert!(buffer[rows.start[row] as usize] == b'{' && buffer[rows.end[row] as usize - 1] == b'}');
            lines[(rows.line[row] - first) as usize] = Some(Seen::Row((0..paths).map(value).collect()));
        }
        for reject in &rows.rejects {
            assert!(reject.start < reject.end);
            lines[(reject.line - first) as usize] = Some(Seen::Reject(reject.reason.to_string()));
        }
        assert_eq!(rows.len + rows.rejects.len(), lines.len());
        seen.extend(lines.into_iter().map(|seen| seen.expect("each line is a row or a reject")));
    }
    assert_eq!(line as usize, seen.len());
    seen
}

/// Decodes one line on every level, by a decoder that knows its keys and by one that does not, and says the wanted
/// values as text, or the reason.
fn check(paths: &[&str], line: &[u8], expected: &str) {
    const KNOWN: &[u8] = b"{\"a\":1}\n{\"b\":1,\"c\":1}\n{\"b\":{},\"c\":1}\n{\"p\":{\"a\":1}}\n{\"p\":{},\"p\":1}";
    for (level, known) in Level::all().into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let mut decoder = decoder(paths, 65536, level);
        if known {
            decode(&mut decoder, paths.len(), KNOWN, 10);
        }
        // Keys are expected only where a window fits before them.
        let seen = decode(&mut decoder, paths.len(), &[&b"\n".repeat(32), line].concat(), 10);
        let said = match &seen[..] {
            [Seen::Row(values)] => {
                let text = |(kind, bytes): &(Kind, Vec<u8>)| match kind {
                    Kind::Missing => "-".into(),
                    Kind::Text => format!("'{}'", String::from_utf8_lossy(bytes)),
                    _ => String::from_utf8_lossy(bytes).into_owned(),
                };
                values.iter().map(text).collect::<Vec<_>>().join(" ")
            }
            [Seen::Reject(reason)] => reason.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(said, expected, "{level:?}: {}", String::from_utf8_lossy(line));
    }
}

#[test]
fn wanted_values_are_found() {
    let paths = ["a", "p", "p.a", "p.q.r"];
    for (line, expected) in [
        (r#"{}"#, "- - - -"),
        (r#"{"a":1}"#, "1 - - -"),
        (r#" { "a" : -1.5e3 , "b" : [ 1 , { "a" : 2 } ] } "#, "-1.5e3 - - -"),
        (r#"{"a": "x", "p": {"a": true}}"#, r#"'x' {"a": true} true -"#),
        (r#"{"p":{"q":{"r":null}},"a":""}"#, r#"'' {"q":{"r":null}} - null"#),
        (r#"{"p":[{"a":1}],"a":false}"#, r#"false [{"a":1}] - -"#),
        (
            r#"{"\u0061":7,"p":{"\u0071":{"r":"\ud83d\ude00\n\"\\\/"}}}"#,
            "7 {\"\\u0071\":{\"r\":\"\\ud83d\\ude00\\n\\\"\\\\\\/\"}} - '😀\n\"\\/'",
        ),
        (r#"{"x":{"a":1,"p":{"a":2}},"q":{"r":3}}"#, "- - - -"),
        // Of equal keys the last one counts, with all below it.
        (r#"{"a":1,"a":"two"}"#, "'two' - - -"),
        (r#"{"p":{"a":1},"p":{"q":{"r":2}}}"#, r#"- {"q":{"r":2}} - 2"#),
        (r#"{"p":{"a":1},"\u0070":5}"#, "- 5 - -"),
        (r#"{"p":5,"p":{"a":1}}"#, r#"- {"a":1} 1 -"#),
        (r#"{"p":{"a":1,"q":{"r":1},"q":{}}}"#, r#"- {"a":1,"q":{"r":1},"q":{}} 1 -"#),
        (r#"{"p":{"a":1},"p":[]}"#, "- [] - -"),
        (
            r#"{"p":{"a":1},"p":{"a":2},"x":{},"p":{"q":{"r":1},"q":{"r":2},"q":3}}"#,
            r#"- {"q":{"r":1},"q":{"r":2},"q":3} - -"#,
        ),
    ] {
        check(&paths, line.as_bytes(), expected);
    }
    check(
        &["", "é", "a.", "abcdefghijklmnopqrstuvwxyz"],
        r#"{"":1,"é":"ü","a":{"":2},"abcdefghijklmnopqrstuvwxyz":3}"#.as_bytes(),
        "1 'ü' 2 3",
    );
    check(&["abcdefghijklmnopqrstuvwxyz"], br#"{"Xbcdefghijklmnopqrstuvwxyz":3}"#, "-");
}

#[test]
fn lines_that_are_no_event_say_why() {
    let deep = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
    let wide = |n: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(n - 8));
    let (fits, deeper) = (deep(32), deep(33));
    check(&["b"], fits.as_bytes(), "-");
    check(&["b"], deeper.as_bytes(), "nested deeper than 32");
    check(&["b"], format!(r#"{{"x":{}1{}}}"#, "[".repeat(31), "]".repeat(31)).as_bytes(), "-");
    check(&["b"], format!(r#"{{"x":{}1{}}}"#, "[".repeat(32), "]".repeat(32)).as_bytes(), "nested deeper than 32");
    check(&["b"], wide(65536).as_bytes(), "-");
    check(&["b"], format!("\t{} \t\r\n", wide(65536)).as_bytes(), "-");
    check(&["b"], wide(65537).as_bytes(), "longer than 65536 bytes");
    check(&["b"], format!("{}\n", wide(200_000)).as_bytes(), "longer than 65536 bytes");
    for (line, expected) in [
        (&b"1"[..], "not a JSON object"),
        (b"[{\"a\":1}]", "not a JSON object"),
        (b"x{\"a\":1}", "not a JSON object"),
        (b"\0", "not a JSON object"),
        (b"{\"a\":\"\xff\"}", "not valid UTF-8"),
        (b"{\"b\":\"\xc3\"}", "not valid UTF-8"),
        (b"{\"b\":\"\t\"}", "malformed JSON at byte 7: control character in a string"),
        (b"{\"b\":1\x01}", "malformed JSON at byte 7: expected `,` or `}`"),
        (b"{\"a\":1", "malformed JSON at byte 7: it ends too early"),
        (b"{\"a\":\"x", "malformed JSON at byte 8: it ends too early"),
        (b"{\"a\":\"x\\", "malformed JSON at byte 10: it ends too early"),
        (b"{\"a\":1}}", "malformed JSON at byte 8: more behind the end"),
        (b"{\"a\":1} x", "malformed JSON at byte 9: more behind the end"),
        (b"{\"a\":1}{\"a\":2}", "malformed JSON at byte 8: more behind the end"),
        (b"{\"a\":[1}", "malformed JSON at byte 8: expected `,` or `]`"),
        (b"{\"a\":1]", "malformed JSON at byte 7: expected `,` or `}`"),
        (b"{\"b\":1 2}", "malformed JSON at byte 8: expected `,` or `}`"),
        (b"{\"b\":1,}", "malformed JSON at byte 8: expected a key in double quotes"),
        (b"{,\"b\":1}", "malformed JSON at byte 2: expected a key in double quotes"),
        (b"{\"b\"}", "malformed JSON at byte 5: expected `:`"),
        (b"{\"b\":}", "malformed JSON at byte 6: expected a value"),
        (b"{\"b\":,\"c\":1}", "malformed JSON at byte 6: expected a value"),
        (b"{\"b\":1 \"c\":1}", "malformed JSON at byte 8: expected `,` or `}`"),
        (b"{\"b\":1,,\"c\":1}", "malformed JSON at byte 8: expected a key in double quotes"),
        (b"{\"b\"::1}", "malformed JSON at byte 6: expected a value"),
        (b"{\"b\":{{}}}", "malformed JSON at byte 7: expected a key in double quotes"),
        (b"{\"b\":{}{}}", "malformed JSON at byte 8: expected `,` or `}`"),
        (b"{\"b\":[]1}", "malformed JSON at byte 8: expected `,` or `}`"),
        (b"{\"b\":[\"x\":1]}", "malformed JSON at byte 10: expected `,` or `]`"),
        (b"{\"b\":\"x\",\"y\",\"c\":1}", "malformed JSON at byte 13: expected `:`"),
        (b"{\"b\":\"x\"\"y\"}", "malformed JSON at byte 9: expected `,` or `}`"),
        (b"{b:1}", "malformed JSON at byte 2: expected a key in double quotes"),
        (b"{'b':1}", "malformed JSON at byte 2: expected a key in double quotes"),
        (b"{\"b\":nope}", "malformed JSON at byte 6: expected a value"),
        (b"{\"a\":NaN}", "malformed JSON at byte 6: expected a value"),
        (b"{\"a\":truE}", "malformed JSON at byte 6: expected a value"),
        (b"{\"a\":tre}", "malformed JSON at byte 6: expected a value"),
        (b"{\"a\":01}", "malformed JSON at byte 6: not a number"),
        (b"{\"a\":01.5}", "malformed JSON at byte 6: not a number"),
        (b"{\"a\":-01}", "malformed JSON at byte 6: not a number"),
        (b"{\"a\":0123456789.5}", "malformed JSON at byte 6: not a number"),
        (b"{\"a\":1.}", "malformed JSON at byte 6: not a number"),
        (b"{\"a\":.5}", "malformed JSON at byte 6: expected a value"),
        (b"{\"a\":-}", "malformed JSON at byte 6: not a number"),
        (b"{\"a\":+1}", "malformed JSON at byte 6: expected a value"),
        (b"{\"a\":1e}", "malformed JSON at byte 6: not a number"),
        (b"{\"a\":\"\\x\"}", "malformed JSON at byte 6: a string with an invalid escape"),
        (b"{\"a\":\"\\ud800\"}", "malformed JSON at byte 6: a string with an invalid escape"),
        (b"{\"a\":\"\\udc00\\ud800\"}", "malformed JSON at byte 6: a string with an invalid escape"),
        (b"{\"\\q\":1}", "malformed JSON at byte 2: a string with an invalid escape"),
        (b"{\\\"a\":1}", "malformed JSON at byte 2: expected a key in double quotes"),
        (b"{\"b\":[\\\"1\\\"]}", "malformed JSON at byte 7: expected a value"),
        (b"{\"a\":{\"x\":[1,]}}", "malformed JSON at byte 14: expected a value"),
    ] {
        check(&["a"], line, expected);
    }
}

#[test]
fn a_broken_line_harms_no_other() {
    let batch =
        b"\n \t\r\n{\"a\":1}\r\n{\"a\":\"x\n{\"a\":2}\n\\\n\xff\n{\"a\":3} \n\n[\n{\"a\":{\"b\":4}\n   {\"a\":5}";
    for level in Level::all() {
        for rows_max in [1, 2, 3, 100] {
            let seen = decode(&mut decoder(&["a"], 65536, level), 1, batch, rows_max);
            let said: Vec<String> = seen
                .iter()
                .map(|seen| match seen {
                    Seen::Row(values) => String::from_utf8_lossy(&values[0].1).into_owned(),
                    Seen::Reject(_) => "!".into(),
                })
                .collect();
            assert_eq!(said.join(" "), "1 ! 2 ! ! 3 ! ! 5", "{level:?}, {rows_max} rows at once");
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// Keys with a good chance to be wanted, to come twice, and to be spelled in another way.
const KEYS: [&str; 17] = [
    ",_a_key_longer_than_16_bytes",
    "type",
    r"t\u0079pe",
    "a",
    "a",
    r"\u0061",
    "props",
    "props",
    "deep",
    "x",
    "ключ",
    r"кл\u044eч",
    "",
    "list",
    "a_key_longer_than_16_bytes",
    "b_key_longer_than_16_bytes",
    "an,odd:{key}[",
];
const SCALARS: [&str; 30] = [
    "0",
    "-0",
    "1",
    "12.5",
    "-3.25",
    "1764000000123",
    "123456789012345678",
    "0.1",
    "1e3",
    "1.5E-7",
    "2e+2",
    "-0.0e0",
    "99999999999999999999",
    "0.30000000000000004",
    "true",
    "false",
    "null",
    r#""""#,
    r#""x""#,
    r#""page_view""#,
    r#""é""#,
    r#""日本語のテキスト""#,
    r#""\n""#,
    r#""\\""#,
    r#""a\\\"b""#,
    r#""\u00e9\ud83d\ude00""#,
    r#""{[:,]}""#,
    r#"" : ""#,
    r#""\/\b\f\r\t""#,
    r#""a string that is longer than one block of sixty-four bytes, so that it spans two of them""#,
];
const BLANKS: [&str; 6] = ["", "", "", " ", "\t", " \r "];

fn generate(random: &mut Random, depth: usize, blanks: bool, out: &mut String) {
    let blank = |random: &mut Random| if blanks { random.of(&BLANKS) } else { "" };
    let kind = if depth == 0 { 0 } else { random.below(12) };
    if kind > 2 || depth > 5 {
        return out.push_str(random.of(&SCALARS));
    }
    let object = kind < 2;
    out.push(if object { '{' } else { '[' });
    for item in 0..random.below(if depth == 0 { 12 } else { 5 }) {
        if item > 0 {
            out.push(',');
        }
        out.push_str(blank(random));
        if object {
            let key = random.of(&KEYS);
            out.push_str(&format!("\"{key}\"{}:{}", blank(random), blank(random)));
        }
        generate(random, depth + 1, blanks, out);
        out.push_str(blank(random));
    }
    out.push_str(blank(random));
    out.push(if object { '}' } else { ']' });
}

/// Some bytes changed, inserted, removed or doubled.
fn mutate(random: &mut Random, line: &mut Vec<u8>) {
    const BYTES: &[u8] = b"\"\"\\\\{}[]:,,0159-+.eE tfnu\t\r\x00\x1f\x7f\x80\xc3\xff";
    for _ in 0..random.below(3) + 1 {
        let at = random.below(line.len());
        let byte = BYTES[random.below(BYTES.len())];
        match random.below(5) {
            0 => line[at] = byte,
            1 => line.insert(at, byte),
            2 => drop(line.remove(at)),
            3 => line.truncate(at + 1),
            _ => {
                let end = (at + random.below(20)).min(line.len());
                let part = line[at..end].to_vec();
                line.splice(at..at, part);
            }
        }
        if line.is_empty() {
            line.push(byte);
        }
    }
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
}

fn batch(random: &mut Random, lines: usize, mutated: bool) -> Vec<u8> {
    let mut batch = Vec::new();
    for _ in 0..lines {
        let mut text = String::new();
        let blanks = random.below(3) == 0;
        generate(random, 0, blanks, &mut text);
        let mut line = text.into_bytes();
        if mutated && random.below(4) > 0 {
            mutate(random, &mut line);
        }
        batch.extend_from_slice(&line);
        batch.push(b'\n');
    }
    batch
}

fn lines_of(batch: &[u8]) -> impl Iterator<Item = &[u8]> {
    batch.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(|byte| is_blank(*byte)))
}

/// What serde_json finds at a path; equal keys: the last.
fn expected<'a>(event: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').try_fold(event, |at, segment| at.as_object()?.get(segment))
}

fn agrees(found: &(Kind, Vec<u8>), expected: Option<&Json>) -> bool {
    match (found.0, expected) {
        (Kind::Missing, None) | (Kind::Null, Some(Json::Null)) => true,
        (Kind::False, Some(Json::Bool(false))) | (Kind::True, Some(Json::Bool(true))) => true,
        (Kind::Number, Some(Json::Number(n))) => n.as_f64().map(f64::to_bits) == Some(number(&found.1).to_bits()),
        (Kind::Text, Some(Json::String(text))) => text.as_bytes() == found.1,
        (Kind::Object, Some(Json::Object(_))) | (Kind::Array, Some(Json::Array(_))) => {
            serde_json::from_slice::<Json>(&found.1).ok().as_ref() == expected
        }
        _ => false,
    }
}

/// Rows equal serde_json's on valid lines, refusals are the checker's, and every level gives the same.
#[test]
fn generated_and_broken_lines_agree_with_serde_json() {
    let mut random = Random(1);
    let mut decoders: Vec<Decoder> = Level::all().into_iter().map(|level| decoder(&PATHS, 65536, level)).collect();
    let (mut valid, mut refused, mut lenient) = (0, 0, 0);
    for round in 0..600 {
        let batch = batch(&mut random, 250, round % 4 != 0);
        let rows_max = random.below(300) + 1;
        let seen: Vec<Vec<Seen>> =
            decoders.iter_mut().map(|decoder| decode(decoder, PATHS.len(), &batch, rows_max)).collect();
        assert!(seen.iter().all(|other| *other == seen[0]), "levels differ");
        // What was learned makes no difference: a decoder that knows all of it, one that knows nothing.
        decoders[0].keys.forget();
        for (line, seen) in lines_of(&batch).zip(&seen[0]).skip(random.below(60)).step_by(60) {
            let fresh = decode(&mut decoder(&PATHS, 65536, Level::best()), PATHS.len(), line, 1);
            assert_eq!(fresh, std::slice::from_ref(seen), "{}", String::from_utf8_lossy(line));
        }
        for (line, seen) in lines_of(&batch).zip(&seen[0]) {
            let said = String::from_utf8_lossy(line);
            let json = serde_json::from_slice::<Json>(line);
            let trimmed = line.trim_ascii();
            let is_event = json.as_ref().is_ok_and(Json::is_object);
            match (seen, &json) {
                (Seen::Row(values), Ok(event)) => {
                    valid += 1;
                    for (path, found) in PATHS.iter().zip(values) {
                        assert!(agrees(found, expected(event, path)), "{path}: {found:?} of {said}");
                    }
                }
                (Seen::Row(_), Err(error)) if error.to_string().contains("out of range") => {}
                (Seen::Row(_), Err(_)) => {
                    lenient += 1;
                    assert!(
                        line.contains(&b'['),
                        "only arrays that no path reads are looked at with less care: {said}"
                    );
                }
                (Seen::Reject(reason), _) => {
                    refused += 1;
                    assert!(!is_event, "{reason}: {said}");
                    assert!(!reason.contains("misplaced"), "the checker takes {said}");
                }
            }
            if std::str::from_utf8(line).is_ok() && trimmed[0] == b'{' {
                let out_of_range = json.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
                assert!(out_of_range || check::value(trimmed).is_ok() == is_event, "{said}");
            }
        }
    }
    assert!(valid > 40_000 && refused > 40_000, "{valid} valid, {refused} refused, {lenient} taken leniently");
    println!("{valid} valid, {refused} refused, {lenient} taken leniently");
}

/// Bytes without sense: no panic, and every level says the same.
#[test]
fn noise_is_refused() {
    const BYTES: &[u8] = b"\"\"\"\\{}[]:,1a \n\n\t\r\x00\xc3\xa9";
    let mut random = Random(2);
    let mut decoders: Vec<Decoder> = Level::all().into_iter().map(|level| decoder(&PATHS, 100, level)).collect();
    for _ in 0..3_000 {
        let len = random.below(400);
        let mut noise = Vec::new();
        for _ in 0..len {
            if random.below(8) == 0 {
                noise.extend_from_slice(b"{\"a\":");
            }
            noise.push(BYTES[random.below(BYTES.len())]);
        }
        let seen: Vec<Vec<Seen>> = decoders.iter_mut().map(|decoder| decode(decoder, PATHS.len(), &noise, 7)).collect();
        assert!(seen.iter().all(|other| *other == seen[0]), "levels differ: {}", String::from_utf8_lossy(&noise));
        assert_eq!(seen[0].len(), lines_of(&noise).count());
        for (line, seen) in lines_of(&noise).zip(&seen[0]) {
            let long = Seen::Reject("longer than 100 bytes".into());
            assert_eq!(line.trim_ascii().len() > 100, *seen == long, "{}", String::from_utf8_lossy(line));
        }
    }
}

/// More keys than are remembered: nothing is lost but time.
#[test]
fn learned_keys_are_bounded() {
    let mut decoder = decoder(&["a", "p.a"], 65536, Level::best());
    let mut batch = Vec::new();
    for event in 0..3_000 {
        let long = "k".repeat(event % 600);
        batch.extend_from_slice(
            format!("{{\"x{event}\":1,\"{long}\":1,\"a\":{event},\"y{event}\":{{\"a\":0}},\"p\":{{\"z{event}\":0,\"a\":{event}}}}}\n").as_bytes(),
        );
    }
    for (event, seen) in decode(&mut decoder, 2, &batch, 512).into_iter().enumerate() {
        let number = (Kind::Number, event.to_string().into_bytes());
        assert_eq!(seen, Seen::Row(vec![number.clone(), number]));
    }
    assert!(decoder.keys.learned() <= 4096);
}

#[test]
fn numbers_are_exact() {
    for literal in [
        "0",
        "-0",
        "1",
        "-1",
        "0.1",
        "123.45",
        "9007199254740993",
        "9007199254740992",
        "999999999999999",
        "0.000000000000001",
        "1e400",
        "-1e400",
        "1e-400",
        "1.7976931348623157e308",
        "4.9e-324",
        "123456789012345.6",
        "12345678901234567890",
        "0.30000000000000004",
    ] {
        let expected: f64 = literal.parse().expect("a number");
        assert_eq!(number(literal.as_bytes()).to_bits(), expected.to_bits(), "{literal}");
    }
    assert!(number(b"1e400").is_infinite());
}
