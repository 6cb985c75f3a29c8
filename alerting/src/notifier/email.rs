//! Sends notifications as mail over SMTP.
//!
//! The connection is protected by STARTTLS or TLS and nothing is said before it is: a server that offers no
//! STARTTLS, or from which somebody on the way has stripped it, gets nothing and is tried again later. The
//! steps of SMTP are taken one by one, so that it is known how far an attempt came: before the message was
//! sent nothing can have arrived, after it a lost answer is doubt. The `Message-ID` follows from alert,
//! reason and receiver and is the same on every attempt; `References` names the incident, so that its mails
//! are one thread. What the mail says is in [`super::letter`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use event::Time;
use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message as Mail, MultiPart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};

use super::letter::{self, Letter};
use super::network::is_loopback;
use super::{Notifier, Sending, ambiguous, check_timeout, permanent, read, secret, transient};
use crate::config::{EmailConfig, MailTls, Secret};
use crate::inert;
use crate::message::Message;
use crate::outbox::{SendError, Sent};
use crate::policy::ConfigError;

/// How long the farewell to the server may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A checked mail server, sender and recipients.
pub struct Email {
    host: String,
    port: u16,
    tls: MailTls,
    parameters: Option<TlsParameters>,
    hello: ClientId,
    username: String,
    password: Secret,
    from: Mailbox,
    to: Vec<Mailbox>,
    receiver: String,
    timeout: Duration,
}

impl Email {
    /// The mail receiver `receiver` of a configuration; `key` is where it stands there.
    pub fn new(config: &EmailConfig, receiver: &str, key: &str) -> Result<Email, ConfigError> {
        let at = |field: &str| format!("{key}.{field}");
        check_timeout(config.timeout_seconds, key)?;
        if config.host.is_empty() {
            return Err(ConfigError::new(&at("host"), "is missing"));
        }
        if config.tls == MailTls::None && !is_loopback(&config.host) {
            let reason = "`none` is only for a mail server on this machine's loopback address; use starttls or tls";
            return Err(ConfigError::new(&at("tls"), reason));
        }
        let mailbox = |text: &str, key: &str| {
            text.parse::<Mailbox>().map_err(|error| {
                ConfigError::new(key, format!("`{}`: {error}", inert::header(text, 100)))
            })
        };
        let from = mailbox(&config.from, &at("from"))?;
        let to = config
            .to
            .iter()
            .enumerate()
            .map(|(i, text)| mailbox(text, &at(&format!("to[{i}]"))))
            .collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(ConfigError::new(&at("to"), "names nobody"));
        }
        let hello = match config.hello.as_str() {
            "" => from.email.domain().to_owned(),
            own => own.to_owned(),
        };
        let parameters = match config.tls {
            MailTls::None => None,
            MailTls::Starttls | MailTls::Tls => Some(tls_parameters(config, &at("ca_file"))?),
        };
        Ok(Email {
            host: config.host.clone(),
            port: config.port,
            tls: config.tls,
            parameters,
            hello: ClientId::Domain(hello),
            username: config.username.clone(),
            password: secret(
                &config.password,
                config.password_file.as_ref(),
                &at("password"),
            )?,
            from,
            to,
            receiver: receiver.to_owned(),
            timeout: Duration::from_secs(config.timeout_seconds),
        })
    }

    async fn attempt(&self, message: &Message) -> Result<Sent, SendError> {
        let mail = self
            .mail(message)
            .map_err(|error| permanent(format!("cannot write the mail: {error}")))?;
        let envelope = mail.envelope().clone();
        let under_way = AtomicBool::new(false);
        let bytes = mail.formatted();
        let attempt = self.deliver(&envelope, &bytes, &under_way);
        match tokio::time::timeout(self.timeout, attempt).await {
            Ok(Ok((mut connection, sent))) => {
                // The mail is taken: whatever comes of the farewell changes nothing.
                let _ = tokio::time::timeout(FAREWELL, connection.quit()).await;
                Ok(sent)
            }
            Ok(Err(error)) => Err(error),
            Err(_) if under_way.load(Ordering::Relaxed) => {
                Err(ambiguous("no answer to the mail in time"))
            }
            Err(_) => Err(transient("the mail server did not answer in time")),
        }
    }

    async fn deliver(
        &self,
        envelope: &Envelope,
        mail: &[u8],
        under_way: &AtomicBool,
    ) -> Result<(AsyncSmtpConnection, Sent), SendError> {
        let mut connection = self.connect().await?;
        let mut options = Vec::new();
        if !mail.is_ascii()
            && connection
                .server_info()
                .supports_feature(Extension::EightBitMime)
        {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let from = MailFrom::new(envelope.from().cloned(), options);
        connection
            .command(from)
            .await
            .map_err(|e| refused("the sender", &e))?;
        let (mut taken, mut refusal) = (0, None);
        for to in envelope.to() {
            match connection.command(Rcpt::new(to.clone(), Vec::new())).await {
                Ok(_) => taken += 1,
                Err(error) => refusal = Some(refused("a recipient", &error)),
            }
        }
        // One bad address must not keep the mail from the others.
        if let Some(refusal) = refusal.filter(|_| taken == 0) {
            return Err(refusal);
        }
        connection
            .command(Data)
            .await
            .map_err(|e| refused("the mail", &e))?;
        under_way.store(true, Ordering::Relaxed);
        match connection.message(mail).await {
            Ok(_) => {
                let answer = format!("taken for {taken} of {} recipients", envelope.to().len());
                Ok((connection, Sent { answer }))
            }
            Err(error) if error.status().is_some() => Err(refused("the mail", &error)),
            Err(error) => Err(ambiguous(format!(
                "no answer to the mail: {}",
                describe(&error)
            ))),
        }
    }

    /// A connection that is as protected as configured and logged in.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let at_once = self.parameters.clone().filter(|_| self.tls == MailTls::Tls);
        let server = (
            self.host.trim_start_matches('[').trim_end_matches(']'),
            self.port,
        );
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            server,
            Some(self.timeout),
            &self.hello,
            at_once,
            None,
        )
        .await
        .map_err(|e| refused("the connection", &e))?;
        if self.tls == MailTls::Starttls {
            if !connection.can_starttls() {
                return Err(transient(
                    "the mail server offers no STARTTLS: nothing was sent",
                ));
            }
            let parameters = self
                .parameters
                .clone()
                .ok_or_else(|| permanent("no TLS parameters"))?;
            connection
                .starttls(parameters, &self.hello)
                .await
                .map_err(|e| refused("STARTTLS", &e))?;
        }
        if !self.username.is_empty() {
            let credentials =
                Credentials::new(self.username.clone(), self.password.expose().to_owned());
            connection
                .auth(DEFAULT_MECHANISMS, &credentials)
                .await
                .map_err(|e| refused("the login", &e))?;
        }
        Ok(connection)
    }

    /// The mail of a message: the same but for the boundary between its parts whenever it is written.
    fn mail(&self, message: &Message) -> Result<Mail, lettre::error::Error> {
        let Letter {
            subject,
            text,
            html,
        } = letter::write(message);
        let domain = self.from.email.domain();
        let thread = format!("<incident.{}@{domain}>", message.incident.id);
        let key = message.idempotency_key.replace('/', ".");
        let id = format!("<{key}.{}@{domain}>", self.receiver);
        let since_1970 = Duration::from_micros(message.time.0.max(0).unsigned_abs());
        let mut mail = Mail::builder()
            .from(self.from.clone())
            .subject(subject)
            .date(SystemTime::UNIX_EPOCH + since_1970)
            .message_id(Some(id))
            .in_reply_to(thread.clone())
            .references(thread);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        for (name, value) in [
            ("Auto-Submitted", "auto-generated"),
            ("X-Auto-Response-Suppress", "All"),
            ("X-Trailwarden-Severity", message.severity.as_str()),
            ("X-Trailwarden-Key", &message.idempotency_key),
        ] {
            let name =
                HeaderName::new_from_ascii(name.to_owned()).expect("the names above are ASCII");
            mail = mail.raw_header(HeaderValue::new(name, value.to_owned()));
        }
        mail.multipart(MultiPart::alternative_plain_html(text, html))
    }
}

impl Notifier for Email {
    fn send<'a>(&'a self, message: &'a Message, _body: &'a str, _now: Time) -> Sending<'a> {
        Box::pin(self.attempt(message))
    }
}

fn tls_parameters(config: &EmailConfig, key: &str) -> Result<TlsParameters, ConfigError> {
    let wrong = |error: SmtpError| ConfigError::new(key, describe(&error));
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(file) = &config.ca_file {
        let pem = read(file, key)?;
        builder =
            builder.add_root_certificate(Certificate::from_pem(pem.as_bytes()).map_err(wrong)?);
    }
    builder.build().map_err(wrong)
}

/// What an error before the message was sent means: 5xx is final, anything else may work later.
fn refused(what: &str, error: &SmtpError) -> SendError {
    let reason = format!("{what} was refused: {}", describe(error));
    if error.is_permanent() {
        permanent(reason)
    } else {
        transient(reason)
    }
}

fn describe(error: &SmtpError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    inert::header(&text, 500)
}

#[cfg(test)]
mod tests;
