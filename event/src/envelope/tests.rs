//! The envelope as it is stored, and what may stand in for it.

use super::*;

fn event() -> Event {
    let mut flags = Flags::default();
    flags.set(Flag::DupKeys);
    Event {
        id: Id(7),
        source_id: "e-1".into(),
        source: "aws.cloudtrail".into(),
        time: Time::parse("2026-03-02T00:00:00Z").unwrap(),
        mfa: Some(false),
        resources: vec!["arn:a".into(), "arn:b".into()],
        labels: [("owner".into(), "platform".into())].into(),
        invocation: Some(Box::new(Invocation {
            duration_ms: Some(12.5),
            status: "timeout".into(),
            ..Invocation::default()
        })),
        flags,
        raw: Bytes::from_static(b"{\"a\":1,  \"a\":2}\xff"),
        ..Event::default()
    }
}

#[test]
fn the_frame_keeps_every_byte() {
    let event = event();
    let frame = Bytes::from(event.encode());
    assert_eq!(Event::decode(&frame).unwrap(), event);
    for cut in 0..frame.len() - event.raw.len() {
        assert!(Event::decode(&frame.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn every_name_is_known_and_reads_as_text() {
    let event = event();
    let json = event.to_json();
    for name in Event::NAMES {
        assert!(is_normalized_name(name), "{name}");
        let has = json.get(name).is_some() || matches!(*name, "late");
        assert_eq!(event.normalized(name) != Normalized::Absent, has, "{name}");
    }
    for (name, text) in [
        ("labels.owner", "platform"),
        ("invocation.duration_ms", "12.5"),
        ("invocation.status", "timeout"),
        ("mfa", "false"),
    ] {
        assert_eq!(
            event.normalized(name),
            Normalized::Text(text.into()),
            "{name}"
        );
    }
    assert_eq!(event.normalized("eventName"), Normalized::Absent);
    assert!(!is_normalized_name("userIdentity.type"));
}

#[test]
fn json_shows_what_is_no_json_as_text() {
    let json = Event {
        raw: Bytes::from_static(b"START RequestId"),
        ..event()
    }
    .to_json();
    assert_eq!(json["raw"], "START RequestId");
    assert_eq!(json["flags"], serde_json::json!(["dup_keys"]));
}
