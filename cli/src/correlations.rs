//! The correlations of a rule set as the windows need them.

pub(crate) use detect::correlations::of;
