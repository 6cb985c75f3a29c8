//! The page of an investigation, and an alert's evidence as a search.

use std::collections::BTreeSet;

use event::{Event, Finding, Severity};

use super::*;

/// The addresses of a page that begin so.
fn links(page: &str, start: &str) -> Vec<String> {
    let parts = page.split("href=\"").skip(1);
    parts
        .filter_map(|part| part.split('"').next())
        .map(|href| href.replace("&amp;", "&"))
        .filter(|href| href.starts_with(start))
        .collect()
}

async fn page(router: &Router, path: &str) -> String {
    let (response, page) = send(router, get(path)).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}: {page}");
    page
}

#[tokio::test]
async fn what_somebody_did_stands_on_one_page() {
    let world = World::new();
    let router = world.router(Config::default());
    // Mallory did nothing before: nothing stands out, and that is said.
    let mallory = page(&router, "/investigate?field=identity&value=mallory&hours=1").await;
    for words in [
        "around now",
        "Nothing is known from the 30 days before",
        "1 failed or denied",
        "CloudTrail logging was stopped",
        "StopLogging",
        "AKIAEXAMPLEMALLORY",
    ] {
        assert!(mallory.contains(words), "{words}: {mallory}");
    }
    // Every event of the window is a line, and every alert of it.
    let lines = mallory.matches("class=\"hit\"").count();
    assert_eq!(lines, 5);
    assert_eq!(mallory.matches("class=\"tl-alert").count(), 5);
    // Every link of it leads somewhere.
    let mut seen = BTreeSet::new();
    for start in [
        "/search?",
        "/investigate?",
        "/api/v1/investigate?",
        "/alerts/",
        "/events/",
    ] {
        let found = links(&mallory, start);
        assert!(!found.is_empty(), "{start}");
        for link in found {
            if seen.insert(link.clone()) {
                let (response, body) = send(&router, get(&link)).await;
                assert_eq!(response.status(), StatusCode::OK, "{link}: {body}");
                assert!(!body.contains("query-error"), "{link}");
            }
        }
    }
    // Alice worked all day: what she did in the last hour is held against it.
    let alice = page(&router, "/investigate?field=identity&value=alice&hours=1").await;
    assert!(alice.contains("New in this window"), "{alice}");
    assert!(!alice.contains("Nothing is known from"), "{alice}");
    // An address: who came from it.
    let address = page(&router, "/investigate?field=src_ip&value=203.0.113.50").await;
    assert!(
        address.contains(">Who<") && address.contains("mallory"),
        "{address}"
    );
    // A long row of the same is folded, and nothing is lost.
    let all = page(
        &router,
        "/investigate?field=account&value=111122223333&hours=720&limit=1000",
    )
    .await;
    let events = world.events.iter().filter(|e| e.account == "111122223333");
    assert_eq!(all.matches("class=\"hit\"").count(), events.count());
    // Few of many, and it is said.
    let few = page(
        &router,
        "/investigate?field=account&value=111122223333&limit=10",
    )
    .await;
    assert!(few.contains("Shown are the 10 events nearest to"), "{few}");
    for wrong in [
        "/investigate",
        "/investigate?field=raw&value=x",
        "/investigate?field=actor&value=x&hours=0",
        "/investigate?field=actor&value=x&around=soon",
        "/investigate?field=actor&value=x&q=y",
    ] {
        let (response, _) = send(&router, get(wrong)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn an_empty_window_says_where_there_is_something() {
    let world = World::new();
    let router = world.router(Config::default());
    let empty = page(
        &router,
        "/investigate?field=identity&value=mallory&around=2026-01-01T00:00:00Z",
    )
    .await;
    assert!(empty.contains("Nothing in this window"), "{empty}");
    let there = links(
        &empty,
        "/investigate?field=identity&value=mallory&around=2026-11-22",
    );
    assert!(there.len() >= 2, "{there:?}");
    let found = page(&router, &there[0]).await;
    assert!(found.contains("StopLogging"), "{found}");
    let never = page(&router, "/investigate?field=session&value=%22odd%22").await;
    assert!(never.contains("Never seen"), "{never}");
    for link in links(&never, "/search?") {
        assert!(
            !page(&router, &link).await.contains("query-error"),
            "{link}"
        );
    }
    // Without a time it is the last event, and both page and API say so.
    world
        .clock
        .fetch_add(90 * 24 * HOUR, std::sync::atomic::Ordering::SeqCst);
    let late = page(&router, "/investigate?field=identity&value=mallory").await;
    assert!(
        late.contains("around the last event, since nothing is around now"),
        "{late}"
    );
    let told = json_of(
        &router,
        get("/api/v1/investigate?field=identity&value=mallory"),
        200,
    )
    .await;
    assert_eq!(told["middle"], "last_seen");
    assert_eq!(told["around"], told["last_seen"]);
    assert_eq!(told["matched"], 5);
    let recorded = world.audit.lock().unwrap().clone();
    assert_eq!(
        recorded.last().unwrap().details["query"],
        "identity:\"mallory\""
    );
}

#[tokio::test]
async fn an_event_and_an_alert_lead_to_the_investigation() {
    let world = World::new();
    let router = world.router(Config::default());
    let event = world.events.iter().find(|e| e.source_id == "ev-0").unwrap();
    let around = "around=2026-11-22T11%3A51%3A00Z";
    let alert = world.store.alerts(&alerting::Filter {
        min_severity: Some(Severity::Critical),
        ..Default::default()
    });
    let paths = [
        format!("/events/{}", event.id),
        format!("/events/{}?part=detail", event.id),
        format!("/alerts/{}", alert.unwrap()[0].id),
    ];
    for path in paths {
        let shown = page(&router, &path).await;
        for field in ["identity", "actor", "access_key", "src_ip", "account"] {
            let start = format!("/investigate?field={field}&value=");
            let found = links(&shown, &start);
            assert!(
                found.iter().any(|link| link.contains(around)),
                "{path} {field}: {found:?}"
            );
        }
        assert!(shown.contains("data-key=\"i\""), "{path}");
    }
}

/// The ids that a link to the Search page finds.
async fn found_by(router: &Router, href: &str) -> BTreeSet<String> {
    let address = href.replacen("/search?", "/search.json?", 1);
    let found = json_of(router, get(&address), 200).await;
    assert_eq!(found["complete"], true);
    let hits = found["hits"].as_array().unwrap().iter();
    hits.map(|hit| hit["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_evidence_opens_as_a_search_that_finds_exactly_its_events() {
    let world = World::new();
    let router = world.router(Config::default());
    let ids = |events: &[&Event]| -> BTreeSet<String> {
        events.iter().map(|e| e.id.to_string()).collect()
    };
    let search_of = async |id: event::Id| {
        let told = json_of(&router, get(&format!("/api/v1/alerts/{id}")), 200).await;
        let search = told["evidence_search"].clone();
        let shown = page(&router, &format!("/alerts/{id}")).await;
        let href = search["href"].as_str().unwrap();
        assert!(
            links(&shown, "/search?").contains(&href.to_owned()),
            "{href}"
        );
        search
    };
    // Alerts that the evidence of is named, as they are.
    for alert in world.store.alerts(&alerting::Filter::default()).unwrap() {
        let search = search_of(alert.id).await;
        if search["exact"] == true {
            let named: BTreeSet<String> = alert
                .finding
                .evidence
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(
                found_by(&router, search["href"].as_str().unwrap()).await,
                named
            );
        }
    }
    // As many as are named at most: one search takes them.
    let mut alices: Vec<&Event> = world
        .events
        .iter()
        .filter(|e| e.identity == "alice")
        .collect();
    alices.sort_by_key(|e| (e.time, e.id));
    let episode = |number: u128, events: &[&Event], named: usize| Finding {
        id: event::Id(number),
        episode: event::Id(number),
        rule_id: (&rules()[2].id).into(),
        title: "Many".into(),
        severity: Severity::Medium,
        time: events[0].time,
        first_event_time: events[0].time,
        last_event_time: events.last().unwrap().time,
        count: events.len() as u64,
        group: [("identity".into(), Some("alice".into()))].into(),
        event_ids: events
            .iter()
            .take(named)
            .map(|e| e.source_id.clone())
            .collect(),
        evidence: events.iter().take(named).map(|e| e.id).collect(),
        episodic: true,
        ..Finding::default()
    };
    let alert = world.find(episode(7_000, &alices[..60], 60));
    let search = search_of(alert).await;
    assert_eq!(search["exact"], true);
    assert_eq!(
        found_by(&router, search["href"].as_str().unwrap()).await,
        ids(&alices[..60])
    );
    // More than are named: what the rule looks at, between the first and the last.
    let denied: Vec<&Event> = alices
        .iter()
        .copied()
        .filter(|e| e.outcome == event::Outcome::Denied)
        .collect();
    let alert = world.find(episode(8_000, &denied[1..5], 2));
    let search = search_of(alert).await;
    assert_eq!(search["exact"], false);
    let found = found_by(&router, search["href"].as_str().unwrap()).await;
    assert!(found.is_superset(&ids(&denied[1..5])), "{search}");
    assert!(
        !found.contains(&denied[0].id.to_string()),
        "before the first"
    );
}
