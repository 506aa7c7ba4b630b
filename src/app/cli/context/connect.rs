//! Connects the ranks of a command, and tells them of a fault before they have met.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::super::ranks::{self, RankRole};
use super::super::stdout::divert_libraries;
use super::{Context, report};
use omr_base::config::{Backend, DistConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::bytes;
use omr_base::signal;
use omr_runtime::device::cuda::{self, Cuda};
use omr_runtime::device::emu::{Emu, Options};
use omr_runtime::device::nccl::{self, Library};
use omr_runtime::device::{Driver, Kind};
use omr_runtime::ranks::{
    Launcher, Nccl, OneRank, Place, Ranks, SECRET_VARIABLE, Secret, Start, Tcp, report_failure, reserve_files,
    tell_early,
};

impl Context {
    /// Connects the ranks of the run in `dir`: those that a launcher has started, or those that `--gpus` requests,
    /// which are started here.
    pub fn ranks(&self, dir: &Path, config: &DistConfig) -> Result<Box<dyn Ranks>> {
        let checked = || {
            let found = if self.rank_role == RankRole::ALONE { Ok(()) } else { self.find_device() };
            found.and_then(|()| self.is_nccl(config))
        };
        // A rank that a launcher has started first meets the others, so that they hear of its faults.
        let is_launched = matches!(self.rank_role, RankRole::Launched(_));
        let with_nccl = (!is_launched).then(checked).transpose()?;
        reserve_files(self.rank_role.size())?;
        let secret = &self.secret(dir)?;
        if self.leads() {
            secret.text()?;
        }
        let (place, listener) = match &self.rank_role {
            RankRole::Starts(1) if config.backend != Backend::Nccl => return Ok(Box::new(OneRank::ALONE)),
            RankRole::Launched(place) => (place.clone(), None),
            RankRole::Node(place) => {
                let port = config.port.map(|port| port as u16).or(place.port);
                let place = Place { port, ..place.clone() };
                self.started.start(&place, None)?;
                (place, None)
            }
            RankRole::Starts(ranks) => {
                let port = config.port.map_or(0, |port| port as u16);
                let failed = |e| Error::input("dist.port", format!("{port} ({e})"), "a free port");
                let listener = TcpListener::bind(("127.0.0.1", port)).map_err(failed)?;
                let port = Some(listener.local_addr().map_err(failed)?.port());
                let (rank, local_rank, size, local_size) = (0, 0, *ranks, *ranks);
                let (address, round, run) =
                    ("127.0.0.1".to_owned(), ranks::restarts()?, std::process::id().to_string());
                let launcher = Launcher::Omr;
                let place = Place { rank, size, local_rank, local_size, address, port, round, run, launcher };
                self.started.start(&place, Some(secret))?;
                (place, Some(listener))
            }
        };
        self.has_met.store(true, Ordering::Relaxed);
        // If the start fails, the ranks started here are killed, because they might wait for this process.
        let start = |start: Start| Tcp::start(Start { listener, ..start }).inspect_err(|_| self.started.kill());
        let mut tcp = self.meeting(&place, secret, config, start)?;
        match with_nccl.map_or_else(checked, Ok) {
            Err(error) => Err(report_failure(&mut tcp, error)),
            Ok(false) => Ok(Box::new(tcp)),
            Ok(true) => {
                // NCCL writes the lines of NCCL_DEBUG to stdout, where the command writes its result.
                divert_libraries()?;
                let ranks = Nccl::start(tcp, || Ok((Library::find()?, self.without_kernels()?)))?;
                let taken = bytes(ranks.taken);
                self.say(&format!("ranks exchange tensors with NCCL, which uses {taken} of GPU memory"));
                let _ = self.taken.set(ranks.taken);
                Ok(Box::new(ranks))
            }
        }
    }

    /// Passes everything that the rank at `place` needs to find the others to `act`.
    fn meeting<T>(
        &self,
        place: &Place,
        secret: &Secret,
        config: &DistConfig,
        act: impl FnOnce(Start) -> Result<T>,
    ) -> Result<T> {
        let stop = signal::requested().unwrap_or_default();
        let stopped = || if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) };
        let waiting = || stopped().and_then(|()| self.started.check()).and_then(|()| ranks::has_parent());
        let (console, rank) = (self.console.clone(), place.rank);
        let end = Box::new(move |error: &Error| {
            report(&console, error, rank);
            signal::exit(error.exit_code());
        });
        let say = |text: &str| {
            if !self.global.quiet {
                self.console.note_of_rank(text)
            }
        };
        let (program, stop, listener) = (ranks::program()?, stop.clone(), None);
        act(Start { place, listener, secret, program, config, stop, end, waiting: &waiting, say: &say })
    }

    /// If this rank fails with `error` before it has met the others, tells them, because they would wait for it.
    pub(crate) fn tell_early(&self, error: &Error) {
        let Some(place) = self.rank_role.place().filter(|_| !self.has_met.load(Ordering::Relaxed)) else { return };
        // The config with another port may be what cannot be read. Notices need no secret.
        let (config, secret) = (DistConfig::default(), Secret::Given(String::new()));
        let told = self.meeting(place, &secret, &config, |start| tell_early(&start, error));
        told.unwrap_or_else(|error| tracing::debug!("the other ranks were not told: {error}"));
    }

    /// Returns the run secret: from the environment, generated by rank 0 for the ranks that it starts, or from a file
    /// in the run directory `dir`.
    fn secret(&self, dir: &Path) -> Result<Secret> {
        match (std::env::var(SECRET_VARIABLE).ok().filter(|text| !text.is_empty()), self.rank_role.place()) {
            (Some(text), _) => Ok(Secret::Given(text)),
            (None, Some(Place { rank: 0, .. })) => Secret::made(dir),
            (None, Some(_)) => Ok(Secret::of(dir)),
            (None, None) => Secret::random(),
        }
    }

    /// True if ranks exchange tensors with NCCL.
    fn is_nccl(&self, config: &DistConfig) -> Result<bool> {
        let refused = |hint: &str| {
            let found = format!("nccl with --device {}", self.kind().name());
            Err(Error::input_hint("dist.backend", found, "auto or tcp on a machine without a GPU", hint))
        };
        match (config.backend, self.kind()) {
            (Backend::Tcp, _) => Ok(false),
            (Backend::Auto, kind) => Ok(kind == Kind::Cuda),
            (Backend::Nccl, Kind::Cpu) => refused("NCCL only transfers GPU memory"),
            // The memory of the emulated GPU is host memory, which NVIDIA's NCCL does not support.
            (Backend::Nccl, Kind::Emu) if std::env::var_os(nccl::PATH).is_none() => {
                refused(&format!("set {} to a library that supports the memory of the emulated GPU", nccl::PATH))
            }
            (Backend::Nccl, _) => Ok(true),
        }
    }

    /// Opens this rank's GPU without omr's kernels, for a library that contains its own.
    fn without_kernels(&self) -> Result<Box<dyn Driver>> {
        match self.kind() {
            Kind::Cuda => Ok(Box::new(Cuda::open(self.rank_role.gpu(cuda::find()?.len())?, &[])?)),
            _ => Ok(Box::new(Emu::new(Options { shadow: false, ..Options::default() })?)),
        }
    }
}
