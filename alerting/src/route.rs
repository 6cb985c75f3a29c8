//! Who is told about an alert: the routing tree.
//!
//! An alert enters at the top and goes down into the first child that matches, and into the next ones too
//! where that child says `continue`; where no child matches, the node's own receiver is told. So every
//! alert reaches somebody unless a route without receiver takes it on purpose. [`Route::targets`] is the
//! decision, [`Route::explain`] the same walk for people, behind `trailwarden route test`.

use event::Severity;

use crate::config::RouteConfig;
use crate::matcher::{Labels, Matcher, MatcherError};

/// Microseconds between reminders where no route says otherwise.
const REPEAT: i64 = 4 * 3_600_000_000;

/// A checked node of the routing tree.
#[derive(Debug, Clone)]
pub struct Route {
    matchers: Vec<Matcher>,
    min_severity: Option<Severity>,
    receiver: String,
    go_on: bool,
    repeat: Option<i64>,
    routes: Vec<Route>,
}

/// A receiver that an alert reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who.
    pub receiver: String,
    /// Microseconds between reminders; `None` for none.
    pub repeat: Option<i64>,
}

/// One node that an alert was held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where the node stands: `route`, `route.routes[0]`, ...
    pub path: String,
    /// What it asks for, as people write it; empty for everything.
    pub asks: String,
    /// Did the alert match?
    pub matched: bool,
    /// The receiver that this node tells, where it is the end of the way.
    pub receiver: Option<String>,
}

/// A route that cannot be used, by its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteError {
    /// Where: `route.routes[0].matchers[1]`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl Route {
    /// The checked tree, or everything that is wrong with it.
    pub fn new(config: &RouteConfig) -> Result<Route, Vec<RouteError>> {
        let mut errors = Vec::new();
        let route = build(config, "route", "", Some(REPEAT), &mut errors);
        if errors.is_empty() {
            Ok(route)
        } else {
            Err(errors)
        }
    }

    /// Who is told about an alert with these labels; each receiver once, in the order of the tree.
    pub fn targets(&self, labels: &Labels) -> Vec<Target> {
        let mut targets = Vec::new();
        self.walk(labels, "route", &mut targets, &mut Vec::new());
        targets
    }

    /// The way of an alert with these labels through the tree.
    pub fn explain(&self, labels: &Labels) -> Vec<Step> {
        let mut steps = Vec::new();
        self.walk(labels, "route", &mut Vec::new(), &mut steps);
        steps
    }

    /// Every receiver that the tree names, with its place.
    pub fn receivers(&self) -> Vec<(String, &str)> {
        fn add<'a>(route: &'a Route, path: &str, out: &mut Vec<(String, &'a str)>) {
            if !route.receiver.is_empty() {
                out.push((path.to_owned(), &route.receiver));
            }
            for (i, child) in route.routes.iter().enumerate() {
                add(child, &format!("{path}.routes[{i}]"), out);
            }
        }
        let mut out = Vec::new();
        add(self, "route", &mut out);
        out
    }

    fn walk(
        &self,
        labels: &Labels,
        path: &str,
        targets: &mut Vec<Target>,
        steps: &mut Vec<Step>,
    ) -> bool {
        let matched = self.matches(labels);
        let place = steps.len();
        steps.push(Step {
            path: path.to_owned(),
            asks: self.asks(),
            matched,
            receiver: None,
        });
        if !matched {
            return false;
        }
        let mut taken = false;
        for (i, child) in self.routes.iter().enumerate() {
            if child.walk(labels, &format!("{path}.routes[{i}]"), targets, steps) {
                taken = true;
                if !child.go_on {
                    break;
                }
            }
        }
        if !taken && !self.receiver.is_empty() {
            steps[place].receiver = Some(self.receiver.clone());
            if targets.iter().all(|t| t.receiver != self.receiver) {
                targets.push(Target {
                    receiver: self.receiver.clone(),
                    repeat: self.repeat,
                });
            }
        }
        true
    }

    fn matches(&self, labels: &Labels) -> bool {
        let severe = self.min_severity.is_none_or(|least| {
            labels
                .get("severity")
                .iter()
                .filter_map(|s| Severity::from_level(s))
                .any(|s| s >= least)
        });
        severe && self.matchers.iter().all(|m| m.matches(labels))
    }

    fn asks(&self) -> String {
        let least = self.min_severity.map(|s| format!("severity>={s}"));
        let matchers = self.matchers.iter().map(Matcher::to_string);
        least
            .into_iter()
            .chain(matchers)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn build(
    config: &RouteConfig,
    path: &str,
    receiver: &str,
    repeat: Option<i64>,
    errors: &mut Vec<RouteError>,
) -> Route {
    let mut matchers = Vec::new();
    for (i, text) in config.matchers.iter().enumerate() {
        match text.parse::<Matcher>() {
            Ok(matcher) => matchers.push(matcher),
            Err(error) => errors.push(matcher_error(path, i, &error)),
        }
    }
    let receiver = match config.receiver.as_str() {
        "" => receiver,
        own => own,
    };
    let repeat = match config.repeat_interval_seconds {
        None => repeat,
        Some(0) => None,
        Some(seconds) => Some(seconds.min(u64::from(u32::MAX)) as i64 * 1_000_000),
    };
    let routes = config
        .routes
        .iter()
        .enumerate()
        .map(|(i, child)| {
            build(
                child,
                &format!("{path}.routes[{i}]"),
                receiver,
                repeat,
                errors,
            )
        })
        .collect();
    Route {
        matchers,
        min_severity: config.min_severity,
        receiver: receiver.to_owned(),
        go_on: config.go_on,
        repeat,
        routes,
    }
}

fn matcher_error(path: &str, i: usize, error: &MatcherError) -> RouteError {
    RouteError {
        path: format!("{path}.matchers[{i}]"),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Route {
        let config: RouteConfig = serde_json::from_str(
            r#"{
              "receiver": "soc",
              "routes": [
                {"matchers": ["tags=\"attack.t1110\""], "receiver": "identity", "continue": true,
                 "repeat_interval_seconds": 0},
                {"min_severity": "high", "receiver": "pager", "repeat_interval_seconds": 3600,
                 "routes": [{"matchers": ["account=\"999\""], "receiver": "sandbox"}, {"matchers": ["account=\"998\""]}]}
              ]
            }"#,
        )
        .unwrap();
        Route::new(&config).unwrap()
    }

    fn check(labels: &[(&str, &str)], expected: &[(&str, Option<i64>)]) {
        let labels = Labels::from_pairs(labels.iter().copied());
        let targets: Vec<_> = tree()
            .targets(&labels)
            .into_iter()
            .map(|t| (t.receiver, t.repeat.map(|r| r / 1_000_000)))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(r, s)| ((*r).to_owned(), *s))
            .collect();
        assert_eq!(targets, expected, "{labels:?}");
    }

    #[test]
    fn the_way_down() {
        check(&[("severity", "low")], &[("soc", Some(14_400))]);
        check(&[("severity", "high")], &[("pager", Some(3_600))]);
        check(
            &[("severity", "critical"), ("account", "999")],
            &[("sandbox", Some(3_600))],
        );
        check(
            &[("severity", "critical"), ("account", "998")],
            &[("pager", Some(3_600))],
        );
        check(
            &[("severity", "high"), ("tags", "attack.t1110")],
            &[("identity", None), ("pager", Some(3_600))],
        );
        check(
            &[("severity", "low"), ("tags", "attack.t1110")],
            &[("identity", None)],
        );
    }

    #[test]
    fn the_explanation_is_the_same_walk() {
        let labels = Labels::from_pairs([("severity", "high"), ("account", "999")]);
        let steps: Vec<_> = tree()
            .explain(&labels)
            .into_iter()
            .map(|s| (s.path, s.matched, s.receiver))
            .collect();
        assert_eq!(
            steps,
            [
                ("route".to_owned(), true, None),
                ("route.routes[0]".to_owned(), false, None),
                ("route.routes[1]".to_owned(), true, None),
                (
                    "route.routes[1].routes[0]".to_owned(),
                    true,
                    Some("sandbox".to_owned())
                ),
            ]
        );
    }

    #[test]
    fn mistakes_have_a_place() {
        let config = RouteConfig {
            routes: vec![RouteConfig {
                matchers: vec!["account=1".into(), "acount=1".into()],
                ..RouteConfig::default()
            }],
            ..RouteConfig::default()
        };
        let errors = Route::new(&config).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].path, "route.routes[0].matchers[1]");
    }
}
