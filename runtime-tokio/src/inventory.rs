//! Where inventories come from: a file, or the inventory's HTTP interface (docs/protocols/spn.md, Inventory).

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, body::Bytes, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use towline_core::spn::inventory::{Finding, Inventory, read_with, says_disabled};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const MAX_BODY: usize = 16 << 20;

/// Where an inventory comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A YAML or JSON file.
    File(PathBuf),
    /// The base URL of an inventory, without trailing slash.
    Http(String),
}

/// An inventory as it was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What can be used.
    pub inventory: Inventory,
    /// What is wrong with the rest.
    pub findings: Vec<Finding>,
}

/// Why there is no inventory at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is neither YAML nor JSON.
    #[error("{path} is neither YAML nor JSON: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The list of realms cannot be had.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The system has no certificate authorities for https.
    #[error("cannot use https: {0}")]
    Tls(io::Error),
}

/// Why a GET gave nothing.
#[derive(Debug, thiserror::Error)]
#[error("GET {url}: {reason}")]
pub struct HttpError {
    url: String,
    reason: String,
}

impl Source {
    /// A URL (`http:`, `https:`, `file:`) or a path.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            Self::Http(text.trim_end_matches('/').to_owned())
        } else {
            Self::File(text.strip_prefix("file://").unwrap_or(text).into())
        }
    }

    /// Loads the inventory. `token` is sent to an HTTP inventory (`Authorization: Bearer`).
    ///
    /// # Errors
    /// There is nothing to judge. An inventory with faults is no error.
    pub async fn load(&self, token: Option<&str>) -> Result<Loaded, LoadError> {
        let (value, missing) = match self {
            Self::File(path) => (load_file(path)?, BTreeMap::new()),
            Self::Http(base) => Http::new(base, token)?.load().await?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (inventory, findings) = read_with(&value, &missing, now);
        Ok(Loaded { inventory, findings })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Http(base) => f.write_str(base),
        }
    }
}

fn load_file(path: &PathBuf) -> Result<Value, LoadError> {
    let text = fs::read_to_string(path).map_err(|error| LoadError::File { path: path.clone(), error })?;
    // JSON is a subset of YAML, but its own reader names its faults better.
    let parsed = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())
    };
    parsed.map_err(|message| LoadError::Syntax { path: path.clone(), message })
}

struct Http<'a> {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: &'a str,
    token: Option<&'a str>,
    /// Lists that could not be had, by their path, and why.
    missing: BTreeMap<String, String>,
}

impl<'a> Http<'a> {
    fn new(base: &'a str, token: Option<&'a str>) -> Result<Self, LoadError> {
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let connector = if base.starts_with("https:") {
            builder.with_native_roots().map_err(LoadError::Tls)?.https_or_http().enable_http1().build()
        } else {
            // No roots are needed, and a system without any must still do.
            let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .map_err(|error| LoadError::Tls(io::Error::other(error)))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(tls).https_or_http().enable_http1().build()
        };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base, token, missing: BTreeMap::new() })
    }

    /// The three levels of the interface, put together into the form of a file. Below the realms a failing GET costs what it was for.
    async fn load(mut self) -> Result<(Value, BTreeMap<String, String>), LoadError> {
        let mut realms = self.get("realms").await?;
        for (nth, realm) in realms.iter_mut().enumerate() {
            self.realm(nth, realm).await;
        }
        Ok((json!({"realms": realms}), self.missing))
    }

    async fn realm(&mut self, nth: usize, realm: &mut Value) {
        let Some(name) = realm["name"].as_str() else { return };
        // What is off needs nothing.
        if says_disabled(realm) {
            return;
        }
        let path = format!("realms/{name}/hubs");
        let mut hubs = match self.get(&path).await {
            Ok(hubs) => hubs,
            Err(error) => {
                self.missing.insert(format!("realms[{nth}].hubs"), error.to_string());
                return;
            }
        };
        for (at, hub) in hubs.iter_mut().enumerate() {
            let Some(hub_name) = hub["name"].as_str() else { continue };
            match self.get(&format!("{path}/{hub_name}/services")).await {
                Ok(services) => hub["services"] = services.into(),
                Err(error) => {
                    self.missing.insert(format!("realms[{nth}].hubs[{at}].services"), error.to_string());
                }
            }
        }
        realm["hubs"] = hubs.into();
    }

    async fn get(&self, path: &str) -> Result<Vec<Value>, HttpError> {
        let url = format!("{}/{path}", self.base);
        let fail = |reason: String| HttpError { url: url.clone(), reason };
        let uri: Uri = url.parse().map_err(|error| fail(format!("no URL: {error}")))?;
        let mut request = Request::get(uri).header(header::ACCEPT, "application/json");
        if let Some(token) = self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|error| fail(error.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| fail(causes(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY);
            let body = body.collect().await.map_err(|error| fail(error.to_string()))?.to_bytes();
            if !status.is_success() {
                // The stock inventory says what is wrong as {"message": …}.
                let message = serde_json::from_slice::<Value>(&body).ok();
                let message = message.as_ref().and_then(|body| body["message"].as_str()).unwrap_or_default();
                return Err(fail(format!("{status} {message}").trim_end().to_owned()));
            }
            serde_json::from_slice(&body).map_err(|error| fail(format!("expected a JSON list: {error}")))
        };
        tokio::time::timeout(REQUEST, exchange).await.unwrap_or_else(|_| Err(fail("no answer within 10 s".to_owned())))
    }
}

/// An error with everything that caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::pki::Authority;

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
        assert!(findings[0].ends_with("/v1/realms/a/hubs/h2/services: 404 Not Found no such thing"), "{findings:?}");
    }

    #[tokio::test]
    async fn without_realms_there_is_no_inventory() {
        let base = serve(pages()).await;
        let error = Source::parse(&base).load(None).await.unwrap_err().to_string();
        assert!(error.ends_with("/v1/realms: 401 Unauthorized who are you?"), "{error}");
        let error = Source::parse("http://127.0.0.1:1").load(None).await.unwrap_err().to_string();
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
}
