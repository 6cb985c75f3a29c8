//! Attacks on identities: passwords guessed, keys stolen and used, rights taken.
//!
//! Each function plans one kind of [`super::KINDS`]; the kind says what it is.

use serde_json::{Value, json};

use crate::demo::ordinary;
use crate::demo::org::{BROWSER, FUNCTIONS, Principal, Role, STRANGER_ACCOUNT, outside};
use crate::demo::record::{Call, iso};
use crate::demo::routine::{console_user, function_configuration, login};
use crate::demo::scene::{Intruder, Plan, Scene, someone};

/// Root signs in without a second factor and switches the trail off.
pub(crate) fn root_takeover(scene: &mut Scene<'_>) -> Plan {
    let account = &scene.org.accounts[0];
    let address = outside(scene.rng);
    let arn = format!("arn:aws:iam::{}:root", account.id);
    let signing_in = json!({"type": "Root", "principalId": account.id, "arn": arn, "accountId": account.id, "accessKeyId": ""});
    let mut session = signing_in.clone();
    session["accessKeyId"] = format!("ASIA{}", scene.rng.base32(16)).into();
    session["sessionContext"] =
        json!({"attributes": {"creationDate": iso(scene.start), "mfaAuthenticated": "false"}});
    let trail = json!({"name": "organisation-trail"});
    let start = scene.start;
    let calls = [
        Call::by(signing_in, account, start, "signin", "ConsoleLogin")
            .sign_in()
            .response(json!({"ConsoleLogin": "Success"}))
            .with("additionalEventData", json!({"LoginTo": "https://console.aws.amazon.com/console/home", "MobileVersion": "No", "MFAUsed": "No"})),
        Call::by(session.clone(), account, start + 2, "cloudtrail", "DescribeTrails").with("sessionCredentialFromConsole", "true".into()),
        Call::by(session.clone(), account, start + 4, "cloudtrail", "StopLogging").request(trail.clone()),
        Call::by(session, account, start + 5, "cloudtrail", "DeleteTrail").request(trail),
    ];
    Plan {
        records: calls
            .map(|call| call.from(&address, BROWSER).record(scene.rng))
            .into(),
        account: account.id.into(),
        actor: arn,
        source_ip: Some(address),
        ..Plan::default()
    }
}

/// A password is guessed on the sign-in page.
pub(crate) fn console_bruteforce(scene: &mut Scene<'_>) -> Plan {
    let user = console_user(scene.org, scene.rng);
    let account = &scene.org.accounts[user.account];
    let address = outside(scene.rng);
    let tries = scene.rng.range(9, 16);
    let records = (0..=tries)
        .map(|i| {
            login(
                &user.name,
                account,
                scene.start + i,
                &address,
                i == tries,
                false,
            )
            .record(scene.rng)
        })
        .collect();
    Plan {
        records,
        account: account.id.into(),
        actor: user.arn.clone(),
        source_ip: Some(address),
        ..Plan::default()
    }
}

/// A stolen key makes itself a new administrator with a key of its own.
pub(crate) fn key_backdoor(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let user = format!("svc-backup-{}", scene.rng.hex(4));
    let key = format!("AKIA{}", scene.rng.base32(16));
    let made = json!({"user": {"path": "/", "userName": user, "userId": format!("AIDA{}", scene.rng.base32(17)),
        "arn": format!("arn:aws:iam::{}:user/{user}", intruder.account.id)}});
    let call = intruder
        .call(0, "iam", "CreateUser", json!({"userName": user}))
        .response(made);
    intruder.made(scene, call);
    let call = intruder
        .call(3, "iam", "CreateAccessKey", json!({"userName": user}))
        .response(json!({"accessKey": {"userName": user, "accessKeyId": key, "status": "Active"}}));
    intruder.made(scene, call);
    intruder.does(
        scene,
        2,
        "iam",
        "AttachUserPolicy",
        json!({"userName": user, "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}),
    );
    let call = intruder
        .call(
            3,
            "iam",
            "CreateLoginProfile",
            json!({"userName": user, "passwordResetRequired": false}),
        )
        .response(json!({"loginProfile": {"userName": user, "passwordResetRequired": false}}));
    intruder.made(scene, call);
    intruder.plan()
}

/// Calls that look around, with the service of each.
const LOOKS: [(&str, &str); 30] = [
    ("sts", "GetCallerIdentity"),
    ("iam", "ListUsers"),
    ("iam", "ListRoles"),
    ("iam", "GetAccountSummary"),
    ("iam", "ListAccountAliases"),
    ("iam", "GetAccountAuthorizationDetails"),
    ("iam", "ListPolicies"),
    ("s3", "ListBuckets"),
    ("ec2", "DescribeInstances"),
    ("ec2", "DescribeSnapshots"),
    ("ec2", "DescribeSecurityGroups"),
    ("ec2", "DescribeVpcs"),
    ("ec2", "DescribeKeyPairs"),
    ("lambda", "ListFunctions20150331"),
    ("rds", "DescribeDBInstances"),
    ("dynamodb", "ListTables"),
    ("sqs", "ListQueues"),
    ("secretsmanager", "ListSecrets"),
    ("ssm", "DescribeParameters"),
    ("kms", "ListKeys"),
    ("cloudtrail", "DescribeTrails"),
    ("guardduty", "ListDetectors"),
    ("organizations", "DescribeOrganization"),
    ("organizations", "ListAccounts"),
    ("ses", "GetSendQuota"),
    ("ecr", "DescribeRepositories"),
    ("ecs", "ListClusters"),
    ("eks", "ListClusters"),
    ("logs", "DescribeLogGroups"),
    ("route53", "ListHostedZones"),
];

/// Somebody looks around the account with a stolen key.
pub(crate) fn recon_burst(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    for (i, (service, name)) in LOOKS.iter().enumerate() {
        intruder.does(scene, i as i64 % 2, service, name, Value::Null);
    }
    intruder.plan()
}

/// A stolen session tries what it may do, and is refused again and again.
pub(crate) fn access_denied_burst(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::Person);
    let mut intruder = Intruder::new(scene, who);
    let tries = scene.rng.range(30, 45);
    for i in 0..tries {
        let (service, name) = *scene.rng.pick(&LOOKS);
        let call = intruder
            .call(i % 2, service, name, Value::Null)
            .denied(&who.arn);
        intruder.made(scene, call);
    }
    intruder.plan()
}

/// A function's role, used from outside, reads every secret.
pub(crate) fn secrets_theft(scene: &mut Scene<'_>) -> Plan {
    let applications = scene.org.of(Role::Application);
    let who = applications[scene.rng.range(0, 5) as usize];
    let mut intruder = Intruder::new(scene, who);
    let account = intruder.account;
    intruder.does(scene, 0, "sts", "GetCallerIdentity", Value::Null);
    intruder.does(
        scene,
        2,
        "secretsmanager",
        "ListSecrets",
        json!({"maxResults": 100}),
    );
    for round in 0..2 {
        for secret in &account.secrets {
            let name = format!(
                "arn:aws:secretsmanager:{}:{}:secret:{secret}",
                account.region, account.id
            );
            let stage = ["AWSCURRENT", "AWSPREVIOUS"][round];
            intruder.does(
                scene,
                1,
                "secretsmanager",
                "GetSecretValue",
                json!({"secretId": name, "versionStage": stage}),
            );
        }
    }
    intruder.plan()
}

/// The deployment's session turns up on a strange host and reaches for a sister account.
pub(crate) fn pipeline_key_misuse(scene: &mut Scene<'_>) -> Plan {
    let index = scene.rng.range(0, 2) as usize;
    let who = scene.org.one(Role::Pipeline, index);
    let sister = &scene.org.accounts[(index + 1) % 3];
    let mut intruder = Intruder::new(scene, who);
    let account = intruder.account;
    intruder.does(scene, 0, "sts", "GetCallerIdentity", Value::Null);
    for (service, name) in scene.rng.sample(&LOOKS[1..], 16) {
        intruder.does(scene, 1, service, name, Value::Null);
    }
    for secret in &account.secrets[..3] {
        let name = format!(
            "arn:aws:secretsmanager:{}:{}:secret:{secret}",
            account.region, account.id
        );
        intruder.does(
            scene,
            1,
            "secretsmanager",
            "GetSecretValue",
            json!({"secretId": name}),
        );
    }
    let role = format!("arn:aws:iam::{}:role/terraform-apply", sister.id);
    let granted = ordinary::credentials(
        scene.rng,
        sister.id,
        "terraform-apply",
        "cross-account",
        scene.start,
    );
    let call = intruder
        .call(
            2,
            "sts",
            "AssumeRole",
            json!({"roleArn": role, "roleSessionName": "cross-account", "durationSeconds": 3600}),
        )
        .response(granted)
        .with(
            "resources",
            json!([{"accountId": sister.id, "type": "AWS::IAM::Role", "ARN": role}]),
        );
    intruder.made(scene, call);
    let function = *scene.rng.pick(&FUNCTIONS);
    let configuration = function_configuration(scene.rng, account, function, scene.start);
    let call = intruder
        .call(
            3,
            "lambda",
            "UpdateFunctionCode20150331v2",
            json!({"functionName": function, "publish": false, "dryRun": false}),
        )
        .response(configuration);
    intruder.made(scene, call);
    let call = intruder
        .call(3, "iam", "CreateAccessKey", json!({"userName": "partner-sftp"}))
        .response(json!({"accessKey": {"userName": "partner-sftp", "accessKeyId": format!("AKIA{}", scene.rng.base32(16)), "status": "Active"}}));
    intruder.made(scene, call);
    intruder.plan()
}

/// The key of an instance turns up at a new address and makes a user.
pub(crate) fn new_ip_for_key(scene: &mut Scene<'_>) -> Plan {
    let instances: Vec<&Principal> = scene
        .org
        .of(Role::Application)
        .into_iter()
        .filter(|p| p.name.starts_with("i-"))
        .collect();
    let who = *scene.rng.pick(&instances);
    let mut intruder = Intruder::new(scene, who);
    for (service, name) in [LOOKS[0], LOOKS[7], LOOKS[8], LOOKS[18]] {
        intruder.does(scene, 2, service, name, Value::Null);
    }
    let user = format!("depot-support-{}", scene.rng.hex(4));
    intruder.does(scene, 3, "iam", "CreateUser", json!({"userName": user}));
    let call = intruder
        .call(2, "iam", "CreateAccessKey", json!({"userName": user}))
        .response(json!({"accessKey": {"userName": user, "accessKeyId": format!("AKIA{}", scene.rng.base32(16)), "status": "Active"}}));
    intruder.made(scene, call);
    intruder.plan()
}

/// A role is opened to a stranger's account and made administrator.
pub(crate) fn role_opened(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": format!("arn:aws:iam::{STRANGER_ACCOUNT}:root")}}]});
    intruder.does(
        scene,
        0,
        "iam",
        "UpdateAssumeRolePolicy",
        json!({"roleName": "depot-gateway-role", "policyDocument": trust.to_string()}),
    );
    intruder.does(scene, 4, "iam", "AttachRolePolicy", json!({"roleName": "depot-gateway-role", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}));
    intruder.plan()
}
