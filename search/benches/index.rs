//! How fast events are indexed, how much disk that takes, and how long queries last.
//!
//! `cargo bench -p search [-- EVENTS]` makes CloudTrail-like events from a seed, indexes them with one thread through
//! [`OfflineIndex`], and prints a table: events per second, size of the index against the size of the records, and the
//! median time of typical queries. It compares nothing and fails on nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use event::{Event, Id, Outcome, Time};
use search::offline::OfflineIndex;
use search::{Config, Metrics, Request, Searcher};

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Small numbers far more often than large ones.
    fn below(&mut self, limit: u64) -> u64 {
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((limit as f64).powf(share) - 1.0) as u64
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }
}

const CALLS: &[(&str, &str)] = &[
    ("sts.amazonaws.com", "AssumeRole"),
    ("s3.amazonaws.com", "GetObject"),
    ("ec2.amazonaws.com", "DescribeInstances"),
    ("kms.amazonaws.com", "Decrypt"),
    ("iam.amazonaws.com", "ListRoles"),
    ("lambda.amazonaws.com", "Invoke20150331"),
    ("s3.amazonaws.com", "PutObject"),
    ("logs.amazonaws.com", "CreateLogStream"),
    ("secretsmanager.amazonaws.com", "GetSecretValue"),
    ("iam.amazonaws.com", "CreateUser"),
    ("cloudtrail.amazonaws.com", "StopLogging"),
];

fn event(random: &mut Random, number: u64) -> Event {
    let (service, action) = CALLS[random.below(CALLS.len() as u64) as usize];
    let time = Time::from_seconds(1_772_000_000 + number as i64 / 3);
    let account = format!("{:012}", 100_000_000_000 + random.below(8) * 7_777_777);
    let role = format!("role-{}", random.below(60));
    let session = format!("{role}-session-{}", random.below(3_000));
    let ip = format!("203.0.{}.{}", random.below(113), random.below(250));
    let key = format!(
        "ASIA{:016X}",
        random.below(5_000).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    );
    let (event_id, request_id) = (random.uuid(), random.uuid());
    let bucket = format!("data-bucket-{}", random.below(200));
    let object = format!(
        "year=2026/month=03/part-{:08}.parquet",
        random.next() % 500_000
    );
    let denied = random.next().is_multiple_of(50);
    let arn = format!("arn:aws:sts::{account}:assumed-role/{role}/{session}");
    let error = if denied {
        format!(
            r#""errorCode":"AccessDenied","errorMessage":"User: {arn} is not authorized to perform: {action}","#
        )
    } else {
        String::new()
    };
    let raw = format!(
        r#"{{"eventVersion":"1.11","userIdentity":{{"type":"AssumedRole","principalId":"AROA{role}:{session}","arn":"{arn}","accountId":"{account}","accessKeyId":"{key}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROA{role}","arn":"arn:aws:iam::{account}:role/{role}","accountId":"{account}","userName":"{role}"}},"attributes":{{"creationDate":"{time}","mfaAuthenticated":"false"}}}}}},"eventTime":"{time}","eventSource":"{service}","eventName":"{action}","awsRegion":"eu-west-1","sourceIPAddress":"{ip}","userAgent":"aws-sdk-go-v2/1.24.{} os/linux lang/go#1.21.5 md/GOOS#linux",{error}"requestParameters":{{"bucketName":"{bucket}","key":"{object}","Host":"{bucket}.s3.eu-west-1.amazonaws.com"}},"responseElements":null,"additionalEventData":{{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":{},"AuthenticationMethod":"AuthHeader","x-amz-id-2":"{}"}},"requestID":"{request_id}","eventID":"{event_id}","readOnly":{},"resources":[{{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::{bucket}/{object}"}},{{"accountId":"{account}","type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::{bucket}"}}],"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"{account}","eventCategory":"Data","tlsDetails":{{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"{bucket}.s3.eu-west-1.amazonaws.com"}}}}"#,
        random.below(20),
        random.below(100_000),
        random.uuid(),
        random.next().is_multiple_of(2),
    );
    Event {
        id: Id::cloudtrail(&account, &event_id),
        source_id: event_id.into(),
        source: "aws.cloudtrail".into(),
        time,
        ingest_time: time,
        account: account.as_str().into(),
        region: "eu-west-1".into(),
        category: "Data".into(),
        service: service.into(),
        action: action.into(),
        outcome: if denied {
            Outcome::Denied
        } else {
            Outcome::Success
        },
        error_code: if denied {
            "AccessDenied".into()
        } else {
            "".into()
        },
        actor: format!("{role}/{session}").into(),
        actor_type: "AssumedRole".into(),
        actor_id: arn.into(),
        identity: session.as_str().into(),
        session: session.into(),
        access_key: key.into(),
        issuer: format!("arn:aws:iam::{account}:role/{role}").into(),
        mfa: Some(false),
        src_ip: ip.into(),
        user_agent: "aws-sdk-go-v2/1.24 os/linux lang/go#1.21.5 md/GOOS#linux".into(),
        resources: vec![format!("arn:aws:s3:::{bucket}/{object}").into()],
        request_id: request_id.into(),
        raw: Bytes::from(raw),
        ..Event::default()
    }
}

fn folder_size(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("the folder was just written");
    entries
        .flatten()
        .map(|e| match e.path().is_dir() {
            true => folder_size(&e.path()),
            false => e.metadata().map_or(0, |m| m.len()),
        })
        .sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a bench prints its table")]
fn main() {
    let number = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(200_000);
    let mut random = Random(7);
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let config = Config::default();
    let mut index = OfflineIndex::create(dir.path(), &config).expect("the folder is empty");
    let (mut raw, mut spent) = (0, Duration::ZERO);
    for i in 0..number {
        let event = event(&mut random, i);
        raw += event.raw.len() as u64;
        let start = Instant::now();
        index.add(&event).expect("the disk has space");
        spent += start.elapsed();
    }
    let start = Instant::now();
    index.finish().expect("the disk has space");
    spent += start.elapsed();
    let size = folder_size(dir.path());
    println!(
        "indexed {number} events of {} bytes on average",
        raw / number.max(1)
    );
    println!(
        "{:>10.0} events/s, one thread",
        number as f64 / spent.as_secs_f64()
    );
    println!(
        "{:>10.2} index/raw ({} MiB)",
        size as f64 / raw as f64,
        size >> 20
    );

    let metrics = Metrics::new(&prometheus::Registry::new()).expect("the registry is new");
    let now = Time::from_seconds(1_772_000_000 + number as i64 / 3);
    let clock: event::Clock = std::sync::Arc::new(move || now);
    let searcher =
        Searcher::open(dir.path(), &config, metrics, clock).expect("it was just written");
    for (query, limit, count) in [
        ("action:CreateUser", 100, false),
        ("eventName:CreateUser", 100, false),
        ("eventName:CreateUser", 100, true),
        ("eventName:GetObject AND errorCode:AccessDenied", 100, false),
        ("NOT action:AssumeRole AND src_ip:203.0.7.0/24", 100, false),
        ("\"not authorized\"", 100, false),
        ("stoplogging", 100, false),
        ("requestParameters.key:*parquet", 100, false),
        ("requestParameters.key:/.*00123.*/", 100, false),
        ("additionalEventData.bytesTransferredIn:>99000", 100, false),
        ("*", 100, false),
        ("*", 100, true),
        ("time:>-1h outcome:denied", 100, true),
    ] {
        let request = Request {
            query: query.to_owned(),
            limit,
            count,
            newest_first: true,
            ..Request::default()
        };
        let mut found = 0;
        let times = (0..9)
            .map(|_| {
                let answer = searcher.search(&request).expect("the query is good");
                found = answer.total.unwrap_or(answer.hits.len() as u64);
                answer.took
            })
            .collect();
        println!(
            "{:>10.2} ms  {found:>8}  {query}",
            median(times).as_secs_f64() * 1e3
        );
    }
    for field in ["action", "src_ip", "userIdentity.arn"] {
        let request = Request {
            limit: 10,
            newest_first: true,
            ..Request::default()
        };
        let times = (0..5)
            .map(|_| {
                let start = Instant::now();
                searcher
                    .top(&request, field, 20)
                    .expect("the field is good");
                start.elapsed()
            })
            .collect();
        println!(
            "{:>10.2} ms  top 20 of {field}",
            median(times).as_secs_f64() * 1e3
        );
    }
    let request = Request {
        limit: 10,
        newest_first: true,
        ..Request::default()
    };
    let times = (0..5)
        .map(|_| {
            let start = Instant::now();
            searcher
                .histogram(&request, 100)
                .expect("it is within bounds");
            start.elapsed()
        })
        .collect();
    println!(
        "{:>10.2} ms  histogram of everything",
        median(times).as_secs_f64() * 1e3
    );
}
