//! Which log groups there are: names and patterns against DescribeLogGroups.
//!
//! Patterns are those of [`event::wildcard`]. A group that nobody may list can still be read where its name is given in
//! full and the account is configured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::LogGroup;
use bus::Stop;
use event::Time;

use super::LogGroups;
use crate::aws::{self, Fault};
use crate::source::patience::Pace;
use crate::source::s3::Trouble;

/// A log group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The account that owns it.
    pub(super) account: String,
    /// When it was made; `None` where nobody may ask.
    pub(super) created: Option<Time>,
}

/// What every name begins with that fits a pattern.
fn beginning(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or_default()
}

/// The beginnings to list by, none of which is part of another.
fn beginnings(patterns: &[String]) -> Vec<&str> {
    let all: BTreeSet<&str> = patterns.iter().map(|p| beginning(p)).collect();
    let mut kept: Vec<&str> = Vec::new();
    // In order, what another begins with comes before it.
    for one in all {
        if !kept.iter().any(|before| one.starts_with(before)) {
            kept.push(one);
        }
    }
    kept
}

/// The account in the ARN of a log group.
fn account_of(arn: &str) -> Option<&str> {
    let account = arn.split(':').nth(4)?;
    (!account.is_empty()).then_some(account)
}

/// Who asks, and how.
pub(super) struct Lister<'l> {
    pub(super) client: &'l Client,
    pub(super) config: &'l LogGroups,
    pub(super) pace: &'l Pace,
    pub(super) stop: &'l Stop,
}

impl Lister<'_> {
    /// The groups of the configuration that are there, by name.
    pub(super) async fn all(&self) -> Result<BTreeMap<String, Found>, Trouble> {
        let config = self.config;
        let mut found = BTreeMap::new();
        for beginning in beginnings(&config.groups) {
            match self.page_by_page(beginning, &mut found).await {
                // Without the permission to list, names in full are enough where the account is known.
                Err(Trouble::Fetch {
                    fault: Fault::Denied,
                    ..
                }) if config.is_complete() => {
                    let group = |name: &String| {
                        let account = config.account.clone();
                        (
                            name.clone(),
                            Found {
                                account,
                                created: None,
                            },
                        )
                    };
                    return Ok(config.groups.iter().map(group).collect());
                }
                result => result?,
            }
        }
        Ok(found)
    }

    async fn page_by_page(
        &self,
        beginning: &str,
        found: &mut BTreeMap<String, Found>,
    ) -> Result<(), Trouble> {
        let mut token = None;
        loop {
            aws::rest(self.pace.turn(Instant::now()), self.stop).await;
            let prefix = Some(beginning).filter(|b| !b.is_empty());
            let call = self
                .client
                .describe_log_groups()
                .set_log_group_name_prefix(prefix.map(str::to_owned))
                .set_next_token(token.take())
                .send();
            let answer = aws::unless_stopped(call, self.stop).await;
            let page = match answer.ok_or(Trouble::Stopped)? {
                Ok(page) => page,
                Err(error) => {
                    if Fault::of(&error) == Fault::Throttled {
                        self.pace.throttled(Instant::now());
                    }
                    let what = format!("the list of log groups `{beginning}`");
                    return Err(Trouble::of(what, &error));
                }
            };
            self.pace.served();
            for group in page.log_groups() {
                self.take(group, found);
            }
            token = page.next_token;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    fn take(&self, group: &LogGroup, found: &mut BTreeMap<String, Found>) {
        let config = self.config;
        let Some(name) = group.log_group_name().filter(|name| config.wants(name)) else {
            return;
        };
        let arn = group.log_group_arn().or(group.arn()).unwrap_or_default();
        let account = match config.account.as_str() {
            "" => account_of(arn).unwrap_or_default(),
            account => account,
        };
        let group = Found {
            account: account.to_owned(),
            created: group.creation_time().map(Time::from_millis),
        };
        found.insert(name.to_owned(), group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_pattern_lists_is_not_listed_again() {
        let of = |patterns: &[&str]| -> Vec<String> {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            let found = beginnings(&patterns);
            found.into_iter().map(str::to_owned).collect()
        };
        let listed = of(&[
            "/aws/lambda/shop",
            "/aws/lambda/*",
            "/trail",
            "/aws/lambda/*-prod",
        ]);
        assert_eq!(listed, ["/aws/lambda/", "/trail"]);
        assert_eq!(of(&["/a", "*x"]), [""]);
    }

    #[test]
    fn the_arn_names_the_account() {
        let arn = "arn:aws:logs:eu-west-1:111122223333:log-group:/aws/lambda/shop:*";
        assert_eq!(account_of(arn), Some("111122223333"));
        assert_eq!(account_of("nonsense"), None);
    }
}
