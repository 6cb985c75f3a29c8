//! What a verification found: chain by chain what is proven, and every violation.

use event::Time;
use serde::Serialize;

use super::kind::Kind;
use super::name::Chain;

/// What was found. Chains and violations are sorted, so that two runs over the same objects say the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// What is known of each chain.
    pub chains: Vec<ChainReport>,
    /// Everything that is not as it should be.
    pub violations: Vec<Violation>,
    /// What is proven, by account and region.
    #[serde(skip)]
    pub coverage: Vec<Coverage>,
}

/// What is proven of the log files of an account and region: all of these times, but for those that are named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
    /// The times of which digests that are proven speak, joined where they touch: from, and before.
    pub spans: Vec<(Time, Time)>,
    /// Log files that are not what was delivered.
    pub failed: Vec<String>,
    /// Log files of which nothing can be said.
    pub open: Vec<String>,
}

/// What is known of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Which chain.
    pub chain: Chain,
    /// Where the first digest begins that was looked at and can be believed.
    pub from: Option<Time>,
    /// Where the last one ends.
    pub to: Option<Time>,
    /// The name of the last one.
    pub last_digest: String,
    /// Digests that were read or should have been.
    pub digests: u64,
    /// Those among them that are proven: signed, or vouched for by a later one that is signed.
    pub digests_proven: u64,
    /// Log files.
    pub logs: LogCounts,
}

/// How many log files are what. Each is counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LogCounts {
    /// What CloudTrail delivered, proven by a digest.
    pub proven: u64,
    /// Other than their digest says.
    pub changed: u64,
    /// Listed and not there.
    pub missing: u64,
    /// In no digest, though digests cover their time.
    pub unattested: u64,
    /// Nothing can be said: their digest is missing, or cannot be proven itself.
    pub unproven: u64,
    /// Newer than the newest digest, so that theirs may be still to come.
    pub not_yet_attested: u64,
}

impl LogCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.proven
            + self.changed
            + self.missing
            + self.unattested
            + self.unproven
            + self.not_yet_attested
    }
}

impl std::ops::AddAssign for LogCounts {
    fn add_assign(&mut self, other: LogCounts) {
        self.proven += other.proven;
        self.changed += other.changed;
        self.missing += other.missing;
        self.unattested += other.unattested;
        self.unproven += other.unproven;
        self.not_yet_attested += other.not_yet_attested;
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// The chain that it concerns.
    pub chain: Chain,
    /// What is wrong.
    pub kind: Kind,
    /// The object that it is about, by its name in the store.
    pub object: String,
    /// What was seen, in words.
    pub detail: String,
}
