//! How fast events are indexed, how much disk that takes, and how long queries last, beside bare tantivy.
//!
//! `cargo bench -p search --bench index -- INDEX [EVENTS [ours|queries]]` takes the events of an index folder (`trailwarden hunt FOLDER
//! --index INDEX` makes one of CloudTrail files), oldest first, in the order in which objects bring them. Page by page it
//! gives them to [`OfflineIndex`] and to tantivy with one JSON field (default tokenizer, positions, stored): once the
//! whole event, envelope and original, and once the original alone. All see the same documents in one run on one thread;
//! time on the processor counts, so that other work on the machine does not. Then two threads have an index each, and
//! the index made before answers queries: cold, with its files dropped from the page cache, and warm.
//! With `queries` the index itself answers, and none is built; EVENTS says nothing then. `deploy/test/search` runs all of it. It fails on nothing.

#![expect(clippy::print_stdout, reason = "a bench prints its numbers")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use event::{Clock, Event, Time};
use search::offline::OfflineIndex;
use search::{Config, Metrics, Request, Searcher};
use tantivy::directory::MmapDirectory;
use tantivy::schema::{STORED, Schema, SchemaBuilder, TEXT};
use tantivy::{Index, SingleSegmentIndexWriter, TantivyDocument};

/// How many events are taken at a time.
const PAGE: usize = 10_000;
/// How many events the run with two threads has, since it holds them in memory.
const MOST_IN_MEMORY: usize = 100_000;
/// 256 MiB, as [`OfflineIndex`] has.
const MEMORY: usize = 256 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let Some(source) = arguments.first() else {
        println!("usage: cargo bench -p search --bench index -- INDEX [EVENTS [ours|queries]]");
        return;
    };
    let number = arguments
        .get(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(usize::MAX);
    if arguments.get(2).is_some_and(|a| a == "queries") {
        let source = Path::new(source);
        return queries(&looked_at(source), source);
    }
    let dir = tempfile::Builder::new()
        .prefix("index-bench-")
        .tempdir_in(Path::new(source).parent().unwrap_or(Path::new(".")))
        .expect("beside the index there is space");
    let source = Pages::open(Path::new(source), number);
    // `ours` as third argument leaves bare tantivy out, for the queries alone.
    let bare = arguments.get(2).is_none_or(|a| a != "ours");
    let built = one_thread(source, dir.path(), bare);
    if bare {
        two_threads(&built, dir.path());
    }
    queries(&built, &dir.path().join("ours"));
}

/// An index as it is, for queries alone: how many events it has, and the newest of those with a time of their own.
fn looked_at(dir: &Path) -> Built {
    let searcher = searcher(dir, Time::from_seconds(0));
    let mut all = Request {
        query: "*".to_owned(),
        limit: PAGE,
        newest_first: true,
        ..Request::default()
    };
    let bars = searcher.histogram(&all, 1_000).expect("it counts");
    let events: u64 = bars.iter().map(|b| b.count).sum();
    // A few events have no time but that of their intake, long after the others.
    let mut later = 0;
    let late = bars.iter().rev().find(|bar| {
        later += bar.count;
        later > events / 100
    });
    all.to = late.map(|bar| bar.to);
    let kept = searcher.search(&all).expect("it reads them").hits;
    let denied = |e: &&Event| &*e.error_code == "AccessDenied" && !e.src_ip.is_empty();
    Built {
        events: events as usize,
        late: kept[0].time,
        sample: kept.iter().find(denied).unwrap_or(&kept[0]).clone(),
        kept,
    }
}

/// The events of an index, page by page.
struct Pages {
    searcher: Searcher,
    request: Request,
    left: usize,
    ended: bool,
}

impl Pages {
    fn open(dir: &Path, number: usize) -> Pages {
        Pages {
            searcher: searcher(dir, Time::from_seconds(0)),
            request: Request {
                query: "*".to_owned(),
                limit: PAGE,
                ..Request::default()
            },
            left: number,
            ended: false,
        }
    }
}

impl Iterator for Pages {
    type Item = Vec<Event>;

    fn next(&mut self) -> Option<Vec<Event>> {
        if self.ended || self.left == 0 {
            return None;
        }
        let answer = self.searcher.search(&self.request).expect("it reads all");
        self.request.after = answer.next;
        self.ended = answer.next.is_none();
        let mut events = answer.hits;
        events.truncate(self.left);
        self.left -= events.len();
        // An object has five minutes of one account and region.
        let object = |e: &Event| {
            let object = (e.account.as_str().to_owned(), e.region.as_str().to_owned());
            (e.time.0 / 300_000_000, object)
        };
        events.sort_by_cached_key(object);
        (!events.is_empty()).then_some(events)
    }
}

fn searcher(dir: &Path, now: Time) -> Searcher {
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("the registry is new");
    let clock: Clock = std::sync::Arc::new(move || now);
    let config = Config {
        timeout_ms: 600_000,
        ..Config::default()
    };
    Searcher::open(dir, &config, metrics, clock).expect("the folder has an index")
}

/// How long this thread has been on a processor; elsewhere than on Linux how long it has run.
fn cpu(since: Instant) -> Duration {
    let own = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok()
    };
    own().map_or(since.elapsed(), Duration::from_nanos)
}

/// Tantivy as one would use it first: the whole document in one JSON field.
struct Bare {
    dir: PathBuf,
    schema: Schema,
    writer: Option<SingleSegmentIndexWriter>,
    segments: usize,
}

impl Bare {
    fn create(dir: PathBuf) -> Bare {
        let mut schema = SchemaBuilder::new();
        schema.add_json_field("event", TEXT | STORED);
        let (schema, writer, segments) = (schema.build(), None, 0);
        Bare {
            dir,
            schema,
            writer,
            segments,
        }
    }

    fn add(&mut self, json: &str) {
        let document = TantivyDocument::parse_json(&self.schema, json).expect("it is JSON");
        let writer = self.writer.get_or_insert_with(|| {
            let folder = self.dir.join(self.segments.to_string());
            std::fs::create_dir_all(&folder).expect("the disk has space");
            Index::builder()
                .schema(self.schema.clone())
                .single_segment_index_writer(
                    MmapDirectory::open(&folder).expect("it was just made"),
                    MEMORY,
                )
                .expect("the folder is empty")
        });
        writer.add_document(document).expect("the disk has space");
        if writer.mem_usage() >= MEMORY {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.finalize().expect("the disk has space");
            self.segments += 1;
        }
    }
}

/// A document for [`Bare`]: the event with its envelope, or its original alone.
fn document(event: &Event, whole: bool) -> String {
    let json = match whole {
        true => event.to_json().to_string(),
        false => String::from_utf8_lossy(&event.raw).into_owned(),
    };
    format!(r#"{{"event":{json}}}"#)
}

/// What was indexed, and samples of it to search for.
struct Built {
    events: usize,
    /// About the time of the latest event.
    late: Time,
    sample: Event,
    kept: Vec<Event>,
}

fn one_thread(pages: Pages, dir: &Path, beside: bool) -> Built {
    let start = Instant::now();
    let mut ours =
        OfflineIndex::create(&dir.join("ours"), &Config::default()).expect("the folder is empty");
    let mut bare: Vec<(bool, Bare)> = [true, false]
        .into_iter()
        .filter(|_| beside)
        .map(|whole| (whole, Bare::create(dir.join(format!("{whole}")))))
        .collect();
    let mut spent = [Duration::ZERO; 3];
    let (mut events, mut raw) = (0, 0);
    let mut late = Time(0);
    let mut sample: Option<Event> = None;
    let mut kept = Vec::new();
    for page in pages {
        events += page.len();
        raw += page.iter().map(|e| e.raw.len() as u64).sum::<u64>();
        // Of the last full page the middle: a few events have no time but that of their intake.
        let usual = page.len() == PAGE || kept.is_empty();
        if usual {
            late = page[page.len() / 2].time;
        }
        let denied = |e: &&Event| &*e.error_code == "AccessDenied" && !e.src_ip.is_empty();
        let of_page = page.iter().filter(|_| usual).find(denied);
        sample = of_page.cloned().or(sample);
        let before = cpu(start);
        for event in &page {
            ours.add(event).expect("the disk has space");
        }
        spent[0] += cpu(start) - before;
        for (place, (whole, bare)) in bare.iter_mut().enumerate() {
            let documents: Vec<String> = page.iter().map(|e| document(e, *whole)).collect();
            let before = cpu(start);
            documents.iter().for_each(|d| bare.add(d));
            spent[place + 1] += cpu(start) - before;
        }
        if kept.len() < MOST_IN_MEMORY {
            kept.extend(page);
        }
    }
    let before = cpu(start);
    ours.finish().expect("the disk has space");
    spent[0] += cpu(start) - before;
    for (place, (_, bare)) in bare.iter_mut().enumerate() {
        let before = cpu(start);
        bare.end();
        spent[place + 1] += cpu(start) - before;
    }
    println!(
        "{events} events, originals of {} bytes on average\n",
        raw / events.max(1) as u64
    );
    println!("| one thread | events per CPU s | bare / ours | bytes on disk / originals |");
    println!("|---|---|---|---|");
    let names = ["ours", "true", "false"];
    let titles = [
        "Trailwarden, every field, event stored",
        "bare tantivy, whole event as one JSON field, stored",
        "bare tantivy, original alone as one JSON field, stored",
    ];
    let shown = 1 + bare.len();
    for ((name, title), time) in names.iter().zip(titles).zip(spent).take(shown) {
        println!(
            "| {title} | {:.0} | {:.2} | {:.3} |",
            events as f64 / time.as_secs_f64(),
            time.as_secs_f64() / spent[0].as_secs_f64(),
            size(&dir.join(name), "") as f64 / raw as f64,
        );
    }
    println!("\n| of it | bytes / originals |\n|---|---|");
    for (part, extension) in [
        ("stored events", "store"),
        ("dictionaries", "term"),
        ("postings", "idx"),
        ("positions", "pos"),
        ("columns", "fast"),
    ] {
        let bytes = size(&dir.join("ours"), extension);
        println!("| {part} | {:.3} |", bytes as f64 / raw as f64);
    }
    Built {
        events,
        late,
        sample: sample.or(kept.first().cloned()).expect("there are events"),
        kept,
    }
}

fn two_threads(built: &Built, dir: &Path) {
    let middle = built.kept.len() / 2;
    let halves = [&built.kept[..middle], &built.kept[middle..]];
    let run = |title: &str, name: &str, work: &(dyn Fn(&[Event], PathBuf) + Sync)| {
        let start = Instant::now();
        let spent: Duration = std::thread::scope(|scope| {
            let threads = halves.into_iter().enumerate().map(|(place, half)| {
                let folder = dir.join(format!("{name}-{place}"));
                scope.spawn(move || {
                    work(half, folder);
                    cpu(start)
                })
            });
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(|t| t.join().expect("it ends well"));
            joined.sum()
        });
        let per = |time: Duration| built.kept.len() as f64 / time.as_secs_f64();
        println!(
            "| {title} | {:.0} | {:.0} |",
            per(start.elapsed()),
            per(spent)
        );
    };
    println!(
        "\n| two threads, an index each, {} events | events/s | events per CPU s |\n|---|---|---|",
        built.kept.len()
    );
    run("Trailwarden", "two-ours", &|events, folder| {
        let mut index =
            OfflineIndex::create(&folder, &Config::default()).expect("the folder is empty");
        for event in events {
            index.add(event).expect("the disk has space");
        }
        index.finish().expect("the disk has space");
    });
    run(
        "bare tantivy, whole event (its JSON is made here)",
        "two-bare",
        &|events, folder| {
            let mut bare = Bare::create(folder);
            events.iter().for_each(|e| bare.add(&document(e, true)));
            bare.end();
        },
    );
    println!();
}

/// Calls `each` for the files below a folder.
fn walk(path: &Path, each: &mut dyn FnMut(&Path, u64)) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => walk(&entry.path(), each),
            false => each(&entry.path(), entry.metadata().map_or(0, |m| m.len())),
        }
    }
}

/// The bytes of the files below a folder that end so.
fn size(path: &Path, extension: &str) -> u64 {
    let mut sum = 0;
    walk(path, &mut |file, bytes| {
        let fits = extension.is_empty() || file.extension().is_some_and(|e| e == extension);
        sum += u64::from(fits) * bytes;
    });
    sum
}

/// Drops the files below a folder from the page cache, by what GNU `dd` does with `nocache`.
fn forget(path: &Path) {
    walk(path, &mut |file, _| {
        let _ = std::process::Command::new("dd")
            .arg(format!("if={}", file.display()))
            .args(["iflag=nocache", "count=0", "status=none"])
            .status();
    });
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn queries(built: &Built, dir: &Path) {
    let now = built.late;
    let month = now.plus(-30 * 86_400 * 1_000_000);
    let sample = &built.sample;
    let network = sample
        .src_ip
        .rsplit_once('.')
        .map_or("198.18", |(n, _)| n.rsplit_once('.').map_or(n, |(n, _)| n));
    let mut identities = std::collections::HashMap::<&str, usize>::new();
    for event in &built.kept {
        *identities.entry(&event.identity).or_default() += 1;
    }
    let identity = identities
        .into_iter()
        .max_by_key(|i| i.1)
        .map_or("", |i| i.0);
    let page = |query: String| Request {
        query,
        from: Some(month),
        to: Some(now),
        limit: 100,
        newest_first: true,
        ..Request::default()
    };
    println!(
        "| query, {} events | cold, ms | warm, ms | answers |",
        built.events
    );
    println!("|---|---|---|---|");
    let searches = [
        ("needle", format!("eventID:{}", sample.source_id)),
        ("needle as free text", sample.source_id.to_string()),
        ("identity, 30 days", format!("identity:\"{identity}\"")),
        ("phrase", "\"is not authorized to perform\"".to_owned()),
        ("word of many", "amazonaws".to_owned()),
        (
            "network and error code",
            format!("sourceIPAddress:{network}.0.0/16 AND errorCode:AccessDenied"),
        ),
        ("wildcard", "userIdentity.arn:*role/*".to_owned()),
        ("field exists", "errorMessage:*".to_owned()),
        ("newest page", "*".to_owned()),
    ];
    for (title, query) in searches {
        let request = page(query);
        line(title, dir, now, &|searcher| {
            let answer = searcher.search(&request).expect("the query is good");
            answer.hits.len()
        });
    }
    let all = page("*".to_owned());
    line("top 20 actors and a bar an hour", dir, now, &|searcher| {
        let top = searcher.top(&all, "actor", 20).expect("it has a column");
        let bars = searcher.histogram(&all, 720).expect("720 are few");
        top.len() + bars.len()
    });
    let ever = Request {
        from: None,
        to: None,
        ..all
    };
    line("the same, all times", dir, now, &|searcher| {
        let top = searcher.top(&ever, "actor", 20).expect("it has a column");
        let bars = searcher.histogram(&ever, 720).expect("720 are few");
        top.len() + bars.len()
    });
    let few = page("errorCode:AccessDenied".to_owned());
    line("the same of what was denied", dir, now, &|searcher| {
        let top = searcher.top(&few, "actor", 20).expect("it has a column");
        let bars = searcher.histogram(&few, 720).expect("720 are few");
        top.len() + bars.len()
    });
    line("top 20 of a field without column", dir, now, &|searcher| {
        let top = searcher.top(&few, "userIdentity.arn", 20);
        top.expect("it is a field").len()
    });
}

fn line(title: &str, dir: &Path, now: Time, search: &dyn Fn(&Searcher) -> usize) {
    let timed = |searcher: &Searcher| {
        let start = Instant::now();
        let found = search(searcher);
        (start.elapsed(), found)
    };
    let cold = (0..3)
        .map(|_| {
            forget(dir);
            timed(&searcher(dir, now)).0
        })
        .collect();
    let warm = searcher(dir, now);
    let (_, found) = timed(&warm);
    let times = (0..11).map(|_| timed(&warm).0).collect();
    println!(
        "| {title} | {:.1} | {:.1} | {found} |",
        median(cold),
        median(times)
    );
}
