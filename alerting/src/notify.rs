//! The sending threads: they take notifications from the outbox, send them and write down what came of it.
//!
//! [`run`] has one thread for each receiver, so that one that is slow or away holds up nobody else's
//! notifications. A [`Sender`] makes one step at a time: take what is due under a lease, fix its message at
//! the first attempt, send it, settle it. The lease outlives the longest attempt; if the process dies in
//! between, the lease ends and the notification is sent again under the same key, counted as doubt.

use std::sync::Arc;
use std::time::Duration;

use bus::Stop;
use event::{Clock, RuleInfo, Time};

use crate::message::Message;
use crate::metrics::Metrics;
use crate::notifier::Receiver;
use crate::outbox::{self, Outcome};
use crate::store::{Leased, Store, StoreError};

/// How much longer than an attempt a lease lasts, in microseconds.
const LEASE_MARGIN: i64 = 20_000_000;
/// How long to wait before looking at the outbox and the stop sign again.
const WAIT: Duration = Duration::from_millis(500);
/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_secs(2);

/// Looks up what a rule says for people.
pub type Rules = Arc<dyn Fn(&str) -> Option<RuleInfo> + Send + Sync>;

/// Why sending ended.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The threads could not be set up.
    #[error("cannot start a sending thread")]
    Start(#[source] std::io::Error),
    /// The outbox could not be read.
    #[error("cannot read the outbox")]
    Store(#[from] StoreError),
}

/// What the sending threads share.
pub struct Sender {
    /// Where the outbox is.
    pub store: Arc<Store>,
    /// What rules say for people.
    pub rules: Rules,
    /// Where people find the console; empty for nowhere.
    pub console_url: String,
    /// The time of day.
    pub clock: Clock,
    /// The counters.
    pub metrics: Metrics,
}

/// Sends the outbox to all receivers until it is told to stop.
pub fn run(sender: &Sender, receivers: &[Receiver], stop: &Stop) -> Result<(), NotifyError> {
    let names: Vec<&str> = receivers.iter().map(|r| r.name.as_str()).collect();
    let buried = sender.store.bury_unknown(&names)?;
    if buried > 0 {
        tracing::error!(
            notifications = buried,
            "gave up notifications for receivers that are no longer configured"
        );
    }
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for receiver in receivers {
            let thread = std::thread::Builder::new()
                .name(format!("notify-{}", receiver.name))
                .spawn_scoped(scope, move || serve(sender, receiver, stop))
                .map_err(NotifyError::Start)?;
            threads.push(thread);
        }
        for thread in threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

/// One receiver's thread.
fn serve(sender: &Sender, receiver: &Receiver, stop: &Stop) -> Result<(), NotifyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NotifyError::Start)?;
    let mut changed = sender.store.changed();
    while !stop.is_stopped() {
        match runtime.block_on(sender.step(receiver)) {
            Ok(true) => {}
            Ok(false) => {
                // A change of alerts may have filled the outbox; retries become due by themselves.
                let _ =
                    runtime.block_on(async { tokio::time::timeout(WAIT, changed.changed()).await });
            }
            Err(error) => {
                sender.metrics.failed("store");
                tracing::error!(
                    receiver = receiver.name,
                    error = &error as &dyn std::error::Error,
                    "outbox failed, trying again"
                );
                std::thread::sleep(PAUSE);
            }
        }
    }
    Ok(())
}

impl Sender {
    /// Sends what is due to a receiver, one notification. Tells whether there was one.
    pub async fn step(&self, receiver: &Receiver) -> Result<bool, StoreError> {
        let now = (self.clock)();
        let lease = receiver.timeout.saturating_add(LEASE_MARGIN);
        let Some(leased) = self.store.lease(&receiver.name, lease, now)? else {
            return Ok(false);
        };
        let outcome = match self.message(&leased, now)? {
            None => Outcome::Dead {
                error: "the alert is no longer kept".into(),
            },
            Some((message, body)) => {
                let result = receiver.notifier.send(&message, &body, now).await;
                let attempts = leased.notification.attempts;
                let key = format!("{} {}", message.idempotency_key, receiver.name);
                outbox::settle(result, &key, attempts, leased.give_up_at, (self.clock)())
            }
        };
        self.report(receiver, &leased, &outcome);
        self.store
            .settle(&leased.notification, &outcome, (self.clock)())?;
        Ok(true)
    }

    /// The message of a notification and its bytes: those of the first attempt if there was one.
    fn message(&self, leased: &Leased, now: Time) -> Result<Option<(Message, String)>, StoreError> {
        // One that an older program has written and this one cannot read is written anew.
        let fixed = leased.message.as_ref();
        if let Some(fixed) = fixed.and_then(|b| Some((serde_json::from_str(b).ok()?, b.clone()))) {
            return Ok(Some(fixed));
        }
        let notification = &leased.notification;
        let Some(subject) = self.store.subject(notification)? else {
            return Ok(None);
        };
        let rule = (self.rules)(&subject.alert.rule_id);
        let message = Message::new(notification, subject, rule, &self.console_url, now);
        let body = serde_json::to_string(&message).map_err(|source| StoreError::Damaged {
            what: "message",
            source,
        })?;
        self.store.fix_message(notification.id, &body)?;
        Ok(Some((message, body)))
    }

    fn report(&self, receiver: &Receiver, leased: &Leased, outcome: &Outcome) {
        self.metrics.attempted(receiver.kind, outcome);
        let (name, n) = (receiver.name.as_str(), &leased.notification);
        match outcome {
            Outcome::Sent => {
                tracing::info!(receiver = name, alert = %n.alert, reason = n.reason.as_str(), "notification sent");
            }
            Outcome::Retry { at, error, .. } => {
                self.metrics.failed("send");
                tracing::warn!(receiver = name, alert = %n.alert, attempts = n.attempts, next = %at, error, "notification not sent, trying again");
            }
            Outcome::Dead { error } => {
                self.metrics.failed("send");
                tracing::error!(receiver = name, alert = %n.alert, attempts = n.attempts, error, "notification given up");
            }
        }
    }
}

#[cfg(test)]
mod tests;
