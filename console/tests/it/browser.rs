//! What a person sees: Chromium driven through WebDriver. Runs where `TRAILWARDEN_BROWSER_TESTS` is set, as `./test` does;
//! with `TRAILWARDEN_SCREENSHOTS` a folder gets a picture of every page.

mod follow_up;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use console::{AuthConfig, Config, Hidden, Mode, Role, User, hash_password};
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::world::{HOSTILE, World, finding, rules};

const DRIVER: &str = "/usr/bin/chromedriver";

struct Browser {
    driver: Child,
    port: u16,
    profiles: tempfile::TempDir,
}

impl Browser {
    async fn start() -> Browser {
        // It takes a port that is free and says which.
        let mut driver = Command::new(DRIVER)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = BufReader::new(driver.stdout.as_mut().unwrap())
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            })
            .expect("chromedriver says where it listens");
        Browser {
            driver,
            port,
            profiles: tempfile::tempdir().unwrap(),
        }
    }

    /// A fresh browser, as wide as a desk's or a phone's.
    async fn open(&self, name: &str, phone: bool) -> Client {
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!(
            "--user-data-dir={}",
            self.profiles.path().join(name).display()
        ));
        arguments.push("--window-size=1280,900".into());
        let mut options = json!({"args": arguments});
        if phone {
            options["mobileEmulation"] =
                json!({"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 2.0}});
        }
        let capabilities =
            json!({"goog:chromeOptions": options, "unhandledPromptBehavior": "ignore"});
        ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn run(client: &Client, script: &str) -> Value {
    client.execute(script, Vec::new()).await.unwrap()
}

async fn click(client: &Client, css: &str) {
    client
        .find(Locator::Css(css))
        .await
        .unwrap_or_else(|e| panic!("{css}: {e}"))
        .click()
        .await
        .unwrap();
}

async fn keys(client: &Client, text: &str) {
    client
        .find(Locator::Css("body"))
        .await
        .unwrap()
        .send_keys(text)
        .await
        .unwrap();
}

/// What is read there; nothing while a page is being exchanged for another.
async fn text(client: &Client, css: &str) -> String {
    let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
    let found = client.execute(script, vec![json!(css)]).await;
    found.map_or_else(|_| String::new(), |v| v.as_str().unwrap_or("").to_owned())
}

async fn picture(client: &Client, name: &str) {
    let Some(dir) = std::env::var_os("TRAILWARDEN_SCREENSHOTS").map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join(format!("{name}.png")),
        client.screenshot().await.unwrap(),
    )
    .unwrap();
    std::fs::write(
        dir.join(format!("{name}.html")),
        client.source().await.unwrap(),
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_browser() {
    if std::env::var_os("TRAILWARDEN_BROWSER_TESTS").is_none() {
        println!("skipped: set TRAILWARDEN_BROWSER_TESTS=1 to run the console in Chromium");
        return;
    }
    let browser = Browser::start().await;
    at_the_desk(&browser).await;
    follow_up::from_the_alert_to_a_saved_search(&browser).await;
    follow_up::on_a_phone(&browser).await;
    on_a_phone(&browser).await;
    hostile_texts_do_nothing(&browser).await;
    logging_in(&browser).await;
}

async fn at_the_desk(browser: &Browser) {
    let world = World::new();
    let base = format!("http://{}", world.serve(Config::default()).await);
    let client = browser.open("desk", false).await;
    client.goto(&base).await.unwrap();
    picture(&client, "alerts-1280-light").await;

    // A new alert appears by itself.
    until("the page listens", async || {
        run(
            &client,
            "return !!document.querySelector('#live[data-open]')",
        )
        .await
            == json!(true)
    })
    .await;
    run(&client, "window.same = true").await;
    let event = world
        .events
        .iter()
        .find(|e| e.actor.contains("bob"))
        .unwrap();
    let id = world.find(finding(&rules()[4], event));
    let row = format!("#a-{id}");
    until("the new alert is shown", async || {
        client.find(Locator::Css(&row)).await.is_ok()
    })
    .await;
    assert_eq!(
        run(&client, "return window.same").await,
        json!(true),
        "the page was not loaded again"
    );

    // It is acknowledged from the list with the keyboard: j to the row, a.
    let at = run(
        &client,
        &format!(
            "return [...document.querySelectorAll('[data-row]')].findIndex(r => r.id === 'a-{id}')"
        ),
    )
    .await;
    for _ in 0..=at.as_u64().unwrap() {
        keys(&client, "j").await;
    }
    assert_eq!(
        run(&client, "return document.querySelector('.selected').id").await,
        json!(format!("a-{id}"))
    );
    keys(&client, "a").await;
    until("it is acknowledged", async || {
        world.store.alert(id).unwrap().unwrap().state == alerting::State::Acknowledged
    })
    .await;
    let state = format!("{row} .state-acknowledged");
    until("the list says so", async || {
        client.find(Locator::Css(&state)).await.is_ok()
    })
    .await;
    assert_eq!(
        run(&client, "return document.querySelector('.selected').id").await,
        json!(format!("a-{id}")),
        "the selection stays"
    );

    // Enter opens it; the page has all that the next step needs.
    keys(&client, &Key::Enter.to_string()).await;
    until("the alert opens", async || {
        client.current_url().await.unwrap().path() == format!("/alerts/{id}")
    })
    .await;
    for (css, expected) in [
        ("h1", "Secrets read in a burst"),
        (".glance", "bob"),
        (".guidance", "Next steps"),
        (".timeline", "acknowledged it"),
        (".hits", "eventVersion"),
        (".why", "selection"),
    ] {
        assert!(text(&client, css).await.contains(expected), "{css}");
    }
    picture(&client, "alert-1280-light").await;
    client
        .find(Locator::Css("#text"))
        .await
        .unwrap()
        .send_keys("known: rotation <b>job</b>")
        .await
        .unwrap();
    click(&client, "button[value=comment]").await;
    until("the comment is shown", async || {
        text(&client, ".timeline")
            .await
            .contains("rotation <b>job</b>")
    })
    .await;
    click(&client, "button[value=resolve]").await;
    until("it is resolved", async || {
        world.store.alert(id).unwrap().unwrap().state == alerting::State::Resolved
    })
    .await;

    // A filter changes the list without losing the page.
    client.goto(&base).await.unwrap();
    click(&client, ".segments label:nth-of-type(4)").await;
    until("only resolved ones", async || {
        client.find(Locator::Css(&row)).await.is_ok()
            && client
                .find_all(Locator::Css("#feed .alert"))
                .await
                .unwrap()
                .len()
                == 1
    })
    .await;
    assert!(
        client
            .current_url()
            .await
            .unwrap()
            .query()
            .unwrap()
            .contains("state=resolved")
    );

    // Search: / from anywhere, a mistake with its place, a result that opens, a pivot.
    keys(&client, "/").await;
    let field = client.active_element().await.unwrap();
    field.send_keys("eventName:(StopLogging").await.unwrap();
    field.send_keys(&Key::Enter.to_string()).await.unwrap();
    until("the mistake is shown", async || {
        client
            .find(Locator::Css(".query-error .caret"))
            .await
            .is_ok()
    })
    .await;
    let shown = text(&client, ".query-error").await;
    assert!(shown.contains("parenthesis is not closed"), "{shown}");
    picture(&client, "search-error-1280-light").await;
    let field = client
        .find(Locator::Css(".searchbar input[name=q]"))
        .await
        .unwrap();
    field.clear().await.unwrap();
    field
        .send_keys("action:StopLogging OR identity:alice")
        .await
        .unwrap();
    field.send_keys(&Key::Enter.to_string()).await.unwrap();
    until("events are found", async || {
        !client
            .find_all(Locator::Css(".hit"))
            .await
            .unwrap()
            .is_empty()
    })
    .await;
    keys(&client, "j").await;
    keys(&client, &Key::Enter.to_string()).await;
    until("the event opens in place", async || {
        client.find(Locator::Css(".hit[open] .tree")).await.is_ok()
    })
    .await;
    picture(&client, "search-1280-light").await;
    the_search_page(&client, &base).await;
    client
        .goto(&format!(
            "{base}/search?q=action%3AStopLogging+OR+identity%3Aalice"
        ))
        .await
        .unwrap();
    keys(&client, "j").await;
    keys(&client, &Key::Enter.to_string()).await;
    until("the event opens in place", async || {
        client.find(Locator::Css(".hit[open] .tree")).await.is_ok()
    })
    .await;
    click(&client, ".hit[open] .tree .pivot").await;
    until("a value leads to its search", async || {
        client
            .current_url()
            .await
            .unwrap()
            .query()
            .unwrap_or("")
            .contains("eventVersion")
    })
    .await;

    for (path, name) in [
        ("/rules", "rules"),
        ("/rules/5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0001", "rule"),
        ("/health", "health"),
        ("/silences", "silences"),
        ("/search", "search-empty"),
    ] {
        client.goto(&format!("{base}{path}")).await.unwrap();
        picture(&client, &format!("{name}-1280-light")).await;
    }
    // Dark, and remembered.
    click(&client, "#theme").await;
    for (path, name) in [
        ("/", "alerts"),
        ("/search?q=identity%3Aalice", "search"),
        ("/health", "health"),
    ] {
        client.goto(&format!("{base}{path}")).await.unwrap();
        assert_eq!(
            run(&client, "return document.documentElement.dataset.theme").await,
            json!("dark")
        );
        picture(&client, &format!("{name}-1280-dark")).await;
    }
    client
        .goto(&format!(
            "{base}/alerts/{}",
            world
                .store
                .alerts(&alerting::Filter::default())
                .unwrap()
                .last()
                .unwrap()
                .id
        ))
        .await
        .unwrap();
    picture(&client, "alert-1280-dark").await;
    client.close().await.unwrap();
    world.stop.stop();
}

/// Completion, marks, fields, columns, a drawn range, following, keys.
async fn the_search_page(client: &Client, base: &str) {
    let address = async || client.current_url().await.unwrap().to_string();
    client
        .goto(&format!("{base}/search?q=identity%3Aalice&range=all"))
        .await
        .unwrap();
    until("the fields are there", async || {
        client
            .find(Locator::Css("[data-field=action]"))
            .await
            .is_ok()
    })
    .await;
    // A name and then a value, with the keys alone.
    let field = client
        .find(Locator::Css(".searchbar input[name=q]"))
        .await
        .unwrap();
    field.clear().await.unwrap();
    field.send_keys("acti").await.unwrap();
    until("names are offered", async || {
        text(client, "#completions").await.contains("action")
    })
    .await;
    picture(client, "search-completion-1280-light").await;
    field.send_keys(&Key::Tab.to_string()).await.unwrap();
    until("values are offered", async || {
        !text(client, "#completions").await.is_empty()
            && run(
                client,
                "return document.querySelector('[data-search]').value",
            )
            .await
                == "action:"
    })
    .await;
    field.send_keys(&Key::Down.to_string()).await.unwrap();
    field.send_keys(&Key::Enter.to_string()).await.unwrap();
    let taken = run(
        client,
        "return document.querySelector('[data-search]').value",
    )
    .await;
    let taken = taken.as_str().unwrap().trim().to_owned();
    assert!(taken.len() > "action:".len(), "{taken}");
    // A mistake is marked while it is written.
    field.send_keys("AND (").await.unwrap();
    until("the mistake is marked", async || {
        !text(client, "#hint").await.is_empty()
            && client.find(Locator::Css("#marks span")).await.is_ok()
    })
    .await;
    for _ in 0..5 {
        field.send_keys(&Key::Backspace.to_string()).await.unwrap();
    }
    field.send_keys(&Key::Escape.to_string()).await.unwrap();
    // A column of a field.
    client
        .goto(&format!("{base}/search?q=identity%3Aalice&range=all"))
        .await
        .unwrap();
    until("the fields are there", async || {
        client
            .find(Locator::Css("[data-field=action]"))
            .await
            .is_ok()
    })
    .await;
    click(client, "[data-field=action] summary").await;
    click(client, "[data-field=action] .acts a").await;
    until("the field is a column", async || {
        client.find(Locator::Css(".cols-1 .cell")).await.is_ok()
    })
    .await;
    // Without one of its values.
    until("the fields are there", async || {
        client
            .find(Locator::Css("[data-field=action]"))
            .await
            .is_ok()
    })
    .await;
    click(client, "[data-field=action] summary").await;
    picture(client, "search-fields-1280-light").await;
    click(client, "[data-field=action] .tops .not").await;
    until("the value is left out", async || {
        address().await.contains("NOT%20action") && address().await.contains("cols=action")
    })
    .await;
    // A range drawn over the histogram.
    client
        .goto(&format!("{base}/search?q=&range=all"))
        .await
        .unwrap();
    until("there is a histogram", async || {
        client.find(Locator::Css(".histogram svg")).await.is_ok()
    })
    .await;
    run(
        client,
        "const chart = document.querySelector('.histogram svg'), box = chart.getBoundingClientRect(); \
         for (const [kind, share] of [['pointerdown', .3], ['pointermove', .5], ['pointermove', .7], ['pointerup', .7]]) \
         chart.dispatchEvent(new PointerEvent(kind, {bubbles: true, button: 0, clientX: box.left + box.width * share, clientY: box.top + 9}));",
    )
    .await;
    until("the range is narrower", async || {
        address().await.contains("range=custom&from=20")
    })
    .await;
    // Following, begun and ended by a key; nothing is shown twice.
    client
        .goto(&format!("{base}/search?q=identity%3Aalice&range=all"))
        .await
        .unwrap();
    keys(client, "t").await;
    until("the page follows", async || {
        address().await.contains("live=1") && text(client, "#live").await == "live"
    })
    .await;
    let before = client
        .find_all(Locator::Css("[data-row]"))
        .await
        .unwrap()
        .len();
    until("the page has asked", async || {
        run(
            client,
            "return performance.getEntriesByType('resource').filter(e => e.name.includes('/search/tail')).length > 1",
        )
        .await
            == true
    })
    .await;
    let after = client
        .find_all(Locator::Css("[data-row]"))
        .await
        .unwrap()
        .len();
    assert_eq!(before, after, "what is shown is not shown again");
    keys(client, "t").await;
    until("the page has stopped", async || {
        !address().await.contains("live=1")
    })
    .await;
    keys(client, "?").await;
    until("the keys are told", async || {
        text(client, "#keys").await.contains("follow what comes in")
    })
    .await;
}

async fn on_a_phone(browser: &Browser) {
    let world = World::hostile();
    let base = format!("http://{}", world.serve(Config::default()).await);
    let client = browser.open("phone", true).await;
    let alert = world
        .store
        .alerts(&alerting::Filter {
            min_severity: Some(event::Severity::Critical),
            ..alerting::Filter::default()
        })
        .unwrap()[0]
        .id;
    for (path, name) in [
        ("/".to_owned(), "alerts"),
        ("/?state=all&q=script".to_owned(), "hostile"),
        (format!("/alerts/{alert}"), "alert"),
        ("/search?q=identity%3Aalice".to_owned(), "search"),
        (
            "/search?q=%28a+AND+averyveryverylongquerywithoutanyspaces%3Aaaaaaaaaaaaaaaaaaaaaaaaaa"
                .to_owned(),
            "search-error",
        ),
        ("/rules".to_owned(), "rules"),
        (
            "/rules/5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0001".to_owned(),
            "rule",
        ),
        ("/health".to_owned(), "health"),
        ("/silences".to_owned(), "silences"),
    ] {
        client.goto(&format!("{base}{path}")).await.unwrap();
        picture(&client, &format!("{name}-390-light")).await;
        let width = run(
            &client,
            "return [document.documentElement.scrollWidth, window.innerWidth]",
        )
        .await;
        assert_eq!(width, json!([390, 390]), "{path} is wider than the phone");
    }
    click(&client, "#theme").await;
    client.goto(&base).await.unwrap();
    picture(&client, "alerts-390-dark").await;
    client.close().await.unwrap();
    world.stop.stop();
}

async fn hostile_texts_do_nothing(browser: &Browser) {
    let world = World::hostile();
    let base = format!("http://{}", world.serve(Config::default()).await);
    let client = browser.open("hostile", false).await;
    let mut paths = vec![
        "/?state=all&limit=1000".to_owned(),
        "/search?q=source_id%3Ahostile*&range=all".to_owned(),
    ];
    paths.extend(HOSTILE.iter().map(|t| {
        let value = t.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
        format!("/investigate?field=identity&value={value}")
    }));
    let hostile = world
        .events
        .iter()
        .filter(|e| e.source_id.starts_with("hostile"));
    paths.extend(hostile.map(|e| format!("/events/{}", e.id)));
    let alerts = world
        .store
        .alerts(&alerting::Filter {
            text: "pwned".into(),
            ..alerting::Filter::default()
        })
        .unwrap();
    paths.extend(alerts.iter().map(|a| format!("/alerts/{}", a.id)));
    paths.extend(HOSTILE.iter().map(|t| {
        format!(
            "/search?q={}",
            t.bytes().map(|b| format!("%{b:02X}")).collect::<String>()
        )
    }));
    for (i, path) in paths.iter().enumerate() {
        client
            .goto(&format!("{base}{path}"))
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        if i == 1 {
            // Every event open: what htmx puts into the page is harmless as well.
            run(
                &client,
                "for (const d of document.querySelectorAll('details.hit')) d.open = true",
            )
            .await;
            until("all are open", async || {
                run(
                    &client,
                    "return document.querySelectorAll('.hit[open] section > .tree').length",
                )
                .await
                    == json!(HOSTILE.len())
            })
            .await;
            picture(&client, "hostile-1280-light").await;
        }
        let title = client.title().await.unwrap();
        assert!(title != "pwned" && title != "1", "{path} ran something");
        assert!(
            client.get_alert_text().await.is_err(),
            "{path} opened a dialog"
        );
        let strangers = run(&client, "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))").await;
        assert_eq!(strangers, json!([]), "{path} asked somebody else");
        let markup = run(&client, "return document.querySelectorAll('main iframe, main script, main style, main meta, main base, main img, main [onerror], main [onload], main [style], main a[href^=\"javascript:\"], main a[href*=\"192.0.2.99\"]:not([href^=\"/\"])').length").await;
        assert_eq!(markup, json!(0), "{path}");
        assert_eq!(
            run(&client, "return document.cookie").await,
            json!(""),
            "{path}"
        );
        assert!(
            client
                .current_url()
                .await
                .unwrap()
                .as_str()
                .starts_with(&base),
            "{path} led away"
        );
    }
    client.close().await.unwrap();
    world.stop.stop();
}

async fn logging_in(browser: &Browser) {
    let world = World::new();
    let user = User {
        name: "ada".into(),
        password_hash: Hidden(hash_password("correct horse")),
        password_hash_file: None,
        role: Role::Analyst,
    };
    let config = Config {
        auth: AuthConfig {
            mode: Mode::Password,
            users: vec![user],
            ..AuthConfig::default()
        },
        ..Config::default()
    };
    let base = format!("http://{}", world.serve(config).await);
    let client = browser.open("login", false).await;
    client
        .goto(&format!("{base}/search?q=action%3AStopLogging"))
        .await
        .unwrap();
    assert_eq!(client.current_url().await.unwrap().path(), "/login");
    picture(&client, "login-1280-light").await;
    let enter = async |password: &str| {
        let name = client.find(Locator::Css("#name")).await.unwrap();
        name.clear().await.unwrap();
        name.send_keys("ada").await.unwrap();
        client
            .find(Locator::Css("#password"))
            .await
            .unwrap()
            .send_keys(password)
            .await
            .unwrap();
        click(&client, "button[type=submit]").await;
    };
    enter("wrong").await;
    until("it says so", async || {
        client.find(Locator::Css(".wrong")).await.is_ok()
    })
    .await;
    enter("correct horse").await;
    until("it leads where it was going", async || {
        client.current_url().await.unwrap().path() == "/search"
    })
    .await;
    assert_eq!(
        run(&client, "return document.cookie").await,
        json!(""),
        "scripts do not see the session"
    );
    // A form without the page's token is refused, with the session's cookie and the right origin.
    let status = run(&client, "const r = new XMLHttpRequest(); r.open('POST', '/logout', false); r.setRequestHeader('Content-Type', 'application/x-www-form-urlencoded'); r.send('csrf=guess'); return r.status").await;
    assert_eq!(status, json!(403));
    client.goto(&base).await.unwrap();
    click(&client, ".tools button[type=submit]").await;
    until("logged out", async || {
        client.current_url().await.unwrap().path() == "/login"
    })
    .await;
    client.goto(&base).await.unwrap();
    assert_eq!(client.current_url().await.unwrap().path(), "/login");
    assert!(world.clock.load(Ordering::SeqCst) > 0);
    client.close().await.unwrap();
    world.stop.stop();
}
