//! The sending threads: they take notifications from the outbox, send them and write down what came of it.
//!
//! [`run`] has one thread for each receiver, so that one that is slow or away holds up nobody else's
//! notifications. A [`Sender`] makes one step at a time: take what is due under a lease, fix its message at
//! the first attempt, send it, settle it. The lease outlives the longest attempt; if the process dies in
//! between, the lease ends and the notification is sent again under the same key, counted as doubt. Of several
//! nodes on one database only the one that leads sends; a thread that finds it leads no longer has changed
//! nothing in the outbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::Stop;
use event::{Clock, RuleInfo, Time};
use tokio::runtime::Runtime;

use crate::message::Message;
use crate::metrics::Metrics;
use crate::notifier::Receiver;
use crate::outbox::{self, Outcome};
use crate::store::{Leased, Store, StoreError, Turn};

/// How much longer than an attempt a lease lasts, in microseconds.
const LEASE_MARGIN: i64 = 20_000_000;
/// How long to wait before looking at the outbox and the stop sign again.
const WAIT: Duration = Duration::from_millis(500);
/// How long to wait after the store failed.
const PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked whether this node leads and whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// The lease of the node that sends.
const ROLE: &str = "notifications";

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
#[derive(Clone)]
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

/// Sends the outbox to all receivers until it is told to stop, while the node `holder` leads.
pub fn run(
    sender: &Sender,
    receivers: &[Receiver],
    holder: String,
    stop: &Stop,
) -> Result<(), NotifyError> {
    let fenced = Sender {
        store: Arc::new(sender.store.fenced(ROLE)),
        ..sender.clone()
    };
    let mut lines = Vec::new();
    for receiver in receivers {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(NotifyError::Start)?;
        lines.push((receiver, runtime));
    }
    let post = Post {
        sender: &fenced,
        leads: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut started = Ok(());
        for (receiver, runtime) in lines {
            let post = &post;
            let thread = std::thread::Builder::new()
                .name(format!("notify-{}", receiver.name))
                .spawn_scoped(scope, move || post.serve(receiver, &runtime));
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => started = Err(NotifyError::Start(error)),
            }
        }
        let result = started.and_then(|()| {
            let mut turn = Turn::new(&sender.store, ROLE, holder);
            let done = post.lead(&mut turn, receivers, stop, || {
                threads.iter().any(|t| t.is_finished())
            });
            post.ended.store(true, Ordering::SeqCst);
            for thread in threads {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            turn.resign();
            done
        });
        post.ended.store(true, Ordering::SeqCst);
        result
    })
}

/// What the threads of [`run`] know of one another.
struct Post<'a> {
    /// Writes only while this node leads.
    sender: &'a Sender,
    leads: AtomicBool,
    ended: AtomicBool,
}

impl Post<'_> {
    /// Keeps `leads` true to the store until it is time to stop or `broken` says that a thread is gone.
    fn lead(
        &self,
        turn: &mut Turn<'_>,
        receivers: &[Receiver],
        stop: &Stop,
        broken: impl Fn() -> bool,
    ) -> Result<(), NotifyError> {
        loop {
            let leads = match turn.leads() {
                Ok(true) if !self.leads.load(Ordering::SeqCst) => self.begin(receivers),
                other => other,
            };
            match leads {
                Ok(leads) => self.set(leads),
                // What another node does is not known: nothing is sent meanwhile.
                Err(error) if self.sender.store.is_shared() => {
                    self.set(false);
                    turn.lost();
                    self.sender.metrics.failed("store");
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "outbox failed, trying again"
                    );
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
            if stop.is_stopped() || broken() {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn set(&self, leads: bool) {
        self.leads.store(leads, Ordering::SeqCst);
        self.sender.metrics.leads(ROLE, leads);
    }

    /// What a node does when it begins to lead: nobody else will send to receivers that it does not know.
    fn begin(&self, receivers: &[Receiver]) -> Result<bool, StoreError> {
        let names: Vec<&str> = receivers.iter().map(|r| r.name.as_str()).collect();
        let buried = self.sender.store.bury_unknown(&names)?;
        if buried > 0 {
            tracing::error!(
                notifications = buried,
                "gave up notifications for receivers that are no longer configured"
            );
        }
        Ok(true)
    }

    /// One receiver's thread.
    fn serve(&self, receiver: &Receiver, runtime: &Runtime) {
        let sender = self.sender;
        let mut changed = sender.store.changed();
        while !self.ended.load(Ordering::SeqCst) {
            if !self.leads.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
                continue;
            }
            match sender.step(receiver, runtime) {
                Ok(true) => {}
                Ok(false) => {
                    // A change of alerts may have filled the outbox; retries become due by themselves.
                    let _ = runtime
                        .block_on(async { tokio::time::timeout(WAIT, changed.changed()).await });
                }
                // The thread that asks will know it soon.
                Err(StoreError::NotLeading(_)) => std::thread::sleep(WAIT),
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
    }
}

impl Sender {
    /// Sends what is due to a receiver, one notification. Tells whether there was one. Only the sending itself runs on
    /// `runtime`: the store blocks.
    pub fn step(&self, receiver: &Receiver, runtime: &Runtime) -> Result<bool, StoreError> {
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
                let result = runtime.block_on(receiver.notifier.send(&message, &body, now));
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
