//! `/api/v1/openapi.json`: the API described as OpenAPI 3.1.
//!
//! [`OPERATIONS`] has one line for every route of the API; a test holds it equal to the table in `routes`, so
//! that no route is left out and none is invented. The shapes of events, findings and alerts are described
//! where they are made (DESIGN §5.6 and the crate `alerting`) and named here.

use axum::Json;
use serde_json::{Map, Value, json};

struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Query parameters: name, type or list of words, what it is.
    parameters: &'static [(&'static str, &'static str, &'static str)],
    /// The schema of the body, if it takes one.
    body: Option<&'static str>,
    /// Key and schema of each part of the answer; `[]` before a schema for a list of it.
    answer: &'static [(&'static str, &'static str)],
}

const SEARCH: &[(&str, &str, &str)] = &[
    ("q", "string", "The query; empty for everything."),
    (
        "from",
        "string",
        "Not before this time: RFC 3339, now, or -7d and the like.",
    ),
    ("to", "string", "Not after this time."),
    (
        "limit",
        "integer",
        "How many to give, 0 to 1000; 100 by default.",
    ),
    ("order", "newest|oldest", "Which first; newest by default."),
    (
        "kind",
        "events|findings",
        "What to search; events by default.",
    ),
    ("cursor", "string", "`next` of the page before."),
    ("count", "boolean", "Count all that match; slower."),
    (
        "agg",
        "string",
        "An aggregation in the short form: actor, time:1h > actor:5, distinct(src_ip), percentiles(FIELD, 50, 99).",
    ),
];
const QUERY: (&str, &str, &str) = ("q", "string", "The query; empty for everything.");
const FROM: (&str, &str, &str) = (
    "from",
    "string",
    "Not before this time: RFC 3339, now, or -7d and the like.",
);
const TO: (&str, &str, &str) = ("to", "string", "Not after this time.");
const KIND: (&str, &str, &str) = (
    "kind",
    "events|findings",
    "What to search; events by default.",
);
const CURSOR: (&str, &str, &str) = ("cursor", "string", "`next` of the page before.");
const LIMIT: (&str, &str, &str) = (
    "limit",
    "integer",
    "How many to give, 1 to 1000; 100 by default.",
);
const ALERT: &[(&str, &str)] = &[("alert", "Alert")];
const FOUND: &[(&str, &str)] = &[
    ("hits", "[]Event"),
    ("total", "integer"),
    ("partial", "string"),
    ("notes", "array"),
    ("aggs", "object"),
    ("next", "string"),
    ("took_ms", "number"),
    ("from", "string"),
    ("to", "string"),
];

const fn operation(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
    Operation {
        method,
        path,
        summary,
        parameters: &[],
        body: None,
        answer: &[],
    }
}

const OPERATIONS: &[Operation] = &[
    Operation {
        parameters: SEARCH,
        answer: FOUND,
        ..operation("get", "/api/v1/search", "Search events or findings.")
    },
    Operation {
        body: Some("Search"),
        answer: FOUND,
        ..operation(
            "post",
            "/api/v1/search",
            "The same with the parameters as JSON, and aggregations.",
        )
    },
    Operation {
        parameters: &[QUERY, FROM, TO, KIND],
        answer: &[
            ("query", "string"),
            ("clauses", "[]Clause"),
            ("splits", "integer"),
            ("of_splits", "integer"),
            ("events", "integer"),
            ("notes", "array"),
            ("partial", "string"),
        ],
        ..operation(
            "get",
            "/api/v1/search/explain",
            "How a query is understood and how it would be answered, without answering it.",
        )
    },
    Operation {
        parameters: &[
            QUERY,
            FROM,
            TO,
            KIND,
            (
                "sample",
                "integer",
                "How many events are read, 1 to 10000; 1000 by default.",
            ),
        ],
        answer: &[
            ("fields", "[]FieldStat"),
            ("matched", "integer"),
            ("read", "integer"),
            ("sampled", "boolean"),
            ("partial", "string"),
        ],
        ..operation(
            "get",
            "/api/v1/search/fields",
            "Which fields the events have that match, how many have each, and the most frequent values.",
        )
    },
    Operation {
        parameters: &[
            QUERY,
            FROM,
            TO,
            ("order", "newest|oldest", "Which first; newest by default."),
            (
                "format",
                "jsonl|csv|parquet",
                "The form; JSON lines by default.",
            ),
            ("limit", "integer", "How many at most; all by default."),
        ],
        ..operation(
            "get",
            "/api/v1/search/export",
            "Everything that matches, as a stream. The connection breaks off where it cannot be whole.",
        )
    },
    Operation {
        parameters: &[QUERY],
        answer: &[("rule", "string")],
        ..operation(
            "get",
            "/api/v1/search/rule",
            "A query as a Sigma rule that matches the same events.",
        )
    },
    Operation {
        parameters: &[
            (
                "field",
                "identity|actor|session|access_key|src_ip|function|request_id|account",
                "What is looked into.",
            ),
            ("value", "string", "Its value."),
            (
                "around",
                "string",
                "The middle of the window. If it is not said: now, or where nothing is around now the last event.",
            ),
            (
                "hours",
                "integer",
                "How far the window reaches to each side, 1 to 720; 24 by default.",
            ),
            (
                "limit",
                "integer",
                "How many events to give, 0 to 1000; 100 by default.",
            ),
        ],
        answer: &[
            ("query", "string"),
            ("around", "string"),
            ("middle", "asked|now|last_seen"),
            ("from", "string"),
            ("to", "string"),
            ("matched", "integer"),
            ("failed", "integer"),
            ("usual", "integer"),
            ("usual_days", "integer"),
            ("first_seen", "string"),
            ("last_seen", "string"),
            ("profile", "[]Aspect"),
            ("related", "[]Related"),
            ("events", "[]Event"),
            ("assumed_by", "[]Link"),
            ("assumed", "[]Link"),
            ("partial", "string"),
        ],
        ..operation(
            "get",
            "/api/v1/investigate",
            "What somebody did around a time beside what is usual for them, and for an access key the sessions before and after it.",
        )
    },
    operation(
        "post",
        "/api/v1/index",
        "Internal: what other nodes ask of this node's share of the index, with the role `node`. Its words change between versions.",
    ),
    operation(
        "get",
        "/api/v1/events/{id}",
        "One event with its original record.",
    ),
    Operation {
        body: Some("EvidenceOrder"),
        ..operation(
            "post",
            "/api/v1/evidence",
            "The events of a query as a signed bundle, with what proves them.",
        )
    },
    Operation {
        parameters: &[
            (
                "state",
                "open|firing|acknowledged|resolved|all",
                "Only in this state; all by default.",
            ),
            (
                "severity",
                "informational|low|medium|high|critical",
                "Only this severe or worse.",
            ),
            ("rule", "string", "Only of the rule with this id."),
            ("account", "string", "Only in this account."),
            ("incident", "string", "Only of this incident."),
            (
                "q",
                "string",
                "Only with this text in title, rule, actor, account, region, group or address.",
            ),
            (
                "merged",
                "boolean",
                "With those that became part of another alert.",
            ),
            CURSOR,
            LIMIT,
        ],
        answer: &[("alerts", "[]Alert"), ("next", "string")],
        ..operation("get", "/api/v1/alerts", "Alerts, newest first.")
    },
    Operation {
        parameters: &[(
            "after",
            "integer",
            "Begin after this feed entry; Last-Event-ID does the same.",
        )],
        ..operation(
            "get",
            "/api/v1/alerts/feed",
            "What changes, as server-sent events named `alert`.",
        )
    },
    Operation {
        answer: &[
            ("alert", "Alert"),
            ("history", "[]History"),
            ("evidence_search", "EvidenceSearch"),
        ],
        ..operation(
            "get",
            "/api/v1/alerts/{id}",
            "One alert, what happened to it, and its evidence as a search.",
        )
    },
    Operation {
        body: Some("Acknowledge"),
        answer: ALERT,
        ..operation("post", "/api/v1/alerts/{id}/acknowledge", "Take an alert.")
    },
    Operation {
        body: Some("Assign"),
        answer: ALERT,
        ..operation(
            "post",
            "/api/v1/alerts/{id}/assign",
            "Give an alert to somebody.",
        )
    },
    Operation {
        body: Some("Comment"),
        answer: ALERT,
        ..operation(
            "post",
            "/api/v1/alerts/{id}/comment",
            "Write about an alert.",
        )
    },
    Operation {
        body: Some("Resolve"),
        answer: ALERT,
        ..operation(
            "post",
            "/api/v1/alerts/{id}/resolve",
            "Say that an alert is over.",
        )
    },
    Operation {
        parameters: &[
            ("state", "open|all", "Only open ones; all by default."),
            CURSOR,
            LIMIT,
        ],
        answer: &[("incidents", "[]Incident"), ("next", "string")],
        ..operation("get", "/api/v1/incidents", "Incidents, newest first.")
    },
    Operation {
        body: Some("Acknowledge"),
        answer: &[("changed", "integer")],
        ..operation(
            "post",
            "/api/v1/incidents/{id}/acknowledge",
            "Take all alerts of an incident that fire.",
        )
    },
    Operation {
        body: Some("Resolve"),
        answer: &[("changed", "integer")],
        ..operation(
            "post",
            "/api/v1/incidents/{id}/resolve",
            "Say that all alerts of an incident are over.",
        )
    },
    Operation {
        parameters: &[("ended", "boolean", "With those that are over.")],
        answer: &[("silences", "[]Silence")],
        ..operation("get", "/api/v1/silences", "Silences, latest end first.")
    },
    Operation {
        answer: &[("searches", "[]SavedSearch")],
        ..operation(
            "get",
            "/api/v1/searches",
            "Saved searches, in the order of their names.",
        )
    },
    Operation {
        answer: &[("search", "SavedSearch")],
        ..operation(
            "get",
            "/api/v1/searches/{name}",
            "A saved search, whatever the case of its name.",
        )
    },
    Operation {
        parameters: &[(
            "overwrite",
            "boolean",
            "Put it in the place of the one that has this name; without it that is answered 409.",
        )],
        body: Some("NewSearch"),
        answer: &[("search", "SavedSearch")],
        ..operation(
            "put",
            "/api/v1/searches/{name}",
            "Save a search under a name; 201 where there was none.",
        )
    },
    Operation {
        answer: &[("search", "SavedSearch")],
        ..operation(
            "delete",
            "/api/v1/searches/{name}",
            "Delete a saved search; gives what it was.",
        )
    },
    Operation {
        body: Some("NewSilence"),
        answer: &[("silence", "Silence")],
        ..operation("post", "/api/v1/silences", "Make a silence.")
    },
    Operation {
        answer: &[("silence", "Silence")],
        ..operation("post", "/api/v1/silences/{id}/expire", "End a silence now.")
    },
    Operation {
        parameters: &[
            (
                "delivery",
                "pending|sent|ambiguous|dead",
                "Only those that stand so.",
            ),
            ("alert", "string", "Only of the incident of this alert."),
            CURSOR,
            LIMIT,
        ],
        answer: &[("notifications", "[]Notification"), ("next", "string")],
        ..operation("get", "/api/v1/notifications", "The outbox, newest first.")
    },
    Operation {
        answer: &[("notification", "Notification")],
        ..operation(
            "post",
            "/api/v1/notifications/{id}/resend",
            "Send a dead notification again.",
        )
    },
    Operation {
        answer: &[("rules", "[]Rule")],
        ..operation(
            "get",
            "/api/v1/rules",
            "The loaded rules, without their YAML.",
        )
    },
    Operation {
        answer: &[("rule", "Rule")],
        ..operation("get", "/api/v1/rules/{id}", "One rule with its YAML.")
    },
    Operation {
        answer: &[("result", "string")],
        ..operation(
            "post",
            "/api/v1/rules/reload",
            "Load the rule files anew; 422 with the problems if they cannot be loaded.",
        )
    },
    Operation {
        answer: &[
            ("node", "integer"),
            ("nodes", "integer"),
            ("holds", "[]Hold"),
        ],
        ..operation(
            "get",
            "/api/v1/holds",
            "The legal holds of this index node, each with what it keeps.",
        )
    },
    Operation {
        body: Some("NewHold"),
        answer: &[("node", "integer"), ("nodes", "integer"), ("hold", "Hold")],
        ..operation(
            "post",
            "/api/v1/holds",
            "Keep splits of this index node from being removed; to be repeated on each of `nodes`.",
        )
    },
    Operation {
        body: Some("Release"),
        answer: &[("node", "integer"), ("nodes", "integer"), ("hold", "Hold")],
        ..operation(
            "post",
            "/api/v1/holds/{name}/release",
            "Release a legal hold of this index node.",
        )
    },
    Operation {
        answer: &[
            ("sources", "[]Source"),
            ("silent", "[]Silent"),
            ("collectors", "[]Collector"),
            ("unseen", "object"),
        ],
        ..operation(
            "get",
            "/api/v1/sources",
            "What arrives, how late, what is silent and which rules that blinds, and what the inventory expects and was never seen.",
        )
    },
    Operation {
        answer: &[
            ("time", "string"),
            ("checks", "object"),
            ("stages", "[]Lag"),
            ("topics", "[]Topic"),
            ("index_nodes", "array"),
        ],
        ..operation(
            "get",
            "/api/v1/health",
            "Checks, lag of every stage, what the log keeps.",
        )
    },
    operation("get", "/api/v1/openapi.json", "This description."),
];

/// `GET /api/v1/openapi.json`
pub(crate) async fn document() -> Json<Value> {
    Json(describe())
}

fn describe() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe_operation(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Trailwarden",
            "version": "1",
            "description": "Search, alerts, silences and rules. Times are RFC 3339 in UTC. Programs send `Authorization: Bearer <token>`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
        "security": [{"token": []}],
    })
}

fn describe_operation(operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = operation
        .parameters
        .iter()
        .map(|(name, kind, what)| {
            json!({"name": name, "in": "query", "required": false, "description": what, "schema": kind_of(kind)})
        })
        .collect();
    for name in ["id", "name"] {
        if operation.path.contains(&format!("{{{name}}}")) {
            parameters.push(
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
            );
        }
    }
    let content = match operation.path {
        "/api/v1/alerts/feed" => json!({"text/event-stream": {"schema": {"type": "string"}}}),
        "/api/v1/evidence" => json!({"application/zip": {}}),
        "/api/v1/events/{id}" => json!({"application/json": {"schema": schema_of("Event")}}),
        "/api/v1/search/export" => json!({
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        }),
        _ => {
            let properties: Map<String, Value> = operation
                .answer
                .iter()
                .map(|(key, kind)| ((*key).to_owned(), schema_of(kind)))
                .collect();
            json!({"application/json": {"schema": {"type": "object", "properties": properties}}})
        }
    };
    let makes = ["/api/v1/silences", "/api/v1/holds"];
    let status = if makes.contains(&operation.path) && operation.method == "post" {
        "201"
    } else {
        "200"
    };
    let mut out = json!({
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            status: {"description": "Done.", "content": content},
            "default": {"description": "Why not.", "content": {"application/json": {"schema": schema_of("Error")}}},
        },
    });
    if let Some(body) = operation.body {
        out["requestBody"] = json!({"content": {"application/json": {"schema": schema_of(body)}}});
    }
    out
}

fn kind_of(kind: &str) -> Value {
    if kind.contains('|') {
        let words: Vec<&str> = kind.split('|').collect();
        json!({"type": "string", "enum": words})
    } else {
        json!({"type": kind})
    }
}

fn schema_of(kind: &str) -> Value {
    match kind.strip_prefix("[]") {
        Some(item) => json!({"type": "array", "items": schema_of(item)}),
        None if kind.contains('|') => kind_of(kind),
        None if kind.starts_with(|c: char| c.is_ascii_uppercase()) => {
            json!({"$ref": format!("#/components/schemas/{kind}")})
        }
        None => json!({"type": [kind, "null"]}),
    }
}

fn schemas() -> Value {
    let object = |description: &str, keys: &[(&str, &str)]| {
        let properties: Map<String, Value> = keys
            .iter()
            .map(|(key, kind)| ((*key).to_owned(), kind_of(kind)))
            .collect();
        json!({"type": "object", "description": description, "properties": properties})
    };
    let version = ("version", "integer");
    json!({
        "Error": {"type": "object", "properties": {"error": object(
            "What is wrong and what to do about it.",
            &[("code", "string"), ("message", "string"), ("hint", "string"), ("request_id", "string"), ("offset", "integer")],
        )}},
        "Event": object("The normalized envelope (more keys may follow) and under `raw` the original record.", &[
            ("id", "string"), ("source_id", "string"), ("source", "string"), ("time", "string"), ("ingest_time", "string"),
            ("account", "string"), ("region", "string"), ("service", "string"), ("action", "string"),
            ("outcome", "success|failure|denied|unknown"), ("error_code", "string"), ("error_message", "string"),
            ("actor", "string"), ("identity", "string"), ("src_ip", "string"), ("user_agent", "string"),
            ("resources", "array"), ("origin", "object"), ("integrity", "received|attested|failed"),
        ]),
        "Search": object("What to search, as the parameters of GET.", &[
            ("query", "string"), ("from", "string"), ("to", "string"), ("limit", "integer"), ("order", "newest|oldest"),
            ("kind", "events|findings"), ("cursor", "string"), ("count", "boolean"), ("aggs", "object"),
        ]),
        "Clause": object("One clause of a query and how its events are found.", &[
            ("clause", "string"), ("access", "all|term|terms|phrase|times|walk_values|walk_words|walk_all_values"), ("words", "string"),
        ]),
        "Aspect": object("One aspect of what was done: each value with its count in the window and in the days before.", &[
            ("name", "action|network|hour|region|account|error_code|user_agent|identity"), ("values", "array"),
        ]),
        "Related": object("The most frequent values of a field in the window: what to go on from.", &[
            ("field", "string"), ("values", "array"), ("other", "integer"),
        ]),
        "EvidenceSearch": object("The evidence as a search with fixed times. `exact`: it finds the events of the evidence and no other.", &[
            ("query", "string"), ("from", "string"), ("to", "string"), ("exact", "boolean"), ("href", "string"),
        ]),
        "NewSearch": object("A search to save. Times as they are written: RFC 3339, or -7d and the like from when it is opened.", &[
            ("description", "string"), ("query", "string"), ("from", "string"), ("to", "string"),
            ("kind", "events|findings"), ("order", "newest|oldest"), ("columns", "array"),
        ]),
        "SavedSearch": object("A saved search, and where it is opened.", &[
            ("name", "string"), ("description", "string"), ("query", "string"), ("from", "string"), ("to", "string"),
            ("kind", "events|findings"), ("order", "newest|oldest"), ("columns", "array"), ("owner", "string"),
            ("created", "string"), ("updated_by", "string"), ("updated", "string"), ("href", "string"),
        ]),
        "Link": object("A session that was made from another.", &[
            ("by", "string"), ("actor", "string"), ("access_key", "string"), ("session", "string"), ("event", "object"), ("elsewhere", "array"),
        ]),
        "FieldStat": object("One field of the events that were read.", &[
            ("field", "string"), ("events", "integer"), ("distinct", "integer"), ("approximate", "boolean"), ("top", "array"),
        ]),
        "Alert": object("One episode of one rule and group.", &[
            ("id", "string"), ("seq", "integer"), ("incident", "string"), ("rule_id", "string"), ("title", "string"),
            ("severity", "informational|low|medium|high|critical"), ("state", "firing|acknowledged|resolved"),
            ("opened", "string"), ("updated", "string"), ("resolved", "string"), ("count", "integer"), ("group", "object"),
            ("actor", "string"), ("identity", "string"), ("account", "string"), ("region", "string"), ("source", "string"),
            ("finding", "object"), ("revision", "integer"), version, ("assignee", "string"), ("comments", "array"),
            ("merged_into", "string"),
        ]),
        "History": object("What happened to an alert.", &[("at", "string"), ("who", "string"), ("action", "string"), ("detail", "string")]),
        "Incident": object("Alerts that belong together.", &[
            ("id", "string"), ("seq", "integer"), ("title", "string"), ("severity", "informational|low|medium|high|critical"),
            ("state", "firing|acknowledged|resolved"), ("opened", "string"), ("updated", "string"),
            ("first_event_time", "string"), ("last_event_time", "string"), ("alerts", "integer"),
        ]),
        "Acknowledge": object("The version that was seen; absent for any.", &[version]),
        "Assign": object("To whom; empty for nobody.", &[version, ("assignee", "string")]),
        "Comment": object("The text.", &[version, ("text", "string")]),
        "Resolve": object("Why; may be empty.", &[version, ("reason", "string")]),
        "EvidenceOrder": object("What a bundle is made of; times as in a search.", &[
            ("query", "string"), ("from", "string"), ("to", "string"), ("case", "string"),
        ]),
        "NewHold": object("Which splits are kept and why; times as in a search.", &[
            ("name", "string"), ("from", "string"), ("to", "string"), ("query", "string"), ("reason", "string"),
        ]),
        "Release": object("Why a hold is released.", &[("reason", "string")]),
        "Hold": object("A legal hold. `covered` (splits, events, bytes) is what it keeps now; lists have it.", &[
            ("name", "string"), ("from", "string"), ("to", "string"), ("query", "string"), ("reason", "string"),
            ("by", "string"), ("made", "string"), ("covered", "object"),
        ]),
        "NewSilence": object("What is silenced, until when and why.", &[
            ("matchers", "array"), ("starts", "string"), ("ends", "string"), ("comment", "string"), ("confirmed", "boolean"),
        ]),
        "Silence": object("A silence.", &[
            ("id", "integer"), ("matchers", "array"), ("starts", "string"), ("ends", "string"), ("author", "string"),
            ("comment", "string"), ("created", "string"), ("expired_by", "string"), ("broad", "boolean"),
        ]),
        "Notification": object("One notification of the outbox.", &[
            ("id", "integer"), ("incident", "string"), ("alert", "string"), ("receiver", "string"), ("reason", "string"),
            ("delivery", "pending|leased|sent|ambiguous|dead"), ("attempts", "integer"), ("created", "string"),
            ("next_at", "string"), ("sent", "string"), ("error", "string"),
        ]),
        "Rule": object("A rule as people read it.", &[
            ("id", "string"), ("title", "string"), ("description", "string"), ("severity", "informational|low|medium|high|critical"),
            ("status", "string"), ("tags", "array"), ("false_positives", "array"), ("next_steps", "array"),
            ("references", "array"), ("yaml", "string"), ("file", "string"), ("correlation", "string"),
        ]),
        "Source": object("What arrives from one source, account and region; empty texts where it does not say.", &[
            ("source", "string"), ("account", "string"), ("account_name", "string"), ("region", "string"),
            ("state", "learning|arriving|silent|passing"), ("first_seen", "string"), ("last_ingest", "string"), ("last_event", "string"),
            ("last_heartbeat", "string"), ("delay_seconds", "number"), ("events_last_hour", "integer"), ("events_last_day", "integer"),
            ("silent_after_seconds", "integer"), ("rules", "integer"),
        ]),
        "Silent": object("What is silent, the widest; empty texts stand for all.", &[
            ("source", "string"), ("account", "string"), ("region", "string"), ("since", "string"), ("blind", "array"),
        ]),
        "Collector": object("Who fetches from a source.", &[
            ("node", "string"), ("kind", "string"), ("name", "string"), ("state", "well|failing|gone"), ("at", "string"), ("well", "string"),
            ("failing", "string"), ("fault", "string"), ("message", "string"), ("hint", "string"), ("waiting", "integer"), ("taken", "integer"),
            ("alone", "string"), ("beside", "array"),
        ]),
        "Lag": object("How far a stage is behind.", &[
            ("stage", "string"), ("topic", "string"), ("records", "integer"), ("seconds", "number"), ("positions", "array"),
        ]),
        "Topic": object("What the log keeps of a topic.", &[
            ("topic", "string"), ("partitions", "integer"), ("records", "integer"), ("appended", "integer"),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_no_other() {
        let mut described: Vec<(String, &str)> = OPERATIONS
            .iter()
            .map(|o| (o.method.to_uppercase(), o.path))
            .collect();
        let mut routes: Vec<(String, &str)> = crate::table()
            .into_iter()
            .filter(|(_, path, _)| path.starts_with("/api/"))
            .map(|(method, path, _)| (method.to_string(), path))
            .collect();
        described.sort();
        routes.sort();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_schema_that_is_named_exists() {
        let document = describe();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}"
            );
        }
    }

    /// The description is a contract: a change of it is seen in review.
    #[test]
    fn the_description_is_as_published() {
        let now = serde_json::to_string_pretty(&describe()).unwrap();
        let published = include_str!("../../testdata/openapi.json");
        assert!(
            now.trim() == published.trim(),
            "console/testdata/openapi.json differs; now it is:\n{now}"
        );
    }
}
