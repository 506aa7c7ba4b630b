//! Codes of quantised matrices in files: int8 as omr writes it, and NF4 as bitsandbytes writes it.
//!
//! A matrix `X` of int8 has the tensors `X` (I8 `[n, k]`) and `X_scale` (U8 `[n, ceil(k / 64)]`, the exponents plus 127).
//! One of NF4 has `X` (U8, two codes per byte, the first in the high half) and `X.absmax`, which is itself quantised if
//! `X.nested_absmax` exists; `X.quant_state.bitsandbytes__nf4` contains sizes and types as JSON.

use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use omr_base::choice::BaseFormat;
use omr_runtime::ops::quantized::{BLOCK, Encoded, LEVELS, nf4_value};

/// End of the name of the scales of int8.
pub(crate) const SCALE: &str = "_scale";
/// End of the name of the sizes and types of NF4.
pub(crate) const STATE: &str = ".quant_state.bitsandbytes__nf4";
/// Ends of the names of the tensors beside the codes.
const BESIDE: [&str; 6] = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", SCALE, STATE];

/// Returns the name of the matrix if the tensor `name` holds scales or other data beside its codes.
pub(crate) fn matrix_of(name: &str) -> Option<&str> {
    BESIDE.iter().filter_map(|end| name.strip_suffix(end)).find(|name| name.ends_with(".weight"))
}

/// Bytes of the exponents of int8, which are 2^-117 to 2^119.
const EXPONENTS: std::ops::RangeInclusive<u8> = 10..=246;

/// A tensor in a file.
#[derive(Clone, Copy)]
pub(crate) struct FileTensor<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

/// Returns the shape of the matrix whose sizes and types of NF4 are in `state`.
pub(crate) fn shape(state: &[u8]) -> Option<Vec<usize>> {
    let state: Value = serde_json::from_slice(state).ok()?;
    serde_json::from_value(state["shape"].clone()).ok()
}

/// The codes of a matrix in files.
pub(crate) struct StoredCodes<'a> {
    pub(crate) format: BaseFormat,
    codes: &'a [u8],
    /// Bytes of the scales in the order of the blocks: one byte each, or f32.
    scales: Vec<u8>,
}

impl<'a> StoredCodes<'a> {
    /// Reads the codes of the matrix `name` `[n, k]`, or returns `None` if it is not quantised. `find` returns the tensor
    /// with the name of the matrix and an end. Errors describe the tensor that does not fit.
    pub(crate) fn read(
        name: &str,
        [n, k]: [usize; 2],
        find: &dyn Fn(&str) -> Option<FileTensor<'a>>,
    ) -> Result<Option<StoredCodes<'a>>, String> {
        let wrong = |end: &str, expected: String| {
            let found = find(end).map_or("missing".to_owned(), |of| format!("{:?} {:?}", of.dtype, of.shape));
            format!("{name}{end} is {found}, expected {expected}")
        };
        let bytes = |end: &str, dtype: Dtype, len: usize| -> Result<&'a [u8], String> {
            let found = find(end).filter(|of| of.dtype == dtype && of.shape.iter().product::<usize>() == len);
            found.map(|of| of.bytes).ok_or_else(|| wrong(end, format!("{len} elements of {dtype:?}")))
        };
        if find(SCALE).is_some() && find(STATE).is_some() {
            return Err(format!("{name} has scales of int8 and sizes of nf4, expected one of them"));
        }
        if find(SCALE).is_some() {
            let codes = bytes("", Dtype::I8, n * k)?;
            let scales = bytes(SCALE, Dtype::U8, n * k.div_ceil(BLOCK))?.to_vec();
            if let Some(scale) = scales.iter().find(|scale| !EXPONENTS.contains(scale)) {
                return Err(format!("{name}{SCALE} contains {scale}, expected {EXPONENTS:?}"));
            }
            return Ok(Some(StoredCodes { format: BaseFormat::Int8, codes, scales }));
        }
        let Some(state) = find(STATE) else { return Ok(None) };
        let state: Value = serde_json::from_slice(state.bytes).map_err(|_| wrong(STATE, "JSON".to_owned()))?;
        let shape = json!([n, k]);
        for (key, expected) in
            [("quant_type", json!("nf4")), ("blocksize", json!(BLOCK)), ("dtype", json!("bfloat16")), ("shape", shape)]
        {
            if state[key] != expected {
                return Err(format!("{name}: {key} is {}, expected {expected}", state[key]));
            }
        }
        let levels = find(".quant_map").map(|map| map.bytes);
        if levels.is_some_and(|levels| levels != bytemuck::bytes_of(&LEVELS)) {
            return Err(format!("{name}.quant_map has other levels than those of nf4"));
        }
        let blocks = (n * k).div_ceil(BLOCK);
        let codes = bytes("", Dtype::U8, (n * k).div_ceil(2))?;
        let floats = |bytes: &[u8]| -> Vec<f32> { bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect() };
        let absmax = match find(".nested_absmax").is_some() {
            false => floats(bytes(".absmax", Dtype::F32, blocks)?),
            true => {
                let every = state["nested_blocksize"].as_u64().unwrap_or(0).max(1) as usize;
                let nested = floats(bytes(".nested_absmax", Dtype::F32, blocks.div_ceil(every))?);
                let map = floats(bytes(".nested_quant_map", Dtype::F32, 256)?);
                let offset =
                    state["nested_offset"].as_f64().ok_or_else(|| format!("{name}{STATE} has no nested_offset"))?;
                let offset = offset as f32;
                let indices = bytes(".absmax", Dtype::U8, blocks)?.iter().enumerate();
                indices.map(|(i, &index)| map[usize::from(index)] * nested[i / every] + offset).collect()
            }
        };
        if let Some(scale) = absmax.iter().find(|scale| !scale.is_finite()) {
            return Err(format!("{name}.absmax contains {scale}, expected finite scales"));
        }
        Ok(Some(StoredCodes { format: BaseFormat::Nf4, codes, scales: bytemuck::cast_slice(&absmax).to_vec() }))
    }

    /// Copies row `r` of `k` terms. The rows of NF4 are whole blocks.
    pub(crate) fn row(&self, r: usize, k: usize, row: &mut Encoded) {
        let len = row.scales.len();
        row.scales.copy_from_slice(&self.scales[r * len..][..len]);
        match self.format {
            BaseFormat::Int8 => row.codes.copy_from_slice(&self.codes[r * k..][..k]),
            BaseFormat::Nf4 => (0..k).for_each(|i| row.codes[i] = self.code(r * k + i)),
        }
    }

    /// Writes the values of row `r`, whose blocks of NF4 may begin in the row before.
    pub(crate) fn values(&self, r: usize, out: &mut [f32]) {
        let k = out.len();
        if self.format == BaseFormat::Int8 {
            let mut row = Encoded::zeros(self.format, k);
            self.row(r, k, &mut row);
            return row.values(self.format, out);
        }
        for (i, out) in out.iter_mut().enumerate() {
            let at = r * k + i;
            let absmax = bytemuck::pod_read_unaligned(&self.scales[at / BLOCK * 4..][..4]);
            *out = nf4_value(self.code(at), absmax);
        }
    }

    /// Returns the code of NF4 of element `at`.
    fn code(&self, at: usize) -> u8 {
        let byte = self.codes[at / 2];
        if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
    }
}
