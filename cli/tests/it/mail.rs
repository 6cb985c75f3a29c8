//! Mail through a real SMTP server: aiosmtpd, which `./test` installs from Debian.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{PATIENCE, Service, free_address, request, text};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that puts every mail into a maildir.
fn server(maildir: &Path) -> Option<(Server, u16)> {
    if std::env::var_os("TRAILWARDEN_SMTP_TESTS").is_none() {
        eprintln!("skipped: TRAILWARDEN_SMTP_TESTS is not set (./test sets it)");
        return None;
    }
    let port = free_address().port();
    let child = Command::new("/usr/bin/python3")
        .args([
            "-m",
            "aiosmtpd",
            "-n",
            "-l",
            &format!("127.0.0.1:{port}"),
            "-c",
            "aiosmtpd.handlers.Mailbox",
        ])
        .arg(maildir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    let begin = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begin.elapsed() < PATIENCE, "aiosmtpd does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some((server, port))
}

fn mails(maildir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(maildir.join("new"))
        .map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>())
        .unwrap_or_default();
    files
        .iter()
        .map(|f| text(&std::fs::read(f).unwrap()))
        .collect()
}

#[test]
fn an_alert_reaches_a_mailbox_and_hostile_text_does_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let maildir = folder.path().join("mail");
    let Some((_server, port)) = server(&maildir) else {
        return;
    };
    let config = folder.path().join("c.yaml");
    std::fs::write(
        &config,
        format!("alerting:\n  group_wait_seconds: 0\n  receivers:\n    - name: mail\n      email: {{host: 127.0.0.1, port: {port}, tls: none, from: trailwarden@example.com, to: [soc@example.com]}}\n  route: {{receiver: mail, min_severity: high}}\n"),
    )
    .unwrap();
    let service = Service::start(&config, &folder.path().join("data"));
    let hostile = "<img src=x onerror=alert(1)>\\u001b[31m\\u202e\\r\\nBcc: victim@example.com";
    let record = format!(
        "{{\"eventVersion\":\"1.08\",\"userIdentity\":{{\"type\":\"IAMUser\",\"arn\":\"arn:aws:iam::123456789012:user/{hostile}\",\"userName\":\"{hostile}\"}},\"eventTime\":\"2026-03-02T10:00:00Z\",\"eventSource\":\"cloudtrail.amazonaws.com\",\"eventName\":\"StopLogging\",\"sourceIPAddress\":\"198.18.0.9\",\"userAgent\":\"{hostile}\",\"eventID\":\"m\",\"recipientAccountId\":\"123456789012\"}}"
    );
    assert_eq!(
        request(
            service.address,
            "POST",
            "/api/v1/events",
            &[],
            record.as_bytes()
        )
        .unwrap()
        .0,
        200
    );
    let begin = Instant::now();
    while mails(&maildir).is_empty() {
        assert!(
            begin.elapsed() < PATIENCE,
            "no mail came: {:#}",
            service.get("/api/v1/notifications")
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    service.settle(1);
    let mails = mails(&maildir);
    assert_eq!(mails.len(), 1);
    let mail = mails[0].replace("\r\n", "\n");
    let (head, body) = mail.split_once("\n\n").unwrap();
    assert!(
        head.contains("To: soc@example.com")
            && head.contains("Message-ID:")
            && head.contains("Subject:"),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("\nbcc:"), "{head}");
    assert!(
        body.contains("text/plain") || head.contains("multipart/alternative"),
        "{head}"
    );
    // A header and a plain text are no markup; the HTML part is, and there the tag must have become text.
    let html = body.split("Content-Type: text/html").nth(1).unwrap();
    assert!(!html.contains("<img") && html.contains("&lt;img"), "{html}");
    assert!(!mail.contains(['\u{1b}', '\u{202e}']), "{mail}");
    assert_eq!(service.stop(), Some(0));
}
