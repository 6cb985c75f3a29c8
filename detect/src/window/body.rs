//! What is kept of one group: which of the algorithms run it.
//!
//! A [`Body`] is chosen by the correlation. A monotone condition has a [`Group`] for the findings and, where other
//! correlations refer to it, a [`Firing`] for what it hands on to them; any other condition has a [`Settled`] for
//! both. The same event can reach a correlation of correlations twice, through two of those below it: it is one
//! match, so such a body remembers which matches it has met. Of too many the earliest are forgotten. One that comes from
//! then on, no later than those, is known by what is kept of the group, or else it may count twice: it is taken in as one
//! that is not exact.

use std::collections::BTreeMap;

use event::{Finding, Str, Time};

use super::episode::{Episode, Point, Rank};
use super::firing::Firing;
use super::group::Group;
use super::kept::{Kind, Taken, Terms};
use super::loose::Loose;
use super::matches::{Match, Upper, contributed};
use super::settled::Settled;

/// How many matches a correlation of correlations remembers to have met. Few in tests, so that they get there.
const MOST_MET: usize = if cfg!(test) { 50 } else { 10_000 };

/// The run-time state of one group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Body {
    pub(super) group: BTreeMap<Str, Option<Str>>,
    pub(super) run: Run,
    /// The matches that could come again through another correlation, with the rules through which they came.
    pub(super) met: BTreeMap<Point, u64>,
    /// The last of those that were forgotten for want of room. None of them comes again once the watermark has passed.
    pub(super) forgotten: Option<Point>,
}

/// What is known of a match that comes.
enum Met {
    /// It has not come before.
    First,
    /// It came through another correlation.
    Known,
    /// It came before, and there is nothing new.
    Repeat,
    /// It may be one of those that were forgotten.
    Perhaps,
}

/// The algorithms that run a group.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Run {
    Episodes(Group),
    Firing(Firing),
    Both(Group, Firing),
    Settled(Settled),
}

/// What comes of a change: findings, and matches for the correlations above.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) findings: Vec<Finding>,
    pub(super) handed: Vec<Match>,
}

impl Body {
    /// An empty group.
    pub(super) fn new(terms: Terms<'_>, group: BTreeMap<Str, Option<Str>>) -> Body {
        let chain = &terms.rule.chain;
        let run = match terms.kind() {
            Kind::Settled => Run::Settled(Settled::new(group.clone(), terms.watermark)),
            _ if chain.uppers.is_empty() => Run::Episodes(Group::new(group.clone())),
            _ if chain.silent => Run::Firing(Firing::new()),
            _ => Run::Both(Group::new(group.clone()), Firing::new()),
        };
        Body {
            group,
            run,
            met: BTreeMap::new(),
            forgotten: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.run {
            Run::Episodes(group) => group.is_empty(),
            Run::Firing(firing) => firing.is_empty(),
            Run::Both(group, firing) => group.is_empty() && firing.is_empty(),
            Run::Settled(settled) => settled.is_empty(),
        }
    }

    /// Nothing happens to the group by itself before the watermark is past this.
    pub(super) fn deadline(&self, timespan: i64) -> Time {
        match &self.run {
            Run::Episodes(group) => group.deadline(timespan),
            Run::Firing(firing) => firing.deadline(timespan),
            Run::Both(group, firing) if group.is_empty() => firing.deadline(timespan),
            Run::Both(group, firing) if firing.is_empty() => group.deadline(timespan),
            Run::Both(group, firing) => group.deadline(timespan).min(firing.deadline(timespan)),
            Run::Settled(settled) => settled.deadline(timespan),
        }
    }

    /// What is given up first when there are too many groups: the rank of one, and the time of its newest match.
    pub(super) fn rank(&self) -> (u8, Time) {
        match &self.run {
            Run::Episodes(group) | Run::Both(group, _) => group.rank(),
            Run::Firing(firing) => firing.rank(),
            Run::Settled(settled) => settled.rank(),
        }
    }

    /// How many matches are kept one by one.
    pub(super) fn kept(&self) -> usize {
        match &self.run {
            Run::Episodes(group) => group.kept.loose.len(),
            Run::Firing(firing) => firing.kept.loose.len(),
            Run::Both(group, firing) => group.kept.loose.len() + firing.kept.loose.len(),
            Run::Settled(settled) => settled.kept.len(),
        }
    }

    /// Takes a match in.
    pub(super) fn take(&mut self, terms: Terms<'_>, m: Match, out: &mut Out) -> Taken {
        let late = m.time < terms.watermark;
        let rules = m.rules;
        let mut new = Loose::new(terms.rule.condition.has_rules(), m, late);
        let known = match self.meet(terms, new.at, rules) {
            Met::Repeat => return Taken::Repeat,
            Met::First => false,
            Met::Known => true,
            Met::Perhaps => {
                new.rough = true;
                false
            }
        };
        let mut fired = Vec::new();
        let taken = match &mut self.run {
            Run::Episodes(group) => {
                let taken = group.take(terms, new, known, &mut out.findings);
                if !terms.once {
                    group.say(terms, &mut out.findings);
                }
                taken
            }
            Run::Firing(firing) => firing.take(terms, new, known, &mut fired),
            Run::Both(group, firing) => {
                firing.take(terms, new.clone(), known, &mut fired);
                let taken = group.take(terms, new, known, &mut out.findings);
                if !terms.once {
                    group.say(terms, &mut out.findings);
                }
                taken
            }
            Run::Settled(settled) => settled.take(terms, new, known),
        };
        self.hand_on(terms, fired, out);
        taken
    }

    /// Is a match known already, because it came through another correlation?
    fn meet(&mut self, terms: Terms<'_>, at: Point, rules: u64) -> Met {
        if terms.rule.chain.level == 0 {
            return Met::First;
        }
        let before = self.met.get(&at).copied().unwrap_or(0);
        let met = match before {
            0 if self.forgotten.is_none_or(|last| at > last) => Met::First,
            0 if self.has(at) => Met::Known,
            0 => Met::Perhaps,
            _ if rules & !before == 0 => return Met::Repeat,
            _ => Met::Known,
        };
        self.met.insert(at, before | rules.max(1));
        if self.met.len() > MOST_MET
            && let Some((earliest, _)) = self.met.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(earliest));
        }
        met
    }

    /// Is this match among what is kept?
    fn has(&self, at: Point) -> bool {
        match &self.run {
            Run::Episodes(group) => group.has(at),
            Run::Firing(firing) => firing.kept.loose.get(at).is_some(),
            Run::Both(group, firing) => group.has(at) || firing.kept.loose.get(at).is_some(),
            Run::Settled(settled) => settled.kept.get(at).is_some(),
        }
    }

    /// Lets go of what the watermark has settled, and says what has come of it.
    pub(super) fn advance(&mut self, terms: Terms<'_>, out: &mut Out) {
        let mut fired = Vec::new();
        match &mut self.run {
            Run::Episodes(group) => group.advance(terms, &mut out.findings),
            Run::Firing(firing) => firing.advance(terms),
            Run::Both(group, firing) => {
                group.advance(terms, &mut out.findings);
                firing.advance(terms);
            }
            Run::Settled(settled) => {
                let mut findings = Vec::new();
                settled.advance(terms, &mut fired, &mut findings);
                if !terms.rule.chain.silent {
                    out.findings.append(&mut findings);
                }
            }
        }
        self.hand_on(terms, fired, out);
        if let Some((first, _)) = self.met.first_key_value()
            && first.0 < terms.watermark
        {
            let rank = Rank::new("", event::Id(0));
            self.met = self.met.split_off(&(terms.watermark, rank));
        }
        self.forgotten.take_if(|last| last.0 < terms.watermark);
    }

    /// Says what is new of the episodes that are open, and worth it.
    pub(super) fn say(&mut self, terms: Terms<'_>, out: &mut Out) {
        match &mut self.run {
            Run::Episodes(group) | Run::Both(group, _) => group.say(terms, &mut out.findings),
            Run::Settled(settled) if !terms.rule.chain.silent => {
                settled.say(terms, &mut out.findings);
            }
            Run::Settled(_) | Run::Firing(_) => {}
        }
    }

    /// The episodes that are open, in order of time.
    pub(super) fn episodes_mut(&mut self) -> impl Iterator<Item = &mut Episode> {
        let (many, one) = match &mut self.run {
            Run::Episodes(group) | Run::Both(group, _) => (group.episodes.as_mut_slice(), None),
            Run::Settled(settled) => (Default::default(), settled.episode.as_mut()),
            Run::Firing(_) => (Default::default(), None),
        };
        many.iter_mut().chain(one)
    }

    /// Says a last time what has changed, for there is no room for the group any more.
    pub(super) fn close(&mut self, terms: Terms<'_>, out: &mut Out) {
        match &mut self.run {
            Run::Episodes(group) | Run::Both(group, _) => group.close(terms, &mut out.findings),
            Run::Settled(settled) if !terms.rule.chain.silent => {
                settled.close(terms, &mut out.findings);
            }
            Run::Settled(_) | Run::Firing(_) => {}
        }
    }

    /// Makes matches of the correlations above of those that fired here.
    fn hand_on(&self, terms: Terms<'_>, fired: Vec<Loose>, out: &mut Out) {
        for l in fired {
            for upper in &terms.rule.chain.uppers {
                out.handed.push(self.handed(upper, &l));
            }
        }
    }

    fn handed(&self, upper: &Upper, l: &Loose) -> Match {
        let texts = |field: &Str| -> Vec<Str> {
            match (self.group.get(field), &l.carried) {
                (Some(value), _) => value.iter().cloned().collect(),
                (None, Some(carried)) => carried.get(field).cloned().unwrap_or_default(),
                (None, None) => Vec::new(),
            }
        };
        let group = |(name, below): &(Str, Str)| (name.clone(), group_value(texts(below)));
        let carried = |(name, below): &(Str, Str)| (name.clone(), texts(below));
        let fields: Vec<Vec<Str>> = upper.fields.iter().map(texts).collect();
        let (time, id) = (l.at.0, l.at.1.id);
        let (values, cut) = contributed(&fields, upper.numbers);
        Match {
            correlation: upper.rule_id.clone(),
            group: upper.group_by.iter().map(group).collect(),
            time,
            id,
            partition: 0,
            offset: 0,
            context: Finding {
                time,
                first_event_time: time,
                last_event_time: time,
                event_ids: vec![l.shown.clone()],
                evidence: vec![id],
                late: l.late,
                approximate: l.rough || cut,
                ..Finding::clone(&l.context)
            },
            rules: upper.rules,
            values,
            carried: upper.carries.iter().map(carried).collect(),
            chained: true,
        }
    }
}

/// The value of a group-by field: a text, a list of them written as JSON, or nothing.
pub(crate) fn group_value(mut texts: Vec<Str>) -> Option<Str> {
    match texts.len() {
        0 => None,
        1 => texts.pop(),
        _ => serde_json::to_string(&texts).ok().map(Str::from),
    }
}

#[cfg(test)]
mod tests;
