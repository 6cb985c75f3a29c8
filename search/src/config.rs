//! What can be set about the index and the search, with defaults for one machine.
//!
//! [`Config`] is the `search` section of the one configuration file; `cli` composes and checks it. Times and sizes are
//! whole numbers with their unit in the name. [`Config::problems`] says what a value would break before anything starts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `search` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long events and findings stay searchable, in days since they were taken in. Default 90.
    pub retention_days: u32,
    /// How large the splits may be together, in MiB; the oldest go first. 0: as large as they are. Default 0.
    pub max_mib: u64,
    /// How long an event waits at most before its split is published, in milliseconds. Default 2000.
    pub publish_after_ms: u64,
    /// How many events one new split takes at most. Default 50000.
    pub split_events: usize,
    /// How much memory the writer of a split uses before it is published, in MiB. Default 64.
    pub writer_memory_mib: usize,
    /// How many splits of like size are merged into one. Default 8.
    pub merge_splits: usize,
    /// Splits with more events than this are not merged any more. Default 2000000.
    pub merged_events: u64,
    /// For how many days an event id is remembered, so that its repeats are dropped. Default 15.
    pub seen_days: u32,
    /// After how many milliseconds a search answers with what it has so far. Default 10000.
    pub timeout_ms: u64,
    /// How many events or findings one answer holds at most. Default 10000.
    pub max_limit: usize,
    /// How many nodes with the role `index` share the partitions of a log on Kafka. Default 1.
    pub nodes: u32,
    /// Which of them this one is, from 0: it indexes every `nodes`th partition. Default 0.
    pub node: u32,
    /// Where the index nodes are that a search asks. A node asks its own index itself, so that all may have the same
    /// list. Default none: a search knows the node's own share.
    pub peers: Vec<Peer>,
}

/// One index node that searches ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its number: its `search.node`.
    pub node: u32,
    /// Where it listens, such as `https://index-1:7171`.
    pub url: String,
    /// A file with the token that it knows us by; it has the role `node` there. None where it lets everybody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// A file with the certificates, as PEM, that vouch for it; else those that the machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// May the token and what is found go over the network in clear? Default no.
    #[serde(default)]
    pub allow_http: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            retention_days: 90,
            max_mib: 0,
            publish_after_ms: 2_000,
            split_events: 50_000,
            writer_memory_mib: 64,
            merge_splits: 8,
            merged_events: 2_000_000,
            seen_days: 15,
            timeout_ms: 10_000,
            max_limit: 10_000,
            nodes: 1,
            node: 0,
            peers: Vec::new(),
        }
    }
}

impl Config {
    /// How many bytes the splits may have together; `None`: as many as they have.
    pub(crate) fn max_bytes(&self) -> Option<u64> {
        let bytes = self.max_mib.saturating_mul(1 << 20);
        (bytes > 0).then_some(bytes)
    }

    /// What is wrong with it, in words for the person who wrote it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        need(self.retention_days > 0, "retention_days must be at least 1");
        need(
            self.node < self.nodes,
            "node must be less than nodes: the first of three is 0, the last is 2",
        );
        need(self.split_events > 0, "split_events must be at least 1");
        need(
            self.writer_memory_mib >= 16,
            "writer_memory_mib must be at least 16",
        );
        need(self.merge_splits >= 2, "merge_splits must be at least 2");
        need(self.timeout_ms > 0, "timeout_ms must be at least 1");
        need(self.max_limit > 0, "max_limit must be at least 1");
        let mut named = BTreeSet::new();
        for Peer { node, .. } in &self.peers {
            if *node >= self.nodes {
                problems.push(format!(
                    "peers: there is no node {node}: of {} the last is {}",
                    self.nodes,
                    self.nodes.saturating_sub(1)
                ));
            } else if !named.insert(*node) {
                problems.push(format!("peers: node {node} is there twice"));
            }
        }
        problems
    }

    /// The shares that nobody can be asked for: those that `peers` does not name. `own`: has this node an index?
    pub fn unasked(&self, own: bool) -> Vec<u32> {
        let is_asked = |node: &u32| {
            own && *node == self.node || self.peers.iter().any(|peer| peer.node == *node)
        };
        (0..self.nodes).filter(|node| !is_asked(node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_unknown_keys_are_refused() {
        assert!(Config::default().problems().is_empty());
        assert!(serde_json::from_str::<Config>(r#"{"retention_dayz": 1}"#).is_err());
        let config: Config = serde_json::from_str(r#"{"merge_splits": 1}"#).unwrap();
        assert_eq!(config.problems().len(), 1);
    }

    #[test]
    fn peers_name_every_other_share() {
        let config = |json: &str| serde_json::from_str::<Config>(json).unwrap();
        let both = r#"{"nodes": 2, "node": 1, "peers": [{"node": 0, "url": "https://a"}, {"node": 1, "url": "https://b"}]}"#;
        assert!(config(both).problems().is_empty());
        assert!(config(both).unasked(false).is_empty());
        let one = config(r#"{"nodes": 3, "node": 1, "peers": [{"node": 0, "url": "https://a"}]}"#);
        assert_eq!(one.unasked(true), [2]);
        assert_eq!(one.unasked(false), [1, 2]);
        let wrong = config(
            r#"{"nodes": 2, "peers": [{"node": 2, "url": "x"}, {"node": 1, "url": "x"}, {"node": 1, "url": "y"}]}"#,
        );
        assert_eq!(
            wrong.problems(),
            [
                "peers: there is no node 2: of 2 the last is 1",
                "peers: node 1 is there twice"
            ]
        );
        assert!(Config::default().unasked(true).is_empty());
    }
}
