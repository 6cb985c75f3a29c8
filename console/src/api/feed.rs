//! `GET /api/v1/alerts/feed`: what changes, as server-sent events.
//!
//! Each message is an `alert` event whose id is that of the store's feed entry, so that a client that lost the
//! connection goes on with `Last-Event-ID` (or `?after=`) and misses nothing; without either it begins now.
//! Changes are sent in bursts a quarter of a second apart, so that a storm of findings does not become a storm
//! of requests. A stream ends after ten minutes; clients reconnect, and their login is checked again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use alerting::{Alert, FeedEntry, StoreError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::Stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::app::Shared;
use crate::error::{ApiError, blocking};
use crate::params::Params;

const BURST: Duration = Duration::from_millis(250);
const LIFE: Duration = Duration::from_secs(600);

struct Reader {
    shared: Shared,
    after: u64,
    changed: watch::Receiver<u64>,
    pending: VecDeque<(FeedEntry, Option<Alert>)>,
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

/// `GET /api/v1/alerts/feed`
pub(crate) async fn feed(
    State(shared): State<Shared>,
    headers: HeaderMap,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, ApiError> {
    params.only(&["after"])?;
    let permit = shared.streams.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too many live streams are open",
        )
        .retry_after(30)
    })?;
    let changed = shared.app.store.changed();
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let newest = *changed.borrow();
    let after = match last {
        // One from before the store was made anew is above all that is there: begin now.
        Some(text) => text.parse().unwrap_or(newest).min(newest),
        None => params.number("after", 0..=u64::MAX, newest)?.min(newest),
    };
    shared.app.metrics.live_streams.inc();
    let reader = Reader {
        shared,
        after,
        changed,
        pending: VecDeque::new(),
        until: Instant::now() + LIFE,
        _permit: permit,
    };
    let stream = futures_util::stream::unfold(reader, |mut reader| async {
        let message = reader.next().await?;
        Some((Ok(message), reader))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

impl Reader {
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((entry, alert)) = self.pending.pop_front() {
                let data = json!({
                    "id": entry.id,
                    "at": entry.at,
                    "opened": entry.opened,
                    "incident": entry.incident,
                    "alert_id": entry.alert,
                    "alert": alert,
                });
                return Some(
                    Message::default()
                        .event("alert")
                        .id(entry.id.to_string())
                        .data(data.to_string()),
                );
            }
            if self.shared.app.stop.is_stopped() || Instant::now() >= self.until {
                return None;
            }
            if *self.changed.borrow_and_update() <= self.after {
                // Woken now and then to see whether the program stops.
                if let Ok(Err(_)) =
                    timeout(Duration::from_millis(500), self.changed.changed()).await
                {
                    return None;
                }
                continue;
            }
            sleep(BURST).await;
            match self.load().await {
                Ok(entries) => self.pending = entries,
                // The client comes back with the id of the last one that it has.
                Err(_) => return None,
            }
        }
    }

    async fn load(&mut self) -> Result<VecDeque<(FeedEntry, Option<Alert>)>, ApiError> {
        let (store, after) = (self.shared.app.store.clone(), self.after);
        let entries = blocking(move || -> Result<VecDeque<_>, StoreError> {
            store
                .feed(after)?
                .into_iter()
                .map(|entry| {
                    let alert = store.alert(entry.alert)?;
                    Ok((entry, alert))
                })
                .collect()
        })
        .await??;
        self.after = match entries.back() {
            Some((entry, _)) => entry.id,
            // Retention has dropped what was asked for.
            None => *self.changed.borrow(),
        };
        Ok(entries)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.app.metrics.live_streams.dec();
    }
}
