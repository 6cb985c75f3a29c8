//! Which shards are to be read, and from where.
//!
//! A stream is cut into shards, and a shard that is split or merged is closed and followed by its children. What was in
//! the parents came before what is in the children, so [`ready`] gives a child only when its parents are read to their
//! end. A [`Checkpoint`] says how far a shard was read; sequence numbers tell whether it belongs to the stream that is
//! there now, or to one of the same name that was there before. All of this is plain data: no calls, no clock.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aws_sdk_kinesis::types::Shard;
use event::Time;
use serde::{Deserialize, Serialize};

/// How far a shard was read. Durable after the events that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Checkpoint {
    /// The first sequence number that the shard can have.
    pub(super) starting: String,
    /// The sequence number of the last record that was read; empty for none.
    pub(super) sequence: String,
    /// All that arrived in the shard before this time was read.
    pub(super) read_to: Time,
    /// Is the shard closed, and read to its end?
    pub(super) finished: bool,
}

/// A shard as the listing tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: String,
    /// The shards that it came from: one after a split, two after a merge.
    pub(super) parents: Vec<String>,
    /// The first sequence number that it can have.
    pub(super) starting: String,
}

impl Listed {
    pub(super) fn of(shard: &Shard) -> Listed {
        let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
        let range = shard.sequence_number_range();
        Listed {
            id: shard.shard_id().to_owned(),
            parents: parents.into_iter().flatten().map(str::to_owned).collect(),
            starting: range
                .map_or("", |r| r.starting_sequence_number())
                .to_owned(),
        }
    }
}

/// Compares sequence numbers, which are decimal and longer than any integer.
fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl Checkpoint {
    /// Is it of this shard, and not of one with the same name in a stream that was removed and made again?
    pub(super) fn is_of(&self, listed: &Listed) -> bool {
        let latest = match compare(&self.sequence, &self.starting) {
            Ordering::Less => &self.starting,
            _ => &self.sequence,
        };
        // A shard that begins after all that was read of it is another one.
        compare(&listed.starting, latest) != Ordering::Greater
    }

    /// Up to when a stream that keeps records for so many microseconds has dropped what was not read, if it has any;
    /// 0 where that is not known.
    pub(super) fn dropped_until(&self, retention: i64, now: Time) -> Option<Time> {
        let horizon = now.plus(-retention);
        let was_read = self.read_to != Time::default();
        (retention > 0 && was_read && self.read_to < horizon).then_some(horizon)
    }
}

/// The shards that can be read now: not read to their end, and their parents are, as far as these are still there.
pub(super) fn ready<'l>(
    listed: &'l [Listed],
    known: &BTreeMap<String, Checkpoint>,
) -> Vec<&'l Listed> {
    let finished = |id: &str| known.get(id).is_some_and(|c| c.finished);
    let is_there = |id: &str| listed.iter().any(|l| l.id == id);
    let can = |l: &&Listed| {
        let waits = l.parents.iter().any(|p| is_there(p) && !finished(p));
        !finished(&l.id) && !waits
    };
    listed.iter().filter(can).collect()
}

/// The shards that were not read to their end and are not there any more.
pub(super) fn gone(listed: &[Listed], known: &BTreeMap<String, Checkpoint>) -> Vec<String> {
    let is_there = |id: &str| listed.iter().any(|l| l.id == id);
    let gone = known.iter().filter(|(id, c)| !c.finished && !is_there(id));
    gone.map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, parents: &[&str], starting: &str) -> Listed {
        Listed {
            id: id.to_owned(),
            parents: parents.iter().map(|p| (*p).to_owned()).collect(),
            starting: starting.to_owned(),
        }
    }

    fn read(ids: &[(&str, bool)]) -> BTreeMap<String, Checkpoint> {
        let entry = |(id, finished): &(&str, bool)| {
            let checkpoint = Checkpoint {
                finished: *finished,
                ..Checkpoint::default()
            };
            ((*id).to_owned(), checkpoint)
        };
        ids.iter().map(entry).collect()
    }

    #[test]
    fn children_wait_for_all_of_their_parents() {
        let shards = [
            listed("0", &[], "1"),
            listed("1", &[], "1"),
            // Split from 0, merged from 1 and 2, and one whose parent has expired.
            listed("2", &["0"], "2"),
            listed("3", &["1", "2"], "3"),
            listed("4", &["9"], "2"),
        ];
        let check = |known: &[(&str, bool)], expected: &[&str]| {
            let known = read(known);
            let ready: Vec<&str> = ready(&shards, &known).iter().map(|l| &*l.id).collect();
            assert_eq!(ready, expected, "{known:?}");
        };
        check(&[], &["0", "1", "4"]);
        check(&[("0", false)], &["0", "1", "4"]);
        check(&[("0", true)], &["1", "2", "4"]);
        check(&[("0", true), ("1", true)], &["2", "4"]);
        check(&[("0", true), ("1", true), ("2", true)], &["3", "4"]);
    }

    #[test]
    fn a_shard_that_expired_unread_is_noticed() {
        let known = read(&[("0", true), ("1", false), ("2", false)]);
        assert_eq!(gone(&[listed("2", &["1"], "1")], &known), ["1"]);
    }

    #[test]
    fn what_is_older_than_the_retention_may_be_gone() {
        let (hour, at) = (3_600 * 1_000_000, Time::from_seconds);
        let checkpoint = |read_to| Checkpoint {
            read_to: at(read_to),
            ..Checkpoint::default()
        };
        let day = 24 * hour;
        let dropped =
            |read_to, retention| checkpoint(read_to).dropped_until(retention, at(100_000));
        assert_eq!(dropped(10_000, day), Some(at(13_600)));
        assert_eq!(dropped(13_600, day), None);
        assert_eq!(dropped(10_000, 2 * day), None);
        assert_eq!(dropped(10_000, 0), None);
        // Of a shard that was never read nothing is missed.
        assert_eq!(dropped(0, hour), None);
    }

    #[test]
    fn a_stream_that_was_made_again_is_another_one() {
        let checkpoint = |starting: &str, sequence: &str| Checkpoint {
            starting: starting.to_owned(),
            sequence: sequence.to_owned(),
            ..Checkpoint::default()
        };
        let now = listed(
            "0",
            &[],
            "49590338271490256608559692538361571095921575989136588898",
        );
        let same = "49590338271490256608559692538361571095921575989136588898";
        let later = "49590338271490256608559692540925702759324208523137515618";
        let older = "9590338271490256608559692538361571095921575989136588898";
        assert!(checkpoint(same, "").is_of(&now));
        assert!(checkpoint(same, later).is_of(&now));
        assert!(checkpoint(older, later).is_of(&now));
        assert!(!checkpoint(older, older).is_of(&now));
        assert!(!checkpoint(older, "").is_of(&now));
        // Where the listing says nothing, nothing is concluded.
        assert!(checkpoint(older, older).is_of(&listed("0", &[], "0")));
    }
}
