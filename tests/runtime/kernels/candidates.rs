//! Tests of kernels/candidates_sm90a.cu, in a build with the feature `candidates`: each kernel has the bits of the kernel
//! that it may replace, and every wait and barrier is needed.

use omr_runtime::device::Device;
use omr_runtime::ops::gemm::candidates;
use omr_runtime::ops::variants::candidates::candidates_fault;

use crate::kernels::gemm_sm90a::{BODY, ran, wide, wide_with};
use crate::kernels::{Outcome, kind, mutate_sites_on, no_hopper};
use omr_runtime::device::Kind;

fn probe(dev: &mut Device) -> Outcome {
    match candidates_fault(dev)? {
        Some(fault) => Err(fault.into()),
        None => Ok(()),
    }
}

#[test]
fn bits_are_those_of_the_kernels_that_they_may_replace() {
    if no_hopper("wgmma") {
        return;
    }
    assert_eq!(candidates().len(), 12);
    let mut dev = wide();
    probe(&mut dev).unwrap();
    assert!(kind() == Kind::Cuda || ran(&mut dev));
}

#[test]
#[ignore = "each site of every kernel"]
fn every_wait_and_barrier_of_a_candidate_is_needed() {
    if !no_hopper("wgmma") {
        mutate_sites_on(wide_with, &[BODY], 2, probe);
    }
}
