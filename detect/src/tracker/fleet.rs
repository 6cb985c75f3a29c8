//! Many functions or groups at once: one finding for all of them.
//!
//! When in one bucket at least [`FEW`] of them and at least one in a hundred begin an episode of the same rule, the
//! cause is not with any of them: a dependency, the account, the region. [`Fleet`] then says one finding in their
//! place, takes in those that follow within the next buckets, and the single episodes go on unsaid.

use event::{Finding, Id, Str, Time};
use serde::{Deserialize, Serialize};

use super::{Baseline, Measured, Subject};
use crate::meter::MINUTE;

/// Fewer than this are told of one by one.
const FEW: usize = 5;

/// So many buckets after the last one another still joins.
const JOINS: i64 = 3;

/// So many names are told.
const NAMES: usize = 20;

/// A departure of many that is going on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fleet {
    open: Option<Open>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    id: Id,
    /// When it began, and the last minute in which one joined.
    start: i64,
    last: i64,
    members: u64,
    /// What they had seen, when each began.
    observed: u64,
    names: Vec<Str>,
    #[serde(default)]
    sources: Vec<Str>,
    accounts: Vec<Str>,
    regions: Vec<Str>,
    revision: u64,
}

/// What is to be said, and of which series a fleet's finding speaks.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) findings: Vec<Finding>,
    pub(super) folded: Vec<Id>,
}

impl Fleet {
    /// Takes what single series would say at the end of a bucket, `minute`, of `watched` in all.
    pub(super) fn hear(
        &mut self,
        (rule, measured): (&Baseline, &Measured),
        minute: i64,
        watched: usize,
        said: Vec<(Id, Finding)>,
    ) -> Heard {
        let window = JOINS * (measured.params.bucket / MINUTE).max(1);
        if self
            .open
            .as_ref()
            .is_some_and(|open| minute - open.last > window)
        {
            self.open = None;
        }
        let (new, old): (Vec<_>, Vec<_>) = said.into_iter().partition(|(_, f)| f.revision == 0);
        let mut heard = Heard {
            findings: old.into_iter().map(|(_, finding)| finding).collect(),
            folded: Vec::new(),
        };
        let many = new.len() >= FEW.max(watched.div_ceil(100));
        if new.is_empty() || (self.open.is_none() && !many) {
            heard
                .findings
                .extend(new.into_iter().map(|(_, finding)| finding));
            return heard;
        }
        let open = self
            .open
            .get_or_insert_with(|| Open::new(rule, measured, minute));
        open.last = minute;
        for (key, finding) in new {
            open.join(&finding);
            heard.folded.push(key);
        }
        heard.findings.push(open.say(rule, watched));
        heard
    }
}

impl Open {
    fn new(rule: &Baseline, measured: &Measured, minute: i64) -> Open {
        let start = minute.saturating_mul(MINUTE) - measured.params.bucket;
        Open {
            id: Id::of("fleet", &[rule.rule_id.as_bytes(), &start.to_be_bytes()]),
            start,
            last: minute,
            members: 0,
            observed: 0,
            names: Vec::new(),
            sources: Vec::new(),
            accounts: Vec::new(),
            regions: Vec::new(),
            revision: 0,
        }
    }

    fn join(&mut self, finding: &Finding) {
        self.members += 1;
        self.observed += finding.count;
        let note = |list: &mut Vec<Str>, word: &Str| {
            if list.len() < NAMES && !word.is_empty() && !list.contains(word) {
                list.push(word.clone());
            }
        };
        note(&mut self.names, &name(finding));
        note(&mut self.sources, &finding.source);
        note(&mut self.accounts, &finding.account);
        note(&mut self.regions, &finding.region);
    }

    fn say(&mut self, rule: &Baseline, watched: usize) -> Finding {
        let one = |list: &[Str]| match list {
            [only] => only.clone(),
            _ => Str::default(),
        };
        let shared = match (one(&self.accounts), one(&self.regions)) {
            (account, region) if !account.is_empty() && !region.is_empty() => {
                format!(", all in account {account}, region {region}")
            }
            (account, _) if !account.is_empty() => format!(", all in account {account}"),
            _ if self.accounts.is_empty() => String::new(),
            _ => format!(", in {} accounts", self.accounts.len()),
        };
        let noun = match rule.subject {
            Subject::Rate(_) => "groups",
            _ => "functions",
        };
        let more = match (self.members as usize).saturating_sub(self.names.len()) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let finding = Finding {
            id: self.id,
            rule_id: rule.rule_id.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            staged: rule.staged,
            time: Time(self.start),
            first_event_time: Time(self.start),
            last_event_time: Time(self.last.saturating_mul(MINUTE) - 1),
            count: self.observed.max(1),
            group: [("fleet".into(), Some(noun.into()))].into(),
            source: one(&self.sources),
            account: one(&self.accounts),
            region: one(&self.regions),
            episode: self.id,
            episodic: true,
            tags: rule.tags.clone(),
            revision: self.revision,
            resources: self.names.clone(),
            explanation: format!(
                "{} of {watched} {noun} at once{shared}: {}{more}. Look for what they have in common",
                self.members,
                self.names.join(", ")
            )
            .into(),
            ..Finding::default()
        };
        self.revision += 1;
        finding
    }
}

/// What a series is called: the function, or the values of the group.
fn name(finding: &Finding) -> Str {
    if !finding.function.is_empty() {
        return finding.function.clone();
    }
    let values: Vec<&str> = finding.group.values().flatten().map(Str::as_str).collect();
    values.join("/").into()
}
