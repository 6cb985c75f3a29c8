//! One account in one region: its chains of digests, and its log files held against them.
//!
//! Log files do not say which trail wrote them, so all chains of an account and region are looked at together, and a
//! log file is attested if any digest lists it. What is in memory at a time is the digests of one [`Scope`]; log files
//! are only hashed. Objects are read by several workers, since most of the time goes into waiting or hashing.

use std::collections::{BTreeMap, BTreeSet};

use event::Time;

use super::chain::{self, Around, Digest, Signature};
use super::content::{self, ContentError, Hash};
use super::document::{Document, SIGNATURE_ALGORITHM, unhex};
use super::keys::Fit;
use super::kind::Kind;
use super::name::{self, Chain};
use super::report::{ChainReport, Coverage, LogCounts, Violation};
use super::workers::parallel;
use super::{DELIVERY, DIGEST_BYTES, Job, Metadata, VerifyError};

/// The objects of one account in one region, by name.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) digests: Vec<String>,
    /// With the time of delivery that the name tells.
    pub(super) logs: BTreeMap<String, Option<Time>>,
}

/// What is known of a scope.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub(super) chains: Vec<ChainReport>,
    pub(super) violations: Vec<Violation>,
    /// Where the last proven digest ends, backfill apart.
    pub(super) newest: Option<Time>,
    /// Log files that no digest lists, while there is no digest that could.
    pub(super) alone: Vec<(String, Option<Time>)>,
    /// What is proven.
    pub(super) coverage: Coverage,
}

/// A log file may be named by a time a little before that of the digest that lists it.
const NAMED_EARLY: i64 = 15 * 60 * 1_000_000;

/// A digest's name tells its end; those that end further away than this need not be read.
const NAMED_ABOUT: i64 = 86_400 * 1_000_000;

/// What became of reading a digest.
enum Loaded {
    Read(Box<Digest>),
    Unreadable {
        name: String,
        detail: String,
    },
    /// It ends before the time that is looked at.
    Before {
        name: String,
        end: Time,
    },
    /// It begins after that time, or is gone.
    Outside,
}

/// The digests of a scope by chain.
#[derive(Default)]
struct Gathered {
    chains: BTreeMap<Chain, Vec<Digest>>,
    /// How many could not be read.
    unreadable: BTreeMap<Chain, usize>,
    /// The last one before the time that is looked at.
    earlier: BTreeMap<Chain, (Time, String)>,
    /// Those that are there and in no chain.
    others: BTreeSet<String>,
}

/// A log file that a digest lists.
struct Entry {
    name: String,
    /// What the digests say that list it; more than one if they disagree.
    hashes: BTreeSet<Hash>,
    digest: String,
    chain: usize,
    proven: bool,
}

/// What became of a log file.
enum Checked {
    Same,
    Changed(String),
    Missing,
}

/// Verifies the digests and log files of a scope.
pub(super) fn verify(
    job: &Job<'_>,
    account: &str,
    region: &str,
    scope: &Scope,
) -> Result<Verified, VerifyError> {
    let loaded = parallel(job, &scope.digests, |name| load(job, name))?;
    let mut verified = Verified::default();
    let mut gathered = Gathered::default();
    for loaded in loaded {
        gathered.add(loaded, account, region, &mut verified.violations);
    }
    let Gathered {
        mut chains,
        mut earlier,
        unreadable,
        others,
    } = gathered;
    for (chain, digests) in &mut chains {
        let found = chain::walk(
            digests,
            &Around {
                chain,
                others: &others,
                locate: &|bucket, key| locate(job, bucket, key),
                from: job.from,
            },
        );
        let proven = || digests.iter().filter(|d| d.proven);
        if !chain.backfill {
            let end = proven().map(|d| d.document.end).max();
            verified.newest = verified.newest.max(end);
        }
        let believed = || digests.iter().filter(|d| d.is_believed());
        let last = believed().map(|d| (d.document.end, d.name.clone())).max();
        let (to, last_digest) = last.or_else(|| earlier.remove(chain)).unzip();
        let missing = found.iter().filter(|v| v.kind == Kind::DigestMissing);
        let broken = unreadable.get(chain).copied().unwrap_or_default();
        verified.chains.push(ChainReport {
            chain: chain.clone(),
            from: believed().map(|d| d.document.start).min(),
            to,
            last_digest: last_digest.unwrap_or_default(),
            digests: (digests.len() + missing.count() + broken) as u64,
            digests_proven: proven().count() as u64,
            logs: LogCounts::default(),
        });
        verified.violations.extend(found);
    }
    let listed = listed(job, &chains);
    check_logs(job, &listed, &mut verified)?;
    unlisted(job, scope, &listed, &chains, &mut verified);
    Ok(verified)
}

impl Gathered {
    fn add(
        &mut self,
        loaded: Loaded,
        account: &str,
        region: &str,
        violations: &mut Vec<Violation>,
    ) {
        match loaded {
            Loaded::Read(digest) => {
                let chain = chain_of(&digest.home).or_else(|| chain_of(&digest.name));
                let chain = chain.unwrap_or_else(|| Chain::unnamed(account, region));
                self.chains.entry(chain).or_default().push(*digest);
            }
            Loaded::Unreadable { name, detail } => {
                self.others.insert(name.clone());
                let chain = chain_of(&name).unwrap_or_else(|| Chain::unnamed(account, region));
                *self.unreadable.entry(chain.clone()).or_default() += 1;
                self.chains.entry(chain.clone()).or_default();
                violations.push(Violation {
                    chain,
                    kind: Kind::DigestUnreadable,
                    object: name,
                    detail,
                });
            }
            Loaded::Before { name, end } => {
                self.others.insert(name.clone());
                if let Some(chain) = chain_of(&name) {
                    self.chains.entry(chain.clone()).or_default();
                    let last = self.earlier.entry(chain).or_default();
                    *last = (end, name).max(std::mem::take(last));
                }
            }
            Loaded::Outside => {}
        }
    }
}

/// The chain of a digest with this name, if the name tells it.
fn chain_of(name: &str) -> Option<Chain> {
    let named = name::classify(name)?;
    (named.digest && !named.chain.trail.is_empty()).then_some(named.chain)
}

/// The name in the store; of what cannot be in the store, a name that nothing there has.
fn locate(job: &Job<'_>, bucket: &str, key: &str) -> String {
    let found = job.objects.locate(bucket, key);
    found.unwrap_or_else(|| format!("s3://{bucket}/{key}"))
}

fn load(job: &Job<'_>, name: &str) -> Result<Loaded, VerifyError> {
    let named = name::classify(name).and_then(|n| n.time);
    if let Some(end) = named
        && !job.touches(end.plus(-NAMED_ABOUT), end.plus(NAMED_ABOUT))
    {
        return Ok(outside(job, name, end));
    }
    let Some(object) = job.get(name)? else {
        // It was deleted since it was listed; whatever names it will say that it is missing.
        return Ok(Loaded::Outside);
    };
    let unreadable = |detail: String| match named {
        Some(end) if !job.touches(end, end) => outside(job, name, end),
        _ => Loaded::Unreadable {
            name: name.to_owned(),
            detail,
        },
    };
    let content = match content::whole(object.content, DIGEST_BYTES) {
        Ok(content) => content,
        Err(ContentError::Read(source)) => return Err(VerifyError::read(name, source)),
        Err(damage) => return Ok(unreadable(damage.to_string())),
    };
    let document = match Document::parse(&content) {
        Ok(document) => document,
        Err(error) => return Ok(unreadable(error.to_string())),
    };
    let signature = signature(job, &document, &object.metadata);
    let home = match signature {
        // Nothing that it says is believed, and so neither where it belongs nor when.
        Signature::Bad(_) => name.to_owned(),
        _ if !job.touches(document.start, document.end) => {
            return Ok(outside(job, name, document.end));
        }
        _ => locate(job, &document.bucket, &document.key),
    };
    Ok(Loaded::Read(Box::new(Digest {
        name: name.to_owned(),
        home,
        document,
        signature,
        proven: false,
    })))
}

fn outside(job: &Job<'_>, name: &str, end: Time) -> Loaded {
    match job.from.is_some_and(|from| end <= from) {
        true => Loaded::Before {
            name: name.to_owned(),
            end,
        },
        false => Loaded::Outside,
    }
}

fn signature(job: &Job<'_>, document: &Document, metadata: &Metadata) -> Signature {
    let (Some(signature), Some(algorithm)) = (&metadata.signature, &metadata.algorithm) else {
        return Signature::Absent;
    };
    if algorithm != SIGNATURE_ALGORITHM {
        return Signature::Bad(format!(
            "the algorithm of its signature is not {SIGNATURE_ALGORITHM}"
        ));
    }
    let Some(signature) = unhex(signature) else {
        return Signature::Bad("its signature is not hexadecimal".to_owned());
    };
    let text = document.signed_text();
    match job
        .keys
        .check(&document.fingerprint, text.as_bytes(), &signature)
    {
        Fit::Good => Signature::Good(signature),
        Fit::UnknownKey => Signature::UnknownKey(signature),
        Fit::Bad => Signature::Bad("its signature does not fit its content".to_owned()),
    }
}

/// What the digests list that can be believed, each object once.
fn listed(job: &Job<'_>, chains: &BTreeMap<Chain, Vec<Digest>>) -> BTreeMap<String, Entry> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for (chain, digests) in chains.values().enumerate() {
        for digest in digests.iter().filter(|d| d.is_believed()) {
            for log in &digest.document.logs {
                let name = locate(job, &log.bucket, &log.key);
                let entry = entries.entry(name.clone()).or_insert_with(|| Entry {
                    name,
                    hashes: BTreeSet::new(),
                    digest: digest.name.clone(),
                    chain,
                    proven: false,
                });
                // What is not proven counts only where nothing else is said.
                if entry.proven && !digest.proven {
                    continue;
                }
                if digest.proven && !entry.proven {
                    entry.hashes.clear();
                    (entry.chain, entry.proven) = (chain, true);
                    entry.digest.clone_from(&digest.name);
                }
                entry.hashes.insert(log.sha256);
            }
        }
    }
    entries
}

fn check_logs(
    job: &Job<'_>,
    listed: &BTreeMap<String, Entry>,
    verified: &mut Verified,
) -> Result<(), VerifyError> {
    let entries: Vec<&Entry> = listed.values().collect();
    let checked = parallel(job, &entries, |entry| check_log(job, entry))?;
    for (entry, checked) in entries.iter().zip(checked) {
        let report = &mut verified.chains[entry.chain];
        let (kind, detail) = match checked {
            Checked::Same if entry.proven => {
                report.logs.proven += 1;
                continue;
            }
            Checked::Same => {
                report.logs.unproven += 1;
                verified.coverage.open.push(entry.name.clone());
                continue;
            }
            Checked::Changed(detail) => {
                report.logs.changed += 1;
                verified.coverage.failed.push(entry.name.clone());
                (Kind::LogChanged, detail)
            }
            Checked::Missing => {
                report.logs.missing += 1;
                (Kind::LogMissing, "it is not there".to_owned())
            }
        };
        verified.violations.push(Violation {
            chain: report.chain.clone(),
            kind,
            object: entry.name.clone(),
            detail: format!("{detail}; listed in `{}`", entry.digest),
        });
    }
    Ok(())
}

fn check_log(job: &Job<'_>, entry: &Entry) -> Result<Checked, VerifyError> {
    let known = job.objects.sha256(&entry.name);
    let known = known.map_err(|source| VerifyError::read(&entry.name, source))?;
    let hash = match known.and_then(|hex| Hash::try_from(unhex(&hex)?).ok()) {
        Some(hash) => Ok(hash),
        None => {
            let Some(object) = job.get(&entry.name)? else {
                return Ok(Checked::Missing);
            };
            content::sha256(object.content, job.limits.object_bytes)
        }
    };
    match hash {
        Ok(hash) if entry.hashes.iter().all(|h| *h == hash) => Ok(Checked::Same),
        Ok(_) if entry.hashes.len() > 1 => Ok(Checked::Changed(
            "digests list it with different hashes".to_owned(),
        )),
        Ok(_) => Ok(Checked::Changed("its SHA-256 is another one".to_owned())),
        Err(ContentError::Read(source)) => Err(VerifyError::read(&entry.name, source)),
        Err(damage) => Ok(Checked::Changed(damage.to_string())),
    }
}

/// Log files that no digest lists.
fn unlisted(
    job: &Job<'_>,
    scope: &Scope,
    listed: &BTreeMap<String, Entry>,
    chains: &BTreeMap<Chain, Vec<Digest>>,
    verified: &mut Verified,
) {
    let outside =
        |time: Time| job.from.is_some_and(|f| time < f) || job.to.is_some_and(|t| time >= t);
    let logs = scope
        .logs
        .iter()
        .filter(|(name, time)| !listed.contains_key(*name) && !time.is_some_and(outside));
    // The chain that goes on longest speaks for the account and region, if anything of it is proven.
    let speaker = (0..verified.chains.len())
        .filter(|i| !verified.chains[*i].chain.backfill)
        .max_by_key(|i| {
            let chain = &verified.chains[*i];
            (chain.digests_proven > 0, chain.to)
        });
    let regular = chains.iter().filter(|(chain, _)| !chain.backfill);
    let proven = || regular.clone().flat_map(|(_, d)| d).filter(|d| d.proven);
    let covered = covered(proven());
    verified.coverage.spans.clone_from(&covered);
    let Some(speaker) = speaker else {
        verified.alone = logs.map(|(name, time)| (name.clone(), *time)).collect();
        return;
    };
    let newest = verified.chains[speaker].to.unwrap_or(Time::MIN);
    let oldest = proven().min_by_key(|d| d.document.start);
    let opens = oldest.is_some_and(|d| d.document.previous.is_some());
    for (name, time) in logs {
        let report = &mut verified.chains[speaker];
        let detail = match time {
            Some(time) if *time > job.now.plus(DELIVERY) => {
                format!("it is named by {time}, which has not come yet")
            }
            Some(time) if *time >= newest.plus(-DELIVERY) => {
                report.logs.not_yet_attested += 1;
                verified.coverage.open.push(name.clone());
                continue;
            }
            Some(time) if !is_covered(&covered, *time, opens) => {
                report.logs.unproven += 1;
                verified.coverage.open.push(name.clone());
                continue;
            }
            Some(time) => format!("it is named by {time}, and no digest lists it"),
            None => "its name has no time, and no digest lists it".to_owned(),
        };
        report.logs.unattested += 1;
        verified.coverage.failed.push(name.clone());
        verified.violations.push(Violation {
            chain: report.chain.clone(),
            kind: Kind::LogUnattested,
            object: name.clone(),
            detail,
        });
    }
}

/// The times that digests speak of, joined where they touch.
fn covered<'d>(digests: impl Iterator<Item = &'d Digest>) -> Vec<(Time, Time)> {
    let mut spans: Vec<_> = digests
        .map(|d| (d.document.start, d.document.end))
        .collect();
    spans.sort();
    let mut joined: Vec<(Time, Time)> = Vec::new();
    for (start, end) in spans {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// Should a log file of this time be in a digest that is proven? What is before all of them should, unless the oldest
/// (`opens`) follows another one, which is not there or not proven.
fn is_covered(covered: &[(Time, Time)], time: Time, opens: bool) -> bool {
    match covered.iter().position(|(_, end)| time < *end) {
        // Nothing is proven from here on.
        None => false,
        Some(0) if time < covered[0].0 => !opens,
        Some(at) if time < covered[at].0 => false,
        // The next digest may be missing, and list it.
        Some(at) => at + 1 == covered.len() || time < covered[at].1.plus(-NAMED_EARLY),
    }
}
