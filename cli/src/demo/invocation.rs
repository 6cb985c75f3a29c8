//! The lines that one invocation of a Lambda function leaves in its log.
//!
//! [`Invocation::lines`] writes them in the exact shapes of the Lambda manual: for functions that log text
//! the INIT_START, START, END and REPORT lines, whose fields are parted by tabs, around the lines of a Python
//! or Node program; for functions that log JSON the `platform.*` records around structured lines. How the
//! invocation ends is given; which stream it runs in and what the lines are called is for `functions`.

use event::Time;
use serde_json::{Map, Value, json};

use super::rng::Rng;

/// How an invocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It answers.
    Success,
    /// It throws.
    Error,
    /// It runs until Lambda stops it.
    Timeout,
    /// It needs more memory than it has.
    OutOfMemory,
}

/// In which form a function logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text, by a Python program.
    Python,
    /// Text, by a Node program.
    Node,
    /// JSON, by a Python program.
    Json,
}

/// One invocation.
#[derive(Debug, Clone)]
pub(crate) struct Invocation<'a> {
    /// The name of the function.
    pub(crate) function: &'a str,
    /// In which form it logs.
    pub(crate) format: Format,
    /// Its memory in megabytes.
    pub(crate) memory: i64,
    /// When it starts, in milliseconds since 1970.
    pub(crate) start: i64,
    /// How many milliseconds it takes.
    pub(crate) duration: i64,
    /// How many milliseconds its environment took to start, if it had none.
    pub(crate) init: Option<i64>,
    /// How it ends.
    pub(crate) ending: Ending,
    /// A line that its code writes, apart from the usual ones.
    pub(crate) say: Option<&'a str>,
}

/// What code says when nothing is the matter.
const TALK: [&str; 5] = [
    "parcel located",
    "cache miss",
    "quote computed",
    "handed over to the queue",
    "depot answered",
];
const PYTHON_ERROR: &str = "[ERROR] KeyError: 'parcelId'\nTraceback (most recent call last):\n  File \"/var/task/app.py\", line 58, in handler\n    parcel = event[\"parcelId\"]\n";
const NODE_ERROR: &str = r#"{"errorType":"TypeError","errorMessage":"Cannot read properties of undefined (reading 'depot')","stack":["TypeError: Cannot read properties of undefined (reading 'depot')","    at Runtime.handler (file:///var/task/index.mjs:23:40)"]}"#;
const KILLED: &str = "Error: Runtime exited with error: signal: killed\nRuntime.ExitError\n";

impl Invocation<'_> {
    /// Its lines with their times in milliseconds, in the order in which they are written.
    pub(crate) fn lines(&self, rng: &mut Rng) -> Vec<(i64, String)> {
        let request = rng.uuid();
        let mut lines = Vec::new();
        if let Some(init) = self.init {
            lines.push((self.start - init, self.init_start(self.start - init)));
        }
        lines.push((
            self.start,
            match self.format {
                Format::Json => platform(
                    self.start,
                    "start",
                    json!({"requestId": request, "version": "$LATEST"}),
                ),
                _ => format!("START RequestId: {request} Version: $LATEST\n"),
            },
        ));
        for i in 1..=rng.range(0, 2) {
            let millis = self.start + self.duration * i / 4;
            lines.push((millis, self.line(millis, &request, "INFO", rng.word(&TALK))));
        }
        if let Some(text) = self.say {
            let millis = self.start + self.duration / 2;
            lines.push((millis, self.line(millis, &request, "INFO", text)));
        }
        let end = self.start + self.duration;
        lines.extend(self.failure(end, &request).map(|line| (end, line)));
        self.report(end, &request, rng, &mut lines);
        lines
    }

    fn init_start(&self, millis: i64) -> String {
        let runtime = match self.format {
            Format::Python => "python:3.13.v59",
            Format::Node => "nodejs:22.v58",
            Format::Json => "python:3.13.v60",
        };
        let arn = format!("arn:aws:lambda:us-east-1::runtime:{}", "0".repeat(64));
        match self.format {
            Format::Json => platform(
                millis,
                "initStart",
                json!({"initializationType": "on-demand", "phase": "init",
                "runtimeVersion": runtime, "runtimeVersionArn": arn, "functionName": self.function, "functionVersion": "$LATEST"}),
            ),
            _ => format!("INIT_START Runtime Version: {runtime}\tRuntime Version ARN: {arn}\n"),
        }
    }

    /// A line of the function's own code.
    fn line(&self, millis: i64, request: &str, level: &str, message: &str) -> String {
        let time = text(millis);
        match self.format {
            Format::Python => format!("[{level}]\t{time}\t{request}\t{message}\n"),
            Format::Node => format!("{time}\t{request}\t{level}\t{message}\n"),
            Format::Json => Value::Object(structured(&time, level, message, request)).to_string(),
        }
    }

    /// The line that tells of a failure before the report does.
    fn failure(&self, millis: i64, request: &str) -> Option<String> {
        let time = text(millis);
        match (self.ending, self.format) {
            (Ending::Error, Format::Python) => Some(PYTHON_ERROR.into()),
            (Ending::Error, Format::Node) => Some(format!(
                "{time}\t{request}\tERROR\tInvoke Error \t{NODE_ERROR}\n"
            )),
            (Ending::Error, Format::Json) => {
                let mut line = structured(&time, "ERROR", "'parcelId'", request);
                line.insert("errorType".into(), "KeyError".into());
                line.insert("errorMessage".into(), "'parcelId'".into());
                line.insert(
                    "stackTrace".into(),
                    json!(["  File \"/var/task/app.py\", line 58, in handler\n"]),
                );
                Some(Value::Object(line).to_string())
            }
            (Ending::OutOfMemory, Format::Python | Format::Node) => {
                Some(format!("RequestId: {request} {KILLED}"))
            }
            (Ending::Timeout, Format::Python | Format::Node) => {
                let seconds = self.duration / 1_000;
                Some(format!(
                    "{time} {request} Task timed out after {seconds}.00 seconds\n\n"
                ))
            }
            _ => None,
        }
    }

    /// What comes last: END and REPORT, or `runtimeDone` and `report`.
    fn report(&self, millis: i64, request: &str, rng: &mut Rng, lines: &mut Vec<(i64, String)>) {
        let used = match self.ending {
            Ending::OutOfMemory => self.memory,
            _ => self.memory * rng.range(30, 75) / 100,
        };
        // Lambda measures in hundredths of a millisecond; whole ones would look made up.
        let hundredths = if self.ending == Ending::Timeout {
            0
        } else {
            rng.range(0, 99)
        };
        let (billed, memory) = (self.duration + 1, self.memory);
        if self.format != Format::Json {
            let init = self
                .init
                .map_or(String::new(), |i| format!("Init Duration: {i}.00 ms\t"));
            let status = match self.ending {
                Ending::Timeout => "Status: timeout",
                Ending::OutOfMemory => "Status: error\tError Type: Runtime.ExitError",
                // Lambda's text report does not tell of an exception that the runtime caught.
                Ending::Success | Ending::Error => "",
            };
            lines.push((millis, format!("END RequestId: {request}\n")));
            lines.push((millis + 1, format!(
                "REPORT RequestId: {request}\tDuration: {}.{hundredths:02} ms\tBilled Duration: {billed} ms\tMemory Size: {memory} MB\tMax Memory Used: {used} MB\t{init}{status}\n",
                self.duration
            )));
            return;
        }
        let (status, error) = match self.ending {
            Ending::Success => ("success", None),
            Ending::Error => ("error", Some("KeyError")),
            Ending::Timeout => ("timeout", None),
            Ending::OutOfMemory => ("error", Some("Runtime.OutOfMemory")),
        };
        let taken = (self.duration * 100 + hundredths) as f64 / 100.0;
        let mut record = json!({"requestId": request, "status": status});
        if let Some(error) = error {
            record["errorType"] = error.into();
        }
        record["metrics"] = json!({"durationMs": taken});
        lines.push((millis, platform(millis, "runtimeDone", record.clone())));
        record["metrics"] = json!({"durationMs": taken, "billedDurationMs": billed, "memorySizeMB": memory, "maxMemoryUsedMB": used});
        if let Some(init) = self.init {
            record["metrics"]["initDurationMs"] = init.into();
        }
        lines.push((millis + 1, platform(millis + 1, "report", record)));
    }
}

fn platform(millis: i64, kind: &str, record: Value) -> String {
    json!({"time": text(millis), "type": format!("platform.{kind}"), "record": record}).to_string()
}

fn structured(time: &str, level: &str, message: &str, request: &str) -> Map<String, Value> {
    [
        ("timestamp", time),
        ("level", level),
        ("message", message),
        ("requestId", request),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.into()))
    .collect()
}

/// A time with milliseconds as Lambda writes it.
pub(crate) fn text(millis: i64) -> String {
    let whole = Time::from_seconds(millis.div_euclid(1_000));
    let mut text: String = whole.encode(&mut [0; 27]).into();
    text.pop();
    format!("{text}.{:03}Z", millis.rem_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Format, ending: Ending, expected: &[&str]) {
        let invocation = Invocation {
            function: "label-printer",
            format,
            memory: 512,
            start: 1_764_000_000_250,
            duration: 6_000,
            init: Some(300),
            ending,
            say: Some("hello"),
        };
        let lines = invocation.lines(&mut Rng::new(1));
        assert!(lines.is_sorted_by_key(|(millis, _)| *millis), "{lines:#?}");
        let mut at = 0;
        for line in expected {
            let found = lines[at..].iter().position(|(_, l)| l.contains(line));
            at += found.unwrap_or_else(|| panic!("no `{line}` after line {at} of {lines:#?}")) + 1;
        }
        if format == Format::Json {
            assert!(
                lines
                    .iter()
                    .all(|(_, l)| serde_json::from_str::<Value>(l).is_ok())
            );
        }
    }

    #[test]
    fn text_lines_are_those_of_lambda() {
        check(
            Format::Python,
            Ending::Success,
            &[
                "INIT_START Runtime Version: python:3.13.v59\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:0000",
                "START RequestId: ",
                "[INFO]\t2025-11-24T16:00:03.250Z\t",
                "END RequestId: ",
                " ms\tBilled Duration: 6001 ms\tMemory Size: 512 MB\tMax Memory Used: ",
            ],
        );
        check(
            Format::Node,
            Ending::Error,
            &[
                " Version: $LATEST\n",
                "\tINFO\thello\n",
                "\tERROR\tInvoke Error \t{\"errorType\":\"TypeError\"",
                "END RequestId: ",
                "REPORT RequestId: ",
            ],
        );
        check(
            Format::Node,
            Ending::Timeout,
            &[
                "2025-11-24T16:00:06.250Z ",
                "END",
                "\tDuration: 6000.00 ms\tBilled Duration: 6001 ms\t",
            ],
        );
        check(
            Format::Python,
            Ending::Timeout,
            &[
                " Task timed out after 6.00 seconds\n\n",
                " MB\tInit Duration: 300.00 ms\tStatus: timeout\n",
            ],
        );
        check(
            Format::Python,
            Ending::OutOfMemory,
            &[
                "Runtime exited with error: signal: killed\nRuntime.ExitError\n",
                "Max Memory Used: 512 MB\tInit Duration: 300.00 ms\tStatus: error\tError Type: Runtime.ExitError\n",
            ],
        );
    }

    #[test]
    fn json_lines_are_those_of_lambda() {
        check(
            Format::Json,
            Ending::Success,
            &[
                "platform.initStart",
                "platform.start",
                "\"level\":\"INFO\",\"message\":\"hello\"",
                "platform.runtimeDone",
                "\"type\":\"platform.report\"",
            ],
        );
        check(
            Format::Json,
            Ending::Timeout,
            &[
                "platform.start",
                "\"status\":\"timeout\"",
                "\"durationMs\":6000.0,\"billedDurationMs\":6001",
            ],
        );
        check(
            Format::Json,
            Ending::OutOfMemory,
            &[
                "\"errorType\":\"Runtime.OutOfMemory\"",
                "\"maxMemoryUsedMB\":512",
            ],
        );
        check(
            Format::Json,
            Ending::Error,
            &[
                "\"level\":\"ERROR\"",
                "\"status\":\"error\",\"errorType\":\"KeyError\"",
            ],
        );
    }
}
