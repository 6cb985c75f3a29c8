//! The console over a real store, index and log: what programs get (`http`) and what a browser does (`browser`).

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod browser;
mod http;
mod world;
