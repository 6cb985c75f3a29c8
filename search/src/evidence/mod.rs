//! Evidence: splits in the evidence log, and bundles that prove events to somebody else.
//!
//! `seal` writes down each published split in [`bus::ledger`]: the hash of every file, and the Merkle root over its
//! events. [`check()`] holds the index on the disk to that. [`bundle`] exports the events of a query with what proves
//! them, in a file ([`zip`]) that [`verify`] checks without this store, and says in words what is proven and what is
//! not. docs/evidence.md explains it to people, decision 0021 why it is so.

pub mod bundle;
pub mod verify;
pub mod zip;

mod check;
mod member;
pub(crate) mod seal;

pub use check::{bytes, check};
