//! The program `trailwarden`.

#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the command `demo` follows")
)]
mod demo;

fn main() {}
