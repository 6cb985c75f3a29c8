//! The style sheet and scripts, embedded in the program.
//!
//! Each asset is served under a name that carries the beginning of its SHA-256, so that browsers may keep it
//! for ever and never use an old one with a new program. htmx and its server-sent-events extension are
//! vendored unchanged (`assets/LICENSES`); `console.js` and `search.js` are ours. Nothing is loaded from anywhere else.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::error::ApiError;

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

const ASSETS: &[Asset] = &[
    Asset {
        name: "console.css",
        kind: "text/css; charset=utf-8",
        content: include_bytes!("../assets/console.css"),
    },
    Asset {
        name: "console.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../assets/console.js"),
    },
    Asset {
        name: "search.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../assets/search.js"),
    },
    Asset {
        name: "htmx.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../assets/htmx.min.js"),
    },
    Asset {
        name: "sse.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../assets/sse.min.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        content: include_bytes!("../assets/icon.svg"),
    },
];

/// The names with their hash, in the order of `ASSETS`.
static HASHED: LazyLock<Vec<String>> = LazyLock::new(|| {
    ASSETS
        .iter()
        .map(|asset| {
            let hash = Sha256::digest(asset.content);
            let (stem, extension) = asset.name.split_once('.').expect("every name has a dot");
            format!(
                "{stem}-{:02x}{:02x}{:02x}{:02x}.{extension}",
                hash[0], hash[1], hash[2], hash[3]
            )
        })
        .collect()
});

/// The address of an asset.
pub(crate) fn url(name: &str) -> String {
    let at = ASSETS
        .iter()
        .position(|a| a.name == name)
        .expect("templates name assets that are embedded");
    format!("/assets/{}", HASHED[at])
}

/// `GET /assets/{name}`
pub(crate) async fn serve(Path(name): Path<String>) -> Result<Response, ApiError> {
    let at = HASHED
        .iter()
        .position(|hashed| *hashed == name)
        .ok_or_else(|| ApiError::not_found("asset"))?;
    let headers = [
        (header::CONTENT_TYPE, ASSETS[at].kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, ASSETS[at].content).into_response())
}
