//! `rule test`: what a rule's tests may say, what is said about those that fail, and what programs get.

use serde_json::Value;

use crate::program::{run, text};

const RULES: &str = r#"
title: Failed sign-in
name: failed
id: 6f3e2987-db24-4c78-a860-b4f4095a7095
logsource: {product: aws, service: cloudtrail}
detection:
  selection: {eventName: ConsoleLogin, errorMessage: Failed authentication}
  known: {sourceIPAddress|cidr: 203.0.113.0/24}
  condition: selection and not known
tests:
  - name: one
    events: [&login {eventVersion: '1.08', eventSource: signin.amazonaws.com, eventName: ConsoleLogin, errorMessage: Failed authentication, sourceIPAddress: 198.51.100.7, eventTime: '2026-03-02T09:00:00Z', eventID: a, recipientAccountId: '111122223333'}]
    expect: match
  - name: from the office
    events: [{<<: *login, sourceIPAddress: 203.0.113.9}]
    expect: no_match
---
title: Many failed sign-ins
id: df0841c0-9846-4e9f-ad8a-7df91571771b
correlation: {type: event_count, rules: [failed], group-by: [sourceIPAddress], timespan: 2m, condition: {gte: 3}}
tests:
  - name: three in ninety seconds
    start: 2026-03-02T09:00:00Z
    events:
      - &failed {at: +0s, eventVersion: '1.08', eventSource: signin.amazonaws.com, eventName: ConsoleLogin, errorMessage: Failed authentication, sourceIPAddress: 198.51.100.7, recipientAccountId: '111122223333'}
      - {<<: *failed, at: +45s}
      - {<<: *failed, at: +1m30s}
    expect: match
  - name: three in three minutes
    events:
      - {<<: *failed, at: +0s}
      - {<<: *failed, at: +90s}
      - {<<: *failed, at: +3m}
    expect: no_match
  - name: two episodes
    events:
      - {<<: *failed, at: +1h2s}
      - {<<: *failed, at: +0s}
      - {<<: *failed, at: +1s}
      - {<<: *failed, at: +2s}
      - {<<: *failed, at: +1h}
      - {<<: *failed, at: +1h1s}
    expect: {count: 2}
"#;

const EXCEPTION: &str = "
title: The scanner of the auditors
logsource: {product: aws}
filter:
  rules: [failed]
  scanner: {sourceIPAddress: 198.51.100.7}
  condition: not scanner
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("rules.yml", RULES);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn test(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let path = self.0.path().display().to_string();
        let output = run(&[&["rule", "test", &path], args].concat());
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let (_, out, _) = self.test(args);
        out.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

#[test]
fn sequences_and_correlations() {
    let folder = Folder::new();
    let (code, _, words) = folder.test(&[]);
    assert_eq!(code, Some(0), "{words}");
    assert!(
        words.contains("5 passed, 0 failed; 0 rules have no test"),
        "{words}"
    );
    let lines = folder.lines(&[]);
    let found: Vec<u64> = lines
        .iter()
        .map(|l| l["findings"].as_u64().unwrap())
        .collect();
    assert_eq!(found, [1, 0, 1, 0, 2]);
    assert_eq!(lines[4]["expected"], serde_json::json!({"count": 2}));
    assert!(lines.iter().all(|l| l.get("explained").is_none()));
}

#[test]
fn exceptions_apply_to_tests_and_are_named() {
    let folder = Folder::new();
    folder.write("exceptions.yml", EXCEPTION);
    let (code, words, _) = folder.test(&["--explain", "--format", "text"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("failed: Failed sign-in / one"), "{words}");
    assert!(
        words.contains("taken away by the filter “The scanner of the auditors”; selection held, known did not hold"),
        "{words}"
    );
    assert!(
        words.contains(
            "not   known: sourceIPAddress|cidr: \"203.0.113.0/24\"  (event: 198.51.100.7)"
        ),
        "{words}"
    );
    assert!(words.contains("2 passed, 3 failed"), "{words}");
}

#[test]
fn passes_are_explained_when_asked() {
    let folder = Folder::new();
    let (code, words, _) = folder.test(&["--explain=all", "--format", "text"]);
    assert_eq!(code, Some(0));
    for expected in [
        "passed: Failed sign-in / one",
        "event a at 2026-03-02T09:00:00Z of aws.cloudtrail",
        "Failed sign-in: match; selection held, known did not hold",
        "held  selection: errorMessage: \"Failed authentication\"  (event: Failed authentication)",
        "Failed sign-in: no match; selection held, known held",
        "counted for sourceIPAddress=198.51.100.7",
        "episode of 3 events for sourceIPAddress=198.51.100.7, 2026-03-02T09:00:00Z to 2026-03-02T09:01:30Z",
    ] {
        assert!(words.contains(expected), "{expected}\n{words}");
    }
    let lines = folder.lines(&["--explain=all"]);
    let rule = &lines[1]["explained"][0]["rules"][0];
    assert_eq!(
        (&rule["held"], &rule["covered"]),
        (&Value::Bool(false), &Value::Bool(true))
    );
    assert_eq!(
        rule["selections"][1],
        serde_json::json!({"name": "known", "held": true})
    );
    assert_eq!(lines[2]["explained"][3]["episode"]["count"], 3);
}

#[test]
fn mistakes_in_tests_have_places() {
    let folder = Folder::new();
    let rule = |tests: &str| {
        format!(
            "title: t\nlogsource: {{product: aws}}\ndetection: {{sel: {{a: 1}}, condition: sel}}\ntests:\n{tests}\n"
        )
    };
    for (tests, words) in [
        (
            "  - {name: a, events: [{at: +5 minutes}], expect: match}",
            "rules.yml:5:29",
        ),
        (
            "  - {name: a, events: [{at: +5 minutes}], expect: match}",
            "such as `+90s`, `+5m` or `+1h30m`",
        ),
        (
            "  - {name: a, start: soon, events: [], expect: match}",
            "`start` is no time",
        ),
        (
            "  - {name: a, events: [{b: 1}], expect: perhaps}",
            "`expect` is `match`, `no_match` or `{count: N}`",
        ),
        (
            "  - {name: a, events: 7, expect: match}",
            "a test needs a list `events`",
        ),
    ] {
        folder.write("rules.yml", &rule(tests));
        let (code, _, error) = folder.test(&[]);
        assert_eq!(code, Some(2), "{tests}");
        assert!(error.contains(words), "{words}\n{error}");
    }
    folder.write(
        "rules.yml",
        &rule("  - {name: a, events: [{b: 1}, seven], expect: match}"),
    );
    let (code, words, _) = folder.test(&["--explain", "--format", "text"]);
    assert_eq!(code, Some(1));
    assert!(
        words.contains("rules.yml:5:5") && words.contains("the event on line 5 cannot be read"),
        "{words}"
    );
}
