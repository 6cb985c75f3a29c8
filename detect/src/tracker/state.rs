//! How the tracker is stored between commits.
//!
//! ```text
//!   key  'f', 16 bytes of the series' key                 value  JSON of the series, its models and episodes
//!        'm', the minute (8 bytes), 16 bytes of the key          JSON of its counts, by partition of `events`
//!        'n', 16 bytes of the group's key                 JSON of what is known of a group with watched values
//!        'w', its time (8 bytes), 16 bytes              JSON of a sighting that is still to be judged
//!        's'                                                     JSON of what all share, as `Stage`
//! ```

use std::collections::BTreeMap;

use bus::StateChange;
use event::{Id, Str, Time};
use serde::{Deserialize, Serialize};

use super::fleet::Fleet;
use super::{Changed, Tracker};
use crate::window::Watermark;

/// A stored row that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the stored baselines at key {key}")]
pub struct StateError {
    /// The key, as hexadecimal digits.
    pub key: String,
    /// What does not fit.
    #[source]
    pub source: serde_json::Error,
}

const STAGE: &[u8] = b"s";

#[derive(Serialize, Deserialize)]
struct Stage {
    open_from: Option<i64>,
    told: BTreeMap<u32, Watermark>,
    fleets: BTreeMap<Str, Fleet>,
    #[serde(default)]
    floods: BTreeMap<Str, i64>,
}

fn series_row(key: Id) -> Vec<u8> {
    [b"f".as_slice(), &key.to_bytes()].concat()
}

fn minute_row(minute: i64, key: Id) -> Vec<u8> {
    [b"m".as_slice(), &minute.to_be_bytes(), &key.to_bytes()].concat()
}

fn waiting_row(time: Time, id: Id) -> Vec<u8> {
    [b"w".as_slice(), &time.0.to_be_bytes(), &id.to_bytes()].concat()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and maps with text keys")
}

pub(super) fn changes(
    tracker: &mut Tracker,
    changed: &Changed,
    partition: u32,
) -> Vec<StateChange> {
    let change = |key: Vec<u8>, value: Option<Vec<u8>>| StateChange {
        partition,
        key,
        value,
        expires: None,
    };
    let mut rows = Vec::new();
    for key in &changed.series {
        let value = tracker.series.get(key).map(json);
        rows.push(change(series_row(*key), value));
    }
    for (minute, key) in &changed.minutes {
        let parts = tracker.minutes.get(minute).and_then(|m| m.get(key));
        rows.push(change(minute_row(*minute, *key), parts.map(json)));
    }
    let firsts = std::mem::take(&mut tracker.firsts.changed);
    for key in firsts.groups {
        let value = tracker.firsts.group(key).map(json);
        rows.push(change([b"n".as_slice(), &key.to_bytes()].concat(), value));
    }
    for (time, id) in firsts.waiting {
        let value = tracker.firsts.waiting((time, id)).map(json);
        rows.push(change(waiting_row(time, id), value));
    }
    if changed.stage {
        let stage = Stage {
            open_from: tracker.open_from,
            told: tracker.told.clone(),
            fleets: tracker.fleets.clone(),
            floods: tracker.floods.clone(),
        };
        rows.push(change(STAGE.to_vec(), Some(json(&stage))));
    }
    rows
}

pub(super) fn restore(
    tracker: &mut Tracker,
    rows: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), StateError> {
    for (key, value) in rows {
        let failed = |source| StateError {
            key: key.iter().map(|b| format!("{b:02x}")).collect(),
            source,
        };
        let id =
            |from: usize| -> Option<Id> { Some(Id::from_bytes(key.get(from..)?.try_into().ok()?)) };
        match key.first() {
            Some(b's') => {
                let stage: Stage = serde_json::from_slice(value).map_err(failed)?;
                tracker.open_from = stage.open_from;
                tracker.told = stage.told;
                tracker.fleets = stage.fleets;
                tracker.floods = stage.floods;
            }
            Some(b'f') => {
                let series = serde_json::from_slice(value).map_err(failed)?;
                if let Some(id) = id(1) {
                    tracker.series.insert(id, series);
                }
            }
            Some(b'm') => {
                let parts = serde_json::from_slice(value).map_err(failed)?;
                let minute = key
                    .get(1..9)
                    .and_then(|b| Some(i64::from_be_bytes(b.try_into().ok()?)));
                if let (Some(minute), Some(id)) = (minute, id(9)) {
                    tracker.minutes.entry(minute).or_default().insert(id, parts);
                }
            }
            Some(b'n') => {
                let known = serde_json::from_slice(value).map_err(failed)?;
                if let Some(id) = id(1) {
                    tracker.firsts.put_back_group(id, known);
                }
            }
            Some(b'w') => {
                let sighting = serde_json::from_slice(value).map_err(failed)?;
                let time = key
                    .get(1..9)
                    .and_then(|b| Some(i64::from_be_bytes(b.try_into().ok()?)));
                if let (Some(time), Some(id)) = (time, id(9)) {
                    tracker.firsts.put_back_waiting((Time(time), id), sighting);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
