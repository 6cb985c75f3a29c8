//! Where on the log the matches of a time stand: the earliest and the latest time of each stretch of offsets.
//!
//! Matches come in order of arrival, and a recount asks for those of a time. [`Zones`] cuts one partition of `matches`
//! into stretches of some thousand records and notes the times of the matches in each, so that a recount reads only
//! stretches that can have one it asks for. It follows from the log alone, and is stored with the stage:
//!
//! ```text
//!   key  'z', first offset (8, big endian)    value  JSON of where it ends, its earliest and its latest time
//! ```
//!
//! What retention has taken is remembered as one time: up to it, matches may be missing ([`Zones::lost_to`]).

use std::collections::BTreeMap;
use std::ops::Range;

use bus::Offset;
use event::Time;
use serde::{Deserialize, Serialize};

/// How many records a stretch has before the next one begins.
const RECORDS: u64 = 4_096;

/// The first letter of a row.
pub(super) const ROW: &[u8] = b"z";

/// A stretch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Zone {
    end: Offset,
    min: i64,
    max: i64,
}

/// The stretches of one partition.
#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: BTreeMap<Offset, Zone>,
    /// The last one has changed since it was stored.
    changed: bool,
    gone: Vec<Offset>,
    lost: Option<i64>,
}

impl Zones {
    /// What was stored. Of what was read before anything was, `start` to `next`, every time is possible up to `newest`.
    pub(super) fn restore(
        rows: &[(Vec<u8>, Vec<u8>)],
        lost: Option<i64>,
        read: Range<Offset>,
        newest: Time,
    ) -> Result<Zones, (Vec<u8>, serde_json::Error)> {
        let mut zones = Zones {
            lost,
            ..Zones::default()
        };
        for (key, value) in rows {
            let Some(Ok(start)) = key.strip_prefix(ROW).map(<[u8; 8]>::try_from) else {
                continue;
            };
            let zone = serde_json::from_slice(value).map_err(|e| (key.clone(), e))?;
            zones.zones.insert(u64::from_be_bytes(start), zone);
        }
        if zones.zones.is_empty() && lost.is_none() && read.start < read.end {
            let zone = Zone {
                end: read.end,
                min: i64::MIN,
                max: newest.0,
            };
            zones.zones.insert(read.start, zone);
            zones.changed = true;
            // What retention took before that has left no trace.
            if read.start > 0 {
                zones.lost = Some(newest.0);
            }
        }
        Ok(zones)
    }

    /// The matches of a batch, from one offset up to another, have these times.
    pub(super) fn note(&mut self, read: Range<Offset>, times: Option<(Time, Time)>) {
        let full = |(start, zone): (&Offset, &Zone)| zone.end - start >= RECORDS;
        if self.zones.last_key_value().is_none_or(full) {
            let zone = Zone {
                end: read.start,
                min: i64::MAX,
                max: i64::MIN,
            };
            self.zones.insert(read.start, zone);
        }
        if let Some(mut last) = self.zones.last_entry() {
            let zone = last.get_mut();
            zone.end = read.end;
            if let Some((min, max)) = times {
                zone.min = zone.min.min(min.0);
                zone.max = zone.max.max(max.0);
            }
        }
        self.changed = true;
    }

    /// The log begins at `start` now. A match that is ahead of time, by its own account, does not make everything
    /// before its time uncertain: only what lies before `settled`.
    pub(super) fn forget_before(&mut self, start: Offset, settled: Time) {
        while let Some(first) = self.zones.first_entry()
            && *first.key() < start
        {
            let zone = *first.get();
            if zone.max > i64::MIN {
                self.lost = self.lost.max(Some(zone.max.min(settled.0)));
            }
            if zone.end > start {
                break;
            }
            self.gone.push(*first.key());
            first.remove();
        }
    }

    /// Records were dropped before anybody read them.
    pub(super) fn lose(&mut self, settled: Time) {
        let known = self.zones.values().map(|z| z.max).max();
        self.lost = self.lost.max(known).max(Some(settled.0));
    }

    /// The latest time of which matches may be missing, if any are.
    pub(super) fn lost_to(&self) -> Option<Time> {
        self.lost.map(Time)
    }

    /// The earliest time that a match on the log may have.
    pub(super) fn earliest(&self) -> Option<Time> {
        let times = self.zones.values().filter(|z| z.min <= z.max);
        times.map(|z| Time(z.min)).min()
    }

    /// The stretches, in order, that may have a match of one of these times, bounds included, and which of them ask.
    pub(super) fn holding(&self, times: &[(Time, Time)]) -> Vec<Range<Offset>> {
        let asked = |zone: &Zone| {
            times
                .iter()
                .any(|(from, to)| zone.min <= to.0 && from.0 <= zone.max)
        };
        let found = self.zones.iter().filter(|(_, zone)| asked(zone));
        found.map(|(start, zone)| *start..zone.end).collect()
    }

    /// What has changed since this was last asked, as keys and values.
    pub(super) fn changes(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let key = |start: Offset| [ROW, &start.to_be_bytes()].concat();
        let gone = std::mem::take(&mut self.gone).into_iter();
        let mut rows: Vec<_> = gone.map(|start| (key(start), None)).collect();
        if std::mem::take(&mut self.changed)
            && let Some((start, zone)) = self.zones.last_key_value()
        {
            let value = serde_json::to_vec(zone).expect("numbers");
            rows.push((key(*start), Some(value)));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(batches: u64) -> Zones {
        let mut zones = Zones::default();
        for n in 0..batches {
            let times = (Time(n as i64 * 10), Time(n as i64 * 10 + 9));
            zones.note(n * 1_000..(n + 1) * 1_000, Some(times));
        }
        zones
    }

    #[test]
    fn only_stretches_of_the_time_are_read() {
        let zones = filled(20);
        let check = |from, to, expected: &[Range<u64>]| {
            assert_eq!(zones.holding(&[(Time(from), Time(to))]), expected);
        };
        let all = [0..5_000, 5_000..10_000, 10_000..15_000, 15_000..20_000];
        check(0, 199, &all);
        check(50, 50, &all[1..2]);
        check(49, 50, &all[..2]);
        check(200, 900, &[]);
        assert_eq!(zones.earliest(), Some(Time(0)));
        assert_eq!(zones.lost_to(), None);
    }

    #[test]
    fn what_retention_took_is_known_and_what_is_stored_comes_back() {
        let mut zones = filled(4);
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for n in 4..12 {
            zones.note(n * 1_000..(n + 1) * 1_000, Some((Time(5), Time(n as i64))));
            for (key, value) in zones.changes() {
                rows.insert(key, value.unwrap());
            }
        }
        zones.forget_before(5_500, Time(1_000));
        assert_eq!(zones.lost_to(), Some(Time(39)), "the second is half gone");
        let gone = zones.changes();
        assert_eq!(gone.len(), 1);
        gone.into_iter()
            .for_each(|(key, _)| drop(rows.remove(&key)));
        let rows: Vec<_> = rows.into_iter().collect();
        let again = Zones::restore(&rows, Some(39), 0..12_000, Time(0)).unwrap();
        assert_eq!(again.zones, zones.zones);
        let mut ahead = filled(1);
        ahead.note(1_000..2_000, Some((Time(0), Time::MAX)));
        ahead.forget_before(2_000, Time(50));
        assert_eq!(ahead.lost_to(), Some(Time(50)), "it was ahead of time");
    }

    #[test]
    fn what_was_read_before_may_have_any_time() {
        let zones = Zones::restore(&[], None, 7..9, Time(50)).unwrap();
        assert_eq!(zones.lost_to(), Some(Time(50)));
        let found = zones.holding(&[(Time(-5), Time(-4))]);
        assert_eq!((found.len(), found.first()), (1, Some(&(7..9))));
        let fresh = Zones::restore(&[], None, 0..0, Time::MIN).unwrap();
        assert_eq!(fresh.lost_to(), None);
    }
}
