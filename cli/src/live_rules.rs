//! The rules that run now, and how they change while they run.
//!
//! [`LiveRules`] holds one checked set, which every stage asks for before each batch. [`LiveRules::watch`] looks at the
//! content of the rule files every few seconds, and at once when somebody asks: by SIGHUP or through the API. A set
//! that can be loaded takes the place of the old one as a whole; one that cannot is refused as a whole, its problems
//! are logged, counted and shown, and the old one runs on. A folder that is being written to is given time to settle.
//!
//! A new set goes to `correlate` first and to `match` when that has it, so that no match of a new correlation meets
//! windows that do not know it. What a correlation has collected is kept under its meaning (`window`), so that one that
//! did not change goes on as if nothing had happened; ids of findings follow from events and rules, so that nothing is
//! said twice.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alerting::watch::Blind;
use bus::Stop;
use detect::engine::Engine;
use detect::match_stage::{self, Rules};
use detect::rule::Logsource;
use detect::rule_set::{LoadErrors, RuleFile, RuleSet};
use detect::tracker::Baseline;
use detect::window::Correlation;
use event::RuleInfo;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use crate::clock;
use crate::look;
use crate::rules::RuleArgs;

/// The rules that run now.
pub(crate) struct LiveRules {
    source: RuleArgs,
    /// Ids of rules that are tried out, whatever their files say.
    staging: Vec<String>,
    /// Is there a `correlate` stage in this process to go first?
    correlates: bool,
    state: Mutex<State>,
    /// Held by whoever looks at the files, so that two do not load at the same time.
    reading: Mutex<u64>,
    asked: AtomicBool,
    metrics: Metrics,
}

struct State {
    /// What people are shown: the set that the stages have taken up.
    shown: Arc<Loaded>,
    /// What `match` is given when it asks next.
    running: Arc<Loaded>,
    /// Loaded and not yet taken up by `correlate`.
    next: Option<Arc<Loaded>>,
    /// Why the files as they are now cannot be loaded.
    refused: Option<String>,
    since: event::Time,
}

struct Loaded {
    rules: Arc<Rules>,
    infos: Arc<Vec<RuleInfo>>,
    /// The set itself, for those who ask what a rule says.
    set: RuleSet,
    /// Which sources each rule looks at.
    looking: Vec<(Logsource, Blind)>,
    count: usize,
}

impl Loaded {
    fn of(mut set: RuleSet, staging: &[String]) -> Loaded {
        for id in set.stage(staging) {
            tracing::warn!(id, "detect.staging names no rule that is loaded");
        }
        let rules = Rules {
            engine: Engine::new(&set),
            correlations: crate::correlations::of(&set).into(),
            baselines: crate::correlations::baselines(&set),
        };
        let mut infos = set.infos();
        infos.extend(match_stage::own_rules());
        infos.extend(alerting::watch::own_rules());
        Loaded {
            rules: Arc::new(rules),
            infos: Arc::new(infos),
            looking: looking(&set),
            count: set.rules.len() + set.correlations.len() + set.baselines.len(),
            set,
        }
    }
}

/// What each rule looks at. A correlation looks through its rules, which are in the set too.
fn looking(set: &RuleSet) -> Vec<(Logsource, Blind)> {
    let blind = |info: &RuleInfo| Blind {
        title: info.title.clone(),
        severity: info.severity,
    };
    let rules = set
        .rules
        .iter()
        .map(|r| (r.logsource.clone(), blind(&r.info)));
    let of_functions = Logsource {
        product: Some("aws".to_owned()),
        service: Some("lambda".to_owned()),
        category: None,
    };
    let baselines = set.baselines.iter().zip(&set.watched);
    let baselines = baselines.filter(|(_, watched)| watched.is_empty());
    rules
        .chain(baselines.map(|(b, _)| (of_functions.clone(), blind(&b.info))))
        .collect()
}

/// What is counted of changes of rules.
pub(crate) struct Metrics {
    reloads: IntCounterVec,
    loaded: IntGauge,
    refused: IntGauge,
}

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let reloads = IntCounterVec::new(
            Opts::new(
                "trailwarden_rules_reload_total",
                "Changes of rule files, by what came of them: loaded, or refused, and then the old rules run on.",
            ),
            &["result"],
        )?;
        for result in ["loaded", "refused"] {
            reloads.with_label_values(&[result]);
        }
        let metrics = Metrics {
            reloads,
            loaded: IntGauge::new(
                "trailwarden_rules_loaded",
                "Rules, correlations and baselines that run.",
            )?,
            refused: IntGauge::new(
                "trailwarden_rules_refused",
                "1 while the rule files cannot be loaded and older rules run.",
            )?,
        };
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.loaded.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        Ok(metrics)
    }
}

impl LiveRules {
    /// The rules of `set`, which was loaded from `source`. `correlates`: does this process correlate?
    pub(crate) fn new(
        set: &RuleSet,
        source: RuleArgs,
        staging: Vec<String>,
        correlates: bool,
        registry: &Registry,
    ) -> prometheus::Result<LiveRules> {
        let loaded = Arc::new(Loaded::of(set.clone(), &staging));
        let metrics = Metrics::new(registry)?;
        metrics.loaded.set(loaded.count as i64);
        // What is on disk now may be another set already; then the first look loads it.
        let seen = source.files().map_or(0, |files| content(&files));
        Ok(LiveRules {
            source,
            staging,
            correlates,
            state: Mutex::new(State {
                shown: Arc::clone(&loaded),
                running: loaded,
                next: None,
                refused: None,
                since: clock::now(),
            }),
            reading: Mutex::new(seen),
            asked: AtomicBool::new(false),
            metrics,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `match`, before each round: the rules, compiled.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        let mut state = self.state();
        state.shown = Arc::clone(&state.running);
        Arc::clone(&state.running.rules)
    }

    /// The rules, compiled, for those who explain what was found.
    pub(crate) fn shown(&self) -> Arc<Rules> {
        Arc::clone(&self.state().shown.rules)
    }

    /// For `correlate`, before each round: the correlations. A set that waits takes effect with this call.
    pub(crate) fn correlations(&self) -> Arc<[Correlation]> {
        let mut state = self.state();
        if let Some(next) = state.next.take() {
            state.running = next;
        }
        Arc::clone(&state.running.rules.correlations)
    }

    /// For `baseline`, before each round: the baselines.
    pub(crate) fn baselines(&self) -> Arc<[Baseline]> {
        Arc::clone(&self.state().running.rules.baselines)
    }

    /// What people read about the rules.
    pub(crate) fn infos(&self) -> Arc<Vec<RuleInfo>> {
        Arc::clone(&self.state().shown.infos)
    }

    /// What the rule with this id looks at for a group, as a query; none where no query can say it.
    pub(crate) fn query(&self, id: &str, group: &crate::search::Group) -> Option<String> {
        let shown = Arc::clone(&self.state().shown);
        crate::search::rule_query(&shown.set, id, group)
    }

    /// The rules that look at a source.
    pub(crate) fn blind(&self, source: &str) -> Vec<Blind> {
        let shown = Arc::clone(&self.state().shown);
        let looking = shown.looking.iter().filter(|(l, _)| l.covers(source));
        looking.map(|(_, rule)| rule.clone()).collect()
    }

    /// Which rules run, and whether those on disk are others.
    pub(crate) fn status(&self) -> String {
        let state = self.state();
        let running = format!("{} run since {}", state.shown.count, state.since);
        match &state.refused {
            None => running,
            Some(why) => {
                let first = why.lines().find(|line| line.contains(" = ")).unwrap_or(why);
                let first = first.trim().trim_start_matches("= ");
                format!(
                    "{running}; the files as they are now were refused ({first}), the log says why"
                )
            }
        }
    }

    /// Asks [`LiveRules::watch`] to look at the files soon.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Looks at the files every so often until it is told to stop; only when asked, if `every` is zero.
    pub(crate) fn watch(&self, every: Duration, stop: &Stop) {
        look::again(every, &self.asked, stop, |asked| {
            // What came of it is logged and counted.
            let _ = self.look(asked);
        });
    }

    /// Looks at the files now and loads them if they have changed, or in any case if they were refused before. Tells
    /// what came of it, or the problems.
    pub(crate) fn reload(&self) -> Result<String, String> {
        self.look(true)
    }

    fn look(&self, asked: bool) -> Result<String, String> {
        let mut seen = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let (content, files) = look::settled(*seen, || self.files());
        let refused = self.state().refused.clone();
        if content == *seen && !(asked && refused.is_some()) {
            return Ok(format!("unchanged: {}", self.status()));
        }
        *seen = content;
        let loaded = files.and_then(|files| self.load(&files));
        match loaded {
            Ok(set) => {
                for warning in &set.warnings {
                    tracing::warn!(rule = warning.path, "{}", warning.message);
                }
                let loaded = Loaded::of(set, &self.staging);
                let rules = loaded.count;
                tracing::info!(rules, "rules loaded anew");
                self.metrics.loaded.set(rules as i64);
                self.done("loaded", None);
                self.publish(Arc::new(loaded));
                Ok(format!("loaded: {rules} rules and correlations"))
            }
            Err(problems) => {
                tracing::error!("rules refused, the old ones run on\n{problems}");
                self.done("refused", Some(problems.clone()));
                Err(problems)
            }
        }
    }

    fn done(&self, result: &str, refused: Option<String>) {
        self.metrics.reloads.with_label_values(&[result]).inc();
        self.metrics.refused.set(refused.is_some().into());
        self.state().refused = refused;
    }

    fn publish(&self, loaded: Arc<Loaded>) {
        let mut state = self.state();
        state.since = clock::now();
        if self.correlates {
            state.next = Some(loaded);
        } else {
            state.shown = Arc::clone(&loaded);
            state.running = loaded;
        }
    }

    /// The files as they are now, with a hash of their content.
    fn files(&self) -> (u64, Result<Vec<RuleFile>, String>) {
        match self.source.files() {
            Ok(files) => (content(&files), Ok(files)),
            Err(error) => {
                let words = format!("error: {error:#}");
                let mut hasher = DefaultHasher::new();
                words.hash(&mut hasher);
                (hasher.finish(), Err(words))
            }
        }
    }

    fn load(&self, files: &[RuleFile]) -> Result<RuleSet, String> {
        if files.is_empty() {
            return Err("error: there is no rule file (*.yml) any more".to_owned());
        }
        RuleSet::build(files, &self.source.placeholders()).map_err(|e: LoadErrors| e.to_string())
    }
}

/// A hash of all files, which changes with them.
fn content(files: &[RuleFile]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.path.hash(&mut hasher);
        file.text.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No match of a new correlation may meet windows that do not know it, and nobody is shown rules that do not run yet.
    #[test]
    fn correlate_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let write = |title: &str| {
            let rule = format!(
                "title: {title}\nlogsource: {{product: aws}}\ndetection: {{sel: {{a: 1}}, condition: sel}}\n"
            );
            std::fs::write(folder.path().join("r.yml"), rule).unwrap();
        };
        write("one");
        let source = RuleArgs {
            rules: vec![folder.path().to_owned()],
            ..RuleArgs::default()
        };
        let set = source.load().unwrap();
        let live = LiveRules::new(&set, source, Vec::new(), true, &Registry::new()).unwrap();
        let title = |rules: &Rules| rules.engine.info(0).title.clone();
        assert!(live.reload().unwrap().starts_with("unchanged"));
        write("two");
        assert!(live.reload().unwrap().starts_with("loaded"));
        assert_eq!(title(&live.rules()), "one", "correlate has not asked yet");
        live.correlations();
        assert_eq!(title(&live.shown()), "one", "match has not asked yet");
        assert_eq!(title(&live.rules()), "two");
        assert_eq!(title(&live.shown()), "two");
        std::fs::remove_file(folder.path().join("r.yml")).unwrap();
        assert!(live.reload().unwrap_err().contains("no rule file"));
        drop(folder);
        assert!(live.reload().unwrap_err().contains("cannot read rules"));
        assert!(live.status().contains("were refused"));
        assert_eq!(title(&live.rules()), "two");
    }
}
