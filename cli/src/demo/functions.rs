//! Function logs: [`Functions`] invokes eight Lambda functions and writes the lines that each leaves.
//!
//! Four functions log text (START, END and REPORT lines around those of Python or Node), four log JSON
//! (`platform.*` records around structured lines), in the exact shapes of the Lambda manual: fields of a
//! REPORT line are parted by tabs. An invocation runs in a log stream that is free, or makes a new one, which
//! is a cold start. [`Functions::due`] packs the lines of a second into CloudWatch Logs subscription payloads,
//! one for each stream. What a function returns, and whether anybody calls it, is decided by the caller.

use std::collections::BTreeMap;

use event::Time;
use serde_json::{Map, Value, json};

use super::org::{Account, FUNCTIONS, Organisation};
use super::rng::Rng;

/// A log stream that was silent for so long is not written to again.
const IDLE_MILLIS: i64 = 600_000;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Python,
    Node,
    Json,
}

#[derive(Debug)]
struct Function {
    name: &'static str,
    format: Format,
    memory: i64,
    /// Of a usual invocation.
    millis: i64,
    timeout: i64,
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    name: String,
    busy_until: i64,
}

#[derive(Debug)]
struct Line {
    stream: (usize, String),
    millis: i64,
    id: String,
    message: String,
}

/// The functions of the production account.
#[derive(Debug)]
pub(crate) struct Functions {
    account: Account,
    functions: Vec<Function>,
    /// Lines that are still to come, by the second in which they are written.
    planned: BTreeMap<i64, Vec<Line>>,
    written: u64,
    rng: Rng,
}

/// One invocation, before it is written.
struct Run<'a> {
    function: usize,
    stream: String,
    request: String,
    start: i64,
    lines: Vec<Line>,
    of: &'a mut Functions,
}

impl Functions {
    /// The functions of `org`, with chances of their own.
    pub(crate) fn new(org: &Organisation, rng: Rng) -> Functions {
        let settings = [
            (Format::Json, 512, 45, 10),
            (Format::Node, 256, 60, 6),
            (Format::Python, 1024, 220, 15),
            (Format::Json, 1024, 310, 30),
            (Format::Python, 512, 150, 10),
            (Format::Json, 256, 90, 10),
            (Format::Node, 512, 130, 6),
            (Format::Json, 256, 35, 5),
        ];
        let functions =
            FUNCTIONS
                .iter()
                .zip(settings)
                .map(|(name, (format, memory, millis, timeout))| Function {
                    name,
                    format,
                    memory,
                    millis,
                    timeout: timeout * 1_000,
                    streams: Vec::new(),
                });
        Functions {
            account: org.accounts[0].clone(),
            functions: functions.collect(),
            planned: BTreeMap::new(),
            written: 0,
            rng,
        }
    }

    /// The name of a function.
    pub(crate) fn name(&self, function: usize) -> &'static str {
        self.functions[function].name
    }

    /// How long a function may run, in milliseconds.
    pub(crate) fn timeout(&self, function: usize) -> i64 {
        self.functions[function].timeout
    }

    /// How many lines are still to come or were handed out.
    pub(crate) fn lines(&self) -> u64 {
        self.written
    }

    /// An ordinary invocation at a millisecond: of a function that is often called, which rarely fails.
    pub(crate) fn ordinary(&mut self, millis: i64) {
        let function = self.rng.popular(self.functions.len());
        let ending = match self.rng.range(0, 9_999) {
            0..=19 => Ending::Error,
            20 => Ending::Timeout,
            _ => Ending::Success,
        };
        self.invoke(function, millis, ending, None);
    }

    /// Invokes a function. `say` is a line that its code writes. Gives the ids of the lines that tell of it: the
    /// last one, and the one that was said.
    pub(crate) fn invoke(
        &mut self,
        function: usize,
        millis: i64,
        ending: Ending,
        say: Option<&str>,
    ) -> Vec<String> {
        let usual = &self.functions[function];
        let (timeout, usual, format) = (usual.timeout, usual.millis, usual.format);
        let spread = usual * (50 + self.rng.range(0, 60) + self.rng.range(0, 60)) / 100;
        let duration = if ending == Ending::Timeout {
            timeout
        } else {
            spread.min(timeout - 1)
        };
        let (stream, init) = self.stream(function, millis, duration);
        let mut run = Run {
            function,
            stream,
            request: self.rng.uuid(),
            start: millis,
            lines: Vec::new(),
            of: self,
        };
        run.begin(format, init);
        let talk = [
            "parcel located",
            "cache miss",
            "quote computed",
            "handed over to the queue",
            "depot answered",
        ];
        for i in 0..run.of.rng.range(0, 2) {
            let word = run.of.rng.word(&talk);
            run.say(format, millis + duration * (i + 1) / 4, "INFO", word, None);
        }
        let mut told = Vec::new();
        if let Some(text) = say {
            told.push(run.say(format, millis + duration / 2, "INFO", text, None));
        }
        told.push(run.end(format, millis + duration, duration, ending, init));
        let lines = run.lines;
        for line in lines {
            self.planned
                .entry(line.millis.div_euclid(1_000))
                .or_default()
                .push(line);
        }
        told
    }

    /// A stream that is free, or a new one with the milliseconds it takes to start.
    fn stream(&mut self, function: usize, millis: i64, duration: i64) -> (String, Option<i64>) {
        let streams = &mut self.functions[function].streams;
        streams.retain(|s| s.busy_until > millis - IDLE_MILLIS);
        let until = millis + duration + 5;
        if let Some(free) = streams.iter_mut().find(|s| s.busy_until <= millis) {
            free.busy_until = until;
            return (free.name.clone(), None);
        }
        let day = &text(millis)[..10].replace('-', "/");
        let name = format!("{day}/[$LATEST]{}", self.rng.hex(32));
        streams.push(Stream {
            name: name.clone(),
            busy_until: until,
        });
        (name, Some(self.rng.range(150, 900)))
    }

    /// The payloads with the lines of one second.
    pub(crate) fn due(&mut self, second: i64) -> Vec<Vec<u8>> {
        let later = self.planned.split_off(&(second + 1));
        let due = std::mem::replace(&mut self.planned, later);
        let mut streams: BTreeMap<(usize, String), Vec<Line>> = BTreeMap::new();
        for line in due.into_values().flatten() {
            streams.entry(line.stream.clone()).or_default().push(line);
        }
        streams
            .into_iter()
            .map(|((function, stream), mut lines)| {
                lines.sort_by(|a, b| (a.millis, &a.id).cmp(&(b.millis, &b.id)));
                let events: Vec<Value> = lines
                    .into_iter()
                    .map(|l| json!({"id": l.id, "timestamp": l.millis, "message": l.message}))
                    .collect();
                json!({"messageType": "DATA_MESSAGE", "owner": self.account.id,
                    "logGroup": format!("/aws/lambda/{}", self.functions[function].name), "logStream": stream,
                    "subscriptionFilters": ["to-trailwarden"], "logEvents": events})
                .to_string()
                .into_bytes()
            })
            .collect()
    }
}

impl Run<'_> {
    fn write(&mut self, millis: i64, message: String) -> String {
        self.of.written += 1;
        let id = format!("3{millis:013}{:042}", self.of.written);
        self.lines.push(Line {
            stream: (self.function, self.stream.clone()),
            millis,
            id: id.clone(),
            message,
        });
        id
    }

    fn platform(&mut self, millis: i64, kind: &str, record: Value) -> String {
        self.write(
            millis,
            json!({"time": text(millis), "type": format!("platform.{kind}"), "record": record})
                .to_string(),
        )
    }

    fn begin(&mut self, format: Format, init: Option<i64>) {
        let (start, request) = (self.start, self.request.clone());
        let runtime = match format {
            Format::Python => "python:3.13.v59",
            Format::Node => "nodejs:22.v58",
            Format::Json => "python:3.13.v60",
        };
        let runtime_arn = format!(
            "arn:aws:lambda:{}::runtime:{}",
            self.of.account.region,
            "0".repeat(64)
        );
        if let Some(init) = init {
            match format {
                Format::Json => {
                    let name = self.of.name(self.function);
                    self.platform(start - init, "initStart", json!({"initializationType": "on-demand", "phase": "init", "runtimeVersion": runtime,
                        "runtimeVersionArn": runtime_arn, "functionName": name, "functionVersion": "$LATEST"}));
                }
                _ => {
                    self.write(start - init, format!("INIT_START Runtime Version: {runtime}\tRuntime Version ARN: {runtime_arn}\n"));
                }
            }
        }
        match format {
            Format::Json => self.platform(
                start,
                "start",
                json!({"requestId": request, "version": "$LATEST"}),
            ),
            _ => self.write(
                start,
                format!("START RequestId: {request} Version: $LATEST\n"),
            ),
        };
    }

    /// A line of the function's own code.
    fn say(
        &mut self,
        format: Format,
        millis: i64,
        level: &str,
        message: &str,
        thrown: Option<(&str, &str)>,
    ) -> String {
        let (time, request) = (text(millis), self.request.clone());
        match format {
            Format::Python => {
                self.write(millis, format!("[{level}]\t{time}\t{request}\t{message}\n"))
            }
            Format::Node => self.write(millis, format!("{time}\t{request}\t{level}\t{message}\n")),
            Format::Json => {
                let mut line = Map::new();
                for (key, value) in [
                    ("timestamp", time.as_str()),
                    ("level", level),
                    ("message", message),
                    ("requestId", &request),
                ] {
                    line.insert(key.into(), value.into());
                }
                if let Some((kind, trace)) = thrown {
                    line.insert("errorType".into(), kind.into());
                    line.insert("errorMessage".into(), message.into());
                    line.insert("stackTrace".into(), json!([trace]));
                }
                self.write(millis, Value::Object(line).to_string())
            }
        }
    }

    /// What comes last, down to the report; gives the id of the report.
    fn end(
        &mut self,
        format: Format,
        millis: i64,
        duration: i64,
        ending: Ending,
        init: Option<i64>,
    ) -> String {
        let request = self.request.clone();
        let memory = self.of.functions[self.function].memory;
        let used = match ending {
            Ending::OutOfMemory => memory,
            _ => memory * self.of.rng.range(30, 75) / 100,
        };
        // Lambda measures in hundredths of a millisecond; whole ones would look made up.
        let measured = format!(
            "{duration}.{:02}",
            if ending == Ending::Timeout {
                0
            } else {
                self.of.rng.range(0, 99)
            }
        );
        match (ending, format) {
            (Ending::Error, Format::Python) => {
                self.write(millis, "[ERROR] KeyError: 'parcelId'\nTraceback (most recent call last):\n  File \"/var/task/app.py\", line 58, in handler\n    parcel = event[\"parcelId\"]\n".into());
            }
            (Ending::Error, Format::Node) => {
                let error = r#"{"errorType":"TypeError","errorMessage":"Cannot read properties of undefined (reading 'depot')","stack":["TypeError: Cannot read properties of undefined (reading 'depot')","    at Runtime.handler (file:///var/task/index.mjs:23:40)"]}"#;
                let time = text(millis);
                self.write(
                    millis,
                    format!("{time}\t{request}\tERROR\tInvoke Error \t{error}\n"),
                );
            }
            (Ending::Error, Format::Json) => {
                self.say(
                    format,
                    millis,
                    "ERROR",
                    "'parcelId'",
                    Some((
                        "KeyError",
                        "  File \"/var/task/app.py\", line 58, in handler\n",
                    )),
                );
            }
            (Ending::OutOfMemory, Format::Python | Format::Node) => {
                self.write(millis, format!("RequestId: {request} Error: Runtime exited with error: signal: killed\nRuntime.ExitError\n"));
            }
            _ => {}
        }
        if format != Format::Json {
            self.write(millis, format!("END RequestId: {request}\n"));
            let init = init.map_or(String::new(), |i| format!("Init Duration: {i}.00 ms\t"));
            let status = match ending {
                Ending::Timeout => "Status: timeout",
                Ending::OutOfMemory => "Status: error\tError Type: Runtime.ExitError",
                _ => "",
            };
            let report = self.write(millis + 1, format!(
                "REPORT RequestId: {request}\tDuration: {measured} ms\tBilled Duration: {} ms\tMemory Size: {memory} MB\tMax Memory Used: {used} MB\t{init}{status}\n",
                duration + 1
            ));
            if ending == Ending::Timeout {
                let (time, seconds) = (text(millis), duration / 1_000);
                return self.write(
                    millis + 1,
                    format!("{time} {request} Task timed out after {seconds}.00 seconds\n\n"),
                );
            }
            return report;
        }
        let (status, error) = match ending {
            Ending::Success => ("success", None),
            Ending::Error => ("error", Some("KeyError")),
            Ending::Timeout => ("timeout", None),
            Ending::OutOfMemory => ("error", Some("Runtime.OutOfMemory")),
        };
        let mut done = json!({"requestId": request, "status": status});
        if let Some(error) = error {
            done["errorType"] = error.into();
        }
        let millis_taken: f64 = measured
            .parse()
            .expect("digits, a point and two digits are a number");
        done["metrics"] = json!({"durationMs": millis_taken});
        self.platform(millis, "runtimeDone", done.clone());
        done["metrics"] = json!({"durationMs": millis_taken, "billedDurationMs": duration + 1, "memorySizeMB": memory, "maxMemoryUsedMB": used});
        if let Some(init) = init {
            done["metrics"]["initDurationMs"] = init.into();
        }
        self.platform(millis + 1, "report", done)
    }
}

/// A time with milliseconds as Lambda writes it.
fn text(millis: i64) -> String {
    let whole = Time::from_seconds(millis.div_euclid(1_000));
    let mut text: String = whole.encode(&mut [0; 27]).into();
    text.pop();
    format!("{text}.{:03}Z", millis.rem_euclid(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_764_000_000_250;

    fn lines(function: usize, ending: Ending) -> Vec<String> {
        let mut functions = Functions::new(&Organisation::new(1), Rng::new(1));
        functions.invoke(function, START, ending, Some("hello"));
        let payloads = functions.due(START / 1_000 + 60);
        let payload: Value = serde_json::from_slice(&payloads[0]).unwrap();
        assert_eq!(
            (payloads.len(), &payload["messageType"]),
            (1, &"DATA_MESSAGE".into())
        );
        let events = payload["logEvents"].as_array().unwrap();
        assert!(events.iter().all(|e| e["id"].as_str().unwrap().len() == 56));
        events
            .iter()
            .map(|e| e["message"].as_str().unwrap().to_owned())
            .collect()
    }

    fn check(function: usize, ending: Ending, expected: &[&str]) {
        let lines = lines(function, ending);
        let mut at = 0;
        for line in expected {
            let found = lines[at..].iter().position(|l| l.contains(line));
            at += found.unwrap_or_else(|| panic!("no `{line}` after line {at} of {lines:#?}")) + 1;
        }
    }

    #[test]
    fn text_lines_are_those_of_lambda() {
        check(
            2,
            Ending::Success,
            &[
                "INIT_START Runtime Version: python:3.13.v59\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:0000",
                "START RequestId: ",
                "[INFO]\t2025-11-24T16:00:00.",
                "END RequestId: ",
                " ms\tMemory Size: 1024 MB\tMax Memory Used: ",
            ],
        );
        check(
            1,
            Ending::Error,
            &[
                "\tERROR\tInvoke Error \t{\"errorType\":\"TypeError\"",
                "END RequestId: ",
                "REPORT RequestId: ",
            ],
        );
        check(
            6,
            Ending::Timeout,
            &[
                "Duration: 6000.00 ms\tBilled Duration: 6001 ms\t",
                " Task timed out after 6.00 seconds\n\n",
            ],
        );
        check(
            4,
            Ending::OutOfMemory,
            &[
                "Runtime exited with error: signal: killed\nRuntime.ExitError\n",
                "Max Memory Used: 512 MB\tInit Duration: ",
            ],
        );
    }

    #[test]
    fn json_lines_are_those_of_lambda() {
        check(
            0,
            Ending::Success,
            &[
                "platform.initStart",
                "platform.start",
                "\"level\":\"INFO\"",
                "platform.runtimeDone",
                "\"type\":\"platform.report\"",
            ],
        );
        check(
            3,
            Ending::Timeout,
            &[
                "platform.start",
                "\"status\":\"timeout\"",
                "\"durationMs\":30000.0,\"billedDurationMs\":30001",
            ],
        );
        check(
            5,
            Ending::OutOfMemory,
            &["\"errorType\":\"Runtime.OutOfMemory\""],
        );
        check(
            7,
            Ending::Error,
            &[
                "\"errorType\":\"KeyError\"",
                "\"status\":\"error\",\"errorType\":\"KeyError\"",
            ],
        );
    }

    #[test]
    fn a_warm_stream_is_used_again() {
        let mut functions = Functions::new(&Organisation::new(1), Rng::new(1));
        for i in 0..5 {
            functions.invoke(0, START + i * 1_000, Ending::Success, None);
        }
        assert_eq!(functions.functions[0].streams.len(), 1);
        for _ in 0..5 {
            functions.invoke(0, START + 9_000, Ending::Success, None);
        }
        assert_eq!(functions.functions[0].streams.len(), 5);
    }
}
