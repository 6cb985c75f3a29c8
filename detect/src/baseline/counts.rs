//! A series of counts: invocations of a function, matches of a rule in a group.
//!
//! What is expected of a bucket is season × level. The level is the ratio of what was seen to what the season said
//! over the last hour and a half, and it is believed as far as it has helped before: a slope, fitted as the series
//! goes, is near one for a series whose rate wanders and near zero for one that only scatters. Counts are capped
//! before they teach anything; while an episode is open they teach the season only, and after three hours of it nothing
//! at all. So a surge cannot make itself normal, while bursts that come every day do become usual.
//! `spans` judges, `episode` remembers what was said, `days` watches for what is too slow for both. The pipeline
//! feeds [`Series`] one closed bucket at a time and makes findings of the verdicts.

use event::Time;
use libm::{exp, log};
use serde::{Deserialize, Serialize};

use super::days::{Days, Slow};
use super::episode::Episode;
use super::params::{DAY, DEPLOYED, MINUTE, Params, STRICTER};
use super::season::Season;
use super::spans::{Cell, Family, Judged, Spans, nines};
use super::verdict::{Change, Learning, Reason, Usual, Verdict};

/// The level looks back about so far.
const LEVEL_SPAN: i64 = 90 * MINUTE;

/// The level is between these.
const LEVEL: (f64, f64) = (0.25, 4.0);

/// The model of one series of counts: about 1.1 KB, however long it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The first and the last bucket.
    started: i64,
    last: i64,
    /// The last deployment.
    deployed: i64,
    /// What was seen and what the season said, as moving means.
    seen: f32,
    said: f32,
    /// How well the level foretells the next bucket: sums of products and of squares.
    products: f32,
    squares: f32,
    season: Season,
    spans: Spans,
    episode: Episode,
    days: Days,
}

impl Default for Series {
    fn default() -> Series {
        Series::new()
    }
}

impl Series {
    /// A series of which nothing is known.
    pub fn new() -> Series {
        Series {
            started: i64::MAX,
            last: i64::MIN,
            deployed: i64::MIN,
            seen: 0.0,
            said: 0.0,
            products: 0.0,
            squares: 0.0,
            season: Season::new(),
            spans: Spans::new(),
            episode: Episode::default(),
            days: Days::new(),
        }
    }

    /// The function was changed: for half an hour a departure must be a hundred times rarer.
    pub fn deployed(&mut self, time: Time) {
        self.deployed = self.deployed.max(time.0);
    }

    /// A person says that what goes on is the new normal. Without an open episode nothing happens.
    pub fn accept(&mut self) {
        if self.episode.is_open() {
            self.season.scale(self.episode.ratio());
            self.episode.close();
            self.spans.interrupt();
            self.seen = 0.0;
            self.said = 0.0;
        }
    }

    /// The dispersion of single buckets that was learned, for a fleet's median.
    pub fn dispersion(&self, params: &Params) -> f64 {
        self.spans.of_a_bucket(params.prior.dispersion)
    }

    /// How long it has been learned at the bucket that was closed last.
    pub fn learning(&self) -> Learning {
        Learning {
            seen: self.last.saturating_sub(self.started).max(0),
        }
    }

    /// Judges the bucket that begins at `bucket_time` and learns from it. Buckets are closed in order, those without
    /// events too; after a gap the model goes on, and a bucket that is not after the last one changes nothing.
    pub fn close_bucket(&mut self, params: &Params, bucket_time: Time, observed: u64) -> Verdict {
        let time = bucket_time.0;
        let seen = observed as f64;
        if time <= self.last {
            return self.verdict(params, bucket_time, seen, seen, Change::Quiet, None);
        }
        if self.started == i64::MAX {
            self.started = time;
        } else if time - self.last > params.bucket {
            self.spans.interrupt();
        }
        self.last = time;
        self.season.turn(time, params);
        let season = self.season.expected(time, params);
        let level = self.level();
        let expected = season * level;
        self.spans.push(Cell {
            seen,
            season,
            level,
            trials: 0.0,
        });
        let learn = !self.episode.is_open();
        let mut judged = self.spans.judge(
            Family::Counts,
            params,
            params.prior.dispersion,
            self.stricter(time),
            learn,
        );
        if self.learning().is_blind() {
            judged.iter_mut().flatten().for_each(|j| j.fires = false);
        }
        let (change, shown) =
            self.episode
                .step(bucket_time, seen, expected, &judged, params.at_least.ratio);
        let count = judged[0].map_or(seen, |j| j.taught);
        let slow = self.learn(time, count, season, expected, params);
        if change == Change::Accepted {
            self.accept();
        }
        match slow {
            Some(slow) if change == Change::Quiet => {
                return self.slow_verdict(params, bucket_time, slow);
            }
            Some(slow) => self.days.unsay(slow),
            None => {}
        }
        self.verdict(params, bucket_time, seen, expected, change, shown)
    }

    /// The level, as far as it is believed.
    fn level(&self) -> f64 {
        let slope = (f64::from(self.products) + 1.0) / (f64::from(self.squares) + 2.0);
        exp(slope.clamp(0.0, 1.0) * self.off())
    }

    /// ln of what was seen over what the season said, lately.
    fn off(&self) -> f64 {
        let ratio = (f64::from(self.seen) + 1.0) / (f64::from(self.said) + 1.0);
        log(ratio.clamp(LEVEL.0, LEVEL.1))
    }

    fn stricter(&self, time: i64) -> f64 {
        let deployed = u8::from(self.is_deployed(time));
        STRICTER * f64::from(self.learning().caution() + deployed)
    }

    fn is_deployed(&self, time: i64) -> bool {
        (0..DEPLOYED).contains(&time.saturating_sub(self.deployed))
    }

    /// Season, level and days learn from a capped count, or from what was expected where an episode has lasted.
    fn learn(
        &mut self,
        time: i64,
        count: f64,
        season: f64,
        expected: f64,
        params: &Params,
    ) -> Option<Slow> {
        let relative = self.season.relative(time, params);
        if !self.episode.teaches(time) {
            self.season.add(time, expected, params);
            return self.days.add(time, expected, relative, params);
        }
        self.season.add(time, count, params);
        if !self.episode.is_open() {
            self.learn_level(count, season, expected, params);
        }
        self.days.add(time, count, relative, params)
    }

    fn learn_level(&mut self, count: f64, season: f64, expected: f64, params: &Params) {
        let dispersion = self.spans.of_a_bucket(params.prior.dispersion);
        let keep = 1.0 - 1.0 / params.buckets_in(7 * DAY);
        let weight = expected / (1.0 + dispersion * expected);
        let (off, next) = (self.off(), (count / season - 1.0).clamp(-1.0, 2.0));
        self.products = (f64::from(self.products) * keep + weight * off * next) as f32;
        self.squares = (f64::from(self.squares) * keep + weight * off * off) as f32;

        let step = 2.0 / (params.buckets_in(LEVEL_SPAN).max(5.0) + 1.0);
        self.seen += (step * (count - f64::from(self.seen))) as f32;
        self.said += (step * (season - f64::from(self.said))) as f32;
    }

    fn verdict(
        &self,
        params: &Params,
        time: Time,
        seen: f64,
        expected: f64,
        change: Change,
        shown: Option<Judged>,
    ) -> Verdict {
        let plain = Verdict {
            time,
            span: params.bucket,
            observed: seen,
            expected,
            out_of: 0.0,
            surprise: 0.0,
            learning: self.learning(),
            change,
            reason: None,
            noisy: false,
            deployed: self.is_deployed(time.0),
            usual: Usual::Band(0.0, f64::INFINITY),
        };
        match shown {
            Some(judged) if !plain.learning.is_blind() => plain.of(Family::Counts, judged, params),
            _ => plain,
        }
    }

    fn slow_verdict(&self, params: &Params, time: Time, slow: Slow) -> Verdict {
        let (change, reason) = (
            if slow.begins {
                Change::Opened
            } else {
                Change::Closed
            },
            if slow.above {
                Reason::SlowRise
            } else {
                Reason::SlowFall
            },
        );
        let usual = if slow.above {
            Usual::Band(0.0, slow.expected * params.slow)
        } else {
            Usual::Band(slow.expected / params.slow, f64::INFINITY)
        };
        Verdict {
            span: 7 * DAY,
            reason: Some(reason),
            usual,
            ..self.verdict(params, time, slow.seen, slow.expected, change, None)
        }
    }
}

impl Verdict {
    /// With the span that is shown.
    pub(super) fn of(self, family: Family, judged: Judged, params: &Params) -> Verdict {
        Verdict {
            span: params.bucket * super::spans::SPANS[judged.span].buckets as i64,
            observed: judged.sum.seen,
            expected: judged.sum.mean,
            out_of: judged.sum.trials,
            surprise: nines(judged.ln_tail),
            reason: (self.change != Change::Quiet).then_some(if judged.above {
                Reason::Surge
            } else {
                Reason::Drop
            }),
            noisy: judged.noisy,
            usual: Usual::Of(family, judged, *params),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{AtLeast, Direction, Prior};
    use super::*;

    const BUCKET: i64 = 300_000_000;
    const A_DAY: usize = 288;
    /// Nothing is too small.
    const ANY: AtLeast = AtLeast {
        count: 1.0,
        ratio: 1.0,
    };

    /// Some noise without a generator: a multiple of `mean` between 0.8 and 1.2.
    fn around(mean: f64, bucket: usize) -> u64 {
        let ripple = (bucket * 7919 % 97) as f64 / 97.0 - 0.5;
        (mean * (1.0 + 0.4 * ripple)).round() as u64
    }

    /// A series after some quiet days, and what it says to what comes then.
    fn after(params: &Params, days: usize, mean: f64, then: &[u64]) -> (Series, Vec<Verdict>) {
        let mut series = Series::new();
        let from = days * A_DAY;
        for bucket in 0..from {
            let verdict = series.close_bucket(params, at(bucket), around(mean, bucket));
            assert_eq!(verdict.change, Change::Quiet, "{bucket}: {verdict}");
        }
        let verdicts = then
            .iter()
            .enumerate()
            .map(|(n, seen)| series.close_bucket(params, at(from + n), *seen))
            .collect();
        (series, verdicts)
    }

    fn at(bucket: usize) -> Time {
        Time(bucket as i64 * BUCKET)
    }

    fn changes(verdicts: &[Verdict]) -> Vec<Change> {
        verdicts.iter().map(|v| v.change).collect()
    }

    #[test]
    fn a_surge_opens_one_episode() {
        use Change::{Closed, Open, Opened, Quiet, Worse};
        let check = |days: usize, mean: f64, then: &[u64], expected: &[Change]| {
            let (_, verdicts) = after(&Params::default(), days, mean, then);
            assert_eq!(
                changes(&verdicts),
                expected,
                "{days} days of {mean}, {then:?}"
            );
        };
        check(14, 50.0, &[50, 150, 160, 150], &[Quiet, Opened, Open, Open]);
        check(14, 50.0, &[150, 500], &[Opened, Worse]);
        check(
            14,
            50.0,
            &[1_000, 50, 50, 50, 50, 50, 50],
            &[Opened, Open, Open, Open, Open, Closed, Quiet],
        );
        // Nothing on the first day; a large one in the first week.
        check(0, 50.0, &[50, 1_000], &[Quiet, Quiet]);
        check(3, 50.0, &[1_000], &[Opened]);
        // Below the ratio, and below the count.
        check(14, 50.0, &[90, 90, 90], &[Quiet, Quiet, Quiet]);
        check(14, 0.2, &[9, 9], &[Quiet, Quiet]);
        check(14, 0.2, &[9, 9, 9], &[Quiet, Quiet, Opened]);
    }

    #[test]
    fn the_verdict_says_what_was_expected_and_for_how_long_it_learned() {
        let (_, verdicts) = after(&Params::default(), 14, 50.0, &[400]);
        let text = verdicts[0].to_string();
        assert!(
            text.starts_with("400 in 5m; ") && text.ends_with("; learned over 14 days"),
            "{text}"
        );
        assert!((45.0..55.0).contains(&verdicts[0].expected), "{text}");
        let (low, high) = verdicts[0].band();
        assert!(low == 0.0 && (95.0..120.0).contains(&high), "{text}");
        let (_, verdicts) = after(&Params::default(), 3, 50.0, &[50]);
        assert!(
            verdicts[0].to_string().ends_with("; learning 3/7 days"),
            "{}",
            verdicts[0]
        );
    }

    #[test]
    fn the_band_is_where_it_speaks() {
        for (direction, mean) in [
            (Direction::Above, 50.0),
            (Direction::Both, 200.0),
            (Direction::Below, 500.0),
        ] {
            let params = Params {
                direction,
                ..Params::default()
            };
            let (series, verdicts) = after(&params, 14, mean, &[]);
            assert!(verdicts.is_empty());
            let ask = |seen: f64| {
                let mut series = series.clone();
                series.close_bucket(&params, at(14 * A_DAY), seen as u64)
            };
            let (low, high) = ask(mean).band();
            if direction != Direction::Below {
                assert_eq!(ask(high).change, Change::Quiet, "{high} of {mean}");
                assert_eq!(ask(high + 1.0).change, Change::Opened, "{high} of {mean}");
            }
            if direction != Direction::Above {
                assert!(low > 0.0);
                assert_eq!(ask(low).change, Change::Quiet, "{low} of {mean}");
                assert_eq!(ask(low - 1.0).change, Change::Opened, "{low} of {mean}");
            }
        }
    }

    #[test]
    fn silence_is_said_where_less_is_judged() {
        let check = |direction: Direction, expected: Change| {
            let params = Params {
                direction,
                ..Params::default()
            };
            let (_, verdicts) = after(&params, 14, 100.0, &[0, 0]);
            assert_eq!(verdicts[0].change, expected, "{direction:?}");
            if expected == Change::Opened {
                assert_eq!(verdicts[0].reason, Some(Reason::Drop));
            }
        };
        check(Direction::Above, Change::Quiet);
        check(Direction::Below, Change::Opened);
        check(Direction::Both, Change::Opened);
    }

    #[test]
    fn a_surge_cannot_teach_itself_but_what_stays_is_accepted() {
        let params = Params::default();
        let many: Vec<u64> = (0..4 * A_DAY).map(|b| around(200.0, b)).collect();
        let (mut series, verdicts) = after(&params, 14, 50.0, &many);
        let news: Vec<(usize, Change)> = verdicts
            .iter()
            .enumerate()
            .filter(|(_, v)| v.change.is_news())
            .map(|(n, v)| (n, v.change))
            .collect();
        assert_eq!(
            news,
            [
                (0, Change::Opened),
                (A_DAY, Change::Asked),
                (3 * A_DAY, Change::Accepted)
            ]
        );
        let last = verdicts.last().expect("there are four days");
        assert!((180.0..220.0).contains(&last.expected), "{last}");
        // Or a person accepts it at once.
        let (mut other, verdicts) = after(&params, 14, 50.0, &many[..12]);
        assert_eq!(verdicts[11].change, Change::Open);
        other.accept();
        let next = other.close_bucket(&params, at(14 * A_DAY + 12), 200);
        assert!(
            next.change == Change::Quiet && next.expected > 180.0,
            "{next}"
        );
        // Without an episode there is nothing to accept.
        let before = series.clone();
        series.accept();
        assert_eq!(series, before);
    }

    #[test]
    fn a_deployment_loosens_the_band_for_half_an_hour() {
        let params = Params {
            at_least: ANY,
            ..Params::default()
        };
        let (series, _) = after(&params, 14, 50.0, &[]);
        let check = |minutes: i64, looser: bool| {
            let mut told = series.clone();
            told.deployed(Time(at(14 * A_DAY).0 - minutes * MINUTE));
            let (verdict, plain) = (
                told.close_bucket(&params, at(14 * A_DAY), 50),
                series.clone().close_bucket(&params, at(14 * A_DAY), 50),
            );
            assert_eq!(verdict.deployed, looser);
            assert_eq!(
                verdict.band().1 > plain.band().1,
                looser,
                "{verdict}; {plain}"
            );
        };
        check(0, true);
        check(29, true);
        check(30, false);
        check(-5, false);
    }

    #[test]
    fn bursts_that_repeat_become_usual() {
        // A job that calls a function 200 times every three hours, which is otherwise idle.
        let params = Params::default();
        let mut series = Series::new();
        let mut opened = [0; 4];
        for bucket in 0..28 * A_DAY {
            let seen = if bucket % 36 == 20 { 200 } else { 0 };
            let verdict = series.close_bucket(&params, at(bucket), seen);
            opened[bucket / (7 * A_DAY)] += u32::from(verdict.change == Change::Opened);
        }
        assert_eq!(opened[3], 0, "{opened:?}");
        assert!(opened.iter().sum::<u32>() <= 3, "{opened:?}");
    }

    #[test]
    fn buckets_out_of_order_change_nothing_and_gaps_are_survived() {
        let params = Params::default();
        let (mut series, _) = after(&params, 14, 50.0, &[]);
        let before = series.clone();
        for bucket in [14 * A_DAY - 1, 3] {
            let verdict = series.close_bucket(&params, at(bucket), 5_000);
            assert_eq!(verdict.change, Change::Quiet);
        }
        assert_eq!(series, before);
        let verdict = series.close_bucket(&params, at(16 * A_DAY), 50);
        assert_eq!(verdict.change, Change::Quiet, "{verdict}");
        assert!((45.0..55.0).contains(&verdict.expected), "{verdict}");
    }

    #[test]
    fn the_budget_moves_the_band() {
        let high = |false_alarms: f64| {
            let params = Params {
                false_alarms,
                at_least: ANY,
                ..Params::default()
            };
            after(&params, 14, 500.0, &[500]).1[0].band().1
        };
        assert!(high(0.1) > high(1.0) && high(1.0) > high(100.0));
    }

    #[test]
    fn documents_that_cannot_be_run_are_refused() {
        let check =
            |params: Params, good: bool| assert_eq!(params.check().is_ok(), good, "{params:?}");
        let usual = Params::default();
        check(usual, true);
        check(
            Params {
                bucket: 7 * MINUTE,
                ..usual
            },
            false,
        );
        check(Params { bucket: 0, ..usual }, false);
        check(
            Params {
                false_alarms: f64::NAN,
                ..usual
            },
            false,
        );
        check(Params { slow: 0.5, ..usual }, false);
        check(Params { slow: 0.0, ..usual }, true);
        let prior = Prior {
            dispersion: 0.0,
            share: 0.1,
        };
        check(Params { prior, ..usual }, false);
    }

    /// Buckets of a series of any kind.
    fn buckets() -> impl Strategy<Value = Vec<u64>> {
        (
            0.0..9.0_f64,
            proptest::collection::vec(0..1_000_u64, 1..900),
        )
            .prop_map(|(scale, noise)| {
                let scale = scale.exp() / 1_000.0;
                noise.iter().map(|n| (*n as f64 * scale) as u64).collect()
            })
    }

    proptest! {
        #[test]
        fn storing_it_anywhere_changes_nothing_and_it_stays_small(buckets in buckets(), cut in 0..900_usize) {
            let params = Params { direction: Direction::Both, ..Params::default() };
            let (mut one, mut other) = (Series::new(), Series::new());
            for (bucket, seen) in buckets.iter().enumerate() {
                if bucket == cut {
                    let stored = postcard::to_stdvec(&other).expect("a model can be stored");
                    prop_assert!(stored.len() <= 1_200, "{}", stored.len());
                    other = postcard::from_bytes(&stored).expect("it was just written");
                }
                let verdict = one.close_bucket(&params, at(bucket), *seen);
                prop_assert_eq!(verdict, other.close_bucket(&params, at(bucket), *seen));
                prop_assert!(verdict.expected.is_finite() && verdict.surprise >= 0.0);
            }
            prop_assert!(size_of::<Series>() <= 1_200);
            prop_assert_eq!(one, other);
        }

        #[test]
        fn the_order_of_events_in_a_bucket_does_not_show(
            events in proptest::collection::vec((0..40_usize, 1..20_u64), 1..300).prop_shuffle(),
        ) {
            let params = Params::default();
            let verdicts = |events: &[(usize, u64)]| -> Vec<Verdict> {
                let mut sums = [0; 40];
                events.iter().for_each(|(bucket, many)| sums[*bucket] += many);
                let (_, verdicts) = after(&params, 2, 5.0, &sums);
                verdicts
            };
            let mut sorted = events.clone();
            sorted.sort_unstable();
            prop_assert_eq!(verdicts(&events), verdicts(&sorted));
        }
    }
}
