//! Attacks on the accounts: what is put into CloudTrail, and the rules that ought to see it.
//!
//! [`KINDS`] lists them in the order in which they come; each plans its calls from a second on, compressed
//! into half a minute so that a viewer need not wait. The attackers come from addresses that the organisation
//! never uses, mostly with stolen keys of real principals. What goes wrong inside functions is in `incidents`,
//! the look-alikes are in `decoys`. The titles of the rules are those under `rules/`.

mod identities;
mod resources;

use super::scene::Kind;

/// Every attack on the accounts, in the order in which they come.
pub(crate) const KINDS: [Kind; 19] = [
    Kind {
        name: "root_takeover",
        title: "Root signs in without a second factor and switches the trail off",
        expect: &[
            "Root user was used",
            "Root user signed in without a second factor",
            "CloudTrail was stopped or deleted",
        ],
        plan: identities::root_takeover,
    },
    Kind {
        name: "console_bruteforce",
        title: "A password is guessed on the sign-in page",
        expect: &[
            "Many failed console sign-ins from one address",
            "IAM user signed in to the console without a second factor",
        ],
        plan: identities::console_bruteforce,
    },
    Kind {
        name: "key_backdoor",
        title: "A stolen key makes itself a new administrator with a key of its own",
        expect: &[
            "User was made and armed within minutes",
            "Administrator rights were given to a user, group or role",
            "Access key was created for another user",
            "Console password was set for another user",
        ],
        plan: identities::key_backdoor,
    },
    Kind {
        name: "recon_burst",
        title: "Somebody looks around the account with a stolen key",
        expect: &["Burst of calls that look around the account"],
        plan: identities::recon_burst,
    },
    Kind {
        name: "secrets_theft",
        title: "A function's role, used from outside, reads every secret",
        expect: &["Many secrets were read in a short time"],
        plan: identities::secrets_theft,
    },
    Kind {
        name: "function_backdoor",
        title: "A function is replaced and opened to the world",
        expect: &[
            "Code of a function was changed by hand",
            "Anybody may invoke a function",
            "Function got a public address without authentication",
        ],
        plan: resources::function_backdoor,
    },
    Kind {
        name: "access_denied_burst",
        title: "A stolen session tries what it may do, and is refused again and again",
        expect: &["One identity was refused again and again"],
        plan: identities::access_denied_burst,
    },
    Kind {
        name: "s3_exfil",
        title: "Hundreds of objects are copied out of a bucket",
        expect: &["Objects of a bucket were fetched in bulk"],
        plan: resources::s3_exfil,
    },
    Kind {
        name: "pipeline_key_misuse",
        title: "The deployment's session turns up on a strange host and reaches for a sister account",
        expect: &[
            "Session of a pipeline was used with another tool",
            "Burst of calls that look around the account",
            "Access key was created for another user",
        ],
        plan: identities::pipeline_key_misuse,
    },
    Kind {
        name: "guards_disabled",
        title: "GuardDuty and Config are switched off",
        expect: &[
            "GuardDuty was switched off or blinded",
            "AWS Config, Security Hub or Access Analyzer was switched off",
        ],
        plan: resources::guards_disabled,
    },
    Kind {
        name: "new_ip_for_key",
        title: "The key of an instance turns up at a new address and makes a user",
        expect: &["Credentials of an EC2 instance were used to change identities"],
        plan: identities::new_ip_for_key,
    },
    Kind {
        name: "s3_mass_delete",
        title: "A bucket is emptied",
        expect: &["Objects of a bucket were deleted in bulk"],
        plan: resources::s3_mass_delete,
    },
    Kind {
        name: "snapshot_shared",
        title: "A disk snapshot is shared with a stranger's account",
        expect: &[
            "Snapshot or machine image was shared with another account",
            "Snapshot or machine image was shared with everybody",
        ],
        plan: resources::snapshot_shared,
    },
    Kind {
        name: "bucket_public",
        title: "A bucket is opened to everybody",
        expect: &[
            "Bucket was opened to the world by its policy",
            "Protection against public buckets was removed",
        ],
        plan: resources::bucket_public,
    },
    Kind {
        name: "role_opened",
        title: "A role is opened to a stranger's account and made administrator",
        expect: &[
            "Trust of a role was changed by hand",
            "Administrator rights were given to a user, group or role",
        ],
        plan: identities::role_opened,
    },
    Kind {
        name: "key_destroyed",
        title: "A KMS key is disabled and set to be deleted",
        expect: &["Encryption key was disabled or is to be deleted"],
        plan: resources::key_destroyed,
    },
    Kind {
        name: "logs_deleted",
        title: "Log groups and flow logs are deleted",
        expect: &[
            "Log group or log stream was deleted by hand",
            "Flow logs of a network were deleted",
        ],
        plan: resources::logs_deleted,
    },
    Kind {
        name: "door_opened",
        title: "SSH is opened to the whole internet",
        expect: &["Administration port or database was opened to the world"],
        plan: resources::door_opened,
    },
    Kind {
        name: "instance_takeover",
        title: "Passwords of instances are fetched and their start-up script is changed",
        expect: &[
            "Administrator password of a Windows instance was asked for",
            "Start script of an instance was changed",
        ],
        plan: resources::instance_takeover,
    },
];

#[cfg(test)]
mod tests {
    use crate::demo::traffic::scenarios;

    #[test]
    fn every_rule_that_is_named_is_shipped() {
        let mut folders = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../rules"
        ))];
        let mut shipped = std::collections::BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "yml") {
                    let text = std::fs::read_to_string(path).unwrap();
                    let titles = text.lines().filter_map(|l| l.strip_prefix("title: "));
                    shipped.extend(titles.map(str::to_owned));
                }
            }
        }
        for scenario in scenarios() {
            for title in scenario.expect {
                assert!(shipped.contains(*title), "{}: {title}", scenario.name);
            }
        }
    }
}
