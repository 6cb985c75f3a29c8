//! Attacks on the accounts: what is put into CloudTrail, and the rules that ought to see it.
//!
//! [`KINDS`] lists them in the order in which they come; each plans its calls from a second on, compressed
//! into half a minute so that a viewer need not wait. The attackers come from addresses that the organisation
//! never uses, mostly with stolen keys of real principals. `incidents` adds what goes wrong inside functions,
//! `decoys` the look-alikes; both use the [`Scene`] and [`Plan`] of this file.

use serde_json::{Value, json};

use super::functions::Functions;
use super::ordinary;
use super::org::{Account, FUNCTIONS, Organisation, Principal, Role, STRANGER_ACCOUNT, outside};
use super::record::{Call, Record};
use super::rng::Rng;
use super::routine::{console_user, function_configuration, ingress, login};

/// One kind of attack or look-alike.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Its name, as in [`super::Injection::kind`].
    pub(crate) name: &'static str,
    /// What is done, in words for people.
    pub(crate) title: &'static str,
    /// Titles of the shipped rules that ought to alert; none for a look-alike.
    pub(crate) expect: &'static [&'static str],
    /// Plans it.
    pub(crate) plan: fn(&mut Scene<'_>) -> Plan,
}

/// Where and when an attack is planned.
pub(crate) struct Scene<'a> {
    /// The organisation that suffers it.
    pub(crate) org: &'a Organisation,
    /// Its functions.
    pub(crate) functions: &'a mut Functions,
    /// The chances of this traffic.
    pub(crate) rng: &'a mut Rng,
    /// The second in which it begins.
    pub(crate) start: i64,
}

/// What an attack consists of.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Its calls, with times from the beginning on.
    pub(crate) records: Vec<Record>,
    /// Ids of the log lines that tell of it; the lines themselves are with the functions.
    pub(crate) line_ids: Vec<String>,
    /// The second of the last log line.
    pub(crate) lines_end: i64,
    /// The account it happens in.
    pub(crate) account: String,
    /// The ARN of the principal, or the function.
    pub(crate) actor: String,
    /// Where it comes from.
    pub(crate) source_ip: Option<String>,
}

const AWS_CLI: &str = "aws-cli/2.27.50 md/awscrt#0.26.1 ua/2.1 os/linux#6.12.38 md/arch#x86_64 lang/python#3.13.4 md/prompt#off";
const BOTO: &str = "Boto3/1.38.36 md/Botocore#1.38.36 ua/2.1 os/linux#6.12.38 md/arch#x86_64 lang/python#3.13.4 Botocore/1.38.36";

/// Every attack on the accounts, in the order in which they come.
pub(crate) const KINDS: [Kind; 19] = [
    Kind {
        name: "root_takeover",
        title: "Root signs in without a second factor and switches the trail off",
        expect: &[
            "Root user was used",
            "Root user signed in without a second factor",
            "CloudTrail was stopped or deleted",
        ],
        plan: root_takeover,
    },
    Kind {
        name: "console_bruteforce",
        title: "A password is guessed on the sign-in page",
        expect: &[
            "Many failed console sign-ins from one address",
            "IAM user signed in to the console without a second factor",
        ],
        plan: console_bruteforce,
    },
    Kind {
        name: "key_backdoor",
        title: "A stolen key makes itself a new administrator with a key of its own",
        expect: &[
            "User was made and armed within minutes",
            "Administrator rights were given to a user, group or role",
            "Access key was created for another user",
            "Console password was set for another user",
        ],
        plan: key_backdoor,
    },
    Kind {
        name: "recon_burst",
        title: "Somebody looks around the account with a stolen key",
        expect: &["Burst of calls that look around the account"],
        plan: recon_burst,
    },
    Kind {
        name: "secrets_theft",
        title: "A function's role, used from outside, reads every secret",
        expect: &["Many secrets were read in a short time"],
        plan: secrets_theft,
    },
    Kind {
        name: "function_backdoor",
        title: "A function is replaced and opened to the world",
        expect: &[
            "Code of a function was changed by hand",
            "Anybody may invoke a function",
            "Function got a public address without authentication",
        ],
        plan: function_backdoor,
    },
    Kind {
        name: "access_denied_burst",
        title: "A stolen session tries what it may do, and is refused again and again",
        expect: &["One identity was refused again and again"],
        plan: access_denied_burst,
    },
    Kind {
        name: "s3_exfil",
        title: "Hundreds of objects are copied out of a bucket",
        expect: &["Objects of a bucket were fetched in bulk"],
        plan: s3_exfil,
    },
    Kind {
        name: "pipeline_key_misuse",
        title: "The deployment's session turns up on a strange host and reaches for a sister account",
        expect: &[
            "Session of a pipeline was used with another tool",
            "Burst of calls that look around the account",
            "Access key was created for another user",
        ],
        plan: pipeline_key_misuse,
    },
    Kind {
        name: "guards_disabled",
        title: "GuardDuty and Config are switched off",
        expect: &[
            "GuardDuty was switched off or blinded",
            "AWS Config, Security Hub or Access Analyzer was switched off",
        ],
        plan: guards_disabled,
    },
    Kind {
        name: "new_ip_for_key",
        title: "The key of an instance turns up at a new address and makes a user",
        expect: &["Credentials of an EC2 instance were used to change identities"],
        plan: new_ip_for_key,
    },
    Kind {
        name: "s3_mass_delete",
        title: "A bucket is emptied",
        expect: &["Objects of a bucket were deleted in bulk"],
        plan: s3_mass_delete,
    },
    Kind {
        name: "snapshot_shared",
        title: "A disk snapshot is shared with a stranger's account",
        expect: &[
            "Snapshot or machine image was shared with another account",
            "Snapshot or machine image was shared with everybody",
        ],
        plan: snapshot_shared,
    },
    Kind {
        name: "bucket_public",
        title: "A bucket is opened to everybody",
        expect: &[
            "Bucket was opened to the world by its policy",
            "Protection against public buckets was removed",
        ],
        plan: bucket_public,
    },
    Kind {
        name: "role_opened",
        title: "A role is opened to a stranger's account and made administrator",
        expect: &[
            "Trust of a role was changed by hand",
            "Administrator rights were given to a user, group or role",
        ],
        plan: role_opened,
    },
    Kind {
        name: "key_destroyed",
        title: "A KMS key is disabled and set to be deleted",
        expect: &["Encryption key was disabled or is to be deleted"],
        plan: key_destroyed,
    },
    Kind {
        name: "logs_deleted",
        title: "Log groups and flow logs are deleted",
        expect: &[
            "Log group or log stream was deleted by hand",
            "Flow logs of a network were deleted",
        ],
        plan: logs_deleted,
    },
    Kind {
        name: "door_opened",
        title: "SSH is opened to the whole internet",
        expect: &["Administration port or database was opened to the world"],
        plan: door_opened,
    },
    Kind {
        name: "instance_takeover",
        title: "Passwords of instances are fetched and their start-up script is changed",
        expect: &[
            "Administrator password of a Windows instance was asked for",
            "Start script of an instance was changed",
        ],
        plan: instance_takeover,
    },
];

/// Somebody at work with another's credentials.
pub(crate) struct Intruder<'a> {
    /// Whose credentials they are.
    pub(crate) who: &'a Principal,
    /// The account of the credentials.
    pub(crate) account: &'a Account,
    address: String,
    agent: &'static str,
    second: i64,
    records: Vec<Record>,
}

impl<'a> Intruder<'a> {
    /// An intruder from outside with the credentials of `who`.
    fn new(scene: &mut Scene<'a>, who: &'a Principal) -> Intruder<'a> {
        let address = outside(scene.rng);
        let agent = scene.rng.word(&[AWS_CLI, BOTO]);
        Intruder::at(scene, who, address, agent)
    }

    /// Somebody who calls from `address`.
    pub(crate) fn at(
        scene: &Scene<'a>,
        who: &'a Principal,
        address: String,
        agent: &'static str,
    ) -> Intruder<'a> {
        Intruder {
            who,
            account: &scene.org.accounts[who.account],
            address,
            agent,
            second: scene.start,
            records: Vec::new(),
        }
    }

    /// A call `after` seconds from the last one.
    pub(crate) fn call(&mut self, after: i64, service: &str, name: &str, request: Value) -> Call {
        self.second += after;
        Call::new(self.who, self.account, self.second, service, name)
            .from(&self.address, self.agent)
            .request(request)
    }

    /// The same, made.
    pub(crate) fn does(
        &mut self,
        scene: &mut Scene<'_>,
        after: i64,
        service: &str,
        name: &str,
        request: Value,
    ) {
        let call = self.call(after, service, name, request);
        self.made(scene, call);
    }

    /// Keeps a call.
    pub(crate) fn made(&mut self, scene: &mut Scene<'_>, call: Call) {
        self.records.push(call.record(scene.rng));
    }

    /// All that was done.
    pub(crate) fn plan(self) -> Plan {
        Plan {
            records: self.records,
            account: self.account.id.into(),
            actor: self.who.arn.clone(),
            source_ip: Some(self.address),
            ..Plan::default()
        }
    }
}

/// Any of the principals of a kind.
pub(crate) fn someone<'a>(scene: &mut Scene<'a>, role: Role) -> &'a Principal {
    let all = scene.org.of(role);
    all[scene.rng.range(0, all.len() as i64 - 1) as usize]
}

fn root_takeover(scene: &mut Scene<'_>) -> Plan {
    let account = &scene.org.accounts[0];
    let address = outside(scene.rng);
    let arn = format!("arn:aws:iam::{}:root", account.id);
    let signing_in = json!({"type": "Root", "principalId": account.id, "arn": arn, "accountId": account.id, "accessKeyId": ""});
    let mut session = signing_in.clone();
    session["accessKeyId"] = format!("ASIA{}", scene.rng.base32(16)).into();
    session["sessionContext"] = json!({"attributes": {"creationDate": super::record::iso(scene.start), "mfaAuthenticated": "false"}});
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
            .map(|call| call.from(&address, super::org::BROWSER).record(scene.rng))
            .into(),
        account: account.id.into(),
        actor: arn,
        source_ip: Some(address),
        ..Plan::default()
    }
}

fn console_bruteforce(scene: &mut Scene<'_>) -> Plan {
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

fn key_backdoor(scene: &mut Scene<'_>) -> Plan {
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

fn recon_burst(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    for (i, (service, name)) in LOOKS.iter().enumerate() {
        intruder.does(scene, i as i64 % 2, service, name, Value::Null);
    }
    intruder.plan()
}

fn access_denied_burst(scene: &mut Scene<'_>) -> Plan {
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

fn secrets_theft(scene: &mut Scene<'_>) -> Plan {
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

fn function_backdoor(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let account = intruder.account;
    let function = *scene.rng.pick(&FUNCTIONS);
    let arn = format!(
        "arn:aws:lambda:{}:{}:function:{function}",
        account.region, account.id
    );
    let configuration = function_configuration(scene.rng, account, function, scene.start);
    intruder.does(scene, 0, "lambda", "ListFunctions20150331", Value::Null);
    let call = intruder
        .call(
            4,
            "lambda",
            "UpdateFunctionCode20150331v2",
            json!({"functionName": function, "publish": false, "dryRun": false}),
        )
        .response(configuration);
    intruder.made(scene, call);
    let call = intruder
        .call(5, "lambda", "CreateFunctionUrlConfig", json!({"functionName": arn, "authType": "NONE"}))
        .response(json!({"functionUrl": format!("https://{}.lambda-url.{}.on.aws/", scene.rng.hex(32), account.region), "functionArn": arn, "authType": "NONE"}));
    intruder.made(scene, call);
    let permission = json!({"functionName": function, "statementId": "public", "action": "lambda:InvokeFunctionUrl", "principal": "*", "functionUrlAuthType": "NONE"});
    intruder.does(scene, 2, "lambda", "AddPermission20150331v2", permission);
    intruder.plan()
}

fn objects(scene: &mut Scene<'_>, name: &'static str, from: i64, to: i64) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let account = intruder.account;
    let bucket = format!("lumen-freight-manifests-{}", account.stage);
    let count = scene.rng.range(from, to);
    for i in 0..count {
        let key = format!("2026/export/{i:05}.parquet");
        let out = if name == "GetObject" {
            scene.rng.range(40_000, 9_000_000)
        } else {
            0
        };
        let call = intruder
            .call(i64::from(i % 10 == 9), "s3", name, json!({"bucketName": bucket, "key": key, "Host": format!("{bucket}.s3.{}.amazonaws.com", account.region)}))
            .data()
            .with("additionalEventData", json!({"SignatureVersion": "SigV4", "AuthenticationMethod": "AuthHeader", "bytesTransferredIn": 0, "bytesTransferredOut": out}))
            .with("resources", json!([{"type": "AWS::S3::Object", "ARN": format!("arn:aws:s3:::{bucket}/{key}")},
                {"accountId": account.id, "type": "AWS::S3::Bucket", "ARN": format!("arn:aws:s3:::{bucket}")}]));
        intruder.made(scene, call);
    }
    intruder.plan()
}

fn s3_exfil(scene: &mut Scene<'_>) -> Plan {
    objects(scene, "GetObject", 220, 300)
}

fn s3_mass_delete(scene: &mut Scene<'_>) -> Plan {
    objects(scene, "DeleteObject", 160, 240)
}

fn pipeline_key_misuse(scene: &mut Scene<'_>) -> Plan {
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

fn guards_disabled(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::Person);
    let mut intruder = Intruder::new(scene, who);
    let detector = scene.rng.hex(32);
    intruder.does(scene, 0, "guardduty", "ListDetectors", Value::Null);
    intruder.does(
        scene,
        3,
        "guardduty",
        "UpdateDetector",
        json!({"detectorId": detector, "enable": false}),
    );
    intruder.does(
        scene,
        3,
        "guardduty",
        "DeleteDetector",
        json!({"detectorId": detector}),
    );
    intruder.does(
        scene,
        2,
        "config",
        "StopConfigurationRecorder",
        json!({"configurationRecorderName": "default"}),
    );
    intruder.does(scene, 2, "securityhub", "DisableSecurityHub", Value::Null);
    intruder.plan()
}

fn new_ip_for_key(scene: &mut Scene<'_>) -> Plan {
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

fn snapshot_shared(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let snapshot = format!("snap-0{}", scene.rng.hex(16));
    intruder.does(
        scene,
        0,
        "ec2",
        "DescribeSnapshots",
        json!({"ownersSet": {"items": [{"owner": "self"}]}}),
    );
    let call = intruder
        .call(
            4,
            "ec2",
            "ModifySnapshotAttribute",
            json!({"snapshotId": snapshot, "attributeType": "CREATE_VOLUME_PERMISSION",
            "createVolumePermission": {"add": {"items": [{"userId": STRANGER_ACCOUNT}]}}}),
        )
        .response(json!({"requestId": scene.rng.uuid(), "_return": true}));
    intruder.made(scene, call);
    let call = intruder
        .call(
            3,
            "ec2",
            "ModifySnapshotAttribute",
            json!({"snapshotId": snapshot, "attributeType": "CREATE_VOLUME_PERMISSION",
            "createVolumePermission": {"add": {"items": [{"group": "all"}]}}}),
        )
        .response(json!({"requestId": scene.rng.uuid(), "_return": true}));
    intruder.made(scene, call);
    intruder.plan()
}

fn bucket_public(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let bucket = format!("lumen-freight-photos-{}", intruder.account.stage);
    let host = format!("{bucket}.s3.{}.amazonaws.com", intruder.account.region);
    intruder.does(
        scene,
        0,
        "s3",
        "DeleteBucketPublicAccessBlock",
        json!({"bucketName": bucket, "Host": host, "publicAccessBlock": ""}),
    );
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
        "Resource": format!("arn:aws:s3:::{bucket}/*")}]});
    intruder.does(
        scene,
        3,
        "s3",
        "PutBucketPolicy",
        json!({"bucketName": bucket, "Host": host, "policy": "", "bucketPolicy": policy}),
    );
    intruder.plan()
}

fn role_opened(scene: &mut Scene<'_>) -> Plan {
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

fn key_destroyed(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let key = scene.rng.pick(&intruder.account.keys).clone();
    intruder.does(scene, 0, "kms", "DisableKey", json!({"keyId": key}));
    let call = intruder
        .call(
            4,
            "kms",
            "ScheduleKeyDeletion",
            json!({"keyId": key, "pendingWindowInDays": 7}),
        )
        .response(json!({"keyId": key, "keyState": "PendingDeletion", "pendingWindowInDays": 7}));
    intruder.made(scene, call);
    intruder.plan()
}

fn logs_deleted(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    for function in scene.rng.sample(&FUNCTIONS, 3) {
        intruder.does(
            scene,
            2,
            "logs",
            "DeleteLogGroup",
            json!({"logGroupName": format!("/aws/lambda/{function}")}),
        );
    }
    let flow_log = format!("fl-0{}", scene.rng.hex(16));
    let call = intruder
        .call(
            3,
            "ec2",
            "DeleteFlowLogs",
            json!({"DeleteFlowLogsRequest": {"FlowLogId": {"content": flow_log, "tag": 1}}}),
        )
        .response(json!({"DeleteFlowLogsResponse": {"unsuccessful": ""}}));
    intruder.made(scene, call);
    intruder.plan()
}

fn door_opened(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    for port in [22, 3389] {
        let request = ingress(scene.rng, "tcp", port, "0.0.0.0/0");
        let call = intruder
            .call(3, "ec2", "AuthorizeSecurityGroupIngress", request)
            .response(json!({"requestId": scene.rng.uuid(), "_return": true}));
        intruder.made(scene, call);
    }
    intruder.plan()
}

fn instance_takeover(scene: &mut Scene<'_>) -> Plan {
    let who = someone(scene, Role::User);
    let mut intruder = Intruder::new(scene, who);
    let account = intruder.account;
    for instance in &account.instances {
        intruder.does(
            scene,
            1,
            "ec2",
            "GetPasswordData",
            json!({"instanceId": instance}),
        );
    }
    let instance = account.instances[0].as_str();
    let stop = json!({"instancesSet": {"items": [{"instanceId": instance}]}, "force": false});
    intruder.does(scene, 2, "ec2", "StopInstances", stop.clone());
    let call = intruder
        .call(
            5,
            "ec2",
            "ModifyInstanceAttribute",
            json!({"instanceId": instance, "userData": "<sensitiveDataRemoved>"}),
        )
        .response(json!({"requestId": scene.rng.uuid(), "_return": true}));
    intruder.made(scene, call);
    intruder.does(scene, 3, "ec2", "StartInstances", stop);
    intruder.plan()
}
