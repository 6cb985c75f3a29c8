//! Secrets in records are replaced before anything else sees them.
//!
//! [`Redactor`] is made once of the configuration and its [`Key`]. The appender, through which every source passes,
//! asks it for every record and every dead letter, so that the envelope, `raw`, the index, alerts and notifications
//! only ever hold the replaced text. A secret becomes `[redacted:<kind>:<fingerprint>]`: plain ASCII without quotes, so
//! that JSON stays JSON, and the same for the same secret everywhere, so that it can be searched and correlated. What
//! is a secret is said by [`pattern`]; how JSON is gone through by [`strings`]; fingerprints and sealed originals are
//! made by [`key`]. Redacting again what was redacted changes nothing.
//!
//! It does not touch events of sources that are excepted (CloudTrail hides its own secrets, and its digests vouch for
//! the bytes), nor names of files and log groups, and it knows no secret that neither has a known look nor a telling
//! name. `hunt`, `rule test` and `backtest` over folders do not redact: they keep nothing.

mod key;
mod pattern;
mod strings;
#[cfg(test)]
mod tests;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use event::Str;
use prometheus::IntCounter;
use regex::bytes::{Regex, RegexBuilder};

use crate::config::{FieldAction, Original, Redaction};
use crate::dead_letter::DeadLetter;
use crate::decode::{GZIP, Reason};
use crate::metrics::Metrics;

pub use key::{KEY_FILE, Key, KeyError, OpenError};
pub use pattern::Kind;

/// At most so many patterns of one's own.
const MAX_OWN: usize = 64;

/// Longer originals are not kept beside the replaced record: both must fit into one record of the log.
const MAX_ORIGINAL: usize = 4 << 20;

/// What is replaced may leave a place where another secret begins; so often it is looked again.
const ROUNDS: usize = 4;

/// What takes the place of a field that is dropped.
const DROPPED: &[u8] = b"[dropped]";

/// A setting with which nothing can be redacted. `Display` begins with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {words}")]
pub struct RedactionError {
    /// Which setting, as it stands in the file below `ingest.redaction`.
    pub place: String,
    /// What is wrong with it.
    pub words: String,
}

/// Replaces secrets.
pub struct Redactor {
    config: Redaction,
    /// `None`: nothing is replaced.
    key: Option<Key>,
    patterns: Vec<Compiled>,
    anchors: AhoCorasick,
    /// For every anchor the patterns that need it, one bit each.
    needed_by: Vec<u128>,
    /// The patterns that have no anchor.
    always: u128,
    marker: Regex,
    counts: Vec<IntCounter>,
}

struct Compiled {
    kind: Kind,
    /// What stands in the replacement.
    word: String,
    regex: Regex,
    check: fn(&[u8]) -> bool,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Everything in the configuration with which nothing can be redacted.
pub fn check(config: &Redaction) -> Vec<RedactionError> {
    let mut errors = Vec::new();
    let mut bad = |place: String, words: String| errors.push(RedactionError { place, words });
    let of_config = [Kind::Field, Kind::Custom];
    let shipped = Kind::ALL.iter().filter(|k| !of_config.contains(k));
    let known: Vec<&str> = shipped.map(|k| k.as_str()).collect();
    for kind in &config.except_kinds {
        if !known.contains(&kind.as_str()) {
            bad(
                "except_kinds".to_owned(),
                format!("`{kind}` is none of {}", known.join(", ")),
            );
        }
    }
    if config.patterns.len() > MAX_OWN {
        bad(
            "patterns".to_owned(),
            format!("more than {MAX_OWN} patterns"),
        );
    }
    for (n, own) in config.patterns.iter().enumerate() {
        let in_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !(1..=32).contains(&own.name.len()) || !own.name.bytes().all(in_word) {
            bad(
                format!("patterns[{n}].name"),
                format!(
                    "`{}` is not 1 to 32 lower-case letters, digits and `_`",
                    own.name
                ),
            );
        }
        match compiled(&own.pattern, true) {
            Err(error) => bad(format!("patterns[{n}].pattern"), error),
            Ok(regex) if regex.is_match(b"") => bad(
                format!("patterns[{n}].pattern"),
                "it matches the empty text".to_owned(),
            ),
            Ok(_) => {}
        }
    }
    for (n, field) in config.fields.iter().enumerate() {
        if field.source.is_empty() {
            bad(format!("fields[{n}].source"), "it is empty".to_owned());
        }
        if field.path.split('.').any(str::is_empty) {
            bad(
                format!("fields[{n}].path"),
                format!("`{}` is no path such as `user.email`", field.path),
            );
        }
    }
    errors
}

fn compiled(pattern: &str, unicode: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .unicode(unicode)
        .size_limit(4 << 20)
        .build()
        .map_err(|error| {
            // The last line says what is wrong, those before show the pattern again.
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        })
}

impl Redactor {
    /// The redactor of a configuration.
    pub fn new(
        config: &Redaction,
        key: Key,
        metrics: &Metrics,
    ) -> Result<Redactor, Vec<RedactionError>> {
        let errors = check(config);
        if !errors.is_empty() {
            return Err(errors);
        }
        let count = |kind: &Kind| metrics.redacted.with_label_values(&[kind.as_str()]);
        let counts = Kind::ALL.iter().map(count).collect();
        Ok(Redactor::build(
            config.clone(),
            config.enabled.then_some(key),
            counts,
        ))
    }

    /// A redactor that replaces nothing.
    pub fn off() -> Redactor {
        let config = Redaction {
            enabled: false,
            ..Redaction::default()
        };
        Redactor::build(config, None, Vec::new())
    }

    fn build(config: Redaction, key: Option<Key>, counts: Vec<IntCounter>) -> Redactor {
        let shipped = match key.is_some() {
            true => pattern::shipped(),
            false => Vec::new(),
        };
        let mut patterns = Vec::new();
        // An escaped letter may be one of an anchor: such a text must be looked at.
        let mut anchors = vec![r"\u00"];
        let mut needed_by = vec![0_u128];
        for anchor in pattern::NAME_ANCHORS {
            anchors.push(anchor);
            needed_by.push(0);
        }
        for shipped in shipped {
            if config
                .except_kinds
                .iter()
                .any(|k| k == shipped.kind.as_str())
            {
                continue;
            }
            for anchor in shipped.anchors {
                let at = anchors.iter().position(|a| a == anchor);
                let at = at.unwrap_or_else(|| {
                    anchors.push(anchor);
                    needed_by.push(0);
                    anchors.len() - 1
                });
                needed_by[at] |= 1 << patterns.len();
            }
            patterns.push(Compiled {
                kind: shipped.kind,
                word: shipped.kind.as_str().to_owned(),
                regex: compiled(&shipped.regex, false).expect("shipped patterns are tested"),
                check: shipped.check,
            });
        }
        let mut always = 0;
        for own in &config.patterns {
            always |= 1 << patterns.len();
            patterns.push(Compiled {
                kind: Kind::Custom,
                word: own.name.clone(),
                regex: compiled(&own.pattern, true).expect("patterns were checked"),
                check: |_| true,
            });
        }
        assert!(patterns.len() <= 128, "a bit for each pattern");
        Redactor {
            config,
            key,
            patterns,
            anchors: AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::DFA))
                .ascii_case_insensitive(true)
                .build(&anchors)
                .expect("anchors are few and short"),
            needed_by,
            always,
            marker: compiled(r"\[redacted:[a-z0-9_]{1,32}:[0-9a-f]{16}\]", false)
                .expect("a tested pattern"),
            counts,
        }
    }

    /// The text of a record of this source with what is secret replaced; `None` if nothing is. `is_json`: is it one
    /// JSON object? Only then it has fields.
    pub fn record(&self, source: &str, text: &[u8], is_json: bool) -> Option<Vec<u8>> {
        self.key.as_ref()?;
        let excepted = self.config.except_sources.iter().any(|s| s == source);
        let fields = is_json && self.may_have_fields_of(source, text);
        if excepted {
            return fields
                .then(|| strings::fields(self, source, text))
                .flatten();
        }
        if !fields && !self.may_have_secrets(text) {
            return None;
        }
        match is_json || strings::is_json(text) {
            true => strings::json(self, source, text, 0),
            false => self.text(text, 0),
        }
    }

    /// What is kept of the original of a record in which something was replaced.
    pub fn original(&self, text: &[u8]) -> Str {
        match (self.config.original, &self.key) {
            _ if text.len() > MAX_ORIGINAL => Str::default(),
            (Original::Seal, Some(key)) => key.seal(text).into(),
            (Original::Keep, Some(_)) => key::plain(text).into(),
            _ => Str::default(),
        }
    }

    /// Replaces what is secret in the bytes of a dead letter, whatever source it came from. Bytes that cannot be
    /// looked into are dropped.
    pub fn letter(&self, letter: &mut DeadLetter) {
        if self.key.is_none() {
            return;
        }
        let content = letter.content();
        let packed = |magic: &[u8]| memchr::memmem::find(&content, magic).is_some();
        if matches!(letter.reason, Reason::CorruptGzip | Reason::BadBase64)
            // Gzip, as it is and in base64.
            || packed(GZIP)
            || packed(b"H4sI")
        {
            letter.set_content(&[]);
            return;
        }
        if let Some(new) = self.inner(&content, 0) {
            // As many bytes are missing of it as were before.
            letter.size = letter.size.saturating_sub(content.len() as u64) + new.len() as u64;
            letter.set_content(&new);
        }
    }

    /// Replaces what is secret in a text or in the content of a string.
    fn inner(&self, text: &[u8], layer: u8) -> Option<Vec<u8>> {
        if !self.may_have_secrets(text) {
            return None;
        }
        match layer <= strings::MAX_LAYERS && strings::is_json(text) {
            true => strings::json(self, "", text, layer),
            false => self.text(text, layer),
        }
    }

    fn text(&self, text: &[u8], layer: u8) -> Option<Vec<u8>> {
        let mut new: Option<Vec<u8>> = None;
        for _ in 0..ROUNDS {
            let now = new.as_deref().unwrap_or(text);
            let in_quotes = layer <= strings::MAX_LAYERS && now.contains(&b'"');
            let walked = in_quotes.then(|| strings::text(self, now, layer)).flatten();
            let matched = self.matched(walked.as_deref().unwrap_or(now));
            match matched.or(walked) {
                Some(next) => new = Some(next),
                None => break,
            }
        }
        new
    }

    /// Cheap, and for nearly all texts the only thing that is asked.
    fn may_have_secrets(&self, text: &[u8]) -> bool {
        self.always != 0 || self.anchors.is_match(text)
    }

    fn wanted(&self, text: &[u8]) -> u128 {
        let found = self.anchors.find_overlapping_iter(text);
        found.fold(self.always, |wanted, m| {
            wanted | self.needed_by[m.pattern().as_usize()]
        })
    }

    /// The text with the matches of patterns replaced. What was replaced before parts the text.
    fn matched(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut done = 0;
        let mut from = 0;
        let markers = self.marker.find_iter(text).map(|m| m.range());
        for marker in markers.chain(std::iter::once(text.len()..text.len())) {
            for (secret, pattern) in self.secrets(&text[from..marker.start]) {
                let secret = from + secret.start..from + secret.end;
                out.extend_from_slice(&text[done..secret.start]);
                let compiled = &self.patterns[pattern];
                let marker = self.marked(compiled.kind, &compiled.word, &text[secret.clone()]);
                out.extend(marker);
                done = secret.end;
            }
            from = marker.end;
        }
        if done == 0 {
            return None;
        }
        out.extend_from_slice(&text[done..]);
        Some(out)
    }

    /// Where secrets are in a text, in order and apart, each with the pattern that found it.
    fn secrets(&self, text: &[u8]) -> Vec<(std::ops::Range<usize>, usize)> {
        let mut wanted = self.wanted(text);
        let mut found = Vec::new();
        while wanted != 0 {
            let number = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            let pattern = &self.patterns[number];
            for captures in pattern.regex.captures_iter(text) {
                let group = match pattern.kind {
                    Kind::Custom => captures.name("secret"),
                    _ => captures.iter().skip(1).flatten().next(),
                };
                let Some(secret) = group.or_else(|| captures.get(0)) else {
                    continue;
                };
                if !secret.is_empty() && (pattern.check)(secret.as_bytes()) {
                    found.push((secret.range(), number));
                }
            }
        }
        found.sort_by_key(|(range, number)| (range.start, std::cmp::Reverse(range.end), *number));
        let mut apart: Vec<(std::ops::Range<usize>, usize)> = Vec::with_capacity(found.len());
        for (range, number) in found {
            match apart.last_mut() {
                Some((last, _)) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push((range, number)),
            }
        }
        apart
    }

    /// What the key of a value says of it.
    fn kind_of_name(&self, key: &str) -> Option<Kind> {
        let telling = self.anchors.is_match(key);
        telling.then(|| pattern::of_name(key)).flatten()
    }

    /// Is this kind of the shipped set replaced?
    fn takes(&self, kind: Kind) -> bool {
        !self.config.except_kinds.iter().any(|k| k == kind.as_str())
    }

    fn marker(&self, kind: Kind, secret: &[u8]) -> Vec<u8> {
        self.marked(kind, kind.as_str(), secret)
    }

    /// What takes the place of a secret. Counts it.
    fn marked(&self, kind: Kind, word: &str, secret: &[u8]) -> Vec<u8> {
        if let Some(count) = self.counts.get(kind as usize) {
            count.inc();
        }
        let key = self.key.as_ref().expect("nothing is replaced without one");
        format!("[redacted:{word}:{}]", key.fingerprint(secret)).into_bytes()
    }

    fn has_fields_of(&self, source: &str) -> bool {
        self.config.fields.iter().any(|f| f.source == source)
    }

    fn may_have_fields_of(&self, source: &str, text: &[u8]) -> bool {
        let fields = self.config.fields.iter().filter(|f| f.source == source);
        let has = |part: &str| memchr::memmem::find(text, part.as_bytes()).is_some();
        fields
            .filter_map(|field| field.path.rsplit('.').next())
            .any(|key| has(key) || has(r"\u"))
    }

    fn field_action(&self, source: &str, path: &[u8]) -> Option<FieldAction> {
        let fields = self.config.fields.iter();
        let mut of_path = fields.filter(|f| f.source == source && f.path.as_bytes() == path);
        of_path.next().map(|f| f.action)
    }

    /// What takes the place of a field of the configuration.
    fn minimised(&self, action: FieldAction, value: &[u8]) -> Vec<u8> {
        match action {
            FieldAction::Fingerprint => self.marker(Kind::Field, value),
            FieldAction::Drop => {
                if let Some(count) = self.counts.get(Kind::Field as usize) {
                    count.inc();
                }
                DROPPED.to_vec()
            }
        }
    }
}

/// Is this what takes the place of a secret or field, and nothing else?
fn is_marked(text: &[u8]) -> bool {
    let parts = || {
        let inner = text.strip_prefix(b"[redacted:")?.strip_suffix(b"]")?;
        let colon = inner.iter().position(|b| *b == b':')?;
        Some((&inner[..colon], &inner[colon + 1..]))
    };
    text == DROPPED
        || parts().is_some_and(|(word, fingerprint)| {
            (1..=32).contains(&word.len())
                && fingerprint.len() == 16
                && fingerprint.iter().all(u8::is_ascii_hexdigit)
        })
}
