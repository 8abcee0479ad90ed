//! A byte-stream binding over TLS, on real sockets and both runtimes, with the openssl program as the peer.

use std::{
    future::{Future, poll_fn},
    io::Write,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, mpsc},
    task::{Poll, ready},
    thread::{self, JoinHandle},
};

use towline_core::{
    host::{Names, Runtime, StreamLoop, listen},
    tls::{self, Clock, Identity, Notice, Roots, ServerConfig, Tls},
};
use towline_smol::Smol;
use towline_tests::{
    greet::{binding::Greeter, machine::Config},
    needs::program,
    ours::Realm,
};
use towline_tokio::Tokio;

/// What the greeter's owner learns.
type Seen = Notice<String>;

/// A greeter over TLS that demands client certificates of `realm`. It ends after its third connection.
fn greeter<R: Runtime>(
    realm: &Realm,
    run: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<Seen>, JoinHandle<()>) {
    let pair = realm.hub_pair();
    let identity = Identity::from_pem(&pair.certificate, &pair.key).unwrap();
    let clients = Roots::from_pem(realm.ca()).unwrap();
    let (tell, seen) = mpsc::channel();
    let (address_to, address_from) = mpsc::channel();
    let thread = thread::spawn(move || {
        run(Box::pin(async move {
            let (listeners, local) = listen::<R>(&[([127, 0, 0, 1], 0).into()]).unwrap();
            address_to.send(local[0]).unwrap();
            let clock = Clock::new(R::epoch());
            let server = ServerConfig::new(&identity, Some(&clients), &[], &clock).unwrap();
            let config = tls::Config { server: Some(server), ..tls::Config::default() };
            let binding = Tls::new(R::now(), Greeter::new(Config::default()), config);
            let mut streams = StreamLoop::<_, R>::new(binding, listeners, Names::Hosts(Arc::default()), 1 << 16);
            let mut connections = 0;
            poll_fn(move |cx| {
                while let Some(notice) = ready!(streams.poll_notice(cx)) {
                    let notice = match notice {
                        Notice::Inner(ended) => Notice::Inner(format!("{:?}", ended.outcome)),
                        Notice::Secured { conn, remote, peer } => Notice::Secured { conn, remote, peer },
                        Notice::Failed(failure) => Notice::Failed(failure),
                        other => panic!("{other:?}"),
                    };
                    connections += usize::from(!matches!(notice, Notice::Secured { .. }));
                    tell.send(notice).unwrap();
                    if connections == 3 {
                        streams.binding_mut().inner_mut(R::now()).end();
                    }
                }
                Poll::Ready(())
            })
            .await;
        }));
    });
    (address_from.recv().expect("it listens"), seen, thread)
}

/// What openssl makes of the server, with a name to be greeted by.
fn ask(openssl: &Path, folder: &Path, server: SocketAddr, options: &[&str]) -> Output {
    let mut client = Command::new(openssl)
        .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", "localhost", "-CAfile", "ca.pem"])
        .args(["-connect", &server.to_string()])
        .args(options)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A server that has refused the client takes nothing.
    let mut input = client.stdin.take().unwrap();
    let _ = input.write_all(b"Ada Lovelace\n");
    let output = client.wait_with_output().unwrap();
    drop(input);
    output
}

fn greeted_by<R: Runtime>(run: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) + Send + 'static) {
    let Some(openssl) = program("openssl", "openssl") else { return };
    let realm = Realm::new();
    let folder = tempfile::tempdir().unwrap();
    let pair = realm.pair("ada");
    for (file, text) in [("ca.pem", realm.ca()), ("ada.pem", &pair.certificate), ("ada.key", &pair.key)] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let (server, seen, thread) = greeter::<R>(&realm, run);
    let shown = ["-cert", "ada.pem", "-key", "ada.key"];
    for version in ["-tls1_3", "-tls1_2"] {
        let output = ask(&openssl, folder.path(), server, &[&shown[..], &[version]].concat());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello Ada Lovelace\n", "{output:?}");
        let Notice::Secured { peer: Some(peer), .. } = seen.recv().unwrap() else { panic!("who is it?") };
        assert_eq!(peer.common_name.as_deref(), Some("ada"));
        assert_eq!(seen.recv().unwrap(), Notice::Inner("Greeted".to_owned()));
    }
    let output = ask(&openssl, folder.path(), server, &[]);
    assert_eq!(output.stdout, b"", "no certificate, no greeting");
    let Notice::Failed(failure) = seen.recv().unwrap() else { panic!("it is let in") };
    assert!(failure.detail.contains("no certificates"), "{failure:?}");
    thread.join().unwrap();
}

#[test]
fn tokio_greets_over_tls() {
    greeted_by::<Tokio>(|task| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(task);
    });
}

#[test]
fn smol_greets_over_tls() {
    greeted_by::<Smol>(smol::block_on);
}
