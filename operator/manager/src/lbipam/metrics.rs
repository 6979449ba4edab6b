//! What is measured of LB-IPAM, over all pools and Services: their names are no labels.

use prometheus::{IntGaugeVec, Opts, Registry};

use super::plan::{Holder, Plan, Verdict};

/// Gauges, refreshed with each plan.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    addresses: IntGaugeVec,
    services: IntGaugeVec,
    pools: IntGaugeVec,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, label: &str| -> prometheus::Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Metrics {
            addresses: gauge("skep_lbipam_addresses", "Addresses that Services have, by family.", "family")?,
            services: gauge("skep_lbipam_services", "Services of type LoadBalancer, by outcome.", "outcome")?,
            pools: gauge("skep_lbipam_pools", "Pools, by whether they give addresses.", "state")?,
        })
    }

    /// Takes over what a plan says.
    pub(crate) fn observe(&self, plan: &Plan<'_>) {
        let set = |gauge: &IntGaugeVec, label: &str, count: usize| {
            gauge.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        let held = |v4: bool| {
            let ours = |holder: &Holder<'_>| matches!(holder, Holder::Service(_));
            plan.taken.iter().filter(|(ip, by)| ip.is_ipv4() == v4 && by.iter().any(ours)).count()
        };
        set(&self.addresses, "IPv4", held(true));
        set(&self.addresses, "IPv6", held(false));
        let outcome = |wanted: fn(&Verdict) -> bool| plan.services.values().filter(|v| wanted(v)).count();
        set(&self.services, "assigned", outcome(|verdict| matches!(verdict, Verdict::Assigned(..))));
        set(&self.services, "unmet", outcome(|verdict| matches!(verdict, Verdict::Unmet(..))));
        let gives = plan.pools.iter().filter(|pool| pool.gives()).count();
        set(&self.pools, "gives", gives);
        set(&self.pools, "silent", plan.pools.len() - gives);
    }
}
