//! Rules for the commands that need them: the shipped ones, embedded in the program, and those of folders.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context;
use detect::rule_set::{LoadErrors, RuleFile, RuleSet, read};

/// The folder `rules/` as it was when the program was built.
#[derive(rust_embed::RustEmbed)]
#[folder = "../rules"]
struct Builtin;

/// Which rules a command works with.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RuleArgs {
    /// A folder or file of Sigma rules; replaces the shipped rules. May be given again; `builtin` stands for the shipped ones
    #[arg(long = "rules", value_name = "DIR")]
    pub(crate) rules: Vec<PathBuf>,
    /// A value for `%NAME%` in rules that use the modifier `expand`; may be given again
    #[arg(long = "placeholder", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) placeholders: Vec<(String, String)>,
}

pub(crate) fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.trim_matches('%').to_owned(), value.to_owned()))
}

impl RuleArgs {
    /// The rules that a configuration names.
    pub(crate) fn of(config: &crate::config::Rules) -> RuleArgs {
        let placeholders = config.placeholders.iter();
        RuleArgs {
            rules: config.paths.clone(),
            placeholders: placeholders
                .flat_map(|(name, values)| values.iter().map(move |v| (name.clone(), v.clone())))
                .collect(),
        }
    }

    /// The texts of all rule files, in the order asked for.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<RuleFile>> {
        let mut files = Vec::new();
        if self.rules.is_empty() {
            return Ok(builtin());
        }
        for path in &self.rules {
            if path.as_os_str() == "builtin" {
                files.extend(builtin());
                continue;
            }
            files.extend(read(path).map_err(|(path, error)| {
                anyhow::Error::new(error).context(format!("cannot read rules `{}`", path.display()))
            })?);
        }
        Ok(files)
    }

    /// The placeholders by name.
    pub(crate) fn placeholders(&self) -> HashMap<String, Vec<String>> {
        let mut all: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in &self.placeholders {
            all.entry(name.clone()).or_default().push(value.clone());
        }
        all
    }

    /// The rules, checked and ready.
    pub(crate) fn load(&self) -> anyhow::Result<RuleSet> {
        let files = self.files().context(crate::exit::Usage)?;
        anyhow::ensure!(
            !files.is_empty(),
            "there is no rule file (*.yml) in {}",
            self.rules
                .iter()
                .map(|p| format!("`{}`", p.display()))
                .collect::<Vec<_>>()
                .join(", ")
        );
        RuleSet::build(&files, &self.placeholders())
            .map_err(|e: LoadErrors| anyhow::Error::new(e))
            .context(crate::exit::Usage)
    }
}

/// The shipped rules, in order of path.
pub(crate) fn builtin() -> Vec<RuleFile> {
    let mut files: Vec<RuleFile> = Builtin::iter()
        .filter(|path| path.ends_with(".yml"))
        .filter_map(|path| {
            let file = Builtin::get(&path)?;
            Some(RuleFile {
                path: format!("builtin/{path}"),
                text: String::from_utf8_lossy(&file.data).into_owned(),
            })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rules_load_without_advice() {
        let set = RuleArgs::default().load().unwrap();
        assert!(set.rules.len() >= 20, "{}", set.rules.len());
        assert_eq!(set.warnings, []);
    }
}
