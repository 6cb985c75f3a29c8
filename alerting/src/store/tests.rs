//! The store as its callers see it: batches in, alerts, incidents and notifications out.

mod nodes;
mod saved;

use std::collections::{BTreeMap, BTreeSet};

use event::{Finding, Id, Severity, Str, Time};
use proptest::prelude::*;

use super::testing::{self, Home, Place, places};
use super::*;
use crate::alert::{Action, Alert};
use crate::config::{Config, PostgresConfig};
use crate::outbox::{Outcome, SendError, Sent};
use crate::silence::NewSilence;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

fn policy(json: &str) -> Policy {
    let config: Config = serde_json::from_str(json).unwrap();
    Policy::new(&config).unwrap()
}

/// Everything goes to `soc`, what is high or worse to `pager` too, which falls back to `soc`.
fn two_receivers() -> Policy {
    policy(
        r#"{"group_wait_seconds": 0,
            "receivers": [{"name": "soc", "webhook": {}}, {"name": "pager", "webhook": {}, "fallback": "soc"}],
            "route": {"receiver": "soc", "routes": [
                {"min_severity": "high", "receiver": "pager", "continue": true},
                {"receiver": "soc"}]}}"#,
    )
}

struct Bench {
    store: Store,
    next: Offset,
    home: Home,
}

impl Bench {
    fn new(place: &Place, policy: Policy) -> Bench {
        let home = Home::new(place);
        let store = home.open(policy).unwrap();
        Bench {
            store,
            next: 0,
            home,
        }
    }

    fn reopen(self, policy: Policy) -> Bench {
        let Bench { store, next, home } = self;
        drop(store);
        let store = home.open(policy).unwrap();
        Bench { store, next, home }
    }

    fn apply(&mut self, findings: &[Finding], now: i64) -> Applied {
        let from = self.next;
        self.next += findings.len() as u64;
        let batch: Vec<_> = (from..).zip(findings.iter().cloned()).collect();
        self.store
            .apply(&batch, 0, from, self.next, Time(now))
            .unwrap()
    }

    fn alerts(&self) -> Vec<Alert> {
        self.store.alerts(&Filter::default()).unwrap()
    }

    /// Receiver, reason and severity of all notifications, in order.
    fn told(&self) -> Vec<String> {
        let mut all = self
            .store
            .notifications(&NotificationFilter::default())
            .unwrap();
        all.reverse();
        all.iter()
            .map(|n| format!("{} {} {}", n.receiver, n.reason.as_str(), n.severity))
            .collect()
    }

    /// Sends all that is due to a receiver.
    fn send(&self, receiver: &str, now: i64) -> usize {
        let mut sent = 0;
        while let Some(leased) = self.store.lease(receiver, SECOND, Time(now)).unwrap() {
            self.store
                .settle(&leased.notification, &Outcome::Sent, Time(now))
                .unwrap();
            sent += 1;
        }
        sent
    }
}

/// A match of a single-event rule.
fn single(id: u128, actor: &str, at: i64, severity: Severity) -> Finding {
    Finding {
        id: Id(id),
        episode: Id(id),
        rule_id: "rule".into(),
        title: "Root was used".into(),
        severity,
        time: Time(at),
        first_event_time: Time(at),
        last_event_time: Time(at),
        count: 1,
        event_ids: vec![format!("e{id}").into()],
        evidence: vec![Id(id)],
        account: "1".into(),
        actor: actor.into(),
        identity: actor.into(),
        ..Finding::default()
    }
}

/// One revision of a correlation's episode.
fn episode(id: u128, revision: u64, count: u64, severity: Severity) -> Finding {
    Finding {
        id: Id(id),
        episode: Id(id + 1_000),
        rule_id: "correlation".into(),
        title: "Brute force".into(),
        severity,
        time: Time(0),
        last_event_time: Time(count as i64 * SECOND),
        count,
        episodic: true,
        group: [("sourceIPAddress".into(), Some("192.0.2.1".into()))].into(),
        revision,
        identity: "ana".into(),
        ..Finding::default()
    }
}

#[test]
fn an_episode_is_one_alert_and_one_page() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        let applied = b.apply(&[episode(1, 0, 5, Severity::Medium)], 10);
        assert_eq!((applied.opened[2], applied.enqueued), (1, 1));
        b.apply(
            &[
                episode(1, 1, 6, Severity::Medium),
                episode(1, 2, 7, Severity::Medium),
            ],
            20,
        );
        b.apply(&[episode(1, 1, 6, Severity::Medium)], 30);
        let alerts = b.alerts();
        assert_eq!(alerts.len(), 1);
        assert_eq!(
            (alerts[0].id, alerts[0].count, alerts[0].revision),
            (Id(1_001), 7, 2)
        );
        assert_eq!(b.told(), ["soc first medium"]);
        assert_eq!(
            b.store.alert_of_finding(Id(1)).unwrap(),
            Some(alerts[0].clone())
        );
    }
}

#[test]
fn an_attacker_who_trips_many_rules_is_one_incident() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        for i in 0..8_u128 {
            let rule = Finding {
                rule_id: format!("rule {i}").into(),
                ..single(i + 1, "mallory", i as i64, Severity::Medium)
            };
            b.apply(&[rule], i as i64);
            b.send("soc", i as i64);
        }
        assert_eq!(b.alerts().len(), 8);
        assert_eq!(b.store.incidents(true, None, 0).unwrap().len(), 1);
        assert_eq!(b.told(), ["soc first medium"]);
        b.apply(&[episode(90, 0, 9, Severity::High)], 50);
        assert_eq!(
            b.store.incidents(true, None, 0).unwrap().len(),
            2,
            "ana is somebody else"
        );
        let rise = Finding {
            identity: "mallory".into(),
            ..episode(91, 0, 9, Severity::High)
        };
        b.apply(&[rise], 60);
        assert_eq!(
            b.told()[1..],
            [
                "pager first high",
                "soc first high",
                "pager first high",
                "soc severity_rose high"
            ]
        );
    }
}

#[test]
fn a_worse_alert_within_the_group_wait_is_the_same_page() {
    for place in places() {
        let mut b = Bench::new(
            &place,
            policy(
                r#"{"group_wait_seconds": 5, "receivers": [{"name": "soc", "webhook": {}}], "route": {"receiver": "soc"}}"#,
            ),
        );
        b.apply(&[single(1, "ana", 0, Severity::Low)], 0);
        b.apply(
            &[Finding {
                rule_id: "other".into(),
                ..single(2, "ana", 0, Severity::Critical)
            }],
            SECOND,
        );
        assert_eq!(b.told(), ["soc first critical"]);
        assert_eq!(
            b.store.lease("soc", SECOND, Time(4 * SECOND)).unwrap(),
            None
        );
        let leased = b
            .store
            .lease("soc", SECOND, Time(5 * SECOND))
            .unwrap()
            .unwrap();
        assert_eq!(leased.notification.alert, Id(2));
    }
}

#[test]
fn an_episode_without_a_group_that_begins_with_one_event_is_one_alert() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        let said = |revision, count| Finding {
            episode: Id(1),
            group: BTreeMap::new(),
            ..episode(1, revision, count, Severity::Medium)
        };
        b.apply(&[said(0, 1)], 10);
        b.apply(&[said(1, 2)], 20);
        let alerts = b.alerts();
        assert_eq!(alerts.len(), 1);
        assert_eq!((alerts[0].count, alerts[0].revision), (2, 1));
        assert_eq!(b.send("soc", 100), 1);
    }
}

#[test]
fn incidents_that_become_one_before_anybody_is_told_are_told_of_once() {
    let one = || {
        policy(
            r#"{"group_wait_seconds": 30, "receivers": [{"name": "soc", "webhook": {}}], "route": {"receiver": "soc"}}"#,
        )
    };
    let (medium, high) = (Severity::Medium, Severity::High);
    for place in places() {
        for severities in [(medium, high), (high, medium), (medium, medium)] {
            let mut b = Bench::new(&place, one());
            let of = |id, actor: &str, key: &str, severity| Finding {
                rule_id: format!("rule {id}").into(),
                access_key: key.into(),
                ..single(id, actor, 0, severity)
            };
            b.apply(&[of(1, "ana", "", severities.0)], 1);
            b.apply(&[of(2, "bob", "K", severities.1)], 2);
            assert_eq!(b.store.incidents(true, None, 0).unwrap().len(), 2);
            b.apply(&[of(3, "ana", "K", Severity::Low)], 3);
            assert_eq!(b.store.incidents(true, None, 0).unwrap().len(), 1);
            let leased = b.store.lease("soc", SECOND, Time(40 * SECOND)).unwrap();
            let told = leased.unwrap().notification;
            assert_eq!(told.severity, severities.0.max(severities.1));
            b.store
                .settle(&told, &Outcome::Sent, Time(41 * SECOND))
                .unwrap();
            assert_eq!(b.send("soc", 100 * SECOND), 0, "told once: {severities:?}");
        }
    }
}

#[test]
fn a_merged_alert_is_over_and_never_told_again() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[episode(1, 0, 5, Severity::Medium)], 0);
        b.apply(
            &[Finding {
                identity: "bob".into(),
                ..episode(2, 0, 5, Severity::Medium)
            }],
            0,
        );
        b.send("soc", 0);
        let merged = Finding {
            merged_into: Some(Id(1)),
            ..episode(2, 1, 5, Severity::Medium)
        };
        b.apply(std::slice::from_ref(&merged), 1);
        b.apply(
            &[Finding {
                revision: 2,
                ..merged
            }],
            2,
        );
        assert_eq!(b.alerts().len(), 1);
        let gone = b.store.alert(Id(1_002)).unwrap().unwrap();
        assert_eq!((gone.merged_into, gone.is_open()), (Some(Id(1_001)), false));
        assert_eq!(b.told(), ["soc first medium", "soc first medium"]);
        assert_eq!(b.store.incidents(true, None, 0).unwrap().len(), 1);
        let refused = b.store.acknowledge(Id(1_002), "ana", None, Time(3));
        assert!(
            matches!(refused, Err(StoreError::Refused(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_merge_into_an_episode_not_heard_of_yet_waits_for_it() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[episode(2, 0, 5, Severity::Medium)], 0);
        // The target is named by its episode here, by the finding's id in the test above.
        b.apply(
            &[Finding {
                merged_into: Some(Id(1_001)),
                ..episode(2, 1, 5, Severity::Medium)
            }],
            1,
        );
        assert_eq!(b.alerts().len(), 1, "still an alert of its own");
        b.apply(&[episode(1, 0, 5, Severity::Medium)], 2);
        assert_eq!(
            b.alerts().iter().map(|a| a.id).collect::<Vec<_>>(),
            [Id(1_001)]
        );
        assert_eq!(b.told(), ["soc first medium"]);
    }
}

#[test]
fn people_and_versions() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[single(1, "ana", 0, Severity::High)], 0);
        let id = Id(1);
        let seen = b.alerts()[0].version;
        let taken = b.store.acknowledge(id, "kim", Some(seen), Time(1)).unwrap();
        assert_eq!(
            (taken.state, taken.assignee.as_str()),
            (State::Acknowledged, "kim")
        );
        let late = b.store.resolve(id, "lee", "", Some(seen), Time(2));
        assert!(
            matches!(late, Err(StoreError::Conflict { given: 1, found: 2 })),
            "{late:?}"
        );
        b.apply(&[single(2, "ana", 5, Severity::High)], 3);
        let version = b.alerts()[0].version;
        assert_eq!(
            version, taken.version,
            "findings do not take an alert out of somebody's hands"
        );
        b.store
            .comment(id, "kim", "known test", Some(version), Time(4))
            .unwrap();
        b.store.assign(id, "kim", "lee", None, Time(5)).unwrap();
        let over = b.store.resolve(id, "lee", "a test", None, Time(6)).unwrap();
        assert_eq!(over.comments.len(), 2);
        let history: Vec<_> = b
            .store
            .history(id)
            .unwrap()
            .into_iter()
            .map(|h| (h.who, h.action))
            .collect();
        let by = |who: &str, action| (who.to_owned(), action);
        assert_eq!(
            history,
            [
                by("trailwarden", Action::Opened),
                by("kim", Action::Acknowledged),
                by("kim", Action::Commented),
                by("kim", Action::Assigned),
                by("lee", Action::Resolved),
            ]
        );
        assert_eq!(
            b.told(),
            [
                "pager first high",
                "soc first high",
                "pager resolved high",
                "soc resolved high"
            ]
        );
        let nobody = b.store.comment(Id(77), "kim", "x", None, Time(7));
        assert!(matches!(nobody, Err(StoreError::NotFound("alert"))));
        b.apply(&[single(3, "ana", 7, Severity::High)], 8);
        assert_eq!(b.told()[4..], ["pager reopened high", "soc reopened high"]);
    }
}

#[test]
fn a_whole_incident_is_taken_and_resolved_at_once() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        for i in 1..=3_u128 {
            let rule_id = format!("rule {i}").into();
            let finding = Finding {
                rule_id,
                ..single(i, "ana", 0, Severity::Low)
            };
            b.apply(&[finding], 0);
        }
        b.store.acknowledge(Id(2), "lee", None, Time(1)).unwrap();
        let incident = b.alerts()[0].incident;
        assert_eq!(
            b.store
                .acknowledge_incident(incident, "kim", Time(2))
                .unwrap(),
            2
        );
        assert_eq!(b.store.alert(Id(2)).unwrap().unwrap().assignee, "lee");
        let taken = b.store.incident(incident).unwrap().unwrap();
        assert_eq!((taken.state, taken.alerts), (State::Acknowledged, 3));
        assert_eq!(
            b.store
                .resolve_incident(incident, "kim", "a test", Time(3))
                .unwrap(),
            3
        );
        assert_eq!(
            b.store
                .resolve_incident(incident, "kim", "", Time(4))
                .unwrap(),
            0
        );
        assert_eq!(b.told(), ["soc first low", "soc resolved low"]);
        assert!(b.store.incidents(true, None, 0).unwrap().is_empty());
        let nothing = b.store.acknowledge_incident(Id(77), "kim", Time(5));
        assert!(matches!(nothing, Err(StoreError::NotFound("incident"))));
    }
}

#[test]
fn quiet_alerts_are_resolved_and_reminders_sent() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[single(1, "ana", 0, Severity::Low)], 0);
        b.send("soc", 0);
        for hour in 1..=3 {
            b.store.tick(Time(hour * HOUR)).unwrap();
        }
        assert_eq!(b.told().len(), 1);
        b.store.tick(Time(4 * HOUR)).unwrap();
        b.store.tick(Time(9 * HOUR)).unwrap();
        assert_eq!(
            b.told(),
            ["soc first low", "soc repeat low"],
            "the reminder has not gone out yet"
        );
        b.send("soc", 9 * HOUR);
        b.store
            .acknowledge(Id(1), "kim", None, Time(9 * HOUR))
            .unwrap();
        b.store.tick(Time(20 * HOUR)).unwrap();
        assert_eq!(b.told().len(), 2);
        assert_eq!(b.store.tick(Time(24 * HOUR)).unwrap().resolved, 1);
        assert_eq!(b.told()[2..], ["soc resolved low"]);
        assert_eq!(b.alerts()[0].state, State::Resolved);
        assert_eq!(b.store.tick(Time(99 * HOUR)).unwrap(), Applied::default());
    }
}

#[test]
fn a_silence_keeps_the_alert_and_holds_the_page_back() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        let silence = NewSilence {
            matchers: vec!["actor=\"ana\"".into()],
            ends: Time(HOUR),
            comment: "planned".into(),
            ..NewSilence::default()
        };
        let made = b.store.add_silence(&silence, "kim", Time(1)).unwrap();
        assert_eq!(
            b.store.silences(false, Time(2)).unwrap(),
            std::slice::from_ref(&made)
        );
        b.apply(&[single(1, "ana", 0, Severity::Low)], 2);
        assert_eq!((b.alerts().len(), b.told().len()), (1, 0));
        b.store.tick(Time(HOUR - 1)).unwrap();
        assert_eq!(b.told().len(), 0);
        b.store.tick(Time(HOUR)).unwrap();
        assert_eq!(b.told(), ["soc first low"]);
        let mut b = Bench::new(&place, two_receivers());
        let made = b.store.add_silence(&silence, "kim", Time(1)).unwrap();
        b.apply(&[single(1, "ana", 0, Severity::Low)], 2);
        b.store.expire_silence(made.id, "lee", Time(3)).unwrap();
        b.store.tick(Time(4)).unwrap();
        assert_eq!(b.told(), ["soc first low"]);
        assert_eq!(
            b.store.silences(true, Time(4)).unwrap()[0].expired_by,
            "lee"
        );
        assert!(b.store.silences(false, Time(4)).unwrap().is_empty());
    }
}

#[test]
fn one_sends_and_a_lost_lease_counts_as_doubt() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[single(1, "ana", 0, Severity::Low)], 0);
        let first = b.store.lease("soc", 10 * SECOND, Time(0)).unwrap().unwrap();
        assert_eq!(
            b.store.lease("soc", 10 * SECOND, Time(9 * SECOND)).unwrap(),
            None
        );
        let b = b.reopen(two_receivers());
        let second = b
            .store
            .lease("soc", 10 * SECOND, Time(10 * SECOND))
            .unwrap()
            .unwrap();
        assert_eq!(
            (second.notification.attempts, second.notification.ambiguous),
            (2, 1)
        );
        assert_eq!(
            first.notification.idempotency_key(),
            second.notification.idempotency_key()
        );
        assert!(
            !b.store
                .settle(&first.notification, &Outcome::Sent, Time(11 * SECOND))
                .unwrap()
        );
        assert!(
            b.store
                .settle(&second.notification, &Outcome::Sent, Time(11 * SECOND))
                .unwrap()
        );
        assert_eq!(b.store.outbox_depth().unwrap(), (0, 0));
    }
}

#[test]
fn what_is_dead_goes_to_the_fallback_and_can_be_sent_again() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[single(1, "ana", 0, Severity::High)], 0);
        assert_eq!(b.send("soc", 0), 1);
        let leased = b.store.lease("pager", SECOND, Time(0)).unwrap().unwrap();
        let refused = crate::outbox::settle(
            Err(SendError::Permanent {
                reason: "answered 403".into(),
            }),
            &leased.notification.idempotency_key(),
            1,
            leased.give_up_at,
            Time(1),
        );
        b.store
            .settle(&leased.notification, &refused, Time(1))
            .unwrap();
        assert_eq!(b.store.outbox_depth().unwrap(), (1, 1));
        let stand_in = b
            .store
            .lease("soc", SECOND, Time(1))
            .unwrap()
            .unwrap()
            .notification;
        assert_eq!(stand_in.instead_of.as_deref(), Some("pager"));
        assert_eq!(stand_in.number, 1);
        let again = b
            .store
            .resend(leased.notification.id, "kim", Time(2))
            .unwrap();
        assert_eq!(again.delivery, Delivery::Pending);
        assert_eq!(b.send("pager", 3), 1);
        assert!(
            b.store
                .resend(leased.notification.id, "kim", Time(4))
                .is_err()
        );
        let ok = crate::outbox::settle(Ok(Sent::default()), "k", 1, Time(9), Time(1));
        assert_eq!(ok, Outcome::Sent);
    }
}

#[test]
fn notifications_of_one_incident_go_out_in_order() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[single(1, "ana", 0, Severity::Low)], 0);
        let first = b.store.lease("soc", SECOND, Time(0)).unwrap().unwrap();
        b.store.resolve(Id(1), "kim", "", None, Time(1)).unwrap();
        b.apply(&[single(2, "bob", 0, Severity::Low)], 2);
        let retry = Outcome::Retry {
            at: Time(HOUR),
            ambiguous: false,
            error: "away".into(),
        };
        b.store
            .settle(&first.notification, &retry, Time(2))
            .unwrap();
        let next = b
            .store
            .lease("soc", SECOND, Time(3))
            .unwrap()
            .unwrap()
            .notification;
        assert_eq!(next.alert, Id(2), "another incident need not wait");
        assert_eq!(b.store.lease("soc", SECOND, Time(3)).unwrap(), None);
    }
}

#[test]
fn what_fails_in_the_middle_leaves_nothing() {
    for place in places() {
        // Alerts, incidents and notifications are written before the feed: let the last write of the batch fail.
        let (trigger, mended) = match place {
            Place::File => (
                "CREATE TRIGGER broken BEFORE INSERT ON feed WHEN NEW.opened BEGIN SELECT RAISE(ABORT, 'disk'); END",
                "DROP TRIGGER broken",
            ),
            Place::Server(_) => (
                "CREATE FUNCTION broken() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RAISE ''disk''; END'; \
                 CREATE TRIGGER broken BEFORE INSERT ON feed FOR EACH ROW WHEN (NEW.opened = 1) EXECUTE FUNCTION broken()",
                "DROP TRIGGER broken ON feed",
            ),
        };
        let mut b = Bench::new(&place, two_receivers());
        b.apply(&[single(1, "ana", 0, Severity::Low)], 0);
        let before = (b.alerts(), b.told(), b.store.position(0).unwrap());
        let fenced = b.store.apply(
            &[(9, single(2, "bob", 0, Severity::Low))],
            0,
            9,
            10,
            Time(1),
        );
        assert!(
            matches!(
                fenced,
                Err(StoreError::Fenced {
                    stored: 1,
                    given: 9,
                    ..
                })
            ),
            "{fenced:?}"
        );
        b.store.write("break", |tx| tx.batch(trigger)).unwrap();
        let cut = b
            .store
            .apply(&[(1, single(2, "bob", 0, Severity::Low))], 0, 1, 2, Time(1));
        assert!(
            matches!(
                cut,
                Err(StoreError::Sqlite { .. } | StoreError::Postgres { .. })
            ),
            "{cut:?}"
        );
        assert!(cut.is_err_and(|e| !e.is_transient()));
        assert_eq!((b.alerts(), b.told(), b.store.position(0).unwrap()), before);
        b.store.write("mend", |tx| tx.batch(mended)).unwrap();
        let mut b = b.reopen(two_receivers());
        b.apply(&[single(2, "bob", 0, Severity::Low)], 1);
        assert_eq!((b.alerts().len(), b.told().len()), (2, 2));
    }
}

#[test]
fn lists_feed_and_retention() {
    for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        let mut signal = b.store.changed();
        for i in 0..5_u128 {
            let severity = Severity::ALL[i as usize];
            b.apply(
                &[single(i + 1, &format!("actor {i}"), i as i64, severity)],
                i as i64,
            );
        }
        assert!(signal.has_changed().unwrap());
        assert_eq!(*signal.borrow_and_update(), 5);
        assert_eq!(
            b.store
                .feed(3)
                .unwrap()
                .iter()
                .map(|f| f.alert)
                .collect::<Vec<_>>(),
            [Id(4), Id(5)]
        );
        let check = |filter: Filter, expected: &[u128]| {
            let found: Vec<u128> = b
                .store
                .alerts(&filter)
                .unwrap()
                .iter()
                .map(|a| a.id.0)
                .collect();
            assert_eq!(found, expected, "{filter:?}");
        };
        b.store.resolve(Id(5), "kim", "", None, Time(9)).unwrap();
        check(
            Filter {
                min_severity: Some(Severity::High),
                ..Filter::default()
            },
            &[5, 4],
        );
        check(
            Filter {
                states: vec![State::Firing],
                limit: 2,
                ..Filter::default()
            },
            &[4, 3],
        );
        check(
            Filter {
                before: Some(3),
                ..Filter::default()
            },
            &[2, 1],
        );
        check(
            Filter {
                text: "ACTOR 2".into(),
                ..Filter::default()
            },
            &[3],
        );
        check(
            Filter {
                rule_id: Some("none".into()),
                ..Filter::default()
            },
            &[],
        );
        // From the first to the last event, both included.
        check(
            Filter {
                within: Some((Time(2), Time(3))),
                ..Filter::default()
            },
            &[4, 3],
        );
        let counts = b.store.counts().unwrap();
        assert_eq!((counts.open, counts.firing), ([1, 1, 1, 1, 0], 4));
        assert_eq!(b.store.retain(Time(365 * 24 * HOUR)).unwrap(), 0);
        assert_eq!(b.store.retain(Time(366 * 24 * HOUR)).unwrap(), 1);
        check(Filter::default(), &[4, 3, 2, 1]);
        assert_eq!(b.store.incidents(false, None, 0).unwrap().len(), 4);
    }
}

/// The part of the test below that is killed: one finding after the other, for ever.
#[test]
fn child_that_applies_until_it_is_killed() {
    let Ok(name) = std::env::var("TRAILWARDEN_TEST_STORE") else {
        return;
    };
    let server = std::env::var("TRAILWARDEN_TEST_SERVER").unwrap_or_default();
    let store = testing::open(&server, &name, two_receivers()).unwrap();
    let from = store.position(0).unwrap().unwrap_or(0);
    for at in from..from + 100_000 {
        let actor = format!("actor {at}");
        let finding = single(u128::from(at) + 1, &actor, at as i64, Severity::Low);
        store
            .apply(&[(at, finding)], 0, at, at + 1, Time(at as i64))
            .unwrap();
        println!("applied {}", at + 1);
    }
}

#[test]
fn kill_9_loses_and_doubles_nothing() {
    use std::io::{BufRead, BufReader};
    for place in places() {
        let home = Home::new(&place);
        let (server, name) = home.address();
        let mut said = 0;
        for run in 1..=4 {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "store::tests::child_that_applies_until_it_is_killed",
                    "--nocapture",
                ])
                .env("TRAILWARDEN_TEST_STORE", &name)
                .env("TRAILWARDEN_TEST_SERVER", &server)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap())
                .lines()
                .map_while(Result::ok);
            let applied = lines.filter_map(|l| l.split("applied ").nth(1)?.parse::<u64>().ok());
            said = applied.take(run * 7).last().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let store = home.open(two_receivers()).unwrap();
        let position = store.position(0).unwrap().unwrap();
        assert!(position >= said, "{position} {said}");
        for table in ["alerts", "incidents", "outbox", "findings", "feed", "told"] {
            assert_eq!(count(&store, table), position, "{table}");
        }
    }
}

/// How many rows a table has.
fn count(store: &Store, table: &str) -> u64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    let found = store
        .read("count", |tx| rows::all(tx, &sql, &[], |r| r.get::<i64>(0)))
        .unwrap();
    found[0] as u64
}

#[test]
fn newer_tables_are_refused() {
    for place in places() {
        let Bench { store, home, .. } = Bench::new(&place, two_receivers());
        store
            .write("pretend", |tx| {
                tx.batch("INSERT INTO migrations VALUES (99)")
            })
            .unwrap();
        drop(store);
        let refused = home.open(two_receivers());
        assert!(matches!(refused, Err(StoreError::Newer { found: 99, .. })));
    }
}

/// What alerting must come to, said as plainly as can be: cut each actor's events where more than the gap lies
/// between them; alerts that share an identity or access key within the day are one incident.
fn naive(findings: &[Finding]) -> (BTreeSet<BTreeSet<Str>>, BTreeSet<BTreeSet<BTreeSet<Str>>>) {
    let mut by_actor: BTreeMap<Str, BTreeMap<(Time, Id), &Finding>> = BTreeMap::new();
    for f in findings {
        by_actor
            .entry(f.actor.clone())
            .or_default()
            .insert((f.time, f.id), f);
    }
    let mut alerts: Vec<Vec<&Finding>> = Vec::new();
    for events in by_actor.values() {
        let mut last: Option<Time> = None;
        for ((time, _), f) in events {
            if last.is_none_or(|l| time.0 - l.0 > HOUR) {
                alerts.push(Vec::new());
            }
            alerts.last_mut().unwrap().push(f);
            last = Some(*time);
        }
    }
    let keys = |f: &Finding| [format!("i{}", f.identity), format!("k{}", f.access_key)];
    let near = |a: &[&Finding], b: &[&Finding]| {
        a.iter().any(|x| {
            b.iter().any(|y| {
                keys(x).iter().any(|k| k.len() > 1 && keys(y).contains(k))
                    && (x.time.0 - y.time.0).abs() <= 24 * HOUR
            })
        })
    };
    let mut group: Vec<usize> = (0..alerts.len()).collect();
    for i in 0..alerts.len() {
        for j in 0..i {
            if near(&alerts[i], &alerts[j]) {
                let (from, to) = (group[i], group[j]);
                group
                    .iter_mut()
                    .filter(|g| **g == from)
                    .for_each(|g| *g = to);
            }
        }
    }
    let names =
        |a: &Vec<&Finding>| -> BTreeSet<Str> { a.iter().map(|f| f.event_ids[0].clone()).collect() };
    let mut incidents: BTreeMap<usize, BTreeSet<BTreeSet<Str>>> = BTreeMap::new();
    for (i, alert) in alerts.iter().enumerate() {
        incidents.entry(group[i]).or_default().insert(names(alert));
    }
    (
        alerts.iter().map(names).collect(),
        incidents.into_values().collect(),
    )
}

fn stored(b: &Bench) -> (BTreeSet<BTreeSet<Str>>, BTreeSet<BTreeSet<BTreeSet<Str>>>) {
    let mut incidents: BTreeMap<Id, BTreeSet<BTreeSet<Str>>> = BTreeMap::new();
    for alert in b.alerts() {
        assert_eq!(alert.count as usize, alert.finding.event_ids.len());
        assert_eq!(alert.times.len(), alert.finding.event_ids.len());
        let names = alert.finding.event_ids.iter().cloned().collect();
        incidents.entry(alert.incident).or_default().insert(names);
    }
    let open = b.store.incidents(false, None, 1_000).unwrap();
    assert_eq!(
        open.iter().map(|i| i.id).collect::<BTreeSet<_>>(),
        incidents.keys().copied().collect()
    );
    (
        incidents.values().flatten().cloned().collect(),
        incidents.into_values().collect(),
    )
}

fn findings() -> impl Strategy<Value = Vec<Finding>> {
    // Few actors, keys and hours, so that gaps are bridged and incidents meet.
    prop::collection::vec((0..3_u8, 0..4_u8, 0..200_i64), 1..25).prop_map(|raw| {
        raw.into_iter()
            .enumerate()
            .map(|(i, (actor, key, half_hours))| Finding {
                access_key: if key == 0 {
                    "".into()
                } else {
                    format!("AK{key}").into()
                },
                ..single(
                    i as u128 + 1,
                    &format!("actor{actor}"),
                    half_hours * HOUR / 2,
                    Severity::Medium,
                )
            })
            .map(|mut f| {
                // Identity is not the actor: two actors may share one, and one may have none.
                f.identity = match f.actor.as_str() {
                    "actor2" => "".into(),
                    other => other.into(),
                };
                f
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("TRAILWARDEN_LONG").is_some() { 500 } else { 32 }, ..ProptestConfig::default() })]

    /// Whatever the order and the batches, with everything said twice, crashes in between and the whole log replayed.
    #[test]
    fn the_same_alerts_and_incidents_as_the_naive_model(
        (findings, order) in findings().prop_flat_map(|f| {
            let twice: Vec<usize> = (0..f.len()).chain(0..f.len()).collect();
            (Just(f), Just(twice).prop_shuffle())
        }),
        batch in 1..7_usize,
        reopen_at in 0..10_usize,
    ) {
        let log: Vec<Finding> = order.iter().map(|i| findings[*i].clone()).collect();
        let expected = naive(&findings);
        for place in places() {
        let mut b = Bench::new(&place, two_receivers());
        for (i, part) in log.chunks(batch).enumerate() {
            b.apply(part, i as i64);
            if i == reopen_at {
                b = b.reopen(two_receivers());
            }
        }
        prop_assert_eq!(&stored(&b), &expected);
        let told = b.told();
        let alerts = b.alerts();
        b.store.rewind(0, 0).unwrap();
        b.next = 0;
        let replay = b.apply(&log, 99);
        prop_assert_eq!((replay.changed, replay.enqueued), (0, 0));
        prop_assert_eq!(b.told(), told);
        prop_assert_eq!(b.alerts(), alerts);

        let mut again = Bench::new(&place, two_receivers());
        again.apply(&log, 0);
        let ids = |b: &Bench| b.alerts().iter().map(|a| a.id).collect::<BTreeSet<_>>();
        prop_assert_eq!(ids(&again), ids(&b), "the same log gives the same ids, however it is cut into batches");
        }
    }
}
