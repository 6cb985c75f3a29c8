//! What is counted of which event, and that restarts and floods count the same.

use event::Invocation;

use super::*;

fn report(minute: i64, function: &str, status: &str) -> Event {
    Event {
        source: "aws.lambda".into(),
        function: function.into(),
        labels: [("owner".into(), "shop".into())].into(),
        action: "platform.report".into(),
        time: Time(minute * MINUTE + 7),
        invocation: Some(Box::new(Invocation {
            status: status.into(),
            duration_ms: Some(12.5),
            billed_ms: Some(13.0),
            memory_mb: Some(128),
            ..Invocation::default()
        })),
        ..Event::default()
    }
}

fn see(counters: &mut Counters, event: &Event) {
    if let Some(reading) = reading(event, None) {
        counters.take(reading);
    }
}

fn meters(records: &[Record]) -> Vec<(String, i64, Cell)> {
    let decoded = records
        .iter()
        .map(|r| MeterRecord::decode(&r.value).unwrap());
    decoded
        .filter_map(|record| match record {
            MeterRecord::Meter(Meter {
                counted: Counted::Function(f),
                minute,
                cell,
                ..
            }) => Some((f.function.to_string(), minute, cell)),
            _ => None,
        })
        .collect()
}

#[test]
fn counts_are_cumulative_by_minute() {
    let mut counters = Counters::new(3);
    see(&mut counters, &report(10, "a", "success"));
    see(&mut counters, &report(10, "a", "timeout"));
    see(&mut counters, &report(11, "a", "error"));
    let (records, state) = counters.flush(Time(0));
    let found = meters(&records);
    assert_eq!(found.len(), 2);
    let cell = found[0].2;
    assert_eq!(
        (cell.invocations(), cell.errors(), cell.timeouts()),
        (2, 1, 1)
    );
    assert_eq!(
        (cell.timed, cell.duration, cell.billed),
        (2, 25_000, 2 * 13 * 128)
    );
    assert_eq!(state.len(), 2);

    // Restored from its state it goes on as if nothing had happened.
    let rows: Vec<_> = state
        .into_iter()
        .map(|s| (s.key, s.value.unwrap()))
        .collect();
    let mut restored = Counters::restore(3, &rows);
    for counters in [&mut counters, &mut restored] {
        see(counters, &report(10, "a", "success"));
        let found = meters(&counters.flush(Time(0)).0);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].2.invocations(), 3);
    }
    assert_eq!(counters.cells, restored.cells);
    let (place, _) = restored.cells.values().next().unwrap();
    assert_eq!(place.labels["owner"], "shop");
}

#[test]
fn what_is_long_past_is_forgotten_and_the_future_is_not_counted() {
    let mut counters = Counters::new(0);
    see(&mut counters, &report(10, "a", ""));
    counters.flush(Time(0));
    let mut future = report(9_999, "a", "");
    future.flags.set(Flag::TsFuture);
    see(&mut counters, &future);
    see(&mut counters, &report(10 + KEPT_MINUTES + 1, "a", ""));
    let (records, state) = counters.flush(Time(0));
    assert_eq!(meters(&records).len(), 1);
    let gone: Vec<_> = state.iter().filter(|s| s.value.is_none()).collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(counters.cells.len(), 1);
}

#[test]
fn starts_and_reports_exceptions_and_statuses() {
    let line = |action: &str, error: &str| Event {
        action: action.into(),
        error_code: error.into(),
        outcome: if error.is_empty() {
            Outcome::Unknown
        } else {
            Outcome::Failure
        },
        invocation: None,
        ..report(1, "a", "")
    };
    let check = |events: &[Event], expected: (u64, u64, u64)| {
        let mut counters = Counters::new(0);
        events.iter().for_each(|e| see(&mut counters, e));
        let found = meters(&counters.flush(Time(0)).0);
        let cell = found.first().map(|f| f.2).unwrap_or_default();
        assert_eq!(
            (cell.invocations(), cell.errors(), cell.timeouts()),
            expected
        );
    };
    check(&[line("platform.start", "")], (1, 0, 0));
    check(
        &[line("platform.start", ""), report(1, "a", "success")],
        (1, 0, 0),
    );
    check(&[report(1, "a", ""), line("log", "KeyError")], (1, 1, 0));
    check(&[line("log", "")], (0, 0, 0));
    check(
        &[report(1, "a", "timeout"), line("platform.timeout", "")],
        (1, 1, 1),
    );
}

#[test]
fn deployments_are_told() {
    let mut event = Event {
        source: "aws.cloudtrail".into(),
        service: "lambda".into(),
        action: "UpdateFunctionCode20150331v2".into(),
        outcome: Outcome::Success,
        function: "a".into(),
        actor: "alice".into(),
        ..Event::default()
    };
    assert!(deployment(&event).is_some_and(|d| d.actor == "alice"));
    event.outcome = Outcome::Denied;
    assert_eq!(deployment(&event), None);
    event.outcome = Outcome::Success;
    event.action = "Invoke".into();
    assert_eq!(deployment(&event), None);
}

#[test]
fn every_partition_hears_of_a_watermark() {
    let watermark = Watermark {
        partition: 1,
        time: None,
        next: 4,
        ends: vec![0, 4],
    };
    for partitions in [1, 3, 12] {
        let records = watermark_records(&watermark, partitions, Time(1));
        for (partition, record) in (0..partitions).zip(&records) {
            assert_eq!(partition_of(&record.key, partitions), partition);
            let read = MeterRecord::decode(&record.value).unwrap();
            assert_eq!(read, MeterRecord::Watermark(watermark.clone()));
        }
    }
}

#[test]
fn a_flood_of_groups_takes_no_room_from_functions_and_is_said() {
    let group = |n: i64| Reading::Count {
        counted: Counted::Group(Group {
            rule: "r".into(),
            values: [("user".into(), Some(event::format_compact!("user-{n}")))].into(),
        }),
        minute: 5,
        region: Str::default(),
        labels: BTreeMap::new(),
        cell: Cell {
            matches: 1,
            ..Cell::default()
        },
    };
    let mut counters = Counters::new(0);
    for n in 0..MOST_CELLS as i64 + 3 {
        counters.take(group(n));
    }
    counters.take(group(0));
    see(&mut counters, &report(5, "f", ""));
    assert_eq!((counters.uncounted(), counters.uncounted()), (3, 0));
    let (records, _) = counters.flush(Time(0));
    assert_eq!(records.len(), MOST_CELLS + 1);
    assert_eq!(meters(&records).len(), 1, "the function is counted");

    // Hours later there is room again, also after a restart.
    see(&mut counters, &report(5 + KEPT_MINUTES + 1, "f", ""));
    let (_, state) = counters.flush(Time(0));
    assert_eq!(state.len(), MOST_CELLS + 2, "the minute is forgotten");
    counters.take(group(MOST_CELLS as i64 + 1));
    assert_eq!(counters.uncounted(), 0);
}
