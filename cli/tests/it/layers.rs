//! The house keeps its floors: a crate depends only on lower ones, and crates of floor 2 never on one another.

use std::process::Command;

const FLOORS: [(&str, u8); 8] = [
    ("event", 0),
    ("bus", 1),
    ("ingest", 2),
    ("detect", 2),
    ("search", 2),
    ("alerting", 2),
    ("console", 3),
    ("cli", 4),
];

#[test]
fn crates_depend_only_on_lower_floors() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
            "--manifest-path",
            manifest,
        ])
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let floor = |name: &str| FLOORS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(
        packages.len(),
        FLOORS.len(),
        "a crate is missing from FLOORS"
    );
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let own = floor(name).unwrap_or_else(|| panic!("`{name}` has no floor"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            if let Some(other_floor) = floor(other) {
                assert!(
                    other_floor < own || other == name,
                    "`{name}` (floor {own}) depends on `{other}` (floor {other_floor})"
                );
            }
        }
    }
}
