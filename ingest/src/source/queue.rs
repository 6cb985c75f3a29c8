//! Objects of S3 by way of a queue of SQS.
//!
//! [`run`] receives messages, learns from [`notification`] which objects they speak of, and has
//! [`Objects`] take them. A message is deleted only after everything that it speaks of is durable on the log; until
//! then its visibility is prolonged at half its time, so that nobody else gets it meanwhile. A message whose object
//! cannot be had comes back later, each time after a longer while. An object that stays away becomes a dead letter with
//! its name after [`Queue::tries`] deliveries; where it is a matter of permission, not before a day has passed, since
//! that can be mended. While AWS refuses everything or cannot be reached, nothing is given up and less is received.
//! Contract of SQS: Amazon SQS Developer Guide, "Amazon SQS visibility timeout" and "at-least-once delivery".

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use bus::BusError;
use event::{Id, Str, format_compact};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::notification::{self, Notification, Object};
use super::object::{self, Objects, Outcome, Shop};
use super::s3::Trouble;
use crate::aws::{self, Access, Fault};
use crate::config::{ConfigError, within};
use crate::decode::Reason;
use crate::status::{Failure, Post};

/// A permission that is missing may be given within this time.
const REFUSED_SECONDS: i64 = 86_400;

/// SQS gives at most so many messages at once.
const MOST_AT_ONCE: usize = 10;

/// Longest wait for a message.
const POLL_SECONDS: i32 = 20;

/// A message comes back after this long at most.
const LONGEST_BACK_OFF: i32 = 900;

/// While AWS refuses, it is asked again after this time at most.
const LONGEST_BREATH: Duration = Duration::from_secs(15);

/// How often the queue is asked how much waits in it.
const LOOK: Duration = Duration::from_secs(60);

/// SQS lets nobody hold a message longer than twelve hours.
const LONGEST_HOLD: Duration = Duration::from_secs(12 * 3_600 - 600);

/// A queue that tells of new objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// What it is called in metrics and answers; empty for the last part of its address.
    pub name: String,
    /// Its address, `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`.
    pub url: String,
    /// As whom it is read, and its objects.
    pub aws: Access,
    /// Only objects whose keys begin with one of these are taken; none: all.
    pub prefixes: Vec<String>,
    /// How many objects are fetched and decoded at once.
    pub concurrency: usize,
    /// How long a message is held before it must be held again, in seconds.
    pub visibility_seconds: u32,
    /// After so many deliveries a message whose object cannot be read becomes a dead letter.
    pub tries: u32,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            name: String::new(),
            url: String::new(),
            aws: Access::default(),
            prefixes: Vec::new(),
            concurrency: 4,
            visibility_seconds: 300,
            tries: 5,
        }
    }
}

impl Queue {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self.name.as_str() {
            "" => self.url.rsplit('/').next().unwrap_or_default(),
            name => name,
        }
    }

    /// All settings at `place` with which it cannot be read, after those `before`.
    pub(crate) fn check(&self, place: &str, before: &[Queue]) -> Vec<ConfigError> {
        let url = ["https://", "http://"]
            .iter()
            .find_map(|scheme| self.url.strip_prefix(scheme));
        let bad_url =
            url.is_none_or(|rest| rest.splitn(3, '/').filter(|p| !p.is_empty()).count() < 3);
        let taken = before.iter().any(|b| b.name() == self.name());
        [
            bad_url.then(|| ConfigError::Value {
                key: format!("{place}.url"),
                value: format!("`{}`", self.url),
                allowed: "the address of a queue, https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
            }),
            within(
                &format!("{place}.concurrency"),
                self.concurrency as u64,
                1,
                64,
                "between 1 and 64",
            ),
            within(
                &format!("{place}.visibility_seconds"),
                self.visibility_seconds.into(),
                2,
                43_200,
                "between 2 and 43200",
            ),
            within(
                &format!("{place}.tries"),
                self.tries.into(),
                1,
                1_000,
                "between 1 and 1000",
            ),
            taken.then(|| ConfigError::Value {
                key: format!("{place}.name"),
                value: format!("`{}`", self.name()),
                allowed: "another one for each queue",
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Where it is: as configured, else as its address says.
    fn access(&self) -> Access {
        let mut access = self.aws.clone();
        if access.region.is_empty() {
            let host = self.url.split('/').nth(2).unwrap_or_default();
            let mut parts = host.split('.');
            if let (Some("sqs"), Some(region)) = (parts.next(), parts.next())
                && parts.next() == Some("amazonaws")
            {
                region.clone_into(&mut access.region);
            }
        }
        access
    }
}

/// Reads queues until told to stop.
pub fn run(queues: &[Queue], shop: &Shop) -> Result<(), BusError> {
    aws::threads("queues")?.block_on(async {
        let mut readers = JoinSet::new();
        for queue in queues {
            let (queue, shop) = (queue.clone(), shop.clone());
            readers.spawn(async move { Arc::new(Reader::new(queue, shop).await).receive().await });
        }
        readers.join_all().await;
    });
    Ok(())
}

struct Reader {
    queue: Queue,
    client: Client,
    objects: Arc<Objects>,
    shop: Shop,
    post: Post,
    /// How many objects in a row could not be had for a reason that is not their own.
    refused: AtomicU32,
    /// After so many deliveries the queue itself gives a message up; 0 for never.
    max_receives: AtomicU32,
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All of it is durable.
    Delete,
    /// It cannot be dealt with now.
    Later,
    /// It cannot be dealt with at all, and a dead letter says so; the queue moves it to its own dead letters.
    Leave,
    /// Somebody else may have it at once.
    Release,
}

impl Reader {
    async fn new(queue: Queue, shop: Shop) -> Reader {
        let access = queue.access();
        let config = access.load().await;
        Reader {
            client: Client::new(&config),
            objects: Arc::new(Objects::new(
                shop.clone(),
                access,
                config,
                queue.concurrency,
            )),
            post: shop.metrics.collectors.post("queue", queue.name()),
            queue,
            shop,
            refused: AtomicU32::new(0),
            max_receives: AtomicU32::new(0),
        }
    }

    /// Receives and hands out until told to stop; what is in hand by then is finished or released.
    async fn receive(self: &Arc<Self>) {
        let free = Arc::new(Semaphore::new(object::in_hand(self.queue.concurrency)));
        let mut tasks = JoinSet::new();
        let watch = tokio::spawn(Arc::clone(self).watch());
        let mut failures = 0_u32;
        while !self.shop.stop.is_stopped() {
            while tasks.try_join_next().is_some() {}
            self.breathe(self.refused.load(Ordering::Relaxed).max(failures))
                .await;
            let room = tokio::select! {
                permit = free.acquire() => {
                    drop(permit);
                    free.available_permits().min(MOST_AT_ONCE)
                }
                () = aws::stopped(&self.shop.stop) => break,
            };
            // While AWS refuses, one message at a time tells whether it still does.
            let room = if self.refused.load(Ordering::Relaxed) > 0 {
                1
            } else {
                room
            };
            let messages = tokio::select! {
                messages = self.ask(room) => messages,
                () = aws::stopped(&self.shop.stop) => break,
            };
            failures = if messages.is_none() { failures + 1 } else { 0 };
            for message in messages.into_iter().flatten() {
                let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
                    break;
                };
                let reader = Arc::clone(self);
                tasks.spawn(async move {
                    reader.message(&message).await;
                    drop(permit);
                });
            }
        }
        while tasks.join_next().await.is_some() {}
        watch.abort();
    }

    /// Waits for longer the more often in a row something failed.
    async fn breathe(&self, failures: u32) {
        if failures == 0 {
            return;
        }
        let wait = Duration::from_secs(u64::from(failures)).min(LONGEST_BREATH);
        aws::rest(wait, &self.shop.stop).await;
    }

    /// Up to `room` messages; `None` if the queue cannot be asked.
    async fn ask(&self, room: usize) -> Option<Vec<Message>> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.queue.url)
            .max_number_of_messages(room.max(1) as i32)
            .wait_time_seconds(POLL_SECONDS)
            .visibility_timeout(self.visibility())
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let messages = answer.messages.unwrap_or_default();
                let now = (self.shop.clock)();
                self.post.well("queue", messages.len() as u64, now);
                Some(messages)
            }
            Err(error) => {
                self.complain(Fault::of(&error), "receive from", &aws::said(&error));
                None
            }
        }
    }

    fn complain(&self, fault: Fault, action: &str, message: &str) {
        let failure = Failure {
            fault: fault.as_str(),
            message: format!("cannot {action} the queue: {message}"),
            hint: fault.hint(),
        };
        self.post.failed("queue", failure, (self.shop.clock)());
        self.shop
            .metrics
            .errors
            .with_label_values(&[fault.as_str()])
            .inc();
        tracing::error!(
            queue = self.queue.name(),
            message,
            hint = fault.hint(),
            "cannot {action} the queue"
        );
    }

    fn visibility(&self) -> i32 {
        i32::try_from(self.queue.visibility_seconds).unwrap_or(i32::MAX)
    }

    /// Deals with one message to its end.
    async fn message(self: &Arc<Self>, message: &Message) {
        let Some(receipt) = message.receipt_handle() else {
            return;
        };
        let verdict = tokio::select! {
            verdict = self.judge(message) => verdict,
            () = self.hold(receipt) => Verdict::Later,
        };
        match verdict {
            Verdict::Delete => self.delete(receipt).await,
            Verdict::Later => self.show(receipt, back_off(message)).await,
            Verdict::Release => self.show(receipt, 0).await,
            Verdict::Leave => {}
        }
    }

    /// Keeps a message invisible for as long as SQS allows.
    async fn hold(&self, receipt: &str) {
        let half = Duration::from_secs((u64::from(self.queue.visibility_seconds) / 2).max(1));
        let mut held = Duration::ZERO;
        while held < LONGEST_HOLD {
            tokio::time::sleep(half).await;
            held += half;
            self.show(receipt, self.visibility()).await;
        }
    }

    /// Makes a message visible again after so many seconds.
    async fn show(&self, receipt: &str, seconds: i32) {
        let answer = self
            .client
            .change_message_visibility()
            .queue_url(&self.queue.url)
            .receipt_handle(receipt)
            .visibility_timeout(seconds)
            .send()
            .await;
        if let Err(error) = answer {
            // It becomes visible by itself after its time, and repeats are harmless.
            tracing::warn!(
                queue = self.queue.name(),
                message = aws::said(&error),
                "cannot hold a message, it may be delivered again"
            );
        }
    }

    async fn delete(&self, receipt: &str) {
        let answer = self
            .client
            .delete_message()
            .queue_url(&self.queue.url)
            .receipt_handle(receipt)
            .send()
            .await;
        if let Err(error) = answer {
            self.complain(
                Fault::of(&error),
                "delete a message from",
                &aws::said(&error),
            );
        }
    }

    /// Does what a message asks for.
    async fn judge(self: &Arc<Self>, message: &Message) -> Verdict {
        let body = message.body().unwrap_or_default();
        match notification::read(body) {
            Notification::Objects(objects) => self.all(objects, message).await,
            Notification::Records(content) => {
                let name = self.name_of(message);
                let content = content.into_owned();
                match self.objects.body(&name, content).await {
                    Ok(_) => Verdict::Delete,
                    Err(Trouble::Panicked { .. }) => {
                        self.unreadable(message, "decoding stopped unexpectedly")
                    }
                    Err(trouble) => self.later(&trouble),
                }
            }
            Notification::Test => {
                self.passed_over("test_message");
                Verdict::Delete
            }
            Notification::Nothing => {
                self.passed_over("no_new_object");
                Verdict::Delete
            }
            Notification::Unknown(why) => self.unreadable(message, why),
        }
    }

    fn passed_over(&self, reason: &str) {
        self.shop
            .metrics
            .events_dropped
            .with_label_values(&[reason])
            .inc();
    }

    fn name_of(&self, message: &Message) -> Str {
        format_compact!(
            "sqs://{}/{}",
            self.queue.name(),
            message.message_id().unwrap_or_default()
        )
    }

    /// A message that speaks of nothing that is known is kept as a dead letter.
    fn unreadable(&self, message: &Message, why: &str) -> Verdict {
        let body = message.body().unwrap_or_default();
        let name = self.name_of(message);
        match self
            .objects
            .letter(Reason::UnknownObject, why, &name, body.as_bytes())
        {
            Ok(()) => Verdict::Delete,
            Err(error) => self.later(&error.into()),
        }
    }

    /// Takes all objects of a message; what fails does not keep the others from being taken.
    async fn all(self: &Arc<Self>, objects: Vec<Object>, message: &Message) -> Verdict {
        let mut verdict = Verdict::Delete;
        for object in objects {
            let prefixes = &self.queue.prefixes;
            if !prefixes.is_empty() && !prefixes.iter().any(|p| object.key.starts_with(p.as_str()))
            {
                self.passed_over("foreign_object");
                continue;
            }
            let now = (self.shop.clock)();
            self.shop.metrics.collectors.saw(&object.key, now);
            let outcome = self.objects.take(&object).await;
            let word = match &outcome {
                Ok(Outcome::Read { .. }) => "read",
                Ok(Outcome::Repeated) => "repeated",
                Err(_) => "failed",
            };
            self.shop.metrics.objects.with_label_values(&[word]).inc();
            let Err(trouble) = outcome else {
                self.refused.store(0, Ordering::Relaxed);
                self.post.well("objects", 0, (self.shop.clock)());
                continue;
            };
            match self.on_trouble(&object, &trouble, message) {
                Verdict::Delete => {}
                Verdict::Leave if verdict == Verdict::Delete => verdict = Verdict::Leave,
                Verdict::Release => return Verdict::Release,
                _ => verdict = Verdict::Later,
            }
        }
        verdict
    }

    /// What to do about an object that was not taken: `Delete` if a dead letter tells of it.
    fn on_trouble(&self, object: &Object, trouble: &Trouble, message: &Message) -> Verdict {
        let receives = attribute(
            message,
            &MessageSystemAttributeName::ApproximateReceiveCount,
        )
        .map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX));
        let sent = attribute(message, &MessageSystemAttributeName::SentTimestamp);
        let age = sent.map_or(0, |sent| (self.shop.clock)().0 / 1_000_000 - sent / 1_000);
        let tried = receives >= self.queue.tries;
        let given_up = match trouble {
            Trouble::Panicked { .. } => tried,
            Trouble::Fetch { fault, .. } => match fault {
                Fault::NoObject | Fault::Other => tried,
                Fault::Denied | Fault::Key => tried && age >= REFUSED_SECONDS,
                _ => false,
            },
            Trouble::Local { .. } | Trouble::Bus(_) | Trouble::Stopped => false,
        };
        let max = self.max_receives.load(Ordering::Relaxed);
        let last = max > 0 && receives >= max && !matches!(trouble, Trouble::Stopped);
        if !given_up && !last {
            return self.later(trouble);
        }
        match self.objects.give_up(object, trouble) {
            Ok(()) => {
                tracing::error!(
                    error = trouble as &dyn std::error::Error,
                    receives,
                    "an object is given up, a dead letter names it"
                );
                // What the queue itself gives up goes to its own dead letters.
                if given_up {
                    Verdict::Delete
                } else {
                    Verdict::Leave
                }
            }
            Err(error) => self.later(&error.into()),
        }
    }

    /// Counts and says what failed, and has the message come back.
    fn later(&self, trouble: &Trouble) -> Verdict {
        if matches!(trouble, Trouble::Stopped) {
            return Verdict::Release;
        }
        let of_object = matches!(
            trouble,
            Trouble::Panicked { .. }
                | Trouble::Fetch {
                    fault: Fault::NoObject | Fault::Other,
                    ..
                }
        );
        if !of_object {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.post
                .failed("objects", Failure::of(trouble), (self.shop.clock)());
        }
        self.shop
            .metrics
            .errors
            .with_label_values(&[trouble.kind()])
            .inc();
        tracing::warn!(
            queue = self.queue.name(),
            error = trouble as &dyn std::error::Error,
            hint = trouble.hint(),
            "an object waits, it is tried again"
        );
        Verdict::Later
    }

    /// Asks from time to time how much waits, and how often the queue delivers a message.
    async fn watch(self: Arc<Self>) {
        loop {
            let answer = self
                .client
                .get_queue_attributes()
                .queue_url(&self.queue.url)
                .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
                .attribute_names(QueueAttributeName::RedrivePolicy)
                .send()
                .await;
            match answer {
                Ok(answer) => self.learn(&answer.attributes.unwrap_or_default()),
                Err(error) => tracing::warn!(
                    queue = self.queue.name(),
                    message = aws::said(&error),
                    "cannot ask how much waits in the queue"
                ),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn learn(&self, attributes: &HashMap<QueueAttributeName, String>) {
        let waiting = attributes.get(&QueueAttributeName::ApproximateNumberOfMessages);
        if let Some(waiting) = waiting.and_then(|n| n.parse().ok()) {
            let gauge = &self.shop.metrics.waiting;
            gauge.with_label_values(&[self.queue.name()]).set(waiting);
            self.post.waiting(u64::try_from(waiting).unwrap_or(0));
        }
        let redrive = attributes.get(&QueueAttributeName::RedrivePolicy);
        let max = redrive.map_or(0, |policy| max_receives(policy));
        self.max_receives.store(max, Ordering::Relaxed);
    }
}

/// After how many deliveries a queue with this policy gives a message up; 0 for never.
fn max_receives(policy: &str) -> u32 {
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap_or_default();
    let max = &policy["maxReceiveCount"];
    let number = max.as_u64().or_else(|| max.as_str()?.parse().ok());
    number.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

fn attribute(message: &Message, name: &MessageSystemAttributeName) -> Option<i64> {
    message.attributes()?.get(name)?.parse().ok()
}

/// After how many seconds a message comes back: longer from time to time, and not all at the same moment.
fn back_off(message: &Message) -> i32 {
    let receives = attribute(
        message,
        &MessageSystemAttributeName::ApproximateReceiveCount,
    );
    let doublings = receives.unwrap_or(1).clamp(1, 8) as u32 - 1;
    let base = (15 << doublings).min(LONGEST_BACK_OFF);
    let id = Id::of(
        "back off",
        &[message.message_id().unwrap_or_default().as_bytes()],
    );
    base + (id.0 % (base as u128 / 2)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_names_queue_and_region() {
        let mut queue = Queue {
            url: "https://sqs.eu-west-1.amazonaws.com/111122223333/trail".into(),
            ..Queue::default()
        };
        assert_eq!(
            (queue.name(), &*queue.access().region),
            ("trail", "eu-west-1")
        );
        queue.aws.region = "us-east-1".into();
        assert_eq!(queue.access().region, "us-east-1");
        queue.aws.region.clear();
        queue.url = "http://127.0.0.1:5000/123456789012/q".into();
        assert_eq!((queue.name(), &*queue.access().region), ("q", ""));
    }

    #[test]
    fn messages_come_back_after_longer_and_longer() {
        let after = |receives: &str| {
            let name = MessageSystemAttributeName::ApproximateReceiveCount;
            let message = Message::builder()
                .message_id("m")
                .attributes(name, receives);
            back_off(&message.build())
        };
        let all: Vec<i32> = ["1", "2", "3", "6", "7", "100"].map(after).to_vec();
        assert!(all.is_sorted(), "{all:?}");
        assert!((15..23).contains(&all[0]));
        assert!((LONGEST_BACK_OFF..LONGEST_BACK_OFF * 3 / 2).contains(&all[5]));
    }

    #[test]
    fn the_policy_of_a_queue_is_read() {
        assert_eq!(
            max_receives(r#"{"deadLetterTargetArn":"a","maxReceiveCount":"5"}"#),
            5
        );
        assert_eq!(max_receives(r#"{"maxReceiveCount":7}"#), 7);
        assert_eq!(max_receives("nonsense"), 0);
    }
}
