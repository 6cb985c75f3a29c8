//! What `doctor` looks at where the log is on Kafka: from the wire up, ending where the next question makes no sense.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bus::kafka::look::{Look, Partition, Progress, Trouble};
use bus::kafka::{Settings, topics};

use super::Verdict;

/// How long one broker has to take a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// How many things of a kind are named.
const NAMED: usize = 5;

/// All checks, as far as one builds on the other.
pub(super) fn checks(settings: &Settings) -> Vec<(&'static str, Verdict)> {
    let mut checks = Vec::new();
    let away: Vec<String> = settings
        .kafka
        .brokers
        .iter()
        .filter_map(|broker| Some(format!("{broker} ({})", connect(broker).err()?)))
        .collect();
    let of = settings.kafka.brokers.len();
    let none = away.len() == of;
    checks.push(("brokers", brokers(&away, of)));
    if none {
        return checks;
    }
    let look = match Look::begin(settings) {
        Ok(look) => look,
        Err(trouble) => {
            checks.push(("login", Err(refused(settings, &trouble))));
            return checks;
        }
    };
    checks.push(("login", Ok(login(settings))));
    let planned = topics::plan(settings);
    let missing = matches!(&planned, Ok(differences)
        if differences.iter().any(|d| matches!(d, topics::Difference::Missing(_))));
    checks.push(("topics", topic_verdict(settings, planned)));
    checks.push((
        "partitions",
        look.partitions()
            .map_err(|e| (e.to_string(), HINT_RIGHTS.to_owned()))
            .and_then(|all| partitions(&all)),
    ));
    if !missing {
        checks.push((
            "consumers",
            look.consumers()
                .map_err(|e| (e.to_string(), HINT_RIGHTS.to_owned()))
                .and_then(|all| consumers(&all)),
        ));
    }
    checks
}

const HINT_RIGHTS: &str =
    "look whether this user may describe topics and groups; docs/operating.md lists the rights";

fn connect(broker: &str) -> Result<(), String> {
    let addresses = broker.to_socket_addrs().map_err(|e| e.to_string())?;
    let mut last = "no such name".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

fn brokers(away: &[String], of: usize) -> Verdict {
    if away.is_empty() {
        return Ok(format!("{of} of {of} take connections"));
    }
    Err((
        format!(
            "{} of {of} take no connection: {}",
            away.len(),
            away.join(", ")
        ),
        "start the broker, or look at its name, its port and the firewall; one that is gone for good comes out of bus.kafka.brokers".into(),
    ))
}

fn login(settings: &Settings) -> String {
    let tls = if settings.kafka.tls.is_some() {
        "TLS"
    } else {
        "no TLS"
    };
    match &settings.kafka.sasl {
        None => format!("{tls}, no login"),
        Some(sasl) if sasl.username.is_empty() => format!("{tls}, by token"),
        Some(sasl) => format!("{tls}, as `{}`", sasl.username),
    }
}

fn refused(settings: &Settings, trouble: &Trouble) -> (String, String) {
    let hint = match trouble {
        Trouble::Login(_) => {
            "look at bus.kafka.sasl: user, password or token, and the mechanism that the brokers offer"
        }
        Trouble::Tls(_) => {
            "look at bus.kafka.tls: the authority in ca_file, whether the certificate names this address, and whether the brokers speak TLS on this port"
        }
        Trouble::Silent(_) if settings.kafka.tls.is_none() => {
            "connections are taken but not answered: does this port ask for bus.kafka.tls or bus.kafka.sasl, and can the names that the brokers advertise be resolved here?"
        }
        Trouble::Silent(_) => {
            "connections are taken but not answered: is this the port for TLS, and can the names that the brokers advertise be resolved here?"
        }
    };
    (trouble.to_string(), hint.to_owned())
}

fn topic_verdict(
    settings: &Settings,
    planned: Result<Vec<topics::Difference>, bus::BusError>,
) -> Verdict {
    let differences = planned.map_err(|e| (e.to_string(), HINT_RIGHTS.to_owned()))?;
    if differences.is_empty() {
        let count = topics::wanted(settings).len();
        return Ok(format!("{count} topics are as they should be"));
    }
    let hint = if differences.iter().all(topics::Difference::is_mendable) {
        "`trailwarden topics apply` mends it"
    } else {
        "`trailwarden topics plan` says of each what can be done"
    };
    Err((some(differences.iter()), hint.to_owned()))
}

fn partitions(all: &[Partition]) -> Verdict {
    let name = |p: &&Partition| format!("{}-{}", p.topic, p.partition);
    let headless: Vec<String> = all
        .iter()
        .filter(|p| !p.has_leader)
        .map(|p| name(&p))
        .collect();
    if !headless.is_empty() {
        return Err((
            format!(
                "{} partitions have no leader: {}",
                headless.len(),
                some(headless.iter())
            ),
            "bring back the brokers that have them; nothing is lost, work waits".into(),
        ));
    }
    let scarce: Vec<String> = all
        .iter()
        .filter(|p| p.in_sync < p.needed)
        .map(|p| format!("{} ({} of {})", name(&p), p.in_sync, p.copies))
        .collect();
    if !scarce.is_empty() {
        return Err((
            format!(
                "{} partitions take no writes, too few copies are in sync: {}",
                scarce.len(),
                some(scarce.iter())
            ),
            "bring back the brokers that have the other copies".into(),
        ));
    }
    let behind = all.iter().filter(|p| p.in_sync < p.copies).count();
    let note = match behind {
        0 => String::new(),
        n => format!("; {n} have a copy that is not in sync"),
    };
    Ok(format!(
        "{} have a leader and enough copies in sync{note}",
        all.len()
    ))
}

fn consumers(all: &[Progress]) -> Verdict {
    let words = |p: &Progress| format!("{} {} behind", p.group, p.behind);
    let list: Vec<String> = all.iter().map(words).collect();
    let idle: Vec<String> = all
        .iter()
        .filter_map(|p| {
            let idle = p.idle.as_ref().filter(|idle| !idle.is_empty())?;
            Some(format!("{} of {}: {}", p.topic, p.group, some(idle.iter())))
        })
        .chain(
            all.iter()
                .filter(|p| p.idle.is_none() && !p.untouched.is_empty())
                .map(|p| {
                    format!(
                        "{} of {}, never: {}",
                        p.topic,
                        p.group,
                        some(p.untouched.iter())
                    )
                }),
        )
        .collect();
    if idle.is_empty() {
        return Ok(list.join(", "));
    }
    Err((
        format!(
            "nobody works on partitions of {}; {}",
            idle.join("; "),
            list.join(", ")
        ),
        "start nodes with the roles detect and index; each needs search.node of its own where it indexes"
            .into(),
    ))
}

/// The first of many, and how many more there are.
fn some<T: ToString>(all: impl ExactSizeIterator<Item = T>) -> String {
    let more = all.len().saturating_sub(NAMED);
    let named: Vec<String> = all.take(NAMED).map(|one| one.to_string()).collect();
    let named = named.join(", ");
    match more {
        0 => named,
        n => format!("{named} and {n} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, has_leader: bool, in_sync: usize) -> Partition {
        Partition {
            topic: "t.events".into(),
            partition: number,
            has_leader,
            copies: 3,
            in_sync,
            needed: 2,
        }
    }

    #[test]
    fn partitions_without_leader_or_copies_are_named() {
        let check = |all: &[Partition], expected: &str| match partitions(all) {
            Ok(words) | Err((words, _)) => assert_eq!(words, expected),
        };
        check(
            &[partition(0, true, 3), partition(1, true, 2)],
            "2 have a leader and enough copies in sync; 1 have a copy that is not in sync",
        );
        check(
            &[partition(0, true, 1)],
            "1 partitions take no writes, too few copies are in sync: t.events-0 (1 of 3)",
        );
        let many: Vec<Partition> = (0..7).map(|n| partition(n, false, 0)).collect();
        check(
            &many,
            "7 partitions have no leader: t.events-0, t.events-1, t.events-2, t.events-3, t.events-4 and 2 more",
        );
    }

    #[test]
    fn who_does_not_work_is_named() {
        let progress = |idle: Option<Vec<u32>>, untouched: Vec<u32>| Progress {
            group: "t.match".into(),
            topic: "t.events".into(),
            behind: 7,
            idle,
            untouched,
        };
        assert_eq!(
            consumers(&[progress(Some(vec![]), vec![1])]),
            Ok("t.match 7 behind".into())
        );
        for (idle, untouched, expected) in [
            (
                Some(vec![2, 3]),
                vec![],
                "nobody works on partitions of t.events of t.match: 2, 3; t.match 7 behind",
            ),
            (
                None,
                vec![1],
                "nobody works on partitions of t.events of t.match, never: 1; t.match 7 behind",
            ),
        ] {
            let (words, _) = consumers(&[progress(idle, untouched)]).unwrap_err();
            assert_eq!(words, expected);
        }
    }
}
