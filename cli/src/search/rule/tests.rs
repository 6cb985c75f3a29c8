//! A rule as a search finds exactly what the engine matches, and a search as a rule the same the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use detect::engine::{Engine, Scratch};
use event::json::Doc;
use event::{Event, Id, Time};
use ingest::decode::{Decoder, Item as Decoded, Job, Limits};
use ingest::normalize::{Context as Origin, Normalizer};
use search::Searcher;
use search::offline::OfflineIndex;

use super::super::as_rule;
use super::*;

fn normalized(text: &[u8], object: &str, events: &mut BTreeMap<Id, Event>) {
    let mut normalizer = Normalizer::new();
    let origin = Origin {
        ingest_time: Time::parse("2026-03-02T12:00:00Z").unwrap(),
        object: object.into(),
        keep_raw: true,
    };
    let mut each = |item: Decoded<'_>| {
        if let Decoded::Record(record) = item {
            let event = normalizer.event(&record, &origin);
            events.insert(event.id, event);
        }
        ControlFlow::Continue(())
    };
    Decoder::new(Limits::of_bodies()).bytes(text, &Job::default(), &mut each);
}

fn files(path: &Path, end: &str, found: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    let mut entries: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files(&entry, end, found);
        } else if entry.to_string_lossy().ends_with(end) {
            found.push(entry);
        }
    }
}

/// The records that rules bring along for their tests, and the public ones where they lie beside the checkout.
fn events(corpus: &Path) -> Vec<Event> {
    let mut events = BTreeMap::new();
    let set = crate::rules::RuleArgs::default().load().unwrap();
    for rule in &set.rules {
        for (number, test) in rule.tests.iter().enumerate() {
            let lines: String = test
                .events
                .iter()
                .map(|e| format!("{}\n", e.record))
                .collect();
            let object = format!("{}#{number}", rule.info.id);
            normalized(lines.as_bytes(), &object, &mut events);
        }
    }
    let mut paths = Vec::new();
    files(&corpus.join("events"), ".jsonl", &mut paths);
    files(&corpus.join("sigma"), ".jsonl", &mut paths);
    for path in paths {
        let text = std::fs::read(&path).unwrap();
        normalized(&text, &path.display().to_string(), &mut events);
    }
    // A few that are made for what could go wrong.
    for (i, line) in [
        r#"{"region":"eu","action":"x","n":5,"m":"5","deep":{"a":[{"b":"One"},{"b":"two"}]}}"#,
        r#"{"region":null,"n":6,"m":" 7 ","deep":{"a":"one"},"user_agent":"my Agent here"}"#,
        r#"{"n":"12","path":"/usr/bin/x","ip":"::ffff:10.1.2.3","deep":{}}"#,
    ]
    .iter()
    .enumerate()
    {
        normalized(line.as_bytes(), &format!("made-{i}"), &mut events);
    }
    events.into_values().collect()
}

struct Bench {
    events: Vec<Event>,
    searcher: Searcher,
    paths: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(corpus: &Path) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let config = search::Config {
            max_limit: 1_000_000,
            ..search::Config::default()
        };
        let events = events(corpus);
        let mut index = OfflineIndex::create(dir.path(), &config).unwrap();
        events.iter().for_each(|event| index.add(event).unwrap());
        index.finish().unwrap();
        let metrics = search::Metrics::new(&prometheus::Registry::new()).unwrap();
        let clock = crate::clock::clock();
        let searcher = Searcher::open(dir.path(), &config, metrics, clock).unwrap();
        let paths = searcher.paths(&search::Request::default()).unwrap().0;
        Bench {
            events,
            searcher,
            paths,
            _dir: dir,
        }
    }

    fn found(&self, query: &str) -> BTreeSet<Id> {
        let request = search::Request {
            query: query.to_owned(),
            limit: 1_000_000,
            newest_first: true,
            ..search::Request::default()
        };
        let answer = self.searcher.search(&request).unwrap();
        assert_eq!(answer.partial, None, "{query}");
        answer.hits.iter().map(|event| event.id).collect()
    }

    fn matched(&self, set: &RuleSet) -> BTreeSet<Id> {
        let engine = Engine::new(set);
        let mut scratch = Scratch::new();
        let mut doc = Doc::new();
        let matches = |event: &&Event| {
            let json = doc.scan(&event.raw, 0).is_ok();
            let root = json.then(|| doc.root(&event.raw));
            !engine.matches(event, root, &mut scratch).is_empty()
        };
        self.events.iter().filter(matches).map(|e| e.id).collect()
    }

    fn translated(&self, rule: &Rule) -> Result<String, Refusal> {
        let is_object = |name: &str| {
            let below = format!("{name}.");
            self.paths.iter().any(|path| path.starts_with(&below))
        };
        written(&translate(rule, &is_object)?)
    }
}

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus")
}

#[test]
fn a_rule_as_a_search_finds_what_the_engine_matches() {
    let bench = Bench::new(&corpus());
    let mut rules = crate::rules::builtin();
    let mut paths = Vec::new();
    files(&corpus().join("sigma"), ".yml", &mut paths);
    files(&corpus().join("panther"), ".yml", &mut paths);
    for path in &paths {
        rules.extend(read(path).unwrap_or_default());
    }
    let (mut same, mut with_events) = (0, 0);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for file in &rules {
        let Ok(whole) = RuleSet::build(std::slice::from_ref(file), &Default::default()) else {
            continue;
        };
        for rule in &whole.rules {
            let set = RuleSet {
                rules: vec![rule.clone()],
                generates: vec![true],
                filtered: vec![Vec::new()],
                ..RuleSet::default()
            };
            match bench.translated(rule) {
                Ok(query) => {
                    let matched = bench.matched(&set);
                    let found = bench.found(&query);
                    assert_eq!(found, matched, "{}: {query}", file.path);
                    same += 1;
                    with_events += usize::from(!matched.is_empty());
                }
                Err(refusal) => {
                    let why = refusal.message.split('`').next_back().unwrap_or_default();
                    *refused.entry(why.trim().to_owned()).or_default() += 1;
                }
            }
        }
    }
    eprintln!("{same} rules find the same, {with_events} of them something; refused: {refused:?}");
    assert!(same >= 70 && with_events >= 50, "{same}, {with_events}");
    let refused: usize = refused.values().sum();
    assert!(refused * 4 < same, "{refused} of {same}");
}

fn rule(detection: &str) -> RuleSet {
    let text = format!("title: t\nlogsource: {{product: any}}\ndetection:\n{detection}\n");
    let file = RuleFile {
        path: "t.yml".to_owned(),
        text,
    };
    RuleSet::build(&[file], &Default::default()).unwrap()
}

#[test]
fn lines_mean_in_a_search_what_they_mean_in_a_rule() {
    let bench = Bench::new(Path::new("none"));
    let check = |detection: &str, expected: usize| {
        let set = rule(detection);
        let query = bench.translated(&set.rules[0]).unwrap();
        let matched = bench.matched(&set);
        assert_eq!(bench.found(&query), matched, "{query}");
        let made = bench
            .events
            .iter()
            .filter(|e| e.origin.object.starts_with("made-"));
        let made: BTreeSet<Id> = made.map(|e| e.id).collect();
        assert_eq!(matched.intersection(&made).count(), expected, "{query}");
    };
    check("  s: {region: eu}\n  condition: s", 1);
    check("  s: {region: null}\n  condition: s", 2);
    check("  s: {n: 5}\n  condition: s", 1);
    check("  s: {n|gte: 5, n|lt: 12}\n  condition: s", 2);
    check("  s: {m|gt: 6}\n  condition: s", 1);
    check("  s: {deep.a.b|all: [one, TWO]}\n  condition: s", 1);
    check("  s: {deep.a.b: [one, three]}\n  condition: s", 1);
    check("  s: {deep.a.b|neq: one}\n  condition: s", 2);
    check("  s: {user_agent: my agent here}\n  condition: s", 1);
    check("  s: {user_agent|contains: AGENT}\n  condition: s", 1);
    check("  s: {path|re|i: '/USR\\/.in'}\n  condition: s", 1);
    check("  s: {path|re: '^/.{3}/'}\n  condition: s", 1);
    check("  s: {path: '/usr/?in/*'}\n  condition: s", 1);
    check("  s: {ip|cidr: 10.0.0.0/8}\n  condition: s", 1);
    check(
        "  s: {n|exists: true}\n  t: {m: '5'}\n  condition: s and not t",
        2,
    );
}

#[test]
fn what_a_search_cannot_say_is_refused_with_its_place() {
    let file = |detection: &str| {
        let text = format!("title: t\nlogsource: {{product: aws}}\ndetection:\n{detection}\n");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.yml");
        std::fs::write(&path, text).unwrap();
        let error = query(&path, &|_| false).unwrap_err();
        format!("{error:#}")
    };
    for (detection, place, words) in [
        (
            "  s:\n    a: b\n    c|cased: D\n  condition: s",
            ":6:5",
            "`cased`",
        ),
        (
            "  s: {a|re: 'b+'}\n  condition: s",
            ":4:7",
            "tells upper and lower case apart",
        ),
        (
            "  s: {a|fieldref: b}\n  condition: s",
            ":4:7",
            "fields with one another",
        ),
        ("  s: [word]\n  condition: s", ":4:7", "keywords"),
        (
            "  s: {eventTime|hour: 3}\n  condition: s",
            ":4:7",
            "parts of times",
        ),
        (
            "  s: {requestParameters|contains: x}\n  condition: s",
            ":4:7",
            "is an object",
        ),
    ] {
        let error = file(detection);
        assert!(
            error.contains(place) && error.contains(words) && error.contains("hint: "),
            "{error}"
        );
    }
}

#[test]
fn a_search_as_a_rule_matches_what_it_finds() {
    let bench = Bench::new(&corpus());
    let mut some = 0;
    for text in [
        "eventName:ConsoleLogin",
        "eventName:IN [StopLogging, DeleteTrail, ConsoleLogin] AND NOT userIdentity.type:Root",
        "source:aws.cloudtrail action:Delete* -actor_type:AWSService",
        "source:aws.cloudtrail (outcome:failure OR outcome:denied) error_code:*",
        "eventName:/(Get|List).*/ NOT errorCode:*",
        "sourceIPAddress:203.0.113.0/24 OR sourceIPAddress:10.0.0.0/8",
        "n:[5 TO 12} n:>=5",
        r"path:\/usr\/* OR m:5 OR requestParameters.name:*",
        "_missing_:eventName -deep.a.b:one",
        r#"userAgent:"aws-cli/*" OR userAgent:*cli*"#,
    ] {
        let query = parse(text).unwrap();
        let yaml = as_rule::rule(&query, text).unwrap();
        let file = RuleFile {
            path: "search.yml".to_owned(),
            text: yaml.clone(),
        };
        let set =
            RuleSet::build(&[file], &Default::default()).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        let found = bench.found(text);
        assert_eq!(bench.matched(&set), found, "{text}\n{yaml}");
        some += usize::from(!found.is_empty());
    }
    assert!(some >= 6, "{some}");
    for (text, words) in [
        ("StopLogging", "has no field"),
        ("*", "matches every event"),
        ("raw.region:x", "field of the original"),
        ("action:x", "add `source:aws.cloudtrail`"),
        (
            "source:aws.cloudtrail resources:x",
            "use a field of the record",
        ),
        ("time:>-1d", "stretch of time"),
        ("requestParameters:*", "is an object"),
        ("a:>b", "orders numbers only"),
        ("source:aws.cloudtrail user_agent:x", "searched by words"),
    ] {
        let why = as_rule::rule(&parse(text).unwrap(), text).unwrap_err();
        assert!(why.contains(words), "{text}: {why}");
    }
}

/// What each shipped rule and correlation looks at, for a group.
#[test]
fn what_a_rule_looks_at_can_be_searched() {
    let set = crate::rules::RuleArgs::default().load().unwrap();
    let group: Group = [
        ("account".into(), Some("1".into())),
        ("userIdentity.arn".into(), None),
    ]
    .into();
    let mut correlations = 0;
    for rule in &set.correlations {
        let query = looks_at(&set, &rule.info.id, &group).unwrap();
        assert!(
            query.contains("account:\"1\""),
            "{}: {query}",
            rule.info.title
        );
        assert!(query.contains("NOT userIdentity.arn:*"), "{query}");
        correlations += 1;
    }
    assert!(correlations > 3);
    for rule in &set.rules {
        assert!(looks_at(&set, &rule.info.id, &Group::new()).is_some());
    }
    assert_eq!(looks_at(&set, "no such rule", &group), None);
}

/// A group's alias is another field in each rule, and a rule that no search can say is left out.
#[test]
fn aliases_are_looked_for_by_each_rules_own_field() {
    let text = "title: a\nname: a\nlogsource: {product: aws, service: cloudtrail}\ndetection: {sel: {eventName: A}, condition: sel}\n\
                ---\ntitle: b\nname: b\nlogsource: {product: aws, service: cloudtrail}\ndetection: {sel: {eventName|cased: B}, condition: sel}\n\
                ---\ntitle: c\nid: 7a1f7e3c-2d4b-4c55-9b2f-0a6d9c1e0001\ncorrelation:\n  type: temporal\n  rules: [a, b]\n  group-by: [who, region]\n  \
                timespan: 1h\n  aliases:\n    who: {a: userIdentity.arn, b: requestParameters.userName}\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yml");
    std::fs::write(&file, text).unwrap();
    let set = RuleSet::build(&read(&file).unwrap(), &Default::default()).unwrap();
    let group: Group = [
        ("region".into(), Some("eu".into())),
        ("who".into(), Some("x".into())),
    ]
    .into();
    let query = looks_at(&set, "7a1f7e3c-2d4b-4c55-9b2f-0a6d9c1e0001", &group).unwrap();
    assert!(query.contains("eventName:\"a\""), "{query}");
    assert!(
        query.contains("region:\"eu\" AND userIdentity.arn:\"x\""),
        "{query}"
    );
    assert!(
        query.contains("(region:\"eu\" AND requestParameters.userName:\"x\")"),
        "{query}"
    );
}
