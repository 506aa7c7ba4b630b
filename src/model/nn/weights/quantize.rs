//! Writes a model directory with quantised matrices, one tensor after the other.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde_json::{Value, json};

use super::WeightFiles;
use super::outgoing::{self, Content, MAX_SHARD_BYTES, Outgoing, encoded, shard_name};
use super::params::Piece;
use super::reading::encode_row;
use super::stored_codes::{SCALE, STATE};
use crate::nn::config::{Family, quantization};
use crate::nn::family::names::{path_in_memory, stored_name};
use crate::nn::{Model, ModelConfig, OutModel};
use omr_base::choice::BaseFormat;
use omr_base::config::QuantizationConfig;
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, Target};
use omr_runtime::ops::quantized::{BLOCK, Encoded, LEVELS, scale_dtype};
use omr_runtime::tensor::DType;

/// Plans the files of the model in `dir` with matrices of this storage. Errors if its weights are quantised already.
pub fn quantize(dir: &Path, quantization: &QuantizationConfig) -> Result<OutModel> {
    let config = ModelConfig::load(&dir.join("config.json"))?;
    if config.quantization.is_some() {
        let expected = "a model whose weights are f32, bf16 or f16";
        return Err(Error::input("--quantize", format!("{}, which is quantised", dir.display()), expected));
    }
    let config = config.quantized(Some(quantization))?;
    let files = Arc::new(WeightFiles::open(dir)?);
    let format = quantization.base;
    // The layout of bitsandbytes records bfloat16 as the type of the weights.
    let dtype = if format == BaseFormat::Nf4 { DType::Bf16 } else { files.dtype() };
    let model = Model::empty(&mut Device::count_for(Target::cpu(1)), config.clone(), dtype)?;
    let (linears, layout) = (model.linears(), &model.layout);
    files.check(layout, Some(config.family))?;
    let mut tensors = Vec::new();
    for (id, _, piece) in layout.pieces() {
        let (files, name) = (files.clone(), stored_name(config.family, &piece.name));
        match layout.params[id].quantized {
            Some(_) => tensors.extend(codes(&files, &Arc::new(piece.clone()), name, format)),
            None => tensors.push(plain(files, piece.clone(), name, dtype)),
        }
    }
    let mut text = config.to_json(dtype);
    if format == BaseFormat::Nf4 {
        let is_plain = |module: &&str| !layout.is_quantized(module) && !quantization.skips(module);
        let plain: Vec<&str> = linears.iter().map(|(module, _)| *module).filter(is_plain).collect();
        text[quantization::KEY] = bitsandbytes(quantization, config.family, &plain);
    }
    let weights = outgoing::cut(tensors, MAX_SHARD_BYTES, shard_name);
    Ok(OutModel { configs: vec![("config.json", format!("{text:#}\n"))], weights })
}

/// Returns the `quantization_config` with which transformers loads matrices of NF4.
fn bitsandbytes(quantization: &QuantizationConfig, family: &Family, plain: &[&str]) -> Value {
    // transformers compares the names with paths in memory.
    let skipped = quantization.skip_modules.iter().flat_map(|name| match name.as_str() {
        "visual" => vec!["visual".to_owned(), "model.visual".to_owned()],
        name => vec![name.to_owned()],
    });
    let paths = skipped.chain(plain.iter().map(|module| path_in_memory(family, module)));
    json!({
        "quant_method": "bitsandbytes",
        "load_in_4bit": true,
        "load_in_8bit": false,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_use_double_quant": false,
        "llm_int8_skip_modules": paths.collect::<Vec<_>>(),
    })
}

fn plain(files: Arc<WeightFiles>, piece: Piece, name: String, dtype: DType) -> Outgoing {
    let shape = piece.shape.clone();
    let content = Content::Made(Box::new(move || {
        let mut values = vec![0.0; piece.num_elements()];
        files.tensor(&piece.name, &piece.shape)?.range(0, &mut values);
        Ok(encoded(&values, dtype))
    }));
    Outgoing { name, dtype, shape, content }
}

/// Plans the tensors of a quantised matrix.
fn codes(files: &Arc<WeightFiles>, piece: &Arc<Piece>, name: String, format: BaseFormat) -> Vec<Outgoing> {
    let (n, k) = (piece.shape[0], piece.row_len());
    // The rows are quantised for the codes and kept for the scales, which are written next.
    let kept: Arc<Mutex<Option<Vec<Encoded>>>> = Arc::default();
    let made = |part: fn(&Encoded) -> Vec<u8>| {
        let (files, piece, kept) = (files.clone(), piece.clone(), kept.clone());
        Content::Made(Box::new(move || {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(rows) = kept.take() {
                return Ok(rows.par_iter().flat_map_iter(part).collect());
            }
            let rows = kept.insert(rows(&files, &piece, format)?);
            Ok(rows.par_iter().flat_map_iter(part).collect())
        }))
    };
    let tensor = |end: &str, dtype: DType, shape: &[usize], content: Content| Outgoing {
        name: format!("{name}{end}"),
        dtype,
        shape: shape.to_vec(),
        content,
    };
    let (scales, of_scales) = (k.div_ceil(BLOCK), made(|row| row.scales.clone()));
    if format == BaseFormat::Int8 {
        return vec![
            tensor("", DType::I8, &[n, k], made(|row| row.codes.clone())),
            tensor(SCALE, scale_dtype(format), &[n, scales], of_scales),
        ];
    }
    let pairs = |row: &Encoded| row.codes.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let state = json!({"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": [n, k]}).to_string();
    let ready = |end: &str, dtype: DType, bytes: Vec<u8>| {
        tensor(end, dtype, &[bytes.len() / dtype.size()], Content::Made(Box::new(move || Ok(bytes.clone()))))
    };
    vec![
        tensor("", DType::U8, &[n * k / 2, 1], made(pairs)),
        tensor(".absmax", DType::F32, &[n * scales], of_scales),
        ready(".quant_map", DType::F32, LEVELS.iter().flat_map(|level| level.to_le_bytes()).collect()),
        ready(STATE, DType::U8, state.into_bytes()),
    ]
}

/// Quantises the rows of the matrix `piece`.
fn rows(files: &WeightFiles, piece: &Piece, format: BaseFormat) -> Result<Vec<Encoded>> {
    let (k, stored) = (piece.row_len(), files.tensor(&piece.name, &piece.shape)?);
    let row = |r: usize| {
        let (mut values, mut row) = (vec![0.0; k], Encoded::zeros(format, k));
        stored.row(r, &mut values);
        encode_row(&piece.name, r, &values, format, &mut row).map(|()| row)
    };
    (0..piece.shape[0]).into_par_iter().map(row).collect()
}
