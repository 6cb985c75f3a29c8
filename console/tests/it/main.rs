//! The console over a real store, index and log: what programs get (`http`) and what a browser does (`browser`).

mod browser;
mod http;
mod world;
