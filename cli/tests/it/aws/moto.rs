//! AWS as moto's server plays it, and a proxy before it that writes down every call and can refuse some.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{PATIENCE, free_address, request, text};

/// A signature that moto does not check; it tells the service by it.
fn signed(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20260302/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

/// A server of its own for one test.
pub(super) struct Moto {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Moto {
    /// Starts one; `None` where none is to be had.
    pub(super) fn start() -> Option<Moto> {
        let Some(program) = std::env::var_os("TRAILWARDEN_MOTO") else {
            eprintln!("skipped: TRAILWARDEN_MOTO is not set");
            return None;
        };
        let address = free_address();
        let child = Command::new(PathBuf::from(program))
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Moto { child, address };
        let begin = Instant::now();
        while TcpStream::connect(moto.address).is_err() {
            assert!(begin.elapsed() < PATIENCE, "moto does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(moto)
    }

    pub(super) fn bucket(&self, name: &str) {
        let (status, body) = self.s3("PUT", &format!("/{name}"), b"", &BTreeMap::new());
        assert_eq!(status, 200, "{}", text(&body));
    }

    /// Puts an object with its metadata; the key as it is.
    pub(super) fn put(
        &self,
        bucket: &str,
        key: &str,
        content: &[u8],
        metadata: &BTreeMap<String, String>,
    ) {
        let path = format!("/{bucket}/{}", encoded(key));
        let (status, body) = self.s3("PUT", &path, content, metadata);
        assert_eq!(status, 200, "{}", text(&body));
    }

    pub(super) fn delete(&self, bucket: &str, key: &str) {
        let path = format!("/{bucket}/{}", encoded(key));
        let (status, body) = self.s3("DELETE", &path, b"", &BTreeMap::new());
        assert_eq!(status, 204, "{}", text(&body));
    }

    fn s3(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        metadata: &BTreeMap<String, String>,
    ) -> (u16, Vec<u8>) {
        let named =
            |(name, value): (&String, &String)| (format!("x-amz-meta-{name}"), value.clone());
        let mut headers: Vec<(String, String)> = metadata.iter().map(named).collect();
        headers.push(("authorization".to_owned(), signed("s3")));
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        request(self.address, method, path, &headers, body).unwrap()
    }

    /// Makes a queue and gives its path.
    pub(super) fn queue(&self, name: &str, attributes: &[(&str, &str)]) -> String {
        let attributes: BTreeMap<_, _> = attributes.iter().copied().collect();
        let made = self.sqs(
            "CreateQueue",
            &json!({"QueueName": name, "Attributes": attributes}),
        );
        let url = made["QueueUrl"].as_str().unwrap();
        url[url.find("/123").unwrap()..].to_owned()
    }

    /// Sends messages, as many as there are.
    pub(super) fn send(&self, queue: &str, bodies: &[String]) {
        for (n, ten) in bodies.chunks(10).enumerate() {
            let entries: Vec<Value> = ten
                .iter()
                .enumerate()
                .map(|(i, body)| json!({"Id": format!("{n}-{i}"), "MessageBody": body}))
                .collect();
            let sent = self.sqs(
                "SendMessageBatch",
                &json!({"QueueUrl": self.url(queue), "Entries": entries}),
            );
            assert_eq!(sent["Failed"].as_array().map_or(0, Vec::len), 0, "{sent}");
        }
    }

    /// How many messages wait, and how many are in somebody's hands.
    pub(super) fn waiting(&self, queue: &str) -> (u64, u64) {
        let asked = self.sqs(
            "GetQueueAttributes",
            &json!({"QueueUrl": self.url(queue), "AttributeNames": ["All"]}),
        );
        let number = |name: &str| asked["Attributes"][name].as_str().unwrap().parse().unwrap();
        (
            number("ApproximateNumberOfMessages"),
            number("ApproximateNumberOfMessagesNotVisible"),
        )
    }

    /// Calls CloudWatch Logs.
    pub(super) fn logs(&self, action: &str, body: &Value) -> Value {
        self.json("logs", &format!("Logs_20140328.{action}"), body)
    }

    /// Calls Kinesis.
    pub(super) fn kinesis(&self, action: &str, body: &Value) -> Value {
        self.json("kinesis", &format!("Kinesis_20131202.{action}"), body)
    }

    fn json(&self, service: &str, target: &str, body: &Value) -> Value {
        let headers = [
            ("authorization", &*signed(service)),
            ("x-amz-target", target),
            ("content-type", "application/x-amz-json-1.1"),
        ];
        let body = body.to_string();
        let (status, answer) =
            request(self.address, "POST", "/", &headers, body.as_bytes()).unwrap();
        assert_eq!(status, 200, "{target}: {}", text(&answer));
        serde_json::from_slice(&answer).unwrap_or_default()
    }

    fn url(&self, queue: &str) -> String {
        format!("http://{}{queue}", self.address)
    }

    fn sqs(&self, action: &str, body: &Value) -> Value {
        self.json("sqs", &format!("AmazonSQS.{action}"), body)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A key as it stands in a path.
pub(super) fn encoded(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'~' => {
                out.push(byte.into());
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// One call of AWS that went by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// As policies write it: `s3:GetObject`.
    pub(super) action: String,
    /// The id of the key that it was signed with.
    pub(super) key: String,
    /// The region that it was signed for.
    pub(super) region: String,
    /// The path without the query.
    pub(super) path: String,
    /// What follows the `?`.
    pub(super) query: String,
    /// The body of the request.
    pub(super) body: String,
    /// The status of the answer.
    pub(super) status: u16,
    /// The answer, where messages were asked for.
    pub(super) answer: Value,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes through.
    Through,
    /// What it asks for is in another region.
    Elsewhere(&'static str),
    /// It is answered so, and nobody hears of it.
    Answer(u16, String),
    /// The answer is cut in the middle.
    Cut,
}

type Judge = dyn Fn(&Call) -> Fate + Send + Sync;

/// Sees every call.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    judge: Arc<Mutex<Arc<Judge>>>,
}

impl Proxy {
    pub(super) fn before(moto: &Moto) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let through: Arc<Judge> = Arc::new(|_| Fate::Through);
        let judge = Arc::new(Mutex::new(through));
        let (behind, seen, fate) = (moto.address, Arc::clone(&calls), Arc::clone(&judge));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, fate) = (Arc::clone(&seen), Arc::clone(&fate));
                std::thread::spawn(
                    move || {
                        while serve(&stream, behind, &seen, &fate).is_some() {}
                    },
                );
            }
        });
        Proxy {
            address,
            calls,
            judge,
        }
    }

    /// From now on calls are judged so.
    pub(super) fn judge(&self, judge: impl Fn(&Call) -> Fate + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Arc::new(judge);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The body of the message that was received under a handle.
    pub(super) fn received(&self, receipt: &str) -> Option<String> {
        let calls = self.of("sqs:ReceiveMessage");
        let mut messages = calls
            .iter()
            .flat_map(|c| c.answer["Messages"].as_array())
            .flatten();
        let message = messages.find(|m| m["ReceiptHandle"] == receipt)?;
        Some(message["Body"].as_str()?.to_owned())
    }

    /// The calls of one action.
    pub(super) fn of(&self, action: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|c| c.action == action);
        calls
    }
}

/// Takes one request to moto and its answer back.
fn serve(
    stream: &TcpStream,
    behind: SocketAddr,
    seen: &Mutex<Vec<Call>>,
    judge: &Mutex<Arc<Judge>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "host" | "connection" | "expect" => {}
            name => headers.push((name.to_owned(), value.to_owned())),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let header = |name: &str| {
        let found = headers.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, v)| v.as_str())
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let action = action(&method, path, query, header("x-amz-target"), &text(&body));
    let scope = header("authorization").split("Credential=").nth(1);
    let region = scope.and_then(|s| s.split('/').nth(2));
    let mut call = Call {
        action,
        key: scope
            .and_then(|s| s.split('/').next())
            .unwrap_or_default()
            .to_owned(),
        region: region.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: text(&body),
        status: 0,
        answer: Value::Null,
    };
    let fate = Arc::clone(&judge.lock().unwrap());
    let fate = fate(&call);
    let answer = match &fate {
        Fate::Elsewhere(region) => format!(
            "HTTP/1.1 301 Moved\r\nx-amz-bucket-region: {region}\r\ncontent-length: 0\r\n\r\n"
        )
        .into_bytes(),
        Fate::Answer(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} Refused\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
                if body.starts_with('{') {
                    "application/x-amz-json-1.0"
                } else {
                    "application/xml"
                },
                body.len()
            );
            [head.as_bytes(), body.as_bytes()].concat()
        }
        Fate::Through | Fate::Cut => {
            let mut to = TcpStream::connect(behind).ok()?;
            let mut head = format!(
                "{method} {target} HTTP/1.1\r\nhost: {behind}\r\nconnection: close\r\ncontent-length: {length}\r\n"
            );
            for (name, value) in &headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            to.write_all(&[head.as_bytes(), b"\r\n", &body].concat())
                .ok()?;
            let mut answer = Vec::new();
            std::io::copy(&mut to.take(1 << 30), &mut answer).ok()?;
            answer
        }
    };
    call.status = text(answer.split(|b| *b == b' ').nth(1)?).parse().ok()?;
    if call.action == "sqs:ReceiveMessage" {
        let body = answer
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .map(|at| &answer[at + 4..]);
        call.answer = serde_json::from_slice(body.unwrap_or_default()).unwrap_or_default();
    }
    seen.lock().unwrap().push(call);
    let kept = match fate {
        Fate::Cut => answer.len() - (answer.len() / 20).max(1),
        _ => answer.len(),
    };
    let mut stream = stream;
    stream.write_all(&answer[..kept]).ok()?;
    let goes_on =
        kept == answer.len() && !text(&answer).to_lowercase().contains("connection: close");
    if !goes_on {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    goes_on.then_some(())
}

/// The action as policies name it.
fn action(method: &str, path: &str, query: &str, target: &str, body: &str) -> String {
    if target.contains("CloudTrail_20131101") {
        return format!("cloudtrail:{}", target.rsplit('.').next().unwrap());
    }
    if let Some((service, action)) = target.split_once('.') {
        // `AmazonSQS`, or with a date behind: `Logs_20140328`.
        let service = service.trim_start_matches("Amazon");
        let service = service.split('_').next().unwrap();
        return format!("{}:{action}", service.to_lowercase());
    }
    if let Some(action) = body.strip_prefix("Action=") {
        return format!("sts:{}", action.split('&').next().unwrap());
    }
    let of_bucket = path.trim_matches('/').split('/').count() == 1;
    let action = match (method, of_bucket) {
        ("GET", true) if query.contains("list-type=2") => "ListBucket",
        ("GET", false) => "GetObject",
        ("HEAD", false) => "GetObject",
        ("HEAD", true) => "ListBucket",
        ("PUT", false) => "PutObject",
        _ => return format!("s3:{method} {path}?{query}"),
    };
    format!("s3:{action}")
}
