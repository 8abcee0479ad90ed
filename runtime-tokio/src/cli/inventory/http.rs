//! The inventory's HTTP interface.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use towline_core::spn::inventory::says_disabled;

use super::{LoadError, MAX_BYTES, WHOLE, limit_values};
use crate::cli::process::beside;

/// Time limit of one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Limit of concurrent requests.
const AT_ONCE: usize = 16;

/// A GET failed.
#[derive(Debug, thiserror::Error)]
#[error("GET {url}: {reason}")]
pub struct HttpError {
    url: String,
    reason: String,
    may_pass: bool,
}

impl HttpError {
    /// Whether a later attempt may succeed without a change on this side.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }
}

/// A value, and the errors of the lists that could not be loaded, by their paths in the value.
type Parts = (Value, BTreeMap<String, String>);

/// Loads the three levels of the interface, and combines them into the form of a file. Below the realms, a GET that fails omits only its own list.
pub(super) async fn load(base: &str, token: Option<&str>, deadline: Instant) -> Result<Parts, LoadError> {
    let http = Arc::new(Http::new(base, token, deadline)?);
    let mut missing = BTreeMap::new();
    let mut realms = http.get("realms").await?;
    let of_realms = realms.iter().enumerate().filter_map(|(nth, realm)| {
        // A disabled realm is not loaded.
        let name = realm["name"].as_str().filter(|_| !says_disabled(realm))?;
        Some((nth, format!("realms/{name}/hubs")))
    });
    for (nth, hubs) in http.get_all(of_realms).await {
        match hubs {
            Ok(hubs) => realms[nth]["hubs"] = hubs.into(),
            Err(error) => drop(missing.insert(format!("realms[{nth}].hubs"), error.to_string())),
        }
    }
    let mut of_hubs = Vec::new();
    for (nth, realm) in realms.iter().enumerate() {
        // A disabled realm may contain hubs of its own, which were not loaded here.
        let hubs = realm["hubs"].as_array().filter(|_| !says_disabled(realm));
        for (at, hub) in hubs.into_iter().flatten().enumerate() {
            if let (Some(realm), Some(hub)) = (realm["name"].as_str(), hub["name"].as_str()) {
                of_hubs.push(((nth, at), format!("realms/{realm}/hubs/{hub}/services")));
            }
        }
    }
    for ((nth, at), services) in http.get_all(of_hubs).await {
        match services {
            Ok(services) => realms[nth]["hubs"][at]["services"] = services.into(),
            Err(error) => drop(missing.insert(format!("realms[{nth}].hubs[{at}].services"), error.to_string())),
        }
    }
    Ok((json!({"realms": realms}), missing))
}

struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: String,
    token: Option<String>,
    deadline: Instant,
    turns: Semaphore,
    /// Bytes and values received so far.
    bytes: AtomicUsize,
    values: AtomicUsize,
}

impl Http {
    fn new(base: &str, token: Option<&str>, deadline: Instant) -> Result<Self, LoadError> {
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let connector = if base.starts_with("https:") {
            builder.with_native_roots().map_err(LoadError::Tls)?.https_or_http().enable_http1().build()
        } else {
            // Plain HTTP needs no roots, and must work on a system without any.
            let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .map_err(|error| LoadError::Tls(io::Error::other(error)))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(tls).https_or_http().enable_http1().build()
        };
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            client,
            base: base.to_owned(),
            token: token.map(str::to_owned),
            deadline,
            turns: Semaphore::new(AT_ONCE),
            bytes: AtomicUsize::new(0),
            values: AtomicUsize::new(0),
        })
    }

    /// Loads several lists, some at a time. Returns each list under the key of its request.
    async fn get_all<K: Ord + Send + 'static>(
        self: &Arc<Self>,
        paths: impl IntoIterator<Item = (K, String)>,
    ) -> BTreeMap<K, Result<Vec<Value>, HttpError>> {
        // Dropping the set aborts its tasks.
        let mut tasks = JoinSet::new();
        for (key, path) in paths {
            let http = self.clone();
            tasks.spawn(async move { (key, http.get(&path).await) });
        }
        let mut lists = BTreeMap::new();
        while let Some(task) = tasks.join_next().await {
            lists.extend(task.ok());
        }
        lists
    }

    async fn get(&self, path: &str) -> Result<Vec<Value>, HttpError> {
        let url = format!("{}/{path}", self.base);
        let fail = |reason: String, may_pass| HttpError { url: url.clone(), reason, may_pass };
        let turn = timeout_at(self.deadline, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(fail(format!("not requested: the whole inventory may take {} s", WHOLE.as_secs()), true));
        };
        let until = self.deadline.min(Instant::now() + REQUEST);
        let (status, body) = timeout_at(until, self.exchange(&url))
            .await
            .unwrap_or_else(|_| Err(("no answer in time".to_owned(), true)))
            .map_err(|(reason, may_pass)| fail(reason, may_pass))?;
        if !status.is_success() {
            // The deployed inventory reports errors as {"message": …}.
            let message = serde_json::from_slice::<Value>(&body).ok();
            let message = message.as_ref().and_then(|body| body["message"].as_str()).unwrap_or_default();
            return Err(fail(format!("{status} {message}").trim_end().to_owned(), is_passing(status)));
        }
        limit_values(&body, &self.values).map_err(|reason| fail(reason, false))?;
        let parsed =
            beside(move || serde_json::from_slice(&body)).await.map_err(|error| fail(error.to_string(), true))?;
        parsed.map_err(|error| fail(format!("expected a JSON list: {error}"), false))
    }

    /// Sends one request. An error has its message, and whether a later attempt may succeed.
    async fn exchange(&self, url: &str) -> Result<(StatusCode, Vec<u8>), (String, bool)> {
        let wrong = |error: &dyn std::error::Error| (causes(error), true);
        let uri: Uri = url.parse().map_err(|error| (format!("invalid URL: {error}"), false))?;
        let mut request = Request::get(uri).header(header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|error| (error.to_string(), false))?;
        let response = self.client.request(request).await.map_err(|error| wrong(&error))?;
        let (status, mut body, mut bytes) = (response.status(), response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| wrong(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            if self.bytes.fetch_add(data.len(), Ordering::Relaxed) + data.len() > MAX_BYTES {
                return Err((format!("the inventory has more than {MAX_BYTES} bytes"), false));
            }
            bytes.extend_from_slice(data);
        }
        Ok((status, bytes))
    }
}

/// Whether a status may come from a server, or a proxy in front of one, that is still starting. 404 is included: some proxies send it until
/// the server behind them is registered.
fn is_passing(status: StatusCode) -> bool {
    const OTHERS: [StatusCode; 4] =
        [StatusCode::NOT_FOUND, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || OTHERS.contains(&status)
}

/// The text of an error with all its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
