//! Turns what the rules find into alerts that reach the right people.
//!
//! Findings come from the bus ([`stage::run`]) and are folded into alerts and incidents by pure decisions
//! ([`fold`], [`incident`], [`silence`], [`route`], [`dedup`]), which [`store`] applies in one transaction
//! with the position of the findings topic and the [`outbox`]. [`notify`] sends the outbox through the
//! [`notifier`]s. The console reads and changes alerts through [`Store`]. Nothing here knows the rules'
//! language or a vendor's log format, and no log content is ever trusted: [`inert`] makes it harmless.

pub mod alert;
pub mod config;
pub mod dedup;
pub mod fold;
pub mod incident;
pub mod inert;
pub mod matcher;
pub mod message;
pub mod metrics;
pub mod notifier;
pub mod notify;
pub mod outbox;
pub mod policy;
pub mod route;
pub mod saved;
pub mod silence;
pub mod stage;
pub mod store;
pub mod watch;

pub use alert::{Action, Alert, Comment, FeedEntry, HistoryEntry, Incident, State};
pub use config::Config;
pub use metrics::Metrics;
pub use notifier::Receiver;
pub use notify::{Rules, Sender};
pub use policy::{ConfigError, Policy};
pub use saved::SavedSearch;
pub use store::{
    Applied, Counts, Delivery, Filter, Notification, NotificationFilter, SeenFunction, Store,
    StoreError,
};
