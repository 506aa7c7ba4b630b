//! The ranks of a command: started by a launcher, or by `--gpus` on this machine.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use omr_base::error::{Error, Result};
use omr_base::identity;
use omr_runtime::ranks::{self, Launcher, Lookup, NodeFlags, Place, SECRET_VARIABLE, Secret};

/// Environment variable with the id of the process that started this rank because of `--gpus`. If the rank's parent has
/// another id, that process has ended. The flags about ranks are then addressed to that process.
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
    /// The first rank of one of several nodes. It starts the other ranks of its node itself.
    Node(Place),
    /// Rank 0 of this number of ranks. It starts the other ranks itself.
    Starts(usize),
}

impl RankRole {
    /// The only process.
    pub const ALONE: RankRole = RankRole::Starts(1);

    /// Determines the position from the flags and the environment.
    pub fn of(flags: &NodeFlags, env: Lookup) -> Result<RankRole> {
        match (Place::of(env)?, flags.given().join(" ")) {
            (Some(place), given) if given.is_empty() || env(PARENT).is_some() => Ok(RankRole::Launched(place)),
            (Some(place), given) => {
                let found = format!("{given}, in one of {} processes started by {}", place.size, place.launcher.name());
                let expected = "none of these flags, because a launcher has already started the ranks";
                Err(Error::input("the command line", found, expected))
            }
            (None, _) => {
                let place = flags.place(env)?;
                Ok(if place.size == place.local_size { RankRole::Starts(place.size) } else { RankRole::Node(place) })
            }
        }
    }

    /// Returns the position of this process in a run of several processes that it does not start alone.
    pub fn place(&self) -> Option<&Place> {
        match self {
            RankRole::Launched(place) | RankRole::Node(place) => Some(place),
            RankRole::Starts(_) => None,
        }
    }

    /// Returns the rank of this process.
    pub fn rank(&self) -> usize {
        self.place().map_or(0, |place| place.rank)
    }

    /// Returns the number of processes of the run.
    pub fn size(&self) -> usize {
        self.place().map_or(self.local_ranks(), |place| place.size)
    }

    /// Returns the number of processes of the run on this machine, which share its CPUs.
    pub fn local_ranks(&self) -> usize {
        match self {
            RankRole::Launched(place) | RankRole::Node(place) => place.local_size,
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
            RankRole::Starts(_) | RankRole::Node(_) if self.local_ranks() > gpus.max(1) => {
                let expected = format!("at most {gpus}, the number of GPUs of this machine");
                Err(Error::input("--gpus", self.local_ranks().to_string(), expected))
            }
            RankRole::Starts(_) | RankRole::Node(_) => Ok(0),
        }
    }
}

/// Ranks that this process has started.
#[derive(Default)]
pub struct Started(Mutex<Vec<(usize, Child)>>);

impl Started {
    /// Starts the other ranks of the node whose first rank is at `place`, as this program with the same arguments. They
    /// receive the run's `secret`, or find it as this process does.
    pub fn start(&self, place: &Place, secret: Option<&Secret>) -> Result<()> {
        let failed = |e: std::io::Error| Error::Failed(format!("--gpus {}: {e}", place.local_size));
        let (program, parent) = (std::env::current_exe().map_err(failed)?, std::process::id().to_string());
        let secret = secret.map(Secret::text).transpose()?.map(|text| (SECRET_VARIABLE, text));
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for local_rank in 1..place.local_size {
            let rank = place.rank + local_rank;
            let variables = [
                ("RANK", rank.to_string()),
                ("WORLD_SIZE", place.size.to_string()),
                ("LOCAL_RANK", local_rank.to_string()),
                ("LOCAL_WORLD_SIZE", place.local_size.to_string()),
                ("MASTER_ADDR", place.address.clone()),
                // The ranks connect to the port after MASTER_PORT.
                ("MASTER_PORT", (place.port.unwrap_or_default() - 1).to_string()),
                ("TORCHELASTIC_RUN_ID", place.run.clone()),
                (PARENT, parent.clone()),
            ];
            let mut command = Command::new(&program);
            let command = command.args(std::env::args_os().skip(1)).envs(variables).envs(secret.clone());
            started.push((rank, command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(failed)?));
        }
        Ok(())
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
    ranks::restarts(&ranks::environment)
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

/// Returns the largest number of tasks of a node, which Slurm writes as `8(x2),4`.
fn most_tasks(text: &str) -> Option<usize> {
    text.split(',').filter_map(|of_nodes| of_nodes.split('(').next()?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank_role(ranks: Option<usize>, size: &str) -> Result<RankRole> {
        RankRole::of(&NodeFlags { ranks, ..NodeFlags::default() }, &|name| match name {
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
        assert!(text.contains("found --gpus 4, in one of 2 processes started by torchrun"), "{text}");
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
}
