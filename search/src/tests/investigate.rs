//! Investigations over a small story: a person whose key is used from elsewhere, and assumes roles across accounts.

use event::{Event, Outcome, Time};

use super::{NOW, event, folder, searcher};
use crate::investigate::{Chain, Middle, Pivot, Usual};
use crate::{Config, Nodes, SearchError};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn did(number: u128, ago: i64, action: &str, src_ip: &str) -> Event {
    let mut event = event(number, ago, r#"{"a":1}"#);
    event.identity = "bob".into();
    event.action = action.into();
    event.src_ip = src_ip.into();
    event.access_key = "AKIABOB".into();
    (event.user_agent, event.outcome) = match action {
        "CreateUser" => ("curl/8 (x)".into(), Outcome::Denied),
        _ => ("aws-cli/2".into(), Outcome::Success),
    };
    event
}

fn assumed(number: u128, by: &str, key: &str, account: &str, shared: &str) -> Event {
    let raw = format!(
        r#"{{"eventName":"AssumeRole","responseElements":{{"credentials":{{"accessKeyId":"{key}"}},"assumedRoleUser":{{"arn":"arn:aws:sts::{account}:assumed-role/r/{key}"}}}}}}"#
    );
    let mut event = event(number, 600, &raw);
    event.action = "AssumeRole".into();
    event.access_key = by.into();
    event.account = account.into();
    event.shared_id = shared.into();
    event
}

#[test]
fn what_is_new_stands_out_from_what_is_usual() {
    let mut events: Vec<Event> = (1..=20)
        .map(|day| did(day as u128, day * DAY, "ListBuckets", "203.0.113.7"))
        .collect();
    // Much older: first seen, but no longer what is usual.
    events.push(did(100, 60 * DAY, "Old", "192.0.2.1"));
    events.push(did(101, HOUR, "ListBuckets", "203.0.113.9"));
    events.push(did(102, HOUR / 2, "CreateUser", "198.51.100.1"));
    events.push(did(103, -2 * HOUR, "CreateUser", "2001:db8:1:2::3"));
    let mut other = did(104, 60, "Else", "198.51.100.1");
    other.identity = "eve".into();
    events.push(other);
    let dir = folder(&[events]);
    let searcher = Nodes::from(searcher(dir.path(), &Config::default()));
    let pivot = Pivot {
        field: "identity".into(),
        value: "BOB".into(),
        around: Some(NOW),
        now: NOW,
        hours: 12,
        limit: 100,
    };
    let found = searcher.investigate(&pivot).unwrap();
    let numbers: Vec<u128> = found.events.iter().map(|e| e.id.0).collect();
    assert_eq!(numbers, [101, 102, 103], "the earliest first");
    assert_eq!((found.matched, found.usual), (3, 20));
    let ago = |seconds: i64| Some(Time(NOW.0 - seconds * 1_000_000));
    assert_eq!(
        (found.first_seen, found.last_seen),
        (ago(60 * DAY), ago(-2 * HOUR))
    );
    let values = |name: &str| {
        let aspect = found.profile.iter().find(|a| a.name == name).unwrap();
        aspect.values.clone()
    };
    let usual = |value: &str, window, before, new| Usual {
        value: value.into(),
        window,
        before,
        new,
    };
    assert_eq!(
        values("action"),
        [
            usual("CreateUser", 2, 0, true),
            usual("ListBuckets", 1, 20, false)
        ]
    );
    assert_eq!(
        values("network"),
        [
            usual("198.51.100.0/24", 1, 0, true),
            usual("2001:db8:1::/48", 1, 0, true),
            usual("203.0.113.0/24", 1, 20, false)
        ]
    );
    assert_eq!(
        values("user_agent"),
        [
            usual("curl/8 (x)", 2, 0, true),
            usual("aws-cli/2", 1, 20, false)
        ]
    );
    assert_eq!(found.failed, 2);
    let related: Vec<String> = found
        .related
        .iter()
        .map(|r| {
            let values = r.values.iter().map(|v| format!("{} {}", v.value, v.count));
            format!("{}: {}", r.field, values.collect::<Vec<_>>().join(", "))
        })
        .collect();
    assert_eq!(
        related,
        [
            "access_key: AKIABOB 3",
            "src_ip: 198.51.100.1 1, 2001:db8:1:2::3 1, 203.0.113.9 1"
        ]
    );
    let address = searcher
        .investigate(&Pivot {
            field: "src_ip".into(),
            value: "198.51.100.1".into(),
            ..pivot.clone()
        })
        .unwrap();
    let who = address.profile.iter().find(|a| a.name == "identity");
    let who: Vec<&str> = who.unwrap().values.iter().map(|v| &*v.value).collect();
    assert_eq!(who, ["bob", "eve"], "who used the address");
    let nobody = searcher
        .investigate(&Pivot {
            value: "eve".into(),
            ..pivot.clone()
        })
        .unwrap();
    assert!(
        nobody
            .profile
            .iter()
            .flat_map(|a| &a.values)
            .all(|v| !v.new),
        "nothing is known from before"
    );
    let wrong = Pivot {
        field: "raw".into(),
        ..pivot
    };
    assert!(matches!(
        searcher.investigate(&wrong),
        Err(SearchError::Pivot(_))
    ));
}

#[test]
fn without_a_time_it_is_now_or_the_last_event() {
    let events: Vec<Event> = (0..40)
        .map(|i| {
            did(
                i + 1,
                10 * DAY - i as i64 * 60,
                "ListBuckets",
                "203.0.113.7",
            )
        })
        .collect();
    let last = events.last().unwrap().time;
    let mut late = did(100, 60, "Recent", "203.0.113.7");
    late.identity = "eve".into();
    let mut future = did(101, -400 * DAY, "Future", "203.0.113.7");
    future.identity = "eve".into();
    let dir = folder(&[events, vec![late, future]]);
    let searcher = Nodes::from(searcher(dir.path(), &Config::default()));
    let ask = |value: &str, around: Option<Time>, limit: usize| {
        let pivot = Pivot {
            field: "identity".into(),
            value: value.into(),
            around,
            now: NOW,
            hours: 1,
            limit,
        };
        searcher.investigate(&pivot).unwrap()
    };
    let found = ask("bob", None, 100);
    assert_eq!((found.around, found.middle), (last, Middle::LastSeen));
    assert_eq!((found.events.len(), found.matched), (40, 40));
    let found = ask("eve", None, 100);
    assert_eq!((found.around, found.middle), (NOW, Middle::Now));
    assert_eq!(
        found.events.len(),
        1,
        "what lies in the future is no reason"
    );
    let found = ask("nobody", None, 100);
    assert_eq!((found.around, found.middle), (NOW, Middle::Now));
    assert_eq!((found.first_seen, found.last_seen), (None, None));
    let found = ask("bob", Some(NOW), 100);
    assert_eq!((found.matched, found.middle), (0, Middle::Asked));
    assert_eq!(found.last_seen, Some(last), "told all the same");
}

#[test]
fn of_many_events_those_nearest_to_the_middle_are_given() {
    let events: Vec<Event> = (1..=20)
        .map(|i| did(i, 100 - i as i64, "ListBuckets", "203.0.113.7"))
        .collect();
    let at = |number: usize| events[number - 1].time;
    let dir = folder(std::slice::from_ref(&events));
    let searcher = Nodes::from(searcher(dir.path(), &Config::default()));
    for (around, limit, expected) in [
        (at(10), 4, vec![8, 9, 10, 11]),
        (at(10), 5, vec![8, 9, 10, 11, 12]),
        (at(1), 4, vec![1, 2, 3, 4]),
        (at(20), 4, vec![17, 18, 19, 20]),
        (at(20).plus(1), 4, vec![17, 18, 19, 20]),
        (at(10), 0, vec![]),
        (at(10), 20, (1..=20).collect()),
    ] {
        let pivot = Pivot {
            field: "access_key".into(),
            value: "AKIABOB".into(),
            around: Some(around),
            now: NOW,
            hours: 1,
            limit,
        };
        let found = searcher.investigate(&pivot).unwrap();
        let numbers: Vec<u128> = found.events.iter().map(|e| e.id.0).collect();
        assert_eq!((numbers, found.matched), (expected, 20));
    }
}

#[test]
fn sessions_are_followed_across_accounts() {
    let events = vec![
        // Bob's key makes a session in his account, which makes one in another account.
        assumed(1, "AKIABOB", "ASIA1", "111111111111", ""),
        assumed(2, "ASIA1", "ASIA2", "111111111111", "shared"),
        // The account of the role records the same; there nobody's key is told.
        assumed(3, "", "ASIA2", "222222222222", "shared"),
        assumed(4, "ASIA2", "ASIA3", "222222222222", ""),
        assumed(5, "AKIAEVE", "ASIA9", "111111111111", ""),
    ];
    let dir = folder(&[events]);
    let searcher = Nodes::from(searcher(dir.path(), &Config::default()));
    let Chain { up, down, .. } = searcher.role_chain("ASIA2").unwrap();
    let keys: Vec<(&str, &str)> = up
        .iter()
        .map(|l| (l.by.as_str(), l.access_key.as_str()))
        .collect();
    assert_eq!(keys, [("ASIA1", "ASIA2"), ("AKIABOB", "ASIA1")]);
    let elsewhere: Vec<&str> = up[0].elsewhere.iter().map(|e| e.account.as_str()).collect();
    assert_eq!(elsewhere, ["222222222222"]);
    assert_eq!(
        up[0].session,
        "arn:aws:sts::111111111111:assumed-role/r/ASIA2"
    );
    let keys: Vec<&str> = down.iter().map(|l| l.access_key.as_str()).collect();
    assert_eq!(keys, ["ASIA3"]);
    let Chain { up, down, .. } = searcher.role_chain("AKIABOB").unwrap();
    assert!(up.is_empty());
    let keys: Vec<&str> = down.iter().map(|l| l.access_key.as_str()).collect();
    assert_eq!(keys, ["ASIA1", "ASIA2", "ASIA3"]);
}
