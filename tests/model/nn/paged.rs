//! Tests the engine's path: chunked prefill and decode through a paged cache give bitwise the same results as
//! training's forward pass.

use std::sync::Arc;

use omr_base::philox::{Purpose, Random};
use omr_data::image::ImageInput;
use omr_model::nn::tape::layers::Paging;
use omr_model::nn::{Attend, Inputs, LayerPolicy, Mode, Model, ModelConfig, Tape};
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::ops::paged_attention::KvCache;
use omr_runtime::tensor::{DType, Tensor};

use super::qwen3_vl::qwen3_vl;
use super::{config, device, image, seed};
use crate::models;

/// Number of last tokens of each sequence that are decoded one by one.
const DECODED: usize = 4;

fn bits(dev: &mut Device, t: Tensor) -> Vec<Vec<u32>> {
    let values: Vec<u32> = match t.dtype {
        DType::Bf16 => dev.read::<half::bf16>(t).unwrap().iter().map(|x| u32::from(x.to_bits())).collect(),
        _ => dev.read::<f32>(t).unwrap().iter().map(|x| x.to_bits()).collect(),
    };
    values.chunks(t.cols()).map(<[u32]>::to_vec).collect()
}

/// Returns the hidden rows of tokens `from..to` of each sequence. The earlier tokens are in `caches`. Sequence s owns
/// the blocks 2 s + 1 and 2 s.
fn step(
    dev: &mut Device,
    model: &Model,
    caches: &Arc<[KvCache]>,
    sequences: &[Inputs],
    ranges: &[std::ops::Range<usize>],
) -> Vec<Vec<u32>> {
    let mut tape = Tape::new(dev, Mode::Infer);
    let (mut ids, mut positions, mut slots) = (Vec::new(), [vec![], vec![], vec![]], Vec::new());
    let (mut tables, mut cu, mut lens, mut rows) = (Vec::new(), vec![0u32], Vec::new(), Vec::new());
    for (s, (inputs, range)) in sequences.iter().zip(ranges).enumerate() {
        let start = ids.len();
        ids.extend_from_slice(&inputs.input_ids[range.clone()]);
        for (all, axis) in positions.iter_mut().zip(&inputs.position_ids) {
            all.extend_from_slice(&axis[range.clone()]);
        }
        let table = [2 * s + 1, 2 * s];
        slots.extend(range.clone().map(|t| (table[t / BLOCK] * BLOCK + t % BLOCK) as u32));
        tables.extend(table.map(|b| b as u32));
        cu.push(ids.len() as u32);
        lens.push(range.end as u32);
        let places = inputs
            .images
            .iter()
            .flat_map(|image| &image.places)
            .enumerate()
            .filter(|(_, t)| range.contains(&(**t as usize)));
        rows.extend(places.map(|(row, &t)| (s, row as u32, (start + t as usize - range.start) as u32)));
    }
    let x = model.embed(&mut tape, dev, &ids).unwrap();
    let mut vision = Vec::new();
    for (s, inputs) in sequences.iter().enumerate() {
        let (from, to): (Vec<u32>, Vec<u32>) = rows.iter().filter(|r| r.0 == s).map(|r| (r.1, r.2)).unzip();
        if from.is_empty() {
            continue;
        }
        let images: Vec<Arc<ImageInput>> = inputs.images.iter().map(|image| image.image.clone()).collect();
        let dims = [inputs.images.iter().map(|image| image.places.len()).sum(), model.vision_width()];
        let merged = dev.alloc(Region::Workspace, model.layout.dtype, &dims).unwrap();
        model.encode_images(&mut tape, dev, &images, merged).unwrap();
        let merged = tape.var(merged);
        let from = tape.upload(dev, &from, &[from.len()]).unwrap();
        let to = tape.upload(dev, &to, &[to.len()]).unwrap();
        let picked = tape.gather(dev, merged, from, None).unwrap();
        vision.push(model.place_rows(&mut tape, dev, picked, to, x, true).unwrap());
    }
    let paging = Paging {
        slot_mapping: tape.upload(dev, &slots, &[slots.len()]).unwrap(),
        block_tables: tape.upload(dev, &tables, &[sequences.len(), 2]).unwrap(),
        cu_seqlens_q: tape.upload(dev, &cu, &[cu.len()]).unwrap(),
        context_lens: tape.upload(dev, &lens, &[lens.len()]).unwrap(),
        decode: None,
    };
    let attend = Attend::Paged { caches: caches.clone(), paging: Box::new(paging) };
    let hidden = model.decode(&mut tape, dev, x, &positions, attend, vision).unwrap();
    let out = bits(dev, hidden.tensor);
    tape.finish(dev);
    out
}

#[test]
fn prefill_and_decode_give_the_bits_of_training() {
    step_by_step(&config(false));
    step_by_step(&qwen3_vl());
}

fn step_by_step(config: &ModelConfig) {
    let mut random = Random::new(seed(), Purpose::Test, 3);
    let mut text = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(80) as u32).collect() };
    let first = text(BLOCK + 23);
    let second = [text(5), vec![82], vec![80; 6], vec![83], text(20)].concat();
    let mut random = Random::new(seed(), Purpose::Test, 4);
    let images = [image(config, &mut random, [1, 4, 6], 1)];
    let alone = [(&first[..], &[][..]), (&second[..], &images[..])].map(|s| models::inputs(config, &[s]));
    let pack = models::inputs(config, &[(&first, &[]), (&second, &images)]);

    for dtype in [DType::F32, DType::Bf16] {
        let mut dev = device(2);
        let model = Model::init(&mut dev, config.clone(), dtype, seed()).unwrap();
        let mut tape = Tape::new(&dev, Mode::train(LayerPolicy::All));
        let hidden = model.forward(&mut tape, &mut dev, &pack).unwrap();
        let trained = bits(&mut dev, hidden.tensor);
        tape.finish(&mut dev);

        let heads = config.text.layers[0].heads;
        let cache = |_| KvCache::alloc(&mut dev, Region::Overlay, dtype, 4, heads).unwrap();
        let caches: Vec<KvCache> = (0..config.text.layers.len()).map(cache).collect();
        let caches: Arc<[KvCache]> = caches.into();
        let (a, b) = (first.len(), second.len());
        let mut plan = vec![[0..70, 0..9], [70..a - DECODED, 9..b - DECODED]];
        plan.extend((0..DECODED).rev().map(|left| [a - left - 1..a - left, b - left - 1..b - left]));
        for ranges in plan {
            let found = step(&mut dev, &model, &caches, &alone, &ranges);
            let [ra, rb] = ranges.clone();
            let want = [&trained[ra], &trained[rb.start + a..rb.end + a]].concat();
            assert!(found == want, "{dtype:?} {ranges:?}");
        }
    }
}
