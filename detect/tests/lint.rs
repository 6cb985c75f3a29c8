//! Advice about rules: each code where it belongs, none where a rule is good, and silence on demand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use detect::error::Weight;
use detect::item::Placeholders;
use detect::lint::{CODES, lint};
use detect::rule_set::{RuleFile, RuleSet, read};
use event::Time;

const GOOD: &str = "\
title: A trail was stopped
id: 0e95725d-7320-415d-80f7-004da920fc11
status: test
description: Somebody stopped a trail.
date: 2026-01-02
modified: 2026-01-03
tags: [attack.stealth, attack.t1562.008]
logsource: {product: aws, service: cloudtrail}
detection:
  selection: {eventName: StopLogging}
  condition: selection
falsepositives: [Unknown]
level: high
tests:
  - {name: hit, events: [{eventName: StopLogging}], expect: match}
  - {name: miss, events: [{eventName: StartLogging}], expect: no_match}
";

const EXCEPTION: &str = "\
title: Agreed
id: 1e95725d-7320-415d-80f7-004da920fc12
logsource: {product: aws}
filter:
  rules: any
  selection: {userName: eve}
  condition: not selection
owner: soc
expires: 2026-12-31
";

/// The codes of all advice about these documents, on a day, sorted.
fn codes(text: &str, today: &str) -> Vec<String> {
    let files = [RuleFile {
        path: "r.yml".into(),
        text: text.into(),
    }];
    let (set, mut problems) = RuleSet::check(&files, &Placeholders::new());
    problems.extend(lint(&files, &set, Time::parse(today).unwrap()));
    let mut codes: Vec<String> = problems
        .iter()
        .map(|p| {
            assert_eq!(p.weight, Weight::Warning, "{p}");
            p.code.unwrap_or("none").to_owned()
        })
        .collect();
    codes.sort();
    codes
}

const TODAY: &str = "2026-06-01T12:00:00Z";

/// Documents for every code: what is changed in a good one, and the advice that follows from it.
fn cases() -> Vec<(String, Vec<&'static str>)> {
    let rule = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replace(from, to)
    };
    let detection = |text: &str| {
        rule(
            "  selection: {eventName: StopLogging}\n  condition: selection\n",
            text,
        )
    };
    let correlation = |group_by: &str, rules: &str, more: &str| {
        format!(
            "{}---\ntitle: Many\nid: 2e95725d-7320-415d-80f7-004da920fc13\nstatus: test\ndescription: d\nlevel: high\nfalsepositives: [Unknown]\ntests: [{{name: a, events: [], expect: no_match}}, {{name: b, events: [{{a: 1}}], expect: match}}]\ncorrelation: {{type: event_count, rules: {rules}, {group_by} timespan: 5m, condition: {{gte: 3}}}}\n{more}",
            GOOD.replace("title:", "name: stopped\ntitle:")
        )
    };
    let other = GOOD
        .replace("0e95725d", "3e95725d")
        .replace("A trail was stopped", "Another");
    let exception = |text: &str| format!("{GOOD}---\n{text}");
    vec![
        (GOOD.into(), vec![]),
        (exception(EXCEPTION), vec![]),
        (rule("level: high\n", ""), vec!["level-missing"]),
        (
            rule("falsepositives: [Unknown]\n", ""),
            vec!["falsepositives-missing"],
        ),
        (
            rule("falsepositives: [Unknown]\n", "falsepositives: []\n"),
            vec!["falsepositives-missing"],
        ),
        (
            rule("description: Somebody stopped a trail.\n", ""),
            vec!["description-missing"],
        ),
        (
            rule("id: 0e95725d-7320-415d-80f7-004da920fc11\n", ""),
            vec!["id-missing"],
        ),
        (
            rule("id: 0e95725d-7320-415d-80f7-004da920fc11", "id: seven"),
            vec!["id-form"],
        ),
        (rule("status: test", "status: testing"), vec!["status-form"]),
        (
            rule("status: test", "status: deprecated"),
            vec!["status-deprecated"],
        ),
        (
            rule("date: 2026-01-02", "date: 2026/01/02"),
            vec!["date-form"],
        ),
        (
            rule("date: 2026-01-02", "date: 2026-02-30"),
            vec!["date-form"],
        ),
        (
            rule("modified: 2026-01-03", "modified: 2026-01-01"),
            vec!["date-form"],
        ),
        (rule("attack.stealth", "attack.stelth"), vec!["tag-unknown"]),
        (rule("attack.stealth", "Attack.Stealth"), vec!["tag-form"]),
        (rule("attack.stealth", "attack.t1562.008"), vec!["tag-form"]),
        (
            rule("falsepositives:", "falsepositive:"),
            vec!["falsepositives-missing", "key-unknown"],
        ),
        (rule("status: test", "mine: 7\nstatus: test"), vec![]),
        (
            rule(
                "status: test",
                "related: [{id: 0e95725d-7320-415d-80f7-004da920fc14, type: derived}]\nstatus: test",
            ),
            vec![],
        ),
        (
            rule(
                "status: test",
                "related: [{id: seven, type: derived}]\nstatus: test",
            ),
            vec!["related-form"],
        ),
        (
            rule(
                "status: test",
                "related: [{id: 0e95725d-7320-415d-80f7-004da920fc14, type: child}]\nstatus: test",
            ),
            vec!["related-form"],
        ),
        (
            rule("status: test", "related: seven\nstatus: test"),
            vec!["related-form"],
        ),
        (
            rule("A trail was stopped", &"x".repeat(257)),
            vec!["text-length"],
        ),
        (rule("tests:\n", "other:\n"), vec!["tests-missing"]),
        (
            rule("expect: no_match", "expect: {count: 1}"),
            vec!["tests-one-sided"],
        ),
        (
            rule("expect: match", "expect: {count: 0}"),
            vec!["tests-one-sided"],
        ),
        (
            rule(
                "logsource: {product: aws, service: cloudtrail}",
                "logsource: {definition: all}",
            ),
            vec!["logsource-empty"],
        ),
        (
            detection(
                "  selection: {eventName: StopLogging}\n  more: {a: 1}\n  condition: selection\n",
            ),
            vec!["selection-unused"],
        ),
        (
            detection(
                "  selection: {eventName: StopLogging}\n  timeframe: 5m\n  condition: selection\n",
            ),
            vec!["timeframe"],
        ),
        (
            detection("  selection: {eventName|contains|all: Stop}\n  condition: selection\n"),
            vec!["all-single"],
        ),
        (
            detection("  selection: {eventName: [StopLogging, null]}\n  condition: selection\n"),
            vec!["null-in-list"],
        ),
        (
            detection(
                "  selection: {eventName: [StopLogging, stoplogging]}\n  condition: selection\n",
            ),
            vec!["value-twice"],
        ),
        (
            detection(
                "  selection: {eventName|cased: [StopLogging, stoplogging]}\n  condition: selection\n",
            ),
            vec![],
        ),
        (
            detection("  selection: {eventName: '*'}\n  condition: selection\n"),
            vec!["wildcard-only"],
        ),
        (
            detection("  a: {eventName: A}\n  b: {eventName: B}\n  condition: a and b\n"),
            vec!["never-matches"],
        ),
        (
            detection("  a: {eventName: A, eventName|startswith: B}\n  condition: a\n"),
            vec!["never-matches"],
        ),
        (
            detection("  a: {eventName: Ab, eventName|startswith: a}\n  condition: a\n"),
            vec![],
        ),
        (
            detection("  a: {errorCode: null, errorCode|contains: B}\n  condition: a\n"),
            vec!["never-matches"],
        ),
        (
            detection("  a: {errorCode|exists: false, errorCode: B}\n  condition: a\n"),
            vec!["never-matches"],
        ),
        (
            detection("  a: {errorCode|exists: true, errorCode: B}\n  condition: a\n"),
            vec![],
        ),
        (
            detection("  a: {eventName: [A, B]}\n  b: {eventName: [B, C]}\n  condition: a and b\n"),
            vec![],
        ),
        (
            detection("  a: {eventName: A}\n  b: {eventName: B}\n  condition: a or b\n"),
            vec![],
        ),
        (
            detection("  a: {eventName: A}\n  b: {eventName: B}\n  condition: a and not b\n"),
            vec![],
        ),
        (
            detection(
                "  a: {eventName: A}\n  b: [{eventName: B}, {eventName: C}]\n  condition: a and b\n",
            ),
            vec!["never-matches"],
        ),
        (
            detection("  a: {eventName: A}\n  b: [{eventName: B}, {x: C}]\n  condition: a and b\n"),
            vec![],
        ),
        (
            detection("  a: {eventName: A}\n  condition: a and not a\n"),
            vec!["never-matches"],
        ),
        (
            detection("  a: {eventName: A}\n  b: {x: 1}\n  condition: a or b or not a\n"),
            vec!["always-true"],
        ),
        (
            detection("  a: {eventName: A}\n  condition: not a\n"),
            vec!["negation-only"],
        ),
        (
            rule("status: test", "lint-ignore: [level-mising]\nstatus: test"),
            vec!["lint-ignore"],
        ),
        (rule("level: high", "lint-ignore: [level-missing]"), vec![]),
        (rule("level: high", "lint-ignore: level-missing"), vec![]),
        (
            format!(
                "{}---\n{}",
                rule("level: high\n", ""),
                other.replace(
                    "level: high",
                    "lint-ignore: [level-missing, duplicate-logic]"
                )
            ),
            vec!["level-missing"],
        ),
        (format!("{GOOD}---\n{other}"), vec!["duplicate-logic"]),
        (
            format!("{GOOD}---\n{}", other.replace("selection", "sel")),
            vec!["duplicate-logic"],
        ),
        (
            format!("{GOOD}---\n{}", other.replace("cloudtrail", "lambda")),
            vec![],
        ),
        (
            correlation("group-by: [userName],", "[stopped]", ""),
            vec![],
        ),
        (correlation("", "[stopped]", ""), vec!["group-by-missing"]),
        (
            correlation("group-by: [userName],", "[A trail was stopped]", ""),
            vec!["reference-by-title"],
        ),
        (
            correlation(
                "group-by: [userName],",
                "[stopped, timed_out]",
                &format!(
                    "---\nname: timed_out\n{}",
                    other.replace("cloudtrail", "lambda")
                ),
            ),
            vec!["correlation-logsource"],
        ),
        (
            correlation(
                "group-by: [userName],",
                "[stopped]",
                &format!("---\nname: stopped\n{other}"),
            ),
            vec!["name-twice"],
        ),
        (
            exception(&EXCEPTION.replace("condition: not selection", "condition: selection")),
            vec!["filter-direction"],
        ),
        (
            exception(&EXCEPTION.replace("product: aws", "product: azure")),
            vec!["filter-idle"],
        ),
        (
            exception(&EXCEPTION.replace("owner: soc\n", "")),
            vec!["exception-owner"],
        ),
        (
            exception(&EXCEPTION.replace("expires: 2026-12-31\n", "")),
            vec!["exception-expiry"],
        ),
        (
            exception(&EXCEPTION.replace("owner: soc\nexpires: 2026-12-31\n", "")),
            vec![],
        ),
        (
            exception(&EXCEPTION.replace("2026-12-31", "2026-06-10")),
            vec!["exception-expires"],
        ),
        (
            exception(&EXCEPTION.replace("2026-12-31", "2026-06-01")),
            vec!["exception-expires"],
        ),
        (
            exception(&EXCEPTION.replace("2026-12-31", "2026-05-31")),
            vec!["exception-expired"],
        ),
    ]
}

#[test]
fn each_code_where_it_belongs() {
    let mut seen = BTreeSet::new();
    for (text, expected) in cases() {
        assert_eq!(codes(&text, TODAY), expected, "{text}");
        seen.extend(expected);
    }
    let known: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(seen, known, "every code has a case");
    assert!(CODES.is_sorted_by_key(|(code, _)| *code));
}

#[test]
fn the_words_about_an_exceptions_end() {
    let words = |today: &str| {
        let text = format!(
            "{GOOD}---\n{}",
            EXCEPTION.replace("2026-12-31", "2026-06-03")
        );
        let files = [RuleFile {
            path: "r.yml".into(),
            text,
        }];
        let (set, _) = RuleSet::check(&files, &Placeholders::new());
        let found = lint(&files, &set, Time::parse(today).unwrap());
        found.first().map(|p| p.message.clone()).unwrap_or_default()
    };
    for (today, expected) in [
        ("2026-05-20T00:00:00Z", ""),
        (
            "2026-05-25T00:00:00Z",
            "the last day of this exception is 2026-06-03, in 9 days",
        ),
        (
            "2026-06-02T23:00:00Z",
            "the last day of this exception is tomorrow, 2026-06-03",
        ),
        (
            "2026-06-03T00:00:00Z",
            "today, 2026-06-03, is the last day of this exception",
        ),
        (
            "2026-06-03T23:59:59Z",
            "today, 2026-06-03, is the last day of this exception",
        ),
        (
            "2026-06-04T00:00:00Z",
            "the last day of this exception was 2026-06-03: it cuts no more",
        ),
    ] {
        assert_eq!(words(today), expected, "{today}");
    }
}

/// Public rules that are good in the eyes of their authors get little advice beside what only we ask for.
#[test]
fn public_rules_get_little_advice() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/sigma");
    if !corpus.is_dir() {
        eprintln!("skipped: no corpus at {}", corpus.display());
        return;
    }
    for folder in ["cloud/rules", "parse", "suzaku-aws"] {
        let files = read(&corpus.join(folder)).unwrap();
        let (set, _) = RuleSet::check(&files, &Placeholders::new());
        let mut by_code: BTreeMap<&str, usize> = BTreeMap::new();
        for problem in lint(&files, &set, Time::parse(TODAY).unwrap()) {
            assert_eq!(problem.weight, Weight::Warning);
            *by_code.entry(problem.code.unwrap()).or_default() += 1;
        }
        assert_eq!(
            by_code.remove("tests-missing"),
            Some(set.rules.len()),
            "{folder}"
        );
        let rest: usize = by_code.values().sum();
        assert!(rest * 20 < set.rules.len(), "{folder}: {by_code:?}");
    }
}
