//! Compares the memory plans of the 7B model on one GPU with calculations by hand: 61,440 tokens of SFT, 32,792 tokens
//! of RL, and an image of 5,350 tokens.

use std::sync::Arc;

use omr_base::config::RolloutConfig;
use omr_base::config::{Dtype, OptimConfig, OptimizerName, RlConfig, SftConfig};
use omr_base::error::Error;
use omr_data::image::ImageInput;
use omr_data::rows::{Index, Shape};
use omr_model::nn::{CheckpointPolicy, LayerPolicy, ModelConfig, Stack};
use omr_runtime::device::{Kind, Plan, Region, Target};
use omr_runtime::ranks::OneRank;
use omr_runtime::tensor::DType;
use omr_train::rl;
use omr_train::training::levels::SizeClass;
use omr_train::training::nll;
use omr_train::training::plan::{self, Training};
use omr_train::training::step::Sequence;

/// Width, MLP width, q + k + v, heads, vocabulary size and layers of the decoder.
const D: usize = 3584;
const F: usize = 18_944;
const QKV: usize = 4608;
const HEADS: usize = 28;
const V: usize = 152_064;
const L: usize = 28;
/// Width, heads and blocks of the vision tower. Its MLP width of 3,420 is padded to 3,424 rows (a multiple of 32) and
/// 3,456 columns (a multiple of 64).
const C: usize = 1280;
const VISION_HEADS: usize = 16;
const BLOCKS: usize = 32;
const VF: usize = 3424;
const VF_COLUMNS: usize = 3456;
const BF16: usize = 2;
const F32: usize = 4;
/// Tolerance in bytes. Tensors are aligned to 256 bytes, and a few tensors contain only one or two numbers.
const ALIGNED: usize = 1 << 20;

fn model() -> ModelConfig {
    let path = omr_base_tests::root().join("configs/openmmreasoner-7b/model/config.json");
    ModelConfig::load(&path).unwrap()
}

/// Number of weight elements of the vision tower in memory.
fn tower() -> usize {
    let mlp = 2 * VF * C + 2 * VF + C * VF_COLUMNS + C;
    let block = 2 * C + 3 * C * C + 3 * C + C * C + C + mlp;
    // A patch has 3 x 2 x 14 x 14 = 1,176 numbers, padded to 1,216. The merger joins four patches.
    let merger = C + (4 * C) * (4 * C) + 4 * C + D * 4 * C + D;
    BLOCKS * block + merger + C * 1216
}

/// Number of weight elements in memory.
fn elements() -> usize {
    let layer = 2 * D + QKV * D + QKV + D * D + 2 * F * D + D * F;
    L * layer + D + 2 * V * D + tower()
}

/// Bytes of the gradients: the sums of all elements, and the largest bucket of a micro-batch, which is the tower.
fn gradients() -> usize {
    F32 * (elements() + tower())
}

/// Returns the bytes of a token's activations that a layer stores, by activation checkpointing policy:
///
/// - `All`: output, two norms with 1/rms, qkv, attention with the logsumexp of its heads, the sum after it, product,
///   gate and up.
/// - `AllButGateUp`: output, qkv, attention, sum.
/// - `Inputs`: output, attention.
fn layer(keep: LayerPolicy) -> usize {
    let attention = BF16 * D + F32 * HEADS;
    match keep {
        LayerPolicy::All => BF16 * (4 * D + QKV + 3 * F) + 2 * F32 + attention,
        LayerPolicy::AllButGateUp => BF16 * (2 * D + QKV) + attention,
        LayerPolicy::Inputs => BF16 * D + attention,
    }
}

/// Returns the bytes per token that the recomputation of a layer needs in addition to its stored activations.
fn replayed(keep: LayerPolicy) -> usize {
    match keep {
        LayerPolicy::All => 0,
        // The parts of a layer are recomputed one after the other, so only the largest part counts: a norm, gate, up
        // and product.
        LayerPolicy::AllButGateUp => BF16 * (D + 3 * F) + F32,
        LayerPolicy::Inputs => layer(LayerPolicy::All) - layer(LayerPolicy::Inputs),
    }
}

/// Bytes per token below all layers: its id four times (the id, its position and two segment numbers), the embedding,
/// and the rotation tables.
const BELOW: usize = 4 * 4 + BF16 * D + F32 * 128;

/// Bytes above all layers. Per token: the last norm. Per target: row number, id, row, log-prob, logsumexp and its
/// gradient.
fn above(tokens: usize, targets: usize) -> usize {
    (BF16 * D + F32) * tokens + (BF16 * D + 5 * 4) * targets
}

fn near(found: usize, by_hand: usize, what: &str) {
    println!("{what}: {found} bytes, {by_hand} by hand");
    assert!(found.abs_diff(by_hand) <= ALIGNED, "{what}: {found} bytes, {by_hand} by hand");
}

fn sft_config(tokens: usize) -> SftConfig {
    SftConfig { dtype: Dtype::Bf16, packing_length: tokens, micro_batch_tokens: tokens.into(), ..SftConfig::default() }
}

/// Returns a GPU with the given number of GiB for the run.
fn gpu(gib: usize) -> Target {
    Target::gpu(Kind::Cuda).within(Some(gib << 30))
}

/// Returns the overlay bytes of one pass over one sequence, with gradients, for each of `levels`.
fn overlays(input_ids: &[u32], images: &[Arc<ImageInput>], levels: &[CheckpointPolicy]) -> Vec<usize> {
    let config = sft_config(input_ids.len());
    let mut training =
        Training::new(model(), config.dtype, config.optimizer, Target::gpu(Kind::Cuda), OneRank::ALONE).unwrap();
    let (mut grads, _) = training.gradients().unwrap();
    let Training { mut dev, model, .. } = training;
    near(dev.high_water().bytes(Region::Weights), BF16 * elements(), "weights");
    near(dev.high_water().bytes(Region::Overlay), gradients(), "gradients");
    let loss = dev.zeros(Region::Overlay, DType::F64, &[1]).unwrap();
    let loss_mask = vec![true; input_ids.len()];
    let sequence =
        Sequence { input_ids, images, prompt_len: input_ids.len(), loss_mask: &loss_mask, same_prompt: false };
    let overlay = |&levels: &CheckpointPolicy| {
        dev.reset_high_water();
        nll::gradients(&mut dev, &model, &mut grads, &[sequence], input_ids.len(), levels, loss).unwrap();
        dev.high_water().bytes(Region::Overlay)
    };
    levels.iter().map(overlay).collect()
}

#[test]
fn tokens_61440_at_each_level() {
    let t = 61_440;
    let keeps = [LayerPolicy::All, LayerPolicy::AllButGateUp, LayerPolicy::Inputs];
    let found = overlays(&vec![0; t], &[], &keeps.map(CheckpointPolicy::from));
    for (keep, found) in keeps.into_iter().zip(found) {
        // The peak is at the end of the forward pass, or while the last layer is recomputed and most other layers are
        // still stored.
        let kept = (BELOW + L * layer(keep)) * t;
        let by_hand = gradients() + kept + (replayed(keep) * t).max(above(t, t - 1));
        near(found, by_hand, &format!("{keep:?}"));
    }
    // Reference: 145.7 GB of activations for 32,768 tokens if everything is stored.
    assert_eq!((layer(LayerPolicy::All) * 32_768 * L) / 100_000_000, 1457);
}

/// Returns the cheapest policy for a text of `t` tokens with `room` bytes of overlay beyond the gradients. The first n
/// layers recompute gate and up (2 x D x 2F operations per token). The first i of them also recompute q, k, v and the
/// projection after attention. The peak is at the end of the forward pass, or while a layer is recomputed on top of the
/// activations that are still stored.
fn by_hand(t: usize, room: usize) -> Option<Stack> {
    let (gate_up, rest) = (2 * D * 2 * F, 2 * (D * QKV + D * D));
    let mut best: Option<(usize, Stack)> = None;
    for n in 0..=L {
        for i in 0..=n {
            let stack = Stack { inputs: i, all_but_gate_up: n - i };
            let (mut kept, mut most) = (BELOW * t, 0);
            for index in 0..L {
                kept += layer(stack.keep(index)) * t;
                most = most.max(kept + replayed(stack.keep(index)) * t);
            }
            let cost = n * gate_up + i * rest;
            if most.max(kept + above(t, t - 1)) <= room && best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, stack));
            }
        }
    }
    best.map(|(_, stack)| stack)
}

/// Returns the plan of SFT on one text of `tokens`.
fn text_plan(tokens: usize, optim: OptimizerName, gib: usize) -> plan::Planned {
    let mut config = sft_config(tokens);
    config.optimizer.optim = optim;
    let (input_ids, loss_mask) = (vec![0; tokens], vec![true; tokens]);
    let sequence =
        Sequence { input_ids: &input_ids, images: &[], prompt_len: tokens, loss_mask: &loss_mask, same_prompt: false };
    plan::sft(model(), &config, gpu(gib), OneRank::ALONE, 1, &[SizeClass { tokens, batches: vec![vec![sequence]] }])
        .unwrap()
}

/// Asserts that a plan's policy is the cheapest one for the memory that workspace, weights and optimizer states leave
/// free.
fn assert_cheapest(planned: &plan::Planned, t: usize, gib: usize) {
    // At the peak, the workspace contains the gradients of gate, up, product and two rows, and some scratch space.
    let (workspace, least) = (planned.memory.bytes(Region::Workspace), BF16 * (3 * F + 2 * D) * t);
    assert!(workspace >= least && workspace < least * 5 / 4, "{workspace} of {least}");
    let rest = planned.memory.bytes(Region::Weights) + planned.memory.bytes(Region::State) + workspace;
    let room = (gib << 30) - rest - gradients() - ALIGNED;
    let levels = planned.ladder.levels(t);
    println!("{t} tokens, {gib} GiB: {:?}, {} bytes", levels.text, planned.memory.total());
    assert_eq!(Some(levels.text), by_hand(t, room));
    assert!(planned.memory.total() <= gib << 30);
}

#[test]
fn states_in_fp32_leave_no_room_for_61440_tokens_on_one_card() {
    // Each parameter needs 2 bytes for the weight, 2 for its low half, 4 for each moment and 4 for the gradient: 16
    // bytes, or 123.6 GiB, slightly more with padding. Of the 139 GiB, 15 GiB are left. The `Inputs` policy alone needs
    // 23 GiB for 61,440 tokens.
    assert_eq!(16 * elements() / (1 << 30), 123);
    assert_eq!(L * layer(LayerPolicy::Inputs) * 61_440 / (1 << 30), 23);
    let refused = text_plan(61_440, OptimizerName::AdamwTorch, 139).check("this").unwrap_err();
    let Error::Input { place, hint, .. } = refused else { panic!("{refused}") };
    assert_eq!((place.as_str(), hint.unwrap().as_str()), ("memory", "lower this"));
    let planned = text_plan(8192, OptimizerName::AdamwTorch, 139);
    near(planned.memory.bytes(Region::State), 10 * elements(), "moments and low halves");
    assert_cheapest(&planned, 8192, 139);
}

#[test]
fn states_in_8_bits_leave_room_for_61440_tokens_on_one_card() {
    // The token table, norms and biases have states of 2 + 4 + 4 bytes per element. All other matrices have 2 + 1 + 1
    // bytes and two scales of 4 bytes per 256 elements: 4.03, or 6.03 with the weight and 10.03 with the gradient. That
    // is 77.5 GiB, plus 6 bytes for each element of the table.
    let wide = V * D + L * (2 * D + QKV) + D + BLOCKS * (2 * C + 3 * C + C + 2 * VF + C) + C + 4 * C + D;
    let state = 10 * wide + (elements() - wide) * 4 + (elements() - wide) / 256 * 2 * F32;
    let planned = text_plan(61_440, OptimizerName::Adamw8bit, 139);
    near(planned.memory.bytes(Region::State), state, "moments of 8 bits");
    assert_eq!((state + 6 * elements()) / (1 << 30), 80);
    assert_cheapest(&planned, 61_440, 139);
    assert_cheapest(&text_plan(32_768, OptimizerName::Adamw8bit, 139), 32_768, 139);
}

/// Every element of the state has exactly one owner for any number of ranks and any type of moments.
#[test]
fn the_state_of_all_ranks_is_that_of_one() {
    for optim in [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit] {
        let optimizer = OptimConfig { optim, ..OptimConfig::default() };
        let owned = |ranks| plan::owned(&model(), Dtype::Bf16, optimizer.clone(), gpu(80), ranks).unwrap();
        let one = owned(1);
        for ranks in [8, 64] {
            let each = owned(ranks);
            println!("{} over {ranks}: {} to {:?}", optim.name(), each[0], each.iter().max());
            assert_eq!((each.len(), each.iter().sum::<usize>()), (ranks, one[0]), "{}", optim.name());
        }
    }
}

#[test]
fn rl_of_32792_tokens_shares_its_memory_with_the_cache() {
    let (prompt, response) = (4096, 28_696);
    let rollout =
        RolloutConfig { n: 16, max_num_seqs: 1024, max_num_batched_tokens: 33_792, ..RolloutConfig::default() };
    let config = RlConfig {
        dtype: Dtype::Bf16,
        optimizer: OptimConfig { optim: OptimizerName::Adamw8bit, ..RlConfig::default().optimizer },
        train_batch_size: 128,
        ppo_mini_batch_size: 128,
        max_prompt_length: prompt,
        max_response_length: response,
        micro_batch_tokens: 33_792,
        rollout,
        ..RlConfig::default()
    };
    let mut index = Index::default();
    (0..128).for_each(|_| index.push(Shape { tokens: prompt, targets: 0, grids: &[] }));
    let allowed = vec![u32::MAX; V / 32];
    let plan = |blocks: Option<usize>, target: Target| -> (Plan, CheckpointPolicy, Option<usize>) {
        let rollout = RolloutConfig { num_kv_blocks: blocks, ..config.rollout.clone() };
        let config = RlConfig { rollout, ..config.clone() };
        let (planned, blocks) = rl::plan::rl(model(), &config, target, OneRank::ALONE, &allowed, &index).unwrap();
        (planned.memory, planned.ladder.levels(usize::MAX), blocks)
    };
    // A cache block has the keys and values of 128 tokens, 4 heads of 128 and 28 layers. One more block receives the
    // keys of padding. Each token takes 57,344 bytes.
    let block = L * 2 * 128 * 4 * 128 * BF16;
    assert_eq!(block / 128, 57_344);

    // Without a limit: 1,024 sequences of 257 blocks each and the gradients of one response. No GPU has that much
    // memory.
    let full = 1024 * (prompt + response).div_ceil(128);
    let (memory, levels, blocks) = plan(None, Target::gpu(Kind::Cuda));
    near(memory.bytes(Region::Overlay), (full + 1) * block, "the whole cache");
    assert_eq!((levels, blocks), (CheckpointPolicy::default(), None));
    // A small cache shares its memory with the update. Rows of the responses also have an entropy and its gradient. The
    // responses to one prompt have the most targets: they fill the micro-batch after the prompt.
    let t = config.micro_batch_tokens;
    let response = t - prompt;
    let (memory, ..) = plan(Some(300), Target::gpu(Kind::Cuda));
    let by_hand = gradients() + (BELOW + L * layer(LayerPolicy::All)) * t + above(t, response);
    let found = memory.bytes(Region::Overlay);
    println!("update: {found} bytes, {by_hand} by hand");
    assert!(found.abs_diff(by_hand) <= ALIGNED + 64 * response, "{found} bytes, {by_hand} by hand");

    // On one GPU with 8-bit states, the layers store as much as fits. Between updates, all of the overlay is cache.
    let (memory, levels, blocks) = plan(None, gpu(139));
    let (total, overlay) = (memory.total(), memory.bytes(Region::Overlay));
    println!("of 139 GiB {total} bytes, overlay {overlay}, {levels:?}, {blocks:?} blocks");
    assert!(total <= 139 << 30 && total + 2 * block > 139 << 30);
    assert!(levels.text.inputs + levels.text.all_but_gate_up > 0);
    near(overlay, (blocks.unwrap() + 1) * block, "the cache that fits");
}

#[test]
fn a_image_of_5350_tokens_is_replayed_in_the_room_of_the_text() {
    // 100 x 214 patches. Four patches form a token.
    let patches = 100 * 214;
    let image = Arc::new(ImageInput::image([100, 214], vec![0; patches * 14 * 14 * 3]));
    let rows = image.tokens(2);
    assert_eq!((rows, image.grid_thw), (5350, [1, 100, 214]));
    let mut ids = vec![151_652];
    ids.extend(vec![151_655; rows]);
    ids.extend([151_653, 0]);
    let t = ids.len();
    let tower = |replay_tower: bool, vision: LayerPolicy| CheckpointPolicy {
        replay_tower,
        vision: vision.into(),
        ..CheckpointPolicy::default()
    };
    let levels = [tower(false, LayerPolicy::All), tower(true, LayerPolicy::All), tower(true, LayerPolicy::Inputs)];
    let found = overlays(&ids, &[image], &levels);

    // Activations of a patch in a block: output, two norms, sum (and 1/rms twice), qkv, attention (and 16 logsumexps),
    // product, gate, up.
    let block = BF16 * (4 * C + 3 * C + C + 3 * VF) + 2 * F32 + F32 * VISION_HEADS;
    let least = BF16 * 2 * C + F32 * VISION_HEADS;
    // Activations outside the blocks: the patch embedding and its window order, the last norm, and per token the
    // merger's 5,120 values before and after GELU and its 3,584 outputs.
    let around = (BF16 * 3 * C + F32) * patches + BF16 * (2 * 4 * C + D) * rows;
    // Data for the whole pass: pixels, rotations of 40 angles, two orders of the tokens, and the merged rows with their
    // positions.
    let lasts = (14 * 14 * 3 + F32 * 80) * patches + (2 * 4 + BF16 * D + 4) * rows;
    // Ids, positions and embedding. The variable `text` adds the tables, layers and the rest.
    let below = gradients() + (16 + BF16 * D) * t + lasts;
    let text = (F32 * 128 + L * layer(LayerPolicy::All)) * t + above(t, t - 1);
    // 1.3 MB per patch, 28 GB in total.
    let kept = BLOCKS * block * patches + around;
    assert_eq!(kept / 1_000_000_000, 28);
    near(found[0], below + kept + text, "tower kept");
    // The tower is recomputed after the text's activations are freed, so the larger of the two counts.
    near(found[1], below + text.max(kept), "tower replayed");
    let replay = BLOCKS * least * patches + block * patches - least * patches;
    assert!(replay + around < text);
    near(found[2], below + text, "tower and blocks replayed");
}
