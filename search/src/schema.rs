//! How an event stands in the index.
