//! `/api/v1/notifications`: the outbox, with what was given up, and sending it again.

use alerting::{Delivery, Notification, NotificationFilter};
use axum::Json;
use axum::extract::{Path, State};
use event::Outcome;
use serde_json::{Value, json};

use super::MAX_LIMIT;
use crate::app::{Client, Shared};
use crate::error::{ApiError, blocking};
use crate::params::{self, Params};

/// `GET /api/v1/notifications`
pub(crate) async fn list(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    params.only(&["delivery", "alert", "cursor", "limit"])?;
    let deliveries = match params.text("delivery") {
        None => Vec::new(),
        Some("pending") => vec![Delivery::Pending, Delivery::Leased],
        Some("sent") => vec![Delivery::Sent],
        Some("ambiguous") => vec![Delivery::Ambiguous],
        Some("dead") => vec![Delivery::Dead],
        Some(_) => {
            return Err(ApiError::bad(
                "bad_parameter",
                "`delivery` is pending, sent, ambiguous or dead",
            ));
        }
    };
    let filter = NotificationFilter {
        deliveries,
        alert: params
            .text("alert")
            .map(|id| params::id(id, "alert"))
            .transpose()?,
        before: match params.text("cursor") {
            None => None,
            Some(_) => Some(params.number("cursor", 0..=i64::MAX as u64, 0)?),
        },
        limit: params.number("limit", 1..=MAX_LIMIT, 100)? as usize,
    };
    let (store, limit) = (shared.app.store.clone(), filter.limit);
    let notifications = blocking(move || store.notifications(&filter)).await??;
    let next = (notifications.len() == limit)
        .then(|| notifications.last().map(|n| n.id.to_string()))
        .flatten();
    Ok(Json(json!({"notifications": notifications, "next": next})))
}

/// `POST /api/v1/notifications/{id}/resend`
pub(crate) async fn resend(
    State(shared): State<Shared>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let notification = send_again(&shared, &client, &id).await?;
    Ok(Json(json!({ "notification": notification })))
}

/// Puts a dead notification back into the outbox and records who did it.
pub(crate) async fn send_again(
    shared: &Shared,
    client: &Client,
    id: &str,
) -> Result<Notification, ApiError> {
    let id: u64 = id
        .parse()
        .map_err(|_| ApiError::not_found("notification"))?;
    let (store, who, now) = (shared.app.store.clone(), client.name.clone(), shared.now());
    let sent = blocking(move || store.resend(id, &who, now)).await?;
    let outcome = if sent.is_ok() {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    shared.audit(
        client,
        "ResendNotification",
        outcome,
        format!("notification/{id}"),
        json!({}),
    );
    Ok(sent?)
}
