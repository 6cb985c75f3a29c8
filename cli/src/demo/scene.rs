//! The making of attacks: [`Scene`], where one is planned, [`Plan`], what comes out, and [`Intruder`].
//!
//! `attacks`, `incidents` and `decoys` list their kinds as [`Kind`]s, each with a function that plans it;
//! `traffic` picks the next one and plays the plan. An intruder is somebody at work with the credentials of a
//! principal, with an address and a program of their own; decoys use it for people at their usual place.

use serde_json::Value;

use super::functions::Functions;
use super::org::{Account, Organisation, Principal, Role, outside};
use super::record::{Call, Record};
use super::rng::Rng;

const AWS_CLI: &str = "aws-cli/2.27.50 md/awscrt#0.26.1 ua/2.1 os/linux#6.12.38 md/arch#x86_64 lang/python#3.13.4 md/prompt#off";
const BOTO: &str = "Boto3/1.38.36 md/Botocore#1.38.36 ua/2.1 os/linux#6.12.38 md/arch#x86_64 lang/python#3.13.4 Botocore/1.38.36";

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
    pub(crate) fn new(scene: &mut Scene<'a>, who: &'a Principal) -> Intruder<'a> {
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

/// One of the principals of a kind that intruders get hold of: the first half of them.
pub(crate) fn someone<'a>(scene: &mut Scene<'a>, role: Role) -> &'a Principal {
    let all = scene.org.of(role);
    let half = all.len().div_ceil(2) as i64;
    all[scene.rng.range(0, half - 1) as usize]
}

/// One of the others, whom decoys are about: an alert about an intruder must not count what they do.
pub(crate) fn someone_else<'a>(scene: &mut Scene<'a>, role: Role) -> &'a Principal {
    let all = scene.org.of(role);
    let half = all.len().div_ceil(2) as i64;
    all[scene
        .rng
        .range(half.min(all.len() as i64 - 1), all.len() as i64 - 1) as usize]
}
