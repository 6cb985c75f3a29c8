//! What the baseline model is worth: false episodes and recall on invented functions, the score on NAB, size, speed.
//!
//! `cargo bench -p detect --bench baseline` prints three tables. `-- SEED` takes other functions than the first
//! thousand. Everything is streaming: the model learns while it judges, no row sees the future, nothing is fitted in
//! batch. The worlds are described in `worlds`, NAB's rules in `nab`. An episode is false if it opens in the untouched
//! fourth week; a surge is found if a bucket of it opens an episode or makes an open one worse, in a copy of the
//! model as it stood before the surge.
#![expect(clippy::print_stdout, reason = "a bench reports on its output")]

mod nab;
mod random;
mod worlds;

use std::time::Instant;

use detect::baseline::{AtLeast, Change, Params, Ratio, Series, Verdict};
use event::Time;

use worlds::{Errors, Function, Injected, JUDGED, LENGTH, WEEK, WORLDS};

const FUNCTIONS: u64 = 1_000;
const BUCKET: i64 = 300_000_000;
/// Monday, 2024-01-01T00:00:00Z.
const BEGIN: i64 = 1_704_067_200_000_000;

fn time(bucket: usize) -> Time {
    Time(BEGIN + bucket as i64 * BUCKET)
}

fn speaks(verdict: &Verdict) -> bool {
    matches!(verdict.change, Change::Opened | Change::Worse)
}

/// What came of one world.
#[derive(Default)]
struct Tally {
    /// Episodes opened on days 2 to 7, in weeks two and three, and in the judged week.
    opened: [u64; 3],
    threefold: [u64; 2],
    tenfold: [u64; 2],
}

impl Tally {
    fn open(&mut self, bucket: usize) {
        let part = if bucket < WEEK {
            0
        } else if bucket < JUDGED {
            1
        } else {
            2
        };
        self.opened[part] += 1;
    }

    /// Per 1,000 functions per day.
    fn rate(&self, part: usize) -> f64 {
        self.opened[part] as f64 / [6.0, 14.0, 7.0][part] / (FUNCTIONS as f64 / 1_000.0)
    }
}

fn recall([found, all]: [u64; 2]) -> f64 {
    found as f64 / all.max(1) as f64
}

fn counts(functions: &[Function], params: &Params) -> Tally {
    let mut tally = Tally::default();
    for function in functions {
        let mut series = Series::new();
        for (bucket, seen) in function.seen.iter().enumerate() {
            // Buckets of functions with fewer than five a bucket are judged but not asked for surges.
            if function.base >= 5.0 {
                if function.threefold.at == bucket {
                    count(&mut tally.threefold, &series, &function.threefold, params);
                }
                if function.tenfold.at == bucket {
                    count(&mut tally.tenfold, &series, &function.tenfold, params);
                }
            }
            let verdict = series.close_bucket(params, time(bucket), *seen);
            if verdict.change == Change::Opened {
                tally.open(bucket);
            }
        }
    }
    tally
}

fn count([found, all]: &mut [u64; 2], series: &Series, surge: &Injected, params: &Params) {
    let mut series = series.clone();
    *all += 1;
    let buckets = (surge.at..).zip(&surge.seen);
    *found += u64::from(
        buckets
            .map(|(bucket, seen)| series.close_bucket(params, time(bucket), *seen))
            .filter(speaks)
            .count()
            > 0,
    );
}

fn errors(functions: &[Errors], params: &Params) -> Tally {
    let mut tally = Tally::default();
    for function in functions {
        let mut series = Ratio::new();
        for (bucket, (errors, trials)) in function.seen.iter().enumerate() {
            if function.spike.at == bucket
                && function.share <= 0.02
                && function.spike_errors >= 10.0
            {
                let mut copy = series.clone();
                let [found, all] = &mut tally.threefold;
                *all += 1;
                let spike = function.spike.seen.iter().enumerate();
                let spoke = spike
                    .map(|(n, errors)| {
                        let trials = function.seen[bucket + n].1;
                        copy.close_bucket(params, time(bucket + n), *errors, trials)
                    })
                    .filter(speaks)
                    .count();
                *found += u64::from(spoke > 0);
            }
            let verdict = series.close_bucket(params, time(bucket), *errors, *trials);
            if verdict.change == Change::Opened {
                tally.open(bucket);
            }
        }
    }
    tally
}

fn main() {
    let seed = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(1);
    println!("counts: {FUNCTIONS} functions, 4 weeks of 5-minute buckets, seed {seed}");
    println!(
        "false episodes per 1000 functions per day in week 4 (weeks 2-3; days 2-7); recall where the mean is 5 or more"
    );
    println!(
        "{:<16}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "world", "budget", "week 4", "2-3", "days 2-7", "x3", "x10"
    );
    for world in WORLDS {
        let functions: Vec<Function> = (0..FUNCTIONS)
            .map(|number| Function::new(world, seed, number))
            .collect();
        for budget in [1.0, 4.0] {
            let params = Params {
                false_alarms: budget,
                ..Params::default()
            };
            let tally = counts(&functions, &params);
            println!(
                "{:<16}{budget:>8}{:>9.2}{:>9.2}{:>9.2}{:>9.3}{:>9.3}",
                world.name,
                tally.rate(2),
                tally.rate(1),
                tally.rate(0),
                recall(tally.threefold),
                recall(tally.tenfold),
            );
        }
    }
    println!(
        "\nerror spikes: at least 5 errors and twice the share; recall where the share is 2 % or less and"
    );
    println!("a bucket of the spike has 10 expected errors or more");
    let functions: Vec<Errors> = (0..FUNCTIONS).map(|n| Errors::new(seed, n)).collect();
    for budget in [0.5, 1.0, 4.0] {
        let params = Params {
            false_alarms: budget,
            at_least: AtLeast {
                count: 5.0,
                ratio: 2.0,
            },
            ..Params::default()
        };
        let tally = errors(&functions, &params);
        println!(
            "{:<16}{budget:>8}{:>9.2}{:>9.2}{:>9.2}{:>9.3}   of {}",
            "beta-binomial",
            tally.rate(2),
            tally.rate(1),
            tally.rate(0),
            recall(tally.threefold),
            tally.threefold[1],
        );
    }

    match nab::load() {
        None => println!("\nNAB: skipped, no corpus beside the checkout"),
        Some(series) => {
            println!(
                "\nNAB, the part that is here: {} files, standard profile, one threshold",
                series.len()
            );
            println!(
                "{:<20}{:>8}{:>12}{:>10}{:>14}",
                "detector", "score", "threshold", "windows", "rows outside"
            );
            for (name, detector) in [
                ("ours", nab::ours as fn(&nab::Series) -> Vec<f64>),
                ("windowed Gaussian", nab::windowed_gaussian),
            ] {
                let scores: Vec<Vec<f64>> = series.iter().map(detector).collect();
                let outcome = nab::judge(&series, &scores);
                println!(
                    "{name:<20}{:>8.1}{:>12.6}{:>7}/{}{:>14}",
                    outcome.score, outcome.threshold, outcome.hit, outcome.windows, outcome.outside
                );
            }
        }
    }
    speed(seed);
}

fn speed(seed: u64) {
    let params = Params::default();
    let function = Function::new(WORLDS[2], seed, 3);
    let mut all: Vec<Series> = (0..1_000).map(|_| Series::new()).collect();
    let begin = Instant::now();
    for (bucket, seen) in function.seen.iter().enumerate().take(LENGTH / 4) {
        for series in &mut all {
            series.close_bucket(&params, time(bucket), *seen);
        }
    }
    let rate = (LENGTH / 4 * all.len()) as f64 / begin.elapsed().as_secs_f64();
    let bytes = postcard::to_stdvec(&all[0]).map_or(0, |b| b.len());
    println!(
        "\n{} bytes of state a series, {bytes} stored; {rate:.0} buckets/s over 1,000 series on one core",
        size_of::<Series>()
    );
}
