//! Questions of an investigation: what somebody did around a time, what of it is new, and who stands behind a session.
//!
//! [`Nodes::investigate`] takes a pivot (an identity, a key, an address, …) and a time. It gives the events around it,
//! and beside them what the same pivot did in the thirty days before, aspect by aspect, so that a first use of an action
//! or network stands out. [`Nodes::role_chain`] follows temporary credentials of AWS from session to session, in both
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

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pivot {
    /// One of [`PIVOTS`].
    pub field: String,
    /// Its value.
    pub value: String,
    /// The middle of the window.
    pub around: Time,
    /// How many hours the window reaches to each side.
    pub hours: i64,
    /// How many events are given at most.
    pub limit: usize,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Investigation {
    /// The query that finds all events of the pivot.
    pub query: String,
    /// The window's first time.
    pub from: Time,
    /// The window's last time.
    pub to: Time,
    /// The events in the window, the earliest first.
    pub events: Vec<Event>,
    /// How many there are in all.
    pub matched: u64,
    /// How many there were in the days before that say what is usual.
    pub usual: u64,
    /// The first event of the pivot in the whole index.
    pub first_seen: Option<Time>,
    /// The last one.
    pub last_seen: Option<Time>,
    /// What it did, aspect by aspect.
    pub profile: Vec<Aspect>,
    /// Why this is not all, where it is not.
    pub partial: Option<String>,
}

/// One aspect of what was done: actions, networks, hours of the day, and so on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Aspect {
    /// Its name: `action`, `network`, `hour`, `region`, `account`, `error_code`.
    pub name: String,
    /// Its values: new ones first, then the most frequent in the window.
    pub values: Vec<Usual>,
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
        let half = pivot.hours.saturating_mul(HOUR);
        let (from, to) = (pivot.around.plus(-half), pivot.around.plus(half));
        let request = |from: Option<Time>, to: Option<Time>| Request {
            query: query.clone(),
            from,
            to,
            ..Request::default()
        };
        let window = Request {
            limit: pivot.limit,
            ..request(Some(from), Some(to))
        };
        let answer = self.search(&window)?;
        let mut aggs = Aggregations::new();
        for short in [
            "action:500",
            "src_ip:5000",
            "region:200",
            "account:500",
            "error_code:200",
            "time:1h",
        ] {
            aggs.extend(parse(short, 1).map_err(SearchError::Aggregation)?);
        }
        let now = self.aggregate(&window, &aggs)?;
        let earlier = request(Some(from.plus(-USUAL_DAYS * DAY)), Some(from.plus(-1)));
        let before = self.aggregate(&earlier, &aggs)?;
        let edge = |newest_first: bool| -> Result<(Option<Time>, Option<String>), SearchError> {
            let one = Request {
                limit: 1,
                newest_first,
                ..request(None, None)
            };
            let answer = self.search(&one)?;
            let time = answer.hits.first().map(|event| event.time);
            Ok((time, answer.partial))
        };
        let ((first_seen, at_first), (last_seen, at_last)) = (edge(false)?, edge(true)?);
        let mut profile = Vec::new();
        for (name, agg) in [
            ("action", "action"),
            ("network", "src_ip"),
            ("hour", "time"),
            ("region", "region"),
            ("account", "account"),
            ("error_code", "error_code"),
        ] {
            let counts = [&now, &before].map(|a| counted(name, a.aggs.get(agg)));
            profile.push(aspect(name, counts, before.matched > 0));
        }
        Ok(Investigation {
            from,
            to,
            events: answer.hits,
            matched: now.matched,
            usual: before.matched,
            first_seen,
            last_seen,
            profile,
            partial: answer
                .partial
                .or(now.partial)
                .or(before.partial)
                .or(at_first)
                .or(at_last),
            query,
        })
    }

    /// The sessions that stand behind an access key (who assumed the role that it belongs to, and so on), and those that
    /// were made with it.
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

/// The /24 or /48 that an address lies in; what is no address stands for itself.
fn network(address: &str) -> String {
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
