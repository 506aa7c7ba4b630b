//! Weights and state on their way into safetensors files: what goes into which file is planned first, so that the bytes
//! can be fetched by whoever has the device and written by whoever has the time. Names are the released ones; each file
//! is written whole.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use half::bf16;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files;
use crate::model::params::{Param, ParamLayout, Piece};
use crate::model::weights::{INDEX, SINGLE};
use crate::tensor::{DType, Elem, Tensor};

/// Largest weight file written, as the Hugging Face savers have it.
const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// Gives the bytes of a tensor of the device.
pub type Fetch<'a> = dyn FnMut(Tensor) -> Result<Vec<u8>> + 'a;

/// Picks what goes into a file out of the bytes of a tensor of the device.
pub type Pick = dyn Fn(&[u8]) -> Vec<u8> + Send;

/// Where the bytes of an [`Outgoing`] tensor come from.
pub enum Content {
    /// They are these.
    Ready(Vec<u8>),
    /// They are picked out of the bytes of a tensor of the device.
    Of(Tensor, Box<Pick>),
}

/// A tensor to be written.
pub struct Outgoing {
    /// Its name in the file.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its little-endian elements.
    pub content: Content,
}

impl Outgoing {
    /// Piece number `piece` of parameter `id`, out of `tensor` in the parameter's element order.
    pub fn piece<T: Elem>(
        name: String,
        layout: &Arc<ParamLayout>,
        id: usize,
        piece: usize,
        tensor: Tensor,
    ) -> Outgoing {
        let shape = layout.params[id].pieces[piece].shape.clone();
        let layout = layout.clone();
        let pick =
            move |bytes: &[u8]| bytemuck::cast_slice(&layout.params[id].take::<T>(&elements(bytes), piece)).to_vec();
        Outgoing { name, dtype: T::DTYPE, shape, content: Content::Of(tensor, Box::new(pick)) }
    }

    /// The whole of `tensor`, flat as it lies.
    pub fn flat<T: Elem>(name: String, tensor: Tensor) -> Outgoing {
        let content = Content::Of(tensor, Box::new(<[u8]>::to_vec));
        Outgoing { name, dtype: T::DTYPE, shape: vec![tensor.len()], content }
    }

    /// Bytes it will take.
    pub fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    /// True for a tensor without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A safetensors file to be written: its name and what goes into it, in order.
pub struct OutFile {
    /// Its name in the folder.
    pub name: String,
    /// Its tensors.
    pub tensors: Vec<Outgoing>,
    /// What its header's `__metadata__` has beside the format.
    pub notes: Vec<(String, String)>,
}

/// Bytes as elements; copied where they do not lie on the elements' boundary.
fn elements<T: Elem>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) => Cow::Borrowed(elements),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

/// The tensors that [`write_files`] will fetch, in its order.
pub fn fetched(files: &[OutFile]) -> Vec<Tensor> {
    let contents = files.iter().flat_map(|file| &file.tensors);
    let mut tensors: Vec<Tensor> = contents.filter_map(|t| t.content.tensor()).collect();
    tensors.dedup();
    tensors
}

impl Content {
    fn tensor(&self) -> Option<Tensor> {
        match self {
            Content::Ready(_) => None,
            Content::Of(tensor, _) => Some(*tensor),
        }
    }
}

/// Cuts tensors, in their order, into files of at most `max_bytes` each; `name` gives a file's name by its index and the
/// number of files.
pub fn cut(tensors: Vec<Outgoing>, max_bytes: usize, name: impl Fn(usize, usize) -> String) -> Vec<OutFile> {
    let (mut files, mut bytes): (Vec<Vec<Outgoing>>, usize) = (Vec::new(), 0);
    for tensor in tensors {
        match files.last_mut() {
            Some(file) if bytes + tensor.len() <= max_bytes => {
                bytes += tensor.len();
                file.push(tensor);
            }
            _ => {
                bytes = tensor.len();
                files.push(vec![tensor]);
            }
        }
    }
    let count = files.len();
    let file = |(i, tensors)| OutFile { name: name(i, count), tensors, notes: Vec::new() };
    files.into_iter().enumerate().map(file).collect()
}

/// Writes safetensors files into `dir`, each whole.
pub fn write_files(dir: &Path, files: Vec<OutFile>, fetch: &mut Fetch<'_>) -> Result<()> {
    let mut last: Option<(Tensor, Vec<u8>)> = None;
    // Pieces of one parameter follow one another: their tensor is fetched once.
    let mut bytes = |content: Content| match content {
        Content::Ready(bytes) => Ok(bytes),
        Content::Of(tensor, pick) => {
            if last.as_ref().is_none_or(|(have, _)| *have != tensor) {
                last = None;
                last = Some((tensor, fetch(tensor)?));
            }
            Ok(last.as_ref().map(|(_, bytes)| pick(bytes)).unwrap_or_default())
        }
    };
    files.into_iter().try_for_each(|file| write_file(&dir.join(&file.name), file, &mut bytes))
}

fn write_file(path: &Path, file: OutFile, bytes: &mut impl FnMut(Content) -> Result<Vec<u8>>) -> Result<()> {
    let OutFile { tensors, notes, .. } = file;
    // transformers refuses a file without a format.
    let mut metadata = Map::from_iter([("format".to_owned(), json!("pt"))]);
    metadata.extend(notes.into_iter().map(|(key, value)| (key, json!(value))));
    let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(metadata))]);
    let mut end = 0;
    for tensor in &tensors {
        let dtype = match tensor.dtype {
            DType::F64 => "F64",
            DType::F32 => "F32",
            DType::Bf16 => "BF16",
            DType::U8 => "U8",
            DType::I32 => "I32",
            DType::U32 => "U32",
            DType::I16 => "I16",
        };
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.len()] });
        header.insert(tensor.name.clone(), entry);
        end += tensor.len();
    }
    let mut header = Value::Object(header).to_string();
    // The format asks for data on a boundary of 8.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut unread = None;
    let written = files::write_with(path, |w| {
        w.write_all(&(header.len() as u64).to_le_bytes())?;
        w.write_all(header.as_bytes())?;
        for tensor in tensors {
            match bytes(tensor.content) {
                Ok(bytes) => w.write_all(&bytes)?,
                Err(error) => {
                    unread = Some(error);
                    return Err(std::io::Error::other("a tensor could not be read back"));
                }
            }
        }
        Ok(())
    });
    unread.map_or(written, Err)
}

/// The weights as files of `dtype` (F32 or BF16): one, or shards of at most 5 GB.
pub fn weights(layout: &Arc<ParamLayout>, dtype: DType) -> Vec<OutFile> {
    shards(layout, dtype, MAX_SHARD_BYTES)
}

pub(super) fn shards(layout: &Arc<ParamLayout>, dtype: DType, max_bytes: usize) -> Vec<OutFile> {
    let tensor = |(id, index, piece): (usize, usize, &Piece)| Outgoing {
        name: piece.name.clone(),
        dtype,
        shape: piece.shape.clone(),
        content: Content::Of(layout.params[id].tensor, {
            let layout = layout.clone();
            Box::new(move |bytes| weight_bytes(&layout.params[id], index, bytes, dtype))
        }),
    };
    cut(layout.pieces().map(tensor).collect(), max_bytes, |i, count| match count {
        1 => SINGLE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    })
}

/// Writes what [`weights`] planned into `dir`, with the list of shards where there are several. A leftover of the other
/// form is removed.
pub fn write_weights(dir: &Path, files: Vec<OutFile>, fetch: &mut Fetch<'_>) -> Result<()> {
    let count = files.len();
    let mut weight_map = Map::new();
    let mut total = 0;
    for file in &files {
        total += file.tensors.iter().map(Outgoing::len).sum::<usize>();
        weight_map.extend(file.tensors.iter().map(|tensor| (tensor.name.clone(), json!(file.name))));
    }
    write_files(dir, files, fetch)?;
    if count > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        files::write(dir.join(INDEX), format!("{index:#}\n").as_bytes())?;
    }
    let stale = if count == 1 { dir.join(INDEX) } else { dir.join(SINGLE) };
    match std::fs::remove_file(&stale) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&stale)(e)),
        _ => Ok(()),
    }
}

/// A Hugging Face tensor's elements as `dtype`, out of the bytes of its parameter.
fn weight_bytes(param: &Param, piece: usize, bytes: &[u8], dtype: DType) -> Vec<u8> {
    let values: Vec<f32> = match param.tensor.dtype {
        DType::Bf16 => param.take::<bf16>(&elements(bytes), piece).into_iter().map(Elem::to_f32).collect(),
        _ => param.take(&elements(bytes), piece),
    };
    match dtype {
        DType::Bf16 => values.iter().flat_map(|x| <bf16 as Elem>::from_f32(*x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// A model directory's `config.json` and weights, to be written.
pub struct OutModel {
    /// The text of `config.json`.
    pub config: String,
    /// The weight files.
    pub weights: Vec<OutFile>,
}

impl OutModel {
    /// Writes both into `dir`, which exists.
    pub fn write(self, dir: &Path, fetch: &mut Fetch<'_>) -> Result<()> {
        write_weights(dir, self.weights, fetch)?;
        files::write(dir.join("config.json"), self.config.as_bytes())
    }
}
