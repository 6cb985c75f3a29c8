//! The index stage through crashes, repeats, merges and retention.
