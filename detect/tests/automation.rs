//! Automation: quiet from where it belongs, loud from elsewhere, nobody else's business.

use detect::engine::{Engine, Scratch};
use detect::item::Placeholders;
use detect::rule_set::{RuleFile, RuleSet};
use event::{Event, Finding, Id, Severity};

const DOCUMENT: &str = "\
title: Terraform acts from elsewhere than its runners
id: 0b9f0f4e-7f6a-4b83-9a55-1f0e5ad3c101
name: terraform
automation:
  roles: ['arn:aws:iam::*:role/terraform-runner', 'arn:aws:iam::111122223333:user/deploy']
  networks: [203.0.113.0/28, '2001:db8::/32']
  user-agents: ['*Terraform/*']
";

const RULES: &str = "\
title: Trail stopped
name: stopped
logsource: {product: aws}
detection: {sel: {action: StopLogging}, condition: sel}
level: medium
---
title: Trail deleted
logsource: {product: aws}
detection: {sel: {action: StopLogging}, condition: sel}
level: critical
---
title: Many
correlation: {type: event_count, rules: [stopped], group-by: [account], timespan: 5m, condition: {gte: 2}, generate: true}
";

fn check(document: &str) -> (RuleSet, Vec<String>) {
    let file = |path: &str, text: &str| RuleFile {
        path: path.into(),
        text: text.into(),
    };
    let files = [file("a.yml", document), file("r.yml", RULES)];
    let (set, problems) = RuleSet::check(&files, &Placeholders::new());
    (
        set,
        problems
            .into_iter()
            .map(|p| format!("{} {}", p.message, p.hint))
            .collect(),
    )
}

fn event(issuer: &str, actor_id: &str, src_ip: &str, user_agent: &str) -> Event {
    Event {
        id: Id(1),
        source: "aws.cloudtrail".into(),
        action: "StopLogging".into(),
        issuer: issuer.into(),
        actor_id: actor_id.into(),
        src_ip: src_ip.into(),
        user_agent: user_agent.into(),
        raw: b"{}".as_slice().into(),
        ..Event::default()
    }
}

/// Titles and severities of all findings, the labels of the first, and how many correlations count the event.
fn findings(event: &Event) -> (Vec<(String, Severity)>, Vec<String>, usize) {
    let engine = Engine::new(&check(DOCUMENT).0);
    let mut scratch = Scratch::new();
    let found: Vec<Finding> = engine
        .matches(event, None, &mut scratch)
        .iter()
        .map(|rule| engine.finding(*rule, event))
        .collect();
    let counted = engine.correlation_matches(event, None, &mut scratch).len();
    let labels = found[0].labels.iter().map(|(k, v)| format!("{k}={v}"));
    let shown = found.iter().map(|f| (f.title.to_string(), f.severity));
    (shown.collect(), labels.collect(), counted)
}

const ROLE: &str = "arn:aws:iam::999900001111:role/terraform-runner";
const SESSION: &str = "arn:aws:sts::999900001111:assumed-role/terraform-runner/run-7";
const AGENT: &str = "APN/1.0 HashiCorp/1.0 Terraform/1.9.5";

#[test]
fn expected_is_quiet_unexpected_is_loud() {
    use Severity::{Critical, High, Informational, Medium};
    let (found, labels, counted) = findings(&event(ROLE, SESSION, "203.0.113.7", AGENT));
    assert_eq!(
        found,
        [
            ("Trail stopped".into(), Informational),
            ("Trail deleted".into(), Critical)
        ]
    );
    assert_eq!(
        labels,
        ["automation=terraform", "automation_origin=expected"]
    );
    assert_eq!(counted, 0);
    for (ip, agent) in [
        ("198.51.100.7", AGENT),
        ("203.0.113.7", "aws-cli/2.22"),
        ("203.0.113.77", AGENT),
    ] {
        let (found, labels, counted) = findings(&event(ROLE, SESSION, ip, agent));
        let expected = [
            (
                "Terraform acts from elsewhere than its runners".into(),
                High,
            ),
            ("Trail stopped".into(), High),
            ("Trail deleted".into(), Critical),
        ];
        assert_eq!(found, expected, "{ip} {agent}");
        assert_eq!(
            labels,
            ["automation=terraform", "automation_origin=unexpected"]
        );
        assert_eq!(counted, 1);
    }
    // A user may be an automation too, and an address of the other kind belongs as well.
    let user = "arn:aws:iam::111122223333:user/deploy";
    let (found, ..) = findings(&event("", user, "2001:db8::7", AGENT));
    assert_eq!(found[0], ("Trail stopped".into(), Informational));
    // Another role, and a service that acts for the role: as ever.
    let other = "arn:aws:iam::999900001111:role/terraform-runner-2";
    for event in [
        event(other, "", "198.51.100.7", AGENT),
        event(
            ROLE,
            SESSION,
            "cloudformation.amazonaws.com",
            "cloudformation.amazonaws.com",
        ),
        event(ROLE, SESSION, "AWS Internal", ""),
        event(ROLE, SESSION, "", AGENT),
    ] {
        let (found, labels, counted) = findings(&event);
        assert_eq!(
            found,
            [
                ("Trail stopped".into(), Medium),
                ("Trail deleted".into(), Critical)
            ]
        );
        assert_eq!((labels.len(), counted), (0, 1));
    }
}

#[test]
fn what_is_refused() {
    assert_eq!(check(DOCUMENT).1, [""; 0]);
    for (from, to, words) in [
        (
            "  networks: [203.0.113.0/28, '2001:db8::/32']\n",
            "",
            "`networks` of the automation is missing such as `203.0.113.0/28`: the name of a program alone can be forged",
        ),
        ("203.0.113.0/28", "somewhere", "`somewhere` is no network"),
        (
            "  networks:",
            "  network:",
            "unknown part `network` of `automation` did you mean `networks`?",
        ),
        (
            "  user-agents:",
            "  lower-to: quiet\n  user-agents:",
            "unknown level `quiet`",
        ),
        (
            "  roles: ['arn:aws:iam::*:role/terraform-runner', 'arn:aws:iam::111122223333:user/deploy']\n",
            "",
            "`roles` of the automation is missing",
        ),
    ] {
        assert!(DOCUMENT.contains(from), "{from}");
        let (_, problems) = check(&DOCUMENT.replace(from, to));
        assert!(
            problems.iter().any(|p| p.contains(words)),
            "{words}\n{problems:?}"
        );
    }
}
