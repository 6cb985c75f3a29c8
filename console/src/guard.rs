//! What every request passes before a route sees it: deny by default.
//!
//! [`outer`] runs around everything: it gives the request its id, refuses foreign host names (DNS
//! rebinding) and sets the security headers. [`guard`] is wrapped around each route of the table in
//! `routes` with the [`Access`] that the route needs: it asks `auth` who is asking, checks the role, and for
//! everything that changes something it refuses other sites' pages by origin and by form token. A route
//! without a line in the table does not exist.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use subtle::ConstantTimeEq;

use crate::app::Shared;
use crate::auth::{self, Kind, Principal};
use crate::config::{Mode, Role};
use crate::error::{ApiError, REQUEST, RequestInfo};

/// What a route asks of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Public,
    /// To read.
    Viewer,
    /// To work on alerts and silences.
    Analyst,
    /// To push events.
    Ingest,
    /// To ask an index node for its share of an answer.
    Node,
}

impl Access {
    fn allows(self, who: &Principal) -> bool {
        match self {
            _ if who.kind == Kind::Open => true,
            Access::Public => true,
            Access::Viewer => matches!(who.role, Role::Viewer | Role::Analyst),
            Access::Analyst => who.role == Role::Analyst,
            Access::Ingest => who.role == Role::Ingest,
            Access::Node => who.role == Role::Node,
        }
    }
}

const CSP: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// Around everything: request id, host check, headers.
pub(crate) async fn outer(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let program = path.starts_with("/api/")
        || ["/healthz", "/readyz", "/metrics"].contains(&path)
        || path.starts_with("/assets/");
    let theme = match auth::cookie(request.headers(), "theme") {
        Some("dark") => Some("dark"),
        Some("light") => Some("light"),
        _ => None,
    };
    let info = RequestInfo {
        id: auth::random()[..16].to_owned(),
        page: !program,
        theme,
    };
    let id = info.id.clone();
    let mut response = REQUEST
        .scope(info, async {
            match check_host(&shared, request.headers(), request.uri().host()) {
                Ok(()) => next.run(request).await,
                Err(refused) => {
                    count_refused(&shared, "unknown_host");
                    refused.into_response()
                }
            }
        })
        .await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, CSP);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "same-origin");
    set(header::CACHE_CONTROL, "no-store");
    set(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    );
    if shared.app.tls {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}

/// Is the name by which the browser came here one of ours? A page of another site that points its own name at our
/// address comes with that name.
fn check_host(shared: &Shared, headers: &HeaderMap, in_uri: Option<&str>) -> Result<(), ApiError> {
    let config = &shared.app.config;
    let host = match headers.get(header::HOST) {
        Some(value) => value.to_str().unwrap_or(""),
        None => in_uri.unwrap_or(""),
    };
    let name = without_port(host).to_ascii_lowercase();
    let known = if !config.hosts.is_empty() {
        config.hosts.iter().any(|h| h.eq_ignore_ascii_case(&name))
    } else {
        config.auth.mode == Mode::Password || is_loopback(&name)
    };
    if known {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::MISDIRECTED_REQUEST,
        "unknown_host",
        "this console is not known under that host name",
    )
    .hint("open it as http://127.0.0.1, or list the name in `console.hosts`"))
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Around each route: who is asking, may they, and did they mean to?
pub(crate) async fn guard(
    State((shared, access)): State<(Shared, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let now = (shared.app.clock)();
    let who = shared.auth.principal(request.headers(), now);
    if access != Access::Public {
        match &who {
            None => {
                count_refused(&shared, "unauthenticated");
                return unauthenticated(&shared, &request);
            }
            Some(who) if !access.allows(who) => {
                count_refused(&shared, "forbidden");
                return ApiError::new(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    "your role does not allow this",
                )
                .hint("ask an administrator for the role that it needs")
                .into_response();
            }
            Some(_) => {}
        }
    }
    if !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) {
        request = match check_intent(who.as_ref(), access, request).await {
            Ok(request) => request,
            Err(refused) => {
                count_refused(&shared, refused.code);
                return refused.into_response();
            }
        };
    }
    if let Some(who) = who {
        request.extensions_mut().insert(who);
    }
    next.run(request).await
}

fn count_refused(shared: &Shared, reason: &'static str) {
    let refused = &shared.app.metrics.refused;
    refused.with_label_values(&[reason]).inc();
}

fn unauthenticated(shared: &Shared, request: &Request) -> Response {
    let page = REQUEST.try_with(|r| r.page).unwrap_or(false);
    if page && shared.auth.has_login() {
        let next = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let login = if *request.method() == Method::GET {
            format!("/login?next={}", crate::pages::encode(next))
        } else {
            "/login".to_owned()
        };
        if request.headers().contains_key("hx-request") {
            // htmx follows redirects inside the page; this header makes the whole page go.
            let to = HeaderValue::from_static("/login");
            return (StatusCode::UNAUTHORIZED, [("hx-redirect", to)]).into_response();
        }
        return Redirect::to(&login).into_response();
    }
    let mut refused = ApiError::new(
        StatusCode::UNAUTHORIZED,
        "unauthenticated",
        "this needs a login or a token",
    )
    .hint("send `Authorization: Bearer <token>`")
    .into_response();
    refused
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}

/// Did the request come from a page of ours? A token is sent by no browser on its own and needs no more.
async fn check_intent(
    who: Option<&Principal>,
    access: Access,
    request: Request,
) -> Result<Request, ApiError> {
    if who.is_some_and(|w| w.kind == Kind::Token) {
        return Ok(request);
    }
    let page = REQUEST.try_with(|r| r.page).unwrap_or(false);
    let forged = || {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            "the request does not come from a page of this console",
        )
        .hint("reload the page and try again")
    };
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN);
    let site = headers.get("sec-fetch-site");
    match (origin, site) {
        (Some(origin), _) if !same_origin(origin, headers, request.uri().host()) => {
            return Err(forged());
        }
        (_, Some(site)) if site != "same-origin" && site != "none" => return Err(forged()),
        // Browsers always say where a form comes from; what does not say is no browser, and has no page.
        (None, None) if page => return Err(forged()),
        _ => {}
    }
    let needs_token = match who {
        // The login form: there is nothing yet that could be abused, and the origin is shown.
        None => false,
        Some(who) => access != Access::Ingest && (page || who.kind == Kind::User),
    };
    let Some(who) = who.filter(|_| needs_token) else {
        return Ok(request);
    };
    let in_header = headers.get("x-csrf-token").cloned();
    let (request, presented) = match in_header {
        Some(value) => (request, value.to_str().unwrap_or("").to_owned()),
        None => form_token(request).await?,
    };
    if bool::from(presented.as_bytes().ct_eq(who.csrf.as_bytes())) {
        Ok(request)
    } else {
        Err(forged())
    }
}

fn same_origin(origin: &HeaderValue, headers: &HeaderMap, in_uri: Option<&str>) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .or(in_uri);
    let from = origin
        .to_str()
        .ok()
        .and_then(|o| o.split_once("://"))
        .map(|(_, host)| host);
    matches!((from, host), (Some(from), Some(host)) if from.eq_ignore_ascii_case(host))
}

/// The field `csrf` of a form; the body is read, within the limit of the route, and put back.
async fn form_token(request: Request) -> Result<(Request, String), ApiError> {
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| {
            t.as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        });
    if !is_form {
        return Ok((request, String::new()));
    }
    let (parts, body) = request.into_parts();
    let copy = Request::from_parts(parts.clone(), body);
    let bytes = Bytes::from_request(copy, &())
        .await
        .map_err(|_| too_large())?;
    let token = crate::params::pairs(&bytes)
        .into_iter()
        .find(|(key, _)| key == "csrf")
        .map_or_else(String::new, |(_, value)| value);
    Ok((Request::from_parts(parts, bytes.into()), token))
}

/// 413 for a body over the limit.
pub(crate) fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        "the request body is larger than this route takes",
    )
}

/// The address of the other end, where the server was told to note it.
pub(crate) fn peer(extensions: &axum::http::Extensions) -> Option<IpAddr> {
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(address)| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_port() {
        for (host, name) in [
            ("127.0.0.1:7171", "127.0.0.1"),
            ("[::1]:7171", "[::1]"),
            ("[::1]", "[::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(without_port(host), name);
            assert!(is_loopback(name), "{name}");
        }
        assert!(!is_loopback("evil.example"));
        assert!(!is_loopback("127.0.0.1.evil.example"));
    }
}
