//! Sending: records in, and an answer when all of them are stored on every in-sync replica.
//!
//! [`Producer::send`] gives each record to an idempotent producer of librdkafka with `acks=all` and waits for all
//! answers. An idempotent producer can fail for good (its sequence is broken, its id is fenced); it never heals, so a
//! new one takes its place and the caller gets a transient error: nothing of what failed is counted as stored, and
//! doing it again is harmless, since ids are deterministic. The queue of the library is bounded in bytes; who finds it
//! full waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::statistics::Statistics;

use super::client::{Context, unavailable};
use crate::{BusError, Offset, Record};

/// The header that has a record's time in microseconds, eight bytes, most significant first: Kafka's own timestamp has
/// milliseconds.
pub(super) const TIME_HEADER: &str = "time";

/// The largest request that the client sends; what topics take stands in `topics`.
const MAX_MESSAGE: usize = 17 << 20;

/// How long to wait when the library's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// A producer that is replaced when it fails for good.
pub(super) struct Producer {
    config: ClientConfig,
    context: Context,
    patience: Duration,
    live: Mutex<Arc<Live>>,
}

type Live = ThreadedProducer<Deliveries>;

/// One record to send.
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: u32,
    pub(super) record: Record,
}

/// What is still to be answered of one call.
struct Call {
    state: Mutex<Answers>,
    done: Condvar,
}

struct Answers {
    missing: usize,
    offsets: Vec<Offset>,
    error: Option<KafkaError>,
}

impl Producer {
    pub(super) fn new(
        mut config: ClientConfig,
        context: Context,
        patience: Duration,
        properties: impl Fn(&str) -> bool,
    ) -> Result<Producer, BusError> {
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", patience.as_millis().to_string())
            .set("message.max.bytes", MAX_MESSAGE.to_string());
        for (name, value) in [
            ("compression.codec", "zstd"),
            ("linger.ms", "1"),
            ("request.timeout.ms", "8000"),
            ("batch.size", "1000000"),
            ("queue.buffering.max.kbytes", "131072"),
            ("statistics.interval.ms", "5000"),
        ] {
            if !properties(name) {
                config.set(name, value);
            }
        }
        let live = start(&config, &context)?;
        Ok(Producer {
            config,
            context,
            patience,
            live: Mutex::new(Arc::new(live)),
        })
    }

    /// Sends records and waits until all are stored; gives their offsets in the order given.
    ///
    /// # Errors
    /// Some may be stored and some not.
    pub(super) fn send(&self, records: &[Outgoing<'_>]) -> Result<Vec<Offset>, BusError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let live = Arc::clone(&self.live.lock().unwrap_or_else(PoisonError::into_inner));
        let call = Arc::new(Call {
            state: Mutex::new(Answers {
                missing: 0,
                offsets: vec![0; records.len()],
                error: None,
            }),
            done: Condvar::new(),
        });
        let sent = records
            .iter()
            .enumerate()
            .try_for_each(|(place, outgoing)| self.enqueue(&live, &call, place, outgoing));
        let mut answers = call.state.lock().unwrap_or_else(PoisonError::into_inner);
        while answers.missing > 0 {
            answers = call
                .done
                .wait(answers)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let error = sent.err().or_else(|| answers.error.take());
        match error {
            None => Ok(std::mem::take(&mut answers.offsets)),
            Some(error) => {
                self.supervise(&live, &error)?;
                Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => BusError::Refused(format!(
                        "a record is larger than `{}` takes: see `trailwarden topics check`",
                        records[0].topic
                    )),
                    _ => unavailable(format!("store records in `{}`", records[0].topic), &error),
                })
            }
        }
    }

    fn enqueue(
        &self,
        live: &Live,
        call: &Arc<Call>,
        place: usize,
        outgoing: &Outgoing<'_>,
    ) -> Result<(), KafkaError> {
        let Record { key, value, time } = &outgoing.record;
        let bytes = time.0.to_be_bytes();
        call.add(1);
        let mut record = BaseRecord::with_opaque_to(
            outgoing.topic,
            Box::new(Ticket {
                call: Arc::clone(call),
                place,
            }),
        )
        .partition(outgoing.partition as i32)
        .key(&key[..])
        .payload(&value[..])
        .headers(OwnedHeaders::new_with_capacity(1).insert(Header {
            key: TIME_HEADER,
            value: Some(&bytes),
        }));
        // What retention counts from; a time that cannot be one counts from now.
        if time.millis() > 0 {
            record = record.timestamp(time.millis());
        }
        let begin = Instant::now();
        loop {
            match live.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !full || begin.elapsed() > self.patience {
                        call.add(-1);
                        return Err(error);
                    }
                    record = back;
                    std::thread::sleep(FULL_PAUSE);
                }
            }
        }
    }

    /// Puts a new producer in place of one that has failed for good.
    fn supervise(&self, failed: &Arc<Live>, error: &KafkaError) -> Result<(), BusError> {
        let Some((code, reason)) = failed.client().fatal_error() else {
            return Ok(());
        };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&live, failed) {
            tracing::error!(%code, reason, %error, "the producer failed for good, a new one takes its place");
            self.context
                .numbers
                .producer_restarts
                .fetch_add(1, Ordering::Relaxed);
            let old = std::mem::replace(&mut *live, Arc::new(start(&self.config, &self.context)?));
            // Closing waits for threads of the library, which may themselves wait for brokers.
            std::thread::spawn(move || drop(old));
        }
        Ok(())
    }
}

fn start(config: &ClientConfig, context: &Context) -> Result<Live, BusError> {
    ThreadedProducer::from_config_and_context(config, Deliveries(context.clone()))
        .map_err(|e| BusError::Refused(format!("cannot make a Kafka producer: {e}")))
}

impl Call {
    fn add(&self, by: isize) {
        let mut answers = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        answers.missing = answers.missing.saturating_add_signed(by);
    }

    fn answer(&self, place: usize, answer: Result<Offset, KafkaError>) {
        let mut answers = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        answers.missing -= 1;
        match answer {
            Ok(offset) => answers.offsets[place] = offset,
            Err(error) => answers.error = Some(error),
        }
        if answers.missing == 0 {
            self.done.notify_all();
        }
    }
}

/// Which record of which call an answer is about.
struct Ticket {
    call: Arc<Call>,
    place: usize,
}

/// The context of a producer: that of every client, and the answers.
struct Deliveries(Context);

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, log_message: &str) {
        self.0.log(level, fac, log_message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
    fn stats(&self, statistics: Statistics) {
        self.0.stats(statistics);
    }
    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.0.generate_oauth_token(config)
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let answer = match result {
            Ok(message) => Ok(message.offset().max(0) as Offset),
            Err((error, _)) => Err(error.clone()),
        };
        ticket.call.answer(ticket.place, answer);
    }
}
