//! Indexes without a bus: `hunt --index DIR` and `search --data DIR`.
