//! Function logs: [`Functions`] invokes the eight Lambda functions of the production account.
//!
//! An invocation runs in a log stream that is free, or makes a new one, which is a cold start; `invocation`
//! writes its lines. [`Functions::due`] packs the lines of a second into CloudWatch Logs subscription
//! payloads, one for each stream. Half of the functions log text, half JSON. What a function returns, and how
//! often it is called, is decided by `traffic` and the incidents.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::invocation::{Ending, Format, Invocation, text};
use super::org::{Account, FUNCTIONS, Organisation};
use super::rng::Rng;

/// A log stream that was silent for so long is not written to again.
const IDLE_MILLIS: i64 = 600_000;

#[derive(Debug)]
struct Function {
    name: &'static str,
    format: Format,
    memory: i64,
    /// Of a usual invocation.
    millis: i64,
    timeout: i64,
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    name: String,
    busy_until: i64,
}

#[derive(Debug)]
struct Line {
    stream: (usize, String),
    millis: i64,
    id: String,
    message: String,
}

/// The functions of the production account.
#[derive(Debug)]
pub(crate) struct Functions {
    account: Account,
    functions: Vec<Function>,
    /// Lines that are still to come, by the second in which they are written.
    planned: BTreeMap<i64, Vec<Line>>,
    written: u64,
    rng: Rng,
}

impl Functions {
    /// The functions of `org`, with chances of their own.
    pub(crate) fn new(org: &Organisation, rng: Rng) -> Functions {
        let settings = [
            (Format::Json, 512, 45, 10_000),
            (Format::Node, 256, 60, 6_000),
            (Format::Python, 1_024, 220, 15_000),
            (Format::Json, 1_024, 310, 30_000),
            (Format::Python, 512, 150, 10_000),
            (Format::Json, 256, 90, 10_000),
            (Format::Node, 512, 130, 6_000),
            (Format::Json, 256, 35, 5_000),
        ];
        let function = |(name, (format, memory, millis, timeout))| Function {
            name,
            format,
            memory,
            millis,
            timeout,
            streams: Vec::new(),
        };
        Functions {
            account: org.accounts[0].clone(),
            functions: FUNCTIONS.into_iter().zip(settings).map(function).collect(),
            planned: BTreeMap::new(),
            written: 0,
            rng,
        }
    }

    /// The name of a function.
    pub(crate) fn name(&self, function: usize) -> &'static str {
        self.functions[function].name
    }

    /// An ordinary invocation at a millisecond: of a function that is often called, and it rarely fails.
    pub(crate) fn ordinary(&mut self, millis: i64) {
        let function = match self.rng.chance(500) {
            true => self.rng.popular(self.functions.len()),
            false => self.rng.range(0, self.functions.len() as i64 - 1) as usize,
        };
        let ending = match self.rng.range(0, 9_999) {
            0..=14 => Ending::Error,
            15 => Ending::Timeout,
            _ => Ending::Success,
        };
        self.invoke(function, millis, ending, None);
    }

    /// Invokes a function; `say` is a line that its code writes. Gives the ids of its lines and the millisecond of the
    /// last one.
    pub(crate) fn invoke(
        &mut self,
        function: usize,
        millis: i64,
        ending: Ending,
        say: Option<&str>,
    ) -> (Vec<String>, i64) {
        let Function {
            name,
            format,
            memory,
            millis: usual,
            timeout,
            ..
        } = self.functions[function];
        let duration = match ending {
            Ending::Timeout => timeout,
            _ => usual * (50 + self.rng.range(0, 60) + self.rng.range(0, 60)) / 100,
        };
        let (stream, init) = self.stream(function, millis, duration);
        let invocation = Invocation {
            function: name,
            format,
            memory,
            start: millis,
            duration,
            init,
            ending,
            say,
        };
        let mut ids = Vec::new();
        for (at, message) in invocation.lines(&mut self.rng) {
            self.written += 1;
            let id = format!("3{at:013}{:042}", self.written);
            ids.push(id.clone());
            let line = Line {
                stream: (function, stream.clone()),
                millis: at,
                id,
                message,
            };
            self.planned
                .entry(at.div_euclid(1_000))
                .or_default()
                .push(line);
        }
        (ids, millis + duration + 1)
    }

    /// A stream that is free, or a new one with the milliseconds it takes to start.
    fn stream(&mut self, function: usize, millis: i64, duration: i64) -> (String, Option<i64>) {
        let streams = &mut self.functions[function].streams;
        streams.retain(|s| s.busy_until > millis - IDLE_MILLIS);
        let busy_until = millis + duration + 5;
        if let Some(free) = streams.iter_mut().find(|s| s.busy_until <= millis) {
            free.busy_until = busy_until;
            return (free.name.clone(), None);
        }
        let day = text(millis)[..10].replace('-', "/");
        let name = format!("{day}/[$LATEST]{}", self.rng.hex(32));
        streams.push(Stream {
            name: name.clone(),
            busy_until,
        });
        // The environment starts before the invocation does.
        (name, Some(self.rng.range(150, 900)))
    }

    /// The payloads with all lines up to the end of a second.
    pub(crate) fn due(&mut self, second: i64) -> Vec<Vec<u8>> {
        let later = self.planned.split_off(&(second + 1));
        let due = std::mem::replace(&mut self.planned, later);
        let mut streams: BTreeMap<(usize, String), Vec<Line>> = BTreeMap::new();
        for line in due.into_values().flatten() {
            streams.entry(line.stream.clone()).or_default().push(line);
        }
        let payload = |((function, stream), mut lines): ((usize, String), Vec<Line>)| {
            lines.sort_by(|a, b| (a.millis, &a.id).cmp(&(b.millis, &b.id)));
            let event = |l: Line| json!({"id": l.id, "timestamp": l.millis, "message": l.message});
            let events: Vec<Value> = lines.into_iter().map(event).collect();
            json!({"messageType": "DATA_MESSAGE", "owner": self.account.id,
                "logGroup": format!("/aws/lambda/{}", self.functions[function].name), "logStream": stream,
                "subscriptionFilters": ["to-trailwarden"], "logEvents": events})
            .to_string()
            .into_bytes()
        };
        streams.into_iter().map(payload).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_764_000_000_250;

    #[test]
    fn lines_come_as_a_payload_of_their_stream() {
        let mut functions = Functions::new(&Organisation::new(1), Rng::new(1));
        let (ids, end) = functions.invoke(2, START, Ending::Success, None);
        let payloads = functions.due(end / 1_000);
        let payload: Value = serde_json::from_slice(&payloads[0]).unwrap();
        assert_eq!(
            (payloads.len(), &payload["messageType"]),
            (1, &"DATA_MESSAGE".into())
        );
        assert_eq!(payload["logGroup"], "/aws/lambda/label-printer");
        assert!(
            payload["logStream"]
                .as_str()
                .unwrap()
                .starts_with("2025/11/24/[$LATEST]")
        );
        let events = payload["logEvents"].as_array().unwrap();
        assert_eq!(
            ids,
            events
                .iter()
                .map(|e| e["id"].as_str().unwrap())
                .collect::<Vec<_>>()
        );
        assert!(ids.iter().all(|id| id.len() == 56));
    }

    #[test]
    fn a_warm_stream_is_used_again() {
        let mut functions = Functions::new(&Organisation::new(1), Rng::new(1));
        for i in 0..5 {
            functions.invoke(0, START + i * 1_000, Ending::Success, None);
        }
        assert_eq!(functions.functions[0].streams.len(), 1);
        for _ in 0..5 {
            functions.invoke(0, START + 9_000, Ending::Success, None);
        }
        assert_eq!(functions.functions[0].streams.len(), 5);
    }
}
