//! A checkpoint on its way to disk. Weights and state change in the optimizer kernel alone, so where kernels run nothing is
//! copied first: a side stream reads them while the next step's forward and backward run, a thread writes what arrives,
//! hashes it and waits for the disk, and the next update waits until all is read (DESIGN section 9). On the CPU the compute threads have nothing to spare:
//! there it is written at once.
//!
//! Of a run of several ranks rank 0 makes the files, each rank fills in what it owns, and once all have, rank 0 puts the
//! checkpoint at its place. What ranks tell each other they tell where all of them are: where a checkpoint begins, at the
//! updates while it is written, where it is waited for.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::checkpoint::{Draft, State, Store};
use crate::device::{Device, readback};
use crate::error::{Error, Result};
use crate::model::OutModel;
use crate::model::outgoing::{Fetch, OutFile, create_files, fetched, fill_files};
use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// Files of a model directory that training leaves as they are, copied into every model written.
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

/// Copies those of a model directory's other files (tokenizer, chat template, preprocessor) that are in `from`.
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for name in COMPANIONS {
        let from = from.join(name);
        if from.exists() {
            std::fs::copy(&from, to.join(name)).map_err(Error::io(&from))?;
        }
    }
    Ok(())
}

/// A checkpoint's content: all but the bytes of tensors.
pub struct Snapshot {
    /// The model.
    pub model: OutModel,
    /// The optimizer's state files.
    pub optimizer: Vec<OutFile>,
    /// Where the run stands.
    pub state: State,
    /// The model directory whose other files go along.
    pub companions: PathBuf,
}

impl Snapshot {
    /// The tensors in the order [`Snapshot::fill`] fetches them.
    fn tensors(&self) -> Vec<Tensor> {
        [fetched(&self.model.weights), fetched(&self.optimizer)].concat()
    }

    /// Makes all files; those of tensors are to be filled.
    fn create(&self, folder: &Path) -> Result<()> {
        self.model.create(folder)?;
        copy_companions(&self.companions, folder)?;
        let trainer = folder.join("trainer");
        create_files(&trainer, &self.optimizer)?;
        self.state.write(&trainer)
    }

    /// Fills in what this process has of them.
    fn fill(self, folder: &Path, fetch: &mut Fetch<'_>) -> Result<()> {
        fill_files(folder, self.model.weights, fetch)?;
        fill_files(&folder.join("trainer"), self.optimizer, fetch)
    }
}

/// A checkpoint that is being written beside the work.
pub struct Saving {
    /// Writes what this process has of it; then, at rank 0, puts it at its place.
    thread: Option<JoinHandle<Result<()>>>,
    /// Ranks have not told each other yet that all have written.
    open: bool,
    draft: Option<Draft>,
    best: Option<u64>,
}

impl Saving {
    /// Begins to save `snapshot` in `store`, which keeps that of step `best`, too; on the CPU it is saved on return, and
    /// there is nothing to wait for. Errors at every rank where one does.
    pub fn begin(
        ranks: &mut dyn Ranks,
        dev: &mut Device,
        store: &Store,
        best: Option<u64>,
        snapshot: Snapshot,
    ) -> Result<Option<Saving>> {
        let made = match ranks.rank() {
            0 => {
                store.begin(snapshot.state.step).and_then(|draft| snapshot.create(draft.folder()).map(|()| Some(draft)))
            }
            _ => Ok(None),
        };
        let name = made.as_ref().ok().and_then(Option::as_ref).map(Draft::name).unwrap_or_default();
        let (mut draft, names) = agree(ranks, made, &name)?;
        let (folder, _) = agree(ranks, store.begun(&names[0]), "")?;
        if !dev.kind().is_gpu() {
            let written = snapshot.fill(&folder, &mut |tensor| dev.read_bytes(tensor));
            agree(ranks, written, "")?;
            let committed = draft.map_or(Ok(()), |draft| draft.commit(best).map(drop));
            return agree(ranks, committed, "").map(|_| None);
        }
        let spans: Vec<_> = snapshot.tensors().iter().map(Tensor::span).collect();
        let (sink, mut arriving) = readback::ends();
        let open = ranks.size() > 1;
        let alone = if open { None } else { draft.take() };
        let thread = beside(move || {
            snapshot.fill(&folder, &mut |tensor: Tensor| arriving.take(tensor.span().bytes))?;
            alone.map_or(Ok(()), |draft| draft.commit(best).map(drop))
        })?;
        dev.begin_readback(&spans, sink)?;
        Ok(Some(Saving { thread: Some(thread), open, draft, best }))
    }

    /// Where all ranks have written, rank 0 puts the checkpoint at its place, beside the work too. Waits for no disk. Errors
    /// at every rank where one does.
    pub fn poll(&mut self, ranks: &mut dyn Ranks) -> Result<()> {
        let writes = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if !self.open || ranks.any("a checkpoint", &[writes])?[0] {
            return Ok(());
        }
        self.written(ranks, Ok(()))
    }

    /// Waits until it is on disk.
    pub fn finish(mut self, ranks: &mut dyn Ranks, dev: &mut Device) -> Result<()> {
        let mut done = dev.finish_readback();
        if self.open {
            self.written(ranks, std::mem::replace(&mut done, Ok(())))?;
        }
        // A device that failed leaves the writer without bytes: the device's error is the cause.
        let done = done.and(self.thread.take().map_or(Ok(()), join));
        agree(ranks, done, "").map(drop)
    }

    /// Waits for what this rank writes and hears of the others; rank 0 then begins to put the checkpoint at its place.
    fn written(&mut self, ranks: &mut dyn Ranks, read: Result<()>) -> Result<()> {
        self.open = false;
        agree(ranks, read.and(self.thread.take().map_or(Ok(()), join)), "")?;
        let best = self.best;
        let commit = self.draft.take().map(|draft| beside(move || draft.commit(best).map(drop)));
        self.thread = commit.transpose()?;
        Ok(())
    }
}

/// What was done, and what each rank says of it; where one has an error, one at every rank, which names it.
fn agree<T>(ranks: &mut dyn Ranks, done: Result<T>, says: &str) -> Result<(T, Vec<String>)> {
    const WHAT: &str = "a checkpoint";
    let text = done.as_ref().map_or_else(|error| format!("-{error}"), |_| format!("+{says}"));
    let all = ranks.await_all(WHAT, text.as_bytes())?;
    let done = done?;
    let mut said = Vec::new();
    for (rank, text) in all.iter().map(|text| String::from_utf8_lossy(text)).enumerate() {
        match text.strip_prefix('+') {
            Some(text) => said.push(text.to_owned()),
            None => {
                return Err(Error::Failed(format!("{WHAT}, {}: {}", ranks.name(rank), text.trim_start_matches('-'))));
            }
        }
    }
    Ok((done, said))
}

fn beside(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<JoinHandle<Result<()>>> {
    let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(work);
    thread.map_err(|e| Error::Failed(format!("a thread for checkpoints: {e}")))
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| Error::Failed("the writer of a checkpoint panicked".to_owned()))?
}
