//! Lambda logs.
use crate::decode::{LogEvent, Record};
use event::json::Value;
use event::{Event, Time};
pub(super) fn is_telemetry(_root: Value<'_>) -> bool {
    false
}
pub(super) fn fill(
    _record: &Record<'_>,
    _log: Option<&LogEvent<'_>>,
    _event: &mut Event,
) -> Option<Time> {
    None
}
