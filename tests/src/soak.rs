//! The soak: thousands of connections through the real programs, while all kinds of faults happen around them; every byte is
//! compared. `tests/benches/soak.rs` runs it; docs/reliability.md has the results.

mod ends;
mod process;

pub mod books;
pub mod content;
pub mod load;
pub mod plan;
pub mod verdict;
pub mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until},
};

use self::{
    load::{Load, Size},
    plan::{Lane, Past, Plan, Trouble},
    verdict::Tally,
    world::{Sample, Seat, World},
};

/// The options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Duration of the troubles.
    pub time: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Seed of all random choices.
    pub seed: u64,
    /// Bytes a second of all bulk connections together.
    pub rate: u64,
    /// Names of troubles that are left out.
    pub without: Vec<String>,
    /// If not empty, only these troubles happen.
    pub only: Vec<String>,
    /// The second provider and consumer are those of smol.
    pub is_smol: bool,
    /// Where logs and records are kept; else only the logs of a bad run are.
    pub directory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(120),
            connections: 200,
            seed: 1,
            rate: 8_000_000,
            without: Vec::new(),
            only: Vec::new(),
            is_smol: false,
            directory: None,
        }
    }
}

/// The result.
#[derive(Debug)]
pub struct Report {
    /// Of connections.
    pub tally: Tally,
    /// Faults of processes.
    pub faults: Vec<String>,
    /// The whole, in Markdown.
    pub text: String,
}

impl Report {
    /// Nothing was wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.tally.is_good() && self.faults.is_empty()
    }
}

/// No limit explains that nothing moves for longer: a session's loss is noticed after 20 s, a connection is without one for 120 s
/// at most, agents stand still for 30 s, and drain for 30 s.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// A process that is younger is still growing to its size.
const WARM: Duration = Duration::from_secs(120);
/// Processes are measured this often.
const MEASURED: Duration = Duration::from_secs(60);
/// More open files than before the load, when it is over, are a leak: sockets of name look-ups and of dials come and go.
const SPARE_FILES: usize = 12;

/// Runs it.
///
/// # Errors
/// It could not be started.
pub fn run(options: &Options) -> Result<Report, String> {
    room_for_files(options.connections as u64 * 3 + 500);
    let (temporary, directory) = match &options.directory {
        Some(directory) => {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
            (None, directory.clone())
        }
        None => {
            let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
            let path = temporary.path().to_owned();
            (Some(temporary), path)
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let report = LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            report = soak(options, &directory) => report,
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        }
    })?;
    if !report.is_good() {
        let all = report.tally.faults.iter().chain(&report.faults).map(|line| format!("{line}\n")).collect::<String>();
        let _ = fs::write(directory.join("faults.txt"), all);
        if let Some(temporary) = temporary {
            eprintln!("faults.txt and logs are in {}", temporary.keep().display());
        }
    }
    Ok(report)
}

/// Children inherit it.
fn room_for_files(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

async fn soak(options: &Options, directory: &Path) -> Result<Report, String> {
    let size = Size { connections: options.connections, rate: options.rate, seed: options.seed, patience: PATIENCE };
    let (mut load, services) = Load::start(size, 2).map_err(|error| error.to_string())?;
    let world = World::start(directory, options.directory.is_some(), options.is_smol, services).await?;
    world.sample();
    let start = world.began;
    load.begin(&world.consumers);
    let watcher = spawn_local(watch(world.clone()));
    let end = Instant::now() + options.time;
    let lanes: Vec<_> = [Lane::Hubs, Lane::Agents, Lane::Operators, Lane::Paths]
        .into_iter()
        .map(|lane| spawn_local(play(world.clone(), lane, options.clone(), end)))
        .collect();
    let (mut next, mut told) = (start, BTreeSet::new());
    while lanes.iter().any(|lane| !lane.is_finished()) {
        sleep(Duration::from_secs(1)).await;
        let open = load.watch();
        if Instant::now() >= next + MEASURED {
            next += MEASURED;
            world.sample();
            let tally = Tally::new(load.books(), &world.past.borrow(), start);
            // Those that go on count as hung in a tally that comes too early.
            let (all, ended) = (&tally.all, tally.all.begun.saturating_sub(open as u64));
            eprintln!(
                "{:7.1} s {open} open, {ended} ended: {} equal, {} unexplained, {} wrong, {} stray",
                start.elapsed().as_secs_f64(),
                all.equal,
                all.unexplained,
                all.wrong,
                tally.strays
            );
            // Each as soon as it is known: what is going on is still in the logs.
            for fault in &tally.faults {
                let key = fault.split(':').next().unwrap_or_default().to_owned();
                if !key.ends_with("Hung") && told.insert(key) {
                    eprintln!("{fault}");
                }
            }
        }
    }
    eprintln!(
        "{:7.1} s no more trouble; {} connections come to their ends",
        start.elapsed().as_secs_f64(),
        load.watch()
    );
    load.end().await;
    let tally = Tally::new(load.books(), &world.past.borrow(), start);
    // What has just ended is closed a moment later.
    sleep(Duration::from_secs(5)).await;
    world.sample();
    watcher.abort();
    leaks(&world);
    world.end().await;
    let text = text(options, &tally, &world, start.elapsed());
    Ok(Report { tally, faults: world.faults.take(), text })
}

async fn watch(world: Rc<World>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        world.look().await;
    }
}

async fn play(world: Rc<World>, lane: Lane, options: Options, end: Instant) {
    let is_in = |trouble: &Trouble| {
        let name = trouble.name();
        let named = |names: &[String]| names.iter().any(|listed| listed == name);
        !named(&options.without) && (options.only.is_empty() || named(&options.only))
    };
    // A lane may have nothing left to do; so not for ever.
    for step in (Plan { seed: options.seed }).steps(lane).take(100_000).filter(|step| is_in(&step.trouble)) {
        if Instant::now() + step.after >= end {
            break;
        }
        sleep(step.after).await;
        world.make(step.trouble).await;
    }
    sleep_until(end).await;
}

/// Files that are open when all connections are over, and were not before them.
fn leaks(world: &World) {
    let samples = world.samples.borrow();
    for seat in Seat::ALL {
        let its = |sample: &&Sample| sample.seat == seat;
        let (first, last) = (samples.iter().find(its), samples.iter().rfind(its));
        if let (Some(first), Some(last)) = (first, last)
            && last.figures.files > first.figures.files + SPARE_FILES
        {
            world.faults.borrow_mut().push(format!(
                "{} has {} open files when all connections are over; before them it had {}",
                seat.name(),
                last.figures.files,
                first.figures.files
            ));
        }
    }
}

fn text(options: &Options, tally: &Tally, world: &World, took: Duration) -> String {
    let mut text = format!(
        "{} connections at once, {:.1} minutes of trouble ({:.1} in all), seed {}, second agents on {}; {}.\n\n",
        options.connections,
        options.time.as_secs_f64() / 60.0,
        took.as_secs_f64() / 60.0,
        options.seed,
        if options.is_smol { "smol" } else { "tokio" },
        machine()
    );
    let _ = writeln!(text, "{tally}\n{}\n{}", troubles(&world.past.borrow()), processes(&world.samples.borrow()));
    for fault in &*world.faults.borrow() {
        let _ = writeln!(text, "FAULT {fault}");
    }
    text
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown");
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let wide = if info.contains("avx512f") { "with" } else { "without" };
    format!("processor: {model}, {cores} cores, {wide} AVX-512")
}

/// The number of each trouble, and how soon all sessions were back after it.
fn troubles(past: &[Past]) -> String {
    let mut lines = "| trouble | times | all sessions back within: median, worst |\n|---|---:|---|\n".to_owned();
    for (name, what) in Trouble::NAMES {
        let its: Vec<&Past> = past.iter().filter(|past| past.trouble.name() == name).collect();
        let mut back: Vec<Duration> = its.iter().filter_map(|past| past.back).collect();
        back.sort();
        let back = match (back.get(back.len().saturating_sub(1) / 2), back.last()) {
            (Some(median), Some(worst)) => {
                let missing = its.len() - back.len();
                let missing = if missing > 0 { format!("; {missing} times not in 75 s") } else { String::new() };
                format!("{:.1} s, {:.1} s{missing}", median.as_secs_f64(), worst.as_secs_f64())
            }
            _ => "–".to_owned(),
        };
        let _ = writeln!(lines, "| {what} | {} | {back} |", its.len());
    }
    lines
}

/// The resources of the processes; growth is that of the longest life of each seat, from when it was warm.
fn processes(samples: &[Sample]) -> String {
    let mut lines =
        "| process | lives | longest | memory, MiB: warm, at its end, most of all | files: most, last | CPU s |\n\
                     |---|---:|---:|---|---|---:|\n"
            .to_owned();
    for seat in Seat::ALL {
        let its: Vec<&Sample> = samples.iter().filter(|sample| sample.seat == seat).collect();
        let mut lives: BTreeMap<usize, Vec<&Sample>> = BTreeMap::new();
        for sample in &its {
            lives.entry(sample.life).or_default().push(sample);
        }
        let Some(longest) = lives.values().max_by_key(|life| life.last().map(|sample| sample.age)) else { continue };
        let mib = |sample: Option<&&Sample>| {
            sample.map_or("–".to_owned(), |sample| format!("{:.1}", sample.figures.memory as f64 / 1024.0))
        };
        let cpu: f64 = lives.values().filter_map(|life| life.last()).map(|last| last.figures.cpu.as_secs_f64()).sum();
        let _ = writeln!(
            lines,
            "| {} | {} | {:.0} s | {}, {}, {} | {}, {} | {cpu:.0} |",
            seat.name(),
            lives.len(),
            longest.last().map_or(0.0, |sample| sample.age.as_secs_f64()),
            mib(longest.iter().find(|sample| sample.age >= WARM)),
            mib(longest.last()),
            mib(its.iter().max_by_key(|sample| sample.figures.memory)),
            its.iter().map(|sample| sample.figures.files).max().unwrap_or_default(),
            its.last().map_or(0, |sample| sample.figures.files),
        );
    }
    lines
}
