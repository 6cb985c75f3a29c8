//! What people see and programs call: the HTTP API and the web console, in one [`router`].
//!
//! `cli` fills an [`App`] with what the other stages offer (the searcher, the alert store, the rules, the
//! log) and serves the router on its listener. `api` answers programs in JSON, `pages` people in HTML; both
//! call the same functions of `search` and `alerting`, and no page can do what the API cannot. Every route
//! stands in one table in `routes` with the role it needs; `guard` and `auth` let nobody else in. Nothing of
//! a log reaches a page except through `inert`. The intake routes belong to `ingest`; they are handed in as
//! an [`Intake`] and guarded here, but for those that ask for a key of their own.

mod api;
mod app;
mod assets;
mod auth;
mod config;
mod error;
mod guard;
mod inert;
mod metrics;
mod pages;
mod params;
mod routes;
mod svg;

pub use ::event::AuditEvent;
pub use api::investigate::investigation;
pub use app::{
    App, AsRule, Check, Evidence, Explain, Group, Index, Injection, Offers, Reload, RuleQuery,
    Rules, Stage, Vouched,
};
pub use auth::{Kind, Principal, hash_password};
pub use config::{AuthConfig, Config, ConfigError, Hidden, Mode, Role, Token, User};
pub use error::ApiError;
pub use guard::Access;
pub use metrics::Metrics;
pub use routes::{Intake, router, table};
