//! Tests of the limits of GPUs: the shared memory of every launch without wgmma, and equal bits on a GPU with 99 KiB of
//! shared memory per CTA and 48 warps per multiprocessor.

use std::collections::BTreeMap;

use half::bf16;
use omr_base::config::{LoraConfig, OptimConfig, OptimizerName, RlConfig, SftConfig};
use omr_model::nn::ModelConfig;
use omr_runtime::device::emu::Options;
use omr_runtime::device::images::OWN;
use omr_runtime::device::limits::{AMPERE, Limits};
use omr_runtime::device::recording_driver::{Entry, RecordingDriver};
use omr_runtime::device::{Device, Kind, Plan, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::stamp;
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::attention::{Case, heads};
use omr_runtime_tests::kernels::attention_bwd::{GradCase, WHOLE};
use omr_runtime_tests::kernels::paged_attention::{self, Step};
use omr_runtime_tests::kernels::{
    Outcome, Schedule, dequantize, emu, emu_of, equal, gelu, gemm, gemm_codes, layer_norm, pos_embed, qk_norm, sample,
};
use omr_runtime_tests::ops::quantized::{FORMATS, encoded};
use omr_train::plan::kernels;
use serde_json::json;

use super::lengths;
use super::train::{bf16_rl, bf16_sft};
use crate::training::tiny;

/// Returns a model with one decoder layer and heads of size `dim`.
fn model(dim: usize) -> ModelConfig {
    let (half, hidden) = (dim / 2, 4 * dim);
    lengths::model(|value| {
        value["hidden_size"] = hidden.into();
        value["num_attention_heads"] = 4.into();
        value["num_key_value_heads"] = 2.into();
        value["rope_scaling"]["mrope_section"] = json!([half - 2 * (half / 3), half / 3, half / 3]);
        value["vision_config"]["hidden_size"] = (2 * dim).into();
        value["vision_config"]["num_heads"] = 2.into();
        value["vision_config"]["out_hidden_size"] = hidden.into();
    })
}

/// Runs the ops that no model runs on a GPU.
fn others(dev: &mut Device) -> Outcome {
    for t in [16, 64, 256] {
        gemm::Case::new(t, 64, 64).logits(dev)?;
        gemm::Case::new(t, 64, 64).gelu(dev, GeluKind::Tanh, true, true)?;
    }
    gelu::gradients(dev, GeluKind::Tanh, 3, 64)?;
    for format in FORMATS {
        dequantize::values(dev, format, &encoded(format, &[1.0; 64], 64))?;
        let w = gemm_codes::codes(dev, format, 128, 64);
        gemm_codes::layers(dev, (1, 0), &w)?;
        gemm_codes::layers(dev, (64, 0), &w)?;
    }
    layer_norm::run(dev, (3, 64), true)?;
    pos_embed::run(dev, (3, 9, 64))?;
    qk_norm::run(dev, 3, Heads { q: 4, kv: 2, dim: 32 }, true)?;
    let out = dev.alloc(Region::State, DType::U8, &[stamp::BYTES])?;
    stamp::write(dev, out)?;
    sample::given(dev)
}

#[test]
fn every_kernel_without_wgmma_fits_in_99_kib_of_shared_memory() {
    let (gpu, plain) = (AMPERE.properties("A100", 108, 80 << 30), OptimConfig::default());
    let mut runs = vec![(16, 64, OptimConfig { lora: Some(LoraConfig::default()), ..plain.clone() })];
    for dim in [12, 16, 32, 64, 80, 128] {
        runs.extend([16, 64, 256, 1024].map(|tokens| (dim, tokens, plain.clone())));
    }
    for optim in [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit] {
        runs.extend(
            [true, false].map(|rounds| (16, 64, OptimConfig { optim, bf16_stochastic_round: rounds, ..plain.clone() })),
        );
    }
    let launched = |(dim, tokens, optim)| kernels::launches(&model(dim), &gpu, optim, tokens).unwrap();
    let mut entries: Vec<Entry> = runs.into_iter().flat_map(launched).collect();
    let driver = Box::new(RecordingDriver::new(gpu.clone()));
    let dev = &mut Device::gpu(driver, Kind::Cuda, &Plan::uniform(1 << 42)).unwrap();
    others(dev).unwrap();
    entries.extend(dev.driver().unwrap().as_any().downcast_mut::<RecordingDriver>().unwrap().take());
    let mut largest = BTreeMap::new();
    for entry in entries {
        if let Entry::Launch(kernel, launch, _) = entry {
            let most = largest.entry(kernel).or_insert(0);
            *most = launch.smem.max(*most);
        }
    }
    let kernels = OWN.files().flat_map(|file| OWN.kernels(file));
    let kernels: Vec<_> = kernels.filter(|kernel| !OWN.kernel_costs(kernel).unwrap().wgmma).collect();
    let missing: Vec<_> = kernels.iter().filter(|kernel| !largest.contains_key(*kernel)).collect();
    assert!(missing.is_empty(), "not launched: {missing:?}");
    let over: Vec<_> = largest.iter().filter(|(_, bytes)| **bytes > 99 << 10).collect();
    println!("{} kernels, at most {:?}", kernels.len(), largest.iter().max_by_key(|(_, bytes)| **bytes));
    assert!(over.is_empty(), "more than 99 KiB: {over:?}");
}

/// Returns an emulated GPU with the shared memory and warps of compute capability 8.6.
fn small() -> Device {
    let limits = Limits { compute_capability: (8, 0), ..Limits::of(8, 6).unwrap() };
    emu_of(Options { limits: Some(limits), ..Schedule::FIXED.options() }).unwrap()
}

#[test]
fn attention_prefill_and_decode_have_the_same_bits_with_99_kib_and_48_warps() {
    for dim in [64, 72, 80, 96, 128] {
        let heads = heads(2, 1, dim);
        let (case, grads) = (Case::new(heads, &[131, 0, 5]), GradCase::new(heads, &[70, 3], true));
        // The first sequence has two chunks.
        let step = Step::new(heads, &[2049, 130], 0);
        let run = |dev: &mut Device| -> Outcome<Vec<bf16>> {
            let mut all = case.run(dev, true, 131)?.0;
            all.extend(paged_attention::paged(&case, dev, |_, _| usize::MAX / 2)?);
            all.extend(grads.run(dev, WHOLE)?);
            all.extend(step.run(dev, None)?);
            all.extend(step.run(dev, Some(1))?);
            Ok(all)
        };
        equal(&format!("heads of {dim}"), &run(&mut small()).unwrap(), &run(&mut emu()).unwrap()).unwrap();
    }
}

#[test]
fn an_sft_and_an_rl_step_have_the_same_bits_with_99_kib_and_48_warps() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { max_steps: Some(1), ..bf16_sft(dir.path()) };
    let run = |name: &str, device: fn() -> Device| tiny::run_sft_on(&dir.path().join(name), &config, device, &[]);
    run("sft", emu).assert_same(&run("sft-small", small), "SFT");
    let config = RlConfig { total_training_steps: Some(1), ..bf16_rl(dir.path()) };
    let run = |name: &str, device: fn() -> Device| tiny::run_rl_on(&dir.path().join(name), &config, device, &[]);
    run("rl", emu).unmeasured().assert_same(&run("rl-small", small).unmeasured(), "RL");
}
