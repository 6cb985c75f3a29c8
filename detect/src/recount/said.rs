//! What people have been told of episodes, and what a recount has to say beside it.
//!
//! Windows forget an episode when it is settled; [`Said`] is what remains of it, a small row beside them, for as long
//! as the log keeps its matches. [`reconcile`] holds the episodes of a recount against those rows: an episode that was
//! told keeps its name and gets a revision if anything about it is new, one that joins several goes by the earliest
//! and the others become part of it, one that nobody knew is told. It is a pure function.
//!
//! ```text
//!   key  'f', key of the group (16), id of the finding (16)    value  JSON of the rest, as `Said`
//! ```

use std::collections::{BTreeMap, BTreeSet};

use event::{Finding, Id, Time};
use serde::{Deserialize, Serialize};

/// The first letter of a row.
pub(super) const ROW: &[u8] = b"f";

/// What a finding says at last that once was said because something was missing.
pub(super) const WITHDRAWN: &str = "an event that came late shows that the condition did not hold";

/// What was said of an episode last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    /// The finding.
    #[serde(skip)]
    pub(super) id: Id,
    revision: u64,
    episode: Id,
    /// The time of the first firing match.
    time: Time,
    first: Time,
    last: Time,
    count: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    approximate: bool,
    /// It has become part of another: its name is not used again.
    #[serde(default, skip_serializing_if = "is_false")]
    merged: bool,
    /// The whole finding, without its evidence, where it may have to be withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finding: Option<Box<Finding>>,
}

fn is_false(truth: &bool) -> bool {
    !truth
}

impl Said {
    /// What to remember of a finding; `whole` where its condition can become false by what comes late.
    pub(super) fn of(finding: &Finding, whole: bool) -> Said {
        let finding_without_evidence = || {
            Box::new(Finding {
                event_ids: Vec::new(),
                evidence: Vec::new(),
                ..finding.clone()
            })
        };
        Said {
            id: finding.id,
            revision: finding.revision,
            episode: finding.episode,
            time: finding.time,
            first: finding.first_event_time,
            last: finding.last_event_time,
            count: finding.count,
            approximate: finding.approximate,
            merged: finding.merged_into.is_some(),
            finding: whole.then(finding_without_evidence),
        }
    }

    /// Reads the row of the finding with this id.
    pub(super) fn read(id: Id, row: &[u8]) -> Result<Said, serde_json::Error> {
        let said: Said = serde_json::from_slice(row)?;
        Ok(Said { id, ..said })
    }

    /// From the first to the last firing match; of one that has become part of another, nothing.
    pub(super) fn span(&self) -> Option<(Time, Time)> {
        (!self.merged).then_some((self.time, self.last))
    }

    fn overlaps(&self, other: (Time, Time)) -> bool {
        self.span().is_some_and(|own| overlap(own, other))
    }

    fn says(&self, finding: &Finding) -> bool {
        self.episode == finding.episode
            && self.time == finding.time
            && self.first == finding.first_event_time
            && self.last == finding.last_event_time
            && self.count == finding.count
            && (self.approximate || !finding.approximate)
            && !self.is_withdrawn()
    }

    fn is_withdrawn(&self) -> bool {
        let finding = self.finding.as_ref();
        finding.is_some_and(|f| f.explanation == WITHDRAWN)
    }
}

/// Of a recount: what to say, in order, and how the episodes are called now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reconciled {
    pub(super) findings: Vec<Finding>,
    /// By the episodes' ids of the recount: the id and the revision of the finding, and whether anything is new.
    pub(super) names: BTreeMap<Id, (Id, u64, bool)>,
    /// What was told and does not hold.
    pub(super) withdrawn: usize,
    /// Of some episode more was known than the log still has.
    pub(super) knew_more: bool,
}

/// Do two spans of time have a moment in common, bounds included?
pub(super) fn overlap(a: (Time, Time), b: (Time, Time)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// The span of an episode, from its first to its last firing match.
pub(super) fn span(episode: &Finding) -> (Time, Time) {
    (episode.time, episode.last_event_time)
}

/// Holds the episodes of a recount, in order of time, against what was said of their group. Where the recount is not
/// `exact`, since the log has forgotten some of the matches, what was said holds if it knew of as many. What was said
/// `within` a span of time and of which nothing holds is withdrawn.
pub(super) fn reconcile(
    episodes: &[Finding],
    said: &[Said],
    exact: bool,
    within: (Time, Time),
) -> Reconciled {
    let mut said: Vec<&Said> = said.iter().collect();
    said.sort_by_key(|s| (s.time, s.id));
    let mut used: BTreeSet<Id> = BTreeSet::new();
    let mut out = Reconciled::default();
    for episode in episodes {
        let mut parts = Vec::new();
        for known in &said {
            if !used.contains(&known.id) && known.overlaps(span(episode)) {
                parts.push(*known);
            }
        }
        used.extend(parts.iter().map(|s| s.id));
        let news = Finding {
            late: true,
            approximate: episode.approximate || !exact,
            ..episode.clone()
        };
        let Some((first, others)) = parts.split_first() else {
            // Another part of what once was one episode may go by this name, or may have gone.
            let mut id = news.id;
            while said.iter().any(|s| s.id == id) {
                id = Id::of("recount", &[&id.to_bytes()]);
            }
            out.names.insert(episode.id, (id, 0, true));
            out.findings.push(Finding { id, ..news });
            continue;
        };
        for other in others {
            out.findings.push(Finding {
                id: other.id,
                episode: other.episode,
                revision: other.revision + 1,
                merged_into: Some(first.id),
                time: other.time,
                first_event_time: other.first,
                last_event_time: other.last,
                count: other.count,
                ..news.clone()
            });
        }
        let known_as_much = !exact && first.count >= news.count;
        out.knew_more |= known_as_much;
        if first.says(&news) || known_as_much {
            let name = (first.id, first.revision, false);
            out.names.insert(episode.id, name);
        } else {
            let revision = first.revision + 1;
            out.names.insert(episode.id, (first.id, revision, true));
            out.findings.push(Finding {
                id: first.id,
                revision,
                ..news
            });
        }
    }
    for known in said.iter().filter(|s| !used.contains(&s.id)) {
        out.knew_more |= !exact && known.overlaps(within);
        if exact
            && known.overlaps(within)
            && let Some(finding) = &known.finding
            && !known.is_withdrawn()
        {
            out.withdrawn += 1;
            out.findings.push(Finding {
                revision: known.revision + 1,
                late: true,
                ended: Some(known.last),
                explanation: WITHDRAWN.into(),
                ..Finding::clone(finding)
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode(id: u128, time: i64, last: i64, count: u64) -> Finding {
        Finding {
            id: Id(id),
            episode: Id(id),
            episodic: true,
            time: Time(time),
            first_event_time: Time(time - 1),
            last_event_time: Time(last),
            count,
            ..Finding::default()
        }
    }

    fn said(id: u128, time: i64, last: i64, count: u64) -> Said {
        Said::of(&episode(id, time, last, count), true)
    }

    /// Id, revision, count, merged into.
    type Word = (u128, u64, u64, Option<u128>);

    #[track_caller]
    fn check(episodes: &[Finding], told: &[Said], exact: bool, expected: &[Word]) {
        let all = (Time(0), Time(1_000));
        let found = reconcile(episodes, told, exact, all);
        let word = |f: &Finding| (f.id.0, f.revision, f.count, f.merged_into.map(|id| id.0));
        let words: Vec<Word> = found.findings.iter().map(word).collect();
        assert_eq!(words, expected);
        assert!(found.findings.iter().all(|f| f.late));
    }

    #[test]
    fn what_was_told_keeps_its_name() {
        check(&[], &[], true, &[]);
        // Nobody knew.
        check(&[episode(1, 10, 20, 5)], &[], true, &[(1, 0, 5, None)]);
        // Nothing is new.
        check(&[episode(1, 10, 20, 5)], &[said(1, 10, 20, 5)], true, &[]);
        // It grew, and begins earlier.
        check(
            &[episode(2, 8, 20, 6)],
            &[said(1, 10, 20, 5)],
            true,
            &[(1, 1, 6, None)],
        );
        // Two join; a third is another one.
        check(
            &[episode(1, 10, 40, 12), episode(4, 90, 95, 3)],
            &[said(3, 30, 40, 5), said(1, 10, 20, 5)],
            true,
            &[(3, 1, 5, Some(1)), (1, 1, 12, None), (4, 0, 3, None)],
        );
    }

    #[test]
    fn the_name_of_one_that_was_merged_is_not_used_again() {
        let merged = Finding {
            merged_into: Some(Id(1)),
            ..episode(3, 30, 40, 5)
        };
        let told = [said(1, 10, 20, 5), Said::of(&merged, true)];
        let another = Id::of("recount", &[&Id(3).to_bytes()]).0;
        check(
            &[episode(1, 10, 20, 5), episode(3, 30, 40, 5)],
            &told,
            true,
            &[(another, 0, 5, None)],
        );
    }

    #[test]
    fn where_the_log_has_forgotten_nothing_is_made_smaller() {
        let told = [said(1, 10, 20, 50)];
        check(&[episode(2, 15, 20, 5)], &told, false, &[]);
        check(&[], &told, false, &[]);
        let knew_more =
            |episodes: &[Finding]| reconcile(episodes, &told, false, (Time(0), Time(99))).knew_more;
        assert!(knew_more(&[]) && knew_more(&[episode(2, 15, 20, 5)]));
        assert!(!knew_more(&[episode(2, 15, 30, 60)]));
        check(&[episode(2, 15, 30, 60)], &told, false, &[(1, 1, 60, None)]);
    }

    #[test]
    fn what_does_not_hold_is_withdrawn_once() {
        let told = [said(1, 10, 20, 2)];
        check(&[], &told, true, &[(1, 1, 2, None)]);
        let word = reconcile(&[], &told, true, (Time(0), Time(99))).findings;
        assert_eq!(word[0].explanation, WITHDRAWN);
        assert_eq!(word[0].ended, Some(Time(20)), "nobody has to look at it");
        check(&[], &[Said::of(&word[0], true)], true, &[]);
        // An episode falls into two.
        check(
            &[episode(7, 10, 12, 2), episode(1, 18, 20, 2)],
            &told,
            true,
            &[
                (1, 1, 2, None),
                (Id::of("recount", &[&Id(1).to_bytes()]).0, 0, 2, None),
            ],
        );
        let elsewhere = reconcile(&[], &told, true, (Time(21), Time(99)));
        assert_eq!(elsewhere, Reconciled::default());
    }
}
