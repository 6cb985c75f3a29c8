//! The Numenta Anomaly Benchmark: its published scoring rules, written anew, on the part of its data that is here.
//!
//! Source of the rules: Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly
//! Benchmark" (ICMLA 2015), and the behaviour of github.com/numenta/NAB (`nab/sweeper.py`, `nab/runner.py`,
//! `config/profiles.json`). A row at or above the threshold inside a labelled window earns the window up to 1, the more
//! the earlier (scaled sigmoid; the best row counts); a window without one costs 1; each such row outside costs up to
//! 0.11, less right behind a window. The first 15 % of a file, at most 750 rows, are not scored. One threshold for
//! all files, the one with the best total. The score is 0 for a detector that never speaks and 100 for a perfect one.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use detect::baseline::Metric;
use event::Time;

/// One file with its labelled windows as rows.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) rows: Vec<(Time, f64)>,
    windows: Vec<(usize, usize)>,
}

/// The files beside the checkout, if they are there.
pub(crate) fn load() -> Option<Vec<Series>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/nab");
    let labels = std::fs::read(folder.join("combined_windows.json")).ok()?;
    let labels: serde_json::Value = serde_json::from_slice(&labels).ok()?;
    let files = labels.as_object()?.iter();
    let mut series: Vec<Series> = files
        .map(|(name, windows)| read(&folder, name, windows))
        .collect::<Option<_>>()?;
    series.sort_by(|a, b| a.name.cmp(&b.name));
    Some(series)
}

fn read(folder: &Path, name: &str, windows: &serde_json::Value) -> Option<Series> {
    let text = std::fs::read_to_string(folder.join("data").join(name)).ok()?;
    let rows: Vec<(Time, f64)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let (time, value) = line.split_once(',')?;
            Some((Time::parse(time).ok()?, value.parse().ok()?))
        })
        .collect::<Option<_>>()?;
    let row_of = |value: &serde_json::Value| {
        let time = Time::parse(value.as_str()?).ok()?;
        rows.iter().position(|row| row.0 == time)
    };
    let windows = windows
        .as_array()?
        .iter()
        .map(|window| Some((row_of(&window[0])?, row_of(&window[1])?)))
        .collect::<Option<_>>()?;
    Some(Series {
        name: name.to_owned(),
        rows,
        windows,
    })
}

/// What a row is worth if a detector speaks there.
struct Row {
    score: f64,
    /// File and window, if it is inside one.
    window: Option<(usize, usize)>,
    worth: f64,
}

/// The outcome of one detector.
pub(crate) struct Outcome {
    /// 0 to 100 for people; may be negative.
    pub(crate) score: f64,
    pub(crate) threshold: f64,
    /// Windows in which it spoke, of all; rows outside.
    pub(crate) hit: usize,
    pub(crate) windows: usize,
    pub(crate) outside: usize,
}

/// 2 / (1 + e^5x) - 1: near 1 at the left edge of a window (x = -1), 0 at its right, -1 far behind.
fn sigmoid(x: f64) -> f64 {
    if x > 3.0 {
        -1.0
    } else {
        2.0 / (1.0 + (5.0 * x).exp()) - 1.0
    }
}

/// The standard profile.
const FALSE_POSITIVE: f64 = 0.11;

pub(crate) fn judge(series: &[Series], scores: &[Vec<f64>]) -> Outcome {
    let mut rows = Vec::new();
    for (file, (series, scores)) in series.iter().zip(scores).enumerate() {
        let probation = (series.rows.len() * 15 / 100).min(750);
        for (row, score) in scores.iter().enumerate().skip(probation) {
            let windows = || series.windows.iter().enumerate();
            let inside = windows().find(|(_, w)| w.0 <= row && row <= w.1);
            let (window, worth) = match inside {
                Some((window, (first, last))) => {
                    let width = (last - first + 1) as f64;
                    let early = sigmoid(-((last - row + 1) as f64) / width) / sigmoid(-1.0);
                    (Some((file, window)), early)
                }
                None => {
                    let before = windows().rfind(|(_, w)| w.1 < row).map(|(_, w)| w);
                    let behind = before.map_or(-1.0, |(first, last)| {
                        sigmoid((row - last) as f64 / (last - first) as f64)
                    });
                    (None, FALSE_POSITIVE * behind)
                }
            };
            rows.push(Row {
                score: *score,
                window,
                worth,
            });
        }
    }
    rows.sort_by(|a, b| b.score.total_cmp(&a.score));
    let all: usize = series.iter().map(|s| s.windows.len()).sum();
    let nothing = || -> Vec<Vec<Option<f64>>> {
        series.iter().map(|s| vec![None; s.windows.len()]).collect()
    };
    // Windows that lie in the probation entirely are not scored; the perfect score counts them all the same.
    let mut scored = nothing();
    for (file, window) in rows.iter().filter_map(|r| r.window) {
        scored[file][window] = Some(-1.0);
    }
    let silent: f64 = scored.iter().flatten().flatten().sum();
    let (mut best, mut threshold, mut total, mut taken) = (silent, f64::INFINITY, silent, 0);
    let mut earned = scored.clone();
    for (at, row) in rows.iter().enumerate() {
        match row.window {
            None => total += row.worth,
            Some((file, window)) => {
                let had = earned[file][window].unwrap_or(-1.0);
                total += (row.worth - had).max(0.0);
                earned[file][window] = Some(had.max(row.worth));
            }
        }
        let level_ends = rows.get(at + 1).is_none_or(|next| next.score != row.score);
        if level_ends && total > best {
            (best, threshold, taken) = (total, row.score, at + 1);
        }
    }
    let mut hit = nothing();
    for (file, window) in rows[..taken].iter().filter_map(|r| r.window) {
        hit[file][window] = Some(1.0);
    }
    Outcome {
        score: 100.0 * (best - silent) / (all as f64 - silent),
        threshold,
        hit: hit.iter().flatten().flatten().count(),
        windows: all,
        outside: rows[..taken].iter().filter(|r| r.window.is_none()).count(),
    }
}

/// The scores of our model.
pub(crate) fn ours(series: &Series) -> Vec<f64> {
    let mut metric = Metric::new();
    let rows = series.rows.iter();
    rows.map(|(time, value)| metric.push(*time, *value).score)
        .collect()
}

/// The windowed Gaussian of NAB: the normal tail by mean and deviation of the last 6,400 rows, which move on by 100.
pub(crate) fn windowed_gaussian(series: &Series) -> Vec<f64> {
    const ROWS: usize = 6_400;
    const STEP: usize = 100;
    let mut window: VecDeque<f64> = VecDeque::new();
    let mut waiting = Vec::new();
    let (mut mean, mut deviation) = (0.0, 1.0);
    let mut scores = Vec::new();
    for (_, value) in &series.rows {
        let away = f64::abs(value - mean) / deviation;
        let tail = 0.5 * libm::erfc(away / std::f64::consts::SQRT_2);
        scores.push(if window.is_empty() { 0.0 } else { 1.0 - tail });
        if window.len() < ROWS {
            window.push_back(*value);
        } else {
            waiting.push(*value);
            if waiting.len() < STEP {
                continue;
            }
            window.drain(..STEP);
            window.extend(waiting.drain(..));
        }
        let many = window.len() as f64;
        mean = window.iter().sum::<f64>() / many;
        deviation = (window.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / many).sqrt();
        if deviation == 0.0 {
            deviation = 1e-6;
        }
    }
    scores
}
