//! Where policy verdicts come from. No policy exists yet: everything that got this far is allowed.
//!
//! The call sites are final: once for the sender's side and once for the receiver's, on every packet of the original
//! direction, so that a change of policy bites at once, and before a flow is recorded; replies follow their flow's entry.

use skep_abi::{Addr, DropReason, ipcache::class};

use crate::{conntrack::Target, env::Env, frame::Frame};

/// Whose policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's egress policy.
    Egress,
    /// The receiver's ingress policy.
    Ingress,
}

/// What policy says.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet may pass.
    Allow,
    /// It may not.
    Deny,
}

impl Verdict {
    /// The verdict as a reason to drop.
    ///
    /// # Errors
    /// [`DropReason::PolicyDenied`].
    #[inline(always)]
    pub fn enforce(self) -> Result<(), DropReason> {
        match self {
            Verdict::Allow => Ok(()),
            Verdict::Deny => Err(DropReason::PolicyDenied),
        }
    }
}

/// The verdict of one side for a packet of the original direction. The frame has the client's own address and port; `to`
/// is where the packet goes after translation.
#[inline(always)]
pub fn verdict<A: Addr, E: Env<A>>(_env: &mut E, _frame: &Frame<A>, _to: &Target<A>, _side: Side) -> Verdict {
    Verdict::Allow
}

/// Both sides' verdict.
///
/// # Errors
/// [`DropReason::PolicyDenied`].
#[inline(always)]
pub fn enforce<A: Addr, E: Env<A>>(env: &mut E, frame: &Frame<A>, to: &Target<A>) -> Result<(), DropReason> {
    verdict(env, frame, to, Side::Egress).enforce()?;
    verdict(env, frame, to, Side::Ingress).enforce()
}

/// The class that a peer has when the ipcache does not know it.
#[inline(always)]
pub fn unknown_class<A: Addr, E: Env<A>>(env: &E, addr: A) -> u32 {
    if env.is_cluster(addr) || env.is_service(addr) { class::UNKNOWN } else { class::WORLD }
}
