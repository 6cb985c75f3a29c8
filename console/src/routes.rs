//! The table of routes: what there is, and the role that each needs.
//!
//! [`table`] is the only place where a route gets its path, its method and its [`Access`]; [`router`] wraps
//! each line in `guard` with that access, so that a route cannot be reached around it. A test walks the table
//! with every kind of caller.

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::api;
use crate::app::{App, Shared};
use crate::assets;
use crate::config::ConfigError;
use crate::error::ApiError;
use crate::guard::{Access, guard, outer};
use crate::pages;

struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Shared>,
}

fn route<H, T>(method: Method, access: Access, path: &'static str, handler: H) -> Route
where
    H: Handler<T, Shared>,
    T: 'static,
{
    let filter = filter(&method);
    Route {
        method,
        path,
        access,
        handler: on(filter, handler),
    }
}

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

fn get<H: Handler<T, Shared>, T: 'static>(access: Access, path: &'static str, handler: H) -> Route {
    route(Method::GET, access, path, handler)
}

fn post<H: Handler<T, Shared>, T: 'static>(
    access: Access,
    path: &'static str,
    handler: H,
) -> Route {
    route(Method::POST, access, path, handler)
}

fn routes() -> Vec<Route> {
    use Access::{Analyst, Node, Public, Viewer};
    vec![
        get(Public, "/healthz", api::health::healthz),
        get(Public, "/readyz", api::health::readyz),
        get(Viewer, "/metrics", api::health::metrics),
        get(Viewer, "/api/v1/search", api::search::get),
        post(Viewer, "/api/v1/search", api::search::post),
        get(Viewer, "/api/v1/search/explain", api::search::explain),
        get(Viewer, "/api/v1/search/fields", api::search::fields),
        get(Viewer, "/api/v1/search/export", api::export::get),
        get(Viewer, "/api/v1/search/rule", api::search_rule::get),
        get(Viewer, "/api/v1/investigate", api::investigate::get),
        post(Node, "/api/v1/index", api::index::post),
        get(Viewer, "/api/v1/events/{id}", api::search::event),
        post(Analyst, "/api/v1/evidence", api::evidence::export),
        get(Viewer, "/api/v1/holds", api::holds::list),
        post(Analyst, "/api/v1/holds", api::holds::add),
        post(Analyst, "/api/v1/holds/{name}/release", api::holds::release),
        get(Viewer, "/api/v1/alerts", api::alerts::list),
        get(Viewer, "/api/v1/alerts/feed", api::feed::feed),
        get(Viewer, "/api/v1/alerts/{id}", api::alerts::get),
        post(
            Analyst,
            "/api/v1/alerts/{id}/acknowledge",
            api::alerts::acknowledge,
        ),
        post(Analyst, "/api/v1/alerts/{id}/assign", api::alerts::assign),
        post(Analyst, "/api/v1/alerts/{id}/comment", api::alerts::comment),
        post(Analyst, "/api/v1/alerts/{id}/resolve", api::alerts::resolve),
        get(Viewer, "/api/v1/incidents", api::alerts::incidents),
        post(
            Analyst,
            "/api/v1/incidents/{id}/acknowledge",
            api::alerts::acknowledge_incident,
        ),
        post(
            Analyst,
            "/api/v1/incidents/{id}/resolve",
            api::alerts::resolve_incident,
        ),
        get(Viewer, "/api/v1/silences", api::silences::list),
        post(Analyst, "/api/v1/silences", api::silences::create),
        post(
            Analyst,
            "/api/v1/silences/{id}/expire",
            api::silences::expire,
        ),
        get(Viewer, "/api/v1/searches", api::searches::list),
        get(Viewer, "/api/v1/searches/{name}", api::searches::get),
        route(
            Method::PUT,
            Analyst,
            "/api/v1/searches/{name}",
            api::searches::put,
        ),
        route(
            Method::DELETE,
            Analyst,
            "/api/v1/searches/{name}",
            api::searches::delete,
        ),
        get(Viewer, "/api/v1/notifications", api::notifications::list),
        post(
            Analyst,
            "/api/v1/notifications/{id}/resend",
            api::notifications::resend,
        ),
        get(Viewer, "/api/v1/rules", api::rules::list),
        get(Viewer, "/api/v1/rules/{id}", api::rules::get),
        post(Analyst, "/api/v1/rules/reload", api::rules::reload),
        get(Viewer, "/api/v1/sources", api::health::sources),
        get(Viewer, "/api/v1/health", api::health::health),
        get(Viewer, "/api/v1/openapi.json", api::openapi::document),
        get(Public, "/assets/{name}", assets::serve),
        get(Public, "/login", pages::login::page),
        post(Public, "/login", pages::login::login),
        post(Viewer, "/logout", pages::login::logout),
        get(Viewer, "/", pages::alerts::page),
        get(Viewer, "/alerts/{id}", pages::alert::page),
        post(Analyst, "/alerts/{id}", pages::alert::change),
        post(Analyst, "/incidents/{id}", pages::alerts::change_incident),
        get(Viewer, "/search", pages::search::page),
        get(Viewer, "/search/fields", pages::search::fields::part),
        get(Viewer, "/search/tail", pages::search::tail::part),
        get(Viewer, "/search.csv", pages::search::csv),
        get(Viewer, "/search.json", pages::search::json),
        get(Viewer, "/search/rule", pages::rule_text::page),
        get(Viewer, "/investigate", pages::investigate::page),
        get(Viewer, "/searches", pages::saved::page),
        post(Analyst, "/searches", pages::saved::save),
        get(Viewer, "/searches/{name}", pages::saved::open),
        post(Analyst, "/searches/{name}/delete", pages::saved::delete),
        get(Viewer, "/events/{id}", pages::event::page),
        get(Viewer, "/rules", pages::rules::list),
        get(Viewer, "/rules/{id}", pages::rules::page),
        get(Viewer, "/silences", pages::silences::page),
        post(Analyst, "/silences", pages::silences::create),
        post(Analyst, "/silences/{id}/expire", pages::silences::expire),
        get(Viewer, "/health", pages::health::page),
        post(Analyst, "/notifications/{id}/resend", pages::health::resend),
    ]
}

/// Every route of the console: method, path and what it asks of the caller. Those of an [`Intake`] come on top.
pub fn table() -> Vec<(Method, &'static str, Access)> {
    routes()
        .into_iter()
        .map(|r| (r.method, r.path, r.access))
        .collect()
}

/// Routes of `ingest` that take events in. They bring their own limits.
pub struct Intake {
    /// Routes for callers with the role `ingest` and, on an open console, for anybody.
    pub guarded: Router,
    /// Routes for callers without a login: they ask for a key of their own.
    pub keyed: Router,
}

/// The whole console. A node that takes no events in has no `intake`.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that failed logins are counted per address.
pub fn router(app: App, intake: Option<Intake>) -> Result<Router, ConfigError> {
    let shared = Shared::new(app)?;
    let mut router = Router::new();
    for route in routes() {
        let offers = shared.app.offers;
        let handler = match area(route.path) {
            Area::Alerts if !offers.alerts => elsewhere(&route, "api"),
            Area::Search if !offers.search => elsewhere(&route, "index"),
            _ => route.handler,
        };
        let layer = from_fn_with_state((shared.clone(), route.access), guard);
        router = router.route(route.path, handler.layer(layer));
    }
    let limit = DefaultBodyLimit::max(shared.app.config.max_body_bytes);
    let mut router = router.layer(limit).with_state(shared.clone());
    if let Some(intake) = intake {
        for (routes, access) in [
            (intake.guarded, Access::Ingest),
            (intake.keyed, Access::Public),
        ] {
            let layer = from_fn_with_state((shared.clone(), access), guard);
            router = router.merge(routes.route_layer(layer));
        }
    }
    Ok(router
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(shared.clone(), count))
        .layer(from_fn_with_state(shared, outer)))
}

/// Which nodes answer a route.
enum Area {
    Everywhere,
    Alerts,
    Search,
}

fn area(path: &str) -> Area {
    const EVERYWHERE: [&str; 10] = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/health",
        // Says itself that there is no index.
        "/api/v1/index",
        "/api/v1/openapi.json",
        "/assets/{name}",
        "/login",
        "/logout",
        "/health",
    ];
    const SEARCH: [&str; 19] = [
        "/api/v1/evidence",
        "/api/v1/holds",
        "/api/v1/holds/{name}/release",
        "/api/v1/investigate",
        "/api/v1/search",
        "/api/v1/search/explain",
        "/api/v1/search/fields",
        "/api/v1/search/export",
        "/api/v1/search/rule",
        "/api/v1/events/{id}",
        "/api/v1/sources",
        "/search",
        "/search/fields",
        "/search/tail",
        "/search/rule",
        "/investigate",
        "/search.csv",
        "/search.json",
        "/events/{id}",
    ];
    if EVERYWHERE.contains(&path) {
        Area::Everywhere
    } else if SEARCH.contains(&path) {
        Area::Search
    } else {
        Area::Alerts
    }
}

/// Says that nodes with another role answer here.
fn elsewhere(route: &Route, role: &'static str) -> MethodRouter<Shared> {
    on(filter(&route.method), move || async move {
        ApiError::new(
            axum::http::StatusCode::MISDIRECTED_REQUEST,
            "other_node",
            format!("this node does not have the role {role}"),
        )
        .hint(format!("ask a node that runs with --role {role}"))
    })
}

async fn not_found() -> ApiError {
    ApiError::not_found("page").hint("the API is described at /api/v1/openapi.json")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this address does not take that method",
    )
}

/// Counts a request under its route's path, never under the path that was asked.
async fn count(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let timer = std::time::Instant::now();
    let response = next.run(request).await.into_response();
    let route = path.as_ref().map_or("none", |p| p.as_str());
    let status = match response.status().as_u16() {
        100..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    let metrics = &shared.app.metrics;
    metrics.requests.with_label_values(&[route, status]).inc();
    metrics
        .duration
        .with_label_values(&[route])
        .observe(timer.elapsed().as_secs_f64());
    response
}
