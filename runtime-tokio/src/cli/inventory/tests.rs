use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::cli::pki::Authority;

/// A server that knows some paths, and remembers the last Authorization header.
async fn serve(pages: BTreeMap<String, String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = tcp.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = match pages.get(path) {
                Some(_) if !request.to_lowercase().contains("authorization: bearer secret") => {
                    ("401 Unauthorized", r#"{"message": "who are you?"}"#)
                }
                Some(page) => ("200 OK", page.as_str()),
                None => ("404 Not Found", r#"{"message": "no such thing"}"#),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    base
}

fn pages() -> BTreeMap<String, String> {
    let authority = Authority::new("r").unwrap();
    let hub = authority.hub(&["localhost".to_owned()]).unwrap();
    let realm = |name: &str| json!({"name": name, "title": "", "cacert": authority.certificate});
    let hub = |name: &str, port: u16| {
        json!({"name": name, "title": "", "fqdn": "localhost", "serverAddress": "127.0.0.1", "serverPort": port,
            "serverCert": hub.certificate, "serverCertKey": hub.key})
    };
    let service = json!({"name": "s", "title": "", "urn": "urn:s", "provider": "p", "consumers": ["c"]});
    [
        ("/v1/realms", json!([realm("a"), realm("b")])),
        ("/v1/realms/a/hubs", json!([hub("h1", 1), hub("h2", 2)])),
        ("/v1/realms/a/hubs/h1/services", json!([service])),
    ]
    .into_iter()
    .map(|(path, value)| (path.to_owned(), value.to_string()))
    .collect()
}

#[tokio::test]
async fn a_failing_get_drops_what_it_was_for() {
    let base = serve(pages()).await;
    let loaded = Source::parse(&base).load(Some("secret")).await.unwrap();
    let names: Vec<&str> = loaded.inventory.realms.iter().map(|realm| realm.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(loaded.inventory.realms[0].hubs.len(), 1);
    assert_eq!(loaded.inventory.realms[0].hubs[0].services[0].urn, "urn:s");
    assert_eq!(loaded.inventory.broken.iter().collect::<Vec<_>>(), ["a/h2", "b"]);
    let findings: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    assert!(findings[0].starts_with("realms[0].hubs[1].services: GET http://127.0.0.1:"), "{findings:?}");
    assert!(loaded.is_partial, "it may be there later");
    assert!(findings[0].ends_with("/v1/realms/a/hubs/h2/services: 404 Not Found no such thing"), "{findings:?}");
}

#[tokio::test]
async fn without_realms_there_is_no_inventory() {
    let base = serve(pages()).await;
    let error = Source::parse(&base).load(None).await.unwrap_err();
    assert!(!error.may_pass(), "it is there, and says no");
    let error = error.to_string();
    assert!(error.ends_with("/v1/realms: 401 Unauthorized who are you?"), "{error}");
    let error = Source::parse("http://127.0.0.1:1").load(None).await.unwrap_err();
    assert!(error.may_pass(), "it may be there later");
    let error = error.to_string();
    assert!(error.contains("GET http://127.0.0.1:1/realms: ") && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i.yaml");
    let load = async |text: &str| {
        fs::write(&path, text).unwrap();
        Source::parse(&format!("file://{}", path.display())).load(None).await
    };
    assert_eq!(load("realms: []\n").await.unwrap().inventory.realms.len(), 0);
    assert_eq!(load("{\"realms\": []}").await.unwrap().findings.len(), 1, "a warning");
    assert!(matches!(load("{\"realms\": ").await, Err(LoadError::Syntax { .. })));
    assert!(matches!(load("a: [").await, Err(LoadError::Syntax { .. })));
    assert!(matches!(Source::parse("/nowhere").load(None).await, Err(LoadError::File { .. })));
}

#[tokio::test]
async fn what_windows_has_saved_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i.yaml");
    let yaml = "\u{feff}realms:\r\n  - name: a\r\n    disabled: true\r\n    cacert: x\r\n";
    for (encoding, bytes) in [
        ("UTF-8", yaml.as_bytes().to_vec()),
        ("UTF-16", yaml.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("JSON", "\u{feff}{\"realms\": [{\"name\": \"a\", \"disabled\": true}]}".as_bytes().to_vec()),
    ] {
        fs::write(&path, bytes).unwrap();
        let loaded = Source::File(path.clone()).load(None).await.expect(encoding);
        assert_eq!(loaded.inventory.realms[0].name, "a", "{encoding}");
    }
}

#[tokio::test]
async fn a_named_pipe_is_read_to_its_end_and_blocks_nothing_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let source = Source::File(path.clone());
    let short = Duration::from_millis(300);
    assert!(tokio::time::timeout(short, source.load(None)).await.is_err(), "nobody writes");
    let loading = tokio::spawn(async move { source.load(None).await });
    let writer = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut pipe = fs::OpenOptions::new().write(true).open(path).unwrap();
        pipe.write_all(b"{\"realms\":").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        pipe.write_all(b" []}").unwrap();
    });
    writer.await.unwrap();
    assert_eq!(loading.await.unwrap().unwrap().inventory.realms.len(), 0);
}

#[tokio::test]
async fn what_is_small_in_a_file_and_large_in_memory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i.json");
    fs::write(&path, format!("{{\"realms\": [{}[]]}}", "[],".repeat(MAX_VALUES / 2))).unwrap();
    let error = Source::File(path.clone()).load(None).await.unwrap_err().to_string();
    assert!(error.ends_with("it has more than 1000000 values"), "{error}");
    fs::write(&path, "[".repeat(100_000)).unwrap();
    let error = Source::File(path).load(None).await.unwrap_err().to_string();
    assert!(error.contains("recursion limit"), "{error}");
    let error = Source::parse("/dev/zero").load(None).await.unwrap_err().to_string();
    assert!(error.ends_with("more than 67108864 bytes"), "{error}");
}

#[tokio::test]
async fn slow_parts_are_waited_for_together() {
    // The server answers only after all requests have arrived.
    let (asked, barrier) =
        (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(tokio::sync::Barrier::new(10)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (count, all) = (asked.clone(), barrier);
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let (count, all) = (count.clone(), all.clone());
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let length = tcp.read(&mut request).await.unwrap();
                let is_realms = String::from_utf8_lossy(&request[..length]).starts_with("GET /realms ");
                let body = if is_realms {
                    let realm = |nth| format!("{{\"name\": \"r{nth}\", \"cacert\": \"\"}}");
                    format!("[{}]", (0..10).map(realm).collect::<Vec<_>>().join(","))
                } else {
                    count.fetch_add(1, Ordering::Relaxed);
                    all.wait().await;
                    "[]".to_owned()
                };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                tcp.write_all((head + &body).as_bytes()).await.unwrap();
            });
        }
    });
    let loaded = Source::parse(&base).load(None).await.unwrap();
    assert!(!loaded.is_partial, "{:?}", loaded.findings);
    assert_eq!(asked.load(Ordering::Relaxed), 10);
}
