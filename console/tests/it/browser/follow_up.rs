//! From an alert to its evidence, on to who it was, and to a search that is kept: with the keys and by hand.

use event::Time;

use super::*;
use crate::world::story::{KEYS, SECRETS};

async fn address(client: &Client) -> String {
    client.current_url().await.unwrap().to_string()
}

async fn count(client: &Client, css: &str) -> usize {
    client.find_all(Locator::Css(css)).await.unwrap().len()
}

async fn pressed(client: &Client, key: &str, what: &str, part: &str) {
    keys(client, key).await;
    until(what, async || address(client).await.contains(part)).await;
    until("the page is there", async || {
        run(client, "return document.readyState").await == json!("complete")
    })
    .await;
}

pub(super) async fn from_the_alert_to_a_saved_search(browser: &Browser) {
    let (world, alert) = World::story();
    let base = format!("http://{}", world.serve(Config::default()).await);
    let client = browser.open("follow-up", false).await;
    client
        .goto(&format!("{base}/alerts/{alert}"))
        .await
        .unwrap();
    picture(&client, "follow-alert-1280-light").await;

    // The evidence as a search: its events and no others, with fixed times.
    pressed(
        &client,
        "o",
        "the evidence opens as a search",
        "/search?q=id%3AIN",
    )
    .await;
    assert_eq!(count(&client, ".hit").await, SECRETS);
    assert!(
        address(&client)
            .await
            .contains("range=custom&from=2026-11-22T03")
    );
    picture(&client, "evidence-search-1280-light").await;

    // One of its events, in place, and from it to who did it.
    keys(&client, "j").await;
    keys(&client, &Key::Enter.to_string()).await;
    until("the event opens in place", async || {
        client.find(Locator::Css(".hit[open] .tree")).await.is_ok()
    })
    .await;
    pressed(
        &client,
        "i",
        "who did it is looked into",
        "/investigate?field=identity&value=erin",
    )
    .await;
    assert_eq!(text(&client, "h1").await, "erin");
    let new = text(&client, ".fresh").await;
    for words in [
        "StopLogging",
        "203.0.113.0/24",
        "03:00",
        "444455556666",
        "Boto3",
    ] {
        assert!(new.contains(words), "{words}: {new}");
    }
    assert!(
        !new.contains("GetObject"),
        "what is usual is not new: {new}"
    );
    let alerts = text(&client, ".tl-alert").await;
    assert!(alerts.contains("Secrets read in a burst"), "{alerts}");
    assert!(
        text(&client, ".alike summary")
            .await
            .contains("more like it, until")
    );
    picture(&client, "investigate-1280-light").await;
    whole(&client, "investigate-1280-whole").await;
    // The picture in docs/search.md.
    client.set_window_size(1280, 1750).await.unwrap();
    picture(&client, "investigate-docs").await;
    client.set_window_size(1280, 900).await.unwrap();

    // Narrower by a key, and a row that opens by keys; what is folded is no row.
    pressed(&client, "1", "an hour to each side", "hours=1").await;
    keys(&client, "j").await;
    keys(&client, &Key::Enter.to_string()).await;
    until("the event opens in place", async || {
        client
            .find(Locator::Css(".tl .hit[open] .tree"))
            .await
            .is_ok()
    })
    .await;
    let rows = run(&client, "return [...document.querySelectorAll('[data-row]')].filter(r => r.checkVisibility()).length").await;
    let all = count(&client, "[data-row]").await as u64;
    assert!(rows.as_u64().unwrap() < all, "{rows} of {all}");

    // The key of the session: who stands behind it, and what was made with it.
    client
        .goto(&format!(
            "{base}/investigate?field=access_key&value={}",
            KEYS[1]
        ))
        .await
        .unwrap();
    let chain = text(&client, ".chain").await;
    let places: Vec<Option<usize>> = KEYS.iter().map(|key| chain.find(key)).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{chain}"
    );
    assert!(chain.contains("also recorded by 444455556666"), "{chain}");
    picture(&client, "investigate-key-1280-light").await;
    whole(&client, "investigate-key-1280-whole").await;

    // As a search, which is saved under a name.
    pressed(&client, "o", "it opens as a search", "/search?q=access_key").await;
    let searched = address(&client).await;
    keys(&client, "s").await;
    until("the menu is there", async || {
        client
            .find(Locator::Css("#saved[open] .saving summary"))
            .await
            .is_ok()
    })
    .await;
    click(&client, "#saved .saving summary").await;
    for (field, written) in [
        ("name", "Erin's session"),
        ("description", "the night of the 22nd"),
    ] {
        let css = format!("#saved input[name={field}]");
        let field = client.find(Locator::Css(&css)).await.unwrap();
        field.send_keys(written).await.unwrap();
    }
    picture(&client, "search-save-1280-light").await;
    click(&client, "#saved .save button.primary").await;
    until("it is saved and open", async || {
        text(&client, ".opened").await.contains("Erin's session")
    })
    .await;
    assert!(!text(&client, ".opened").await.contains("changed"));
    let saved = world.store.saved_search("erin's session").unwrap().unwrap();
    assert_eq!(saved.description, "the night of the 22nd");

    // Saved once more under the same name: it is asked.
    click(&client, "#saved summary").await;
    until("the menu is there", async || {
        client
            .find(Locator::Css("#saved[open] .saving summary"))
            .await
            .is_ok()
    })
    .await;
    click(&client, "#saved .saving summary").await;
    click(&client, "#saved .save button.primary").await;
    until("it is asked", async || {
        text(&client, "h1").await == "Overwrite the saved search?"
    })
    .await;
    picture(&client, "saved-overwrite-1280-light").await;

    // From another search it is opened again with the keys alone.
    world
        .store
        .save_search(
            "Root logins",
            &alerting::saved::NewSearch {
                query: "userIdentity.type:Root AND action:ConsoleLogin".into(),
                from: "-7d".into(),
                ..Default::default()
            },
            false,
            "ada",
            Time(world.now().0),
        )
        .unwrap();
    client
        .goto(&format!("{base}/search?q=identity%3Aalice"))
        .await
        .unwrap();
    keys(&client, "s").await;
    until("the filter is at hand", async || {
        let at = "return document.activeElement?.matches('#saved [data-names-filter]')";
        run(&client, at).await == json!(true)
    })
    .await;
    picture(&client, "search-saved-1280-light").await;
    let filter = client.active_element().await.unwrap();
    filter.send_keys("ERIN sess").await.unwrap();
    filter.send_keys(&Key::Enter.to_string()).await.unwrap();
    until("it is open again", async || {
        text(&client, ".opened")
            .await
            .contains("the night of the 22nd")
    })
    .await;
    let opened = address(&client).await;
    let query = |address: &str| address.split('&').next().unwrap().to_owned();
    assert_eq!(query(&opened), query(&searched));
    client.goto(&format!("{base}/searches")).await.unwrap();
    picture(&client, "saved-1280-light").await;
    client
        .goto(&format!(
            "{base}/investigate?field=identity&value=erin&around=2026-08-01"
        ))
        .await
        .unwrap();
    picture(&client, "investigate-empty-1280-light").await;
    click(&client, "#theme").await;
    client
        .goto(&format!(
            "{base}/investigate?field=identity&value=erin&around=2026-11-22T03:10:00Z"
        ))
        .await
        .unwrap();
    picture(&client, "investigate-1280-dark").await;
    client.close().await.unwrap();
    world.stop.stop();
}

pub(super) async fn on_a_phone(browser: &Browser) {
    let (world, alert) = World::story();
    let base = format!("http://{}", world.serve(Config::default()).await);
    let client = browser.open("follow-up-phone", true).await;
    for name in [
        "Root logins",
        "Denied calls of the night, services left out",
    ] {
        let search = alerting::saved::NewSearch {
            query: "outcome:denied AND NOT actor_type:AWSService AND averyveryverylongwordwithoutanyspaces".into(),
            description: "what to look at first".into(),
            ..Default::default()
        };
        world
            .store
            .save_search(name, &search, false, "ada", world.now())
            .unwrap();
    }
    for (path, name) in [
        (
            "/investigate?field=identity&value=erin&around=2026-11-22T03:10:00Z".to_owned(),
            "investigate",
        ),
        (
            format!("/investigate?field=access_key&value={}", KEYS[1]),
            "investigate-key",
        ),
        (
            "/investigate?field=session&value=nobody".to_owned(),
            "investigate-never",
        ),
        (
            "/investigate?field=identity&value=erin&around=2026-08-01".to_owned(),
            "investigate-empty",
        ),
        ("/searches?q=identity%3Aerin".to_owned(), "saved"),
        (format!("/alerts/{alert}"), "follow-alert"),
        (
            "/search?q=identity%3Aerin&range=all&saved=Root+logins".to_owned(),
            "search-saved",
        ),
    ] {
        client.goto(&format!("{base}{path}")).await.unwrap();
        picture(&client, &format!("{name}-390-light")).await;
        scrolled(&client, &format!("{name}-390-light")).await;
        if name == "search-saved" {
            click(&client, "#saved summary").await;
            until("the menu is there", async || {
                client
                    .find(Locator::Css("#saved[open] .saved"))
                    .await
                    .is_ok()
            })
            .await;
            picture(&client, &format!("{name}-menu-390-light")).await;
        }
        let width = run(
            &client,
            "return [document.documentElement.scrollWidth, window.innerWidth]",
        )
        .await;
        assert_eq!(width, json!([390, 390]), "{path} is wider than the phone");
    }
    client.close().await.unwrap();
    world.stop.stop();
}

/// A picture of all of a page rather than of what fits the window; only where pictures are asked for.
async fn whole(client: &Client, name: &str) {
    if std::env::var_os("TRAILWARDEN_SCREENSHOTS").is_none() {
        return;
    }
    let height = run(client, "return document.documentElement.scrollHeight").await;
    let height = height.as_u64().unwrap() as u32;
    client.set_window_size(1280, height + 150).await.unwrap();
    picture(client, name).await;
    client.set_window_size(1280, 900).await.unwrap();
}

/// The same of a phone, which cannot be made taller: picture by picture.
async fn scrolled(client: &Client, name: &str) {
    if std::env::var_os("TRAILWARDEN_SCREENSHOTS").is_none() {
        return;
    }
    for i in 1..=3 {
        let script = format!("scrollTo(0, innerHeight * {i} * .85)");
        run(client, &script).await;
        picture(client, &format!("{name}-{i}")).await;
    }
    run(client, "scrollTo(0, 0)").await;
}
