//! What can be asked of an index: the same of one on the disk and of a running service.

use serde_json::{Value, json};

use crate::program::{Service, request, run, text};

/// Thirty calls of three people, one of them refused again and again.
fn records() -> String {
    (0..30)
        .map(|i| {
            let who = ["ann", "bob", "eve"][i % 3];
            let mut record = json!({
                "eventVersion": "1.08", "eventSource": "s3.amazonaws.com", "eventName": if i % 2 == 0 { "GetObject" } else { "PutObject" },
                "eventTime": format!("2026-03-02T{:02}:00:00Z", i % 5), "eventID": format!("e{i}"), "recipientAccountId": "111122223333",
                "sourceIPAddress": format!("203.0.113.{}", i % 3),
                "userIdentity": {"type": "IAMUser", "userName": who, "arn": format!("arn:aws:iam::111122223333:user/{who}"), "accessKeyId": format!("AKIA{who}")},
                "requestParameters": {"size": i, "bucketName": "acme"},
            });
            if who == "eve" {
                record["errorCode"] = "AccessDenied".into();
            }
            format!("{record}\n")
        })
        .collect()
}

/// Runs a search that must succeed.
fn search(args: &[&str]) -> String {
    let output = run(&[&["search"], args].concat());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn lines(args: &[&str]) -> Vec<Value> {
    let found = search(args);
    found
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// The timeline of an index and of a service alike.
fn check_timeline(at: &[&str]) {
    let asked = |args: &[&str]| {
        let output = run(&[&["timeline"], args, at].concat());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    };
    let json = |args: &[&str]| -> Value { serde_json::from_str(&asked(args)).unwrap() };
    let (key, around) = (
        ["access_key", "AKIAeve"],
        ["--around", "2026-03-02T03:00:00Z"],
    );
    let found = json(&[key, around].concat());
    assert_eq!(found["matched"], 10);
    assert_eq!(found["profile"][1]["values"][0]["value"], "203.0.113.0/24");
    assert_eq!(
        (&found["middle"], &found["around"]),
        (&json!("asked"), &json!("2026-03-02T03:00:00Z"))
    );
    let told = asked(&[&key[..], &around, &["--format", "text"]].concat());
    for words in [
        "10 events from 2026-03-01T03:00:00Z",
        "10 failed or denied",
        "PutObject",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // Nothing is around now: it looks where something was, and says so.
    let found = json(&[&key[..], &["--hours", "1", "--limit", "1"]].concat());
    assert_eq!(
        (&found["middle"], &found["around"], &found["last_seen"]),
        (
            &json!("last_seen"),
            &json!("2026-03-02T04:00:00Z"),
            &json!("2026-03-02T04:00:00Z")
        )
    );
    assert_eq!(found["events"].as_array().unwrap().len(), 1);
    let told = asked(&[&key[..], &["--format", "text", "--limit", "1"]].concat());
    for words in [
        "around the last event, 2026-03-02T04:00:00Z, since nothing is around now",
        "EVENTS (1 of 10, those nearest to 2026-03-02T04:00:00Z)",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // An empty answer says where there is something.
    let told = asked(&[&key[..], &["--around", "2020-01-01", "--format", "text"]].concat());
    for words in [
        "first seen 2026-03-02T00:00:00Z, last seen 2026-03-02T04:00:00Z",
        "hint: look around the last event with --around 2026-03-02T04:00:00Z",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = asked(&["identity", "nobody", "--format", "text"]);
    assert!(told.contains("first seen never, last seen never"), "{told}");
}

/// What must hold of an index and of a service alike; `at` says which is asked.
fn check(at: &[&str], folder: &std::path::Path) {
    let asked = |args: &[&str]| lines(&[args, at].concat());
    assert_eq!(
        asked(&["", "--agg", "error_code"]),
        [json!({"error_code": "AccessDenied", "count": 10})]
    );
    assert_eq!(
        asked(&[
            "eventName:IN [GetObject, x] outcome:denied",
            "--agg",
            "time:1d > access_key > distinct(eventID)"
        ]),
        [
            json!({"time": "2026-03-02T00:00:00Z", "access_key": "AKIAeve", "count": 5, "distinct(eventID)": 5})
        ]
    );
    assert_eq!(
        asked(&[
            "source:aws.cloudtrail",
            "--agg",
            "percentiles(requestParameters.size, 50)"
        ]),
        [json!({"numbers": 30, "min": 0.0, "p50": 14.5, "max": 29.0, "mean": 14.5})]
    );
    let table = search(
        &[
            &[
                "source:aws.cloudtrail",
                "--agg",
                "src_ip:2",
                "--format",
                "table",
            ],
            at,
        ]
        .concat(),
    );
    assert_eq!(
        table,
        "        10  203.0.113.0\n        10  203.0.113.1\n        10  with other values\n"
    );
    let fields = asked(&["eventName:*", "--fields"]);
    let size = fields
        .iter()
        .find(|f| f["field"] == "requestParameters.size")
        .unwrap();
    assert_eq!(
        (&size["count"], &size["distinct"]),
        (&json!(30), &json!(30))
    );
    let explained = asked(&["src_ip:203.0.113.0/24 GetObject", "--explain"]);
    assert_eq!(
        explained[0]["query"],
        r#"(src_ip:203.0.113.0/24 AND "GetObject")"#
    );
    assert_eq!(explained[0]["clauses"][0]["access"], "walk_values");
    assert_eq!(
        asked(&["eventName:*", "--limit", "7", "--oldest-first"]).len(),
        7
    );

    // Whole, as files.
    for (format, ending) in [("jsonl", "jsonl"), ("csv", "csv"), ("parquet", "parquet")] {
        let file = folder.join(format!("found.{ending}"));
        let path = file.to_str().unwrap();
        let said = search(
            &[
                &[
                    "source:aws.cloudtrail",
                    "--format",
                    format,
                    "--output",
                    path,
                ],
                at,
            ]
            .concat(),
        );
        assert_eq!(said, "");
        let bytes = std::fs::read(&file).unwrap();
        match format {
            "parquet" => assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")),
            _ => assert_eq!(
                text(&bytes).lines().count(),
                if format == "csv" { 31 } else { 30 }
            ),
        }
        assert!(!folder.join(format!("found.{ending}.part")).exists());
        std::fs::remove_file(file).unwrap();
    }

    // A field that nobody has is said.
    let output = run(&[&["search", "evntName:x"], at].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stderr).contains(
            "note: no event in this time range has the field `evntName`; did you mean `eventName`?"
        ),
        "{}",
        text(&output.stderr)
    );

    // A search becomes a rule, which finds the same.
    let query = "eventName:Get* AND requestParameters.size:>=10 AND NOT errorCode:*";
    let rule = folder.join("rule.yml");
    std::fs::write(&rule, search(&[query, "--as-rule"])).unwrap();
    let checked = run(&["rule", "check", rule.to_str().unwrap()]);
    assert_eq!(
        checked.status.code(),
        Some(0),
        "{}{}",
        text(&checked.stdout),
        text(&checked.stderr)
    );
    let ids = |args: &[&str]| -> Vec<String> {
        let found = asked(args).into_iter();
        found
            .map(|e| e["source_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let found = ids(&["--rule", rule.to_str().unwrap()]);
    assert_eq!(found, ids(&[query]));
    assert_eq!(found.len(), 7);
    let narrowed = ids(&[
        "requestParameters.size:<20",
        "--rule",
        rule.to_str().unwrap(),
    ]);
    assert_eq!(narrowed.len(), 4);
}

#[test]
fn everything_that_can_be_asked_of_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("e.jsonl");
    std::fs::write(&events, records()).unwrap();
    let index = folder.path().join("index").display().to_string();
    let output = run(&["hunt", events.to_str().unwrap(), "--index", &index]);
    assert!(output.status.code() <= Some(1), "{}", text(&output.stderr));
    check(&["--data", &index], folder.path());
    check_timeline(&["--data", &index]);

    for (args, words) in [
        (
            vec!["", "--agg", "a > b > c > d"],
            "nested deeper than 3 levels",
        ),
        (vec!["", "--agg", "time:x"], "`x` is no length of time"),
        (
            vec!["a:/b(/"],
            "   |     ^\n   = regular expression cannot be used: unclosed group",
        ),
        (
            vec!["", "--format", "table", "--output", "x"],
            "JSON lines, CSV or Parquet",
        ),
        (vec!["action:x", "--as-rule"], "add `source:aws.cloudtrail`"),
    ] {
        let output = run(&[&["search"], args.as_slice(), &["--data", &index]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
    let rule = folder.path().join("cased.yml");
    std::fs::write(&rule, "title: t\nlogsource: {product: aws}\ndetection:\n  sel:\n    eventName|cased: GetObject\n  condition: sel\n").unwrap();
    let output = run(&["search", "--rule", rule.to_str().unwrap(), "--data", &index]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(
        error.contains("cased.yml:5:5") && error.contains("hint: leave `cased` out"),
        "{error}"
    );
}

#[test]
fn everything_that_can_be_asked_of_a_service() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    std::fs::write(&config, "search: {publish_after_ms: 300}\n").unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    let (status, answer) = request(
        service.address,
        "POST",
        "/api/v1/events",
        &[("content-type", "application/x-ndjson")],
        records().as_bytes(),
    )
    .unwrap();
    assert_eq!(status, 200, "{}", text(&answer));
    service.settle(30);
    check(
        &["--url", &format!("http://{}", service.address)],
        folder.path(),
    );
    let url = format!("http://{}", service.address);
    check_timeline(&["--url", &url]);
    check_saved(&service, &url);
    assert_eq!(service.stop(), Some(0));
}

/// A saved search is opened by its name, and what the command line says comes first.
fn check_saved(service: &Service, url: &str) {
    let saved = json!({
        "query": "identity:eve OR access_key:AKIAeve", "from": "2026-03-02T01:00:00Z", "to": "2026-03-02T03:00:00Z",
        "order": "oldest",
    });
    let (status, answer) = request(
        service.address,
        "PUT",
        "/api/v1/searches/Eve%20%2F%20100%25",
        &[("content-type", "application/json")],
        saved.to_string().as_bytes(),
    )
    .unwrap();
    assert_eq!(status, 201, "{}", text(&answer));
    let hours = |args: &[&str]| -> Vec<String> {
        let saved = ["--saved", "eve / 100%", "--url", url];
        let found = lines(&[args, &saved].concat());
        let hour = |event: &Value| event["time"].as_str().unwrap()[11..13].to_owned();
        found.iter().map(hour).collect()
    };
    assert_eq!(hours(&[]), ["01", "01", "02", "02", "03", "03"]);
    assert_eq!(
        hours(&["--from", "2026-03-02T03:00:00Z", "--limit", "3"]),
        ["03", "03", "04"]
    );
    assert!(hours(&["identity:nobody"]).is_empty());
    for (args, code, words) in [
        (
            vec!["--saved", "other", "--url", url],
            3,
            "no such saved search",
        ),
        (vec!["--saved", "eve", "--data", "x"], 2, "--url"),
    ] {
        let output = run(&[&["search"], args.as_slice()].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
    // A rule of it, as the page shows it.
    let told = service
        .get("/api/v1/search/rule?q=source%3Aaws.cloudtrail%20AND%20eventName%3AStopLogging");
    assert!(
        told["rule"].as_str().unwrap().contains("eventName"),
        "{told}"
    );
}
