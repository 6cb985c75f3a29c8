//! What programs get: who is let in, what is refused and how, and the answers' shapes.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::FromRequest;
use axum::http::{Method, Request, Response, StatusCode, header};
use console::{Access, AuthConfig, Config, Hidden, Mode, Role, Token, User, hash_password};
use event::Time;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{HOSTILE, HOUR, World, finding, rules};

mod investigate;
mod saved;

fn password_config() -> Config {
    let sha256 = |token: &str| {
        use std::fmt::Write;
        let mut out = String::new();
        for byte in sha2::Sha256::digest(token) {
            write!(out, "{byte:02x}").unwrap();
        }
        Hidden(out)
    };
    use sha2::Digest;
    let hash = hash_password("correct horse");
    let user = |name: &str, role| User {
        name: name.into(),
        password_hash: Hidden(hash.clone()),
        password_hash_file: None,
        role,
    };
    let token = |name: &str, role| Token {
        name: name.into(),
        sha256: sha256(name),
        sha256_file: None,
        role,
    };
    Config {
        auth: AuthConfig {
            mode: Mode::Password,
            users: vec![user("ada", Role::Analyst), user("vic", Role::Viewer)],
            tokens: vec![
                token("t-viewer", Role::Viewer),
                token("t-analyst", Role::Analyst),
                token("t-ingest", Role::Ingest),
                token("t-node", Role::Node),
            ],
            ..AuthConfig::default()
        },
        ..Config::default()
    }
}

async fn send(router: &Router, request: Request<Body>) -> (Response<()>, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = Bytes::from_request(Request::new(body), &()).await.unwrap();
    (
        Response::from_parts(parts, ()),
        String::from_utf8(bytes.to_vec()).unwrap(),
    )
}

fn get(path: &str) -> Request<Body> {
    Request::get(path)
        .header(header::HOST, "127.0.0.1:7171")
        .body(Body::empty())
        .unwrap()
}

fn post(path: &str, body: Value) -> Request<Body> {
    Request::post(path)
        .header(header::HOST, "127.0.0.1:7171")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn form(path: &str, body: &str) -> Request<Body> {
    Request::post(path)
        .header(header::HOST, "127.0.0.1:7171")
        .header(header::ORIGIN, "http://127.0.0.1:7171")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn with(mut request: Request<Body>, name: header::HeaderName, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

async fn json_of(router: &Router, request: Request<Body>, status: u16) -> Value {
    let path = request.uri().to_string();
    let (response, body) = send(router, request).await;
    assert_eq!(response.status().as_u16(), status, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

async fn login(router: &Router, name: &str) -> (String, String) {
    let (response, _) = send(
        router,
        form("/login", &format!("name={name}&password=correct+horse")),
    )
    .await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let set = response.headers()[header::SET_COOKIE].to_str().unwrap();
    let cookie = set.split(';').next().unwrap().to_owned();
    let (_, page) = send(router, with(get("/"), header::COOKIE, &cookie)).await;
    let csrf = page
        .split("name=\"csrf\" content=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    (cookie, csrf.to_owned())
}

/// Every route × every kind of caller: who is not let in is told so, whatever the route.
#[tokio::test]
async fn nobody_gets_in_unless_the_table_says_so() {
    let world = World::new();
    let router = world.router(password_config());
    let (old_cookie, _) = login(&router, "ada").await;
    world
        .clock
        .fetch_add(13 * HOUR, std::sync::atomic::Ordering::SeqCst);
    let mut table = console::table();
    table.push((Method::POST, "/api/v1/events", Access::Ingest));
    table.push((Method::POST, "/api/v1/firehose", Access::Public));
    for (method, path, access) in table {
        let path = path
            .replace("{id}", "0123456789abcdef0123456789abcdef")
            .replace("{name}", "x");
        let request = || {
            let mut request = get(&path);
            *request.method_mut() = method.clone();
            request
        };
        let bearer =
            |token: &str| with(request(), header::AUTHORIZATION, &format!("Bearer {token}"));
        let callers = [
            ("nobody", request(), false),
            (
                "expired",
                with(request(), header::COOKIE, &old_cookie),
                false,
            ),
            (
                "forged cookie",
                with(request(), header::COOKIE, "trailwarden=AAAA"),
                false,
            ),
            ("wrong token", bearer("wrong"), false),
            (
                "token in the address",
                Request::builder()
                    .method(method.clone())
                    .uri(format!("{path}?token=t-analyst&access_token=t-analyst"))
                    .header(header::HOST, "x")
                    .body(Body::empty())
                    .unwrap(),
                false,
            ),
            ("ingest", bearer("t-ingest"), access == Access::Ingest),
            ("node", bearer("t-node"), access == Access::Node),
            ("viewer", bearer("t-viewer"), access == Access::Viewer),
            (
                "analyst",
                bearer("t-analyst"),
                matches!(access, Access::Viewer | Access::Analyst),
            ),
        ];
        for (caller, request, allowed) in callers {
            if path == "/api/v1/alerts/feed" && allowed {
                continue; // A stream without an end; it has a test of its own.
            }
            let (response, _) = send(&router, request).await;
            let status = response.status();
            let refused = status == StatusCode::UNAUTHORIZED
                || status == StatusCode::FORBIDDEN
                || (status == StatusCode::SEE_OTHER
                    && !response.headers().contains_key(header::SET_COOKIE)
                    && response.headers()[header::LOCATION]
                        .to_str()
                        .unwrap()
                        .starts_with("/login"));
            // What is public may still not find the thing.
            if access == Access::Public {
                assert!(
                    status != StatusCode::UNAUTHORIZED || path == "/login",
                    "{method} {path} {caller}: {status}"
                );
            } else {
                assert_eq!(!refused, allowed, "{method} {path} {caller}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn every_answer_is_guarded_by_headers() {
    let world = World::new();
    let router = world.router(Config::default());
    for path in [
        "/",
        "/nothing",
        "/api/v1/alerts",
        "/healthz",
        "/search?q=%28",
    ] {
        let (response, _) = send(&router, get(path)).await;
        let headers = response.headers();
        let csp = headers["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'self'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(csp.contains(part), "{path}: {csp}");
        }
        assert!(!csp.contains("unsafe"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers.contains_key("x-request-id"));
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn other_sites_and_names_are_refused() {
    let world = World::new();
    let router = world.router(Config::default());
    // DNS rebinding: the browser comes with another site's name.
    for host in [
        "evil.example",
        "evil.example:7171",
        "127.0.0.1.evil.example",
        "192.0.2.1:7171",
    ] {
        let (response, body) = send(&router, with(get("/"), header::HOST, host)).await;
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST, "{host}");
        assert!(!body.contains(host));
    }
    for host in ["localhost:7171", "[::1]:7171"] {
        let (response, _) = send(&router, with(get("/"), header::HOST, host)).await;
        assert_eq!(response.status(), StatusCode::OK, "{host}");
    }
    // Another site's form or script, also where nobody has to log in.
    let id = world.store.alerts(&alerting::Filter::default()).unwrap()[0].id;
    let path = format!("/api/v1/alerts/{id}/acknowledge");
    for (name, value) in [
        (header::ORIGIN, "https://evil.example"),
        (header::ORIGIN, "null"),
        (
            header::HeaderName::from_static("sec-fetch-site"),
            "cross-site",
        ),
        (
            header::HeaderName::from_static("sec-fetch-site"),
            "same-site",
        ),
    ] {
        for path in [path.as_str(), "/api/v1/events"] {
            let answer = json_of(
                &router,
                with(post(path, json!({})), name.clone(), value),
                403,
            )
            .await;
            assert_eq!(answer["error"]["code"], "cross_site");
        }
    }
    // A form of a page needs the page's token, with the right origin too.
    for body in ["do=acknowledge", "do=acknowledge&csrf=wrong"] {
        let (response, _) = send(&router, form(&format!("/alerts/{id}"), body)).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    json_of(&router, post(&path, json!({})), 200).await;
}

#[tokio::test]
async fn logging_in_and_out() {
    let world = World::new();
    let router = world.router(password_config());
    let (response, _) = send(&router, get("/search?q=a%3Ab")).await;
    assert_eq!(
        response.headers()[header::LOCATION],
        "/login?next=%2Fsearch%3Fq%3Da%253Ab"
    );
    let (cookie, csrf) = login(&router, "vic").await;
    let (response, page) = send(&router, with(get("/"), header::COOKIE, &cookie)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        !page.contains("value=\"acknowledge\""),
        "a viewer is not offered what is refused"
    );
    // A session from a browser needs the token for the API as well.
    let (ada, ada_csrf) = login(&router, "ada").await;
    let id = world.store.alerts(&alerting::Filter::default()).unwrap()[0].id;
    let path = format!("/api/v1/alerts/{id}/acknowledge");
    let (response, _) = send(&router, with(post(&path, json!({})), header::COOKIE, &ada)).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let token = header::HeaderName::from_static("x-csrf-token");
    let request = with(
        with(post(&path, json!({})), header::COOKIE, &ada),
        token.clone(),
        &csrf,
    );
    assert_eq!(
        send(&router, request).await.0.status(),
        StatusCode::FORBIDDEN
    );
    let request = with(
        with(post(&path, json!({})), header::COOKIE, &ada),
        token,
        &ada_csrf,
    );
    assert_eq!(send(&router, request).await.0.status(), StatusCode::OK);
    let request = with(
        form("/logout", &format!("csrf={csrf}")),
        header::COOKIE,
        &cookie,
    );
    assert_eq!(
        send(&router, request).await.0.status(),
        StatusCode::SEE_OTHER
    );
    let (response, _) = send(&router, with(get("/"), header::COOKIE, &cookie)).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    // Guessing is refused after five, also with the right password, until a minute has passed.
    for _ in 0..5 {
        let (response, page) = send(&router, form("/login", "name=ada&password=guess")).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(!page.contains("guess"));
    }
    let (response, _) = send(&router, form("/login", "name=ada&password=correct+horse")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    world
        .clock
        .fetch_add(60_000_000, std::sync::atomic::Ordering::SeqCst);
    login(&router, "ada").await;
    // A form from elsewhere does not log anybody in.
    let foreign = with(
        form("/login", "name=ada&password=correct+horse"),
        header::ORIGIN,
        "https://evil.example",
    );
    assert_eq!(
        send(&router, foreign).await.0.status(),
        StatusCode::FORBIDDEN
    );
    let audit = world.audit.lock().unwrap();
    let count = |action: &str, outcome| {
        audit
            .iter()
            .filter(|a| a.action == action && a.outcome == outcome)
            .count()
    };
    assert_eq!(count("Login", event::Outcome::Failure), 6);
    assert_eq!(count("Login", event::Outcome::Success), 3);
    assert_eq!(count("AcknowledgeAlert", event::Outcome::Success), 1);
    assert!(!format!("{audit:?}").contains("horse"));
}

#[tokio::test]
async fn what_is_wrong_is_answered_in_one_form() {
    let world = World::new();
    let router = world.router(Config::default());
    for (path, status, code) in [
        ("/api/v1/alerts?limit=1000000000", 400, "bad_parameter"),
        ("/api/v1/alerts?limit=0", 400, "bad_parameter"),
        ("/api/v1/alerts?page=-1", 400, "unknown_parameter"),
        ("/api/v1/alerts?cursor=forged", 400, "bad_cursor"),
        ("/api/v1/alerts?state=broken", 400, "bad_parameter"),
        (
            "/api/v1/alerts?state=open&state=all",
            400,
            "doubled_parameter",
        ),
        ("/api/v1/search?cursor=1-2", 400, "bad_cursor"),
        ("/api/v1/search?limit=1001", 400, "bad_parameter"),
        ("/api/v1/search?q=eventName%3A%28a", 400, "bad_query"),
        ("/api/v1/search?from=now&to=-1h", 400, "reversed_range"),
        ("/api/v1/search?from=yesterday", 400, "bad_time"),
        (
            "/api/v1/alerts/0123456789abcdef0123456789abcdef",
            404,
            "not_found",
        ),
        ("/api/v1/alerts/..%2F..%2Fetc", 404, "not_found"),
        ("/api/v1/nothing", 404, "not_found"),
    ] {
        let answer = json_of(&router, get(path), status).await;
        assert_eq!(answer["error"]["code"], code, "{path}");
        for key in ["message", "hint", "request_id"] {
            assert!(answer["error"][key].is_string(), "{path}: {answer}");
        }
    }
    let answer = json_of(&router, get("/api/v1/search?q=eventName%3A%28a"), 400).await;
    assert_eq!(answer["error"]["offset"], 10, "{answer}");
    let big = post("/api/v1/search", json!({"query": "x".repeat(2_000_000)}));
    assert_eq!(
        json_of(&router, big, 413).await["error"]["code"],
        "body_too_large"
    );
    let typo = post("/api/v1/search", json!({"querry": "<script>"}));
    let answer = json_of(&router, typo, 400).await;
    assert!(!answer.to_string().contains("script"), "{answer}");
    let (response, _) = send(&router, with(get("/api/v1/alerts"), header::ACCEPT, "*/*")).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn alerts_through_the_api() {
    let world = World::new();
    let router = world.router(Config::default());
    let list = json_of(
        &router,
        get("/api/v1/alerts?severity=high&state=open&limit=2"),
        200,
    )
    .await;
    assert_eq!(list["alerts"].as_array().unwrap().len(), 2, "{list}");
    let next = list["next"].as_str().unwrap();
    let more = json_of(
        &router,
        get(&format!(
            "/api/v1/alerts?severity=high&state=open&limit=2&cursor={next}"
        )),
        200,
    )
    .await;
    assert_ne!(list["alerts"][0]["id"], more["alerts"][0]["id"]);
    let alert = &list["alerts"][0];
    let (id, version) = (
        alert["id"].as_str().unwrap(),
        alert["version"].as_u64().unwrap(),
    );
    let path = |what: &str| format!("/api/v1/alerts/{id}/{what}");
    let acknowledged = json_of(
        &router,
        post(&path("acknowledge"), json!({"version": version})),
        200,
    )
    .await;
    assert_eq!(acknowledged["alert"]["state"], "acknowledged");
    let late = json_of(
        &router,
        post(&path("resolve"), json!({"version": version, "reason": "x"})),
        409,
    )
    .await;
    assert_eq!(late["error"]["code"], "changed_meanwhile");
    json_of(&router, post(&path("comment"), json!({"text": "  "})), 400).await;
    json_of(
        &router,
        post(&path("comment"), json!({"text": "looks like a test"})),
        200,
    )
    .await;
    json_of(
        &router,
        post(&path("assign"), json!({"assignee": "ada"})),
        200,
    )
    .await;
    json_of(
        &router,
        post(&path("resolve"), json!({"reason": "planned"})),
        200,
    )
    .await;
    let whole = json_of(&router, get(&format!("/api/v1/alerts/{id}")), 200).await;
    assert_eq!(whole["alert"]["state"], "resolved");
    let mallory = json_of(&router, get("/api/v1/alerts?q=mallory&state=firing"), 200).await;
    let left = mallory["alerts"].as_array().unwrap();
    let incident = left[0]["incident"].as_str().unwrap();
    let all = format!("/api/v1/incidents/{incident}/resolve");
    let done = json_of(&router, post(&all, json!({"reason": "a drill"})), 200).await;
    assert_eq!(done["changed"], left.len(), "{mallory}");
    json_of(
        &router,
        post(&all.replace(incident, &"0".repeat(32)), json!({})),
        404,
    )
    .await;
    assert!(whole["history"].as_array().unwrap().len() >= 5, "{whole}");
}

#[tokio::test]
async fn silences_through_the_api() {
    let world = World::new();
    let router = world.router(Config::default());
    let ends = world.now().plus(HOUR).to_string();
    let new = json!({"matchers": ["account=\"111122223333\""], "ends": ends, "comment": "planned"});
    let made = json_of(&router, post("/api/v1/silences", new), 201).await;
    let id = made["silence"]["id"].as_u64().unwrap();
    let all = json!({"matchers": ["account=~\".+\""], "ends": ends, "comment": "x"});
    assert_eq!(
        json_of(&router, post("/api/v1/silences", all), 422).await["error"]["code"],
        "bad_silence"
    );
    assert_eq!(
        json_of(&router, get("/api/v1/silences"), 200).await["silences"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    json_of(
        &router,
        post(&format!("/api/v1/silences/{id}/expire"), json!({})),
        200,
    )
    .await;
    json_of(&router, post("/api/v1/silences/99/expire", json!({})), 404).await;
}

#[tokio::test]
async fn holds_through_the_api() {
    let world = World::new();
    let router = world.router(Config::default());
    let new =
        json!({"name": "IR-7", "from": "-90d", "query": "source:aws.*", "reason": "<b>a case</b>"});
    let made = json_of(&router, post("/api/v1/holds", new.clone()), 201).await;
    assert_eq!((&made["node"], &made["nodes"]), (&json!(0), &json!(2)));
    assert_eq!(made["hold"]["name"], "IR-7");
    // Absolute from here on, and the same again is no second one.
    assert!(
        made["hold"]["from"]
            .as_str()
            .unwrap()
            .starts_with("2026-08-24T")
    );
    json_of(&router, post("/api/v1/holds", new), 201).await;
    let listed = json_of(&router, get("/api/v1/holds"), 200).await;
    assert_eq!(listed["holds"].as_array().unwrap().len(), 1);
    let covered = &listed["holds"][0]["covered"];
    assert_eq!(covered["splits"], 1);
    assert_eq!(covered["events"], world.events.len());
    for (body, status, code) in [
        (
            json!({"name": "IR-7", "from": "-1d", "reason": "x"}),
            409,
            "exists",
        ),
        (
            json!({"name": "../x", "from": "-1d", "reason": "x"}),
            422,
            "bad_hold",
        ),
        (json!({"name": "x", "from": "-1d"}), 422, "bad_hold"),
        (json!({"name": "x", "reason": "x"}), 422, "bad_hold"),
        (
            json!({"name": "x", "query": "a:(", "reason": "x"}),
            400,
            "bad_query",
        ),
        (
            json!({"name": "x", "from": "now", "to": "-1d", "reason": "x"}),
            400,
            "reversed_range",
        ),
        (json!({"name": "x", "accounts": []}), 400, "bad_body"),
    ] {
        let answer = json_of(&router, post("/api/v1/holds", body.clone()), status).await;
        assert_eq!(answer["error"]["code"], code, "{body}");
    }
    let (_, page) = send(&router, get("/health")).await;
    assert!(page.contains("Legal holds") && page.contains("IR-7"));
    assert!(!page.contains("<b>a case"));
    let release = |name: &str, reason: &str| {
        post(
            &format!("/api/v1/holds/{name}/release"),
            json!({"reason": reason}),
        )
    };
    json_of(&router, release("IR-8", "x"), 404).await;
    json_of(&router, release("IR-7", ""), 422).await;
    json_of(&router, release("IR-7", "closed"), 200).await;
    let (_, page) = send(&router, get("/health")).await;
    assert!(!page.contains("Legal holds"));
    let audit = world.audit.lock().unwrap();
    let released = audit
        .iter()
        .find(|a| a.action == "ReleaseHold" && a.resource == "hold/IR-7");
    assert_eq!(released.unwrap().details["reason"], "closed");
    let added = audit
        .iter()
        .filter(|a| a.action == "AddHold" && a.resource == "hold/IR-7");
    assert_eq!(added.count(), 2);
    let failed = audit
        .iter()
        .filter(|a| a.outcome == event::Outcome::Failure);
    assert_eq!(failed.count(), 7, "who tried is recorded too");
}

#[tokio::test]
async fn what_can_be_asked_about_a_search() {
    let world = World::new();
    let router = world.router(Config::default());
    let all = world.events.len() as u64;
    let body = json!({
        "limit": 0,
        "aggs": {
            "sources": {"terms": {"field": "source"}, "aggs": {"over_time": {"date_histogram": {"interval": "1h"}}}},
            "how_many": {"count": {}},
        },
    });
    let found = json_of(&router, post("/api/v1/search", body), 200).await;
    assert_eq!((&found["total"], &found["hits"]), (&json!(all), &json!([])));
    assert_eq!(
        found["aggs"]["how_many"],
        json!({"kind": "count", "value": all})
    );
    let counts = |buckets: &Value| -> u64 {
        let buckets = buckets.as_array().unwrap().iter();
        buckets.map(|b| b["count"].as_u64().unwrap()).sum()
    };
    let sources = &found["aggs"]["sources"]["buckets"];
    assert_eq!(counts(sources), all);
    let inner = &sources[0]["aggs"]["over_time"]["buckets"];
    assert_eq!(counts(inner), sources[0]["count"].as_u64().unwrap());
    let short = json_of(&router, get("/api/v1/search?limit=0&agg=source"), 200).await;
    assert_eq!(counts(&short["aggs"]["source"]["buckets"]), all);

    let found = json_of(&router, get("/api/v1/search?q=evntName%3Ax"), 200).await;
    assert!(
        found["notes"][0].as_str().unwrap().contains("`eventName`"),
        "{found}"
    );
    let path = "/api/v1/search/explain?q=eventName%3AStop*";
    let explained = json_of(&router, get(path), 200).await;
    assert_eq!(explained["clauses"][0]["access"], "walk_values");
    let fields = json_of(&router, get("/api/v1/search/fields?sample=5000"), 200).await;
    assert_eq!(
        (&fields["matched"], &fields["read"]),
        (&json!(all), &json!(all))
    );
    let source = fields["fields"].as_array().unwrap().iter();
    assert!(
        source
            .clone()
            .any(|f| f["field"] == "source" && f["events"] == all)
    );

    let (response, lines) = send(&router, get("/api/v1/search/export")).await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/x-ndjson"
    );
    assert_eq!(lines.lines().count() as u64, all);
    let (_, some) = send(
        &router,
        get("/api/v1/search/export?format=csv&limit=3&order=oldest"),
    )
    .await;
    assert_eq!(some.lines().count(), 4);
    let exported = world
        .audit
        .lock()
        .unwrap()
        .iter()
        .filter(|a| a.action == "Export")
        .count();
    assert_eq!(exported, 2, "who exports is recorded");

    let path = "/api/v1/investigate?field=account&value=111122223333";
    let found = json_of(&router, get(path), 200).await;
    assert!(found["matched"].as_u64().unwrap() > 0, "{found}");
    for (path, code) in [
        ("/api/v1/search?agg=sum(x)", "bad_aggregation"),
        ("/api/v1/search/export?format=xml", "bad_parameter"),
        ("/api/v1/search/export?q=%28", "bad_query"),
        ("/api/v1/search/explain?limit=5", "unknown_parameter"),
        (
            "/api/v1/search/fields?q=integrity%3Afailed",
            "not_searchable",
        ),
        ("/api/v1/investigate?field=account", "bad_parameter"),
        ("/api/v1/investigate?field=raw&value=x", "bad_parameter"),
    ] {
        let refused = json_of(&router, get(path), 400).await;
        assert_eq!(refused["error"]["code"], code, "{path}");
    }
    let wrong = json!({"aggs": {"a": {"terms": {"field": "time"}}}});
    let refused = json_of(&router, post("/api/v1/search", wrong), 400).await;
    assert_eq!(refused["error"]["code"], "bad_aggregation");
}

#[tokio::test]
async fn searching_through_the_api() {
    let world = World::new();
    let router = world.router(Config::default());
    let found = json_of(
        &router,
        get("/api/v1/search?q=action%3AStopLogging&count=true"),
        200,
    )
    .await;
    assert_eq!(found["total"], 1, "{found}");
    assert_eq!(found["hits"][0]["raw"]["eventName"], "StopLogging");
    let same = json_of(
        &router,
        post("/api/v1/search", json!({"query": "eventName:StopLogging"})),
        200,
    )
    .await;
    assert_eq!(same["hits"], found["hits"]);
    let mut seen = std::collections::BTreeSet::new();
    let mut path = "/api/v1/search?q=&limit=100".to_owned();
    loop {
        let page = json_of(&router, get(&path), 200).await;
        for hit in page["hits"].as_array().unwrap() {
            assert!(
                seen.insert(hit["id"].as_str().unwrap().to_owned()),
                "given twice"
            );
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/search?q=&limit=100&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), world.events.len());
    let (response, csv) = send(&router, get("/search.csv?q=source_id%3Ahostile*&range=all")).await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/csv; charset=utf-8"
    );
    assert_eq!(csv.lines().count(), 1 + HOSTILE.len());
    assert!(csv.contains("\"'=HYPERLINK"));
    assert!(!csv.contains('\u{1b}') && !csv.contains('\u{202e}'));
    let sources = json_of(&router, get("/api/v1/sources"), 200).await;
    let row = |account: &str| {
        let rows = sources["sources"].as_array().unwrap();
        rows.iter()
            .find(|s| s["account"] == account)
            .unwrap()
            .clone()
    };
    let usual = row("111122223333");
    assert_eq!(
        (&usual["source"], &usual["state"]),
        (&json!("aws.cloudtrail"), &json!("arriving"))
    );
    assert_eq!(usual["account_name"], "payments");
    assert_eq!(row("444455556666")["state"], "silent");
    let silent = &sources["silent"];
    assert_eq!(silent.as_array().unwrap().len(), 1);
    assert_eq!(
        (&silent[0]["account"], &silent[0]["blind"][0]["title"]),
        (&json!("444455556666"), &json!("A rule that is blind"))
    );
    assert_eq!(sources["unseen"]["accounts"][0]["account"], "777788889999");
    assert_eq!(sources["collectors"][0]["state"], "failing");
}

#[tokio::test]
async fn the_feed_goes_on_where_it_was_left() {
    use futures_util::StreamExt;
    let world = World::new();
    let router = world.router(Config::default());
    let read = async |request: Request<Body>, until: &str| {
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/event-stream"
        );
        let mut stream = response.into_body().into_data_stream();
        let mut text = String::new();
        while !text.contains(until) {
            let chunk = stream.next().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text
    };
    let all = read(get("/api/v1/alerts/feed?after=0"), "\"id\":5").await;
    assert!(all.contains("event: alert\n"), "{all}");
    let last = with(
        get("/api/v1/alerts/feed"),
        header::HeaderName::from_static("last-event-id"),
        "3",
    );
    let rest = read(last, "id: 5").await;
    assert!(
        rest.contains("id: 4\n") && !rest.contains("id: 3\n"),
        "{rest}"
    );
    // Without either it begins now.
    let fresh = get("/api/v1/alerts/feed");
    let (text, ()) = tokio::join!(read(fresh, "alert_id"), async {
        tokio::task::yield_now().await;
        let event = world
            .events
            .iter()
            .find(|e| e.actor.contains("bob"))
            .unwrap();
        world.find(finding(&rules()[1], event));
    });
    assert_eq!(text.matches("event: alert").count(), 1, "{text}");
}

#[tokio::test]
async fn every_page_shows_hostile_texts_as_text() {
    let world = World::hostile();
    let router = world.router(Config::default());
    let mut paths = vec![
        "/?state=all&limit=1000".to_owned(),
        "/search?q=&range=all".to_owned(),
        "/search?q=source_id%3Ahostile*&range=all".to_owned(),
        "/rules".to_owned(),
        "/health".to_owned(),
        "/silences".to_owned(),
    ];
    for alert in world.store.alerts(&alerting::Filter::default()).unwrap() {
        paths.push(format!("/alerts/{}", alert.id));
    }
    for event in world
        .events
        .iter()
        .filter(|e| e.source_id.starts_with("hostile"))
    {
        paths.push(format!("/events/{}", event.id));
    }
    for rule in rules() {
        paths.push(format!("/rules/{}", rule.id));
    }
    for text in HOSTILE {
        let saved = alerting::saved::NewSearch {
            description: (*text).into(),
            query: format!("actor:{}", quoted(text)),
            ..Default::default()
        };
        let name: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
        // What has a character that is not seen cannot be a name.
        let _ = world
            .store
            .save_search(&name, &saved, true, text, world.now());
        for field in search::investigate::PIVOTS {
            paths.push(format!("/investigate?field={field}&value={}", encode(text)));
        }
    }
    assert!(world.store.searches().unwrap().len() > 8);
    paths.push("/searches".to_owned());
    paths.push("/searches?part=menu&q=a".to_owned());
    for search in world.store.searches().unwrap() {
        paths.push(format!("/search?q=a&saved={}", encode(&search.name)));
    }
    paths.push("/search/fields?q=&range=all".to_owned());
    paths.push("/search/tail?q=&range=all".to_owned());
    paths.push("/search?q=source_id%3Ahostile*&range=all&cols=actor,user_agent,userIdentity.arn,raw.eventName".to_owned());
    for text in HOSTILE {
        paths.push(format!("/search?q={}", encode(text)));
        paths.push(format!("/search/rule?q={}", encode(text)));
        paths.push(format!("/searches?q={}", encode(text)));
        paths.push(format!("/?q={}", encode(text)));
        paths.push(format!("/silences?matchers={}", encode(text)));
    }
    for path in paths {
        let (response, page) = send(&router, get(&path)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}: {page}");
        // What was typed stands unchanged in the field it was typed into.
        let typed = path.contains("q=%") || path.contains("matchers=");
        // A part of a page has no head.
        let body = page.split("</head>").nth(1).unwrap_or(&page);
        let sent_again = "<input type=\"hidden\" name=\"value\" value=\"";
        let body = match body.split_once(sent_again) {
            Some((before, rest)) if path.starts_with("/investigate") => {
                // In its attribute markup is escaped as anywhere; its end is at the first quote.
                let (value, rest) = rest.split_once("\">").unwrap();
                assert!(!value.contains(['"', '<']), "{path}: {value}");
                format!("{before}{rest}")
            }
            _ => body.to_owned(),
        };
        for forbidden in [
            "<script",
            "<img src=x",
            "<svg onload",
            "<iframe",
            "<style",
            "<base",
            "<meta",
            "href=\"javascript",
            "href=\"http://192",
            "action=\"http",
            " onerror",
            "hx-on:load=\"doc",
            "\u{1b}",
            "\u{202e}",
            "\u{200b}",
            " style=",
        ] {
            // As text these are harmless and wanted; as markup they would not have their quotes and brackets escaped.
            let found = match forbidden {
                "\u{1b}" | "\u{202e}" | "\u{200b}" => !typed && body.contains(forbidden),
                " onerror" => body.contains("<img src=x onerror"),
                _ => body.contains(forbidden),
            };
            assert!(!found, "{path} has {forbidden:?}");
        }
    }
}

#[tokio::test]
async fn health_metrics_and_assets() {
    let world = World::new();
    let router = world.router(Config::default());
    assert_eq!(json_of(&router, get("/healthz"), 200).await["status"], "ok");
    assert_eq!(
        json_of(&router, get("/readyz"), 200).await["checks"]["log"],
        "ok"
    );
    let health = json_of(&router, get("/api/v1/health"), 200).await;
    assert_eq!(health["stages"][0]["stage"], "match");
    let (_, metrics) = send(&router, get("/metrics")).await;
    assert!(
        metrics.contains("trailwarden_console_requests_total{route=\"/healthz\",status=\"2xx\"} 1"),
        "{metrics}"
    );
    let (_, page) = send(&router, get("/")).await;
    for part in page.split("\"/assets/").skip(1) {
        let name = part.split('"').next().unwrap();
        let (response, content) = send(&router, get(&format!("/assets/{name}"))).await;
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        assert!(
            response.headers()["cache-control"]
                .to_str()
                .unwrap()
                .contains("immutable")
        );
        assert!(!content.is_empty());
    }
    let (response, _) = send(&router, get("/assets/..%2F..%2FCargo.toml")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(Time::MIN < world.now());
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn encode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// Evidence is handed out to analysts, bounded, and recorded with its hash before it is.
#[tokio::test]
async fn evidence_is_recorded_and_verifies() {
    let world = World::new();
    let router = world.router(password_config());
    let ask = |token: &str, body: Value| {
        let request = post("/api/v1/evidence", body);
        with(request, header::AUTHORIZATION, &format!("Bearer {token}"))
    };
    let (response, _) = send(&router, ask("t-viewer", json!({}))).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let order = json!({"query": "", "case": "case 7"});
    let response = router
        .clone()
        .oneshot(ask("t-analyst", order))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (parts, body) = response.into_parts();
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/zip");
    let bundle = Bytes::from_request(Request::new(body), &()).await.unwrap();
    let report = search::evidence::verify::verify(&bundle, None);
    assert_eq!(report.problems, Vec::<String>::new());
    let about = report.about.unwrap();
    assert_eq!(
        (about.by.as_str(), about.case.as_str()),
        ("t-analyst", "case 7")
    );
    assert_eq!(parts.headers["x-evidence-sha256"], report.sha256.as_str());
    let recorded = world.audit.lock().unwrap().clone();
    let recorded = recorded
        .iter()
        .find(|e| e.action == "ExportEvidence")
        .unwrap();
    assert_eq!(recorded.details["sha256"], report.sha256.as_str());
    for (body, status, code) in [
        (json!({"query": "("}), 400, "bad_query"),
        (json!({"query": "nowhere_at_all"}), 404, "no_events"),
        (json!({"from": "now", "to": "-7d"}), 400, "reversed_range"),
        (json!({"case": "x".repeat(201)}), 400, "bad_parameter"),
    ] {
        let error = json_of(&router, ask("t-analyst", body), status).await;
        assert_eq!(error["error"]["code"], code, "{error:#}");
    }
}

/// Reads the page of a search as a browser without the script would.
#[tokio::test]
async fn a_search_is_narrowed_by_links() {
    let world = World::new();
    let router = world.router(Config::default());
    let page = |path: &str| {
        let (router, path) = (router.clone(), path.to_owned());
        async move {
            let (response, page) = send(&router, get(&path)).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}: {page}");
            page
        }
    };
    let fields = page("/search/fields?q=identity%3Aalice&range=all").await;
    assert!(fields.contains("data-field=\"action\""), "{fields}");
    // A value is put into the query, or left out of it; what the query had stays.
    assert!(
        fields.contains("/search?q=identity%3Aalice%20AND%20action%3A"),
        "{fields}"
    );
    assert!(
        fields.contains("/search?q=identity%3Aalice%20AND%20NOT%20action%3A"),
        "{fields}"
    );
    assert!(fields.contains("range=all&amp;cols=action"), "{fields}");
    let table = page("/search?q=identity%3Aalice&range=all&cols=action,eventName,absent").await;
    assert!(table.contains("hits list cols-3"), "{table}");
    assert!(
        table.contains("hx-get=\"/search/fields?q=identity%3Aalice&amp;range=all"),
        "{table}"
    );
    // The histogram takes a range that is drawn over it, and moves in time.
    assert!(
        table.contains("range=custom&amp;from=FROM&amp;to=TO"),
        "{table}"
    );
    assert!(
        table.contains("← earlier") && table.contains("wider"),
        "{table}"
    );
    // What is exported is all of it.
    assert!(
        table.contains("/api/v1/search/export?format=csv&amp;q=identity%3Aalice\""),
        "{table}"
    );
    let (response, csv) = send(
        &router,
        get("/api/v1/search/export?format=csv&q=identity%3Aalice"),
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    let alices = world
        .events
        .iter()
        .filter(|e| e.identity == "alice")
        .count();
    assert_eq!(
        csv.lines().count(),
        alices + 1,
        "a head and each event: {csv}"
    );
    let (response, _) = send(&router, get("/search?cols=a,b,c,d,e,f,g,h,i")).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

/// What a page that follows is given: all that was taken in of late, and where to ask again.
#[tokio::test]
async fn a_page_that_follows_asks_for_what_came_in() {
    let world = World::new();
    let router = world.router(Config::default());
    let latest = world.events.iter().map(|e| e.ingest_time).max().unwrap();
    world
        .clock
        .store(latest.0 + 5_000_000, std::sync::atomic::Ordering::SeqCst);
    let recorded = world.audit.lock().unwrap().len();
    let (response, part) = send(&router, get("/search/tail?q=&range=1h&live=1")).await;
    assert_eq!(response.status(), StatusCode::OK, "{part}");
    assert!(
        part.contains("hx-get=\"/search/tail?q=&amp;range=1h&amp;live=1\""),
        "{part}"
    );
    let since = latest.0 + 5_000_000 - 60_000_000;
    for event in &world.events {
        let shown = part.contains(&format!("id=\"e-{}\"", event.id));
        assert_eq!(shown, event.ingest_time.0 >= since, "{}", event.source_id);
    }
    assert_eq!(
        world.audit.lock().unwrap().len(),
        recorded,
        "asked by itself, not by a person"
    );
    world
        .clock
        .store(latest.0 + 120_000_000, std::sync::atomic::Ordering::SeqCst);
    let (_, part) = send(&router, get("/search/tail?q=&range=1h&live=1")).await;
    assert!(!part.contains("id=\"e-"), "{part}");
}

/// Other nodes ask this one's index, which is no search of anybody's here.
#[tokio::test]
async fn other_nodes_ask_the_index() {
    let world = World::new();
    let router = world.router(password_config());
    let token = |request, token: &str| with(request, header::AUTHORIZATION, token);
    let ask = |body| token(post("/api/v1/index", body), "Bearer t-node");
    let request = json!({
        "query": "action:*", "from": null, "to": null, "limit": 3, "newest_first": true, "kind": "events",
        "after": null, "count": true,
    });
    let question = json!({
        "version": 1, "now": world.now(), "ask": {"page": {"request": request, "bytes": 1_000_000}},
    });
    let reply = json_of(&router, ask(question.clone()), 200).await;
    assert_eq!(
        (&reply["version"], &reply["node"], &reply["nodes"]),
        (&json!(1), &json!(0), &json!(1))
    );
    let page = &reply["told"]["Ok"]["page"];
    assert_eq!(page["hits"].as_array().unwrap().len(), 3, "{reply}");
    assert!(page["total"].as_u64().unwrap() > 3);
    assert_eq!(
        world.audit.lock().unwrap().len(),
        0,
        "who asked is recorded where they asked"
    );
    let other = json!({"version": 9, "now": 7});
    assert_eq!(
        json_of(&router, ask(other), 200).await["told"]["Err"],
        "version"
    );
    for wrong in [json!({}), json!({"version": 1, "ask": "all"}), json!([1])] {
        json_of(&router, ask(wrong), 400).await;
    }
    // The token is good for this and nothing else.
    json_of(&router, token(get("/api/v1/search"), "Bearer t-node"), 403).await;
    json_of(
        &router,
        token(post("/api/v1/index", question), "Bearer t-analyst"),
        403,
    )
    .await;
    let none = Config {
        concurrent_node_searches: 0,
        ..Config::default()
    };
    let (response, _) = send(&world.router(none), post("/api/v1/index", json!({}))).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
}

/// Without one of two index nodes everything says so, and what cannot be given in part is refused.
#[tokio::test]
async fn a_part_is_never_shown_as_the_whole() {
    let world = World::new();
    let router = world.router_of_a_part(Config::default());
    let words = "index node 1 (https://index-1:7171) cannot be reached";
    let answer = json_of(
        &router,
        get("/api/v1/search?q=&count=true&agg=action:3"),
        200,
    )
    .await;
    assert!(
        answer["partial"].as_str().unwrap().contains(words),
        "{answer}"
    );
    assert!(answer["total"].is_null() && !answer["hits"].as_array().unwrap().is_empty());
    for path in [
        "/api/v1/search/fields",
        "/api/v1/search/explain",
        "/api/v1/investigate?field=identity&value=mallory",
    ] {
        let answer = json_of(&router, get(path), 200).await;
        assert!(
            answer["partial"].as_str().unwrap().contains(words),
            "{path}: {answer}"
        );
    }
    // There or not there: of one that was not found nobody knows.
    let known = format!("/api/v1/events/{}", world.events[0].id);
    json_of(&router, get(&known), 200).await;
    let unknown = "/api/v1/events/0123456789abcdef0123456789abcdef";
    let away = json_of(&router, get(unknown), 503).await;
    assert_eq!(away["error"]["code"], "index_node_missing");
    json_of(&world.router(Config::default()), get(unknown), 404).await;
    let (response, page) = send(&router, get("/events/0123456789abcdef0123456789abcdef")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        page.contains("index node 1") && !page.contains("<b>"),
        "{page}"
    );
    // The export breaks off.
    let response = router
        .clone()
        .oneshot(get("/api/v1/search/export?q="))
        .await
        .unwrap();
    let body = Bytes::from_request(Request::new(response.into_body()), &()).await;
    assert!(body.is_err(), "{body:?}");
    let (response, _) = send(&router, get("/search.csv?q=&range=all")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let file = json_of(&router, get("/search.json?q=&range=all"), 200).await;
    assert_eq!(file["complete"], false);
    // People see it.
    let alert = world.store.alerts(&alerting::Filter::default()).unwrap()[0].id;
    for (path, said) in [
        (
            "/search?q=&range=all".to_owned(),
            "The answer is not complete: ",
        ),
        (
            "/search/tail?q=&range=all".to_owned(),
            "Not all events come in here: ",
        ),
        (
            "/search/fields?q=&range=all".to_owned(),
            "Not all was looked at: ",
        ),
        ("/health".to_owned(), "cannot be reached"),
    ] {
        let (_, page) = send(&router, get(&path)).await;
        assert!(
            page.contains(said) && page.contains("connection refused &lt;b&gt;"),
            "{path}: {page}"
        );
    }
    let (_, page) = send(&router, get(&format!("/alerts/{alert}"))).await;
    let evidence = world.store.alert(alert).unwrap().unwrap().finding.evidence;
    assert_eq!(
        page.contains("Not all events could be looked for: "),
        evidence
            .iter()
            .any(|id| !world.events.iter().any(|e| e.id == *id))
    );
    let health = json_of(&router, get("/api/v1/health"), 200).await;
    let nodes = health["index_nodes"].as_array().unwrap();
    assert_eq!(
        (&nodes[0]["answers"], &nodes[1]["answers"]),
        (&json!(true), &json!(false))
    );
    assert!(
        nodes[1]["missing_since"].is_string() && nodes[0]["state"]["events"].as_u64() > Some(0)
    );
    json_of(&router, get("/readyz"), 200).await;
    let whole = json_of(&world.router(Config::default()), get("/api/v1/health"), 200).await;
    assert_eq!(whole["index_nodes"], json!([]));
}
