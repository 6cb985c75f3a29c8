//! A disk in memory that fails on demand and forgets what was not synced.
//!
//! [`SimDisk`] keeps for every file what is written and what would survive a power cut, and counts the operations that
//! change something. [`SimDisk::fail`] makes one of them go wrong; [`SimDisk::crash`] gives the disk that a power cut
//! would leave, with each unsynced page, removal and creation kept or lost by a seeded coin. After a failed fsync the
//! pages are lost although a later fsync succeeds, as on Linux.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Disk, File};
use crate::embedded::group::lock;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) enum Fault {
    /// The power goes: this and all later operations fail.
    Crash,
    /// The first write or creation from here on finds no space, after writing a part.
    NoSpace,
    /// The first fsync from here on fails.
    SyncFails,
}

#[derive(Debug, Clone, Default)]
pub(in crate::embedded) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Entry>,
    changes: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    content: Content,
    /// Is it there for readers, and would it be there after a power cut?
    linked: bool,
    linked_durably: bool,
}

#[derive(Debug, Clone, Default)]
struct Content {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// Written before a failed fsync and never since: the kernel takes it for clean.
    lost: Range<usize>,
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
}

const PAGE: usize = 512;

/// A small generator of coins; the same seed gives the same coins.
pub(in crate::embedded) struct Coins(pub(in crate::embedded) u64);

impl Coins {
    pub(in crate::embedded) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

impl SimDisk {
    /// Makes the operation with this number (from 0, counted from now) fail.
    pub(in crate::embedded) fn fail(&self, after: u64, fault: Fault) {
        let mut state = lock(&self.0);
        state.fault = Some((state.changes + after, fault));
    }

    /// How many operations have changed something.
    pub(in crate::embedded) fn changes(&self) -> u64 {
        lock(&self.0).changes
    }

    /// Has the fault that was asked for come?
    pub(in crate::embedded) fn has_failed(&self) -> bool {
        lock(&self.0).fault.is_none()
    }

    /// The process is gone and the power is not: all that was written is there, durable or not.
    pub(in crate::embedded) fn restart(&self) {
        lock(&self.0).crashed = false;
    }

    /// What a power cut leaves.
    pub(in crate::embedded) fn crash(&self, seed: u64) -> SimDisk {
        let mut coins = Coins(seed);
        let mut files = BTreeMap::new();
        for (path, entry) in &lock(&self.0).files {
            let there = match (entry.linked, entry.linked_durably) {
                (now, durably) if now == durably => now,
                _ => coins.below(2) == 0,
            };
            if there {
                let bytes = survivors(&entry.content, &mut coins);
                let content = Content {
                    written: bytes.clone(),
                    durable: bytes,
                    lost: 0..0,
                };
                let entry = Entry {
                    content,
                    linked: true,
                    linked_durably: true,
                };
                files.insert(path.clone(), entry);
            }
        }
        SimDisk(Arc::new(Mutex::new(State {
            files,
            ..State::default()
        })))
    }

    fn change<T>(
        &self,
        may_fail: &[Fault],
        work: impl FnOnce(&mut State, Option<Fault>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = lock(&self.0);
        if state.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        let number = state.changes;
        state.changes += 1;
        let fault = state
            .fault
            .filter(|(at, fault)| number >= *at && may_fail.contains(fault))
            .map(|(_, fault)| fault);
        if fault.is_some() {
            state.fault = None;
            state.crashed = fault == Some(Fault::Crash);
        }
        work(&mut state, fault)
    }
}

/// The length is the old or the new one or between; each page of it is new, or old, or was never written.
fn survivors(content: &Content, coins: &mut Coins) -> Vec<u8> {
    let (old, new) = (content.durable.len(), content.written.len());
    let len = old.min(new) + coins.below(old.abs_diff(new) + 1);
    let mut bytes = vec![0; len];
    let newest = content.synced();
    for page in (0..len).step_by(PAGE) {
        let from = if coins.below(2) == 0 {
            &newest
        } else {
            &content.durable
        };
        let end = len.min(page + PAGE).min(from.len());
        if page < end {
            bytes[page..end].copy_from_slice(&from[page..end]);
        }
        // What is durable and unchanged survives whichever side lost the page.
        let same = content.durable.len().min(len).min(page + PAGE);
        for (i, byte) in bytes.iter_mut().enumerate().take(same).skip(page) {
            if content.written.get(i) == content.durable.get(i) {
                *byte = content.durable[i];
            }
        }
    }
    bytes
}

impl Content {
    fn synced(&self) -> Vec<u8> {
        let mut bytes = self.written.clone();
        let end = self.lost.end.min(bytes.len());
        bytes[self.lost.start.min(end)..end].fill(0);
        bytes
    }
}

fn failure(fault: Fault) -> io::Error {
    match fault {
        Fault::Crash => io::Error::other("the power is gone"),
        Fault::NoSpace => io::Error::from(io::ErrorKind::StorageFull),
        Fault::SyncFails => io::Error::other("input/output error"),
    }
}

impl State {
    fn entry(&mut self, path: &Path) -> io::Result<&mut Entry> {
        self.files
            .get_mut(path)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = lock(&self.0);
        if !state.entry(path)?.linked {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(Box::new(SimFile {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.change(&[Fault::Crash, Fault::NoSpace], |state, fault| {
            if let Some(fault) = fault {
                return Err(failure(fault));
            }
            let entry = state.files.entry(path.to_owned()).or_default();
            assert!(!entry.linked, "{path:?} is created twice");
            entry.linked = true;
            Ok(())
        })?;
        self.open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(&[Fault::Crash], |state, fault| match fault {
            Some(fault) => Err(failure(fault)),
            None => {
                state.entry(path)?.linked = false;
                Ok(())
            }
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = lock(&self.0);
        let linked = state.files.iter().filter(|(_, entry)| entry.linked);
        Ok(linked
            .filter_map(|(path, _)| path.strip_prefix(dir).ok())
            .map(|name| name.display().to_string())
            .collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(
            &[Fault::Crash, Fault::SyncFails],
            |state, fault| match fault {
                Some(fault) => Err(failure(fault)),
                None => {
                    for (path, entry) in &mut state.files {
                        if path.starts_with(dir) {
                            entry.linked_durably = entry.linked;
                        }
                    }
                    Ok(())
                }
            },
        )
    }
}

impl File for SimFile {
    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.disk.0);
        let written = &state.entry(&self.path)?.content.written;
        let from = written.get(at as usize..).unwrap_or_default();
        let filled = from.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&from[..filled]);
        Ok(filled)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let path = &self.path;
        self.disk
            .change(&[Fault::Crash, Fault::NoSpace], |state, fault| {
                let seed = state.changes;
                let cut = fault.map_or(bytes.len(), |_| Coins(seed).below(bytes.len()));
                let content = &mut state.entry(path)?.content;
                let end = at as usize + cut;
                if content.written.len() < end {
                    content.written.resize(end, 0);
                }
                content.written[at as usize..end].copy_from_slice(&bytes[..cut]);
                if content.lost.start >= at as usize {
                    content.lost = 0..0;
                }
                fault.map_or(Ok(()), |fault| Err(failure(fault)))
            })
    }

    fn len(&mut self) -> io::Result<u64> {
        Ok(lock(&self.disk.0).entry(&self.path)?.content.written.len() as u64)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let path = &self.path;
        self.disk
            .change(&[Fault::Crash], |state, fault| match fault {
                Some(fault) => Err(failure(fault)),
                None => {
                    state.entry(path)?.content.written.truncate(len as usize);
                    Ok(())
                }
            })
    }

    fn sync(&self) -> io::Result<()> {
        let path = &self.path;
        self.disk
            .change(&[Fault::Crash, Fault::SyncFails], |state, fault| {
                let content = &mut state.entry(path)?.content;
                match fault {
                    Some(Fault::SyncFails) => {
                        content.lost = content.durable.len()..content.written.len();
                        Err(failure(Fault::SyncFails))
                    }
                    Some(fault) => Err(failure(fault)),
                    None => {
                        content.durable = content.synced();
                        Ok(())
                    }
                }
            })
    }
}
