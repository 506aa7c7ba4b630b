//! Determines the rank of this process and the number of ranks, from the environment variables that its launcher sets.
//! The variables are read as documented in the launchers' manuals.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use omr_base::error::{Error, Result};

/// Function that reads an environment variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The program that started the ranks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Launcher {
    /// torchrun, or any program that sets the same variables.
    Torchrun,
    /// Open MPI's mpirun.
    OpenMpi,
    /// Slurm's srun.
    Slurm,
    /// Hydra, the mpiexec of MPICH and Intel MPI, or another launcher that supports PMI.
    Pmi,
    /// jsrun of IBM's LSF.
    Jsrun,
    /// omr itself, on each node.
    Omr,
}

/// The environment variables of a launcher: the rank, the number of ranks, the rank among the processes of one machine,
/// and the number of processes on one machine. Alternative names are separated by blanks; the first variable that is
/// set counts.
struct Variables {
    launcher: Launcher,
    name: &'static str,
    names: [&'static str; 4],
}

/// The supported launchers. torchrun, Open MPI and Hydra may run under Slurm. Slurm's variables then describe their
/// daemons.
///
/// SLURM_STEP_NUM_TASKS is set only for tasks of srun. In a batch script or an interactive shell, SLURM_PROCID is 0 and
/// SLURM_NTASKS is the requested number, although no other task was started. Slurm gives each process its own CPUs, so
/// its processes do not share CPUs.
const LAUNCHERS: [Variables; 5] = {
    use Launcher::*;
    const TORCHRUN: [&str; 4] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"];
    const OPEN_MPI: [&str; 4] =
        ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"];
    const SLURM: [&str; 4] = ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""];
    const PMI: [&str; 4] = ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID PMI_LOCAL_RANK", "MPI_LOCALNRANKS PMI_LOCAL_SIZE"];
    const JSRUN: [&str; 4] =
        ["JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_LOCAL_SIZE"];
    [
        Variables { launcher: Torchrun, name: "torchrun", names: TORCHRUN },
        Variables { launcher: OpenMpi, name: "Open MPI", names: OPEN_MPI },
        Variables { launcher: Slurm, name: "Slurm", names: SLURM },
        Variables { launcher: Pmi, name: "Hydra", names: PMI },
        Variables { launcher: Jsrun, name: "jsrun", names: JSRUN },
    ]
};

/// Name and variables of each launcher that is refused. PMIx comes last, because Slurm and Open MPI also set its
/// variable.
const REFUSED: [[&str; 2]; 3] =
    [["PALS", "PALS_RANKID PALS_SIZE"], ["Flux", "FLUX_TASK_RANK FLUX_JOB_SIZE"], ["PMIx", "PMIX_RANK"]];

/// Advice to users of a launcher that is not supported.
const HINT: &str = "set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each process";

impl Variables {
    /// Returns true if the variables give both rank and size. Slurm's variables are ignored if PMI_SIZE is another
    /// number, because they then describe the daemons of another launcher. RANK and WORLD_SIZE alone count nodes, not
    /// processes, unless there is only one; see `nodes.tsv`.
    fn tell(&self, env: Lookup) -> bool {
        let [rank, size, local_rank, local_size] = self.names.map(|names| value(env, names));
        let daemons = || value(env, "PMI_SIZE").is_some_and(|of_job| Some(of_job) != size);
        let is_complete = match self.launcher {
            Launcher::Torchrun => local_rank.or(local_size).is_some() || size.as_deref() == Some("1"),
            Launcher::Slurm => !daemons(),
            _ => true,
        };
        rank.is_some() && size.is_some() && is_complete
    }
}

impl Launcher {
    /// Returns the launcher's name for messages.
    pub fn name(self) -> &'static str {
        LAUNCHERS.iter().find(|of| of.launcher == self).map_or("omr", |of| of.name)
    }
}

/// The position of a process among the ranks of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Rank of this process, from 0.
    pub rank: usize,
    /// Number of processes of the run.
    pub size: usize,
    /// Rank of this process among those on its machine, from 0. It selects the GPU.
    pub local_rank: usize,
    /// Number of processes of the run on this machine. It is 1 under Slurm, which gives each process its own CPUs.
    pub local_size: usize,
    /// Address of rank 0.
    pub address: String,
    /// Port on which rank 0 listens, if the launcher gives one.
    pub port: Option<u16>,
    /// Number of times the run was restarted. Processes of different rounds do not belong together.
    pub round: u64,
    /// The launcher's name for the run, or empty if it has none. It distinguishes the run from another run that listens
    /// at the same port.
    pub run: String,
    /// The launcher whose variables were read.
    pub launcher: Launcher,
}

impl Place {
    /// Reads the position of this process from `env`. Returns `None` if it is the only process. Errors if a launcher
    /// has started several processes but is not supported or does not give the rank of this process.
    pub fn of(env: Lookup) -> Result<Option<Place>> {
        let of = LAUNCHERS.iter().find(|of| of.tell(env));
        check_supported(of.map(|of| of.launcher), env)?;
        let Some(of) = of else { return alone(env).map(|()| None) };
        let [rank, size, local_rank, local_size] = of.names;
        let size = number(env, size, 1..=1 << 20)?;
        if size == 1 {
            return Ok(None);
        }
        let [rank, local_rank] = [number(env, rank, 0..=size - 1)?, number(env, local_rank, 0..=size - 1)?];
        let local_size = optional(env, local_size, 1..=size)?.unwrap_or(1);
        let [rank, size, local_rank, local_size] = [rank, size, local_rank, local_size].map(|number| number as usize);
        let (address, port, run) = match of.launcher {
            Launcher::Slurm => slurm(env)?,
            // torchrun itself uses MASTER_PORT, so the ranks meet at the next port.
            _ => (address(env)?, port(env)?, env("TORCHELASTIC_RUN_ID").unwrap_or_default()),
        };
        let (round, launcher) = (restarts(env)?, of.launcher);
        Ok(Some(Place { rank, size, local_rank, local_size, address, port, round, run, launcher }))
    }
}

/// Errors if a launcher that is not supported has started several processes. `launcher` is the one whose variables are
/// complete: Flux and PALS also set those of PMI.
fn check_supported(launcher: Option<Launcher>, env: Lookup) -> Result<()> {
    let refused = match launcher {
        Some(Launcher::Torchrun | Launcher::OpenMpi) => return Ok(()),
        Some(_) => &REFUSED[..2],
        None => &REFUSED[..],
    };
    let is_alone = value(env, "PALS_SIZE FLUX_JOB_SIZE PMI_SIZE OMPI_COMM_WORLD_SIZE").is_some_and(|size| size == "1");
    let found = refused.iter().find(|[_, names]| !is_alone && value(env, names).is_some());
    found.map_or(Ok(()), |[name, _]| {
        let found = format!("{name}, which is not supported");
        Err(Error::input_hint("the launcher", found, "torchrun, Slurm, Open MPI, Hydra or jsrun", HINT))
    })
}

/// Errors if a launcher may have started several processes, although no launcher's variables give both rank and size. A
/// single variable of torchrun may come from a container, and Slurm sets its variables in shells too, so the variables
/// of these two launchers are not evidence of other processes.
fn alone(env: Lookup) -> Result<()> {
    let starts = |of: &&Variables| !matches!(of.launcher, Launcher::Torchrun | Launcher::Slurm);
    let names = LAUNCHERS.iter().filter(starts).flat_map(|of| of.names[..2].iter().flat_map(|names| names.split(' ')));
    let set = names.filter_map(|name| value(env, name).map(|value| format!("{name}={value}")));
    let found: BTreeSet<String> = set.filter(|set| !set.ends_with("SIZE=1")).collect();
    if found.is_empty() {
        return Ok(());
    }
    let found = found.into_iter().collect::<Vec<_>>().join(" ");
    Err(Error::input_hint("the environment", found, "the rank and the number of processes of one launcher", HINT))
}

/// Returns the address of rank 0 from MASTER_ADDR.
fn address(env: Lookup) -> Result<String> {
    let names = if value(env, "MASTER_PORT").is_some() { " MASTER_ADDR" } else { "s MASTER_ADDR and MASTER_PORT" };
    let (place, expected) = (format!("environment variable{names}"), "the address of rank 0's machine and a free port");
    let hint = "set them for all ranks: mpirun -x NAME=VALUE, mpiexec -genv NAME VALUE";
    value(env, "MASTER_ADDR").ok_or_else(|| Error::input_hint(place, "nothing", expected, hint)).map(|host| bare(&host))
}

/// Returns an address without the brackets that some launchers write around IPv6 addresses.
pub fn bare(address: &str) -> String {
    address.trim_matches(['[', ']']).to_owned()
}

/// Reads a variable of this process's environment; see [`find`].
pub fn environment(name: &str) -> Option<String> {
    find(
        name,
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    )
}

/// Returns the value of the variable `name`. In `name`, `*` stands for any text; the result is then `None` unless exactly
/// one variable matches.
pub fn find(name: &str, variables: impl Iterator<Item = (String, String)>) -> Option<String> {
    let is_named = |key: &str| match name.split_once('*') {
        Some((from, to)) => key.len() >= name.len() && key.starts_with(from) && key.ends_with(to),
        None => key == name,
    };
    let mut found = variables.filter(|(key, _)| is_named(key)).map(|(_, value)| value);
    found.next().filter(|_| found.next().is_none())
}

/// Returns the address of srun's task 0, a port on that machine, and the name of the step.
fn slurm(env: Lookup) -> Result<(String, Option<u16>, String)> {
    let job = number(env, "SLURM_JOB_ID", 0..=u64::MAX)?;
    let step = optional(env, "SLURM_STEP_ID", 0..=u64::MAX)?.unwrap_or(0);
    // Rank 0 runs on the step's first node. SLURM_LAUNCH_NODE_IPADDR is not used: it is the node on which srun was
    // called, which may be a login node.
    let address = match value(env, "MASTER_ADDR") {
        Some(address) => bare(&address),
        None => {
            const NAMES: &str = "SLURM_STEP_NODELIST SLURM_JOB_NODELIST";
            let (name, nodes) = first(env, NAMES).ok_or_else(|| nothing(NAMES, "the list of the job's nodes"))?;
            first_host(&nodes).ok_or_else(|| Error::input(name, nodes.as_str(), "a list such as node[01-04,7]"))?
        }
    };
    // The port is below the range that systems assign dynamically, and each step of a job has a different port. Two
    // jobs on the same node rarely have the same port. If they do, the name of the run distinguishes them.
    let derived = 10_000 + (job % 20_000 + step % 20_000 * 7919) % 20_000;
    Ok((address, port(env)?.or(u16::try_from(derived).ok()), format!("Slurm {job}.{step}")))
}

/// Returns how often torchrun has restarted the processes plus how often Slurm has restarted the job.
pub fn restarts(env: Lookup) -> Result<u64> {
    let count = |name| optional(env, name, 0..=u64::from(u32::MAX)).map(|count| count.unwrap_or(0));
    Ok(count("TORCHELASTIC_RESTART_COUNT")? + count("SLURM_RESTART_COUNT")?)
}

/// Returns the port after MASTER_PORT.
fn port(env: Lookup) -> Result<Option<u16>> {
    Ok(optional(env, "MASTER_PORT", 1..=u64::from(u16::MAX) - 1)?.map(|port| port as u16 + 1))
}

/// Returns the first of the variables `names` that is set, with its value.
fn first<'a>(env: Lookup, names: &'a str) -> Option<(&'a str, String)> {
    let set = |name: &'a str| env(name).map(|value| (name, value.trim().to_owned()));
    names.split(' ').filter_map(set).find(|(_, value)| !value.is_empty())
}

/// Returns the value of the first of the variables `names` that is set.
pub fn value(env: Lookup, names: &str) -> Option<String> {
    first(env, names).map(|(_, value)| value)
}

fn nothing(names: &str, expected: impl Into<String>) -> Error {
    Error::input(format!("environment variable {}", names.replace(' ', " or ")), "nothing", expected)
}

/// Returns the number in the first of the variables `names` that is set. Errors unless it is in `range`.
pub fn optional(env: Lookup, names: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
    let Some((name, value)) = first(env, names) else { return Ok(None) };
    let found = value.parse().ok().filter(|number| range.contains(number));
    let expected = || format!("a whole number from {} to {}", range.start(), range.end());
    found.map(Some).ok_or_else(|| Error::input(format!("environment variable {name}"), value.as_str(), expected()))
}

fn number(env: Lookup, names: &str, range: RangeInclusive<u64>) -> Result<u64> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    optional(env, names, range)?.ok_or_else(|| nothing(names, expected))
}

/// Returns the first host of a Slurm host list: `node01` for `node[01-04,7],login`. Returns `None` if the text is not
/// such a list.
fn first_host(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list.trim();
    // A name may have several brackets (`rack[1-2]n[01-16]`). The first number of each bracket gives the first host.
    while let Some(at) = rest.find(['[', ',']).filter(|&at| rest.as_bytes()[at] == b'[') {
        let (inside, after) = rest[at + 1..].split_once(']')?;
        let first = inside.split([',', '-']).next().filter(|first| first.bytes().all(|b| b.is_ascii_digit()))?;
        if first.is_empty() {
            return None;
        }
        host.push_str(&rest[..at]);
        host.push_str(first);
        rest = after;
    }
    host.push_str(rest.split(',').next()?);
    Some(host).filter(|host| !host.is_empty() && !host.contains(['[', ']', ' ']))
}
