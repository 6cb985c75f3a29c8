//! A running service, asked over its HTTP API by the commands of this program.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use reqwest::Url;
use serde_json::Value;

use crate::exit::Usage;

/// The longest that a transfer may take.
const A_DAY: Duration = Duration::from_secs(86_400);

/// The way to a service.
pub(crate) struct Service {
    url: String,
    token: Option<String>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Service {
    /// The service at an address, with the bearer token in a file.
    pub(crate) fn new(url: &str, token_file: Option<&Path>) -> anyhow::Result<Service> {
        let token = token_file
            .map(|path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read `{}`", path.display()))
            })
            .transpose()
            .context(Usage)?;
        Ok(Service {
            url: url.to_owned(),
            token: token.map(|t| t.trim().to_owned()),
            client: reqwest::Client::builder()
                .timeout(Duration::from_secs(60))
                .build()?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// The address of something that it answers.
    pub(crate) fn address(&self, path: &str) -> anyhow::Result<Url> {
        Url::parse(&self.url)
            .and_then(|u| u.join(path))
            .with_context(|| format!("`{}` is no address of a service", self.url))
            .context(Usage)
    }

    /// What it answers there.
    pub(crate) fn get(&self, address: Url) -> anyhow::Result<Value> {
        self.ask(self.client.get(address))
    }

    /// What it answers there to a body.
    pub(crate) fn post(&self, address: Url, body: &Value) -> anyhow::Result<Value> {
        self.ask(self.client.post(address).json(body))
    }

    /// Writes what it sends there to `out`, piece by piece and however long it takes. A transfer that breaks off is an
    /// error.
    pub(crate) fn download(&self, address: Url, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut call = self.client.get(address).timeout(A_DAY);
        if let Some(token) = &self.token {
            call = call.bearer_auth(token);
        }
        self.runtime.block_on(async {
            let mut answer = call.send().await.with_context(|| self.unreachable())?;
            let status = answer.status();
            if !status.is_success() {
                let body = answer.json::<Value>().await;
                return Err(refused(status, &body.context("the answer is no JSON")?));
            }
            while let Some(piece) = answer
                .chunk()
                .await
                .context("the service broke the transfer off: what came is not all")?
            {
                out.write_all(&piece)?;
            }
            out.flush()?;
            Ok(())
        })
    }

    fn unreachable(&self) -> String {
        format!(
            "cannot reach `{}`; is the service running, and is this its address?",
            self.url
        )
    }

    fn ask(&self, mut call: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        if let Some(token) = &self.token {
            call = call.bearer_auth(token);
        }
        let (status, body) = self.runtime.block_on(async {
            let answer = call.send().await.with_context(|| self.unreachable())?;
            let status = answer.status();
            let body = answer.json::<Value>().await;
            anyhow::Ok((status, body.context("the answer is no JSON")?))
        })?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        Ok(body)
    }

    /// The bytes that it answers to JSON, at most so many.
    pub(crate) fn post_for_bytes(
        &self,
        address: Url,
        body: &Value,
        most: usize,
    ) -> anyhow::Result<Vec<u8>> {
        let mut call = self.client.post(address).json(body);
        if let Some(token) = &self.token {
            call = call.bearer_auth(token);
        }
        self.runtime.block_on(async {
            let mut answer = call.send().await.with_context(|| self.unreachable())?;
            let status = answer.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk().await.context("the answer was cut off")? {
                bytes.extend_from_slice(&chunk);
                anyhow::ensure!(
                    bytes.len() <= most,
                    "the answer is larger than {most} bytes"
                );
            }
            if !status.is_success() {
                return Err(refused(
                    status,
                    &serde_json::from_slice(&bytes).unwrap_or_default(),
                ));
            }
            Ok(bytes)
        })
    }
}

fn refused(status: reqwest::StatusCode, body: &Value) -> anyhow::Error {
    let text = |key: &str| body["error"][key].as_str().unwrap_or_default().to_owned();
    anyhow::anyhow!(
        "the service answered {status}: {}\n\nhint: {}",
        text("message"),
        text("hint")
    )
}
