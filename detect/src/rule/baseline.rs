//! Baseline documents: which metric, in which buckets, and what is too small to be said (DESIGN §5.3).

use super::correlation::{generate, list, once, timespan};
use super::{BaselineRule, SeriesTest, Stretch, expected, info};
use crate::baseline::{AtLeast, Direction, Params, SeasonLength};
use crate::error::{Mistake, nearest};
use crate::meter::{Cell, MINUTE};
use crate::tracker::{Measured, Metric, New, Rate, Subject};
use crate::yaml::{Node, Place, Yaml};

/// How something is judged that is measured.
const MODEL_KEYS: &[&str] = &[
    "bucket",
    "season",
    "direction",
    "at-least",
    "false-alarms",
    "slow",
];

const NEW_KEYS: &[&str] = &["new", "rules", "group-by", "generate", "learn", "usual"];

/// What may stand in a stretch of a test, for functions and for matches.
const STRETCH_KEYS: &[&str] = &[
    "for",
    "doubles-every",
    "invocations",
    "errors",
    "timeouts",
    "duration_ms",
    "billed_mb_ms",
];
const MATCHES_KEYS: &[&str] = &["for", "doubles-every", "matches"];

/// What functions are told apart by.
const GROUP: &[&str] = &["account", "region", "function"];

pub(super) fn baseline(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<BaselineRule> {
    let mut info = info(node, mistakes);
    let (key, body) = node.entry("baseline")?;
    let Yaml::Map(entries) = &body.yaml else {
        mistakes.push(Mistake::new(
            key.place,
            format!("`baseline` must be a map, this is {}", body.kind()),
        ));
        return None;
    };
    let watches = body.get("new").is_some();
    let counts = !watches && body.get("rules").is_some();
    let keys = match (watches, counts) {
        (true, _) => NEW_KEYS.to_vec(),
        (_, true) => [&["rules", "group-by", "generate"], MODEL_KEYS].concat(),
        _ => [&["metric", "group-by"], MODEL_KEYS].concat(),
    };
    known(entries, &keys, mistakes);
    info.correlation = Some("baseline".into());
    if watches {
        let event_tests = super::tests(node, mistakes);
        let (new, rules) = new(body, key, mistakes);
        return Some(BaselineRule {
            info,
            subject: Subject::New(new),
            rules,
            generate: generate(body, node, mistakes),
            tests: Vec::new(),
            event_tests,
            place: node.place,
        });
    }
    let keys = if counts { MATCHES_KEYS } else { STRETCH_KEYS };
    let tests = tests(node, keys, mistakes);
    let params = params(body, mistakes);
    if let Err(error) = params.check() {
        mistakes.push(Mistake::new(key.place, error.to_string()));
    }
    let (subject, rules) = if counts {
        let group_by = names(body, "group-by", GROUP_HINT, key, mistakes);
        let measured = Measured {
            metric: Metric::Matches,
            params,
        };
        let rate = Rate {
            group_by: texts(group_by),
            measured,
        };
        let rules = names(body, "rules", RULES_HINT, key, mistakes);
        (Subject::Rate(rate), rules)
    } else {
        group_by(body, mistakes);
        let metric = metric(body, key, mistakes)?;
        let measured = Measured { metric, params };
        (Subject::Metric(measured), Vec::new())
    };
    Some(BaselineRule {
        info,
        subject,
        rules,
        generate: generate(body, node, mistakes),
        tests,
        event_tests: Vec::new(),
        place: node.place,
    })
}

/// A key that is not known is a mistake: it would be without effect.
fn known(entries: &[(Node, Node)], keys: &[&str], mistakes: &mut Vec<Mistake>) {
    for (key, _) in entries {
        let name = key.scalar().unwrap_or_default();
        if !keys.contains(&name.as_str()) {
            let hint = nearest(&name, keys.iter().copied()).map_or_else(
                || format!("it has {}", keys.join(", ")),
                |n| format!("did you mean `{n}`?"),
            );
            mistakes.push(Mistake::new(key.place, format!("unknown key `{name}`")).hint(hint));
        }
    }
}

/// Which values of which rules' events are watched.
fn new(body: &Node, key: &Node, mistakes: &mut Vec<Mistake>) -> (New, Vec<(String, Place)>) {
    let hint = "the fields whose values are watched, such as `new: [sourceIPAddress]`";
    let fields = names(body, "new", hint, key, mistakes);
    let group_by = names(body, "group-by", GROUP_HINT, key, mistakes);
    let rules = names(body, "rules", RULES_HINT, key, mistakes);
    let learn = match body.get("learn") {
        None => 24 * 3_600_000_000,
        Some(found) => {
            let text = found.scalar().unwrap_or_default();
            timespan(&text).unwrap_or_else(|why| {
                let message = format!("learn: {why}");
                mistakes.push(Mistake::new(found.place, message).hint("such as `learn: 24h`"));
                0
            })
        }
    };
    let usual = match body.get("usual") {
        None => 10,
        Some(found) => {
            let number = found.scalar().and_then(|text| text.parse().ok());
            number
                .filter(|n| (1..=1_000).contains(n))
                .unwrap_or_else(|| {
                    let message = "`usual` must be a whole number from 1 to 1,000";
                    mistakes.push(Mistake::new(found.place, message));
                    10
                })
        }
    };
    let new = New {
        fields: texts(fields),
        group_by: texts(group_by),
        learn,
        usual,
    };
    (new, rules)
}

const GROUP_HINT: &str = "whose events they are, such as `group-by: [userIdentity.arn]`";
const RULES_HINT: &str = "the rules whose events are watched, by id or name";

/// One text or a list of them, at least one.
fn names(
    body: &Node,
    name: &str,
    hint: &str,
    key: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Vec<(String, Place)> {
    let mut found = list(body, name, mistakes);
    if name == "rules" {
        once(&mut found, mistakes);
    }
    if found.is_empty() {
        let message = format!("`{name}` of the baseline is missing");
        mistakes.push(Mistake::new(key.place, message).hint(hint));
    }
    found
}

fn texts(list: Vec<(String, Place)>) -> Vec<String> {
    list.into_iter().map(|(text, _)| text).collect()
}

fn metric(body: &Node, key: &Node, mistakes: &mut Vec<Mistake>) -> Option<Metric> {
    let names = Metric::NAMES.iter().map(|(name, _)| *name);
    let Some(found) = body.get("metric") else {
        mistakes.push(
            Mistake::new(key.place, "`metric` of the baseline is missing").hint(format!(
                "one of {}; or `rules`, whose matches are counted",
                names.collect::<Vec<_>>().join(", ")
            )),
        );
        return None;
    };
    let text = found.scalar().unwrap_or_default();
    let known = Metric::NAMES.iter().find(|(name, _)| *name == text);
    if known.is_none() {
        let hint = nearest(&text, names.clone()).map_or_else(
            || format!("one of {}", names.collect::<Vec<_>>().join(", ")),
            |n| format!("did you mean `{n}`?"),
        );
        mistakes.push(Mistake::new(found.place, format!("unknown metric `{text}`")).hint(hint));
    }
    known.map(|(_, metric)| *metric)
}

/// The metrics of functions are by function; to say so is good form, anything else cannot be run.
fn group_by(body: &Node, mistakes: &mut Vec<Mistake>) {
    let Some(found) = body.get("group-by") else {
        return;
    };
    let fields: Vec<String> = match &found.yaml {
        Yaml::List(items) => items.iter().filter_map(Node::scalar).collect(),
        _ => found.scalar().into_iter().collect(),
    };
    let by_function = fields.iter().any(|f| f == "function");
    if !by_function || fields.iter().any(|f| !GROUP.contains(&f.as_str())) {
        mistakes.push(
            Mistake::new(found.place, "the metrics of functions are kept by function")
                .hint("write `group-by: [account, region, function]`, or leave it out"),
        );
    }
}

fn params(body: &Node, mistakes: &mut Vec<Mistake>) -> Params {
    let mut params = Params::default();
    if let Some(found) = body.get("bucket") {
        match timespan(&found.scalar().unwrap_or_default()) {
            Ok(bucket) => params.bucket = bucket,
            Err(why) => mistakes.push(
                Mistake::new(found.place, format!("bucket: {why}")).hint("such as `bucket: 5m`"),
            ),
        }
    }
    params.season = word(
        body,
        "season",
        params.season,
        mistakes,
        &[
            ("week", SeasonLength::Week),
            ("day", SeasonLength::Day),
            ("none", SeasonLength::None),
        ],
    );
    params.direction = word(
        body,
        "direction",
        params.direction,
        mistakes,
        &[
            ("above", Direction::Above),
            ("below", Direction::Below),
            ("both", Direction::Both),
        ],
    );
    if let Some(found) = body.get("at-least") {
        params.at_least = at_least(found, params.at_least, mistakes);
    }
    if let Some(found) = body.get("false-alarms") {
        match false_alarms(&found.scalar().unwrap_or_default()) {
            Some(budget) => params.false_alarms = budget,
            None => mistakes.push(
                Mistake::new(found.place, "`false-alarms` cannot be read")
                    .hint("write `false-alarms: 1 per 1000 series per day`"),
            ),
        }
    }
    if let Some(found) = body.get("slow") {
        params.slow = number(found, "slow", params.slow, mistakes);
    }
    params
}

fn word<T: Copy>(
    body: &Node,
    key: &str,
    default: T,
    mistakes: &mut Vec<Mistake>,
    words: &[(&str, T)],
) -> T {
    let Some(found) = body.get(key) else {
        return default;
    };
    let text = found.scalar().unwrap_or_default();
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return *value;
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    mistakes.push(
        Mistake::new(found.place, format!("`{key}: {text}` is not known"))
            .hint(format!("one of {}", known.join(", "))),
    );
    default
}

fn at_least(found: &Node, default: AtLeast, mistakes: &mut Vec<Mistake>) -> AtLeast {
    let mut at_least = default;
    let Yaml::Map(entries) = &found.yaml else {
        mistakes.push(
            Mistake::new(found.place, "`at-least` must be a map")
                .hint("such as `at-least: {count: 20, ratio: 2}`"),
        );
        return at_least;
    };
    for (key, value) in entries {
        match key.scalar().unwrap_or_default().as_str() {
            "count" => at_least.count = number(value, "count", at_least.count, mistakes),
            "ratio" => at_least.ratio = number(value, "ratio", at_least.ratio, mistakes),
            other => mistakes.push(
                Mistake::new(key.place, format!("`at-least` has no `{other}`"))
                    .hint("it has `count` and `ratio`"),
            ),
        }
    }
    at_least
}

fn number(found: &Node, key: &str, default: f64, mistakes: &mut Vec<Mistake>) -> f64 {
    let number = found.scalar().and_then(|text| text.parse::<f64>().ok());
    match number.filter(|n| n.is_finite()) {
        Some(number) => number,
        None => {
            mistakes.push(Mistake::new(
                found.place,
                format!("`{key}` must be a number"),
            ));
            default
        }
    }
}

/// The tests of a baseline: stretches of time with so many invocations or matches a minute.
fn tests(node: &Node, keys: &[&str], mistakes: &mut Vec<Mistake>) -> Vec<SeriesTest> {
    let Some((key, list)) = node.entry("tests") else {
        return Vec::new();
    };
    let Yaml::List(items) = &list.yaml else {
        mistakes.push(Mistake::new(key.place, "`tests` must be a list"));
        return Vec::new();
    };
    let mut tests = Vec::new();
    for item in items {
        let name = item
            .get("name")
            .and_then(Node::scalar)
            .unwrap_or_else(|| format!("test on line {}", item.place.line));
        let Some(Node {
            yaml: Yaml::List(stretches),
            ..
        }) = item.get("series")
        else {
            mistakes.push(
                Mistake::new(item.place, "a test of a baseline needs a list `series`")
                    .hint("such as `- {for: 9d, invocations: 10}`, invocations a minute; `matches` where rules are counted"),
            );
            continue;
        };
        let series: Vec<Stretch> = stretches
            .iter()
            .map(|n| stretch(n, keys, mistakes))
            .collect();
        if let Some(expect) = expected(item, mistakes) {
            tests.push(SeriesTest {
                name,
                series,
                expect,
                place: item.place,
            });
        }
    }
    tests
}

fn stretch(node: &Node, keys: &[&str], mistakes: &mut Vec<Mistake>) -> Stretch {
    if let Yaml::Map(entries) = &node.yaml {
        known(entries, keys, mistakes);
    }
    let length = node.get("for").and_then(Node::scalar).unwrap_or_default();
    let minutes = match timespan(&length) {
        Ok(length) => length / MINUTE,
        Err(why) => {
            mistakes.push(
                Mistake::new(node.place, format!("`for` of a stretch: {why}"))
                    .hint("such as `for: 9d`"),
            );
            0
        }
    };
    let mut whole = |name: &str| -> u64 {
        let found = node.get(name);
        let number = found.map(|n| n.scalar().and_then(|text| text.parse().ok()));
        if let (Some(None), Some(found)) = (number, found) {
            let message = format!("`{name}` must be a whole number, a minute's");
            mistakes.push(Mistake::new(found.place, message));
        }
        number.flatten().unwrap_or(0)
    };
    let invocations = whole("invocations");
    Stretch {
        minutes,
        grows: whole("doubles-every"),
        cell: Cell {
            starts: invocations,
            reports: invocations,
            failed: whole("errors"),
            timed_out: whole("timeouts"),
            timed: invocations,
            duration: invocations
                .saturating_mul(whole("duration_ms"))
                .saturating_mul(1_000),
            billed: invocations.saturating_mul(whole("billed_mb_ms")),
            matches: whole("matches"),
            ..Cell::default()
        },
    }
}

/// `N per M series per day`, as a number per 1,000 series and day.
fn false_alarms(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (many, series) = match words[..] {
        [many] => (many, "1000"),
        [many, "per", series, "series", "per", "day"] => (many, series),
        _ => return None,
    };
    let (many, series) = (many.parse::<f64>().ok()?, series.parse::<f64>().ok()?);
    (series >= 1.0).then(|| many / series * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<BaselineRule, String> {
        let text = format!(
            "title: t\nid: 0f3a2b1c-0000-4000-8000-000000000001\nlevel: high\nbaseline:\n{body}"
        );
        let documents = crate::yaml::documents(&text).unwrap();
        let mut mistakes = Vec::new();
        let rule = baseline(&documents[0], &mut mistakes);
        let errors = mistakes
            .iter()
            .filter(|m| m.weight == crate::error::Weight::Error);
        let errors: Vec<String> = errors.map(|m| m.message.clone()).collect();
        match rule {
            Some(rule) if errors.is_empty() => Ok(rule),
            _ => Err(errors.join("; ")),
        }
    }

    #[test]
    fn a_document_as_the_design_has_it() {
        let rule = read(
            "  metric: function.invocations\n  group-by: [account, region, function]\n  bucket: 10m\n  season: day\n  \
             direction: both\n  at-least: {count: 30, ratio: 3}\n  false-alarms: 2 per 500 series per day\n",
        )
        .unwrap();
        let Subject::Metric(rule) = rule.subject else {
            panic!("it is one of a metric");
        };
        assert_eq!(rule.metric, Metric::Invocations);
        assert_eq!(rule.params.bucket, 600_000_000);
        assert_eq!(rule.params.season, SeasonLength::Day);
        assert_eq!(rule.params.direction, Direction::Both);
        assert_eq!(
            (rule.params.at_least.count, rule.params.at_least.ratio),
            (30.0, 3.0)
        );
        assert_eq!(rule.params.false_alarms, 4.0);
    }

    #[test]
    fn rules_are_counted_by_group() {
        let rule = read(
            "  rules: [a, b]\n  group-by: [userIdentity.arn]\n  bucket: 10m\n  generate: true\n",
        )
        .unwrap();
        let Subject::Rate(rate) = rule.subject else {
            panic!("it counts rules");
        };
        assert_eq!(rate.group_by, ["userIdentity.arn"]);
        assert_eq!(rate.measured.metric, Metric::Matches);
        assert_eq!(rate.measured.params.bucket, 600_000_000);
        assert!(rule.generate);
        let words: Vec<&str> = rule.rules.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(words, ["a", "b"]);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let check = |body: &str, expected: &str| {
            let refused = read(body).unwrap_err();
            assert!(refused.contains(expected), "{body}: {refused}");
        };
        check("  bucket: 5m\n", "`metric` of the baseline is missing");
        check("  metric: function.invocation\n", "unknown metric");
        check(
            "  metric: function.errors\n  bucket: 7m\n",
            "a bucket must be",
        );
        check(
            "  metric: function.errors\n  bucket: soon\n",
            "bucket: not a number",
        );
        check(
            "  metric: function.errors\n  season: year\n",
            "`season: year` is not known",
        );
        check(
            "  metric: function.errors\n  group-by: [src_ip]\n",
            "kept by function",
        );
        check(
            "  metric: function.errors\n  at-least: {counts: 3}\n",
            "`at-least` has no `counts`",
        );
        check(
            "  metric: function.errors\n  at-least: {ratio: many}\n",
            "must be a number",
        );
        check(
            "  metric: function.errors\n  false-alarms: few\n",
            "`false-alarms` cannot be read",
        );
        check("  rules: [a]\n", "`group-by` of the baseline is missing");
        check(
            "  rules: [a]\n  group-by: [b]\n  metric: function.errors\n",
            "unknown key `metric`",
        );
        check(
            "  rules: [a]\n  group-by: [b]\ntests:\n  - name: n\n    series: [{for: 1d, invocations: 3}]\n    expect: match\n",
            "unknown key `invocations`",
        );
        check(
            "  rules: [a]\n  group-by: [b]\n  generate: perhaps\n",
            "`generate` is a text",
        );
        check(
            "  metric: function.errors\n  windows: 3\n",
            "unknown key `windows`",
        );
    }
}
