//! Chains that the test signs itself, and everything that can be done to them.

mod property;
mod world;

use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use self::world::{
    ACCOUNT, Bucket, Plan, WHOLE_DAY, digest, digest_of, gzip, keys, log, log_of, put_digest,
    sign_again, time, written,
};
use super::*;
use crate::decode::hex;

/// What verification says of a bucket at the end of the day.
fn report(bucket: &Bucket, period: impl FnOnce(&mut Job<'_>)) -> Report {
    let keys = keys();
    let mut job = Job::new(bucket, &keys, time(23));
    job.workers = 2;
    period(&mut job);
    verify(&job).unwrap()
}

fn found(report: &Report) -> Vec<(&str, &str)> {
    let violations = report.violations.iter();
    violations
        .map(|v| (v.kind.as_str(), v.object.as_str()))
        .collect()
}

/// Does something to a bucket; exactly this is found.
fn check(
    bucket: &Bucket,
    tamper: impl FnOnce(&mut Bucket),
    period: impl FnOnce(&mut Job<'_>),
    expected: &[(&str, &str)],
) -> Report {
    let mut tampered = bucket.clone();
    tamper(&mut tampered);
    let report = report(&tampered, period);
    assert_eq!(found(&report), expected, "{report:#?}");
    report
}

fn day() -> &'static Bucket {
    static DAY: OnceLock<Bucket> = OnceLock::new();
    DAY.get_or_init(|| written("eu-west-1", WHOLE_DAY))
}

/// Does something to the day.
fn of_day(tamper: impl FnOnce(&mut Bucket), expected: &[(&str, &str)]) -> Report {
    check(day(), tamper, |_| {}, expected)
}

#[test]
fn an_untouched_chain_is_proven() {
    let report = of_day(|_| {}, &[]);
    let [chain] = &report.chains[..] else {
        panic!("{report:?}");
    };
    assert_eq!(
        chain.chain.to_string(),
        format!("{ACCOUNT} eu-west-1 trail")
    );
    assert_eq!((chain.from, chain.to), (Some(time(0)), Some(time(8))));
    assert_eq!((chain.digests, chain.digests_proven), (8, 8));
    let all = LogCounts {
        proven: 16,
        ..LogCounts::default()
    };
    assert_eq!(chain.logs, all);
}

#[test]
fn signatures() {
    let of = |edit: &dyn Fn(&mut Metadata), kind| {
        for at in [1, 4, 8] {
            let name = digest(at);
            let edit = |b: &mut Bucket| edit(&mut b.0.get_mut(&name).unwrap().1);
            let report = of_day(edit, &[(kind, &name)]);
            // The next digest, if there is one, remembers the content, which was not touched.
            let unproven = if at == 8 { 2 } else { 0 };
            assert_eq!(report.chains[0].logs.proven, 16 - unproven);
        }
    };
    of(&|m| m.signature = None, "digest-unsigned");
    of(&|m| m.algorithm = None, "digest-unsigned");
    of(&|m| m.algorithm = Some("none".into()), "bad-signature");
    of(&|m| m.signature = Some("xy".into()), "bad-signature");
    of(&|m| m.signature = Some("00".repeat(256)), "bad-signature");
}

#[test]
fn unknown_keys() {
    let name = digest(8);
    let tamper = |b: &mut Bucket| {
        b.edit(&name, |d| d["digestPublicKeyFingerprint"] = json!("g"));
    };
    let report = of_day(tamper, &[("unknown-key", &name)]);
    assert_eq!(report.chains[0].logs.unproven, 2);
    // Log files are looked at all the same.
    let changed = log(7, 15);
    let both = |b: &mut Bucket| {
        tamper(b);
        b.put(&changed, b"{}");
    };
    of_day(both, &[("unknown-key", &name), ("log-changed", &changed)]);
}

#[test]
fn changed_digests() {
    let edits: &[fn(&mut Value)] = &[
        |d| d["logFiles"] = json!([]),
        |d| d["logFiles"][0]["hashValue"] = json!("0".repeat(64)),
        |d| d["logFiles"][0]["s3Object"] = json!("../../etc/passwd"),
        |d| d["digestS3Object"] = json!("elsewhere"),
        |d| d["digestS3Object"] = json!(digest(9).replace("_trail_", "_another_")),
        |d| d["digestS3Bucket"] = json!("elsewhere"),
        |d| d["digestStartTime"] = json!("2020-01-01T00:00:00Z"),
        |d| d["digestEndTime"] = json!("2030-01-01T00:00:00Z"),
        |d| d["previousDigestS3Object"] = json!("elsewhere"),
        |d| d["previousDigestHashValue"] = json!("0".repeat(64)),
        |d| d["previousDigestSignature"] = json!("00"),
        |d| {
            for field in [
                "S3Bucket",
                "S3Object",
                "HashValue",
                "HashAlgorithm",
                "Signature",
            ] {
                d[format!("previousDigest{field}")] = Value::Null;
            }
        },
    ];
    for at in [2, 4, 8] {
        for (number, edit) in edits.iter().enumerate() {
            let name = digest(at);
            eprintln!("edit {number} of {name}");
            let report = of_day(|b| b.edit(&name, edit), &[("bad-signature", &name)]);
            let logs = report.chains[0].logs;
            assert_eq!((logs.proven, logs.total()), (14, 16));
        }
    }
}

#[test]
fn digests_that_cannot_be_read() {
    let name = digest(4);
    let unreadable = [("digest-unreadable", name.as_str())];
    let report = of_day(|b| b.put(&name, b"[]"), &unreadable);
    assert_eq!(
        (report.chains[0].digests, report.chains[0].digests_proven),
        (8, 7)
    );
    assert_eq!(report.chains[0].logs.unproven, 2);
    let content = |edit: &dyn Fn(&mut Vec<u8>)| {
        of_day(|b| edit(&mut b.0.get_mut(&name).unwrap().0), &unreadable);
    };
    content(&|c| c.clear());
    content(&|c| c.truncate(50));
    content(&|c| c.push(0));
    content(&|c| c.extend_from_within(..));
    content(&|c| c[30] ^= 1);
}

#[test]
fn moved_and_copied_digests() {
    let name = digest(4);
    for to in [
        digest(4).replace("2026/03/02", "2026/03/03"),
        digest(4).replace("AWSLogs", "other/AWSLogs"),
        digest(4).replace("T04", "T14"),
        digest(4).replace(".json.gz", ".json.gz.bak"),
        format!("AWSLogs/{ACCOUNT}/CloudTrail-Digest/eu-west-1/x"),
    ] {
        let moved = [("digest-moved", to.as_str())];
        let report = of_day(|b| b.rename(&name, &to), &moved);
        assert_eq!(report.chains[0].logs.proven, 16);
        of_day(|b| drop(b.0.insert(to.clone(), b.0[&name].clone())), &moved);
    }
}

#[test]
fn deleted_digests() {
    let one = digest(4);
    let report = of_day(|b| b.delete(&one), &[("digest-missing", &one)]);
    assert_eq!(
        (report.chains[0].digests, report.chains[0].digests_proven),
        (8, 7)
    );
    assert_eq!(
        (report.chains[0].logs.proven, report.chains[0].logs.unproven),
        (14, 2)
    );
    assert!(
        report.violations[0]
            .detail
            .contains("from 2026-03-02T03:00:00Z to 2026-03-02T04:00:00Z")
    );

    // The name of the other one was only in the first.
    let two = |b: &mut Bucket| {
        b.delete(&digest(4));
        b.delete(&digest(5));
    };
    let report = of_day(two, &[("digest-missing", &digest(5))]);
    assert!(
        report.violations[0]
            .detail
            .contains("from 2026-03-02T03:00:00Z to 2026-03-02T05:00:00Z")
    );
    assert_eq!(report.chains[0].logs.unproven, 4);

    let first = digest(1);
    of_day(|b| b.delete(&first), &[("digest-missing", &first)]);
    // What is older than asked for may have expired.
    let later = |job: &mut Job<'_>| job.from = Some(time(1));
    check(day(), |b| b.delete(&first), later, &[]);
}

#[test]
fn neighbours_that_are_linked_again() {
    // Without the key it can only be written, not signed.
    let relink = |b: &mut Bucket| {
        b.delete(&digest(4));
        b.delete(&digest(5));
        let before = hex(&Sha256::digest(b.content(&digest(3))));
        b.edit(&digest(6), |d| {
            d["previousDigestS3Object"] = json!(digest(3));
            d["previousDigestHashValue"] = json!(before);
        });
    };
    of_day(relink, &[("bad-signature", &digest(6))]);
    // With the key, as CloudTrail itself has done it (aws-cli#7054), a gap remains.
    let gap: Plan<'_> = &[
        (1, None, 0),
        (2, Some(1), 1),
        (5, Some(2), 4),
        (6, Some(5), 5),
        (9, Some(6), 8),
    ];
    let bucket = written("eu-west-1", gap);
    check(
        &bucket,
        |_| {},
        |_| {},
        &[("gap", &digest(5)), ("gap", &digest(9))],
    );
    let overlap: Plan<'_> = &[(2, None, 0), (3, Some(2), 1)];
    check(
        &written("eu-west-1", overlap),
        |_| {},
        |_| {},
        &[("gap", &digest(3))],
    );
}

#[test]
fn a_chain_that_begins_anew() {
    let plan: Plan<'_> = &[(1, None, 0), (2, Some(1), 1), (6, None, 5), (7, Some(6), 6)];
    let bucket = written("eu-west-1", plan);
    let restart = digest(6);
    let report = check(&bucket, |_| {}, |_| {}, &[("restart", &restart)]);
    assert!(
        report.violations[0]
            .detail
            .contains("from 2026-03-02T02:00:00Z to 2026-03-02T05:00:00Z")
    );
    // What was delivered meanwhile cannot be proven, and is not accused.
    let meanwhile = |b: &mut Bucket| b.put(&log(3, 15), b"{}");
    let report = check(&bucket, meanwhile, |_| {}, &[("restart", &restart)]);
    assert_eq!(report.chains[0].logs.unproven, 1);
}

#[test]
fn digests_that_replace_others() {
    // Somebody who has the key, or CloudTrail, writes a digest anew.
    let name = digest(4);
    let anew = |b: &mut Bucket| {
        b.edit(&name, |d| drop(d["logFiles"].as_array_mut().unwrap().pop()));
        sign_again(b, &name);
    };
    let unlisted = log(3, 30);
    of_day(
        anew,
        &[("digest-changed", &name), ("log-unattested", &unlisted)],
    );
    // The same content with the signature that a longer chain would have given it.
    let mut bucket = written("eu-west-1", &WHOLE_DAY[..4]);
    bucket.edit(&digest(4), |d| d["previousDigestSignature"] = json!("00"));
    sign_again(&mut bucket, &digest(4));
    check(&bucket, |_| {}, |_| {}, &[("chain-signature", &digest(3))]);
}

#[test]
fn log_files() {
    let name = log(3, 15);
    let changed = [("log-changed", name.as_str())];
    let content = |edit: &dyn Fn(&mut Vec<u8>)| {
        let report = of_day(|b| edit(&mut b.0.get_mut(&name).unwrap().0), &changed);
        assert_eq!(
            (report.chains[0].logs.proven, report.chains[0].logs.changed),
            (15, 1)
        );
    };
    content(&|c| c.clear());
    content(&|c| c.truncate(30));
    content(&|c| c.push(0));
    content(&|c| c.extend_from_within(..));
    content(&|c| *c = gzip(b"{\"Records\":[]}"));
    of_day(|b| b.delete(&name), &[("log-missing", &name)]);
    // Unpacked, as some tools leave it, it is what was delivered.
    of_day(|b| b.0.get_mut(&name).unwrap().0 = b.content(&name), &[]);
    let injected = log(3, 16);
    of_day(
        |b| b.put(&injected, b"{}"),
        &[("log-unattested", &injected)],
    );
    let folder = name.rsplit_once('/').unwrap().0;
    let strange = format!("{folder}/evil.json");
    of_day(|b| b.put(&strange, b"{}"), &[("log-unattested", &strange)]);
    let future = log(3, 15).replace("20260302", "20300302");
    of_day(|b| b.put(&future, b"{}"), &[("log-unattested", &future)]);
    // From before validation was on, or so it says.
    let before = log(3, 15).replace("20260302", "20250302");
    of_day(|b| b.put(&before, b"{}"), &[("log-unattested", &before)]);
    let later = |job: &mut Job<'_>| job.from = Some(time(0));
    check(day(), |b| b.put(&before, b"{}"), later, &[]);
}

#[test]
fn what_may_still_be_attested() {
    let report = of_day(
        |b| {
            b.put(&log(8, 15), b"{}");
            b.put(&log(6, 16), b"{}");
        },
        &[],
    );
    assert_eq!(report.chains[0].logs.not_yet_attested, 2);
    assert_eq!(report.chains[0].logs.proven, 16);
}

#[test]
fn chains_that_end_early() {
    let mut bucket = day().clone();
    bucket.0.extend(written("us-east-1", &WHOLE_DAY[..6]).0);
    let last = digest_of("us-east-1", 6, "");
    // Two hours behind: its next digests may be on their way.
    check(&bucket, |_| {}, |_| {}, &[]);
    let to = |hour: u32| move |job: &mut Job<'_>| job.to = Some(time(hour));
    check(&bucket, |_| {}, to(6), &[]);
    check(&bucket, |_| {}, to(7), &[("ends-early", &last)]);
    let delete = |b: &mut Bucket| b.delete(&last);
    let last = digest_of("us-east-1", 5, "");
    check(&bucket, delete, |_| {}, &[("ends-early", &last)]);
    // Also a chain that ended before the time that is asked for.
    let from = |job: &mut Job<'_>| job.from = Some(time(7));
    let report = check(
        &bucket,
        |b| b.delete(&digest_of("us-east-1", 6, "")),
        from,
        &[("ends-early", &last)],
    );
    assert_eq!(
        (report.chains[1].digests, report.chains[1].logs.total()),
        (0, 0)
    );
}

#[test]
fn accounts_and_regions_without_digests() {
    let alone = log_of("sa-east-1", 1, 15);
    let new = log_of("sa-east-1", 7, 15);
    let report = of_day(
        |b| {
            b.put(&alone, b"{}");
            b.put(&new, b"{}");
        },
        &[("no-digests", &alone)],
    );
    let logs = report.chains[1].logs;
    assert_eq!((logs.unattested, logs.not_yet_attested), (1, 1));
    of_day(|b| b.put(&new, b"{}"), &[]);
}

#[test]
fn periods() {
    let period = |job: &mut Job<'_>| (job.from, job.to) = (Some(time(3)), Some(time(5)));
    let report = check(day(), |_| {}, period, &[]);
    assert_eq!(
        (report.chains[0].from, report.chains[0].to),
        (Some(time(3)), Some(time(7)))
    );
    for outside in [log(1, 15), log(7, 15)] {
        check(day(), |b| b.delete(&outside), period, &[]);
    }
    for outside in [digest(1), digest(2), digest(8)] {
        check(day(), |b| b.delete(&outside), period, &[]);
        check(day(), |b| b.put(&outside, b"[]"), period, &[]);
    }
    let inside = digest(4);
    check(
        day(),
        |b| b.delete(&inside),
        period,
        &[("digest-missing", &inside)],
    );
    check(
        day(),
        |b| b.put(&inside, b"[]"),
        period,
        &[("digest-unreadable", &inside)],
    );
}

#[test]
fn backfill_chains_stand_beside() {
    let mut bucket = day().clone();
    let late = [log(2, 45), log(5, 45)];
    for log in &late {
        bucket.put(log, b"{}");
    }
    let [first, second] = [3, 6].map(|hour| digest_of("eu-west-1", hour, "_backfill"));
    put_digest(&mut bucket, &first, None, (2, 3), &late[..1]);
    put_digest(&mut bucket, &second, Some(&first), (5, 6), &late[1..]);
    let report = check(&bucket, |_| {}, |_| {}, &[]);
    assert_eq!(report.chains[0].logs.proven, 16);
    assert_eq!(
        (
            report.chains[1].chain.backfill,
            report.chains[1].logs.proven
        ),
        (true, 2)
    );
    check(
        &bucket,
        |b| b.delete(&first),
        |_| {},
        &[("log-unattested", &late[0]), ("digest-missing", &first)],
    );
    check(
        &bucket,
        |b| b.put(&late[1], b"x"),
        |_| {},
        &[("log-changed", &late[1])],
    );
    for from in [4, 5] {
        let later = |job: &mut Job<'_>| job.from = Some(time(from));
        check(&bucket, |_| {}, later, &[]);
        check(&bucket, |b| b.delete(&first), later, &[]);
    }
}

#[test]
fn digests_that_somebody_made_up() {
    // In a chain of its own, far ahead, and with lies about genuine log files.
    let name = digest_of("eu-west-1", 9, "").replace("_trail_", "_another_");
    let tamper = |b: &mut Bucket| {
        put_digest(b, &name, None, (8, 9), &[log(3, 15)]);
        b.edit(&name, |d| {
            d["digestEndTime"] = json!("2030-01-01T00:00:00Z");
            d["logFiles"][0]["hashValue"] = json!("0".repeat(64));
        });
        b.0.get_mut(&name).unwrap().1 = Metadata::default();
        b.put(&log(8, 15), b"{}");
    };
    let report = of_day(tamper, &[("digest-unsigned", &name)]);
    let genuine = report.chains.iter().find(|c| c.chain.trail == "trail");
    let logs = genuine.unwrap().logs;
    assert_eq!((logs.proven, logs.not_yet_attested), (16, 1));
}

#[test]
fn on_disk_it_is_the_same() {
    let mut bucket = day().clone();
    bucket.delete(&digest(4));
    bucket.put(&log(5, 15), b"{}");
    bucket.put(&log(5, 16), b"{}");
    // The folder begins above the bucket, or below the prefix in it.
    for (key, path) in [
        ("prefix", "mirror/b/prefix"),
        ("prefix/AWSLogs/o-ab12cd34ef", "logs"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| name.replace(key, path);
        for (name, (content, metadata)) in &bucket.0 {
            let file = folder.path().join(place(name));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, content).unwrap();
            let sidecar =
                json!({"signature": metadata.signature, "signature-algorithm": metadata.algorithm});
            let file = file.to_str().unwrap().replace(".json.gz", ".sig.json");
            if name.contains("Digest") {
                std::fs::write(file, sidecar.to_string()).unwrap();
            }
        }
        let keys = keys();
        let on_disk = Folder::open(folder.path()).unwrap();
        let on_disk = verify(&Job::new(&on_disk, &keys, time(23))).unwrap();
        let in_memory = report(&bucket, |_| {});
        assert_eq!(in_memory.violations.len(), 3);
        let names = |r: &Report| serde_json::to_string(r).unwrap();
        assert_eq!(names(&on_disk), place(&names(&in_memory)));
    }
}
