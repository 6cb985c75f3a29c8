//! What can be set about the index and the search, with defaults for one machine.
//!
//! [`Config`] is the `search` section of the one configuration file; `cli` composes and checks it. Times and sizes are
//! whole numbers with their unit in the name. [`Config::problems`] says what a value would break before anything starts.

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
        problems
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
}
