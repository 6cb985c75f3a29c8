//! Searches that people keep, on every database.

use super::*;
use crate::saved::{First, MAX_SEARCHES, NewSearch, SavedError};

fn new(query: &str) -> NewSearch {
    NewSearch {
        query: query.into(),
        from: "-7d".into(),
        columns: vec!["action".into(), "userIdentity.type".into()],
        order: First::Oldest,
        ..NewSearch::default()
    }
}

#[test]
fn a_search_has_one_name_whatever_its_case() {
    for place in places() {
        let b = Bench::new(&place, two_receivers());
        let save = |name: &str, query: &str, overwrite, who: &str, at| {
            b.store
                .save_search(name, &new(query), overwrite, who, Time(at))
        };
        let (first, replaced) =
            save(" Root logins ", "userIdentity.type:Root", false, "ana", 5).unwrap();
        assert_eq!((first.name.as_str(), replaced), ("Root logins", false));
        let refused = save("ROOT LOGINS", "x", false, "bob", 6).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "there is a search of this name already, saved by ana on 1970-01-01 (UTC)"
        );
        assert_eq!(b.store.saved_search("root logins").unwrap().unwrap(), first);
        let (second, replaced) = save("root Logins", "mfa:false", true, "bob", 7).unwrap();
        assert!(replaced);
        assert_eq!(
            (
                second.owner.as_str(),
                second.created,
                second.updated_by.as_str(),
                second.updated
            ),
            ("ana", Time(5), "bob", Time(7)),
            "who saved it first stays"
        );
        save("Äpfel", "\u{0}", false, "ana", 8).unwrap();
        save("a", "", false, "ana", 9).unwrap();
        let b = b.reopen(two_receivers());
        let names: Vec<String> = b
            .store
            .searches()
            .unwrap()
            .into_iter()
            .map(|s| s.name)
            .collect();
        assert_eq!(names, ["a", "root Logins", "Äpfel"]);
        assert_eq!(
            b.store.saved_search("ROOT logins").unwrap(),
            Some(second.clone())
        );
        assert_eq!(b.store.delete_search("Root LOGINS").unwrap(), second);
        assert!(matches!(
            b.store.delete_search("Root logins"),
            Err(StoreError::NotFound("saved search"))
        ));
        assert_eq!(
            b.store.saved_search("äPFEL").unwrap().unwrap().query,
            "\u{0}"
        );
        assert_eq!(b.store.saved_search("root logins").unwrap(), None);
    }
}

#[test]
fn there_is_room_for_so_many() {
    for place in places() {
        let b = Bench::new(&place, two_receivers());
        b.store
            .write("fill", |tx| {
                for i in 0..MAX_SEARCHES {
                    let sql = "INSERT INTO searches (name, data) VALUES (?1, ?2)";
                    let data = r#"{"name":"x","description":"","query":"","from":"","to":"","kind":"events","order":"newest","columns":[],"owner":"","created":"1970-01-01T00:00:00Z","updated_by":"","updated":"1970-01-01T00:00:00Z"}"#;
                    rows::run(tx, sql, &[(&format!("x{i}")).into(), data.into()])?;
                }
                Ok(())
            })
            .unwrap();
        let full = b
            .store
            .save_search("one more", &new(""), false, "ana", Time(0));
        assert!(matches!(full, Err(StoreError::Saved(SavedError::Full))));
        // What is there may still be changed.
        b.store
            .save_search("x7", &new("a"), true, "ana", Time(0))
            .unwrap();
        b.store.delete_search("x8").unwrap();
        b.store
            .save_search("one more", &new(""), false, "ana", Time(0))
            .unwrap();
    }
}

/// Of two who save under one name at the same time, one is told that there is one.
#[test]
fn two_do_not_overwrite_each_other() {
    for place in places() {
        let b = Bench::new(&place, two_receivers());
        let other = match place {
            Place::File => None,
            Place::Server(_) => Some(b.home.open(two_receivers()).unwrap()),
        };
        let stores = [&b.store, other.as_ref().unwrap_or(&b.store)];
        let won: u64 = std::thread::scope(|scope| {
            let saving = stores.map(|store| {
                scope.spawn(|| {
                    let saved = (0..20).map(|i| {
                        let name = format!("s{i}");
                        store.save_search(&name, &new(""), false, "ana", Time(0))
                    });
                    saved
                        .map(|saved| match saved {
                            Ok(_) => 1,
                            Err(StoreError::Saved(SavedError::Exists { .. })) => 0,
                            Err(error) => panic!("{error:?}"),
                        })
                        .sum::<u64>()
                })
            });
            saving.map(|s| s.join().unwrap()).iter().sum()
        });
        assert_eq!(won, 20);
        assert_eq!(count(&b.store, "searches"), 20);
    }
}
