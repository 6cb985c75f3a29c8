//! The shipped set: how secrets look, and what they are called.
//!
//! There are two ways to tell a secret. Some have a look of their own, published by who issues them (`ghp_…`, `AKIA…:…`,
//! PEM): [`Pattern`]s find those in any text. Others are only told by their name (`password=…`, `"client_secret": "…"`):
//! patterns find these in plain text, and [`of_name`] says of the key of a JSON value what is behind it. Precision comes
//! first: a pattern has a check in code for what a regular expression cannot say, and true and false examples beside it.
//!
//! Ids of access keys (`AKIA…`, `ASIA…`) are no secrets and never replaced: they are what is searched for.
//! Every match of a pattern contains one of its anchors, and every telling name one of some pattern or of
//! [`NAME_ANCHORS`], so texts without any are not looked at further.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What was replaced; a closed set, the label of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A secret access key of AWS.
    AwsSecretKey,
    /// A session token of AWS.
    AwsSessionToken,
    /// A PEM private key.
    PrivateKey,
    /// A JSON Web Token.
    Jwt,
    /// What stands in an Authorization header.
    Authorization,
    /// Cookies.
    Cookie,
    /// A password in a URL, also of a database.
    UrlPassword,
    /// A password, by its name.
    Password,
    /// A token of GitHub.
    GithubToken,
    /// A token of GitLab.
    GitlabToken,
    /// A token or webhook of Slack.
    SlackToken,
    /// A key of Stripe.
    StripeKey,
    /// A key or token of Google.
    GoogleKey,
    /// A key for an API, by its name or by the look that its issuer gave it.
    ApiKey,
    /// The key in a connection string of Azure.
    ConnectionString,
    /// The signature of a URL that opens something for who has it.
    SignedUrl,
    /// A token, by its name.
    Token,
    /// A secret, by its name.
    Secret,
    /// A field that the configuration names.
    Field,
    /// A match of a pattern of the configuration.
    Custom,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 20] = [
        Kind::AwsSecretKey,
        Kind::AwsSessionToken,
        Kind::PrivateKey,
        Kind::Jwt,
        Kind::Authorization,
        Kind::Cookie,
        Kind::UrlPassword,
        Kind::Password,
        Kind::GithubToken,
        Kind::GitlabToken,
        Kind::SlackToken,
        Kind::StripeKey,
        Kind::GoogleKey,
        Kind::ApiKey,
        Kind::ConnectionString,
        Kind::SignedUrl,
        Kind::Token,
        Kind::Secret,
        Kind::Field,
        Kind::Custom,
    ];

    /// The word, in what replaces a secret, in the configuration and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::AwsSecretKey => "aws_secret_key",
            Kind::AwsSessionToken => "aws_session_token",
            Kind::PrivateKey => "private_key",
            Kind::Jwt => "jwt",
            Kind::Authorization => "authorization",
            Kind::Cookie => "cookie",
            Kind::UrlPassword => "url_password",
            Kind::Password => "password",
            Kind::GithubToken => "github_token",
            Kind::GitlabToken => "gitlab_token",
            Kind::SlackToken => "slack_token",
            Kind::StripeKey => "stripe_key",
            Kind::GoogleKey => "google_key",
            Kind::ApiKey => "api_key",
            Kind::ConnectionString => "connection_string",
            Kind::SignedUrl => "signed_url",
            Kind::Token => "token",
            Kind::Secret => "secret",
            Kind::Field => "field",
            Kind::Custom => "custom",
        }
    }
}

/// One look of a secret.
pub(super) struct Pattern {
    pub(super) kind: Kind,
    /// Every match contains one of these, in any case.
    pub(super) anchors: &'static [&'static str],
    /// The secret is the first group that took part, else all of the match.
    pub(super) regex: String,
    /// Is what was found a secret?
    pub(super) check: fn(&[u8]) -> bool,
}

/// Names of passwords and the like in texts, as alternatives of a regular expression.
const PASSWORDS: &str = "passw(?:or)?d|passphrase|passcode|pwd";
const TOKENS: &str =
    "(?:access|refresh|auth|api|bearer|bot|oauth|csrf|xsrf|personal|private)[_-]?token";
const SECRETS: &str = "(?:client|app|api|shared|signing|webhook|consumer|hmac)[_-]?secret(?:[_-]?key)?|secret[_-]?(?:key|string|value)|(?:signing|encryption)[_-]?key";
const SECRET_ANCHORS: &[&str] = &[
    "secret",
    "signingkey",
    "signing_key",
    "signing-key",
    "encryptionkey",
    "encryption_key",
    "encryption-key",
];
const API_KEYS: &str = "api[_-]?key|subscription[_-]?key";

/// Between a name and its value: quotes of the name, however often escaped, then a colon or an equals sign.
const IS: &str = r#"["'\\]*[ \t]{0,8}(?:=>|:=|[:=])[ \t]{0,8}"#;

/// The shipped set. Where two find the same, the earlier names the kind.
pub(super) fn shipped() -> Vec<Pattern> {
    let mut all = formats();
    let named = [
        (
            Kind::Password,
            &["passw", "passphrase", "passcode", "pwd"][..],
            PASSWORDS,
        ),
        (Kind::Token, &["token"], TOKENS),
        (Kind::Secret, SECRET_ANCHORS, SECRETS),
        (
            Kind::ApiKey,
            &[
                "apikey",
                "api_key",
                "api-key",
                "subscriptionkey",
                "subscription_key",
                "subscription-key",
            ],
            API_KEYS,
        ),
    ];
    for (kind, anchors, names) in named {
        let is_password = kind == Kind::Password;
        let mut add = |value: &str, check| {
            all.push(Pattern {
                kind,
                anchors,
                regex: format!("(?i)(?:{names}){IS}{value}"),
                check,
            });
        };
        // In quotes of its own, in quotes that are escaped once or more, in single quotes.
        let quoted = if is_password { is_value } else { is_token };
        add(r#""((?:[^"\\\r\n]|\\[^\r\n])+)"#, quoted);
        add(r#"\\+"([^"\\\r\n]+)"#, quoted);
        add(r"\\*'((?:[^'\\\r\n]|\\[^\r\n])+)", quoted);
        add(
            r#"([^\s"'\\,;&]+)"#,
            if is_password { is_mixed } else { is_token },
        );
        if is_password {
            // Behind an equals sign without a space there is a value, not prose.
            all.push(Pattern {
                kind,
                anchors,
                regex: format!(r#"(?i)(?:{names})["'\\]*=([^\s"'\\,;&]{{3,}})"#),
                check: is_value,
            });
        }
    }
    all.push(Pattern {
        kind: Kind::Password,
        anchors: &["--passw"],
        regex: r#"(?i)--passw(?:or)?d[ \t]+["']?([^\s"'\\-][^\s"'\\]{2,})"#.to_owned(),
        check: is_value,
    });
    all
}

/// What has a look of its own.
fn formats() -> Vec<Pattern> {
    let pattern =
        |kind, anchors: &'static [&'static str], check: fn(&[u8]) -> bool, regex: &str| Pattern {
            kind,
            anchors,
            regex: regex.to_owned(),
            check,
        };
    let any: fn(&[u8]) -> bool = |_| true;
    vec![
        pattern(
            Kind::PrivateKey,
            &["-----begin"],
            any,
            r"(?s)-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(.*?)-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----",
        ),
        // Cut before its end.
        pattern(
            Kind::PrivateKey,
            &["-----begin"],
            any,
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----((?:(?:\s|\\+[rn])*[A-Za-z0-9+/=]{16,})+)",
        ),
        pattern(
            Kind::AwsSecretKey,
            &["secret"],
            is_aws_key,
            r"(?i)secret(?:[ _.-]?access)?[ _.-]?key[^a-z0-9/+]{1,12}([a-z0-9/+]{40})(?:[^a-z0-9/+=]|\z)",
        ),
        pattern(
            Kind::AwsSecretKey,
            &["akia", "asia"],
            is_aws_key,
            r"\b(?:AKIA|ASIA)[A-Z0-9]{16}[^A-Za-z0-9/+]{1,40}(?:[A-Za-z_]{1,30}[^A-Za-z0-9/+]{1,12})?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)",
        ),
        pattern(
            Kind::AwsSessionToken,
            &["token"],
            any,
            r#"(?i)(?:session|security)[_-]?token["'\\]*[ \t]{0,8}(?:=>|[:=])[ \t]{0,8}["'\\]*([a-z0-9/+=%_-]{80,})"#,
        ),
        pattern(
            Kind::AwsSessionToken,
            &["iqojb3jpz2lu", "fwogzxivyxdz", "fqogzxivyxdz"],
            any,
            r"\b((?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz)[A-Za-z0-9/+=%]{60,})",
        ),
        pattern(
            Kind::Jwt,
            &["eyj"],
            any,
            r"\b(eyJ[A-Za-z0-9_-]{8,}(?:\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|(?:\.[A-Za-z0-9_-]*)(?:\.[A-Za-z0-9_-]{8,}){3}))",
        ),
        pattern(
            Kind::Authorization,
            &["authorization"],
            is_value,
            r#"(?i)authorization["'\\]*\s{0,4}[:=]\s{0,4}\[?["'\\]*(?:bearer|basic|token|apikey|bot|negotiate)\s+([^\s"'\\,;]{8,})"#,
        ),
        pattern(
            Kind::Authorization,
            &["authorization"],
            |found| is_token(found) && !found.starts_with(b"AWS4-"),
            r#"(?i)authorization["'\\]*\s{0,4}[:=]\s{0,4}\[?["'\\]*([a-z0-9._~+/=-]{16,})"#,
        ),
        pattern(
            Kind::Authorization,
            &["bearer"],
            |found| found.iter().any(u8::is_ascii_digit),
            r"(?i)\bbearer\s+([a-z0-9._~+/=-]{20,})",
        ),
        pattern(
            Kind::Authorization,
            &["basic ", "basic\t"],
            is_basic,
            r"(?i)\bbasic[ \t]+([a-z0-9+/]{6,}={0,2})",
        ),
        pattern(
            Kind::Cookie,
            &["cookie"],
            |found| found.contains(&b'='),
            r#"(?i)cookie["'\\]*\s{0,4}:\s{0,4}\[?["'\\]*([^\r\n"'\\]{8,})"#,
        ),
        pattern(
            Kind::UrlPassword,
            &["@"],
            is_value,
            r#"(?i)[a-z][a-z0-9+.-]{0,30}:\\*/\\*/[^\s/:@"'\\<>?#]*:([^\s/"'\\<>?#]+)@"#,
        ),
        pattern(
            Kind::GithubToken,
            &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
            any,
            r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
        ),
        pattern(
            Kind::GitlabToken,
            &[
                "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "gloas-",
                "glsoat-", "glagent-",
            ],
            any,
            r"\b((?:glpat|gldt|glrt|glcbt|glptt|glft|glimt|gloas|glsoat|glagent)-[A-Za-z0-9_.-]{20,})",
        ),
        pattern(
            Kind::SlackToken,
            &["xox", "xapp-"],
            |found| found.iter().any(u8::is_ascii_digit),
            r"\b(xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,})",
        ),
        pattern(
            Kind::SlackToken,
            &["hooks.slack.com"],
            any,
            r"(?i)hooks\.slack\.com\\*/(?:services|workflows|triggers)\\*/([A-Za-z0-9+/_\\-]{20,})",
        ),
        pattern(
            Kind::StripeKey,
            &[
                "sk_live_", "sk_test_", "rk_live_", "rk_test_", "sk_prod_", "rk_prod_", "whsec_",
            ],
            any,
            r"\b((?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,})",
        ),
        pattern(
            Kind::GoogleKey,
            &["aiza", "ya29.", "gocspx-"],
            any,
            r"\b(AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{28})",
        ),
        pattern(
            Kind::ApiKey,
            &[
                "sg.",
                "npm_",
                "pypi-age",
                "sk-proj-",
                "sk-ant-",
                "t3blbkfj",
                "dop_v1_",
                "hf_",
                "shpat_",
                "shpss_",
                "dckr_pat_",
                "hvs.",
                "age-secret-key-1",
            ],
            any,
            r"\b(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}|npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,}|sk-(?:proj|ant)-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|dop_v1_[a-f0-9]{64}|hf_[A-Za-z0-9]{34}|shp(?:at|ss)_[a-fA-F0-9]{32}|dckr_pat_[A-Za-z0-9_-]{27}|hvs\.[A-Za-z0-9_-]{24,}|AGE-SECRET-KEY-1[A-Z0-9]{58})",
        ),
        pattern(
            Kind::ConnectionString,
            &["accountkey", "sharedaccesskey"],
            any,
            r"(?i)(?:accountkey|sharedaccesskey)=([a-z0-9+/=]{20,})",
        ),
        pattern(
            Kind::SignedUrl,
            &["-signature="],
            any,
            r"(?i)x-(?:amz|goog)-signature=([0-9a-f]{32,})",
        ),
        pattern(
            Kind::SignedUrl,
            &["sig="],
            |found| found.contains(&b'%') || found.ends_with(b"="),
            r"(?i)[?&;]sig=([a-z0-9%+/=]{40,})",
        ),
    ]
}

/// Parts of names that [`of_name`] knows and no pattern has for an anchor.
pub(super) const NAME_ANCHORS: &[&str] = &["privatekey", "private_key", "private-key"];

/// What is behind the key of a JSON value, if that is called like a secret.
pub(super) fn of_name(key: &str) -> Option<Kind> {
    let name: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    let name = name.as_str();
    // The working directory, as environments have it.
    if matches!(key, "PWD" | "OLDPWD") {
        None
    } else if ends(&["password", "passwd", "passphrase", "passcode", "pwd"]) {
        Some(Kind::Password)
    } else if ends(&["secretaccesskey", "awssecretkey"]) {
        Some(Kind::AwsSecretKey)
    } else if ends(&["sessiontoken", "securitytoken"]) {
        Some(Kind::AwsSessionToken)
    } else if ends(&["authorization"]) {
        Some(Kind::Authorization)
    } else if matches!(name, "cookie" | "setcookie" | "cookies") {
        Some(Kind::Cookie)
    } else if ends(&[
        "accesstoken",
        "refreshtoken",
        "authtoken",
        "apitoken",
        "bearertoken",
        "bottoken",
        "oauthtoken",
        "csrftoken",
        "xsrftoken",
        "personaltoken",
        "privatetoken",
    ]) || matches!(name, "token" | "idtoken")
    {
        Some(Kind::Token)
    } else if ends(&[
        "clientsecret",
        "appsecret",
        "apisecret",
        "sharedsecret",
        "signingsecret",
        "webhooksecret",
        "consumersecret",
        "hmacsecret",
        "secretkey",
        "secretstring",
        "secretbinary",
        "secretvalue",
        "signingkey",
        "encryptionkey",
    ]) || name == "secret"
    {
        Some(Kind::Secret)
    } else if ends(&["apikey", "accountkey", "sharedaccesskey", "subscriptionkey"]) {
        Some(Kind::ApiKey)
    } else if ends(&["privatekey"]) {
        Some(Kind::PrivateKey)
    } else {
        None
    }
}

/// The part of a value under a telling name that is the secret, if any is.
pub(super) fn secret_in(kind: Kind, value: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = value.len() - value.trim_ascii_start().len();
    let whole = start..start + value.trim_ascii().len();
    let found = &value[whole.clone()];
    let taken = match kind {
        Kind::Password => is_value(found),
        Kind::Cookie => found.contains(&b'='),
        Kind::Authorization => {
            // The signature of a request to AWS is good for this request only, and names the access key.
            if found.starts_with(b"AWS4-") {
                return None;
            }
            return match found.iter().rposition(|b| b.is_ascii_whitespace()) {
                Some(at) if found.len() - at > 8 => Some(whole.start + at + 1..whole.end),
                None if found.len() >= 8 && is_token(found) => Some(whole),
                _ => None,
            };
        }
        Kind::PrivateKey | Kind::AwsSecretKey => found.len() >= 16 && is_value(found),
        Kind::AwsSessionToken => found.len() >= 16 && is_token(found),
        Kind::Token => found.len() >= 12 && is_token(found),
        // The answer of Secrets Manager may be a whole JSON of them.
        Kind::Secret if found.starts_with(b"{") => true,
        _ => is_token(found),
    };
    taken.then_some(whole)
}

/// Is this a value, and not a word for that there is none, a reference to it or something already hidden?
fn is_value(found: &[u8]) -> bool {
    const NONE: [&str; 17] = [
        "true",
        "false",
        "null",
        "none",
        "nil",
        "undefined",
        "n/a",
        "yes",
        "no",
        "redacted",
        "hidden",
        "masked",
        "omitted",
        "removed",
        "filtered",
        "string",
        "hidden_due_to_security_reasons",
    ];
    let is_sign = |b: &u8| b"[](){}<>.: ".contains(b);
    let core: Vec<u8> = match found.iter().position(|b| !is_sign(b)) {
        None => Vec::new(),
        Some(start) => {
            let end = found.iter().rposition(|b| !is_sign(b)).unwrap_or(start);
            found[start..=end].to_ascii_lowercase()
        }
    };
    let is_word = NONE.iter().any(|word| core == word.as_bytes());
    // `/var/task`, `$X`, `${X}`, `{{X}}`, `<x>`, `%X%`, `::x`, `arn:…`: where a secret is, not the secret.
    let is_reference = match found {
        [b'/', ..] => found[1..].contains(&b'/'),
        [b'$' | b'%', rest @ ..] => {
            let in_name =
                |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_%".contains(b);
            rest.first() == Some(&b'{') || rest.iter().all(in_name)
        }
        [b'{', b'{', ..] | [b':', ..] => true,
        [b'<', .., b'>'] => true,
        _ => found.starts_with(b"arn:aws") || found.starts_with(b"alias/"),
    };
    let is_mask = core.first().is_none_or(|first| {
        matches!(first, b'*' | b'x' | b'-' | b'_' | b'#') && core.iter().all(|b| b == first)
    });
    !is_word && !is_reference && !is_mask && core.len() >= 3
}

/// A value that prose does not have at such a place: with a digit or a sign in it.
fn is_mixed(found: &[u8]) -> bool {
    let is_sign = |b: &u8| b"!@#$%^*+=~?|".contains(b);
    found.len() >= 4
        && is_value(found)
        && (found.iter().any(u8::is_ascii_digit) || found[..found.len() - 1].iter().any(is_sign))
}

/// A value as machines make them: eight or more characters without spaces, with letters and digits.
fn is_token(found: &[u8]) -> bool {
    found.len() >= 8
        && is_value(found)
        && found.iter().any(u8::is_ascii_digit)
        && found.iter().any(u8::is_ascii_alphabetic)
        && !found.iter().any(u8::is_ascii_whitespace)
}

/// Forty characters of base64 that are no hexadecimal digest.
fn is_aws_key(found: &[u8]) -> bool {
    found.iter().any(u8::is_ascii_uppercase)
        && found.iter().any(u8::is_ascii_lowercase)
        && !found.iter().all(u8::is_ascii_hexdigit)
}

/// Base64 of `user:password`.
fn is_basic(found: &[u8]) -> bool {
    BASE64
        .decode(found)
        .is_ok_and(|plain| plain.contains(&b':') && plain.iter().all(|b| (b' '..0x7f).contains(b)))
}
