//! Writes weights and optimizer state to safetensors files. The tensors of the weights have their released names. The
//! content of each file is planned first. Therefore one thread can read from the device while another thread writes.
//!
//! Files are first created with their headers and their full size. Then one process fills them, or each rank fills its
//! own part. An incomplete file cannot be recognized by its size. Therefore the files must be in a temporary folder,
//! which is renamed after everything is written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::bf16;
use serde_json::{Map, Value, json};

use super::layout::ParamLayout;
use super::params::Piece;
use super::{INDEX, SINGLE};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::identity::{WriteHasher, Written};
use omr_runtime::device::Device;
use omr_runtime::ops::adamw::master;
use omr_runtime::tensor::{DType, Elem, Tensor};

/// Maximum size of a weight file in bytes, as in the Hugging Face save functions.
pub(crate) const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// Number of elements that are converted and written at once. It bounds the host memory of a save.
const BLOCK: usize = 1 << 20;

/// A source of the bytes of tensors on the device.
pub trait Fetch {
    /// Passes the bytes of `tensor` to `take`.
    fn fetch(&mut self, tensor: Tensor, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;
}

impl<F: FnMut(Tensor) -> Result<Vec<u8>>> Fetch for F {
    fn fetch(&mut self, tensor: Tensor, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        take(&self(tensor)?)
    }
}

/// The memory of the CPU is read in place, without a copy.
impl Fetch for Device {
    fn fetch(&mut self, tensor: Tensor, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self.on_cpu() {
            Some(cpu) => take(cpu.memory.view(tensor.span()).of::<u8>()),
            None => take(&self.read_bytes(tensor)?),
        }
    }
}

/// Function that receives a contiguous run of bytes of a tensor in a file, with its byte offset within the tensor.
pub type Put<'a> = dyn FnMut(usize, &[u8]) -> Result<()> + 'a;

/// Function that converts the bytes of a tensor on the device to bytes of a tensor in a file, in blocks of rows.
pub type Pick = dyn Fn(&[u8], &mut Put<'_>) -> Result<()> + Send;

/// The source of the bytes of an [`Outgoing`] tensor.
pub enum Content {
    /// The bytes that the function makes when they are written.
    Made(Box<dyn Fn() -> Result<Vec<u8>> + Send>),
    /// The bytes that the function makes from the bytes of one or two tensors on the device, one after the other.
    Of(Vec<Tensor>, Box<Pick>),
    /// No bytes on this rank, because another rank writes them.
    Elsewhere,
}

/// A tensor to write.
pub struct Outgoing {
    /// Name of the tensor in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements in little-endian order.
    pub content: Content,
}

/// The elements of one piece of a parameter that this process owns. A piece is a tensor of the released model.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The parameters.
    pub layout: &'a Arc<ParamLayout>,
    /// Index of the parameter.
    pub param: usize,
    /// Index of the piece within the parameter.
    pub piece: usize,
    /// Tensor on the device with the parameter's elements `own`, in the element order of the parameter.
    pub tensor: Tensor,
    /// Range of the parameter's elements that this process owns.
    pub own: &'a Range<usize>,
}

impl Outgoing {
    /// Plans the tensor `name`, of which this process writes the elements in `part`. `encode` converts elements to
    /// bytes of type `dtype`.
    pub fn piece<T: Elem>(
        name: String,
        dtype: DType,
        part: Part<'_>,
        encode: impl Fn(Vec<T>) -> Vec<u8> + Send + 'static,
    ) -> Outgoing {
        Outgoing::read::<T>(name, dtype, part, None, |bytes| elements::<T>(bytes), encode)
    }

    /// Plans the f32 masters of the elements in `part`: the elements themselves, or the high halves of bf16 weights whose
    /// low halves are `lo`.
    pub fn master(name: String, part: Part<'_>, lo: Option<Tensor>) -> Outgoing {
        let read = move |bytes: &[u8]| -> Vec<f32> {
            let Some(_) = lo else { return elements::<f32>(bytes).into_owned() };
            let (hi, lo) = bytes.split_at(bytes.len() / 2);
            elements::<bf16>(hi).iter().zip(&*elements::<i16>(lo)).map(|(hi, lo)| master::join(*hi, *lo)).collect()
        };
        let encode = |values: Vec<f32>| encoded(&values, DType::F32);
        Outgoing::read::<f32>(name, DType::F32, part, lo, move |bytes| read(bytes).into(), encode)
    }

    fn read<T: Elem>(
        name: String,
        dtype: DType,
        part: Part<'_>,
        second: Option<Tensor>,
        read: impl Fn(&[u8]) -> Cow<'_, [T]> + Send + 'static,
        encode: impl Fn(Vec<T>) -> Vec<u8> + Send + 'static,
    ) -> Outgoing {
        let Part { layout, param: id, piece, tensor, own } = part;
        let shape = layout.params[id].pieces[piece].shape.clone();
        let (layout, own) = (layout.clone(), own.clone());
        let content = Content::of(tensor, second, move |bytes, put| {
            let (param, elements) = (&layout.params[id], read(bytes));
            for run in param.runs(piece, &own) {
                for from in run.clone().step_by(BLOCK) {
                    let block = from..run.end.min(from + BLOCK);
                    put(from * dtype.size(), &encode(param.take_run::<T>(&elements, own.start, piece, block)))?;
                }
            }
            Ok(())
        });
        Outgoing { name, dtype, shape, content }
    }

    /// Plans a flat tensor of `len` elements. `tensor` has the elements starting at `first`.
    pub fn flat(name: String, len: usize, tensor: Tensor, first: usize) -> Outgoing {
        let dtype = tensor.dtype;
        let content = Content::of(tensor, None, move |bytes, put| put(first * dtype.size(), bytes));
        Outgoing { name, dtype, shape: vec![len], content }
    }

    /// Returns the number of bytes in the file.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// A safetensors file to write: its name and its tensors, in order.
pub struct OutFile {
    /// Name of the file in the folder.
    pub name: String,
    /// Tensors of the file.
    pub tensors: Vec<Outgoing>,
    /// Additional entries of the header's `__metadata__`, which always contains the format.
    pub notes: Vec<(String, String)>,
}

/// Converts bytes to elements, with a copy only if the bytes are not aligned.
fn elements<T: Elem>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(elements) => Cow::Borrowed(elements),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

/// Returns the tensors that [`fill_files`] will fetch, in the order in which it fetches them.
pub fn fetched(files: &[OutFile]) -> Vec<Tensor> {
    let contents = files.iter().flat_map(|file| &file.tensors);
    let mut tensors: Vec<&[Tensor]> = contents.map(|t| t.content.tensors()).filter(|t| !t.is_empty()).collect();
    tensors.dedup();
    tensors.concat()
}

impl Content {
    fn of(
        tensor: Tensor,
        second: Option<Tensor>,
        pick: impl Fn(&[u8], &mut Put<'_>) -> Result<()> + Send + 'static,
    ) -> Content {
        let tensors = std::iter::once(tensor).chain(second).collect();
        if tensor.is_empty() { Content::Elsewhere } else { Content::Of(tensors, Box::new(pick)) }
    }

    fn tensors(&self) -> &[Tensor] {
        match self {
            Content::Of(tensors, _) => tensors,
            Content::Made(_) | Content::Elsewhere => &[],
        }
    }
}

/// Distributes tensors, in their order, over files of at most `max_bytes` each. A tensor that is larger gets its own
/// file. `name` returns a file's name from its index and the number of files.
pub fn cut(tensors: Vec<Outgoing>, max_bytes: usize, name: impl Fn(usize, usize) -> String) -> Vec<OutFile> {
    let (mut files, mut bytes): (Vec<Vec<Outgoing>>, usize) = (Vec::new(), 0);
    for tensor in tensors {
        match files.last_mut() {
            Some(file) if bytes + tensor.bytes() <= max_bytes => {
                bytes += tensor.bytes();
                file.push(tensor);
            }
            _ => {
                bytes = tensor.bytes();
                files.push(vec![tensor]);
            }
        }
    }
    let count = files.len();
    let file = |(i, tensors)| OutFile { name: name(i, count), tensors, notes: Vec::new() };
    files.into_iter().enumerate().map(file).collect()
}

/// Creates safetensors files in `dir`, with zeros after their headers. Returns the headers as the written ranges.
pub fn create_files(dir: &Path, files: &[OutFile]) -> Result<Vec<Written>> {
    let create = |file: &OutFile| -> Result<Vec<Written>> {
        let (path, head) = (dir.join(&file.name), file.head());
        let bytes = head.len() + file.tensors.iter().map(Outgoing::bytes).sum::<usize>();
        let made = File::create(&path).and_then(|made| {
            made.write_all_at(&head, 0)?;
            made.set_len(bytes as u64)
        });
        made.map_err(Error::io(path))?;
        let mut hasher = WriteHasher::default();
        hasher.add(0, &head);
        Ok(hasher.finish(&file.name))
    };
    Ok(files.iter().map(create).collect::<Result<Vec<_>>>()?.concat())
}

/// A file that is being filled, with its path for messages.
struct Filling {
    name: String,
    path: PathBuf,
    file: File,
    hasher: RefCell<WriteHasher>,
}

impl Filling {
    fn open(dir: &Path, name: String) -> Result<Filling> {
        let path = dir.join(&name);
        let file = File::options().write(true).open(&path).map_err(Error::io(&path))?;
        Ok(Filling { name, path, file, hasher: RefCell::default() })
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        self.hasher.borrow_mut().add(at as u64, bytes);
        self.file.write_all_at(bytes, at as u64).map_err(Error::io(&self.path))
    }

    /// Waits for the disk, and returns what was written.
    fn finish(self) -> Result<Vec<Written>> {
        self.file.sync_all().map_err(Error::io(&self.path))?;
        Ok(self.hasher.into_inner().finish(&self.name))
    }
}

/// Writes this process's parts of the files that [`create_files`] made, waits for the disk, and returns what was
/// written. The host memory for this does not depend on the size of the tensors, except for what `fetch` allocates.
pub fn fill_files(dir: &Path, files: Vec<OutFile>, fetch: &mut dyn Fetch) -> Result<Vec<Written>> {
    let (mut filling, mut parts) = (Vec::with_capacity(files.len()), Vec::new());
    for (i, mut file) in files.into_iter().enumerate() {
        filling.push(Filling::open(dir, std::mem::take(&mut file.name))?);
        let mut at = file.head().len();
        for tensor in file.tensors {
            let begin = at;
            at += tensor.bytes();
            parts.push((i, begin, tensor.content));
        }
    }
    let mut parts = parts.into_iter().peekable();
    while let Some((file, at, content)) = parts.next() {
        let (tensors, pick) = match content {
            Content::Elsewhere => continue,
            Content::Made(make) => {
                filling[file].write(at, &make()?)?;
                continue;
            }
            Content::Of(tensors, pick) => (tensors, pick),
        };
        // The pieces of one parameter are consecutive, so their tensor is fetched once.
        let mut of_tensor = vec![(file, at, pick)];
        while let Some((file, at, Content::Of(_, pick))) = parts.next_if(|(_, _, c)| c.tensors() == tensors) {
            of_tensor.push((file, at, pick));
        }
        let mut write_all = |bytes: &[u8]| {
            let write = |(file, at, pick): &(usize, usize, Box<Pick>)| {
                pick(bytes, &mut |from, run| filling[*file].write(at + from, run))
            };
            of_tensor.iter().try_for_each(write)
        };
        if let [tensor] = tensors[..] {
            fetch.fetch(tensor, &mut write_all)?;
            continue;
        }
        let mut all = Vec::new();
        for tensor in tensors {
            fetch.fetch(tensor, &mut |bytes| {
                all.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        write_all(&all)?;
    }
    Ok(filling.into_iter().map(Filling::finish).collect::<Result<Vec<_>>>()?.concat())
}

impl OutFile {
    /// Returns the bytes before the first tensor: the length of the header, and the header.
    fn head(&self) -> Vec<u8> {
        // transformers rejects a file without a format.
        let mut metadata = Map::from_iter([("format".to_owned(), json!("pt"))]);
        metadata.extend(self.notes.iter().map(|(key, value)| (key.clone(), json!(value))));
        let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(metadata))]);
        let mut end = 0;
        for tensor in &self.tensors {
            let dtype = format!("{:?}", tensor.dtype).to_uppercase();
            let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.bytes()] });
            header.insert(tensor.name.clone(), entry);
            end += tensor.bytes();
        }
        let mut header = Value::Object(header).to_string();
        // The data must start at a multiple of 8 bytes.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
    }
}

/// Plans the weight files of `dtype` (F32 or BF16): a single file, or shards of at most 5 GB. `own` contains the range
/// of each parameter that this process writes.
pub fn weights(layout: &Arc<ParamLayout>, dtype: DType, own: &[Range<usize>]) -> Vec<OutFile> {
    shards(layout, dtype, own, MAX_SHARD_BYTES)
}

pub(crate) fn shards(layout: &Arc<ParamLayout>, dtype: DType, own: &[Range<usize>], max_bytes: usize) -> Vec<OutFile> {
    let tensor = |(param, piece, stored): (usize, usize, &Piece)| {
        let (own, name) = (&own[param], stored.name.clone());
        let tensor = layout.params[param].tensor.slice(own.start, own.end);
        let part = Part { layout, param, piece, tensor, own };
        match layout.dtype {
            DType::Bf16 => Outgoing::piece::<bf16>(name, dtype, part, move |values| encoded(&values, dtype)),
            _ => Outgoing::piece::<f32>(name, dtype, part, move |values| encoded(&values, dtype)),
        }
    };
    let base = layout.pieces().filter(|(id, _, _)| !layout.params[*id].is_adapter);
    cut(base.map(tensor).collect(), max_bytes, shard_name)
}

/// Returns the name of weight file `i` of `count`.
pub(crate) fn shard_name(i: usize, count: usize) -> String {
    if count == 1 { SINGLE.to_owned() } else { format!("model-{:05}-of-{count:05}.safetensors", i + 1) }
}

/// Creates in `dir` the files that [`weights`] planned. With several files, also writes the index, and removes the
/// single file of an earlier save. With one file, removes the index of an earlier save.
pub(crate) fn create_weights(dir: &Path, files: &[OutFile]) -> Result<Vec<Written>> {
    let mut weight_map = Map::new();
    let mut total = 0;
    for file in files {
        total += file.tensors.iter().map(Outgoing::bytes).sum::<usize>();
        weight_map.extend(file.tensors.iter().map(|tensor| (tensor.name.clone(), json!(file.name))));
    }
    let heads = create_files(dir, files)?;
    if files.len() > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        files::write(dir.join(INDEX), format!("{index:#}\n").as_bytes())?;
    }
    let stale = if files.len() == 1 { dir.join(INDEX) } else { dir.join(SINGLE) };
    files::if_exists(&stale, std::fs::remove_file(&stale)).map(|_| heads)
}

/// Converts values to little-endian bytes of `dtype`.
pub(crate) fn encoded<T: Elem>(values: &[T], dtype: DType) -> Vec<u8> {
    let mut out = vec![0; values.len() * dtype.size()];
    let values = values.iter().map(|value| value.to_f32());
    match dtype {
        DType::Bf16 => {
            let words = out.chunks_exact_mut(2).zip(values);
            words.for_each(|(out, x)| out.copy_from_slice(&<bf16 as Elem>::from_f32(x).to_le_bytes()));
        }
        _ => out.chunks_exact_mut(4).zip(values).for_each(|(out, x)| out.copy_from_slice(&x.to_le_bytes())),
    }
    out
}

/// The settings and the weights of a model directory or of an adapter, to be written.
pub struct OutModel {
    /// Names and texts of the files with settings: `config.json`, and that of an adapter.
    pub configs: Vec<(&'static str, String)>,
    /// Weight files.
    pub weights: Vec<OutFile>,
}

impl OutModel {
    /// Writes the settings and the weights into the existing directory `dir`. Returns what was written to the weight
    /// files.
    pub fn write(self, dir: &Path, fetch: &mut dyn Fetch) -> Result<Vec<Written>> {
        let heads = self.create(dir)?;
        Ok([heads, fill_files(dir, self.weights, fetch)?].concat())
    }

    /// Creates the file of the settings and the weight files in `dir`. [`fill_files`] writes the weights later. Returns
    /// what was written to the weight files.
    pub fn create(&self, dir: &Path) -> Result<Vec<Written>> {
        let heads = create_weights(dir, &self.weights)?;
        self.configs.iter().try_for_each(|(name, text)| files::write(dir.join(name), text.as_bytes()))?;
        Ok(heads)
    }
}
