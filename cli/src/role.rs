//! What a process does: all of the pipeline, or one part of it that runs many times.

use std::collections::BTreeSet;

/// A part of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Role {
    /// Takes events in: watched files, HTTP push
    Ingest,
    /// Matches rules and correlates
    Detect,
    /// Indexes events and answers searches
    Index,
    /// Makes alerts of findings and notifies people
    Alert,
    /// The console and the API for alerts
    Api,
}

/// The parts that this process does.
pub(crate) type Roles = BTreeSet<Role>;

/// Everything: what a process does that is told nothing.
pub(crate) fn all() -> Roles {
    Roles::from([
        Role::Ingest,
        Role::Detect,
        Role::Index,
        Role::Alert,
        Role::Api,
    ])
}

/// The roles as people write them.
pub(crate) fn words(roles: &Roles) -> String {
    let names: Vec<String> = roles
        .iter()
        .map(|r| format!("{r:?}").to_lowercase())
        .collect();
    names.join(",")
}
