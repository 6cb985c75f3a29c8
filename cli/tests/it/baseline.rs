//! `trailwarden baseline`: one row out for each row in, and errors that say where.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use crate::program::{command, corpus, run, text};

/// A daily wave of ten days with a jump on the last.
fn wave() -> String {
    let mut csv = String::from("timestamp,value\n");
    for row in 0..2_880 {
        let ripple = f64::from(row * 7_919 % 101) / 50.0;
        let jump = if (2_700..2_703).contains(&row) {
            70.0
        } else {
            0.0
        };
        let angle = f64::from(row % 288) / 288.0 * std::f64::consts::TAU;
        let (day, minute) = (1 + row / 288, row % 288 * 5);
        let value = 50.0 + 20.0 * angle.sin() + ripple + jump;
        writeln!(
            csv,
            "2014-04-{day:02} {:02}:{:02}:00,{value:.4}",
            minute / 60,
            minute % 60
        )
        .unwrap();
    }
    csv
}

/// What the program says to a file with this content.
fn scores(content: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("series.csv");
    std::fs::write(&file, content).unwrap();
    let output = run(&["baseline", file.to_str().unwrap()]);
    let error = text(&output.stderr).replace(folder.path().to_str().unwrap(), "DIR");
    (output.status.code(), text(&output.stdout), error)
}

#[test]
fn every_row_has_a_score_and_keeps_its_text() {
    let input = wave();
    let (code, output, error) = scores(&input);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let mut rows = output.lines();
    assert_eq!(rows.next(), Some("timestamp,value,anomaly_score"));
    let mut best = (0.0, 0);
    let mut count = 0;
    for (number, (row, line)) in rows.zip(input.lines().skip(1)).enumerate() {
        let score: f64 = row.strip_prefix(line).unwrap()[1..].parse().unwrap();
        assert!((0.0..=1.0).contains(&score), "{row}");
        if score > best.0 {
            best = (score, number);
        }
        count += 1;
    }
    assert_eq!((count, output.lines().count()), (2_880, 2_881));
    assert_eq!(best.1, 2_700, "the jump has the highest score, at once");
    assert!(best.0 > 0.5, "{best:?}");
}

#[test]
fn no_row_sees_the_future() {
    let input = wave();
    let (_, whole, _) = scores(&input);
    for rows in [1, 2, 25, 1_000, 2_701] {
        let prefix: Vec<&str> = input.lines().take(rows + 1).collect();
        let (code, output, _) = scores(&(prefix.join("\n") + "\n"));
        assert_eq!(code, Some(0));
        assert!(whole.starts_with(&output), "{rows} rows");
        assert_eq!(output.lines().count(), rows + 1);
    }
}

#[test]
fn mistakes_are_pointed_at() {
    let check = |content: &str, words: &[&str]| {
        let (code, _, error) = scores(content);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.starts_with("error: "), "{error}");
        for word in words {
            assert!(error.contains(word), "{word} is not in\n{error}");
        }
    };
    check(
        "",
        &[
            "`DIR/series.csv` is empty",
            "hint: the first line is `timestamp,value`",
        ],
    );
    check("timestamp,value\n", &["has a header and no rows"]);
    check(
        "2014-04-01 00:00:00,1\n",
        &["line 1: there is no header", "hint:"],
    );
    check(
        "timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,x\n",
        &["line 3: the value `x` is not a number"],
    );
    check(
        "timestamp,value\n2014-04-01 00:00:00,NaN\n",
        &[
            "line 2: the value `NaN` is not a finite number",
            "hint: leave",
        ],
    );
    check(
        "timestamp,value\n2014-04-01 00:00:00,inf\n",
        &["not a finite number"],
    );
    check(
        "timestamp,value\n2014-04-01 00:00:00,\n",
        &["line 2: there is no value"],
    );
    check(
        "timestamp,value\n2014-04-01 00:00:00\n",
        &["line 2: there are 1 columns where 2 are needed"],
    );
    check(
        "timestamp,value\n01.04.2014,1\n",
        &["line 2: `01.04.2014` is not a time", "hint: write times as"],
    );
    check(
        "timestamp,value\n2014-04-02 00:00:00,1\n2014-04-01 00:00:00,2\n",
        &[
            "line 3: `2014-04-01 00:00:00` is before the row above",
            "sort",
        ],
    );
    check(
        "a,b,c\n1,2,3\n",
        &["no columns `timestamp` and `value` among `a`, `b`, `c`"],
    );
    check(
        &format!("timestamp,value\n{}", "9".repeat(100_000)),
        &["longer than 64 KiB"],
    );
    let missing = run(&["baseline", "nowhere.csv"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("cannot read `nowhere.csv`"));
}

#[test]
fn other_forms_are_read() {
    let check = |content: &str, expected: &str| {
        let (code, output, error) = scores(content);
        assert_eq!(code, Some(0), "{error}");
        assert_eq!(output, format!("timestamp,value,anomaly_score\n{expected}"));
    };
    check(
        "\u{feff}Time, Host, Value\r\n1396310400, a, 1e3\r\n",
        "1396310400,1e3,0.000000\n",
    );
    check(
        "when,what\n\"2014-04-01 00:00:00\",\"-5\"\n",
        "2014-04-01 00:00:00,-5,0.000000\n",
    );
    // The end of summer time in local time is worth a warning and no more.
    let (code, output, error) = scores(
        "timestamp,value\n2014-10-26 02:55:00,1\n2014-10-26 02:00:00,1\n2014-10-26 02:00:00,1\n",
    );
    assert_eq!((code, output.lines().count()), (Some(0), 4));
    assert!(
        error.contains("warning: ") && error.contains("time steps back 2 times, first in line 3"),
        "{error}"
    );
}

#[test]
fn a_table_shows_the_worst_rows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("series.csv");
    std::fs::write(&file, wave()).unwrap();
    let output = run(&["baseline", file.to_str().unwrap(), "--format", "table"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].contains("EXPECTED") && lines[1].contains("2014-04-10 09:00:00"),
        "{table}"
    );
    assert!(
        table.contains("2880 rows, ") && table.contains("hint: `--format csv`"),
        "{table}"
    );
    assert_eq!(lines.len(), 1 + 10 + 3, "{table}");
}

#[test]
fn standard_input_streams() {
    let mut child = command()
        .args(["baseline", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(wave().as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 2_881);
}

#[test]
fn all_of_the_public_series_are_scored() {
    let Some(corpus) = corpus() else { return };
    let mut files = 0;
    for folder in std::fs::read_dir(corpus.join("nab/data")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let output = run(&["baseline", path.to_str().unwrap()]);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{}: {}",
                path.display(),
                text(&output.stderr)
            );
            let rows = text(&std::fs::read(&path).unwrap()).lines().count();
            assert_eq!(
                text(&output.stdout).lines().count(),
                rows,
                "{}",
                path.display()
            );
            files += 1;
        }
    }
    assert!(files > 20, "{files}");
}
