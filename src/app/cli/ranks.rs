//! The ranks of a command: started by a launcher, or by `--gpus` on this machine.

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use omr_base::error::{Error, Result};
use omr_base::identity;
use omr_runtime::ranks::{self, Launcher, Lookup, Place, SECRET_VARIABLE, Secret};

/// Environment variable with the id of the process that started this rank because of `--gpus`. If the rank's parent has
/// another id, that process has ended.
const PARENT: &str = "OMR_RANKS_OF";

/// Time that rank 0 waits for the ranks that it started, after its own part of the run has succeeded. Then it kills
/// them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time that rank 0 waits for the ranks that it started, after its own part of the run has failed.
const LESS_PATIENCE: Duration = Duration::from_secs(3);

/// Position of this process among the processes of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RankRole {
    /// A process started by a launcher.
    Launched(Place),
    /// Rank 0 of this number of ranks. It starts the other ranks itself.
    Starts(usize),
}

impl RankRole {
    /// The only process.
    pub const ALONE: RankRole = RankRole::Starts(1);

    /// Determines the position from `--gpus` and the environment.
    pub fn of(gpus: Option<usize>, env: Lookup) -> Result<RankRole> {
        let place = Place::of(env)?;
        match (gpus, place) {
            (None, Some(place)) => Ok(RankRole::Launched(place)),
            (ranks, None) => Ok(RankRole::Starts(ranks.unwrap_or(1))),
            (Some(ranks), Some(place)) => {
                let found = format!("{ranks}, in one of {} processes started by {}", place.size, place.launcher.name());
                Err(Error::input("--gpus", found, "no --gpus, because a launcher has already started the ranks"))
            }
        }
    }

    /// Returns the rank of this process.
    pub fn rank(&self) -> usize {
        match self {
            RankRole::Launched(place) => place.rank,
            _ => 0,
        }
    }

    /// Returns the number of processes of the run on this machine, which share its CPUs.
    pub fn local_ranks(&self) -> usize {
        match self {
            RankRole::Launched(place) => place.local_size,
            RankRole::Starts(ranks) => *ranks,
        }
    }

    /// Returns the number of processes of the run on this machine, which share its memory. Slurm gives each process its
    /// own CPUs, but not its own memory.
    pub fn memory_ranks(&self) -> usize {
        match self {
            RankRole::Launched(place) if place.launcher == Launcher::Slurm => {
                most_tasks(&std::env::var("SLURM_STEP_TASKS_PER_NODE").unwrap_or_default()).unwrap_or(1)
            }
            _ => self.local_ranks(),
        }
    }

    /// Returns the index of this process's GPU among `gpus` GPUs.
    pub fn gpu(&self, gpus: usize) -> Result<usize> {
        match self {
            // Slurm and Open MPI can be configured to show each process only its own GPU.
            RankRole::Launched(place) if gpus == 1 && place.launcher != Launcher::Torchrun => Ok(0),
            RankRole::Launched(place) if place.local_rank < gpus => Ok(place.local_rank),
            RankRole::Launched(place) => {
                let found = format!("local rank {} and {gpus} GPU(s)", place.local_rank);
                Err(Error::input("the local rank", found, "one GPU for each rank on the machine"))
            }
            RankRole::Starts(ranks) if *ranks > gpus.max(1) => {
                let expected = format!("at most {gpus}, the number of GPUs of this machine");
                Err(Error::input("--gpus", ranks.to_string(), expected))
            }
            RankRole::Starts(_) => Ok(0),
        }
    }
}

/// Ranks that this process has started.
#[derive(Default)]
pub struct Started(Mutex<Vec<(usize, Child)>>);

impl Started {
    /// Starts the ranks from 1 to `ranks` as this program with the same arguments. They connect to `listener` and
    /// receive the run's `secret`.
    pub fn start(&self, ranks: usize, listener: &TcpListener, secret: &Secret) -> Result<Place> {
        let failed = |e: std::io::Error| Error::Failed(format!("--gpus {ranks}: {e}"));
        let port = listener.local_addr().map_err(failed)?.port();
        // The ranks connect to the port after MASTER_PORT.
        let master_port = (port - 1).to_string();
        let (program, parent) = (std::env::current_exe().map_err(failed)?, std::process::id().to_string());
        let (arguments, size) = (without_gpus(std::env::args_os().skip(1)), ranks.to_string());
        let secret = secret.text()?;
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for rank in 1..ranks {
            let number = rank.to_string();
            let variables = [
                ("RANK", number.as_str()),
                ("WORLD_SIZE", &size),
                ("LOCAL_RANK", &number),
                ("LOCAL_WORLD_SIZE", &size),
                ("MASTER_ADDR", "127.0.0.1"),
                ("MASTER_PORT", &master_port),
                ("TORCHELASTIC_RUN_ID", &parent),
                (SECRET_VARIABLE, &secret),
                (PARENT, &parent),
            ];
            let mut command = Command::new(&program);
            let command = command.args(&arguments).envs(variables).stdin(Stdio::null()).stdout(Stdio::null());
            started.push((rank, command.spawn().map_err(failed)?));
        }
        let (rank, local_rank, size, local_size) = (0, 0, ranks, ranks);
        let (address, port, round) = ("127.0.0.1".to_owned(), Some(port), restarts()?);
        let launcher = Launcher::Torchrun;
        Ok(Place { rank, size, local_rank, local_size, address, port, round, run: parent, launcher })
    }

    /// Returns an error if one of these ranks has ended. The rank itself has printed the reason.
    pub fn check(&self) -> Result<()> {
        for (rank, child) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Ok(Some(status)) = child.try_wait() {
                let exit_code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
                let what = format!("rank {rank} (process {}) has ended during the start: {status}", child.id());
                return Err(Error::Rank { what, exit_code: exit_code.unwrap_or(1), reported: false });
            }
        }
        Ok(())
    }

    /// Kills all ranks that this process has started.
    pub fn kill(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(|(_, child)| drop(child.kill()));
    }

    /// Waits until all these ranks have ended, and kills the ranks that do not end in time. `is_well` is true if this
    /// process has succeeded; it then waits longer. Returns an error if a rank has failed.
    pub fn end(&self, is_well: bool) -> Result<()> {
        let deadline = Instant::now() + if is_well { PATIENCE } else { LESS_PATIENCE };
        let mut bad = None;
        for (rank, mut child) in std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            let status = loop {
                match child.try_wait() {
                    Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                    Ok(None) => {
                        let _ = child.kill();
                        break child.wait();
                    }
                    Ok(Some(status)) => break Ok(status),
                    Err(error) => break Err(error),
                }
            };
            let what = |how: String| format!("rank {rank} (process {}) {how}", child.id());
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => bad = bad.or(Some(what(format!("has ended: {status}")))),
                Err(error) => bad = bad.or(Some(what(error.to_string()))),
            }
        }
        bad.map_or(Ok(()), |what| Err(Error::Failed(what)))
    }
}

/// Returns how often a launcher has restarted this process's run.
pub fn restarts() -> Result<u64> {
    ranks::restarts(&|name| std::env::var(name).ok())
}

/// Returns an error if the process that started this rank because of `--gpus` has ended. That process is rank 0, so the
/// ranks cannot connect without it.
pub fn has_parent() -> Result<()> {
    let is_other = |parent: &String| *parent != std::os::unix::process::parent_id().to_string();
    let gone = std::env::var(PARENT).ok().filter(is_other);
    gone.map_or(Ok(()), |parent| Err(Error::Failed(format!("rank 0 (process {parent}) is gone"))))
}

/// Identifies the program, which must be the same on all ranks: its version and the hash of its file.
pub fn program() -> Result<String> {
    Ok(format!("omr {} {}", env!("CARGO_PKG_VERSION"), &identity::hash("/proc/self/exe".as_ref())?[..16]))
}

/// Returns `arguments` without `--gpus N`.
fn without_gpus(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut out, mut skip, mut flags) = (Vec::new(), false, true);
    for argument in arguments {
        let text = argument.to_string_lossy();
        let is_gpus = flags && (text == "--gpus" || text.starts_with("--gpus="));
        flags &= text != "--";
        if !std::mem::replace(&mut skip, text == "--gpus" && is_gpus) && !is_gpus {
            out.push(argument);
        }
    }
    out
}

/// Returns the largest number of tasks of a node, which Slurm writes as `8(x2),4`.
fn most_tasks(text: &str) -> Option<usize> {
    text.split(',').filter_map(|of_nodes| of_nodes.split('(').next()?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank_role(gpus: Option<usize>, size: &str) -> Result<RankRole> {
        RankRole::of(gpus, &|name| match name {
            "WORLD_SIZE" => Some(size.to_owned()),
            "RANK" | "LOCAL_RANK" => Some("1".to_owned()).filter(|_| size != "1"),
            "MASTER_ADDR" => Some("node-1".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn one_starts_the_ranks_and_not_two() {
        assert_eq!(rank_role(None, "1").unwrap(), RankRole::ALONE);
        assert_eq!(rank_role(Some(1), "1").unwrap(), RankRole::ALONE);
        assert_eq!(rank_role(Some(4), "1").unwrap(), RankRole::Starts(4));
        assert_eq!(rank_role(None, "2").unwrap().rank(), 1);
        let text = rank_role(Some(4), "2").unwrap_err().to_string();
        assert!(text.starts_with("--gpus: found 4, in one of 2 processes started by torchrun"), "{text}");
    }

    #[test]
    fn each_rank_has_a_gpu() {
        let launched = rank_role(None, "4").unwrap();
        assert_eq!(launched.gpu(4).unwrap(), 1);
        assert!(launched.gpu(1).is_err());
        assert_eq!(RankRole::Starts(4).gpu(4).unwrap(), 0);
        assert!(RankRole::Starts(4).gpu(2).unwrap_err().to_string().contains("at most 2"));
        let RankRole::Launched(place) = launched else { panic!("not launched") };
        assert_eq!(RankRole::Launched(Place { launcher: Launcher::Slurm, ..place }).gpu(1).unwrap(), 0);
    }

    #[test]
    fn tasks_of_slurm_share_the_memory_of_their_node() {
        assert_eq!(["8", "2,8(x2)", ""].map(most_tasks), [Some(8), Some(8), None]);
    }

    #[test]
    fn the_ranks_arguments_are_the_same_less_their_number() {
        let cut = |text: &str| {
            let out = without_gpus(text.split(' ').map(OsString::from));
            out.into_iter().map(|a| a.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(cut("sft a.yaml --gpus 4 --out x seed=7"), "sft a.yaml --out x seed=7");
        assert_eq!(cut("--threads 2 sft --gpus=4 a.yaml"), "--threads 2 sft a.yaml");
        assert_eq!(cut("sft --out --gpusx a.yaml -- --gpus 4"), "sft --out --gpusx a.yaml -- --gpus 4");
    }
}
