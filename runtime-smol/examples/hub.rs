//! A hub on smol: `cargo run -p towline-smol --example hub INVENTORY`, with the inventory that `spnhub pki` writes.
//!
//! Records go to stdout. SIGTERM ends it in good order. For production use `spnhub`: it reloads its inventory, too.

mod log;

use std::{
    env, fs,
    process::ExitCode,
    sync::mpsc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_signal::{Signal, Signals};
use futures_lite::StreamExt;
use towline_core::spn::{hub::Notice, inventory};
use towline_smol::hub::{HubHandle, epoch};

fn main() -> ExitCode {
    log::init();
    let Some(path) = env::args().nth(1) else {
        eprintln!("usage: hub INVENTORY (a YAML or JSON file; `spnhub pki` makes one)");
        return ExitCode::from(2);
    };
    match run(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let value: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (inventory, findings) = inventory::read(&value, now);
    for finding in findings {
        eprintln!("{finding}");
    }
    let (told, notices) = mpsc::channel();
    let mut hubs = Vec::new();
    for realm in inventory.realms.iter().filter(|realm| realm.is_enabled) {
        for record in &realm.hubs {
            let (hub, told) = (hubs.len(), told.clone());
            hubs.push(HubHandle::start(record.config(realm), move |notice| drop(told.send((hub, notice))))?);
        }
    }
    drop(told);
    let (leaving, mut signals) = (hubs.clone(), Signals::new([Signal::Term])?);
    smol::spawn(async move {
        signals.next().await;
        leaving.iter().for_each(HubHandle::shutdown);
    })
    .detach();
    // The last one ends it.
    for (hub, notice) in notices {
        let Some(handle) = hubs.get(hub) else { continue };
        match notice {
            Notice::Listening => eprintln!("listening on {}", handle.local_addr()),
            Notice::ClusterStart(task) | Notice::ClusterStop(task) => {
                eprintln!("{}: there is no cluster manager here; start and stop its provider by hand", task.service);
                handle.cluster_done(task.id, false);
            }
            Notice::Record(record) => println!("{}", record.to_json(&epoch())),
            Notice::Refused(refusal) => eprintln!("{refusal}"),
            Notice::RefusalsSuppressed { count } => eprintln!("{count} more refusals"),
            // The last one, and what a later release may add.
            _ => {}
        }
    }
    Ok(())
}
