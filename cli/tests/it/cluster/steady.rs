//! How long it takes from an event to its alert while something else happens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::nodes::{Cluster, Intake, get, push_to};
use crate::program::PATIENCE;

/// Threads that send events and look for their alerts.
pub(super) struct Steady {
    ended: Arc<AtomicBool>,
    sent: Arc<Mutex<BTreeMap<String, Instant>>>,
    seen: Arc<Mutex<BTreeMap<String, Instant>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Steady {
    /// Sends an event twice a second whose alert has an actor of its own, and asks `api` for alerts all the time.
    pub(super) fn start(intake: Intake, api: Vec<SocketAddr>) -> Steady {
        let mut steady = Steady {
            ended: Arc::default(),
            sent: Arc::default(),
            seen: Arc::default(),
            threads: Vec::new(),
        };
        let (ended, sent) = (Arc::clone(&steady.ended), Arc::clone(&steady.sent));
        steady.threads.push(std::thread::spawn(move || {
            for n in 0.. {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let user = format!("stopper-{n}");
                sent.lock().unwrap().insert(user.clone(), Instant::now());
                push_to(&intake, &record(&user, n));
                std::thread::sleep(Duration::from_millis(500));
            }
        }));
        let (ended, seen) = (Arc::clone(&steady.ended), Arc::clone(&steady.seen));
        steady.threads.push(std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                let alerts = api
                    .iter()
                    .find_map(|a| get(*a, "/api/v1/alerts?state=all&limit=200"));
                for alert in alerts.iter().flat_map(|a| a["alerts"].as_array().unwrap()) {
                    let actor = alert["actor"].as_str().unwrap().to_owned();
                    seen.lock()
                        .unwrap()
                        .entry(actor)
                        .or_insert_with(Instant::now);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }));
        steady
    }

    /// Waits for the last alert; gives how many there were and the longest that one took.
    pub(super) fn finish(self, _: &Cluster) -> (usize, Duration) {
        let begin = Instant::now();
        let missing = || {
            let (sent, seen) = (self.sent.lock().unwrap(), self.seen.lock().unwrap());
            sent.keys().filter(|user| !seen.contains_key(*user)).count()
        };
        // What is sent from here on is not looked for.
        let all: Vec<String> = self.sent.lock().unwrap().keys().cloned().collect();
        while all
            .iter()
            .any(|user| !self.seen.lock().unwrap().contains_key(user))
        {
            assert!(
                begin.elapsed() < PATIENCE,
                "{} alerts are missing",
                missing()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        self.ended.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let (sent, seen) = (self.sent.lock().unwrap(), self.seen.lock().unwrap());
        let worst = all
            .iter()
            .map(|user| seen[user].duration_since(sent[user]))
            .max();
        (all.len(), worst.unwrap_or_default())
    }
}

fn record(user: &str, n: u64) -> String {
    format!(
        "{{\"Records\":[{{\"eventVersion\":\"1.08\",\"userIdentity\":{{\"type\":\"IAMUser\",\"arn\":\"arn:aws:iam::123456789012:user/{user}\",\"accountId\":\"123456789012\",\"userName\":\"{user}\"}},\"eventTime\":\"2026-03-02T10:{:02}:{:02}Z\",\"eventSource\":\"cloudtrail.amazonaws.com\",\"eventName\":\"StopLogging\",\"awsRegion\":\"us-east-1\",\"sourceIPAddress\":\"198.18.7.7\",\"eventID\":\"steady-{n}\",\"recipientAccountId\":\"123456789012\"}}]}}",
        n / 60 % 60,
        n % 60
    )
}
