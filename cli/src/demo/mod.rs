//! Made-up traffic for `trailwarden demo`: an organisation at work, and attacks on it.
//!
//! [`traffic::Traffic`] is the main type: asked for everything up to a time, it hands out CloudTrail
//! records, CloudWatch subscription payloads and a note of every attack it put in, so that a viewer can
//! hold the alerts against what was really done. [`history`] gives quiet hours of the past, so that search
//! finds something at once. The command `demo` feeds both through the ordinary intake; nothing behind the
//! intake knows that the traffic is made up.
//!
//! The same seed gives the same organisation and the same traffic, whatever the steps in which it is asked
//! for. There is no clock here, no network and no file.

mod attacks;
mod calls;
mod decoys;
mod functions;
mod incidents;
mod injection;
mod invocation;
mod ordinary;
mod org;
mod record;
mod rng;
mod routine;
mod scene;
pub(crate) mod traffic;

pub(crate) use injection::{Injection, Rates, Tick};
pub(crate) use traffic::history;
