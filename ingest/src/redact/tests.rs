use std::ops::ControlFlow;

use event::Flag;
use proptest::prelude::*;

use super::*;
use crate::config::{MinimisedField, OwnPattern};
use crate::decode::{Decoder, Item, Job, Limits};
use crate::normalize::{Context, Normalizer};

/// Put together here, so that nobody's scanner takes this file for a leak.
const AKIA: &str = concat!("AKIA", "IOSFODNN7EXAMPLE");
const AWS_SECRET: &str = concat!("wJalrXUtnFEMI/K7MDENG/", "bPxRfiCYEXAMPLEKEY");
const JWT: &str = concat!(
    "eyJhbGciOiJIUzI1NiJ9.",
    "eyJzdWIiOiIxMjM0NTY3ODkwIn0.",
    "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
);
const GITHUB: &str = concat!("gh", "p_", "16C7e42F292c6912E7710c838347Ae178B4a");
const PEM: &str = concat!(
    "-----BEGIN RSA ",
    "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9Oi\nZ1BjP5CE/Wm/Rr500P\n-----END RSA ",
    "PRIVATE KEY-----"
);

fn redactor(config: &Redaction) -> Redactor {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    Redactor::new(config, Key::new(b"a key for tests"), &metrics).unwrap()
}

fn shipped() -> &'static Redactor {
    static SHIPPED: std::sync::LazyLock<Redactor> =
        std::sync::LazyLock::new(|| redactor(&Redaction::default()));
    &SHIPPED
}

/// The text with what is secret replaced, as from a function's log.
fn redacted(redactor: &Redactor, text: &str) -> String {
    let json = strings::is_json(text.as_bytes());
    match redactor.record("aws.lambda", text.as_bytes(), json) {
        None => text.to_owned(),
        Some(new) => {
            if json {
                assert!(strings::is_json(&new), "{text}");
            }
            String::from_utf8(new).unwrap()
        }
    }
}

/// In the text exactly `secret` is replaced, as this kind.
fn check(kind: &str, text: &str, secret: &str) {
    let redactor = shipped();
    let fingerprint = Key::new(b"a key for tests").fingerprint(secret.as_bytes());
    let expected = text.replace(secret, &format!("[redacted:{kind}:{fingerprint}]"));
    let new = redacted(redactor, text);
    assert_eq!(new, expected, "{text}");
    assert_eq!(redacted(redactor, &new), new, "not idempotent: {text}");
}

#[test]
fn secrets_in_plain_text() {
    for (kind, text, secret) in [
        ("aws_secret_key", "aws_secret_access_key = {}", AWS_SECRET),
        (
            "aws_secret_key",
            "AWS_SECRET_ACCESS_KEY={} AWS_REGION=eu-west-1",
            AWS_SECRET,
        ),
        ("aws_secret_key", "secretAccessKey: '{}',", AWS_SECRET),
        ("aws_secret_key", &format!("{AKIA},{{}}"), AWS_SECRET),
        (
            "aws_secret_key",
            &format!("key {AKIA} secret {{}} ok"),
            AWS_SECRET,
        ),
        ("jwt", "user token {} accepted", JWT),
        (
            "authorization",
            "GET / Authorization: Bearer {}",
            "0123456789abcdefghijk",
        ),
        (
            "authorization",
            "authorization: Basic {}",
            "dXNlcjpodW50ZXIy",
        ),
        ("authorization", "sent Basic {} to it", "dXNlcjpodW50ZXIy"),
        ("cookie", "Cookie: {}", "session=8d7f0a; theme=dark"),
        (
            "url_password",
            "connect postgres://app:{}@db.local:5432/x",
            "s3cr3t!",
        ),
        ("url_password", "amqps://u:{}@mq", "p@ss"),
        ("password", "password={}", "hunter2"),
        ("password", "login failed, password: {} for bob", "hunter2"),
        ("password", "DB_PASSWORD={}", "correcthorse"),
        (
            "password",
            "Server=x;Uid=sa;Pwd={};Encrypt=true",
            "letmein9",
        ),
        (
            "password",
            "{'user': 'bob', 'password': '{}'}",
            "correct horse, battery",
        ),
        ("password", "mysql -u root --password {}", "hunter2"),
        ("password", r#"body {\"password\":\"{}\"}"#, "hunter2"),
        ("github_token", "git clone with {}", GITHUB),
        (
            "gitlab_token",
            "token {} used",
            concat!("glpat", "-Zs8xYq2Wk4Lm6Np9RtVb"),
        ),
        (
            "slack_token",
            "slack {}",
            concat!("xox", "b-123456789012-abcdefABCDEF"),
        ),
        (
            "stripe_key",
            "using {}",
            concat!("sk_", "live_4eC39HqLyjWDarjtT1zdp7dc"),
        ),
        (
            "google_key",
            "key={}",
            concat!("AIza", "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY"),
        ),
        (
            "api_key",
            "sendgrid {}",
            concat!(
                "SG",
                ".ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr"
            ),
        ),
        ("api_key", "X-Api-Key: {}", "da2gh5x7kq9w3e5r7t"),
        (
            "connection_string",
            "AccountName=x;AccountKey={};EndpointSuffix=y",
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6",
        ),
        ("secret", "client_secret: \"{}\"", "8Q~abcdef012345"),
        ("token", "refresh_token={}&x=1", "1//0gabcdef012345"),
        (
            "signed_url",
            "GET /x?X-Amz-Signature={}&y=1",
            "fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024",
        ),
    ] {
        check(kind, &text.replace("{}", secret), secret);
    }
    let body = &PEM[31..PEM.len() - 29];
    check("private_key", &format!("loaded {PEM} from disk"), body);
    check("private_key", &PEM[..90], &PEM[31..90]);
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        AKIA,
        "user key AKIAIOSFODNN7EXAMPLE was used by ASIAIOSFODNN7EXAMPLE",
        "invalid password: user not found",
        "Password: must be at least eight characters",
        "the token: expired",
        "password reset for bob, passwordLastUsed=2026-01-01",
        "PWD=/var/task OLDPWD=/var/runtime",
        "basic understanding of bearer authentication-and-authorization",
        "https://example.com:8080/path?mail=a@b.example",
        "see https://example.com/@scope/package",
        "nextToken=AAAAKgAAAAEAAAAAAAAAAA continuation",
        "clientRequestToken: 5d4e7f2b-8f9b-4d4c-9a7e",
        "secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-west-1:1:secret:db-AbCdEf",
        "def load(self, certfile, password=None): hash_password::<Sha256>(x)",
        "password=${DB_PASSWORD} password=*** password=null password=<hidden>",
        "commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
        "START RequestId: 8f5b1c1e-1b0e-4d2c-9a7e-0123456789ab Version: $LATEST",
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260302/us-east-1/s3/aws4_request",
        r#"{"password":"","token_type":"bearer","max_tokens":4096,"hasPassword":true}"#,
        r#"{"secretId":"prod/db","passwordPolicy":"strict","accessKeyId":"AKIAIOSFODNN7EXAMPLE"}"#,
        r#"{"secret":"arn:aws:secretsmanager:eu-west-1:1:secret:db","token":"short"}"#,
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    ] {
        assert_eq!(redacted(shipped(), text), text);
    }
}

#[test]
fn secrets_in_json() {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let nested = format!("{{\"password\":{}}}", quote("p\"w\\x"));
    for (kind, text, secret) in [
        (
            "password",
            r#"{"a":1,"password":"hunter two, \\o/","b":"x"}"#,
            r"hunter two, \o/",
        ),
        ("password", r#"{"password":["first one","x"]}"#, "first one"),
        (
            "password",
            r#"{"name":"DB_PASSWORD","value":"hunter2"}"#,
            "hunter2",
        ),
        (
            "password",
            r#"{"a":"x","p\u0061ssword":"hunter2"}"#,
            "hunter2",
        ),
        (
            "password",
            r#"{"password":"first","password":"second"}"#,
            "second",
        ),
        (
            "authorization",
            r#"{"headers":{"Authorization":"Bearer abcdefgh12"}}"#,
            "abcdefgh12",
        ),
        (
            "authorization",
            r#"{"authorization":["Bearer abcdefgh12"]}"#,
            "abcdefgh12",
        ),
        (
            "secret",
            r#"{"SecretString":"{\"user\":\"bob\",\"pin\":\"1\"}"}"#,
            r#"{"user":"bob","pin":"1"}"#,
        ),
        (
            "github_token",
            &format!(r#"{{"a":{{"{GITHUB}":1}}}}"#),
            GITHUB,
        ),
        ("jwt", &format!("{{\"m\":\"2026 \\\"x\\\" {JWT}\"}}"), JWT),
        (
            "password",
            &format!("{{\"m\":{}}}", quote(&nested)),
            "p\"w\\x",
        ),
        (
            "password",
            &format!("{{\"m\":{}}}", quote(&format!("got {nested} ok"))),
            "p\"w\\x",
        ),
        (
            "password",
            &format!("{{\"m\":{}}}", quote(&quote(&nested))),
            "p\"w\\x",
        ),
    ] {
        let redactor = shipped();
        let new = redacted(redactor, text);
        let fingerprint = Key::new(b"a key for tests").fingerprint(secret.as_bytes());
        let marker = format!("[redacted:{kind}:{fingerprint}]");
        assert!(new.contains(&marker), "{marker} is not in {new}");
        assert_eq!(redacted(redactor, &new), new);
    }
    let text = r#"{"n": 1.0e1 ,"password":123456,"u":"\u00e4\ud83d"}"#;
    let new = redacted(shipped(), text);
    assert!(new.starts_with(r#"{"n": 1.0e1 ,"password":"[redacted:password:"#));
    assert!(new.ends_with(r#"]","u":"\u00e4\ud83d"}"#), "{new}");
}

#[test]
fn the_same_secret_has_one_fingerprint() {
    let redactor = shipped();
    let of = |text: &str| {
        let new = redacted(redactor, text);
        let end = new.rfind(']').unwrap();
        new[end - 16..end].to_owned()
    };
    let first = of("password=hunter2");
    for text in [
        "db_password: 'hunter2'",
        r#"{"x":{"masterUserPassword":"hunter2"}}"#,
        "redis://u:hunter2@cache",
    ] {
        assert_eq!(of(text), first, "{text}");
    }
}

#[test]
fn sources_kinds_and_patterns_follow_the_configuration() {
    let text = "password=hunter2 card 4111111111111111";
    let excepted = shipped().record("aws.cloudtrail", text.as_bytes(), false);
    assert_eq!(excepted, None);
    assert_eq!(
        Redactor::off().record("aws.lambda", text.as_bytes(), false),
        None
    );
    let config = Redaction {
        except_kinds: vec!["password".to_owned()],
        patterns: vec![OwnPattern {
            name: "card".to_owned(),
            pattern: r"card (?P<secret>\d{16})".to_owned(),
        }],
        ..Redaction::default()
    };
    let new = redacted(&redactor(&config), text);
    assert!(
        new.starts_with("password=hunter2 card [redacted:card:"),
        "{new}"
    );
    let new = redacted(&redactor(&config), r#"{"password":"hunter2"}"#);
    assert_eq!(new, r#"{"password":"hunter2"}"#);
}

#[test]
fn fields_are_minimised() {
    let field = |path: &str, action| MinimisedField {
        source: "aws.cloudtrail".to_owned(),
        path: path.to_owned(),
        action,
    };
    let config = Redaction {
        fields: vec![
            field("requestParameters.items.mail", FieldAction::Drop),
            field("requestParameters.user", FieldAction::Fingerprint),
        ],
        ..Redaction::default()
    };
    let redactor = &redactor(&config);
    let text = r#"{"password":"stays","requestParameters":{"user":{"a":[1,"}"]},"items":[{"mail":"a@b","x":1},{"mail":null}],"mail":"stays"}}"#;
    let new = redactor
        .record("aws.cloudtrail", text.as_bytes(), true)
        .unwrap();
    let new = String::from_utf8(new).unwrap();
    let marker = String::from_utf8(redactor.marker(Kind::Field, br#"{"a":[1,"}"]}"#)).unwrap();
    assert_eq!(
        new,
        format!(
            r#"{{"password":"stays","requestParameters":{{"user":"{marker}","items":[{{"mail":"[dropped]","x":1}},{{"mail":"[dropped]"}}],"mail":"stays"}}}}"#
        )
    );
    assert_eq!(
        redactor.record("aws.cloudtrail", new.as_bytes(), true),
        None
    );
    assert_eq!(
        redactor.record("aws.lambda", b"{\"requestParameters\":{\"user\":1}}", true),
        None
    );
}

/// Patterns that hit what ids and times are made of change neither.
#[test]
fn ids_and_times_are_those_of_the_record() {
    let own = |name: &str, pattern: &str| OwnPattern {
        name: name.to_owned(),
        pattern: pattern.to_owned(),
    };
    let config = Redaction {
        except_sources: Vec::new(),
        patterns: vec![
            own("account", r"\d{12}"),
            own("day", "2026-03-02"),
            own("event", "evt"),
        ],
        ..Redaction::default()
    };
    let redactor = &redactor(&config);
    let text = br#"{"eventVersion":"1.08","eventSource":"iam.amazonaws.com","eventName":"CreateUser","eventTime":"2026-03-02T10:00:00Z","eventID":"evt-1","recipientAccountId":"123456789012","requestParameters":{"userName":"eve","password":"hunter2"}}"#;
    let context = Context {
        ingest_time: event::Time::from_seconds(1_800_000_000),
        object: "o".into(),
        keep_raw: true,
    };
    let mut normalizer = Normalizer::new();
    let mut events = Vec::new();
    Decoder::new(Limits::of_bodies()).bytes(text, &Job::default(), &mut |item| {
        if let Item::Record(record) = item {
            events.push(normalizer.event(&record, &context));
            events.push(normalizer.redacted_event(&record, &context, redactor));
            events.push(normalizer.redacted_event(&record, &context, redactor));
        }
        ControlFlow::Continue(())
    });
    let [plain, first, second] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(first, second);
    assert_eq!((first.id, first.time), (plain.id, plain.time));
    assert_eq!(first.content_hash(), second.content_hash());
    assert!(first.flags.has(Flag::Redacted) && !plain.flags.has(Flag::Redacted));
    assert!(
        first.account.starts_with("[redacted:account:"),
        "{}",
        first.account
    );
    let encoded = String::from_utf8(first.encode()).unwrap();
    for secret in ["123456789012", "hunter2", "evt-1"] {
        assert!(!encoded.contains(secret), "{encoded}");
    }
    let opened = Key::new(b"a key for tests").open(&first.original).unwrap();
    assert_eq!(opened, text);
    assert_eq!(
        event::Event::decode(&first.encode().into()).unwrap(),
        *first
    );
}

#[test]
fn originals_follow_the_configuration() {
    let of = |original| {
        let config = Redaction {
            original,
            ..Redaction::default()
        };
        redactor(&config).original(b"password=hunter2")
    };
    assert_eq!(of(Original::Drop), "");
    assert!(of(Original::Seal).starts_with("sealed:"));
    let key = Key::new(b"any");
    assert_eq!(key.open(&of(Original::Keep)).unwrap(), b"password=hunter2");
}

#[test]
fn bad_settings_have_places() {
    let own = |name: &str, pattern: &str| OwnPattern {
        name: name.to_owned(),
        pattern: pattern.to_owned(),
    };
    let config = Redaction {
        except_kinds: vec!["passwort".to_owned()],
        patterns: vec![own("ok", "x+"), own("Bad", "(x"), own("empty", "x*")],
        fields: vec![MinimisedField {
            source: "x".to_owned(),
            path: "a..b".to_owned(),
            action: FieldAction::Drop,
        }],
        ..Redaction::default()
    };
    let errors: Vec<String> = super::check(&config)
        .iter()
        .map(|e| e.to_string())
        .collect();
    let places: Vec<&str> = errors.iter().filter_map(|e| e.split(": ").next()).collect();
    assert_eq!(
        places,
        [
            "except_kinds",
            "patterns[1].name",
            "patterns[1].pattern",
            "patterns[2].pattern",
            "fields[0].path"
        ]
    );
    assert!(errors[2].ends_with("unclosed group"), "{errors:?}");
}

#[test]
fn dead_letters_hold_no_secret() {
    let redactor = shipped();
    let letter = |reason, bytes: &[u8], size| {
        let bad = crate::decode::Bad {
            reason,
            message: "x",
            bytes,
            size,
            offset: 0,
            position: 0,
        };
        let mut letter = DeadLetter::of(&bad, "o", event::Time::from_seconds(1));
        redactor.letter(&mut letter);
        letter
    };
    let whole = letter(Reason::BadJson, b"{\"password\":\"hunter2\"", 21);
    assert!(!whole.bytes.contains("hunter2"), "{}", whole.bytes);
    assert_eq!(whole.size, whole.content().len() as u64);
    let cut = letter(Reason::RecordTooLarge, b"{\"password\":\"hunter2", 1_000);
    assert!(!cut.bytes.contains("hunter2"), "{}", cut.bytes);
    assert_eq!(cut.size - cut.content().len() as u64, 980);
    let odd = letter(Reason::BadJson, b"\xff password=hunter2", 18);
    assert!(odd.base64 && odd.content().starts_with(b"\xff password=[redacted:"));
    for (reason, bytes) in [
        (Reason::CorruptGzip, &b"anything"[..]),
        (Reason::BadBase64, b"\"aHVudGVyMg==\""),
        (Reason::BadJson, b"{\"data\":\"H4sIAAAAAAAA/8soKU"),
    ] {
        let opaque = letter(reason, bytes, 9);
        assert_eq!((opaque.bytes.as_str(), opaque.size), ("", 9));
    }
}

#[test]
fn hostile_texts_take_linear_time() {
    let redactor = shipped();
    for part in [
        "password=",
        "{\"",
        "\\\"",
        "[[[[",
        "eyJ",
        "://a:",
        "-----BEGIN PRIVATE KEY-----",
        "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
        "\"{\\\"a\\\":",
        "[redacted:password:0123456789abcdef]",
        "Authorization: ",
        "cookie: a=",
        "'\"",
        "password='\\",
    ] {
        let text = part.repeat(100_000 / part.len());
        let new = redactor.text(text.as_bytes(), 0);
        let again = redactor.inner(text.as_bytes(), 0);
        assert_eq!(new.is_some(), again.is_some());
    }
}

/// Secrets with no byte sequence that stands in the documents around them.
fn secret() -> impl Strategy<Value = (&'static str, String)> {
    prop_oneof![
        "[a-zA-Z0-9]{8,20}[0-9][!@#$^*+~][a-z]{4}".prop_map(|s| ("password", s)),
        "[a-zA-Z0-9]{36}".prop_map(|s| ("bare", format!("gh{}_{s}", 'p'))),
        Just(("bare", JWT.to_owned())),
        Just(("bare", PEM.replace('\n', " "))),
        "[A-Z][a-z][0-9/+]{3}[A-Za-z0-9]{35}".prop_map(|s| ("secretAccessKey", s)),
        "[a-zA-Z]{10,20}[0-9]{3}".prop_map(|s| ("client_secret", s)),
    ]
}

fn planted(secret: &(&str, String), form: u8) -> serde_json::Value {
    let (name, value) = secret;
    let pair = match *name {
        "bare" => serde_json::json!({ "note": format!("using {value} now") }),
        name => serde_json::json!({ name: value }),
    };
    match form % 6 {
        0 => pair,
        1 => serde_json::json!({ "m": pair.to_string() }),
        2 => serde_json::json!({ "m": serde_json::Value::from(pair.to_string()).to_string() }),
        3 => serde_json::json!({ "m": format!("2026-01-01 INFO {pair} done") }),
        4 if *name != "bare" => serde_json::json!([{ "name": name, "value": value }]),
        _ if *name == "bare" => format!("seen {value} here").into(),
        _ => format!("seen {name}={value} here").into(),
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i32>().prop_map(Into::into),
        "[a-zA-Z \"\\\\/äß\n]{0,30}".prop_map(Into::into)
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("[a-k]{1,6}", inner, 0..6)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect()))
        ]
    })
}

proptest! {
    #[test]
    fn no_planted_secret_is_left(around in json(), planted_in in prop::collection::vec((secret(), 0_u8..6), 1..4), as_text in any::<bool>()) {
        let mut document = serde_json::json!({ "around": around });
        for (n, (secret, form)) in planted_in.iter().enumerate() {
            document[format!("at{n}")] = planted(secret, *form);
        }
        let text = match as_text {
            true => format!("2026-01-01T00:00:00Z INFO {document}"),
            false => document.to_string(),
        };
        let redactor = shipped();
        let new = redacted(redactor, &text);
        for ((_, value), _) in &planted_in {
            // The first and last line of a private key stay.
            for word in value.split(' ').filter(|w| !w.contains("-----")) {
                for part in word.as_bytes().windows(8) {
                    let part = std::str::from_utf8(part).unwrap();
                    prop_assert!(!new.contains(part), "`{part}` of {value} is left in {new}");
                }
            }
        }
        prop_assert_eq!(redacted(redactor, &new), new.clone());
        if !as_text {
            let new: serde_json::Value = serde_json::from_str(&new).unwrap();
            prop_assert_eq!(&new["around"], &document["around"]);
        }
    }

    #[test]
    fn anything_is_taken_and_json_stays_json(text in prop::collection::vec(prop_oneof![any::<u8>(), 32_u8..127], 0..200), words in prop::collection::vec(0_usize..14, 0..12)) {
        const WORDS: [&str; 14] = ["password", "\"", ":", "\\", "{", "}", "=", "token", "eyJ", "://u:p@", "secret", "\\u0070", "password=", "\"password\":\""];
        let mut text = text;
        for (n, word) in words.iter().enumerate() {
            let at = (n * 37) % (text.len() + 1);
            text.splice(at..at, WORDS[*word].bytes());
        }
        let redactor = shipped();
        if let Some(new) = redactor.record("aws.lambda", &text, false) {
            let again = redactor.record("aws.lambda", &new, false);
            prop_assert_eq!(again, None, "{}", String::from_utf8_lossy(&new));
        }
        if strings::is_json(&text) && let Some(new) = redactor.record("aws.lambda", &text, true) {
            prop_assert!(strings::is_json(&new));
        }
    }

    #[test]
    fn clean_texts_stay(document in json()) {
        let text = document.to_string();
        prop_assert_eq!(redacted(shipped(), &text), text);
    }
}
