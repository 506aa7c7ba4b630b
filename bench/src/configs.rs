//! Benchmarks of a config: its largest training pass and its optimizer step. The weights are random, and the sizes are
//! those that `omr plan` assumes.

use std::path::Path;
use std::rc::Rc;

use super::case::{Case, JobSize, Make, label};
use super::inputs::{DRAWN, normals, repeat};
use super::jobs::{random_model, recomputed, trained};
use omr_base::error::Result;
use omr_model::nn::{CheckpointPolicy, Grads, Model};
use omr_model::optim::{Optimizer, freeze};
use omr_runtime::device::{Device, Kind, Target, Work};
use omr_runtime::tensor::DType;
use omr_train::plan::{self, Pages};

/// Makes two benchmark cases, a training pass and an optimizer step, for the config in `file` with the overrides
/// `values`. The job is planned for a GPU with at most `memory` bytes.
pub fn cases(
    file: &Path,
    values: &[String],
    rows: &plan::Rows,
    kind: Kind,
    memory: Option<usize>,
) -> Result<[Make; 2]> {
    let job = plan::job(file, values, rows, memory)?;
    let job = Rc::new(plan::Job { pass: job.pass.varied(&job.model), ..job });
    let needed = needed(&job, kind)?;
    let again = Rc::clone(&job);
    Ok([Box::new(move |dev| pass(dev, &job, needed)), Box::new(move |dev| update(dev, &again))])
}

/// Counts the arithmetic and the memory traffic of a pass without recomputation.
fn needed(job: &plan::Job, kind: Kind) -> Result<[f64; 2]> {
    let mut dev = Device::count_for(Target::gpu(kind));
    let mut model = Model::empty(&mut dev, job.model.clone(), DType::of(job.dtype, kind))?;
    freeze(&mut dev, &mut model, &job.optimizer)?;
    let mut grads = Grads::new(&mut dev, &model.layout)?;
    dev.take_work();
    job.pass.run(&mut dev, &model, &mut grads, CheckpointPolicy::default())?;
    let work = dev.take_work();
    let sum = |of: fn(&Work) -> f64| work.iter().map(of).sum();
    Ok([sum(|work| work.flops), sum(|work| work.bytes)])
}

/// Makes weights, optimizer state and gradients as in a run.
fn training(dev: &mut Device, job: &plan::Job) -> Result<(Model, Optimizer, Grads)> {
    let mut model = random_model(dev, job.model.clone(), DType::of(job.dtype, dev.kind()))?;
    freeze(dev, &mut model, &job.optimizer)?;
    let optimizer = Optimizer::new(dev, &model.layout, job.optimizer.clone(), 1)?;
    let grads = Grads::new(dev, &model.layout)?;
    Ok((model, optimizer, grads))
}

/// Formats the number of parameters (such as `8.29 B`), the rank of adapters if there are any, and `more`.
fn shape(job: &plan::Job, model: &Model, more: &str) -> String {
    let parameters = model.layout.num_weights() as f64;
    let size =
        if parameters < 1e9 { format!("{:.2} M", parameters / 1e6) } else { format!("{:.2} B", parameters / 1e9) };
    let rank = job.optimizer.lora.as_ref().map_or_else(String::new, |lora| format!(", rank {}", lora.rank));
    let base = job.optimizer.quantization.as_ref().map_or_else(String::new, |of| format!(", {}", of.base.name()));
    format!("{size}{rank}{base}, {more}")
}

fn pass(dev: &mut Device, job: &Rc<plan::Job>, [flops, bytes]: [f64; 2]) -> Result<Case> {
    let (model, _, mut grads) = training(dev, job)?;
    let (job, tokens) = (Rc::clone(job), job.pass.tokens());
    let again = recomputed(job.levels, job.model.text.layers.len());
    Ok(Case {
        name: if job.stage == "rl" { "rl pass" } else { "sft pass" },
        shape: shape(&job, &model, &format!("{}{again}", job.pass.describe())),
        dtype: label(model.layout.dtype),
        flops,
        bytes,
        job: Some(JobSize { parameters: model.layout.num_weights(), tokens, pages: Some(Pages::default()) }),
        // Gradients accumulate over the repetitions. In a run, they accumulate over the passes of a step.
        run: Box::new(move |dev| job.pass.run(dev, &model, &mut grads, job.levels)),
    })
}

fn update(dev: &mut Device, job: &plan::Job) -> Result<Case> {
    let (model, mut optimizer, mut grads) = training(dev, job)?;
    let drawn = normals::<f32>(DRAWN, 1e-3);
    (0..grads.num_params()).filter_map(|id| grads.touch(id)).try_for_each(|sum| repeat(dev, sum, &drawn))?;
    let (parameters, trained) = (model.layout.num_weights(), trained(&model));
    Ok(Case {
        name: if job.stage == "rl" { "rl update" } else { "sft update" },
        shape: shape(job, &model, job.optimizer.optim.name()),
        dtype: label(model.layout.dtype),
        flops: 0.0,
        // Weights and state are read and written, gradients are only read.
        bytes: (2 * (trained * model.layout.dtype.size() + optimizer.bytes()) + 4 * trained) as f64,
        job: Some(JobSize { parameters, tokens: 0, pages: Some(Pages::default()) }),
        run: Box::new(move |dev| optimizer.step(dev, &model.layout, &grads, 1e-5)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_runtime::device::{Isa, Plan, Region};

    /// Each case must have the expected name and number of tokens, and must run twice without an error. Only a pass
    /// counts FLOPs.
    #[test]
    fn a_config_is_measured_as_it_is_planned() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let model = format!("model={}", root.join("tests/goldens/hf/model_a").display());
        let sft = ["packing_length=96", "micro_batch_tokens=192", "gradient_accumulation_steps=2", "gradient_lanes=1"];
        let rl = "max_prompt_length=32 max_response_length=16 micro_batch_tokens=96 train_batch_size=2 ppo_mini_batch_size=2 rollout.n=2 gradient_lanes=1";
        let mut dev = Device::cpu(&Plan::uniform(256 << 20), 2, Isa::detect()).unwrap();
        for (file, values, pass, tokens) in
            [("sft.yaml", sft.to_vec(), "sft pass", 192), ("rl.yaml", rl.split(' ').collect(), "rl pass", 64)]
        {
            let values: Vec<String> = values.into_iter().chain([&*model, "dtype=auto"]).map(str::to_owned).collect();
            let rows = plan::Rows { row_tokens: Some(32), image_tokens: Some(6), ..plan::Rows::default() };
            let file = root.join("configs/openmmreasoner-7b").join(file);
            let makes = cases(&file, &values, &rows, Kind::Emu, None).unwrap();
            for (make, name) in makes.iter().zip([pass, &pass.replace("pass", "update")]) {
                let mark = [Region::Weights, Region::State, Region::Overlay].map(|region| dev.mark(region));
                let mut case = make(&mut dev).unwrap();
                assert_eq!(case.name, name);
                (0..2).for_each(|_| (case.run)(&mut dev).unwrap());
                let job = case.job.unwrap();
                assert_eq!(job.tokens, if name == pass { tokens } else { 0 }, "{}", case.shape);
                assert_eq!(case.flops > 0.0, name == pass);
                mark.into_iter().rev().for_each(|mark| dev.release(mark));
            }
        }
    }
}
