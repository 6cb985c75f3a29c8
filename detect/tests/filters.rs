//! Filters and exceptions: what they cut, where, and until when; as pySigma tests it and as the specification writes it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use detect::engine::{Engine, Scratch};
use detect::item::Placeholders;
use detect::rule_set::{RuleFile, RuleSet};
use event::json::Doc;
use event::{Event, Id, Time};

const RULES: &str = "\
title: Failed login
id: 6f3e2987-db24-4c78-a860-b4f4095a7095
name: failed_login
logsource: {product: windows, category: process_creation}
detection:
  selection:
    - EventID: 4625
    - EventID2: 4624
  condition: selection
---
title: Another
id: df0841c0-9846-4e9f-ad8a-7df91571771b
logsource: {product: windows, service: security}
detection: {sel: {EventID: 4625}, condition: sel}
";

fn set(filter: &str) -> (RuleSet, Vec<String>) {
    let file = |path: &str, text: &str| RuleFile {
        path: path.into(),
        text: text.into(),
    };
    let files = [file("filter.yml", filter), file("rules.yml", RULES)];
    let (set, problems) = RuleSet::check(&files, &Placeholders::new());
    let words = problems.iter().map(|p| {
        let hint = if p.hint.is_empty() { "" } else { " | " };
        format!("{}{hint}{}", p.message, p.hint)
    });
    (set, words.collect())
}

fn filter(rules: &str, rest: &str) -> String {
    format!(
        "title: admins\nlogsource: {{product: windows}}\nfilter:\n  rules: {rules}\n  selection: {{User|startswith: adm_}}\n{rest}"
    )
}

/// The titles of the rules that match, and of the filters that cut, at a time.
fn matches(set: &RuleSet, record: &str, time: &str) -> (Vec<String>, Vec<String>) {
    let engine = Engine::new(set);
    let mut scratch = Scratch::new();
    let doc = Doc::parse(record.as_bytes()).unwrap();
    let event = Event {
        id: Id(1),
        source: "unknown".into(),
        time: Time::parse(time).unwrap(),
        ..Event::default()
    };
    let matched = engine
        .matches(&event, Some(doc.root(record.as_bytes())), &mut scratch)
        .iter()
        .map(|r| engine.info(*r).title.clone())
        .collect();
    let cut = scratch.cut().iter();
    (
        matched,
        cut.map(|(f, _)| engine.filter_title(*f).to_string())
            .collect(),
    )
}

const ADMIN: &str = r#"{"EventID":4625,"User":"adm_eve"}"#;
const OTHER: &str = r#"{"EventID":4625,"User":"bob"}"#;
const NOW: &str = "2026-03-02T10:00:00Z";

#[test]
fn both_ways_to_write_a_condition_cut_the_same() {
    for (condition, warned) in [
        ("not selection", false),
        ("not (selection)", false),
        ("not ( ( selection ) )", false),
        ("selection", true),
        ("1 of sel*", true),
        ("not 1 of sel*", false),
        ("not not selection", true),
    ] {
        let (set, problems) = set(&filter("any", &format!("  condition: {condition}\n")));
        assert_eq!(
            problems.len(),
            usize::from(warned),
            "{condition}: {problems:?}"
        );
        assert_eq!(
            matches(&set, ADMIN, NOW),
            (vec![], vec!["admins".to_owned(); 2]),
            "{condition}"
        );
        assert_eq!(
            matches(&set, OTHER, NOW).0,
            ["Failed login", "Another"],
            "{condition}"
        );
    }
}

#[test]
fn several_selections_in_both_ways() {
    let more = "  other: {Host: h}\n";
    let both = r#"{"EventID":4625,"User":"adm_eve","Host":"h"}"#;
    for (condition, cuts_admin, cuts_both) in [
        ("not selection and not other", true, true),
        ("not (selection or other)", true, true),
        ("not selection or not other", false, true),
        ("not (selection and other)", false, true),
        ("selection and other", false, true),
        ("selection or other", true, true),
        ("not (selection and not other)", true, false),
        ("selection and not other", true, false),
        ("all of them", false, true),
    ] {
        let (set, _) = set(&filter("any", &format!("{more}  condition: {condition}\n")));
        assert_eq!(
            matches(&set, ADMIN, NOW).0.is_empty(),
            cuts_admin,
            "{condition}"
        );
        assert_eq!(
            matches(&set, both, NOW).0.is_empty(),
            cuts_both,
            "{condition}"
        );
        assert_eq!(matches(&set, OTHER, NOW).0.len(), 2, "{condition}");
    }
}

#[test]
fn rules_are_named_by_id_by_name_and_by_logsource() {
    let cut = "  condition: not selection\n";
    for (rules, left) in [
        ("[failed_login]", vec!["Another"]),
        ("failed_login", vec!["Another"]),
        ("[6f3e2987-db24-4c78-a860-b4f4095a7095]", vec!["Another"]),
        (
            "[df0841c0-9846-4e9f-ad8a-7df91571771b, failed_login, failed_login]",
            vec![],
        ),
        ("any", vec![]),
        ("all", vec![]),
    ] {
        let (set, problems) = set(&filter(rules, cut));
        assert_eq!(problems, [""; 0], "{rules}");
        assert_eq!(matches(&set, ADMIN, NOW).0, left, "{rules}");
    }
    let narrow = filter("any", cut).replace("windows}", "windows, service: security}");
    assert_eq!(matches(&set(&narrow).0, ADMIN, NOW).0, ["Failed login"]);
    let (set, problems) = set(&narrow.replace("any", "[failed_login]"));
    assert_eq!(matches(&set, ADMIN, NOW).0.len(), 2);
    assert!(
        problems[0].contains("looks at other logs than this filter"),
        "{problems:?}"
    );
}

#[test]
fn what_is_refused_and_what_is_advised() {
    let cut = "  condition: not selection\n";
    for (filter, words) in [
        (
            filter("[failed_logn]", cut),
            "there is no rule `failed_logn` | did you mean `failed_login`?",
        ),
        (filter("[]", cut), "`rules` names no rule"),
        (filter("{a: b}", cut), "`rules` is a list or `any`"),
        (
            filter("any", cut).replace("  rules: any\n", ""),
            "`rules` of the filter is missing",
        ),
        (filter("any", ""), "`condition` is missing"),
        (
            filter("any", "  condition: [selection, not selection]\n"),
            "a filter has one condition",
        ),
        (
            filter("any", "  condition: not filter_x\n"),
            "there is no selection `filter_x`",
        ),
        (
            filter("any", cut).replace("logsource: {product: windows}\n", ""),
            "`logsource` is missing",
        ),
        (
            filter("any", cut).replace("title: admins\n", ""),
            "`title` is missing",
        ),
        (
            format!("expires: soon\n{}", filter("any", cut)),
            "`expires` is the last day of an exception",
        ),
        (
            format!("expires: 2026-02-30\n{}", filter("any", cut)),
            "`expires` is the last day of an exception",
        ),
        (
            filter("any", cut).replace("windows}", "linux}"),
            "no rule that is loaded looks at the logs of this filter",
        ),
    ] {
        let (_, problems) = set(&filter);
        assert!(
            problems.iter().any(|p| p.contains(words)),
            "{filter}\n{problems:?}"
        );
    }
}

#[test]
fn an_exception_ends_with_its_last_day_by_the_time_of_the_event() {
    let exception = format!(
        "owner: soc\nexpires: 2026-03-02\n{}",
        filter("any", "  condition: not selection\n")
    );
    let (set, problems) = set(&exception);
    assert_eq!(problems, [""; 0]);
    assert_eq!(
        (set.filters[0].owner.as_str(), set.filters[0].id.as_str()),
        ("soc", "admins")
    );
    assert!(
        matches(&set, ADMIN, "2026-03-02T23:59:59.999Z")
            .0
            .is_empty()
    );
    let (matched, cut) = matches(&set, ADMIN, "2026-03-03T00:00:00Z");
    assert_eq!((matched.len(), cut.len()), (2, 0));
}

#[test]
fn correlations_count_what_filters_leave() {
    let correlation = "\n---\ntitle: many\nname: many\ncorrelation:\n  type: event_count\n  rules: [failed_login]\n  group-by: [User]\n  timespan: 5m\n  condition: {gte: 2}\n";
    let (set, problems) = set(&format!(
        "{}{correlation}",
        filter("[failed_login]", "  condition: not selection\n")
    ));
    assert_eq!(problems, [""; 0]);
    let engine = Engine::new(&set);
    let mut scratch = Scratch::new();
    for (record, counted) in [(ADMIN, 0), (OTHER, 1)] {
        let doc = Doc::parse(record.as_bytes()).unwrap();
        let event = Event {
            source: "unknown".into(),
            ..Event::default()
        };
        let json = Some(doc.root(record.as_bytes()));
        engine.matches(&event, json, &mut scratch);
        assert_eq!(
            engine.correlation_matches(&event, json, &mut scratch).len(),
            counted
        );
    }
    let (_, problems) = self::set(&format!(
        "{}{correlation}",
        filter("[many]", "  condition: not selection\n")
    ));
    assert!(
        problems[0].contains("`many` is a correlation"),
        "{problems:?}"
    );
}

#[test]
fn an_explanation_names_the_filter() {
    let (set, _) = set(&filter("any", "  condition: not selection\n"));
    let engine = Engine::new(&set);
    let doc = Doc::parse(ADMIN.as_bytes()).unwrap();
    let event = Event {
        source: "unknown".into(),
        ..Event::default()
    };
    let id = "6f3e2987-db24-4c78-a860-b4f4095a7095";
    let explanation = engine
        .explain(id, &event, Some(doc.root(ADMIN.as_bytes())))
        .unwrap();
    assert!(explanation.held && explanation.covered);
    assert_eq!(explanation.cut_by, ["admins"]);
    assert_eq!(explanation.selections, [("selection".to_owned(), true)]);
}

/// A working memory goes from one engine to another, as when rules are loaded anew, and takes nothing with it.
#[test]
fn a_scratch_may_change_its_engine() {
    let rule = |product: &str, field: &str| {
        let text = format!(
            "title: t\nlogsource: {{product: {product}}}\ndetection: {{s: {{{field}: 4625}}, condition: s}}\n"
        );
        let file = RuleFile {
            path: "r.yml".into(),
            text,
        };
        Engine::new(&RuleSet::build(&[file], &Placeholders::new()).unwrap())
    };
    let mut scratch = Scratch::new();
    let doc = Doc::parse(OTHER.as_bytes()).unwrap();
    let event = Event {
        source: "windows.security".into(),
        ..Event::default()
    };
    let mut ask = |engine: &Engine| {
        engine
            .matches(&event, Some(doc.root(OTHER.as_bytes())), &mut scratch)
            .len()
    };
    assert_eq!(ask(&rule("windows", "EventID")), 1);
    assert_eq!(ask(&rule("linux", "EventID")), 0);
    assert_eq!(ask(&rule("windows", "EventID")), 1);
    assert_eq!(ask(&rule("windows", "Absent")), 0);
}
