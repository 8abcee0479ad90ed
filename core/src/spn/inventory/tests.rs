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
                {"name": "web", "provider": "p", "consumers": ["c"], "singleton": true},
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
        ("serverPort", json!("first"), "\"first\": expected a port, 1 to 65535"),
        ("serverAddress", json!("hub"), "`hub`: expected an IP address"),
        ("serverAddress", json!(5), "5: expected an IP address"),
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
}

/// The service `web`, if it is offered, with its management changed; and everything that is then wrong with that.
fn managed(changes: Value) -> (Service, Vec<String>) {
    let mut all = json!({"clusterManagerUrn": "exec:x", "serviceId": "s", "ondemandStart": false});
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let (inventory, findings) = with("/realms/0/hubs/0/services/0/availabilityManagement", all);
    assert_eq!(inventory.broken.len(), 0, "{findings:?}");
    let prefix = "warning: realms[0].hubs[0].services[0].availabilityManagement";
    let findings = findings.iter().map(|finding| finding.strip_prefix(prefix).expect(finding).to_owned()).collect();
    (inventory.realms[0].hubs[0].services[0].clone(), findings)
}

#[test]
fn what_a_realm_can_be_without_refuses_nothing() {
    let off = "taken as true: THE REALM IS OFF until this can be read";
    let on = "THE REALM IS TAKEN AS NOT EXPIRED and stays on; `disabled: true` turns it off";
    let time = "expected a time like 2027-01-31T00:00:00Z";
    for (member, value, is_enabled, expected) in [
        ("expiredAt", json!("expiration date"), true, format!("`expiration date`: {time}; {on}")),
        ("expiredAt", json!(5), true, format!("5: {time}; {on}")),
        ("expiredAt", json!({}), true, format!("an object: {time}; {on}")),
        ("expiredAt", json!("x\ny".repeat(40)), true, format!("`{}…`: {time}; {on}", "x y".repeat(20))),
        ("expiredAt", json!("2025-01-01"), false, "2025-01-01 is past: the realm is off".to_owned()),
        ("disabled", json!("perhaps"), false, format!("`perhaps`: expected true or false; {off}")),
        ("disabled", json!({}), false, format!("an object: expected true or false; {off}")),
        ("disabled", json!("no"), true, "`no`: expected true or false; read as false".to_owned()),
        ("disabled", json!("yes"), false, "`yes`: expected true or false; read as true".to_owned()),
        ("disabled", json!(" "), true, "empty: expected true or false; taken as absent".to_owned()),
    ] {
        let (inventory, found) = with(&format!("/realms/0/{member}"), value.clone());
        assert_eq!(found, [format!("warning: realms[0].{member}: {expected}")]);
        assert_eq!(inventory.realms[0].is_enabled, is_enabled, "{member}: {value}");
        assert_eq!((inventory.realms[0].hubs.len(), inventory.broken.len()), (1, 0), "{member}: {value}");
    }
}

#[test]
fn what_a_hub_can_be_without_refuses_nothing() {
    let (inventory, found) = with("/realms/0/hubs/0/fqdn", json!(["a"]));
    assert_eq!(found, ["warning: realms[0].hubs[0].fqdn: a list: expected a string; none is assumed"]);
    assert_eq!(inventory.realms[0].hubs[0].fqdn, "");
    let (inventory, found) = with("/realms/0/hubs/0/serverPort", json!("4434"));
    assert_eq!(found, ["warning: realms[0].hubs[0].serverPort: in quotes: read as the number 4434"]);
    assert_eq!(inventory.realms[0].hubs[0].bind.port(), 4434);
    let (inventory, found) = with("/realms/0/hubs/0/serverAddress", json!(""));
    assert_eq!((found.len(), inventory.realms[0].hubs[0].bind.ip().is_unspecified()), (0, true));
}

#[test]
fn what_a_service_can_be_without_refuses_nothing() {
    let refused = "taken as true: a second provider is refused until this can be read";
    let unmanaged = "cannot be used: the service is offered, but its provider is neither started nor stopped";
    let urn = "`urn:chip-in:service:home:h1:web` is assumed";
    for (member, value, expected) in [
        ("singleton", json!("once"), vec![format!("singleton: `once`: expected true or false; {refused}")]),
        ("urn", json!(7), vec![format!("urn: 7: expected a string; {urn}")]),
        (
            "availabilityManagement",
            json!("none"),
            vec![
                "availabilityManagement: expected an object, found a string".to_owned(),
                format!("availabilityManagement: {unmanaged}"),
            ],
        ),
    ] {
        let (inventory, found) = with(&format!("/realms/0/hubs/0/services/0/{member}"), value);
        let expected: Vec<_> =
            expected.iter().map(|text| format!("warning: realms[0].hubs[0].services[0].{text}")).collect();
        assert_eq!(found, expected);
        let service = &inventory.realms[0].hubs[0].services[0];
        assert_eq!((&service.name[..], service.singleton, service.availability.as_ref()), ("web", true, None));
        assert_eq!((&service.urn[..], inventory.broken.len()), ("urn:chip-in:service:home:h1:web", 0));
    }
}

#[test]
fn what_management_can_be_without_refuses_nothing() {
    for (changes, expected) in [
        (json!({"startAt": "start time"}), &[".startAt: `start time` is no cron pattern"][..]),
        (json!({"startAt": 5}), &[".startAt: 5: expected a cron pattern; the clock does not start the provider"]),
        (json!({"startAt": "", "stopAt": " "}), &[]),
        (json!({"stopAt": ["x"]}), &[".stopAt: a list: expected a cron pattern; the clock does not stop the provider"]),
        (json!({"idleTimeout": "soon"}), &[".idleTimeout: `soon`: expected seconds; an idle provider is not stopped"]),
        (json!({"idleTimeout": 1.5}), &[".idleTimeout: 1.5: expected seconds; an idle provider is not stopped"]),
        (json!({"ondemandStart": "x"}), &[".ondemandStart: `x`: expected true or false; taken as false"]),
    ] {
        let (service, found) = managed(changes.clone());
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
        let plain = managed(json!({})).0.availability;
        assert!(plain.is_some() && service.availability == plain, "{changes}");
    }
    let (service, found) = managed(json!({"idleTimeout": "60", "ondemandStartOnPayload": "true"}));
    let availability = service.availability.unwrap();
    assert_eq!((availability.idle_timeout_s, availability.on_payload, found.len()), (60, true, 2), "{found:?}");
}

/// Half of a schedule would stop the provider for good.
#[test]
fn a_clock_that_cannot_start_does_not_stop() {
    let (nine, placeholder) = ("0 9 * * *", "when it is to start");
    let hours = |service: Service| {
        let availability = service.availability.unwrap();
        (availability.start_at.is_some(), availability.stop_at.is_some())
    };
    let (service, found) = managed(json!({"startAt": placeholder, "stopAt": nine}));
    assert_eq!(hours(service), (false, false));
    assert!(found[1].starts_with(".stopAt: has no effect while startAt cannot be read"), "{found:?}");
    let (service, _) = managed(json!({"startAt": nine, "stopAt": placeholder}));
    assert_eq!(hours(service), (true, false));
    let (service, found) = managed(json!({"startAt": placeholder, "stopAt": nine, "ondemandStart": true}));
    assert_eq!((hours(service), found.len()), ((false, true), 1), "it is started again when it is needed");
    assert_eq!(hours(managed(json!({"stopAt": nine})).0), (false, true));
}

/// What a cluster manager is given is used whole or not at all.
#[test]
fn a_provider_is_not_started_with_half_of_its_settings() {
    let last = ": cannot be used: the service is offered, but its provider is neither started nor stopped";
    for (changes, expected) in [
        (json!({"clusterManagerUrn": null}), ".clusterManagerUrn: missing"),
        (json!({"serviceId": 5}), ".serviceId: expected a string, found a number"),
        (json!({"image": []}), ".image: expected a string, found a list"),
        (json!({"command": {}}), ".command: expected a list of strings, found an object"),
        (json!({"options": ["--read-only", null]}), ".options: expected strings only"),
        (json!({"env": "A=1"}), ".env: expected an object of strings, found a string"),
        (json!({"env": {"A": []}}), ".env: expected strings only"),
        (json!({"mountPoints": 1}), ".mountPoints: expected a list, found a number"),
        (json!({"mountPoints": [1]}), ".mountPoints[0]: expected an object, found a number"),
        (json!({"mountPoints": [{"target": "/a"}]}), ".mountPoints[0].volumeSize: expected GiB, 1 to 100"),
    ] {
        let (service, found) = managed(changes);
        assert_eq!((found, service.availability), (vec![expected.to_owned(), last.to_owned()], None));
    }
    let yaml = json!({"image": 7, "command": ["sleep", 60], "env": {"PORT": 8080, "ON": true}});
    let (service, found) = managed(yaml);
    let availability = service.availability.unwrap();
    assert_eq!((&availability.image[..], &availability.command[1][..]), ("7", "60"));
    assert_eq!((&availability.env["PORT"][..], &availability.env["ON"][..]), ("8080", "true"));
    assert_eq!(found.len(), 4);
    let secret = found.iter().find(|found| found.starts_with(".env.PORT: ")).unwrap();
    assert!(!secret.contains("8080"), "a log is no place for what may be a secret: {secret}");
}

/// The inventory that comes with the original programs: texts in place of times, which those programs never read.
#[test]
fn placeholders_in_place_of_times_refuse_nothing() {
    let mut inventory = two_realms();
    inventory["realms"][1]["hubs"][0]["serverPort"] = json!(4434);
    for realm in inventory["realms"].as_array_mut().unwrap() {
        realm["expiredAt"] = json!("expired time");
        for service in realm["hubs"][0]["services"].as_array_mut().unwrap() {
            service["availabilityManagement"] = json!({"clusterManagerUrn": "docker:", "serviceId": "s",
                "startAt": "start time", "stopAt": "stop time", "ondemandStartOnConsumer": true});
        }
    }
    let (usable, found) = read(&inventory, UNIX);
    let enabled = usable.realms.iter().filter(|realm| realm.is_enabled);
    let services = enabled.flat_map(|realm| &realm.hubs[0].services);
    assert_eq!(services.filter(|service| service.availability.is_some()).count(), 4);
    assert_eq!(found.len(), 2 + 4 * 2);
    assert!(found.iter().all(|finding| finding.severity == Severity::Warning), "{found:?}");
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

#[test]
fn of_thousands_of_faults_the_first_hundred_are_listed_and_the_rest_counted() {
    let mut inventory = good();
    let realms = inventory["realms"].as_array_mut().unwrap();
    realms.extend((0..5000).map(|_| json!([])));
    realms.push(json!({"name": "x".repeat(10_000) + "!", "cacert": ""}));
    let found = findings(&inventory);
    assert_eq!(found.len(), 102, "{found:?}");
    assert_eq!(found[99], "realms[100]: expected an object, found a list");
    assert!(found.contains(&"inventory: 4902 more errors".to_owned()), "{found:?}");
    let (inventory, list) = read(&inventory, UNIX);
    assert_eq!(inventory.realms.len(), 1, "what is good is used");
    assert_eq!((count(&list, Severity::Error), count(&list, Severity::Warning)), (5002, 1));
    let (_, found) = with("/realms/0/hubs/0/services/0/name", json!("é".repeat(10_000)));
    assert!(found.iter().all(|finding| finding.len() < 600), "a line that can be read");
}

#[test]
fn a_member_that_nobody_knows_is_a_warning_once_for_each_kind_of_record() {
    let (inventory, found) = with("/realms/0/hubs/0/services/0/consumer", json!(["x"]));
    assert_eq!(
        found,
        ["warning: realms[0].hubs[0].services[0]: `consumer` is no member of a service: ignored, here and elsewhere"]
    );
    assert_eq!(inventory.realms[0].hubs[0].services.len(), 2);
    let mut inventory = good();
    for service in inventory["realms"][0]["hubs"][0]["services"].as_array_mut().unwrap() {
        service["singelton"] = json!(true);
    }
    inventory["realms"][0]["hubs"][0]["singelton"] = json!(true);
    assert_eq!(findings(&inventory).len(), 2, "{:?}", findings(&inventory));
}
