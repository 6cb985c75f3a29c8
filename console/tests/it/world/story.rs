//! A story to investigate: a person who works by day, and whose key is used at night from elsewhere, into another account.

use event::{Event, Finding, Id, Outcome, Severity, Str, Time};

use super::{HOUR, MINUTE, World, event, rules};

const DAY: i64 = 24 * HOUR;
/// The key of the person, and the sessions that are made with it.
pub(crate) const KEYS: [&str; 3] = [
    "AKIAIOSFODNN7ERIN001",
    "ASIAIOSFODNN7ROLE002",
    "ASIAIOSFODNN7ROLE003",
];
const HOME: &str = "111122223333";
const OTHER: &str = "444455556666";
const OFFICE: &str = "198.51.100.20";
const ELSEWHERE: &str = "203.0.113.77";

/// How many secrets were read.
pub(crate) const SECRETS: usize = 14;

fn did(number: &str, time: Time, service: &str, action: &str, denied: bool, ip: &str) -> Event {
    let mut event = event(number, time, "erin", service, action, denied, ip);
    event.access_key = KEYS[0].into();
    event
}

/// By a session that was made with a key of [`KEYS`].
fn by_session(mut event: Event, key: usize, account: &str, role: &str) -> Event {
    let arn = format!("arn:aws:sts::{account}:assumed-role/{role}/erin");
    event.access_key = KEYS[key].into();
    event.actor = Str::from(&arn);
    event.actor_id = Str::from(&arn);
    event.session = Str::from(&arn);
    event.actor_type = "AssumedRole".into();
    event.account = account.into();
    event.user_agent = "Boto3/1.34.51 md/Botocore#1.34.51 ua/2.0 os/linux".into();
    event
}

/// An `AssumeRole` that gave a key of [`KEYS`].
fn assumed(mut event: Event, gave: usize, account: &str, role: &str) -> Event {
    let raw = serde_json::json!({
        "eventName": "AssumeRole", "eventTime": event.time,
        "requestParameters": {"roleArn": format!("arn:aws:iam::{account}:role/{role}"), "roleSessionName": "erin"},
        "responseElements": {
            "credentials": {"accessKeyId": KEYS[gave], "expiration": "Nov 22, 2026, 4:12:00 AM"},
            "assumedRoleUser": {"arn": format!("arn:aws:sts::{account}:assumed-role/{role}/erin")},
        },
    });
    event.raw = raw.to_string().into();
    event
}

/// Four weeks at work, and one night.
fn events(now: Time) -> Vec<Event> {
    let mut out = Vec::new();
    let usual = [
        ("s3", "GetObject"),
        ("s3", "ListBuckets"),
        ("ec2", "DescribeInstances"),
        ("s3", "PutObject"),
        ("lambda", "GetFunction"),
        ("logs", "FilterLogEvents"),
        ("s3", "GetObject"),
        ("s3", "GetObject"),
    ];
    // Days begin at midnight, `now` is noon.
    let midnight = now.plus(-12 * HOUR);
    for day in 1..=28_i64 {
        for (i, (service, action)) in usual.into_iter().enumerate() {
            let at =
                midnight.plus(-day * DAY + (8 + i as i64) * HOUR + (day * 7 + i as i64) * MINUTE);
            let denied = day % 9 == 0 && i == 2;
            out.push(did(
                &format!("erin-{day}-{i}"),
                at,
                service,
                action,
                denied,
                OFFICE,
            ));
        }
    }
    for (i, (service, action)) in usual.into_iter().take(3).enumerate() {
        let at = midnight.plus((8 + i as i64) * HOUR + 40 * MINUTE);
        out.push(did(
            &format!("erin-0-{i}"),
            at,
            service,
            action,
            false,
            OFFICE,
        ));
    }
    let night = midnight.plus(3 * HOUR + 7 * MINUTE);
    let at = |seconds: i64| night.plus(seconds * 1_000_000);
    let agent = |mut event: Event| {
        event.user_agent = "Boto3/1.34.51 md/Botocore#1.34.51 ua/2.0 os/linux".into();
        event
    };
    let first = |number: &str, seconds, service, action, denied| {
        agent(did(number, at(seconds), service, action, denied, ELSEWHERE))
    };
    out.push(first("night-1", 0, "sts", "GetCallerIdentity", false));
    for i in 0..6 {
        out.push(first(
            &format!("night-2-{i}"),
            11 + i * 3,
            "iam",
            "ListUsers",
            true,
        ));
    }
    out.push(first("night-3", 40, "iam", "ListRoles", false));
    let role = first("night-4", 95, "sts", "AssumeRole", false);
    out.push(assumed(role, 1, HOME, "ops-admin"));
    let admin = |number: &str, seconds, service, action, denied| {
        by_session(
            first(number, seconds, service, action, denied),
            1,
            HOME,
            "ops-admin",
        )
    };
    out.push(admin("night-5", 130, "iam", "CreateAccessKey", true));
    for i in 0..SECRETS as i64 {
        out.push(admin(
            &format!("secret-{i}"),
            180 + i * 4,
            "secretsmanager",
            "GetSecretValue",
            i > 9,
        ));
    }
    out.push(admin("night-6", 301, "cloudtrail", "StopLogging", false));
    let mut across = assumed(
        admin("night-7", 390, "sts", "AssumeRole", false),
        2,
        OTHER,
        "audit-write",
    );
    across.shared_id = "shared-1".into();
    let mut recorded = across.clone();
    recorded.id = Id::cloudtrail(OTHER, "night-7-there");
    recorded.source_id = "night-7-there".into();
    recorded.account = OTHER.into();
    recorded.access_key = Str::default();
    recorded.identity = Str::default();
    recorded.actor = "AWSAccount 111122223333".into();
    out.extend([across, recorded]);
    for (i, (service, action)) in [
        ("iam", "ListAttachedRolePolicies"),
        ("s3", "GetBucketPolicy"),
        ("s3", "DeleteObject"),
    ]
    .into_iter()
    .enumerate()
    {
        let event = first(
            &format!("night-8-{i}"),
            430 + i as i64 * 20,
            service,
            action,
            i == 2,
        );
        out.push(by_session(event, 2, OTHER, "audit-write"));
    }
    out
}

impl World {
    /// With the story and its alerts; gives the alert of the secrets that were read.
    pub(crate) fn story() -> (World, Id) {
        let world = World::with(events);
        let of = |prefix: &str| -> Vec<&Event> {
            let events = world.events.iter();
            let mut found: Vec<&Event> =
                events.filter(|e| e.source_id.starts_with(prefix)).collect();
            found.sort_by_key(|e| (e.time, e.id));
            found
        };
        let secrets = of("secret-");
        let rule = &rules()[4];
        let burst = Finding {
            rule_id: Str::from(&rule.id),
            title: Str::from(&rule.title),
            severity: Severity::High,
            id: Id(40_001),
            episode: Id(40_001),
            group: [("access_key".into(), Some(KEYS[1].into()))].into(),
            first_event_time: secrets[0].time,
            last_event_time: secrets[SECRETS - 1].time,
            count: SECRETS as u64,
            event_ids: secrets.iter().map(|e| e.source_id.clone()).collect(),
            evidence: secrets.iter().map(|e| e.id).collect(),
            episodic: true,
            ..Finding::from_event(secrets[SECRETS - 1])
        };
        let stopped = super::finding(&rules()[0], of("night-6")[0]);
        let burst = world.find(burst);
        world.find(stopped);
        assert!(world.events.iter().any(|e| e.outcome == Outcome::Denied));
        (world, burst)
    }
}
