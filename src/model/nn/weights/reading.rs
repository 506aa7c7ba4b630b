//! Copies weights from their files to the device. A thread asks the system to read ahead of the conversion, so that the
//! disk and all compute threads work at the same time. Rows are read with `pread`, because access through a mapping
//! interrupts the program at every page.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use half::bf16;
use safetensors::tensor::Dtype;

use super::params::{Param, Piece};
use super::{Shard, Stored, StoredTensor, WeightFiles};
use crate::nn::adapter::adapter_files::StoredAdapter;
use crate::nn::config::quantization::KEY;
use crate::nn::{Model, ModelConfig, ParamLayout};
use omr_base::choice::BaseFormat;
use omr_base::error::{Error, Result};
use omr_base::hub::base_model;
use omr_base::observe::Observer;
use omr_data::image::Processor;
use omr_runtime::device::Device;
use omr_runtime::ops::quantized::{EncodeFault, Encoded, Quantized, encode};
use omr_runtime::tensor::{DType, Elem};

/// Bytes by which the requests for reading are ahead of the conversion.
const AHEAD: u64 = 512 << 20;
/// Bytes of one request for reading.
const REQUEST: usize = 8 << 20;
/// Loads that are shorter report no progress.
const SILENT: Duration = Duration::from_secs(2);

impl Model {
    /// Does the same as [`Model::load`] for a model whose configuration is `config`, and reports the progress to
    /// `observer`, if loading takes some seconds. Errors with [`Error::Stopped`] if the user asked to stop. If `dir` contains an adapter, the weights are those of the
    /// adapter's base.
    pub fn load_shown(
        dev: &mut Device,
        dir: &Path,
        config: ModelConfig,
        dtype: DType,
        observer: &dyn Observer,
    ) -> Result<Model> {
        let mut model = Model::empty(dev, config, dtype)?;
        if let Some(vision) = &mut model.vision
            && Processor::file(dir)?.is_some()
        {
            vision.processor = Processor::load(dir, model.config.grid())?;
        }
        let base = base_model::of(dir)?;
        let adapter = base.as_ref().map(|_| StoredAdapter::open(dir)).transpose()?;
        if let (Some(adapter), Some(base)) = (&adapter, &base) {
            adapter.check_base(base)?;
        }
        WeightFiles::open(base.as_deref().unwrap_or(dir))?.load(dev, &model.layout, model.config.family, observer)?;
        adapter.map_or(Ok(()), |adapter| adapter.attach(dev, &mut model))?;
        Ok(model)
    }
}

/// The rest of a load, in bytes. When it is dropped, the thread that reads ahead ends.
struct Taken<'a>(&'a AtomicU64);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }
}

impl WeightFiles {
    /// Copies the weights of `layout`, which have been checked, to the device.
    pub(crate) fn fill(&self, dev: &mut Device, layout: &ParamLayout, observer: &dyn Observer) -> Result<()> {
        let parts: Vec<(&Shard, Range<usize>)> =
            layout.pieces().map(|(_, _, piece)| self.part(&self.tensors[&piece.name])).collect();
        let total: usize = parts.iter().map(|(_, bytes)| bytes.len()).sum();
        let (begun, mut is_shown, taken) = (Instant::now(), false, AtomicU64::new(0));
        let mb = |bytes: u64| bytes / 1_000_000;
        let done = std::thread::scope(|scope| {
            let taken = Taken(&taken);
            scope.spawn(|| read_ahead(&parts, taken.0));
            for param in &layout.params {
                match layout.dtype {
                    _ if param.quantized.is_some() => self.fill_codes(dev, param, taken.0)?,
                    DType::Bf16 => self.fill_param::<bf16>(dev, param, taken.0)?,
                    _ => self.fill_param::<f32>(dev, param, taken.0)?,
                }
                let bytes = taken.0.load(Ordering::Relaxed);
                if !is_shown && begun.elapsed() > SILENT {
                    observer.begun("load", "MB", mb(total as u64), 0, begun);
                    is_shown = true;
                }
                if is_shown {
                    observer.step(mb(bytes), &[("MB/s", mb(bytes) as f64 / begun.elapsed().as_secs_f64())]);
                    if observer.stop_requested() {
                        return Err(Error::Stopped);
                    }
                }
            }
            Ok(())
        });
        if is_shown {
            observer.end();
        }
        done
    }

    /// Returns the bytes of the file for one row of `piece`.
    fn row_bytes(&self, piece: &Piece) -> u64 {
        (self.tensors[&piece.name].bytes.len() / piece.shape[0].max(1)) as u64
    }

    fn part(&self, stored: &Stored) -> (&Shard, Range<usize>) {
        (&self.files[stored.file], stored.bytes.clone())
    }

    /// Copies one parameter to the device and adds the bytes that were read to `taken`.
    fn fill_param<T: Elem>(&self, dev: &mut Device, param: &Param, taken: &AtomicU64) -> Result<()> {
        let pieces: Vec<&Stored> = param.pieces.iter().map(|piece| &self.tensors[&piece.name]).collect();
        let codes = param.pieces.iter().map(|piece| self.codes(piece)).collect::<Result<Vec<_>>>()?;
        let fault = Mutex::new(None);
        param.fill_rows::<T>(dev, param.tensor, 0, |i, rows, out| {
            let (piece, row_len) = (&param.pieces[i], param.pieces[i].row_len());
            if let Some(codes) = &codes[i] {
                let mut values = vec![0.0; row_len];
                taken.fetch_add(self.row_bytes(piece) * rows.len() as u64, Ordering::Relaxed);
                for (r, out) in rows.zip(out.chunks_exact_mut(row_len)) {
                    codes.values(r, &mut values);
                    out.iter_mut().zip(&values).for_each(|(out, value)| *out = T::from_f32(*value));
                }
                return;
            }
            let (shard, bytes) = self.part(pieces[i]);
            let source = Source { shard, dtype: pieces[i].dtype, start: bytes.start };
            let result = source.read(rows.start * row_len, out).map_err(|e| Error::io(self.dir.join(&shard.name))(e));
            let result = result.and_then(|read| {
                taken.fetch_add(read as u64, Ordering::Relaxed);
                let is_broken = |x: &T| !x.to_f32().is_finite();
                // A count over all elements, unlike a search, is vectorised.
                if out.iter().map(|x| u32::from(is_broken(x))).sum::<u32>() == 0 {
                    return Ok(());
                }
                let at = out.iter().position(is_broken).unwrap_or_default();
                let (r, k, value) = (rows.start + at / row_len, at % row_len, out[at].to_f32());
                let what = format!("{} is {value} at [{r}, {k}], expected finite weights", piece.name);
                Err(Error::format(self.dir.join(&shard.name), what))
            });
            if let Err(error) = result {
                fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        })?;
        fault.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Quantises one parameter, or copies its codes, and adds the bytes that were read to `taken`.
    fn fill_codes(&self, dev: &mut Device, param: &Param, taken: &AtomicU64) -> Result<()> {
        let Some(Quantized { format, .. }) = param.quantized else { return Ok(()) };
        let codes = param.pieces.iter().map(|piece| self.codes(piece)).collect::<Result<Vec<_>>>()?;
        if let Some(at) = codes.iter().position(|codes| codes.as_ref().is_some_and(|codes| codes.format != format)) {
            let found = format!("{} is stored in another format than {}", param.pieces[at].name, format.name());
            return Err(Error::format(&self.dir, found));
        }
        let is_quantised = self.has_any_codes();
        param.fill_codes(dev, |i, r, row| {
            let piece = &param.pieces[i];
            if let Some(codes) = &codes[i] {
                codes.row(r, piece.row_len(), row);
                taken.fetch_add(self.row_bytes(piece), Ordering::Relaxed);
                return Ok(());
            }
            if is_quantised {
                let found = format!("{} has no codes, but {KEY} does not list its module as skipped", piece.name);
                return Err(Error::format(&self.dir, found));
            }
            let mut values = vec![0.0; piece.row_len()];
            let (shard, bytes) = self.part(&self.tensors[&piece.name]);
            let source = Source { shard, dtype: self.tensors[&piece.name].dtype, start: bytes.start };
            let read = source.read::<f32>(r * values.len(), &mut values);
            taken.fetch_add(read.map_err(|e| Error::io(self.dir.join(&shard.name))(e))? as u64, Ordering::Relaxed);
            encode_row(&piece.name, r, &values, format, row)
        })
    }
}

/// Quantises row `r` of the tensor `name`. Errors on a value that `format` cannot store.
pub(crate) fn encode_row(name: &str, r: usize, values: &[f32], format: BaseFormat, row: &mut Encoded) -> Result<()> {
    let unfit = |EncodeFault { at, value }| {
        let expected = match format {
            BaseFormat::Int8 => "finite weights up to 127 * 2^119, which int8 can store",
            BaseFormat::Nf4 => "finite weights",
        };
        Error::input(name, format!("{value:e} at {:?}", [r, at]), expected)
    };
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(unfit(EncodeFault { at, value: values[at] })),
        None => encode(format, values, row).map_err(unfit),
    }
}

/// A tensor in a file.
struct Source<'a> {
    shard: &'a Shard,
    dtype: Dtype,
    /// Offset of the tensor in the file.
    start: usize,
}

impl Source<'_> {
    /// Reads the elements from `first` on, converted to `T`. Returns the number of bytes that were read.
    fn read<T: Elem>(&self, first: usize, out: &mut [T]) -> std::io::Result<usize> {
        let size = self.dtype.bitsize() / 8;
        let (at, len) = (self.start + first * size, out.len() * size);
        match (self.dtype, T::DTYPE) {
            (Dtype::BF16, DType::Bf16) | (Dtype::F32, DType::F32) => {
                self.shard.map.read_at(at, bytemuck::cast_slice_mut(out))?;
            }
            (dtype, _) => {
                let mut bytes = vec![0; len];
                self.shard.map.read_at(at, &mut bytes)?;
                let mut values = vec![0.0; out.len()];
                StoredTensor { dtype, bytes: &bytes }.range(0, &mut values);
                out.iter_mut().zip(values).for_each(|(out, value)| *out = T::from_f32(value));
            }
        }
        Ok(len)
    }
}

/// Asks the system to read `parts`, in order, ahead of the bytes that were `taken`.
fn read_ahead(parts: &[(&Shard, Range<usize>)], taken: &AtomicU64) {
    let mut requested = 0;
    for (shard, bytes) in parts {
        for from in bytes.clone().step_by(REQUEST) {
            while requested > taken.load(Ordering::Relaxed).saturating_add(AHEAD) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if taken.load(Ordering::Relaxed) == u64::MAX {
                return;
            }
            let request = from..bytes.end.min(from + REQUEST);
            requested += request.len() as u64;
            shard.map.will_need(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::nn::family::qwen2_5_vl::FAMILY;
    use crate::nn::weights::part::Part;
    use omr_base::observe::Silent;
    use omr_runtime::device::{Isa, Plan};

    /// Makes a layer whose rows alternate in blocks and do not fill the last panel.
    fn layer(dtype: DType) -> (Device, ParamLayout) {
        let mut dev = Device::cpu(&Plan::uniform(1 << 22), 2, Isa::detect()).unwrap();
        let mut layout = ParamLayout::new(dtype);
        layout.within(Part::Head).gate_up(&mut dev, "m", 45, 11, false).unwrap();
        layout.within(Part::Head).norm(&mut dev, "norm", 37).unwrap();
        (dev, layout)
    }

    fn bits(dev: &mut Device, layout: &ParamLayout) -> Vec<u8> {
        layout.params.iter().flat_map(|p| dev.read_bytes(p.tensor).unwrap()).collect()
    }

    #[test]
    fn each_stored_type_is_converted_as_one_number_is() {
        let value =
            |param: usize, piece: usize, at: usize| ((param * 401 + piece * 211 + at * 17) % 997) as f32 / 331.0;
        for stored in [Dtype::F32, Dtype::BF16, Dtype::F16] {
            let (_, names) = layer(DType::F32);
            let encode = |x: f32| match stored {
                Dtype::F32 => x.to_le_bytes().to_vec(),
                Dtype::BF16 => <bf16 as Elem>::from_f32(x).to_le_bytes().to_vec(),
                _ => f16::from_f32(x).to_le_bytes().to_vec(),
            };
            let rounded = |x: f32| match stored {
                Dtype::F32 => x,
                Dtype::BF16 => <bf16 as Elem>::from_f32(x).to_f32(),
                _ => f16::from_f32(x).to_f32(),
            };
            let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = names
                .pieces()
                .map(|(i, j, p)| {
                    let bytes = (0..p.num_elements()).flat_map(|at| encode(value(i, j, at))).collect();
                    (p.name.clone(), p.shape.clone(), bytes)
                })
                .collect();
            let views = bytes
                .iter()
                .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(stored, shape.clone(), bytes).unwrap()));
            let dir = tempfile::tempdir().unwrap();
            let file = safetensors::serialize(views, None).unwrap();
            std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
            for dtype in [DType::F32, DType::Bf16] {
                let (mut dev, layout) = layer(dtype);
                WeightFiles::open(dir.path()).unwrap().load(&mut dev, &layout, &FAMILY, &Silent).unwrap();
                let (mut other, wanted) = layer(dtype);
                for (i, param) in wanted.params.iter().enumerate() {
                    let row = |piece: usize, r: usize, out: &mut [f32]| {
                        let first = r * out.len();
                        out.iter_mut().enumerate().for_each(|(k, x)| *x = rounded(value(i, piece, first + k)));
                    };
                    param.fill_in_dtype(&mut other, param.tensor, row).unwrap();
                }
                let same = bits(&mut dev, &layout) == bits(&mut other, &wanted);
                assert!(same, "{stored:?} as {dtype:?}");
            }
        }
    }

    #[test]
    fn a_weight_that_is_not_finite_is_named_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (mut dev, mut layout) =
            (Device::cpu(&Plan::uniform(1 << 22), 2, Isa::detect()).unwrap(), ParamLayout::new(DType::Bf16));
        layout.within(Part::Head).linear(&mut dev, "w", [40, 6], [40, 6], false).unwrap();
        let mut values = vec![1.0_f32; 40 * 6];
        values[35 * 6 + 4] = f32::INFINITY;
        let bytes: Vec<u8> = values.iter().flat_map(|x| <bf16 as Elem>::from_f32(*x).to_le_bytes()).collect();
        let view = TensorView::new(Dtype::BF16, vec![40, 6], &bytes).unwrap();
        std::fs::write(
            dir.path().join("model.safetensors"),
            safetensors::serialize([("w.weight", view)], None).unwrap(),
        )
        .unwrap();
        let text =
            WeightFiles::open(dir.path()).unwrap().load(&mut dev, &layout, &FAMILY, &Silent).unwrap_err().to_string();
        assert!(text.contains("model.safetensors: w.weight is inf at [35, 4], expected finite weights"), "{text}");
    }
}
