//! Writes a checkpoint while training continues (see `docs/dev/design/training.md`). Only the optimizer kernel changes the
//! weights and the optimizer state. On a GPU, weights and optimizer state are therefore read in place, without a copy
//! in GPU memory:
//!
//! - A side stream reads the tensors while the next step's forward and backward run.
//! - A thread writes the bytes that arrive, hashes them and waits for the disk.
//! - The next update waits until everything has been read.
//!
//! On the CPU, training uses all threads, so it waits until the checkpoint is written.
//!
//! In a run of several ranks, a checkpoint is saved in three steps:
//!
//! 1. Rank 0 creates the files.
//! 2. Each rank writes the parts that it owns.
//! 3. After all ranks have finished, rank 0 reads the files, compares them with the hashes of what each rank has
//!    written, and moves the checkpoint to its final place.
//!
//! The ranks exchange messages only at points that all of them reach: where a checkpoint begins, at each update while
//! the checkpoint is being written, and where the run waits for the checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use omr_base::config::ImageConfig;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::base_model;
use omr_base::identity::{Writer, Written};
use omr_data::image::{Processor, settings};
use omr_data::text::missing_stops;
use omr_model::checkpoint::{State, Store, UnfinishedCheckpoint};
use omr_model::nn::OutModel;
use omr_model::nn::weights::outgoing::{Fetch, OutFile, create_files, fetched, fill_files};
use omr_runtime::device::{Device, readback};
use omr_runtime::ranks::Ranks;
use omr_runtime::tensor::Tensor;

/// Files of a model directory that are copied, where present, into every model that is written.
const COMPANIONS: [&str; 12] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
];

/// Copies the companion files (tokenizer, chat template, preprocessor) of the model in `from` to `to`, and writes the
/// settings of images into those of the preprocessor. The token that ends a turn of the chat template is added to the
/// end tokens of `generation_config.json`, which is created if necessary: the model is trained to write it, but its base
/// may end with another one.
pub fn copy_companions(from: &Path, to: &Path, images: &ImageConfig) -> Result<()> {
    copy_with_stops(from, to, images, missing_stops(from)?.as_deref())
}

/// Copies like [`copy_companions`], with the result `stops` of [`missing_stops`], which reads the tokenizer.
pub(super) fn copy_with_stops(from: &Path, to: &Path, images: &ImageConfig, stops: Option<&[u32]>) -> Result<()> {
    let (tokenizer, processor) = (base_model::holder(from, "tokenizer.json")?, Processor::file(from)?);
    for name in COMPANIONS {
        let from = match name {
            "generation_config.json" => base_model::holder(from, name)?.join(name),
            _ if name.contains("processor") => processor.as_deref().unwrap_or(from).with_file_name(name),
            _ => tokenizer.join(name),
        };
        if from.exists() {
            std::fs::copy(&from, to.join(name)).map_err(Error::io(&from))?;
        }
    }
    if let Some(stops) = stops {
        let path = to.join("generation_config.json");
        let mut generation: Value = if path.exists() { files::json::read(&path)? } else { json!({}) };
        generation["eos_token_id"] = json!(stops);
        files::json::write(&path, &generation)?;
    }
    settings::write(to, images)
}

/// The content of a checkpoint, except the bytes of its tensors.
pub struct Snapshot {
    /// The model.
    pub model: OutModel,
    /// The optimizer's state files.
    pub optimizer: Vec<OutFile>,
    /// The state of the run.
    pub state: State,
    /// Model directory from which the companion files are copied.
    pub companions: PathBuf,
    /// Settings of images that the config sets.
    pub images: ImageConfig,
    /// End tokens that other programs do not find in the companions, with those that they find.
    pub stops: Option<Arc<[u32]>>,
}

impl Snapshot {
    /// Returns the tensors in the order in which [`Snapshot::fill`] fetches them.
    fn tensors(&self) -> Vec<Tensor> {
        [fetched(&self.model.weights), fetched(&self.optimizer)].concat()
    }

    /// Creates all files. Files of tensors are created without their content, which [`Snapshot::fill`] writes. Returns
    /// what was written to them.
    fn create(&self, folder: &Path) -> Result<Vec<Written>> {
        let model = self.model.create(folder)?;
        copy_with_stops(&self.companions, folder, &self.images, self.stops.as_deref())?;
        let trainer = folder.join(TRAINER);
        let optimizer = create_files(&trainer, &self.optimizer)?;
        self.state.write(&trainer)?;
        Ok(in_checkpoint(model, optimizer))
    }

    /// Writes the parts of the tensor files that this process owns. Returns what was written.
    fn fill(self, folder: &Path, fetch: &mut dyn Fetch) -> Result<Vec<Written>> {
        let model = fill_files(folder, self.model.weights, fetch)?;
        Ok(in_checkpoint(model, fill_files(&folder.join(TRAINER), self.optimizer, fetch)?))
    }
}

/// Folder of the optimizer's files in a checkpoint.
const TRAINER: &str = "trainer";

/// Returns what was written to a checkpoint: to the files of the model, and to those of the optimizer.
fn in_checkpoint(mut model: Vec<Written>, optimizer: Vec<Written>) -> Vec<Written> {
    model.extend(optimizer.into_iter().map(|part| Written { file: format!("{TRAINER}/{}", part.file), ..part }));
    model
}

/// A checkpoint that is being written while training continues.
pub struct Saving {
    /// Thread that writes this process's parts. A single process also commits the checkpoint on this thread. With
    /// several ranks, rank 0 replaces it by a second thread that commits the checkpoint.
    thread: Option<Thread>,
    /// The ranges that this process wrote when it created the files.
    created: Vec<Written>,
    /// True if the run has several ranks and they have not yet confirmed that all parts are written.
    open: bool,
    draft: Option<UnfinishedCheckpoint>,
    best: Option<u64>,
}

impl Saving {
    /// Begins to save `snapshot` in `store`. `best` is the step of the best checkpoint so far, which the store does not
    /// delete. On the CPU the checkpoint is complete when this function returns, and the result is `None`. If
    /// writing fails on one rank, all ranks return an error.
    pub fn begin(
        ranks: &mut dyn Ranks,
        dev: &mut Device,
        store: &Store,
        best: Option<u64>,
        snapshot: Snapshot,
    ) -> Result<Option<Saving>> {
        let mut created = Vec::new();
        let mut create = |draft: UnfinishedCheckpoint| {
            created = snapshot.create(draft.folder())?;
            Ok(Some(draft))
        };
        let made = if ranks.rank() == 0 { store.begin(snapshot.state.step).and_then(&mut create) } else { Ok(None) };
        let name = |draft: &Option<_>| draft.as_ref().map(UnfinishedCheckpoint::name).unwrap_or_default();
        let (mut draft, names) = agree(ranks, made, name)?;
        let (folder, _) = agree(ranks, store.begun(&names[0]), |_| String::new())?;
        if !dev.kind().is_gpu() {
            let writers = share(ranks, created, snapshot.fill(&folder, dev))?;
            let committed = draft.map_or(Ok(()), |draft| draft.commit(best, &writers).map(drop));
            return agree(ranks, committed, |()| String::new()).map(|_| None);
        }
        let spans: Vec<_> = snapshot.tensors().iter().map(Tensor::span).collect();
        let (sink, mut arriving) = readback::ends();
        let open = ranks.size() > 1;
        let alone = if open { None } else { draft.take().map(|draft| (draft, std::mem::take(&mut created))) };
        let thread = beside(move || {
            let written = snapshot.fill(&folder, &mut |tensor: Tensor| arriving.take(tensor.span().bytes))?;
            let Some((draft, created)) = alone else { return Ok(written) };
            draft.commit(best, &Writer::alone([created, written].concat())).map(|_| Vec::new())
        })?;
        dev.begin_readback(&spans, sink)?;
        Ok(Some(Saving { thread: Some(thread), created, open, draft, best }))
    }

    /// Commits the checkpoint once all ranks have written their parts; rank 0 does this on another thread. Does not
    /// wait for the disk. If writing fails on one rank, all ranks return an error.
    pub fn poll(&mut self, ranks: &mut dyn Ranks) -> Result<()> {
        let writes = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if !self.open || ranks.any("a checkpoint", &[writes])?[0] { Ok(()) } else { self.written(ranks, Ok(())) }
    }

    /// Waits until the checkpoint is on disk.
    pub fn finish(mut self, ranks: &mut dyn Ranks, dev: &mut Device) -> Result<()> {
        let mut done = dev.finish_readback();
        if self.open {
            self.written(ranks, std::mem::replace(&mut done, Ok(())))?;
        }
        // If the device failed, the writer thread fails too, because its bytes are missing. The device's error is the
        // cause and is reported first.
        let done = done.and(join(self.thread.take()).map(drop));
        agree(ranks, done, |()| String::new()).map(drop)
    }

    /// Waits until this rank and all other ranks have written their parts. Rank 0 then begins to commit the checkpoint.
    fn written(&mut self, ranks: &mut dyn Ranks, read: Result<()>) -> Result<()> {
        self.open = false;
        let filled = read.and(join(self.thread.take()));
        let writers = share(ranks, std::mem::take(&mut self.created), filled)?;
        let best = self.best;
        let commit = |draft: UnfinishedCheckpoint| beside(move || draft.commit(best, &writers).map(|_| Vec::new()));
        self.thread = self.draft.take().map(commit).transpose()?;
        Ok(())
    }
}

/// Sends to all ranks what this rank wrote when it `created` and `filled` the files of a checkpoint. Returns what each
/// rank has written.
fn share(ranks: &mut dyn Ranks, created: Vec<Written>, filled: Result<Vec<Written>>) -> Result<Vec<Writer>> {
    let own = filled.map(|filled| [created, filled].concat());
    let (_, all) = agree(ranks, own, |own| json!(own).to_string())?;
    let writer = |(rank, text): (usize, &String)| {
        let broken = |e| Error::Failed(format!("{WHAT}, {}: {e}", ranks.name(rank)));
        Ok(Writer { name: ranks.name(rank), written: serde_json::from_str(text).map_err(broken)? })
    };
    all.iter().enumerate().map(writer).collect()
}

const WHAT: &str = "a checkpoint";

/// Exchanges each rank's result, with the message that `says` makes of it if it succeeded. Returns `done` and the
/// messages of all ranks. If any rank failed, all ranks return an error; on the other ranks, the error names the rank
/// that failed.
fn agree<T>(ranks: &mut dyn Ranks, done: Result<T>, says: impl FnOnce(&T) -> String) -> Result<(T, Vec<String>)> {
    let text = done.as_ref().map_or_else(|error| format!("-{error}"), |done| format!("+{}", says(done)));
    let all = ranks.await_all(WHAT, text.as_bytes())?;
    let done = done?;
    let mut said = Vec::new();
    for (rank, text) in all.iter().map(|text| String::from_utf8_lossy(text)).enumerate() {
        let Some(text) = text.strip_prefix('+') else {
            return Err(Error::Failed(format!("{WHAT}, {}: {}", ranks.name(rank), text.trim_start_matches('-'))));
        };
        said.push(text.to_owned());
    }
    Ok((done, said))
}

type Thread = JoinHandle<Result<Vec<Written>>>;

fn beside(work: impl FnOnce() -> Result<Vec<Written>> + Send + 'static) -> Result<Thread> {
    let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(work);
    thread.map_err(|e| Error::Failed(format!("starting the checkpoint thread: {e}")))
}

/// Waits for the thread, if there is one, and returns what it has written.
fn join(thread: Option<Thread>) -> Result<Vec<Written>> {
    let ended = thread.map_or(Ok(Ok(Vec::new())), JoinHandle::join);
    ended.map_err(|_| Error::Failed("the thread that writes a checkpoint panicked".to_owned()))?
}
