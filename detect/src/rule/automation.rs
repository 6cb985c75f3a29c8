//! Automation documents: a role, where it belongs, and the rule that says when it acts from elsewhere.
//!
//! The document becomes two things: an [`Automation`], by which the engine recognises events, and an ordinary rule,
//! written in the same terms as any other (`issuer`, `actor_id`, `src_ip`, `user_agent`), so that it is tested, listed,
//! explained and folded like any other.

use event::Severity;
use ipnet::IpNet;

use super::{Logsource, Rule, Selection, info, tests, texts};
use crate::automation::Automation;
use crate::condition::Condition;
use crate::error::{Mistake, nearest};
use crate::item::{self, Placeholders};
use crate::pattern::{Pattern, Text};
use crate::yaml::{Node, Place, Yaml};

const KEYS: [&str; 4] = ["roles", "networks", "user-agents", "lower-to"];

/// What is recognised, and the rule about its being elsewhere.
pub(super) fn automation(node: &Node, mistakes: &mut Vec<Mistake>) -> Option<(Automation, Rule)> {
    let (key, body) = node.entry("automation")?;
    let mut info = info(node, mistakes);
    if node.get("level").is_none() {
        info.severity = Severity::High;
    }
    let Yaml::Map(entries) = &body.yaml else {
        let message = format!("`automation` must be a map, this is {}", body.kind());
        mistakes.push(Mistake::new(key.place, message));
        return None;
    };
    for (word, _) in entries {
        let text = word.scalar().unwrap_or_default();
        if !KEYS.contains(&text.as_str()) {
            let hint = nearest(&text, KEYS)
                .map(|n| format!("did you mean `{n}`?"))
                .unwrap_or_default();
            let mistake =
                Mistake::new(word.place, format!("unknown part `{text}` of `automation`"));
            mistakes.push(mistake.hint(hint));
        }
    }
    let needed = [
        ("roles", "such as `arn:aws:iam::*:role/terraform-runner`"),
        (
            "networks",
            "such as `203.0.113.0/28`: the name of a program alone can be forged",
        ),
    ];
    for (word, hint) in needed {
        if texts(body, word).is_empty() {
            let message = format!("`{word}` of the automation is missing");
            mistakes.push(Mistake::new(key.place, message).hint(hint));
        }
    }
    let place = |word: &str| body.get(word).map_or(key.place, |n| n.place);
    let lower_to = match body.get("lower-to").and_then(Node::scalar) {
        None => Severity::Informational,
        Some(word) => Severity::from_level(&word).unwrap_or_else(|| {
            let mistake = Mistake::new(place("lower-to"), format!("unknown level `{word}`"));
            mistakes.push(mistake.hint("use informational, low, medium or high"));
            Severity::Informational
        }),
    };
    let mut patterns = |word: &str| -> Vec<Pattern> {
        let pattern = |text: &String| {
            let pattern = Pattern::new(&Text::parse(text), false);
            pattern
                .map_err(|e| Mistake::new(place(word), format!("this pattern is too large: {e}")))
        };
        let all = texts(body, word);
        let all = all
            .iter()
            .filter_map(|t| pattern(t).map_err(|m| mistakes.push(m)).ok());
        all.collect()
    };
    let (roles, user_agents) = (patterns("roles"), patterns("user-agents"));
    let mut networks = Vec::new();
    for text in texts(body, "networks") {
        let net = text.parse::<IpNet>();
        match net.or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip))) {
            Ok(net) => networks.push(net),
            Err(_) => mistakes.push(Mistake::new(
                place("networks"),
                format!("`{text}` is no network"),
            )),
        }
    }
    let automation = Automation {
        id: info.id.as_str().into(),
        name: node
            .get("name")
            .and_then(Node::scalar)
            .unwrap_or_else(|| info.title.clone())
            .into(),
        roles,
        networks,
        user_agents,
        lower_to,
    };
    let (selections, condition) = elsewhere(body, key.place, mistakes)?;
    let rule = Rule {
        name: node.get("name").and_then(Node::scalar),
        logsource: match node.get("logsource") {
            Some(found) => super::logsource(found, mistakes),
            None => Logsource::default(),
        },
        selections,
        condition,
        condition_text: "1 of role_* and address and not all of expected_*".to_owned(),
        tests: tests(node, mistakes),
        place: node.place,
        info,
    };
    Some((automation, rule))
}

/// Who acts, from an address and not through a service, and not from where it belongs.
fn elsewhere(
    body: &Node,
    place: Place,
    mistakes: &mut Vec<Mistake>,
) -> Option<(Vec<(String, Selection)>, Condition)> {
    let text = |text: &str| Node {
        yaml: Yaml::Text(text.to_owned()),
        place,
    };
    let mut selections: Vec<(String, Selection)> = Vec::new();
    let mut line = |name: &str, field: &str, value: &Node| {
        let item = item::parse(&text(field), value, &Placeholders::new(), &mut Vec::new());
        let item = item.map_err(|m| mistakes.push(m)).ok()?;
        selections.push((name.to_owned(), Selection::Item(item)));
        Some(())
    };
    line("role_of_session", "issuer", body.get("roles")?)?;
    line("role_itself", "actor_id", body.get("roles")?)?;
    line("address", "src_ip|re", &text("^[0-9A-Fa-f.:]+$"))?;
    line("expected_network", "src_ip|cidr", body.get("networks")?)?;
    let mut expected = vec![Condition::Selection(3)];
    if let Some(agents) = body.get("user-agents") {
        line("expected_program", "user_agent", agents)?;
        expected.push(Condition::Selection(4));
    }
    let role = Condition::Or(vec![Condition::Selection(0), Condition::Selection(1)]);
    let belongs = Condition::Not(Box::new(Condition::And(expected)));
    let condition = Condition::And(vec![role, Condition::Selection(2), belongs]);
    Some((selections, condition))
}
