//! Runs the hubs of an inventory, each in its own thread, and reloads the inventory on SIGUSR1 and SIGHUP.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use towline_core::{
    quic::Congestion,
    spn::{
        hub::{ClusterTask, Config, Notice},
        inventory::{Finding, HubRecord, Realm, Service, Severity},
    },
};
use towline_tokio::{
    cli::{
        cluster::{ClusterError, Clusters, Commands, scheme},
        inventory::{LoadError, Loaded, Source},
    },
    hub::{HubHandle, StartError, seed},
};
use tracing::{Instrument, Span};

use super::{
    Error, RunArgs,
    control::{self, Answer, HubStatus, Request},
    records::{Records, Reporter},
};

/// The log target of lists, one line per entry: these lines are never suppressed, whatever their number.
const LIST: &str = "spnhub::list";

/// Maximum number of changes on one line of the log.
const CHANGES_A_LINE: usize = 20;

/// The first pause before another attempt to load an inventory that is not available yet,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// and the longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A load that has taken longer is replaced by a newer one.
const WAITS: Duration = Duration::from_secs(1);

/// Realm and hub.
type Name = (String, String);

struct Supervisor {
    records: Records,
    hubs: BTreeMap<Name, Running>,
    /// Every thread that has not ended, including hubs that drain after their replacement.
    alive: BTreeMap<u64, Alive>,
    /// Hubs whose address may still be in use by a draining hub.
    waiting: BTreeMap<Name, (Realm, HubRecord)>,
    next: u64,
    events: mpsc::UnboundedSender<(u64, HubEvent)>,
    clusters: Arc<Clusters>,
    congestion: Congestion,
    is_leaving: bool,
}

/// An event that a hub's thread sends to the supervisor.
enum HubEvent {
    Start(ClusterTask),
    Stop(ClusterTask),
    Ended,
}

/// A hub's thread.
struct Alive {
    handle: HubHandle,
    /// Adds the realm and the hub to each log line of this hub.
    span: Span,
}

struct Running {
    id: u64,
    record: HubRecord,
    handle: HubHandle,
}

pub(crate) async fn run(args: RunArgs) -> Result<ExitCode, Error> {
    let source = Source::parse(&args.source.config);
    // Signal handlers first: a signal during the first load is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = Reload { user: signal(SignalKind::user_defined1())?, hang_up: signal(SignalKind::hangup())? };
    let token = args.source.token.clone();
    let loaded = tokio::select! {
        loaded = first(&source, token.as_deref(), &mut reload) => loaded?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let records = Records::start(args.records.as_deref())
        .map_err(|error| Error::Records { path: args.records.clone().unwrap_or_default(), error })?;
    let (socket, mut requests) = args.control.as_deref().map(control::listen).transpose()?.unzip();
    let (events, mut hub_events) = mpsc::unbounded_channel();
    let clusters = match args.cluster_commands {
        Some(directory) => Clusters::default().with("exec", Commands::new(directory)),
        None => Clusters::default(),
    };
    let mut supervisor = Supervisor {
        records,
        hubs: BTreeMap::new(),
        alive: BTreeMap::new(),
        waiting: BTreeMap::new(),
        next: 0,
        events,
        clusters: Arc::new(clusters),
        congestion: args.congestion,
        is_leaving: false,
    };
    log_findings(&loaded.findings);
    let failure = supervisor.apply(loaded).await;
    if supervisor.alive.is_empty() {
        return Err(failure.map_or(Error::NothingToRun(source), Error::Start));
    }
    let mut loading: Option<Loading> = None;
    // A request to reload during a load: that load may have missed the change.
    let mut pending: Option<&str> = None;
    loop {
        let replaced = loading.as_ref().filter(|_| pending.is_some()).map(|loading| loading.since + WAITS);
        tokio::select! {
            Some((id, event)) = hub_events.recv() => supervisor.handle_event(id, event),
            _ = terminate.recv() => {
                tracing::info!("SIGTERM: draining, for 30 s at most. A second SIGTERM or SIGINT ends at once");
                supervisor.leave(HubHandle::shutdown);
            }
            Some((request, answer)) = async {
                match &mut requests { Some(requests) => requests.recv().await, None => std::future::pending().await }
            } => {
                tracing::info!(?request, "request from spnhub ctl");
                if matches!(request, Request::Reload) {
                    pending = Some("ctl");
                }
                // The operator's connection may be closed.
                let _ = answer.send(supervisor.execute(request).await);
            }
            _ = interrupt.recv() => supervisor.leave(HubHandle::stop),
            why = reload.recv() => {
                pending = Some(why);
                supervisor.records.reopen();
            }
            () = async {
                match replaced { Some(at) => sleep_until(at).await, None => std::future::pending().await }
            } => {
                tracing::info!("the pending reload is replaced by a newer one");
                loading = None;
            }
            loaded = async { match &mut loading { Some(loading) => (&mut loading.task).await, None => std::future::pending().await } } => {
                loading = None;
                match loaded {
                    Ok(Ok(loaded)) if loaded.inventory.realms.is_empty() => {
                        log_findings(&loaded.findings);
                        tracing::error!("reload failed: no realm of the inventory is usable; the hubs keep their configuration");
                    }
                    Ok(Ok(loaded)) if !supervisor.is_leaving => {
                        log_findings(&loaded.findings);
                        let _ = supervisor.apply(loaded).await;
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::error!("reload failed: {error}; the hubs keep their configuration"),
                    Err(error) => tracing::error!("reload failed: {error}; the hubs keep their configuration"),
                }
            }
        }
        if loading.is_none()
            && !supervisor.is_leaving
            && let Some(why) = pending.take()
        {
            tracing::info!(%source, "{why}: loading the inventory again");
            let (source, token) = (source.clone(), token.clone());
            let task = tokio::spawn(async move { source.load(token.as_deref()).await });
            loading = Some(Loading { since: Instant::now(), task });
        }
        if let Some(code) = supervisor.is_done() {
            if let (Some(socket), Some(requests)) = (socket, requests) {
                socket.close(requests).await;
            }
            return Ok(ExitCode::from(code));
        }
    }
}

/// The signals that load the inventory again.
struct Reload {
    user: Signal,
    hang_up: Signal,
}

impl Reload {
    /// Waits for one of the signals, and returns its name.
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.user.recv() => "SIGUSR1",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

/// A running load. Dropping it aborts the load.
struct Loading {
    since: Instant,
    task: JoinHandle<Result<Loaded, LoadError>>,
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first load. If the server is not available yet (boot order, compose), this tries again until it is.
async fn first(source: &Source, token: Option<&str>, reload: &mut Reload) -> Result<Loaded, LoadError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match source.load(token).await {
            Err(error) if error.may_pass() => error.to_string(),
            Ok(loaded) if loaded.is_partial && !has_hubs(&loaded) => {
                log_findings(&loaded.findings);
                "none of its hubs can run yet".to_owned()
            }
            loaded => return loaded,
        };
        // Jitter, since many hubs may wait for the same server.
        let jitter = f64::from(seed()[0]) / 255.0 * 0.4 + 0.8;
        let wait = pause.mul_f64(jitter);
        tracing::warn!("no inventory yet: {why}; trying again in {:.1} s", wait.as_secs_f64());
        tokio::select! {
            () = sleep(wait) => pause = (pause * 2).min(LONGEST_PAUSE),
            _ = reload.recv() => pause = FIRST_PAUSE,
        }
    }
}

fn has_hubs(loaded: &Loaded) -> bool {
    loaded.inventory.realms.iter().any(|realm| realm.is_enabled && !realm.hubs.is_empty())
}

fn log_findings(findings: &[Finding]) {
    for finding in findings {
        match finding.severity {
            Severity::Error => tracing::error!(target: LIST, "inventory: {finding}"),
            Severity::Warning => tracing::warn!(target: LIST, "inventory: {}: {}", finding.path, finding.message),
        }
    }
}

impl Supervisor {
    /// The exit code, once nothing is left to do. A process whose hubs were all removed from the inventory waits for the next reload.
    fn is_done(&self) -> Option<u8> {
        match (self.alive.is_empty(), self.is_leaving, self.hubs.is_empty()) {
            (false, _, _) | (true, false, true) => None,
            (true, true, _) => Some(0),
            // A hub that was not stopped ends only if its socket fails.
            (true, false, false) => Some(2),
        }
    }

    fn handle_event(&mut self, id: u64, event: HubEvent) {
        match event {
            HubEvent::Start(task) => self.cluster(id, task, true),
            HubEvent::Stop(task) => self.cluster(id, task, false),
            HubEvent::Ended => self.ended(id),
        }
    }

    /// Starts or stops a provider with its cluster manager.
    fn cluster(&self, id: u64, task: ClusterTask, is_start: bool) {
        let Some(Alive { handle, span }) = self.alive.get(&id) else { return };
        let (hub, clusters) = (handle.clone(), self.clusters.clone());
        let work = async move {
            let (service, by) = (&task.service, &task.availability.cluster_manager);
            let (doing, done) = if is_start { ("starting", "started") } else { ("stopping", "stopped") };
            tracing::info!("{doing} the provider of {service} with {by}");
            let result = match clusters.find(by) {
                Ok(manager) if is_start => manager.start(&task).await,
                Ok(manager) => manager.stop(&task).await,
                Err(error) => Err(error),
            };
            match &result {
                Ok(()) => tracing::info!("{done} the provider of {service}"),
                Err(error) => tracing::error!("{doing} the provider of {service} failed: {error}"),
            }
            hub.cluster_done(task.id, result.is_ok());
        };
        tokio::spawn(work.instrument(span.clone()));
    }

    /// Handles the end of a hub: a waiting hub may need its address.
    fn ended(&mut self, id: u64) {
        // A hub that failed to start has no address to free.
        if self.alive.remove(&id).is_some() && !self.is_leaving {
            for (name, (realm, record)) in std::mem::take(&mut self.waiting) {
                let _ = self.start(name, &realm, record);
            }
        }
    }

    fn leave(&mut self, how: fn(&HubHandle)) {
        self.is_leaving = true;
        self.alive.values().for_each(|alive| how(&alive.handle));
    }

    /// Executes an operator's request.
    async fn execute(&mut self, request: Request) -> Answer {
        match request {
            Request::Status => {
                let mut hubs = Vec::new();
                for ((realm, hub), running) in &self.hubs {
                    if let Some(status) = running.handle.status().await {
                        let address = running.handle.local_addr().to_string();
                        hubs.push(HubStatus { realm: realm.clone(), hub: hub.clone(), address, status });
                    }
                }
                Answer::Hubs(hubs)
            }
            Request::Pause { service } => {
                let mut known = false;
                for running in self.hubs.values() {
                    known |= running.handle.pause(&service).await == Some(true);
                }
                known_or_not(known, &service, "paused")
            }
            Request::Unpause { service } => {
                let mut known = false;
                for running in self.hubs.values() {
                    known |= running.handle.unpause(&service).await == Some(true);
                }
                known_or_not(known, &service, "unpaused")
            }
            Request::Drain => {
                self.leave(HubHandle::shutdown);
                Answer::Done("draining".to_owned())
            }
            Request::Reload => Answer::Done("loading the inventory again; the changes are logged".to_owned()),
        }
    }

    /// Starts, reloads and removes hubs as the inventory says. Hubs and services whose records are not usable keep their configuration. Returns
    /// the error of a hub that failed to start, if there is one.
    async fn apply(&mut self, loaded: Loaded) -> Option<StartError> {
        self.waiting.clear();
        let broken = loaded.inventory.broken;
        let mut wanted = BTreeMap::new();
        for realm in loaded.inventory.realms.iter().filter(|realm| realm.is_enabled) {
            for hub in &realm.hubs {
                wanted.insert((realm.name.clone(), hub.name.clone()), (realm, hub.clone()));
            }
        }
        let gone: Vec<Name> = self.hubs.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            if broken.contains(&name.0) || broken.contains(&format!("{}/{}", name.0, name.1)) {
                tracing::warn!(target: LIST, realm = name.0, hub = name.1, "the hub's record in the inventory is not usable; the hub keeps its configuration");
            } else if let Some(running) = self.hubs.remove(&name) {
                if loaded.inventory.realms.iter().any(|realm| realm.name == name.0 && !realm.is_enabled) {
                    tracing::info!(target: LIST, realm = name.0, hub = name.1, "the realm is disabled; the hub drains");
                    running.handle.disable();
                } else {
                    tracing::info!(target: LIST, realm = name.0, hub = name.1, "the hub was removed from the inventory; it drains");
                    running.handle.remove();
                }
            }
        }
        let (mut reloads, mut failure) = (Vec::new(), None);
        let is_empty = wanted.is_empty();
        for (name, (realm, mut record)) in wanted {
            match self.hubs.get_mut(&name) {
                Some(running) if running.record.bind == record.bind && self.alive.contains_key(&running.id) => {
                    keep_broken_services(&name, &broken, &running.record, &mut record);
                    warn_missing_clusters(&self.clusters, &name, &record);
                    let (handle, config) = (running.handle.clone(), config(&record, realm, self.congestion));
                    running.record = record;
                    // In parallel: a slow hub does not delay the others.
                    reloads.push(tokio::spawn(async move { (name, handle.reload(config).await) }));
                }
                _ => failure = self.start(name, realm, record).err().or(failure),
            }
        }
        for reload in reloads {
            let Ok((name, result)) = reload.await else { continue };
            let (realm, hub) = (name.0, name.1);
            match result {
                Some(Ok(changes)) if changes.is_empty() => tracing::info!(target: LIST, realm, hub, "unchanged"),
                Some(Ok(changes)) => {
                    for some in changes.chunks(CHANGES_A_LINE) {
                        tracing::info!(target: LIST, realm, hub, "{}", some.join(", "));
                    }
                }
                Some(Err(error)) => {
                    tracing::error!(target: LIST, realm, hub, "reload failed: {error}; the hub keeps its configuration")
                }
                None => {}
            }
        }
        if self.hubs.is_empty() && is_empty {
            tracing::warn!("the inventory has no hub to run; SIGUSR1 or SIGHUP loads it again");
        }
        failure
    }

    /// Starts a hub. A running hub of the same name, at another address, then drains.
    fn start(&mut self, name: Name, realm: &Realm, record: HubRecord) -> Result<(), StartError> {
        let reporter = self.records.reporter();
        let id = self.next;
        self.next += 1;
        let span = tracing::error_span!("hub", realm = name.0, hub = name.1);
        match start(
            span.clone(),
            config(&record, realm, self.congestion),
            reporter,
            Notifier { id, events: self.events.clone() },
        ) {
            Ok(handle) => {
                warn_missing_clusters(&self.clusters, &name, &record);
                self.alive.insert(id, Alive { handle: handle.clone(), span });
                if let Some(old) = self.hubs.insert(name, Running { id, record, handle }) {
                    old.handle.remove();
                }
                Ok(())
            }
            Err(error) => {
                let consequence = if self.hubs.contains_key(&name) {
                    "; the hub stays at its old address"
                } else if self.alive.len() > self.hubs.len() {
                    self.waiting.insert(name.clone(), (realm.clone(), record));
                    "; the next attempt follows when a draining hub has ended"
                } else {
                    ""
                };
                tracing::error!(target: LIST, realm = name.0, hub = name.1, "cannot start: {error}{consequence}");
                Err(error)
            }
        }
    }
}

fn known_or_not(known: bool, service: &str, what: &str) -> Answer {
    if known {
        Answer::Done(format!("{service}: {what}"))
    } else {
        Answer::Failed(format!("unknown service {service}; `spnhub ctl status` lists the URNs"))
    }
}

fn config(record: &HubRecord, realm: &Realm, congestion: Congestion) -> Config {
    let mut config = record.config(realm);
    config.transport.congestion = congestion;
    config
}

fn start(span: Span, config: Config, reporter: Reporter, notifier: Notifier) -> Result<HubHandle, StartError> {
    let address = config.bind;
    // Dropped when the hub ends, for any reason. The reporter of records is dropped first: the process may end with the notifier.
    let mut alive = Some((reporter, notifier));
    HubHandle::start(config, move |notice| {
        let Some((reporter, notifier)) = &alive else { return };
        let _in_hub = span.enter();
        match notice {
            Notice::Listening => tracing::info!(target: LIST, "listening on {address}"),
            Notice::ClusterStart(task) => notifier.notify(HubEvent::Start(task)),
            Notice::ClusterStop(task) => notifier.notify(HubEvent::Stop(task)),
            notice => {
                if reporter.report(notice) {
                    alive = None;
                }
            }
        }
    })
}

/// Sends events of a hub's thread to the supervisor. Dropping it reports the end of the hub.
struct Notifier {
    id: u64,
    events: mpsc::UnboundedSender<(u64, HubEvent)>,
}

impl Notifier {
    fn notify(&self, event: HubEvent) {
        // At the end of the process the receiver is gone.
        let _ = self.events.send((self.id, event));
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.notify(HubEvent::Ended);
    }
}

/// Logs the cluster managers that a hub's services name and this build does not have, one line for each.
fn warn_missing_clusters(clusters: &Clusters, name: &Name, record: &HubRecord) {
    let mut missing: BTreeMap<&str, (usize, &str, ClusterError)> = BTreeMap::new();
    for service in &record.services {
        let Some(availability) = &service.availability else { continue };
        let Err(error) = clusters.find(&availability.cluster_manager) else { continue };
        missing.entry(scheme(&availability.cluster_manager)).or_insert((0, &service.urn, error)).0 += 1;
    }
    for (scheme, (services, first, error)) in missing {
        let hint = if scheme == "exec" { "; exec: needs --cluster-commands DIR" } else { "" };
        let more = if services > 1 { format!(" and {} more", services - 1) } else { String::new() };
        tracing::warn!(target: LIST, realm = name.0, hub = name.1, "providers of {first}{more} cannot be started: {error}{hint}");
    }
}

/// Keeps the old configuration of services whose new records are not usable.
fn keep_broken_services(name: &Name, broken: &BTreeSet<String>, old: &HubRecord, new: &mut HubRecord) {
    let is_kept = |service: &&Service| {
        // Of two records with one name, the first is used.
        let is_there = || new.services.iter().any(|other| other.name == service.name || other.urn == service.urn);
        broken.contains(&format!("{}/{}/{}", name.0, name.1, service.name)) && !is_there()
    };
    let kept: Vec<Service> = old.services.iter().filter(is_kept).cloned().collect();
    new.services.extend(kept);
}
