//! A command with a run directory, executed by one of its ranks.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::Context;
use super::args::RunArgs;
use super::run_dir::{RunDir, is_begun};
use super::stdout::print;
use omr_base::config::{self, Config, DistConfig, Dtype, RecipeConfig, RlConfig, SftConfig, deciding};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_runtime::ranks::{self, OneRank, Ranks};

/// A command with a run directory, executed by one of its ranks.
pub struct Session<'a> {
    /// Arguments about the run directory.
    pub args: &'a RunArgs,
    /// Device, console and signals.
    pub context: &'a Context,
    /// Ranks of the run.
    pub ranks: &'a mut dyn Ranks,
}

impl Session<'_> {
    /// Runs `work` as one of the ranks that `dist` and the command line request, and notifies the other ranks of the
    /// result.
    pub fn over(
        args: &RunArgs,
        context: &Context,
        dist: &DistConfig,
        work: impl FnOnce(&mut Session) -> Result<()>,
    ) -> Result<()> {
        let args = &args.of_restart(context)?;
        let mut ranks = context.ranks(&args.out, dist)?;
        match work(&mut Session { args, context, ranks: &mut *ranks }) {
            Ok(()) => ranks.leave(Ok(())),
            Err(error) => Err(ranks::report_failure(&mut *ranks, error)),
        }
    }

    /// Runs `work` as the only rank.
    pub fn alone(args: &RunArgs, context: &Context, work: impl FnOnce(&mut Session) -> Result<()>) -> Result<()> {
        let (args, mut alone) = (args.of_restart(context)?, OneRank::ALONE);
        work(&mut Session { args: &args, context, ranks: &mut alone })
    }

    /// Returns the rank of this process and the number of ranks.
    pub fn place(&self) -> OneRank {
        OneRank::new(self.ranks.rank(), self.ranks.size())
    }

    /// Returns the number of gradient lanes: `asked` if it is given, otherwise that of the config `began` of an existing
    /// run, otherwise one per rank.
    pub fn lanes(&self, asked: Option<usize>, began: Option<Option<usize>>) -> Option<usize> {
        let lanes = asked.or(began.unwrap_or(Some(self.ranks.size()))).unwrap_or(1);
        // A config without a number of lanes means one lane.
        (lanes > 1).then_some(lanes)
    }

    /// Returns the data type that `asked` means for the weights in `model`. `auto` is the type `began` that an existing
    /// run was started with.
    pub fn dtype(&self, asked: Dtype, model: Option<&Path>, began: Option<Dtype>) -> Dtype {
        began.filter(|_| asked == Dtype::Auto).unwrap_or_else(|| self.context.dtype(asked, model))
    }

    /// Returns the config that an existing run was started with. Returns `None` for a new run.
    pub fn began<C: Config>(&self) -> Result<Option<C>> {
        let file = self.args.out.join("config.yaml");
        if self.args.fresh || !file.exists() || !is_begun(&self.args.out) {
            return Ok(None);
        }
        let kinds = [
            config::kind::<C>(),
            config::kind::<SftConfig>(),
            config::kind::<RlConfig>(),
            config::kind::<RecipeConfig>(),
        ];
        let kind = config::likeliest(&files::read_to_string(&file).map_err(Error::io(&file))?, &kinds);
        if kind != C::NAME {
            let expected = format!("a run of `omr {}`, or a new folder: choose another --out, or use --fresh", C::NAME);
            return Err(Error::input(&self.args.out, format!("a run of `omr {kind}`"), expected));
        }
        config::load(Some(&file), &[], &|_| None).map(Some)
    }

    /// Returns an error unless the result-relevant keys of `config` are equal on all ranks. The error names the keys
    /// that differ.
    pub fn same_config<C: Config>(&mut self, config: &C) -> Result<()> {
        let ranks = &mut *self.ranks;
        let all = ranks.gather("the config", deciding(config).as_bytes())?;
        let Some(rank) = all.iter().position(|of| *of != all[0]) else { return Ok(()) };
        let [theirs, first] =
            [rank, 0].map(|rank| serde_json::from_slice::<Map<String, Value>>(&all[rank]).unwrap_or_default());
        let keys = first.keys().chain(theirs.keys().filter(|key| !first.contains_key(*key)));
        let differ: Vec<&String> = keys.filter(|key| first.get(*key) != theirs.get(*key)).collect();
        let described = |of: &Map<String, Value>| -> String {
            let one = |key: &&String| format!("{key} {}", of.get(*key).unwrap_or(&Value::Null));
            differ.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let expected = format!("{}, as {}", described(&first), ranks.name(0));
        Err(Error::input(format!("the config of {}", ranks.name(rank)), described(&theirs), expected))
    }

    /// Returns an error unless the run directory is the same folder for all ranks, because all ranks must find the
    /// files that rank 0 writes.
    pub fn same_folder(&mut self) -> Result<()> {
        const NAME: &str = ".ranks";
        const PATIENCE: Duration = Duration::from_secs(30);
        let path = self.args.out.join(NAME);
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let mut token = String::new();
        if self.ranks.rank() == 0 {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            token = format!("{} {}", std::process::id(), since.as_nanos());
            files::write(&path, token.as_bytes())?;
        }
        let all = self.ranks.await_all("the run directory", token.as_bytes())?;
        // A network file system may show a new file after a delay.
        let begun = Instant::now();
        let is_same = || files::read(&path).is_ok_and(|found| found == all[0]);
        while !is_same() {
            if begun.elapsed() >= PATIENCE {
                let found = format!("a different folder than on {}", self.ranks.name(0));
                return Err(Error::input(&self.args.out, found, "one folder that all ranks share"));
            }
            std::thread::sleep(PATIENCE / 60);
        }
        Ok(())
    }

    /// Opens the run directory on rank 0. Returns `None` on the other ranks.
    pub fn open<C: Config>(&self, config: &C) -> Result<Option<RunDir>> {
        self.context.leads().then(|| RunDir::open(self.args, config, self.context)).transpose()
    }

    /// Runs `work` in the run directory `dir` unless rank 0 finds that the run is finished. Then prints the path of its
    /// `result`.
    pub fn finish<C: Config>(
        &mut self,
        dir: Option<RunDir>,
        config: &C,
        result: &Path,
        is_finished: impl FnOnce() -> bool,
        work: impl FnOnce(&mut dyn Ranks) -> Result<()>,
    ) -> Result<()> {
        self.same_folder()?;
        let context = self.context;
        if ranks::first_finds(self.ranks, "whether the run is finished", is_finished)? {
            context.say(&format!("{} is finished: nothing to do", self.args.out.display()));
        } else {
            dir.iter().try_for_each(|dir| dir.begin(config, context))?;
            work(self.ranks)?;
        }
        if context.leads() { print(&format!("{}\n", result.display())) } else { Ok(()) }
    }
}
