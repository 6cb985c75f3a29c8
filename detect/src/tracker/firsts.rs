//! What was never seen before: a key from another network and another program, an identity that calls another service.
//!
//! A baseline with `new:` watches the values of some fields by group. The match stage tells of them in [`Sighting`]s,
//! one for each group, values and hour ([`Sightings`] leaves out the rest); [`Firsts`] judges them in order of time once
//! event time has left them behind by the grace. A group has something usual when it has been seen for long enough, in
//! several hours, and with few values; then an event all of whose values are new to it is a finding. Its id is a hash
//! of rule, group and values, so that nothing is said twice.
//!
//! Addresses are known by their network (24 bits, 48 of version 6), programs without the words that name a command, so
//! that a lease or a subcommand is nothing new. A group with more values than is usual has nothing that is: it teaches
//! nothing and says nothing, and no flood of values can push known ones out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use event::{Finding, Id, Str, Time};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{Baseline, Subject};
use crate::window::group_key;

const HOUR: i64 = 3_600_000_000;

/// A value that was not seen for so long is new again.
const REMEMBERED: i64 = 30 * 24 * HOUR;

/// A group must have been seen in so many different hours.
const HOURS: u32 = 2;

/// How many groups are remembered, of all rules together. Few in tests, so that they get there.
const MOST_GROUPS: usize = if cfg!(test) { 100 } else { 100_000 };

/// How many groups, values and hours [`Sightings`] knows that it has told of.
const MOST_TOLD: usize = 200_000;

/// What a baseline with `new:` asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// The fields all of whose values must be new.
    pub fields: Vec<String>,
    /// The fields that make a group.
    pub group_by: Vec<String>,
    /// How long a group must have been seen, in microseconds.
    pub learn: i64,
    /// A group with more values of a field than this has no usual ones.
    pub usual: usize,
}

/// An event of a group with values that are watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The `rule_id` of the baseline.
    pub rule: Str,
    /// The group-by fields and their values.
    pub group: BTreeMap<Str, Option<Str>>,
    /// The values, in the order of the baseline's fields, as they are known.
    pub values: Vec<Str>,
    /// What a finding takes from the event.
    pub context: Finding,
}

impl Sighting {
    /// A hash of baseline and group: what is remembered of a group is found by it.
    pub fn key(&self) -> Id {
        group_key(&self.rule, &self.group)
    }

    fn id(&self) -> Id {
        id(self.key(), &self.values)
    }
}

/// Its place in the order in which sightings are judged.
type Rank = (Time, Id);

/// The rank of what was `seen`, in this event. Of events of one time, which may lie in different partitions and come in
/// any order, the same one is always the first.
fn rank(seen: Id, time: Time, event: Id) -> Rank {
    (time, Id(seen.0 ^ event.0))
}

fn id(key: Id, values: &[Str]) -> Id {
    let key = key.to_bytes();
    let mut parts = vec![&key[..]];
    parts.extend(values.iter().map(|v| v.as_bytes()));
    Id::of("new", &parts)
}

/// A value as it is known: the network of an address, a program without what it was told to do.
pub fn known_as(value: &str) -> Str {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            event::format_compact!("{a}.{b}.{c}.0/24")
        }
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            event::format_compact!("{a:x}:{b:x}:{c:x}::/48")
        }
        Err(_) if value.contains(" command/") || value.contains(" md/command#") => {
            let told = |word: &&str| {
                !["command/", "md/command#", "prompt/", "md/prompt#"]
                    .iter()
                    .any(|start| word.starts_with(start))
            };
            let words: Vec<&str> = value.split(' ').filter(told).collect();
            words.join(" ").into()
        }
        Err(_) => value.into(),
    }
}

/// Which sightings the match stage has told of, so that it need not tell of each event.
#[derive(Debug, Clone, Default)]
pub struct Sightings {
    told: FxHashMap<(Id, i64), Rank>,
}

impl Sightings {
    /// Is this worth telling: the first of its hour, or before what was told? What it has forgotten is told again, which
    /// is harmless.
    pub(crate) fn is_news(
        &mut self,
        rule: &str,
        group: &BTreeMap<Str, Option<Str>>,
        values: &[Str],
        (time, event): (Time, Id),
    ) -> bool {
        let seen = id(group_key(rule, group), values);
        let rank = rank(seen, time, event);
        let key = (seen, time.0.div_euclid(HOUR));
        if self.told.get(&key).is_some_and(|told| *told <= rank) {
            return false;
        }
        if self.told.len() >= MOST_TOLD {
            self.told.clear();
        }
        self.told.insert(key, rank);
        true
    }
}

/// What is known of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The `rule_id` of the baseline; empty where it was stored before it was told, until the group is seen again.
    #[serde(default)]
    rule: Str,
    since: Time,
    last: Time,
    /// In how many different hours it was seen.
    hours: u32,
    /// By field, the values and when each was seen last.
    values: Vec<BTreeMap<Str, Time>>,
}

/// The groups of all baselines with `new:`, and what is still to be judged.
#[derive(Debug, Default)]
pub(super) struct Firsts {
    groups: BTreeMap<Id, Known>,
    /// In order of time.
    waiting: BTreeMap<Rank, Sighting>,
    /// How many of both each rule has.
    kept: BTreeMap<Str, Tally>,
    pub(super) changed: Changed,
    /// The hour in which room was looked for last.
    looked: i64,
}

/// What is kept for one rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) groups: usize,
    pub(super) waiting: usize,
}

#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) groups: BTreeSet<Id>,
    pub(super) waiting: BTreeSet<Rank>,
}

impl Firsts {
    pub(super) fn take(&mut self, sighting: Sighting) {
        let evidence = sighting
            .context
            .evidence
            .first()
            .copied()
            .unwrap_or_default();
        let key = rank(sighting.id(), sighting.context.time, evidence);
        self.changed.waiting.insert(key);
        self.put_back_waiting(key, sighting);
    }

    /// As it was stored.
    pub(super) fn put_back_waiting(&mut self, key: Rank, sighting: Sighting) {
        let rule = sighting.rule.clone();
        if self.waiting.insert(key, sighting).is_none() {
            self.kept.entry(rule).or_default().waiting += 1;
        }
    }

    /// As it was stored.
    pub(super) fn put_back_group(&mut self, key: Id, known: Known) {
        if !known.rule.is_empty() {
            self.kept.entry(known.rule.clone()).or_default().groups += 1;
        }
        self.groups.insert(key, known);
    }

    /// What is known of a group.
    pub(super) fn group(&self, key: Id) -> Option<&Known> {
        self.groups.get(&key)
    }

    /// A sighting that is still to be judged.
    pub(super) fn waiting(&self, key: Rank) -> Option<&Sighting> {
        self.waiting.get(&key)
    }

    /// How much is kept for a rule.
    pub(super) fn kept(&self, rule: &str) -> Tally {
        self.kept.get(rule).copied().unwrap_or_default()
    }

    /// Judges what happened before `time`, in order.
    pub(super) fn judge_to(&mut self, time: Time, rules: &[Baseline], out: &mut Vec<Finding>) {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 < time
        {
            let (key, sighting) = entry.remove_entry();
            self.changed.waiting.insert(key);
            if let Some(kept) = self.kept.get_mut(&sighting.rule) {
                kept.waiting -= 1;
            }
            let rule = rules.iter().find(|r| r.rule_id == sighting.rule);
            if let Some(rule) = rule
                && let Subject::New(new) = &rule.subject
            {
                out.extend(self.judge(rule, new, &sighting));
            }
        }
    }

    /// Is there room for another group? Those not seen for long go for it; those that are known stay, whoever floods.
    fn has_room(&mut self, now: Time) -> bool {
        if self.groups.len() < MOST_GROUPS {
            return true;
        }
        let hour = now.0.div_euclid(HOUR);
        if self.looked < hour {
            self.looked = hour;
            let old = now.plus(-REMEMBERED);
            for (key, known) in self.groups.extract_if(.., |_, known| known.last < old) {
                self.changed.groups.insert(key);
                if let Some(kept) = self.kept.get_mut(&known.rule) {
                    kept.groups -= 1;
                }
            }
        }
        self.groups.len() < MOST_GROUPS
    }

    fn judge(&mut self, rule: &Baseline, new: &New, sighting: &Sighting) -> Option<Finding> {
        let (key, time) = (sighting.key(), sighting.context.time);
        if !self.groups.contains_key(&key) && !self.has_room(time) {
            return None;
        }
        self.changed.groups.insert(key);
        let known = self.groups.entry(key).or_insert_with(|| Known {
            rule: Str::default(),
            since: time,
            last: time,
            hours: 1,
            values: vec![BTreeMap::new(); new.fields.len()],
        });
        if known.rule.is_empty() {
            known.rule = rule.rule_id.clone();
            self.kept.entry(rule.rule_id.clone()).or_default().groups += 1;
        }
        known.values.resize(new.fields.len(), BTreeMap::new());
        if time.0.div_euclid(HOUR) != known.last.0.div_euclid(HOUR) {
            known.hours = known.hours.saturating_add(1);
        }
        known.last = known.last.max(time);
        let old = time.plus(-REMEMBERED);
        known
            .values
            .iter_mut()
            .for_each(|values| values.retain(|_, last| *last >= old));
        let varied = known.values.iter().any(|values| values.len() > new.usual);
        let settled = time.0 - known.since.0 >= new.learn && known.hours >= HOURS;
        let mut pairs = known.values.iter().zip(&sighting.values);
        let all_new =
            pairs.all(|(values, value)| !values.is_empty() && !values.contains_key(value));
        let finding = (settled && all_new && !varied).then(|| said(rule, new, known, sighting));
        for (values, value) in known.values.iter_mut().zip(&sighting.values) {
            if values.len() <= new.usual || values.contains_key(value) {
                let last = values.entry(value.clone()).or_insert(time);
                *last = (*last).max(time);
            }
        }
        finding
    }
}

fn said(rule: &Baseline, new: &New, known: &Known, sighting: &Sighting) -> Finding {
    let id = sighting.id();
    let parts = new.fields.iter().zip(&sighting.values).zip(&known.values);
    let parts: Vec<String> = parts
        .map(|((field, value), values)| {
            let usual: Vec<&str> = values.keys().take(3).map(Str::as_str).collect();
            let more = values.len() - usual.len();
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("{field} {value} (so far {}{more})", usual.join(", "))
        })
        .collect();
    let hours = (sighting.context.time.0 - known.since.0) / HOUR;
    Finding {
        id,
        episode: id,
        episodic: true,
        rule_id: rule.rule_id.clone(),
        title: rule.title.clone(),
        severity: rule.severity,
        staged: rule.staged,
        tags: rule.tags.clone(),
        group: sighting.group.clone(),
        explanation: format!("never seen before in {hours} hours: {}", parts.join("; ")).into(),
        ..sighting.context.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Baseline {
        Baseline {
            rule_id: "r".into(),
            title: "t".into(),
            severity: event::Severity::Medium,
            tags: Vec::new(),
            staged: false,
            subject: Subject::New(New {
                fields: vec!["ip".into(), "program".into()],
                group_by: vec!["key".into()],
                learn: 3 * HOUR,
                usual: 4,
            }),
        }
    }

    fn seen(minute: i64, key: &str, ip: &str, program: &str) -> Sighting {
        Sighting {
            rule: "r".into(),
            group: [("key".into(), Some(key.into()))].into(),
            values: vec![known_as(ip), known_as(program)],
            context: Finding {
                time: Time(minute * 60_000_000),
                evidence: vec![Id(minute as u128)],
                ..Finding::default()
            },
        }
    }

    /// The minutes of the sightings that were found to be new.
    fn found(sightings: &[Sighting]) -> Vec<i64> {
        let mut firsts = Firsts::default();
        let mut told = Sightings::default();
        for sighting in sightings {
            let Sighting {
                rule,
                group,
                values,
                context,
            } = sighting;
            if told.is_news(rule, group, values, (context.time, context.evidence[0])) {
                firsts.take(sighting.clone());
            }
        }
        let mut out = Vec::new();
        firsts.judge_to(Time::MAX, &[rule()], &mut out);
        out.iter().map(|f| f.time.0 / 60_000_000).collect()
    }

    fn usual() -> Vec<Sighting> {
        (0..60)
            .map(|n| seen(n * 10, "k", "203.0.113.7", "aws-cli/2"))
            .collect()
    }

    #[test]
    fn what_is_new_in_every_field_is_found_once() {
        let mut all = usual();
        all.push(seen(605, "k", "198.51.100.1", "Boto3/1"));
        all.push(seen(606, "k", "198.51.100.9", "Boto3/1"));
        assert_eq!(found(&all), [605]);
        all.reverse();
        assert_eq!(found(&all), [605], "the order does not matter");
    }

    /// They may lie in one partition, where the second is only told of if it is to be judged first, or in two.
    #[test]
    fn of_events_of_one_time_it_is_always_the_same() {
        let twins: Vec<_> = (0..6)
            .map(|n| {
                let mut twin = seen(605, "k", "198.51.100.1", "Boto3/1");
                twin.context.evidence = vec![Id(n)];
                twin
            })
            .collect();
        let first = |partitions: &[&[Sighting]]| {
            let mut firsts = Firsts::default();
            for sightings in partitions {
                let mut told = Sightings::default();
                for s in sightings.iter() {
                    let at = (s.context.time, s.context.evidence[0]);
                    if told.is_news(&s.rule, &s.group, &s.values, at) {
                        firsts.take(s.clone());
                    }
                }
            }
            let mut out = Vec::new();
            firsts.judge_to(Time::MAX, &[rule()], &mut out);
            assert_eq!(out.len(), 1);
            out[0].evidence[0]
        };
        let usual = usual();
        let expected = first(&[&usual, &twins]);
        for turn in 0..6 {
            let mut twins = twins.clone();
            twins.rotate_left(turn);
            assert_eq!(first(&[&usual, &twins]), expected);
            let (some, others) = twins.split_at(turn);
            assert_eq!(first(&[&usual, others, some]), expected);
        }
    }

    #[test]
    fn half_new_or_too_early_or_varied_is_nothing() {
        let with = |more: &[Sighting]| found(&[usual(), more.to_vec()].concat());
        assert_eq!(
            with(&[seen(605, "k", "198.51.100.1", "aws-cli/2")]),
            Vec::<i64>::new()
        );
        assert_eq!(
            with(&[seen(605, "k", "203.0.113.99", "Boto3/1")]),
            Vec::<i64>::new(),
            "the same network"
        );
        assert_eq!(
            with(&[seen(605, "other", "198.51.100.1", "Boto3/1")]),
            Vec::<i64>::new()
        );
        let early = [
            seen(0, "k", "203.0.113.7", "a"),
            seen(90, "k", "198.51.100.1", "b"),
        ];
        assert_eq!(found(&early), Vec::<i64>::new());
        let roams: Vec<_> = (0..20)
            .map(|n| seen(20 + n * 10, "k", &format!("198.51.{n}.1"), "aws-cli/2"))
            .collect();
        let roams = [usual(), roams, vec![seen(605, "k", "192.0.2.1", "Boto3/1")]].concat();
        assert_eq!(found(&roams), Vec::<i64>::new());
    }

    #[test]
    fn what_is_kept_is_counted_as_it_comes_and_goes() {
        let mut firsts = Firsts::default();
        let minutes_a_day = 24 * 60;
        let days = [(0, 70), (20, 150), (40, 20)];
        for (day, groups) in days {
            for n in 0..groups {
                let key = format!("{day} {n}");
                firsts.take(seen(day * minutes_a_day + n, &key, "203.0.113.7", "a"));
            }
            assert_eq!(firsts.kept("r").waiting, groups as usize);
            firsts.judge_to(Time::MAX, &[rule()], &mut Vec::new());
            let Tally { groups, waiting } = firsts.kept("r");
            assert_eq!((groups, waiting), (firsts.groups.len(), 0));
        }
        // Of the first day none is left, of the second what there was room for.
        assert_eq!(firsts.kept("r").groups, 30 + 20);
    }

    #[test]
    fn values_are_known_by_network_and_program() {
        let check = |value: &str, expected: &str| assert_eq!(known_as(value), expected);
        check("203.0.113.7", "203.0.113.0/24");
        check("2001:db8:1:2::3", "2001:db8:1::/48");
        check("ec2.amazonaws.com", "ec2.amazonaws.com");
        check(
            "aws-cli/2.15 exe/x86_64 prompt/off command/ec2.run",
            "aws-cli/2.15 exe/x86_64",
        );
        check("Boto3/1.34 md/Botocore#1.34", "Boto3/1.34 md/Botocore#1.34");
    }
}
