//! An agent on smol, with the files that `spnhub pki` writes:
//!
//! ```sh
//! cargo run -p towline-smol --example agent provider HUB PORT ca.pem web-1.pem web-1.key 127.0.0.1:8080
//! cargo run -p towline-smol --example agent consumer HUB PORT ca.pem laptop.pem laptop.key 127.0.0.1:9090
//! ```
//!
//! An optional last address is the name server, in place of the system's.

mod log;

use std::{env, fs, net::SocketAddr, process::ExitCode};

use towline_core::{
    quic::{Identity, Roots},
    spn::{Role, endpoint::Config},
};
use towline_smol::endpoint::{Hubs, SessionNotice, consumer_agent, provider_agent};

fn main() -> ExitCode {
    log::init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [role, host, port, ca, certificate, key, address, resolver @ ..] = arguments else {
        return Err("usage: agent provider|consumer HUB PORT CA CERTIFICATE KEY ADDRESS [NAME_SERVER]".into());
    };
    let resolver = resolver.first().map(|address| address.parse::<SocketAddr>()).transpose()?;
    let hubs = Hubs { port: port.parse()?, resolver };
    let identity = Identity::from_pem(&fs::read_to_string(certificate)?, &fs::read_to_string(key)?)?;
    let roots = Roots::from_pem(&fs::read_to_string(ca)?)?;
    let log_session = |notice: SessionNotice| match notice {
        SessionNotice::SessionUp { remote, .. } => eprintln!("session established remote={remote}"),
        SessionNotice::SessionReserved { remote, .. } => {
            eprintln!("another address of the same hub: kept in reserve remote={remote}");
        }
        notice => eprintln!("{notice:?}"),
    };
    match role.as_str() {
        "provider" => {
            let config = Config::new(Role::Provider, host, identity, roots);
            let (_control, task) = provider_agent(config, hubs, address.clone(), log_session)?;
            smol::block_on(task);
        }
        "consumer" => {
            let config = Config::new(Role::Consumer, host, identity, roots);
            let (_control, local, task) = consumer_agent(config, hubs, address.parse::<SocketAddr>()?, log_session)?;
            eprintln!("listening on {local}");
            smol::block_on(task);
        }
        _ => return Err(format!("{role} is neither provider nor consumer").into()),
    }
    Ok(())
}
