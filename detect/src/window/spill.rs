//! Sorting more matches than fit into memory: sorted runs in temporary files, merged when all are known.
//!
//! A [`Spill`] takes [`Entry`]s in any order and gives them back in order of (correlation, group, time, id). What
//! is in memory is written as a run when it exceeds its budget; when there are many runs they are merged into one,
//! so that few files are open at a time. `offline` fills and drains it; what the entries mean is not known here.
//! The files have no name and go with the process.
//!
//! ```text
//! a run is a row of entries, each, little endian:
//!   length of the rest       4 bytes
//!   number of correlation    4 bytes
//!   key of the group        16 bytes
//!   time in microseconds     8 bytes
//!   id of the event         16 bytes
//!   content                  the rest
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use super::episode::Rank;
use event::{Id, Time};

/// How many runs there are at most before they are merged into one.
const MOST_RUNS: usize = 64;

/// The buffer of a run that is read; all of them together are the memory that a merge takes.
const READ_BUFFER: usize = 256 << 10;

const HEADER: usize = 4 + 16 + 8 + 16 + 16;

/// No entry is longer: a longer length means that the file is not ours any more.
const MOST_CONTENT: usize = 256 << 20;

/// A match as it is sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) correlation: u32,
    pub(super) group: Id,
    pub(super) time: Time,
    pub(super) rank: Rank,
    pub(super) content: Vec<u8>,
}

impl Entry {
    fn size(&self) -> usize {
        size_of::<Entry>() + self.content.len()
    }

    fn write(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(&((HEADER + self.content.len()) as u32).to_le_bytes())?;
        file.write_all(&self.correlation.to_le_bytes())?;
        file.write_all(&self.group.0.to_le_bytes())?;
        file.write_all(&self.time.0.to_le_bytes())?;
        file.write_all(&self.rank.text.to_le_bytes())?;
        file.write_all(&self.rank.id.0.to_le_bytes())?;
        file.write_all(&self.content)
    }

    /// The next entry of a run, or `None` at its end.
    fn read(file: &mut impl Read) -> io::Result<Option<Entry>> {
        let mut length = [0; 4];
        match file.read_exact(&mut length) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let content = (u32::from_le_bytes(length) as usize).checked_sub(HEADER);
        let content = content.filter(|n| *n <= MOST_CONTENT).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a run of matches is damaged")
        })?;
        let (mut number, mut wide, mut time) = ([0; 4], [0; 16], [0; 8]);
        file.read_exact(&mut number)?;
        file.read_exact(&mut wide)?;
        let group = Id(u128::from_le_bytes(wide));
        file.read_exact(&mut time)?;
        file.read_exact(&mut wide)?;
        let text = u128::from_le_bytes(wide);
        file.read_exact(&mut wide)?;
        let mut entry = Entry {
            correlation: u32::from_le_bytes(number),
            group,
            time: Time(i64::from_le_bytes(time)),
            rank: Rank {
                text,
                id: Id(u128::from_le_bytes(wide)),
            },
            content: vec![0; content],
        };
        file.read_exact(&mut entry.content)?;
        Ok(Some(entry))
    }
}

/// Entries on their way to being sorted.
pub(super) struct Spill {
    budget: usize,
    entries: Vec<Entry>,
    size: usize,
    runs: Vec<File>,
}

impl Spill {
    /// A spill that keeps at most `budget` bytes in memory, but at least one entry.
    pub(super) fn new(budget: usize) -> Spill {
        Spill {
            budget,
            entries: Vec::new(),
            size: 0,
            runs: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, entry: Entry) -> io::Result<()> {
        self.size += entry.size();
        self.entries.push(entry);
        if self.size > self.budget {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.runs.len() == MOST_RUNS {
            let merged = merge(std::mem::take(&mut self.runs))?;
            let run = write_run(merged)?;
            self.runs.push(run);
        }
        self.entries.sort_unstable();
        let run = write_run(self.entries.drain(..).map(Ok))?;
        self.runs.push(run);
        self.size = 0;
        Ok(())
    }

    /// All entries in order.
    pub(super) fn sorted(mut self) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>>>> {
        if self.runs.is_empty() {
            self.entries.sort_unstable();
            return Ok(Box::new(self.entries.into_iter().map(Ok)));
        }
        if !self.entries.is_empty() {
            self.flush()?;
        }
        Ok(Box::new(merge(self.runs)?))
    }

    #[cfg(test)]
    fn files(&self) -> usize {
        self.runs.len()
    }
}

fn write_run(entries: impl Iterator<Item = io::Result<Entry>>) -> io::Result<File> {
    let mut file = BufWriter::with_capacity(READ_BUFFER, tempfile::tempfile()?);
    for entry in entries {
        entry?.write(&mut file)?;
    }
    let mut file = file.into_inner().map_err(|e| e.into_error())?;
    file.rewind()?;
    Ok(file)
}

/// The entries of sorted runs in order.
fn merge(runs: Vec<File>) -> io::Result<Merge> {
    let mut merge = Merge {
        runs: runs
            .into_iter()
            .map(|file| BufReader::with_capacity(READ_BUFFER, file))
            .collect(),
        heads: BinaryHeap::new(),
    };
    for number in 0..merge.runs.len() {
        merge.fill(number)?;
    }
    Ok(merge)
}

struct Merge {
    runs: Vec<BufReader<File>>,
    /// The next entry of every run that has one, the least on top.
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl Merge {
    fn fill(&mut self, number: usize) -> io::Result<()> {
        if let Some(entry) = Entry::read(&mut self.runs[number])? {
            self.heads.push(Reverse((entry, number)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        let Reverse((entry, number)) = self.heads.pop()?;
        Some(self.fill(number).map(|()| entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> Entry {
        let hash = Id::of("spill", &[&n.to_le_bytes()]);
        Entry {
            correlation: (n % 3) as u32,
            group: Id(hash.0 % 5),
            time: Time((hash.0 % 97) as i64 - 40),
            rank: Rank { text: 7, id: hash },
            content: vec![n as u8; (n % 50) as usize],
        }
    }

    fn check(entries: u64, budget: usize, runs: impl Fn(usize) -> bool) {
        let mut spill = Spill::new(budget);
        for n in 0..entries {
            spill.push(entry(n)).unwrap();
        }
        assert!(runs(spill.files()), "{} runs", spill.files());
        let mut expected: Vec<Entry> = (0..entries).map(entry).collect();
        expected.sort();
        let sorted: io::Result<Vec<Entry>> = spill.sorted().unwrap().collect();
        assert_eq!(sorted.unwrap(), expected);
    }

    #[test]
    fn sorted_in_memory_and_outside() {
        check(0, 1_000, |runs| runs == 0);
        check(500, 1 << 20, |runs| runs == 0);
        check(500, 10_000, |runs| runs > 3 && runs < MOST_RUNS);
        check(500, 0, |runs| runs <= MOST_RUNS);
    }
}
