//! Automation and administration: the changes that an organisation makes to itself all day.
//!
//! Each function plans one job that starts at a second and gives its records, with their times ahead: a
//! Terraform run, a deployment by web identity, an administrator on the console, the rotation of an access
//! key, the nightly copy of a snapshot to a sister account, a mistyped password. These calls are the noise
//! that single-event rules must live with; nothing here is an attack, and nothing reaches the thresholds of
//! a burst.

use serde_json::{Value, json};

use super::ordinary;
use super::org::{Account, BOTO_LAMBDA, BROWSER, FUNCTIONS, Organisation, Principal, Role, inside};
use super::record::{Call, Record, iso};
use super::rng::Rng;

/// Plans a job that starts at a second.
pub(crate) type Job = fn(&Organisation, &mut Rng, i64) -> Vec<Record>;

/// Every job with the mean seconds between two of them.
pub(crate) const JOBS: [(Job, i64); 6] = [
    (deploy, 100),
    (terraform, 210),
    (administrator, 260),
    (mistyped_password, 480),
    (rotate_key, 700),
    (copy_snapshot, 800),
];

/// Continuous integration takes up its role and publishes a function.
fn deploy(org: &Organisation, rng: &mut Rng, start: i64) -> Vec<Record> {
    let index = rng.popular(org.accounts.len());
    let (account, who) = (&org.accounts[index], org.one(Role::Pipeline, index));
    let function = *rng.pick(&FUNCTIONS);
    let runner = inside(rng);
    let repository = format!("repo:lumen-freight/{function}:ref:refs/heads/main");
    let provider = format!(
        "arn:aws:iam::{}:oidc-provider/token.actions.githubusercontent.com",
        account.id
    );
    let role = format!("arn:aws:iam::{}:role/{}", account.id, who.role_name);
    let identity = json!({"type": "WebIdentityUser", "principalId": format!("{provider}:sts.amazonaws.com:{repository}"),
        "userName": repository, "identityProvider": provider});
    let mut granted = ordinary::credentials(rng, account.id, &who.role_name, &who.name, start);
    granted["credentials"]["accessKeyId"] = who.access_key(start).into();
    granted["subjectFromWebIdentityToken"] = repository.as_str().into();
    granted["provider"] = provider.as_str().into();
    let version = rng.range(40, 400).to_string();
    let configuration = function_configuration(rng, account, function, start);
    let mut published = configuration.clone();
    published["version"] = version.as_str().into();
    let by = |second, service, name| {
        Call::new(who, account, second, service, name).from(&runner, who.agent)
    };
    vec![
        Call::by(identity, account, start, "sts", "AssumeRoleWithWebIdentity")
            .from(&runner, "aws-sdk-js/3.922.0 configure-aws-credentials")
            .request(json!({"roleArn": role, "roleSessionName": who.name, "durationSeconds": 3600}))
            .response(granted)
            .with("resources", json!([{"accountId": account.id, "type": "AWS::IAM::Role", "ARN": role}])),
        by(start + 1, "sts", "GetCallerIdentity"),
        by(start + 4, "lambda", "UpdateFunctionCode20150331v2")
            .request(json!({"functionName": function, "s3Bucket": format!("lumen-freight-builds-{}", account.stage),
                "s3Key": format!("{function}/{}.zip", rng.hex(40)), "publish": false, "dryRun": false}))
            .response(configuration),
        by(start + 6, "lambda", "GetFunctionConfiguration20150331v2").request(json!({"functionName": function})),
        by(start + 11, "lambda", "PublishVersion20150331")
            .request(json!({"functionName": function}))
            .response(published),
        by(start + 13, "lambda", "UpdateAlias20150331")
            .request(json!({"functionName": function, "name": "live", "functionVersion": version}))
            .response(json!({"name": "live", "functionVersion": version, "description": ""})),
    ]
    .into_iter()
    .map(|call| call.record(rng))
    .collect()
}

/// An apply: what is there is read, then a few changes are made.
fn terraform(org: &Organisation, rng: &mut Rng, start: i64) -> Vec<Record> {
    let index = rng.popular(org.accounts.len());
    let (account, who) = (&org.accounts[index], org.one(Role::Terraform, index));
    let mut second = start;
    let mut calls = Vec::new();
    let refresh = [
        ("iam", "GetRole"),
        ("iam", "ListAttachedRolePolicies"),
        ("iam", "ListRolePolicies"),
        ("lambda", "GetFunction20150331v2"),
        ("lambda", "ListVersionsByFunction20150331"),
        ("lambda", "GetPolicy20150331v2"),
        ("logs", "DescribeLogGroups"),
        ("logs", "ListTagsForResource"),
        ("sqs", "GetQueueAttributes"),
        ("sqs", "ListQueueTags"),
        ("dynamodb", "DescribeTable"),
        ("dynamodb", "DescribeContinuousBackups"),
        ("kms", "DescribeKey"),
        ("kms", "GetKeyRotationStatus"),
        ("s3", "GetBucketVersioning"),
        ("s3", "GetBucketPolicy"),
        ("ec2", "DescribeSecurityGroups"),
        ("ec2", "DescribeVpcs"),
        ("events", "DescribeRule"),
        ("monitoring", "DescribeAlarms"),
    ];
    for (service, name) in rng.sample(&refresh, 12) {
        second += rng.range(0, 2);
        calls.push(Call::new(who, account, second, service, name));
    }
    for _ in 0..rng.range(2, 4) {
        for (service, name, request) in change(rng, account) {
            second += rng.range(1, 4);
            calls.push(Call::new(who, account, second, service, name).request(request));
        }
    }
    calls.into_iter().map(|call| call.record(rng)).collect()
}

/// One change of an apply.
fn change(rng: &mut Rng, account: &Account) -> Vec<(&'static str, &'static str, Value)> {
    let function = *rng.pick(&FUNCTIONS);
    let name = format!("{function}-{}", rng.hex(4));
    let role = format!("{name}-role");
    let bucket = format!("lumen-freight-{name}");
    let policy = |statement: Value| json!({"Version": "2012-10-17", "Statement": [statement]});
    match rng.range(0, 6) {
        0 => vec![
            (
                "iam",
                "CreateRole",
                json!({"roleName": role, "path": "/", "maxSessionDuration": 3600, "assumeRolePolicyDocument":
                policy(json!({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"})).to_string()}),
            ),
            (
                "iam",
                "PutRolePolicy",
                json!({"roleName": role, "policyName": "tables", "policyDocument":
                policy(json!({"Effect": "Allow", "Action": ["dynamodb:GetItem", "dynamodb:PutItem"], "Resource": format!("arn:aws:dynamodb:{}:{}:table/parcels", account.region, account.id)})).to_string()}),
            ),
            (
                "iam",
                "AttachRolePolicy",
                json!({"roleName": role, "policyArn": "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"}),
            ),
        ],
        1 => vec![
            ("s3", "CreateBucket", json!({"bucketName": bucket})),
            (
                "s3",
                "PutBucketPublicAccessBlock",
                json!({"bucketName": bucket, "PublicAccessBlockConfiguration":
                {"BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true}}),
            ),
            (
                "s3",
                "PutBucketVersioning",
                json!({"bucketName": bucket, "VersioningConfiguration": {"Status": "Enabled"}}),
            ),
        ],
        2 => vec![
            (
                "ec2",
                "AuthorizeSecurityGroupIngress",
                ingress(rng, "tcp", 443, "10.20.0.0/16"),
            ),
            (
                "ec2",
                "RevokeSecurityGroupIngress",
                ingress(rng, "tcp", 8080, "10.30.0.0/16"),
            ),
        ],
        3 => vec![
            (
                "lambda",
                "UpdateFunctionConfiguration20150331v2",
                json!({"functionName": function, "timeout": 30, "memorySize": 512}),
            ),
            (
                "lambda",
                "AddPermission20150331v2",
                json!({"functionName": function, "statementId": "from-schedule", "action": "lambda:InvokeFunction",
                "principal": "events.amazonaws.com", "sourceArn": format!("arn:aws:events:{}:{}:rule/{function}", account.region, account.id)}),
            ),
        ],
        4 => vec![
            (
                "iam",
                "DetachRolePolicy",
                json!({"roleName": role, "policyArn": "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"}),
            ),
            (
                "iam",
                "DeleteRolePolicy",
                json!({"roleName": role, "policyName": "tables"}),
            ),
            ("iam", "DeleteRole", json!({"roleName": role})),
        ],
        5 => vec![
            (
                "monitoring",
                "PutMetricAlarm",
                json!({"alarmName": name, "metricName": "Errors", "namespace": "AWS/Lambda", "period": 60, "threshold": 5.0}),
            ),
            (
                "events",
                "PutRule",
                json!({"name": function, "scheduleExpression": "rate(5 minutes)", "state": "ENABLED"}),
            ),
            (
                "events",
                "PutTargets",
                json!({"rule": function, "targets": [{"id": "function"}]}),
            ),
        ],
        _ => vec![
            (
                "sqs",
                "CreateQueue",
                json!({"queueName": name, "attribute": {"VisibilityTimeout": "60"}}),
            ),
            (
                "logs",
                "PutRetentionPolicy",
                json!({"logGroupName": format!("/aws/lambda/{function}"), "retentionInDays": 30}),
            ),
        ],
    }
}

/// A person signs in and looks after things on the console.
fn administrator(org: &Organisation, rng: &mut Rng, start: i64) -> Vec<Record> {
    let people: Vec<_> = org
        .of(Role::Person)
        .into_iter()
        .filter(|p| p.agent == BROWSER)
        .collect();
    let who = people[rng.popular(people.len())];
    let account = &org.accounts[who.account];
    let mut calls = vec![
        Call::new(who, account, start, "signin", "ConsoleLogin")
            .sign_in()
            .response(json!({"ConsoleLogin": "Success"}))
            .with("additionalEventData", json!({"LoginTo": "https://console.aws.amazon.com/console/home", "MobileVersion": "No", "MFAUsed": "Yes"})),
    ];
    for i in 1..rng.range(8, 16) {
        calls.push(ordinary::reading(org, who, rng, start + i * 7));
    }
    let instance = rng.pick(&account.instances).clone();
    let (service, name, request) = match rng.range(0, 3) {
        0 => (
            "ec2",
            "RebootInstances",
            json!({"instancesSet": {"items": [{"instanceId": instance}]}}),
        ),
        1 => (
            "sqs",
            "PurgeQueue",
            json!({"queueUrl": format!("https://sqs.{}.amazonaws.com/{}/scans", account.region, account.id)}),
        ),
        2 => (
            "ec2",
            "AuthorizeSecurityGroupIngress",
            ingress(rng, "tcp", 22, &format!("{}/32", org.office)),
        ),
        _ => (
            "ecs",
            "UpdateService",
            json!({"cluster": format!("freight-{}", account.stage), "service": "billing", "desiredCount": 3}),
        ),
    };
    calls.push(
        Call::new(who, account, start + 60, service, name)
            .request(request)
            .with("sessionCredentialFromConsole", "true".into()),
    );
    calls.into_iter().map(|call| call.record(rng)).collect()
}

/// Somebody with an IAM user gets the password wrong, then right.
fn mistyped_password(org: &Organisation, rng: &mut Rng, start: i64) -> Vec<Record> {
    let (user, address) = (console_user(org, rng), inside(rng));
    sign_in(org, rng, user, &address, (start, 1))
}

/// One of the people with an IAM user.
pub(crate) fn console_user<'a>(org: &'a Organisation, rng: &mut Rng) -> &'a Principal {
    let users = org.of(Role::User);
    let people: Vec<_> = users.into_iter().filter(|u| u.name.contains('.')).collect();
    people[rng.popular(people.len())]
}

/// A sign-in with the second factor, `failures` tries after the first second.
pub(crate) fn sign_in(
    org: &Organisation,
    rng: &mut Rng,
    user: &Principal,
    address: &str,
    (start, failures): (i64, i64),
) -> Vec<Record> {
    let account = &org.accounts[user.account];
    let mut tries = Vec::new();
    for i in 0..=failures {
        let call = login(
            &user.name,
            account,
            start + i * 6,
            address,
            i == failures,
            true,
        );
        tries.push(call.record(rng));
    }
    tries
}

/// An IAM user at the sign-in page.
pub(crate) fn login(
    user: &str,
    account: &Account,
    second: i64,
    address: &str,
    success: bool,
    mfa: bool,
) -> Call {
    let mut identity = json!({"type": "IAMUser", "accountId": account.id, "userName": user});
    if success {
        identity["arn"] = format!("arn:aws:iam::{}:user/{user}", account.id).into();
    } else {
        identity["accessKeyId"] = "".into();
    }
    let call = Call::by(identity, account, second, "signin", "ConsoleLogin")
        .from(address, BROWSER)
        .sign_in()
        .response(json!({"ConsoleLogin": if success { "Success" } else { "Failure" }}))
        .with(
            "additionalEventData",
            json!({"LoginTo": "https://console.aws.amazon.com/console/home", "MobileVersion": "No",
            "MFAUsed": if mfa { "Yes" } else { "No" }}),
        );
    match success {
        true => call,
        false => call.with("errorMessage", "Failed authentication".into()),
    }
}

/// A function gives a service's user a new access key and takes the old one away.
fn rotate_key(org: &Organisation, rng: &mut Rng, start: i64) -> Vec<Record> {
    let account = &org.accounts[0];
    let who = org.of(Role::Application)[0];
    let (name, session) = ("rotate-access-keys-role", "rotate-access-keys");
    let mut identity = who.identity(account, start);
    identity["arn"] = format!("arn:aws:sts::{}:assumed-role/{name}/{session}", account.id).into();
    identity["sessionContext"]["sessionIssuer"]["userName"] = name.into();
    identity["sessionContext"]["sessionIssuer"]["arn"] =
        format!("arn:aws:iam::{}:role/{name}", account.id).into();
    let user = *rng.pick(&["partner-sftp", "warehouse-scanner"]);
    let (old, new) = (
        format!("AKIA{}", rng.base32(16)),
        format!("AKIA{}", rng.base32(16)),
    );
    [
        ("ListAccessKeys", json!({"userName": user}), Value::Null),
        (
            "CreateAccessKey",
            json!({"userName": user}),
            json!({"accessKey": {"userName": user, "accessKeyId": new, "status": "Active"}}),
        ),
        (
            "UpdateAccessKey",
            json!({"userName": user, "accessKeyId": old, "status": "Inactive"}),
            Value::Null,
        ),
        (
            "DeleteAccessKey",
            json!({"userName": user, "accessKeyId": old}),
            Value::Null,
        ),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (name, request, response))| {
        Call::by(identity.clone(), account, start + i as i64 * 2, "iam", name)
            .from(&who.address, BOTO_LAMBDA)
            .request(request)
            .response(response)
            .record(rng)
    })
    .collect()
}

/// The nightly backup: a snapshot, shared with the next account of the organisation.
fn copy_snapshot(org: &Organisation, rng: &mut Rng, start: i64) -> Vec<Record> {
    let index = rng.popular(org.accounts.len());
    let (account, sister) = (
        &org.accounts[index],
        &org.accounts[(index + 1) % org.accounts.len()],
    );
    let who = org.one(Role::Terraform, index);
    let mut identity = who.identity(account, start);
    identity["arn"] = format!(
        "arn:aws:sts::{}:assumed-role/nightly-backup-role/nightly-backup",
        account.id
    )
    .into();
    identity["sessionContext"]["sessionIssuer"]["userName"] = "nightly-backup-role".into();
    let snapshot = format!("snap-0{}", rng.hex(16));
    [
        (
            "CreateSnapshot",
            json!({"volumeId": format!("vol-0{}", rng.hex(16)), "description": "nightly"}),
        ),
        (
            "ModifySnapshotAttribute",
            json!({"snapshotId": snapshot, "attributeType": "CREATE_VOLUME_PERMISSION",
            "createVolumePermission": {"add": {"items": [{"userId": sister.id}]}}}),
        ),
        (
            "DeleteSnapshot",
            json!({"snapshotId": format!("snap-0{}", rng.hex(16))}),
        ),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (name, request))| {
        Call::by(identity.clone(), account, start + i as i64 * 8, "ec2", name)
            .from(&who.address, BOTO_LAMBDA)
            .request(request)
            .response(json!({"requestId": rng.uuid(), "_return": true}))
            .record(rng)
    })
    .collect()
}

/// A rule of a security group.
pub(crate) fn ingress(rng: &mut Rng, protocol: &str, port: u16, from: &str) -> Value {
    json!({"groupId": format!("sg-0{}", rng.hex(16)), "ipPermissions": {"items": [{"ipProtocol": protocol, "fromPort": port, "toPort": port,
        "groups": {}, "ipRanges": {"items": [{"cidrIp": from}]}, "ipv6Ranges": {}, "prefixListIds": {}}]}})
}

/// What Lambda answers to a change of a function.
pub(crate) fn function_configuration(
    rng: &mut Rng,
    account: &Account,
    function: &str,
    second: i64,
) -> Value {
    json!({"functionName": function, "functionArn": format!("arn:aws:lambda:{}:{}:function:{function}", account.region, account.id),
        "runtime": "python3.13", "role": format!("arn:aws:iam::{}:role/{function}-role", account.id), "handler": "app.handler",
        "codeSize": rng.range(90_000, 9_000_000), "timeout": 30, "memorySize": 512, "lastModified": iso(second),
        "codeSha256": rng.hex(43), "version": "$LATEST", "packageType": "Zip", "architectures": ["arm64"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_start_when_told_and_end_within_three_minutes() {
        let org = Organisation::new(3);
        let mut rng = Rng::new(3);
        for (job, _) in JOBS {
            for _ in 0..20 {
                let records = job(&org, &mut rng, 1_700_000_000);
                let first = records.iter().map(|r| r.second).min();
                let last = records.iter().map(|r| r.second).max();
                assert!(
                    first >= Some(1_700_000_000) && first <= Some(1_700_000_002),
                    "{first:?}"
                );
                assert!(last <= Some(1_700_000_180), "{last:?}");
            }
        }
    }
}
