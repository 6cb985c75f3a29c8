//! The traffic itself: [`Traffic`] plays the organisation second by second and plans the attacks.
//!
//! Inside it works in steps of one second, whatever the times it is asked for: ordinary calls and
//! invocations at the set rates, now and then a job, every twenty to thirty-four seconds the next attack of
//! the round, after every second attack a decoy. Jobs and attacks are planned ahead and their records wait
//! for their second. Delivery is like CloudTrail's, only faster: a record arrives up to
//! [`MAX_DELAY_SECONDS`] after it happened, out of order, and one in a hundred arrives twice.
//! Memory holds what is planned and not yet delivered, about a minute.

use std::collections::BTreeMap;

use event::Time;

use super::functions::Functions;
use super::injection::MAX_EVENT_IDS;
use super::org::Organisation;
use super::record::Record;
use super::rng::Rng;
use super::routine::JOBS;
use super::scene::{Kind, Plan, Scene};
use super::{Injection, Rates, Tick, attacks, decoys, incidents, ordinary};

/// Records arrive at most so long after they happened; repeats twice that.
pub(crate) const MAX_DELAY_SECONDS: i64 = 5;
/// The first attack begins so long after the start.
const FIRST_ATTACK_SECONDS: i64 = 3;
/// How much quieter the past is than the present.
const QUIET: f64 = 0.2;
/// Lines that an ordinary invocation writes on average, measured.
const LINES_PER_INVOCATION: f64 = 4.0;

/// An organisation at work, second by second.
#[derive(Debug)]
pub(crate) struct Traffic {
    org: Organisation,
    functions: Functions,
    rng: Rng,
    rates: Rates,
    /// The next second to be played.
    next: i64,
    /// What is left of an event when the rate is no whole number.
    carry: (f64, f64),
    /// When each job comes next.
    jobs: Vec<i64>,
    /// Records by the second in which they happen.
    planned: BTreeMap<i64, Vec<Record>>,
    /// Records by the second in which they arrive.
    travelling: BTreeMap<i64, Vec<Vec<u8>>>,
    /// When the next attack and the next decoy come; nothing in quiet traffic.
    attack: Option<i64>,
    decoy: Option<i64>,
    attacks: usize,
    decoys: usize,
}

impl Traffic {
    /// Traffic that begins at `start`, with the first attack within five seconds.
    pub(crate) fn new(seed: u64, start: Time) -> Traffic {
        let first = start.0.div_euclid(1_000_000);
        Traffic {
            attack: Some(first + FIRST_ATTACK_SECONDS),
            ..Traffic::quiet(seed, start, 2)
        }
    }

    /// Traffic without attacks; `purpose` keeps its ids apart from those of other traffic of this seed.
    fn quiet(seed: u64, start: Time, purpose: u64) -> Traffic {
        let org = Organisation::new(seed);
        let mut rng = Rng::stream(seed, purpose);
        let functions = Functions::new(&org, Rng::stream(seed, purpose + 100));
        let next = start.0.div_euclid(1_000_000);
        let jobs = JOBS
            .iter()
            .map(|(_, every)| next + rng.range(1, *every))
            .collect();
        Traffic {
            org,
            functions,
            rng,
            rates: Rates::default(),
            next,
            carry: (0.0, 0.0),
            jobs,
            planned: BTreeMap::new(),
            travelling: BTreeMap::new(),
            attack: None,
            decoy: None,
            attacks: 0,
            decoys: 0,
        }
    }

    /// The same with other rates.
    pub(crate) fn with_rates(self, rates: Rates) -> Traffic {
        Traffic { rates, ..self }
    }

    /// Everything that arrived since the last call, in whole seconds up to `now`.
    pub(crate) fn until(&mut self, now: Time) -> Tick {
        let mut tick = Tick::default();
        while self.next < now.0.div_euclid(1_000_000) {
            self.step(&mut tick);
        }
        tick
    }

    /// What happened and has not arrived yet.
    fn rest(&mut self, tick: &mut Tick) {
        let travelling = std::mem::take(&mut self.travelling);
        tick.cloudtrail.extend(travelling.into_values().flatten());
    }

    fn step(&mut self, tick: &mut Tick) {
        let second = self.next;
        self.next += 1;
        for (at, (job, every)) in JOBS.into_iter().enumerate() {
            if self.jobs[at] <= second {
                self.jobs[at] = second + self.rng.range(every / 2, every * 3 / 2);
                let records = job(&self.org, &mut self.rng, second);
                self.plan(records);
            }
        }
        if self.attack.is_some_and(|at| at <= second) {
            let kind = round()[self.attacks % round().len()].clone();
            self.attacks += 1;
            self.attack = Some(second + self.rng.range(20, 34));
            if self.attacks.is_multiple_of(2) {
                self.decoy = Some(second + self.rng.range(8, 16));
            }
            let id = format!("A{:03}", self.attacks);
            tick.injected.push(self.inject(id, &kind, false, second));
        }
        if self.decoy.is_some_and(|at| at <= second) {
            let kind = &decoys::KINDS[self.decoys % decoys::KINDS.len()];
            self.decoys += 1;
            self.decoy = None;
            let id = format!("D{:03}", self.decoys);
            tick.injected.push(self.inject(id, kind, true, second));
        }
        for _ in 0..self.count(true) {
            let record = ordinary::call(&self.org, &mut self.rng, second);
            self.plan(vec![record]);
        }
        for _ in 0..self.count(false) {
            let millis = second * 1_000 + self.rng.range(0, 999);
            self.functions.ordinary(millis);
        }
        for record in self.planned.remove(&second).unwrap_or_default() {
            self.deliver(record);
        }
        tick.lambda.extend(self.functions.due(second));
        let mut arrived = self.travelling.remove(&second).unwrap_or_default();
        self.rng.shuffle(&mut arrived);
        tick.cloudtrail.extend(arrived);
    }

    /// How many calls or invocations this second has.
    fn count(&mut self, cloudtrail: bool) -> usize {
        let (rate, carry) = match cloudtrail {
            true => (self.rates.cloudtrail, &mut self.carry.0),
            false => (self.rates.lambda / LINES_PER_INVOCATION, &mut self.carry.1),
        };
        let wanted = rate * (self.rng.range(50, 150) as f64 / 100.0) + *carry;
        *carry = wanted.fract();
        wanted as usize
    }

    fn plan(&mut self, records: Vec<Record>) {
        for record in records {
            self.planned.entry(record.second).or_default().push(record);
        }
    }

    fn deliver(&mut self, record: Record) {
        let at = record.second + self.rng.range(0, MAX_DELAY_SECONDS);
        if self.rng.chance(10) {
            let again = at + self.rng.range(1, MAX_DELAY_SECONDS);
            self.travelling
                .entry(again)
                .or_default()
                .push(record.bytes.clone());
        }
        self.travelling.entry(at).or_default().push(record.bytes);
    }

    fn inject(&mut self, id: String, kind: &Kind, decoy: bool, second: i64) -> Injection {
        let mut scene = Scene {
            org: &self.org,
            functions: &mut self.functions,
            rng: &mut self.rng,
            start: second,
        };
        let Plan {
            records,
            line_ids,
            lines_end,
            account,
            actor,
            source_ip,
        } = (kind.plan)(&mut scene);
        let last = records
            .iter()
            .map(|r| r.second)
            .max()
            .unwrap_or(second)
            .max(lines_end);
        let ids = records.iter().map(|r| r.id.clone()).chain(line_ids);
        let event_ids = ids.take(MAX_EVENT_IDS).collect();
        self.plan(records);
        Injection {
            id,
            kind: kind.name,
            title: kind.title.into(),
            decoy,
            start: Time::from_seconds(second),
            end: Time::from_seconds(last),
            account,
            actor,
            source_ip,
            expect: kind.expect.to_vec(),
            event_ids,
        }
    }
}

/// One round of attacks: an incident inside a function after every third attack on the accounts.
fn round() -> Vec<&'static Kind> {
    let mut incidents = incidents::KINDS.iter();
    let mut round = Vec::new();
    for (i, kind) in attacks::KINDS.iter().enumerate() {
        round.push(kind);
        if i % 3 == 1 {
            round.extend(incidents.next());
        }
    }
    round.extend(incidents);
    round
}

#[cfg(test)]
/// One kind of attack or decoy, for lists and documents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scenario {
    /// Its name, as in [`Injection::kind`].
    pub(crate) name: &'static str,
    /// What is done, in words for people.
    pub(crate) title: &'static str,
    /// Titles of the shipped rules that ought to alert; none for a decoy.
    pub(crate) expect: &'static [&'static str],
    /// A look-alike that must not alert.
    pub(crate) decoy: bool,
}

#[cfg(test)]
/// Every kind of attack in the order in which they come, then every decoy.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let attacks = round().into_iter().map(|kind| (kind, false));
    let decoys = decoys::KINDS.iter().map(|kind| (kind, true));
    attacks
        .chain(decoys)
        .map(|(kind, decoy)| Scenario {
            name: kind.name,
            title: kind.title,
            expect: kind.expect,
            decoy,
        })
        .collect()
}

/// Quiet traffic of the `hours` before `end`, a minute at a time: no attacks, a fifth of the usual rates.
pub(crate) fn history(seed: u64, end: Time, hours: u32) -> impl Iterator<Item = Tick> {
    let start = end.plus(-3_600_000_000 * i64::from(hours));
    let usual = Rates::default();
    let rates = Rates {
        cloudtrail: usual.cloudtrail * QUIET,
        lambda: usual.lambda * QUIET,
    };
    let mut traffic = Traffic::quiet(seed, start, 3).with_rates(rates);
    let minutes = i64::from(hours) * 60;
    (1..=minutes).map(move |minute| {
        let mut tick = traffic.until(start.plus(minute * 60_000_000));
        if minute == minutes {
            traffic.rest(&mut tick);
        }
        tick
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    const START: Time = Time(1_795_000_000_000_000);

    /// The traffic of so many seconds, asked for in steps of `step` seconds.
    fn play(seed: u64, seconds: i64, step: i64) -> Tick {
        let mut traffic = Traffic::new(seed, START);
        let mut all = Tick::default();
        for at in 1..=seconds {
            if at % step == 0 || at == seconds {
                let tick = traffic.until(START.plus(at * 1_000_000));
                all.cloudtrail.extend(tick.cloudtrail);
                all.lambda.extend(tick.lambda);
                all.injected.extend(tick.injected);
            }
        }
        all
    }

    fn parse(records: &[Vec<u8>]) -> Vec<Value> {
        let parse = |bytes: &Vec<u8>| serde_json::from_slice(bytes).unwrap();
        records.iter().map(parse).collect()
    }

    fn lines(tick: &Tick) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for payload in parse(&tick.lambda) {
            for line in payload["logEvents"].as_array().unwrap() {
                let text = |key: &str| line[key].as_str().unwrap().to_owned();
                lines.push((text("id"), text("message")));
            }
        }
        lines
    }

    #[test]
    fn the_seed_decides_and_the_steps_do_not() {
        let one = play(7, 120, 1);
        assert_eq!(one, play(7, 120, 1));
        assert_eq!(one, play(7, 120, 17));
        assert_ne!(one, play(8, 120, 1));
    }

    #[test]
    fn records_have_the_fields_of_cloudtrail() {
        let tick = play(1, 900, 60);
        let text = [
            "eventVersion",
            "eventTime",
            "eventSource",
            "eventName",
            "awsRegion",
            "sourceIPAddress",
            "userAgent",
            "eventID",
            "requestID",
            "eventType",
            "recipientAccountId",
            "eventCategory",
        ];
        for record in parse(&tick.cloudtrail) {
            for key in text {
                assert!(
                    record[key].as_str().is_some_and(|t| !t.is_empty()),
                    "{key} of {record}"
                );
            }
            assert!(record["userIdentity"]["type"].is_string(), "{record}");
            assert!(
                record["readOnly"].is_boolean() && record["managementEvent"].is_boolean(),
                "{record}"
            );
            assert!(Time::parse(record["eventTime"].as_str().unwrap()).is_ok());
            assert!(
                ["111122223333", "444455556666", "777788889999"]
                    .contains(&record["recipientAccountId"].as_str().unwrap())
            );
        }
    }

    #[test]
    fn as_much_as_was_asked_for() {
        let mut traffic = Traffic::quiet(1, START, 2);
        let tick = traffic.until(START.plus(600_000_000));
        let records = tick.cloudtrail.len() as f64 / 600.0;
        let lines = lines(&tick).len() as f64 / 600.0;
        assert!(
            (18.0..=24.0).contains(&records),
            "{records} records a second"
        );
        assert!((13.5..=16.5).contains(&lines), "{lines} lines a second");
        assert!(tick.injected.is_empty());
    }

    #[test]
    fn one_in_a_hundred_arrives_twice_and_none_late() {
        let mut traffic = Traffic::new(1, START);
        let (mut seen, mut repeats, mut unordered) = (BTreeSet::new(), 0, 0);
        for second in 1..=900 {
            let now = START.plus(second * 1_000_000);
            let mut last = Time::MIN;
            for record in parse(&traffic.until(now).cloudtrail) {
                let time = Time::parse(record["eventTime"].as_str().unwrap()).unwrap();
                assert!(
                    time <= now && now.0 - time.0 <= 12_000_000,
                    "{time:?} at {now:?}"
                );
                unordered += u32::from(time < last);
                last = time;
                repeats += u32::from(!seen.insert(record["eventID"].as_str().unwrap().to_owned()));
            }
        }
        let share = f64::from(repeats) / seen.len() as f64;
        assert!((0.006..=0.014).contains(&share), "{share}");
        assert!(unordered > 1_000);
    }

    #[test]
    fn the_first_attack_is_over_within_fifteen_seconds() {
        for seed in 0..20 {
            let tick = play(seed, 15, 1);
            let attack = &tick.injected[0];
            assert!(attack.start.0 - START.0 <= 5_000_000);
            let arrived: BTreeSet<String> = parse(&tick.cloudtrail)
                .iter()
                .map(|r| r["eventID"].as_str().unwrap().to_owned())
                .collect();
            assert!(
                attack.event_ids.iter().all(|id| arrived.contains(id)),
                "{attack:?}"
            );
        }
    }

    #[test]
    fn every_kind_comes_within_a_quarter_of_an_hour_and_arrives_whole() {
        let mut traffic = Traffic::new(5, START);
        let tick = traffic.until(START.plus(960_000_000));
        let seen: BTreeMap<&str, bool> = tick
            .injected
            .iter()
            .filter(|i| i.start <= START.plus(900_000_000))
            .map(|i| (i.kind, i.decoy))
            .collect();
        for scenario in scenarios() {
            assert_eq!(
                seen.get(scenario.name),
                Some(&scenario.decoy),
                "{}",
                scenario.name
            );
            assert_eq!(
                scenario.expect.is_empty(),
                scenario.decoy,
                "{}",
                scenario.name
            );
        }
        let mut arrived: BTreeSet<String> = parse(&tick.cloudtrail)
            .iter()
            .map(|r| r["eventID"].as_str().unwrap().to_owned())
            .collect();
        arrived.extend(lines(&tick).into_iter().map(|(id, _)| id));
        for attack in tick
            .injected
            .iter()
            .filter(|i| i.end <= START.plus(900_000_000))
        {
            assert!(
                !attack.event_ids.is_empty()
                    && attack.event_ids.iter().all(|id| arrived.contains(id)),
                "{attack:?}"
            );
        }
    }

    #[test]
    fn no_attack_tool_is_named() {
        let tick = play(2, 900, 900);
        for bytes in tick.cloudtrail.iter().chain(&tick.lambda) {
            let text = String::from_utf8_lossy(bytes).to_lowercase();
            for tool in [
                "stratus",
                "pacu",
                "kali",
                "cloudgoat",
                "traildiscover",
                "scoutsuite",
                "trufflehog",
            ] {
                assert!(!text.contains(tool), "{tool} in {text}");
            }
        }
    }

    #[test]
    fn history_is_quiet_and_ends_before_its_end() {
        let (mut minutes, mut records) = (0, 0);
        for tick in history(1, START, 2) {
            minutes += 1;
            records += tick.cloudtrail.len();
            assert!(tick.injected.is_empty());
            for record in parse(&tick.cloudtrail) {
                let time = Time::parse(record["eventTime"].as_str().unwrap()).unwrap();
                assert!(time < START && START.0 - time.0 <= 7_200_000_000);
            }
        }
        assert_eq!(minutes, 120);
        assert!((25_000..=35_000).contains(&records), "{records}");
    }

    #[test]
    fn live_traffic_and_history_share_no_id() {
        let ids = |records: &[Vec<u8>]| -> BTreeSet<String> {
            parse(records)
                .iter()
                .map(|r| r["eventID"].as_str().unwrap().to_owned())
                .collect()
        };
        let past: BTreeSet<String> = history(1, START, 1)
            .flat_map(|tick| ids(&tick.cloudtrail))
            .collect();
        assert!(ids(&play(1, 300, 300).cloudtrail).is_disjoint(&past));
    }
}
