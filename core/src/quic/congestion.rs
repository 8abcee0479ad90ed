//! Congestion control: how much may be on its way, and what a lost packet means.

mod bbr;
mod model;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use quinn_proto::congestion::{ControllerFactory, CubicConfig};
use serde::{Deserialize, Serialize};

/// How a sender finds out how much its path carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// CUBIC (RFC 9438): every loss means that a queue has overflowed. Friendly to its neighbours, slow where packets are lost by chance.
    Cubic,
    /// A model of the path after BBR: the rate at which it delivers and its shortest round trip say how much may be on its way. Losses
    /// by chance cost what was lost, and no queue stands in front of the narrowest hop for long.
    #[default]
    Bbr,
}

impl Congestion {
    pub(super) fn factory(self) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::Bbr => Arc::new(bbr::BbrConfig),
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        })
    }
}

/// There is no such congestion control.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no congestion control: expected cubic or bbr")]
pub struct CongestionError(String);

impl FromStr for Congestion {
    type Err = CongestionError;

    fn from_str(text: &str) -> Result<Self, CongestionError> {
        match text {
            "cubic" => Ok(Self::Cubic),
            "bbr" => Ok(Self::Bbr),
            other => Err(CongestionError(other.to_owned())),
        }
    }
}
