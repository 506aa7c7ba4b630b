//! Loads the starting point of a run: its newest intact checkpoint, or the initial model.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::metrics;
use super::trainer_config::TrainerConfig;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::identity::{Manifest, Part};
use omr_base::observe::{Observer, Silent};
use omr_model::checkpoint::{Checkpoint, Resume, State, Store};
use omr_model::nn::adapter::adapter_files::{self, StoredAdapter};
use omr_model::nn::adapter::attach::{Fresh, Masters};
use omr_model::nn::{Model, ModelConfig};
use omr_model::optim::{Optimizer, freeze};
use omr_runtime::device::{Device, Region};
use omr_runtime::ranks::{OneRank, Ranks, Shards};
use omr_runtime::tensor::DType;

/// File of a run directory with the path of `resume` from which the run was last loaded.
pub const RESUMED: &str = "resumed";

/// Model and optimizer on the device, with the checkpoint that they come from.
pub struct Loaded {
    /// The weights.
    pub model: Model,
    /// The optimizer with its moments. They are zero if training starts from the initial model.
    pub optimizer: Optimizer,
    /// The checkpoint that was loaded, if any.
    pub checkpoint: Option<(Checkpoint, State)>,
}

impl Loaded {
    /// Loads the checkpoint or model that `config.training.resume` selects. Rank 0 searches, and the other ranks load what it
    /// found. Damaged checkpoints are skipped and reported. Checkpoints of this run that are later than the loaded one
    /// are moved aside. Errors if there are checkpoints but none is intact.
    pub fn open(
        ranks: &mut dyn Ranks,
        dev: &mut Device,
        store: &Store,
        config: &TrainerConfig,
        observer: &dyn Observer,
    ) -> Result<Loaded> {
        const FOUND: &str = "the checkpoint to continue from";
        let place = OneRank::new(ranks.rank(), ranks.size());
        if ranks.rank() == 0 {
            let loaded = Loaded::newest(dev, store, config, place, observer)?;
            let path = loaded.checkpoint.as_ref().map(|(of, _)| of.path.as_os_str().as_encoded_bytes());
            ranks.await_all(FOUND, path.unwrap_or_default())?;
            return Ok(loaded);
        }
        let found = ranks.await_all(FOUND, &[])?.swap_remove(0);
        let checkpoint = (!found.is_empty()).then(|| Checkpoint::at(Path::new(OsStr::from_bytes(&found)))).flatten();
        Loaded::of(dev, config, place, checkpoint.as_ref(), &Silent)
    }

    fn newest(
        dev: &mut Device,
        store: &Store,
        config: &TrainerConfig,
        place: OneRank,
        observer: &dyn Observer,
    ) -> Result<Loaded> {
        let resume = Resume::from(&*config.training.resume);
        let found = store.resume(&resume)?;
        let mut damaged = Vec::new();
        for checkpoint in &found {
            match Loaded::whole(dev, config, place, checkpoint, observer)? {
                Ok(loaded) => {
                    damaged.iter().for_each(|why| observer.note(&format!("skipped a damaged checkpoint: {why}")));
                    if store.has(checkpoint) {
                        if let Some((_, state)) = &loaded.checkpoint {
                            metrics::check(store.run(), state, &config.training.accept_changed, observer)?;
                        }
                        for aside in store.go_back(checkpoint.step)? {
                            observer.note(&format!("a later checkpoint was moved to {}", aside.display()));
                        }
                    }
                    if let Resume::Path(_) = resume {
                        files::write(store.run().join(RESUMED), config.training.resume.as_bytes())?;
                    }
                    return Ok(loaded);
                }
                Err(why) => damaged.push(why.to_string()),
            }
        }
        if damaged.is_empty() {
            return Loaded::of(dev, config, place, None, observer);
        }
        Err(Error::input_hint(
            format!("resume: {}", config.training.resume),
            format!("no intact checkpoint ({})", damaged.join("; ")),
            "a checkpoint whose files are unchanged since they were saved",
            "restore the files, set resume=PATH, or start over with --fresh, which renames the old run directory",
        ))
    }

    /// Loads `checkpoint` and, at the same time, reads its files a second time to compare them with the hashes in its
    /// manifest. The inner error names the damaged file. In that case, everything that was allocated on the device is
    /// freed.
    fn whole(
        dev: &mut Device,
        config: &TrainerConfig,
        place: OneRank,
        checkpoint: &Checkpoint,
        observer: &dyn Observer,
    ) -> Result<std::result::Result<Loaded, Error>> {
        let path = &checkpoint.path;
        let manifest = Manifest::read(path).and_then(|manifest| {
            // Check the settings first, because they determine what is allocated.
            match &manifest {
                Some(manifest) => manifest.check(path, Part::Settings)?,
                None if checkpoint.state().is_ok_and(|state| state.has_manifest()) => {
                    return Err(Error::format(path.join("MANIFEST"), "missing, but the checkpoint was saved with it"));
                }
                None => {}
            }
            Ok(manifest)
        });
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(damage) => return Ok(Err(damage)),
        };
        let marks = Region::ALL.map(|region| dev.mark(region));
        let (checked, loaded) = std::thread::scope(|scope| {
            let check = || manifest.as_ref().map_or(Ok(()), |manifest| manifest.check(path, Part::Tensors));
            let checked = scope.spawn(check);
            let loaded = Loaded::of(dev, config, place, Some(checkpoint), observer);
            let panicked = || Error::Failed("the thread that checks a checkpoint panicked".to_owned());
            (checked.join().unwrap_or_else(|_| Err(panicked())), loaded)
        });
        let damage = match (checked, loaded) {
            (Ok(()), Ok(loaded)) => {
                if manifest.is_none() {
                    let name = path.display();
                    observer.note(&format!(
                        "{name} has no MANIFEST because an older version of omr wrote it: its files cannot be checked"
                    ));
                }
                return Ok(Ok(loaded));
            }
            (Ok(()), Err(damage @ (Error::Format { .. } | Error::Io { .. }))) if manifest.is_none() => damage,
            (Ok(()), Err(error)) => return Err(error),
            (Err(damage), _) => damage,
        };
        marks.into_iter().for_each(|mark| dev.release(mark));
        Ok(Err(damage))
    }

    /// Loads `checkpoint`, or the initial model, and the part of the optimizer state that the rank at `place` owns.
    fn of(
        dev: &mut Device,
        config: &TrainerConfig,
        place: OneRank,
        checkpoint: Option<&Checkpoint>,
        observer: &dyn Observer,
    ) -> Result<Loaded> {
        let TrainerConfig { dtype, optimizer, seed, run, .. } = config;
        let (dtype, lora) = (DType::of(*dtype, dev.kind()), optimizer.lora.is_some());
        // A checkpoint of a run with adapters contains the adapters alone.
        let weights = checkpoint.filter(|_| !lora).map_or(&run.model, |c| &c.path);
        let of_model = ModelConfig::load(&weights.join("config.json"))?.quantized(optimizer.quantization.as_ref())?;
        let mut model = Model::load_shown(dev, weights, of_model, dtype, observer)?;
        freeze(dev, &mut model, optimizer)?;
        let shards = Shards::new(&model.layout.shares(), place.size());
        let mut optimizer = Optimizer::sharded(dev, &model.layout, optimizer.clone(), *seed, &shards, place.rank())?;
        if lora {
            let started = Some(&run.model).filter(|model| adapter_files::exist_in(model));
            let stored = checkpoint.map(|checkpoint| &checkpoint.path).or(started);
            let stored = stored.map(|dir| StoredAdapter::open(dir)).transpose()?;
            stored.iter().try_for_each(|stored| stored.check(model.config.family, &model.layout))?;
            let fresh = Fresh::new(&model.layout, *seed);
            let masters = stored.as_ref().map_or(&fresh as &dyn Masters, |stored| stored);
            model.set_adapters(dev, masters)?;
            optimizer.set_adapters(dev, &model.layout, masters)?;
        }
        let mut of = None;
        if let Some(checkpoint) = checkpoint {
            let state = checkpoint.state()?;
            optimizer.load(dev, &model.layout, &checkpoint.trainer())?;
            of = Some((checkpoint.clone(), state));
        }
        Ok(Loaded { model, optimizer, checkpoint: of })
    }
}
