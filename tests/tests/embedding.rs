//! The example host of the core, between two real agents.

use std::{
    fs,
    io::Write,
    net::{Shutdown, TcpStream},
    thread,
};

use towline_tests::{
    programs::{Program, free_udp_port},
    servers::{Pattern, connect, digest, echo, send, serve},
};
use towline_tokio::cli::pki::Authority;

const SIZE: u64 = 10_000_000;

#[test]
fn a_hub_on_mio_relays() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let authority = Authority::new("example").unwrap();
    let hub = authority.hub(&["127.0.0.1".to_owned()]).unwrap();
    let bind = format!("127.0.0.1:{}", free_udp_port());
    let (ca, certificate, key) =
        (write("ca.pem", &authority.certificate), write("hub.pem", &hub.certificate), write("hub.key", &hub.key));
    let hub = Program::start("examples/hub_on_mio", &[&bind, &certificate, &key, &ca, "urn:s", "p", "c"]);
    hub.err_line("listening on");
    let agent = |role: &str, name: &str, address: &str| {
        let pair = authority.endpoint(name).unwrap();
        let certificate = write(&format!("{name}.pem"), &pair.certificate);
        let key = write(&format!("{name}.key"), &pair.key);
        let local = if role == "provider" { "--forward-address" } else { "--bind-address" };
        let agent = Program::start(
            "spnagent",
            &[
                role,
                "--spn-hub-url",
                &format!("https://{bind}"),
                "--spn-agent-trust-cert-ca",
                &ca,
                "--spn-agent-client-cert",
                &certificate,
                "--spn-agent-client-cert-key",
                &key,
                local,
                address,
            ],
        );
        agent.err_line("session established");
        agent
    };
    let _provider = agent("provider", "p", &serve(echo).to_string());
    let consumer = agent("consumer", "c", "127.0.0.1:0");
    let line = consumer.err_line("listening on ");
    let address = line.split("listening on ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let tcp: TcpStream = connect(address.parse().unwrap());
    let up = tcp.try_clone().unwrap();
    let sender = thread::spawn(move || {
        send(&up, Pattern::new(4, SIZE)).unwrap();
        (&up).flush().unwrap();
        up.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(digest(&tcp).unwrap(), digest(Pattern::new(4, SIZE)).unwrap());
    sender.join().unwrap();
    hub.out_line("endSpnConnection");
}

#[test]
fn a_web_server_over_streams_outlives_its_hub() {
    let mut example = Program::start("examples/web", &[]);
    assert_eq!(example.wait().code(), Some(0));
    let expected = ["200 OK: you asked for /before", "the hub was replaced", "200 OK: you asked for /after"];
    assert_eq!(example.out(), expected);
}
