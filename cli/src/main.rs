//! The program `trailwarden`.

#[cfg_attr(not(test), expect(dead_code, reason = "the command `demo` follows"))]
mod demo;

fn main() {}
