//! A checkpoint on its way to disk. Weights and state change in the optimizer kernel alone, so where kernels run nothing is
//! copied first: a side stream reads them while the next step's forward and backward run, a thread writes what arrives,
//! hashes it and waits for the disk, and the next update waits until all is read (DESIGN section 9). On the CPU the compute threads have nothing to spare:
//! there it is written at once.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::checkpoint::{State, Store};
use crate::device::{Device, readback};
use crate::error::{Error, Result};
use crate::model::OutModel;
use crate::model::outgoing::{Fetch, OutFile, fetched, write_files};
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
    /// The tensors in the order [`Snapshot::write`] fetches them.
    fn tensors(&self) -> Vec<Tensor> {
        [fetched(&self.model.weights), fetched(&self.optimizer)].concat()
    }

    fn write(self, folder: &Path, fetch: &mut Fetch<'_>) -> Result<()> {
        self.model.write(folder, fetch)?;
        copy_companions(&self.companions, folder)?;
        let trainer = folder.join("trainer");
        write_files(&trainer, self.optimizer, fetch)?;
        self.state.write(&trainer)
    }
}

/// A checkpoint that is being written beside the work.
pub struct Saving {
    writer: JoinHandle<Result<()>>,
}

impl Saving {
    /// Begins to save `snapshot` in `store`, which keeps that of step `best`, too; on the CPU it is saved on return, and
    /// there is nothing to wait for.
    pub fn begin(dev: &mut Device, store: Store, best: Option<u64>, snapshot: Snapshot) -> Result<Option<Saving>> {
        let step = snapshot.state.step;
        if !dev.kind().is_gpu() {
            store.save(step, best, |folder| snapshot.write(folder, &mut |tensor| dev.read_bytes(tensor)))?;
            return Ok(None);
        }
        let spans: Vec<_> = snapshot.tensors().iter().map(Tensor::span).collect();
        let (sink, mut arriving) = readback::ends();
        let body = move || {
            let mut take = |tensor: Tensor| arriving.take(tensor.span().bytes);
            store.save(step, best, |folder| snapshot.write(folder, &mut take))?;
            Ok(())
        };
        let writer = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(body);
        let writer = writer.map_err(|e| Error::Failed(format!("a thread for checkpoints: {e}")))?;
        dev.begin_readback(&spans, sink)?;
        Ok(Some(Saving { writer }))
    }

    /// Waits until it is on disk.
    pub fn finish(self, dev: &mut Device) -> Result<()> {
        let read = dev.finish_readback();
        let written =
            self.writer.join().map_err(|_| Error::Failed("the writer of a checkpoint panicked".to_owned()))?;
        // A device that failed leaves the writer without bytes: the device's error is the cause.
        read.and(written)
    }
}
