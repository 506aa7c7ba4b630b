//! Files of the optimizer's state: `optim-0000i-of-0000n.safetensors`.
//!
//! - f32 moments have Hugging Face names and shapes, without padding: `NAME.m` and `NAME.v`. Any layout can continue
//!   from them.
//! - Moments with fewer bits are blocks in a parameter's own element order: `NAME.m` and `NAME.v` (u8 or bf16) and,
//!   with 8 bits, `NAME.m.scales` and `NAME.v.scales` (f32). They are flat, under the name of the parameter's first
//!   piece. The files' headers contain the order and the settings; files with another order are refused.
//! - `NAME.lo` (i16, the low half of the f32 master of a bf16 weight) and `NAME.step` (u32 `[1]`) have Hugging Face
//!   names and shapes in both cases.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::bf16;

use super::freeze;
use super::state::State;
use crate::nn::weights::layout::ParamLayout;
use crate::nn::weights::outgoing::{Content, OutFile, Outgoing, Part, cut};
use crate::nn::weights::params::Piece;
use crate::nn::weights::{StoredTensor, WeightFiles};
use omr_base::config::{OptimConfig, OptimizerName};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_runtime::device::Device;
use omr_runtime::ops::adamw::Moments;
use omr_runtime::ops::adamw::code8::BLOCK;
use omr_runtime::ops::matmul::Order;
use omr_runtime::tensor::{DType, Elem, Tensor};

/// Maximum size in bytes of a state file that is written.
const MAX_FILE_BYTES: usize = 5_000_000_000;

/// Settings under which state files were written. A run that reads the files must have the same settings.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct StateSettings {
    optim: &'static str,
    bf16_stochastic_round: &'static str,
    /// Element order of flat tensors.
    order: String,
    /// True if trained parts without state in the files start with zero moments.
    start_moments_anew: bool,
}

impl StateSettings {
    /// Returns the settings of a run with this config on this device.
    pub(super) fn new(dev: &Device, layout: &ParamLayout, config: &OptimConfig) -> StateSettings {
        let order = match Order::of(dev) {
            Order::Panels => "panels",
            _ => "rows",
        };
        let dtype = if layout.dtype == DType::Bf16 { "bf16" } else { "f32" };
        StateSettings {
            optim: config.optim.name(),
            bf16_stochastic_round: if config.bf16_stochastic_round { "true" } else { "false" },
            order: format!("{order} of {dtype}"),
            start_moments_anew: config.start_moments_anew,
        }
    }

    fn notes(&self) -> Vec<(String, String)> {
        let all = [
            ("optim", self.optim),
            ("bf16_stochastic_round", self.bf16_stochastic_round),
            ("order", self.order.as_str()),
        ];
        all.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()
    }

    /// Errors unless the state in `dir` has these settings. Files without settings are older and have the defaults.
    fn check(&self, stored: &WeightFiles, dir: &Path) -> Result<()> {
        let same = |key: &str, default: &str, now: &str, hint: &str| {
            let was = stored.note(key).unwrap_or(default);
            if was == now {
                return Ok(());
            }
            let hint = hint.replace("{was}", was);
            let expected = format!("{now}, the value of this run");
            Err(Error::input_hint(format!("{}: {key}", dir.display()), was, expected, hint))
        };
        let exact = OptimizerName::AdamwTorch.name();
        same("optim", exact, self.optim, "set optim to {was}, or start over from the weights")?;
        let hint = "set bf16_stochastic_round to {was}, or start over from the weights";
        same("bf16_stochastic_round", "false", self.bf16_stochastic_round, hint)?;
        if self.optim == exact {
            return Ok(());
        }
        let hint =
            "continue with the dtype and kind of device that wrote it: each scale belongs to a block in this order";
        same("order", &self.order, &self.order, hint)
    }
}

/// Plans the files of the state of `layout`'s parameters. This process has the range `own` of each parameter.
pub(super) fn outgoing(
    layout: &Arc<ParamLayout>,
    states: &[Option<State>],
    own: &[Range<usize>],
    kept: &StateSettings,
) -> Vec<OutFile> {
    let mut tensors = Vec::new();
    for (id, (param, state)) in layout.params.iter().zip(states).enumerate() {
        let Some(state) = state else { continue };
        let (own, len) = (&own[id], param.tensor.len());
        let pieces = || param.pieces.iter().enumerate();
        let name = |piece: &Piece, what: &str| format!("{}.{what}", piece.name);
        let by_piece = |what: &'static str, tensor: Tensor, of: fn(String, Part<'_>) -> Outgoing| {
            pieces().map(move |(piece, p)| of(name(p, what), Part { layout, param: id, piece, tensor, own }))
        };
        match state.moments {
            Moments::F32 { m, v } => {
                tensors.extend([("m", m), ("v", v)].into_iter().flat_map(|(w, t)| by_piece(w, t, elements::<f32>)));
            }
            moments => tensors.extend(flat(moments, len, own.start).map(|(what, tensor, len, first)| {
                Outgoing::flat(format!("{}.{what}", param.name()), len, tensor, first)
            })),
        }
        tensors.extend(state.lo.into_iter().flat_map(|lo| by_piece("lo", lo, elements::<i16>)));
        // Every rank has the update count. The rank that owns the first element writes it.
        let updates = state.updates as u32;
        tensors.extend(pieces().map(|(_, p)| Outgoing {
            name: name(p, "step"),
            dtype: DType::U32,
            shape: vec![1],
            content: match own.contains(&0) {
                true => Content::Made(Box::new(move || Ok(updates.to_le_bytes().to_vec()))),
                false => Content::Elsewhere,
            },
        }));
    }
    let mut files = cut(tensors, MAX_FILE_BYTES, |i, count| format!("optim-{:05}-of-{count:05}.safetensors", i + 1));
    files.iter_mut().for_each(|file| file.notes = kept.notes());
    files
}

/// Returns the tensors of moments in bf16 or of 8-bit Adam: the end of the name, the tensor, its length for all `len`
/// elements of the parameter, and the place in it of the parameter's element `first`.
fn flat(moments: Moments, len: usize, first: usize) -> impl Iterator<Item = (&'static str, Tensor, usize, usize)> {
    let of = move |(what, tensor): (&'static str, Option<Tensor>)| {
        let each = if what.ends_with("scales") { BLOCK } else { 1 };
        Some((what, tensor?, len.div_ceil(each), first / each))
    };
    ["m", "m.scales", "v", "v.scales"].into_iter().zip(moments.tensors()).filter_map(of)
}

fn elements<T: Elem>(name: String, part: Part<'_>) -> Outgoing {
    let encode = |values: Vec<T>| bytemuck::cast_slice(&values).to_vec();
    Outgoing::piece::<T>(name, T::DTYPE, part, encode)
}

/// Reads the range `own` of each parameter from files that any number of ranks wrote (see [`outgoing`]). Errors name
/// the folder and the tensor that is missing or does not fit, or the setting that differs.
pub(super) fn load(
    dev: &mut Device,
    layout: &ParamLayout,
    states: &mut [Option<State>],
    own: &[Range<usize>],
    kept: &StateSettings,
    dir: &Path,
) -> Result<()> {
    let stored = WeightFiles::open_files(dir, &state_files(dir)?)?;
    kept.check(&stored, dir)?;
    for ((param, state), own) in layout.params.iter().zip(states).zip(own) {
        let Some(state) = state else { continue };
        let updates = format!("{}.step", param.name());
        if !stored.names().any(|name| name == updates) {
            if kept.start_moments_anew {
                continue;
            }
            let key = freeze::key(param.part);
            let found = format!("no optimizer state for {}, which was frozen", param.name());
            let hint = format!("set {key}=true again, or start_moments_anew=true to start with zero moments");
            return Err(Error::input_hint(dir, found, "state for every part that is trained", hint));
        }
        let len = param.tensor.len();
        let part = |suffix: &str| -> Result<Vec<_>> {
            let named = |p: &Piece| stored.tensor(&format!("{}.{suffix}", p.name), &p.shape);
            param.pieces.iter().map(named).collect()
        };
        match state.moments {
            Moments::F32 { m, v } => {
                for (what, tensor) in [("m", m), ("v", v)] {
                    let moment = part(what)?;
                    param.fill_from::<f32>(dev, tensor, own.start, |piece, r, out| moment[piece].row(r, out))?;
                }
            }
            moments => {
                for (what, tensor, len, first) in flat(moments, len, own.start) {
                    let moment = stored.tensor(&format!("{}.{what}", param.name()), &[len])?;
                    match tensor.dtype {
                        DType::U8 => read_flat::<u8>(dev, &moment, first, tensor)?,
                        DType::Bf16 => read_flat::<bf16>(dev, &moment, first, tensor)?,
                        _ => read_flat::<f32>(dev, &moment, first, tensor)?,
                    }
                }
            }
        }
        let low = format!("{}.lo", param.name());
        if state.lo.is_none() && stored.names().any(|name| name == low) {
            let what = format!("{low} belongs to a run with dtype bf16: continue with that dtype");
            return Err(Error::format(dir, what));
        }
        if let Some(tensor) = state.lo {
            let lo = part("lo")?;
            param.fill_from::<i16>(dev, tensor, own.start, |piece, r, out| lo[piece].row(r, out))?;
        }
        let mut count = [0.0];
        stored.tensor(&updates, &[1])?.row(0, &mut count);
        state.updates = count[0] as u64;
    }
    Ok(())
}

/// Fills `t` with the elements of `stored` from `first` on, in stored order. f32 represents every type used here
/// exactly.
fn read_flat<T: Elem>(dev: &mut Device, stored: &StoredTensor<'_>, first: usize, t: Tensor) -> Result<()> {
    let mut values = vec![0.0; t.len()];
    stored.range(first, &mut values);
    let values: Vec<T> = values.into_iter().map(T::from_f32).collect();
    dev.write(t, &values)
}

/// Returns the state files of `dir`, in order. Errors if a file of the set is missing.
fn state_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files::entries(dir)?;
    let is_state = |name: String| name.starts_with("optim-") && name.ends_with(".safetensors");
    files.retain(|path| is_state(files::file_name(path)));
    let count = files.len();
    let whole = |(i, path): (usize, &PathBuf)| path.ends_with(format!("optim-{:05}-of-{count:05}.safetensors", i + 1));
    if count > 0 && files.iter().enumerate().all(whole) {
        return Ok(files);
    }
    let expected = "a complete set, starting with optim-00001-of-0000N.safetensors";
    Err(Error::input(dir, format!("{count} optimizer files"), expected))
}
