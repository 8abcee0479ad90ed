//! A small certificate authority for one realm: enough for a deployment, and for `spnhub demo`.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::cli::settings::{HOST_AND_PORT, host_and_port, read_text};

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 825;
/// The longest Common Name that X.520 allows.
const MAX_COMMON_NAME: usize = 64;

/// The help text of `spnhub pki`.
pub const HELP: &str = "\
Writes the certificates, the inventory and the settings of a realm.

First form, for a new realm:

    spnhub pki DIR --realm home --hub hub.example.net --service web \\
        --provider web-1 --consumer laptop \\
        --forward 127.0.0.1:8080 --bind 127.0.0.1:9090

This creates DIR with inventory.yaml for the hub, ca.pem and ca.key, and CN.pem, CN.key and CN.env for each endpoint. Then

    spnhub -c DIR/inventory.yaml
    spnagent provider --env-file DIR/web-1.env
    spnagent consumer --env-file DIR/laptop.env

Copy ca.pem, CN.pem, CN.key and CN.env of an endpoint to its machine, into one directory. Do not copy ca.key to any machine.

Second form, for an existing DIR: the same without --realm and --hub.
This adds a service, or an endpoint to an existing service.";

/// The arguments of `spnhub pki`.
#[derive(Args, Debug, Clone)]
pub struct PkiArgs {
    /// Directory to write to: a new or empty one, or one that this command has created before.
    pub dir: PathBuf,
    /// Name of the realm: lower-case letters, digits and `-`.
    #[arg(long, requires = "hub")]
    pub realm: Option<String>,
    /// Names or IP addresses by which endpoints dial the hub. The first one is written to their settings.
    #[arg(long, value_name = "NAME_OR_IP", value_delimiter = ',', requires = "realm")]
    pub hub: Vec<String>,
    /// UDP port of the hub.
    #[arg(long, default_value_t = 4433)]
    pub port: u16,
    /// Name of the service.
    #[arg(long, value_name = "NAME")]
    pub service: String,
    /// Common Name of an endpoint that provides the service.
    #[arg(long, value_name = "CN")]
    pub provider: Option<String>,
    /// Common Name of an endpoint that uses the service.
    #[arg(long, value_name = "CN")]
    pub consumer: Option<String>,
    /// The TCP service behind the provider.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub forward: String,
    /// TCP address on which the consumer listens.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090")]
    pub bind: SocketAddr,
}

/// `spnhub pki` failed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The directory for a new realm is not empty.
    #[error(
        "{0} is not empty: give a new directory, or leave out --realm and --hub to add to the realm that `spnhub pki` has created there"
    )]
    NotEmpty(PathBuf),
    /// The directory has no realm to add to.
    #[error("{0} has no inventory.yaml or no ca.key: give --realm and --hub to create a new realm")]
    NothingThere(PathBuf),
    /// An invalid name or address.
    #[error("--{option} `{value}`: expected {expected}")]
    Name {
        /// The option.
        option: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// An option is missing, or options contradict each other.
    #[error("{0}")]
    Incomplete(&'static str),
    /// The endpoint exists already.
    #[error(
        "{0} exists already: an endpoint has one certificate; give another name, or add this one to the service in inventory.yaml"
    )]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The inventory does not have the form that this command writes.
    #[error("{path}: {message}")]
    Inventory {
        /// Which.
        path: PathBuf,
        /// The fault.
        message: String,
    },
    /// Creating a certificate failed.
    #[error("cannot create a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub certificate: String,
    key: String,
}

impl Authority {
    /// Creates the authority of a realm, valid for ten years.
    ///
    /// # Errors
    /// The name does not fit into a certificate.
    pub fn new(realm: &str) -> Result<Self, PkiError> {
        let mut params = CertificateParams::default();
        let pair = KeyPair::generate()?;
        // The name differs from that of any leaf, since a chain must not look self-signed, and from the CA of another realm of the same name.
        let mark: String = pair.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = subject(&format!("Towline CA of realm {realm}, {mark}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, CA_DAYS);
        let certificate = params.self_signed(&pair)?.pem();
        let key = pair.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, pair), certificate, key })
    }

    fn read(dir: &Path) -> Result<Self, PkiError> {
        let (certificate, key) = (read(&dir.join("ca.pem"))?, read(&dir.join("ca.key"))?);
        let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
        Ok(Self { issuer, certificate, key })
    }

    /// Issues a hub's certificate for names and IP addresses.
    ///
    /// # Errors
    /// A name is neither a DNS name nor an IP address.
    pub fn hub(&self, names: &[String]) -> Result<Pair, PkiError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = subject("SPN hub");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.leaf(params)
    }

    /// Issues an endpoint's certificate.
    ///
    /// # Errors
    /// The name does not fit into a certificate.
    pub fn endpoint(&self, common_name: &str) -> Result<Pair, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(params)
    }

    fn leaf(&self, mut params: CertificateParams) -> Result<Pair, PkiError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, LEAF_DAYS);
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn validity(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    // The clocks of machines differ.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
}

/// Runs `spnhub pki`. Returns the text for its user.
///
/// # Errors
/// Arguments and files are checked before anything is written, so most errors leave the directory unchanged.
pub fn run(args: &PkiArgs) -> Result<String, PkiError> {
    check_names(args)?;
    match &args.realm {
        Some(realm) => create(args, realm),
        None => extend(args),
    }
}

fn check_names(args: &PkiArgs) -> Result<(), PkiError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    let expect = |option, value: &str, is_good: bool, expected| {
        if is_good { Ok(()) } else { Err(PkiError::Name { option, value: value.to_owned(), expected }) }
    };
    if let Some(realm) = &args.realm {
        let is_good = realm.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && realm.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && realm != "master";
        expect("realm", realm, is_good, "lower-case letters, digits and `-`; not `master`")?;
    }
    let is_good = !args.service.is_empty() && args.service.chars().all(is_word);
    expect("service", &args.service, is_good, "letters, digits, `-`, `_`, `.` and `@`")?;
    for (option, name) in [("provider", &args.provider), ("consumer", &args.consumer)] {
        if let Some(name) = name {
            // The name becomes a file name; `ca` is reserved.
            let is_good = !name.is_empty()
                && name.len() <= MAX_COMMON_NAME
                && !name.starts_with('.')
                && name != "ca"
                && name.chars().all(|c| is_word(c) || c == ':');
            expect(option, name, is_good, "1 to 64 letters, digits, `-`, `_`, `.`, `@` and `:`; not `ca`")?;
        }
    }
    if args.provider.is_some() && args.provider == args.consumer {
        return Err(PkiError::Incomplete(
            "--provider and --consumer have the same name: give each endpoint its own name",
        ));
    }
    for name in &args.hub {
        let is_good = ServerName::try_from(name.as_str()).is_ok();
        expect("hub", name, is_good, "DNS names or IP addresses, which endpoints can dial")?;
    }
    expect("port", &args.port.to_string(), args.port > 0, "1 to 65535")?;
    expect("forward", &args.forward, host_and_port(&args.forward).is_ok(), HOST_AND_PORT)
}

fn create(args: &PkiArgs, realm: &str) -> Result<String, PkiError> {
    let (Some(provider), Some(consumer)) = (&args.provider, &args.consumer) else {
        return Err(PkiError::Incomplete("a new realm needs both --provider and --consumer"));
    };
    let dir = &args.dir;
    fs::create_dir_all(dir).map_err(|error| PkiError::Io { path: dir.clone(), error })?;
    let mut entries = fs::read_dir(dir).map_err(|error| PkiError::Io { path: dir.clone(), error })?;
    if entries.next().is_some() {
        return Err(PkiError::NotEmpty(dir.clone()));
    }
    let authority = Authority::new(realm)?;
    let hub = authority.hub(&args.hub)?;
    write(&dir.join("ca.pem"), &authority.certificate, 0o644)?;
    write(&dir.join("ca.key"), &authority.key, 0o600)?;
    let inventory = json!({"realms": [{
        "name": realm,
        "title": realm,
        "cacert": authority.certificate,
        "hubs": [{
            "name": "hub",
            "title": "hub",
            "fqdn": args.hub.first(),
            "serverAddress": bind_address(&args.hub),
            "serverPort": args.port,
            "serverCert": hub.certificate,
            "serverCertKey": hub.key,
            "services": [service(realm, &args.service, provider, Some(consumer))],
        }],
    }]});
    write_inventory(dir, &inventory)?;
    let host = args.hub.first().map(String::as_str).unwrap_or_default();
    let target = Target { dir, host, port: args.port, urn: None };
    write_endpoint(&authority, &target, provider, "FORWARD_ADDRESS", &args.forward)?;
    write_endpoint(&authority, &target, consumer, "BIND_ADDRESS", &args.bind.to_string())?;
    Ok(how_to(dir, Some(provider), Some(consumer)))
}

/// The address on which a hub with these names listens: loopback if all names are loopback.
fn bind_address(names: &[String]) -> &'static str {
    let is_loopback =
        |name: &String| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() && ip.is_ipv4());
    let is_v6 = |name: &String| name.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    if names.iter().all(is_loopback) {
        "127.0.0.1"
    } else if names.iter().any(is_v6) {
        "::"
    } else {
        "0.0.0.0"
    }
}

fn service(realm: &str, name: &str, provider: &str, consumer: Option<&String>) -> Value {
    json!({
        "name": name,
        "title": name,
        "urn": format!("urn:chip-in:service:{realm}:hub:{name}"),
        "provider": [provider],
        "consumers": consumer.into_iter().collect::<Vec<_>>(),
        "singleton": false,
    })
}

fn extend(args: &PkiArgs) -> Result<String, PkiError> {
    let dir = &args.dir;
    let path = dir.join("inventory.yaml");
    if !path.is_file() || !dir.join("ca.key").is_file() {
        return Err(PkiError::NothingThere(dir.clone()));
    }
    if args.provider.is_none() && args.consumer.is_none() {
        return Err(PkiError::Incomplete("nothing to add: give --provider or --consumer, or both"));
    }
    for name in [&args.provider, &args.consumer].into_iter().flatten() {
        let certificate = dir.join(format!("{name}.pem"));
        if certificate.exists() {
            return Err(PkiError::Exists(certificate));
        }
    }
    let invalid = |message: &str| PkiError::Inventory { path: path.clone(), message: message.to_owned() };
    let mut inventory: Value = serde_saphyr::from_str(&read(&path)?).map_err(|error| invalid(&error.to_string()))?;
    let realm = inventory.pointer("/realms/0/name").and_then(Value::as_str).map(str::to_owned);
    let realm = realm.ok_or_else(|| invalid("the inventory has no realm"))?;
    let hub = inventory.pointer_mut("/realms/0/hubs/0").ok_or_else(|| invalid("the first realm has no hub"))?;
    let host = hub["fqdn"].as_str().ok_or_else(|| invalid("the first hub has no fqdn"))?.to_owned();
    let port = hub["serverPort"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(4433);
    let services = hub["services"].as_array_mut().ok_or_else(|| invalid("the first hub has no services"))?;
    let urn = match services.iter_mut().find(|service| service["name"] == args.service.as_str()) {
        Some(known) => {
            for (member, name) in [("provider", &args.provider), ("consumers", &args.consumer)] {
                let Some(name) = name else { continue };
                // A provider may be a single string.
                if let Some(single) = known[member].as_str() {
                    known[member] = json!([single]);
                }
                known[member]
                    .as_array_mut()
                    .ok_or_else(|| invalid("the service has no list of providers or consumers"))?
                    .push(json!(name));
            }
            known["urn"].as_str().map(str::to_owned)
        }
        None => {
            let provider = args.provider.as_ref().ok_or(PkiError::Incomplete("a new service needs --provider"))?;
            services.push(service(&realm, &args.service, provider, args.consumer.as_ref()));
            Some(format!("urn:chip-in:service:{realm}:hub:{}", args.service))
        }
    };
    let authority = Authority::read(dir)?;
    let target = Target { dir, host: &host, port, urn: urn.as_deref() };
    if let Some(name) = &args.provider {
        write_endpoint(&authority, &target, name, "FORWARD_ADDRESS", &args.forward)?;
    }
    if let Some(name) = &args.consumer {
        write_endpoint(&authority, &target, name, "BIND_ADDRESS", &args.bind.to_string())?;
    }
    write_inventory(dir, &inventory)?;
    Ok(format!(
        "{}Send SIGUSR1 to a running hub to load the new inventory.\n",
        how_to(dir, args.provider.as_ref(), args.consumer.as_ref())
    ))
}

/// The hub that an endpoint's settings point to.
struct Target<'a> {
    dir: &'a Path,
    host: &'a str,
    port: u16,
    urn: Option<&'a str>,
}

fn write_endpoint(
    authority: &Authority,
    target: &Target<'_>,
    name: &str,
    variable: &str,
    address: &str,
) -> Result<(), PkiError> {
    let pair = authority.endpoint(name)?;
    let file = |extension| target.dir.join(format!("{name}.{extension}"));
    write(&file("pem"), &pair.certificate, 0o644)?;
    write(&file("key"), &pair.key, 0o600)?;
    let urn = target.urn.map(|urn| format!("SPN_SERVICE_URN={urn}\n")).unwrap_or_default();
    let env = format!(
        "# Settings of {name}; file names are relative to this file.\n\
         SPN_HUB_HOSTNAME={}\nSPN_HUB_PORT={}\n\
         SPN_AGENT_TRUST_CERTIFICATE_ROOT=ca.pem\n\
         SPN_AGENT_CLIENT_CERTIFICATE={name}.pem\n\
         SPN_AGENT_CLIENT_CERTIFICATE_KEY={name}.key\n\
         {urn}{variable}={address}\n",
        target.host, target.port
    );
    write(&file("env"), &env, 0o644)
}

fn how_to(dir: &Path, provider: Option<&String>, consumer: Option<&String>) -> String {
    let dir = dir.display();
    let mut text = format!("written: {dir}\n\nspnhub -c {dir}/inventory.yaml\n");
    for (role, name) in [("provider", provider), ("consumer", consumer)] {
        if let Some(name) = name {
            text.push_str(&format!("spnagent {role} --env-file {dir}/{name}.env\n"));
        }
    }
    text
}

fn write_inventory(dir: &Path, inventory: &Value) -> Result<(), PkiError> {
    let path = dir.join("inventory.yaml");
    // The file has the hub's private key. It is replaced as a whole, so that a running hub never reads half of it.
    let temporary = dir.join(".inventory.yaml.new");
    // Sorted, so that adding a service changes few lines.
    let ordered: BTreeMap<&String, &Value> = inventory.as_object().into_iter().flatten().collect();
    let text = serde_saphyr::to_string(&ordered)
        .map_err(|error| PkiError::Inventory { path: path.clone(), message: error.to_string() })?;
    write(&temporary, &text, 0o600)?;
    fs::rename(&temporary, &path).map_err(|error| PkiError::Io { path, error })
}

fn read(path: &Path) -> Result<String, PkiError> {
    read_text(path).map_err(|error| PkiError::Io { path: path.to_owned(), error })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let result = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    result
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| PkiError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use towline_core::{
        quic::{Identity, Roots},
        spn::inventory,
    };

    use super::*;

    fn args(dir: &Path) -> PkiArgs {
        PkiArgs {
            dir: dir.to_owned(),
            realm: Some("home".to_owned()),
            hub: vec!["hub.example.net".to_owned(), "192.0.2.7".to_owned()],
            port: 4500,
            service: "web".to_owned(),
            provider: Some("web-1".to_owned()),
            consumer: Some("laptop".to_owned()),
            forward: "127.0.0.1:8080".to_owned(),
            bind: "127.0.0.1:9090".parse().unwrap(),
        }
    }

    fn inventory(dir: &Path) -> (inventory::Inventory, Vec<String>) {
        let value: Value = serde_saphyr::from_str(&fs::read_to_string(dir.join("inventory.yaml")).unwrap()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let (inventory, findings) = inventory::read(&value, now);
        (inventory, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_new_realm_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        run(&args(dir.path())).unwrap();
        let (found, findings) = inventory(dir.path());
        assert_eq!(findings, Vec::<String>::new());
        let hub = &found.realms[0].hubs[0];
        assert_eq!(
            (hub.bind.to_string(), &hub.services[0].consumers[..]),
            ("0.0.0.0:4500".into(), &["laptop".into()][..])
        );
        for name in ["web-1", "laptop"] {
            let text = |extension| fs::read_to_string(dir.path().join(format!("{name}.{extension}"))).unwrap();
            Identity::from_pem(&text("pem"), &text("key")).unwrap();
            let mode = fs::metadata(dir.path().join(format!("{name}.key"))).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(text("env").contains("SPN_HUB_HOSTNAME=hub.example.net\nSPN_HUB_PORT=4500\n"), "{}", text("env"));
        }
        Roots::from_pem(&fs::read_to_string(dir.path().join("ca.pem")).unwrap()).unwrap();
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "x").unwrap();
        assert!(matches!(run(&args(dir.path())), Err(PkiError::NotEmpty(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn services_and_endpoints_are_added() {
        let dir = tempfile::tempdir().unwrap();
        run(&args(dir.path())).unwrap();
        let more = PkiArgs { realm: None, hub: Vec::new(), ..args(dir.path()) };
        let consumer = PkiArgs { provider: None, consumer: Some("phone".into()), ..more.clone() };
        run(&consumer).unwrap();
        run(&PkiArgs { service: "db".into(), provider: Some("db-1".into()), consumer: None, ..more.clone() }).unwrap();
        let (found, findings) = inventory(dir.path());
        assert_eq!(findings, ["warning: realms[0].hubs[0].services[1].consumers: empty: nobody may use this service"]);
        let services = &found.realms[0].hubs[0].services;
        assert_eq!(services[0].consumers, ["laptop", "phone"]);
        assert_eq!(services[1].providers, ["db-1"]);
        assert!(matches!(run(&consumer), Err(PkiError::Exists(_))));
        let new_consumer_only = PkiArgs { service: "x".into(), provider: None, consumer: Some("y".into()), ..more };
        assert!(matches!(run(&new_consumer_only), Err(PkiError::Incomplete(_))));
    }

    #[test]
    fn names_that_cannot_be_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../x", "a/b", "", "ca", &"x".repeat(65)] {
            let bad = PkiArgs { provider: Some(name.to_owned()), ..args(dir.path()) };
            assert!(matches!(run(&bad), Err(PkiError::Name { option: "provider", .. })), "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_could_not_work_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let hub = |name: &str| PkiArgs { hub: vec!["good".to_owned(), name.to_owned()], ..args(dir.path()) };
        for (bad, option) in [
            (hub(""), "hub"),
            (hub("a b"), "hub"),
            (hub("*.example.net"), "hub"),
            (hub("192.0.2.7:4433"), "hub"),
            (PkiArgs { port: 0, ..args(dir.path()) }, "port"),
            (PkiArgs { forward: "127.0.0.1".to_owned(), ..args(dir.path()) }, "forward"),
        ] {
            assert!(matches!(run(&bad), Err(PkiError::Name { option: told, .. }) if told == option), "{bad:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_loopback_hub_listens_on_loopback() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(bind_address(&names(&["127.0.0.1", "localhost"])), "127.0.0.1");
        assert_eq!(bind_address(&names(&["hub", "127.0.0.1"])), "0.0.0.0");
        assert_eq!(bind_address(&names(&["2001:db8::1"])), "::");
    }
}
