//! The way to AWS: who we are there, and what its refusals mean.
//!
//! [`Access`] is what the configuration says about credentials, region and endpoints; [`Access::load`] makes the one
//! configuration of the SDK from it that all clients share. Credentials come from the default chain of AWS
//! (environment, profiles with SSO, web identity of EKS, container and instance roles), and from there by AssumeRole
//! where a role is named. [`Fault`] is what an error of a call means for us: whether the same call can be made again,
//! and what a person has to do about it. Nothing here reads or writes events. What its sources have in common besides,
//! threads and waiting, stands here too.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls;
use bus::{BusError, Stop};
use serde::{Deserialize, Serialize};

/// How often to look whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// As whom, and where, a source calls AWS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The region; empty for the one of the environment.
    pub region: String,
    /// A role that is assumed; empty for none.
    pub role_arn: String,
    /// What the role's trust policy asks for; empty for nothing.
    pub external_id: String,
    /// The profile of the shared configuration files; empty for the default one.
    pub profile: String,
    /// Another address for every service, such as that of a test server; empty for those of AWS.
    pub endpoint_url: String,
}

impl Access {
    /// The configuration of all clients. Talks to no one yet, but to STS where a role is named.
    pub async fn load(&self) -> SdkConfig {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(aws_config::retry::RetryConfig::adaptive().with_max_attempts(5))
            .timeout_config(
                aws_config::timeout::TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .read_timeout(Duration::from_secs(30))
                    .build(),
            );
        if !self.region.is_empty() {
            loader = loader.region(Region::new(self.region.clone()));
        }
        if !self.profile.is_empty() {
            loader = loader.profile_name(&self.profile);
        }
        if !self.endpoint_url.is_empty() {
            loader = loader.endpoint_url(&self.endpoint_url);
        }
        let config = loader.load().await;
        if self.role_arn.is_empty() {
            return config;
        }
        let mut role = aws_config::sts::AssumeRoleProvider::builder(&self.role_arn)
            .session_name("trailwarden")
            .configure(&config);
        if !self.external_id.is_empty() {
            role = role.external_id(&self.external_id);
        }
        let provider = aws_sdk_s3::config::SharedCredentialsProvider::new(role.build().await);
        config.into_builder().credentials_provider(provider).build()
    }

    /// A client of S3, in a region or in that of the configuration. Where there is none either, any will do: S3 says where
    /// a bucket is. Buckets are named in the path where the endpoint is not that of AWS.
    pub(crate) fn s3(&self, config: &SdkConfig, region: Option<&str>) -> aws_sdk_s3::Client {
        let region = region.map(|r| Region::new(r.to_owned()));
        let region = region.or_else(|| config.region().cloned());
        let builder = aws_sdk_s3::config::Builder::from(config)
            .force_path_style(!self.endpoint_url.is_empty())
            .region(region.unwrap_or(Region::from_static("us-east-1")));
        aws_sdk_s3::Client::from_conf(builder.build())
    }
}

/// What a failed call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// There are no credentials, or none that still hold.
    Credentials,
    /// The role that is to be assumed may not be, or is not there.
    Role,
    /// Somebody has to allow it.
    Denied,
    /// The key that the content is encrypted with may not be used, or is disabled.
    Key,
    /// The object is not there.
    NoObject,
    /// The bucket, queue, stream or log group is not there.
    NoSource,
    /// The bucket is in another region.
    Region,
    /// Too many calls.
    Throttled,
    /// No answer, or none in time, or a failure on the other side.
    Away,
    /// Anything else.
    Other,
}

impl Fault {
    /// What an error means.
    pub(crate) fn of<E, R>(error: &SdkError<E, R>) -> Fault
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let answer = answer.err();
                Fault::of_code(
                    answer.code().unwrap_or_default(),
                    answer.message().unwrap_or_default(),
                )
            }
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Fault::Away,
            // What the chain of credentials says, and that there is no region, comes as a failure to send.
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
                match DisplayErrorContext(error).to_string() {
                    text if text.contains("region must be set") => Fault::Region,
                    text if text.contains("sts:AssumeRole") => Fault::Role,
                    text if text.contains("redential") || text.contains("oken") => {
                        Fault::Credentials
                    }
                    _ => Fault::Away,
                }
            }
            _ => Fault::Other,
        }
    }

    fn of_code(code: &str, message: &str) -> Fault {
        // S3 says of a key of KMS no more than that access is denied, but names the key or the action.
        let key = message.contains("kms:") || message.contains(":key/");
        match code {
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException"
            | "AuthFailure"
            | "InvalidToken"
            | "MissingAuthenticationToken" => Fault::Credentials,
            "KMSThrottlingException" => Fault::Throttled,
            _ if code.starts_with("KMS") || code.starts_with("Kms") => Fault::Key,
            "AccessDenied" | "AccessDeniedException" | "AllAccessDisabled" | "AccountProblem"
                if key =>
            {
                Fault::Key
            }
            "AccessDenied"
            | "AccessDeniedException"
            | "AllAccessDisabled"
            | "AccountProblem"
            | "AuthorizationError"
            | "OptInRequired"
            | "NotSignedUp" => Fault::Denied,
            "NoSuchKey" | "NotFound" | "NoSuchVersion" | "InvalidObjectState" => Fault::NoObject,
            "NoSuchBucket" | "QueueDoesNotExist" | "ResourceNotFoundException" => Fault::NoSource,
            _ if code.ends_with("NonExistentQueue") || code.ends_with("QueueDoesNotExist") => {
                Fault::NoSource
            }
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => Fault::Region,
            "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "ProvisionedThroughputExceededException"
            | "LimitExceededException" => Fault::Throttled,
            "InternalError"
            | "InternalFailure"
            | "InternalFailureException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "RequestTimeout" => Fault::Away,
            _ => Fault::Other,
        }
    }

    /// One word, for metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Credentials => "credentials",
            Fault::Role => "role",
            Fault::Denied => "denied",
            Fault::Key => "kms_key",
            Fault::NoObject => "no_object",
            Fault::NoSource => "no_source",
            Fault::Region => "region",
            Fault::Throttled => "throttled",
            Fault::Away => "away",
            Fault::Other => "other",
        }
    }

    /// What a person can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Fault::Credentials => {
                "give the process credentials of AWS that still hold (a role of the instance or the pod, or a profile), and check its clock"
            }
            Fault::Role => {
                "check `aws.role_arn`; let the role's trust policy name the role of this process, with the same external id as `aws.external_id`, and allow this process sts:AssumeRole on it (docs/collecting.md)"
            }
            Fault::Denied => {
                "allow the call to the role of this process: in its own policy, and in that of the bucket, queue or stream where that is in another account (docs/collecting.md)"
            }
            Fault::Key => {
                "allow kms:Decrypt to the role of this process in the policy of the key that the bucket, the queue, the stream or the trail is encrypted with (docs/collecting.md)"
            }
            Fault::NoObject => {
                "a rule of the bucket's life cycle or a person removed it before it was read"
            }
            Fault::NoSource => "check its name, region and account in the configuration",
            Fault::Region => "set the region (`aws.region` in the configuration, or AWS_REGION)",
            Fault::Throttled => {
                "nothing: it is tried again more slowly; ask for a higher quota if it stays"
            }
            Fault::Away => "check the way to AWS (proxy, VPC endpoint, DNS); it is tried again",
            Fault::Other => "the message says more; it is tried again",
        }
    }
}

/// What an error says, in one line: the answer of the service, or the chain of causes, without what one says of another.
pub(crate) fn said<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    if let SdkError::ServiceError(answer) = error {
        let answer = answer.err();
        if let (Some(code), Some(message)) = (answer.code(), answer.message()) {
            return format!("{code}: {message}");
        }
    }
    let mut words: Vec<String> = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        // Credentials are looked for in many places, each with a line of its own.
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        let line = line.trim_end_matches(" Attempted:").to_owned();
        if !words.iter().any(|w| w.contains(&line)) {
            words.push(line);
        }
        cause = error.source();
    }
    words.join(": ")
}

/// Threads for one kind of source.
pub(crate) fn threads(name: &'static str) -> Result<tokio::runtime::Runtime, BusError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|source| BusError::Io {
            action: "start threads for",
            path: name.to_owned(),
            source,
        })
}

/// Waits for so long, or until told to stop.
pub(crate) async fn rest(time: Duration, stop: &Stop) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stopped(stop) => {}
    }
}

/// What a call gives, unless it is told to stop before.
pub(crate) async fn unless_stopped<T>(call: impl Future<Output = T>, stop: &Stop) -> Option<T> {
    tokio::select! {
        answer = call => Some(answer),
        () = stopped(stop) => None,
    }
}

/// Waits until told to stop.
pub(crate) async fn stopped(stop: &Stop) {
    while !stop.is_stopped() {
        tokio::time::sleep(TICK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let check = |code, message, expected| {
            assert_eq!(Fault::of_code(code, message), expected, "{code} {message}");
        };
        check("AccessDenied", "Access Denied", Fault::Denied);
        check(
            "AccessDenied",
            "User: arn:aws:sts::1:assumed-role/x/y is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/a",
            Fault::Key,
        );
        check("KMS.DisabledException", "", Fault::Key);
        check("KMSAccessDeniedException", "", Fault::Key);
        check("KMSThrottlingException", "", Fault::Throttled);
        check(
            "ExpiredToken",
            "The provided token has expired.",
            Fault::Credentials,
        );
        check("NoSuchKey", "", Fault::NoObject);
        check("NoSuchBucket", "", Fault::NoSource);
        check(
            "AWS.SimpleQueueService.NonExistentQueue",
            "",
            Fault::NoSource,
        );
        check(
            "SlowDown",
            "Please reduce your request rate.",
            Fault::Throttled,
        );
        check("PermanentRedirect", "", Fault::Region);
        check("InternalError", "", Fault::Away);
        check("Novelty", "", Fault::Other);
    }

    #[test]
    fn every_fault_has_a_word_and_a_way_out() {
        let all = [
            Fault::Credentials,
            Fault::Role,
            Fault::Denied,
            Fault::Key,
            Fault::NoObject,
            Fault::NoSource,
            Fault::Region,
            Fault::Throttled,
            Fault::Away,
            Fault::Other,
        ];
        let words: std::collections::BTreeSet<_> = all.iter().map(|f| f.as_str()).collect();
        assert_eq!(words.len(), all.len());
        assert!(all.iter().all(|f| !f.hint().is_empty()));
    }
}
