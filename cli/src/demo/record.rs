//! CloudTrail records: [`Call`] says who called what, and [`Call::record`] writes it as CloudTrail does.
//!
//! The order and presence of fields follow the CloudTrail user guide: a failed call has an `errorCode` and
//! no response, sign-ins are of type `AwsConsoleSignIn` and carry `additionalEventData`, data events say so in
//! `eventCategory`. Global services are recorded in us-east-1. Times have whole seconds. The ids are drawn
//! from the traffic's own chance. `serde_json::json` fills the fields; nothing is parsed here.

use event::Time;
use serde_json::{Map, Value, json};

use super::org::{Account, Principal, REGIONS};
use super::rng::Rng;

/// Services whose calls are all recorded in the first region.
const GLOBAL: [&str; 6] = [
    "iam",
    "signin",
    "organizations",
    "route53",
    "cloudfront",
    "account",
];
/// Beginnings of the names of calls that change nothing.
const READS: [&str; 11] = [
    "List",
    "Describe",
    "Get",
    "Head",
    "Lookup",
    "BatchGet",
    "Decrypt",
    "GenerateDataKey",
    "AssumeRole",
    "Query",
    "Scan",
];

/// A record that is on its way: its own id, the second it happened and its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// The eventID.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) second: i64,
    /// The JSON object.
    pub(crate) bytes: Vec<u8>,
}

/// One call of an API, to be written as a record.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    identity: Value,
    account: String,
    region: String,
    second: i64,
    service: String,
    name: String,
    address: String,
    agent: String,
    request: Value,
    response: Value,
    error: Option<(String, String)>,
    kind: &'static str,
    data: bool,
    extra: Map<String, Value>,
}

impl Call {
    /// `principal` calls `name` of `service` (`s3` for s3.amazonaws.com) from where it always does.
    pub(crate) fn new(
        principal: &Principal,
        account: &Account,
        second: i64,
        service: &str,
        name: &str,
    ) -> Call {
        Call::by(
            principal.identity(account, second),
            account,
            second,
            service,
            name,
        )
        .from(&principal.address, principal.agent)
    }

    /// The same with an identity written out.
    pub(crate) fn by(
        identity: Value,
        account: &Account,
        second: i64,
        service: &str,
        name: &str,
    ) -> Call {
        let region = if GLOBAL.contains(&service) {
            REGIONS[0]
        } else {
            account.region
        };
        Call {
            identity,
            account: account.id.into(),
            region: region.into(),
            second,
            service: service.into(),
            name: name.into(),
            address: String::new(),
            agent: String::new(),
            request: Value::Null,
            response: Value::Null,
            error: None,
            kind: "AwsApiCall",
            data: false,
            extra: Map::new(),
        }
    }

    /// From another address and client.
    pub(crate) fn from(mut self, address: &str, agent: &str) -> Call {
        self.address = address.into();
        self.agent = agent.into();
        self
    }

    /// In another region, unless the service is global.
    pub(crate) fn region(mut self, region: &str) -> Call {
        if !GLOBAL.contains(&self.service.as_str()) {
            self.region = region.into();
        }
        self
    }

    /// With these `requestParameters`.
    pub(crate) fn request(mut self, request: Value) -> Call {
        self.request = request;
        self
    }

    /// With these `responseElements`.
    pub(crate) fn response(mut self, response: Value) -> Call {
        self.response = response;
        self
    }

    /// It failed.
    pub(crate) fn error(mut self, code: &str, message: String) -> Call {
        self.error = Some((code.into(), message));
        self
    }

    /// It was refused for want of a permission.
    pub(crate) fn denied(self, arn: &str) -> Call {
        let message = format!(
            "User: {arn} is not authorized to perform: {}:{} because no identity-based policy allows the action",
            self.service, self.name
        );
        self.error("AccessDenied", message)
    }

    /// It is a data event: an object of a bucket, a function.
    pub(crate) fn data(mut self) -> Call {
        self.data = true;
        self
    }

    /// It is an event of the sign-in page.
    pub(crate) fn sign_in(mut self) -> Call {
        self.kind = "AwsConsoleSignIn";
        self
    }

    /// With a further top-level field.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Call {
        self.extra.insert(key.into(), value);
        self
    }

    /// Writes it.
    pub(crate) fn record(self, rng: &mut Rng) -> Record {
        let id = rng.uuid();
        let failed = self.error.is_some();
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| fields.insert(key.into(), value);
        put("eventVersion", "1.11".into());
        put("userIdentity", self.identity);
        put("eventTime", iso(self.second).into());
        put(
            "eventSource",
            format!("{}.amazonaws.com", self.service).into(),
        );
        put("eventName", self.name.as_str().into());
        put("awsRegion", self.region.as_str().into());
        put("sourceIPAddress", self.address.as_str().into());
        put("userAgent", self.agent.into());
        if let Some((code, message)) = self.error {
            put("errorCode", code.into());
            put("errorMessage", message.into());
        }
        put("requestParameters", self.request);
        put(
            "responseElements",
            if failed { Value::Null } else { self.response },
        );
        put("requestID", rng.uuid().into());
        put("eventID", id.as_str().into());
        let read = self.kind == "AwsApiCall" && READS.iter().any(|r| self.name.starts_with(r));
        put("readOnly", read.into());
        put("eventType", self.kind.into());
        put("managementEvent", (!self.data).into());
        put("recipientAccountId", self.account.into());
        put(
            "eventCategory",
            if self.data { "Data" } else { "Management" }.into(),
        );
        if self.kind == "AwsApiCall" && self.address.starts_with(|c: char| c.is_ascii_digit()) {
            let host = if GLOBAL.contains(&self.service.as_str()) {
                format!("{}.amazonaws.com", self.service)
            } else {
                format!("{}.{}.amazonaws.com", self.service, self.region)
            };
            put(
                "tlsDetails",
                json!({"tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_128_GCM_SHA256", "clientProvidedHostHeader": host}),
            );
        }
        fields.extend(self.extra);
        Record {
            id,
            second: self.second,
            bytes: Value::Object(fields).to_string().into_bytes(),
        }
    }
}

/// A time with whole seconds as CloudTrail writes it.
pub(crate) fn iso(second: i64) -> String {
    Time::from_seconds(second).encode(&mut [0; 27]).into()
}
