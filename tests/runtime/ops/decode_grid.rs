//! Tests the number of CTAs of a decode step.

use omr_runtime::device::limits::AMPERE;
use omr_runtime::device::recording_driver::{Entry, RecordingDriver};
use omr_runtime::device::{Device, Kind, Launch, Plan, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::paged_attention::{Decode, DecodeStep, KvCache, Paged, fwd};
use omr_runtime::tensor::DType;

/// Returns the grid of the launch for a step of `sequences` sequences with `keys` keys each, whose tables have 257
/// columns.
fn grid(sequences: usize, keys: u32) -> [u32; 3] {
    let properties = AMPERE.properties("none", 108, 1 << 40);
    let dev =
        &mut Device::gpu(Box::new(RecordingDriver::new(properties)), Kind::Cuda, &Plan::uniform(1 << 42)).unwrap();
    let (heads, at) = (Heads { q: 28, kv: 4, dim: 128 }, Region::Overlay);
    let (cu, contexts) = ((0..=sequences as u32).collect::<Vec<_>>(), vec![keys; sequences]);
    let tables: Vec<u32> = (0..257 * sequences as u32).collect();
    let step = DecodeStep { cu_seqlens_q: &cu, context_lens: &contexts, block_tables: &tables };
    let decode = Some(Decode::of(dev, at, step, heads).unwrap());
    let cache = KvCache::alloc(dev, at, DType::Bf16, tables.len(), heads).unwrap();
    let [qkv, out] = [heads.qkv_len(), heads.out_len()].map(|n| dev.alloc(at, DType::Bf16, &[sequences, n]).unwrap());
    let paged = Paged {
        cache: &cache,
        block_tables: dev.upload(at, &tables, &[sequences, 257]).unwrap(),
        cu_seqlens_q: dev.upload(at, &cu, &[sequences + 1]).unwrap(),
        context_lens: dev.upload(at, &contexts, &[sequences]).unwrap(),
        heads,
        scale: 1.0,
        decode,
    };
    fwd(dev, paged, qkv, out).unwrap();
    let mut entries = dev.driver().unwrap().as_any().downcast_mut::<RecordingDriver>().unwrap().take();
    entries.retain(|entry| !matches!(entry, Entry::Fill(_)));
    match entries[..] {
        [Entry::Launch("paged_attention_decode_hd128", Launch { grid, .. }, _)] => grid,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_step_has_no_more_ctas_than_a_card_holds() {
    assert_eq!([grid(1, 28_000), grid(1024, 1000)], [[17, 4, 1], [108, 4, 1]]);
}
