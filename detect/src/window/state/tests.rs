//! Windows that are stored come back as they were.

use event::Severity;

use super::super::Correlation;
use super::super::matches::Chain;
use super::super::measure::Condition;
use super::super::windows::{Options, Windows};
use super::*;

const SECOND: i64 = 1_000_000;

/// A group as it was stored when there was nothing but numbers of matches, under the name of then.
#[test]
fn what_an_older_version_stored_goes_on() {
    let rule = Correlation {
        rule_id: "r".into(),
        title: "t".into(),
        severity: Severity::High,
        tags: Vec::new(),
        staged: false,
        group_by: Vec::new(),
        timespan: 10 * SECOND,
        condition: Condition::at_least(3),
        chain: Chain::default(),
        semantics: 7,
    };
    let parts: [&[u8]; 5] = [
        b"r",
        &7_u64.to_le_bytes(),
        &(10 * SECOND).to_le_bytes(),
        &3_u64.to_le_bytes(),
        b"",
    ];
    let namespace = Id::of("window", &parts);
    let zero = Id(0);
    let context = serde_json::to_value(Finding::default()).unwrap();
    let row = serde_json::json!({
        "rule": "r",
        "namespace": namespace,
        "group": {},
        "contexts": [context],
        "loose": [[20 * SECOND, Id(4), "four", 0, false], [21 * SECOND, Id(5), "five", 0, true]],
        "episodes": [{
            "first": [5 * SECOND, zero, Id(3)],
            "context": 0,
            "last": 5 * SECOND,
            "count": 3,
            "earliest": [[SECOND, Id(1), "one"], [2 * SECOND, Id(2), "two"], [5 * SECOND, Id(3), "three"]],
            "latest": [[SECOND, zero, Id(1)], [2 * SECOND, zero, Id(2)], [5 * SECOND, zero, Id(3)]],
            "sealed": true,
            "late": false,
            "said": null,
        }],
        "reopened": null,
    });
    let key = Id(namespace.0 ^ super::super::group_key("r", &BTreeMap::new()).0);
    let rows = [
        (group_row(key), serde_json::to_vec(&row).unwrap()),
        (
            STAGE_KEY.to_vec(),
            br#"{"watermark":4000000,"inputs":{},"floods":{}}"#.to_vec(),
        ),
    ];
    let options = Options::default();
    let mut windows = Windows::restore(std::slice::from_ref(&rule), options, &rows).unwrap();
    assert_eq!(
        (windows.groups(), windows.settled_to()),
        (1, Some(Time(4 * SECOND)))
    );
    // A match as an older match stage wrote it.
    let context = serde_json::to_value(Finding {
        event_ids: vec!["six".into()],
        ..Finding::default()
    });
    let record = serde_json::json!({"match": {
        "correlation": "r", "group": {}, "time": "1970-01-01T00:00:12Z", "id": Id(6),
        "partition": 0, "offset": 9, "context": context.unwrap(),
    }});
    let record = super::super::MatchRecord::decode(&serde_json::to_vec(&record).unwrap());
    let Ok(super::super::MatchRecord::Match(m)) = record else {
        panic!("{record:?}");
    };
    let mut out = Vec::new();
    windows.process(m, &mut out);
    let said: Vec<(Vec<&str>, i64)> = out
        .iter()
        .map(|f| {
            (
                f.event_ids.iter().map(Str::as_str).collect(),
                f.last_event_time.0 / SECOND,
            )
        })
        .collect();
    // It fires with what was inside, and makes the fifth fire, which is near enough to join.
    let evidence = vec!["one", "two", "three", "six", "four", "five"];
    assert_eq!(said, [(evidence, 21)]);
}
