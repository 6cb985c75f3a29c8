//! Problems of rule files, all of them at once, each with its place, the line and a hint.

use std::fmt;

use crate::yaml::Place;

/// Is it fatal, or advice?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The rule cannot be run; the whole rule set is refused.
    Error,
    /// The rule runs, but somebody should look.
    Warning,
}

/// One problem of one rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub weight: Weight,
    /// The file.
    pub path: String,
    /// Where in the file; `None` if it concerns the file as a whole.
    pub place: Option<Place>,
    /// The line of the file at that place.
    pub snippet: String,
    /// For advice: its short name, which a rule can silence with `lint-ignore`.
    pub code: Option<&'static str>,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// A problem before its file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) weight: Weight,
    pub(crate) place: Option<Place>,
    pub(crate) code: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Mistake {
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Mistake {
        Mistake {
            weight: Weight::Error,
            place: Some(place),
            code: None,
            message: message.into(),
            hint: String::new(),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Mistake {
        self.hint = hint.into();
        self
    }

    pub(crate) fn warning(mut self) -> Mistake {
        self.weight = Weight::Warning;
        self
    }

    /// Advice that a rule may silence by this name.
    pub(crate) fn advice(mut self, code: &'static str) -> Mistake {
        self.code = Some(code);
        self.warning()
    }

    pub(crate) fn in_file(self, path: &str, text: &str) -> Problem {
        let line = self
            .place
            .and_then(|p| text.lines().nth(p.line.saturating_sub(1)))
            .unwrap_or_default();
        let snippet = line
            .chars()
            .take(160)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Problem {
            weight: self.weight,
            path: path.to_owned(),
            place: self.place,
            snippet,
            code: self.code,
            message: self.message,
            hint: self.hint,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.weight, self.code) {
            (Weight::Error, None) => writeln!(f, "error: cannot load rule `{}`", self.path)?,
            (Weight::Error, Some(code)) => writeln!(f, "error[{code}]: rule `{}`", self.path)?,
            (Weight::Warning, None) => writeln!(f, "warning: rule `{}`", self.path)?,
            (Weight::Warning, Some(code)) => writeln!(f, "warning[{code}]: rule `{}`", self.path)?,
        }
        match self.place {
            Some(place) => writeln!(f, "  --> {}:{}:{}", self.path, place.line, place.column)?,
            None => writeln!(f, "  --> {}", self.path)?,
        }
        if !self.snippet.is_empty() {
            writeln!(f, "   | {}", self.snippet)?;
        }
        write!(f, "   = {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// The known word nearest to a misspelt one, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = known
        .into_iter()
        .map(|k| (distance(word, k), k))
        .min_by_key(|(d, _)| *d)?;
    (best.0 <= 1 + word.chars().count() / 4).then_some(best.1)
}

/// Edit distance in which two letters that changed places count once.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_report() {
        let mistake = Mistake::new(Place { line: 2, column: 5 }, "unknown modifier `cdir`")
            .hint("did you mean `cidr`?");
        let report = mistake
            .in_file("rules/a.yml", "sel:\n    ip|cdir: 10.0.0.0/8\n")
            .to_string();
        let expected = "error: cannot load rule `rules/a.yml`\n  --> rules/a.yml:2:5\n   |     ip|cdir: 10.0.0.0/8\n   = unknown modifier `cdir`\n\nhint: did you mean `cidr`?";
        assert_eq!(report, expected);
    }

    #[test]
    fn nearest_word() {
        let known = ["contains", "cidr", "re"];
        assert_eq!(nearest("cdir", known), Some("cidr"));
        assert_eq!(nearest("contain", known), Some("contains"));
        assert_eq!(nearest("frobnicate", known), None);
    }
}
