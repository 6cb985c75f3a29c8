//! CloudTrail records: API calls, sign-ins, service events, network activity, insights and aggregates.
//!
//! [`Reader`] finds all fields in one walk over the record ([`Field`] lists them) and fills the envelope, in two steps. A
//! record is CloudTrail's by its content, wherever it was found: old and cut records lack `eventVersion`,
//! insights have no `eventName` of their own, aggregates have neither `eventID` nor `eventTime`. An error may
//! stand in `errorCode`, within `responseElements`, or be a bare `Failure` there. Who is behind the caller is
//! the business of [`super::identity`].

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use event::json::{Kind, Value};
use event::path::{FieldSet, Slot, Slots};
use event::{Event, Flag, Id, Outcome, Str, Time};

use super::identity;

/// The source of its events.
pub(super) const SOURCE: &str = "aws.cloudtrail";

/// The fields that are read, in the order of [`PATHS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Field {
    EventId,
    AggregateId,
    EventTime,
    WindowEnd,
    EventVersion,
    EventType,
    EventCategory,
    EventSource,
    EventName,
    ManagementEvent,
    Region,
    RecipientAccount,
    AggregateAccount,
    ErrorCode,
    ErrorMessage,
    SourceIp,
    UserAgent,
    RequestId,
    SharedId,
    AddendumReason,
    AmendedId,
    InsightSource,
    InsightName,
    ResourceArn,
    ResourceArnLower,
    IdentityType,
    IdentityArn,
    IdentityPrincipal,
    IdentityAccount,
    IdentityKey,
    IdentityUser,
    IdentityInvokedBy,
    IssuerArn,
    IssuerUser,
    SourceIdentity,
    MfaAuthenticated,
    FederatedProvider,
    FederatedSubject,
    OnBehalfOfUser,
    MfaUsed,
    RequestOmitted,
    ResponseOmitted,
    AdditionalOmitted,
    ServiceOmitted,
    RequestParameters,
    ResponseElements,
    ServiceDetails,
    VpcEndpointAccount,
}

const PATHS: &[(Field, &str)] = &[
    (Field::EventId, "eventID"),
    (Field::AggregateId, "eventId"),
    (Field::EventTime, "eventTime"),
    (Field::WindowEnd, "timeWindow.windowEnd"),
    (Field::EventVersion, "eventVersion"),
    (Field::EventType, "eventType"),
    (Field::EventCategory, "eventCategory"),
    (Field::EventSource, "eventSource"),
    (Field::EventName, "eventName"),
    (Field::ManagementEvent, "managementEvent"),
    (Field::Region, "awsRegion"),
    (Field::RecipientAccount, "recipientAccountId"),
    (Field::AggregateAccount, "accountId"),
    (Field::ErrorCode, "errorCode"),
    (Field::ErrorMessage, "errorMessage"),
    (Field::SourceIp, "sourceIPAddress"),
    (Field::UserAgent, "userAgent"),
    (Field::RequestId, "requestID"),
    (Field::SharedId, "sharedEventID"),
    (Field::AddendumReason, "addendum.reason"),
    (Field::AmendedId, "addendum.originalEventID"),
    (Field::InsightSource, "insightDetails.eventSource"),
    (Field::InsightName, "insightDetails.eventName"),
    (Field::ResourceArn, "resources.ARN"),
    (Field::ResourceArnLower, "resources.arn"),
    (Field::IdentityType, "userIdentity.type"),
    (Field::IdentityArn, "userIdentity.arn"),
    (Field::IdentityPrincipal, "userIdentity.principalId"),
    (Field::IdentityAccount, "userIdentity.accountId"),
    (Field::IdentityKey, "userIdentity.accessKeyId"),
    (Field::IdentityUser, "userIdentity.userName"),
    (Field::IdentityInvokedBy, "userIdentity.invokedBy"),
    (
        Field::IssuerArn,
        "userIdentity.sessionContext.sessionIssuer.arn",
    ),
    (
        Field::IssuerUser,
        "userIdentity.sessionContext.sessionIssuer.userName",
    ),
    (
        Field::SourceIdentity,
        "userIdentity.sessionContext.sourceIdentity",
    ),
    (
        Field::MfaAuthenticated,
        "userIdentity.sessionContext.attributes.mfaAuthenticated",
    ),
    (
        Field::FederatedProvider,
        "userIdentity.sessionContext.webIdFederationData.federatedProvider",
    ),
    (
        Field::FederatedSubject,
        "userIdentity.sessionContext.webIdFederationData.attributes.sub",
    ),
    (Field::OnBehalfOfUser, "userIdentity.onBehalfOf.userId"),
    (Field::MfaUsed, "additionalEventData.MFAUsed"),
    (Field::RequestOmitted, "requestParameters.omitted"),
    (Field::ResponseOmitted, "responseElements.omitted"),
    (Field::AdditionalOmitted, "additionalEventData.omitted"),
    (Field::ServiceOmitted, "serviceEventDetails.omitted"),
    (Field::RequestParameters, "requestParameters"),
    (Field::ResponseElements, "responseElements"),
    (Field::ServiceDetails, "serviceEventDetails"),
    (Field::VpcEndpointAccount, "vpcEndpointAccountId"),
];

/// Parameters that name what a call is about.
const NAMING: &[&str] = &[
    "bucketName",
    "functionName",
    "roleName",
    "roleArn",
    "userName",
    "groupName",
    "policyArn",
    "policyName",
    "secretId",
    "keyId",
    "instanceId",
    "trailName",
    "name",
    "topicArn",
    "queueUrl",
    "tableName",
    "dBInstanceIdentifier",
    "dBSnapshotIdentifier",
    "snapshotId",
    "imageId",
    "groupId",
    "volumeId",
    "clusterName",
    "repositoryName",
    "stackName",
    "detectorId",
    "logGroupName",
    "parameterName",
    "accessKeyId",
    "instanceProfileName",
    "resourceArn",
    "serialNumber",
];

/// Finds the fields of CloudTrail records.
#[derive(Debug)]
pub(super) struct Reader {
    fields: FieldSet,
    /// The slots of [`PATHS`], then those of [`NAMING`].
    at: Vec<Slot>,
    slots: Slots,
}

/// One record with its fields found.
pub(super) struct Found<'a> {
    root: Value<'a>,
    at: &'a [Slot],
    slots: &'a Slots,
}

impl<'a> Found<'a> {
    fn value(&self, field: Field) -> Option<Value<'a>> {
        let node = self.slots.first(self.at[field as usize])?;
        Some(self.root.with_index(node))
    }

    /// The text of a field; `None` if it is absent, empty or no scalar.
    pub(super) fn text(&self, field: Field) -> Option<Cow<'a, str>> {
        let value = self.value(field)?;
        match value.kind() {
            Kind::Object | Kind::Array => None,
            _ => value.text().filter(|t| !t.is_empty()),
        }
    }

    /// The text of a field, empty if there is none.
    pub(super) fn str(&self, field: Field) -> Str {
        self.text(field).map(Str::from).unwrap_or_default()
    }

    /// The text of the first of these fields that has one, else empty.
    fn first(&self, fields: &[Field]) -> Str {
        let text = fields.iter().find_map(|f| self.text(*f));
        text.map(Str::from).unwrap_or_default()
    }

    fn has(&self, field: Field) -> bool {
        !self.slots.is_absent(self.at[field as usize])
    }

    fn is_true(&self, field: Field) -> bool {
        self.value(field).is_some_and(|v| v.kind() == Kind::True)
    }

    fn is_cloudtrail(&self) -> bool {
        let of_aws = |source: Cow<'_, str>| {
            source.ends_with(".amazonaws.com") || source.ends_with(".amazonaws.com.cn")
        };
        (self.has(Field::EventName) && self.text(Field::EventSource).is_some_and(of_aws))
            || (self.has(Field::EventVersion)
                && self
                    .text(Field::EventType)
                    .is_some_and(|t| t.starts_with("Aws")))
            || (self.has(Field::EventVersion)
                && self.has(Field::EventCategory)
                && (self.has(Field::EventId) || self.has(Field::AggregateId)))
    }
}

impl Reader {
    /// A reader that looks for `fields` in the same walk.
    pub(super) fn beside(mut fields: FieldSet) -> Reader {
        let mut at = Vec::with_capacity(PATHS.len() + NAMING.len());
        for (field, path) in PATHS {
            debug_assert_eq!(at.len(), *field as usize, "{path}");
            at.push(fields.slot(path));
        }
        for parameter in NAMING {
            at.push(fields.slot(&format!("requestParameters.{parameter}")));
        }
        Reader {
            fields,
            at,
            slots: Slots::new(),
        }
    }

    /// What the last record had.
    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The same, to be taken.
    pub(super) fn slots_mut(&mut self) -> &mut Slots {
        &mut self.slots
    }

    /// Fills in of a CloudTrail record which event it is, and gives its time; `None` if the record is none of
    /// CloudTrail's. [`Reader::describe`] fills in the rest.
    pub(super) fn sketch(&mut self, root: Value<'_>, event: &mut Event) -> Option<Option<Time>> {
        self.fields.extract(root, &mut self.slots);
        let found = Found {
            root,
            at: &self.at,
            slots: &self.slots,
        };
        if !found.is_cloudtrail() {
            return None;
        }
        event.source = Str::const_new(SOURCE);
        event.account = found.first(&[
            Field::RecipientAccount,
            Field::AggregateAccount,
            Field::VpcEndpointAccount,
            Field::IdentityAccount,
        ]);
        event.source_id = found.first(&[Field::EventId, Field::AggregateId]);
        let time = found
            .text(Field::EventTime)
            .or_else(|| found.text(Field::WindowEnd));
        Some(time.and_then(|t| Time::parse(&t).ok()))
    }

    /// Fills in what [`Reader::sketch`] left out; `slots` are those that it filled.
    pub(super) fn describe(&self, root: Value<'_>, slots: &Slots, event: &mut Event) {
        let found = Found {
            root,
            at: &self.at,
            slots,
        };
        if !event.source_id.is_empty() {
            event.id = Id::cloudtrail(&event.account, &event.source_id);
        }
        basics(&found, event);
        outcome(&found, event);
        identity::fill(&found, event);
        resources(&found, event);
    }
}

fn basics(found: &Found<'_>, event: &mut Event) {
    event.region = found.str(Field::Region);
    event.category = category(found);
    event.service = found.first(&[Field::EventSource, Field::InsightSource]);
    event.action = found.first(&[Field::EventName, Field::InsightName]);
    let plain = without_version(&event.service, &event.action);
    if plain < event.action.len() {
        event.action.truncate(plain);
    }
    event.src_ip = found.str(Field::SourceIp);
    event.user_agent = found.str(Field::UserAgent);
    event.request_id = found.str(Field::RequestId);
    event.shared_id = found.str(Field::SharedId);
    event.amends = found.str(Field::AmendedId);
    if found
        .text(Field::AddendumReason)
        .is_some_and(|r| r == "UPDATED_DATA")
    {
        event.flags.set(Flag::Addendum);
    }
    let omitted = [
        Field::RequestOmitted,
        Field::ResponseOmitted,
        Field::AdditionalOmitted,
        Field::ServiceOmitted,
    ];
    if omitted.into_iter().any(|f| found.is_true(f)) {
        event.flags.set(Flag::Truncated);
    }
}

/// Records before version 1.07 have no category: it follows from their type.
fn category(found: &Found<'_>) -> Str {
    if let Some(category) = found.text(Field::EventCategory) {
        return category.into();
    }
    match found.text(Field::EventType).as_deref() {
        Some("AwsCloudTrailInsight") => "Insight".into(),
        Some("AwsAggregatedEvent") => "Aggregated".into(),
        Some("AwsVpceEvent") => "NetworkActivity".into(),
        _ => match found.value(Field::ManagementEvent).map(|v| v.kind()) {
            Some(Kind::True) => "Management".into(),
            Some(Kind::False) => "Data".into(),
            _ => Str::default(),
        },
    }
}

/// The length of an action without the version of its API: `Invoke20150331`, `UpdateFunctionCode20150331v2`,
/// `CreateDistribution2020_05_31`.
fn without_version(service: &str, action: &str) -> usize {
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let base = match action.rsplit_once('v') {
        Some((base, n))
            if !n.is_empty() && digits(n) && base.ends_with(|c: char| c.is_ascii_digit()) =>
        {
            base
        }
        _ => action,
    };
    let cut = |width: usize| {
        base.len()
            .checked_sub(width)
            .filter(|at| base.is_char_boundary(*at))
    };
    match service {
        "lambda.amazonaws.com" => match cut(8) {
            Some(at) if at > 0 && digits(&base[at..]) => at,
            _ => action.len(),
        },
        "cloudfront.amazonaws.com" => match cut(10) {
            Some(at)
                if at > 0
                    && base[at..].split('_').map(str::len).eq([4, 2, 2])
                    && base[at..].bytes().all(|b| b.is_ascii_digit() || b == b'_') =>
            {
                at
            }
            _ => action.len(),
        },
        _ => action.len(),
    }
}

fn outcome(found: &Found<'_>, event: &mut Event) {
    let response = found.value(Field::ResponseElements);
    let inner = |keys: &[&str]| {
        keys.iter()
            .find_map(|key| response?.text_at(&[key]))
            .filter(|t| !t.is_empty())
    };
    event.error_code = match found.text(Field::ErrorCode) {
        Some(code) => code.into(),
        None => inner(&["errorCode"]).map(Str::from).unwrap_or_default(),
    };
    event.error_message = match found.text(Field::ErrorMessage) {
        Some(message) => message.into(),
        None if event.error_code.is_empty() => Str::default(),
        None => inner(&["errorMessage"]).map(Str::from).unwrap_or_default(),
    };
    let failed = inner(&["ConsoleLogin", "SwitchRole", "CheckMfa"])
        .or_else(|| {
            let details = found.value(Field::ServiceDetails)?;
            ["CredentialVerification", "UserAuthentication"]
                .iter()
                .find_map(|key| details.text_at(&[key]))
        })
        .is_some_and(|word| word.eq_ignore_ascii_case("failure"));
    event.outcome = if is_denial(&event.error_code) {
        Outcome::Denied
    } else if failed || !event.error_code.is_empty() || !event.error_message.is_empty() {
        Outcome::Failure
    } else if matches!(event.category.as_str(), "Insight" | "Aggregated") {
        Outcome::Unknown
    } else {
        Outcome::Success
    };
}

/// Does the code say that the caller has not the right?
fn is_denial(code: &str) -> bool {
    const PARTS: [&str; 7] = [
        "AccessDenied",
        "Unauthorized",
        "NotAuthorized",
        "AuthorizationError",
        "Forbidden",
        "InsufficientPrivileges",
        "MissingAuthenticationToken",
    ];
    static DENIALS: LazyLock<AhoCorasick> =
        LazyLock::new(|| AhoCorasick::new(PARTS).expect("a few words"));
    !code.is_empty() && DENIALS.is_match(code)
}

fn resources(found: &Found<'_>, event: &mut Event) {
    for field in [Field::ResourceArn, Field::ResourceArnLower] {
        for node in found.slots.all(found.at[field as usize]) {
            let text = found.root.with_index(node).as_str();
            add(&mut event.resources, text.as_deref().unwrap_or_default());
        }
    }
    for slot in &found.at[PATHS.len()..] {
        for node in found.slots.all(*slot) {
            let text = found.root.with_index(node).as_str();
            add(&mut event.resources, text.as_deref().unwrap_or_default());
        }
    }
    let parameters = found.value(Field::RequestParameters);
    if let Some(parameters) = parameters.filter(|p| p.kind() == Kind::Object) {
        let ids = ["instancesSet", "resourcesSet"]
            .iter()
            .find_map(|key| parameters.at(&[key, "items"]));
        for item in ids.iter().flat_map(Value::children) {
            let id = ["instanceId", "resourceId"]
                .iter()
                .find_map(|key| item.text_at(&[key]));
            add(&mut event.resources, id.as_deref().unwrap_or_default());
        }
    }
    if event.service == "lambda.amazonaws.com" {
        function(found, event);
    }
}

/// More names than this help nobody.
const MAX_RESOURCES: usize = 64;

/// Longer texts are no names; ARNs have at most this many bytes.
const MAX_NAME: usize = 2_048;

fn add(resources: &mut Vec<Str>, text: &str) {
    let fits = (1..=MAX_NAME).contains(&text.len()) && resources.len() < MAX_RESOURCES;
    if fits && !resources.iter().any(|r| r == text) {
        resources.push(text.into());
    }
}

/// The function that a call to Lambda is about, by name: parameters hold its name, a part of its ARN or all of it.
fn function(found: &Found<'_>, event: &mut Event) {
    let text_at = |field, key: &str| found.value(field).and_then(|v| v.text_at(&[key]));
    let named = text_at(Field::RequestParameters, "functionName")
        .or_else(|| text_at(Field::ResponseElements, "functionName"))
        .map(Str::from)
        .or_else(|| {
            let arn = event.resources.iter().find(|r| r.contains(":function:"));
            arn.cloned()
        });
    let Some(named) = named else { return };
    let (name, version) = function_of(&named);
    event.function = name.into();
    event.function_version = text_at(Field::RequestParameters, "qualifier")
        .map(Str::from)
        .unwrap_or_else(|| version.into());
}

/// Name and version of a function, from `name`, `name:version`, `account:function:name` or an ARN.
pub(super) fn function_of(text: &str) -> (&str, &str) {
    let rest = text
        .split_once(":function:")
        .map_or(text, |(_, rest)| rest)
        .trim_start_matches("function:");
    rest.split_once(':').unwrap_or((rest, ""))
}
