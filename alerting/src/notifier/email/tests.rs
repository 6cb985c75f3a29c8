//! Mail against a small SMTP server in the test that can be told to misbehave at each step.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::message::tests::message;

/// Where the server stops behaving.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Never,
    Greylist,
    NoSuchUser,
    CloseAfterMail,
    HangAfterMail,
    RefuseMail,
    NoAnswerAtAll,
}

struct Outcome {
    result: Result<Sent, SendError>,
    /// What the server was told, the mail included.
    heard: String,
}

fn email(port: u16, tls: MailTls) -> Email {
    let config = EmailConfig {
        host: "127.0.0.1".into(),
        port,
        tls,
        from: "Trailwarden <alerts@tw.example>".into(),
        to: vec!["soc@corp.example".into(), "Ana <ana@corp.example>".into()],
        timeout_seconds: 1,
        ..EmailConfig::default()
    };
    Email::new(&config, "soc", "k").unwrap()
}

async fn serve(listener: TcpListener, fault: Fault) -> String {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut heard = String::new();
    if fault == Fault::NoAnswerAtAll {
        while stream.read_line(&mut heard).await.unwrap_or(0) > 0 {}
        return heard;
    }
    let mut answer = "220 mail.example ESMTP\r\n".to_owned();
    let mut in_mail = false;
    loop {
        stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        answer.clear();
        let mut line = String::new();
        while answer.is_empty() {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return heard;
            }
            heard.push_str(&line);
            answer = match line.trim_end() {
                "." if in_mail => {
                    in_mail = false;
                    match fault {
                        Fault::CloseAfterMail => return heard,
                        Fault::HangAfterMail => continue,
                        Fault::RefuseMail => "554 spam\r\n",
                        _ => "250 queued\r\n",
                    }
                }
                _ if in_mail => continue,
                l if l.starts_with("EHLO") => "250-mail.example\r\n250 8BITMIME\r\n",
                l if l.starts_with("RCPT") => match fault {
                    Fault::Greylist => "450 come back later\r\n",
                    Fault::NoSuchUser if l.contains("ana@") => "550 no such user\r\n",
                    _ => "250 ok\r\n",
                },
                "DATA" => {
                    in_mail = true;
                    "354 go on\r\n"
                }
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            }
            .to_owned();
        }
    }
}

fn send(fault: Fault, tls: MailTls) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let email = email(listener.local_addr().unwrap().port(), tls);
        let server = tokio::spawn(serve(listener, fault));
        let message = message();
        let result = email.send(&message, "", message.time).await;
        drop(email);
        Outcome {
            result,
            heard: server.await.unwrap(),
        }
    })
}

#[test]
fn a_mail_is_taken() {
    let outcome = send(Fault::Never, MailTls::None);
    assert_eq!(
        outcome.result.unwrap().answer,
        "taken for 2 of 2 recipients"
    );
    for part in [
        "EHLO tw.example\r\n",
        "MAIL FROM:<alerts@tw.example>",
        "RCPT TO:<ana@corp.example>\r\n",
        "Subject: [high] Root was used (ana in 123456789012)\r\n",
        "Message-ID: <00000000000000000000000000000001.first-0.soc@tw.example>\r\n",
        "References: <incident.00000000000000000000000000000009@tw.example>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n",
        "Content-Type: multipart/alternative;",
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-Type: text/html; charset=utf-8\r\n",
    ] {
        assert!(
            outcome.heard.contains(part),
            "{part:?} is missing in\n{}",
            outcome.heard
        );
    }
}

fn check(fault: Fault, expected: &str) {
    let outcome = send(fault, MailTls::None);
    let found = format!("{:?}", outcome.result);
    assert!(found.contains(expected), "{found} instead of {expected}");
}

#[test]
fn how_far_it_came_decides() {
    check(Fault::Greylist, "Transient");
    check(Fault::NoSuchUser, "taken for 1 of 2");
    check(Fault::RefuseMail, "Permanent");
    check(Fault::CloseAfterMail, "Ambiguous");
    check(Fault::HangAfterMail, "Ambiguous");
    check(Fault::NoAnswerAtAll, "Transient");
}

#[test]
fn without_starttls_nothing_is_said() {
    rustls_provider();
    let outcome = send(Fault::Never, MailTls::Starttls);
    assert!(
        matches!(&outcome.result, Err(SendError::Transient { reason, .. }) if reason.contains("STARTTLS"))
    );
    assert!(!outcome.heard.contains("MAIL FROM"), "{}", outcome.heard);
}

/// A mail server that offers STARTTLS under a certificate for `localhost`; gives its port, the certificate and, once it
/// has served one connection, what it was told before and after STARTTLS.
fn starttls_server() -> (u16, String, std::thread::JoinHandle<(String, String)>) {
    use std::io::{BufRead, BufReader, Read, Write};
    rustls_provider();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Answers until the client goes or says STARTTLS; gives what it said.
    fn talk(stream: &mut (impl Read + Write), greeting: &[u8]) -> String {
        stream.write_all(greeting).unwrap();
        let (mut heard, mut in_mail) = (String::new(), false);
        loop {
            let mut line = String::new();
            // One byte at a time, so that nothing of the handshake is taken for a line.
            if BufReader::with_capacity(1, &mut *stream)
                .read_line(&mut line)
                .unwrap_or(0)
                == 0
            {
                return heard;
            }
            heard.push_str(&line);
            let answer = match line.trim_end() {
                "." => {
                    in_mail = false;
                    "250 queued\r\n"
                }
                _ if in_mail => continue,
                l if l.starts_with("EHLO") => "250-localhost\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
                "DATA" => {
                    in_mail = true;
                    "354 go on\r\n"
                }
                "STARTTLS" => {
                    stream.write_all(b"220 go on\r\n").unwrap();
                    return heard;
                }
                l if l.starts_with("AUTH") => "235 welcome\r\n",
                _ => "250 ok\r\n",
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let plain = talk(&mut stream, b"220 localhost\r\n");
        let connection = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let secret = if stream.conn.complete_io(&mut stream.sock).is_ok() {
            talk(&mut stream, b"")
        } else {
            String::new()
        };
        (plain, secret)
    });
    (port, made.cert.pem(), server)
}

#[test]
fn starttls_protects_all_but_the_greeting() {
    for trusted in [true, false] {
        let (port, pem, server) = starttls_server();
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, pem).unwrap();
        let config = EmailConfig {
            host: "localhost".into(),
            port,
            ca_file: trusted.then_some(ca_file),
            username: "tw".into(),
            password: Secret::new("pw"),
            from: "alerts@tw.example".into(),
            to: vec!["soc@corp.example".into()],
            timeout_seconds: 10,
            ..EmailConfig::default()
        };
        let email = Email::new(&config, "soc", "k").unwrap();
        let message = message();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let result = runtime.block_on(email.send(&message, "", message.time));
        drop(runtime);
        let (plain, secret) = server.join().unwrap();
        assert_eq!(plain, "EHLO tw.example\r\nSTARTTLS\r\n");
        assert_eq!(result.is_ok(), trusted, "{result:?}");
        assert_eq!(secret.contains("AUTH PLAIN"), trusted);
        assert_eq!(secret.contains("MAIL FROM"), trusted);
        let doubt = matches!(result, Err(SendError::Ambiguous { .. }));
        assert!(!doubt, "{result:?}");
    }
}

fn rustls_provider() {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[test]
fn line_breaks_never_reach_a_header() {
    let mut message = message();
    message.alert.title = "x\r\nBcc: all@corp.example\r\n\r\nbody".into();
    message.alert.actor = "y\nSubject: other\u{1b}".into();
    let mail = email(25, MailTls::None).mail(&message).unwrap();
    let text = String::from_utf8(mail.formatted()).unwrap();
    let headers = text.split("\r\n\r\n").next().unwrap();
    assert_eq!(headers.matches("Subject:").count(), 1, "{headers}");
    assert!(!headers.contains("\nBcc"), "{headers}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn what_is_refused_in_the_configuration() {
    let good = EmailConfig {
        host: "mail.corp.example".into(),
        from: "a@b.example".into(),
        to: vec!["c@d.example".into()],
        ..EmailConfig::default()
    };
    rustls_provider();
    assert!(Email::new(&good, "r", "k").is_ok());
    for (config, expected) in [
        (
            EmailConfig {
                tls: MailTls::None,
                ..good.clone()
            },
            "k.tls: `none` is only for",
        ),
        (
            EmailConfig {
                from: "nobody".into(),
                ..good.clone()
            },
            "k.from",
        ),
        (
            EmailConfig {
                to: vec!["a@b.example\r\nBcc: x@y.example".into()],
                ..good.clone()
            },
            "k.to[0]",
        ),
        (
            EmailConfig {
                to: Vec::new(),
                ..good.clone()
            },
            "k.to: names nobody",
        ),
        (
            EmailConfig {
                host: String::new(),
                ..good.clone()
            },
            "k.host",
        ),
        (
            EmailConfig {
                password_file: Some("/nonexistent/password".into()),
                ..good.clone()
            },
            "k.password_file: cannot read",
        ),
    ] {
        let error = Email::new(&config, "r", "k").err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(['\r', '\n']), "{error:?}");
    }
}
