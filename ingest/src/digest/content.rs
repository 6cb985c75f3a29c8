//! The content of an object as digests mean it: what comes out of one gzip member, to the last byte.
//!
//! Hashes in digests are of the uncompressed content. Content of any size passes through a small buffer. Whatever
//! follows the member is refused: other readers would take a second member for a part of the log, and no hash would
//! tell. An object that is not compressed, as some tools leave it after a download, is its own content.

use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use crate::decode::{GZIP, in_units, is_damage, read_up_to};

/// A SHA-256.
pub(super) type Hash = [u8; 32];

const BUFFER: usize = 64 << 10;

/// Why there is no content.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentError {
    /// The object is not what it should be.
    #[error("gzip: {0}")]
    Gzip(String),
    /// Something follows the compressed content.
    #[error("bytes follow the compressed content")]
    Trailing,
    /// The content is larger than what is taken.
    #[error("decompressed size passed {}", in_units(*.0))]
    TooLarge(u64),
    /// Reading failed.
    #[error(transparent)]
    Read(std::io::Error),
}

/// The SHA-256 of the content.
pub(super) fn sha256(input: impl Read, limit: u64) -> Result<Hash, ContentError> {
    let mut hash = Sha256::new();
    pass(input, limit, &mut |piece| hash.update(piece))?;
    Ok(hash.finalize().into())
}

/// The whole content.
pub(super) fn whole(input: impl Read, limit: u64) -> Result<Vec<u8>, ContentError> {
    let mut content = Vec::new();
    pass(input, limit, &mut |piece| content.extend_from_slice(piece))?;
    Ok(content)
}

fn pass(mut input: impl Read, limit: u64, each: &mut dyn FnMut(&[u8])) -> Result<(), ContentError> {
    let mut head = [0; 2];
    let got = read_up_to(&mut input, &mut head).map_err(ContentError::Read)?;
    let again = Cursor::new(head).take(got as u64).chain(input);
    if &head[..got] != GZIP {
        return copy(again, limit, each).map_err(|e| e.unwrap_or_else(ContentError::Read));
    }
    let mut decoder = GzDecoder::new(BufReader::with_capacity(BUFFER, again));
    copy(&mut decoder, limit, each).map_err(|e| {
        e.unwrap_or_else(|e| match is_damage(&e) {
            true => ContentError::Gzip(e.to_string()),
            false => ContentError::Read(e),
        })
    })?;
    let rest = decoder.get_mut().fill_buf().map_err(ContentError::Read)?;
    match rest.is_empty() {
        true => Ok(()),
        false => Err(ContentError::Trailing),
    }
}

/// Either the error of reading, which is still to be told apart, or the final one.
type Copied = Result<(), Result<ContentError, std::io::Error>>;

fn copy(mut input: impl Read, limit: u64, each: &mut dyn FnMut(&[u8])) -> Copied {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                total += n as u64;
                if total > limit {
                    return Err(Ok(ContentError::TooLarge(limit)));
                }
                each(&buffer[..n]);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Err(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn check(object: &[u8], expected: Result<&[u8], &str>) {
        let expected = expected.map(<[u8]>::to_vec).map_err(str::to_owned);
        let found = whole(object, 100).map_err(|e| e.to_string());
        assert_eq!(found, expected);
        let hash = sha256(object, 100).map_err(|e| e.to_string());
        assert_eq!(hash, expected.map(|content| Sha256::digest(content).into()));
    }

    #[test]
    fn one_member_to_its_last_byte() {
        let good = gzip(b"content");
        check(&good, Ok(b"content"));
        check(b"content", Ok(b"content"));
        check(b"", Ok(b""));
        check(b"\x1f", Ok(b"\x1f"));
        let follows = Err("bytes follow the compressed content");
        check(&[&good[..], &good].concat(), follows);
        check(&[&good[..], b"\0"].concat(), follows);
        check(
            &gzip(&[b'x'; 101]),
            Err("decompressed size passed 100 bytes"),
        );
    }

    #[test]
    fn damage() {
        let good = gzip(b"content");
        for end in 2..good.len() {
            let error = whole(&good[..end], 100).unwrap_err();
            assert!(matches!(error, ContentError::Gzip(_)), "{end}: {error}");
        }
        let mut bad = good.clone();
        bad[good.len() - 5] ^= 1;
        assert!(matches!(whole(&bad[..], 100), Err(ContentError::Gzip(_))));
    }
}
