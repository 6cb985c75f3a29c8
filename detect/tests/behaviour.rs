//! What Sigma means, one line a behaviour: the 2.1 specification and what the reference implementation tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells on stderr why it was skipped"
)]

use detect::engine::{Engine, Scratch};
use detect::error::Weight;
use detect::item::Placeholders;
use detect::rule_set::{RuleFile, RuleSet};
use event::json::Doc;
use event::{Event, Str};

fn rule(detection: &str) -> RuleFile {
    let detection: String = detection
        .trim_matches('\n')
        .lines()
        .map(|l| format!("  {l}\n"))
        .collect();
    RuleFile {
        path: "r.yml".into(),
        text: format!(
            "title: t\nlogsource: {{product: aws}}\ndetection:\n{detection}\nlevel: low\n"
        ),
    }
}

fn placeholders() -> Placeholders {
    Placeholders::from([(
        "admins".to_owned(),
        vec!["alice".to_owned(), "svc-*".to_owned()],
    )])
}

fn matches(file: RuleFile, event: &Event, json: &str) -> bool {
    let set = RuleSet::build(&[file], &placeholders()).unwrap_or_else(|e| panic!("{e}"));
    let doc = Doc::parse(json.as_bytes()).ok();
    let root = doc.as_ref().map(|d| d.root(json.as_bytes()));
    !Engine::new(&set)
        .matches(event, root, &mut Scratch::new())
        .is_empty()
}

/// One selection, one record.
fn check(selection: &str, json: &str, expected: bool) {
    let event = Event {
        source: "aws.cloudtrail".into(),
        ..Event::default()
    };
    let file = rule(&format!(
        "sel:\n{}condition: sel",
        selection
            .trim()
            .lines()
            .map(|l| format!("  {l}\n"))
            .collect::<String>()
    ));
    assert_eq!(
        matches(file, &event, json),
        expected,
        "{selection} on {json}"
    );
}

/// A mistake at `line:column` whose message has these words.
fn refused(file: &RuleFile, place: (usize, usize), words: &str) {
    let (_, problems) = RuleSet::check(std::slice::from_ref(file), &placeholders());
    let found = problems
        .iter()
        .find(|p| p.weight == Weight::Error && p.message.contains(words));
    let found = found.unwrap_or_else(|| panic!("no `{words}` in {problems:#?}\n{}", file.text));
    let at = found.place.unwrap();
    assert_eq!((at.line, at.column), place, "{found}");
}

fn refused_selection(selection: &str, place: (usize, usize), words: &str) {
    refused(
        &rule(&format!("sel:\n  {selection}\ncondition: sel")),
        place,
        words,
    );
}

#[test]
fn strings() {
    check("a: FOO", r#"{"a":"foo"}"#, true);
    check("a|cased: FOO", r#"{"a":"foo"}"#, false);
    check("a|cased: Foo*", r#"{"a":"Foobar"}"#, true);
    check("a|contains|cased: Foo", r#"{"a":"xFOOx"}"#, false);
    check("a: f*o", r#"{"a":"fo"}"#, true);
    check("a: f?o", r#"{"a":"fo"}"#, false);
    check(r"a: 'f\*o'", r#"{"a":"f*o"}"#, true);
    check(r"a|contains: '\temp\'", r#"{"a":"C:\\TEMP\\x"}"#, true);
    check(r"a|endswith: '\cmd.exe'", r#"{"a":"C:\\cmd.exe"}"#, true);
    check("a|startswith: 'c:*x'", r#"{"a":"c:\\y\\xyz"}"#, true);
    check("a: ''", r#"{"a":""}"#, true);
    check("a: ''", r#"{"b":""}"#, false);
    check("a: '*'", r#"{"a":""}"#, true);
    check("a: '*'", r#"{"b":1}"#, false);
    check("MFAUsed: 'NO'", r#"{"MFAUsed":"No"}"#, true);
    check("a: ÄRGER", r#"{"a":"ärger"}"#, true);
}

#[test]
fn numbers_and_booleans() {
    check("a: 12", r#"{"a":12}"#, true);
    check("a: 12", r#"{"a":"12"}"#, true);
    check("a: '12'", r#"{"a":12}"#, true);
    check("a: 12", r#"{"a":12.0}"#, true);
    check("a: 12", r#"{"a":"12.0"}"#, false);
    check("a: true", r#"{"a":true}"#, true);
    check("a: true", r#"{"a":"True"}"#, true);
    check("a: 'false'", r#"{"a":false}"#, true);
    check("a: true", r#"{"a":1}"#, false);
    check("a|gte: 5", r#"{"a":"5"}"#, true);
    check("a|gt: 5", r#"{"a":5}"#, false);
    check("a|lt: 5", r#"{"a":[9,4]}"#, true);
    check("a|lte: 5", r#"{"a":"x"}"#, false);
    check("a|gt: 5", r#"{}"#, false);
}

#[test]
fn absent_null_and_exists() {
    check("a: null", r#"{"b":1}"#, true);
    check("a: null", r#"{"a":null}"#, true);
    check("a: null", r#"{"a":"null"}"#, false);
    check("a: null", r#"{"a":""}"#, false);
    check("a|exists: true", r#"{"a":""}"#, true);
    check("a|exists: true", r#"{"a":null}"#, true);
    check("a|exists: false", r#"{"b":1}"#, true);
    check("a|exists: true", r#"{"b":1}"#, false);
    check("a.b|exists: true", r#"{"a":{"b":0}}"#, true);
}

#[test]
fn lists_and_maps() {
    check("a: [x, y]", r#"{"a":"y"}"#, true);
    check("a: x", r#"{"a":["w","x"]}"#, true);
    check("a.b: x", r#"{"a":[{"b":"w"},{"b":"x"}]}"#, true);
    check("a|contains|all: [x, y]", r#"{"a":"xyz"}"#, true);
    check("a|contains|all: [x, y]", r#"{"a":"xz"}"#, false);
    check("a|all: [x, y]", r#"{"a":["y","x"]}"#, true);
    check("a: x\nb: y", r#"{"a":"x","b":"z"}"#, false);
    check("- a: x\n- b: y", r#"{"a":"q","b":"y"}"#, true);
    check(
        "a: '{\"b\":1,\"c\":\" d\"}'",
        r#"{"a": { "b" : 1, "c": " d" } }"#,
        true,
    );
}

#[test]
fn negation_and_references() {
    check("a|neq: x", r#"{"a":"y"}"#, true);
    check("a|neq: x", r#"{"a":"X"}"#, false);
    check("a|neq: x", r#"{"b":"x"}"#, true);
    check("a|neq: [x, y]", r#"{"a":"y"}"#, false);
    check("a|fieldref: b", r#"{"a":"X","b":"x"}"#, true);
    check("a|fieldref: b", r#"{"a":"x"}"#, false);
    check("a|fieldref|cased: b", r#"{"a":"X","b":"x"}"#, false);
    check("a|fieldref|startswith: b", r#"{"a":"xyz","b":"xy"}"#, true);
    check("a|endswith|fieldref: b", r#"{"a":"xyz","b":"yz"}"#, true);
    check("a|fieldref|contains: b", r#"{"a":"xyz","b":"q"}"#, false);
    check("a|fieldref|neq: b", r#"{"a":"1","b":"2"}"#, true);
}

#[test]
fn regular_expressions() {
    check("a|re: 'f.o'", r#"{"a":"xfoox"}"#, true);
    check("a|re: 'F.o'", r#"{"a":"foo"}"#, false);
    check("a|re|i: 'F.o'", r#"{"a":"foo"}"#, true);
    check("a|re: '^b'", r#"{"a":"a\nb"}"#, false);
    check("a|re|m: '^b'", r#"{"a":"a\nb"}"#, true);
    check("a|re: 'a.b'", r#"{"a":"a\nb"}"#, false);
    check("a|re|s: 'a.b'", r#"{"a":"a\nb"}"#, true);
    check("a|re|startswith: 'b'", r#"{"a":"ab"}"#, false);
    check("a|re|endswith: 'b'", r#"{"a":"ab"}"#, true);
    check("a|re|contains: '[a-c]{2}'", r#"{"a":"xxabxx"}"#, true);
    check(r"a|re: '\/\<\{x{2}\}'", r#"{"a":"/<{xx}"}"#, true);
    check("a|re: ['x+', 'y+']", r#"{"a":"yy"}"#, true);
    check("a|re|all: ['x', 'y']", r#"{"a":"xy"}"#, true);
}

#[test]
fn encodings() {
    check("a|base64: foobar", r#"{"a":"Zm9vYmFy"}"#, true);
    check("a|base64|contains: foobar", r#"{"a":"xxZm9vYmFyxx"}"#, true);
    // "foobar" behind nothing, one and two bytes.
    for text in ["Zm9vYmFy", "eGZvb2Jhcg==", "eHhmb29iYXI="] {
        check(
            "a|base64offset|contains: foobar",
            &format!(r#"{{"a":"{text}"}}"#),
            true,
        );
    }
    check(
        "a|base64offset|contains: foobar",
        r#"{"a":"Zm9vYmF6"}"#,
        false,
    );
    check(
        "a|wide|base64offset|contains: ping",
        r#"{"a":"AAAAcABpAG4AZwA="}"#,
        true,
    );
    check("a|utf16le|base64: ab", r#"{"a":"YQBiAA=="}"#, true);
    check("a|utf16be|base64: ab", r#"{"a":"AGEAYg=="}"#, true);
    check("a|utf16|base64: ab", r#"{"a":"//5hAGIA"}"#, true);
    check("a|windash|contains: ' -enc'", r#"{"a":"x /enc"}"#, true);
    check(
        "a|contains|windash: ' /enc'",
        "{\"a\":\"x \u{2013}enc\"}",
        true,
    );
}

#[test]
fn addresses_and_times() {
    check("a|cidr: 10.0.0.0/8", r#"{"a":"10.2.3.4"}"#, true);
    check("a|cidr: 10.0.0.0/8", r#"{"a":"11.2.3.4"}"#, false);
    check("a|cidr: 10.0.0.0/8", r#"{"a":"::ffff:10.2.3.4"}"#, true);
    check("a|cidr: '2001:db8::/32'", r#"{"a":"2001:DB8:1::1"}"#, true);
    check(
        "a|cidr: [10.0.0.0/8, 192.168.0.0/16]",
        r#"{"a":"192.168.1.1"}"#,
        true,
    );
    check("a|cidr: 10.0.0.0/8", r#"{"a":"AWS Internal"}"#, false);
    check("t|hour: 23", r#"{"t":"2026-03-02T23:59:10Z"}"#, true);
    check("t|hour|gte: 22", r#"{"t":"2026-03-02T23:59:10Z"}"#, true);
    check("t|minute: 59", r#"{"t":"2026-03-02T23:59:10Z"}"#, true);
    check("t|day: 2", r#"{"t":"2026-03-02T23:59:10Z"}"#, true);
    check("t|week: 10", r#"{"t":"2026-03-02T23:59:10Z"}"#, true);
    check("t|month: 3", r#"{"t":"2026-03-02T23:59:10Z"}"#, true);
    check("t|year: 2025", r#"{"t":"2026-03-02T23:59:10Z"}"#, false);
}

#[test]
fn placeholders_are_filled() {
    check("a|expand: '%admins%'", r#"{"a":"svc-7"}"#, true);
    check("a|expand: 'x-%admins%'", r#"{"a":"x-Alice"}"#, true);
    check("a|expand: '%admins%'", r#"{"a":"%admins%"}"#, false);
    check("a: '%admins%'", r#"{"a":"%admins%"}"#, true);
    check(r"a|expand: '\%plain'", r#"{"a":"%plain"}"#, true);
    check(
        "a|contains|expand: '%admins%'",
        r#"{"a":"the alice x"}"#,
        true,
    );
}

#[test]
fn keywords() {
    check("- EVIL\n- other", r#"{"x":{"y":["so evil indeed"]}}"#, true);
    check("- EVIL", r#"{"evil":"x"}"#, false);
    check("'|all': [one, two]", r#"{"a":"one","b":"two"}"#, true);
    check("'|all': [one, two]", r#"{"a":"one"}"#, false);
    check("- 42", r#"{"a":1425}"#, true);
    let event = Event {
        source: "aws.lambda".into(),
        raw: "Task timed OUT".into(),
        ..Event::default()
    };
    assert!(matches(
        rule("sel: ['timed out']\ncondition: sel"),
        &event,
        ""
    ));
}

#[test]
fn conditions() {
    let event = Event {
        source: "aws.cloudtrail".into(),
        ..Event::default()
    };
    let with = |condition: &str| {
        rule(&format!(
            "sel:\n  a: 1\nselection:\n  b: 1\n_x:\n  c: 1\ncondition: {condition}"
        ))
    };
    for (condition, json, expected) in [
        ("sel and not selection", r#"{"a":1}"#, true),
        ("sel and not selection", r#"{"a":1,"b":1}"#, false),
        ("not sel", "{}", true),
        ("1 of them", r#"{"c":1}"#, false),
        ("all of sel*", r#"{"a":1,"b":1}"#, true),
        ("sel or selection and _x", r#"{"a":1}"#, true),
        ("[sel and _x, selection]", r#"{"b":1}"#, true),
    ] {
        assert_eq!(
            matches(with(condition), &event, json),
            expected,
            "{condition} on {json}"
        );
    }
}

#[test]
fn normalized_names_and_logsources() {
    let event = Event {
        source: "aws.lambda".into(),
        actor: "Alice".into(),
        mfa: Some(false),
        resources: vec!["arn:x".into(), "arn:y".into()],
        ..Event::default()
    };
    let sel = |s: &str| rule(&format!("sel:\n  {s}\ncondition: sel"));
    assert!(matches(sel("actor: alice"), &event, "{}"));
    assert!(matches(sel("mfa: false"), &event, "{}"));
    assert!(matches(sel("resources|endswith: ':y'"), &event, "{}"));
    assert!(matches(sel("region: null"), &event, "{}"));
    // The original field of the same name wins.
    assert!(!matches(sel("actor: alice"), &event, r#"{"actor":"bob"}"#));
    let other = |source: &str| Event {
        source: Str::from(source),
        actor: "alice".into(),
        ..Event::default()
    };
    assert!(!matches(
        sel("actor: alice"),
        &other("azure.activity"),
        "{}"
    ));
    assert!(matches(sel("actor: alice"), &other("unknown"), "{}"));
}

#[test]
fn wrong_modifiers_are_pointed_at() {
    refused_selection("ip|cdir: 10.0.0.0/8", (5, 8), "unknown modifier `cdir`");
    refused_selection(
        "a|contains|re: x",
        (5, 16),
        "modifier `re` must stand first",
    );
    refused_selection("a|i: x", (5, 7), "modifier `i` stands without `re`");
    refused_selection(
        "a|contains: 1",
        (5, 7),
        "modifier `contains` works on texts only",
    );
    refused_selection("a|gt: x", (5, 7), "modifier `gt` works on numbers only");
    refused_selection("a|gt: '5'", (5, 7), "modifier `gt` works on numbers only");
    refused_selection("a|exists: 1", (5, 7), "needs `true` or `false`");
    refused_selection("a|cidr: nonsense", (5, 13), "`nonsense` is no network");
    refused_selection("a|contains|base64: x", (5, 16), "cannot encode wildcards");
    refused_selection(
        "a|expand: '%nobody%'",
        (5, 7),
        "placeholder `%nobody%` has no values",
    );
    refused_selection("a||contains: x", (5, 7), "a modifier is missing");
    refused_selection("a: []", (5, 8), "empty list of values");
    refused_selection("a: {b: c}", (5, 8), "cannot be a map");
}

#[test]
fn hostile_regular_expressions() {
    refused_selection(
        r"a|re: '(a)\1'",
        (5, 11),
        "back-references are not supported",
    );
    refused_selection("a|re: 'a(?=b)'", (5, 11), "look-around is not supported");
    refused_selection(
        "a|re: '(a{1,9999}){9999}'",
        (5, 11),
        "compiled size is greater than",
    );
    refused_selection("a|re: '('", (5, 11), "unclosed group");
}

#[test]
fn wrong_documents() {
    let file = |text: &str| RuleFile {
        path: "r.yml".into(),
        text: text.to_owned(),
    };
    refused(
        &file("logsource: {product: aws}\ndetection: {sel: {a: 1}, condition: sel}\n"),
        (1, 1),
        "`title` is missing",
    );
    refused(
        &file("title: t\ndetection: {sel: {a: 1}, condition: sel}\n"),
        (1, 1),
        "`logsource` is missing",
    );
    refused(
        &file("title: t\nlogsource: {product: aws}\n"),
        (1, 1),
        "`detection` is missing",
    );
    refused(
        &file("title: t\nlogsource: {product: aws}\ndetection: {sel: {a: 1}}\n"),
        (3, 1),
        "`condition` is missing",
    );
    refused(
        &file(
            "title: t\nlogsource: {product: aws}\ndetection: {sel: {a: 1}, condition: 1 of them | count() > 3}\n",
        ),
        (3, 47),
        "no longer part of Sigma",
    );
    refused(
        &file(
            "title: t\nlogsource: {product: aws}\nlevel: severe\ndetection: {sel: {a: 1}, condition: sel}\n",
        ),
        (3, 8),
        "unknown level `severe`",
    );
    refused(&file("- a\n"), (1, 1), "a rule is a map");
    refused(&file(""), (1, 1), "there is no rule in this file");
    refused(
        &file("title: t\ntitle: u\n"),
        (2, 1),
        "key `title` stands here and on line 1",
    );
    refused(
        &file("title: t\nfilter: {}\n"),
        (2, 1),
        "`rules` of the filter is missing",
    );
}

#[test]
fn duplicate_ids() {
    let file = |path: &str, value: u32| RuleFile {
        path: path.into(),
        text: format!(
            "title: t\nid: 929a690e-bef0-4204-a928-ef5e620d6fcc\nlogsource: {{product: aws}}\ndetection: {{sel: {{a: {value}}}, condition: sel}}\n"
        ),
    };
    let set = RuleSet::build(&[file("a.yml", 1), file("b.yml", 1)], &Placeholders::new()).unwrap();
    assert_eq!((set.rules.len(), set.duplicates), (1, 1));
    let errors = RuleSet::build(&[file("a.yml", 1), file("b.yml", 2)], &Placeholders::new())
        .unwrap_err()
        .to_string();
    assert!(
        errors.contains("b.yml") && errors.contains("`a.yml`"),
        "{errors}"
    );
}

#[test]
fn old_collections() {
    let text = "action: global\ntitle: t\nlogsource: {product: aws}\ndetection: {condition: sel}\n---\ndetection: {sel: {a: 1}}\n---\ntitle: u\ndetection: {sel: {a: 2}}\n";
    let set = RuleSet::build(
        &[RuleFile {
            path: "g.yml".into(),
            text: text.into(),
        }],
        &Placeholders::new(),
    )
    .unwrap();
    assert_eq!(
        set.rules
            .iter()
            .map(|r| r.info.title.as_str())
            .collect::<Vec<_>>(),
        ["t", "u"]
    );
}

#[test]
fn all_problems_of_all_files_at_once() {
    let files = [
        rule("sel:\n  a|cdir: x\n  b|gt: y\ncondition: sel"),
        rule("sel: {a: 1}\ncondition: slection"),
        rule("sel: {a: 1}\ncondition: sel"),
    ];
    let errors = RuleSet::build(&files, &Placeholders::new()).unwrap_err();
    assert_eq!(
        errors
            .problems
            .iter()
            .filter(|p| p.weight == Weight::Error)
            .count(),
        3
    );
    assert!(errors.to_string().contains("hint: did you mean `cidr`?"));
}

proptest::proptest! {
    /// Whatever stands in a rule file: an answer, never a panic, and every error has a place in the file.
    #[test]
    fn no_text_breaks_the_loader(from in 0..400_usize, length in 0..40_usize, insert in "[ -~\n\t]{0,12}") {
        let good = "title: t\nid: 929a690e-bef0-4204-a928-ef5e620d6fcc\nname: n\nlogsource: {product: aws}\ndetection:\n  sel:\n    a|contains|all: [x, 'y*']\n    b|re|i: '^x{1,3}(y|z)$'\n    c|cidr: 10.0.0.0/8\n  kw: [one, '|all']\n  condition: 1 of sel* and not (kw or all of them)\nlevel: low\ntags: [attack.t1110]\n---\ntitle: c\ncorrelation:\n  type: event_count\n  rules: [n]\n  group-by: [a]\n  timespan: 5m\n  condition: {gte: 3}\n";
        let from = from.min(good.len());
        let text = format!("{}{insert}{}", &good[..from], &good[(from + length).min(good.len())..]);
        let (set, problems) = RuleSet::check(&[RuleFile { path: "m.yml".into(), text: text.clone() }], &placeholders());
        proptest::prop_assert!(problems.iter().all(|p| p.place.is_some_and(|place| place.line <= text.lines().count() + 1)), "{problems:#?}");
        Engine::new(&set);
    }
}
