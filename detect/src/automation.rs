//! Automation that is known by its role and its place: quiet where it belongs, loud elsewhere.
//!
//! An [`Automation`] is declared by a document among the rules (`rule::automation`). What its role does from its own
//! networks is expected: findings about it are lowered, and correlations do not count it. What the same role does from
//! elsewhere is worse than the same done by others: findings are raised by one level, and the document is a rule of its
//! own that says so. Findings bear who was recognised in their labels, so that routes can tell them apart. The engine
//! asks; nothing here reads a record.

use std::net::IpAddr;

use event::{Event, Finding, Severity, Str};
use ipnet::IpNet;

use crate::item::Test;
use crate::pattern::Pattern;

/// The label that names the automation.
pub const LABEL: &str = "automation";

/// The label that says whether it acted from where it belongs: `expected` or `unexpected`.
pub const ORIGIN: &str = "automation_origin";

/// A role and where it belongs.
#[derive(Debug, Clone)]
pub struct Automation {
    /// Its Sigma id; its title where it has none.
    pub id: Str,
    /// What it is called in labels.
    pub name: Str,
    /// The roles and users that it acts as: patterns over ARNs, lower-cased.
    pub roles: Vec<Pattern>,
    /// Where it acts from.
    pub networks: Vec<IpNet>,
    /// The programs that it acts with, lower-cased; empty for any.
    pub user_agents: Vec<Pattern>,
    /// What findings about it are lowered to.
    pub lower_to: Severity,
}

/// Where an automation was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Where it belongs.
    Expected,
    /// Elsewhere.
    Unexpected,
}

impl Origin {
    /// The word in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Expected => "expected",
            Origin::Unexpected => "unexpected",
        }
    }
}

impl Automation {
    /// Where an event of this automation comes from; `None` if it is somebody else's, or if a service of the cloud acts
    /// for it, which says nothing about where it is.
    pub fn origin(&self, event: &Event) -> Option<Origin> {
        let is = |arn: &str| {
            let arn = arn.to_lowercase();
            !arn.is_empty() && self.roles.iter().any(|role| role.matches(&arn))
        };
        if !is(&event.issuer) && !is(&event.actor_id) {
            return None;
        }
        event.src_ip.trim().parse::<IpAddr>().ok()?;
        let agent = event.user_agent.to_lowercase();
        let belongs = self
            .networks
            .iter()
            .any(|net| Test::in_network(net, &event.src_ip))
            && (self.user_agents.is_empty() || self.user_agents.iter().any(|a| a.matches(&agent)));
        Some(if belongs {
            Origin::Expected
        } else {
            Origin::Unexpected
        })
    }
}

/// The automation that an event is of, the first that was declared, and where it was seen.
pub(crate) fn recognised<'a>(
    all: &'a [Automation],
    event: &Event,
) -> Option<(&'a Automation, Origin)> {
    all.iter().find_map(|a| Some((a, a.origin(event)?)))
}

/// Makes a finding quieter or louder, and says why in its labels. Critical findings are told whoever it was.
pub(crate) fn judge(all: &[Automation], event: &Event, finding: &mut Finding) {
    let Some((automation, origin)) = recognised(all, event) else {
        return;
    };
    match origin {
        Origin::Expected if finding.severity < Severity::Critical => {
            finding.severity = finding.severity.min(automation.lower_to);
        }
        Origin::Unexpected if finding.rule_id != automation.id => {
            let worse = Severity::ALL.into_iter().find(|s| *s > finding.severity);
            finding.severity = worse.unwrap_or(finding.severity);
        }
        _ => {}
    }
    finding.labels.insert(LABEL.into(), automation.name.clone());
    finding.labels.insert(ORIGIN.into(), origin.as_str().into());
}
