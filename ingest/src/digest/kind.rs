//! The words for what can be wrong with digests and log files, what each means and what to do about it.
//!
//! The words are stable: scripts, alerts and other people's tools rely on them. A kind says what was seen and not
//! who did it; most of them have a harmless cause beside the hostile one, and the advice names both.

use serde::Serialize;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The signature does not fit the digest.
    BadSignature,
    /// The digest has no signature beside it.
    DigestUnsigned,
    /// The digest is signed with a key that was not given.
    UnknownKey,
    /// The digest cannot be read.
    DigestUnreadable,
    /// The digest lies elsewhere than where it says.
    DigestMoved,
    /// The next digest remembers other content.
    DigestChanged,
    /// The next digest remembers another signature.
    ChainSignature,
    /// The next digest names one that is not there.
    DigestMissing,
    /// A digest begins later than the one before it ended.
    Gap,
    /// A chain begins anew in its middle.
    Restart,
    /// A chain ends before it should.
    EndsEarly,
    /// There are log files and no digest at all.
    NoDigests,
    /// A log file is not what its digest says.
    LogChanged,
    /// A log file that a digest lists is not there.
    LogMissing,
    /// A log file is in no digest.
    LogUnattested,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 15] = [
        Kind::BadSignature,
        Kind::DigestUnsigned,
        Kind::UnknownKey,
        Kind::DigestUnreadable,
        Kind::DigestMoved,
        Kind::DigestChanged,
        Kind::ChainSignature,
        Kind::DigestMissing,
        Kind::Gap,
        Kind::Restart,
        Kind::EndsEarly,
        Kind::NoDigests,
        Kind::LogChanged,
        Kind::LogMissing,
        Kind::LogUnattested,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::BadSignature => "bad-signature",
            Kind::DigestUnsigned => "digest-unsigned",
            Kind::UnknownKey => "unknown-key",
            Kind::DigestUnreadable => "digest-unreadable",
            Kind::DigestMoved => "digest-moved",
            Kind::DigestChanged => "digest-changed",
            Kind::ChainSignature => "chain-signature",
            Kind::DigestMissing => "digest-missing",
            Kind::Gap => "gap",
            Kind::Restart => "restart",
            Kind::EndsEarly => "ends-early",
            Kind::NoDigests => "no-digests",
            Kind::LogChanged => "log-changed",
            Kind::LogMissing => "log-missing",
            Kind::LogUnattested => "log-unattested",
        }
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::BadSignature => {
                "the digest or its signature was changed after CloudTrail wrote it"
            }
            Kind::DigestUnsigned => {
                "the digest is without the signature that S3 keeps in its metadata"
            }
            Kind::UnknownKey => "the digest is signed with a key that is not among the given ones",
            Kind::DigestUnreadable => {
                "the digest is damaged, so that nothing it listed can be proven"
            }
            Kind::DigestMoved => {
                "the digest is genuine and lies under another name than CloudTrail gave it"
            }
            Kind::DigestChanged => "the digest is not the one that the next digest was chained to",
            Kind::ChainSignature => {
                "the signature is not the one that the next digest was chained to"
            }
            Kind::DigestMissing => {
                "a digest that the next one names was deleted, or did not come along"
            }
            Kind::Gap => "the chain skips a time for which there is no digest",
            Kind::Restart => "the chain begins anew: logging or validation was off in between",
            Kind::EndsEarly => {
                "the chain ends too early: logging stopped, or the newest digests were deleted"
            }
            Kind::NoDigests => "there are log files and not one digest about them",
            Kind::LogChanged => "the log file is not what CloudTrail delivered",
            Kind::LogMissing => "a log file that CloudTrail delivered is not there",
            Kind::LogUnattested => "the log file is in no digest: CloudTrail does not vouch for it",
        }
    }

    /// What to do about it, for people.
    pub fn advice(self) -> &'static str {
        match self {
            Kind::BadSignature | Kind::DigestChanged | Kind::ChainSignature => {
                "fetch the object's older versions from the bucket, and look in S3 data events who wrote it"
            }
            Kind::DigestUnsigned => {
                "copies without user metadata lose it: copy with metadata, or write it beside the file as X.sig.json"
            }
            Kind::UnknownKey => {
                "`aws cloudtrail list-public-keys` prints keys by region and time; give each file with --keys"
            }
            Kind::DigestUnreadable => {
                "fetch it again from the bucket, or one of its older versions"
            }
            Kind::DigestMoved => {
                "put it back where it says it belongs, and look in S3 data events who moved it"
            }
            Kind::DigestMissing => {
                "look for older versions and for DeleteObject in S3 data events; if what is older has expired or was not copied, say so with --from"
            }
            Kind::Gap => {
                "CloudTrail itself has left such gaps; ask AWS support whether there is a digest, and take the time between for unproven"
            }
            Kind::Restart => {
                "look for StopLogging, StartLogging, UpdateTrail, DeleteTrail and CreateTrail in that time"
            }
            Kind::EndsEarly => {
                "look for StopLogging, UpdateTrail and DeleteTrail about that time, and whether newer digests did not come along"
            }
            Kind::NoDigests => {
                "turn on log file validation of the trail; if it is on, look for deleted digests"
            }
            Kind::LogChanged => {
                "trust no event in it; fetch the object's older versions, and look in S3 data events who wrote it"
            }
            Kind::LogMissing => {
                "look for older versions and for DeleteObject in S3 data events; or it did not come along"
            }
            Kind::LogUnattested => {
                "trust no event in it until you know who wrote it; if it is from before validation was on, say so with --from"
            }
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_in_json_and_in_tables() {
        for kind in Kind::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.as_str());
        }
    }
}
