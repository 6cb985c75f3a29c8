//! `hunt` on real events, against what an independent evaluator found.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::{command, corpus, run, text};

fn findings(args: &[&str]) -> Vec<Value> {
    let output = run(args);
    assert!(
        output.status.code().is_some_and(|c| c <= 1),
        "{}",
        text(&output.stderr)
    );
    text(&output.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn check_oracle(rules: &str, oracle: &str) {
    let Some(corpus) = corpus() else { return };
    let path = |p: &str| corpus.join(p).display().to_string();
    let found = findings(&[
        "hunt",
        &path("events"),
        "--rules",
        &path(rules),
        "--format",
        "jsonl",
    ]);
    let mut by_rule: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for finding in &found {
        let ids = finding["event_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i.as_str().unwrap().to_owned());
        by_rule
            .entry(finding["rule_id"].as_str().unwrap().to_owned())
            .or_default()
            .extend(ids);
    }
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(corpus.join("oracle").join(oracle))
        .unwrap()
        .lines()
    {
        let line: Value = serde_json::from_str(line).unwrap();
        if line.get("summary").is_none() {
            let ids = line["event_ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| i.as_str().unwrap().to_owned());
            expected.insert(line["rule_id"].as_str().unwrap().to_owned(), ids.collect());
        }
    }
    assert_eq!(by_rule, expected);
    let matches: usize = expected.values().map(BTreeSet::len).sum();
    assert_eq!(found.len(), matches, "every match is written once");
}

#[test]
fn sigma_aws_rules_find_what_the_oracle_found() {
    check_oracle("sigma/cloud/rules/cloud/aws", "sigma_aws_matches.jsonl");
}

#[test]
fn suzaku_aws_rules_find_what_the_oracle_found() {
    check_oracle("sigma/suzaku-aws", "suzaku_aws_matches.jsonl");
}

#[test]
fn windows_regression_cases() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (rule, events) = (
        folder.path().join("rule.yml"),
        folder.path().join("events.json"),
    );
    let mut cases = 0;
    for line in std::fs::read_to_string(corpus.join("sigma/regression_windows.jsonl"))
        .unwrap()
        .lines()
    {
        let case: Value = serde_json::from_str(line).unwrap();
        std::fs::write(&rule, case["rule_yaml"].as_str().unwrap()).unwrap();
        std::fs::write(&events, case["events"].to_string()).unwrap();
        let found = findings(&[
            "hunt",
            events.to_str().unwrap(),
            "--rules",
            rule.to_str().unwrap(),
            "--format",
            "jsonl",
        ]);
        assert_eq!(
            found.len() as u64,
            case["oracle_count"].as_u64().unwrap(),
            "{}",
            case["rule_path"]
        );
        cases += 1;
    }
    assert_eq!(cases, 117);
}

#[test]
fn correlations_give_the_episodes_of_their_definition() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "title: base\nname: base\nlogsource: {product: aws, service: cloudtrail}\ndetection:\n  sel: {eventName: ConsoleLogin}\n  condition: sel\nlevel: low\n---\ntitle: burst\nid: 5d3a8f9e-3c1b-4a7a-9d0c-2f6a1b7c8d9e\ncorrelation:\n  type: event_count\n  rules: [base]\n  group-by: [sourceIPAddress]\n  timespan: 5m\n  condition: {gte: 3}\nlevel: high\n";
    std::fs::write(folder.path().join("rule.yml"), rule).unwrap();
    let event = |n: u32, ip: &str, minute: u32| {
        format!(
            "{{\"eventVersion\":\"1.08\",\"eventSource\":\"signin.amazonaws.com\",\"eventName\":\"ConsoleLogin\",\"eventTime\":\"2026-03-02T10:{minute:02}:00Z\",\"eventID\":\"e{n}\",\"recipientAccountId\":\"123456789012\",\"sourceIPAddress\":\"{ip}\"}}\n"
        )
    };
    // Out of order, one of them twice, and a second episode after a quiet half hour.
    let lines = [
        event(3, "a", 4),
        event(1, "a", 0),
        event(2, "a", 2),
        event(2, "a", 2),
        event(4, "b", 1),
        event(5, "a", 40),
        event(6, "a", 41),
        event(7, "a", 42),
    ];
    std::fs::write(folder.path().join("events.jsonl"), lines.concat()).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let found = findings(&[
        "hunt",
        &path("events.jsonl"),
        "--rules",
        &path("rule.yml"),
        "--format",
        "jsonl",
    ]);
    let seen: Vec<(Value, Value, Value)> = found
        .iter()
        .map(|f| {
            (
                f["group"]["sourceIPAddress"].clone(),
                f["count"].clone(),
                f["event_ids"].clone(),
            )
        })
        .collect();
    let expected =
        |count: u64, ids: [&str; 3]| (Value::from("a"), Value::from(count), serde_json::json!(ids));
    assert_eq!(
        seen,
        [
            expected(3, ["e1", "e2", "e3"]),
            expected(3, ["e5", "e6", "e7"])
        ]
    );
    assert_eq!(found[0]["time"], "2026-03-02T10:04:00Z");
    assert_eq!(found[0]["first_event_time"], "2026-03-02T10:00:00Z");
}

/// What an episode is told by: title, group, first and last time, count and evidence.
type Episode = (String, BTreeMap<String, String>, [String; 4]);

fn episode(line: &Value) -> Episode {
    let group = line["group"].as_object().unwrap().iter();
    let group = group.map(|(k, v)| {
        // Of several values the definition shows a list in any order, we the text of one.
        let text = v.as_str().and_then(|text| serde_json::from_str(text).ok());
        let list: Option<Vec<String>> = serde_json::from_value(text.unwrap_or(v.clone())).ok();
        let several = list.map(|mut all| {
            all.sort();
            all.join(" and ")
        });
        (k.clone(), several.unwrap_or(v.to_string()))
    });
    let of = |key: &str| line[key].to_string();
    let keys = ["first_event_time", "last_event_time", "count", "event_ids"];
    (of("title"), group.collect(), keys.map(of))
}

/// The episodes of the program that defines them, where there is a Python with a YAML reader for it.
fn definition(corpus: &Path, rules: &Path, events: &Path) -> Option<BTreeSet<Episode>> {
    let output = Command::new("python3")
        .arg(corpus.join("../tools/episodes.py"))
        .arg("--rules")
        .arg(rules)
        .arg("--events")
        .arg(events)
        .output();
    let Some(output) = output.ok().filter(|o| o.status.success()) else {
        eprintln!("skipped: no python3 with pyyaml (./test installs both)");
        return None;
    };
    let lines = text(&output.stdout);
    let read = |line: &str| episode(&serde_json::from_str(line).unwrap());
    Some(lines.lines().map(read).collect())
}

/// Runs the definition as a program over the corpus, where there is a Python with a YAML reader for it.
#[test]
fn shipped_correlations_give_the_episodes_of_the_program_that_defines_them() {
    let Some(corpus) = corpus() else { return };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/aws/cloudtrail");
    let events = corpus.join("events");
    let Some(expected) = definition(&corpus, &rules, &events) else {
        return;
    };
    let found = findings(&[
        "hunt",
        events.to_str().unwrap(),
        "--rules",
        rules.to_str().unwrap(),
        "--format",
        "jsonl",
    ]);
    let found: BTreeSet<_> = found
        .iter()
        .filter(|f| !f["group"].as_object().unwrap().is_empty())
        .map(episode)
        .collect();
    assert!(expected.len() >= 10, "{} episodes", expected.len());
    assert_eq!(found, expected);
}

/// Correlations of every kind that the definition as a program knows, and a stream of events for them.
fn random(seed: u64) -> (String, String) {
    let mut dice = seed;
    let mut roll = |sides: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mut rules = String::new();
    for name in ["a", "b", "c"] {
        rules += &format!(
            "---\ntitle: {name}\nname: {name}\nlogsource: {{product: aws, service: cloudtrail}}\ndetection: {{sel: {{{name}: 1}}, condition: sel}}\n"
        );
    }
    let kinds = [
        "event_count",
        "value_count",
        "temporal",
        "temporal_ordered",
        "value_sum",
        "value_avg",
    ];
    for n in 0..30 {
        let kind = kinds[n % 6];
        let refers = ["[a]", "[a, b]", "[b, a]", "[a, b, c]", "[c, b, a]"][roll(5) as usize];
        let of = refers.matches(',').count() as u64 + 1;
        let op = ["gt", "gte", "lt", "lte", "eq", "neq"][roll(6) as usize];
        let condition = match kind {
            "event_count" => format!("{{{op}: {}}}", 2 + roll(4)),
            "value_count" => format!("{{{op}: {}, field: userAgent}}", 1 + roll(3)),
            "temporal" if roll(2) == 0 => format!("{{gte: {}}}", 1 + roll(of)),
            "temporal" | "temporal_ordered" => String::new(),
            "value_sum" => format!("{{{op}: {}, field: additionalEventData.bytes}}", roll(60)),
            _ => format!(
                "{{gte: {}, lt: {}, field: additionalEventData.bytes}}",
                roll(10),
                10 + roll(10)
            ),
        };
        let condition = match condition.as_str() {
            "" => condition,
            _ => format!("  condition: {condition}\n"),
        };
        let group = [
            "[sourceIPAddress]",
            "[sourceIPAddress, userIdentity.userName]",
            "[who]",
        ][roll(3) as usize];
        let aliases = match group {
            "[who]" => "  aliases: {who: {a: sourceIPAddress, b: userIdentity.userName}}\n",
            _ => "",
        };
        let aliases = match refers.contains('b') && refers.contains('a') {
            true => aliases,
            false => "",
        };
        rules += &format!(
            "---\ntitle: correlation {n}\ncorrelation:\n  type: {kind}\n  rules: {refers}\n  group-by: {group}\n  timespan: {}s\n{condition}{aliases}",
            5 + roll(120)
        );
    }
    let mut events = String::new();
    for n in 0..500 {
        let second = roll(3_000);
        let mut event = serde_json::json!({
            "eventVersion": "1.08",
            "eventSource": "s3.amazonaws.com",
            "eventName": "GetObject",
            "eventTime": format!("2026-03-02T{:02}:{:02}:{:02}Z", 10 + second / 3_600, second / 60 % 60, second % 60),
            "eventID": format!("{:04}-{n}", roll(10_000)),
            "recipientAccountId": "123456789012",
        });
        event[["a", "b", "c"][roll(3) as usize]] = 1.into();
        event[["a", "b", "c"][roll(3) as usize]] = 1.into();
        if roll(6) > 0 {
            event["sourceIPAddress"] = format!("10.0.0.{}", roll(3)).into();
        }
        if roll(6) > 0 {
            event["userIdentity"] = serde_json::json!({"userName": format!("10.0.0.{}", roll(3))});
        }
        if roll(6) > 0 {
            event["userAgent"] = format!("agent {}", roll(4)).into();
        }
        if roll(6) > 0 {
            event["additionalEventData"] = serde_json::json!({"bytes": roll(40) as f64 / 2.0});
        }
        events += &format!("{event}\n");
    }
    (rules, events)
}

/// The same over random streams, for every kind that the program knows.
#[test]
fn random_correlations_give_the_episodes_of_the_program_that_defines_them() {
    let Some(corpus) = corpus() else { return };
    let mut compared = 0;
    for seed in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let (rules, events) = random(seed);
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("rules")).unwrap();
        std::fs::write(path("rules/all.yml"), &rules).unwrap();
        std::fs::write(path("events.jsonl"), &events).unwrap();
        let rules = path("rules");
        let Some(expected) = definition(&corpus, &rules, &path("events.jsonl")) else {
            return;
        };
        let found = findings(&[
            "hunt",
            path("events.jsonl").to_str().unwrap(),
            "--rules",
            rules.to_str().unwrap(),
            "--format",
            "jsonl",
        ]);
        let found: BTreeSet<_> = found.iter().map(episode).collect();
        let (more, less) = (found.difference(&expected), expected.difference(&found));
        let (more, less): (Vec<_>, Vec<_>) = (more.collect(), less.collect());
        assert!(
            more.is_empty() && less.is_empty(),
            "seed {seed}: {more:#?} instead of {less:#?}"
        );
        compared += found.len();
    }
    assert!(compared > 500, "{compared} episodes");
}

fn cloudtrail(id: &str, name: &str, content: &str) -> String {
    format!(
        "{{\"eventVersion\":\"1.08\",\"eventSource\":\"cloudtrail.amazonaws.com\",\"eventName\":\"{name}\",\"eventTime\":\"2026-03-02T10:00:00Z\",\"eventID\":\"{id}\",\"recipientAccountId\":\"123456789012\",\"requestParameters\":{{\"name\":\"{content}\"}}}}\n"
    )
}

#[test]
fn repeats_count_once_and_conflicts_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        cloudtrail("x", "StopLogging", "one"),
        cloudtrail("x", "StopLogging", "one"),
        cloudtrail("x", "StopLogging", "two"),
    ];
    std::fs::write(folder.path().join("events.jsonl"), lines.concat()).unwrap();
    // The same once more as another way writes it: in another order, with spaces and escapes.
    let again: BTreeMap<String, serde_json::Value> = serde_json::from_str(&lines[0]).unwrap();
    let again = serde_json::to_string_pretty(&again).unwrap();
    let again = again.replace("StopLogging", "\\u0053topLogging");
    assert_ne!(again.trim(), lines[0].trim());
    std::fs::write(folder.path().join("again.json"), again).unwrap();
    let rule = folder.path().join("r.yml");
    std::fs::write(&rule, "title: stop\nlogsource: {product: aws, service: cloudtrail}\ndetection: {sel: {eventName: StopLogging}, condition: sel}\nlevel: high\n").unwrap();
    let logs = folder.path().display().to_string();
    let found = findings(&[
        "hunt",
        &format!("{logs}/events.jsonl"),
        &format!("{logs}/again.json"),
        "--rules",
        rule.to_str().unwrap(),
        "--format",
        "jsonl",
    ]);
    let rules: Vec<&str> = found
        .iter()
        .map(|f| f["rule_id"].as_str().unwrap())
        .collect();
    assert_eq!(rules, ["stop", "stop", "trailwarden.id_conflict"]);
    assert_eq!(found[0]["event_ids"], serde_json::json!(["x"]));
    assert_ne!(found[1]["event_ids"], found[0]["event_ids"]);
    assert_ne!(found[1]["id"], found[0]["id"]);
}

#[test]
fn what_filters_take_away_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lines = [
        cloudtrail("x", "StopLogging", "one"),
        cloudtrail("x", "StopLogging", "one"),
        cloudtrail("y", "StopLogging", "two"),
    ];
    std::fs::write(path("events.jsonl"), lines.concat()).unwrap();
    let rules = "title: stop\nname: stop\nlogsource: {product: aws, service: cloudtrail}\ndetection: {sel: {eventName: StopLogging}, condition: sel}\nlevel: high\n---\ntitle: agreed\nlogsource: {product: aws}\nfilter:\n  rules: [stop]\n  selection: {requestParameters.name: one}\n  condition: not selection\nowner: soc\nexpires: 2026-03-02\n";
    std::fs::write(path("r.yml"), rules).unwrap();
    let hunt = |rules: &str| {
        run(&[
            "hunt",
            &path("events.jsonl"),
            "--rules",
            &path(rules),
            "--format",
            "jsonl",
        ])
    };
    let output = hunt("r.yml");
    let finding: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(finding["event_ids"], serde_json::json!(["y"]));
    let words = text(&output.stderr);
    assert!(
        words.contains("taken away by filters (1)\n       1  agreed"),
        "{words}"
    );
    // The day before was its last one: it cuts nothing.
    std::fs::write(path("late.yml"), rules.replace("03-02", "03-01")).unwrap();
    let output = hunt("late.yml");
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert!(!text(&output.stderr).contains("taken away"));
}

#[test]
fn what_was_hunted_can_be_searched() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("e.jsonl");
    let lines = [
        cloudtrail("x", "StopLogging", "one"),
        cloudtrail("x", "StopLogging", "one"),
        cloudtrail("x", "StopLogging", "two"),
        cloudtrail("y", "GetObject", "three"),
    ];
    std::fs::write(&events, lines.concat()).unwrap();
    let index = folder.path().join("index").display().to_string();
    let output = run(&[
        "hunt",
        events.to_str().unwrap(),
        "--index",
        &index,
        "--format",
        "jsonl",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let search = |query: &str| {
        text(&run(&["search", query, "--data", &index]).stdout)
            .lines()
            .count()
    };
    assert_eq!(
        (
            search(""),
            search("source_id:x"),
            search("requestParameters.name:three"),
            search("flags:id_conflict")
        ),
        (3, 2, 1, 1)
    );
    // A second run does not mix with the first.
    assert_eq!(
        run(&["hunt", events.to_str().unwrap(), "--index", &index])
            .status
            .code(),
        Some(2)
    );
}

/// Of events that are not kept only those that match are read whole: that changes nothing of what is told.
#[test]
fn the_output_is_the_same_whether_events_are_kept_or_not() {
    let Some(corpus) = corpus() else { return };
    let path = |p: &str| corpus.join(p).display().to_string();
    let (events, dir) = (path("events"), tempfile::tempdir().unwrap());
    let index = dir.path().join("index").display().to_string();
    for rules in ["sigma/suzaku-aws", "sigma/cloud/rules"].map(path) {
        let hunt = ["hunt", &events, "--rules", &rules, "--format", "jsonl"];
        let told = findings(&hunt);
        assert!(told.len() > 10, "{rules}");
        let kept = findings(&[&hunt[..], &["--index", &index]].concat());
        assert_eq!(told, kept, "{rules}");
        std::fs::remove_dir_all(&index).unwrap();
    }
}

#[test]
fn the_output_is_the_same_whatever_the_number_of_threads() {
    let Some(corpus) = corpus() else { return };
    let events = corpus.join("events").display().to_string();
    let with =
        |threads: &str| run(&["hunt", &events, "--format", "jsonl", "--threads", threads]).stdout;
    let one = with("1");
    assert!(!one.is_empty());
    for threads in ["2", "7"] {
        assert!(with(threads) == one, "{threads} threads");
    }
}

#[test]
fn formats_time_limits_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("e.jsonl");
    std::fs::write(&events, cloudtrail("x", "StopLogging", "one")).unwrap();
    let events = events.to_str().unwrap();
    let table = run(&["hunt", events, "--format", "table"]);
    assert_eq!(table.status.code(), Some(1));
    assert!(
        text(&table.stdout).starts_with("TIME (UTC)"),
        "{}",
        text(&table.stdout)
    );
    let json: Value =
        serde_json::from_slice(&run(&["hunt", events, "--format", "json"]).stdout).unwrap();
    assert!(!json.as_array().unwrap().is_empty());
    let early = run(&[
        "hunt",
        events,
        "--to",
        "2026-03-02T09:00:00Z",
        "--format",
        "jsonl",
    ]);
    assert_eq!((early.status.code(), early.stdout.len()), (Some(0), 0));
    for (args, code) in [
        (vec!["hunt", "/nonexistent"], 2),
        (vec!["hunt", events, "--rules", "/nonexistent"], 2),
        (vec!["hunt", events, "--from", "yesterday"], 2),
        (
            vec!["hunt", events, "--from", "2026-01-02", "--to", "2026-01-01"],
            2,
        ),
        (vec!["hunt"], 2),
    ] {
        let output = run(&args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            text(&output.stderr)
        );
        assert!(
            !text(&output.stderr).contains("panicked"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let Some(corpus) = corpus() else { return };
    let mut child = command()
        .args([
            "hunt",
            &corpus.join("events").display().to_string(),
            "--format",
            "jsonl",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        !text(&output.stderr).contains("error"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn hostile_fields_are_inert_in_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(folder.path().join("e.jsonl")).unwrap();
    let record = r#"{"eventVersion":"1.08","eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","eventTime":"2026-03-02T10:00:00Z","eventID":"x","recipientAccountId":"123456789012","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::1:user/\u001b[31mred\u202e\r\nfake line","userName":"\u001b[31mred\u202e\r\nfake line"},"sourceIPAddress":"\u001b]0;title\u0007"}"#;
    writeln!(file, "{record}").unwrap();
    let output = run(&[
        "hunt",
        Path::new(folder.path()).to_str().unwrap(),
        "--format",
        "table",
    ]);
    let table = text(&output.stdout);
    assert!(
        table.contains("␛[31mred") && !table.contains(['\u{1b}', '\u{202e}', '\u{7}', '\r']),
        "{table}"
    );
    assert!(!table.contains("\nfake line"), "{table}");
}
