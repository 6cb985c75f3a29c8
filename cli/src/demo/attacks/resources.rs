//! Attacks on things: functions, buckets, disks, keys, networks and the guards themselves.
//!
//! Each function plans one kind of [`super::KINDS`]; the kind says what it is. The caller is an intruder with
//! the stolen key of a user or the stolen session of a person.

use serde_json::{Value, json};

use crate::demo::org::{FUNCTIONS, Role, STRANGER_ACCOUNT};
use crate::demo::routine::{function_configuration, ingress};
use crate::demo::scene::{Intruder, Plan, Scene, someone};

/// A function is replaced and opened to the world.
pub(crate) fn function_backdoor(scene: &mut Scene<'_>) -> Plan {
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

/// Hundreds of objects are copied out of a bucket.
pub(crate) fn s3_exfil(scene: &mut Scene<'_>) -> Plan {
    objects(scene, "GetObject", 220, 300)
}

/// A bucket is emptied.
pub(crate) fn s3_mass_delete(scene: &mut Scene<'_>) -> Plan {
    objects(scene, "DeleteObject", 160, 240)
}

/// GuardDuty and Config are switched off.
pub(crate) fn guards_disabled(scene: &mut Scene<'_>) -> Plan {
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

/// A disk snapshot is shared with a stranger's account.
pub(crate) fn snapshot_shared(scene: &mut Scene<'_>) -> Plan {
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

/// A bucket is opened to everybody.
pub(crate) fn bucket_public(scene: &mut Scene<'_>) -> Plan {
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

/// A KMS key is disabled and set to be deleted.
pub(crate) fn key_destroyed(scene: &mut Scene<'_>) -> Plan {
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

/// Log groups and flow logs are deleted.
pub(crate) fn logs_deleted(scene: &mut Scene<'_>) -> Plan {
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

/// SSH is opened to the whole internet.
pub(crate) fn door_opened(scene: &mut Scene<'_>) -> Plan {
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

/// Passwords of instances are fetched and their start-up script is changed.
pub(crate) fn instance_takeover(scene: &mut Scene<'_>) -> Plan {
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
