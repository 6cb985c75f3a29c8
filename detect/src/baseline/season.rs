//! What a series usually does at this minute of this hour of the week, in 850 bytes.
//!
//! The expected count of a bucket is a product: base (a mean over about five days) × hour of the day × day of the
//! week × what is peculiar to the hour of the week × the five-minute slot of the hour. The pooled factors are learned
//! from every day and steady the peculiar one, which is seen once a week and believed by weeks / (weeks + 4) (partial
//! pooling); the slots are for bursty crons. [`Season`] adds buckets up and learns once an hour, when the hour is
//! over, so a bucket never teaches what is expected of itself. Counts come already capped: capping needs the level
//! and the dispersion, which `counts` knows.

use std::ops::Range;

use libm::{exp2, log2};
use serde::{Deserialize, Serialize};

use super::packed;
use super::params::{HOUR, MINUTE, Params, SeasonLength};

const HOURS: usize = 168;
const SLOTS: usize = 12;

/// The base remembers about this many hours.
const BASE_HOURS: f64 = 120.0;

/// So many imagined events with the expected pattern keep the season of a rare series flat.
const IMAGINED: f64 = 4.0;

/// An hour of the week is believed by weeks / (weeks + this).
const WEEKS_TO_BELIEVE: f64 = 4.0;

/// Hours before factors are learned: until a day is over the base is not a base.
const FIRST_DAY: u32 = 24;

/// A factor as 16 bits of logarithm: 1/256 to 256 in steps of 0.017 %.
fn pack(factor: f64) -> u16 {
    (log2(factor.clamp(1.0 / 255.0, 255.0)) * 4_096.0 + 32_768.0) as u16
}

fn unpack(packed: u16) -> f64 {
    exp2((f64::from(packed) - 32_768.0) / 4_096.0)
}

/// The pattern of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Season {
    /// The mean of a bucket.
    base: f32,
    /// How many hours have been learned.
    hours: u32,
    #[serde(with = "packed")]
    hour_of_day: [f32; 24],
    #[serde(with = "packed")]
    day_of_week: [f32; 7],
    #[serde(with = "packed")]
    hour_of_week: [u16; HOURS],
    /// How often each was learned.
    #[serde(with = "packed")]
    weeks: [u8; HOURS],
    #[serde(with = "packed")]
    slots: [f32; SLOTS],
    /// How many hours' worth of 60 events have taught the slots.
    slot_hours: f32,
    /// The hour that is being added up, as hours since 1970.
    hour: i32,
    /// Its buckets, their counts, the counts without the slots' pattern, and the counts per slot.
    buckets: f32,
    seen: f32,
    flat: f32,
    #[serde(with = "packed")]
    in_slots: [f32; SLOTS],
}

impl Season {
    pub(super) fn new() -> Season {
        Season {
            base: 0.0,
            hours: 0,
            hour_of_day: [1.0; 24],
            day_of_week: [1.0; 7],
            hour_of_week: [32_768; HOURS],
            weeks: [0; HOURS],
            slots: [1.0; SLOTS],
            slot_hours: 0.0,
            hour: i32::MIN,
            buckets: 0.0,
            seen: 0.0,
            flat: 0.0,
            in_slots: [0.0; SLOTS],
        }
    }

    /// What is expected of the bucket at `time`, as far as the pattern knows.
    pub(super) fn expected(&self, time: i64, params: &Params) -> f64 {
        (f64::from(self.base) * self.relative(time, params)).max(1e-3)
    }

    /// The same as a multiple of the mean.
    pub(super) fn relative(&self, time: i64, params: &Params) -> f64 {
        self.pattern(of_week(hour_of(time)), params) * self.slot(time, params)
    }

    /// The level moved by this factor for good.
    pub(super) fn scale(&mut self, factor: f64) {
        self.base = (f64::from(self.base) * factor) as f32;
    }

    /// Closes the hour that was being added up if `time` is in another.
    pub(super) fn turn(&mut self, time: i64, params: &Params) {
        let hour = hour_of(time);
        if hour == self.hour {
            return;
        }
        if self.buckets > 0.0 {
            self.learn(of_week(self.hour), params);
        }
        self.hour = hour;
        self.buckets = 0.0;
        self.seen = 0.0;
        self.flat = 0.0;
        self.in_slots = [0.0; SLOTS];
    }

    /// Adds a capped count to its hour.
    pub(super) fn add(&mut self, time: i64, count: f64, params: &Params) {
        self.buckets += 1.0;
        self.seen += count as f32;
        self.flat += (count / self.slot(time, params).max(0.05)) as f32;
        let covered = covered(time, params);
        let each = (count / covered.len() as f64) as f32;
        self.in_slots[covered].iter_mut().for_each(|s| *s += each);
    }

    fn slot(&self, time: i64, params: &Params) -> f64 {
        if params.bucket >= HOUR || params.season == SeasonLength::None {
            return 1.0;
        }
        let slots = &self.slots[covered(time, params)];
        slots.iter().map(|s| f64::from(*s)).sum::<f64>() / slots.len() as f64
    }

    /// The factor of an hour of the week.
    fn pattern(&self, hour: usize, params: &Params) -> f64 {
        match params.season {
            SeasonLength::None => 1.0,
            SeasonLength::Day => f64::from(self.hour_of_day[hour % 24]),
            SeasonLength::Week => {
                let weeks = f64::from(self.weeks[hour]);
                let believed = weeks / (weeks + WEEKS_TO_BELIEVE);
                let peculiar = 1.0 + (unpack(self.hour_of_week[hour]) - 1.0) * believed;
                self.pooled(hour) * peculiar
            }
        }
    }

    fn pooled(&self, hour: usize) -> f64 {
        f64::from(self.hour_of_day[hour % 24]) * f64::from(self.day_of_week[hour / 24])
    }

    fn learn(&mut self, hour: usize, params: &Params) {
        let pattern = self.pattern(hour, params).max(0.02);
        self.hours = self.hours.saturating_add(1);
        let before = f64::from(self.base);
        let mean = f64::from(self.flat / self.buckets);
        let step = (1.0 / f64::from(self.hours)).max(1.0 / BASE_HOURS);
        let base = before + step * (mean / pattern - before);
        self.base = base as f32;
        if self.hours > FIRST_DAY && params.season != SeasonLength::None {
            let usual = base.max(1e-3) * f64::from(self.buckets);
            let factor = (f64::from(self.seen) + IMAGINED * pattern) / (usual + IMAGINED);
            self.learn_factors(hour, factor);
        }
        self.learn_slots(params);
    }

    fn learn_factors(&mut self, hour: usize, factor: f64) {
        self.weeks[hour] = self.weeks[hour].saturating_add(1);
        let (of_day, day) = (hour % 24, hour / 24);
        let days: f64 = (0..7).map(|d| f64::from(self.weeks[d * 24 + of_day])).sum();
        let hours: f64 = (0..24).map(|h| f64::from(self.weeks[day * 24 + h])).sum();
        let toward =
            |old: f32, step: f64, new: f64| (f64::from(old) + step * (new - f64::from(old))) as f32;

        let without_day = factor / f64::from(self.day_of_week[day]).max(0.02);
        let step = (1.0 / days).max(0.04);
        self.hour_of_day[of_day] = toward(self.hour_of_day[of_day], step, without_day);

        let without_hour = factor / f64::from(self.hour_of_day[of_day]).max(0.02);
        let step = (1.0 / (hours + 24.0)).max(0.01);
        self.day_of_week[day] = toward(self.day_of_week[day], step, without_hour);

        let old = unpack(self.hour_of_week[hour]);
        let step = (1.0 / f64::from(self.weeks[hour])).max(0.15);
        self.hour_of_week[hour] = pack(old + step * (factor / self.pooled(hour).max(0.02) - old));

        // Factors are about their mean; the level belongs to the base.
        let mean: f32 = self.hour_of_day.iter().sum::<f32>() / 24.0;
        self.hour_of_day.iter_mut().for_each(|f| *f /= mean);
        let mean: f32 = self.day_of_week.iter().sum::<f32>() / 7.0;
        self.day_of_week.iter_mut().for_each(|f| *f /= mean);
    }

    /// The share of each slot, with one imagined event in each.
    fn learn_slots(&mut self, params: &Params) {
        if params.bucket >= HOUR || f64::from(self.buckets) < params.buckets_in(HOUR) {
            return;
        }
        let total = f64::from(self.seen) + SLOTS as f64;
        let worth = total.min(60.0) / 60.0;
        self.slot_hours += worth as f32;
        let step = (worth / f64::from(self.slot_hours)).max(1.0 / 96.0);
        for (slot, seen) in self.slots.iter_mut().zip(self.in_slots) {
            let share = SLOTS as f64 * (f64::from(seen) + 1.0) / total;
            *slot += (step * (share - f64::from(*slot))) as f32;
        }
    }
}

/// Hours since 1970.
fn hour_of(time: i64) -> i32 {
    time.div_euclid(HOUR) as i32
}

/// Hour of the week, from Thursday 00:00 UTC.
fn of_week(hour: i32) -> usize {
    hour.rem_euclid(HOURS as i32) as usize
}

/// The slots that the bucket at `time` covers.
fn covered(time: i64, params: &Params) -> Range<usize> {
    let first = (time.rem_euclid(HOUR) / (5 * MINUTE)) as usize;
    let many = (params.bucket / (5 * MINUTE)).max(1) as usize;
    first..(first + many).min(SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: i64 = 5 * MINUTE;

    /// A season that was fed `pattern` (hour of the week, slot) for some weeks.
    fn fed(weeks: i64, pattern: impl Fn(usize, usize) -> f64) -> (Season, i64) {
        let params = Params::default();
        let mut season = Season::new();
        let mut time = 0;
        while time < weeks * 7 * 24 * HOUR {
            season.turn(time, &params);
            let count = pattern(of_week(hour_of(time)), covered(time, &params).start);
            season.add(time, count, &params);
            time += BUCKET;
        }
        (season, time)
    }

    #[test]
    fn a_pattern_is_learned() {
        let check = |weeks: i64, tolerance: f64, pattern: fn(usize, usize) -> f64| {
            let (mut season, mut time) = fed(weeks, pattern);
            for _ in 0..2_016 {
                season.turn(time, &Params::default());
                let (found, true_one) = (
                    season.expected(time, &Params::default()),
                    pattern(
                        of_week(hour_of(time)),
                        covered(time, &Params::default()).start,
                    ),
                );
                assert!(
                    (found / true_one - 1.0).abs() < tolerance,
                    "{weeks} weeks, at {time}: {found} for {true_one}"
                );
                season.add(time, true_one, &Params::default());
                time += BUCKET;
            }
        };
        check(1, 0.01, |_, _| 50.0);
        // Day and week as a product need few weeks.
        check(3, 0.15, |hour, _| {
            (if hour % 24 < 12 { 200.0 } else { 80.0 }) * if hour / 24 == 2 { 0.5 } else { 1.0 }
        });
        // Something peculiar to one hour of the week needs more, and is believed in part.
        check(12, 0.25, |hour, _| if hour == 30 { 90.0 } else { 30.0 });
        // A cron at the full hour.
        check(2, 0.25, |_, slot| if slot == 0 { 240.0 } else { 30.0 });
    }

    #[test]
    fn factors_survive_packing() {
        for factor in [0.004, 0.3, 1.0, 1.0001, 7.7, 250.0] {
            assert!(
                (unpack(pack(factor)) / factor - 1.0).abs() < 2e-4,
                "{factor}"
            );
        }
    }
}
