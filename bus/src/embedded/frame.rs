//! How records lie on disk: a frame is one compressed run of records of one partition.
//!
//! All numbers are little-endian. A file of the event log is frames without gaps:
//!
//! ```text
//! byte  0   4  "TWb1"
//!       4   4  partition
//!       8   8  offset of the first record
//!      16   8  newest time of its records, microseconds
//!      24   8  length of this file that was durable when the frame was written
//!      32   4  number of records
//!      36   4  length of the records before compression
//!      40   4  length of the records as stored, n
//!      44   4  CRC-32 of the records as stored
//!      48   4  CRC-32 of bytes 0 to 48
//!      52   n  the records, one zstd frame, each record as:
//!                 8  time, microseconds
//!                 4  length of the key, k
//!                 4  length of the value, v
//!                 k  key
//!                 v  value
//! ```
//!
//! The durable length tells a torn tail from damage: where a frame after a bad one says that the bad one was already
//! durable, bytes have changed on the disk, and nothing may be cut off. [`encode`] and [`Header::write`] are used by
//! the writer, [`Header::read`] and [`decode`] by recovery and readers. Nothing here touches a file.

use bytes::Bytes;
use event::Time;

use crate::{Offset, Record};

pub(super) const MAGIC: &[u8; 4] = b"TWb1";
pub(super) const HEADER: usize = 52;
/// Key and value of one record together.
pub(super) const MAX_RECORD: usize = 16 << 20;
/// A frame is closed when its records reach this size: small enough that a reader with a small budget decompresses
/// little in vain, large enough to compress well.
const FRAME: usize = 256 << 10;
const RECORD_HEAD: usize = 16;
/// What a frame can hold at most: it was below [`FRAME`] when the last record came.
const MAX_RAW: usize = FRAME + RECORD_HEAD + MAX_RECORD;

/// What a frame says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) partition: u32,
    pub(super) base: Offset,
    pub(super) newest: Time,
    pub(super) durable: u64,
    pub(super) count: u32,
    raw: u32,
    pub(super) stored: u32,
    crc: u32,
}

/// Compressed records that have no offset yet.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) count: u32,
    pub(super) newest: Time,
    raw: u32,
    crc: u32,
    pub(super) bytes: Vec<u8>,
}

/// Compresses records into blocks of [`FRAME`] bytes and a little more, in order.
pub(super) fn encode<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> std::io::Result<Vec<Block>> {
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    let mut blocks = Vec::new();
    let mut raw = Vec::new();
    let (mut count, mut newest) = (0, Time(i64::MIN));
    let mut records = records.into_iter().peekable();
    while let Some(record) = records.next() {
        raw.extend_from_slice(&record.time.0.to_le_bytes());
        raw.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
        raw.extend_from_slice(&(record.value.len() as u32).to_le_bytes());
        raw.extend_from_slice(&record.key);
        raw.extend_from_slice(&record.value);
        count += 1;
        newest = newest.max(record.time);
        if raw.len() >= FRAME || records.peek().is_none() {
            let bytes = compressor.compress(&raw)?;
            blocks.push(Block {
                count,
                newest,
                raw: raw.len() as u32,
                crc: crc32fast::hash(&bytes),
                bytes,
            });
            raw.clear();
            (count, newest) = (0, Time(i64::MIN));
        }
    }
    Ok(blocks)
}

impl Header {
    /// The header of a block once its place is known.
    pub(super) fn of(block: &Block, partition: u32, base: Offset, durable: u64) -> Header {
        Header {
            partition,
            base,
            newest: block.newest,
            durable,
            count: block.count,
            raw: block.raw,
            stored: block.bytes.len() as u32,
            crc: block.crc,
        }
    }

    /// Appends the bytes of the header.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(MAGIC);
        to.extend_from_slice(&self.partition.to_le_bytes());
        to.extend_from_slice(&self.base.to_le_bytes());
        to.extend_from_slice(&self.newest.0.to_le_bytes());
        to.extend_from_slice(&self.durable.to_le_bytes());
        for number in [self.count, self.raw, self.stored, self.crc] {
            to.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&to[start..]);
        to.extend_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header from the first bytes of a frame, or says what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Header, &'static str> {
        let bytes = bytes.get(..HEADER).ok_or("the header is cut short")?;
        let u32_at = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
        };
        let u64_at = |at: usize| {
            u64::from_le_bytes(
                bytes[at..at + 8]
                    .try_into()
                    .expect("eight bytes were taken"),
            )
        };
        if &bytes[..4] != MAGIC {
            return Err("no batch begins here");
        }
        if u32_at(48) != crc32fast::hash(&bytes[..48]) {
            return Err("the header does not match its checksum");
        }
        let header = Header {
            partition: u32_at(4),
            base: u64_at(8),
            newest: Time(u64_at(16) as i64),
            durable: u64_at(24),
            count: u32_at(32),
            raw: u32_at(36),
            stored: u32_at(40),
            crc: u32_at(44),
        };
        if header.count == 0
            || header.raw as usize > MAX_RAW
            || header.stored as usize > 2 * MAX_RAW
        {
            return Err("the header holds impossible numbers");
        }
        Ok(header)
    }

    /// Header and records together.
    pub(super) fn frame_len(&self) -> u64 {
        HEADER as u64 + u64::from(self.stored)
    }

    /// One past the last record.
    pub(super) fn next(&self) -> Offset {
        self.base + u64::from(self.count)
    }

    /// Are these the bytes that were written?
    pub(super) fn verify(&self, stored: &[u8]) -> Result<(), &'static str> {
        if stored.len() != self.stored as usize {
            Err("the records are cut short")
        } else if crc32fast::hash(stored) != self.crc {
            Err("the records do not match their checksum")
        } else {
            Ok(())
        }
    }
}

/// The records of a frame. Each owns its bytes, so that one kept record does not keep its frame in memory.
pub(super) fn decode(
    header: &Header,
    stored: &[u8],
    decompressor: &mut zstd::bulk::Decompressor<'_>,
) -> Result<Vec<Record>, &'static str> {
    header.verify(stored)?;
    let raw = decompressor
        .decompress(stored, header.raw as usize)
        .map_err(|_| "the records cannot be decompressed")?;
    let mut records = Vec::with_capacity(header.count as usize);
    let mut rest = raw.as_slice();
    while !rest.is_empty() {
        let (record, after) = split_record(rest).ok_or("a record is cut short")?;
        records.push(record);
        rest = after;
    }
    if raw.len() != header.raw as usize || records.len() != header.count as usize {
        return Err("the header does not fit its records");
    }
    Ok(records)
}

fn split_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD>()?;
    let (time, lengths) = head.split_first_chunk::<8>()?;
    let (key_len, value_len) = lengths.split_first_chunk::<4>()?;
    let key_len = u32::from_le_bytes(*key_len) as usize;
    let value_len = u32::from_le_bytes(value_len.try_into().ok()?) as usize;
    let (content, rest) = rest.split_at_checked(key_len.checked_add(value_len)?)?;
    let content = Bytes::copy_from_slice(content);
    let record = Record {
        key: content.slice(..key_len),
        value: content.slice(key_len..),
        time: Time(i64::from_le_bytes(*time)),
    };
    Some((record, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(key: &[u8], value: &[u8], time: i64) -> Record {
        Record {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            time: Time(time),
        }
    }

    fn round_trip(records: &[Record]) -> Vec<Record> {
        let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
        let mut base = 7;
        let mut out = Vec::new();
        for block in encode(records).unwrap() {
            let header = Header::of(&block, 3, base, 99);
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            assert_eq!(bytes.len(), HEADER);
            assert_eq!(Header::read(&bytes), Ok(header));
            base = header.next();
            out.extend(decode(&header, &block.bytes, &mut decompressor).unwrap());
        }
        out
    }

    proptest! {
        #[test]
        fn records_round_trip(contents in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..3000), any::<i64>()), 1..200)
        ) {
            let records: Vec<Record> = contents.iter().map(|(k, v, t)| record(k, v, *t)).collect();
            prop_assert_eq!(round_trip(&records), records);
        }
    }

    #[test]
    fn the_largest_record_fits_behind_a_nearly_full_frame() {
        let records = [
            record(b"k", &vec![1; FRAME - 18], 0),
            record(b"", &vec![2; MAX_RECORD], 0),
        ];
        assert_eq!(round_trip(&records), records);
    }

    /// These bytes are on disks: they must never change. Compressed bytes may, with the library; so only the header.
    #[test]
    fn the_header_is_frozen() {
        let header = Header {
            partition: 1,
            base: 2,
            newest: Time(3),
            durable: 4,
            count: 5,
            raw: 6,
            stored: 7,
            crc: 8,
        };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            &hex[..96],
            "54576231010000000200000000000000030000000000000004000000000000000500000006000000\
             0700000008000000"
        );
        assert_eq!(bytes[48..], crc32fast::hash(&bytes[..48]).to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let records = [record(b"key", b"value", 1)];
        let block = encode(&records).unwrap().remove(0);
        let mut bytes = Vec::new();
        Header::of(&block, 0, 0, 0).write(&mut bytes);
        bytes.extend_from_slice(&block.bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = Header::read(&damaged).and_then(|h| h.verify(&damaged[HEADER..]));
            assert!(read.is_err(), "bit {bit}");
        }
    }
}
