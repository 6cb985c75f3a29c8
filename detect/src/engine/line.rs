//! The finding of a single-event rule as JSON, written without making a [`Finding`].
//!
//! `hunt` writes a finding for every second event of a folder. What a [`Line`] says of the rule is made once, and what
//! the event adds is copied between. The bytes are those that serde writes of [`Engine::finding`]: a test holds that
//! over random events, so that a key added there and forgotten here is seen.

use std::collections::BTreeMap;

use event::{Event, Finding, Id, Str};

use super::Engine;
use crate::automation;

/// What a rule says in each of its findings.
#[derive(Debug)]
pub(super) struct Line {
    /// From the rule's id to its severity.
    head: Vec<u8>,
    /// Its tags.
    tags: Vec<u8>,
    staged: bool,
}

impl Line {
    pub(super) fn new(info: &event::RuleInfo, tags: &[Str]) -> Line {
        let mut head = Vec::new();
        member(&mut head, "rule_id", &info.id);
        member(&mut head, "title", &info.title);
        member(&mut head, "severity", info.severity.as_str());
        let mut of_tags = b",\"tags\":".to_vec();
        list(&mut of_tags, tags);
        Line {
            head,
            tags: of_tags,
            staged: info.staged,
        }
    }

    fn write(&self, id: Id, event: &Event, out: &mut Vec<u8>) {
        let (mut id_text, mut time_text, mut own) = ([0; 32], [0; 27], [0; 32]);
        let id = id.encode(&mut id_text);
        let time = event.time.encode(&mut time_text);
        let shown = event.shown_id();
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(id.as_bytes());
        out.push(b'"');
        out.extend_from_slice(&self.head);
        for key in ["time", "first_event_time", "last_event_time"] {
            member(out, key, time);
        }
        out.extend_from_slice(b",\"count\":1,\"group\":{},\"event_ids\":");
        list(out, std::slice::from_ref(&shown));
        member(out, "source", &event.source);
        member(out, "account", &event.account);
        member(out, "region", &event.region);
        member(out, "episode", id);
        member(out, "actor", &event.actor);
        out.extend_from_slice(&self.tags);
        out.extend_from_slice(if event.late {
            b",\"late\":true,\"evidence\":[\""
        } else {
            b",\"late\":false,\"evidence\":[\""
        });
        out.extend_from_slice(event.id.encode(&mut own).as_bytes());
        out.extend_from_slice(b"\"]");
        for (key, value) in [
            ("identity", &event.identity),
            ("session", &event.session),
            ("access_key", &event.access_key),
            ("src_ip", &event.src_ip),
            ("action", &event.action),
            ("function", &event.function),
        ] {
            if !value.is_empty() {
                member(out, key, value);
            }
        }
        if !event.resources.is_empty() {
            out.extend_from_slice(b",\"resources\":");
            list(out, &event.resources);
        }
        if self.staged {
            out.extend_from_slice(b",\"staged\":true");
        }
        if !event.labels.is_empty() {
            labels(out, &event.labels);
        }
        out.push(b'}');
    }
}

impl Engine {
    /// Writes the finding of a rule that matched an event behind what is in `out`, as [`Engine::finding`] would be as
    /// JSON.
    pub fn write_finding(&self, rule: u32, event: &Event, out: &mut Vec<u8>) {
        if automation::recognised(&self.automations, event).is_some() {
            serde_json::to_writer(out, &self.finding(rule, event))
                .expect("texts, numbers and maps with text keys");
            return;
        }
        let rule = &self.rules[rule as usize];
        let id = Finding::event_id(&rule.info.id, event.id);
        rule.line.write(id, event, out);
    }
}

fn member(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    string(out, value);
}

fn list(out: &mut Vec<u8>, values: &[Str]) {
    out.push(b'[');
    for (n, value) in values.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        string(out, value);
    }
    out.push(b']');
}

fn labels(out: &mut Vec<u8>, labels: &BTreeMap<Str, Str>) {
    out.extend_from_slice(b",\"labels\":{");
    for (n, (name, value)) in labels.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// A JSON string. Nearly none has anything to escape.
fn string(out: &mut Vec<u8>, text: &str) {
    // Without a way out in the middle, so that many bytes are looked at in one step.
    let odd = text.bytes().fold(false, |odd, b| {
        odd | (b < 0x20) | (b == b'"') | (b == b'\\')
    });
    if odd {
        serde_json::to_writer(out, text).expect("a text is a JSON string");
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use event::{Event, Id, Str, Time};
    use proptest::prelude::*;

    use crate::engine::Engine;
    use crate::item::Placeholders;
    use crate::rule_set::{RuleFile, RuleSet};

    fn text() -> impl Strategy<Value = Str> {
        prop_oneof![
            Just(String::new()),
            "[a-z0-9:/-]{1,60}",
            ".{0,12}",
            "[\"\\\\\n\u{1}\u{7f}é]{1,4}"
        ]
        .prop_map(Str::from)
    }

    proptest! {
        #[test]
        fn the_same_bytes_as_serde_writes(
            texts in prop::collection::vec(text(), 11),
            resources in prop::collection::vec(text(), 0..3),
            labels in prop::collection::btree_map(text(), text(), 0..3),
            late in any::<bool>(),
            id in any::<u128>(),
            time in any::<i64>(),
            automated in any::<bool>(),
        ) {
            let next = |n: usize| texts[n].clone();
            let event = Event {
                id: Id(id),
                time: Time(time),
                late,
                source_id: next(0),
                source: next(1),
                account: next(2),
                region: next(3),
                actor: next(4),
                identity: next(5),
                session: next(6),
                access_key: next(7),
                src_ip: if automated { "192.0.2.1".into() } else { next(8) },
                action: next(9),
                function: next(10),
                issuer: if automated { "arn:aws:iam::1:role/ci".into() } else { Str::default() },
                resources,
                labels,
                ..Event::default()
            };
            let engine = engine();
            for rule in 0..engine.len() as u32 {
                let mut out = b"before".to_vec();
                engine.write_finding(rule, &event, &mut out);
                let expected = serde_json::to_string(&engine.finding(rule, &event)).unwrap();
                prop_assert_eq!(std::str::from_utf8(&out).unwrap(), format!("before{expected}"));
            }
        }
    }

    const RULES: &str = "\
title: 'a \"title\" \\ with é'
id: 929a690e-bef0-4204-a928-ef5e620d6fcc
logsource: {product: aws}
detection: {sel: {action: StopLogging}, condition: sel}
level: high
tags: [attack.t1078, attack.initial-access]
---
title: Tried out
staging: true
logsource: {product: aws}
detection: {sel: {action: StopLogging}, condition: sel}
---
title: Terraform acts from elsewhere than its runners
id: 0b9f0f4e-7f6a-4b83-9a55-1f0e5ad3c101
name: terraform
automation:
  roles: ['arn:aws:iam::*:role/ci']
  networks: [203.0.113.0/28]
";

    fn engine() -> &'static Engine {
        static ENGINE: std::sync::OnceLock<Engine> = std::sync::OnceLock::new();
        ENGINE.get_or_init(|| {
            let file = RuleFile {
                path: "r.yml".into(),
                text: RULES.into(),
            };
            Engine::new(&RuleSet::build(&[file], &Placeholders::new()).unwrap())
        })
    }
}
