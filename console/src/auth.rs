//! Who is asking: logins, sessions and tokens.
//!
//! [`Auth`] holds what the configuration says and the sessions that are open, in memory: a restart logs
//! everybody out. A session is a random 256-bit cookie of which only the SHA-256 is kept; it ends after an
//! idle time and in any case after an absolute one. Passwords are argon2id; an unknown name costs the same
//! time as a wrong password; failures are counted per address and per account. Tokens of programs are
//! compared in constant time. What a [`Principal`] may do is `guard`'s business, not this module's.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use event::Time;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::{AuthConfig, ConfigError, Mode, Role};

const MINUTE: i64 = 60_000_000;
/// More than people have browsers; the oldest session makes room.
const MAX_SESSIONS: usize = 10_000;
/// Addresses and accounts whose failures are remembered at once.
const MAX_FAILURES: usize = 50_000;
/// Longer passwords are refused unread: hashing is linear in them.
const MAX_PASSWORD: usize = 1_024;

/// How somebody proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not at all: the console is open to this machine.
    Open,
    /// By name and password.
    User,
    /// By a token.
    Token,
}

/// Somebody who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The name, as configured.
    pub name: String,
    /// How that was shown.
    pub kind: Kind,
    /// What they may do.
    pub role: Role,
    /// What a form of theirs must carry; empty for tokens, which no browser sends by itself.
    pub csrf: String,
}

/// Why a login was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Name or password is wrong.
    Wrong,
    /// Too many failures; come back after so many seconds.
    Limited(u64),
}

struct Session {
    name: String,
    role: Role,
    csrf: String,
    opened: Time,
    used: Time,
}

struct Failures {
    since: Time,
    count: u32,
}

/// The configured people and programs, and the open sessions.
pub(crate) struct Auth {
    mode: Mode,
    users: BTreeMap<String, (String, Role)>,
    tokens: Vec<(String, [u8; 32], Role)>,
    idle: i64,
    absolute: i64,
    allowed_failures: u32,
    secure: bool,
    /// The hash that unknown names are checked against, so that they take as long.
    decoy: String,
    /// The form token of an open console, where there are no sessions to bind it to.
    open_csrf: String,
    sessions: Mutex<HashMap<[u8; 32], Session>>,
    failures: Mutex<HashMap<String, Failures>>,
}

impl Auth {
    /// Reads the hashes. `secure`: is the listener behind TLS?
    pub(crate) fn new(config: &AuthConfig, secure: bool) -> Result<Auth, ConfigError> {
        let mut users = BTreeMap::new();
        for user in &config.users {
            users.insert(user.name.clone(), (user.hash()?, user.role));
        }
        let mut tokens = Vec::new();
        for token in &config.tokens {
            tokens.push((token.name.clone(), token.hash()?, token.role));
        }
        Ok(Auth {
            mode: config.mode,
            decoy: if users.is_empty() {
                String::new()
            } else {
                hash_password(&random())
            },
            users,
            tokens,
            idle: i64::from(config.idle_minutes) * MINUTE,
            absolute: i64::from(config.session_hours) * 60 * MINUTE,
            allowed_failures: config.failed_logins_per_minute,
            secure,
            open_csrf: random(),
            sessions: Mutex::default(),
            failures: Mutex::default(),
        })
    }

    /// Do people log in here?
    pub(crate) fn has_login(&self) -> bool {
        self.mode == Mode::Password
    }

    /// Whom a request's headers speak for. A wrong token is nobody, whatever else the request carries.
    pub(crate) fn principal(&self, headers: &HeaderMap, now: Time) -> Option<Principal> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            return self.token(value.to_str().ok()?.strip_prefix("Bearer ")?.trim());
        }
        match self.mode {
            Mode::Open => Some(Principal {
                name: "local".into(),
                kind: Kind::Open,
                role: Role::Analyst,
                csrf: self.open_csrf.clone(),
            }),
            Mode::Password => self.session(cookie(headers, self.cookie_name())?, now),
        }
    }

    fn token(&self, presented: &str) -> Option<Principal> {
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let mut found = None;
        for (name, expected, role) in &self.tokens {
            if bool::from(hash.ct_eq(expected)) {
                found = Some(Principal {
                    name: name.clone(),
                    kind: Kind::Token,
                    role: *role,
                    csrf: String::new(),
                });
            }
        }
        found
    }

    fn session(&self, cookie: &str, now: Time) -> Option<Principal> {
        let key: [u8; 32] = Sha256::digest(cookie.as_bytes()).into();
        let mut sessions = lock(&self.sessions);
        let session = sessions.get_mut(&key)?;
        if self.has_ended(session, now) {
            sessions.remove(&key);
            return None;
        }
        session.used = session.used.max(now);
        Some(Principal {
            name: session.name.clone(),
            kind: Kind::User,
            role: session.role,
            csrf: session.csrf.clone(),
        })
    }

    fn has_ended(&self, session: &Session, now: Time) -> bool {
        now.0 - session.used.0 >= self.idle || now.0 - session.opened.0 >= self.absolute
    }

    /// Checks name and password and opens a session: the value of the `Set-Cookie` header. Blocks for a while.
    pub(crate) fn login(
        &self,
        name: &str,
        password: &str,
        peer: Option<IpAddr>,
        now: Time,
    ) -> Result<String, Refused> {
        let peer = peer.map_or_else(String::new, network);
        let keys = [
            format!("from {peer}"),
            format!(
                "as {}",
                Sha256::digest(name)
                    .as_slice()
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect::<String>()
            ),
        ];
        // Counted before the check, so that guesses made at the same time count as well.
        self.count_failure(&keys, now)?;
        let (hash, role) = match self.users.get(name) {
            Some((hash, role)) => (hash, Some(*role)),
            None => (&self.decoy, None),
        };
        let right = password.len() <= MAX_PASSWORD
            && argon2::PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            });
        let Some(role) = role.filter(|_| right) else {
            return Err(Refused::Wrong);
        };
        let mut failures = lock(&self.failures);
        for key in &keys {
            failures.remove(key);
        }
        drop(failures);
        Ok(self.open_session(name, role, now))
    }

    fn open_session(&self, name: &str, role: Role, now: Time) -> String {
        let cookie = random();
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, s| !self.has_ended(s, now));
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(key, s)| (s.used, **key));
            if let Some(key) = oldest.map(|(key, _)| *key) {
                sessions.remove(&key);
            }
        }
        sessions.insert(
            Sha256::digest(cookie.as_bytes()).into(),
            Session {
                name: name.to_owned(),
                role,
                csrf: random(),
                opened: now,
                used: now,
            },
        );
        self.set_cookie(&cookie, self.absolute / 1_000_000)
    }

    /// Ends the session of a request; the value of the `Set-Cookie` header that forgets it.
    pub(crate) fn logout(&self, headers: &HeaderMap) -> String {
        if let Some(cookie) = cookie(headers, self.cookie_name()) {
            let key: [u8; 32] = Sha256::digest(cookie.as_bytes()).into();
            lock(&self.sessions).remove(&key);
        }
        self.set_cookie("", 0)
    }

    fn count_failure(&self, keys: &[String], now: Time) -> Result<(), Refused> {
        let mut failures = lock(&self.failures);
        if failures.len() + keys.len() > MAX_FAILURES {
            failures.retain(|_, f| now.0 - f.since.0 < MINUTE);
            if failures.len() + keys.len() > MAX_FAILURES {
                return Err(Refused::Limited(60));
            }
        }
        for key in keys {
            if let Some(f) = failures.get(key)
                && now.0 - f.since.0 < MINUTE
                && f.count >= self.allowed_failures
            {
                let left = (f.since.0 + MINUTE - now.0).max(0) as u64;
                return Err(Refused::Limited(left.div_ceil(1_000_000).max(1)));
            }
        }
        for key in keys {
            let f = failures.entry(key.clone()).or_insert(Failures {
                since: now,
                count: 0,
            });
            if now.0 - f.since.0 >= MINUTE {
                *f = Failures {
                    since: now,
                    count: 0,
                };
            }
            f.count += 1;
        }
        Ok(())
    }

    fn cookie_name(&self) -> &'static str {
        if self.secure {
            "__Host-trailwarden"
        } else {
            "trailwarden"
        }
    }

    fn set_cookie(&self, value: &str, seconds: i64) -> String {
        format!(
            "{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{}",
            self.cookie_name(),
            if self.secure { "; Secure" } else { "" }
        )
    }
}

/// The argon2id hash of a password in PHC form, as `password_hash` wants it.
pub fn hash_password(password: &str) -> String {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).expect("the operating system gives random bytes");
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .expect("the default parameters are valid")
        .to_string()
}

/// 256 random bits as text.
pub(crate) fn random() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// One customer of a provider: an IPv4 address, or the /64 of an IPv6 address.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let s = v6.segments();
            format!("{:x}:{:x}:{:x}:{:x}::/64", s[0], s[1], s[2], s[3])
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking thread leaves behind is whole: every change is one insert or remove.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Hidden, Token, User};

    const NOW: Time = Time(1_800_000_000_000_000);
    const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn auth() -> Auth {
        let user = |name: &str, role| User {
            name: name.into(),
            password_hash: Hidden(hash_password("correct horse")),
            password_hash_file: None,
            role,
        };
        let hash: String = Sha256::digest("token")
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let config = AuthConfig {
            mode: Mode::Password,
            users: vec![user("ada", Role::Analyst), user("vic", Role::Viewer)],
            tokens: vec![Token {
                name: "ci".into(),
                sha256: Hidden(hash),
                sha256_file: None,
                role: Role::Ingest,
            }],
            ..AuthConfig::default()
        };
        Auth::new(&config, true).unwrap()
    }

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    fn cookie_of(set: &str) -> HeaderMap {
        headers(header::COOKIE, set.split(';').next().unwrap())
    }

    #[test]
    fn a_session_ends_idle_and_in_any_case() {
        let auth = auth();
        let set = auth.login("ada", "correct horse", PEER, NOW).unwrap();
        for part in ["__Host-", "HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
            assert!(set.contains(part), "{set}");
        }
        let cookie = cookie_of(&set);
        let who = auth.principal(&cookie, NOW).unwrap();
        assert_eq!((who.name.as_str(), who.role), ("ada", Role::Analyst));
        // Used every 59 minutes it lives, but never longer than 12 hours.
        let mut now = NOW;
        while now.0 < NOW.0 + 11 * 60 * MINUTE {
            now = now.plus(59 * MINUTE);
            assert!(auth.principal(&cookie, now).is_some(), "{now}");
        }
        assert!(
            auth.principal(&cookie, NOW.plus(12 * 60 * MINUTE))
                .is_none()
        );
        let cookie = cookie_of(&auth.login("ada", "correct horse", PEER, NOW).unwrap());
        assert!(auth.principal(&cookie, NOW.plus(60 * MINUTE)).is_none());
    }

    #[test]
    fn logout_ends_it() {
        let auth = auth();
        let cookie = cookie_of(&auth.login("vic", "correct horse", PEER, NOW).unwrap());
        assert!(auth.logout(&cookie).contains("Max-Age=0"));
        assert!(auth.principal(&cookie, NOW).is_none());
    }

    #[test]
    fn guessing_is_slowed_down() {
        let auth = auth();
        for name in ["ada", "ada", "nobody", "ada", "root"] {
            assert_eq!(auth.login(name, "wrong", PEER, NOW), Err(Refused::Wrong));
        }
        let refused = auth.login("vic", "correct horse", PEER, NOW.plus(MINUTE / 2));
        assert_eq!(refused, Err(Refused::Limited(30)));
        assert!(
            auth.login("vic", "correct horse", PEER, NOW.plus(MINUTE))
                .is_ok()
        );
    }

    #[test]
    fn tokens_are_for_programs() {
        let auth = auth();
        let right = headers(header::AUTHORIZATION, "Bearer token");
        assert_eq!(auth.principal(&right, NOW).unwrap().role, Role::Ingest);
        for wrong in ["Bearer tokem", "Bearer ", "Basic token", "token"] {
            let wrong = headers(header::AUTHORIZATION, wrong);
            assert!(auth.principal(&wrong, NOW).is_none());
        }
        // A good session does not make up for a bad token.
        let set = auth.login("ada", "correct horse", PEER, NOW).unwrap();
        let mut both = cookie_of(&set);
        both.insert(header::AUTHORIZATION, "Bearer wrong".parse().unwrap());
        assert!(auth.principal(&both, NOW).is_none());
    }
}
