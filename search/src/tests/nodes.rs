//! One search over several indexes: the same as over one that has it all; and never a part that looks like the whole.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event::{Event, Id};
use proptest::prelude::*;
use serde_json::Value;

use super::aggregate::counts;
use super::{NOW, TestClock, all, event, folder, ids, metrics, property, searcher};
use crate::aggregate::{Aggregate, Aggregations, parse};
use crate::investigate::Pivot;
use crate::nodes::{Node, Other, Question, Refusal, Reply, Unanswered};
use crate::{Answer, Config, Kind, Nodes, Request, SearchError, Searcher};
use bus::Bus;

/// A node at the other end of a wire, whose answers something may be done to.
struct Wire {
    index: Searcher,
    deed: Deed,
}

/// What becomes of an answer on its way.
type Deed = Arc<dyn Fn(&mut Value) -> Result<(), Unanswered> + Send + Sync>;

fn honest() -> Deed {
    Arc::new(|_| Ok(()))
}

impl Node for Wire {
    fn ask(&self, question: &Question) -> Result<Reply, Unanswered> {
        let sent = serde_json::to_vec(question).unwrap();
        let reply = self.index.reply_to(&sent).unwrap();
        let mut reply = serde_json::to_value(reply).unwrap();
        (self.deed)(&mut reply)?;
        Reply::read(reply.to_string().as_bytes())
    }
}

/// Folders of indexes, kept as long as they are searched.
struct World {
    nodes: Nodes,
    one: Searcher,
    _folders: Vec<tempfile::TempDir>,
}

/// One index of all parts, and one of each behind wires; the first is this node's own if `own` says so. What becomes of
/// the answers of node 1 is `deed`.
fn world(parts: &[Vec<Event>], own: bool, deed: &Deed) -> World {
    world_of(parts, own, &|node| match node {
        1 => deed.clone(),
        _ => honest(),
    })
}

/// The same with a deed for each.
fn world_of(parts: &[Vec<Event>], own: bool, deed: &dyn Fn(usize) -> Deed) -> World {
    let whole = folder(parts);
    let one = searcher(whole.path(), &Config::default());
    let mut folders = vec![whole];
    let mut indexes: Vec<Searcher> = Vec::new();
    let nodes = parts.len() as u32;
    for (node, part) in parts.iter().enumerate() {
        let dir = folder(std::slice::from_ref(part));
        let config = Config {
            nodes,
            node: node as u32,
            ..Config::default()
        };
        indexes.push(searcher(dir.path(), &config));
        folders.push(dir);
    }
    let others = indexes.iter().enumerate().skip(usize::from(own));
    let others = others.map(|(node, index)| Other {
        node: node as u32,
        name: format!("https://index-{node}"),
        way: Arc::new(Wire {
            index: index.clone(),
            deed: deed(node),
        }),
    });
    let config = Config {
        nodes,
        ..Config::default()
    };
    let own = own.then(|| indexes[0].clone());
    World {
        nodes: Nodes::new(
            own,
            others.collect(),
            &config,
            metrics(),
            TestClock::new().clock(),
        ),
        one,
        _folders: folders,
    }
}

/// All pages, one after the other.
fn pages(request: &Request, page: impl Fn(&Request) -> Answer) -> Vec<Event> {
    let mut request = request.clone();
    let mut found = Vec::new();
    loop {
        let answer = page(&request);
        assert_eq!(answer.partial, None);
        assert!(answer.hits.len() <= request.limit);
        found.extend(answer.hits);
        match answer.next {
            Some(next) => request.after = Some(next),
            None => return found,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("TRAILWARDEN_LONG").is_some() { 200 } else { 16 }, ..ProptestConfig::default() })]

    #[test]
    fn several_indexes_answer_as_one(
        events in property::events(),
        shares in proptest::collection::vec(0..4_usize, 30),
        count in 1..=4_usize,
        own in any::<bool>(),
        text in proptest::sample::select(&["", "p:*", "NOT action:a", "time:>-20s", "a", "axtion:a qq:b", "raw.r:*"][..]),
        fields in proptest::collection::vec(property::field(), 2),
        newest_first in any::<bool>(),
        limit in 1..8_usize,
        bytes in proptest::sample::select(&[1, 2_500, usize::MAX][..]),
        ranged in any::<bool>(),
    ) {
        let mut parts = vec![Vec::new(); count];
        for (event, share) in events.iter().zip(&shares) {
            parts[share % count].push(event.clone());
        }
        let World { nodes, one, _folders } = world(&parts, own, &honest());
        let request = Request {
            from: ranged.then(|| NOW.plus(-30_000_000)),
            to: ranged.then(|| NOW.plus(-5_000_000)),
            newest_first,
            limit,
            count: true,
            ..all(text)
        };
        // The first page, and page after page.
        let (expected, mut answer) = (one.search(&request).unwrap(), nodes.search(&request).unwrap());
        answer.took = expected.took;
        prop_assert_eq!(&answer, &expected);
        let expected = pages(&request, |request| one.search(request).unwrap());
        prop_assert_eq!(&pages(&request, |request| nodes.search(request).unwrap()), &expected);
        prop_assert_eq!(&pages(&request, |request| nodes.page(request, NOW, bytes).unwrap()), &expected);
        let mut walked = Vec::new();
        let many = nodes.walk(&request, None, |event| { walked.push(event); Ok::<_, SearchError>(()) }).unwrap();
        prop_assert_eq!(many, expected.len() as u64);
        prop_assert_eq!(&walked, &expected);
        // By id.
        let wanted: Vec<Id> = (0..35_u128).rev().map(Id).collect();
        prop_assert_eq!(nodes.events(&wanted).unwrap(), (one.events(&wanted).unwrap(), None));
        prop_assert_eq!(nodes.event(Id(1)).unwrap().map(|e| e.id), Some(Id(1)));
        prop_assert_eq!(nodes.event(Id(99)).unwrap(), None);
        // Counts.
        prop_assert_eq!(nodes.histogram(&request, 7).unwrap(), one.histogram(&request, 7).unwrap());
        for sample in [3, 1_000] {
            prop_assert_eq!(nodes.fields(&request, sample).unwrap(), one.fields(&request, sample).unwrap());
        }
        let explained = nodes.explain(&request).unwrap();
        prop_assert_eq!(explained, one.explain(&request).unwrap());
        let (outer, inner) = (fields[0], fields[1]);
        let aggs: Aggregations = [
            format!("{outer}:10000 > {inner}:10000"),
            format!("time:10s > distinct({inner})"),
            format!("distinct({outer})"),
            format!("percentiles({inner}, 0, 100)"),
            "count()".to_owned(),
        ].iter().flat_map(|short| parse(short, 10).unwrap()).collect();
        let (merged, whole) = (nodes.aggregate(&request, &aggs).unwrap(), one.aggregate(&request, &aggs).unwrap());
        prop_assert_eq!((merged.matched, merged.partial), (whole.matched, whole.partial));
        for (name, aggregate) in &whole.aggs {
            match aggregate {
                // How a value is written depends on who is asked first.
                Aggregate::Terms { .. } => prop_assert_eq!(counts(&merged.aggs[name]), counts(aggregate)),
                Aggregate::Percentiles { count, min, max, .. } => {
                    let Aggregate::Percentiles { count: many, min: least, max: most, .. } = &merged.aggs[name] else { panic!() };
                    prop_assert_eq!((many, least, most), (count, min, max));
                }
                aggregate => prop_assert_eq!(&merged.aggs[name], aggregate),
            }
        }
        // What is made of searches.
        let pivot = Pivot { field: "actor".into(), value: "a".into(), around: Some(NOW), now: NOW, hours: 1, limit: 5 };
        prop_assert_eq!(nodes.investigate(&pivot).unwrap(), Nodes::from(one).investigate(&pivot).unwrap());
    }
}

/// Two shares of twenty events: even numbers and odd ones. What becomes of the answers of node 1 is `deed`.
fn two(deed: Deed) -> World {
    let raw = |i: u128| format!(r#"{{"n":{i},"kind":"k{}"}}"#, i % 3);
    let part = |rest| {
        (0..20_u128)
            .filter(move |i| i % 2 == rest)
            .map(|i| event(i, i as i64, &raw(i)))
    };
    world(&[part(0).collect(), part(1).collect()], true, &deed)
}

/// No answer without node 1 looks like a whole one.
#[track_caller]
fn assert_says(nodes: &Nodes, what: &str) {
    let names = |partial: Option<&str>| {
        let said = partial.unwrap_or_default();
        assert!(
            said.contains("index node 1 (https://index-1)") && said.contains(what),
            "{said}"
        );
    };
    for newest_first in [true, false] {
        let request = Request {
            newest_first,
            limit: 6,
            count: true,
            ..all("kind:* nme:*")
        };
        let answer = nodes.search(&request).unwrap();
        names(answer.partial.as_deref());
        assert_eq!(answer.total, None);
        assert_eq!(answer.notes, [""; 0], "the missing node may know the field");
    }
    let request = Request {
        limit: 6,
        ..all("kind:*")
    };
    let answer = nodes.search(&request).unwrap();
    names(answer.partial.as_deref());
    assert_eq!(
        ids(&answer),
        [0, 2, 4, 6, 8, 10],
        "what the other has is told"
    );
    let counted = nodes
        .aggregate(&request, &parse("kind", 5).unwrap())
        .unwrap();
    names(counted.partial.as_deref());
    assert_eq!(counted.matched, 10);
    names(nodes.fields(&request, 100).unwrap().partial.as_deref());
    names(nodes.explain(&request).unwrap().partial.as_deref());
    let failed = |error: Option<SearchError>| match error {
        Some(SearchError::Missing(why) | SearchError::Cut(why)) => names(Some(&why)),
        other => panic!("{other:?}"),
    };
    failed(nodes.histogram(&request, 5).err());
    failed(
        nodes
            .walk(&request, None, |_| Ok::<_, SearchError>(()))
            .err(),
    );
    // Found is found; what is not may be with the one that is missing.
    assert_eq!(nodes.event(Id(2)).unwrap().unwrap().id, Id(2));
    failed(nodes.event(Id(3)).err());
    let (events, partial) = nodes.events(&[Id(4), Id(3), Id(2)]).unwrap();
    assert_eq!(events.iter().map(|e| e.id.0).collect::<Vec<_>>(), [4, 2]);
    names(partial.as_deref());
    assert_eq!(nodes.events(&[Id(4), Id(2)]).unwrap().1, None);
    let pivot = Pivot {
        field: "access_key".into(),
        value: "AKIA".into(),
        around: Some(NOW),
        now: NOW,
        hours: 1,
        limit: 5,
    };
    names(nodes.investigate(&pivot).unwrap().partial.as_deref());
    names(nodes.role_chain("AKIA").unwrap().partial.as_deref());
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    for (why, words) in [
        (
            Unanswered::Unreachable("connection refused".into()),
            "cannot be reached (connection refused)",
        ),
        (
            Unanswered::Slow(Duration::from_secs(12)),
            "did not answer within 12s",
        ),
        (Unanswered::Forbidden, "a token with the role `node`"),
        (Unanswered::Busy, "ask again"),
        (Unanswered::NoIndex(404), "HTTP 404"),
    ] {
        let world = two(Arc::new(move |_| Err(why.clone())));
        assert_says(&world.nodes, words);
    }
}

#[test]
fn a_node_that_is_another_one_is_named() {
    for (key, value, words) in [
        ("version", 0, "has another version of the program"),
        ("version", 2, "has another version of the program"),
        ("node", 0, "is node 0 of 2"),
        ("nodes", 3, "is node 1 of 3"),
    ] {
        let world = two(Arc::new(move |reply| {
            reply[key] = value.into();
            Ok(())
        }));
        assert_says(&world.nodes, words);
    }
    let refused = two(Arc::new(|reply| {
        let words = format!("its index cannot be read\u{1b}[2J{}", "!".repeat(10_000));
        reply["told"] = serde_json::json!({"Err": {"failed": words}});
        Ok(())
    }));
    assert_says(&refused.nodes, "could not answer (its index cannot be read");
    let said = refused.nodes.search(&all("")).unwrap().partial.unwrap();
    assert!(said.len() < 600 && !said.contains('\u{1b}'), "{said}");
    let older = two(Arc::new(|reply| {
        reply["told"] = serde_json::json!({"Err": "version"});
        Ok(())
    }));
    assert_says(&older.nodes, "has another version of the program");
    let other = two(Arc::new(|reply| {
        reply["told"] = serde_json::json!({"Ok": {"bars": [1]}});
        Ok(())
    }));
    assert_says(&other.nodes, "an answer to another question");
    let broken = two(Arc::new(|reply| {
        *reply = serde_json::json!({"hits": []});
        Ok(())
    }));
    assert_says(&broken.nodes, "gave an answer that cannot be right");
}

/// A page that cannot be one is not merged.
#[test]
fn a_page_that_cannot_be_one_is_not_taken() {
    type Lie = fn(&mut Value);
    let lies: &[(&str, Lie)] = &[
        ("reversed", |page| {
            page["hits"].as_array_mut().unwrap().reverse()
        }),
        ("repeated", |page| {
            let hits = page["hits"].as_array_mut().unwrap();
            hits[1] = hits[0].clone();
        }),
        ("one too many", |page| {
            let hits = page["hits"].as_array_mut().unwrap();
            let last = hits.last().unwrap().clone();
            hits.push(last);
        }),
        ("cut short and called the end", |page| {
            page["next"] = Value::Null
        }),
        ("ends elsewhere", |page| {
            page["next"]["time"] = "2026-03-02T11:00:00Z".into()
        }),
        ("counts less than it gives", |page| page["total"] = 1.into()),
        ("no frame", |page| page["hits"][0] = "AAAA".into()),
        ("no base64", |page| page["hits"][0] = "!".into()),
        ("no list", |page| page["hits"] = 7.into()),
    ];
    for (name, lie) in lies {
        let lie = *lie;
        let world = two(Arc::new(move |reply| {
            lie(&mut reply["told"]["Ok"]["page"]);
            Ok(())
        }));
        let request = Request {
            limit: 6,
            count: true,
            ..all("kind:*")
        };
        let answer = world.nodes.search(&request).unwrap();
        assert!(
            answer
                .partial
                .as_ref()
                .is_some_and(|why| why.contains("cannot be right")),
            "{name}: {:?}",
            answer.partial
        );
        assert_eq!(ids(&answer), [0, 2, 4, 6, 8, 10], "{name}");
        assert_eq!(answer.total, None, "{name}");
    }
    // Events of another time than was asked for, and of a page before.
    let all_of = two(honest()).one.search(&all("")).unwrap();
    let frames: Vec<Value> = {
        let asked = two(Arc::new(|_| Ok(())));
        let question = Question {
            version: crate::nodes::VERSION,
            now: NOW,
            ask: crate::nodes::Ask::Page {
                request: all(""),
                bytes: usize::MAX,
            },
        };
        let reply = serde_json::to_value(asked.one.reply(question)).unwrap();
        reply["told"]["Ok"]["page"]["hits"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(frames.len(), all_of.hits.len());
    let older = frames[19].clone();
    let world = two(Arc::new(move |reply| {
        reply["told"]["Ok"]["page"]["hits"] = Value::Array(vec![older.clone()]);
        reply["told"]["Ok"]["page"]["next"] = Value::Null;
        Ok(())
    }));
    let recent = Request {
        from: Some(NOW.plus(-5_000_000)),
        limit: 50,
        ..all("")
    };
    let answer = world.nodes.search(&recent).unwrap();
    assert!(
        answer
            .partial
            .is_some_and(|why| why.contains("another time"))
    );
}

/// What an aggregation, bars or events by id come to is looked at as well.
#[test]
fn counts_that_do_not_fit_are_not_added() {
    let lie = |kind: &'static str, with: Value| {
        two(Arc::new(move |reply| {
            if let Some(told) = reply["told"]["Ok"].get_mut(kind) {
                *told = with.clone();
            }
            Ok(())
        }))
    };
    let request = all("");
    let aggs = parse("kind > n", 5).unwrap();
    let world = lie(
        "tally",
        serde_json::json!({"tallies": [{"Count": 7}], "matched": 7, "partial": null}),
    );
    let counted = world.nodes.aggregate(&request, &aggs).unwrap();
    assert_eq!(counted.matched, 10);
    assert!(counted.partial.unwrap().contains("index node 1"));
    let world = lie(
        "tally",
        serde_json::json!({"tallies": [], "matched": 7, "partial": null}),
    );
    assert!(
        world
            .nodes
            .aggregate(&request, &aggs)
            .unwrap()
            .partial
            .is_some()
    );
    let world = lie("bars", serde_json::json!([1, 2]));
    assert!(matches!(
        world.nodes.histogram(&request, 5),
        Err(SearchError::Missing(_))
    ));
    for found in [
        serde_json::json!({"events": [], "looked": 0}),
        serde_json::json!({"events": [], "looked": 9}),
    ] {
        let world = lie("events", found);
        assert!(matches!(
            world.nodes.event(Id(3)),
            Err(SearchError::Missing(_))
        ));
    }
}

#[test]
fn what_stands_on_two_nodes_is_shown_once_and_not_counted() {
    let twice = vec![event(1, 1, "{}"), event(2, 2, "{}")];
    let world = world(&[twice.clone(), twice], true, &honest());
    let answer = world.nodes.search(&all("")).unwrap();
    assert_eq!(ids(&answer), [1, 2]);
    assert_eq!((answer.total, answer.partial), (None, None));
    assert!(answer.notes[0].contains("more than one index node"));
}

/// A count that takes too long is refused by several nodes as by one, and a slow part of an answer says whose it is.
#[test]
fn what_one_node_has_no_time_for_is_said() {
    let world = two(Arc::new(|reply| {
        if reply["told"]["Ok"].get("page").is_some() {
            reply["told"]["Ok"]["page"]["partial"] = "stopped after 10 ms".into();
            reply["told"]["Ok"]["page"]["total"] = Value::Null;
        } else {
            reply["told"] = serde_json::json!({"Err": {"timeout": 10}});
        }
        Ok(())
    }));
    let answer = world.nodes.search(&all("")).unwrap();
    assert_eq!(
        answer.partial.as_deref(),
        Some("index node 1 (https://index-1): stopped after 10 ms")
    );
    assert_eq!(answer.total, None);
    assert!(matches!(
        world.nodes.histogram(&all(""), 5),
        Err(SearchError::Timeout(after)) if after.as_millis() == 10
    ));
    // What is wrong with the question is nobody's absence.
    assert!(matches!(
        world.nodes.search(&all("(")),
        Err(SearchError::Query(_))
    ));
}

#[test]
fn shares_that_nobody_is_named_for_are_missing() {
    let dir = folder(&[vec![event(1, 1, "{}")]]);
    let config = Config {
        nodes: 2,
        ..Config::default()
    };
    let own = searcher(dir.path(), &config);
    let clock = TestClock::new().clock();
    let nodes = Nodes::new(Some(own), Vec::new(), &config, metrics(), clock.clone());
    let answer = nodes.search(&all("")).unwrap();
    assert_eq!((ids(&answer), answer.total), (vec![1], None));
    assert_eq!(
        answer.partial.as_deref(),
        Some("index node 1 of 2 is not asked: `search.peers` does not name it")
    );
    let none = Nodes::new(None, Vec::new(), &config, metrics(), clock);
    assert!(matches!(
        none.search(&all("")),
        Err(SearchError::Missing(_))
    ));
}

/// After `search.nodes` was changed, the end of a partition stands on two nodes: counts that reach there say so.
#[test]
fn what_counts_twice_is_said() {
    let three = |covers: Value| {
        let parts = [1, 2, 3].map(|i| vec![event(i, i as i64, "{}")]);
        world_of(&parts, true, &|node| {
            let covers = match node {
                1 => covers.clone(),
                _ => serde_json::json!([[3, 200, 300], [4, 9 * node, 9 * node + 9]]),
            };
            Arc::new(move |reply| {
                reply["covers"] = covers.clone();
                Ok(())
            })
        })
    };
    let apart = three(serde_json::json!([[3, 100, 200], [5, 0, 9]]));
    let answer = apart.nodes.search(&all("")).unwrap();
    assert_eq!((answer.total, answer.notes.len()), (Some(3), 0));
    let twice = three(serde_json::json!([[3, 100, 201]]));
    let answer = twice.nodes.search(&all("")).unwrap();
    assert_eq!((answer.total, answer.partial), (None, None));
    assert!(answer.notes[0].contains("more than one index node"));
    let counted = twice
        .nodes
        .aggregate(&all(""), &parse("count()", 1).unwrap());
    assert!(counted.unwrap().partial.unwrap().contains("count twice"));
    assert!(twice.nodes.histogram(&all(""), 3).is_err());
}

/// A node that has yet to index what came in long ago is no missing one, but who searches is told.
#[test]
fn who_is_behind_is_said() {
    let world = two(honest());
    let folder = tempfile::tempdir().unwrap();
    let options = bus::config::Options::default();
    let partitions = options.partitions.events;
    let log = bus::embedded::EmbeddedBus::open(folder.path(), options).unwrap();
    let old = event(1, 1, "{}");
    // One of them falls to node 1.
    let key = (0..1_000_u32)
        .map(|n| n.to_string())
        .find(|key| bus::partition_of(key.as_bytes(), partitions) % 2 == 1);
    let record = bus::Record {
        key: bytes::Bytes::from(key.unwrap()),
        value: old.encode().into(),
        time: NOW.plus(-3_600_000_000),
    };
    log.append(bus::Topic::Events, vec![record.clone(), record])
        .unwrap();
    world.nodes.measure(&log);
    let shares = world.nodes.shares();
    assert_eq!((shares[0].records, shares[1].records), (0, 2));
    assert!((shares[1].seconds - 3_600.0).abs() < 1.0);
    let answer = world.nodes.search(&all("")).unwrap();
    assert_eq!((answer.total, answer.partial), (Some(20), None));
    assert_eq!(
        answer.notes,
        [
            "index node 1 is 60 minutes behind: of what has come in since then, 2 records of its share are not found yet"
        ]
    );
}

#[test]
fn questions_of_another_version_are_answered_with_ones_own() {
    let dir = folder(&[]);
    let index = searcher(dir.path(), &Config::default());
    for question in [
        r#"{"version": 2, "ask": {"something new": 1}}"#,
        r#"{"version": 0}"#,
    ] {
        let reply = index.reply_to(question.as_bytes()).unwrap();
        assert_eq!(
            (reply.version, reply.told.err()),
            (1, Some(Refusal::Version))
        );
    }
    for wrong in ["", "{}", r#"{"version": 1, "ask": "stat"}"#, "[1]"] {
        assert!(index.reply_to(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn large_events_come_in_more_than_one_answer() {
    let events: Vec<Event> = (0..50)
        .map(|i| {
            event(
                i,
                i as i64,
                &format!(r#"{{"n":{i},"x":"{}"}}"#, "y".repeat(16_000)),
            )
        })
        .collect();
    let (some, others) = events.split_at(1);
    let world = world(&[some.to_vec(), others.to_vec()], true, &honest());
    let all_ids: Vec<Id> = events.iter().map(|e| e.id).collect();
    assert_eq!(world.nodes.events(&all_ids).unwrap().0.len(), 50);
    let page = world.nodes.search(&all("")).unwrap();
    assert!(
        page.hits.len() < 30 && page.next.is_some(),
        "{}",
        page.hits.len()
    );
    assert_eq!((page.total, page.partial), (Some(50), None));
    let mut count = 0;
    let walked = world.nodes.walk(&all(""), None, |event| {
        assert_eq!(event.id, Id(count));
        count += 1;
        Ok::<_, SearchError>(())
    });
    assert_eq!(walked.unwrap(), 50);
    let stats = world.nodes.fields(&all(""), 1_000).unwrap();
    assert_eq!(stats.matched, 50);
    assert!(stats.sampled && stats.read > 20, "{}", stats.read);
}

#[test]
fn who_is_missing_is_seen_before_anybody_searches() {
    let away = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let (gone, counted) = (Arc::clone(&away), Arc::clone(&asked));
    let world = two(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        match gone.load(Ordering::SeqCst) {
            true => Err(Unanswered::Unreachable("connection refused".into())),
            false => Ok(()),
        }
    }));
    let shares = world.nodes.shares();
    assert!(shares[0].answers && !shares[1].answers, "not asked yet");
    world.nodes.look();
    let shares = world.nodes.shares();
    assert!(shares[1].answers && shares[1].missing_since.is_none());
    assert_eq!(shares[1].state.as_ref().unwrap().events, 10);
    away.store(true, Ordering::SeqCst);
    world.nodes.look();
    let count = asked.load(Ordering::SeqCst);
    assert_says(&world.nodes, "cannot be reached (connection refused)");
    assert!(asked.load(Ordering::SeqCst) > count, "once is no reason");
    world.nodes.look();
    let count = asked.load(Ordering::SeqCst);
    assert_says(&world.nodes, "cannot be reached (connection refused)");
    assert_eq!(asked.load(Ordering::SeqCst), count, "nobody waits for it");
    let shares = world.nodes.shares();
    assert_eq!(shares[1].missing_since, Some(NOW));
    assert!(
        shares[1]
            .why
            .as_ref()
            .unwrap()
            .contains("connection refused")
    );
    assert_eq!(shares[1].state.as_ref().unwrap().events, 10, "as it was");
    away.store(false, Ordering::SeqCst);
    world.nodes.look();
    assert!(world.nodes.shares()[1].answers);
    assert_eq!(world.nodes.search(&all("")).unwrap().total, Some(20));
    assert!(Nodes::from(world.one.clone()).shares().is_empty());
}

#[test]
fn findings_of_several_nodes_are_one_list() {
    let asked: Arc<Mutex<Vec<Question>>> = Arc::default();
    struct Told(Arc<Mutex<Vec<Question>>>, Value);
    impl Node for Told {
        fn ask(&self, question: &Question) -> Result<Reply, Unanswered> {
            self.0.lock().unwrap().push(question.clone());
            Ok(serde_json::from_value(self.1.clone()).unwrap())
        }
    }
    let finding = |id: u128, seconds: i64| {
        serde_json::to_value(event::Finding {
            id: Id(id),
            time: NOW.plus(-seconds * 1_000_000),
            ..event::Finding::default()
        })
        .unwrap()
    };
    let page = |node: u32, findings: Vec<Value>| {
        serde_json::json!({"version": 1, "node": node, "nodes": 2, "covers": [], "told": {"Ok": {"page": {
            "hits": [], "findings": findings, "total": 2, "partial": null,
            "unknown": {"fields": []}, "next": null,
        }}}})
    };
    let config = Config {
        nodes: 2,
        ..Config::default()
    };
    let other = |node, findings| Other {
        node,
        name: String::new(),
        way: Arc::new(Told(Arc::clone(&asked), page(node, findings))),
    };
    let others = vec![
        other(0, vec![finding(1, 1), finding(3, 3)]),
        other(1, vec![finding(2, 2), finding(4, 4)]),
    ];
    let nodes = Nodes::new(None, others, &config, metrics(), TestClock::new().clock());
    let request = Request {
        kind: Kind::Findings,
        ..all("")
    };
    let answer = nodes.search(&request).unwrap();
    let found: Vec<u128> = answer.findings.iter().map(|f| f.id.0).collect();
    assert_eq!((found, answer.total), (vec![1, 2, 3, 4], Some(4)));
    let asked = asked.lock().unwrap();
    assert!(
        asked.len() == 2 && asked.iter().all(|q| q.now == NOW),
        "one now for all"
    );
}
