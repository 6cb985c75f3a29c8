//! Ordinary calls: what applications, services and people of the organisation do all day.
//!
//! [`call`] makes one: someone, the busy ones more often, does one of the things that their kind does. The
//! kinds are the tables of `calls`. Applications read and write data, services look after their fleets,
//! people read. Calls that change permissions or read many secrets are no part of this: they come with the
//! jobs of `routine` and with attacks.

use serde_json::{Value, json};

use super::calls::{
    APPLICATION, ASSUME, AUTOSCALING, CONFIG, ECS, Kind, PERSON, SECURITYHUB, USER,
};
use super::org::{FUNCTIONS, Organisation, Principal, REGIONS, Role};
use super::record::{Call, Record};
use super::rng::Rng;

/// Ordinary failures, none of them for want of a permission.
const FAILURES: [(&str, &str); 4] = [
    ("ThrottlingException", "Rate exceeded"),
    ("NoSuchKey", "The specified key does not exist."),
    (
        "ConditionalCheckFailedException",
        "The conditional request failed",
    ),
    ("ResourceNotFoundException", "Requested resource not found"),
];
/// How often an ordinary call fails, and how often it is denied, in ten thousand.
const FAILS: i64 = 80;
const DENIED: i64 = 3;

/// One ordinary call in this second.
pub(crate) fn call(org: &Organisation, rng: &mut Rng, second: i64) -> Record {
    match rng.range(0, 99) {
        0..=11 => assume_role(org, rng, second),
        12..=39 => by(org, rng, second, Role::Service),
        40..=90 => by(org, rng, second, Role::Application),
        91..=96 => by(org, rng, second, Role::Person),
        _ => by(org, rng, second, Role::User),
    }
}

/// A call that a person makes on the console without a thought: for logins and decoys.
pub(crate) fn reading(org: &Organisation, who: &Principal, rng: &mut Rng, second: i64) -> Call {
    let kind = PERSON[rng.popular(PERSON.len())];
    made(org, who, rng, second, kind)
}

fn by(org: &Organisation, rng: &mut Rng, second: i64, role: Role) -> Record {
    let all = org.of(role);
    // Services are all about equally busy; the rest follows a few who do the most.
    let who = match role {
        Role::Service => *rng.pick(&all),
        _ => all[rng.popular(all.len())],
    };
    let kinds: &[Kind] = match (role, who.agent) {
        (Role::Service, "config.amazonaws.com") => &CONFIG,
        (Role::Service, "autoscaling.amazonaws.com") => &AUTOSCALING,
        (Role::Service, "securityhub.amazonaws.com") => &SECURITYHUB,
        (Role::Service, _) => &ECS,
        (Role::Person, _) => &PERSON,
        (Role::User, _) => &USER,
        _ => &APPLICATION,
    };
    let kind = kinds[rng.popular(kinds.len())];
    let mut call = made(org, who, rng, second, kind);
    if who.role != Role::Service && rng.chance(40) {
        call = call.region(rng.word(&REGIONS));
    }
    match rng.range(0, 9_999) {
        at if at < DENIED => call.denied(&who.arn),
        at if at < DENIED + FAILS => {
            let (code, message) = *rng.pick(&FAILURES);
            call.error(code, message.into())
        }
        _ => call,
    }
    .record(rng)
}

/// A service takes up a role for a function, a task or an instance.
fn assume_role(org: &Organisation, rng: &mut Rng, second: i64) -> Record {
    let account = &org.accounts[rng.popular(org.accounts.len())];
    let (service, role) = ASSUME[rng.popular(ASSUME.len())];
    let function = FUNCTIONS[rng.popular(FUNCTIONS.len())];
    let role = role.replace("<function>", function);
    let session = match service {
        "lambda" => function.into(),
        "ec2" => rng.pick(&account.instances).clone(),
        _ => rng.hex(32),
    };
    let service_name = format!("{service}.amazonaws.com");
    let role_arn = format!("arn:aws:iam::{}:role/{role}", account.id);
    let response = credentials(rng, account.id, &role, &session, second);
    Call::by(
        json!({"type": "AWSService", "invokedBy": service_name}),
        account,
        second,
        "sts",
        "AssumeRole",
    )
    .from(&service_name, &service_name)
    .request(json!({"roleArn": role_arn, "roleSessionName": session}))
    .response(response)
    .with(
        "resources",
        json!([{"accountId": account.id, "type": "AWS::IAM::Role", "ARN": role_arn}]),
    )
    .with("sharedEventID", rng.uuid().into())
    .record(rng)
}

/// The answer to AssumeRole.
pub(crate) fn credentials(
    rng: &mut Rng,
    account: &str,
    role: &str,
    session: &str,
    second: i64,
) -> Value {
    json!({"credentials": {"accessKeyId": format!("ASIA{}", rng.base32(16)), "sessionToken": "HIDDEN_DUE_TO_SECURITY_REASONS",
            "expiration": super::record::iso(second + 3_600)},
        "assumedRoleUser": {"assumedRoleId": format!("AROA{}:{session}", rng.base32(17)),
            "arn": format!("arn:aws:sts::{account}:assumed-role/{role}/{session}")}})
}

fn made(org: &Organisation, who: &Principal, rng: &mut Rng, second: i64, kind: Kind) -> Call {
    let (service, name, request, response) = kind;
    let account = &org.accounts[who.account];
    let fill = |text: &str, rng: &mut Rng| -> Value {
        let function = FUNCTIONS
            .iter()
            .position(|f| *f == who.name)
            .unwrap_or_else(|| rng.popular(FUNCTIONS.len()));
        let bucket = format!(
            "lumen-freight-{}-{}",
            rng.word(&["labels", "manifests", "photos"]),
            account.stage
        );
        let object = format!("2026/{}/{}.json", rng.hex(2), rng.hex(12));
        let filled = text
            .replace("<bucket>", &bucket)
            .replace("<object>", &object)
            .replace("<region>", account.region)
            .replace("<account>", account.id)
            .replace("<stage>", account.stage)
            .replace("<function>", FUNCTIONS[function])
            .replace("<secret>", &account.secrets[function])
            .replace(
                "<table>",
                rng.word(&["parcels", "routes", "depots", "quotes"]),
            )
            .replace(
                "<queue>",
                rng.word(&["scans", "labels-to-print", "notifications"]),
            )
            .replace("<key>", rng.pick(&account.keys).as_str())
            .replace("<instance>", rng.pick(&account.instances).as_str())
            .replace("<uuid>", &rng.uuid())
            .replace("<hex>", &rng.hex(16));
        serde_json::from_str(&filled).expect("a test reads every template")
    };
    let (request, response) = (fill(request, rng), fill(response, rng));
    let data = [
        "GetObject",
        "PutObject",
        "HeadObject",
        "GetItem",
        "PutItem",
        "UpdateItem",
        "Query",
        "BatchWriteItem",
        "ReceiveMessage",
        "DeleteMessage",
        "SendMessage",
        "ChangeMessageVisibility",
        "Publish",
        "PutEvents",
    ];
    let mut call = Call::new(who, account, second, service, name);
    if service == "s3" && data.contains(&name) {
        let bucket = request["bucketName"].as_str().unwrap_or_default();
        let resources = json!([
            {"type": "AWS::S3::Object", "ARN": format!("arn:aws:s3:::{bucket}/{}", request["key"].as_str().unwrap_or_default())},
            {"accountId": account.id, "type": "AWS::S3::Bucket", "ARN": format!("arn:aws:s3:::{bucket}")}]);
        let transfer = json!({"SignatureVersion": "SigV4", "AuthenticationMethod": "AuthHeader",
            "bytesTransferredIn": 0, "bytesTransferredOut": rng.range(400, 90_000)});
        call = call
            .with("additionalEventData", transfer)
            .with("resources", resources);
    }
    if service == "kms" {
        let key = format!(
            "arn:aws:kms:{}:{}:key/{}",
            account.region, account.id, account.keys[0]
        );
        call = call.with(
            "resources",
            json!([{"accountId": account.id, "type": "AWS::KMS::Key", "ARN": key}]),
        );
    }
    if data.contains(&name) {
        call = call.data();
    }
    if who.role == Role::Person && who.agent == super::org::BROWSER {
        call = call.with("sessionCredentialFromConsole", "true".into());
    }
    call.request(request).response(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_json() {
        let org = Organisation::new(1);
        let mut rng = Rng::new(1);
        let tables: [&[Kind]; 7] = [
            &APPLICATION,
            &CONFIG,
            &AUTOSCALING,
            &SECURITYHUB,
            &ECS,
            &PERSON,
            &USER,
        ];
        let mut names = std::collections::BTreeSet::new();
        for kind in tables.into_iter().flatten() {
            let record =
                made(&org, &org.principals[0], &mut rng, 1_700_000_000, *kind).record(&mut rng);
            let text = String::from_utf8(record.bytes).unwrap();
            assert!(!text.contains('<'), "{text}");
            names.insert((kind.0, kind.1));
        }
        assert!(names.len() >= 60, "{}", names.len());
    }

    #[test]
    fn about_forty_principals_in_three_accounts() {
        let org = Organisation::new(1);
        assert!(
            (38..=54).contains(&org.principals.len()),
            "{}",
            org.principals.len()
        );
        assert_eq!(org.accounts.len(), 3);
    }
}
