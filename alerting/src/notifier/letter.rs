//! A notification as people read it in a mail: subject, plain text and HTML.
//!
//! The reader is tired and on a telephone: first what happened, who, from where and how bad, then what to
//! do, then the rest. Everything that came out of a log is inert ([`crate::inert`]): no markup, no header
//! breaks, no hidden characters, and nothing that a mail program makes a link of. The only link is the
//! console's. HTML has no images, no scripts and nothing to load.

use crate::dedup::NotifyReason;
use crate::inert;
use crate::message::Message;

const MAX_VALUE: usize = 400;
const MAX_SUBJECT: usize = 150;
const MAX_GROUP: usize = 10;

/// The three parts of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

/// A part of the mail below its heading.
struct Section {
    heading: &'static str,
    lines: Vec<String>,
}

/// Writes the mail of a message.
pub(super) fn write(message: &Message) -> Letter {
    let alert = &message.alert;
    let lead = match message.reason {
        NotifyReason::First => "",
        NotifyReason::SeverityRose => "Worse: ",
        NotifyReason::Reopened => "Again: ",
        NotifyReason::Repeat => "Still open: ",
        NotifyReason::Resolved => "Resolved: ",
    };
    let whom = [&alert.actor, &alert.account]
        .into_iter()
        .filter(|s| !s.is_empty())
        .map(|s| inert::cut(s, 60))
        .collect::<Vec<_>>()
        .join(" in ");
    let about = if whom.is_empty() {
        String::new()
    } else {
        format!(" ({whom})")
    };
    let subject = format!("[{}] {lead}{}{about}", message.severity, alert.title);
    let facts = facts(message);
    let sections = sections(message);
    Letter {
        subject: inert::header(&subject, MAX_SUBJECT),
        text: text(message, lead, &facts, &sections),
        html: html(message, lead, &facts, &sections),
    }
}

/// What happened, in the order in which people ask.
fn facts(message: &Message) -> Vec<(String, String)> {
    let alert = &message.alert;
    let finding = &alert.finding;
    let mut facts = Vec::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            facts.push((inert::cut(name, 80), inert::cut(value, MAX_VALUE)));
        }
    };
    add("Severity", message.severity.as_str());
    add("Who", &alert.actor);
    if alert.identity != alert.actor {
        add("Identity", &alert.identity);
    }
    add("From", &finding.src_ip);
    add("Did", &finding.action);
    add("Account", &alert.account);
    add("Region", &alert.region);
    add("Function", &finding.function);
    for (field, value) in alert.group.iter().take(MAX_GROUP) {
        add(field, value.as_deref().unwrap_or("(missing)"));
    }
    add("Resources", &finding.resources.join(", "));
    let (first, last) = (finding.first_event_time, finding.last_event_time);
    let when = if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    };
    add("When", &when);
    add("Events", &alert.count.to_string());
    add("Why", &finding.explanation);
    facts
}

fn sections(message: &Message) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut add = |heading, lines: Vec<String>| {
        if !lines.is_empty() {
            sections.push(Section { heading, lines });
        }
    };
    if let Some(rule) = &message.rule {
        let lines = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|l| !l.trim().is_empty())
                .map(str::to_owned)
                .collect()
        };
        add("What it means", lines(&rule.description));
        add("Next steps", rule.next_steps.clone());
        add("Harmless causes", rule.false_positives.clone());
    }
    let others = message.alerts.iter().filter(|a| a.id != message.alert.id);
    let others = others.map(|a| {
        let times = if a.count == 1 {
            String::new()
        } else {
            format!(", {} events", a.count)
        };
        format!(
            "[{}] {}{times}, {}",
            a.severity,
            inert::cut(&a.title, MAX_VALUE),
            a.state.as_str()
        )
    });
    let mut others: Vec<String> = others.collect();
    let hidden = (message.incident.alerts as usize).saturating_sub(message.alerts.len());
    if hidden > 0 {
        others.push(format!("and {hidden} more"));
    }
    add("Also in this incident", others);
    sections
}

fn footer(message: &Message) -> Vec<String> {
    let mut lines = vec![
        format!("incident {}", message.incident.id),
        format!("alert {}", message.alert.id),
        format!("rule {}", inert::cut(&message.alert.rule_id, MAX_VALUE)),
    ];
    if let Some(other) = &message.instead_of {
        lines.push(format!("sent to you because {other} could not be told"));
    }
    lines
}

fn text(message: &Message, lead: &str, facts: &[(String, String)], sections: &[Section]) -> String {
    let mut out = format!("{lead}{}\n\n", inert::defanged(&message.alert.title));
    let width = facts
        .iter()
        .map(|(n, _)| n.chars().count())
        .max()
        .unwrap_or(0)
        .min(24);
    for (name, value) in facts {
        out.push_str(&format!(
            "{:width$}  {}\n",
            inert::defanged(name),
            inert::defanged(value)
        ));
    }
    for section in sections {
        out.push_str(&format!("\n{}\n", section.heading));
        for line in &section.lines {
            out.push_str(&format!("  - {}\n", inert::defanged(line)));
        }
    }
    if let Some(link) = &message.link {
        out.push_str(&format!("\nOpen the alert: {link}\n"));
    }
    out.push('\n');
    for line in footer(message) {
        out.push_str(&format!("{}\n", inert::defanged(&line)));
    }
    out
}

fn html(message: &Message, lead: &str, facts: &[(String, String)], sections: &[Section]) -> String {
    let safe = |text: &str| inert::html(&inert::defanged(text));
    let mut out = String::from(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"></head>\
         <body style=\"font-family:sans-serif;font-size:15px;line-height:1.4;color:#1a1a1a\">",
    );
    out.push_str(&format!(
        "<h2 style=\"font-size:19px\">{lead}{}</h2><table>",
        safe(&message.alert.title)
    ));
    for (name, value) in facts {
        out.push_str(&format!(
            "<tr><td style=\"padding:2px 14px 2px 0;color:#666;vertical-align:top\">{}</td><td>{}</td></tr>",
            safe(name),
            safe(value)
        ));
    }
    out.push_str("</table>");
    for section in sections {
        out.push_str(&format!(
            "<h3 style=\"font-size:16px\">{}</h3><ul>",
            section.heading
        ));
        for line in &section.lines {
            out.push_str(&format!("<li>{}</li>", safe(line)));
        }
        out.push_str("</ul>");
    }
    if let Some(link) = &message.link {
        out.push_str(&format!(
            "<p><a href=\"{}\">Open the alert</a></p>",
            inert::html(link)
        ));
    }
    out.push_str("<p style=\"color:#666;font-size:12px\">");
    for line in footer(message) {
        out.push_str(&format!("{}<br>", safe(&line)));
    }
    out.push_str("</p></body></html>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::message;
    use event::RuleInfo;

    #[test]
    fn what_a_tired_reader_needs() {
        let mut message = message();
        message.rule = Some(RuleInfo {
            description: "Somebody used the root user.".into(),
            next_steps: vec!["Ask the owner.".into()],
            ..RuleInfo::default()
        });
        let letter = write(&message);
        assert_eq!(letter.subject, "[high] Root was used (ana in 123456789012)");
        for part in [
            "Who       ana\n",
            "From      192.0.2.7\n",
            "What it means\n  - Somebody used the root user.\n",
            "Next steps\n  - Ask the owner.\n",
            "Also in this incident\n  - [low] Recon, 4 events, firing\n",
            "Open the alert: https://tw.example/alerts/00000000000000000000000000000001\n",
        ] {
            assert!(
                letter.text.contains(part),
                "{part:?} is missing in\n{}",
                letter.text
            );
        }
        assert!(letter.html.contains("<li>Ask the owner.</li>"));
        message.reason = NotifyReason::Resolved;
        assert!(write(&message).subject.starts_with("[high] Resolved: Root"));
    }

    #[test]
    fn hostile_log_content_is_inert() {
        let hostile =
            "<script>x</script>\r\nBcc: all@corp.example\u{1b}[2J\u{202e} https://evil.example \"'";
        let mut message = message();
        message.alert.title = hostile.into();
        message.alert.actor = hostile.into();
        message.alert.identity = format!("{hostile}2").into();
        message.alert.finding.src_ip = hostile.into();
        message.alert.group = [(hostile.into(), Some(hostile.into()))].into();
        message.alert.rule_id = hostile.into();
        message.alerts[1].title = hostile.into();
        let letter = write(&message);
        assert!(
            !letter.subject.contains(['\r', '\n', '\u{1b}', '\u{202e}']),
            "{}",
            letter.subject
        );
        for part in [&letter.text, &letter.html] {
            assert!(!part.contains(['\r', '\u{1b}', '\u{202e}']), "{part}");
            assert!(!part.contains("https://evil"), "{part}");
            assert!(!part.contains("\nBcc"), "{part}");
        }
        assert!(!letter.html.contains("<script"), "{}", letter.html);
        assert!(letter.html.contains("&lt;script&gt;"));
    }
}
