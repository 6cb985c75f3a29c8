//! Starting the program, waiting for it, talking to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up; generous, since machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_trailwarden"))
}

/// Runs the program to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    command()
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The public corpus, if it lies beside the checkout.
pub(crate) fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    if !path.is_dir() {
        eprintln!("skipped: no corpus at {}", path.display());
    }
    path.is_dir().then_some(path)
}

/// A number from the environment, for the full counts of `./test --long`.
pub(crate) fn count(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

/// A running service.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) started: Duration,
}

impl Service {
    /// Starts `run` with a configuration and waits until it is ready.
    pub(crate) fn start(config: &Path, data: &Path) -> Service {
        Service::start_as("service", config, data, &[])
    }

    /// The same with a name for its messages and more arguments.
    pub(crate) fn start_as(name: &str, config: &Path, data: &Path, args: &[&str]) -> Service {
        Service::start_in(name, config, data, args, &[])
    }

    /// The same with more of an environment.
    pub(crate) fn start_in(
        name: &str,
        config: &Path,
        data: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Service {
        let begin = Instant::now();
        let listen: &[&str] = match args.contains(&"--listen") {
            true => &[],
            false => &["--listen", "127.0.0.1:0"],
        };
        let mut child = command()
            .arg("run")
            .args(listen)
            .args(args)
            .arg("--config")
            .arg(config)
            .arg("--data")
            .arg(data)
            .env("NO_COLOR", "1")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap() == 0 {
                panic!("the service did not start:\n{seen}");
            }
            seen.push_str(&line);
            if let Some((_, rest)) = line
                .split_once("console=\"http")
                .and_then(|(_, rest)| rest.split_once("://"))
            {
                break rest.split('"').next().unwrap().parse().unwrap();
            }
        };
        let started = begin.elapsed();
        // Errors of the service show up beside those of the test.
        let name = name.to_owned();
        let all = std::env::var_os("TRAILWARDEN_LOG").is_some();
        std::thread::spawn(move || {
            for line in lines
                .lines()
                .map_while(Result::ok)
                .filter(|l| all || l.contains("ERROR"))
            {
                eprintln!("{name}: {line}");
            }
        });
        Service {
            child,
            address,
            started,
        }
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal, such as STOP.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &id])
            .status();
        assert!(status.unwrap().success());
    }

    /// Asks it to stop and tells its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().code()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = request(self.address, "GET", path, &[], b"").unwrap();
        assert_eq!(status, 200, "{path}: {}", text(&body));
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        text(
            &request(self.address, "GET", "/metrics", &[], b"")
                .unwrap()
                .1,
        )
    }

    /// Waits until every stage has read its input to the end and nothing is left to send. The stages are asked in the
    /// order of the flow: what an earlier one has committed is there for the next.
    pub(crate) fn settle(&self, events: u64) {
        self.settle_within(events, PATIENCE);
    }

    /// The same where people are told late.
    pub(crate) fn settle_within(&self, events: u64, patience: Duration) {
        self.settle_stages(events, patience);
        self.until("outbox", patience, &|| {
            self.get("/api/v1/notifications?delivery=pending")["notifications"]
                .as_array()
                .unwrap()
                .is_empty()
        });
    }

    fn until(&self, what: &str, patience: Duration, done: &dyn Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(
                begin.elapsed() < patience,
                "not settled: {what}\n{:#}",
                self.get("/api/v1/health")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every stage has read its input to the end and the index has all events.
    pub(crate) fn settle_stages(&self, events: u64, patience: Duration) {
        let lag = |stage: &str| {
            let health = self.get("/api/v1/health");
            let stages = health["stages"].as_array().unwrap();
            stages.iter().find(|s| s["stage"] == stage).unwrap()["records"]
                .as_u64()
                .unwrap()
        };
        for stage in ["index", "match", "correlate", "baseline", "alert"] {
            self.until(stage, patience, &|| lag(stage) == 0);
        }
        self.until("index", patience, &|| {
            self.get("/api/v1/search?q=source:aws.*&limit=1&count=true")["total"].as_u64()
                >= Some(events)
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Only a test that failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request; `None` where nobody answers.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    // The server may answer, and close, before it has read a body that it refuses.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = std::io::copy(&mut stream.take(64 << 20), &mut answer);
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = text(&answer[..split]);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = answer[split + 4..].to_vec();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(&body) } else { body }))
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = body.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(&text(&body[..at]), 16).unwrap_or(0);
        if size == 0 || body.len() < at + 2 + size {
            break;
        }
        out.extend_from_slice(&body[at + 2..at + 2 + size]);
        body = &body[(at + 4 + size).min(body.len())..];
    }
    out
}

/// An address of loopback that nobody listens on, for a program that has to be told one, or comes back to it.
///
/// Its port lies below those that the kernel gives to whoever asks for any: one of them could be taken at any moment
/// by a connection that goes out. Brokers and databases of tests begin at 20000.
pub(crate) fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 10_000;
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Processes that run beside each other begin far apart.
    let begin = std::process::id().wrapping_mul(641);
    for _ in 0..PORTS {
        let at = begin.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(FIRST + at).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("every port from {FIRST} is taken");
}

/// What a webhook receiver was sent: the idempotency key and the body of every request.
pub(crate) type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// A receiver that takes everything.
pub(crate) fn receiver() -> (SocketAddr, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = Received::default();
    let shared = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            take(stream, &shared);
        }
    });
    (address, received)
}

fn take(stream: TcpStream, received: &Received) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut key, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => {
                key = value.to_owned()
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().ok()?
            }
            Some(_) => {}
            None if line.trim().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    received
        .lock()
        .unwrap()
        .push((key, serde_json::from_slice(&body).ok()?));
    (&stream)
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .ok()
}
