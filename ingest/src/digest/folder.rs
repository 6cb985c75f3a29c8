//! Objects of a bucket that lie on disk, as a download or a mirror leaves them.
//!
//! A file has no user metadata, so the signature of the digest `X.json.gz` is read from `X.sig.json` beside it:
//! `{"signature": "…", "signature-algorithm": "SHA256withRSA"}`. Digests name objects by bucket and key, and the folder
//! may begin above or below where the bucket does. [`Folder::open`] therefore looks at all digests: by how much the
//! path of each differs from the key in it, and what most of them agree on for a bucket holds for all. A digest that
//! disagrees was moved. Links are not followed, and hidden files are left out, as everywhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::content;
use super::document::Document;
use super::name;
use super::{DIGEST_BYTES, Metadata, Object, Objects};

/// Folders nested deeper are not entered.
const MAX_DEPTH: usize = 64;

/// A sidecar holds one signature.
const SIDECAR_BYTES: u64 = 64 << 10;

/// A folder with objects of one or more buckets.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    names: Vec<String>,
    mounts: BTreeMap<String, Mount>,
}

/// How paths below the folder and keys of a bucket correspond: they are the same behind these beginnings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Mount {
    path: String,
    key: String,
}

impl Folder {
    /// Looks through a folder and the digests in it.
    pub fn open(root: &Path) -> io::Result<Folder> {
        let mut names = Vec::new();
        collect(root, String::new(), 0, &mut names)?;
        names.sort();
        let mut folder = Folder {
            root: root.to_owned(),
            names,
            mounts: BTreeMap::new(),
        };
        folder.mounts = folder.agree()?;
        Ok(folder)
    }

    /// What most digests of each bucket say about where they lie.
    fn agree(&self) -> io::Result<BTreeMap<String, Mount>> {
        let mut votes: BTreeMap<String, BTreeMap<Mount, u64>> = BTreeMap::new();
        for name in self.names.iter().filter(|n| is_digest(n)) {
            let Some(object) = self.get(name)? else {
                continue;
            };
            // What cannot be read has no vote; verification meets it again.
            let Ok(content) = content::whole(object.content, DIGEST_BYTES) else {
                continue;
            };
            if let Ok(document) = Document::parse(&content) {
                let of_bucket = votes.entry(document.bucket).or_default();
                *of_bucket.entry(Mount::of(name, &document.key)).or_default() += 1;
            }
        }
        let winner = |counts: BTreeMap<Mount, u64>| {
            counts
                .into_iter()
                .max_by(|(a, m), (b, n)| m.cmp(n).then(b.cmp(a)))
                .map(|(mount, _)| mount)
        };
        let winners = votes
            .into_iter()
            .filter_map(|(bucket, counts)| Some((bucket, winner(counts)?)));
        Ok(winners.collect())
    }

    fn metadata(&self, name: &str) -> io::Result<Metadata> {
        let ends = [".json.gz", ".gz", ""];
        for stem in ends.iter().filter_map(|end| name.strip_suffix(end)) {
            let path = self.root.join(format!("{stem}.sig.json"));
            let file = match File::open(path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let mut text = String::new();
            return Ok(match file.take(SIDECAR_BYTES).read_to_string(&mut text) {
                Ok(_) => serde_json::from_str(&text).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => Metadata::default(),
                Err(e) => return Err(e),
            });
        }
        Ok(Metadata::default())
    }
}

impl Objects for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.clone())
    }

    fn get(&self, name: &str) -> io::Result<Option<Object<'_>>> {
        // A key in a digest may be anything, also a way out of the folder.
        if self
            .names
            .binary_search_by(|n| n.as_str().cmp(name))
            .is_err()
        {
            return Ok(None);
        }
        let content: Box<dyn Read> = match File::open(self.root.join(name)) {
            Ok(file) => Box::new(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let metadata = match is_digest(name) {
            true => self.metadata(name)?,
            false => Metadata::default(),
        };
        Ok(Some(Object { content, metadata }))
    }

    fn locate(&self, bucket: &str, key: &str) -> Option<String> {
        self.mounts.get(bucket)?.path_of(key)
    }
}

impl Mount {
    /// What is left of a path and a key when their common end is taken away.
    fn of(path: &str, key: &str) -> Mount {
        let same = path
            .rsplit('/')
            .zip(key.rsplit('/'))
            .take_while(|(a, b)| a == b)
            .count();
        let head = |text: &str| {
            let parts: Vec<&str> = text.split('/').collect();
            parts[..parts.len() - same].join("/")
        };
        Mount {
            path: head(path),
            key: head(key),
        }
    }

    fn path_of(&self, key: &str) -> Option<String> {
        let rest = match self.key.as_str() {
            "" => key,
            head => key.strip_prefix(head)?.strip_prefix('/')?,
        };
        Some(match self.path.as_str() {
            "" => rest.to_owned(),
            head => format!("{head}/{rest}"),
        })
    }
}

fn is_digest(name: &str) -> bool {
    name::classify(name).is_some_and(|named| named.digest)
}

/// All regular files below `folder`, by their path with `/` between its parts; no sidecars of digests.
fn collect(folder: &Path, prefix: String, depth: usize, names: &mut Vec<String>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with('.') {
            continue;
        }
        let name = match prefix.as_str() {
            "" => file,
            prefix => format!("{prefix}/{file}"),
        };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), name, depth + 1, names)?;
        } else if kind.is_file() && !(name.ends_with(".sig.json") && is_digest(&name)) {
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_keys() {
        let check = |path: &str, key: &str, expected: (&str, &str)| {
            let mount = Mount::of(path, key);
            assert_eq!((mount.path.as_str(), mount.key.as_str()), expected);
            assert_eq!(mount.path_of(key).as_deref(), Some(path));
        };
        check("AWSLogs/1/x", "AWSLogs/1/x", ("", ""));
        check("dump/b/AWSLogs/1/x", "AWSLogs/1/x", ("dump/b", ""));
        check("1/x", "p/AWSLogs/1/x", ("", "p/AWSLogs"));
        check("d/1/x", "p/1/x", ("d", "p"));
        assert_eq!(Mount::of("renamed", "x").path_of("x"), None);
        let mount = Mount::of("1/x", "p/AWSLogs/1/x");
        assert_eq!(mount.path_of("p/AWSLogs"), None);
        assert_eq!(mount.path_of("p/AWSLogs2/1/x"), None);
    }
}
