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
    let output = run(&["rule", "test", "--explain", "--format", "text"]);
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
fn advice_fails_only_when_it_is_asked_to() {
    // The shipped rules are as good as we ask others to be.
    let output = run(&["rule", "check", "--strict"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.yml");
    let file = file.to_str().unwrap();
    let rule =
        "title: t\nlogsource: {product: aws}\ndetection: {sel: {eventName: A}, condition: sel}\n";
    std::fs::write(file, rule).unwrap();
    let output = run(&["rule", "check", file]);
    let words = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert!(
        words.contains("warning[level-missing]: rule `") && words.contains("0 errors, 5 warnings"),
        "{words}"
    );
    let output = run(&["rule", "check", "--strict", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("error[level-missing]"));
    let output = run(&["rule", "check", "--format", "json", file]);
    let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &problems[0];
    for key in [
        "severity", "code", "path", "line", "column", "message", "hint",
    ] {
        assert!(!first[key].is_null(), "{key} is not in {first:#}");
    }
    let silent = format!(
        "{rule}lint-ignore: [level-missing, id-missing, description-missing, falsepositives-missing, tests-missing]\n"
    );
    std::fs::write(file, silent).unwrap();
    let output = run(&["rule", "check", "--strict", file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&run(&["rule", "check", "--codes"]).stdout).contains("never-matches"));
}

#[test]
fn coverage_by_attack_and_owasp() {
    let folder = tempfile::tempdir().unwrap();
    let layer = folder.path().join("layer.json");
    let output = run(&["rule", "coverage", "--navigator", layer.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<serde_json::Value> = text(&output.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let of = |kind: &str| {
        lines
            .iter()
            .filter(|l| l["kind"] == kind)
            .collect::<Vec<_>>()
    };
    let guessing: Vec<_> = of("attack")
        .into_iter()
        .filter(|l| l["technique"] == "T1110.001" && l["tactic"] == "credential-access")
        .collect();
    assert_eq!(guessing.len(), 1, "{lines:?}");
    assert_eq!(guessing[0]["technique_name"], "Password Guessing");
    assert_eq!(
        guessing[0]["rules"].as_u64().unwrap() as usize,
        guessing[0]["rule_ids"].as_array().unwrap().len()
    );
    assert_eq!(of("owasp-serverless").len(), 11);
    let gap = of("owasp-serverless")
        .into_iter()
        .find(|l| l["risk"] == "sl4")
        .unwrap();
    assert_eq!(gap["rules"], 0);

    // The layer has the shape of format 4.5: what it demands, of the types it demands, and nothing unknown.
    let layer: serde_json::Value = serde_json::from_slice(&std::fs::read(&layer).unwrap()).unwrap();
    assert!(layer["name"].is_string() && layer["domain"] == "enterprise-attack");
    assert_eq!(layer["versions"]["layer"], "4.5");
    assert!(layer["versions"]["navigator"].is_string());
    let keys = "name versions description domain customDataURL filters sorting layout hideDisabled techniques gradient legendItems showTacticRowBackground tacticRowBackground selectTechniquesAcrossTactics selectSubtechniquesWithParent selectVisibleTechniques metadata links";
    for key in layer.as_object().unwrap().keys() {
        assert!(keys.split(' ').any(|k| k == key), "{key}");
    }
    let keys = "techniqueID tactic comment enabled score color metadata links showSubtechniques";
    let techniques = layer["techniques"].as_array().unwrap();
    assert!(techniques.len() > 20);
    for technique in techniques {
        let id = technique["techniqueID"].as_str().unwrap();
        let (parent, sub) = id.split_once('.').unwrap_or((id, "000"));
        assert!(
            parent.starts_with('T') && parent.len() == 5 && sub.len() == 3,
            "{id}"
        );
        assert!(technique["score"].is_u64() && technique["comment"].is_string());
        for key in technique.as_object().unwrap().keys() {
            assert!(keys.split(' ').any(|k| k == key), "{key}");
        }
        for entry in technique["metadata"].as_array().unwrap() {
            assert!(entry["name"].is_string() && entry["value"].is_string());
        }
    }
    let gradient = &layer["gradient"];
    assert!(gradient["colors"].as_array().unwrap().len() >= 2);
    assert!(gradient["maxValue"].as_u64() > gradient["minValue"].as_u64());

    let table = text(&run(&["rule", "coverage", "--format", "table"]).stdout);
    assert!(
        table.starts_with("ATT&CK TACTIC") && table.contains("SL10"),
        "{table}"
    );
}

/// The table of codes in the documentation is the one of the program.
#[test]
fn every_code_is_documented() {
    let documented = include_str!("../../../docs/rules.md");
    for line in text(&run(&["rule", "check", "--codes"]).stdout).lines() {
        let (code, meaning) = line.split_once(' ').unwrap();
        let row = format!("| `{code}` | {} |", meaning.trim());
        assert!(documented.contains(&row), "not in docs/rules.md: {row}");
    }
}

/// The correlations that the documentation shows pass the tests that stand in them.
#[test]
fn the_documented_correlations_do_what_they_say() {
    let documented = include_str!("../../../docs/rules.md");
    let section = documented
        .split("\n## ")
        .find(|s| s.starts_with("Correlations"));
    let folder = tempfile::tempdir().unwrap();
    let blocks = section.unwrap().split("```yaml\n").skip(1);
    let mut examples = 0;
    for (number, block) in blocks.enumerate() {
        let (example, _) = block.split_once("```").unwrap();
        std::fs::write(folder.path().join(format!("{number}.yml")), example).unwrap();
        examples += 1;
    }
    let output = run(&[
        "rule",
        "test",
        "--format",
        "text",
        folder.path().to_str().unwrap(),
    ]);
    let said = text(&output.stdout);
    assert_eq!(examples, 2);
    assert!(
        said.contains("5 passed, 0 failed"),
        "{said}{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_failing_test_of_a_rule_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.yml");
    let rule = "title: t\nlogsource: {product: aws}\ndetection: {sel: {eventName: A}, condition: sel}\ntests:\n  - {name: wrong, events: [{eventName: B, eventSource: x, eventVersion: '1.08', eventTime: '2026-01-01T00:00:00Z', eventID: e}], expect: match}\n";
    std::fs::write(&file, rule).unwrap();
    let output = run(&[
        "rule",
        "test",
        "--explain",
        "--format",
        "text",
        file.to_str().unwrap(),
    ]);
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

#[test]
fn a_folder_without_an_index_is_no_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for asked in [
        &["search", "x"][..],
        &["timeline", "actor", "x"],
        &["backtest"],
    ] {
        let output = run(&[asked, &["--data", data]].concat());
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{asked:?}: {words}");
        assert!(words.contains("there is no index in"), "{asked:?}: {words}");
    }
}
