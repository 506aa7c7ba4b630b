//! Tests the start checks of the wgmma kernels.

use std::collections::BTreeSet;

use omr_runtime::device::WgmmaKernels::{Attention, AttentionBwd};
use omr_runtime::device::recording_driver::{Entry, RecordingDriver};
use omr_runtime::device::{Device, KernelVariant, Kind, Plan, Region};
use omr_runtime::ops::linear;
use omr_runtime::ops::variants::{epilogues, start_check_bytes, wgmma_fault};

/// Runs the parts of the check on a device with the multiprocessors of an H200, which records the launches and
/// computes nothing: the parts fit into the memory, and the epilogues run with every tile.
#[test]
fn the_check_of_a_gpu_fits_its_memory_and_runs_every_tile() {
    let plan = Plan::default().with(Region::Workspace, start_check_bytes(Kind::Cuda));
    let mut dev = Device::gpu(Box::new(RecordingDriver::hopper("none", 1 << 40)), Kind::Cuda, &plan).unwrap();
    dev.use_variant(KernelVariant::Wgmma).unwrap();
    linear::wgmma_fault(&mut dev).unwrap();
    assert_eq!(epilogues::fault(&mut dev).unwrap(), None);
    for kernels in [Attention(80), AttentionBwd(80), Attention(128), AttentionBwd(128)] {
        assert_eq!(wgmma_fault(&mut dev, kernels).unwrap(), None);
    }
    let driver = dev.driver().unwrap().as_any().downcast_mut::<RecordingDriver>().unwrap();
    let launched: BTreeSet<&str> = driver
        .take()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Launch(name, ..) => Some(name),
            _ => None,
        })
        .collect();
    let tiles = ["wide", "square", "short", "half", "narrow", "slim"];
    for (kernel, tiles) in [
        ("linear", &tiles[..]),
        ("linear_qkv", &tiles[..5]),
        ("linear_gelu", &tiles[..3]),
        ("linear_swiglu", &tiles[..3]),
        ("linear_dgrad", &tiles[..3]),
        ("linear_wgrad", &tiles[..3]),
        ("linear_logprob", &tiles[..3]),
    ] {
        for tile in tiles {
            assert!(launched.contains(format!("{kernel}_{tile}").as_str()), "{kernel}_{tile}: {launched:?}");
        }
    }
}
