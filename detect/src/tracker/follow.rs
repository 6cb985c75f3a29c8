//! One series under watch, a function or a group of matches: its models, its open episodes, and what is said of them.

use std::collections::BTreeMap;

use event::{Finding, Id, Str, Time, format_compact};
use serde::{Deserialize, Serialize};

use super::cold::Cold;
use super::{Baseline, Measured, Metric, Parts, Subject, sum};
use crate::baseline::{Change, Direction, Ratio, Series, doubling};
use crate::meter::{Cell, Counted, Deployment, Function, Group, MINUTE};

/// A deployment explains what happens within so many minutes after it.
const EXPLAINS: i64 = 60;

/// A mean over fewer invocations than this says little of a duration.
const TIMED: u64 = 5;

/// Doubling is looked for in so many minutes.
const DOUBLING: i64 = 8;

/// A duration is judged after so many buckets with enough invocations,
const KNOWN_AFTER: u32 = 12;
/// is rare when it is so many times the usual scatter off,
const RARE: f64 = 5.0;
/// and what is usual fades after so many buckets.
const FADES_AFTER: f64 = 300.0;

/// An episode without a model's own memory of it ends after so many quiet buckets.
const QUIET: u8 = 3;

/// A series under watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tracked {
    counted: Counted,
    #[serde(default, skip_serializing_if = "Str::is_empty")]
    pub(super) region: Str,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<Str, Str>,
    /// The minute of its first count.
    pub(super) since: i64,
    /// The minute of its last count.
    pub(super) last: i64,
    deployment: Option<Deployment>,
    followed: BTreeMap<Str, Followed>,
}

/// A series under one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Followed {
    /// The bucket of the model in microseconds: another one begins anew.
    bucket: i64,
    model: Model,
    episode: Option<Open>,
    /// For the first day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cold: Option<Cold>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Model {
    Counts(Box<Series>),
    Ratio(Box<Ratio>),
    Duration(Pace, Spell),
    Doubling(Spell),
}

/// How long a condition has held, for what has no episodes of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spell {
    /// The last three buckets, the newest in the lowest bit.
    held: u8,
    quiet: u8,
    open: bool,
}

/// An episode that is going on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    id: Id,
    /// Where what was judged first begins, in microseconds.
    start: i64,
    /// What was seen since.
    observed: u64,
    revision: u64,
    /// A fleet's finding speaks for it.
    folded: bool,
    /// What was said when it was worst.
    said: String,
}

/// A bucket that has ended.
pub(super) struct Bucket<'a> {
    /// Its first minute, and how many it has.
    pub(super) start: i64,
    pub(super) length: i64,
    pub(super) cell: Cell,
    pub(super) minutes: &'a BTreeMap<i64, BTreeMap<Id, Parts>>,
    pub(super) key: Id,
}

/// What a model makes of a bucket.
struct Word {
    change: Change,
    /// How much time is judged, in microseconds.
    span: i64,
    text: String,
}

impl Tracked {
    pub(super) fn new(counted: Counted, since: i64) -> Tracked {
        Tracked {
            counted,
            region: Str::default(),
            labels: BTreeMap::new(),
            since,
            last: since,
            deployment: None,
            followed: BTreeMap::new(),
        }
    }

    /// Is it a function, or a group of one of these baselines?
    pub(super) fn is_wanted(&self, rules: &[Baseline]) -> bool {
        matches!(self.counted, Counted::Function(_)) || rules.iter().any(|r| self.is_about(r))
    }

    /// The baseline whose group it is; empty for functions, which all of the others share.
    pub(super) fn owner(&self) -> Str {
        match &self.counted {
            Counted::Function(_) => Str::default(),
            Counted::Group(group) => group.rule.clone(),
        }
    }

    /// Does this baseline judge it?
    pub(super) fn is_about(&self, rule: &Baseline) -> bool {
        match (&self.counted, &rule.subject) {
            (Counted::Function(_), Subject::Metric(_)) => true,
            (Counted::Group(group), Subject::Rate(rate)) => {
                let has = |name: &String| group.values.contains_key(name.as_str());
                let asked = |name: &Str| rate.group_by.iter().any(|n| n == name);
                group.rule == rule.rule_id
                    && rate.group_by.iter().all(has)
                    && group.values.keys().all(asked)
            }
            _ => false,
        }
    }

    /// Takes note of a deployment, for the models and for the text of findings.
    pub(super) fn deployed(&mut self, deployment: Deployment) {
        for followed in self.followed.values_mut() {
            match &mut followed.model {
                Model::Counts(series) => series.deployed(deployment.time),
                Model::Ratio(ratio) => ratio.deployed(deployment.time),
                Model::Duration(..) | Model::Doubling(_) => {}
            }
        }
        if self
            .deployment
            .as_ref()
            .is_none_or(|known| known.time < deployment.time)
        {
            self.deployment = Some(deployment);
        }
    }

    /// A fleet's finding speaks for the open episode of this rule.
    pub(super) fn fold(&mut self, rule: &Str) {
        if let Some(open) = self.followed.get_mut(rule).and_then(|f| f.episode.as_mut()) {
            open.folded = true;
        }
    }

    /// Forgets what was learned for rules that are no longer there. Tells whether there was anything.
    pub(super) fn keep_only(&mut self, rules: &[Baseline]) -> bool {
        let before = self.followed.len();
        self.followed
            .retain(|id, _| rules.iter().any(|rule| rule.rule_id == *id));
        self.followed.len() != before
    }

    /// Is a quiet bucket nothing to remember? So it is where a condition has not held for a while: such a rule looks at
    /// every minute, and a row of state for each would be most of what is written.
    pub(super) fn is_at_rest(&self, rule: &Str) -> bool {
        self.followed.get(rule).is_some_and(|followed| {
            matches!(followed.model, Model::Doubling(spell) if spell == Spell::default())
        })
    }

    /// Judges a bucket; gives the finding that it makes new or changes.
    pub(super) fn close(
        &mut self,
        rule: &Baseline,
        measured: &Measured,
        bucket: &Bucket<'_>,
    ) -> Option<Finding> {
        let fresh = || Followed {
            bucket: measured.params.bucket,
            model: Model::new(measured),
            episode: None,
            cold: matches!(measured.metric, Metric::Invocations | Metric::Matches)
                .then(Cold::default),
        };
        let followed = self
            .followed
            .entry(rule.rule_id.clone())
            .or_insert_with(fresh);
        if followed.bucket != measured.params.bucket || !followed.model.fits(measured.metric) {
            *followed = fresh();
        }
        let mut word = followed.model.close(measured, bucket);
        followed.first_day(&mut word, measured, bucket);
        let end = (bucket.start + bucket.length).saturating_mul(MINUTE);
        let observed = measured.metric.observed(&bucket.cell);
        if word.change == Change::Opened && followed.episode.is_none() {
            let start = end - word.span;
            followed.episode = Some(Open {
                id: episode_id(rule, bucket.key, start),
                start,
                observed: 0,
                revision: 0,
                folded: false,
                said: String::new(),
            });
        }
        let open = followed.episode.as_mut()?;
        open.observed += observed;
        if !word.change.is_news() {
            return None;
        }
        let over = matches!(word.change, Change::Closed | Change::Accepted);
        let text = match word.change {
            Change::Closed => {
                let minutes = (end - open.start) / MINUTE;
                format!("{}; over after {minutes} minutes", open.said)
            }
            _ => {
                open.said.clone_from(&word.text);
                word.text
            }
        };
        let said = open.clone();
        open.revision += 1;
        if over {
            followed.episode = None;
        }
        (!said.folded).then(|| self.finding(rule, &said, end, text))
    }

    fn finding(&self, rule: &Baseline, open: &Open, end: i64, text: String) -> Finding {
        Finding {
            id: open.id,
            rule_id: rule.rule_id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            staged: rule.staged,
            time: Time(open.start),
            first_event_time: Time(open.start),
            last_event_time: Time(end - 1),
            count: open.observed.max(1),
            episode: open.id,
            episodic: true,
            tags: rule.tags.clone(),
            revision: open.revision,
            explanation: self.explained(open, text).into(),
            ..self.context()
        }
    }

    /// What a finding about it says of where and who: of a group, what its fields say.
    pub(super) fn context(&self) -> Finding {
        match &self.counted {
            Counted::Function(Function { account, function }) => Finding {
                group: [
                    ("account".into(), Some(account.clone())),
                    ("function".into(), Some(function.clone())),
                ]
                .into(),
                source: "aws.lambda".into(),
                account: account.clone(),
                region: self.region.clone(),
                function: function.clone(),
                labels: self.labels.clone(),
                ..Finding::default()
            },
            Counted::Group(Group { values, .. }) => {
                let of = |name: &str| values.get(name).cloned().flatten().unwrap_or_default();
                Finding {
                    group: values.clone(),
                    source: of("source"),
                    account: of("account"),
                    region: of("region"),
                    actor: of("actor"),
                    function: of("function"),
                    ..Finding::default()
                }
            }
        }
    }

    /// The model's words and the deployment that may explain them.
    fn explained(&self, open: &Open, text: String) -> String {
        let Some(deployment) = &self.deployment else {
            return text;
        };
        let minutes = (open.start - deployment.time.0).div_euclid(MINUTE);
        // What was judged first may begin before the deployment that it follows.
        if !(-EXPLAINS / 4..EXPLAINS).contains(&minutes) {
            return text;
        }
        let by = match deployment.actor.as_str() {
            "" => String::new(),
            actor => format!(" by {actor}"),
        };
        let when = match minutes {
            0 => "just before".to_owned(),
            1.. => format!("{minutes} minutes before"),
            _ => "meanwhile".to_owned(),
        };
        format!("{text}; {}{by} {when}", deployment.action)
    }
}

impl Followed {
    /// On the first day what the model does not see may still stand out.
    fn first_day(&mut self, word: &mut Word, measured: &Measured, bucket: &Bucket<'_>) {
        let Some(cold) = &mut self.cold else { return };
        let params = &measured.params;
        let minutes = bucket.start..bucket.start + bucket.length;
        let counts: Vec<u64> = minutes
            .map(|m| {
                let cell = sum(bucket.minutes, m..m + 1, &bucket.key);
                measured.metric.observed(&cell)
            })
            .collect();
        let above = params.direction != Direction::Below;
        let found = cold.step(&counts, above, &params.at_least);
        // The model's own word comes first.
        if !word.change.is_news() && found.change != Change::Quiet {
            *word = Word {
                change: found.change,
                span: (found.minutes as i64 * MINUTE).max(params.bucket),
                text: format!(
                    "{}: {} in {}m; about {:.0} expected from the hour before; the hours of the day are not known yet",
                    noun(measured.metric),
                    found.seen,
                    found.minutes,
                    found.expected
                ),
            };
        }
        if self.model.knows_the_day() && !cold.is_open() {
            self.cold = None;
        }
    }
}

/// What is counted of a function or group, in words.
fn noun(metric: Metric) -> &'static str {
    match metric {
        Metric::Cost => "GB-seconds",
        Metric::Errors => "failed invocations",
        Metric::Timeouts => "time-outs",
        Metric::Matches => "matches",
        _ => "invocations",
    }
}

fn episode_id(rule: &Baseline, series: Id, start: i64) -> Id {
    Id::of(
        "baseline",
        &[
            rule.rule_id.as_bytes(),
            &series.to_bytes(),
            &start.to_be_bytes(),
        ],
    )
}

impl Model {
    fn new(measured: &Measured) -> Model {
        match measured.metric {
            Metric::Invocations | Metric::Cost | Metric::Matches => Model::Counts(Box::default()),
            Metric::Errors | Metric::Timeouts => Model::Ratio(Box::default()),
            Metric::Duration => Model::Duration(Pace::default(), Spell::default()),
            Metric::Doubling => Model::Doubling(Spell::default()),
        }
    }

    fn fits(&self, metric: Metric) -> bool {
        match self {
            Model::Counts(_) => {
                matches!(metric, Metric::Invocations | Metric::Cost | Metric::Matches)
            }
            Model::Ratio(_) => matches!(metric, Metric::Errors | Metric::Timeouts),
            Model::Duration(..) => metric == Metric::Duration,
            Model::Doubling(_) => metric == Metric::Doubling,
        }
    }

    /// Has it seen every hour of the day?
    fn knows_the_day(&self) -> bool {
        match self {
            Model::Counts(series) => series.learning().seen >= 1_440 * MINUTE,
            _ => true,
        }
    }

    fn close(&mut self, measured: &Measured, bucket: &Bucket<'_>) -> Word {
        let time = Time(bucket.start.saturating_mul(MINUTE));
        let (params, cell) = (&measured.params, &bucket.cell);
        let observed = measured.metric.observed(cell);
        let verdict = match (self, measured.metric) {
            (Model::Counts(series), Metric::Cost) => {
                series.close_bucket(params, time, cell.billed / 1_024_000)
            }
            (Model::Counts(series), _) => series.close_bucket(params, time, observed),
            (Model::Ratio(ratio), _) => {
                ratio.close_bucket(params, time, observed, cell.invocations())
            }
            (Model::Duration(pace, spell), _) => return duration(pace, spell, measured, bucket),
            (Model::Doubling(spell), _) => return doubled(spell, bucket),
        };
        Word {
            change: verdict.change,
            span: verdict.span,
            text: match verdict.change.is_news() {
                true => format!("{}: {verdict}", noun(measured.metric)),
                false => String::new(),
            },
        }
    }
}

/// How long invocations usually take: the logarithm of a bucket's mean, since durations scatter by factors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Pace {
    mean: f64,
    /// How far off a bucket usually is.
    scale: f64,
    buckets: u32,
    /// How many buckets the open episode has lasted.
    open: u32,
}

impl Pace {
    /// How many times the usual scatter a bucket may be off; the scatter is at least a tenth.
    fn is_rare(self, off: f64) -> bool {
        self.buckets >= KNOWN_AFTER && off > RARE * self.scale.max(0.1)
    }

    fn learn(&mut self, value: f64) {
        if self.buckets == 0 {
            self.mean = value;
        }
        let most = RARE * self.scale.max(0.1);
        let off = value - self.mean;
        // What is out of the ordinary teaches little, and from the start everything is.
        let off = if self.buckets < KNOWN_AFTER {
            off
        } else {
            off.clamp(-most, most)
        };
        self.buckets = self.buckets.saturating_add(1);
        let step = (1.0 / f64::from(self.buckets)).max(2.0 / FADES_AFTER);
        self.mean += step * off;
        self.scale += step * (off.abs() - self.scale);
    }
}

/// The mean duration of a bucket against what it usually is.
fn duration(pace: &mut Pace, spell: &mut Spell, measured: &Measured, bucket: &Bucket<'_>) -> Word {
    let span = measured.params.bucket;
    let cell = &bucket.cell;
    let expected = libm::exp(pace.mean);
    let few = cell.timed < TIMED;
    let mean = cell.duration as f64 / cell.timed.max(1) as f64 / 1_000.0;
    let value = libm::log(mean.max(0.001));
    let off = value - pace.mean;
    let holds = !few && pace.is_rare(off) && off >= libm::log(measured.params.at_least.ratio);
    let mut change = spell.step(holds, 2);
    let mut text = format!(
        "mean duration: {mean:.0} ms over {} invocations; {expected:.0} ms expected",
        cell.timed
    );
    pace.open = if spell.open { pace.open + 1 } else { 0 };
    let day = (1_440 * MINUTE / span.max(MINUTE)) as u32;
    if pace.open > day {
        *spell = Spell::default();
        *pace = Pace::default();
        change = Change::Accepted;
        text.push_str("; this has lasted a day and is taken as normal now");
    }
    if !few && !holds {
        pace.learn(value);
    }
    Word { change, span, text }
}

/// Do the invocations of the last minutes double and double?
fn doubled(spell: &mut Spell, bucket: &Bucket<'_>) -> Word {
    let last = bucket.start + bucket.length;
    let calls: Vec<u64> = (last - DOUBLING..last)
        .map(|minute| sum(bucket.minutes, minute..minute + 1, &bucket.key).invocations())
        .collect();
    let time = doubling(&calls);
    Word {
        change: spell.step(time.is_some(), 1),
        span: DOUBLING * MINUTE,
        text: match time {
            Some(minutes) => format_compact!(
                "invocations double every {minutes:.1} minutes: {calls:?} in the last minutes"
            )
            .into(),
            None => "invocations double no more".into(),
        },
    }
}

impl Spell {
    /// Is an episode going on?
    pub(super) fn is_open(self) -> bool {
        self.open
    }

    /// Takes in whether the condition holds. It opens when it held in `need` of the last three buckets and closes after
    /// some quiet ones.
    pub(super) fn step(&mut self, holds: bool, need: u32) -> Change {
        self.held = (self.held << 1 | u8::from(holds)) & 0b111;
        self.quiet = match holds {
            // Only an episode has quiet buckets to count.
            false if self.open => self.quiet.saturating_add(1),
            _ => 0,
        };
        match self.open {
            false if holds && self.held.count_ones() >= need => {
                self.open = true;
                Change::Opened
            }
            true if self.quiet >= QUIET => {
                (self.open, self.quiet) = (false, 0);
                Change::Closed
            }
            false => Change::Quiet,
            true => Change::Open,
        }
    }
}
