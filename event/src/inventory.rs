//! The inventory: the accounts and functions that are expected, who answers for them and how much they matter.
//!
//! An [`Inventory`] is made of a file by whoever reads it and given to whoever looks something up: intake asks
//! [`Inventory::label`] to name the account of every event and to put labels on it, so that rules, queries and routes can
//! say `labels.environment: production`. Everything else may ask what is expected. It is plain data with an index by
//! account; reading the file, and noticing that it has changed, is not its business. Labels are no part of the record:
//! neither an event's id nor the comparison of repeats sees them.

use std::collections::HashMap;

use serde::Serialize;

use crate::{Event, Str, wildcard};

/// The labels that an inventory gives, in the order in which people read them.
pub const LABELS: [&str; 4] = ["ou", "owner", "environment", "criticality"];

/// An account that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Account {
    /// Its number, 12 digits.
    pub account: Str,
    /// What people call it; becomes `account_name`. Like everything below it is empty where the inventory does not say.
    pub name: Str,
    /// The organisational unit that it belongs to.
    pub ou: Str,
    /// Who answers for it.
    pub owner: Str,
    /// What it is for: `production`, `staging`, ...
    pub environment: Str,
    /// How much it matters.
    pub criticality: Str,
    /// The regions from which events are expected; none: it is not said.
    pub regions: Vec<Str>,
    /// Is it known and not expected to send anything? So are accounts that their organisation calls suspended or closed.
    pub suspended: bool,
}

/// A function that is expected, or several by a pattern. What it does not say is taken from its account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Function {
    /// The account in which it runs, 12 digits.
    pub account: Str,
    /// The region; empty: any.
    pub region: Str,
    /// The function's name, or a pattern with `*` and `?` ([`wildcard`]).
    pub name: Str,
    /// Who answers for it.
    pub owner: Str,
    /// What it is for: `production`, `staging`, ...
    pub environment: Str,
    /// How much it matters.
    pub criticality: Str,
}

/// The accounts and functions that are expected.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    accounts: Vec<Account>,
    functions: Vec<Function>,
    index: HashMap<Str, Entries>,
}

/// What there is of one account, as numbers of the lists.
#[derive(Debug, Clone, Default)]
struct Entries {
    account: Option<usize>,
    /// Functions under their names.
    plain: HashMap<Str, Vec<usize>>,
    /// Functions by patterns, in the order of the file.
    patterns: Vec<usize>,
}

impl Inventory {
    /// An inventory of these; of two accounts with the same number the first holds.
    pub fn new(accounts: Vec<Account>, functions: Vec<Function>) -> Inventory {
        let mut index: HashMap<Str, Entries> = HashMap::new();
        for (number, account) in accounts.iter().enumerate() {
            let entries = index.entry(account.account.clone()).or_default();
            entries.account.get_or_insert(number);
        }
        for (number, function) in functions.iter().enumerate() {
            let entries = index.entry(function.account.clone()).or_default();
            if wildcard::is_plain(&function.name) {
                let plain = entries.plain.entry(function.name.clone());
                plain.or_default().push(number);
            } else {
                entries.patterns.push(number);
            }
        }
        Inventory {
            accounts,
            functions,
            index,
        }
    }

    /// The accounts, in the order of the file.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// The functions, in the order of the file.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.functions.is_empty()
    }

    /// The account with a number.
    pub fn account(&self, account: &str) -> Option<&Account> {
        let entries = self.index.get(account)?;
        entries.account.map(|number| &self.accounts[number])
    }

    /// The entry that a function falls under. One with its name goes before patterns, one with its region before one
    /// for any; among equals the first of the file holds. Most lines of a function do not say in which region it runs
    /// (`region` is empty then): an entry with a region is theirs if no other fits.
    pub fn function(&self, account: &str, region: &str, name: &str) -> Option<&Function> {
        if name.is_empty() {
            return None;
        }
        let entries = self.index.get(account)?;
        let of = |number: &usize| &self.functions[*number];
        let plain = entries.plain.get(name).into_iter().flatten().map(of);
        let fitting = entries.patterns.iter().map(of);
        let fitting = fitting.filter(|f| wildcard::matches(&f.name, name));
        best(plain, region).or_else(|| best(fitting, region))
    }

    /// Gives an event the name of its account and the labels of its function, or of its account where the function's
    /// entry does not say. What the inventory says takes the place of what was there under the same name.
    pub fn label(&self, event: &mut Event) {
        if event.account.is_empty() || self.index.is_empty() {
            return;
        }
        let account = self.account(&event.account);
        let function = self.function(&event.account, &event.region, &event.function);
        if let Some(account) = account.filter(|a| !a.name.is_empty()) {
            event.account_name = account.name.clone();
        }
        let of_account = account.map(|a| [&a.ou, &a.owner, &a.environment, &a.criticality]);
        let of_function = function.map(|f| [&f.owner, &f.environment, &f.criticality]);
        for (number, label) in LABELS.into_iter().enumerate() {
            // A function has no organisational unit of its own.
            let own = of_function.and_then(|f| Some(f[number.checked_sub(1)?]));
            let own = own.filter(|value| !value.is_empty());
            let value = own.or(of_account.map(|a| a[number]));
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                event.labels.insert(label.into(), value.clone());
            }
        }
    }
}

/// The first for the region, else the first for any; where the region is not known, also the only one.
fn best<'a>(
    functions: impl Iterator<Item = &'a Function> + Clone,
    region: &str,
) -> Option<&'a Function> {
    let of_region = |function: &&Function| !function.region.is_empty() && function.region == region;
    let of_any = |function: &&Function| function.region.is_empty();
    let closest = functions
        .clone()
        .find(of_region)
        .or_else(|| functions.clone().find(of_any));
    closest.or_else(|| {
        let mut functions = functions.clone();
        let only = functions.next().filter(|_| region.is_empty())?;
        functions.next().is_none().then_some(only)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROD: &str = "111122223333";
    const OTHER: &str = "012345678901";

    fn inventory() -> Inventory {
        let account = |account: &str, name: &str, environment: &str| Account {
            account: account.into(),
            name: name.into(),
            ou: "Workloads".into(),
            owner: "platform".into(),
            environment: environment.into(),
            ..Account::default()
        };
        let function = |region: &str, name: &str, owner: &str| Function {
            account: PROD.into(),
            region: region.into(),
            name: name.into(),
            owner: owner.into(),
            criticality: "high".into(),
            ..Function::default()
        };
        Inventory::new(
            vec![
                account(PROD, "shop-prod", "production"),
                account(OTHER, "", ""),
            ],
            vec![
                function("", "check*", "any-pattern"),
                function("", "*", "rest"),
                function("eu-west-1", "check*", "west-pattern"),
                function("", "checkout", "any"),
                function("eu-west-1", "checkout", "west"),
                function("eu-west-1", "refund", "only-west"),
                function("eu-west-1", "mail", "mail-west"),
                function("us-east-1", "mail", "mail-east"),
            ],
        )
    }

    #[test]
    fn the_closest_entry_of_a_function_holds() {
        let inventory = inventory();
        let check = |account, region, name, expected: Option<&str>| {
            let found = inventory.function(account, region, name);
            let owner = found.map(|f| f.owner.as_str());
            assert_eq!(owner, expected, "{account} {region} {name}");
        };
        check(PROD, "eu-west-1", "checkout", Some("west"));
        check(PROD, "us-east-1", "checkout", Some("any"));
        check(PROD, "", "checkout", Some("any"));
        check(PROD, "eu-west-1", "checkin", Some("west-pattern"));
        check(PROD, "us-east-1", "checkin", Some("any-pattern"));
        check(PROD, "us-east-1", "invoice", Some("rest"));
        check(PROD, "us-east-1", "", None);
        check(PROD, "", "refund", Some("only-west"));
        check(PROD, "us-east-1", "refund", Some("rest"));
        check(PROD, "us-east-1", "mail", Some("mail-east"));
        check(PROD, "", "mail", Some("rest"));
        check(OTHER, "us-east-1", "checkout", None);
        check("999999999999", "us-east-1", "checkout", None);
    }

    fn labelled(event: Event) -> (String, Vec<String>) {
        let mut event = event;
        inventory().label(&mut event);
        let labels = event.labels.iter().map(|(k, v)| format!("{k}={v}"));
        (event.account_name.to_string(), labels.collect())
    }

    #[test]
    fn an_event_gets_the_labels_of_its_function_then_of_its_account() {
        let event = |account: &str, function: &str| Event {
            account: account.into(),
            function: function.into(),
            region: "eu-west-1".into(),
            ..Event::default()
        };
        let (name, labels) = labelled(event(PROD, ""));
        assert_eq!(name, "shop-prod");
        assert_eq!(
            labels,
            ["environment=production", "ou=Workloads", "owner=platform"]
        );
        let (_, labels) = labelled(event(PROD, "checkout"));
        let expected = [
            "criticality=high",
            "environment=production",
            "ou=Workloads",
            "owner=west",
        ];
        assert_eq!(labels, expected);
        let (name, labels) = labelled(event(OTHER, "checkout"));
        assert_eq!(name, "");
        assert_eq!(labels, ["ou=Workloads", "owner=platform"]);
        for account in ["", "999999999999"] {
            assert_eq!(labelled(event(account, "checkout")).1, [""; 0]);
        }
    }

    #[test]
    fn what_the_inventory_says_takes_the_place_of_what_a_source_says() {
        let (_, labels) = labelled(Event {
            account: PROD.into(),
            labels: [
                ("environment".into(), "sandbox".into()),
                ("team".into(), "x".into()),
            ]
            .into(),
            ..Event::default()
        });
        assert!(labels.contains(&"environment=production".to_owned()));
        assert!(labels.contains(&"team=x".to_owned()));
    }

    #[test]
    fn labels_are_no_part_of_what_an_event_is() {
        let plain = Event {
            account: PROD.into(),
            raw: bytes::Bytes::from_static(b"{\"a\":1}"),
            ..Event::default()
        };
        let mut known = plain.clone();
        inventory().label(&mut known);
        assert_ne!(known.labels, plain.labels);
        assert_eq!(known.id, plain.id);
        assert_eq!(known.content_hash(), plain.content_hash());
        assert_eq!(known.partition_key(), plain.partition_key());
    }
}
