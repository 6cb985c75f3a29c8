//! Zip archives of one form only, so that an archive can be checked to its last byte.
//!
//! Members are stored, not compressed, in the order given, dated 1980-01-01, without comments or extra fields; everything
//! that opens zip files opens them. The same members are always the same bytes: [`read`] takes an archive apart and
//! accepts it only if writing its members again gives it back. A library for zip files would take what it can make
//! sense of, and compression depends on the version of the compressor.

use std::ops::Range;

/// The largest archive, in bytes: offsets have 32 bits.
pub const MAX: usize = 1 << 30;

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const LOCAL_HEAD: usize = 30;

/// Why an archive is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// Not a zip file, or cut off.
    #[error("this is no bundle: no zip file begins here, or it is cut off")]
    Form,
    /// A zip file that was written by something else.
    #[error("the archive is not as it was written, at byte {0}")]
    Changed(usize),
    /// Too large.
    #[error("{0} bytes are more than the {MAX} that a bundle can have")]
    Large(usize),
}

/// Writes members, each with its name.
///
/// # Errors
/// Together they are larger than [`MAX`].
pub fn write<N: AsRef<str>, B: AsRef<[u8]>>(members: &[(N, B)]) -> Result<Vec<u8>, ZipError> {
    let all = members
        .iter()
        .map(|(name, bytes)| bytes.as_ref().len() + 2 * name.as_ref().len() + 2 * LOCAL_HEAD + 64);
    let all: usize = all.sum();
    if all > MAX || members.len() > usize::from(u16::MAX) {
        return Err(ZipError::Large(all));
    }
    let mut out = Vec::with_capacity(all);
    let mut central = Vec::new();
    for (name, bytes) in members {
        let (name, bytes) = (name.as_ref().as_bytes(), bytes.as_ref());
        let at = out.len() as u32;
        // Version 1.0, no flags, stored, midnight of 1980-01-01.
        let mut head = vec![10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        head.extend(crc32fast::hash(bytes).to_le_bytes());
        head.extend((bytes.len() as u32).to_le_bytes());
        head.extend((bytes.len() as u32).to_le_bytes());
        head.extend((name.len() as u16).to_le_bytes());
        head.extend([0, 0]);
        out.extend(LOCAL);
        out.extend(&head);
        out.extend(name);
        out.extend(bytes);
        central.extend(CENTRAL);
        central.extend([10, 0]);
        central.extend(&head);
        central.extend([0; 10]);
        central.extend(at.to_le_bytes());
        central.extend(name);
    }
    let (at, count) = (out.len() as u32, (members.len() as u16).to_le_bytes());
    out.extend(&central);
    out.extend(END);
    out.extend([0; 4]);
    out.extend(count);
    out.extend(count);
    out.extend((central.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    Ok(out)
}

/// The members of an archive, in order.
///
/// # Errors
/// It is not byte for byte what [`write()`] makes of them.
pub fn read(archive: &[u8]) -> Result<Vec<(String, Range<usize>)>, ZipError> {
    let mut members = Vec::new();
    let mut at = 0;
    while archive[at..].starts_with(LOCAL) {
        let head = archive.get(at..at + LOCAL_HEAD).ok_or(ZipError::Form)?;
        let number = |from: usize, bytes: usize| {
            let bytes = head[from..from + bytes].iter().rev();
            bytes.fold(0, |n, b| n << 8 | usize::from(*b))
        };
        let from = at + LOCAL_HEAD + number(26, 2);
        let name = archive.get(at + LOCAL_HEAD..from).ok_or(ZipError::Form)?;
        let to = from + number(18, 4);
        archive.get(from..to).ok_or(ZipError::Form)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| ZipError::Form)?;
        members.push((name, from..to));
        at = to;
    }
    if members.is_empty() {
        return Err(ZipError::Form);
    }
    let parts: Vec<(&str, &[u8])> = members
        .iter()
        .map(|(name, range)| (name.as_str(), &archive[range.clone()]))
        .collect();
    let again = write(&parts)?;
    if again != archive {
        let same = again.iter().zip(archive).take_while(|(a, b)| a == b);
        return Err(ZipError::Changed(same.count()));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let members = [("a.txt", "one\n"), ("b/c.json", "{}"), ("empty", "")];
        let archive = write(&members).unwrap();
        let found = read(&archive).unwrap();
        let found: Vec<(&str, &[u8])> = found
            .iter()
            .map(|(name, range)| (name.as_str(), &archive[range.clone()]))
            .collect();
        let expected = members.map(|(name, text)| (name, text.as_bytes()));
        assert_eq!(found, expected);
        for bit in 0..archive.len() * 8 {
            let mut other = archive.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            match read(&other) {
                Err(_) => {}
                // A bit of a name, in the local and not in the central part, does not pass; content needs its checksum.
                Ok(_) => panic!("bit {bit} does not count"),
            }
        }
        for length in 0..archive.len() {
            assert!(read(&archive[..length]).is_err(), "{length} bytes");
        }
        assert!(read(&[&archive[..], b"x"].concat()).is_err());
    }
}
