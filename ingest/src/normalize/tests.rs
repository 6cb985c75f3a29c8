//! What the envelope says of records of each kind.

use std::ops::ControlFlow;

use event::Outcome;

use super::*;
use crate::decode::{Decoder, Item, Job, Limits};

const NOW: &str = "2026-03-02T12:00:00Z";

fn events(content: &str) -> Vec<Event> {
    let mut found = Vec::new();
    let (mut normalizer, mut sketching) = (Normalizer::new(), Normalizer::new());
    let context = Context {
        ingest_time: Time::parse(NOW).unwrap(),
        object: "some/object".into(),
        keep_raw: true,
    };
    Decoder::new(Limits::of_files()).bytes(content.as_bytes(), &Job::default(), &mut |item| {
        match item {
            Item::Record(record) => {
                let event = normalizer.event(&record, &context);
                let sketched = sketched(&mut sketching, &record, &context, &event);
                assert_eq!(sketched, event, "in two steps");
                found.push(event);
            }
            Item::Bad(bad) => panic!("{bad:?}"),
        }
        ControlFlow::Continue(())
    });
    found
}

/// The event made in two steps; after the first it has what it must have in common with `whole`.
fn sketched(
    normalizer: &mut Normalizer,
    record: &Record<'_>,
    context: &Context,
    whole: &Event,
) -> Event {
    let mut event = normalizer.sketch(record, context);
    let start = |e: &Event| {
        (
            e.source.clone(),
            e.account.clone(),
            e.source_id.clone(),
            e.time,
        )
    };
    assert_eq!(start(&event), start(whole));
    let is_sketch = whole.source == "aws.cloudtrail" && !whole.source_id.is_empty();
    assert_eq!(event.id == Id::default(), is_sketch);
    // Rules take what was found with them.
    let found = std::mem::take(normalizer.found());
    normalizer.complete(record, context, &found, &mut event);
    event
}

/// The envelope of the one record in `content` has these keys with these values.
fn check(content: &str, expected: serde_json::Value) {
    let events = events(content);
    assert_eq!(events.len(), 1, "{content}");
    check_event(&events[0], expected, content);
}

fn check_event(event: &Event, expected: serde_json::Value, content: &str) {
    let json = event.to_json();
    for (key, value) in expected.as_object().unwrap() {
        let found = json.get(key).unwrap_or(&serde_json::Value::Null);
        assert_eq!(found, value, "{key} of {content}");
    }
}

fn line(message: &str) -> String {
    serde_json::json!({
        "messageType": "DATA_MESSAGE", "owner": "123456789012", "logGroup": "/aws/lambda/checkout",
        "logStream": "2026/03/02/[7]abcdef", "logEvents": [{"id": "77", "timestamp": 1_772_452_800_000_i64, "message": message}]
    })
    .to_string()
}

fn check_line(message: &str, expected: serde_json::Value) {
    check(&line(message), expected);
}

#[test]
fn an_api_call() {
    let content = r#"{"eventVersion":"1.08","userIdentity":{"type":"AssumedRole","principalId":"AROAX:jane@example.com","arn":"arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Admin_0123/jane@example.com","accountId":"111122223333","accessKeyId":"ASIAX","sessionContext":{"sessionIssuer":{"type":"Role","arn":"arn:aws:iam::111122223333:role/AWSReservedSSO_Admin_0123","userName":"AWSReservedSSO_Admin_0123"},"attributes":{"mfaAuthenticated":"true"}}},"eventTime":"2026-03-02T10:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-west-1","sourceIPAddress":"203.0.113.7","userAgent":"aws-cli","errorCode":"AccessDenied","errorMessage":"Access Denied","requestParameters":{"bucketName":"b","key":"k"},"responseElements":null,"requestID":"R","eventID":"E-1","readOnly":true,"resources":[{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::b/k"},{"ARN":"arn:aws:s3:::b"}],"eventType":"AwsApiCall","managementEvent":false,"recipientAccountId":"444455556666","sharedEventID":"S","eventCategory":"Data"}"#;
    check(
        content,
        serde_json::json!({
            "id": Id::cloudtrail("444455556666", "E-1").to_string(), "source_id": "E-1", "source": "aws.cloudtrail",
            "time": "2026-03-02T10:00:00Z", "ingest_time": NOW, "account": "444455556666", "region": "eu-west-1",
            "category": "Data", "service": "s3.amazonaws.com", "action": "GetObject", "outcome": "denied",
            "error_code": "AccessDenied", "error_message": "Access Denied", "actor": "AWSReservedSSO_Admin_0123/jane@example.com",
            "actor_type": "AssumedRole", "actor_id": "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Admin_0123/jane@example.com",
            "identity": "jane@example.com", "session": "jane@example.com", "access_key": "ASIAX",
            "issuer": "arn:aws:iam::111122223333:role/AWSReservedSSO_Admin_0123", "mfa": true, "src_ip": "203.0.113.7",
            "user_agent": "aws-cli", "resources": ["arn:aws:s3:::b/k", "arn:aws:s3:::b", "b"], "request_id": "R",
            "shared_id": "S", "flags": null, "raw": serde_json::from_str::<serde_json::Value>(content).unwrap(),
        }),
    );
    assert_eq!(events(content)[0].raw, content.as_bytes());
}

/// A CloudTrail record with some keys more.
fn record(more: &str) -> String {
    format!(
        r#"{{"eventVersion":"1.08","eventTime":"2026-03-02T10:00:00Z","eventSource":"iam.amazonaws.com","eventName":"X","eventID":"E","recipientAccountId":"1"{more}}}"#
    )
}

#[test]
fn outcomes() {
    for (more, outcome) in [
        ("", Outcome::Success),
        (
            r#","errorCode":"Client.UnauthorizedOperation""#,
            Outcome::Denied,
        ),
        (r#","errorCode":"VpceAccessDenied""#, Outcome::Denied),
        (r#","errorCode":"NoSuchEntityException""#, Outcome::Failure),
        (
            r#","errorMessage":"Failed authentication""#,
            Outcome::Failure,
        ),
        (
            r#","responseElements":{"ConsoleLogin":"Failure"}"#,
            Outcome::Failure,
        ),
        (
            r#","responseElements":{"ConsoleLogin":"Success"}"#,
            Outcome::Success,
        ),
        (
            r#","responseElements":{"errorCode":"AccessDeniedException"}"#,
            Outcome::Denied,
        ),
        (
            r#","serviceEventDetails":{"CredentialVerification":"Failure"}"#,
            Outcome::Failure,
        ),
    ] {
        assert_eq!(events(&record(more))[0].outcome, outcome, "{more}");
    }
}

#[test]
fn identities() {
    for (user, actor, identity) in [
        (
            r#"{"type":"Root","arn":"arn:aws:iam::1:root","accountId":"1"}"#,
            "root",
            "arn:aws:iam::1:root",
        ),
        (r#"{"type":"IAMUser","userName":"bob"}"#, "bob", "bob"),
        (
            r#"{"type":"IAMUser","accountId":"1","userName":"HIDDEN_DUE_TO_SECURITY_REASONS"}"#,
            "HIDDEN_DUE_TO_SECURITY_REASONS",
            "",
        ),
        (
            r#"{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/deploy/i-0abc1234","sessionContext":{"sessionIssuer":{"userName":"deploy"}}}"#,
            "deploy/i-0abc1234",
            "i-0abc1234",
        ),
        (
            r#"{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/deploy/botocore-session-17","sessionContext":{"sessionIssuer":{"userName":"deploy"}}}"#,
            "deploy/botocore-session-17",
            "deploy",
        ),
        (
            r#"{"type":"AssumedRole","principalId":"AROA:x","sessionContext":{"sourceIdentity":"carol","sessionIssuer":{"userName":"deploy"}}}"#,
            "deploy/x",
            "carol",
        ),
        (
            r#"{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/ci/GitHubActions","sessionContext":{"webIdFederationData":{"federatedProvider":"arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"},"sessionIssuer":{"userName":"ci"}}}"#,
            "ci/GitHubActions",
            "token.actions.githubusercontent.com/ci",
        ),
        (
            r#"{"type":"WebIdentityUser","principalId":"p","userName":"repo:org/app:ref:refs/heads/main","identityProvider":"x"}"#,
            "repo:org/app:ref:refs/heads/main",
            "repo:org/app:ref:refs/heads/main",
        ),
        (
            r#"{"type":"AWSService","invokedBy":"autoscaling.amazonaws.com"}"#,
            "autoscaling.amazonaws.com",
            "autoscaling.amazonaws.com",
        ),
        (
            r#"{"type":"AWSAccount","principalId":"AIDA","accountId":"999"}"#,
            "999",
            "999",
        ),
        (
            r#"{"type":"FederatedUser","arn":"arn:aws:sts::1:federated-user/dave"}"#,
            "dave",
            "dave",
        ),
    ] {
        let content = record(&format!(r#","userIdentity":{user}"#));
        let event = &events(&content)[0];
        assert_eq!(
            (event.actor.as_str(), event.identity.as_str()),
            (actor, identity),
            "{user}"
        );
    }
}

#[test]
fn other_kinds_of_records() {
    check(
        r#"{"eventVersion":"1.11","eventId":"A","accountId":"7","eventType":"AwsAggregatedEvent","eventCategory":"Aggregated","timeWindow":{"windowStart":"2026-03-02T09:55:00Z","windowEnd":"2026-03-02T10:00:00Z","windowSize":"PT5M"}}"#,
        serde_json::json!({"source": "aws.cloudtrail", "id": Id::cloudtrail("7", "A").to_string(), "source_id": "A", "account": "7",
            "time": "2026-03-02T10:00:00Z", "outcome": "unknown", "category": "Aggregated"}),
    );
    check(
        r#"{"eventVersion":"1.07","eventTime":"2026-03-02T10:00:00Z","awsRegion":"us-east-1","eventID":"I","eventType":"AwsCloudTrailInsight","recipientAccountId":"7","sharedEventID":"S","insightDetails":{"state":"Start","eventSource":"ssm.amazonaws.com","eventName":"UpdateInstanceInformation","insightType":"ApiCallRateInsight"},"eventCategory":"Insight"}"#,
        serde_json::json!({"service": "ssm.amazonaws.com", "action": "UpdateInstanceInformation", "category": "Insight", "outcome": "unknown", "shared_id": "S"}),
    );
    check(
        &record(
            r#","addendum":{"reason":"UPDATED_DATA","originalEventID":"E-0"},"eventType":"AwsVpceEvent""#,
        ),
        serde_json::json!({"amends": "E-0", "flags": ["addendum"], "category": "NetworkActivity"}),
    );
    check(
        &record(r#","requestParameters":{"omitted":true,"originalSize":107593}"#),
        serde_json::json!({"flags": ["truncated"]}),
    );
    // Without version and account, as exports have it.
    check(
        r#"{"eventType":"AwsApiCall","eventName":"ListObjects","eventSource":"s3.amazonaws.com","eventID":"O","eventTime":"2026-03-02T10:00:00Z","sourceIPAddress":"AWS Internal"}"#,
        serde_json::json!({"source": "aws.cloudtrail", "id": Id::cloudtrail("", "O").to_string(), "src_ip": "AWS Internal"}),
    );
    let unnamed = r#"{"eventName":"X","eventSource":"s3.amazonaws.com"}"#;
    check(
        unnamed,
        serde_json::json!({"id": Id::position("some/object", 0).to_string(), "time": NOW, "flags": ["ts_inferred"]}),
    );
}

#[test]
fn functions_and_versions_of_actions() {
    for (name, action) in [
        ("Invoke20150331", "Invoke"),
        ("UpdateFunctionCode20150331v2", "UpdateFunctionCode"),
        ("GetFunction20150331v2", "GetFunction"),
        ("Invoke", "Invoke"),
        ("20150331", "20150331"),
    ] {
        check(
            &format!(
                r#"{{"eventSource":"lambda.amazonaws.com","eventName":"{name}","eventID":"E","requestParameters":{{"functionName":"arn:aws:lambda:us-east-1:1:function:pay:7"}}}}"#
            ),
            serde_json::json!({"action": action, "function": "pay", "function_version": "7"}),
        );
    }
    check(
        r#"{"eventSource":"cloudfront.amazonaws.com","eventName":"CreateDistribution2020_05_31","eventID":"E"}"#,
        serde_json::json!({"action": "CreateDistribution"}),
    );
}

#[test]
fn flags() {
    check(
        &record(r#","a":1,"a":2,"n":1e999"#),
        serde_json::json!({"flags": ["dup_keys", "num_coerced"]}),
    );
    check(
        r#"{"timestamp":"2026-03-02T12:05:01Z"}"#,
        serde_json::json!({"flags": ["ts_future"], "source": "unknown"}),
    );
}

#[test]
fn unknown_records() {
    for (content, time) in [
        (
            r#"{"@timestamp":"2026-03-01T00:00:00Z","timestamp":"2025-01-01"}"#,
            "2026-03-01T00:00:00Z",
        ),
        (
            r#"{"UtcTime":"2026-03-01 00:00:00.5"}"#,
            "2026-03-01T00:00:00.500Z",
        ),
        (r#"{"timestamp":1700000000000}"#, "2023-11-14T22:13:20Z"),
        (
            r#"{"@timestamp":"soon","time":"1700000000"}"#,
            "2023-11-14T22:13:20Z",
        ),
        (r#"{"time":0}"#, NOW),
    ] {
        check(
            content,
            serde_json::json!({"time": time, "source": "unknown"}),
        );
    }
}

#[test]
fn platform_lines() {
    check_line(
        "START RequestId: db275f87-a934-471a-8980-b63bf4dc1beb Version: $LATEST\n",
        serde_json::json!({"source": "aws.lambda", "action": "platform.start", "request_id": "db275f87-a934-471a-8980-b63bf4dc1beb",
            "function_version": "$LATEST", "function": "checkout", "account": "123456789012", "source_id": "77", "category": "platform",
            "id": Id::cloudwatch("123456789012", "/aws/lambda/checkout", "2026/03/02/[7]abcdef", "77").to_string(), "time": NOW}),
    );
    let report = "REPORT RequestId: db275f87\tDuration: 1.76 ms\tBilled Duration: 100 ms\tMemory Size: 128 MB\tMax Memory Used: 48 MB\tInit Duration: 120.96 ms\t\n";
    let invocation = serde_json::json!({"duration_ms": 1.76, "billed_ms": 100.0, "memory_mb": 128, "memory_used_mb": 48, "init_ms": 120.96, "cold_start": true});
    let expected = serde_json::json!({"action": "platform.report", "request_id": "db275f87", "outcome": "unknown", "invocation": invocation});
    check_line(report, expected.clone());
    check_line(
        &report.replace('\t', "\\t").replace('\n', "\\n"),
        expected.clone(),
    );
    check_line(&report.replace('\t', "\t\t"), expected);
    check_line(
        "REPORT RequestId: r\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\tMemory Size: 128 MB\tMax Memory Used: 128 MB\tStatus: timeout\n",
        serde_json::json!({"outcome": "failure", "invocation": {"status": "timeout", "duration_ms": 3000.0, "billed_ms": 3000.0, "memory_mb": 128, "memory_used_mb": 128}}),
    );
    check_line(
        "2020-06-09T15:02:26.150Z 7c9567b5-107b-4a6c-8798-0157ac21db52 Task timed out after 3.00 seconds\\n\\n",
        serde_json::json!({"action": "platform.timeout", "outcome": "failure", "request_id": "7c9567b5-107b-4a6c-8798-0157ac21db52",
            "error_message": "Task timed out after 3.00 seconds", "error_code": "Sandbox.Timedout"}),
    );
    check_line(
        "RequestId: r Error: Runtime exited with error: signal: killed\nRuntime.ExitError\n",
        serde_json::json!({"action": "platform.error", "outcome": "failure", "request_id": "r", "error_code": "Runtime.OutOfMemory"}),
    );
    check_line(
        "RequestId: r Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n",
        serde_json::json!({"action": "platform.error", "error_code": "Runtime.ExitError", "error_message": "Runtime exited with error: exit status 1\nRuntime.ExitError"}),
    );
    check_line(
        "INIT_START Runtime Version: python:3.12.v36\tRuntime Version ARN: arn:aws:lambda:eu-west-1::runtime:00\n",
        serde_json::json!({"action": "platform.initStart", "region": "eu-west-1"}),
    );
    check_line(
        "INIT_REPORT Init Duration: 9999.9 ms\tPhase: init\tStatus: timeout\n",
        serde_json::json!({"action": "platform.initReport", "outcome": "failure", "error_code": "timeout"}),
    );
}

#[test]
fn platform_records() {
    check_line(
        r#"{"time":"2026-03-02T12:00:00.001Z","type":"platform.report","record":{"requestId":"r","status":"error","errorType":"Runtime.ExitError","metrics":{"durationMs":10.5,"billedDurationMs":11,"memorySizeMB":128,"maxMemoryUsedMB":60,"initDurationMs":100.25}}}"#,
        serde_json::json!({"action": "platform.report", "outcome": "failure", "request_id": "r", "error_code": "Runtime.ExitError",
            "invocation": {"status": "error", "duration_ms": 10.5, "billed_ms": 11.0, "memory_mb": 128, "memory_used_mb": 60, "init_ms": 100.25, "cold_start": true, "error_type": "Runtime.ExitError"}}),
    );
    check(
        r#"{"time":"2026-03-02T11:00:00Z","type":"platform.report","record":{"requestId":"r","status":"success","metrics":{"durationMs":10.5}}}"#,
        serde_json::json!({"source": "aws.lambda", "time": "2026-03-02T11:00:00Z", "outcome": "success", "invocation": {"status": "success", "duration_ms": 10.5}}),
    );
    check_line(
        r#"{"time":"2026-03-02T12:00:00Z","type":"platform.start","record":{"requestId":"r","functionArn":"arn:aws:lambda:us-east-1:1:function:pay","version":"3"}}"#,
        serde_json::json!({"action": "platform.start", "function": "pay", "region": "us-east-1", "account": "123456789012"}),
    );
    check(
        r#"{"timestamp":"2026-03-02T11:00:00Z","level":"INFO","type":"platform.invokeSummary","region":"eu-west-1","record":{"functionName":"web"}}"#,
        serde_json::json!({"action": "platform.invokeSummary", "function": "web", "region": "eu-west-1"}),
    );
}

#[test]
fn lines_of_functions() {
    let id = "f08bb4c8-d6b2-4f05-ac17-af7e2ba005fb";
    check_line(
        &format!("2026-03-02T11:59:59.113Z\t{id}\tINFO\thello\n"),
        serde_json::json!({"action": "log", "request_id": id, "outcome": "unknown", "time": NOW}),
    );
    check_line(
        &format!(
            "2026-03-02T11:59:59.113Z\t{id}\tERROR\tInvoke Error \t{{\"errorType\":\"TypeError\",\"errorMessage\":\"no id\"}}\n"
        ),
        serde_json::json!({"request_id": id, "outcome": "failure", "error_code": "TypeError", "error_message": "no id"}),
    );
    check_line(
        "ERROR\tInvoke Error \t{\"errorType\":\"TypeError\",\"errorMessage\":\"no id\"}\n",
        serde_json::json!({"outcome": "failure", "error_code": "TypeError"}),
    );
    check_line(
        "[ERROR] KeyError: 'orderId'\nTraceback (most recent call last):\n",
        serde_json::json!({"outcome": "failure", "error_code": "KeyError"}),
    );
    check_line(
        &format!("[INFO]\t2026-03-02T11:59:59.113Z\t{id}\tan error, they said\n"),
        serde_json::json!({"outcome": "unknown", "request_id": id, "error_code": null}),
    );
    check_line(
        "java.lang.NullPointerException: x is null\n\tat example.Handler\n",
        serde_json::json!({"outcome": "failure", "error_code": "java.lang.NullPointerException"}),
    );
    check_line(
        &format!(
            r#"{{"timestamp":"2026-03-02T11:59:59Z","level":"ERROR","requestId":"{id}","message":"m","errorType":"OpError","errorMessage":"dial"}}"#
        ),
        serde_json::json!({"action": "log", "outcome": "failure", "error_code": "OpError", "error_message": "dial", "request_id": id}),
    );
    check_line(
        &format!(
            r#"{{"level":"INFO","message":"m","service":"s","function_name":"pay","function_arn":"arn:aws:lambda:us-east-1:1:function:pay","function_request_id":"{id}"}}"#
        ),
        serde_json::json!({"action": "log", "function": "pay", "region": "us-east-1", "request_id": id, "outcome": "unknown"}),
    );
    check_line(
        "nothing known",
        serde_json::json!({"action": "log", "outcome": "unknown", "raw": "nothing known"}),
    );
}

#[test]
fn other_log_groups() {
    let of = |group: &str, stream: &str, message: &str| {
        let payload = serde_json::json!({"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": group, "logStream": stream,
            "logEvents": [{"id": "7", "timestamp": 1_772_452_800_000_i64, "message": message}]});
        events(&payload.to_string()).remove(0)
    };
    let event = of("app", "host-1", "GET / 200");
    check_event(
        &event,
        serde_json::json!({"source": "aws.cloudwatch", "service": "logs", "time": NOW}),
        "app",
    );
    let event = of("shared", "2026/03/02/pay[$LATEST]abc", "hello");
    check_event(
        &event,
        serde_json::json!({"source": "aws.lambda", "function": "pay", "function_version": "$LATEST"}),
        "shared",
    );
    assert_eq!(event.partition_key(), "1:shared:2026/03/02/pay[$LATEST]abc");
    let event = of("trail", "1_CloudTrail_us-east-1", &record(""));
    check_event(
        &event,
        serde_json::json!({"source": "aws.cloudtrail", "source_id": "E", "id": Id::cloudtrail("1", "E").to_string(), "origin": {"object": "some/object", "position": 0}}),
        "trail",
    );
}

#[test]
fn lines_without_a_time_take_that_of_the_line_before() {
    let log = "START RequestId: 1 Version: 2\n2026-03-02T11:00:00Z\tf08bb4c8-d6b2-4f05-ac17-af7e2ba005fb\tINFO\thi\nEND RequestId: 1\n";
    let times: Vec<_> = events(log)
        .iter()
        .map(|e| (e.time.to_string(), e.flags.has(Flag::TsInferred)))
        .collect();
    let at = "2026-03-02T11:00:00Z".to_owned();
    assert_eq!(
        times,
        [(NOW.to_owned(), true), (at.clone(), false), (at, true)]
    );
}
