//! The login page. On an open console there is nobody to log in, and it leads to the alerts.

use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use event::Outcome;
use maud::{Markup, html};
use serde_json::json;

use super::layout;
use crate::app::{Client, Shared};
use crate::assets;
use crate::auth::Refused;
use crate::error::{ApiError, blocking};
use crate::guard::peer;
use crate::params::{Form, Params};

/// `GET /login`
pub(crate) async fn page(
    State(shared): State<Shared>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let next = local(params.or_empty("next"));
    let known = shared.auth.principal(&headers, shared.now()).is_some();
    if known || !shared.auth.has_login() {
        return Redirect::to(&next).into_response();
    }
    form(&next, "", None).into_response()
}

/// `POST /login`
pub(crate) async fn login(
    State(shared): State<Shared>,
    mut client: Client,
    extensions: Extensions,
    Form(params): Form,
) -> Result<Response, ApiError> {
    if !shared.auth.has_login() {
        return Err(ApiError::not_found("page"));
    }
    params.only(&["name", "password", "next"])?;
    let next = local(params.or_empty("next"));
    let name = params.or_empty("name").to_owned();
    let password = params.or_empty("password").to_owned();
    let from = peer(&extensions);
    let permit = shared.logins.acquire().await.map_err(ApiError::internal)?;
    let now = shared.now();
    let (auth, who) = (shared.clone(), name.clone());
    let result = blocking(move || auth.auth.login(&who, &password, from, now)).await?;
    drop(permit);
    client.name = name.chars().take(128).collect();
    let outcome = if result.is_ok() {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    let limited = matches!(result, Err(Refused::Limited(_)));
    shared.audit(
        &client,
        "Login",
        outcome,
        String::new(),
        json!({"limited": limited}),
    );
    match result {
        Ok(cookie) => {
            let cookie = HeaderValue::from_str(&cookie).map_err(ApiError::internal)?;
            Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&next)).into_response())
        }
        Err(refused) => {
            shared.app.metrics.failed_logins.inc();
            let (status, text, after) = match refused {
                Refused::Wrong => (
                    StatusCode::UNAUTHORIZED,
                    "Name or password is wrong.".to_owned(),
                    None,
                ),
                Refused::Limited(seconds) => (
                    StatusCode::TOO_MANY_REQUESTS,
                    format!("Too many failed logins. Try again in {seconds} s."),
                    Some(seconds),
                ),
            };
            let mut response = (status, form(&next, &client.name, Some(&text))).into_response();
            if let Some(seconds) = after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Ok(response)
        }
    }
}

/// `POST /logout`
pub(crate) async fn logout(
    State(shared): State<Shared>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let cookie = shared.auth.logout(&headers);
    shared.audit(
        &client,
        "Logout",
        Outcome::Success,
        String::new(),
        json!({}),
    );
    let cookie = HeaderValue::from_str(&cookie).map_err(ApiError::internal)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// Where to go after the login: only a path of this console.
fn local(next: &str) -> String {
    let within = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if within {
        next.to_owned()
    } else {
        "/".to_owned()
    }
}

fn form(next: &str, name: &str, wrong: Option<&str>) -> Markup {
    layout::bare(
        "Log in",
        html! {
            section.panel.narrow.login {
                h1 { img src=(assets::url("icon.svg")) alt="" width="28" height="28"; " Trailwarden" }
                @if let Some(wrong) = wrong { p.wrong role="alert" { (wrong) } }
                form action="/login" method="post" {
                    input type="hidden" name="next" value=(next);
                    label for="name" { "Name" }
                    input #name name="name" value=(name) autocomplete="username" required autofocus[name.is_empty()];
                    label for="password" { "Password" }
                    input #password type="password" name="password" autocomplete="current-password" required autofocus[!name.is_empty()];
                    button type="submit" { "Log in" }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_nowhere_else() {
        for (next, expected) in [
            ("/search?q=a%3Ab", "/search?q=a%3Ab"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
            ("", "/"),
        ] {
            assert_eq!(local(next), expected, "{next}");
        }
    }
}
