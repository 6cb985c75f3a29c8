//! Everything that the console is given: [`App`], filled by `cli`, and what routes share.
//!
//! The console owns no data. It is handed the searcher, the alert store, the log for its lag, and functions
//! for what lives elsewhere: the loaded rules, why a rule matched, whether the stages are well, what the demo
//! injected, and where to put the record of what people do. [`Shared`] adds what the routes keep between
//! requests: the sessions and the limits on what runs at once.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use alerting::{Store, watch};
use bus::ledger::Ledger;
use bus::{Bus, Offset, Stop, Topic};
use event::inventory::Inventory;
use event::{AuditEvent, Clock, Event, Integrity, Outcome, RuleInfo, Time};
use prometheus::Registry;
use search::hold::Holds;
use search::{Nodes, Searcher};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::auth::{Auth, Kind, Principal};
use crate::config::{Config, ConfigError};
use crate::error::REQUEST;
use crate::metrics::Metrics;

/// Gives the rules that are loaded now.
pub type Rules = Arc<dyn Fn() -> Arc<Vec<RuleInfo>> + Send + Sync>;

/// Looks at the rule files and loads them if they have changed; says what came of it, or what is wrong with them.
pub type Reload = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Tells why the rule with this id matches an event, one line a field.
pub type Explain = Arc<dyn Fn(&str, &Event) -> Vec<String> + Send + Sync>;

/// The group-by fields and values of a finding; a missing field is `None`.
pub type Group = BTreeMap<event::Str, Option<event::Str>>;

/// Gives the query that finds what the rule with this id looks at for a group: what a rule on single events matches, or
/// what any of the rules of a correlation matches. None where no query can say it.
pub type RuleQuery = Arc<dyn Fn(&str, &Group) -> Option<String> + Send + Sync>;

/// Writes a query as a Sigma rule, or says why it cannot be one.
pub type AsRule = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// What the console works on.
pub struct App {
    /// Answers searches and finds evidence, of all index nodes that are known here.
    pub searcher: Nodes,
    /// Alerts, silences, notifications.
    pub store: Arc<Store>,
    /// The rules that are loaded now.
    pub rules: Rules,
    /// Loads the rules anew.
    pub reload: Reload,
    /// Why a rule (by its id) matches an event: one line a field; none where the rule is not loaded.
    pub explain: Explain,
    /// What a rule (by its id) looks at, as a query.
    pub rule_query: RuleQuery,
    /// A query as a rule.
    pub as_rule: AsRule,
    /// How sources are watched.
    pub watched: watch::Options,
    /// The rules that look at a source.
    pub blind: Arc<watch::Looking>,
    /// Sets what has become known of an event's integrity since it was taken in.
    pub integrity: Arc<dyn Fn(&mut Event) + Send + Sync>,
    /// What evidence bundles are made with; none where this node keeps no index.
    pub evidence: Option<Evidence>,
    /// The index of this node; none on a node without.
    pub index: Option<Index>,
    /// What is expected.
    pub inventory: Arc<dyn Fn() -> Arc<Inventory> + Send + Sync>,
    /// The log, for its bounds.
    pub bus: Arc<dyn Bus>,
    /// The stages of this process and where each stands in the log.
    pub stages: Vec<Stage>,
    /// What this node answers; the rest is other nodes' business.
    pub offers: Offers,
    /// What must be well for `/readyz` to say so.
    pub checks: Vec<Check>,
    /// The time of day.
    pub clock: Clock,
    /// What `/metrics` writes out.
    pub registry: Registry,
    /// What the console counts, registered there.
    pub metrics: Metrics,
    /// The `console` part of the configuration.
    pub config: Config,
    /// Is the listener behind TLS?
    pub tls: bool,
    /// In the demo, the attacks injected so far, latest first.
    pub demo: Option<Arc<dyn Fn() -> Vec<Injection> + Send + Sync>>,
    /// Takes what people and programs do here.
    pub audit: Arc<dyn Fn(AuditEvent) + Send + Sync>,
    /// Ends live streams when the program stops.
    pub stop: Stop,
}

/// The index of this node, for what concerns only its own part.
#[derive(Clone)]
pub struct Index {
    /// What must not leave it.
    pub holds: Arc<Holds>,
    /// Reads it.
    pub searcher: Searcher,
    /// Which of the index nodes this one is, from 0.
    pub node: u32,
    /// How many there are.
    pub nodes: u32,
}

/// What evidence bundles are made with.
#[derive(Clone)]
pub struct Evidence {
    /// The evidence log: proves and signs.
    pub ledger: Arc<Ledger>,
    /// What digests say of an object, and whose.
    pub vouched: Vouched,
    /// Program and version.
    pub tool: String,
}

/// Tells what digests say of an object, and whose digests say so.
pub type Vouched = Arc<dyn Fn(&str) -> (Integrity, Option<serde_json::Value>) + Send + Sync>;

/// Which parts of the console a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    /// Alerts, incidents, silences, notifications and rules: the role `api`.
    pub alerts: bool,
    /// Searches of events: the role `index`, or `api` where it knows the index nodes.
    pub search: bool,
}

/// One condition of readiness.
#[derive(Clone)]
pub struct Check {
    /// Its name in the answer.
    pub name: &'static str,
    /// What is well about it, or what is not.
    pub run: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
}

/// One consumer of the log.
#[derive(Clone)]
pub struct Stage {
    /// Its name, such as `match` or `index`.
    pub name: &'static str,
    /// What it reads.
    pub topic: Topic,
    /// The next offset that it will read, by partition; none before its first.
    pub positions: Arc<dyn Fn() -> BTreeMap<u32, Offset> + Send + Sync>,
}

impl Stage {
    /// A stage that keeps its position on the bus under a consumer name.
    pub fn on_bus(bus: &Arc<dyn Bus>, name: &'static str, consumer: &str, topic: Topic) -> Stage {
        let (bus, consumer) = (bus.clone(), consumer.to_owned());
        Stage {
            name,
            topic,
            positions: Arc::new(move || {
                let all = bus.progress().unwrap_or_default().into_iter();
                all.filter(|p| p.consumer == consumer && p.topic == topic)
                    .map(|p| (p.partition, p.next))
                    .collect()
            }),
        }
    }
}

/// An attack that the demo injected, so that a viewer can check the alerts against it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Injection {
    /// When it began.
    pub start: Time,
    /// When it was complete.
    pub end: Time,
    /// What it is, in words.
    pub title: String,
    /// In which account.
    pub account: String,
    /// By whom.
    pub actor: String,
    /// From where.
    pub source_ip: String,
    /// The rules (ids or titles) that should alert.
    pub expect: Vec<String>,
    /// The sources' ids of the events it consists of; with them its alert is found exactly.
    pub event_ids: Vec<String>,
    /// Does it only look like an attack? Then nothing should alert.
    pub decoy: bool,
}

/// [`App`] with what the routes keep between requests; cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) app: App,
    pub(crate) auth: Auth,
    pub(crate) searches: Arc<Semaphore>,
    pub(crate) questions: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) exports: Arc<Semaphore>,
    pub(crate) logins: Semaphore,
}

impl Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Shared {
    pub(crate) fn new(app: App) -> Result<Shared, ConfigError> {
        Ok(Shared(Arc::new(Inner {
            auth: Auth::new(&app.config.auth, app.tls)?,
            searches: Arc::new(Semaphore::new(app.config.concurrent_searches)),
            questions: Arc::new(Semaphore::new(app.config.concurrent_node_searches)),
            streams: Arc::new(Semaphore::new(app.config.live_streams)),
            // An export may take as long as its client wants it to.
            exports: Arc::new(Semaphore::new(2)),
            // Hashing a password takes 19 MiB and a core: no more than two at once.
            logins: Semaphore::new(2),
            app,
        })))
    }

    pub(crate) fn now(&self) -> Time {
        (self.app.clock)()
    }

    pub(crate) fn rules(&self) -> Arc<Vec<RuleInfo>> {
        (self.app.rules)()
    }

    /// The loaded rule with this id.
    pub(crate) fn rule(&self, id: &str) -> Option<RuleInfo> {
        self.rules().iter().find(|r| r.id == id).cloned()
    }

    /// Records what somebody did.
    pub(crate) fn audit(
        &self,
        client: &Client,
        action: &'static str,
        outcome: Outcome,
        resource: String,
        details: serde_json::Value,
    ) {
        (self.app.audit)(AuditEvent {
            time: self.now(),
            action,
            actor: client.name.clone(),
            actor_type: match client.kind {
                Kind::Open => "open",
                Kind::User => "user",
                Kind::Token => "token",
            },
            src_ip: client.peer.clone(),
            user_agent: client.user_agent.clone(),
            outcome,
            resource,
            details,
            request_id: REQUEST.try_with(|r| r.id.clone()).unwrap_or_default(),
        });
    }
}

/// Who sent a request and what its pages need to know of them.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) may_change: bool,
    pub(crate) csrf: String,
    pub(crate) peer: String,
    pub(crate) user_agent: String,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Client, Self::Rejection> {
        let who = parts.extensions.get::<Principal>();
        let agent = parts.headers.get(axum::http::header::USER_AGENT);
        Ok(Client {
            name: who.map_or_else(String::new, |w| w.name.clone()),
            kind: who.map_or(Kind::User, |w| w.kind),
            may_change: who.is_some_and(|w| w.role == crate::config::Role::Analyst),
            csrf: who.map_or_else(String::new, |w| w.csrf.clone()),
            peer: crate::guard::peer(&parts.extensions).map_or_else(String::new, |p| p.to_string()),
            user_agent: agent
                .map(|a| {
                    String::from_utf8_lossy(a.as_bytes())
                        .chars()
                        .take(512)
                        .collect()
                })
                .unwrap_or_default(),
        })
    }
}
