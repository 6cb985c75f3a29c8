//! Questions of an investigation: what somebody did around a time, what of it is new, and who stands behind a session.
//!
//! [`Nodes::investigate`] takes a pivot (an identity, a key, an address, …) and a time. It gives the events around it,
//! and beside them what the same pivot did in the thirty days before, aspect by aspect, so that a first use of an action
//! or network stands out, and what else the events lead to. Without a time it looks around now, or where nothing is there
//! around the last event. [`Nodes::role_chain`] follows temporary credentials of AWS from session to session, in both
//! directions and across accounts. Both are searches and aggregations over the index and know nothing that those do not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use event::{Event, Time};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregate, Aggregations, parse};
use crate::nodes::Nodes;
use crate::query::{Field, Query, Test};
use crate::request::{Request, SearchError};

/// What can be pivoted on.
pub const PIVOTS: &[&str] = &[
    "identity",
    "actor",
    "session",
    "access_key",
    "src_ip",
    "function",
    "request_id",
    "account",
];
/// What is usual is learned from so many days before the window.
pub const USUAL_DAYS: i64 = 30;
/// Links that are followed in each direction, at most.
const MAX_LINKS: usize = 50;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// Aspects of what was done, and the aggregations that count them.
const ASPECTS: [(&str, &str); 8] = [
    ("action", "action:500"),
    ("network", "src_ip:5000"),
    ("hour", "time:1h"),
    ("region", "region:200"),
    ("account", "account:500"),
    ("error_code", "error_code:200"),
    ("user_agent", "user_agent:200"),
    ("identity", "identity:500"),
];
/// Fields whose values the events lead on to.
const RELATED: [&str; 7] = [
    "identity",
    "actor",
    "session",
    "access_key",
    "src_ip",
    "function",
    "account",
];
/// How many values of each.
const MAX_RELATED: usize = 10;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pivot {
    /// One of [`PIVOTS`].
    pub field: String,
    /// Its value.
    pub value: String,
    /// The middle of the window. If it is not said: `now`, or where nothing is there the last event.
    pub around: Option<Time>,
    /// The time of day.
    pub now: Time,
    /// How many hours the window reaches to each side.
    pub hours: i64,
    /// How many events are given at most: those nearest to the middle.
    pub limit: usize,
}

/// Why the middle of a window is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Middle {
    /// It was asked for.
    #[default]
    Asked,
    /// Nothing was asked for, and there are events around now, or none at all.
    Now,
    /// Nothing was asked for and nothing is around now: it is the last event.
    LastSeen,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Investigation {
    /// The query that finds all events of the pivot.
    pub query: String,
    /// The middle of the window.
    pub around: Time,
    /// Why it is there.
    pub middle: Middle,
    /// The window's first time.
    pub from: Time,
    /// The window's last time.
    pub to: Time,
    /// The events in the window, the earliest first; of too many those nearest to the middle.
    pub events: Vec<Event>,
    /// How many there are in all.
    pub matched: u64,
    /// How many of them failed or were denied.
    pub failed: u64,
    /// How many there were in the days before that say what is usual.
    pub usual: u64,
    /// The first event of the pivot in the whole index.
    pub first_seen: Option<Time>,
    /// The last one.
    pub last_seen: Option<Time>,
    /// What it did, aspect by aspect.
    pub profile: Vec<Aspect>,
    /// What else the events of the window name: values to go on from.
    pub related: Vec<Related>,
    /// Why this is not all, where it is not.
    pub partial: Option<String>,
}

/// One aspect of what was done: actions, networks, hours of the day, and so on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Aspect {
    /// Its name: `action`, `network`, `hour`, `region`, `account`, `error_code`, `user_agent`, `identity`.
    pub name: String,
    /// Its values: new ones first, then the most frequent in the window.
    pub values: Vec<Usual>,
}

/// The most frequent values of a field in the window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Related {
    /// The field, which can be pivoted on.
    pub field: String,
    /// Its values, the most frequent first, at most ten.
    pub values: Vec<Counted>,
    /// How many events have other values.
    pub other: u64,
}

/// A value and how many events have it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counted {
    /// The value.
    pub value: String,
    /// How many events.
    pub count: u64,
}

/// How often a value comes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usual {
    /// The value.
    pub value: String,
    /// How many events of the window have it.
    pub window: u64,
    /// How many of the days before.
    pub before: u64,
    /// Does it come in the window and never before? Never where nothing is known from before.
    pub new: bool,
}

/// One session made from another: an `AssumeRole` and what came of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Link {
    /// The access key that asked; empty where the record has none.
    pub by: String,
    /// Who asked, as people read it.
    pub actor: String,
    /// The access key that was given.
    pub access_key: String,
    /// The ARN of the session that was begun.
    pub session: String,
    /// The event.
    pub event: Event,
    /// The same action as another account recorded it (the same `shared_id`).
    pub elsewhere: Vec<Event>,
}

/// The sessions around an access key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chain {
    /// Those that stand behind it, the nearest first.
    pub up: Vec<Link>,
    /// Those that were made with it.
    pub down: Vec<Link>,
    /// Why these are not all, where they are not.
    pub partial: Option<String>,
}

impl Nodes {
    /// Looks into what a pivot did around a time.
    ///
    /// # Errors
    /// [`SearchError::Pivot`] if the field is none of [`PIVOTS`]; else those of a search.
    pub fn investigate(&self, pivot: &Pivot) -> Result<Investigation, SearchError> {
        if !PIVOTS.contains(&pivot.field.as_str()) {
            return Err(SearchError::Pivot(pivot.field.clone()));
        }
        let query = equals(&pivot.field, &pivot.value);
        let request = |from: Option<Time>, to: Option<Time>| Request {
            query: query.clone(),
            from,
            to,
            ..Request::default()
        };
        let mut unsure = None;
        let first_seen = self.edge(request(None, None), false, &mut unsure)?;
        let last_seen = self.edge(request(None, None), true, &mut unsure)?;
        let half = pivot.hours.saturating_mul(HOUR);
        let window = |around: Time| (around.plus(-half), around.plus(half));
        let (around, middle) = match (pivot.around, last_seen) {
            (Some(around), _) => (around, Middle::Asked),
            (None, None) => (pivot.now, Middle::Now),
            (None, Some(last)) => {
                let (from, to) = window(pivot.now);
                // The last event may lie in the future, by a clock that is wrong.
                let there = (from..=to).contains(&last)
                    || self
                        .edge(request(Some(from), Some(to)), true, &mut unsure)?
                        .is_some();
                match there {
                    true => (pivot.now, Middle::Now),
                    false => (last, Middle::LastSeen),
                }
            }
        };
        let (from, to) = window(around);
        let asked = request(Some(from), Some(to));
        let (events, partial) = self.nearest(&asked, around, pivot.limit)?;
        // Who acted is an aspect of what is not somebody.
        let somebody = ["identity", "actor", "session", "access_key"].contains(&&*pivot.field);
        let aspects = || {
            let all = ASPECTS.into_iter();
            all.filter(|(name, _)| !(somebody && *name == "identity"))
        };
        let mut usual = Aggregations::new();
        for (_, short) in aspects() {
            usual.extend(parse(short, 1).map_err(SearchError::Aggregation)?);
        }
        let mut more = parse("outcome", 10).map_err(SearchError::Aggregation)?;
        for field in RELATED {
            more.extend(parse(field, MAX_RELATED).map_err(SearchError::Aggregation)?);
        }
        more.extend(usual.clone());
        let now = self.aggregate(&asked, &more)?;
        let earlier = request(Some(from.plus(-USUAL_DAYS * DAY)), Some(from.plus(-1)));
        let before = self.aggregate(&earlier, &usual)?;
        let profile = aspects().map(|(name, short)| {
            let agg = short.split(':').next().unwrap_or(short);
            let counts = [&now, &before].map(|a| counted(name, a.aggs.get(agg)));
            aspect(name, counts, before.matched > 0)
        });
        let related = RELATED.into_iter().filter(|field| *field != pivot.field);
        let outcomes = counted("outcome", now.aggs.get("outcome"));
        let failed = |word: &str| outcomes.get(word).copied().unwrap_or_default();
        Ok(Investigation {
            around,
            middle,
            from,
            to,
            events,
            matched: now.matched,
            failed: failed("failure") + failed("denied"),
            usual: before.matched,
            first_seen,
            last_seen,
            profile: profile.collect(),
            related: related
                .filter_map(|field| related_to(field, now.aggs.get(field)))
                .collect(),
            partial: partial.or(now.partial).or(before.partial).or(unsure),
            query,
        })
    }

    /// The time of the first or last event. Why it may not be that is noted in `unsure`.
    fn edge(
        &self,
        request: Request,
        newest_first: bool,
        unsure: &mut Option<String>,
    ) -> Result<Option<Time>, SearchError> {
        let one = Request {
            limit: 1,
            newest_first,
            ..request
        };
        let answer = self.search(&one)?;
        *unsure = unsure.take().or(answer.partial);
        Ok(answer.hits.first().map(|event| event.time))
    }

    /// At most `limit` of the events, the earliest first: where there are more, those nearest to a time, as many from
    /// before as from after it if there are. Gives why this is not all, where it is not for another reason.
    fn nearest(
        &self,
        asked: &Request,
        around: Time,
        limit: usize,
    ) -> Result<(Vec<Event>, Option<String>), SearchError> {
        if limit == 0 {
            return Ok((Vec::new(), None));
        }
        let asked = Request {
            limit,
            ..asked.clone()
        };
        let all = self.search(&asked)?;
        if all.next.is_none() {
            return Ok((all.hits, all.partial));
        }
        let before = self.search(&Request {
            to: Some(around.plus(-1)),
            newest_first: true,
            ..asked.clone()
        })?;
        let after = self.search(&Request {
            from: Some(around),
            ..asked
        })?;
        let earlier = (limit / 2)
            .max(limit.saturating_sub(after.hits.len()))
            .min(before.hits.len());
        let mut events: Vec<Event> = before.hits.into_iter().take(earlier).collect();
        events.reverse();
        events.extend(after.hits.into_iter().take(limit - earlier));
        Ok((events, before.partial.or(after.partial)))
    }

    /// The sessions that stand behind an access key (`up`: who assumed the role that it belongs to, and so on), the
    /// nearest first, and those that were made with it (`down`).
    pub fn role_chain(&self, access_key: &str) -> Result<Chain, SearchError> {
        let mut chain = Chain::default();
        let mut key = access_key.to_owned();
        let mut seen = BTreeSet::new();
        while chain.up.len() < MAX_LINKS && !key.is_empty() && seen.insert(key.clone()) {
            let query = format!("responseElements.credentials.accessKeyId:{}", quoted(&key));
            let mut found = self.assumptions(&query, &mut chain)?;
            // The record of the account that asked knows who asked.
            found.sort_by_key(|link| link.by.is_empty());
            let Some(mut link) = found.into_iter().next() else {
                break;
            };
            link.elsewhere = self.elsewhere(&link.event, &mut chain)?;
            key = link.by.clone();
            if key.is_empty() {
                key = link
                    .elsewhere
                    .iter()
                    .map(|e| e.access_key.to_string())
                    .find(|k| !k.is_empty())
                    .unwrap_or_default();
            }
            chain.up.push(link);
        }
        let mut open = vec![access_key.to_owned()];
        let mut seen: BTreeSet<String> = open.iter().cloned().collect();
        while let Some(key) = open.pop() {
            let query = format!(
                "access_key:{} AND responseElements.credentials.accessKeyId:*",
                quoted(&key)
            );
            for mut link in self.assumptions(&query, &mut chain)? {
                if chain.down.len() >= MAX_LINKS {
                    return Ok(chain);
                }
                if seen.insert(link.access_key.clone()) {
                    open.push(link.access_key.clone());
                    link.elsewhere = self.elsewhere(&link.event, &mut chain)?;
                    chain.down.push(link);
                }
            }
        }
        Ok(chain)
    }

    fn assumptions(&self, query: &str, chain: &mut Chain) -> Result<Vec<Link>, SearchError> {
        let request = Request {
            query: query.to_owned(),
            limit: MAX_LINKS,
            newest_first: true,
            ..Request::default()
        };
        let answer = self.search(&request)?;
        chain.partial = chain.partial.take().or(answer.partial);
        Ok(answer.hits.into_iter().map(link).collect())
    }

    /// What other accounts recorded of the same action.
    fn elsewhere(&self, event: &Event, chain: &mut Chain) -> Result<Vec<Event>, SearchError> {
        if event.shared_id.is_empty() {
            return Ok(Vec::new());
        }
        let request = Request {
            query: equals("shared_id", &event.shared_id),
            limit: MAX_LINKS,
            ..Request::default()
        };
        let answer = self.search(&request)?;
        chain.partial = chain.partial.take().or(answer.partial);
        let mut hits = answer.hits;
        hits.retain(|other| other.id != event.id);
        Ok(hits)
    }
}

fn link(event: Event) -> Link {
    let text = |path: &str| {
        let doc = event::json::Doc::parse(&event.raw).ok();
        let found = doc.as_ref().and_then(|doc| {
            let keys: Vec<&str> = path.split('.').collect();
            doc.root(&event.raw).text_at(&keys).map(|t| t.into_owned())
        });
        found.unwrap_or_default()
    };
    Link {
        by: event.access_key.to_string(),
        actor: event.actor.to_string(),
        access_key: text("responseElements.credentials.accessKeyId"),
        session: text("responseElements.assumedRoleUser.arn"),
        event,
        elsewhere: Vec::new(),
    }
}

fn equals(field: &str, value: &str) -> String {
    Query::Field(Field::named(field), Test::Equals(value.to_owned())).to_string()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The counts of an aspect by value.
fn counted(name: &str, aggregate: Option<&Aggregate>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let (Some(Aggregate::Terms { buckets, .. }) | Some(Aggregate::DateHistogram { buckets, .. })) =
        aggregate
    else {
        return counts;
    };
    for bucket in buckets {
        let value = match name {
            "network" => network(&bucket.key),
            // `2026-03-02T05:00:00Z`
            "hour" => bucket.key.get(11..13).unwrap_or_default().to_owned(),
            _ => bucket.key.clone(),
        };
        *counts.entry(value).or_default() += bucket.count;
    }
    counts
}

/// The most frequent values of a field, if there are any.
fn related_to(field: &str, aggregate: Option<&Aggregate>) -> Option<Related> {
    let Some(Aggregate::Terms { buckets, other, .. }) = aggregate else {
        return None;
    };
    // Fields of other questions are told with more values than these.
    let values = buckets.iter().map(|b| Counted {
        value: b.key.clone(),
        count: b.count,
    });
    let mut values: Vec<Counted> = values.collect();
    let rest = values.split_off(values.len().min(MAX_RELATED));
    (!values.is_empty()).then(|| Related {
        field: field.to_owned(),
        values,
        other: other + rest.iter().map(|v| v.count).sum::<u64>(),
    })
}

/// The /24 or /48 that an address lies in; what is no address stands for itself.
pub fn network(address: &str) -> String {
    let net = match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => Ipv4Net::new(ip, 24).map(|net| IpNet::V4(net.trunc())),
        Ok(IpAddr::V6(ip)) => Ipv6Net::new(ip, 48).map(|net| IpNet::V6(net.trunc())),
        Err(_) => return address.to_owned(),
    };
    net.map_or_else(|_| address.to_owned(), |net| net.to_string())
}

fn aspect(name: &str, counts: [BTreeMap<String, u64>; 2], known: bool) -> Aspect {
    let [now, before] = counts;
    let all: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    let mut values: Vec<Usual> = all
        .into_iter()
        .map(|value| {
            let [window, before] =
                [&now, &before].map(|counts| counts.get(value).copied().unwrap_or_default());
            Usual {
                value: value.clone(),
                window,
                before,
                new: known && before == 0,
            }
        })
        .collect();
    values.sort_by(|a, b| {
        (b.new, b.window, b.before)
            .cmp(&(a.new, a.window, a.before))
            .then_with(|| a.value.cmp(&b.value))
    });
    Aspect {
        name: name.to_owned(),
        values,
    }
}
