//! What the demo hands out: [`Tick`], the records of a stretch of time, and [`Injection`], the truth about
//! one attack in it.
//!
//! An injection names the rules that ought to alert, by the titles under which they are shipped, and the
//! source's own ids of the events it consists of. A decoy looks like an attack and is none: it stays below
//! every threshold and must not alert. Injections are shown to the viewer of the demo and compared with the
//! alerts; they never enter the pipeline.

use event::Time;
use serde::Serialize;

/// An injection names at most so many of its events.
pub(crate) const MAX_EVENT_IDS: usize = 500;

/// How much ordinary traffic there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    /// CloudTrail records a second.
    pub(crate) cloudtrail: f64,
    /// Lines of function logs a second.
    pub(crate) lambda: f64,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates {
            cloudtrail: 20.0,
            lambda: 15.0,
        }
    }
}

/// Everything that arrived in a stretch of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tick {
    /// CloudTrail records, one JSON object each, not in the order of their times and with a few repeats.
    pub(crate) cloudtrail: Vec<Vec<u8>>,
    /// CloudWatch Logs subscription payloads, decoded: one JSON object each.
    pub(crate) lambda: Vec<Vec<u8>>,
    /// The attacks and decoys that began.
    pub(crate) injected: Vec<Injection>,
}

/// One attack or decoy, as it was put into the traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Injection {
    /// `A001`, or `D001` for a decoy: unique within one traffic.
    pub(crate) id: String,
    /// What kind of attack, one of the names in `super::traffic`.
    pub(crate) kind: &'static str,
    /// What was done, in words for people.
    pub(crate) title: String,
    /// A look-alike that must not alert.
    pub(crate) decoy: bool,
    /// The time of its first event.
    pub(crate) start: Time,
    /// The time of its last event; events arrive up to [`super::traffic::MAX_DELAY_SECONDS`] later.
    pub(crate) end: Time,
    /// The account it happened in.
    pub(crate) account: String,
    /// Who did it: the ARN of the principal, or the function that misbehaves.
    pub(crate) actor: String,
    /// Where it came from; a function's misbehaviour has no address.
    pub(crate) source_ip: Option<String>,
    /// Titles of the shipped rules that ought to alert; empty for a decoy.
    pub(crate) expect: Vec<&'static str>,
    /// The source's own ids of its events, at most the first [`MAX_EVENT_IDS`].
    pub(crate) event_ids: Vec<String>,
}
