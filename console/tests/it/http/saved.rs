//! Saved searches: through the API, by the page's forms, and what is refused.

use super::*;

fn put(path: &str, body: Value) -> Request<Body> {
    let mut request = post(path, body);
    *request.method_mut() = Method::PUT;
    request
}

fn remove(path: &str) -> Request<Body> {
    let mut request = get(path);
    *request.method_mut() = Method::DELETE;
    request
}

fn bearer(request: Request<Body>, token: &str) -> Request<Body> {
    with(request, header::AUTHORIZATION, &format!("Bearer {token}"))
}

fn query() -> Value {
    json!({"query": "action:StopLogging", "from": "-7d", "order": "oldest", "columns": ["action", "actor"], "description": "why"})
}

#[tokio::test]
async fn searches_are_saved_opened_and_deleted() {
    let world = World::new();
    let router = world.router(password_config());
    let path = "/api/v1/searches/Root%20%2F%20logins";
    let ask = async |request: Request<Body>, token: &str, status: u16| {
        json_of(&router, bearer(request, token), status).await
    };
    assert_eq!(
        ask(get("/api/v1/searches"), "t-viewer", 200).await["searches"],
        json!([])
    );
    ask(put(path, query()), "t-viewer", 403).await;
    let made = ask(put(path, query()), "t-analyst", 201).await;
    let search = &made["search"];
    assert_eq!(search["name"], "Root / logins");
    assert_eq!(search["owner"], "t-analyst");
    assert_eq!(
        search["href"],
        "/search?q=action%3AStopLogging&range=7d&order=oldest&cols=action%2Cactor&saved=Root%20%2F%20logins"
    );
    // Visible to all who may log in, under its name whatever the case.
    let list = ask(get("/api/v1/searches"), "t-viewer", 200).await;
    assert_eq!(&list["searches"][0], search);
    let one = ask(get("/api/v1/searches/ROOT%20%2f%20logins"), "t-viewer", 200).await;
    assert_eq!(&one["search"], search);
    // The name is taken: nothing is overwritten that was not meant.
    let refused = ask(put(path, json!({"query": "x"})), "t-analyst", 409).await;
    assert_eq!(refused["error"]["code"], "exists");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("saved by t-analyst on 2026-11-22"),
        "{refused}"
    );
    let kept = ask(get(path), "t-viewer", 200).await;
    assert_eq!(kept["search"]["query"], "action:StopLogging");
    let over = format!("{path}?overwrite=true");
    let replaced = ask(put(&over, json!({"query": "x"})), "t-analyst", 200).await;
    assert_eq!(replaced["search"]["query"], "x");
    // What could not be opened again is refused.
    for (name, body, code) in [
        ("a", json!({"query": "("}), "bad_query"),
        ("a", json!({"from": "yesterday"}), "bad_time"),
        ("a", json!({"from": "now", "to": "-1d"}), "reversed_range"),
        ("a", json!({"columns": ["a,b"]}), "bad_parameter"),
        ("a", json!({"query": "a".repeat(9_000)}), "too_long"),
        ("a", json!({"description": "a".repeat(2_001)}), "too_long"),
        ("a", json!({"owner": "somebody"}), "bad_body"),
        ("%E2%80%AE", json!({}), "bad_name"),
        ("-", json!({}), "bad_name"),
        (&"a".repeat(101), json!({}), "bad_name"),
    ] {
        let path = format!("/api/v1/searches/{name}");
        let refused = ask(put(&path, body), "t-analyst", 400).await;
        assert_eq!(refused["error"]["code"], code, "{refused}");
    }
    ask(remove(path), "t-viewer", 403).await;
    ask(remove(path), "t-analyst", 200).await;
    ask(remove(path), "t-analyst", 404).await;
    ask(get(path), "t-viewer", 404).await;
    // All of it is recorded.
    let recorded = world.audit.lock().unwrap().clone();
    let did: Vec<(&str, &str, event::Outcome)> = recorded
        .iter()
        .filter(|e| e.action.ends_with("Search") && e.action != "Search")
        .map(|e| (e.action, e.resource.as_str(), e.outcome))
        .collect();
    let good = event::Outcome::Success;
    assert_eq!(did[0], ("SaveSearch", "search/Root / logins", good));
    assert_eq!(did[1].2, event::Outcome::Failure, "the name was taken");
    assert_eq!(did[2], ("SaveSearch", "search/Root / logins", good));
    let deleted = ("DeleteSearch", "search/Root / logins", good);
    assert_eq!(did[did.len() - 2], deleted);
    let gone = recorded.iter().find(|e| e.action == "DeleteSearch");
    assert_eq!(gone.unwrap().details["query"], "x", "it can be made again");
}

/// As a browser without the script does it.
#[tokio::test]
async fn the_forms_of_the_page_save_ask_and_delete() {
    let world = World::new();
    let router = world.router(password_config());
    let (cookie, csrf) = login(&router, "ada").await;
    let page = async |path: &str, cookie: &str| {
        let (response, page) = send(&router, with(get(path), header::COOKIE, cookie)).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}: {page}");
        page
    };
    let sent = async |path: &str, body: &str| {
        let request = form(path, &format!("csrf={csrf}&{body}"));
        send(&router, with(request, header::COOKIE, &cookie)).await
    };
    let to = |response: &Response<()>| {
        let location = response.headers()[header::LOCATION].to_str().unwrap();
        location.to_owned()
    };
    let search = page("/search?q=action%3AStop*&range=24h&cols=actor", &cookie).await;
    assert!(
        search.contains(
            "hx-get=\"/searches?part=menu&amp;q=action%3AStop%2A&amp;range=24h&amp;cols=actor\""
        ),
        "{search}"
    );
    let menu = page(
        "/searches?part=menu&q=action%3AStop*&range=24h&cols=actor",
        &cookie,
    )
    .await;
    assert!(!menu.contains("<html"), "a part of a page");
    for field in [
        "name=\"q\" value=\"action:Stop*\"",
        "name=\"range\" value=\"24h\"",
        "name=\"cols\" value=\"actor\"",
        "name=\"csrf\"",
    ] {
        assert!(menu.contains(field), "{field}: {menu}");
    }
    let body = "name=Stopped+trails&description=who+stops&q=action%3AStop*&range=24h&cols=actor";
    let (response, _) = sent("/searches", body).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let opened = to(&response);
    assert_eq!(
        opened,
        "/search?q=action%3AStop%2A&range=24h&cols=actor&saved=Stopped%20trails"
    );
    let shown = page(&opened, &cookie).await;
    assert!(shown.contains("Stopped trails") && shown.contains("who stops"));
    assert!(!shown.contains("as saved"), "it is what was saved");
    let changed = page(&opened.replace("Stop%2A", "Start"), &cookie).await;
    assert!(changed.contains("as saved"), "it is said that it is not");
    // The name opens it too, as it is then.
    let (response, _) = send(
        &router,
        with(get("/searches/stopped%20TRAILS"), header::COOKIE, &cookie),
    )
    .await;
    assert_eq!(to(&response), opened);
    // Taken: both are shown, and it is asked.
    let again = "name=stopped+trails&q=outcome%3Adenied&range=custom&from=-2d&to=now&fixed=1";
    let (response, asked) = sent("/searches", again).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    for words in [
        "Overwrite the saved search?",
        "saved by ada",
        "action:Stop*",
        "outcome:denied",
        "name=\"overwrite\"",
        "name=\"fixed\" value=\"1\" checked",
    ] {
        assert!(asked.contains(words), "{words}: {asked}");
    }
    assert_eq!(
        world
            .store
            .saved_search("stopped trails")
            .unwrap()
            .unwrap()
            .query,
        "action:Stop*"
    );
    let (response, _) = sent("/searches", &format!("{again}&overwrite=1")).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let saved = world.store.saved_search("stopped trails").unwrap().unwrap();
    assert_eq!(
        (saved.query.as_str(), saved.from.as_str(), saved.to.as_str()),
        (
            "outcome:denied",
            "2026-11-20T12:00:00Z",
            "2026-11-22T12:00:00Z"
        ),
        "times that were to be fixed are"
    );
    let (response, wrong) = sent("/searches", "name=x&q=%28&range=all").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(
        wrong.contains("Not saved") && wrong.contains("name=\"q\" value=\"(\""),
        "{wrong}"
    );
    // Somebody who may only look sees it and is not offered what is refused.
    let (viewer, viewer_csrf) = login(&router, "vic").await;
    let list = page("/searches?q=a", &viewer).await;
    assert!(list.contains("stopped trails"), "{list}");
    assert!(!list.contains("Delete it") && !list.contains("action=\"/searches\""));
    for path in ["/searches", "/searches/stopped%20trails/delete"] {
        let request = form(path, &format!("csrf={viewer_csrf}&name=y&q="));
        let (response, _) = send(&router, with(request, header::COOKIE, &viewer)).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let (response, _) = sent("/searches/stopped%20trails/delete", "").await;
    assert_eq!(to(&response), "/searches");
    assert!(world.store.searches().unwrap().is_empty());
    // A form of another site changes nothing.
    let (response, _) = send(
        &router,
        with(form("/searches", "name=x&q="), header::COOKIE, &cookie),
    )
    .await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_search_is_shown_as_a_rule() {
    let world = World::new();
    let router = world.router(Config::default());
    let told = json_of(&router, get("/api/v1/search/rule?q=action%3AStop"), 200).await;
    assert_eq!(told["rule"], "title: Search action:Stop\n");
    for (query, code) in [("%28", "bad_query"), ("a*", "no_rule")] {
        let path = format!("/api/v1/search/rule?q={query}");
        let refused = json_of(&router, get(&path), 400).await;
        assert_eq!(refused["error"]["code"], code);
        let (response, page) = send(&router, get(&format!("/search/rule?q={query}"))).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(page.contains("role=\"alert\""), "{page}");
    }
    let (_, page) = send(&router, get("/search/rule?q=action%3AStop")).await;
    assert!(page.contains("title: Search action:Stop"), "{page}");
}
