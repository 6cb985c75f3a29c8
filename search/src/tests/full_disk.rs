//! A disk that runs full under the index: nothing is lost or doubled, what is due can still go, and all goes on by itself.
//!
//! Needs the right to mount a small disk; where that cannot be had the test says so and passes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::rebuild::{World, append, events, found};
use super::stage::read_all;
use crate::indexer::{IndexError, Indexer, Shelf};
use crate::maintain::{make_room, merge_once};
use crate::reserve::{BYTES, Reserve};

/// A disk of 64 MB over a folder, as long as it lives.
struct Disk(PathBuf);

impl Disk {
    fn over(dir: &Path) -> Option<Disk> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(dir)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|s| s.success())
            .then(|| Disk(dir.to_owned()))
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        for size in [64 << 10, 4 << 10, 1] {
            let block = vec![1_u8; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// One attempt of the stage to publish what is new.
fn attempt(shelf: &Shelf) -> Result<(), IndexError> {
    let mut indexer = Indexer::open(shelf)?;
    let done = indexer.step().and_then(|_| {
        read_all(&mut indexer);
        indexer.publish()
    });
    if done.is_err() {
        let built = indexer.built();
        drop(indexer);
        shelf.sweep(&built);
    }
    done
}

#[test]
fn a_full_disk_loses_and_doubles_nothing_and_room_can_be_made() {
    let world = World::new();
    let Some(disk) = Disk::over(world.dir.path()) else {
        eprintln!("skipped: no small disk can be mounted here");
        return;
    };
    let folders = || {
        std::fs::read_dir(world.index().join("splits"))
            .unwrap()
            .count()
    };
    {
        let bus = world.bus();
        let shelf = world.start(&bus).unwrap();
        let reserve = Reserve::of(&world.index());
        append(&bus, &events(0..300, 100));
        attempt(&shelf).unwrap();
        append(&bus, &events(300..320, 1));
        attempt(&shelf).unwrap();
        append(&bus, &events(320..340, 0));
        assert!(reserve.keep());
        let before = folders();
        disk.fill();

        for _ in 0..5 {
            let error = attempt(&shelf).unwrap_err();
            assert!(error.is_transient(), "{error:?}");
            assert_eq!(folders(), before, "what is built in vain takes no room");
            if let Err(error) = merge_once(&shelf) {
                assert!(error.is_transient(), "{error:?}");
            }
            assert_eq!(folders(), before);
            assert_eq!(found(&shelf), (0..320).collect::<Vec<_>>());
        }
        // Not even the record of a removal can be written, but for what was kept back.
        assert!(crate::removal::expire(&shelf).unwrap_err().is_transient());
        make_room(&shelf, &reserve).unwrap();
        assert!(!world.index().join("reserve").exists());
        assert_eq!(found(&shelf), (300..320).collect::<Vec<_>>());
        assert!(folders() < before);
        // It goes on by itself: with the room that was made, or with what somebody frees.
        disk.free();
        attempt(&shelf).unwrap();
        assert_eq!(found(&shelf), (300..340).collect::<Vec<_>>());
        while merge_once(&shelf).unwrap() {}
        assert!(reserve.keep());
        let kept = std::fs::metadata(world.index().join("reserve")).unwrap();
        assert_eq!(kept.len(), BYTES);
    }
    assert_eq!(world.run(&[Vec::new()]), (300..340).collect::<Vec<_>>());
    assert_eq!(world.tampering(), [""; 0]);
    let bus = world.bus();
    let shelf = world.start(&bus).unwrap();
    let request = super::all("action:RemoveSplit AND details.cause:age");
    let records = shelf.searcher.search(&request).unwrap().hits;
    let gone: u64 = records
        .iter()
        .map(|e| e.to_json()["raw"]["details"]["events"].as_u64().unwrap())
        .sum();
    assert_eq!(gone, 300, "each removal is recorded once");
    drop((shelf, bus));
    drop(disk);
}
