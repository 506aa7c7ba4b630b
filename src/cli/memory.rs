//! The memory plan, for people and for the device.

use super::progress::bytes;
use crate::device::{Plan, Region};

/// `memory 1.2 GiB (weights 0.3 GiB, ...)`.
pub fn line(plan: &Plan) -> String {
    let part = |region: Region| format!("{} {}", region.name(), bytes(plan.bytes(region) as u64));
    let parts: Vec<String> = Region::ALL.map(part).to_vec();
    format!("memory {} ({})", bytes(plan.total() as u64), parts.join(", "))
}

/// Room for responses that make other batches than the largest ones counted. On the CPU, the emulated GPU's included, a
/// region is mapped and touched only as it is used, so the slack costs nothing.
pub fn with_slack(plan: &Plan) -> Plan {
    Region::ALL.iter().fold(*plan, |plan, &region| plan.with(region, plan.bytes(region) * 2 + (64 << 20)))
}
