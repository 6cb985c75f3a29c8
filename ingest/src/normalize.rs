//! From records to events: the last place that knows the formats of vendors.
//!
//! [`Normalizer::event`] takes a [`Record`] of `decode` and gives the [`Event`]. Which format a record has is
//! told by its content and by what was around it; each vendor has a file of its own ([`cloudtrail`],
//! [`lambda`]), and what nobody knows is kept with its original fields by [`unknown`]. Every record becomes an
//! event: what cannot be read stays empty, and what is odd is flagged. Whoever calls it appends the event or
//! hands it to the rules together with the record's own index, so that nothing is parsed twice.

mod cloudtrail;
mod identity;
mod lambda;
mod unknown;

use bytes::Bytes;
use event::json::{Doc, Value};
use event::path::{FieldSet, Slots};
use event::{Event, Flag, Id, Origin, Str, Time};

use crate::decode::{LogEvent, Record, Wrapper};
use crate::redact::Redactor;

/// A record's time may be this far ahead of ours before the event is flagged.
const MAX_AHEAD_MICROS: i64 = 5 * 60 * 1_000_000;

/// What is known about a record from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// When it was taken in.
    pub ingest_time: Time,
    /// The object or request that it came from.
    pub object: Str,
    /// Keep the record's bytes in the event. Without them nothing is copied, but the event cannot be appended.
    pub keep_raw: bool,
}

/// Makes events of records; keeps its buffers between them.
#[derive(Debug)]
pub struct Normalizer {
    cloudtrail: cloudtrail::Reader,
    /// The latest time in a text log, and which log that is.
    latest: (Str, Time),
}

impl Default for Normalizer {
    fn default() -> Normalizer {
        Normalizer::new()
    }
}

impl Normalizer {
    /// A normalizer.
    pub fn new() -> Normalizer {
        Normalizer::beside(FieldSet::new())
    }

    /// A normalizer that looks for `fields` in the same walk over a record: [`Normalizer::found`] has them.
    pub fn beside(fields: FieldSet) -> Normalizer {
        Normalizer {
            cloudtrail: cloudtrail::Reader::beside(fields),
            latest: (Str::default(), Time::default()),
        }
    }

    /// What the last record that is JSON has at the fields of [`Normalizer::beside`], under the slots that they have
    /// there. Others follow. It may be taken.
    pub fn found(&mut self) -> &mut Slots {
        self.cloudtrail.slots_mut()
    }

    /// The event of a record.
    pub fn event(&mut self, record: &Record<'_>, context: &Context) -> Event {
        let mut event = self.sketch(record, context);
        self.complete(record, context, self.cloudtrail.slots(), &mut event);
        event
    }

    /// The beginning of an event, for who needs the rest of few: of a CloudTrail record with an id of its own only source,
    /// account, that id and time are filled in, and what is odd about its JSON. It has no id of ours then. Any other
    /// record's event is whole.
    pub fn sketch(&mut self, record: &Record<'_>, context: &Context) -> Event {
        let mut event = Event {
            ingest_time: context.ingest_time,
            ..Event::default()
        };
        let root = record.root;
        let time = self.fill(record, context, &mut event);
        if event.source != cloudtrail::SOURCE || event.source_id.is_empty() {
            self.complete(record, context, self.cloudtrail.slots(), &mut event);
        }
        match time {
            Some(time) => event.time = time,
            None => {
                event.time = self.nearby(record, context);
                event.flags.set(Flag::TsInferred);
            }
        }
        if record.wrapper == Wrapper::LambdaText && time.is_some() {
            self.latest = (context.object.clone(), event.time);
        }
        if event.time > context.ingest_time.plus(MAX_AHEAD_MICROS) {
            event.flags.set(Flag::TsFuture);
        }
        let is_utf8 = match root {
            Some(root) => root.is_utf8(),
            None => std::str::from_utf8(record.text).is_ok(),
        };
        if !is_utf8 {
            event.flags.set(Flag::InvalidUtf8);
        }
        if let (Some(doc), Some(root)) = (record.doc, root) {
            flag_oddities(doc, root, &mut event);
        }
        if context.keep_raw {
            event.raw = Bytes::copy_from_slice(record.text);
        }
        event
    }

    /// Fills in what [`Normalizer::sketch`] left out of the event of the same record; nothing if it is whole. `found` is
    /// what [`Normalizer::found`] had then.
    pub fn complete(
        &self,
        record: &Record<'_>,
        context: &Context,
        found: &Slots,
        event: &mut Event,
    ) {
        if event.id != Id::default() {
            return;
        }
        if let Some(root) = record.root.filter(|_| event.source == cloudtrail::SOURCE) {
            event.origin = origin(record, context);
            self.cloudtrail.describe(root, found, event);
        }
        if event.id == Id::default() {
            event.id = Id::position(&context.object, record.position);
        }
    }

    /// The event of a record without the secrets in it. Its id and time are those of the record as it was: what is
    /// replaced must not make another event of it.
    pub fn redacted_event(
        &mut self,
        record: &Record<'_>,
        context: &Context,
        redactor: &Redactor,
    ) -> Event {
        let event = self.event(record, context);
        let Some(text) = redactor.record(&event.source, record.text, record.doc.is_some()) else {
            return event;
        };
        let doc = record.doc.and_then(|_| Doc::parse(&text).ok());
        debug_assert_eq!(doc.is_some(), record.doc.is_some(), "json stays json");
        let redacted = Record {
            text: &text,
            doc: doc.as_ref(),
            root: doc.as_ref().map(|doc| doc.root(&text)),
            ..*record
        };
        let mut flags = event.flags;
        flags.set(Flag::Redacted);
        Event {
            id: event.id,
            time: event.time,
            flags,
            original: redactor.original(record.text),
            ..self.event(&redacted, context)
        }
    }

    /// The time of a record without one: in a text log, where not every line has a time, that of the line before.
    fn nearby(&self, record: &Record<'_>, context: &Context) -> Time {
        let (object, time) = &self.latest;
        if record.wrapper == Wrapper::LambdaText && *object == context.object {
            *time
        } else {
            context.ingest_time
        }
    }

    /// Fills in what the record says, of CloudTrail's only the beginning. Gives its time.
    fn fill(&mut self, record: &Record<'_>, context: &Context, event: &mut Event) -> Option<Time> {
        let root = record.root;
        if let Some(time) = root.and_then(|root| self.cloudtrail.sketch(root, event)) {
            return time;
        }
        event.origin = origin(record, context);
        match record.wrapper {
            Wrapper::LogEvent(log) => {
                let time = log.timestamp.map(Time::from_millis);
                of_stream(&log, event);
                let of_line = lambda::fill(record, Some(&log), event);
                // The service's own time is closer to the truth than what a function writes.
                time.or(of_line)
            }
            Wrapper::LambdaText => lambda::fill(record, None, event),
            Wrapper::None => match root {
                Some(root) if lambda::is_telemetry(root) => lambda::fill(record, None, event),
                Some(root) => unknown::fill(root, event),
                None => unknown::text(event),
            },
        }
    }
}

fn origin(record: &Record<'_>, context: &Context) -> Origin {
    Origin {
        object: context.object.clone(),
        position: record.position,
        sha256: record.sha256.into(),
    }
}

/// What CloudWatch Logs says about every message.
fn of_stream(log: &LogEvent<'_>, event: &mut Event) {
    event.account = log.owner.into();
    if !log.id.is_empty() {
        event.source_id = log.id.into();
        event.id = Id::cloudwatch(log.owner, log.group, log.stream, log.id);
    }
    // The lines of one stream must meet in one partition, whatever file or request brought them.
    event.origin.object = event::format_compact!("{}:{}:{}", log.owner, log.group, log.stream);
}

fn flag_oddities(doc: &Doc, root: Value<'_>, event: &mut Event) {
    if doc.has_duplicate_keys() {
        event.flags.set(Flag::DupKeys);
    }
    // Only then are all values looked through.
    if doc.may_have_odd_numbers() && root.leaves().any(|v| v.is_odd_number()) {
        event.flags.set(Flag::NumCoerced);
    }
}

#[cfg(test)]
mod tests;
