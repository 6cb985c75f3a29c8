//! A whole input at once, for `hunt`, `backtest` and the tests in rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use event::{Finding, Id, Time};

use super::{Baseline, Options, Tracker};
use crate::meter::{Counters, MINUTE};

/// What baselines say of everything that was counted and seen: the last word on every episode, in order of time.
pub fn offline(counters: Counters, baselines: &Arc<[Baseline]>) -> Vec<Finding> {
    let options = Options {
        events_partitions: 1,
        max_series: usize::MAX,
        ..Options::default()
    };
    let mut tracker = Tracker::new(Arc::clone(baselines), options);
    let mut said = Vec::new();
    let mut records = counters.into_records().peekable();
    while let Some((minute, record)) = records.next() {
        tracker.take(record, &mut said);
        if records.peek().is_none_or(|(next, _)| *next > minute) {
            let end = Time((minute + 1).saturating_mul(MINUTE));
            tracker.close_to(end.plus(options.grace), &mut said);
        }
    }
    let last: BTreeMap<Id, Finding> = said.into_iter().map(|f| (f.id, f)).collect();
    let mut last: Vec<Finding> = last.into_values().collect();
    last.sort_by_key(|f| (f.time, f.id));
    last
}
