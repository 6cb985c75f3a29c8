//! Any text as a rule file: it is refused with a place inside the text, or it runs on events.

#![no_main]

use detect::engine::{Engine, Scratch};
use detect::rule_set::{RuleFile, RuleSet};
use event::json::Doc;
use event::{Event, Str};
use libfuzzer_sys::fuzz_target;

const RECORDS: [&str; 3] = [
    r#"{"eventVersion":"1.09","eventName":"ConsoleLogin","eventSource":"signin.amazonaws.com","sourceIPAddress":"203.0.113.7",
        "userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/a","userName":"a"},"errorMessage":"Failed"}"#,
    r#"{"a":[1,2.5e300,"x",null,{"b":["y",{"c":"\u00e4\ud83d\ude00"}]}],"eventTime":"2026-03-02T09:00:00Z","a":"again"}"#,
    r#"["no object"]"#,
];

fuzz_target!(|text: &str| {
    let file = RuleFile {
        path: "fuzzed.yml".into(),
        text: text.into(),
    };
    let (set, problems) = RuleSet::check(&[file], &Default::default());
    // A carriage return alone ends a line of YAML, too.
    let lines = text.matches(['\n', '\r']).count() + 1;
    for problem in &problems {
        assert!(problem.to_string().len() < 100_000);
        assert!(problem.place.is_none_or(|p| p.line <= lines), "{problem}");
    }
    let engine = Engine::new(&set);
    let correlations = detect::correlations::of(&set);
    let mut scratch = Scratch::new();
    for record in RECORDS {
        let doc = Doc::parse(record.as_bytes()).unwrap();
        let json = Some(doc.root(record.as_bytes()));
        let event = Event {
            source: Str::from("aws.cloudtrail"),
            raw: record.as_bytes().into(),
            ..Event::default()
        };
        engine.matches(&event, json, &mut scratch);
        for found in engine.correlation_matches(&event, json, &mut scratch) {
            assert!(found.correlation < correlations.len());
        }
        engine.readings(&event, json, &mut scratch, &mut Default::default());
        for info in set.infos() {
            engine.explain(&info.id, &event, json);
        }
    }
});
