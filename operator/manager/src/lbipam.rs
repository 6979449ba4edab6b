//! LB-IPAM: gives Services of type LoadBalancer addresses from the cluster's `LoadBalancerIPPool`s.
//!
//! Map: [`facts`] is what matters of the objects, [`range`], [`pool`] and [`sharing`] are the rules, [`plan`] says who
//! gets what, [`report`] what everybody's status says, all of them pure; [`watch`] brings the facts in, [`controller`]
//! carries plans out, and [`metrics`] counts.
//!
//! The only memory is the Services' status: what is assigned there is adopted before anything new is given. So
//! nothing is planned before every list is in, and after a write the result is known before the next plan is made.

mod controller;
mod facts;
mod metrics;
mod plan;
mod policy;
mod pool;
mod problem;
mod range;
mod report;
mod sharing;
mod watch;

pub(crate) use controller::run;
pub(crate) use metrics::Metrics;
pub(crate) use plan::Settings;
pub(crate) use pool::Reserved;
