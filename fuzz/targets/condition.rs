//! Any text as the condition of a rule and of a filter: it is refused, or says yes or no to an event.

#![no_main]

use detect::engine::{Engine, Scratch};
use detect::rule_set::{RuleFile, RuleSet};
use event::{Event, Str};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|condition: &str| {
    // A JSON text is a YAML text.
    let quoted = serde_json::to_string(condition).unwrap();
    let text = format!(
        "title: t\nid: 4f1c0a6e-7d52-4b7e-9a83-1d2e3f405102\nlogsource: {{product: aws, service: cloudtrail}}\nlevel: low\n\
         detection:\n  selection_a: {{eventName: a}}\n  selection_b: {{eventName: b}}\n  filter_c: {{awsRegion: c}}\n  condition: {quoted}\n\
         ---\ntitle: f\nid: 4f1c0a6e-7d52-4b7e-9a83-1d2e3f405103\nlogsource: {{product: aws, service: cloudtrail}}\n\
         filter:\n  rules: any\n  selection: {{eventName: b}}\n  selection_d: {{awsRegion: d}}\n  condition: {quoted}\n"
    );
    let file = RuleFile {
        path: "fuzzed.yml".into(),
        text,
    };
    let (set, _) = RuleSet::check(&[file], &Default::default());
    let engine = Engine::new(&set);
    let mut scratch = Scratch::new();
    for raw in [r#"{"eventName":"a"}"#, r#"{"eventName":"b","awsRegion":"c"}"#] {
        let doc = event::json::Doc::parse(raw.as_bytes()).unwrap();
        let event = Event {
            source: Str::from("aws.cloudtrail"),
            raw: raw.as_bytes().into(),
            ..Event::default()
        };
        engine.matches(&event, Some(doc.root(raw.as_bytes())), &mut scratch);
    }
});
