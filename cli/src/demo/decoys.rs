//! Look-alikes: things that resemble an attack and are none, each below the threshold of the rule it teases.
//!
//! [`KINDS`] has the same form as the attacks. A decoy that alerts is a false alarm of our own making, which
//! is what the demo is there to show.

use serde_json::{Value, json};

use super::incidents::calls;
use super::invocation::Ending;
use super::ordinary;
use super::org::{Role, inside};
use super::routine::{self, ingress};
use super::scene::{Intruder, Kind, Plan, Scene, someone_else};

/// Every look-alike, in the order in which they come.
pub(crate) const KINDS: [Kind; 8] = [
    Kind {
        name: "few_failed_sign_ins",
        title: "Somebody mistypes a password, then signs in with the second factor",
        expect: &[],
        plan: few_failed_sign_ins,
    },
    Kind {
        name: "few_refusals",
        title: "A developer is refused three times",
        expect: &[],
        plan: few_refusals,
    },
    Kind {
        name: "error_blip",
        title: "A function fails twice",
        expect: &[],
        plan: error_blip,
    },
    Kind {
        name: "few_deletions",
        title: "Somebody deletes eight objects of a bucket",
        expect: &[],
        plan: few_deletions,
    },
    Kind {
        name: "mild_surge",
        title: "A function is called a little more often",
        expect: &[],
        plan: mild_surge,
    },
    Kind {
        name: "plan_from_new_runner",
        title: "Terraform plans from a new runner",
        expect: &[],
        plan: plan_from_new_runner,
    },
    Kind {
        name: "harmless_words",
        title: "A function logs the words secret and timed out",
        expect: &[],
        plan: harmless_words,
    },
    Kind {
        name: "door_to_office",
        title: "SSH is opened to the office alone",
        expect: &[],
        plan: door_to_office,
    },
];

fn few_failed_sign_ins(scene: &mut Scene<'_>) -> Plan {
    let (user, address) = (
        routine::console_user(scene.org, scene.rng),
        inside(scene.rng),
    );
    Plan {
        records: routine::sign_in(scene.org, scene.rng, user, &address, (scene.start, 2)),
        account: scene.org.accounts[user.account].id.into(),
        actor: user.arn.clone(),
        source_ip: Some(address),
        ..Plan::default()
    }
}

/// A principal at its usual place.
fn at_home<'a>(scene: &mut Scene<'a>, role: Role) -> Intruder<'a> {
    let who = someone_else(scene, role);
    Intruder::at(scene, who, who.address.clone(), who.agent)
}

fn few_refusals(scene: &mut Scene<'_>) -> Plan {
    let mut person = at_home(scene, Role::Person);
    for name in [
        "DescribeDBInstances",
        "DescribeDBClusters",
        "DescribeDBSnapshots",
    ] {
        let call = person
            .call(6, "rds", name, Value::Null)
            .denied(&person.who.arn);
        person.made(scene, call);
    }
    person.plan()
}

fn few_deletions(scene: &mut Scene<'_>) -> Plan {
    let mut user = at_home(scene, Role::User);
    let bucket = format!("lumen-freight-labels-{}", user.account.stage);
    for i in 0..8 {
        let call = user
            .call(
                2,
                "s3",
                "DeleteObject",
                json!({"bucketName": bucket, "key": format!("drafts/{i}.pdf")}),
            )
            .data();
        user.made(scene, call);
    }
    user.plan()
}

fn plan_from_new_runner(scene: &mut Scene<'_>) -> Plan {
    let who = someone_else(scene, Role::Terraform);
    let runner = inside(scene.rng);
    let mut terraform = Intruder::at(scene, who, runner, who.agent);
    for (service, name) in [
        ("iam", "GetRole"),
        ("lambda", "GetFunction20150331v2"),
        ("s3", "GetBucketVersioning"),
        ("kms", "DescribeKey"),
        ("dynamodb", "DescribeTable"),
        ("sqs", "GetQueueAttributes"),
        ("events", "DescribeRule"),
        ("logs", "DescribeLogGroups"),
    ] {
        terraform.does(scene, 1, service, name, Value::Null);
    }
    terraform.plan()
}

fn door_to_office(scene: &mut Scene<'_>) -> Plan {
    let mut person = at_home(scene, Role::Person);
    let request = ingress(scene.rng, "tcp", 22, &format!("{}/32", scene.org.office));
    person.does(scene, 0, "ec2", "AuthorizeSecurityGroupIngress", request);
    let reading = ordinary::reading(scene.org, person.who, scene.rng, scene.start + 1);
    person.made(scene, reading);
    person.plan()
}

/// Functions that no incident happens to.
const SPARED: [usize; 4] = [3, 4, 5, 6];

fn error_blip(scene: &mut Scene<'_>) -> Plan {
    let function = *scene.rng.pick(&SPARED);
    calls(scene, function, (2, 8), Ending::Error, None)
}

fn mild_surge(scene: &mut Scene<'_>) -> Plan {
    let function = *scene.rng.pick(&SPARED);
    calls(scene, function, (25, 25), Ending::Success, None)
}

fn harmless_words(scene: &mut Scene<'_>) -> Plan {
    let function = *scene.rng.pick(&SPARED);
    let line = "secret rotation: nothing to do; upstream timed out once, error budget fine";
    calls(scene, function, (2, 6), Ending::Success, Some(line))
}
