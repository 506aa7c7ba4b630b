//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::stdout::print;
use super::{Context, ranks};
use crate::config::{self, Config, Source};
use crate::data::paths;
use crate::error::{Error, Result};
use crate::hub::{Kind, local};

/// Trailing overrides.
#[derive(Args, Clone, Debug)]
pub struct Overrides {
    /// Config keys to set, such as seed=7 or rl.rollout.n=16 (the value is YAML)
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Write the resolved config as YAML to stdout and do nothing else
    #[arg(long)]
    pub print_config: bool,
}

impl Overrides {
    /// As [`Overrides::read`]; names of repositories in it become the snapshots that are there.
    pub fn load<C: Config>(&self, file: Option<&Path>) -> Result<Option<C>> {
        let Some(mut config) = self.read::<C>(file)? else { return Ok(None) };
        for (key, source) in config.sources() {
            let (path, kind) = match source {
                Source::Model(path) => (path, Kind::Model),
                Source::Rows(path) => (path, Kind::Dataset),
            };
            *path = repository(path, kind, &key)?;
        }
        Ok(Some(config))
    }

    /// Reads the defaults with the overrides and the environment applied. `Ok(None)` means: the config was
    /// printed, there is nothing else to do.
    pub fn read<C: Config>(&self, file: Option<&Path>) -> Result<Option<C>> {
        let config: C = config::load(file, &self.overrides, &|name| std::env::var(name).ok())?;
        if self.print_config {
            print(&config::to_yaml(&config)?)?;
            return Ok(None);
        }
        Ok(Some(config))
    }
}

/// What `path`, given by the key or flag `place`, is on this machine: see [`local::find`]. Errors also where it is not
/// there and known to be fetched by a command, with that.
pub fn repository(path: &Path, kind: Kind, place: &str) -> Result<PathBuf> {
    let found = local::find(path, kind, place, &|name| std::env::var(name).ok())?;
    match local::command(&found, kind).filter(|_| !paths::are_there(&found)) {
        Some(command) => Err(Error::input_hint(place, found.display().to_string(), local::expected(kind), command)),
        None => Ok(found),
    }
}

/// `: COMMAND` that fetches what `path` names, nothing where none is known.
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
    /// Reads the file with the overrides and the environment applied. `Ok(None)` means: the config was printed,
    /// there is nothing else to do.
    pub fn load<C: Config>(&self) -> Result<Option<C>> {
        self.overrides.load(Some(&self.config))
    }

    /// As [`ConfigArgs::load`] for a dry run, which needs no rows: those that are not there are lines with the command that
    /// fetches them, where one is known, and no error.
    pub fn load_without_rows<C: Config>(&self) -> Result<Option<(C, Vec<String>)>> {
        let Some(mut config) = self.overrides.read::<C>(Some(&self.config))? else { return Ok(None) };
        let mut missing = Vec::new();
        for (key, source) in config.sources() {
            match source {
                Source::Model(path) => *path = repository(path, Kind::Model, &key)?,
                Source::Rows(path) => match repository(path, Kind::Dataset, &key) {
                    Ok(found) if paths::are_there(&found) => *path = found,
                    _ => {
                        let command = fetched_by(path, Kind::Dataset);
                        missing.push(format!("{key}: {} is not here{command}", path.display()));
                    }
                },
            }
        }
        Ok(Some((config, missing)))
    }
}

/// A run directory and how to treat it.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Run directory; an unfinished run there is continued, a finished one left as it is
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Move what is in --out aside (never deleted) and start over
    #[arg(long)]
    pub fresh: bool,
    /// Check the inputs, print the plan (steps, memory, disk, time) and stop
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: the plan as JSON on stdout
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

impl RunArgs {
    /// Ends a dry run: prints `plan` to stdout where JSON is asked for, once for all ranks; what is for people has been said.
    pub fn planned(&self, context: &Context, plan: impl FnOnce() -> Value) -> Result<()> {
        if self.json && context.leads() { print(&format!("{:#}\n", plan())) } else { Ok(()) }
    }

    /// The same less `--fresh` where a launcher has started the run again: what is in the folder now is the run's own.
    pub fn of_restart(&self, context: &Context) -> Result<RunArgs> {
        let mut args = self.clone();
        if args.fresh && ranks::restarts()? > 0 {
            context.say("started again after a fault: goes on, as --fresh was for the first start");
            args.fresh = false;
        }
        Ok(args)
    }
}

/// Processes of one run.
#[derive(Args, Clone, Copy, Debug)]
pub struct RanksArgs {
    /// Ranks on this machine: a card each, or a process each where there is none. The result is the same for any number, in
    /// training up to gradient_lanes. On several machines, torchrun, srun or mpirun starts them
    #[arg(long, value_name = "N", value_parser = ranks)]
    pub gpus: Option<usize>,
}

/// A number of ranks, each of which is a process.
fn ranks(text: &str) -> std::result::Result<usize, String> {
    const MOST: usize = 256;
    text.parse()
        .ok()
        .filter(|n| (1..=MOST).contains(n))
        .ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

/// A config and the run directory of what it says.
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
    /// The config; of a dry run also what rows are not there, see [`ConfigArgs::load_without_rows`].
    pub fn load<C: Config>(&self) -> Result<Option<(C, Vec<String>)>> {
        match self.run.dry_run {
            true => self.config.load_without_rows(),
            false => Ok(self.config.load()?.map(|config| (config, Vec::new()))),
        }
    }
}
