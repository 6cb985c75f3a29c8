//! A series of errors out of invocations.
//!
//! An error rate has no season worth the memory, but it has a level that was seen over many invocations and a
//! dispersion of its own: errors come together. So a bucket is beta-binomial, its expected share a mean over about a
//! week of invocations that leans on the fleet's, and everything else is as for `counts`: the same spans, the same
//! calibration, the same episodes, the same caution about learning from a spike. The pipeline feeds [`Ratio`].

use event::Time;
use serde::{Deserialize, Serialize};

use super::episode::Episode;
use super::params::{DAY, DEPLOYED, Params, STRICTER};
use super::spans::{Cell, Family, Judged, Spans};
use super::verdict::{Change, Learning, Usual, Verdict};

/// How many imagined invocations with the fleet's share of errors stand beside the real ones.
const IMAGINED: f64 = 50.0;

/// The prior dispersion of shares: errors of one bucket go together a little.
const DISPERSION: f64 = 0.05;

/// The model of one series of errors out of invocations: about 300 bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    started: i64,
    last: i64,
    deployed: i64,
    /// Errors and invocations, forgetting with a half-life of a week.
    errors: f32,
    trials: f32,
    spans: Spans,
    episode: Episode,
}

impl Default for Ratio {
    fn default() -> Ratio {
        Ratio::new()
    }
}

impl Ratio {
    /// A series of which nothing is known.
    pub fn new() -> Ratio {
        Ratio {
            started: i64::MAX,
            last: i64::MIN,
            deployed: i64::MIN,
            errors: 0.0,
            trials: 0.0,
            spans: Spans::new(),
            episode: Episode::default(),
        }
    }

    /// The function was changed: for half an hour a departure must be a hundred times rarer.
    pub fn deployed(&mut self, time: Time) {
        self.deployed = self.deployed.max(time.0);
    }

    /// A person says that what goes on is the new normal.
    pub fn accept(&mut self) {
        if self.episode.is_open() {
            self.errors = (f64::from(self.errors) * self.episode.ratio()) as f32;
            self.errors = self.errors.min(self.trials);
            self.episode.close();
            self.spans.interrupt();
        }
    }

    /// The share of errors that is expected.
    pub fn share(&self, params: &Params) -> f64 {
        (f64::from(self.errors) + params.prior.share * IMAGINED)
            / (f64::from(self.trials) + IMAGINED)
    }

    /// How long it has been learned at the bucket that was closed last.
    pub fn learning(&self) -> Learning {
        Learning {
            seen: self.last.saturating_sub(self.started).max(0),
        }
    }

    /// Judges the bucket that begins at `bucket_time`, with `errors` of `trials`, and learns from it. The order of
    /// buckets is as in [`Series::close_bucket`](super::Series::close_bucket); more errors than trials are taken as
    /// that many trials.
    pub fn close_bucket(
        &mut self,
        params: &Params,
        bucket_time: Time,
        errors: u64,
        trials: u64,
    ) -> Verdict {
        let time = bucket_time.0;
        let (errors, trials) = (errors as f64, trials.max(errors) as f64);
        let expected = self.share(params) * trials;
        if time <= self.last {
            return self.verdict(params, bucket_time, (errors, trials), Change::Quiet, None);
        }
        if self.started == i64::MAX {
            self.started = time;
        } else if time - self.last > params.bucket {
            self.spans.interrupt();
        }
        self.last = time;
        self.spans.push(Cell {
            seen: errors,
            season: expected,
            level: 1.0,
            trials,
        });
        let learn = !self.episode.is_open();
        // Shares do not go with the hours of the day: a young series needs no more caution than an old one.
        let stricter = STRICTER * f64::from(u8::from(self.is_deployed(time)));
        let mut judged = self
            .spans
            .judge(Family::Shares, params, DISPERSION, stricter, learn);
        if self.learning().is_blind() {
            judged.iter_mut().flatten().for_each(|j| j.fires = false);
        }
        let ratio = params.at_least.ratio;
        let (change, shown) = self
            .episode
            .step(bucket_time, errors, expected, &judged, ratio);
        if self.episode.teaches(time) {
            self.learn(judged[0].map_or(errors, |j| j.taught), trials, params);
        }
        let verdict = self.verdict(params, bucket_time, (errors, trials), change, shown);
        if change == Change::Accepted {
            self.accept();
        }
        verdict
    }

    fn is_deployed(&self, time: i64) -> bool {
        (0..DEPLOYED).contains(&time.saturating_sub(self.deployed))
    }

    fn learn(&mut self, errors: f64, trials: f64, params: &Params) {
        let keep = 1.0 - std::f64::consts::LN_2 / params.buckets_in(7 * DAY);
        self.errors = (f64::from(self.errors) * keep + errors) as f32;
        self.trials = (f64::from(self.trials) * keep + trials) as f32;
    }

    fn verdict(
        &self,
        params: &Params,
        time: Time,
        (errors, trials): (f64, f64),
        change: Change,
        shown: Option<Judged>,
    ) -> Verdict {
        let plain = Verdict {
            time,
            span: params.bucket,
            observed: errors,
            expected: self.share(params) * trials,
            out_of: trials,
            surprise: 0.0,
            learning: self.learning(),
            change,
            reason: None,
            noisy: false,
            deployed: self.is_deployed(time.0),
            usual: Usual::Band(0.0, f64::INFINITY),
        };
        match shown {
            Some(judged) if !plain.learning.is_blind() => plain.of(Family::Shares, judged, params),
            _ => plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUCKET: i64 = 300_000_000;

    /// A ratio after some days of 1,000 invocations a bucket with about ten errors each.
    fn learned(days: usize) -> (Ratio, usize) {
        let params = Params::default();
        let mut ratio = Ratio::new();
        let buckets = days * 288;
        for bucket in 0..buckets {
            let errors = 7 + (bucket * 7919 % 7) as u64;
            let verdict = ratio.close_bucket(&params, Time(bucket as i64 * BUCKET), errors, 1_000);
            assert_eq!(verdict.change, Change::Quiet, "{verdict}");
        }
        (ratio, buckets)
    }

    #[test]
    fn a_spike_opens_and_closes_an_episode() {
        let params = Params::default();
        let check = |days: usize, errors: &[u64], expected: &[Change]| {
            let (mut ratio, from) = learned(days);
            let time = |n: usize| Time((from + n) as i64 * BUCKET);
            let found: Vec<Change> = errors
                .iter()
                .enumerate()
                .map(|(n, errors)| ratio.close_bucket(&params, time(n), *errors, 1_000).change)
                .collect();
            assert_eq!(found, expected, "{days} days, {errors:?}");
        };
        use Change::{Closed, Open, Opened, Quiet, Worse};
        check(
            14,
            &[100, 100, 300, 10, 10, 10, 10, 10],
            &[Opened, Open, Worse, Open, Open, Open, Open, Closed],
        );
        check(3, &[400], &[Opened]);
        // Nothing is judged on the first day.
        check(0, &[400], &[Quiet]);
        // Below the ratio.
        check(14, &[18, 18], &[Quiet, Quiet]);
        // More errors than invocations is no reason to fail.
        check(14, &[5_000], &[Opened]);
    }

    #[test]
    fn the_verdict_names_errors_and_invocations() {
        let (mut ratio, from) = learned(14);
        let params = Params::default();
        let verdict = ratio.close_bucket(&params, Time(from as i64 * BUCKET), 100, 1_000);
        assert!(
            verdict
                .to_string()
                .starts_with("100 of 1000 in 5m; 10 expected, at most "),
            "{verdict}"
        );
    }

    #[test]
    fn idle_buckets_teach_nothing() {
        let params = Params::default();
        let (mut ratio, from) = learned(14);
        let before = (ratio.spans.of_a_bucket(DISPERSION), ratio.share(&params));
        for bucket in from..from + 576 {
            let verdict = ratio.close_bucket(&params, Time(bucket as i64 * BUCKET), 0, 0);
            assert_eq!(verdict.change, Change::Quiet);
        }
        assert_eq!(ratio.spans.of_a_bucket(DISPERSION), before.0);
        assert!((ratio.share(&params) / before.1 - 1.0).abs() < 1e-3);
    }

    proptest! {
        #[test]
        fn storing_it_anywhere_changes_nothing(
            buckets in proptest::collection::vec((0..50_u64, 0..2_000_u64), 1..600),
            cut in 0..600_usize,
        ) {
            let params = Params::default();
            let (mut one, mut other) = (Ratio::new(), Ratio::new());
            for (bucket, (errors, trials)) in buckets.iter().enumerate() {
                if bucket == cut {
                    let stored = postcard::to_stdvec(&other).expect("a model can be stored");
                    prop_assert!(stored.len() < 400, "{}", stored.len());
                    other = postcard::from_bytes(&stored).expect("it was just written");
                }
                let time = Time(bucket as i64 * BUCKET);
                let verdict = one.close_bucket(&params, time, *errors, *trials);
                prop_assert_eq!(verdict, other.close_bucket(&params, time, *errors, *trials));
                prop_assert!(verdict.surprise >= 0.0 && verdict.expected.is_finite());
            }
        }
    }
}
