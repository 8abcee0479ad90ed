//! A hub on smol: `cargo run -p towline-smol --example hub INVENTORY`, with the inventory that `spnhub pki` writes.
//!
//! Records go to stdout. SIGTERM ends the hub cleanly. For production use `spnhub`, which also reloads its inventory.

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
        eprintln!("usage: hub INVENTORY (a YAML or JSON file; `spnhub pki` creates one)");
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
    let (sender, notices) = mpsc::channel();
    let mut hubs = Vec::new();
    for realm in inventory.realms.iter().filter(|realm| realm.is_enabled) {
        for record in &realm.hubs {
            let (hub, sender) = (hubs.len(), sender.clone());
            hubs.push(HubHandle::start(record.config(realm), move |notice| drop(sender.send((hub, notice))))?);
        }
    }
    drop(sender);
    let (leaving, mut signals) = (hubs.clone(), Signals::new([Signal::Term])?);
    smol::spawn(async move {
        signals.next().await;
        leaving.iter().for_each(HubHandle::shutdown);
    })
    .detach();
    // The channel closes after the last hub.
    for (hub, notice) in notices {
        let Some(handle) = hubs.get(hub) else { continue };
        match notice {
            Notice::Listening => eprintln!("listening on {}", handle.local_addr()),
            Notice::ClusterStart(task) | Notice::ClusterStop(task) => {
                eprintln!("{}: this example has no cluster manager; start and stop the provider by hand", task.service);
                handle.cluster_done(task.id, false);
            }
            Notice::Record(record) => println!("{}", record.to_json(&epoch())),
            Notice::Refused(refusal) => eprintln!("{refusal}"),
            Notice::RefusalsSuppressed { count } => eprintln!("{count} more refusals"),
            // The end of a hub, and notices of later releases.
            _ => {}
        }
    }
    Ok(())
}
