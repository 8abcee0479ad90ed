//! What can be wrong with a certificate, beyond what TLS itself would say.

use std::time::Duration;

use ::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::*;

/// A certificate of a PEM text, as far as an operator has to know it.
pub(super) struct Facts {
    pub(super) is_ca: bool,
    pub(super) has_alt_name: bool,
    not_before: i64,
    not_after: i64,
}

/// The facts of each certificate of a text; unreadable ones are left to TLS.
pub(super) fn facts(pem: &str) -> Vec<Facts> {
    let read = |der: CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Some(Facts {
            is_ca: certificate.is_ca(),
            has_alt_name: certificate.subject_alternative_name().ok().flatten().is_some(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    };
    CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().filter_map(read).collect()
}

impl Facts {
    /// What is wrong with its validity at `now`, if anything: an error text or a warning text.
    pub(super) fn validity(&self, now: Duration) -> Option<Result<String, String>> {
        let now = now.as_secs() as i64;
        let days = |seconds: i64| seconds / 86_400;
        if now > self.not_after {
            Some(Err(format!("the certificate expired {} days ago", days(now - self.not_after))))
        } else if now < self.not_before {
            // It will be; and a machine without a clock of its own finds every certificate too young when it starts.
            let from =
                OffsetDateTime::from_unix_timestamp(self.not_before).ok().and_then(|at| at.format(&Rfc3339).ok());
            Some(Ok(format!(
                "the certificate is not valid before {}: nobody believes it until then, unless this machine's clock is wrong",
                from.unwrap_or_default()
            )))
        } else if self.not_after - now < 14 * 86_400 {
            Some(Ok(format!("the certificate expires in {} days", days(self.not_after - now))))
        } else {
            None
        }
    }
}
