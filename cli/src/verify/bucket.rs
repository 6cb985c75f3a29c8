//! A bucket of S3 held against its digests.

use std::collections::BTreeMap;

use anyhow::Context;
use bus::Stop;
use event::{Str, Time};
use ingest::digest::{self, PublicKeys, Report};
use ingest::source::attest::{self, Store};
use ingest::source::bucket::{Bucket, Range, Walk};
use ingest::source::s3::{S3, Trouble};
use tokio::runtime::Runtime;

use super::{VerifyArgs, keys_of, progress};
use crate::config;
use crate::reconcile::bucket;

/// Digests and log files may land in the folder of a day so many days away.
const FOLDER_DAYS: u16 = 30;

/// Verifies what is in the bucket.
pub(super) fn verify(
    args: &VerifyArgs,
    from: Option<Time>,
    to: Option<Time>,
    now: Time,
) -> anyhow::Result<Report> {
    let config = config::load(args.config.as_deref(), true)?;
    let bucket = bucket(&args.place, &config.ingest.buckets)?;
    let spool = tempfile::tempdir().context("cannot make a folder for a moment")?;
    let runtime = Runtime::new().context("cannot start threads")?;
    let access = runtime.block_on(bucket.aws.load());
    let s3 = S3::new(
        bucket.aws.clone(),
        access.clone(),
        spool.path().to_owned(),
        Stop::default(),
    );
    let range = Range {
        from: from.unwrap_or(Time::MIN),
        to: to.unwrap_or(Time::MAX),
        folder_days: FOLDER_DAYS,
        fetch: false,
    };
    let names = runtime.block_on(names(&s3, &bucket, range)).map_err(said)?;
    let mut keys = keys_of(&args.keys)?;
    if keys.is_empty() {
        let regions = digest::regions(names.keys().map(String::as_str));
        let oldest = names.keys().filter_map(|n| digest::time_of(n)).min();
        let since = from.or(oldest).unwrap_or(now);
        let asked = runtime.block_on(attest::public_keys(&access, &regions, since, now));
        keys = added(asked.map_err(said)?.into_values())?;
    }
    let bar = progress(names.len() as u64);
    let store = Store {
        s3: &s3,
        bucket: bucket.bucket.as_str().into(),
        names: &names,
        known: &|_| Ok(None),
        handle: runtime.handle().clone(),
    };
    let report = store.verify(&keys, (from, to), now, &|| bar.inc(1));
    bar.finish_and_clear();
    Ok(report?)
}

fn added(answers: impl Iterator<Item = serde_json::Value>) -> anyhow::Result<PublicKeys> {
    let mut keys = PublicKeys::default();
    for answer in answers {
        keys.add(answer.to_string().as_bytes())
            .context("cannot use what CloudTrail says of its keys")?;
    }
    Ok(keys)
}

/// What of it matters, with the entity tag of each object.
async fn names(
    s3: &S3,
    bucket: &Bucket,
    range: Range,
) -> Result<BTreeMap<String, Option<Str>>, Trouble> {
    let mut walk = Walk::new(s3, &bucket.bucket, &bucket.prefix, range);
    let mut names = BTreeMap::new();
    while let Some(page) = walk.next().await? {
        let of_trail = page
            .into_iter()
            .filter(|l| digest::is_of_trail(&l.object.key));
        names.extend(of_trail.map(|l| (l.object.key.to_string(), l.object.etag)));
    }
    Ok(names)
}

fn said(trouble: Trouble) -> anyhow::Error {
    anyhow::anyhow!("{trouble}\n\nhint: {}", trouble.hint())
}
