//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde_json::Value;

use super::stdout::print;
use super::{Context, ranks};
use omr_base::config::{self, Config, Source};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::{Kind, local};
use omr_data::rows::files::paths;
use omr_runtime::ranks::NodeFlags;

/// Trailing overrides.
#[derive(Args, Clone, Debug)]
pub struct Overrides {
    /// Config keys to set, such as seed=7. Values are YAML
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print the resolved config as YAML and exit
    #[arg(long)]
    pub print_config: bool,
}

impl Overrides {
    /// Returns true if the command line sets a key.
    pub fn sets(&self, key: &str) -> bool {
        self.overrides.iter().any(|set| set.split_once('=').is_some_and(|(name, _)| name == key))
    }

    /// Works like [`Overrides::read`], and replaces repository names in the config by the paths of local snapshots.
    pub fn load<C: Config>(&self, file: Option<&Path>, run: Option<&RunArgs>) -> Result<Option<C>> {
        let Some(mut config) = self.read::<C>(file, run)? else { return Ok(None) };
        config.sources().into_iter().try_for_each(|(key, source)| locate(&key, source))?;
        Ok(Some(config))
    }

    /// Reads the defaults and applies the environment and the overrides. The job may continue a run in `run.out`. Returns
    /// `Ok(None)` if the config was printed and there is nothing else to do.
    pub fn read<C: Config>(&self, file: Option<&Path>, run: Option<&RunArgs>) -> Result<Option<C>> {
        let absent = file.filter(|file| !file.exists()).and_then(Path::to_str);
        if let Some(text) = absent.filter(|text| text.contains('=')) {
            let expected = "a config file (YAML) before the first key=value; it may be empty";
            return Err(Error::input("CONFIG", text, expected));
        }
        let continued = run.filter(|run| !run.fresh && files::is_run(&run.out));
        let recorded = continued.map(|run| run.out.join("config.yaml"));
        let env = |name: &str| std::env::var(name).ok();
        let config: C = match &recorded {
            Some(recorded) => config::load_for(file, &self.overrides, &env, Some(recorded))?,
            None => config::load(file, &self.overrides, &env)?,
        };
        if self.print_config {
            print(&config::to_yaml(&config)?)?;
            return Ok(None);
        }
        Ok(Some(config))
    }
}

/// Replaces a repository name, the value of the config key `key`, by the path of its local snapshot. Returns an error if
/// there is no such file or folder.
fn locate(key: &str, source: Source) -> Result<()> {
    match source {
        Source::Model(path) => *path = repository(path, Kind::Model, key)?,
        Source::Rows(path) => *path = repository(path, Kind::Dataset, key)?,
        Source::Files(path) if path.exists() => {}
        Source::Files(path) => return Err(Error::input(key, absent(path), "a file or a folder")),
    }
    Ok(())
}

/// Describes a path that does not exist.
fn absent(path: &Path) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    format!("{}, which does not exist in {}", path.display(), folder.display())
}

/// Returns the local path for `path`, given by the key or flag `place`: see [`local::find`]. If nothing is found, returns
/// an error. It lists the files of the folder if there are some, otherwise it has the command that downloads them, if one
/// is known.
pub fn repository(path: &Path, kind: Kind, place: &str) -> Result<PathBuf> {
    let found = local::find(path, kind, place, &|name| std::env::var(name).ok())?;
    let name = || found.display().to_string();
    let is_missing = if kind == Kind::Model { !found.exists() } else { !paths::exist(&found) };
    if let Some(error) = Some(kind).filter(|kind| is_missing && *kind == Kind::Dataset).and(paths::unmatched(&found)) {
        return Err(error.within(place));
    }
    match local::command(&found, kind).filter(|_| is_missing) {
        Some(command) => Err(Error::input_hint(place, name(), local::expected(kind), command)),
        None if is_missing => Err(Error::input(place, absent(&found), local::expected(kind))),
        None if kind == Kind::Model && files::is_run(&found) => {
            let expected = "a run with a finished model; that of a recipe's stage is in DIR/sft/model or DIR/rl/model";
            Err(Error::input(place, format!("{}, a run folder without a model", name()), expected))
        }
        None => Ok(found),
    }
}

/// A model, as the first argument or as `--model`, and overrides.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Model directory or repository
    #[arg(value_name = "MODEL")]
    path: Option<String>,
    /// The same as MODEL
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl ModelArgs {
    /// Returns the model as the user named it, and the overrides. Errors unless exactly one model is given.
    pub fn resolve(&self) -> Result<(String, Overrides)> {
        let mut overrides = self.overrides.clone();
        let root = match (&self.path, &self.model) {
            // The first override stands where the model could be.
            (Some(first), Some(model)) if first.contains('=') => {
                overrides.overrides.insert(0, first.clone());
                model.display().to_string()
            }
            (Some(path), Some(_)) => return Err(Error::input("MODEL", format!("{path} and --model"), "one of them")),
            (Some(path), None) => path.clone(),
            (None, Some(model)) => model.display().to_string(),
            (None, None) => return Err(Error::input("MODEL", "nothing", "a model directory")),
        };
        Ok((root, overrides))
    }
}

/// Returns `: COMMAND` with the command that downloads `path`, or an empty text if none is known.
pub fn fetched_by(path: &Path, kind: Kind) -> String {
    local::command(path, kind).map_or(String::new(), |command| format!(": {command}"))
}

/// A config file and overrides.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Config file (YAML)
    pub config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
}

impl ConfigArgs {
    /// Reads the file and applies the environment and the overrides. Returns `Ok(None)` if the config was printed and
    /// there is nothing else to do.
    pub fn load<C: Config>(&self) -> Result<Option<C>> {
        self.overrides.load(Some(&self.config), None)
    }

    /// Works like [`ConfigArgs::load`] for a dry run, which plans without rows too. Also returns an error for each input
    /// that is missing.
    fn load_without_rows<C: Config>(&self, run: &RunArgs) -> Result<Option<(C, Vec<Error>)>> {
        let Some(mut config) = self.overrides.read::<C>(Some(&self.config), Some(run))? else { return Ok(None) };
        let mut missing = Vec::new();
        for (key, source) in config.sources() {
            let is_model = matches!(source, Source::Model(_));
            match locate(&key, source) {
                Err(error) if is_model => return Err(error),
                found => missing.extend(found.err()),
            }
        }
        Ok(Some((config, missing)))
    }
}

/// A run directory, and what to do with an existing run.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Run directory. An unfinished run in it is continued, a finished run is left as it is
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Move an existing run in --out to another folder name and start over. Nothing is deleted
    #[arg(long)]
    pub fresh: bool,
    /// Check the inputs, print the plan (steps, memory, disk, on GPUs also time) and exit
    #[arg(long)]
    pub dry_run: bool,
    /// Print the plan of --dry-run as JSON on stdout
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

impl RunArgs {
    /// Prints the result of a dry run. Rank 0 prints `plan` to stdout if JSON is requested. The text for people was printed
    /// before.
    pub fn planned(&self, context: &Context, plan: impl FnOnce() -> Value) -> Result<()> {
        if self.json && context.leads() { print(&format!("{:#}\n", plan())) } else { Ok(()) }
    }

    /// Returns the arguments without `--fresh` if a launcher has restarted the run, because the folder then belongs to
    /// this run.
    pub fn of_restart(&self, context: &Context) -> Result<RunArgs> {
        let mut args = self.clone();
        if args.fresh && ranks::restarts()? > 0 {
            context.say("restarted after a fault: continues the run (--fresh applied to the first start)");
            args.fresh = false;
        }
        Ok(args)
    }
}

/// Number of processes of a run.
#[derive(Args, Clone, Debug)]
pub struct RanksArgs {
    /// Number of processes (ranks) on this machine, each with a GPU of its own if the machine has GPUs. Runs with the same
    /// gradient_lanes have the same results for each N. On several machines, start omr on each one with --nodes, or with
    /// torchrun, srun or mpirun
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=256))]
    gpus: Option<usize>,
    /// Number of machines, on each of which this command runs with --gpus ranks
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    nodes: Option<usize>,
    /// Number of this machine, from 0. Many systems state it in the environment
    #[arg(long, value_name = "R")]
    node_rank: Option<usize>,
    /// Address of machine 0, and a free port on it at which all ranks connect
    #[arg(long, value_name = "HOST:PORT")]
    master: Option<String>,
}

impl RanksArgs {
    /// Returns the flags.
    pub fn flags(&self) -> NodeFlags {
        let RanksArgs { gpus: ranks, nodes, node_rank, master } = self.clone();
        NodeFlags { ranks, nodes, node_rank, master }
    }
}

/// A config, and the run directory of its job.
#[derive(Args, Clone, Debug)]
pub struct JobArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub ranks: RanksArgs,
}

impl JobArgs {
    /// Returns the config, or `None` if it was printed and there is nothing else to do.
    pub fn config<C: Config>(&self) -> Result<Option<C>> {
        self.config.overrides.load(Some(&self.config.config), Some(&self.run))
    }

    /// Returns the config and, for a dry run, what is missing: see [`ConfigArgs::load_without_rows`].
    pub fn load<C: Config>(&self) -> Result<Option<(C, Vec<Error>)>> {
        match self.run.dry_run {
            true => self.config.load_without_rows(&self.run),
            false => Ok(self.config()?.map(|config| (config, Vec::new()))),
        }
    }
}
