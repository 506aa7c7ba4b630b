//! AdamW over all of a model's parameters: moments, the low halves of bf16 weights, and their files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::OptimConfig;
use crate::device::{Device, Region};
use crate::error::{Error, Result};
use crate::model::outgoing::{Content, OutFile, Outgoing, cut};
use crate::model::params::{ParamLayout, Piece};
use crate::model::tape::Grads;
use crate::model::weights::WeightFiles;
use crate::ops::{adamw, grad_norm};
use crate::tensor::{DType, Tensor};

/// Largest state file written.
const MAX_FILE_BYTES: usize = 5_000_000_000;

/// Which parameters decay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Decay {
    /// Matrices and the token table; norms and biases do not.
    #[default]
    Matrices,
    /// All.
    All,
}

/// One parameter's state; moments and low halves in its element order.
struct State {
    /// First moment, f32.
    m: Tensor,
    /// Second moment, f32.
    v: Tensor,
    /// What the bf16 weight lacks of its fp32 master.
    lo: Option<Tensor>,
    /// Updates made: a parameter without a gradient is passed over and its count stays, as in torch.
    updates: u64,
}

/// What the last update saw.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepStats {
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f32,
    /// What the gradients were multiplied by.
    pub clip: f32,
    /// False when the norm was not finite: nothing was updated then.
    pub finite: bool,
}

/// The optimizer.
pub struct Optimizer {
    config: OptimConfig,
    /// Which parameters decay.
    pub decay: Decay,
    states: Vec<State>,
    /// Norm, clip factor, finite flag.
    norm: Tensor,
}

impl Optimizer {
    /// Zero moments for every parameter of `layout`, in [`Region::State`].
    pub fn new(dev: &mut Device, layout: &ParamLayout, config: OptimConfig) -> Result<Optimizer> {
        let mut states = Vec::new();
        for param in &layout.params {
            let dims = [param.tensor.len()];
            let m = dev.zeros(Region::State, DType::F32, &dims)?;
            let v = dev.zeros(Region::State, DType::F32, &dims)?;
            let lo = match layout.dtype {
                DType::Bf16 => Some(dev.zeros(Region::State, DType::I16, &dims)?),
                _ => None,
            };
            states.push(State { m, v, lo, updates: 0 });
        }
        let norm = dev.zeros(Region::State, DType::F32, &[3])?;
        Ok(Optimizer { config, decay: Decay::default(), states, norm })
    }

    /// One update with learning rate `lr`: gradients are clipped to the configured norm, parameters without a
    /// gradient are neither moved nor decayed. When the norm is not finite no weight and no moment changes, only the
    /// count of updates; the caller is to stop.
    pub fn step(&mut self, dev: &mut Device, layout: &ParamLayout, grads: &Grads, lr: f64) -> Result<()> {
        let touched: Vec<Tensor> = (0..grads.len()).filter_map(|id| grads.get(id)).collect();
        grad_norm::fwd(dev, &touched, self.config.max_grad_norm as f32, self.norm)?;
        let clip = self.norm.slice(1, 3);
        for (id, (param, state)) in layout.params.iter().zip(&mut self.states).enumerate() {
            let Some(grad) = grads.get(id) else { continue };
            state.updates += 1;
            let decays = param.is_matrix || self.decay == Decay::All;
            let hp = adamw::AdamW {
                lr,
                beta1: self.config.adam_beta1,
                beta2: self.config.adam_beta2,
                eps: self.config.adam_epsilon,
                weight_decay: if decays { self.config.weight_decay } else { 0.0 },
                step: state.updates,
            };
            adamw::step(dev, param.tensor, state.lo, grad, state.m, state.v, &hp, clip)?;
        }
        Ok(())
    }

    /// Bytes of the moments and the low halves.
    pub fn bytes(&self) -> usize {
        let tensors = self.states.iter().flat_map(|s| [Some(s.m), Some(s.v), s.lo]).flatten();
        tensors.map(|t| t.span().bytes).sum()
    }

    /// What the last update saw; waits for it.
    pub fn stats(&self, dev: &mut Device) -> Result<StepStats> {
        let norm = dev.read::<f32>(self.norm)?;
        Ok(StepStats { grad_norm: norm[0], clip: norm[1], finite: norm[2] != 0.0 })
    }

    /// The state as files `optim-0000i-of-0000n.safetensors`, by Hugging Face name and shape, unpadded:
    /// `NAME.m` and `NAME.v` f32, `NAME.lo` i16 with bf16 weights, `NAME.step` u32 `[1]`.
    pub fn outgoing(&self, layout: &Arc<ParamLayout>) -> Vec<OutFile> {
        let mut tensors = Vec::new();
        for (id, (param, state)) in layout.params.iter().zip(&self.states).enumerate() {
            let pieces = || param.pieces.iter().enumerate();
            let name = |piece: &Piece, what: &str| format!("{}.{what}", piece.name);
            let of = |what, t| pieces().map(move |(i, p)| Outgoing::piece::<f32>(name(p, what), layout, id, i, t));
            tensors.extend(of("m", state.m));
            tensors.extend(of("v", state.v));
            if let Some(lo) = state.lo {
                tensors.extend(pieces().map(|(i, p)| Outgoing::piece::<i16>(name(p, "lo"), layout, id, i, lo)));
            }
            let updates = (state.updates as u32).to_le_bytes();
            tensors.extend(pieces().map(|(_, p)| Outgoing {
                name: name(p, "step"),
                dtype: DType::U32,
                shape: vec![1],
                content: Content::Ready(updates.to_vec()),
            }));
        }
        cut(tensors, MAX_FILE_BYTES, |i, count| format!("optim-{:05}-of-{count:05}.safetensors", i + 1))
    }

    /// Reads what [`Optimizer::outgoing`] planned. Errors name the folder and the tensor that is missing or does not fit.
    pub fn load(&mut self, dev: &mut Device, layout: &ParamLayout, dir: &Path) -> Result<()> {
        let stored = WeightFiles::open_files(dir, &state_files(dir)?)?;
        for (param, state) in layout.params.iter().zip(&mut self.states) {
            let part = |suffix: &str| -> Result<Vec<_>> {
                let named = |p: &crate::model::params::Piece| stored.tensor(&format!("{}.{suffix}", p.name), &p.shape);
                param.pieces.iter().map(named).collect()
            };
            let (m, v) = (part("m")?, part("v")?);
            param.fill::<f32>(dev, state.m, |piece, r, out| m[piece].row(r, out))?;
            param.fill::<f32>(dev, state.v, |piece, r, out| v[piece].row(r, out))?;
            let low = format!("{}.lo", param.name());
            if state.lo.is_none() && stored.names().any(|name| name == low) {
                let what = format!("{low} belongs to a run with dtype bf16: go on with that");
                return Err(Error::format(dir, what));
            }
            if let Some(tensor) = state.lo {
                let lo = part("lo")?;
                param.fill::<i16>(dev, tensor, |piece, r, out| lo[piece].row(r, out))?;
            }
            let mut updates = [0.0];
            stored.tensor(&format!("{}.step", param.name()), &[1])?.row(0, &mut updates);
            state.updates = updates[0] as u64;
        }
        Ok(())
    }
}

/// The state files of `dir`, in order. Errors when one of the set is missing.
fn state_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(Error::io(dir))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("optim-") && name.ends_with(".safetensors")
        })
        .collect();
    files.sort();
    let count = files.len();
    let whole = |(i, path): (usize, &PathBuf)| path.ends_with(format!("optim-{:05}-of-{count:05}.safetensors", i + 1));
    if count > 0 && files.iter().enumerate().all(whole) {
        return Ok(files);
    }
    Err(Error::input(
        dir.display().to_string(),
        format!("{count} optimizer files"),
        "a whole set, optim-00001-of-0000n on",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LrSchedulerType;
    use crate::device::{Isa, Plan};
    use crate::model::outgoing::{weights, write_files, write_weights};

    fn config() -> OptimConfig {
        OptimConfig {
            learning_rate: 1e-2,
            lr_scheduler_type: LrSchedulerType::Constant,
            warmup_steps: 0,
            min_lr_ratio: 0.0,
            weight_decay: 0.1,
            adam_beta1: 0.9,
            adam_beta2: 0.95,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
        }
    }

    fn setup(dtype: DType) -> (Device, ParamLayout, Optimizer) {
        let mut dev = Device::cpu(&Plan::uniform(1 << 22), 2, Isa::detect()).unwrap();
        let mut layout = ParamLayout::new(dtype);
        layout.gate_up(&mut dev, "m", 40, 9, true).unwrap();
        layout.norm(&mut dev, "norm", 5).unwrap();
        let optimizer = Optimizer::new(&mut dev, &layout, config()).unwrap();
        (dev, layout, optimizer)
    }

    fn bytes(dev: &Device, layout: &ParamLayout, optimizer: &Optimizer) -> Vec<u8> {
        let states = optimizer.states.iter().flat_map(|s| [Some(s.m), Some(s.v), s.lo]).flatten();
        let all = layout.params.iter().map(|p| p.tensor).chain(states);
        all.flat_map(|t| dev.memory().view(t.span()).of::<u8>().to_vec()).collect()
    }

    /// Updates from made-up gradients of the first parameters; padding gets none.
    fn update(dev: &mut Device, layout: &ParamLayout, optimizer: &mut Optimizer, params: usize, salt: usize) {
        let mark = dev.mark(Region::Overlay);
        let mut grads = Grads::new(dev, layout).unwrap();
        for (id, param) in layout.params.iter().enumerate().take(params) {
            let grad = grads.touch(id);
            param
                .fill::<f32>(dev, grad, |piece, r, out| {
                    out.iter_mut()
                        .enumerate()
                        .for_each(|(k, g)| *g = ((piece + 3 * r + 7 * k + salt) % 13) as f32 - 6.0);
                })
                .unwrap();
        }
        optimizer.step(dev, layout, &grads, 1e-2).unwrap();
        dev.release(mark);
    }

    #[test]
    fn saved_state_goes_on_with_the_same_bits() {
        for dtype in [DType::F32, DType::Bf16] {
            let dir = tempfile::tempdir().unwrap();
            let (mut dev, layout, mut optimizer) = setup(dtype);
            update(&mut dev, &layout, &mut optimizer, 3, 1);
            update(&mut dev, &layout, &mut optimizer, 2, 2);
            let shared = Arc::new(layout.clone());
            let mut fetch = |t| dev.read_bytes(t);
            write_files(dir.path(), optimizer.outgoing(&shared), &mut fetch).unwrap();
            write_weights(dir.path(), weights(&shared, dtype), &mut fetch).unwrap();

            let (mut fresh, copy, mut resumed) = setup(dtype);
            WeightFiles::open(dir.path()).unwrap().load(&mut fresh, &copy).unwrap();
            resumed.load(&mut fresh, &copy, dir.path()).unwrap();
            assert_eq!(bytes(&dev, &layout, &optimizer), bytes(&fresh, &copy, &resumed));
            update(&mut dev, &layout, &mut optimizer, 3, 3);
            update(&mut fresh, &copy, &mut resumed, 3, 3);
            assert_eq!(bytes(&dev, &layout, &optimizer), bytes(&fresh, &copy, &resumed));
        }
    }

    #[test]
    fn without_a_gradient_nothing_moves_or_decays() {
        let (mut dev, layout, mut optimizer) = setup(DType::F32);
        let ones = |_: usize, _: usize, out: &mut [f32]| out.fill(1.0);
        layout.params.iter().for_each(|p| p.fill::<f32>(&mut dev, p.tensor, ones).unwrap());
        update(&mut dev, &layout, &mut optimizer, 1, 0);
        assert!(dev.read::<f32>(layout.params[2].tensor).unwrap().iter().all(|w| *w == 1.0));
        assert!(dev.read::<f32>(layout.params[0].tensor).unwrap().iter().any(|w| *w != 1.0 && *w != 0.0));
        assert!(optimizer.stats(&mut dev).unwrap().finite);
    }

    #[test]
    fn a_set_with_a_missing_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut dev, layout, mut optimizer) = setup(DType::F32);
        assert_eq!(optimizer.load(&mut dev, &layout, dir.path()).unwrap_err().exit_code(), 2);
        std::fs::write(dir.path().join("optim-00001-of-00002.safetensors"), "").unwrap();
        assert!(optimizer.load(&mut dev, &layout, dir.path()).is_err());
    }
}
