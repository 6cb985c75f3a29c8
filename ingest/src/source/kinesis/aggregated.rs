//! Records of Kinesis that the Kinesis Producer Library has put together.
//!
//! The library packs many user records into one record of a stream. [`read`] tells such a record by its first bytes and
//! its checksum, and gives the user records in it; what lies in the shard keeps its one sequence number, so the place of
//! a user record is that number and its own within it. The format, as AWS describes it (awslabs/amazon-kinesis-producer,
//! aggregation-format.md):
//!
//! ```text
//! F3 89 9A C2 | message of Protocol Buffers | MD5 of the message, 16 bytes
//!   message: 1 partition keys, 2 hash keys, 3 records, each again a message: 1 and 2 numbers of keys, 3 data, 4 tags
//! ```
//!
//! Of all that only `records` and their `data` say anything here. Two fields are read by hand, since a library for
//! Protocol Buffers would bring a compiler for them and copy every record. Nothing is copied and nothing is counted ahead
//! of what is there, so that memory is bounded by the record, of which Kinesis bounds the size.

use md5::{Digest, Md5};

/// With these bytes it begins.
pub const MAGIC: &[u8] = b"\xf3\x89\x9a\xc2";

/// So long is the checksum at its end.
const CHECKSUM: usize = 16;

/// Of a message: the field with its records. Of a record: the field with its data.
const WANTED: u64 = 3;

/// The checksum holds, and what it covers is no message of user records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("put together by the producer library, but its {0}")]
pub struct Malformed(&'static str);

/// The user records in a record of a stream, in their order, each with its data. `None` if it is an ordinary record: it
/// does not begin as an aggregated one does, or what follows is not what its checksum says, as with a record that only
/// begins so by chance.
///
/// # Errors
/// It is an aggregated record, and cannot be taken apart. Then nothing of it is given: half of it would look whole.
pub fn read(data: &[u8]) -> Option<Result<Vec<&[u8]>, Malformed>> {
    let rest = data.strip_prefix(MAGIC)?;
    let (message, checksum) = rest.split_at_checked(rest.len().checked_sub(CHECKSUM)?)?;
    if Md5::digest(message).as_slice() != checksum {
        return None;
    }
    Some(records(message))
}

fn records(message: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut found = Vec::new();
    let mut fields = Fields(message);
    while let Some((number, value)) = fields.next()? {
        if number == WANTED {
            let Some(record) = value else {
                return Err(Malformed("records are no messages"));
            };
            found.push(data_of(record)?);
        }
    }
    Ok(found)
}

/// The data of a user record. Of a field that stands there twice the last holds, as everywhere in this format.
fn data_of(record: &[u8]) -> Result<&[u8], Malformed> {
    let mut data = None;
    let mut fields = Fields(record);
    while let Some((number, value)) = fields.next()? {
        if number == WANTED {
            data = Some(value.ok_or(Malformed("data are no bytes"))?);
        }
    }
    data.ok_or(Malformed("records have no data"))
}

/// A field: its number, and its bytes where it is of bytes.
type Field<'m> = (u64, Option<&'m [u8]>);

/// The fields of a message that are still to be read.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    /// The next field; `None` after the last.
    fn next(&mut self) -> Result<Option<Field<'m>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let value = match key & 7 {
            0 => {
                self.number()?;
                None
            }
            1 => {
                self.bytes(8)?;
                None
            }
            2 => {
                let length = self.number()?;
                Some(self.bytes(length)?)
            }
            5 => {
                self.bytes(4)?;
                None
            }
            _ => return Err(Malformed("fields are of an unknown kind")),
        };
        match key >> 3 {
            0 => Err(Malformed("fields have no number")),
            number => Ok(Some((number, value))),
        }
    }

    /// A number: seven bits a byte, the lowest first, as long as the highest bit is set.
    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed("end is missing"))?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("numbers are too large"))
    }

    fn bytes(&mut self, length: u64) -> Result<&'m [u8], Malformed> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed("end is missing"))?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The format once more, written the other way.
    fn number(mut n: u64, out: &mut Vec<u8>) {
        while n > 0x7f {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    }

    fn field(n: u64, bytes: &[u8], out: &mut Vec<u8>) {
        number(n << 3 | 2, out);
        number(bytes.len() as u64, out);
        out.extend(bytes);
    }

    /// A user record: its key and hash key by number, its data, and tags.
    pub(in crate::source::kinesis) type User =
        (u64, Option<u64>, Vec<u8>, Vec<(String, Option<String>)>);

    pub(in crate::source::kinesis) fn aggregate(keys: &[String], users: &[User]) -> Vec<u8> {
        let mut message = Vec::new();
        keys.iter()
            .for_each(|key| field(1, key.as_bytes(), &mut message));
        field(2, b"170141183460469231731687303715884105728", &mut message);
        for (key, hash_key, data, tags) in users {
            let mut record = Vec::new();
            number(1 << 3, &mut record);
            number(*key, &mut record);
            if let Some(hash_key) = hash_key {
                number(2 << 3, &mut record);
                number(*hash_key, &mut record);
            }
            field(3, data, &mut record);
            for (name, value) in tags {
                let mut tag = Vec::new();
                field(1, name.as_bytes(), &mut tag);
                if let Some(value) = value {
                    field(2, value.as_bytes(), &mut tag);
                }
                field(4, &tag, &mut record);
            }
            field(3, &record, &mut message);
        }
        sealed(&message)
    }

    pub(in crate::source::kinesis) fn sealed(message: &[u8]) -> Vec<u8> {
        [MAGIC, message, Md5::digest(message).as_slice()].concat()
    }

    proptest! {
        #[test]
        fn what_was_put_together_is_taken_apart(
            keys in prop::collection::vec(".{0,20}", 0..4),
            users in prop::collection::vec(
                (any::<u64>(), any::<Option<u64>>(), prop::collection::vec(any::<u8>(), 0..400),
                 prop::collection::vec((".{0,5}", prop::option::of(".{0,5}")), 0..2)),
                0..30,
            ),
        ) {
            let data = aggregate(&keys, &users);
            let expected: Vec<&[u8]> = users.iter().map(|u| u.2.as_slice()).collect();
            prop_assert_eq!(read(&data), Some(Ok(expected)));
        }

        #[test]
        fn what_is_damaged_is_an_ordinary_record(
            users in prop::collection::vec((0_u64..3, Just(None), prop::collection::vec(any::<u8>(), 0..50), Just(Vec::new())), 1..5),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut data = aggregate(&[], &users);
            let at = at.index(data.len());
            data[at] ^= 1 << bit;
            prop_assert_eq!(read(&data), None);
            prop_assert_eq!(read(&data[..at]), None);
        }

        #[test]
        fn any_message_under_a_true_checksum_is_read_within_itself(message in prop::collection::vec(any::<u8>(), 0..60)) {
            let data = sealed(&message);
            if let Some(Ok(found)) = read(&data) {
                prop_assert!(found.iter().map(|d| d.len()).sum::<usize>() <= message.len());
            } else {
                prop_assert!(matches!(read(&data), Some(Err(_))));
            }
        }
    }

    #[test]
    fn as_another_implementation_writes_it() {
        // The example in the documentation of ex_kpl 0.2.0 (hex.pm): one record `data` of the key `partition_key`.
        let data = [
            MAGIC,
            b"\x0a\x0dpartition_key\x1a\x08\x08\x00\x1a\x04data",
            &[
                208, 54, 153, 218, 90, 34, 47, 163, 33, 8, 173, 27, 217, 85, 161, 78,
            ],
        ]
        .concat();
        assert_eq!(read(&data), Some(Ok(vec![&b"data"[..]])));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let check = |message: &[u8], expected: &str| {
            let error = read(&sealed(message)).unwrap().unwrap_err();
            assert_eq!(error.0, expected, "{message:?}");
        };
        check(b"\x1a\x05\x08\x00", "end is missing");
        check(
            b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "end is missing",
        );
        check(b"\x1a", "end is missing");
        check(b"\x18\x01", "records are no messages");
        check(b"\x1a\x02\x08\x00", "records have no data");
        check(b"\x1a\x02\x18\x00", "data are no bytes");
        check(b"\x1b", "fields are of an unknown kind");
        check(b"\x02\x00", "fields have no number");
        check(
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            "numbers are too large",
        );
        // Fields of a later version are passed over.
        assert_eq!(
            read(&sealed(
                b"\x30\x01\x39\0\0\0\0\0\0\0\0\x3d\0\0\0\0\x1a\x03\x1a\x01x"
            )),
            Some(Ok(vec![&b"x"[..]]))
        );
        assert_eq!(read(&sealed(b"")), Some(Ok(vec![])));
        assert_eq!(read(MAGIC), None);
        assert_eq!(read(b"{}"), None);
    }
}
