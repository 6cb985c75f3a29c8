//! The organisation of the demo: [`Organisation`], its accounts, its principals and the things they own.
//!
//! Three accounts, four regions and about forty principals: people who come through single sign-on, old
//! IAM users, applications under their roles, pipelines, and AWS services that act in the organisation's
//! name. [`Principal::identity`] writes the `userIdentity` of a CloudTrail record. Account numbers are those
//! of the AWS manuals; addresses come from the ranges set aside for benchmarks and documentation, which are
//! nobody's hosts; the organisation does not exist.

use serde_json::{Value, json};

use super::record::iso;
use super::rng::Rng;

/// The regions in use; the first is home to the global services.
pub(crate) const REGIONS: [&str; 4] = ["us-east-1", "eu-west-1", "eu-central-1", "ap-southeast-2"];
/// An account that is none of ours.
pub(crate) const STRANGER_ACCOUNT: &str = "999988887777";
/// The browser of people on the console.
pub(crate) const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
/// The SDK as functions of the organisation use it.
pub(crate) const BOTO_LAMBDA: &str = "Boto3/1.40.61 md/Botocore#1.40.61 ua/2.1 os/linux#5.10.244 md/arch#x86_64 lang/python#3.13.9 exec-env/AWS_Lambda_python3.13 Botocore/1.40.61";
const BOTO_SERVER: &str = "Boto3/1.40.61 md/Botocore#1.40.61 ua/2.1 os/linux#6.1.155 md/arch#aarch64 lang/python#3.12.11 Botocore/1.40.61";
const JAVA: &str = "aws-sdk-java/2.35.10 md/io#sync md/http#Apache ua/2.1 os/Linux#6.1.155 lang/java#21.0.8 md/OpenJDK_64-Bit_Server_VM#21.0.8+9-LTS exec-env/AWS_ECS_FARGATE";
const CLI: &str = "aws-cli/2.31.22 md/awscrt#0.28.2 ua/2.1 os/macos#25.1.0 md/arch#arm64 lang/python#3.13.9 md/prompt#off";
const CI: &str = "aws-cli/2.31.22 md/awscrt#0.28.2 ua/2.1 os/linux#6.11.0-1018-azure md/arch#x86_64 lang/python#3.13.9 exec-env/GitHubActions md/prompt#off";
const TERRAFORM: &str = "APN/1.0 HashiCorp/1.0 Terraform/1.13.4 (+https://www.terraform.io) terraform-provider-aws/6.17.0 (+https://registry.terraform.io/providers/hashicorp/aws) aws-sdk-go-v2/1.39.4 ua/2.1 os/linux lang/go#1.24.9";
/// The session of a role is renewed after this time.
const SESSION_SECONDS: i64 = 6 * 3_600;

/// One account and what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// Twelve digits.
    pub(crate) id: &'static str,
    /// What it is for, also part of the names in it.
    pub(crate) stage: &'static str,
    /// The region where most of it lives.
    pub(crate) region: &'static str,
    /// Names of the secrets.
    pub(crate) secrets: Vec<String>,
    /// Ids of the KMS keys.
    pub(crate) keys: Vec<String>,
    /// Ids of the instances.
    pub(crate) instances: Vec<String>,
}

/// What kind of principal it is, which decides what it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A person, signed in through IAM Identity Center.
    Person,
    /// A person with an IAM user, from before single sign-on.
    User,
    /// An application under a role of its own.
    Application,
    /// An AWS service that acts through a role of the account.
    Service,
    /// A deployment from continuous integration.
    Pipeline,
    /// The infrastructure as code.
    Terraform,
}

/// Someone or something that makes calls.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// What kind it is.
    pub(crate) role: Role,
    /// The index of its account.
    pub(crate) account: usize,
    /// The user or the session: a mail address, an instance, a function.
    pub(crate) name: String,
    /// The role that is assumed; for an IAM user its name again.
    pub(crate) role_name: String,
    /// The ARN as CloudTrail shows it.
    pub(crate) arn: String,
    /// Where it calls from; a service calls from its own name.
    pub(crate) address: String,
    /// The client it uses.
    pub(crate) agent: &'static str,
    /// Prefix of the service that acts through this principal (`config.amazonaws.com`).
    service: Option<&'static str>,
    id: String,
    seed: u64,
}

impl Principal {
    fn new(
        rng: &mut Rng,
        role: Role,
        account: (usize, &Account),
        name: &str,
        role_name: &str,
    ) -> Principal {
        let (index, id) = (account.0, account.1.id);
        let (prefix, arn) = match role {
            Role::User => ("AIDA", format!("arn:aws:iam::{id}:user/{name}")),
            _ => (
                "AROA",
                format!("arn:aws:sts::{id}:assumed-role/{role_name}/{name}"),
            ),
        };
        Principal {
            role,
            account: index,
            name: name.into(),
            role_name: role_name.into(),
            arn,
            address: inside(rng),
            agent: BOTO_SERVER,
            service: None,
            id: format!("{prefix}{}", rng.base32(17)),
            seed: rng.number(),
        }
    }

    /// The access key in use at a time: a user's stays, a role's changes with its session.
    pub(crate) fn access_key(&self, second: i64) -> String {
        let session = second.div_euclid(SESSION_SECONDS) as u64;
        match self.role {
            Role::User => format!("AKIA{}", Rng::new(self.seed).base32(16)),
            _ => format!("ASIA{}", Rng::stream(self.seed, session).base32(16)),
        }
    }

    /// The `userIdentity` of its calls at a time.
    pub(crate) fn identity(&self, account: &Account, second: i64) -> Value {
        if self.role == Role::User {
            return json!({"type": "IAMUser", "principalId": self.id, "arn": self.arn, "accountId": account.id,
                "accessKeyId": self.access_key(second), "userName": self.name});
        }
        let path = match self.role {
            Role::Person => "aws-reserved/sso.amazonaws.com/".into(),
            Role::Service => format!("aws-service-role/{}/", self.service.unwrap_or_default()),
            _ => String::new(),
        };
        let provider = format!(
            "arn:aws:iam::{}:oidc-provider/token.actions.githubusercontent.com",
            account.id
        );
        let federation = match self.role {
            Role::Pipeline => json!({"federatedProvider": provider, "attributes": {}}),
            _ => json!({}),
        };
        let mut identity = json!({"type": "AssumedRole", "principalId": format!("{}:{}", self.id, self.name),
            "arn": self.arn, "accountId": account.id, "accessKeyId": self.access_key(second),
            "sessionContext": {
                "sessionIssuer": {"type": "Role", "principalId": self.id, "accountId": account.id,
                    "arn": format!("arn:aws:iam::{}:role/{path}{}", account.id, self.role_name), "userName": self.role_name},
                "webIdFederationData": federation,
                "attributes": {"creationDate": iso(second - second.rem_euclid(SESSION_SECONDS)),
                    "mfaAuthenticated": if self.role == Role::Person { "true" } else { "false" }}}});
        if self.name.starts_with("i-") {
            identity["sessionContext"]["ec2RoleDelivery"] = "2.0".into();
        }
        if self.role == Role::Terraform {
            identity["sessionContext"]["sourceIdentity"] = self.name.as_str().into();
        }
        if let Some(service) = self.service {
            identity["invokedBy"] = service.into();
        }
        identity
    }
}

/// The organisation.
#[derive(Debug, Clone)]
pub(crate) struct Organisation {
    /// Production, staging and sandbox.
    pub(crate) accounts: Vec<Account>,
    /// Everyone who makes calls, the busiest of each kind first.
    pub(crate) principals: Vec<Principal>,
    /// The office, where people sit.
    pub(crate) office: String,
}

/// The functions whose roles make calls; the logs of eight of them are in the traffic as well.
pub(crate) const FUNCTIONS: [&str; 8] = [
    "parcel-tracking",
    "quote-api",
    "label-printer",
    "route-planner",
    "customs-forms",
    "invoice-mailer",
    "depot-sync",
    "driver-login",
];

impl Organisation {
    /// The organisation of a seed.
    pub(crate) fn new(seed: u64) -> Organisation {
        let mut rng = Rng::stream(seed, 1);
        let accounts: Vec<Account> = [
            ("111122223333", "production", REGIONS[0]),
            ("444455556666", "staging", REGIONS[1]),
            ("777788889999", "sandbox", REGIONS[2]),
        ]
        .map(|(id, stage, region)| Account {
            id,
            stage,
            region,
            secrets: FUNCTIONS
                .iter()
                .map(|f| format!("{stage}/{f}/database-{}", rng.base32(6)))
                .collect(),
            keys: (0..4).map(|_| rng.uuid()).collect(),
            instances: (0..6).map(|_| format!("i-0{}", rng.hex(16))).collect(),
        })
        .into();
        let office = inside(&mut rng);
        let mut principals = Vec::new();
        let mut add = |rng: &mut Rng, role, account: usize, name: &str, role_name: &str| {
            principals.push(Principal::new(
                rng,
                role,
                (account, &accounts[account]),
                name,
                role_name,
            ));
            principals.len() - 1
        };
        let mut agents = Vec::new();
        for (i, function) in FUNCTIONS.iter().enumerate() {
            let at = add(
                &mut rng,
                Role::Application,
                usize::from(i == 6),
                function,
                &format!("{function}-role"),
            );
            agents.push((at, BOTO_LAMBDA));
        }
        for (account, name) in [
            (0, "billing"),
            (0, "search"),
            (1, "billing"),
            (2, "experiments"),
        ] {
            let task = rng.hex(32);
            agents.push((
                add(
                    &mut rng,
                    Role::Application,
                    account,
                    &task,
                    &format!("{name}-task-role"),
                ),
                JAVA,
            ));
        }
        for (account, which) in [(0, 0), (0, 1), (1, 0)] {
            let instance = accounts[account].instances[which].clone();
            agents.push((
                add(
                    &mut rng,
                    Role::Application,
                    account,
                    &instance,
                    "depot-gateway-role",
                ),
                BOTO_SERVER,
            ));
        }
        let people = [
            "amara.nwosu",
            "tomas.herrera",
            "yuki.tanabe",
            "freya.dahl",
            "omar.haddad",
            "lucia.ferri",
            "ravi.menon",
            "nina.kovac",
        ];
        for (i, person) in people.iter().enumerate() {
            let set = ["Developer", "Developer", "Operations", "Auditor"][i % 4];
            let role = format!(
                "AWSReservedSSO_{set}_{:016x}",
                0x5a11_0000_c0de_0000_u64 + i as u64 % 4
            );
            let at = add(
                &mut rng,
                Role::Person,
                i % 3,
                &format!("{person}@lumen-freight.example"),
                &role,
            );
            agents.push((at, if i % 4 == 3 { CLI } else { BROWSER }));
        }
        for (account, user) in [
            (0, "warehouse-scanner"),
            (1, "h.bergstrom"),
            (0, "p.almeida"),
            (2, "k.osei"),
            (0, "partner-sftp"),
        ] {
            agents.push((add(&mut rng, Role::User, account, user, user), CLI));
        }
        for account in 0..3 {
            agents.push((
                add(
                    &mut rng,
                    Role::Pipeline,
                    account,
                    "GitHubActions",
                    "deploy-from-github",
                ),
                CI,
            ));
            agents.push((
                add(
                    &mut rng,
                    Role::Terraform,
                    account,
                    "infra-apply",
                    "terraform-apply",
                ),
                TERRAFORM,
            ));
        }
        for (at, agent) in agents {
            principals[at].agent = agent;
            if principals[at].role == Role::Person {
                principals[at].address = office.clone();
            }
        }
        let services = [
            (
                "config.amazonaws.com",
                "AWSServiceRoleForConfig",
                "configLambdaExecution",
            ),
            (
                "autoscaling.amazonaws.com",
                "AWSServiceRoleForAutoScaling",
                "AutoScaling",
            ),
            (
                "securityhub.amazonaws.com",
                "AWSServiceRoleForSecurityHub",
                "securityhub",
            ),
            (
                "ecs.amazonaws.com",
                "AWSServiceRoleForECS",
                "ecs-service-scheduler",
            ),
        ];
        for (account, owner) in accounts.iter().enumerate() {
            for (service, role, session) in services {
                let mut principal =
                    Principal::new(&mut rng, Role::Service, (account, owner), session, role);
                principal.address = service.into();
                principal.agent = service;
                principal.service = Some(service);
                principals.push(principal);
            }
        }
        Organisation {
            accounts,
            principals,
            office,
        }
    }

    /// Everyone of one kind, the busiest first.
    pub(crate) fn of(&self, role: Role) -> Vec<&Principal> {
        self.principals.iter().filter(|p| p.role == role).collect()
    }

    /// The principal of one kind in one account.
    pub(crate) fn one(&self, role: Role, account: usize) -> &Principal {
        self.principals
            .iter()
            .find(|p| p.role == role && p.account == account)
            .expect("every account has a pipeline and a Terraform role")
    }
}

/// An address of the organisation: from the benchmark range of RFC 2544.
pub(crate) fn inside(rng: &mut Rng) -> String {
    format!(
        "198.{}.{}.{}",
        rng.range(18, 19),
        rng.range(0, 255),
        rng.range(1, 254)
    )
}

/// An address of an attacker: from the ranges for documentation of RFC 5737.
pub(crate) fn outside(rng: &mut Rng) -> String {
    let network = rng.pick(&["192.0.2", "198.51.100", "203.0.113"]);
    format!("{network}.{}", rng.range(1, 254))
}
