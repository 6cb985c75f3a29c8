//! Saved searches: put under a name, listed, deleted.

use event::Time;

use super::db::Tx;
use super::rows::{self, run};
use super::{Store, StoreError};
use crate::saved::{self, MAX_SEARCHES, NewSearch, SavedError, SavedSearch};

impl Store {
    /// All saved searches, in the order of their names.
    pub fn searches(&self) -> Result<Vec<SavedSearch>, StoreError> {
        let mut searches = self.read("list saved searches", |tx| {
            rows::all(tx, "SELECT data FROM searches", &[], rows::saved_search)
        })?;
        // Databases differ in how they sort.
        searches.sort_by_cached_key(|search| saved::key(&search.name));
        Ok(searches)
    }

    /// The search of this name, whatever the case.
    pub fn saved_search(&self, name: &str) -> Result<Option<SavedSearch>, StoreError> {
        let key = saved::key(name.trim());
        self.read("read a saved search", |tx| load(tx, &key))
    }

    /// Keeps a search under a name. Where there is one of this name it takes its place, if that is what `overwrite` says;
    /// its first owner stays. Tells whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Saved`] if it may not be kept: for its name, its length, one of the same name, or want of room.
    pub fn save_search(
        &self,
        name: &str,
        new: &NewSearch,
        overwrite: bool,
        who: &str,
        now: Time,
    ) -> Result<(SavedSearch, bool), StoreError> {
        let mut search = saved::check(name, new, who, now)?;
        let key = saved::key(&search.name);
        self.write("save a search", |tx| {
            let before = load(tx, &key)?;
            match &before {
                Some(there) if !overwrite => {
                    return Err(StoreError::Saved(SavedError::Exists {
                        owner: there.updated_by.clone(),
                        updated: there.updated,
                    }));
                }
                Some(there) => {
                    search.owner = there.owner.clone();
                    search.created = there.created;
                }
                None => {
                    let sql = "SELECT COUNT(*) FROM searches";
                    let kept = rows::all(tx, sql, &[], |r| r.get::<i64>(0))?;
                    if kept.first().is_some_and(|n| *n >= MAX_SEARCHES as i64) {
                        return Err(StoreError::Saved(SavedError::Full));
                    }
                }
            }
            let data = serde_json::to_string(&search).expect("texts and times");
            let sql = "INSERT INTO searches (name, data) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET data = ?2";
            run(tx, sql, &[(&key).into(), (&data).into()])?;
            Ok((search, before.is_some()))
        })
    }

    /// Forgets the search of this name. Gives what it was.
    pub fn delete_search(&self, name: &str) -> Result<SavedSearch, StoreError> {
        let key = saved::key(name.trim());
        self.write("delete a saved search", |tx| {
            let search = load(tx, &key)?.ok_or(StoreError::NotFound("saved search"))?;
            run(tx, "DELETE FROM searches WHERE name = ?1", &[(&key).into()])?;
            Ok(search)
        })
    }
}

fn load(tx: &Tx<'_>, key: &String) -> Result<Option<SavedSearch>, StoreError> {
    let sql = "SELECT data FROM searches WHERE name = ?1";
    Ok(rows::all(tx, sql, &[key.into()], rows::saved_search)?.pop())
}
