//! Roles that are assumed: what STS is asked for, what is done with its credentials, and when they are asked for anew.
//!
//! moto hands out credentials for an hour and takes any: the proxy answers in its place, with credentials that hold for a
//! few seconds and are refused afterwards, as AWS refuses them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::load::{Load, Random};
use super::moto::{Call, Fate};
use super::{Place, indexed, queue_is};
use crate::program::PATIENCE;

const ROLE: &str = "arn:aws:iam::444455556666:role/trailwarden-reader";

/// So long credentials hold. The SDK of AWS asks for new ones ten seconds before they end.
const HOLD: Duration = Duration::from_secs(14);

/// Answers in place of STS, and refuses what is signed with anything but its credentials as long as they hold.
#[derive(Default)]
struct Sts {
    /// The key of each credentials that were given, and when.
    given: Mutex<Vec<(String, Instant)>>,
    /// How many calls were signed with another key.
    foreign: AtomicU64,
    /// How many were signed with a key that does not hold any more.
    expired: AtomicU64,
}

impl Sts {
    fn judge(&self, call: &Call) -> Fate {
        let mut given = self.given.lock().unwrap();
        if call.action == "sts:AssumeRole" {
            let key = format!("ASIA{:016}", given.len());
            given.push((key.clone(), Instant::now()));
            return Fate::Answer(200, credentials(&key));
        }
        let Some((_, since)) = given.iter().find(|(key, _)| *key == call.key) else {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return Fate::Through;
        };
        if since.elapsed() > HOLD {
            self.expired.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Through
    }
}

fn credentials(key: &str) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "credentials hold until a time of the clock"
    )]
    let expires = chrono::Utc::now() + HOLD;
    format!(
        r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::444455556666:assumed-role/trailwarden-reader/trailwarden</Arn><AssumedRoleId>AROAEXAMPLE:trailwarden</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token-of-{key}</SessionToken><Expiration>{}</Expiration></Credentials>
</AssumeRoleResult><ResponseMetadata><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ResponseMetadata></AssumeRoleResponse>"#,
        expires.format("%Y-%m-%dT%H:%M:%SZ")
    )
}

/// What STS answers to whom the role does not trust, or who may not ask for it.
const REFUSED: &str = r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User: arn:aws:sts::111122223333:assumed-role/node/i-0 is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::444455556666:role/trailwarden-reader</Message></Error><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ErrorResponse>"#;

#[test]
fn a_role_is_assumed_as_configured_and_anew_before_it_ends() {
    let Some(load) = Load::generate(400, 41, 1, 2) else {
        return;
    };
    let Some(place) = Place::new(&load, &[]) else {
        return;
    };
    let messages = load.notifications(&mut Random(1));
    let (first, second) = messages.split_at(messages.len() / 2);
    place.moto.send(&place.queue, first);
    // As long as the role is refused nothing is called but STS, and people are told what to do.
    place
        .proxy
        .judge(|call| match call.action == "sts:AssumeRole" {
            true => Fate::Answer(403, REFUSED.to_owned()),
            false => Fate::Through,
        });
    let service = place.start_as(&format!("role_arn: '{ROLE}', external_id: 'a shared/word'"));
    queue_is(&service, |queue| {
        let word = |key: &str| queue[key].as_str().unwrap_or_default().to_owned();
        word("fault") == "role"
            && word("message").contains("not authorized to perform: sts:AssumeRole")
            && word("hint").contains("trust policy")
            && word("hint").contains("external id")
    });
    let called = |action: &str| place.proxy.of(action).len();
    assert_eq!(
        (called("sqs:ReceiveMessage"), called("s3:GetObject")),
        (0, 0)
    );

    let sts = Arc::new(Sts::default());
    let judge = Arc::clone(&sts);
    place.proxy.judge(move |call| judge.judge(call));
    place.drained();
    let begin = Instant::now();
    while sts.given.lock().unwrap().len() < 3 {
        assert!(begin.elapsed() < PATIENCE, "the role is not assumed anew");
        std::thread::sleep(Duration::from_millis(100));
    }
    place.moto.send(&place.queue, second);
    place.drained();
    service.settle_stages(load.ids.len() as u64, PATIENCE);
    assert_eq!(indexed(&service), load.ids);
    assert_eq!(service.stop(), Some(0));

    for call in place.proxy.of("sts:AssumeRole") {
        let asked = form_of(&call.body);
        let word = |name: &str| {
            asked
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(word("RoleArn"), Some(ROLE));
        assert_eq!(word("ExternalId"), Some("a shared/word"));
        assert_eq!(word("RoleSessionName"), Some("trailwarden"));
        // The role is asked for as whoever the process is.
        assert_eq!(call.key, "test");
    }
    assert_eq!(
        sts.foreign.load(Ordering::Relaxed),
        0,
        "calls as somebody else"
    );
    assert_eq!(
        sts.expired.load(Ordering::Relaxed),
        0,
        "calls with what had ended"
    );
    let keys: std::collections::BTreeSet<String> = place
        .proxy
        .calls()
        .into_iter()
        .filter(|c| c.action == "sqs:ReceiveMessage")
        .map(|c| c.key)
        .collect();
    assert!(keys.len() >= 2, "{keys:?}");
    let objects = place.proxy.of("s3:GetObject");
    assert!(
        objects.len() >= load.objects.len() / 2
            && objects.iter().all(|c| c.key.starts_with("ASIA"))
    );
    super::policy_allows(&place.proxy);
}

/// Names and values of a form.
fn form_of(body: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}
