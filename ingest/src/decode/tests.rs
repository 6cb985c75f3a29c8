//! What the decoder makes of good, damaged and hostile content.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use sha2::Digest;

use super::*;

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn small() -> Limits {
    Limits {
        record_bytes: 400,
        payload_bytes: 2_000,
        object_bytes: 100_000,
        chunk_bytes: 64,
    }
}

fn show(item: &Item<'_>) -> String {
    match item {
        Item::Record(r) => {
            if let Some(doc) = r.doc {
                // The index must belong to the text.
                assert_eq!(doc.root(r.text).raw(), r.text.trim_ascii());
            }
            let text = String::from_utf8_lossy(r.text);
            match r.wrapper {
                Wrapper::None => text.into_owned(),
                Wrapper::LambdaText => format!("line {text}"),
                Wrapper::LogEvent(e) => {
                    format!("{}:{}:{}:{} {text}", e.owner, e.group, e.stream, e.id)
                }
            }
        }
        Item::Bad(b) => format!("!{} {}", b.reason.as_str(), b.size),
    }
}

fn items(content: &[u8], limits: Limits, job: &Job) -> (Vec<String>, Summary) {
    let mut found = Vec::new();
    let mut next = job.first_position;
    let summary = Decoder::new(limits).bytes(content, job, &mut |item| {
        let (Item::Record(Record { position, .. }) | Item::Bad(Bad { position, .. })) = item;
        assert_eq!(position, next, "positions have no gaps");
        next += 1;
        found.push(show(&item));
        ControlFlow::Continue(())
    });
    assert_eq!(summary.next_position, next);
    (found, summary)
}

/// The items of `content`, plain and compressed.
fn check(content: &[u8], expected: &[&str]) {
    let shown: String = String::from_utf8_lossy(content).chars().take(200).collect();
    let (plain, _) = items(content, small(), &Job::default());
    assert_eq!(plain, expected, "{shown}");
    let (compressed, summary) = items(&gz(content), small(), &Job::default());
    assert_eq!(compressed, expected, "compressed {shown}");
    assert!(summary.gzip);
}

#[test]
fn containers() {
    check(
        br#"{"Records":[{"a":1},{"b":[2]}]}"#,
        &[r#"{"a":1}"#, r#"{"b":[2]}"#],
    );
    check(
        b"\xef\xbb\xbf { \"Records\" : [ {\"a\":1} ] , \"more\": {\"x\":[]} }\n{\"c\":3}",
        &[r#"{"a":1}"#, r#"{"c":3}"#],
    );
    check(br#"{"v":1,"Records":[{"a":1}]}"#, &[r#"{"a":1}"#]);
    check(br#"{"Records":[]}"#, &[]);
    check(
        br#"{"Records":[{"a":1}],"Records":[{"b":2}],"x":1}"#,
        &[r#"{"a":1}"#, r#"{"b":2}"#],
    );
    check(br#"[{"a":1}, {"b":2}]"#, &[r#"{"a":1}"#, r#"{"b":2}"#]);
    check(
        b"{\"a\":1}\n{\"b\":2}\r\n\n{\"c\":3}",
        &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#],
    );
    check(
        br#"{"a":1}{"b":2},{"c":3}"#,
        &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#],
    );
    check(b"{\n \"a\": 1\n}\n", &["{\n \"a\": 1\n}"]);
    check(b"", &[]);
}

#[test]
fn records_after_much_else() {
    let filler = "x".repeat(3_000);
    let records = (0..100)
        .map(|i| format!("{{\"n\":{i}}}"))
        .collect::<Vec<_>>();
    let content = format!(
        "{{\"s\":\"y\",\"t\":[1],\"Records\":[{}],\"filler\":\"{}\"}}",
        records.join(","),
        &filler[..500]
    );
    let limits = Limits {
        payload_bytes: 300,
        ..small()
    };
    let (found, _) = items(content.as_bytes(), limits, &Job::default());
    assert_eq!(found.len(), 101, "{found:?}");
    assert_eq!(found[99], r#"{"n":99}"#);
    let (found, _) = items(content.as_bytes(), small(), &Job::default());
    assert_eq!(found, records);
}

#[test]
fn subscription_payloads() {
    let payload = br#"{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"/aws/lambda/f","logStream":"s","subscriptionFilters":[],"logEvents":[{"id":"7","timestamp":1700000000000,"message":"START\n"},{"id":"8","timestamp":2,"message":"{\"a\":1}"}]}"#;
    let expected = [
        "1:/aws/lambda/f:s:7 START\n",
        r#"1:/aws/lambda/f:s:8 {"a":1}"#,
    ];
    check(payload, &expected);
    use base64::Engine;
    let data = base64::engine::general_purpose::STANDARD.encode(gz(payload));
    check(
        format!(r#"{{"awslogs":{{"data":"{data}"}}}}"#).as_bytes(),
        &expected,
    );
    check(
        format!(r#"{{"Records":[{{"eventSource":"aws:kinesis","kinesis":{{"data":"{data}"}}}}]}}"#)
            .as_bytes(),
        &expected,
    );
    let twice = gz(&gz(payload));
    assert_eq!(items(&twice, small(), &Job::default()).0, expected);
    check(br#"{"awslogs":{"data":"%%"}}"#, &["!bad_base64 4"]);
    let cut = base64::engine::general_purpose::STANDARD.encode(&gz(payload)[..50]);
    check(
        format!(r#"{{"awslogs":{{"data":"{cut}"}}}}"#).as_bytes(),
        &["!corrupt_gzip 70"],
    );
    let control = br#"{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","logEvents":[{"id":"","timestamp":1,"message":"x"}]}"#;
    let (found, summary) = items(control, small(), &Job::default());
    assert_eq!((found.len(), summary.control_messages), (0, 1));
}

#[test]
fn log_events_without_a_payload_are_those_of_a_payload() {
    let messages = [
        "a line",
        r#"{"eventVersion":"1.08","eventID":"E"}"#,
        "",
        "{\"cut\":",
    ];
    let event = |(n, message): (usize, &&str)| serde_json::json!({"id": n.to_string(), "timestamp": 5, "message": message});
    let events: Vec<_> = messages.iter().enumerate().map(event).collect();
    let payload = serde_json::json!({"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logStream": "s", "logEvents": events});
    let (expected, summary) = items(payload.to_string().as_bytes(), small(), &Job::default());
    let ids: Vec<String> = (0..messages.len()).map(|n| n.to_string()).collect();
    let log = |id| LogEvent {
        owner: "1",
        group: "g",
        stream: "s",
        id,
        timestamp: Some(5),
    };
    let mut shown = Vec::new();
    let bare = messages
        .iter()
        .zip(&ids)
        .map(|(m, id)| (*m, log(id.as_str())));
    let found = Decoder::new(small()).log_events(bare, &mut |item| {
        shown.push(show(&item));
        ControlFlow::Continue(())
    });
    assert_eq!(shown, expected);
    assert_eq!((found.records, found.bad), (summary.records, summary.bad));

    // What is too large is no record, and the next one is.
    let large = "x".repeat(small().record_bytes + 1);
    let mut reasons = Vec::new();
    let two = [(large.as_str(), log("8")), ("short", log("9"))];
    Decoder::new(small()).log_events(two.into_iter(), &mut |item| {
        reasons.push(match item {
            Item::Bad(bad) => bad.reason.as_str(),
            Item::Record(_) => "record",
        });
        ControlFlow::Continue(())
    });
    assert_eq!(reasons, ["record_too_large", "record"]);
}

#[test]
fn envelopes_and_what_is_no_event() {
    check(
        br#"{"version":"0","detail-type":"AWS API Call via CloudTrail","detail":{"eventVersion":"1.08","eventName":"X"}}"#,
        &[r#"{"eventVersion":"1.08","eventName":"X"}"#],
    );
    let other = r#"{"version":"0","detail-type":"Object Created","detail":{"a":1}}"#;
    check(other.as_bytes(), &[other]);
    check(
        br#"{"Events":[{"EventId":"1","CloudTrailEvent":"{\"eventID\":\"1\"}"}]}"#,
        &[r#"{"eventID":"1"}"#],
    );
    check(br#"{"Records":null}"#, &["!unknown_object 16"]);
    check(
        br#"[{"a":1},7,"x"]"#,
        &[r#"{"a":1}"#, "!unknown_object 1", "!unknown_object 3"],
    );
    check(br#"{"event":{"a":1}}"#, &[r#"{"event":{"a":1}}"#]);
    let digest = br#"{"awsAccountId":"1","digestStartTime":"t","logFiles":[]}"#;
    assert_eq!(items(digest, small(), &Job::default()).1.digests, 1);
    let signature = br#"{"signature":"00","signature-algorithm":"SHA256withRSA"}"#;
    assert_eq!(items(signature, small(), &Job::default()).1.digests, 1);
    let test = br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}"#;
    assert_eq!(items(test, small(), &Job::default()).1.test_messages, 1);
}

#[test]
fn damaged_lines_do_not_stop_the_rest() {
    check(
        b"{\"a\":1}\n{\"b\":\n{\"c\":3}\nrubbish\n{\"d\":4}\n",
        &[
            r#"{"a":1}"#,
            "!bad_json 6",
            r#"{"c":3}"#,
            "!bad_json 7",
            r#"{"d":4}"#,
        ],
    );
    check(
        b"{\n  \"a\": 1,\n  oops\n}\n{\"b\":2}\n",
        &["!bad_json 21", r#"{"b":2}"#],
    );
    check(b"{\"a\":1}\n{\"b\":\"cut", &[r#"{"a":1}"#, "!bad_json 9"]);
    let deep = format!("{{\"a\":1}}\n{}\n{{\"b\":2}}\n", "{\"x\":".repeat(100));
    check(
        deep.as_bytes(),
        &[r#"{"a":1}"#, "!json_too_deep 501", r#"{"b":2}"#],
    );
}

#[test]
fn damaged_elements_do_not_stop_the_rest() {
    check(
        br#"{"Records":[{"a":1},{"b":tru,"x":"}]\"{"},{"c":3}]}"#,
        &[r#"{"a":1}"#, "!bad_json 21", r#"{"c":3}"#],
    );
    let deep = format!(
        "[{{\"a\":1}},{}{},{{\"b\":2}}]",
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    check(
        deep.as_bytes(),
        &[r#"{"a":1}"#, "!json_too_deep 10000", r#"{"b":2}"#],
    );
    check(
        br#"{"Records":[{"a":1},{"b":2"#,
        &[r#"{"a":1}"#, "!bad_json 6"],
    );
    check(br#"{"Records":[{"a":1}"#, &[r#"{"a":1}"#, "!bad_json 0"]);
    check(
        br#"[{"a":1} {"b":2},{"c":3}]"#,
        &[r#"{"a":1}"#, "!bad_json 7", r#"{"c":3}"#],
    );
}

#[test]
fn large_records() {
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(500));
    let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(50_000));
    for (record, size) in [(&large, 508), (&huge, 50_008)] {
        let bad = format!("!record_too_large {size}");
        check(
            format!("[{{\"a\":1}},{record},{{\"b\":2}}]").as_bytes(),
            &[r#"{"a":1}"#, &bad, r#"{"b":2}"#],
        );
    }
    check(
        format!("{large}\n{{\"b\":2}}\n").as_bytes(),
        &["!record_too_large 508", r#"{"b":2}"#],
    );
    check(
        format!("{huge}\n{{\"b\":2}}\n").as_bytes(),
        &["!record_too_large 50009", r#"{"b":2}"#],
    );
    check(
        format!("START RequestId: 1\n{huge}\nEND RequestId: 1\n").as_bytes(),
        &[
            "line START RequestId: 1",
            "!record_too_large 50008",
            "line END RequestId: 1",
        ],
    );
}

#[test]
fn lambda_text() {
    check(
        b"\nSTART RequestId: 1 Version: 2\r\n{\n  \"e\": XXXX\n}\n{\"a\":1}\n[INFO]\thello\nEND RequestId: 1\n",
        &[
            "line START RequestId: 1 Version: 2",
            "line {",
            "line   \"e\": XXXX",
            "line }",
            "line {\"a\":1}",
            "line [INFO]\thello",
            "line END RequestId: 1",
        ],
    );
    check(
        b"{\"level\":\"INFO\"}\n2026-01-01T00:00:00Z START RequestId: 1\n",
        &[
            "{\"level\":\"INFO\"}",
            "line 2026-01-01T00:00:00Z START RequestId: 1",
        ],
    );
}

#[test]
fn other_objects_are_reported_once() {
    let license = "Apache License\nVersion 2.0\n".repeat(1_000);
    check(license.as_bytes(), &["!unknown_object 27000"]);
    check(b"PK\x03\x04\x00\x01\x02", &["!unknown_object 7"]);
    check(b"[1,2,3]\n", &["!unknown_object 8"]);
}

#[test]
fn damaged_gzip() {
    let content = (0..2_000)
        .map(|i| format!("{{\"n\":{}}}\n", i * 7_919))
        .collect::<String>();
    let whole = gz(content.as_bytes());
    let cut = &whole[..whole.len() / 2];
    let (found, summary) = items(cut, small(), &Job::default());
    assert!(found.len() > 500, "{}", found.len());
    assert!(found.last().unwrap().starts_with("!corrupt_gzip"));
    assert_eq!(summary.bad, 1);

    let mut crc = whole.clone();
    let at = crc.len() - 6;
    crc[at] ^= 1;
    let (found, _) = items(&crc, small(), &Job::default());
    assert_eq!(found.len(), 2_001);
    assert_eq!(found[2_000], "!corrupt_gzip 0");

    let trailing = [whole.as_slice(), b"more"].concat();
    let (found, _) = items(&trailing, small(), &Job::default());
    assert_eq!((found.len(), &*found[2_000]), (2_001, "!corrupt_gzip 0"));

    check(&whole[..2], &["!corrupt_gzip 0"]);
}

#[test]
fn several_members() {
    let one = gz(b"{\"a\":1}\n");
    let content = [one.clone(), one.clone(), gz(b"{\"b\":2}\n"), one].concat();
    let (found, _) = items(&content, small(), &Job::default());
    assert_eq!(
        found,
        [r#"{"a":1}"#, r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":1}"#]
    );
}

#[test]
fn a_bomb_is_cut() {
    let lines = "{\"a\":1}\n".repeat(100_000);
    for content in [gz(lines.as_bytes()), gz(&gz(lines.as_bytes()))] {
        let (found, summary) = items(&content, small(), &Job::default());
        assert_eq!(found.len(), 12_501);
        assert_eq!(found[12_500], "!body_too_large 0");
        assert_eq!(summary.consumed, 100_000);
    }
}

#[test]
fn utf16() {
    let text = "\u{feff}{\"a\":\"é😀\"}\n{\"b\":2}\n";
    let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for content in [le, be] {
        check(&content, &["{\"a\":\"é😀\"}", r#"{"b":2}"#]);
    }
}

#[test]
fn growing_content_is_left_where_it_is_cut() {
    let job = Job {
        growing: true,
        first_position: 5,
        ..Job::default()
    };
    for (content, count, consumed) in [
        (&b"{\"a\":1}\n{\"b\":"[..], 1, 8),
        (b"{\"a\":1}\n", 1, 8),
        (b"START RequestId: 1\nEND Requ", 1, 19),
        (b"some te", 0, 0),
    ] {
        let (found, summary) = items(content, small(), &job);
        assert_eq!((found.len(), summary.consumed), (count, consumed));
    }
}

#[test]
fn digests_are_of_the_uncompressed_content() {
    let content = b"{\"Records\":[{\"a\":1}]}";
    let job = Job {
        sha256: true,
        ..Job::default()
    };
    let plain = items(content, small(), &job).1.sha256;
    assert_eq!(plain, hex(&sha2::Sha256::digest(content)));
    let members = [gz(&content[..5]), gz(&content[5..])].concat();
    for compressed in [gz(content), members] {
        assert_eq!(items(&compressed, small(), &job).1.sha256, plain);
    }
    let cut = &gz(content)[..20];
    assert_eq!(items(cut, small(), &job).1.sha256, "");
}

#[test]
fn the_caller_may_stop() {
    let mut seen = 0;
    let summary = Decoder::new(small()).bytes(b"[{},{},{}]", &Job::default(), &mut |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert_eq!((seen, summary.stopped), (1, true));
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "\\{\"[a-c]{1,3}\":[0-9]{1,3}\\}\n",
        2 => Just("{\"k\":\"v\\n\\\"{}[]\",\"l\":[1,{\"m\":null}]}\n".to_owned()),
        1 => Just("{\"Records\":[{\"a\":1},{\"b\":tru},{\"c\":\"x\"}],\"z\":1}\n".to_owned()),
        1 => Just("[{\"a\":1},2,{\"b\":\"]\"}]".to_owned()),
        1 => Just(format!("{{\"big\":\"{}\"}}\n", "y".repeat(600))),
        1 => Just("START RequestId: 1 Version: 2\n".to_owned()),
        1 => Just("{\"cut\":\n".to_owned()),
        1 => Just("{\n \"pretty\": true\n}\n".to_owned()),
        1 => Just("rubbish, and more\n".to_owned()),
        1 => Just("{\"messageType\":\"DATA_MESSAGE\",\"owner\":\"1\",\"logGroup\":\"g\",\"logStream\":\"s\",\"logEvents\":[{\"id\":\"7\",\"timestamp\":1,\"message\":\"x\"}]}\n".to_owned()),
        1 => "[\\[\\]{}\":,a1 \n]{0,12}",
    ]
}

proptest! {
    #[test]
    fn chunks_do_not_change_the_result(
        pieces in prop::collection::vec(piece(), 0..12),
        chunk in 1_usize..40,
        growing in any::<bool>(),
    ) {
        let content = pieces.concat();
        let job = Job { growing, ..Job::default() };
        let with = |chunk_bytes| items(content.as_bytes(), Limits { chunk_bytes, ..small() }, &job);
        prop_assert_eq!(with(chunk), with(1 << 20));
        prop_assert_eq!(items(&gz(content.as_bytes()), small(), &job).0, with(1 << 20).0);
    }

    #[test]
    fn never_panics(content in prop::collection::vec(any::<u8>(), 0..300), head in 0_usize..4) {
        let heads: [&[u8]; 4] = [b"", b"{\"Records\":[", b"\x1f\x8b\x08\x00", b"\xff\xfe"];
        let content = [heads[head], &content].concat();
        items(&content, small(), &Job::default());
    }

    #[test]
    fn damaged_gzip_never_panics(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<prop::sample::Index>()) {
        let mut content = gz("{\"Records\":[{\"a\":\"some text\"},{\"b\":[1,2,3]}]}".repeat(20).as_bytes());
        let at = at.index(content.len());
        content[at] ^= 1 << bit;
        let cut = cut.index(content.len());
        items(&content, small(), &Job::default());
        items(&content[..cut], small(), &Job::default());
    }
}
