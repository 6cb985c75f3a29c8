//! Events and dead letters on their way to the log, in batches.
//!
//! [`Appender`] gathers what a source makes of one object and appends it when enough has come together, so that
//! memory stays bounded and one fsync serves many events. Every source passes here, so here the [`Treatment`] is applied:
//! only what is [`Ready`] is appended. After [`Appender::finish`] everything is durable, and only then may the source be told
//! so. The first failure is kept and stops the decoder.

use std::ops::ControlFlow;
use std::sync::Arc;

use bus::{Bus, BusError, Record, Topic};
use bytes::Bytes;
use event::Event;
use event::inventory::Inventory;

use crate::dead_letter::DeadLetter;
use crate::decode;
use crate::metrics::Metrics;
use crate::normalize::{Context, Normalizer};
use crate::tier::Tier;
use crate::treatment::Treatment;

/// A batch is appended when it holds this many bytes.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

/// How much was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Appended {
    pub(crate) events: u64,
    pub(crate) letters: u64,
}

/// An event that was treated: without secrets, and labelled.
pub(crate) struct Ready(Event);

impl Ready {
    /// What is in it.
    pub(crate) fn as_mut(&mut self) -> &mut Event {
        &mut self.0
    }
}

/// Gathers records and appends them.
pub(crate) struct Appender<'b> {
    bus: &'b dyn Bus,
    metrics: &'b Metrics,
    treatment: &'b Treatment,
    inventory: Arc<Inventory>,
    source: &'static str,
    events: Vec<Record>,
    letters: Vec<Record>,
    bytes: usize,
    appended: Appended,
    failure: Option<BusError>,
}

impl<'b> Appender<'b> {
    pub(crate) fn new(
        bus: &'b dyn Bus,
        metrics: &'b Metrics,
        treatment: &'b Treatment,
        source: &'static str,
    ) -> Appender<'b> {
        Appender {
            bus,
            metrics,
            treatment,
            inventory: treatment.inventory(),
            source,
            events: Vec::new(),
            letters: Vec::new(),
            bytes: 0,
            appended: Appended::default(),
            failure: None,
        }
    }

    /// Takes a record, as the event that it becomes.
    pub(crate) fn record(
        &mut self,
        normalizer: &mut Normalizer,
        record: &decode::Record<'_>,
        context: &Context,
    ) -> ControlFlow<()> {
        let ready = self.ready(normalizer, record, context);
        self.event(&ready)
    }

    /// The event that a record becomes, for whoever has something to add or to say about it first.
    pub(crate) fn ready(
        &self,
        normalizer: &mut Normalizer,
        record: &decode::Record<'_>,
        context: &Context,
    ) -> Ready {
        let treated = self
            .treatment
            .event(normalizer, record, context, &self.inventory);
        Ready(treated)
    }

    /// Takes an event.
    pub(crate) fn event(&mut self, Ready(event): &Ready) -> ControlFlow<()> {
        self.metrics
            .events_received
            .with_label_values(&[self.source])
            .inc();
        let tier = Tier::of(event);
        self.metrics.tiers.with_label_values(&[tier.as_str()]).inc();
        let behind = (event.ingest_time.0 - event.time.0) / 1_000_000;
        self.metrics.lag.set(behind);
        let record = Record {
            key: Bytes::from(event.partition_key().into_string()),
            value: Bytes::from(event.encode()),
            time: event.ingest_time,
        };
        self.bytes += record.key.len() + record.value.len();
        self.events.push(record);
        self.flush_full()
    }

    /// Takes a dead letter.
    pub(crate) fn letter(&mut self, mut letter: DeadLetter) -> ControlFlow<()> {
        self.treatment.letter(&mut letter);
        self.metrics
            .dead_letters
            .with_label_values(&[letter.reason.as_str()])
            .inc();
        let record = letter.record();
        self.bytes += record.value.len() + 256;
        self.letters.push(record);
        self.flush_full()
    }

    fn flush_full(&mut self) -> ControlFlow<()> {
        if self.bytes >= BATCH_BYTES {
            self.flush();
        }
        match self.failure {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    fn flush(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.bytes = 0;
        let events = std::mem::take(&mut self.events);
        let letters = std::mem::take(&mut self.letters);
        let (n, m) = (events.len() as u64, letters.len() as u64);
        let append = |topic, records: Vec<Record>| match records.is_empty() {
            true => Ok(()),
            false => self.bus.append(topic, records),
        };
        let done = append(Topic::Events, events).and_then(|()| append(Topic::DeadLetters, letters));
        match done {
            Ok(()) => {
                self.appended.events += n;
                self.appended.letters += m;
                self.metrics
                    .events_sent
                    .with_label_values(&[self.source])
                    .inc_by(n);
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Appends what was gathered. On `Ok` all that was taken until now is durable.
    pub(crate) fn sync(&mut self) -> Result<(), BusError> {
        self.flush();
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Appends what is left. On `Ok` all of it is durable.
    pub(crate) fn finish(mut self) -> Result<Appended, BusError> {
        self.sync()?;
        Ok(self.appended)
    }
}
