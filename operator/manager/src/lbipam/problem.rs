//! Why a Service lacks an address, in words for its owner. Pure.

use std::net::IpAddr;

use skep_model::IpFamily;

/// Why one address, or an address of one family, was not assigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// A request is no address.
    #[error("{0:?} is not an IP address: check the annotation lbipam.skep.dev/ips and spec.loadBalancerIP")]
    Malformed(String),
    /// A request is of a family that the Service does not have.
    #[error("{0} is asked for, but {family} is not among the Service's ipFamilies", family = IpFamily::of(*.0))]
    Family(IpAddr),
    /// No pool has the requested address.
    #[error("{0} lies outside all pools")]
    Outside(IpAddr),
    /// A pool has the address but may not give it.
    #[error("{address} cannot be given: {reason}")]
    Withheld {
        /// The address.
        address: IpAddr,
        /// Why.
        reason: String,
    },
    /// Another has the address.
    #[error("{address} is in use by {holder}{}", reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who.
        holder: String,
        /// Why they cannot share it.
        reason: Option<String>,
    },
    /// No pool may give an address of the family.
    #[error("no pool matches for {family}: {reason}")]
    NoPool {
        /// The family.
        family: IpFamily,
        /// Which pools there are and why they do not match.
        reason: String,
    },
    /// Every address is taken.
    #[error("every {family} address of {pools} is in use")]
    Exhausted {
        /// The family.
        family: IpFamily,
        /// The pools that match.
        pools: String,
    },
}

impl Problem {
    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Problem::Malformed(_) => "InvalidRequest",
            Problem::Family(_) => "FamilyMismatch",
            Problem::Outside(_) => "AddressOutsidePools",
            Problem::Withheld { .. } => "AddressNotGiven",
            Problem::InUse { .. } => "AddressInUse",
            Problem::NoPool { .. } => "NoMatchingPool",
            Problem::Exhausted { .. } => "PoolExhausted",
        }
    }
}
