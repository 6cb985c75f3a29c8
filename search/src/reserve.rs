//! A little space that is kept back, so that the index can be made smaller when the disk is full.
//!
//! To remove a split its record must be written first, in two databases and the manifest: on a full disk not even that
//! goes. [`Reserve`] is a file of zeros beside the splits that is given up for it and made again once there is room.

use std::io::Write;
use std::path::{Path, PathBuf};

/// How much is kept back: many times what a removal writes.
pub(crate) const BYTES: u64 = 8 << 20;

/// The file, there or given up.
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// That of an index folder.
    pub(crate) fn of(dir: &Path) -> Reserve {
        Reserve {
            path: dir.join("reserve"),
        }
    }

    /// Makes the file, if it is not there. Tells whether it is.
    pub(crate) fn keep(&self) -> bool {
        if std::fs::metadata(&self.path).is_ok_and(|m| m.len() >= BYTES) {
            return true;
        }
        let make = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&self.path)?;
            let zeros = vec![0; 1 << 20];
            for _ in 0..BYTES >> 20 {
                file.write_all(&zeros)?;
            }
            file.sync_all()
        };
        let made = make();
        if made.is_err() {
            let _ = std::fs::remove_file(&self.path);
        }
        made.is_ok()
    }

    /// Gives the space up. Tells whether there was any.
    pub(crate) fn give(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}
