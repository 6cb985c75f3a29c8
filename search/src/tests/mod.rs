//! Tests of the crate as a whole: search against a linear scan, and the index stage through crashes and merges.
//!
//! [`folder`] makes an index folder; [`event`] makes events by number and age. What is tested
//! here needs an index on the disk; what one function does by itself is tested beside it.

mod aggregate;
mod evidence;
mod full_disk;
mod investigate;
mod nodes;
mod offline;
mod property;
mod rebuild;
mod retention;
mod stage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use event::{Clock, Event, Id, Time};
use prometheus::Registry;

use crate::manifest::Manifest;
use crate::split::{Meta, Writer};
use crate::{Answer, Config, Metrics, Request, Searcher};

/// 2026-03-02T12:00:00Z
pub(crate) const NOW: Time = Time(1_772_452_800_000_000);

pub(crate) fn metrics() -> Metrics {
    Metrics::new(&Registry::new()).unwrap()
}

/// A clock that stands still until it is set.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub(crate) fn new() -> TestClock {
        TestClock(Arc::new(AtomicI64::new(NOW.0)))
    }

    pub(crate) fn forward(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let clock = self.0.clone();
        Arc::new(move || Time(clock.load(Ordering::SeqCst)))
    }
}

pub(crate) fn searcher(dir: &Path, config: &Config) -> Searcher {
    Searcher::open(dir, config, metrics(), TestClock::new().clock()).unwrap()
}

/// An event with this number, `seconds` before now.
pub(crate) fn event(number: u128, seconds: i64, raw: &str) -> Event {
    Event {
        id: Id(number),
        source: "unknown".into(),
        time: NOW.plus(-seconds * 1_000_000),
        ingest_time: NOW,
        raw: Bytes::copy_from_slice(raw.as_bytes()),
        ..Event::default()
    }
}

/// An index folder with each part of `parts` in a split of its own.
pub(crate) fn folder(parts: &[Vec<Event>]) -> tempfile::TempDir {
    folder_of(parts, 0)
}

/// The same; the first `old` splits have the first format.
pub(crate) fn folder_of(parts: &[Vec<Event>], old: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let splits = dir.path().join("splits");
    std::fs::create_dir_all(&splits).unwrap();
    let metas: Vec<Meta> = parts
        .iter()
        .enumerate()
        .filter(|(_, events)| !events.is_empty())
        .map(|(i, events)| {
            let create = if i < old {
                Writer::first
            } else {
                Writer::create
            };
            let mut writer = create(&splits, i as u64 + 1, 16 << 20).unwrap();
            for event in events {
                writer.add(event, &event.encode()).unwrap();
            }
            writer.finish(Vec::new()).unwrap()
        })
        .collect();
    Manifest::write(dir.path(), metas).unwrap();
    dir
}

pub(crate) fn all(query: &str) -> Request {
    Request {
        query: query.to_owned(),
        limit: 10_000,
        newest_first: true,
        ..Request::default()
    }
}

pub(crate) fn ids(answer: &Answer) -> Vec<u128> {
    answer.hits.iter().map(|e| e.id.0).collect()
}

#[track_caller]
pub(crate) fn check(searcher: &Searcher, query: &str, expected: &[u128]) {
    let mut found = ids(&searcher.search(&all(query)).unwrap());
    found.sort_unstable();
    assert_eq!(found, expected, "{query}");
}

#[test]
fn every_field_is_found_by_its_name() {
    let mut event = event(
        7,
        10,
        r#"{"eventName":"CreateUser","userIdentity":{"type":"Root","mfa":null},
        "requestParameters":{"bucketName":"My-Bucket","tags":[{"key":"a"},{"key":"b"}],"n":12,"x.y":true},
        "region":"raw-region"}"#,
    );
    event.action = "CreateUser".into();
    event.region = "eu-west-1".into();
    event.src_ip = "203.0.113.7".into();
    event.user_agent = "aws-cli/2.1 Python/3.9".into();
    event.error_message = "User: bob is not authorized to perform: iam:CreateUser".into();
    event.labels = [("owner".into(), "Platform Team".into())].into();
    let dir = folder(&[vec![event]]);
    let searcher = searcher(dir.path(), &Config::default());
    for query in [
        "",
        "*",
        "*:*",
        "action:createuser",
        "eventName:CREATEUSER",
        "userIdentity.type:root",
        "requestParameters.bucketName:my-bucket",
        "requestParameters.tags.key:b",
        "requestParameters.n:12",
        "requestParameters.n:>11",
        "requestParameters.n:[12 TO 12]",
        "requestParameters.x.y:true",
        "region:eu-west-1",
        "raw.region:raw-region",
        "src_ip:203.0.113.0/24",
        "203.0.113.7",
        "203.0.113.0/24",
        "my-bucket",
        "\"my bucket\"",
        "*bucket*",
        "*y-buck*",
        "user_agent:python",
        "error_message:\"not authorized\"",
        "error_message:/.*createuser/",
        "labels.owner:\"platform team\"",
        "labels.owner:*",
        "userIdentity:*",
        "requestParameters.tags:*",
        "NOT userIdentity.mfa:*",
        "NOT nothing:*",
        "_exists_:eventName",
        "id:00000000000000000000000000000007",
        "time:>-1m",
        "time:2026-03-02",
        "time:[2026-03-02T11:59:50Z TO now]",
        "outcome:unknown",
        "integrity:received",
        "eventName:(CreateUser OR DeleteUser)",
        "eventName:Create*",
        "eventName:?reate?ser",
        "-action:x !action:y",
        "action:createuser && (region:x || region:eu*)",
        "create*",
        "ingest_time:*",
    ] {
        check(&searcher, query, &[7]);
    }
    for query in [
        "region:raw-region",
        "raw.region:eu-west-1",
        "eventname:CreateUser",
        "userIdentity.mfa:*",
        "requestParameters.n:>12",
        "src_ip:203.0.114.0/24",
        "\"bucket my\"",
        "time:<-1m",
        "time:2026-03-01",
        "user_agent:pytho",
        "eventName:Create",
        "\"Root My\"",
        "---",
        "NOT action:createuser",
        "requestParameters.tags.key:ab",
    ] {
        check(&searcher, query, &[]);
    }
}

#[test]
fn pages_continue_where_they_ended() {
    // Equal times, several splits, and a split that reaches over the others.
    let parts: Vec<Vec<Event>> = (0..5)
        .map(|part| {
            (0..20)
                .map(|i| {
                    event(
                        part * 100 + i,
                        (i as i64 / 4) * 10 * (part as i64 % 2 + 1),
                        "{}",
                    )
                })
                .collect()
        })
        .collect();
    let dir = folder(&parts);
    let searcher = searcher(dir.path(), &Config::default());
    let mut expected: Vec<(Time, u128)> =
        parts.iter().flatten().map(|e| (e.time, e.id.0)).collect();
    for newest_first in [true, false] {
        expected.sort_unstable();
        if newest_first {
            expected.reverse();
        }
        let mut request = Request {
            limit: 7,
            newest_first,
            ..Request::default()
        };
        let mut found = Vec::new();
        loop {
            let answer = searcher.search(&request).unwrap();
            found.extend(answer.hits.iter().map(|e| (e.time, e.id.0)));
            request.after = answer.next;
            if answer.next.is_none() {
                break;
            }
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn totals_histograms_and_tops() {
    let parts: Vec<Vec<Event>> = (0..4)
        .map(|part| {
            (0..50)
                .map(|i| {
                    let mut event = event(
                        part * 1_000 + i,
                        part as i64 * 100 + i as i64,
                        &format!(r#"{{"Kind":"K{}"}}"#, i % 3),
                    );
                    event.action = if i % 5 == 0 {
                        "Rare".into()
                    } else {
                        "Common".into()
                    };
                    event
                })
                .collect()
        })
        .collect();
    let dir = folder(&parts);
    let searcher = searcher(dir.path(), &Config::default());
    let mut request = Request {
        limit: 10,
        newest_first: true,
        ..Request::default()
    };
    let answer = searcher.search(&request).unwrap();
    assert_eq!(
        (answer.hits.len(), answer.total, answer.partial),
        (10, None, None)
    );
    request.count = true;
    assert_eq!(searcher.search(&request).unwrap().total, Some(200));
    request.query = "action:rare".into();
    assert_eq!(searcher.search(&request).unwrap().total, Some(40));
    request.from = Some(NOW.plus(-149_000_000));
    assert_eq!(searcher.search(&request).unwrap().total, Some(20));

    let bars = searcher.histogram(&all(""), 7).unwrap();
    assert_eq!(bars.iter().map(|b| b.count).sum::<u64>(), 200);
    assert!(bars.windows(2).all(|w| w[0].to == w[1].from));
    let zoomed = Request {
        from: Some(NOW.plus(-9_000_000)),
        to: Some(NOW),
        ..all("")
    };
    let bars = searcher.histogram(&zoomed, 5).unwrap();
    assert_eq!(
        bars.iter().map(|b| b.count).collect::<Vec<_>>(),
        [2, 2, 2, 2, 2]
    );

    let top = searcher.top(&all(""), "action", 10).unwrap();
    assert_eq!(top, [("Common".to_owned(), 160), ("Rare".to_owned(), 40)]);
    let top = searcher.top(&all("action:common"), "Kind", 1).unwrap();
    assert_eq!(top, [("K1".to_owned(), 56)]);
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let dir = folder(&[vec![event(1, 0, "{}")]]);
    let searcher = searcher(dir.path(), &Config::default());
    let fail = |request: Request| searcher.search(&request).unwrap_err().to_string();
    let (from, to) = (Some(NOW), Some(NOW.plus(-1_000_000)));
    assert_eq!(
        fail(Request {
            from,
            to,
            ..all("")
        }),
        "time range runs backwards: from 2026-03-02T12:00:00Z to 2026-03-02T11:59:59Z (UTC)"
    );
    assert_eq!(
        fail(Request {
            limit: 10_001,
            ..all("")
        }),
        "limit 10001 is above 10000"
    );
    assert_eq!(fail(all("a:\"b")), "cannot read the query");
    assert!(searcher.histogram(&all(""), 1_000_000_000).is_err());
}

#[test]
fn an_answer_that_takes_too_long_is_partial() {
    let dir = folder(&[(0..3_000)
        .map(|i| event(i, 0, &format!(r#"{{"a":"v{i}"}}"#)))
        .collect()]);
    let config = Config {
        timeout_ms: 0,
        ..Config::default()
    };
    let searcher = searcher(dir.path(), &config);
    for query in ["", "a:*5", "*5", "a:/.*5/", "NOT a:*5"] {
        let answer = searcher.search(&all(query)).unwrap();
        assert!(answer.partial.is_some(), "{query}");
        assert_eq!(answer.total, None);
    }
    assert!(matches!(
        searcher.histogram(&all(""), 10),
        Err(crate::SearchError::Timeout(_))
    ));
}

#[test]
fn no_index_is_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let searcher = searcher(&dir.path().join("none"), &Config::default());
    check(&searcher, "", &[]);
    assert_eq!(searcher.events(&[Id(1)]).unwrap(), []);
    assert_eq!(searcher.histogram(&all(""), 10).unwrap(), []);
    assert_eq!(
        searcher
            .search(&Request {
                kind: crate::Kind::Findings,
                ..all("")
            })
            .unwrap()
            .findings,
        []
    );
}

#[test]
fn events_by_id() {
    let dir = folder(&[
        vec![event(1, 0, "{}"), event(2, 5, "{}")],
        vec![event(3, 9, "not json")],
    ]);
    let searcher = searcher(dir.path(), &Config::default());
    let found = searcher.events(&[Id(3), Id(4), Id(1)]).unwrap();
    assert_eq!(found, [event(3, 9, "not json"), event(1, 0, "{}")]);
}

/// Facts B10 to B12: what breaks other indexes is found here.
#[test]
fn bounds_lose_nothing() {
    let many = (0..10_000)
        .map(|i| format!(r#""k{i}":"v{i}""#))
        .collect::<Vec<_>>()
        .join(",");
    let long = "x".repeat(32 * 1024);
    let longer = "word ".repeat(200_000);
    let key = "k".repeat(60 * 1024);
    let raws = [
        format!("{{{many}}}"),
        format!(r#"{{"a":"{long}end"}}"#),
        format!(r#"{{"a":"{longer}needle"}}"#),
        format!(r#"{{"{key}":"deep","other":"near"}}"#),
        r#"{"a":{"b":1}}"#.to_owned(),
        r#"{"a":"text"}"#.to_owned(),
        r#"{"a":17}"#.to_owned(),
        r#"{"a":[{"b":"1"},"text"]}"#.to_owned(),
        r#"{"__proto__":"p","a\"q.r":"s","\u0000":"nul"}"#.to_owned(),
        format!("plain text of {} and an end", "much ".repeat(100)),
    ];
    let events = raws
        .iter()
        .enumerate()
        .map(|(i, raw)| event(i as u128, i as i64, raw))
        .collect();
    let dir = folder(&[events]);
    let searcher = searcher(dir.path(), &Config::default());
    check(&searcher, "k9999:v9999", &[0]);
    check(&searcher, "k9999:*", &[0]);
    check(&searcher, "v9999", &[0]);
    check(&searcher, &format!("a:{long}END"), &[1]);
    check(&searcher, "a:*end", &[1]);
    check(&searcher, "a:xxx*", &[1]);
    check(&searcher, &format!("a:{long}"), &[]);
    check(&searcher, "needle", &[2]);
    check(&searcher, "\"word needle\"", &[2]);
    check(&searcher, "a:*needle", &[2]);
    check(&searcher, "deep", &[3]);
    check(&searcher, &format!("{key}:deep"), &[3]);
    check(&searcher, &format!("{}:deep", &key[1..]), &[]);
    check(&searcher, "a.b:1", &[4, 7]);
    check(&searcher, "a:text", &[5, 7]);
    check(&searcher, "a:>=17", &[6]);
    check(&searcher, "__proto__:p", &[8]);
    check(&searcher, "a\\\"q.r:s", &[8]);
    check(&searcher, "nul", &[8]);
    check(&searcher, "raw:*end", &[9]);
    check(&searcher, "\"an end\"", &[9]);
    check(&searcher, "NOT a:*", &[0, 3, 8, 9]);
}

/// Frequent values have no words of their own, long ones are written in full, and merging changes nothing of it.
#[test]
fn what_comes_often_is_found_by_value_and_by_word() {
    let agent = format!(
        "aws-cli/2.31.1 {}lang/python#3.13.7",
        "md/awscrt#0.27.6 ".repeat(20)
    );
    let longest = "much text ".repeat(600);
    let number = |i: u128| {
        let raw = serde_json::json!({"userAgent": agent, "text": longest, "n": i, "ok": true,
            "sharedEventID": "7B72A207-9b9e-40e1-bcec-b4ba06bc343b", "rare": format!("only {i} once")});
        let mut event = event(i, i as i64, &raw.to_string());
        event.user_agent = agent.as_str().into();
        event.source_id = format!("7b72a207-9b9e-40e1-bcec-{i:012x}").as_str().into();
        event
    };
    let parts: Vec<Vec<Event>> = [0..6, 6..12].map(|r| r.map(number).collect()).into();
    let dir = folder(&parts);
    let metas = Manifest::read(dir.path()).unwrap().unwrap().splits;
    let splits = dir.path().join("splits");
    let merged = |dir: &Path| {
        let open =
            |meta: &Meta| Arc::new(crate::split::Split::open(&splits, meta.clone()).unwrap());
        let open: Vec<_> = metas.iter().map(open).collect();
        let meta = crate::split::merge(&splits, &open, 3).unwrap();
        Manifest::write(dir, vec![meta]).unwrap();
    };
    let everything: Vec<u128> = (0..12).collect();
    for merge in [false, true] {
        if merge {
            merged(dir.path());
        }
        let searcher = searcher(dir.path(), &Config::default());
        for query in [
            "awscrt",
            "\"python 3\"",
            "aws*",
            "userAgent:aws*python*",
            "user_agent:*crt*",
            &format!("userAgent:\"{agent}\""),
            "text:*text*",
            "text",
            "\"much text\"",
            "ok:true",
            "sharedEventID:7b72a207-9b9e-40e1-bcec-b4ba06bc343b",
            "sharedEventID:7b72a2*",
            "sharedEventID:*343b",
            "7b72a207-9b9e-40e1-bcec-b4ba06bc343b",
            "7b72a207-9*",
            "source_id:7b72a207-*",
            "only",
            "n:*",
            "user_agent:*",
            "userAgent:*",
        ] {
            check(&searcher, query, &everything);
        }
        check(&searcher, "\"only 7 once\"", &[7]);
        check(
            &searcher,
            "source_id:7b72a207-9b9e-40e1-bcec-00000000000a",
            &[10],
        );
        check(&searcher, "7b72a207-9b9e-40e1-bcec-00000000000a", &[10]);
        check(&searcher, "*0a", &[10]);
        check(&searcher, "id:0000000000000000000000000000000b", &[11]);
        check(&searcher, "true", &[]);
        check(&searcher, "nothing:*", &[]);
        let top = |field| searcher.top(&all(""), field, 5).unwrap();
        assert_eq!(top("userAgent"), [(agent.clone(), 12)]);
        assert_eq!(top("user_agent"), [(agent.clone(), 12)]);
        assert_eq!(top("text"), [(longest.clone(), 12)]);
        let shared = "7B72A207-9b9e-40e1-bcec-b4ba06bc343b".to_owned();
        assert_eq!(top("sharedEventID"), [(shared, 12)]);
        assert_eq!(searcher.events(&[Id(5)]).unwrap()[0].id, Id(5));
    }
}

#[test]
fn older_splits_are_read_and_a_newer_folder_is_refused() {
    let raw = |n: u128| format!(r#"{{"eventName":"CreateUser","n":{n},"text":"a few words"}}"#);
    let parts: Vec<Vec<Event>> = (0..2)
        .map(|part| {
            (0..6)
                .map(|i| part * 6 + i)
                .map(|n| event(n, n as i64, &raw(n)))
                .collect()
        })
        .collect();
    let dir = folder_of(&parts, 1);
    let searcher = searcher(dir.path(), &Config::default());
    for query in [
        "eventName:createuser",
        "createuser",
        "\"few words\"",
        "text:*few*",
        "n:*",
    ] {
        check(&searcher, query, &(0..12).collect::<Vec<_>>());
    }
    check(&searcher, "n:3", &[3]);
    assert_eq!(
        searcher.top(&all(""), "eventName", 5).unwrap(),
        [("CreateUser".to_owned(), 12)]
    );
    let path = dir.path().join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(r#"{"format":2,"#), "{text}");
    std::fs::write(&path, text.replacen("2", "4", 1)).unwrap();
    let refused = Searcher::open(
        dir.path(),
        &Config::default(),
        metrics(),
        TestClock::new().clock(),
    );
    let said = format!("{:?}", refused.err().unwrap());
    assert!(
        said.contains("has format 4, this program reads 1 to 3"),
        "{said}"
    );
}
