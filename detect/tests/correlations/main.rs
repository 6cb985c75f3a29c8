//! All of Sigma's correlations against the definition: random documents, random streams, every order of arrival.
//!
//! The definition stands here once more, the slow and obvious way and written apart from the engine: every window is
//! looked at anew, per group, over all matches at once; what fires of a correlation is handed to those above it. The
//! documents go the way of real ones, from their text; the matches go through the stage's log, in three partitions,
//! shuffled within the lateness, some of them twice, in batches of any size, killed and started again anywhere.
#![expect(clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod definition;
mod documents;
mod events;
#[path = "../memory/mod.rs"]
mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{Bus, Topic};
use detect::correlate::{Metrics, Worker};
use detect::engine::{Engine, Scratch};
use detect::window::{
    Chain, Condition, Correlation, Match, Offline, Options, Watermark, Windows, watermark_records,
};
use event::json::Doc;
use event::{Clock, Finding, Id, Str, Time};
use proptest::prelude::*;

use definition::{Settled, definition};
use documents::{Dice, Rule, documents};
use events::Seen;
use memory::{MemoryBus, PARTITIONS};

const SECOND: i64 = 1_000_000;

/// What the match stage makes of an event.
fn matches(engine: &Engine, rules: &[Correlation], seen: &Seen, offset: u64) -> Vec<Match> {
    let event = seen.event();
    let doc = Doc::parse(&event.raw).unwrap();
    let root = doc.root(&event.raw);
    let mut scratch = Scratch::new();
    engine.matches(&event, Some(root), &mut scratch);
    let found = engine.correlation_matches(&event, Some(root), &mut scratch);
    found
        .into_iter()
        .map(|f| {
            let m = Match::new(&rules[f.correlation], f.group, &event, 0, offset);
            m.with(f.contribution)
        })
        .collect()
}

fn clock() -> Clock {
    Arc::new(|| Time(1))
}

/// The stage over a log with these matches; `dice` decide about batches, kills and what is sent twice.
fn live(
    rules: &[Correlation],
    arriving: &[Vec<Match>],
    lateness: i64,
    recount_after: Option<i64>,
    dice: &mut Dice,
) -> Vec<Finding> {
    let bus = Arc::new(MemoryBus::default());
    let log: Arc<dyn Bus> = Arc::clone(&bus) as _;
    let options = Options {
        lateness: lateness * SECOND,
        recount_after,
        ..Options::default()
    };
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let tell = |time: Time, next: u64, idle: bool| {
        for partition in 0..2 {
            let watermark = Watermark {
                partition,
                time: Some(time),
                next,
                ends: vec![next + u64::from(!idle); 2],
            };
            bus.append(
                Topic::Matches,
                watermark_records(&watermark, PARTITIONS, Time(1)),
            )
            .unwrap();
        }
    };
    let open = |p: u32| Worker::open(Arc::clone(&log), p, rules, options).unwrap();
    let mut workers: Vec<Worker> = (0..PARTITIONS).map(open).collect();
    let mut newest = Time::MIN;
    for (n, matches) in arriving.iter().enumerate() {
        for m in matches {
            newest = newest.max(m.time);
            bus.append(Topic::Matches, vec![m.clone().into_record(Time(1))])
                .unwrap();
            if dice.roll(6) == 0 {
                let again = arriving[dice.roll(n as u64 + 1) as usize].iter();
                let again = again.map(|m| m.clone().into_record(Time(1)));
                bus.append(Topic::Matches, again.collect()).unwrap();
            }
        }
        if dice.roll(3) == 0 && newest > Time::MIN {
            tell(newest, n as u64, false);
        }
        if dice.roll(2) == 0 {
            let partition = dice.roll(u64::from(PARTITIONS)) as usize;
            if dice.roll(5) == 0 {
                // What is reckoned and not committed is lost with the process.
                bus.0.lock().unwrap().commits_until_full = Some(0);
                let _ = workers[partition].round(600, &metrics, &clock());
                bus.0.lock().unwrap().commits_until_full = None;
                workers[partition] = open(partition as u32);
            }
            let size = 200 + 400 * dice.roll(8) as usize;
            workers[partition].round(size, &metrics, &clock()).unwrap();
        }
    }
    tell(Time::MAX, arriving.len() as u64, true);
    loop {
        let mut moved = false;
        for worker in &mut workers {
            moved |= worker.round(2_000, &metrics, &clock()).unwrap();
        }
        if !moved {
            break;
        }
    }
    let kept = bus.0.lock().unwrap();
    // The stage keeps a row for what all groups share; beside it stands what remains for recounts.
    let of_groups = |key: &[u8]| matches!(key.first(), Some(b'g' | b'c' | b'l'));
    let left: Vec<_> = kept.state.keys().filter(|k| of_groups(&k.2)).collect();
    assert!(
        left.is_empty(),
        "nothing is left when all is settled: {left:?}"
    );
    let stages = kept.state.keys().filter(|k| k.2 == b"s").count();
    assert_eq!(stages, PARTITIONS as usize);
    if recount_after.is_none() {
        assert_eq!(kept.state.len(), stages);
    }
    let findings = (0..PARTITIONS).flat_map(|p| kept.records.get(&(Topic::Findings, p)));
    findings
        .flatten()
        .map(|r| serde_json::from_slice(&r.value).unwrap())
        .collect()
}

/// The last revision of each finding, without those that have become part of others.
fn settled(rules: &[Correlation], findings: &[Finding], stream: &[Seen]) -> Vec<Settled> {
    let mut last: BTreeMap<Id, &Finding> = BTreeMap::new();
    for finding in findings {
        assert!(!finding.approximate, "{finding:?}");
        let revision = last.get(&finding.id).map_or(0, |before| {
            assert!(
                before.merged_into.is_none(),
                "a merged finding speaks again"
            );
            before.revision + 1
        });
        assert_eq!(finding.revision, revision);
        last.insert(finding.id, finding);
    }
    // What was withdrawn says so in words.
    let holds = |f: &&Finding| f.merged_into.is_none() && f.explanation.is_empty();
    let findings = last.into_values().filter(holds);
    let mut out: Vec<Settled> = findings
        .map(|f| {
            let rule = rules.iter().find(|r| r.rule_id == f.rule_id).unwrap();
            let mut candidates = stream.iter().filter(|s| s.time == f.time.0 / SECOND);
            let by = candidates.find(|s| episode_of(rule, &f.group, s) == f.episode);
            Settled {
                rule: f.rule_id.to_string(),
                group: f
                    .group
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.as_ref().map(Str::to_string)))
                    .collect(),
                first: f.first_event_time.0 / SECOND,
                last: f.last_event_time.0 / SECOND,
                count: f.count,
                time: f.time.0 / SECOND,
                by: by.map_or(Id::default(), Seen::id),
                shown: f.event_ids.iter().map(Str::to_string).collect(),
            }
        })
        .collect();
    out.sort();
    out
}

/// The id of an episode that this event fires first.
fn episode_of(rule: &Correlation, group: &BTreeMap<Str, Option<Str>>, seen: &Seen) -> Id {
    let alone = Correlation {
        condition: Condition::at_least(1),
        chain: Chain::default(),
        ..rule.clone()
    };
    let mut out = Vec::new();
    let m = Match::new(&alone, group.clone(), &seen.event(), 0, 0);
    Windows::new(std::slice::from_ref(&alone), Options::default()).process(m, &mut out);
    out[0].episode
}

fn compare(seed: u64, events: usize, depth: u64) -> Result<(), TestCaseError> {
    let mut dice = Dice(seed);
    let (documents, set) = documents(&mut dice, depth);
    let text: String = documents.iter().map(Rule::yaml).collect();
    let spread = *dice.pick(&[20, 60, 300]);
    let stream: Vec<Seen> = (0..events as u32)
        .map(|n| Seen::random(&mut dice, n, spread, depth > 1))
        .collect();
    let expected = definition(&documents, &stream);
    let (engine, rules) = (Engine::new(&set), detect::correlations::of(&set));
    let lateness = dice.roll(60) as i64;
    for _ in 0..2 {
        let mut arriving: Vec<(i64, &Seen)> = stream
            .iter()
            .map(|s| (s.time + dice.roll(lateness as u64 + 1) as i64, s))
            .collect();
        arriving.sort_by_key(|(at, s)| (*at, s.number));
        let arriving: Vec<Vec<Match>> = arriving
            .iter()
            .zip(0..)
            .map(|((_, seen), offset)| matches(&engine, &rules, seen, offset))
            .collect();
        let findings = live(&rules, &arriving, lateness, None, &mut dice);
        prop_assert!(findings.iter().all(|f| !f.late && f.explanation.is_empty()));
        same(
            &settled(&rules, &findings, &stream),
            &expected,
            "live",
            &text,
        )?;
        let mut offline = Offline::new(rules.clone(), 20_000 * dice.roll(3) as usize);
        for m in arriving.iter().chain(arriving.iter().rev()).flatten() {
            offline.push(m.clone()).unwrap();
        }
        let mut whole = Vec::new();
        offline.finish(|finding| whole.push(finding)).unwrap();
        prop_assert!(whole.iter().all(|f| f.id == f.episode && f.revision == 0));
        same(
            &settled(&rules, &whole, &stream),
            &expected,
            "offline",
            &text,
        )?;
    }
    Ok(())
}

/// The same where some come later than the allowed lateness, much later even.
fn compare_late(seed: u64, events: usize, depth: u64) -> Result<(), TestCaseError> {
    let mut dice = Dice(seed);
    let (documents, set) = documents(&mut dice, depth);
    let text: String = documents.iter().map(Rule::yaml).collect();
    let spread = *dice.pick(&[20, 60, 300, 2_000]);
    let stream: Vec<Seen> = (0..events as u32)
        .map(|n| Seen::random(&mut dice, n, spread, depth > 1))
        .collect();
    let (engine, rules) = (Engine::new(&set), detect::correlations::of(&set));
    // What a condition that can become false again has handed on is not taken back.
    let may_err = |r: &Correlation| !r.chain.uppers.is_empty() && !r.condition.is_monotone();
    if rules.iter().any(may_err) {
        return Ok(());
    }
    let expected = definition(&documents, &stream);
    let lateness = dice.roll(30) as i64;
    let mut arriving: Vec<(i64, &Seen)> = stream
        .iter()
        .map(|s| {
            let delay = match dice.roll(4) {
                0 => dice.roll(3 * spread),
                _ => dice.roll(lateness as u64 + 1),
            };
            (s.time + delay as i64, s)
        })
        .collect();
    arriving.sort_by_key(|(at, s)| (*at, s.number));
    let arriving: Vec<Vec<Match>> = arriving
        .iter()
        .zip(0..)
        .map(|((_, seen), offset)| matches(&engine, &rules, seen, offset))
        .collect();
    let findings = live(&rules, &arriving, lateness, Some(0), &mut dice);
    let found = settled(&rules, &findings, &stream);
    same(&found, &expected, "late", &text)
}

/// Tells what one has that the other has not.
fn same(
    found: &[Settled],
    expected: &[Settled],
    way: &str,
    rules: &str,
) -> Result<(), TestCaseError> {
    let more: Vec<_> = found.iter().filter(|s| !expected.contains(s)).collect();
    let less: Vec<_> = expected.iter().filter(|s| !found.contains(s)).collect();
    prop_assert!(
        found == expected,
        "{way}: {more:#?} instead of {less:#?}\n{rules}"
    );
    Ok(())
}

fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(50),
    }
}

/// What went wrong once.
#[test]
fn cases_that_went_wrong() {
    let cases = [
        (8_915_952_181_206_779_157, 14, 0),
        (4_090_389_129_652_803_740, 29, 1),
        (12_226_836_418_416_145_241, 67, 1),
        (12_366_941_239_929_745_781, 37, 2),
        (12_920_505_929_806_861_129, 62, 3),
        (8_555_227_307_054_646_192, 61, 3),
    ];
    for (seed, events, depth) in cases {
        compare(seed, events, depth).unwrap_or_else(|e| panic!("{e}"));
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn one_correlation(seed in any::<u64>(), events in 0_usize..120) {
        compare(seed, events, 0)?;
    }

    #[test]
    fn what_comes_late_is_counted_as_if_it_had_come_in_time(seed in any::<u64>(), events in 0_usize..150, depth in 0_u64..4) {
        compare_late(seed, events, depth)?;
    }

    #[test]
    fn two_correlations_that_may_be_a_chain(seed in any::<u64>(), events in 0_usize..90) {
        compare(seed, events, 1)?;
    }

    #[test]
    fn chains_of_three_and_four(seed in any::<u64>(), depth in 2_u64..4, events in 0_usize..90) {
        compare(seed, events, depth)?;
    }
}
