//! Records of formats that nobody here knows: events of source `unknown` with their original fields.
//!
//! Only the time is looked for, under the names that most writers use; rules and search reach everything else
//! by its original name. Nothing is guessed beyond that.

use event::json::Value;
use event::{Event, Time};

/// Where the time may stand, the first that can be read counts.
const TIMES: [&str; 4] = ["@timestamp", "UtcTime", "timestamp", "time"];

/// Fills in what can be told of a JSON record. Gives its time.
pub(super) fn fill(root: Value<'_>, event: &mut Event) -> Option<Time> {
    event.source = "unknown".into();
    TIMES.iter().find_map(|key| time(root.get(key)?))
}

/// Fills in what can be told of a text.
pub(super) fn text(event: &mut Event) -> Option<Time> {
    event.source = "unknown".into();
    None
}

/// The time that a value stands for: a text as [`Time::parse`] takes it, or an epoch number in any unit.
pub(super) fn time(value: Value<'_>) -> Option<Time> {
    let parsed = value.as_str().and_then(|s| Time::parse(s.trim()).ok());
    parsed.or_else(|| Time::from_epoch(value.as_f64()?))
}
