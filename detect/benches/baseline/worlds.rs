//! The invented functions of facts/baselines.md §3.2 and §3.3: what is fixed there, and what is chosen here.
//!
//! Fixed there: 1,000 functions, buckets of five minutes, four weeks of which the last is judged; mean 0.01 to 1,000 a
//! bucket, log-uniform; a daily sine; weekends at 0.4; negative binomial noise of size 2 to 50; AR(1) noise of the log
//! rate with coefficient 0.97 and standard deviation 0.05 to 0.4; drift of -1 to +2 % a day; eightfold bursts in the
//! first bucket of each hour for one function in five; one threefold surge of 30 minutes and one tenfold of 15 in
//! copies of the last week. Chosen here: the sine's amplitude 0.2 to 0.8 and any phase, noise sizes log-uniform (the
//! small ones are the hard ones), the deviation is that of the AR process itself, the rest uniform. A surge multiplies
//! the rate and draws its buckets anew. Errors: base rates of 0.01 to 5 % and correlations of 0.001 to 0.03, both
//! log-uniform; one spike of 30 minutes to the larger of fivefold and 10 %.

use std::f64::consts::TAU;

use crate::random::Random;

pub(crate) const DAY: usize = 288;
pub(crate) const WEEK: usize = 7 * DAY;
/// Four weeks.
pub(crate) const LENGTH: usize = 4 * WEEK;
/// Where the judged week begins.
pub(crate) const JUDGED: usize = 3 * WEEK;

/// Which noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) ar: bool,
    pub(crate) drift: bool,
    pub(crate) burst: bool,
}

pub(crate) const WORLDS: [World; 4] = [
    World {
        name: "plain",
        ar: false,
        drift: false,
        burst: false,
    },
    World {
        name: "ar",
        ar: true,
        drift: false,
        burst: false,
    },
    World {
        name: "ar+drift",
        ar: true,
        drift: true,
        burst: false,
    },
    World {
        name: "ar+drift+burst",
        ar: true,
        drift: true,
        burst: true,
    },
];

/// What happens in a copy of the judged week.
pub(crate) struct Injected {
    /// The first bucket.
    pub(crate) at: usize,
    /// What is seen instead.
    pub(crate) seen: Vec<u64>,
}

/// One function.
pub(crate) struct Function {
    /// The mean of a bucket before season and noise.
    pub(crate) base: f64,
    pub(crate) seen: Vec<u64>,
    pub(crate) threefold: Injected,
    pub(crate) tenfold: Injected,
}

impl Function {
    pub(crate) fn new(world: World, seed: u64, number: u64) -> Function {
        let mut random = Random((seed << 32) + number * 7_919);
        let base = random.between_logs(0.01, 1_000.0);
        let size = random.between_logs(2.0, 50.0);
        let (amplitude, phase) = (random.between(0.2, 0.8), random.unit());
        let (deviation, drift) = (random.between(0.05, 0.4), random.between(-0.01, 0.02));
        let bursty = random.unit() < 0.2;
        let mut log_rate = deviation * random.normal();
        let rates: Vec<f64> = (0..LENGTH)
            .map(|t| {
                let day = t as f64 / DAY as f64;
                let mut rate = base * (1.0 + amplitude * (TAU * (day + phase)).sin());
                log_rate =
                    0.97 * log_rate + (1.0 - 0.97_f64.powi(2)).sqrt() * deviation * random.normal();
                if (t / DAY) % 7 >= 5 {
                    rate *= 0.4;
                }
                if world.ar {
                    rate *= log_rate.exp();
                }
                if world.drift {
                    rate *= (1.0 + drift).powf(day);
                }
                if world.burst && bursty && t % 12 == 0 {
                    rate *= 8.0;
                }
                rate
            })
            .collect();
        let seen = rates
            .iter()
            .map(|rate| random.negative_binomial(*rate, size))
            .collect();
        let mut surge = |times: f64, buckets: usize| {
            let at = JUDGED + (random.unit() * (WEEK - buckets) as f64) as usize;
            let rates = &rates[at..at + buckets];
            let seen = rates
                .iter()
                .map(|rate| random.negative_binomial(times * rate, size))
                .collect();
            Injected { at, seen }
        };
        Function {
            base,
            seen,
            threefold: surge(3.0, 6),
            tenfold: surge(10.0, 3),
        }
    }
}

/// The errors of one function.
pub(crate) struct Errors {
    /// Its usual share.
    pub(crate) share: f64,
    /// Errors and invocations.
    pub(crate) seen: Vec<(u64, u64)>,
    pub(crate) spike: Injected,
    /// Errors expected in a bucket of the spike, on average.
    pub(crate) spike_errors: f64,
}

impl Errors {
    pub(crate) fn new(seed: u64, number: u64) -> Errors {
        let function = Function::new(WORLDS[0], seed, number);
        let mut random = Random((seed << 32) + number * 104_729 + 1);
        let share = random.between_logs(0.0001, 0.05);
        let correlation = random.between_logs(0.001, 0.03);
        let at = JUDGED + (random.unit() * (WEEK - 6) as f64) as usize;
        let high = (5.0 * share).max(0.1);
        let seen: Vec<(u64, u64)> = function
            .seen
            .iter()
            .map(|trials| (random.beta_binomial(*trials, share, correlation), *trials))
            .collect();
        let trials: Vec<u64> = function.seen[at..at + 6].to_vec();
        let spike = trials
            .iter()
            .map(|trials| random.beta_binomial(*trials, high, correlation))
            .collect();
        Errors {
            share,
            seen,
            spike: Injected { at, seen: spike },
            spike_errors: trials.iter().sum::<u64>() as f64 / 6.0 * high,
        }
    }
}
