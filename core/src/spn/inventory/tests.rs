use serde_json::{Value, json};

use super::*;
use crate::testing::pki::{Ca, UNIX};

fn good() -> Value {
    let ca = Ca::new("realm ca");
    let (certificate, key) = ca.server();
    json!({"realms": [{
        "name": "home", "title": "Home", "cacert": ca.pem(),
        "hubs": [{
            "name": "h1", "fqdn": "hub.example", "serverAddress": "127.0.0.1", "serverPort": 4433,
            "serverCert": certificate, "serverCertKey": key,
            "services": [
                {"name": "web", "provider": "p", "consumers": ["c"], "singleton": true, "unknown": 1},
                {"name": "db", "provider": ["q", "r"], "consumers": ["d"], "urn": "urn:db"},
            ],
        }],
    }]})
}

fn findings(value: &Value) -> Vec<String> {
    read(value, UNIX).1.iter().map(ToString::to_string).collect()
}

/// The inventory with one member changed, and everything that is then wrong.
fn with(pointer: &str, value: Value) -> (Inventory, Vec<String>) {
    let mut inventory = good();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    inventory.pointer_mut(parent).unwrap()[name] = value;
    (read(&inventory, UNIX).0, findings(&inventory))
}

#[test]
fn a_good_one() {
    let (inventory, findings) = read(&good(), UNIX);
    assert_eq!(findings, []);
    let hub = &inventory.realms[0].hubs[0];
    assert!(inventory.realms[0].is_enabled);
    assert_eq!(hub.bind, "127.0.0.1:4433".parse().unwrap());
    let config = hub.config(&inventory.realms[0]);
    assert_eq!(config.services[0].urn, "urn:chip-in:service:home:h1:web");
    assert!(config.services[0].singleton);
    assert_eq!(
        (&config.services[1].urn[..], &config.services[1].providers[..]),
        ("urn:db", &["q".into(), "r".into()][..])
    );
}

#[test]
fn a_bad_service_drops_itself_only() {
    let (inventory, findings) = with("/realms/0/hubs/0/services/0/consumers", json!(7));
    assert_eq!(findings, ["realms[0].hubs[0].services[0].consumers: expected a list of strings, found a number"]);
    assert_eq!(inventory.realms[0].hubs[0].services.len(), 1);
    assert_eq!(inventory.broken.into_iter().collect::<Vec<_>>(), ["home/h1/web"]);
}

#[test]
fn a_bad_hub_drops_itself_only() {
    for (member, value, message) in [
        ("serverCert", json!(""), "no certificate in the PEM text"),
        ("serverCertKey", json!("x"), "no private key in the PEM text (expected PKCS#8, SEC1 or PKCS#1)"),
        ("serverCertKey", json!(Ca::new("x").server().1), "the private key does not belong to the certificate"),
        ("serverPort", json!(70_000), "70000: expected a port, 1 to 65535"),
        ("serverAddress", json!("hub"), "`hub`: expected an IP address"),
        ("name", json!("a b"), "`a b`: expected letters, digits, `-`, `_`, `.` and `@`"),
    ] {
        let (inventory, findings) = with(&format!("/realms/0/hubs/0/{member}"), value);
        assert!(findings.contains(&format!("realms[0].hubs[0].{member}: {message}")), "{findings:?}");
        assert_eq!((inventory.realms.len(), inventory.realms[0].hubs.len()), (1, 0), "{member}");
    }
}

#[test]
fn a_realm_without_a_ca_harms_no_other() {
    let mut inventory = good();
    let mut other = inventory["realms"][0].clone();
    other["name"] = json!("other");
    other["cacert"] = json!("");
    other["hubs"][0]["serverPort"] = json!(4434);
    inventory["realms"].as_array_mut().unwrap().push(other);
    let (usable, _) = read(&inventory, UNIX);
    assert_eq!(findings(&inventory), ["realms[1].cacert: no certificate in the PEM text"]);
    assert_eq!(usable.realms.len(), 1);
}

#[test]
fn everything_is_said_in_one_go() {
    let value = json!({"realms": [{"name": "master", "hubs": [{"name": "h", "services": [{}]}]}, 5]});
    let findings = findings(&value);
    for expected in [
        "realms[0].name: `master` is reserved",
        "realms[0].cacert: missing",
        "warning: realms[0].hubs[0].serverPort: missing: 4433 is used",
        "realms[0].hubs[0].serverCert: missing",
        "realms[0].hubs[0].serverCertKey: missing",
        "realms[0].hubs[0].services[0].name: missing",
        "realms[0].hubs[0].services[0].provider: missing: expected the provider's Common Name",
        "realms[0].hubs[0].services[0].consumers: missing: expected a list of Common Names",
        "realms[1]: expected an object, found a number",
    ] {
        assert!(findings.iter().any(|finding| finding == expected), "{expected} in {findings:#?}");
    }
}

#[test]
fn certificate_and_key_are_both_judged() {
    let (_, found) = with("/realms/0/hubs/0/serverCert", json!("x"));
    assert_eq!(found, ["realms[0].hubs[0].serverCert: no certificate in the PEM text"]);
    let mut inventory = good();
    inventory["realms"][0]["hubs"][0]["serverCert"] = json!("x");
    inventory["realms"][0]["hubs"][0]["serverCertKey"] =
        json!("-----BEGIN PRIVATE KEY-----\n&\n-----END PRIVATE KEY-----\n");
    let found = findings(&inventory);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].starts_with("realms[0].hubs[0].serverCertKey: unusable private key: not PEM"), "{found:?}");
    inventory["realms"][0]["hubs"][0].as_object_mut().unwrap().remove("serverCertKey");
    let expected = ["serverCertKey: missing", "serverCert: no certificate in the PEM text"];
    assert_eq!(findings(&inventory), expected.map(|what| format!("realms[0].hubs[0].{what}")));
}

/// A second realm, a copy of the first one but for its name.
fn two_realms() -> Value {
    let mut inventory = good();
    let mut other = inventory["realms"][0].clone();
    other["name"] = json!("other");
    inventory["realms"].as_array_mut().unwrap().push(other);
    inventory
}

#[test]
fn names_are_unique() {
    let mut inventory = good();
    let mut again = inventory["realms"][0]["hubs"][0].clone();
    again["serverPort"] = json!(4434);
    again["services"] = json!([]);
    inventory["realms"][0]["hubs"].as_array_mut().unwrap().push(again);
    inventory["realms"][0]["hubs"][0]["services"][0]["urn"] = json!("urn:db");
    assert_eq!(
        findings(&inventory),
        [
            "realms[0].hubs[0].services[1].urn: `urn:db` is the urn of realms[0].hubs[0].services[0], too",
            "realms[0].hubs[1].name: `h1` is the name of realms[0].hubs[0], too",
        ]
    );
}

#[test]
fn addresses_are_unique_among_what_runs() {
    let told = "realms[1].hubs[0].serverPort: 127.0.0.1:4433 is the address of realms[0].hubs[0], too";
    let mut inventory = two_realms();
    assert_eq!(findings(&inventory), [told]);
    assert_eq!(read(&inventory, UNIX).0.broken.into_iter().collect::<Vec<_>>(), ["other/h1"]);
    inventory["realms"][1]["hubs"][0]["serverAddress"] = json!("::");
    let told = "realms[1].hubs[0].serverPort: [::]:4433 is the address 127.0.0.1:4433 of realms[0].hubs[0], too";
    assert_eq!(findings(&inventory), [told], "the IPv6 wildcard takes IPv4, too");
    inventory["realms"][1]["hubs"][0]["serverAddress"] = json!("127.0.0.2");
    assert_eq!(findings(&inventory), Vec::<String>::new());
    // A realm that is off, or cannot be used, does not run.
    let mut inventory = two_realms();
    inventory["realms"][0]["disabled"] = json!(true);
    assert_eq!(findings(&inventory), Vec::<String>::new());
    let mut inventory = two_realms();
    inventory["realms"][0]["cacert"] = json!("");
    let (usable, found) = read(&inventory, UNIX);
    assert_eq!((usable.realms[0].hubs.len(), found.len()), (1, 1), "one broken realm harms no other: {found:?}");
}

#[test]
fn lists_that_are_none_drop_their_record() {
    let (inventory, found) = with("/realms/0/hubs", json!(5));
    assert_eq!(found, ["realms[0].hubs: expected a list, found a number"]);
    assert_eq!((inventory.realms.len(), inventory.broken.contains("home")), (0, true));
    let (inventory, found) = with("/realms/0/hubs/0/services", json!({}));
    assert_eq!(found, ["realms[0].hubs[0].services: expected a list, found an object"]);
    assert!(inventory.broken.contains("home/h1"));
}

#[test]
fn what_is_no_inventory_is_called_one() {
    assert_eq!(findings(&Value::Null), ["inventory: expected an object, found nothing"]);
    assert_eq!(findings(&json!({})), ["realms: missing: expected a list of realms"]);
}

#[test]
fn what_could_not_be_had_is_said_in_its_place() {
    let mut inventory = two_realms();
    inventory["realms"][1]["hubs"][0]["serverPort"] = json!(0);
    let missing = [("realms[0].hubs".to_owned(), "404".to_owned())].into();
    let (usable, found) = read_with(&inventory, &missing, UNIX);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["realms[0].hubs: 404", "realms[1].hubs[0].serverPort: 0: expected a port, 1 to 65535"]);
    assert_eq!(usable.broken.into_iter().collect::<Vec<_>>(), ["home", "other/h1"]);
}

#[test]
fn a_realm_that_is_off_is_off_whatever_else_is_wrong() {
    let mut inventory = good();
    inventory["realms"][0]["disabled"] = json!(true);
    inventory["realms"][0]["cacert"] = json!("");
    let (usable, found) = read(&inventory, UNIX);
    assert_eq!((usable.realms[0].is_enabled, usable.broken.len(), found.len()), (false, 0, 1));
}

#[test]
fn a_name_in_two_services_is_a_warning() {
    let (_, findings) = with("/realms/0/hubs/0/services/1/consumers", json!(["c"]));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].starts_with("warning: realms[0].hubs[0].services: `c` is a consumer of `web` and of `db`"));
}

#[test]
fn disabled_and_expired_realms_are_off() {
    assert!(!with("/realms/0/disabled", json!(true)).0.realms[0].is_enabled);
    assert!(!with("/realms/0/expiredAt", json!("2025-01-01T00:00:00Z")).0.realms[0].is_enabled);
    assert!(with("/realms/0/expiredAt", json!("2027-01-01T00:00:00Z")).0.realms[0].is_enabled);
}

#[test]
fn availability() {
    let of = |value: Value| {
        let (inventory, findings) = with("/realms/0/hubs/0/services/0/availabilityManagement", value);
        let service = inventory.realms[0].hubs[0].services.iter().find(|service| service.name == "web").cloned();
        (service.and_then(|service| service.availability), findings)
    };
    let base = json!({"clusterManagerUrn": "docker:", "serviceId": "s", "command": "run"});
    let (found, findings) = of(base.clone());
    assert!(!found.unwrap().is_on_demand());
    assert!(findings[0].contains("no ondemandStart"), "managed from the load on, with a warning");
    let mut all = base.clone();
    all["ondemandStart"] = json!(true);
    all["mountPoints"] = json!([{"volume_size": 5, "target": "/a"}, {"volumeSize": 6, "target": "/b"}]);
    all["idleTimeout"] = json!(-1);
    let (found, findings) = of(all);
    let found = found.unwrap();
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!((found.on_consumer, found.on_payload, found.idle_timeout_s), (true, true, 0));
    assert_eq!((found.command, found.mount_points), (vec!["run".into()], vec![(5, "/a".into()), (6, "/b".into())]));
    for (members, expected) in [
        (json!({"ondemandStart": true, "ondemandStartOnConsumer": false}), (false, true)),
        (json!({"ondemandStart": true, "ondemandStartOnPayload": false}), (true, false)),
        (json!({"ondemandStart": true, "ondemandStartOnPayload": true}), (false, true)),
        (json!({"ondemandStart": false, "ondemandStartOnConsumer": true}), (true, false)),
        (
            json!({"ondemandStart": true, "ondemandStartOnConsumer": false, "ondemandStartOnPayload": false}),
            (true, true),
        ),
        (json!({"ondemandStart": false}), (false, false)),
    ] {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let found = of(all).0.unwrap();
        assert_eq!((found.on_consumer, found.on_payload), expected, "{members}");
    }
    let mut scheduled = base.clone();
    (scheduled["startAt"], scheduled["stopAt"]) = (json!("0 0 8 * * MON-FRI"), json!(""));
    (scheduled["ondemandStart"], scheduled["idleTimeout"]) = (json!(false), json!(5));
    let (found, findings) = of(scheduled.clone());
    let found = found.unwrap();
    assert_eq!((found.start_at.unwrap().to_string(), found.stop_at), ("0 0 8 * * MON-FRI".to_owned(), None));
    assert!(findings[0].contains("idleTimeout: has no effect"), "{findings:?}");
    scheduled["stopAt"] = json!("every evening");
    let (found, findings) = of(scheduled);
    assert_eq!(found, None);
    assert!(findings.iter().any(|text| text.contains(".stopAt: `every evening` is no cron pattern")), "{findings:?}");
    let (found, findings) = of(json!({"serviceId": "s", "ondemandStartOnPayload": true}));
    assert_eq!(
        (found, &findings[0][..]),
        (None, "realms[0].hubs[0].services[0].availabilityManagement.clusterManagerUrn: missing")
    );
}

#[test]
fn certificates_are_judged_by_the_time() {
    let far = std::time::Duration::from_secs(70_000_000_000);
    let texts: Vec<String> = read(&good(), far).1.iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().any(|text| text.starts_with("realms[0].hubs[0].serverCert: the certificate expired")),
        "{texts:?}"
    );
    // Not yet valid: the hub is to run all the same, and to be believed when it is.
    let (inventory, findings) = read(&good(), std::time::Duration::from_secs(1_000));
    assert_eq!(inventory.realms[0].hubs.len(), 1);
    assert!(
        findings.iter().any(|finding| {
            finding.severity == Severity::Warning
                && finding.to_string().contains("serverCert: the certificate is not valid before 1975-01-01T00:00:00Z")
        }),
        "{findings:?}"
    );
}
