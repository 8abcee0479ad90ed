//! Who the peer is, as its certificate says.

use std::fmt::Write;

use rustls::pki_types::CertificateDer;
use x509_parser::{asn1_rs::ToDer, extensions::GeneralName, oid_registry as oid, prelude::*};

/// The peer's leaf certificate, in words. The chain has been verified before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The first Common Name of the Subject, if it is a string and not empty.
    pub common_name: Option<String>,
    /// The Subject as RFC 4514 writes it: last RDN first.
    pub subject: String,
    /// URIs of the Subject Alternative Name.
    pub uris: Vec<String>,
}

impl PeerIdentity {
    /// Reads a certificate; an unreadable one gives an empty identity, which is entitled to nothing.
    pub(crate) fn from_certificate(der: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok());
        let names = certificate.subject_alternative_name().ok().flatten();
        let uris = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None });
        Self {
            common_name: common_name.filter(|cn| !cn.is_empty()).map(str::to_owned),
            subject: rfc4514(subject),
            uris: uris.collect(),
        }
    }
}

/// RFC 4514 §2: RDNs in reverse order joined by commas, attributes of one RDN by plus signs.
fn rfc4514(name: &X509Name<'_>) -> String {
    let rdns: Vec<String> =
        name.iter_rdn().map(|rdn| rdn.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    rdns.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// RFC 4514 §2.3: a short name with an escaped string, or a dotted OID with the hex of the value's encoding.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    match (short_name(attribute.attr_type()), attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escape(value)),
        _ => {
            let value = attribute.attr_value();
            let mut text = format!("{}=#", attribute.attr_type());
            for byte in value.to_der_vec().unwrap_or_default() {
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

fn short_name(kind: &oid::Oid<'_>) -> Option<&'static str> {
    let names = [
        (oid::OID_X509_COMMON_NAME, "CN"),
        (oid::OID_X509_LOCALITY_NAME, "L"),
        (oid::OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
        (oid::OID_X509_ORGANIZATION_NAME, "O"),
        (oid::OID_X509_ORGANIZATIONAL_UNIT, "OU"),
        (oid::OID_X509_COUNTRY_NAME, "C"),
        (oid::OID_X509_STREET_ADDRESS, "STREET"),
        (oid::OID_DOMAIN_COMPONENT, "DC"),
        (oid::OID_USERID, "UID"),
    ];
    names.iter().find(|(oid, _)| oid == kind).map(|(_, name)| *name)
}

/// RFC 4514 §2.4.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '\0' => out.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            // Not asked for by the RFC, but allowed: no certificate writes a line of its own into a log.
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{byte:02x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn identity(names: &[(DnType, &str)], uri: Option<&str>) -> PeerIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        PeerIdentity::from_certificate(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn subject_is_written_as_in_rfc_4514() {
        let peer = identity(
            &[
                (DnType::CountryName, "JP"),
                (DnType::OrganizationName, "Sue, Grabbit and Runn"),
                (DnType::CommonName, " #a+b=c\\"),
            ],
            Some("urn:chip-in:end-point:x"),
        );
        assert_eq!(peer.subject, "CN=\\ #a\\+b=c\\\\,O=Sue\\, Grabbit and Runn,C=JP");
        assert_eq!(peer.common_name.as_deref(), Some(" #a+b=c\\"));
        assert_eq!(peer.uris, ["urn:chip-in:end-point:x"]);
    }

    #[test]
    fn unknown_attributes_are_written_in_hex_and_control_characters_escaped() {
        let peer = identity(&[(DnType::CustomDnType(vec![2, 5, 4, 5]), "7"), (DnType::CommonName, "a\nb")], None);
        assert_eq!(peer.subject, "CN=a\\0ab,2.5.4.5=#0c0137");
    }

    #[test]
    fn no_common_name() {
        assert_eq!(identity(&[(DnType::OrganizationName, "x")], None).common_name, None);
    }
}
