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

/// What was gathered and is not appended yet.
#[derive(Default)]
pub(crate) struct Rest {
    events: Vec<Record>,
    letters: Vec<Record>,
    bytes: usize,
}

impl Rest {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Appends what is left of several sources' objects at once. On `Ok` all of it is durable.
pub(crate) fn append(
    bus: &dyn Bus,
    metrics: &Metrics,
    source: &'static str,
    rests: Vec<Rest>,
) -> Result<(), BusError> {
    let (mut events, mut letters) = (Vec::new(), Vec::new());
    for rest in rests {
        events.extend(rest.events);
        letters.extend(rest.letters);
    }
    let n = events.len() as u64;
    if !events.is_empty() {
        bus.append(Topic::Events, events)?;
    }
    if !letters.is_empty() {
        bus.append(Topic::DeadLetters, letters)?;
    }
    metrics.events_sent.with_label_values(&[source]).inc_by(n);
    Ok(())
}

/// Gathers records and appends them.
pub(crate) struct Appender<'b> {
    bus: &'b dyn Bus,
    metrics: &'b Metrics,
    treatment: &'b Treatment,
    inventory: Arc<Inventory>,
    source: &'static str,
    gathered: Rest,
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
            gathered: Rest::default(),
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
        self.gathered.bytes += record.key.len() + record.value.len();
        self.gathered.events.push(record);
        self.flush_full()
    }

    /// Takes a dead letter. There is one already of what is read again.
    pub(crate) fn letter(&mut self, mut letter: DeadLetter) -> ControlFlow<()> {
        if self.treatment.restores() {
            return ControlFlow::Continue(());
        }
        self.treatment.letter(&mut letter);
        self.metrics
            .dead_letters
            .with_label_values(&[letter.reason.as_str()])
            .inc();
        let record = letter.record();
        self.gathered.bytes += record.value.len() + 256;
        self.gathered.letters.push(record);
        self.flush_full()
    }

    fn flush_full(&mut self) -> ControlFlow<()> {
        if self.gathered.bytes >= BATCH_BYTES {
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
        let rest = std::mem::take(&mut self.gathered);
        let counted = self.counted(&rest);
        match append(self.bus, self.metrics, self.source, vec![rest]) {
            Ok(()) => self.appended = counted,
            Err(error) => self.failure = Some(error),
        }
    }

    /// How much was appended once this is.
    fn counted(&self, rest: &Rest) -> Appended {
        Appended {
            events: self.appended.events + rest.events.len() as u64,
            letters: self.appended.letters + rest.letters.len() as u64,
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

    /// Hands over what is left for [`append`], and what was appended once that is.
    pub(crate) fn rest(mut self) -> Result<(Rest, Appended), BusError> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let counted = self.counted(&self.gathered);
        Ok((self.gathered, counted))
    }
}

/// An event that nothing needs to be done to.
#[cfg(test)]
pub(crate) fn ready_for_tests(event: Event) -> Ready {
    Ready(event)
}
