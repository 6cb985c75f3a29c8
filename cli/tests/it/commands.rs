//! The small commands.

use crate::program::{run, text};

#[test]
fn help_teaches() {
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    for word in [
        "demo",
        "run",
        "hunt",
        "search",
        "rule",
        "baseline",
        "config",
        "dead-letters",
        "doctor",
        "completions",
    ] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    for command in ["demo", "run", "hunt", "search", "baseline"] {
        let help = text(&run(&[command, "--help"]).stdout);
        assert!(
            help.contains("trailwarden") || help.contains("http://"),
            "{command} has no examples\n{help}"
        );
    }
}

#[test]
fn the_shipped_rules_are_good_and_pass_their_tests() {
    let output = run(&["rule", "check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let output = run(&["rule", "test", "--explain"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(
        text(&output.stdout).contains(" 0 failed"),
        "{}",
        text(&output.stdout)
    );
    let rules = text(&run(&["rule", "list"]).stdout).lines().count();
    assert!(rules >= 20, "{rules}");
}

#[test]
fn a_bad_rule_is_pointed_at() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yml");
    std::fs::write(&file, "title: t\nlogsource: {product: aws}\ndetection:\n    sel:\n        ip|cdir: 10.0.0.0/8\n    condition: sel\n").unwrap();
    let output = run(&["rule", "check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stdout);
    assert!(
        words.contains("bad.yml:5:12") && words.contains("hint: did you mean `cidr`?"),
        "{words}"
    );
    let output = run(&[
        "hunt",
        folder.path().to_str().unwrap(),
        "--rules",
        file.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `cidr`?"));
}

#[test]
fn a_failing_test_of_a_rule_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.yml");
    let rule = "title: t\nlogsource: {product: aws}\ndetection: {sel: {eventName: A}, condition: sel}\ntests:\n  - {name: wrong, events: [{eventName: B, eventSource: x, eventVersion: '1.08', eventTime: '2026-01-01T00:00:00Z', eventID: e}], expect: match}\n";
    std::fs::write(&file, rule).unwrap();
    let output = run(&["rule", "test", "--explain", file.to_str().unwrap()]);
    let words = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("failed: t / wrong")
            && words.contains("sel: eventName: \"A\"")
            && words.contains("(event: B)"),
        "{words}"
    );
}

#[test]
fn configurations_are_checked_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    std::fs::write(&file, run(&["config", "reference"]).stdout).unwrap();
    assert_eq!(
        run(&["config", "check", file.to_str().unwrap()])
            .status
            .code(),
        Some(0)
    );
    for (text_of_file, words) in [
        ("listen_port: 1\n", "listen_port"),
        ("listen: 0.0.0.0:7171\n", "--insecure-listen"),
        ("detect: {lateness_seconds: soon}\n", "lateness_seconds"),
        (
            "search: {retention_days: 0}\n",
            "retention_days must be at least 1",
        ),
        ("alerting: {route: {receiver: nobody}}\n", "nobody"),
        ("log: {level: 'x=y=z'}\n", "log.level"),
    ] {
        std::fs::write(&file, text_of_file).unwrap();
        let output = run(&["config", "check", file.to_str().unwrap()]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text_of_file}: {error}");
        assert!(
            error.contains(words) && !error.contains("panicked"),
            "{text_of_file}: {error}"
        );
    }
}

#[test]
fn completions_and_passwords() {
    assert!(text(&run(&["completions", "bash"]).stdout).contains("trailwarden"));
    let mut child = crate::program::command()
        .arg("hash-password")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"correct horse\n").unwrap();
    assert!(text(&child.wait_with_output().unwrap().stdout).starts_with("$argon2id$"));
}

#[test]
fn the_doctor_on_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("none");
    let output = run(&["doctor", "--data", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("ok    rules"));
}
