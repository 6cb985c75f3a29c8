//! `trailwarden verify`: a generated bucket with signed digests is proven, and whatever is done to it is found and named.
//!
//! The generator signs with arithmetic of its own, so that signatures are not made by what checks them. It lies beside
//! the public corpus; without it these tests pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{corpus, count, run, text};

/// Where the last digest of every chain ends.
const END: &str = "2026-03-03T01:00:00Z";

/// A day of one account in two regions, as it lies in a bucket.
fn generated() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<TempDir>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let corpus = corpus()?;
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("python3")
            .arg(corpus.join("../tools/gen_cloudtrail.py"))
            .arg("--templates")
            .arg(corpus.join("events"))
            .arg("--out")
            .arg(folder.path())
            .args(["--events", "1500", "--accounts", "1", "--regions", "2"])
            .args(["--attacks", "0", "--decoys", "0", "--digest"])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        Some(folder)
    });
    folder.as_ref().map(TempDir::path)
}

/// A copy of the bucket that may be changed.
struct Bucket {
    folder: TempDir,
    names: Vec<String>,
}

impl Bucket {
    fn copy(of: &Path) -> Bucket {
        let mut bucket = Bucket {
            folder: tempfile::tempdir().unwrap(),
            names: Vec::new(),
        };
        bucket.gather(of, of);
        bucket.names.sort();
        bucket
    }

    fn gather(&mut self, from: &Path, root: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.gather(&path, root);
                continue;
            }
            let name = path.strip_prefix(root).unwrap();
            let to = self.folder.path().join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, to).unwrap();
            self.names.push(name.to_str().unwrap().to_owned());
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn digests(&self) -> Vec<&str> {
        self.in_folder("/CloudTrail-Digest/us-east-1/")
    }

    fn logs(&self) -> Vec<&str> {
        self.in_folder("/CloudTrail/us-east-1/")
    }

    fn in_folder(&self, folder: &str) -> Vec<&str> {
        let names = self.names.iter().map(String::as_str);
        names
            .filter(|n| n.contains(folder) && n.ends_with(".gz"))
            .collect()
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut content = fs::read(self.path(name)).unwrap();
        edit(&mut content);
        fs::write(self.path(name), content).unwrap();
    }

    /// Changes what is in a gzip file.
    fn edit_content(&self, name: &str, edit: impl FnOnce(String) -> String) {
        let content = inflated(&fs::read(self.path(name)).unwrap()).unwrap();
        let content = edit(String::from_utf8(content).unwrap());
        let mut packed = Vec::new();
        let mut encoder =
            flate2::read::GzEncoder::new(content.as_bytes(), flate2::Compression::fast());
        std::io::copy(&mut encoder, &mut packed).unwrap();
        fs::write(self.path(name), packed).unwrap();
    }

    fn verify(&self, args: &[&str]) -> Output {
        let path = self.folder.path().to_str().unwrap();
        run(&[&["verify", path], args].concat())
    }
}

fn sidecar(digest: &str) -> String {
    digest.replace(".json.gz", ".sig.json")
}

/// One gzip member and nothing behind it.
fn inflated(packed: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = flate2::bufread::GzDecoder::new(packed);
    let mut content = Vec::new();
    std::io::copy(&mut decoder, &mut content).ok()?;
    decoder.into_inner().is_empty().then_some(content)
}

/// Kind and object of every violation in the output.
fn violations(output: &Output) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["type"] == "violation")
        .map(|line| (word(&line["kind"]), word(&line["object"])))
        .collect()
}

/// Does something to the bucket; exactly what it returns is found.
fn check(args: &[&str], tamper: impl FnOnce(&Bucket) -> Vec<(&'static str, String)>) {
    let Some(generated) = generated() else { return };
    let bucket = Bucket::copy(generated);
    let expected = tamper(&bucket);
    let output = bucket.verify(args);
    let found = violations(&output);
    let found: Vec<_> = found.iter().map(|(k, o)| (k.as_str(), o.clone())).collect();
    assert_eq!(found, expected, "{}", text(&output.stdout));
    let code = if expected.is_empty() { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
}

/// One violation.
fn one(kind: &'static str, object: &str) -> Vec<(&'static str, String)> {
    vec![(kind, object.to_owned())]
}

#[test]
fn an_untouched_bucket_is_proven() {
    check(&[], |_| Vec::new());
    check(&["--to", END], |_| Vec::new());
    check(
        &[
            "--from",
            "2026-03-02T06:00:00Z",
            "--to",
            "2026-03-02T18:00:00Z",
        ],
        |_| Vec::new(),
    );
    let Some(generated) = generated() else { return };
    let bucket = Bucket::copy(generated);
    let output = text(&bucket.verify(&["--format", "table"]).stdout);
    let logs = bucket.in_folder("/CloudTrail/").len();
    for words in [
        "us-east-1 gen-trail".to_owned(),
        "25/25".to_owned(),
        format!("Proven: {logs} of {logs} log files hold exactly what CloudTrail delivered."),
        "Whoever can write there can also sign".to_owned(),
    ] {
        assert!(output.contains(&words), "{words} is not in\n{output}");
    }
    let json: Value = serde_json::from_slice(&bucket.verify(&["--format", "json"]).stdout).unwrap();
    assert_eq!(json["logs"]["proven"], logs);
    assert_eq!(json["chains"][1]["digests_proven"], 25);
    assert_eq!(json["violation_count"], 0);
}

#[test]
fn a_folder_may_begin_above_or_below_the_bucket() {
    let Some(generated) = generated() else { return };
    let keys = generated.join("public_keys.json");
    let keys = ["--keys", keys.to_str().unwrap()];
    let below = Bucket::copy(&generated.join("AWSLogs"));
    let output = below.verify(&keys);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let above = Bucket::copy(generated);
    let deep = above.path("mirror/trail-bucket");
    fs::create_dir_all(&deep).unwrap();
    fs::rename(above.path("AWSLogs"), deep.join("AWSLogs")).unwrap();
    let output = above.verify(&keys);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn signatures() {
    let at = |bucket: &Bucket, edit: &dyn Fn(&mut Vec<u8>), kind| {
        let digest = bucket.digests()[12].to_owned();
        bucket.edit(&sidecar(&digest), edit);
        one(kind, &digest)
    };
    // The signature begins behind `{"signature": "`.
    let digit = |c: &mut Vec<u8>| c[20] = if c[20] == b'0' { b'1' } else { b'0' };
    check(&[], |b| at(b, &digit, "bad-signature"));
    check(&[], |b| at(b, &|c| c.clear(), "digest-unsigned"));
    check(&[], |b| {
        let digest = b.digests()[12];
        fs::remove_file(b.path(&sidecar(digest))).unwrap();
        one("digest-unsigned", digest)
    });
}

#[test]
fn keys_that_are_not_those() {
    let Some(generated) = generated() else { return };
    let bucket = Bucket::copy(generated);
    bucket.edit("public_keys.json", |keys| {
        let at = text(keys).find("Fingerprint").unwrap() + 15;
        keys[at] = if keys[at] == b'0' { b'1' } else { b'0' };
    });
    let output = bucket.verify(&[]);
    assert_eq!(output.status.code(), Some(1));
    let found = violations(&output);
    assert!(found.iter().all(|(kind, _)| kind == "unknown-key"));
    assert_eq!(found.len(), 50);
    let check = |keys: &[u8], words: &str| {
        fs::write(bucket.path("public_keys.json"), keys).unwrap();
        let output = bucket.verify(&[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    };
    check(b"{}", "no list of public keys");
    check(b"{\"PublicKeyList\":[]}", "there are no public keys");
    check(
        br#"{"PublicKeyList":[{"Value":"AAAA","Fingerprint":"f"}]}"#,
        "key `f` is no RSA key",
    );
    fs::remove_file(bucket.path("public_keys.json")).unwrap();
    let output = bucket.verify(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("aws cloudtrail list-public-keys"));
}

#[test]
fn digests() {
    check(&[], |b| {
        let digest = b.digests()[12];
        b.edit_content(digest, |c| {
            c.replace("\"SHA-256\",\"newest", "\"SHA-256\", \"newest")
        });
        one("bad-signature", digest)
    });
    check(&[], |b| {
        let digest = b.digests()[12];
        b.edit(digest, |c| c.truncate(c.len() / 2));
        one("digest-unreadable", digest)
    });
    check(&[], |b| {
        let digest = b.digests()[12];
        b.edit(digest, |c| c.extend_from_within(..));
        one("digest-unreadable", digest)
    });
    check(&[], |b| {
        let digest = b.digests()[12];
        let to = digest.replace("_gen-trail_", "_other-trail_");
        fs::rename(b.path(digest), b.path(&to)).unwrap();
        fs::rename(b.path(&sidecar(digest)), b.path(&sidecar(&to))).unwrap();
        one("digest-moved", &to)
    });
    check(&[], |b| {
        let digest = b.digests()[12];
        let to = digest.replace("AWSLogs/", "AWSLogs/o-abcdefgh12/");
        fs::create_dir_all(b.path(&to).parent().unwrap()).unwrap();
        fs::copy(b.path(digest), b.path(&to)).unwrap();
        fs::copy(b.path(&sidecar(digest)), b.path(&sidecar(&to))).unwrap();
        one("digest-moved", &to)
    });
}

#[test]
fn deleted_digests() {
    let delete = |b: &Bucket, numbers: &[usize]| {
        for number in numbers {
            fs::remove_file(b.path(b.digests()[*number])).unwrap();
        }
    };
    for number in [0, 12, 23] {
        check(&[], |b| {
            delete(b, &[number]);
            one("digest-missing", b.digests()[number])
        });
    }
    check(&[], |b| {
        delete(b, &[12, 13]);
        one("digest-missing", b.digests()[13])
    });
    // Linked to what is left, without the key to sign it.
    check(&[], |b| {
        let digests = b.digests();
        delete(b, &[12, 13]);
        b.edit_content(digests[14], |c| c.replace(digests[13], digests[11]));
        one("bad-signature", digests[14])
    });
    // The newest can be missed only by who knows that it should be there.
    check(&[], |b| {
        delete(b, &[24]);
        Vec::new()
    });
    check(&["--to", END], |b| {
        delete(b, &[24]);
        one("ends-early", b.digests()[23])
    });
    check(&[], |b| {
        delete(b, &[22, 23, 24]);
        one("ends-early", b.digests()[21])
    });
    check(&[], |b| {
        delete(b, &(0..25).collect::<Vec<_>>());
        one("no-digests", b.logs()[0])
    });
    // What is older than asked for may have expired.
    check(&["--from", "2026-03-02T06:00:00Z"], |b| {
        delete(b, &[0, 1, 2, 3, 4, 5]);
        Vec::new()
    });
}

#[test]
fn log_files() {
    type Edit = fn(&mut Vec<u8>);
    let edits: [Edit; 5] = [
        |c| c.clear(),
        |c| c.truncate(c.len() - 3),
        |c| c.push(b'\n'),
        |c| c.extend_from_within(..),
        |c| {
            let middle = c.len() / 2;
            c[middle] ^= 1;
        },
    ];
    for edit in edits {
        check(&[], |b| {
            let log = b.logs()[40];
            b.edit(log, edit);
            one("log-changed", log)
        });
    }
    // A record less, and one more.
    check(&[], |b| {
        let log = b.logs()[40];
        b.edit_content(log, |_| "{\"Records\":[]}".to_owned());
        one("log-changed", log)
    });
    check(&[], |b| {
        let log = b.logs()[40];
        b.edit_content(log, |c| c.replace("{\"Records\":[", "{\"Records\":[{},"));
        one("log-changed", log)
    });
    check(&[], |b| {
        let log = b.logs()[40];
        fs::remove_file(b.path(log)).unwrap();
        one("log-missing", log)
    });
    check(&[], |b| {
        let log = b.logs()[40];
        let injected = log.replace(".json.gz", "2.json.gz");
        fs::copy(b.path(log), b.path(&injected)).unwrap();
        one("log-unattested", &injected)
    });
    check(&[], |b| {
        let log = b.logs()[40];
        let timeless = log.replace("us-east-1_2026", "us-east-1_");
        fs::copy(b.path(log), b.path(&timeless)).unwrap();
        one("log-unattested", &timeless)
    });
    check(&[], |b| {
        let last = b.logs().pop().unwrap();
        let file = last.rsplit_once("us-east-1_").unwrap().0;
        fs::copy(
            b.path(last),
            b.path(&format!("{file}us-east-1_20260303T0030Z_new.json.gz")),
        )
        .unwrap();
        // Its digest may be on the way.
        Vec::new()
    });
}

#[test]
fn what_cannot_be_verified() {
    let check = |args: &[&str], words: &str| {
        let output = run(&[&["verify"], args].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    check(
        &["s3:///prefix"],
        "is no address such as s3://BUCKET/PREFIX",
    );
    check(&[&format!("{path}/absent")], "cannot read");
    check(&[path], "there are no public keys");
    check(
        &[path, "--from", "2026-03-02", "--to", "2026-03-01"],
        "is not before",
    );
    check(&[path, "--from", "soon"], "not a time");
    let Some(generated) = generated() else { return };
    let keys = generated.join("public_keys.json");
    let keys = keys.to_str().unwrap();
    check(
        &[path, "--keys", keys],
        "there are no digests and no log files",
    );
    check(&[keys], "is a file");
}

/// Numbers that are the same in every run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn whatever_is_done_is_reported() {
    let Some(generated) = generated() else { return };
    let bucket = Bucket::copy(generated);
    let mut rng = Rng(17);
    let signature = |content: &[u8]| {
        let value: Option<Value> = serde_json::from_slice(content).ok();
        value.map(|v| {
            let digits = v["signature"].as_str().map(str::to_ascii_lowercase);
            (digits, v["signature-algorithm"].clone())
        })
    };
    for round in 0..count("TRAILWARDEN_TAMPERINGS", 40) {
        let name = loop {
            let name = bucket.names[rng.below(bucket.names.len())].as_str();
            if name.starts_with("AWSLogs/") {
                break name;
            }
        };
        let (path, before) = (bucket.path(name), fs::read(bucket.path(name)).unwrap());
        let mut injected = None;
        let (deed, changed) = match rng.below(4) {
            0 => {
                fs::remove_file(&path).unwrap();
                ("deleted", true)
            }
            1 if name.contains("/CloudTrail/") => {
                let file = path.with_file_name(format!("injected-{round}.json.gz"));
                fs::write(&file, &before).unwrap();
                injected = Some(file);
                ("injected beside", true)
            }
            _ => {
                let mut after = before.clone();
                let at = rng.below(after.len());
                after[at] ^= 1 << rng.below(8);
                fs::write(&path, &after).unwrap();
                // Some bytes of a gzip header and the case of a signature's digits mean nothing.
                let same = match name.ends_with(".gz") {
                    true => inflated(&after) == inflated(&before),
                    false => signature(&after) == signature(&before),
                };
                ("flipped a bit of", !same)
            }
        };
        let output = bucket.verify(&["--to", END]);
        let code = if changed { 1 } else { 0 };
        assert_eq!(
            output.status.code(),
            Some(code),
            "{round}: {deed} {name}\n{}",
            text(&output.stdout)
        );
        fs::write(&path, &before).unwrap();
        if let Some(file) = injected {
            fs::remove_file(file).unwrap();
        }
    }
}
