//! Buckets of S3: listed, and their objects fetched whole.
//!
//! [`S3`] is one way in, with the credentials of one source; it finds out in which region a bucket is. An object comes
//! to memory or, if it is large, to a file, so that a slow log holds no connection open and a broken connection is never
//! taken for a broken object. A [`Trouble`] says what failed and what a person can do about it. What an object holds is
//! not looked at here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use bus::{BusError, Stop};
use event::{Str, format_compact};
use tempfile::NamedTempFile;

use super::notification::Object;
use crate::aws::{self, Access, Fault};
use crate::digest::Metadata;

/// Larger objects wait in a file.
const IN_MEMORY: u64 = 4 << 20;

/// Why an object was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be had.
    #[error("cannot get `{object}`: {message}")]
    Fetch {
        /// The object.
        object: String,
        /// What that means.
        fault: Fault,
        /// What AWS says.
        message: String,
    },
    /// It is had, and cannot be kept or read here.
    #[error("cannot read `{object}`")]
    Local {
        /// The object.
        object: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Decoding it stopped unexpectedly.
    #[error("decoding `{object}` stopped unexpectedly")]
    Panicked {
        /// The object.
        object: String,
    },
    /// The log failed.
    #[error(transparent)]
    Bus(Arc<BusError>),
    /// The service is told to stop.
    #[error("stopped before the end")]
    Stopped,
}

impl From<BusError> for Trouble {
    fn from(error: BusError) -> Trouble {
        Trouble::Bus(Arc::new(error))
    }
}

impl Trouble {
    /// What the error of a call means for what was asked for.
    pub(crate) fn of<E, R>(object: String, error: &SdkError<E, R>) -> Trouble
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        Trouble::Fetch {
            object,
            fault: Fault::of(error),
            message: aws::said(error),
        }
    }

    /// Will the next object have it too?
    pub fn is_of_all(&self) -> bool {
        match self {
            Trouble::Fetch { fault, .. } => matches!(
                fault,
                Fault::Credentials | Fault::Role | Fault::NoSource | Fault::Throttled
            ),
            Trouble::Panicked { .. } => false,
            Trouble::Local { .. } | Trouble::Bus(_) | Trouble::Stopped => true,
        }
    }

    /// Does it pass by itself, so that nobody has to act?
    pub(crate) fn passes(&self) -> bool {
        match self {
            Trouble::Fetch { fault, .. } => matches!(fault, Fault::Throttled | Fault::Away),
            Trouble::Bus(error) => {
                error.is_transient() && !matches!(**error, BusError::DiskFull { .. })
            }
            _ => false,
        }
    }

    /// One word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Trouble::Fetch { fault, .. } => fault.as_str(),
            Trouble::Local { .. } => "spool",
            Trouble::Panicked { .. } => "panic",
            Trouble::Bus(error) => error.kind(),
            Trouble::Stopped => "stopped",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Trouble::Fetch { fault, .. } => fault.hint(),
            Trouble::Local { .. } => "make room in the data folder",
            Trouble::Panicked { .. } => "please report this with the object",
            Trouble::Bus(_) => "the log takes no writes at the moment",
            Trouble::Stopped => "start it again: it goes on where it was",
        }
    }
}

/// Where an object waits.
pub(crate) enum Content {
    Memory(Vec<u8>),
    File(NamedTempFile),
}

impl Content {
    /// Its bytes, as they are stored.
    pub(crate) fn open(self) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Content::Memory(bytes) => Box::new(io::Cursor::new(bytes)),
            Content::File(file) => Box::new(File::open(file.path())?),
        })
    }
}

/// An object that is here.
pub(crate) struct Fetched {
    pub(crate) content: Content,
    /// Its size as it is stored, in bytes.
    pub(crate) size: u64,
    /// Its entity tag, without quotes.
    pub(crate) etag: String,
    /// What S3 keeps beside it, as far as it concerns digests.
    pub(crate) metadata: Metadata,
}

/// One way in.
pub struct S3 {
    access: Access,
    config: SdkConfig,
    clients: Mutex<BTreeMap<Option<Str>, Client>>,
    /// Where buckets are that turned out to be elsewhere.
    regions: Mutex<BTreeMap<Str, Str>>,
    spool: PathBuf,
    stop: Stop,
}

/// Makes the folder for waiting objects and removes what a killed process left in it.
pub fn clear(spool: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(spool) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(spool)
}

impl S3 {
    /// A way in with these credentials; large objects wait in `spool`.
    pub fn new(access: Access, config: SdkConfig, spool: PathBuf, stop: Stop) -> S3 {
        S3 {
            access,
            config,
            clients: Mutex::default(),
            regions: Mutex::default(),
            spool,
            stop,
        }
    }

    /// The configuration of all clients.
    pub(crate) fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// An object; `None` if it has the entity tag that is `known`.
    pub(crate) async fn fetch(
        &self,
        object: &Object,
        known: Option<&str>,
    ) -> Result<Option<Fetched>, Trouble> {
        let answer = self.get(object).await?;
        let etag = answer
            .e_tag()
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned();
        if !etag.is_empty() && known == Some(etag.as_str()) {
            return Ok(None);
        }
        let word = |name: &str| answer.metadata().and_then(|m| m.get(name)).cloned();
        let metadata = Metadata {
            signature: word("signature"),
            algorithm: word("signature-algorithm"),
        };
        let name = name(&object.bucket, &object.key);
        let (content, size) = self.download(&name, answer).await?;
        Ok(Some(Fetched {
            content,
            size,
            etag,
            metadata,
        }))
    }

    fn client(&self, region: Option<Str>) -> Client {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients
            .entry(region.clone())
            .or_insert_with(|| self.access.s3(&self.config, region.as_deref()))
            .clone()
    }

    /// Asks for an object.
    async fn get(&self, object: &Object) -> Result<GetObjectOutput, Trouble> {
        let ask = |client: Client| {
            let ask = client.get_object();
            ask.bucket(&*object.bucket).key(&*object.key).send()
        };
        let answer = self
            .in_region(&object.bucket, object.region.clone(), ask)
            .await;
        answer.map_err(|error| fetch(&object.bucket, &object.key, &error))
    }

    /// A page of what a bucket holds below a folder, by its folders or one object after the other.
    pub(crate) async fn list(
        &self,
        bucket: &str,
        folder: &str,
        page: Option<&str>,
        by_folder: bool,
    ) -> Result<ListObjectsV2Output, Trouble> {
        let ask = |client: Client| {
            let ask = client.list_objects_v2().bucket(bucket).prefix(folder);
            let ask = ask.set_delimiter(by_folder.then(|| "/".to_owned()));
            ask.set_continuation_token(page.map(str::to_owned)).send()
        };
        let answer = self.in_region(bucket, None, ask).await;
        answer.map_err(|error| fetch(bucket, folder, &error))
    }

    /// Asks in the region in which a bucket is, as far as that is known, and where S3 says that it is elsewhere, there.
    async fn in_region<T, E, F>(
        &self,
        bucket: &str,
        said: Option<Str>,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, Box<SdkError<E>>>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let known = {
            let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
            regions.get(bucket).cloned()
        };
        let region = known.or(said);
        let error = match ask(self.client(region.clone())).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let headers = error.raw_response().map(|answer| answer.headers());
        let elsewhere = headers
            .and_then(|h| h.get("x-amz-bucket-region"))
            .map(Str::from);
        let Some(elsewhere) = elsewhere.filter(|r| Some(r) != region.as_ref()) else {
            return Err(Box::new(error));
        };
        let answer = ask(self.client(Some(elsewhere.clone()))).await?;
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.insert(bucket.into(), elsewhere);
        Ok(answer)
    }

    /// The whole object, as it is stored, and its size.
    async fn download(
        &self,
        name: &str,
        answer: GetObjectOutput,
    ) -> Result<(Content, u64), Trouble> {
        let broken = |message: String| Trouble::Fetch {
            object: name.to_owned(),
            fault: Fault::Away,
            message,
        };
        let local = |source| Trouble::Local {
            object: name.to_owned(),
            source,
        };
        let promised = answer.content_length().and_then(|n| u64::try_from(n).ok());
        let mut body = answer.body;
        let (mut content, mut size) = (Content::Memory(Vec::new()), 0_u64);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| broken(format!("the answer broke off: {error}")))?;
            if self.stop.is_stopped() {
                return Err(Trouble::Stopped);
            }
            size += chunk.len() as u64;
            match &mut content {
                Content::Memory(bytes) if size <= IN_MEMORY => bytes.extend_from_slice(&chunk),
                Content::Memory(bytes) => {
                    let mut file = NamedTempFile::new_in(&self.spool).map_err(local)?;
                    file.write_all(bytes).map_err(local)?;
                    file.write_all(&chunk).map_err(local)?;
                    content = Content::File(file);
                }
                Content::File(file) => file.write_all(&chunk).map_err(local)?,
            }
        }
        match promised {
            Some(promised) if promised != size => {
                Err(broken(format!("{size} of {promised} bytes came")))
            }
            _ => Ok((content, size)),
        }
    }
}

/// The name of an object as the origin of its events.
pub(crate) fn name(bucket: &str, key: &str) -> Str {
    format_compact!("s3://{bucket}/{key}")
}

fn fetch<E>(bucket: &str, key: &str, error: &SdkError<E>) -> Trouble
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    Trouble::of(name(bucket, key).to_string(), error)
}
