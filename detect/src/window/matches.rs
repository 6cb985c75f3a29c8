//! What travels on the `matches` topic, and the correlation that it belongs to.
//!
//! A record is JSON: either a [`Match`], keyed by correlation and group so that all of a group meet in one
//! partition, or a [`Watermark`], which the match stage writes into every partition. The rule loader makes
//! [`Correlation`]s, the match stage makes the records through [`Match::new`], [`WatermarkTicker`] and
//! [`watermark_records`], and `correlate` reads them. Where correlations refer to correlations, `correlate` writes
//! matches too, those that fired below, and a [`LevelWatermark`] of its own. Nothing here knows what a window is.

use std::collections::BTreeMap;

use bus::{Offset, Record, partition_of};
use bytes::Bytes;
use event::{Event, Finding, Flag, Id, Severity, Str, Time};
use serde::{Deserialize, Serialize};

use super::measure::{Condition, Measure};

/// A correlation as the windows need it.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    /// The correlation's Sigma id; its title where it has none.
    pub rule_id: Str,
    /// Its title.
    pub title: Str,
    /// How bad its findings are.
    pub severity: Severity,
    /// Its tags.
    pub tags: Vec<Str>,
    /// Is it tried out, so that nobody is told?
    pub staged: bool,
    /// The names of the group-by fields; every match has exactly these in `group`.
    pub group_by: Vec<Str>,
    /// The length of a window in microseconds, bounds included.
    pub timespan: i64,
    /// What must hold of a window for it to fire.
    pub condition: Condition,
    /// Its place among correlations that refer to one another.
    pub chain: Chain,
    /// A hash of everything else that decides what matches, such as the referred rules. State is kept under it, so
    /// that a changed rule starts afresh and a changed title does not.
    pub semantics: u64,
}

/// The place of a correlation among those that refer to one another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// 0 where it refers to rules only, else one more than the highest of the correlations that it refers to.
    pub level: u32,
    /// Others refer to it, and it gives no findings of its own.
    pub silent: bool,
    /// The correlations that refer to it.
    pub uppers: Vec<Upper>,
    /// The fields that its matches carry for them.
    pub carries: Vec<Str>,
}

/// A correlation as one that it refers to sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// Its `rule_id`.
    pub rule_id: Str,
    /// Which of its rules the lower one is, as bits.
    pub rules: u64,
    /// Its group-by fields, and what each of them is called below.
    pub group_by: Vec<(Str, Str)>,
    /// What the fields that it measures are called below.
    pub fields: Vec<Str>,
    /// Does it measure numbers?
    pub numbers: bool,
    /// The fields that its own matches carry, and what each of them is called below.
    pub carries: Vec<(Str, Str)>,
}

impl Correlation {
    /// What its windows are stored under: the rule and everything that changes their meaning.
    pub(crate) fn namespace(&self) -> Id {
        let names: Vec<u8> = canonical(self.group_by.iter().map(|name| (name, &None)));
        let plain = self.condition.measure == Measure::Events && self.condition.is_monotone();
        let threshold = if plain { self.condition.threshold() } else { 0 };
        let mut parts: Vec<&[u8]> = Vec::new();
        let (semantics, timespan) = (self.semantics.to_le_bytes(), self.timespan.to_le_bytes());
        let threshold = threshold.to_le_bytes();
        parts.extend([self.rule_id.as_bytes(), &semantics, &timespan, &threshold]);
        parts.push(&names);
        // A plain number of matches is stored under the name that it had before there was anything else.
        let rest = format!("{} {:?}", self.condition.semantics(), self.chain);
        if !plain || self.chain != Chain::default() {
            parts.push(rest.as_bytes());
        }
        Id::of("window", &parts)
    }

    /// The id of the episode that `event` fires first.
    pub(crate) fn episode_id(&self, group: &BTreeMap<Str, Option<Str>>, event: Id) -> Id {
        Id::of(
            "correlation",
            &[
                self.rule_id.as_bytes(),
                &canonical(group),
                &event.to_bytes(),
            ],
        )
    }
}

/// What a match contributes to the measure, and to those above: everything but its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Which of the correlation's rules it satisfies, as bits.
    pub rules: u64,
    /// What its fields have, as [`contributed`] makes it.
    pub values: Vec<u64>,
    /// Had some of them to be left out?
    pub cut: bool,
    /// The fields that correlations above ask for.
    pub carried: Carried,
}

/// The values of fields by their names.
pub type Carried = BTreeMap<Str, Vec<Str>>;

/// How many values of one match are counted. More are left out, and findings that rest on it say so (`approximate`).
pub const MOST_VALUES: usize = 100;

/// What stands for a value, or for a combination of values of several fields, where different ones are counted.
fn value(texts: &[&str]) -> u64 {
    let parts: Vec<&[u8]> = texts.iter().map(|t| t.as_bytes()).collect();
    Id::of("value", &parts).0 as u64
}

/// What stands for a number, if the text is a finite one.
fn number(text: &str) -> Option<u64> {
    let number: f64 = text.trim().parse().ok()?;
    // Minus nothing is nothing.
    number.is_finite().then(|| (number + 0.0).to_bits())
}

/// What stands for the values of the fields of one match: numbers of the one field, or every combination of different
/// values. Tells too whether there are more than [`MOST_VALUES`], which are left out.
pub fn contributed(fields: &[Vec<Str>], numbers: bool) -> (Vec<u64>, bool) {
    if let [one] = fields
        && numbers
    {
        let mut numbers = one.iter().filter_map(|text| number(text));
        let counted = numbers.by_ref().take(MOST_VALUES).collect();
        return (counted, numbers.next().is_some());
    }
    if fields.is_empty() {
        return (Vec::new(), false);
    }
    let fields: Vec<Vec<&str>> = fields.iter().map(|texts| different(texts)).collect();
    let many = fields.iter().map(Vec::len).fold(1, usize::saturating_mul);
    let mut combinations: Vec<Vec<&str>> = vec![Vec::new()];
    for texts in &fields {
        let longer = combinations.iter().flat_map(|known| {
            let texts = texts.iter();
            texts.map(|text| [known.as_slice(), &[*text]].concat())
        });
        combinations = longer.take(MOST_VALUES).collect();
    }
    let mut all: Vec<u64> = combinations.iter().map(|texts| value(texts)).collect();
    all.sort_unstable();
    all.dedup();
    (all, many > MOST_VALUES)
}

/// The texts without repeats, in order.
fn different(texts: &[Str]) -> Vec<&str> {
    let mut texts: Vec<&str> = texts.iter().map(Str::as_str).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Names and values, each prefixed by its length; a missing value differs from an empty one.
fn canonical<'a>(group: impl IntoIterator<Item = (&'a Str, &'a Option<Str>)>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for (name, value) in group {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name.as_bytes());
        match value {
            None => bytes.push(0),
            Some(value) => {
                bytes.push(1);
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(value.as_bytes());
            }
        }
    }
    bytes
}

/// The key of a group's matches on the `matches` topic: a hash of correlation and group.
pub fn group_key(rule_id: &str, group: &BTreeMap<Str, Option<Str>>) -> Id {
    Id::of("group", &[rule_id.as_bytes(), &canonical(group)])
}

/// One event that satisfies at least one rule of one correlation. An event is one match of a correlation, however many
/// of its rules it satisfies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The `rule_id` of the correlation.
    pub correlation: Str,
    /// The group-by fields and their values; a missing field is `None`.
    pub group: BTreeMap<Str, Option<Str>>,
    /// When the event happened.
    pub time: Time,
    /// The event.
    pub id: Id,
    /// The partition of `events` that the event stands in.
    pub partition: u32,
    /// Its offset there. Matches of one partition come in order of it, so that one sent twice is known.
    pub offset: Offset,
    /// What a finding takes from the event, as [`Finding::from_event`] makes it; and whether it is `late`, or
    /// `approximate` since not all of it could be counted, here or by a correlation below.
    pub context: Finding,
    /// Which of the correlation's rules it satisfies, as bits; 0 where only the number of matches is asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rules: u64,
    /// What its fields have, as [`contributed`] makes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<u64>,
    /// The fields that correlations above ask for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: Carried,
    /// Was it handed on by a correlation below? Then `partition` and `offset` are those of the record of `matches`
    /// through which it fired.
    #[serde(default, skip_serializing_if = "is_false")]
    pub chained: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(truth: &bool) -> bool {
    !truth
}

impl Match {
    /// The match of an event that stands at `offset` of `partition` of the `events` topic.
    pub fn new(
        correlation: &Correlation,
        group: BTreeMap<Str, Option<Str>>,
        event: &Event,
        partition: u32,
        offset: Offset,
    ) -> Match {
        Match {
            correlation: correlation.rule_id.clone(),
            group,
            time: event.time,
            id: event.id,
            partition,
            offset,
            context: Finding::from_event(event),
            rules: 0,
            values: Vec::new(),
            carried: BTreeMap::new(),
            chained: false,
        }
    }

    /// The same match with what it contributes to a measure.
    pub fn with(mut self, contribution: Contribution) -> Match {
        self.context.approximate |= contribution.cut;
        Match {
            rules: contribution.rules,
            values: contribution.values,
            carried: contribution.carried,
            ..self
        }
    }

    /// Its key on the `matches` topic.
    pub fn key(&self) -> Id {
        group_key(&self.correlation, &self.group)
    }

    /// The record that carries it.
    pub fn into_record(self, now: Time) -> Record {
        let key = self.key();
        record(key.to_bytes().to_vec(), &MatchRecord::Match(self), now)
    }
}

/// How far the match stage has come in one partition of `events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The partition of `events`.
    pub partition: u32,
    /// The greatest event time seen there, events flagged `ts_future` aside; `None` if there was none.
    pub time: Option<Time>,
    /// Up to which offset it had been read.
    pub next: Offset,
    /// Where every partition of `events` ended after that. A partition that was read to where any other has seen it end
    /// is idle and holds nobody back. Nobody is idle by records of before this was told.
    #[serde(default)]
    pub ends: Vec<Offset>,
}

/// How far one partition of `matches` has settled the correlations of one level: they hand on nothing earlier any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelWatermark {
    /// The partition of `matches`.
    pub partition: u32,
    /// The level.
    pub level: u32,
    /// The time.
    pub time: Time,
}

/// A record of the `matches` topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every record is a match, and they are handled one at a time"
)]
pub enum MatchRecord {
    /// A match.
    Match(Match),
    /// Event time has moved on.
    Watermark(Watermark),
    /// A level of correlations has moved on. Only written where correlations refer to correlations.
    Level(LevelWatermark),
}

impl MatchRecord {
    /// Reads the value of a record.
    pub fn decode(value: &[u8]) -> Result<MatchRecord, serde_json::Error> {
        serde_json::from_slice(value)
    }
}

fn record(key: Vec<u8>, content: &MatchRecord, now: Time) -> Record {
    let value = serde_json::to_vec(content).expect("texts, numbers and maps with text keys");
    Record {
        key: Bytes::from(key),
        value: Bytes::from(value),
        time: now,
    }
}

/// The records that tell a watermark to every partition of `matches`, of which there are `partitions`.
pub fn watermark_records(watermark: &Watermark, partitions: u32, now: Time) -> Vec<Record> {
    to_all(&MatchRecord::Watermark(watermark.clone()), partitions, now)
}

/// The records that tell the watermark of a level to every partition of `matches`.
pub fn level_records(watermark: LevelWatermark, partitions: u32, now: Time) -> Vec<Record> {
    to_all(&MatchRecord::Level(watermark), partitions, now)
}

fn to_all(content: &MatchRecord, partitions: u32, now: Time) -> Vec<Record> {
    (0..partitions)
        .map(|partition| {
            let key = (0_u64..)
                .map(|n| n.to_le_bytes())
                .find(|key| partition_of(key, partitions) == partition)
                .expect("the hash reaches every partition");
            record(key.to_vec(), content, now)
        })
        .collect()
}

impl Watermark {
    /// How far event time has come over all partitions of `events`, by what each has told last. One that has more than
    /// was read of it holds the others back: nobody may be at work on it. If all are read to their end, the greatest
    /// counts.
    ///
    /// It follows from what was told alone, so that whoever reads the same log again comes to the same times. Whoever
    /// told of a time had looked where the others end after that time was on the log; what they get later is not older
    /// than it by more than the lateness.
    pub(crate) fn event_time(told: &[&Watermark]) -> Option<Time> {
        let end_of = |partition: u32| {
            let seen = told.iter().filter_map(|w| w.ends.get(partition as usize));
            seen.max().copied()
        };
        let is_idle = |w: &Watermark| end_of(w.partition).is_some_and(|end| end <= w.next);
        let busy: Vec<Option<Time>> = told
            .iter()
            .filter(|w| !is_idle(w))
            .map(|w| w.time)
            .collect();
        if busy.is_empty() {
            told.iter().filter_map(|w| w.time).max()
        } else {
            busy.into_iter().min().flatten()
        }
    }
}

/// How often the same event time is told again, because the partition was read to another end: once in a second.
const TELL_AGAIN: i64 = 1_000_000;

/// Decides in the match stage, for one partition of `events`, when a watermark is worth a record: when event time has
/// moved by a second, and when the partition was read to another end and nothing was told for a second. (Every record
/// goes to every partition of `matches`, so that one for every batch would be most of what is there.) Its content is
/// kept with the stage's position, so that a restart goes on with the same watermarks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkTicker {
    partition: u32,
    time: Option<Time>,
    told: Option<Told>,
    /// When that was.
    #[serde(skip)]
    told_at: Option<Time>,
}

/// What was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    time: Option<Time>,
    /// Where the partition ended, if it was read to there.
    end: Option<Offset>,
}

impl WatermarkTicker {
    /// The ticker of a partition of which nothing was read yet.
    pub fn new(partition: u32) -> WatermarkTicker {
        WatermarkTicker {
            partition,
            time: None,
            told: None,
            told_at: None,
        }
    }

    /// Takes note of an event.
    pub fn see(&mut self, event: &Event) {
        if !event.flags.has(Flag::TsFuture) {
            self.time = self.time.max(Some(event.time));
        }
    }

    /// After a batch that ended before `next`, `now` by the clock: the watermark to write behind its matches, if there is
    /// news. `ends` is where all partitions of `events` ended after the batch was read.
    ///
    /// That a partition became busy is no news: whoever moves event time on tells where it ends.
    pub fn tick(&mut self, next: Offset, ends: Vec<Offset>, now: Time) -> Option<Watermark> {
        let own = ends.get(self.partition as usize);
        let end = own.is_some_and(|end| *end <= next).then_some(next);
        let moved = match (self.time, self.told.and_then(|told| told.time)) {
            (Some(time), Some(told)) => time.0 - told.0 >= 1_000_000,
            (time, told) => time != told,
        };
        let other_end = end.is_some() && self.told.is_none_or(|told| told.end != end);
        let long_ago = self
            .told_at
            .is_none_or(|at| !(at.0..at.0.saturating_add(TELL_AGAIN)).contains(&now.0));
        let news = self.told.is_none() || moved || (other_end && long_ago);
        news.then(|| {
            self.told = Some(Told {
                time: self.time,
                end,
            });
            self.told_at = Some(now);
            Watermark {
                partition: self.partition,
                time: self.time,
                next,
                ends,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(value: Option<&str>) -> BTreeMap<Str, Option<Str>> {
        [("a".into(), value.map(Str::from))].into()
    }

    #[test]
    fn a_missing_field_is_a_group_of_its_own() {
        assert_ne!(
            group_key("r", &group(None)),
            group_key("r", &group(Some("")))
        );
        assert_ne!(
            group_key("r", &group(Some("x"))),
            group_key("s", &group(Some("x")))
        );
    }

    #[test]
    fn of_many_values_some_are_left_out_and_it_is_said() {
        let check = |fields: &[Vec<Str>], numbers: bool, expected: (usize, bool)| {
            let (values, cut) = contributed(fields, numbers);
            assert_eq!((values.len(), cut), expected);
        };
        let texts = |many: usize| -> Vec<Str> { (0..many).map(|n| n.to_string().into()).collect() };
        check(&[], false, (0, false));
        check(&[texts(100)], false, (100, false));
        check(&[texts(101)], false, (100, true));
        let same = vec![Str::from("x"); 500];
        check(&[[same.clone(), texts(99)].concat()], false, (100, false));
        check(&[[same.clone(), texts(100)].concat()], false, (100, true));
        check(&[texts(10), texts(10)], false, (100, false));
        check(&[texts(10), texts(11)], false, (100, true));
        check(&[texts(200), Vec::new()], false, (0, false));
        // Equal numbers count each.
        check(&[texts(100)], true, (100, false));
        check(&[vec!["1".into(); 101]], true, (100, true));
        check(&[[texts(100), same].concat()], true, (100, false));
    }

    #[test]
    fn every_partition_gets_its_watermark() {
        let watermark = Watermark {
            partition: 2,
            time: Some(Time(5)),
            next: 7,
            ends: vec![1, 2, 8],
        };
        for partitions in [1, 4, 7, 64] {
            let records = watermark_records(&watermark, partitions, Time(1));
            for (partition, record) in (0..partitions).zip(&records) {
                assert_eq!(partition_of(&record.key, partitions), partition);
                assert_eq!(
                    MatchRecord::decode(&record.value).unwrap(),
                    MatchRecord::Watermark(watermark.clone())
                );
            }
            assert_eq!(records.len(), partitions as usize);
        }
    }

    #[test]
    fn a_match_round_trips() {
        let event = Event {
            id: Id(7),
            time: Time(9),
            actor: "somebody".into(),
            ..Event::default()
        };
        let correlation = Correlation {
            rule_id: "r".into(),
            title: "t".into(),
            severity: Severity::Low,
            tags: Vec::new(),
            staged: false,
            group_by: vec!["a".into()],
            timespan: 1,
            condition: Condition::at_least(2),
            chain: Chain::default(),
            semantics: 0,
        };
        let contribution = Contribution {
            values: vec![1],
            cut: true,
            ..Contribution::default()
        };
        let m = Match::new(&correlation, group(Some("x")), &event, 3, 11).with(contribution);
        assert!(m.context.approximate);
        let record = m.clone().into_record(Time(1));
        assert_eq!(&record.key[..], group_key("r", &m.group).to_bytes());
        assert_eq!(
            MatchRecord::decode(&record.value).unwrap(),
            MatchRecord::Match(m)
        );
    }

    #[test]
    fn the_ticker_tells_seconds_and_other_ends() {
        let mut ticker = WatermarkTicker::new(0);
        let mut check = |now: i64, time: Option<i64>, to: (bool, u64), expected: Option<i64>| {
            if let Some(time) = time {
                let mut event = Event {
                    time: Time(time),
                    ..Event::default()
                };
                if time > 90_000_000 {
                    event.flags.set(Flag::TsFuture);
                }
                ticker.see(&event);
            }
            let told = ticker
                .tick(to.1, vec![to.1 + u64::from(!to.0)], Time(now * 1_000))
                .map(|w| w.time.map_or(-1, |time| time.0));
            assert_eq!(told, expected);
        };
        check(0, None, (true, 0), Some(-1));
        check(1, None, (true, 0), None);
        check(2, Some(5_000_000), (true, 1), Some(5_000_000));
        // Another end without another second of event time waits until a second has passed.
        check(3, Some(5_900_000), (true, 2), None);
        check(1_001, None, (true, 2), None);
        check(1_002, None, (true, 2), Some(5_900_000));
        check(9_000, None, (true, 2), None);
        // It became busy, which the others tell.
        check(9_001, Some(5_900_000), (false, 3), None);
        check(9_002, None, (true, 3), Some(5_900_000));
        check(9_003, Some(99_000_000), (false, 4), None);
        check(9_004, Some(6_900_000), (false, 5), Some(6_900_000));
        // The clock was set back.
        check(5_000, None, (true, 5), Some(6_900_000));
    }
}
