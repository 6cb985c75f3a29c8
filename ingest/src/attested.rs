//! What an event's `integrity` is, asked when it is shown.
//!
//! An event is taken in before CloudTrail has signed for its log file, and what is on the log does not change. So what
//! digests say is told beside it, on the topic `sources` ([`event::source::Attested`]), and [`Attestations`] has all of it:
//! [`Attestations::label`] sets the `integrity` of an event by the object that it came from. [`follow`] reads the topic,
//! in every process that shows events.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bus::{Bus, BusError, Stop, Topic};
use event::source::{Attested, SourceRecord};
use event::{Event, Integrity};
use serde_json::{Value, json};

use crate::digest;

/// The most bytes in one batch.
const BATCH_BYTES: usize = 1 << 20;

/// How long to wait for records before looking whether to stop.
const WAIT: Duration = Duration::from_millis(500);

/// What digests say of all places.
#[derive(Debug, Default)]
pub struct Attestations(RwLock<HashMap<(String, String), Vec<Attested>>>);

impl Attestations {
    /// Takes in what is told; the latest of a place holds.
    pub fn take(&self, attested: Attested) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let key = (attested.account.to_string(), attested.region.to_string());
        let places = all.entry(key).or_default();
        let same = |a: &Attested| a.bucket == attested.bucket && a.prefix == attested.prefix;
        match places.iter().position(same) {
            Some(at) => places[at] = attested,
            None => places.push(attested),
        }
    }

    /// All that is told up to now.
    ///
    /// # Errors
    /// The log failed.
    pub fn read(bus: &dyn Bus) -> Result<Attestations, BusError> {
        let all = Attestations::default();
        let mut positions: Vec<(u32, u64)> = (0..bus.partitions(Topic::Sources))
            .map(|p| (p, 0))
            .collect();
        while step(bus, &all, &mut positions)? {}
        Ok(all)
    }

    /// Sets the integrity of an event that came from a log file of CloudTrail in a bucket that is verified.
    pub fn label(&self, event: &mut Event) {
        match (event.integrity, self.vouched(&event.origin.object).0) {
            (Integrity::Failed, _) | (_, Integrity::Received) => {}
            (_, found) => event.integrity = found,
        }
    }

    /// What digests say of an object, and whose digests say so: bucket, prefix, account, region, and the time without
    /// gaps, from the first to the last digest, in which the object was delivered.
    pub fn vouched(&self, object: &str) -> (Integrity, Option<Value>) {
        let nothing = (Integrity::Received, None);
        let Some((bucket, key)) = object.strip_prefix("s3://").and_then(|o| o.split_once('/'))
        else {
            return nothing;
        };
        // An object that was replaced is read again under its name and a number.
        let key = match key.rsplit_once('#') {
            Some((key, number)) if number.bytes().all(|b| b.is_ascii_digit()) => key,
            _ => key,
        };
        let Some((account, region, time)) = digest::log_named(key) else {
            return nothing;
        };
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let places = all.get(&(account, region)).into_iter().flatten();
        let places = places.filter(|a| a.bucket == bucket && key.starts_with(a.prefix.as_str()));
        let mut said = nothing;
        for place in places {
            let span = place
                .spans
                .iter()
                .find(|(from, to)| (*from..*to).contains(&time));
            // What one trail's digests refute, another's do not make good.
            match (said.0, place.of(key, time)) {
                (Integrity::Failed, _) | (_, Integrity::Received) => {}
                (_, found) => {
                    let digests = json!({
                        "bucket": place.bucket,
                        "prefix": place.prefix,
                        "account": place.account,
                        "region": place.region,
                        "from": span.map(|(from, _)| from),
                        "to": span.map(|(_, to)| to),
                        "delivered": time,
                    });
                    said = (found, Some(digests));
                }
            }
        }
        said
    }
}

/// Reads what is told until told to stop.
///
/// # Errors
/// The log failed in a way that waiting does not mend.
pub fn follow(bus: &dyn Bus, attestations: &Attestations, stop: &Stop) -> Result<(), BusError> {
    let partitions = 0..bus.partitions(Topic::Sources);
    let mut positions: Vec<(u32, u64)> = partitions.map(|p| (p, 0)).collect();
    while !stop.is_stopped() {
        match step(bus, attestations, &mut positions) {
            Ok(true) => {}
            Ok(false) => match bus.wait(Topic::Sources, &positions, WAIT) {
                Err(error) if error.is_transient() => std::thread::sleep(WAIT),
                waited => drop(waited?),
            },
            Err(error) if error.is_transient() => std::thread::sleep(WAIT),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn step(
    bus: &dyn Bus,
    attestations: &Attestations,
    positions: &mut [(u32, u64)],
) -> Result<bool, BusError> {
    let mut busy = false;
    for (partition, next) in positions {
        // What retention has taken is told again with the next look.
        *next = (*next).max(bus.bounds(Topic::Sources, *partition)?.start);
        let batch = match bus.read(Topic::Sources, *partition, *next, BATCH_BYTES) {
            Err(BusError::OutOfRange { .. }) => continue,
            batch => batch?,
        };
        busy |= batch.next > *next;
        *next = batch.next;
        for (_, record) in batch.records {
            if let Ok(SourceRecord::Attested(attested)) = SourceRecord::decode(&record.value) {
                attestations.take(attested);
            }
        }
    }
    Ok(busy)
}

#[cfg(test)]
mod tests {
    use event::{Origin, Time};

    use super::*;

    #[test]
    fn an_event_is_what_its_object_is() {
        let all = Attestations::default();
        let key = |minute: u32| {
            format!(
                "p/AWSLogs/1/CloudTrail/r/2026/03/02/1_CloudTrail_r_20260302T10{minute:02}Z_x.json.gz"
            )
        };
        let at = |minute: u32| Time::parse(&format!("2026-03-02T10:{minute:02}:00Z")).unwrap();
        let attested = Attested {
            bucket: "b".into(),
            prefix: "p/".into(),
            account: "1".into(),
            region: "r".into(),
            spans: vec![(at(0), at(30))],
            failed: [(key(20).into(), at(20))].into(),
            ..Attested::default()
        };
        all.take(Attested {
            spans: Vec::new(),
            ..attested.clone()
        });
        all.take(attested);
        let check = |object: String, expected: Integrity| {
            let mut event = Event {
                origin: Origin {
                    object: object.as_str().into(),
                    ..Origin::default()
                },
                ..Event::default()
            };
            all.label(&mut event);
            assert_eq!(event.integrity, expected, "{object}");
            let (integrity, digests) = all.vouched(&object);
            assert_eq!(integrity, expected, "{object}");
            assert_eq!(
                digests.is_some(),
                expected != Integrity::Received,
                "{object}"
            );
        };
        check(format!("s3://b/{}", key(10)), Integrity::Attested);
        check(format!("s3://b/{}#2", key(10)), Integrity::Attested);
        check(format!("s3://b/{}", key(20)), Integrity::Failed);
        check(format!("s3://b/{}", key(40)), Integrity::Received);
        check(format!("s3://other/{}", key(10)), Integrity::Received);
        check(format!("/logs/{}", key(10)), Integrity::Received);
        check("s3://b/p/else.json".to_owned(), Integrity::Received);
    }
}
