//! Tests for each way in which matrix instructions can sum a k16 step ([`Sums`]). A token's log-prob is the same in
//! sampling and training, the second kernel variant of linear layers has the bits of the first, and no bits depend on a
//! tile. calibrate_sums.rs and calibrate_wgmma.rs measure how a GPU sums.

use omr_model::nn::Model;
use omr_runtime::device::emu::options::{Options, Sums};
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant};
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::attention::{self, heads};
use omr_runtime_tests::kernels::attention_bwd::GradCase;
use omr_runtime_tests::kernels::calibrate_sums::{AMPERE, HOPPER, Model as Adding, Tiles};
use omr_runtime_tests::kernels::inputs::random;
use omr_runtime_tests::kernels::{emu_of, equal, gemm, gemm_bwd, linear_logprob, paged_attention, skipped};

use crate::engine::parity::{assert_trained, config, generate, limits, requests};

/// Each way to sum, with the model of calibrate_sums.rs that gives the same sums.
const WAYS: [(Way, Adding); 3] = [
    (Way(Sums::Chain, Arch::Sm90a), Adding::Chain),
    (Way(Sums::Aligned, Arch::Sm90a), HOPPER),
    (Way(Sums::Aligned, Arch::Sm80), AMPERE),
];

/// A way to sum, and the instruction set with which it is emulated.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Way(Sums, Arch);

impl Way {
    /// Returns the kernel variants to test. Ampere has no wgmma.
    fn variants(self) -> &'static [bool] {
        if self.1 == Arch::Sm90a { &[false, true] } else { &[false] }
    }
}

/// Returns an emulated device that sums this way, with linear layers by either kernel variant.
fn device(Way(sums, arch): Way, wgmma: bool) -> Device {
    let mut dev = emu_of(Options { sums, arch, ..Options::default() }).unwrap();
    if wgmma {
        dev.use_variant(KernelVariant::Wgmma).unwrap();
    }
    dev
}

#[test]
fn each_way_is_the_model_of_its_name() {
    if skipped("a way of summing that is chosen") {
        return;
    }
    let mut random = random(7);
    let tiles = Tiles::new(4, 64, || random.normal() * (random.uniform_f32() * 12.0).exp2());
    for (sums, _) in WAYS {
        let found = tiles.run(&mut device(sums, false), 0, 0.0);
        for (other, model) in WAYS {
            let (mut same, mut count) = (0, 0);
            tiles.each(&found, |sum, products| {
                count += 1;
                same += usize::from(model.sum(0.0, products).to_bits() == sum.to_bits());
            });
            assert_eq!(same == count, other == sums, "{sums:?}: {model:?} gives {same} of {count}");
        }
    }
}

#[test]
fn no_bit_depends_on_a_tile_or_a_variant() {
    if skipped("a way of summing that is chosen") {
        return;
    }
    let mut ways = Vec::new();
    for (sums, _) in WAYS {
        // Tiles of 16, 64 and 128 rows; a K that is not a multiple of a stage.
        let c = gemm::Case::new(130, 150, 200);
        let all = c.linear(&mut device(sums, false), 0..130, true, true).unwrap();
        let logprob = linear_logprob::case((131, 200, 72), true, 0.7);
        let whole = linear_logprob::run(&mut device(sums, false), &logprob, 0, 131).unwrap();
        for &wgmma in sums.variants() {
            let dev = &mut device(sums, wgmma);
            for rows in [0..130, 70..130, 0..128, 129..130, 0..17] {
                let some = c.linear(dev, rows.clone(), true, true).unwrap();
                let want = &all[rows.start * c.n..rows.end * c.n];
                equal(&format!("{sums:?}, wgmma {wgmma}, rows {rows:?}"), &some, want).unwrap();
            }
            for (from, to) in [(0, 131), (7, 23), (50, 114)] {
                let some = linear_logprob::run(dev, &logprob, from, to).unwrap();
                for (some, whole) in some.iter().zip(&whole) {
                    equal(&format!("{sums:?}, log-probs {from}..{to}"), some, &whole[from..to]).unwrap();
                }
            }
        }
        // Training, prefill in uneven chunks, and decode.
        let case = attention::Case::new(heads(7, 1, 64), &[128, 1, 131]);
        paged_attention::check(&case, &mut device(sums, false), 3).unwrap();
        // Results in bf16 may be equal by chance.
        ways.push(c.logits(&mut device(sums, false)).unwrap());
    }
    assert!(ways[0] != ways[1] && ways[1] != ways[2], "three ways are compared");
}

/// Gradients of weights are chains over the tokens of all calls. With aligned sums, the bits of a chain depend on where
/// its steps begin. If every call has a multiple of a step's tokens, the chain has the same bits as in one call;
/// otherwise it may not. This holds on a GPU too.
#[test]
fn gradients_are_the_same_over_calls_of_whole_steps() {
    if skipped("a way of summing that is chosen") {
        return;
    }
    let c = gemm_bwd::Case::new(150, 136, 72);
    for (sums, _) in WAYS {
        let dx = c.dgrad(&mut device(sums, false), 0..150, true).unwrap();
        let dw = c.wgrad(&mut device(sums, false), &[150], true).unwrap();
        for &wgmma in sums.variants() {
            let what = |of: &str| format!("{sums:?}, wgmma {wgmma}, {of}");
            let dev = &mut device(sums, wgmma);
            for rows in [0..150, 70..150, 136..137] {
                let some = c.dgrad(dev, rows.clone(), true).unwrap();
                equal(&what("dx"), &some, &dx[rows.start * c.k..rows.end * c.k]).unwrap();
            }
            equal(&what("dw"), &c.wgrad(dev, &[150], true).unwrap(), &dw).unwrap();
            equal(&what("dw in parts"), &c.wgrad(dev, &[80, 70], true).unwrap(), &dw).unwrap();
            let within_a_step = c.wgrad(dev, &[70, 80], true).unwrap();
            assert_eq!(within_a_step == dw, sums.0 == Sums::Chain, "{}", what("dw in parts of no whole step"));
        }
    }
}

/// Both kernel variants begin a step of sixteen rows where a
/// stage of full tokens begins. Here a stage has 63 rows of seven heads; stages of 64 rows would give other chains.
#[test]
fn gradients_of_attention_are_the_same_by_either_variant() {
    if skipped("a way of summing that is chosen") {
        return;
    }
    let packs = GradCase::new(heads(7, 1, 128), &[131, 3], true);
    let short = GradCase::new(heads(7, 1, 80), &[20, 64], false);
    // The sums of the forward pass are f32. Gradients, in bf16, may be equal by chance.
    let forward = attention::Case::new(heads(7, 1, 128), &[131, 3]);
    let mut ways = Vec::new();
    for (sums, _) in WAYS {
        for case in [&packs, &short] {
            let want = case.run(&mut device(sums, false), 131).unwrap();
            for &wgmma in &sums.variants()[1..] {
                equal(&format!("{sums:?}, wgmma"), &case.run(&mut device(sums, wgmma), 131).unwrap(), &want).unwrap();
            }
        }
        ways.push(forward.run(&mut device(sums, false), true, 131).unwrap().1);
    }
    assert!(ways[0] != ways[1] && ways[1] != ways[2], "three ways are compared");
}

#[test]
fn what_is_sampled_with_is_what_is_trained_with() {
    if skipped("a way of summing that is chosen") {
        return;
    }
    let config = config();
    let requests = requests(&config, 4, 140, 1);
    for wgmma in [false, true] {
        let mut dev = device(WAYS[1].0, wgmma);
        let model = Model::init(&mut dev, config.clone(), DType::Bf16, 5).unwrap();
        let outputs = generate(&model, &mut dev, limits(), &requests);
        let tokens = assert_trained(&format!("wgmma {wgmma}"), &model, &mut dev, &requests, &outputs);
        assert!(tokens > 50, "{tokens} tokens");
    }
}
