//! Any metric, one number a row: durations, temperatures, cost; `trailwarden baseline` scores files with it.
//!
//! The family is that of `counts` without the counting. Two experts foretell each row: the recent level, and the
//! slow level plus a season (quarter of an hour of the day, hour of the week, pooled) plus the recent level of what
//! that leaves. Whichever has erred less lately is believed. The error, in units of the usual error, is rare or not by
//! the series' own history: the largest errors follow a Pareto tail whose exponent is learned (peaks over threshold),
//! so series with tame and with wild tails are measured alike. What has been as rare lately counts half: a score is
//! how much a person should be told now. [`Metric`] sees rows in order and no row sees the future; errors are capped
//! before they teach the level or the season. About 1.9 KB, however long the series.

use event::Time;
use libm::{exp, log};
use serde::{Deserialize, Serialize};

use super::packed;
use super::params::{DAY, HOUR, MINUTE};

const SLOTS: usize = 96;
const HOURS: usize = 168;

/// Rows before anything is scored.
const WARM: f64 = 20.0;
/// The recent level looks back about so many rows, the usual error this many.
const LEVEL_ROWS: f64 = 100.0;
const ERROR_ROWS: f64 = 1_000.0;
/// The slow level, in days.
const SLOW_DAYS: f64 = 7.0;
/// The season is believed after so long.
const SEASON_AFTER: i64 = 2 * DAY;
/// An error teaches at most so many usual errors.
const TEACHES_AT_MOST: f64 = 4.0;
/// Which share of errors makes the tail, over how many rows, and what it is taken to be like before it is seen.
const TAIL: f64 = 0.02;
const TAIL_ROWS: f64 = 4_000.0;
const IMAGINED: f64 = 40.0;
const IMAGINED_EXPONENT: f64 = 0.25;
/// What has been said fades over about so many rows, and must be exceeded by this much (ln).
const SAID_ROWS: f64 = 1_200.0;
const SAID_AGAIN: f64 = 0.5;
/// -ln of the probability at which the score is one half: a row in four hundred.
const HALF: f64 = 6.0;

/// The tail of the errors of one expert.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Tail {
    /// The error that a share of [`TAIL`] exceeds.
    knee: f64,
    above: f32,
    /// The sum of ln(error / knee) of those above.
    logs: f32,
    seen: f32,
}

impl Tail {
    /// -ln of the probability of an error at least as large.
    fn rarity(&self, error: f64) -> f64 {
        if self.knee <= 0.0 {
            return 0.0;
        }
        if error <= self.knee {
            return -log(TAIL) * error / self.knee;
        }
        let (above, logs, seen) = (
            f64::from(self.above),
            f64::from(self.logs),
            f64::from(self.seen),
        );
        let share = (above + IMAGINED) / (seen + IMAGINED / TAIL);
        let exponent = (logs + IMAGINED * IMAGINED_EXPONENT) / (above + IMAGINED);
        -log(share) + log(error / self.knee) / exponent
    }

    fn add(&mut self, error: f64) {
        if self.knee == 0.0 {
            self.knee = 2.0 * error.max(1e-9);
        }
        let keep = (1.0 - 1.0 / TAIL_ROWS) as f32;
        self.seen = (self.seen + 1.0) * keep;
        self.above *= keep;
        self.logs *= keep;
        // The knee climbs and sinks so that the share stays.
        let step = (4.0 / f64::from(self.seen).max(4.0)).max(0.02);
        if error > self.knee {
            self.above += 1.0;
            self.logs += log(error / self.knee).min(3.0) as f32;
            self.knee *= exp(step * (1.0 - TAIL));
        } else {
            self.knee *= exp(-step * TAIL);
        }
    }
}

/// One way to foretell a row.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Expert {
    level: f64,
    /// The usual error, capped errors only.
    scale: f64,
    rows: f64,
    /// How much it erred lately.
    erred: f64,
    tail: Tail,
}

impl Expert {
    /// Takes the error of a row about `magnitude` large and gives its rarity.
    fn step(&mut self, error: f64, magnitude: f64) -> f64 {
        let scale = self.scale.max(1e-9 * magnitude).max(1e-300);
        let warm = self.rows >= WARM;
        let mut rarity = 0.0;
        let (mut taught, mut size) = (error, error.abs());
        if warm {
            rarity = self.tail.rarity(error.abs() / scale);
            self.tail.add(error.abs() / scale);
            taught = error.clamp(-TEACHES_AT_MOST * scale, TEACHES_AT_MOST * scale);
            size = size.min((TEACHES_AT_MOST + 1.0) * scale);
        }
        self.rows += 1.0;
        self.level += (2.0 / (LEVEL_ROWS + 1.0)).max(1.0 / (self.rows + 1.0)) * taught;
        self.scale += (1.0 / ERROR_ROWS).max(1.0 / self.rows) * (size - self.scale);
        rarity
    }
}

/// The model of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    first: i64,
    last: i64,
    rows: f64,
    /// The recent level alone, and what the season leaves.
    recent: Expert,
    seasonal: Expert,
    slow: f64,
    #[serde(with = "packed")]
    slots: [f32; SLOTS],
    #[serde(with = "packed")]
    slot_rows: [u16; SLOTS],
    #[serde(with = "packed")]
    hours: [f32; HOURS],
    #[serde(with = "packed")]
    hour_rows: [u16; HOURS],
    /// The rarity that was said last, fading.
    said: f64,
}

/// The score of a row and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// 0 for what is usual, towards 1 for what has never been seen; from 0.5 on it is worth a look.
    pub score: f64,
    /// What was expected.
    pub expected: f64,
    /// How far off is usual.
    pub usual: f64,
    /// Too few rows yet: the score is 0.
    pub learning: bool,
}

impl Default for Metric {
    fn default() -> Metric {
        Metric::new()
    }
}

impl Metric {
    /// A metric of which nothing is known.
    pub fn new() -> Metric {
        Metric {
            first: 0,
            last: 0,
            rows: 0.0,
            recent: Expert::default(),
            seasonal: Expert::default(),
            slow: 0.0,
            slots: [0.0; SLOTS],
            slot_rows: [0; SLOTS],
            hours: [0.0; HOURS],
            hour_rows: [0; HOURS],
            said: 0.0,
        }
    }

    /// Scores the next row, then learns from it. Rows come in the order of time, equal times included; the value must
    /// be finite.
    pub fn push(&mut self, time: Time, value: f64) -> Score {
        let time = time.0;
        if self.rows == 0.0 {
            self.first = time;
            self.last = time;
            self.slow = value;
            self.recent.level = value;
        }
        let slot = (time.rem_euclid(DAY) / (15 * MINUTE)) as usize;
        let hour = time.div_euclid(HOUR).rem_euclid(HOURS as i64) as usize;
        let season = believed(self.slots[slot], self.slot_rows[slot], 3.0)
            + believed(self.hours[hour], self.hour_rows[hour], 36.0);

        let off = value - self.recent.level;
        let unseasonal = value - self.slow - season;
        let seasonal_off = unseasonal - self.seasonal.level;
        let old_enough = time - self.first > SEASON_AFTER;
        let by_season = old_enough && self.seasonal.erred < self.recent.erred;
        let chosen = if by_season {
            &self.seasonal
        } else {
            &self.recent
        };
        let (expected, usual) = (
            value - if by_season { seasonal_off } else { off },
            chosen.scale,
        );

        self.rows += 1.0;
        let most = 6.0 * self.recent.scale.max(1e-300);
        let step = 0.002_f64.max(1.0 / self.rows);
        for (expert, off) in [(&mut self.recent, off), (&mut self.seasonal, seasonal_off)] {
            expert.erred += step * (off.abs().min(most) - expert.erred);
        }
        let magnitude = value.abs().max(self.slow.abs());
        let (recent, seasonal) = (
            self.recent.step(off, magnitude),
            self.seasonal.step(seasonal_off, magnitude),
        );
        let rarity = if by_season { seasonal } else { recent };
        let news = if rarity > self.said + SAID_AGAIN {
            rarity
        } else {
            rarity / 2.0
        };
        self.said = (self.said * exp(-1.0 / SAID_ROWS)).max(rarity);
        self.learn_season(time, value, unseasonal, (slot, hour));
        self.last = time;
        Score {
            score: (news / (news + HALF)).clamp(0.0, 1.0),
            expected,
            usual,
            learning: self.rows <= WARM,
        }
    }

    fn learn_season(
        &mut self,
        time: i64,
        value: f64,
        unseasonal: f64,
        (slot, hour): (usize, usize),
    ) {
        let young = time - self.first < SEASON_AFTER;
        let most = if young {
            f64::INFINITY
        } else {
            TEACHES_AT_MOST * self.seasonal.scale
        };
        let days = (time - self.last).clamp(0, DAY) as f64 / DAY as f64;
        self.slow +=
            (days / SLOW_DAYS).max(1.0 / (self.rows + 1.0)) * unseasonal.clamp(-most, most);

        self.slot_rows[slot] = self.slot_rows[slot].saturating_add(1);
        let left = value - self.slow - f64::from(self.slots[slot]);
        let step = (1.0 / f64::from(self.slot_rows[slot])).max(0.05);
        self.slots[slot] += (step * left.clamp(-most, most)) as f32;

        self.hour_rows[hour] = self.hour_rows[hour].saturating_add(1);
        let left = value - self.slow - f64::from(self.slots[slot]) - f64::from(self.hours[hour]);
        let step = (1.0 / f64::from(self.hour_rows[hour])).max(0.02);
        self.hours[hour] += (step * left.clamp(-most, most)) as f32;
    }
}

/// A mean of so many rows, drawn towards zero as if `doubt` more had been zero.
fn believed(mean: f32, rows: u16, doubt: f64) -> f64 {
    let rows = f64::from(rows);
    f64::from(mean) * rows / (rows + doubt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scores of a series of one row each five minutes.
    fn scores(values: &[f64]) -> Vec<Score> {
        let mut metric = Metric::new();
        let time = |row: usize| Time(row as i64 * 5 * MINUTE);
        values
            .iter()
            .enumerate()
            .map(|(row, value)| metric.push(time(row), *value))
            .collect()
    }

    /// A daily wave with a ripple, and something done to it.
    fn wave(change: impl Fn(usize, f64) -> f64) -> Vec<f64> {
        (0..288 * 12)
            .map(|row| {
                let day = (row % 288) as f64 / 288.0;
                let ripple = ((row * 7919) % 101) as f64 / 101.0;
                change(
                    row,
                    50.0 + 30.0 * (std::f64::consts::TAU * day).sin() + ripple,
                )
            })
            .collect()
    }

    #[test]
    fn what_departs_from_the_season_is_scored_first() {
        let check = |values: Vec<f64>, expected: Option<std::ops::Range<usize>>| {
            let found = scores(&values);
            let best =
                (288 * 4..values.len()).max_by(|a, b| found[*a].score.total_cmp(&found[*b].score));
            let best = best.expect("there are rows");
            match expected {
                None => assert!(found[best].score < 0.5, "{best}: {:?}", found[best]),
                Some(range) => {
                    assert!(range.contains(&best), "{best}: {:?}", found[best]);
                    assert!(found[best].score > 0.5, "{best}: {:?}", found[best]);
                }
            }
        };
        check(wave(|_, v| v), None);
        check(
            wave(|row, v| if row == 3_000 { v + 40.0 } else { v }),
            Some(3_000..3_001),
        );
        // The day's peak does not come, though each value is usual at another hour.
        check(
            wave(|row, v| {
                if (2_900..2_980).contains(&row) {
                    50.0
                } else {
                    v
                }
            }),
            Some(2_900..2_980),
        );
        check(
            wave(|row, v| if row >= 3_000 { v + 60.0 } else { v }),
            Some(3_000..3_002),
        );
    }

    #[test]
    fn a_flat_line_is_quiet_until_it_moves() {
        let mut values = vec![45.0; 1_000];
        values[900] = 46.0;
        let found = scores(&values);
        assert!(found[..900].iter().all(|s| s.score == 0.0));
        assert!(found[900].score > 0.9, "{:?}", found[900]);
    }

    proptest! {
        #[test]
        fn scores_are_causal_finite_and_survive_storage(
            values in proptest::collection::vec(-1e12..1e12_f64, 1..300),
            cut in 0..300_usize,
        ) {
            let whole = scores(&values);
            let cut = cut.min(values.len());
            prop_assert_eq!(&scores(&values[..cut])[..], &whole[..cut]);
            let mut metric = Metric::new();
            for (row, value) in values.iter().enumerate() {
                if row == cut {
                    let stored = postcard::to_stdvec(&metric).expect("a model can be stored");
                    prop_assert!(stored.len() < 2_000, "{}", stored.len());
                    metric = postcard::from_bytes(&stored).expect("it was just written");
                }
                let score = metric.push(Time(row as i64 * 5 * MINUTE), *value);
                prop_assert!((0.0..=1.0).contains(&score.score), "{score:?}");
                prop_assert_eq!(score, whole[row]);
            }
        }
    }
}
