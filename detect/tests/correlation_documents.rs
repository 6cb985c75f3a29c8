//! Correlation documents: what loads, what it means, and what is refused, where, and with which hint.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

use detect::error::{Problem, Weight};
use detect::item::Placeholders;
use detect::rule_set::{RuleFile, RuleSet, Target};
use detect::window::{Clause, Comparison, Condition, Measure};

/// The rules `a`, `b` and `c`, one a line each so that a correlation begins on line 5.
const BASE: &str = "{title: Rule A, name: a, id: 5638f7c0-ac70-491d-8465-2a65075e0d86, logsource: {product: aws}, detection: {sel: {a: 1}, condition: sel}}
---
{title: Rule B, name: b, logsource: {product: aws}, detection: {sel: {a: 2}, condition: sel}}
---
{title: Rule C, name: c, logsource: {product: aws}, detection: {sel: {a: 3}, condition: sel}}
---
";

fn file(documents: &str) -> RuleFile {
    RuleFile {
        path: "c.yml".into(),
        text: format!("{BASE}{documents}"),
    }
}

/// A correlation whose body begins on line 9.
fn correlation(body: &str) -> RuleFile {
    file(&format!("title: t\ncorrelation:\n{body}"))
}

fn problems(file: &RuleFile, weight: Weight) -> Vec<Problem> {
    let (_, problems) = RuleSet::check(std::slice::from_ref(file), &Placeholders::new());
    problems
        .into_iter()
        .filter(|p| p.weight == weight)
        .collect()
}

#[track_caller]
fn said(file: &RuleFile, weight: Weight, place: (usize, usize), words: &str, hint: &str) {
    let problems = problems(file, weight);
    let found = problems.iter().find(|p| p.message.contains(words));
    let found = found.unwrap_or_else(|| panic!("no `{words}` in {problems:#?}\n{}", file.text));
    let at = found.place.unwrap();
    assert_eq!((at.line, at.column), place, "{found}");
    assert!(found.hint.contains(hint), "{found}");
}

#[track_caller]
fn refused(body: &str, place: (usize, usize), words: &str, hint: &str) {
    said(&correlation(body), Weight::Error, place, words, hint);
}

#[track_caller]
fn warned(body: &str, place: (usize, usize), words: &str, hint: &str) {
    let file = correlation(body);
    said(&file, Weight::Warning, place, words, hint);
    assert!(problems(&file, Weight::Error).is_empty());
}

#[track_caller]
fn loads(body: &str) -> Condition {
    let set = RuleSet::build(&[correlation(body)], &Placeholders::new());
    let set = set.unwrap_or_else(|e| panic!("{e}"));
    set.correlations[0].condition.clone()
}

fn limits(measure: Measure, limits: &[(Comparison, f64)]) -> Condition {
    Condition {
        measure,
        limits: limits.to_vec(),
    }
}

fn clauses(ordered: bool, clauses: &[(u64, u64)]) -> Condition {
    let clause = |(with, without): &(u64, u64)| Clause {
        with: *with,
        without: *without,
    };
    Condition {
        measure: Measure::Expression {
            rules: 3,
            ordered,
            clauses: clauses.iter().map(clause).collect(),
        },
        limits: Vec::new(),
    }
}

#[test]
fn every_type_and_comparison() {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let of = |kind: &str, condition: &str| {
        loads(&format!(
            "  type: {kind}\n  rules: [a, b, c]\n  group-by: [x]\n  timespan: 5m\n  condition: {condition}\n"
        ))
    };
    assert_eq!(of("event_count", "{gte: 3}"), Condition::at_least(3));
    assert_eq!(
        of("event_count", "{gt: 100, lte: 200}"),
        limits(Measure::Events, &[(Greater, 100.0), (LessOrEqual, 200.0)])
    );
    assert_eq!(
        of("value_count", "{field: user, eq: 3}"),
        limits(Measure::Values, &[(Equal, 3.0)])
    );
    assert_eq!(
        of("value_sum", "{field: n, neq: -1.5}"),
        limits(Measure::Sum, &[(NotEqual, -1.5)])
    );
    assert_eq!(
        of("value_avg", "{lt: 500, field: n}"),
        limits(Measure::Average, &[(Less, 500.0)])
    );
    assert_eq!(
        of("value_percentile", "{field: n, gt: 1, percentile: 99}"),
        limits(Measure::Percentile(99.0), &[(Greater, 1.0)])
    );
    assert_eq!(
        of("value_median", "{field: n, gt: 1}"),
        limits(Measure::Percentile(50.0), &[(Greater, 1.0)])
    );
    assert_eq!(
        of("temporal", "{gte: 2}"),
        limits(Measure::Rules(3), &[(GreaterOrEqual, 2.0)])
    );
    assert_eq!(
        of("temporal_ordered", "{lt: 3}"),
        limits(Measure::Ordered(3), &[(Less, 3.0)])
    );
    assert_eq!(
        of("temporal_ordered", "{gt: 1}"),
        clauses(true, &[(0b011, 0), (0b101, 0), (0b110, 0)]),
        "two in order are one of three pairs"
    );
}

#[test]
fn temporal_kinds_without_condition_ask_for_all() {
    let of = |kind: &str| {
        loads(&format!(
            "  type: {kind}\n  rules: [a, b, c]\n  group-by: [x]\n  timespan: 5m\n"
        ))
    };
    let all = limits(Measure::Rules(3), &[(Comparison::GreaterOrEqual, 3.0)]);
    assert_eq!(of("temporal"), all);
    assert_eq!(of("temporal_ordered"), clauses(true, &[(0b111, 0)]));
}

#[test]
fn expressions_of_rules() {
    let of = |condition: &str| {
        loads(&format!(
            "  type: temporal\n  rules: [a, b, c]\n  group-by: [x]\n  timespan: 5m\n  condition: {condition}\n"
        ))
    };
    assert_eq!(of("a and b and c"), clauses(false, &[(0b111, 0)]));
    assert_eq!(
        of("a and (b or c)"),
        clauses(false, &[(0b011, 0), (0b101, 0)])
    );
    assert_eq!(
        of("a or b and c"),
        clauses(false, &[(0b001, 0), (0b110, 0)]),
        "and binds more"
    );
    assert_eq!(
        of("not a and b or c"),
        clauses(false, &[(0b010, 0b001), (0b100, 0)])
    );
    assert_eq!(of("a and not (b or c)"), clauses(false, &[(0b001, 0b110)]));
    assert_eq!(
        of("a and not (b and c)"),
        clauses(false, &[(0b001, 0b010), (0b001, 0b100)])
    );
    assert_eq!(
        of("a AND b or NOT c").measure,
        of("a and b or not c").measure
    );
}

#[test]
fn an_expression_names_its_rules_itself() {
    let body =
        "  type: temporal\n  group-by: [x]\n  timespan: 5m\n  condition: c and (a or not b)\n";
    let set = RuleSet::build(&[correlation(body)], &Placeholders::new()).unwrap();
    let words: Vec<&str> = set.correlations[0]
        .rules
        .iter()
        .map(|(w, _)| w.as_str())
        .collect();
    assert_eq!(words, ["c", "a", "b"], "in order of appearance");
}

#[test]
fn wrong_types_rules_and_groups() {
    let rest = "  rules: [a]\n  group-by: [x]\n  timespan: 5m\n  condition: {gte: 3}\n";
    said(
        &file("title: t\ncorrelation: 5\n"),
        Weight::Error,
        (8, 1),
        "`correlation` must be a map",
        "",
    );
    refused(
        rest,
        (8, 1),
        "`type` of the correlation is missing",
        "event_count",
    );
    refused(
        &format!("  type: event_cont\n{rest}"),
        (9, 9),
        "unknown correlation type `event_cont`",
        "`event_count`",
    );
    refused(
        &format!("  type: near\n{rest}"),
        (9, 9),
        "unknown correlation type `near`",
        "one of",
    );
    let typed = |text: &str| {
        format!("  type: event_count\n  timespan: 5m\n  condition: {{gte: 3}}\n{text}")
    };
    refused(
        &typed("  group-by: x\n"),
        (8, 1),
        "`rules` of the correlation is missing",
        "by id or name",
    );
    refused(
        &typed("  group-by: x\n  rules: []\n"),
        (8, 1),
        "`rules` of the correlation is missing",
        "",
    );
    refused(
        &typed("  group-by: x\n  rules: [a, [b]]\n"),
        (13, 14),
        "`rules` is a text or a list of texts",
        "",
    );
    refused(
        &typed("  group-by: {x: y}\n  rules: [a]\n"),
        (12, 13),
        "`group-by` is a text or a list of texts",
        "",
    );
    refused(
        &typed("  group-by: x\n  rules: [A]\n"),
        (13, 11),
        "there is no rule `A`",
        "`a`",
    );
    refused(
        &typed("  group-by: x\n  rules: [nobody_knows]\n"),
        (13, 11),
        "there is no rule `nobody_knows`",
        "the id or the name",
    );
    warned(&typed("  rules: [a]\n"), (8, 1), "one global group", "");
    warned(
        &typed("  group-by: x\n  rules: [a, b, a]\n"),
        (13, 17),
        "rule `a` is named twice",
        "",
    );
    warned(
        &typed("  group-by: x\n  rules: [Rule B]\n"),
        (13, 11),
        "referred to by its title",
        "`id` or `name`",
    );
}

#[test]
fn wrong_timespans_keys_and_switches() {
    let with = |text: &str| {
        format!(
            "  type: event_count\n  rules: [a]\n  group-by: [x]\n  condition: {{gte: 3}}\n{text}"
        )
    };
    refused(
        &with(""),
        (8, 1),
        "`timespan` of the correlation is missing",
        "10m",
    );
    for (text, words) in [
        ("5 parsecs", "unknown unit"),
        ("5M", "unknown unit"),
        ("5w", "unknown unit"),
        ("m", "not a number and a unit"),
        ("-5m", "not a number and a unit"),
        ("+5m", "not a number and a unit"),
        ("1h30m", "not a number and a unit"),
        ("0s", "must be more than nothing"),
        ("3650d", "longer than a year"),
        ("99999999999999999d", "longer than a year"),
    ] {
        refused(
            &with(&format!("  timespan: {text}\n")),
            (13, 13),
            words,
            "`s`, `m`, `h` or `d`",
        );
    }
    let with = |text: &str| with(&format!("  timespan: 5m\n{text}"));
    refused(
        &with("  generate: maybe\n"),
        (14, 13),
        "`generate` is",
        "`true` or `false`",
    );
    refused(
        &with("  timeframe: 5m\n"),
        (14, 3),
        "unknown key `timeframe`",
        "`timespan`",
    );
    refused(
        &with("  group_by: [x]\n"),
        (14, 3),
        "unknown key `group_by`",
        "`group-by`",
    );
    refused(
        &with("  alias: {}\n"),
        (14, 3),
        "unknown key `alias`",
        "`aliases`",
    );
    warned(
        &with("  reviewed_by: somebody\n"),
        (14, 3),
        "unknown key `reviewed_by`",
        "",
    );
    refused(
        &with("  aliases: [x]\n"),
        (14, 12),
        "`aliases` must be a map",
        "{rule: field",
    );
    refused(
        &with("  aliases: {x: y}\n"),
        (14, 16),
        "an alias is a map from rule to field",
        "{rule: field",
    );
    refused(
        &with("  aliases: {x: {a: [y]}}\n"),
        (14, 20),
        "an alias names one field",
        "{rule: field",
    );
    refused(
        &with("  aliases: {x: {d: y}}\n"),
        (7, 1),
        "`d`, which is not among the rules",
        "",
    );
}

#[test]
fn wrong_conditions() {
    let of = |kind: &str, condition: &str| {
        format!(
            "  type: {kind}\n  rules: [a, b, c]\n  group-by: [x]\n  timespan: 5m\n  condition: {condition}\n"
        )
    };
    let missing = "  type: value_sum\n  rules: [a]\n  group-by: [x]\n  timespan: 5m\n";
    refused(
        missing,
        (8, 1),
        "`condition` of the correlation is missing",
        "gte: 5",
    );
    refused(
        &of("event_count", "[5]"),
        (13, 14),
        "the condition is a map",
        "",
    );
    refused(
        &of("event_count", "a and b"),
        (13, 14),
        "the condition of event_count is a map",
        "temporal",
    );
    refused(
        &of("event_count", "{}"),
        (13, 14),
        "compares nothing",
        "`gte`",
    );
    refused(
        &of("event_count", "{gtee: 5}"),
        (13, 15),
        "unknown condition `gtee`",
        "`gte`",
    );
    for wrong in ["x", "-1", "1.5", "1000001", "[5]", "1e30"] {
        refused(
            &of("event_count", &format!("{{gte: {wrong}}}")),
            (13, 20),
            "needs a whole number",
            "",
        );
    }
    for wrong in ["x", "[5]", "nan", ".inf"] {
        refused(
            &of("value_sum", &format!("{{field: n, gt: {wrong}}}")),
            (13, 29),
            "needs a number",
            "",
        );
    }
    refused(
        &of("event_count", "{gte: 0}"),
        (13, 14),
        "always true",
        "gte: 5",
    );
    refused(&of("event_count", "{neq: 0}"), (13, 14), "always true", "");
    refused(
        &of("value_count", "{field: u, gte: 0}"),
        (13, 14),
        "always true",
        "",
    );
    refused(
        &of("event_count", "{lt: 1}"),
        (13, 14),
        "never be true",
        "contradict",
    );
    refused(
        &of("event_count", "{gt: 5, lt: 6}"),
        (13, 14),
        "never be true",
        "contradict",
    );
    refused(
        &of("event_count", "{eq: 5, neq: 5}"),
        (13, 14),
        "never be true",
        "",
    );
    refused(&of("temporal", "{gte: 4}"), (13, 14), "never be true", "");
    refused(
        &of("temporal_ordered", "{gt: 3}"),
        (13, 14),
        "never be true",
        "",
    );
    warned(&of("temporal", "{gte: 1}"), (13, 14), "always true", "");
    warned(
        &of("event_count", "{gte: 5, field: x}"),
        (13, 23),
        "event_count has no `field`",
        "",
    );
    warned(
        &of("temporal", "{gte: 2, field: x}"),
        (13, 23),
        "temporal has no `field`",
        "",
    );
    for kind in [
        "value_count",
        "value_sum",
        "value_avg",
        "value_percentile",
        "value_median",
    ] {
        refused(
            &of(kind, "{gte: 5}"),
            (13, 14),
            &format!("{kind} needs a `field`"),
            "{field: user, gte: 5}",
        );
    }
    refused(
        &of("value_sum", "{gte: 5, field: [x, y]}"),
        (13, 14),
        "value_sum has one `field`",
        "value_count",
    );
    refused(
        &of("value_count", "{gte: 5, field: {x: y}}"),
        (13, 30),
        "`field` is a text or a list",
        "",
    );
    refused(
        &of("value_percentile", "{gte: 5, field: x, percentile: 101}"),
        (13, 45),
        "from 0 to 100",
        "95",
    );
    refused(
        &of("value_median", "{gte: 5, field: x, percentile: 10}"),
        (13, 33),
        "value_median has no `percentile`",
        "value_percentile",
    );
    warned(
        &of("value_percentile", "{gte: 5, field: x}"),
        (13, 14),
        "the median is taken",
        "95",
    );
}

#[test]
fn wrong_expressions() {
    let of = |condition: &str| {
        format!(
            "  type: temporal\n  rules: [a, b, c]\n  group-by: [x]\n  timespan: 5m\n  condition: {condition}\n"
        )
    };
    refused(&of("a and and b"), (13, 20), "there is no rule `and`", "");
    refused(&of("a and"), (13, 19), "ends where a rule is expected", "");
    refused(&of("(a and b and c"), (13, 14), "not closed", "");
    refused(&of("a b c"), (13, 16), "unexpected `b`", "`and`");
    refused(
        &of("a and b and other"),
        (13, 26),
        "there is no rule `other`",
        "`a`, `b`, `c`",
    );
    refused(
        &of("a and b"),
        (10, 17),
        "does not name rule `c`",
        "take it off `rules`",
    );
    refused(&of("not (a or b or c)"), (13, 14), "never be true", "");
    let many = (0..9)
        .map(|_| "(a or b or c)")
        .collect::<Vec<_>>()
        .join(" and ");
    loads(&of(&many));
    let rules: Vec<String> = (0..65).map(|n| format!("r{n}")).collect();
    let body = format!(
        "  type: temporal\n  rules: [{}]\n  group-by: [x]\n  timespan: 5m\n",
        rules.join(", ")
    );
    refused(&body, (10, 321), "at most 64 rules", "split it");
    let pairs = (0..9)
        .map(|n| format!("(p{n} or q{n})"))
        .collect::<Vec<_>>()
        .join(" and ");
    let body = format!("  type: temporal\n  group-by: [x]\n  timespan: 5m\n  condition: {pairs}\n");
    refused(&body, (12, 14), "more than 256 alternatives", "split");
}

/// A correlation of these rules and correlations.
fn of(name: &str, rules: &str, rest: &str) -> String {
    format!(
        "---\ntitle: Correlation {name}\nname: {name}\ncorrelation:\n  type: event_count\n  rules: [{rules}]\n  group-by: [x]\n  timespan: 5m\n  condition: {{gte: 3}}\n{rest}"
    )
}

fn chain(documents: &[String]) -> RuleFile {
    file(documents.concat().trim_start_matches("---\n"))
}

#[test]
fn chains_have_levels_and_circles_are_refused_with_both_names() {
    let built = chain(&[of("x", "a, y", ""), of("y", "b, z", ""), of("z", "c", "")]);
    let set = RuleSet::build(&[built], &Placeholders::new()).unwrap();
    assert_eq!(
        set.references[0],
        [
            (Target::Rule(0), "a".into()),
            (Target::Correlation(1), "y".into())
        ]
    );
    let levels: Vec<u32> = detect::correlations::of(&set)
        .iter()
        .map(|c| c.chain.level)
        .collect();
    assert_eq!(levels, [2, 1, 0]);

    let circle = chain(&[of("x", "y", ""), of("y", "z", ""), of("z", "x", "")]);
    let words = "`Correlation x` refers to `Correlation y`, which refers back to it";
    said(&circle, Weight::Error, (11, 11), words, "remove one");
    let own = chain(&[of("x", "a, x", "")]);
    said(
        &own,
        Weight::Error,
        (11, 14),
        "`Correlation x` refers to itself",
        "remove one",
    );
}

#[test]
fn what_is_referred_to_is_silent_unless_somebody_generates_it() {
    let generates = |documents: &[String]| {
        let set = RuleSet::build(&[chain(documents)], &Placeholders::new()).unwrap();
        (set.generates, set.correlation_generates)
    };
    let check = |upper: &str, lower: &str, rules: [bool; 3], correlations: [bool; 2]| {
        let found = generates(&[of("x", "a, y", upper), of("y", "b", lower)]);
        assert_eq!(found, (rules.to_vec(), correlations.to_vec()));
    };
    let yes = "  generate: true\n";
    check("", "", [false, false, true], [true, false]);
    check(yes, "", [true, false, true], [true, true]);
    check("", yes, [false, true, true], [true, false]);
    // As old documents have it, beside the correlation.
    check("", "generate: true\n", [false, true, true], [true, false]);
}

#[test]
fn rules_are_named_by_id_by_name_and_across_files() {
    let by = |word: &str| RuleFile {
        path: "other.yml".into(),
        text: format!(
            "title: t\ncorrelation:\n  type: event_count\n  rules: {word}\n  group-by: x\n  timespan: 5m\n  condition: {{gte: 3}}\n"
        ),
    };
    let base = || RuleFile {
        path: "base.yml".into(),
        text: BASE.trim_end_matches("---\n").into(),
    };
    for word in ["5638f7c0-ac70-491d-8465-2a65075e0d86", "a", "[a]", "['a']"] {
        let set = RuleSet::build(&[by(word), base()], &Placeholders::new()).unwrap();
        assert_eq!(set.references[0][0].0, Target::Rule(0));
        assert!(set.warnings.is_empty());
        assert_eq!(set.correlations[0].group_by, ["x"]);
    }
}

/// The complete example at the end of the specification, as it stands there.
#[test]
fn the_example_of_the_specification_is_a_chain() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/corpus/sigma-spec/specification/sigma-correlation-rules-specification.md"
    );
    // The corpus lies beside the checkout, or it is not there.
    let Ok(specification) = std::fs::read_to_string(path) else {
        return;
    };
    let blocks = specification
        .split("```")
        .filter_map(|b| b.strip_prefix("yml\n"));
    let mut whole = blocks.filter(|b| b.starts_with("title: Correlation - Multiple"));
    let file = RuleFile {
        path: "example.yml".into(),
        text: whole.next().unwrap().into(),
    };
    let set = RuleSet::build(&[file], &Placeholders::new()).unwrap_or_else(|e| panic!("{e}"));
    let correlations = detect::correlations::of(&set);
    let (upper, lower) = (&correlations[0], &correlations[1]);
    assert_eq!((upper.chain.level, lower.chain.level), (1, 0));
    assert_eq!((upper.chain.silent, lower.chain.silent), (false, true));
    assert_eq!(lower.chain.uppers[0].rule_id, upper.rule_id);
    assert_eq!(lower.condition, Condition::at_least(10));
    assert_eq!(set.generates, [false, false]);
}
