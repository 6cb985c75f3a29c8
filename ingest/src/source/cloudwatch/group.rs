//! One log group: asked for a window of time, page by page, appended, remembered.
//!
//! [`Reader::window`] reads one window of one group to its end. Every page's events are durable before the next page
//! is asked for, and the position moves only after the last: a process that dies in between asks for the whole window
//! again, and the ids of its events make that harmless. A page may be empty although more follow.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::operation::filter_log_events::FilterLogEventsOutput;
use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use bus::{BusError, Commit, StateChange};
use event::{Id, Time, format_compact};
use tokio::task::block_in_place;

use super::listing::Found;
use super::position::{FIRST_SPAN, Position, Seen, Window, next_span, shorter};
use super::{CONSUMER, LogGroups};
use crate::append::Appender;
use crate::aws::{self, Fault};
use crate::dead_letter::DeadLetter;
use crate::decode::{Decoder, Item, LogEvent};
use crate::normalize::{Context, Normalizer};
use crate::source::object::Shop;
use crate::source::patience::{Pace, breath};
use crate::source::s3::Trouble;
use crate::status::Post;

/// What stands for this source in metrics.
const SOURCE: &str = "cloudwatch";

/// How many events of the overlap are remembered in all groups of an entry.
const SEEN: usize = 1_000_000;

/// A page is asked for so often if only the connection breaks.
const ATTEMPTS: u32 = 5;

/// So many refusals in a row are worth a word.
const PATIENT: u32 = 5;

/// How long positions are kept after their last change; ten years, as for files and objects.
const REMEMBERED_MICROS: i64 = 10 * 366 * 86_400 * 1_000_000;

/// A group that is read.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) account: String,
    pub(super) position: Position,
    span: i64,
    seen: Seen,
    /// When it is to be asked again.
    pub(super) due: Time,
    pub(super) failures: u32,
}

impl Group {
    /// A group as it is found in a listing, with what was read of it before.
    pub(super) fn new(name: &str, found: &Found, position: Position) -> Group {
        Group {
            name: name.to_owned(),
            account: found.account.clone(),
            position,
            span: FIRST_SPAN,
            seen: Seen::new(),
            due: Time::MIN,
            failures: 0,
        }
    }
}

/// The state key of a group's position.
pub(super) fn position_key(region: &str, account: &str, name: &str) -> Vec<u8> {
    format!("group/{region}/{account}/{name}").into_bytes()
}

/// What reads the groups of one entry.
pub(super) struct Reader {
    pub(super) client: Client,
    pub(super) config: LogGroups,
    pub(super) shop: Shop,
    pub(super) pace: Arc<Pace>,
    pub(super) region: String,
    /// Idle decoders with their buffers.
    pub(super) decoders: Mutex<Vec<(Decoder, Normalizer)>>,
}

impl Reader {
    /// Reads one window of a group, which is one of so many. Tells whether it has come up to the present.
    pub(super) async fn window(&self, group: &mut Group, groups: usize) -> Result<bool, Trouble> {
        let (overlap, asked) = (self.config.overlap(), (self.shop.clock)());
        let window = group.position.window(overlap, group.span, asked);
        let mut token: Option<String> = None;
        let mut pages = 0;
        loop {
            // What a broken window had is known by its ids; a shorter one ends sooner.
            let page = self.page(group, window, token.as_deref()).await;
            let page = page.inspect_err(|_| group.span = shorter(group.span))?;
            pages += 1;
            let most = (SEEN / groups.max(1)).max(1_000);
            block_in_place(|| self.append(group, page.events(), most))?;
            match page.next_token {
                None => break,
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(Trouble::Fetch {
                        object: object(group),
                        fault: Fault::Other,
                        message: "the same token came twice, the end is not known".to_owned(),
                    });
                }
                Some(next) => token = Some(next),
            }
        }
        let position = group.position.after(window, asked);
        block_in_place(|| self.remember(group, &position))?;
        group.position = position;
        group.span = next_span(group.span, pages);
        group.seen.settle(position.settled(overlap));
        let took = (self.shop.clock)().0 - asked.0;
        self.shop.metrics.seconds.observe(took as f64 / 1e6);
        Ok(window.to >= asked)
    }

    /// One page; waits where there are too many calls, and asks again where the connection broke.
    async fn page(
        &self,
        group: &Group,
        window: Window,
        token: Option<&str>,
    ) -> Result<FilterLogEventsOutput, Trouble> {
        let stop = &self.shop.stop;
        let mut away = 0;
        loop {
            aws::rest(self.pace.turn(Instant::now()), stop).await;
            let call = self
                .client
                .filter_log_events()
                .log_group_name(&group.name)
                .start_time(window.from.millis())
                .end_time(window.to.millis())
                .set_next_token(token.map(str::to_owned))
                .send();
            let answer = aws::unless_stopped(call, stop).await;
            let error = match answer.ok_or(Trouble::Stopped)? {
                Ok(page) => {
                    self.pace.served();
                    return Ok(page);
                }
                Err(error) => error,
            };
            let fault = Fault::of(&error);
            match fault {
                Fault::Throttled => {
                    if self.pace.throttled(Instant::now()) == PATIENT {
                        tracing::warn!(
                            group = group.name,
                            calls_per_second = self.config.calls_per_second,
                            hint = "lower `calls_per_second`, or ask for a higher quota of FilterLogEvents",
                            "CloudWatch Logs asks for fewer calls again and again"
                        );
                    }
                }
                Fault::Away if away < ATTEMPTS => {
                    away += 1;
                    aws::rest(breath(away), stop).await;
                }
                _ => return Err(Trouble::of(object(group), &error)),
            }
            let errors = &self.shop.metrics.errors;
            errors.with_label_values(&[fault.as_str()]).inc();
            tracing::debug!(
                group = group.name,
                message = aws::said(&error),
                "a page waits"
            );
        }
    }

    /// Appends what of a page was not taken before. On `Ok` it is durable.
    fn append(
        &self,
        group: &mut Group,
        events: &[FilteredLogEvent],
        most: usize,
    ) -> Result<(), BusError> {
        let identified = events.iter().map(|event| {
            let log = LogEvent {
                owner: &group.account,
                group: &group.name,
                stream: event.log_stream_name().unwrap_or_default(),
                id: event.event_id().unwrap_or_default(),
                timestamp: event.timestamp(),
            };
            let time = Time::from_millis(log.timestamp.unwrap_or_default());
            let id = Id::cloudwatch(log.owner, log.group, log.stream, log.id);
            (event.message().unwrap_or_default(), log, time, id)
        });
        // Without an id of its own an event is never known again.
        let fresh: Vec<_> = identified
            .filter(|(_, log, time, id)| log.id.is_empty() || !group.seen.has(*time, *id))
            .collect();
        let repeats = (events.len() - fresh.len()) as u64;
        let dropped = &self.shop.metrics.events_dropped;
        dropped.with_label_values(&["overlap"]).inc_by(repeats);
        if fresh.is_empty() {
            return Ok(());
        }
        let idle = || {
            let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
            decoders.pop()
        };
        let (mut decoder, mut normalizer) =
            idle().unwrap_or_else(|| (Decoder::new(self.shop.limits), Normalizer::new()));
        let (metrics, treatment) = (&self.shop.metrics, &self.shop.treatment);
        let mut appender = Appender::new(&*self.shop.bus, metrics, treatment, SOURCE);
        let now = (self.shop.clock)();
        let context = Context {
            ingest_time: now,
            object: format_compact!("{SOURCE}:{}:{}", group.account, group.name),
            keep_raw: true,
        };
        let messages = fresh.iter().map(|(message, log, ..)| (*message, *log));
        decoder.log_events(messages, &mut |item| match item {
            Item::Record(record) => appender.record(&mut normalizer, &record, &context),
            Item::Bad(bad) => appender.letter(DeadLetter::of(&bad, &context.object, now)),
        });
        appender.finish()?;
        let taken: Vec<(Time, Id)> = fresh.iter().map(|(_, _, time, id)| (*time, *id)).collect();
        for (time, id) in taken {
            group.seen.add(time, id, most);
        }
        let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        decoders.push((decoder, normalizer));
        Ok(())
    }

    /// Where it is said how the groups of this entry are.
    pub(super) fn post(&self) -> Post {
        let collectors = &self.shop.metrics.collectors;
        collectors.post("log_groups", self.config.name())
    }

    fn remember(&self, group: &Group, position: &Position) -> Result<(), BusError> {
        self.shop.bus.commit(Commit {
            consumer: CONSUMER.to_owned(),
            state: vec![StateChange {
                partition: 0,
                key: position_key(&self.region, &group.account, &group.name),
                value: Some(serde_json::to_vec(position).expect("a position has only text keys")),
                expires: Some((self.shop.clock)().plus(REMEMBERED_MICROS)),
            }],
            ..Commit::default()
        })
    }
}

/// What a group is called in messages.
pub(super) fn object(group: &Group) -> String {
    format!("log group {}", group.name)
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudwatchlogs::config::{BehaviorVersion, Config};
    use bus::{Bus, Topic};

    use super::*;
    use crate::source::files::tests::{Dying, shop};

    const NOW: Time = Time(1_772_452_800_000_000);

    /// How many events the log has.
    fn on_log(bus: &Dying) -> u64 {
        let partitions = 0..bus.partitions(Topic::Events);
        let ends = partitions.map(|p| bus.bounds(Topic::Events, p).unwrap().end);
        ends.sum()
    }

    #[test]
    fn only_what_is_durable_is_not_appended_again() {
        let folder = tempfile::tempdir().unwrap();
        let bus = Dying::after(folder.path(), 0);
        let client = Config::builder().behavior_version(BehaviorVersion::latest());
        let reader = Reader {
            client: Client::from_conf(client.build()),
            config: LogGroups::default(),
            shop: shop(Arc::clone(&bus), NOW),
            pace: Arc::new(Pace::new(1)),
            region: String::new(),
            decoders: Mutex::default(),
        };
        let found = Found {
            account: "111122223333".to_owned(),
            created: None,
        };
        let mut group = Group::new("/aws/lambda/shop", &found, Position::new(NOW));
        let event = |id: &str| {
            let event = FilteredLogEvent::builder().log_stream_name("s").message(id);
            event.event_id(id).timestamp(NOW.millis()).build()
        };
        let page = [event("a"), event("b")];
        assert!(reader.append(&mut group, &page, 10).is_err());
        assert_eq!(on_log(&bus), 0);
        bus.revive(100);
        reader.append(&mut group, &page, 10).unwrap();
        assert_eq!(on_log(&bus), 2);
        // The same page again, and one more of the same millisecond.
        let more = [event("a"), event("b"), event("c")];
        reader.append(&mut group, &more, 10).unwrap();
        assert_eq!(on_log(&bus), 3);
        let dropped = &reader.shop.metrics.events_dropped;
        assert_eq!(dropped.with_label_values(&["overlap"]).get(), 2);

        let key = position_key("", &group.account, &group.name);
        let position = Position::new(NOW);
        bus.revive(0);
        assert!(reader.remember(&group, &position).is_err());
        bus.revive(1);
        reader.remember(&group, &position).unwrap();
        let kept = bus
            .state_get(CONSUMER, 0, &[key])
            .unwrap()
            .remove(0)
            .unwrap();
        assert_eq!(serde_json::from_slice::<Position>(&kept).unwrap(), position);
    }
}
