//! What is said of sources and collectors: findings, and the rules that no file stands for.

use event::source::{Collector, Feed};
use event::{Finding, Id, RuleInfo, Severity, Str, Time};

use super::watched::{Silence, Watched};
use super::{Blind, OWN};

/// The `rule_id` of the finding that a source is silent.
pub const SILENT: &str = "trailwarden.source_silent";

/// The `rule_id` of the finding that a collector fails.
pub const FAILING: &str = "trailwarden.collector_failing";

/// The `rule_id` of the finding that two nodes read what only one may.
pub const SHARED: &str = "trailwarden.collector_shared";

/// What to do about that, in words.
pub(super) const SHARED_HINT: &str = "take its entry out of the configuration of all nodes but one";

/// How many rules a finding names.
const NAMED: usize = 5;

/// What the findings may be a sign of: Impair Defenses, Disable or Modify Cloud Logs.
const TAGS: [&str; 2] = ["attack.t1562.008", "attack.t1685"];

/// What people read about the findings that no rule file stands for.
pub fn own_rules() -> Vec<RuleInfo> {
    let info = |id: &str, title: &str, severity, description: &str, steps: &[&str]| RuleInfo {
        id: id.to_owned(),
        title: title.to_owned(),
        description: description.to_owned(),
        author: "Trailwarden".to_owned(),
        severity,
        status: "stable".to_owned(),
        tags: TAGS.map(str::to_owned).to_vec(),
        next_steps: steps.iter().map(|s| (*s).to_owned()).collect(),
        ..RuleInfo::default()
    };
    vec![
        info(
            SILENT,
            "A source has fallen silent",
            Severity::High,
            "Nothing has arrived from a source for twice as long as is usual for it. While it is silent, the rules that look at \
             it see nothing. Whoever stops a trail, changes a bucket's policy or removes a subscription causes this on purpose.",
            &[
                "Look at `trailwarden sources`, or at Sources on the Health page: does its collector fail?",
                "Search the account's last events for StopLogging, DeleteTrail, UpdateTrail, PutEventSelectors, PutBucketPolicy and DeleteSubscriptionFilter.",
                "If the source was taken out of service, add it to `sources.ignore`.",
            ],
        ),
        info(
            FAILING,
            "A collector cannot read its source",
            Severity::Medium,
            "A collector has failed for more than five minutes without a break. What it should fetch waits at its source, and is \
             lost where the source does not keep it for long enough.",
            &["Do what the explanation says; the collector goes on by itself."],
        ),
        info(
            SHARED,
            "Two nodes read the same source",
            Severity::Low,
            "A bucket, a stream or log groups are in the configuration of two nodes, and each keeps for itself how far it has \
             read. Nothing counts twice, since an event has the same id on both; but all of it is fetched, and called for, twice.",
            &[
                "Keep its entry in the configuration of one node, and restart the others without it.",
            ],
        ),
    ]
}

/// The finding on a silence: the same for whoever looks, so that saying it again changes nothing.
fn finding(feed: &Feed, silence: Silence) -> Finding {
    let id = Id::of(
        "silence",
        &[&feed.key().to_bytes(), &silence.since.0.to_le_bytes()],
    );
    let wide = feed.account.is_empty() && feed.region.is_empty();
    let some = |text: &Str| (!text.is_empty()).then(|| text.clone());
    Finding {
        id,
        episode: id,
        rule_id: SILENT.into(),
        title: "A source has fallen silent".into(),
        severity: if wide {
            Severity::High
        } else {
            Severity::Medium
        },
        time: silence.noticed,
        first_event_time: silence.since,
        // Said again, it must not look like something new: an alert that a person has resolved stays so.
        last_event_time: silence.since,
        count: 1,
        revision: silence.revision,
        group: [
            ("source".into(), some(&feed.source)),
            ("account".into(), some(&feed.account)),
            ("region".into(), some(&feed.region)),
        ]
        .into(),
        source: OWN.into(),
        account: feed.account.clone(),
        region: feed.region.clone(),
        action: "SourceSilent".into(),
        tags: TAGS.map(Str::from).to_vec(),
        episodic: true,
        ..Finding::default()
    }
}

pub(super) fn silent(watched: &Watched, silence: Silence, least: i64, blind: &[Blind]) -> Finding {
    let mut text = format!(
        "Nothing has arrived from {} since {}, for {}. It counts as silent after {}.",
        watched.feed,
        silence.since,
        span(silence.said.0 - silence.since.0),
        span(watched.silent_after(least)),
    );
    let mut blind: Vec<&Blind> = blind.iter().collect();
    blind.sort_by(|a, b| (b.severity, &a.title).cmp(&(a.severity, &b.title)));
    let named: Vec<&str> = blind.iter().take(NAMED).map(|b| b.title.as_str()).collect();
    match blind.len() {
        0 => text.push_str(" No rule looks at it."),
        1 => text.push_str(&format!(
            " One rule sees nothing of it meanwhile: {}.",
            named[0]
        )),
        n if n <= NAMED => text.push_str(&format!(
            " {n} rules see nothing of it meanwhile: {}.",
            named.join("; ")
        )),
        n => text.push_str(&format!(
            " {n} rules see nothing of it meanwhile: {}; and {} more.",
            named.join("; "),
            n - NAMED
        )),
    }
    Finding {
        explanation: text.into(),
        ..finding(&watched.feed, silence)
    }
}

pub(super) fn ended(watched: &Watched, silence: Silence, again: Time) -> Finding {
    let text = format!(
        "Nothing arrived from {} from {} until {}, for {}. It has come back: what was missed then is missing unless its source delivers it late.",
        watched.feed,
        silence.since,
        again,
        span(again.0 - silence.since.0),
    );
    Finding {
        revision: silence.revision + 1,
        ended: Some(again),
        explanation: text.into(),
        ..finding(&watched.feed, silence)
    }
}

pub(super) fn failure(collector: &Collector, told: Silence, ended: Option<Time>) -> Finding {
    let since = told.since;
    let (node, kind, name) = (&collector.node, &collector.kind, &collector.name);
    let parts = [
        node.as_bytes(),
        kind.as_bytes(),
        name.as_bytes(),
        &since.0.to_le_bytes(),
    ];
    let id = Id::of("collector failing", &parts);
    let label = collector.label();
    let explanation = match ended {
        Some(at) => format!(
            "The collector {label} on {node} failed from {since} on and works again at {at}."
        ),
        None => format!(
            "The collector {label} on {node} has failed since {since} ({}): {}. What to do: {}.",
            collector.fault, collector.message, collector.hint
        ),
    };
    Finding {
        id,
        episode: id,
        rule_id: FAILING.into(),
        title: "A collector cannot read its source".into(),
        severity: Severity::Medium,
        time: since,
        first_event_time: since,
        last_event_time: since,
        count: 1,
        group: [
            ("node".into(), Some(node.clone())),
            ("collector".into(), Some(label.into())),
        ]
        .into(),
        source: OWN.into(),
        action: "CollectorFailing".into(),
        revision: told.revision + u64::from(ended.is_some()),
        ended,
        explanation: explanation.into(),
        episodic: true,
        ..Finding::default()
    }
}

/// That a collector reads what another node reads too.
pub(super) fn shared(
    collector: &Collector,
    with: &str,
    told: Silence,
    ended: Option<Time>,
) -> Finding {
    let (node, label, place) = (&collector.node, collector.label(), &collector.alone);
    let since = told.since;
    let parts = [node.as_bytes(), place.as_bytes(), &since.0.to_le_bytes()];
    let id = Id::of("collector shared", &parts);
    let explanation = match ended {
        Some(at) => format!(
            "{place} was read by two nodes, {with} and {node}, from {since} on, and is not any more at {at}."
        ),
        None => format!(
            "{place} has been read by two nodes since {since}: {with}, and {node} with its collector {label}. Each keeps for \
             itself how far it has read, so everything is fetched twice; it counts once. What to do: {SHARED_HINT}."
        ),
    };
    Finding {
        id,
        episode: id,
        rule_id: SHARED.into(),
        title: "Two nodes read the same source".into(),
        severity: Severity::Low,
        time: since,
        first_event_time: since,
        last_event_time: since,
        count: 1,
        group: [
            ("node".into(), Some(node.clone())),
            ("collector".into(), Some(label.into())),
        ]
        .into(),
        source: OWN.into(),
        action: "CollectorShared".into(),
        revision: told.revision + u64::from(ended.is_some()),
        ended,
        explanation: explanation.into(),
        episodic: true,
        ..Finding::default()
    }
}

/// A time span as people say it.
pub fn span(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    let minutes = (seconds + 30) / 60;
    let of = |n: i64, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match minutes {
        0..2 => of(seconds, "second"),
        2..120 => of(minutes, "minute"),
        120..2_880 => of((minutes + 30) / 60, "hour"),
        _ => of((minutes + 720) / 1_440, "day"),
    }
}
