//! Sigma rules, matching and correlation.
//!
//! [`window`] keeps the windows of event_count correlations in event time; [`correlate`] is the stage that
//! feeds them from the `matches` topic and puts what they find on `findings`.

pub mod window;
