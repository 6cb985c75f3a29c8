//! Every YAML example in docs/rules.md is loaded, and run where it has tests.
//!
//! An example is a whole document, or a part of one: `tests:` and `lint-ignore:` belong to the document that they stand
//! behind here, and the parts of a configuration are checked as one.

use crate::program::{run, text};

/// The examples, without their fences.
fn examples() -> Vec<String> {
    let page = include_str!("../../../docs/rules.md");
    let blocks = page.split("```yaml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// A rule whose tests are written for a line of a function.
const LAMBDA: &str = "title: t\nlogsource: {product: aws, service: lambda}\ndetection: {sel: {invocation.status: timeout}, condition: sel}\n";

/// A correlation whose tests are written apart from it.
const SIGN_INS: &str = "title: Failed console sign-in\nname: console_sign_in_failed\nlogsource: {product: aws, service: cloudtrail}\ndetection:\n  selection: {eventName: ConsoleLogin, errorMessage: Failed authentication}\n  condition: selection\n---\ntitle: Many failed console sign-ins from one address\ncorrelation:\n  type: event_count\n  rules: [console_sign_in_failed]\n  group-by: [sourceIPAddress]\n  timespan: 10m\n  condition: {gte: 5}\n";

fn check(name: &str, document: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rule.yml").display().to_string();
    std::fs::write(&file, document).unwrap();
    for command in ["check", "test"] {
        let output = run(&["rule", command, &file]);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{name}: rule {command}\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
}

#[test]
fn every_example_works() {
    let examples = examples();
    assert!(examples.len() >= 9, "{}", examples.len());
    let of = |words: &str| {
        examples
            .iter()
            .find(|e| e.contains(words))
            .unwrap()
            .as_str()
    };
    let mut seen = 0;
    for example in &examples {
        assert!(
            !example.contains('…'),
            "an example that leaves something out cannot be tried:\n{example}"
        );
        let first = example.split(':').next().unwrap();
        let whole = match first {
            "title" | "name" => example.clone(),
            "tests" if example.contains("UpdateLoginProfile") => {
                of("Console password was set").to_owned() + example
            }
            "tests" if example.contains("ConsoleLogin") => SIGN_INS.to_owned() + example,
            "tests" if example.contains("logGroup") => LAMBDA.to_owned() + example,
            "lint-ignore" => of("Console password was set").to_owned() + example,
            "detect" | "rules" => {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("c.yaml").display().to_string();
                std::fs::write(&file, example).unwrap();
                let output = run(&["config", "check", &file]);
                assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
                seen += 1;
                continue;
            }
            other => panic!("nothing is known of examples that begin with `{other}`:\n{example}"),
        };
        check(first, &whole);
        seen += 1;
    }
    assert_eq!(seen, examples.len());
}
