//! Who did it: the caller as the record names it, and the human or workload behind.
//!
//! The caller is often a role's session. Behind it may be a person (IAM Identity Center names the session after
//! the user; people are also found by `sourceIdentity` or a session name that looks like one of theirs) or a
//! workload (an OIDC subject, an instance, the role itself). Only what stands in this one record is used: a
//! chain of roles is followed as far as `sourceIdentity` carries it.

use event::{Event, Str, format_compact};

use super::cloudtrail::{Field, Found};

/// What CloudTrail writes for the name that somebody typed at a failed sign-in: it may be a password.
const HIDDEN: &str = "HIDDEN_DUE_TO_SECURITY_REASONS";

/// Fills in who did it.
pub(super) fn fill(found: &Found<'_>, event: &mut Event) {
    let user = found.str(Field::IdentityUser);
    let arn = found.str(Field::IdentityArn);
    let principal = found.str(Field::IdentityPrincipal);
    let invoked_by = found.str(Field::IdentityInvokedBy);
    event.actor_type = found.str(Field::IdentityType);
    event.access_key = found.str(Field::IdentityKey);
    event.issuer = found.str(Field::IssuerArn);
    event.mfa = mfa(found);
    event.session = session(&arn, &principal);
    event.actor = actor(found, event, &user, &arn, &principal, &invoked_by);
    event.identity = identity(found, event, &user, &arn, &invoked_by);
    event.actor_id = [arn, principal, invoked_by]
        .into_iter()
        .find(|s| !s.is_empty())
        .unwrap_or_default();
}

fn mfa(found: &Found<'_>) -> Option<bool> {
    let word = found
        .text(Field::MfaUsed)
        .or_else(|| found.text(Field::MfaAuthenticated))?;
    match &*word.to_ascii_lowercase() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// The session's name: the end of `arn:aws:sts::…:assumed-role/Role/session`, else of `AROA…:session`.
fn session(arn: &str, principal: &str) -> Str {
    let of_arn = arn
        .split_once(":assumed-role/")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map(|(_, session)| session);
    let of_principal = || principal.split_once(':').map(|(_, session)| session);
    of_arn.or_else(of_principal).unwrap_or_default().into()
}

/// The role of a session: its issuer's name, else as the ARN has it.
fn role<'a>(found: &Found<'_>, arn: &'a str) -> std::borrow::Cow<'a, str> {
    match found.text(Field::IssuerUser) {
        Some(name) => name.into_owned().into(),
        None => arn
            .split_once(":assumed-role/")
            .map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default())
            .into(),
    }
}

fn actor(
    found: &Found<'_>,
    event: &Event,
    user: &str,
    arn: &str,
    principal: &str,
    invoked_by: &str,
) -> Str {
    let account = || found.str(Field::IdentityAccount);
    let named = match event.actor_type.as_str() {
        "Root" if user.is_empty() || user == HIDDEN => "root".into(),
        "AssumedRole" => {
            let role = role(found, arn);
            match (role.is_empty(), event.session.is_empty()) {
                (false, false) => format_compact!("{role}/{}", event.session),
                (false, true) => role.into(),
                (true, _) => event.session.clone(),
            }
        }
        "AWSService" => invoked_by.into(),
        "AWSAccount" if user.is_empty() => account(),
        "IdentityCenterUser" if user.is_empty() => found.str(Field::OnBehalfOfUser),
        _ => user.into(),
    };
    if !named.is_empty() {
        return named;
    }
    let last_of_arn = arn.rsplit(['/', ':']).next().unwrap_or_default();
    [
        last_of_arn.into(),
        event.session.clone(),
        principal.into(),
        invoked_by.into(),
        account(),
    ]
    .into_iter()
    .find(|s: &Str| !s.is_empty())
    .unwrap_or_default()
}

fn identity(found: &Found<'_>, event: &Event, user: &str, arn: &str, invoked_by: &str) -> Str {
    if let Some(source) = found.text(Field::SourceIdentity) {
        return source.into();
    }
    let visible = if user == HIDDEN { "" } else { user };
    match event.actor_type.as_str() {
        "Root" => {
            let account = found.str(Field::IdentityAccount);
            format_compact!("arn:aws:iam::{account}:root")
        }
        "AWSService" => invoked_by.into(),
        "AWSAccount" => found.str(Field::IdentityAccount),
        "IdentityCenterUser" => match found.text(Field::OnBehalfOfUser) {
            Some(id) if visible.is_empty() => id.into(),
            _ => visible.into(),
        },
        "FederatedUser" if visible.is_empty() => arn.rsplit('/').next().unwrap_or_default().into(),
        _ if !event.session.is_empty() => behind_session(found, event, arn),
        _ => visible.into(),
    }
}

/// Who is behind a role's session.
fn behind_session(found: &Found<'_>, event: &Event, arn: &str) -> Str {
    let role = role(found, arn);
    if role.starts_with("AWSReservedSSO_") || is_personal(&event.session) {
        return event.session.clone();
    }
    if let Some(subject) = found.text(Field::FederatedSubject) {
        return subject.into();
    }
    // A web identity without its subject in the record: provider and role tell the workload.
    if let Some(provider) = found.text(Field::FederatedProvider) {
        let provider = provider.rsplit('/').next().unwrap_or_default().to_owned();
        return format_compact!("{provider}/{role}");
    }
    if event.session.starts_with("i-") && event.session[2..].bytes().all(|b| b.is_ascii_hexdigit())
    {
        return event.session.clone();
    }
    if role.is_empty() {
        event.session.clone()
    } else {
        role.into()
    }
}

/// Does a session's name look like a person's: an address, or two or three words of letters with dots between?
fn is_personal(session: &str) -> bool {
    if let Some((name, host)) = session.split_once('@') {
        return !name.is_empty() && host.contains('.');
    }
    let words = session.split('.');
    (2..=3).contains(&words.clone().count())
        && words
            .into_iter()
            .all(|w| w.len() > 1 && w.bytes().all(|b| b.is_ascii_alphabetic()))
}
